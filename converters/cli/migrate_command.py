"""The command `migrate`: weight norm in a state dict file, in another style."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import byte_bar, command, force_option, json_option, print_table, refuse_existing, say, warn

if TYPE_CHECKING:
    from converters.weight_norm.file_migration import MigrationReport

__all__ = ["migrate"]

STYLES = ["plain", "legacy", "parametrized"]
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
N_ROWS = 12
"""Renamed tensors shown, but by --dry-run, which shows all."""


@command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(STYLES), help="Style of the output.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write: .safetensors, .pt, .pth, .bin.")
@click.option(
    "--strip-prefix", default="", metavar="P", help="Take off names; module. and _orig_mod. go by themselves."
)
@click.option("--key", metavar="K", help="Where in a checkpoint the state dict is, as in model.generator.")
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Plain weights that get a norm. May be repeated. [default: every `weight`, if none has a norm]",
)
@click.option("--dim", default="0", metavar="N|none", show_default=True, help="Axis that such a new norm keeps.")
@click.option("--dtype", type=click.Choice([*DTYPES, *DTYPES.values()]), help="Cast floating tensors, after all else.")
@click.option("--dry-run", is_flag=True, help="Show what would be renamed, and write nothing.")
@force_option
@json_option
def migrate(
    source: Path,
    to: str,
    output: Path | None,
    strip_prefix: str,
    key: str | None,
    only: tuple[str, ...],
    dim: str,
    dtype: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Move weight norm in a state dict to another style.

    \b
    plain         weight
    legacy        weight_g, weight_v (torch.nn.utils.weight_norm)
    parametrized  parametrizations.weight.original0, .original1
                  (torch.nn.utils.parametrizations.weight_norm)

    Example: zoo migrate network.pt --to parametrized -o modern.safetensors
    """
    import torch

    from converters.weight_norm.file_migration import migrate_file

    if output is None and not dry_run:
        raise click.UsageError("where to? -o FILE, or --dry-run to look first")
    if only and to == "plain":
        raise click.UsageError("--only chooses weights that get a norm; with --to plain none does")
    if dim != "none" and not dim.isdecimal():
        raise click.BadParameter(f"takes an axis, as 0 or 1, or none; this is {dim!r}", param_hint="--dim")
    if output is not None and not dry_run:
        refuse_existing(output, force)
    with byte_bar("migrate") as progress:
        report = migrate_file(
            source,
            None if dry_run else output,
            to=to,
            only=only,
            dim=None if dim == "none" else int(dim),
            dtype=None if dtype is None else getattr(torch, DTYPES.get(dtype, dtype)),
            key=key,
            strip_prefix=strip_prefix,
            progress=progress,
        )
    written = None if dry_run else output
    if as_json:
        click.echo(json.dumps(_as_json(report, to, written)))
    else:
        _print_report(report, to, written)


def _as_json(report: "MigrationReport", to: str, output: Path | None) -> dict[str, object]:
    return {
        "from": report.plan.found,
        "to": to,
        "tensors": len(report.plan.outputs),
        "renamed": [[old.name, new.name] for old, new, _ in report.plan.renamed],
        "max_abs_diff": report.max_abs_diff,
        "output": None if output is None else str(output),
        "key": report.key,
        "stripped_prefix": report.stripped_prefix,
        "notes": report.notes,
        "warnings": report.warnings,
    }


def _print_report(report: "MigrationReport", to: str, output: Path | None) -> None:
    if report.key:
        say(f"note: the state dict is at {report.key!r}")
    if report.stripped_prefix:
        say(f"note: took {report.stripped_prefix!r} off the names")
    for note in report.notes:
        say(f"note: {note}")
    for warning in report.warnings:
        warn(warning)
    renamed = report.plan.renamed
    shown = renamed if output is None else renamed[:N_ROWS]
    if shown:
        print_table(
            ["old", "new", "what", "shape"],
            [[old.name, new.name, what, str(list(new.shape))] for old, new, what in shown],
            words=True,
        )
    if len(shown) < len(renamed):
        click.echo(f"... and {len(renamed) - len(shown)} more")
    click.echo(
        f"{report.plan.found} -> {to}: {len(report.plan.outputs)} tensors, {len(renamed)} renamed, "
        f"weights differ by at most {report.max_abs_diff:.3g}"
    )
    click.echo("nothing written" if output is None else f"wrote {output}")
