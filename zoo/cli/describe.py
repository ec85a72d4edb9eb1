"""Commands about specs: schema, check, build."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.options import PathArgument
from converters.cli.shared import command, force_option, json_option, refuse_existing
from specs.io import json_schema, load_spec
from specs.summary import summarize
from zoo.cli.shared import print_layers

if TYPE_CHECKING:
    pass

__all__ = ["build", "check", "schema"]


@command()
def schema() -> None:
    """Print the JSON Schema of a network spec, for editors.

    Example: zoo schema > network.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2))


@command()
@click.argument("spec")
@json_option
def check(spec: str, as_json: bool) -> None:
    """Validate SPEC, a YAML file or a name, and print its layer table.

    Weight bytes are of 8-bit weights; synops are synaptic operations a step if every input fires.

    Example: zoo check mnist-dense
    """
    network = load_spec(spec)
    if as_json:
        layers = [asdict(row) for row in summarize(network)]
        click.echo(json.dumps({"name": network.name, "time_steps": network.time_steps, "layers": layers}))
    else:
        print_layers(network)


@command()
@click.argument("spec")
@click.option("-o", "--output", required=True, type=PathArgument, help="Model file; the suffix names the format.")
@click.option("--seed", default=0, show_default=True, help="Of the fresh weights.")
@force_option
def build(spec: str, output: Path, seed: int, force: bool) -> None:
    """Build SPEC with fresh weights into a model file.

    Example: zoo build mnist-dense -o fresh.safetensors
    """
    from bootstrap_core.build import build_network
    from converters.formats import check_writable_format, write_model
    from converters.model import Model

    check_writable_format(output)
    refuse_existing(output, force)
    model = Model.of(build_network(load_spec(spec), seed=seed))
    click.echo(write_model(model, output))
