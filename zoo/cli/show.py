"""Commands about model files: show, verify."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.options import PathArgument
from converters.cli.shared import command, json_option, print_table
from zoo.cli.shared import print_layers, read_and_say

if TYPE_CHECKING:
    from converters.model import Model
    from converters.netx.layers import NetxFile

__all__ = ["show", "verify"]


@command()
@click.argument("source")
@click.option("--diff", "other", help="Another model: tell where its layers differ, in the integers of the hardware.")
@json_option
def show(source: str, other: str | None, as_json: bool) -> None:
    """Show a model file, or a spec: its layers, how it was trained, what it scores.

    Of a netx file: the integers that it holds, whatever its neurons are.

    Example: zoo show run/model.safetensors
    """
    from zoo.sources import is_netx, layers_of

    if other is not None:
        _show_difference(layers_of(source), layers_of(other), as_json)
    elif is_netx(source):
        _show_netx(layers_of(source), as_json)
    else:
        _show_model(read_and_say(source)[0], as_json)


@command()
@click.argument("source")
@click.option("--against", type=PathArgument, help="The file to compare with; by default those of its name beside it.")
@json_option
def verify(source: str, against: Path | None, as_json: bool) -> None:
    """Check a model: that it reads and builds, that both engines run it alike, and files of its name hold the same.

    A checkpoint network.pt beside network.net, say, or a model.net beside model.safetensors.

    Example: zoo verify network.net
    """
    from zoo.verification import verify_model

    checks = verify_model(source, against)
    failed = [check for check in checks if not check.passed]
    if as_json:
        click.echo(json.dumps({"model": source, "passed": not failed, "checks": [asdict(check) for check in checks]}))
    else:
        print_table(
            ["check", "", "found"], [[c.name, "ok" if c.passed else "FAILED", c.found] for c in checks], words=True
        )
    if failed:
        raise click.exceptions.Exit(1)


def _show_model(model: "Model", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"spec": model.spec.model_dump(mode="json"), "card": model.card}))
        return
    click.echo(_printable(f"{model.spec.name}: {model.spec.description}".rstrip(": ")))
    print_layers(model.spec)
    for topic, facts in model.card.items():
        if not isinstance(facts, dict):
            click.echo(_printable(f"\n{topic}: {facts}"))
            continue
        click.echo(_printable(f"\n{topic}"))
        for key, value in facts.items():
            shown = value
            if key == "epoch" and isinstance(value, int) and "epochs" in facts:
                shown = f"{value + 1} (of {facts['epochs']})"
            elif isinstance(value, dict):
                shown = ", ".join(f"{name} {fact}" for name, fact in value.items() if fact is not None)
            click.echo(_printable(f"  {key}: {shown}"))


def _printable(text: str) -> str:
    """A stranger's text, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _show_netx(file: "NetxFile", as_json: bool) -> None:
    from converters.netx.report import describe_layer, layer_header, layer_row, neuron_header, neuron_rows

    if as_json:
        layers = [describe_layer(layer) for layer in file.layers]
        spec = None if file.spec is None else json.loads(file.spec)
        click.echo(json.dumps({"time_steps": file.time_steps, "spec": spec, "layers": layers}))
        return
    print_table(layer_header(), [layer_row(i, layer) for i, layer in enumerate(file.layers)])
    click.echo()
    print_table(neuron_header(), neuron_rows(file), words=True)
    click.echo(f"\ntime steps: {file.time_steps or 'not said'}")
    if file.problems:
        click.echo(f"no network of CUBA blocks: {'; '.join(file.problems)}")


def _show_difference(a: "NetxFile", b: "NetxFile", as_json: bool) -> None:
    from converters.netx.report import differences

    found = list(differences(a, b))
    if as_json:
        click.echo(json.dumps({"same": not found, "differences": [asdict(one) for one in found]}))
    elif found:
        print_table(
            ["layer", "what", "difference"],
            [["" if d.layer is None else f"{d.layer} {_kind(a, b, d.layer)}", d.what, d.text] for d in found],
            words=True,
        )
    else:
        click.echo("the same in every layer")


def _kind(a: "NetxFile", b: "NetxFile", index: int) -> str:
    return (a if index < len(a.layers) else b).layers[index].kind
