"""The command `migrate`: rewrite weight norm in a state dict file in another style."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.cli.console import (
    byte_bar,
    command,
    echo,
    force_option,
    json_option,
    json_text,
    print_table,
    refuse_existing,
    say,
    warn,
)
from converters.cli.usage import Rule
from specs.words import counted

if TYPE_CHECKING:
    from converters.file_migration import MigrationReport

STYLES = ["plain", "legacy", "parametrized"]
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
N_ROWS = 12
"""Number of renamed tensors that are shown after writing; --dry-run shows all."""


def _parse_axis(context: click.Context, parameter: click.Parameter, text: str) -> int | None:
    if text != "none" and not text.isdecimal():
        raise click.BadParameter(f"must be an axis, such as 0 or 1, or none; got {text!r}")
    return None if text == "none" else int(text)


@command(
    rules=(
        Rule("", "no file to write is named, nor --dry-run to look first", needs=("-o", "--dry-run")),
        Rule("--only", "names weights that get a norm, and --to plain removes norms", excludes=("--to plain",)),
    )
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(STYLES), help="Style of weight norm in the output, see above.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write: .safetensors, .pt, .pth or .bin.")
@click.option(
    "--strip-prefix",
    default="",
    metavar="P",
    help="Prefix to remove from tensor names. module. and _orig_mod. are removed anyway.",
)
@click.option(
    "--key",
    metavar="K",
    help="Key of the state dict inside a checkpoint, as in model.generator. [default: found, if there is only one]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Plain weights that get a norm, as in 'layer1.*'. May be repeated. [default: every weight of two axes or more "
    "if the file has no weight norm, else none]",
)
@click.option(
    "--dim",
    default="0",
    callback=_parse_axis,
    metavar="N|none",
    show_default=True,
    help="Axis that a new norm keeps, with a magnitude for each index; none: one magnitude for the whole weight.",
)
@click.option(
    "--dtype", type=click.Choice([*DTYPES, *DTYPES.values()]), help="Type of floating-point tensors in the output."
)
@click.option(
    "--keep-wrapper",
    is_flag=True,
    help="Write the whole checkpoint, with the new state dict in its place, for programs that read it by its key.",
)
@click.option("--dry-run", is_flag=True, help="Show all tensors that would be renamed; write nothing.")
@force_option
@json_option
def migrate(
    source: Path,
    to: str,
    output: Path | None,
    dtype: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Rewrite weight norm in a state dict in another style.

    SOURCE is any torch state dict or checkpoint: .pt, .pth, .bin or .safetensors. Effective weights are compared before
    and after. The styles of --to are:

    \b
    plain         weight
    legacy        weight_g, weight_v (torch.nn.utils.weight_norm)
    parametrized  parametrizations.weight.original0, .original1
                  (torch.nn.utils.parametrizations.weight_norm)

    Example: zoo migrate network.pt --to parametrized -o modern.safetensors
    """
    import torch

    from converters.file_migration import migrate_file

    written = None if dry_run else output
    if written is not None:
        refuse_existing(written, force)
    torch_dtype = None if dtype is None else getattr(torch, DTYPES.get(dtype, dtype))
    with byte_bar("migrate") as progress:
        report = migrate_file(source, written, to=to, dtype=torch_dtype, progress=progress, **options)
    if as_json:
        echo(json_text({**report.as_json(), "to": to, "output": None if written is None else str(written)}))
    else:
        _print_report(report, to, written)


def _print_report(report: "MigrationReport", to: str, output: Path | None) -> None:
    if report.key:
        say(f"note: the state dict was found under the key {report.key!r}")
    if report.stripped_prefix:
        say(f"note: the prefix {report.stripped_prefix!r} was removed from the names")
    for note in report.notes:
        say(f"note: {note}")
    warn(*report.warnings)
    renamed = report.plan.renamed
    shown = renamed if output is None else renamed[:N_ROWS]
    if shown:
        print_table(
            ["old name", "new name", "change", "shape"],
            [[old.name, new.name, what, str(list(new.shape))] for old, new, what in shown],
            words=True,
        )
    if len(shown) < len(renamed):
        echo(f"... and {len(renamed) - len(shown)} more")
    echo(
        f"{report.plan.found} -> {to}: {counted(len(report.plan.outputs), 'tensor')}, {len(renamed)} renamed, "
        f"weights differ by at most {report.max_abs_diff:.3g}"
    )
    echo("nothing written" if output is None else f"wrote {output}")
