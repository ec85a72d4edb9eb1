"""Commands that describe: schema, check, show, build."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.shared import command, force_option, json_option, print_table, refuse_existing
from specs.io import json_schema, load_spec
from specs.summary import summarize
from zoo.cli.shared import PathArgument

if TYPE_CHECKING:
    from specs.network import NetworkSpec

__all__ = ["build", "check", "schema", "show"]


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
        _print_layers(network)


@command()
@click.argument("source")
@json_option
def show(source: str, as_json: bool) -> None:
    """Show a model file, or a spec: its layers, how it was trained, what it scores.

    Example: zoo show run/model.safetensors
    """
    from zoo.sources import read_source

    model, _ = read_source(source)
    if as_json:
        click.echo(json.dumps({"spec": model.spec.model_dump(mode="json"), "card": model.card}))
        return
    click.echo(f"{model.spec.name}: {model.spec.description}".rstrip(": "))
    _print_layers(model.spec)
    for topic, facts in model.card.items():
        click.echo(f"\n{topic}")
        for key, value in facts.items():
            shown = value
            if key == "epoch" and value is not None:
                shown = f"{value + 1} (of {facts['epochs']})"
            elif isinstance(value, dict):
                shown = ", ".join(f"{name} {fact}" for name, fact in value.items() if fact is not None)
            click.echo(f"  {key}: {shown}")


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


def _print_layers(network: "NetworkSpec") -> None:
    rows = summarize(network)
    total = [
        "total",
        "",
        *(f"{sum(getattr(row, key) for row in rows):,}" for key in ("parameters", "weight_bytes", "synops")),
    ]
    print_table(
        ["layer", "shape", "parameters", "weight bytes", "synops/step"],
        [
            [
                f"{i} {row.kind}",
                "x".join(map(str, row.shape)),
                f"{row.parameters:,}",
                f"{row.weight_bytes:,}",
                f"{row.synops:,}",
            ]
            for i, row in enumerate(rows)
        ]
        + [total],
    )
