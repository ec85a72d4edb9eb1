"""The command `demo`."""

from pathlib import Path

import click

from converters.cli.console import (
    command,
    echo,
    force_option,
    json_option,
    json_text,
    print_table,
    refuse_existing,
    say,
)
from converters.cli.options import PathArgument
from specs.words import percent


@command()
@click.option(
    "-o",
    "--output",
    "folder",
    type=PathArgument,
    default=Path("demo"),
    show_default=True,
    help="Folder to write into.",
)
@force_option
@json_option
def demo(folder: Path, force: bool, as_json: bool) -> None:
    """Score a model and convert an ANN in a minute, offline.

    Writes a trained model and scores it on embedded test images, converts an embedded ANN into a spiking network, and
    draws a page about each.

    Example: zoo demo -o demo
    """
    import torch

    from converters.formats.model_files import file_entry
    from zoo.demo import ANN, FILES, MODEL, run_demo

    for name in FILES:
        refuse_existing(folder / name, force)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    found = run_demo(folder, force=force, say=say)
    if as_json:
        score = {"time_steps": found.score.time_steps, "accuracy": found.score.accuracy}
        outputs = [file_entry(folder / name) for name in FILES]
        echo(json_text({MODEL: score, "conversion": found.conversion.report, "outputs": outputs}))
        return
    say("")
    rows = [
        [MODEL, f"T={found.score.time_steps}, integers", percent(found.score.accuracy)],
        [ANN, "ANN", percent(found.conversion.ann)],
    ]
    for t, accuracy in found.conversion.tuned.items():
        rows.append([ANN, f"T={t}, integers", "overflows" if accuracy is None else percent(accuracy)])
    print_table(["network", "run", "accuracy"], rows)
    echo()
    print_table(["file", "what it is"], [[str(folder / name), what] for name, what in FILES.items()], words=True)
