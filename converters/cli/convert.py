"""The command `convert`: any readable format to any writable one."""

import hashlib
import json
from pathlib import Path

import click

from converters.cli.shared import command, force_option, json_option, refuse_existing

__all__ = ["convert"]


@command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Where to write; the suffix names the format: .safetensors, .net, .hdf5. May be repeated.",
)
@force_option
@json_option
def convert(source: Path, outputs: tuple[Path, ...], force: bool, as_json: bool) -> None:
    """Write a model in other formats.

    Example: zoo convert run/model.safetensors -o model.net
    """
    from converters.formats import check_writable_format, read_model, write_model

    for output in outputs:
        check_writable_format(output)
        refuse_existing(output, force)
    model = read_model(source)
    written = []
    for output in outputs:
        write_model(model, output)
        digest = hashlib.sha256(output.read_bytes()).hexdigest()
        written.append({"path": str(output), "format": output.suffix[1:], "sha256": digest})
    if as_json:
        click.echo(json.dumps({"source": str(source), "outputs": written}))
    else:
        for entry in written:
            click.echo(entry["path"])
