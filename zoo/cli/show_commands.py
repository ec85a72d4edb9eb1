"""The commands `show` and `verify`, which describe and check a model."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

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
from converters.cli.options import PathArgument, complete_models
from specs.errors import IntegrityError, SnnZooError
from zoo.cli.given_model import own_card, print_layers, read_and_say, say_fresh

if TYPE_CHECKING:
    from converters.chip.form import ChipForm
    from converters.model import Model
    from zoo.card import Card
    from zoo.runs.card_text import Section

WIDTH = 80


@command()
@click.argument("source", shell_complete=complete_models)
@click.option(
    "--diff",
    "other",
    shell_complete=complete_models,
    help="Second model: print the differences of its layers, in integers of the chip.",
)
@click.option("--graph", type=PathArgument, help="Draw the network into FILE.svg or FILE.html.")
@click.option("--markdown", is_flag=True, help="Print the card as Markdown.")
@click.option("--curves", type=PathArgument, help="Draw the learning curves of the card into FILE.png.")
@force_option
@json_option
def show(
    source: str,
    other: str | None,
    graph: Path | None,
    markdown: bool,
    curves: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show a model or a spec: layers, scores and training.

    SOURCE is a model file, a spec, or the name of a model or spec. The scores come from the model's card, which lies
    beside a file as model.yaml. A netx file is shown as the integers in it, also if its neurons are unknown to snnzoo.
    A drawing shows the integers of any network, and histograms of its weights.

    Example: zoo show mnist-dense --graph network.svg
    """
    from zoo.sources import is_netx, layers_of

    if graph is not None and other is not None:
        raise click.UsageError("--graph draws one network, --diff compares two: use one at a time")
    if (markdown or curves is not None) and (graph is not None or other is not None):
        raise click.UsageError("--markdown and --curves show a card, --graph and --diff show layers: use one at a time")
    if graph is not None:
        _draw(source, graph, force, as_json)
        return
    if markdown and as_json:
        raise click.UsageError("--markdown and --json print the same in two forms: use one at a time")
    card = own_card(source) if other is None else None
    if curves is not None:
        refuse_existing(curves, force)
        say(str(_plot_curves(_needed(card, source), curves)))
    if markdown:
        from zoo.runs.card_text import as_markdown

        echo(as_markdown(_needed(card, source), read_and_say(source)[0].spec), nl=False)
    elif other is not None:
        _show_difference(layers_of(source), layers_of(other), as_json)
    elif is_netx(source):
        _show_netx(source, as_json)
    else:
        _show_model(read_and_say(source)[0], card, as_json)


@command()
@click.argument("source", shell_complete=complete_models, required=False)
@click.option(
    "--against",
    type=PathArgument,
    help="File or card to compare with. [default: the card of SOURCE, and the files of its name beside it]",
)
@json_option
def verify(source: str | None, against: Path | None, as_json: bool) -> None:
    """Check a model, or all models of the package.

    Both engines must give the same spikes. Bytes, spec, and output on the golden images must agree with the card, to
    the last bit. Other model files of the same name beside SOURCE must hold the same integers, such as network.pt
    beside network.net, or model.net beside model.safetensors. So must C source, whose self-test is compiled and run if
    there is a C compiler ($CC, cc, gcc or clang) and the code is as snnzoo writes it. A netx file must hold only what
    Lava runs with the same integers. The exit code is 1 if a check fails.

    Example: zoo verify mnist-dense
    """
    from zoo.factory import model_names
    from zoo.runs.verification import verify_model
    from zoo.sources import read_source

    if source is None and against is not None:
        raise click.UsageError("--against compares one model: name it before --against")
    reports = []
    for name in model_names() if source is None else [source]:
        say_fresh(read_source(name)[1])
        checks = verify_model(name, against)
        passed = all(check.passed for check in checks)
        reports.append({"model": name, "passed": passed, "checks": [asdict(check) for check in checks]})
        if not as_json:
            rows = [[c.name, "skipped" if c.skipped else "ok" if c.passed else "FAILED", c.found] for c in checks]
            print_table(["check" if source else name, "result", "found"], rows, words=True)
    passed = all(report["passed"] for report in reports)
    if as_json:
        echo(json_text({"passed": passed, "models": reports} if source is None else reports[0]))
    if not passed:
        raise click.exceptions.Exit(1)


def _draw(source: str, path: Path, force: bool, as_json: bool) -> None:
    from converters.report.network_graph import graph_of_model, graph_of_netx, graph_page, graph_svg
    from specs.files.whole_file import write_whole
    from zoo.sources import is_netx, layers_of

    if path.suffix not in {".svg", ".html"}:
        raise click.UsageError(f"--graph: must be FILE.svg or FILE.html, got {str(path)!r}")
    refuse_existing(path, force)
    if is_netx(source):
        graph = graph_of_netx(layers_of(source), Path(source).name)
    else:
        model, trained = read_and_say(source)
        graph = graph_of_model(model, trained=trained)
    drawn = graph_svg(graph) if path.suffix == ".svg" else graph_page(graph)
    write_whole(path, drawn.encode())
    echo(json_text({"model": source, "output": str(path)}) if as_json else path)


