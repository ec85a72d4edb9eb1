"""Commands about model files: show, verify."""

import json
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.options import PathArgument
from converters.cli.shared import command, force_option, json_option, print_table, refuse_existing
from zoo.cli.shared import print_layers, read_and_say

if TYPE_CHECKING:
    from converters.model import Model
    from converters.netx.layers import NetxFile

__all__ = ["show", "verify"]


@command()
@click.argument("source")
@click.option("--diff", "other", help="Another model: tell where its layers differ, in the integers of the hardware.")
@click.option("--graph", type=PathArgument, help="Draw the network into FILE.svg or FILE.html.")
@force_option
@json_option
def show(source: str, other: str | None, graph: Path | None, force: bool, as_json: bool) -> None:
    """Show a model file, or a spec: its layers, how it was trained, what it scores.

    Of a netx file: the integers that it holds, whatever its neurons are. A drawing has the integers of any network,
    and histograms of its weights.

    Example: zoo show run/model.safetensors --graph network.svg
    """
    from zoo.sources import is_netx, layers_of

    if graph is not None:
        if other is not None:
            raise click.UsageError("--graph draws one network, --diff compares two: use one at a time")
        _draw(source, graph, force, as_json)
    elif other is not None:
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


def _draw(source: str, path: Path, force: bool, as_json: bool) -> None:
    from converters.report.graph import graph_of_model, graph_of_netx, graph_page, graph_svg
    from specs.whole_file import write_whole
    from zoo.sources import is_netx, layers_of

    if path.suffix not in {".svg", ".html"}:
        raise click.UsageError(f"--graph takes FILE.svg or FILE.html; this is {str(path)!r}")
    refuse_existing(path, force)
    if is_netx(source):
        graph = graph_of_netx(layers_of(source), Path(source).name)
    else:
        model, trained = read_and_say(source)
        graph = graph_of_model(model, trained=trained)
    drawn = graph_svg(graph) if path.suffix == ".svg" else graph_page(graph)
    write_whole(path, drawn.encode())
    click.echo(json.dumps({"model": source, "output": str(path)}) if as_json else path)


def _show_model(model: "Model", as_json: bool) -> None:
    from converters.report.card import card_rows

    if as_json:
        click.echo(json.dumps({"spec": model.spec.model_dump(mode="json"), "card": model.card}))
        return
    click.echo(f"{model.spec.name}: {model.spec.description}".rstrip(": "))
    print_layers(model.spec)
    for topic, facts in groupby(card_rows(model.card), key=itemgetter(0)):
        click.echo(f"\n{topic}")
        for _, key, value in facts:
            click.echo(f"  {key}: {value}")


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
