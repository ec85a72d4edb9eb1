"""The command `convert`: any readable format to any writable one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from converters.cli.shared import command, force_option, json_option, refuse_existing, say_notes

__all__ = ["convert"]


def _hint_options(command: Any) -> Any:
    """Give a command the options that say what a file may not; it takes them as `hints`."""
    for option in (
        click.option("--spec", help="Spec of a lava-dl checkpoint: a YAML file, or a name."),
        click.option("--time-steps", type=click.IntRange(1, 4096), help="T, of a file that does not say its own."),
        click.option("--threshold", type=click.FloatRange(0, min_open=True), help="Of the neurons of a checkpoint."),
        click.option("--input-bits", type=click.IntRange(1, 16), help="Bits of a pixel, without input neurons."),
        click.option("--dt", type=click.FloatRange(0, min_open=True), help="Seconds of a step of a NIR graph."),
        click.option(
            "--time-constants", type=click.Choice(["euler", "exact"]), help="How a NIR graph's become decays."
        ),
        click.option("--reset", type=click.Choice(["zero", "subtract"]), help="What a spike does in a NIR graph."),
        click.option("--nodes-only", is_flag=True, default=None, help="Believe the nodes of a NIR graph of ours."),
        click.option("--mean", type=float, help="Mean that was subtracted from images in training."),
        click.option("--std", type=click.FloatRange(0, min_open=True), help="Deviation that they were divided by."),
    ):
        command = option(command)
    return command


@command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Where to write; the suffix names the format: .safetensors, .net, .hdf5, .nir. May be repeated.",
)
@_hint_options
@force_option
@json_option
def convert(
    source: Path,
    outputs: tuple[Path, ...],
    spec: str | None,
    force: bool,
    as_json: bool,
    **hints: Any,
) -> None:
    """Write a model in other formats.

    SOURCE is a model of snnzoo (.safetensors), a netx file (.net, .hdf5), a NIR graph (.nir), or a lava-dl checkpoint
    (.pt); its content tells which. The .net that lava-dl exported, beside a checkpoint, saves its --spec. NIR keeps
    neither the time step nor the reset: snnTorch's graphs want --dt 1e-4, norse's --dt 1e-6, sinabs' --dt 1
    --time-constants exact.

    Example: zoo convert network.pt -o network.safetensors -o network.net
    """
    from converters.formats import Hints, check_writable_format, read_model, write_model
    from converters.nir.neurons import TimeConstants
    from specs.io import load_spec
    from specs.neuron import Reset

    for output in outputs:
        check_writable_format(output)
        refuse_existing(output, force)
    for name, kind in (("time_constants", TimeConstants), ("reset", Reset)):
        hints[name] = hints[name] and kind(hints[name])
    model = read_model(source, Hints(spec=load_spec(spec) if spec else None, **hints))
    say_notes(model)
    written = []
    for output in outputs:
        write_model(model, output)
        digest = hashlib.sha256(output.read_bytes()).hexdigest()
        written.append({"path": str(output), "format": output.suffix[1:], "sha256": digest})
    if as_json:
        click.echo(json.dumps({"source": str(source), "notes": model.notes, "outputs": written}))
    else:
        for entry in written:
            click.echo(entry["path"])