def _show_model(model: "Model", card: "Card | None", as_json: bool) -> None:
    from converters.report.card_rows import card_rows
    from zoo.runs.card_text import c_section, costs_in_c, document, sections

    if as_json:
        measured = None if card is None else document(card, model.spec)
        costs = costs_in_c(model.spec, card)
        found = {"card": model.card, "measured": measured, "c": None if costs is None else asdict(costs)}
        echo(json_text({"spec": model.spec.model_dump(mode="json"), **found}))
        return
    if card is not None:
        echo(click.wrap_text(f"{card.name}: {card.description}".rstrip(": "), WIDTH))
        _show_sections(sections(card, model.spec))
        return
    echo(f"{model.spec.name}: {model.spec.description}".rstrip(": "))
    echo(f"T = {model.spec.time_steps}")
    print_layers(model.spec)
    _show_sections(c_section(model.spec))
    for topic, facts in groupby(card_rows(model.card), key=itemgetter(0)):
        echo(f"\n{topic}")
        for _, key, value in facts:
            echo(click.wrap_text(": ".join(filter(None, (key, value))), WIDTH, "  ", "    "))


def _needed(card: "Card | None", source: str) -> "Card":
    from zoo.model_format import ModelFormat
    from zoo.sources import model_path

    if card is None:
        path = model_path(source)
        read_and_say(source)  # raises if it is not a model
        own = path.suffix == ModelFormat.SAFETENSORS.suffix
        command = f"zoo card {path} -o {path.with_suffix('.yaml')}"
        remedy = f"this writes one:\n{command}" if own else "only .safetensors files have cards"
        raise SnnZooError(f"{source} has no card; {remedy}")
    return card


def _show_sections(sections: "Iterable[Section]") -> None:
    for section in sections:
        echo(f"\n{section.title}")
        if section.words:
            width = 2 + max(len(name) for name, _ in section.rows)
            for name, text in section.rows:
                echo(click.wrap_text(text, WIDTH, f"  {name:<{width}}", " " * (width + 2)))
        else:
            print_table(list(section.header), [list(row) for row in section.rows])
        if section.note:
            echo(click.wrap_text(section.note, WIDTH))


def _plot_curves(card: "Card", path: Path) -> Path:
    from bootstrap_core.analysis.plots import draw_curves, save_png
    from zoo.runs.learning_curves import reports_of

    if not (reports := reports_of(card.training)):
        raise SnnZooError(f"the card of {card.name} has no learning curves: its run did not keep them")
    return save_png(draw_curves([report.record() for report in reports], kept=card.training.epoch), path)


def _show_netx(source: str, as_json: bool) -> None:
    from converters.formats.netx import netx_report
    from converters.formats.netx.lava_limits import how_lava_runs, limit_problems
    from converters.formats.netx.netx_reader import carried_spec, file_problems
    from zoo.sources import layers_of

    file = layers_of(source)
    if as_json:
        layers = [netx_report.describe_layer(layer) for layer in file.layers]
        try:
            spec = None if file.spec is None else json.loads(file.spec)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{source}: the spec in it is not JSON: {error}") from None
        echo(json_text({"time_steps": file.time_steps, "spec": spec, "layers": layers}))
        return
    rows = [netx_report.layer_row(i, layer) for i, layer in enumerate(file.layers)]
    print_table(netx_report.LAYER_COLUMNS, rows)
    echo()
    print_table(netx_report.NEURON_COLUMNS, netx_report.neuron_rows(file), words=True)
    echo(f"\ntime steps: {file.time_steps or 'not in the file'}")
    if problems := file_problems(file):
        echo(f"not a network that snnzoo can run: {'; '.join(problems)}")
    for problem in limit_problems(file):
        echo(f"limit of Lava: {problem}")
    if file.spec is not None:
        for note in how_lava_runs(carried_spec(file, Path(source))):
            echo(click.wrap_text(f"note: {note}", WIDTH))


def _show_difference(a: "ChipForm", b: "ChipForm", as_json: bool) -> None:
    from converters.formats.netx.netx_report import differences

    found = list(differences(a, b))
    if as_json:
        echo(json_text({"same": not found, "differences": [asdict(one) for one in found]}))
    elif found:
        print_table(
            ["layer", "what", "difference"],
            [["" if d.layer is None else f"{d.layer} {_kind(a, b, d.layer)}", d.what, d.text] for d in found],
            words=True,
        )
    else:
        echo("all layers are the same")


def _kind(a: "ChipForm", b: "ChipForm", index: int) -> str:
    return (a if index < len(a.layers) else b).layers[index].kind
