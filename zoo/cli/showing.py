"""Print, draw and check a model: the work of `show` and `verify`."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from bootstrap_core.analysis.plots import draw_curves, save_png
from converters.chip.form import ChipForm
from converters.cli.console import echo, json_text, print_table, refuse_existing, say, wrap_text
from converters.formats.netx.lava_limits import how_lava_runs, limit_problems
from converters.formats.netx.netx_reader import carried_spec, file_problems
from converters.formats.netx.netx_report import (
    LAYER_COLUMNS,
    NEURON_COLUMNS,
    describe_layer,
    differences,
    layer_row,
    neuron_rows,
)
from converters.model import Model
from converters.report.card_rows import card_rows
from converters.report.network_graph import graph_of_model, graph_of_netx, graph_page, graph_svg
from specs.errors import IntegrityError, SnnZooError
from specs.files.whole_file import write_whole
from zoo.card import Card
from zoo.card_text import Section, as_markdown, c_section, costs_in_c, document, sections
from zoo.cli.given_model import own_card, print_layers, read_and_say, say_fresh
from zoo.factory import model_names
from zoo.model_format import ModelFormat
from zoo.runs.training_run import reports_of
from zoo.runs.verification import verify_model
from zoo.sources import is_netx, layers_of, model_path, read_source


def show_source(
    source: str,
    *,
    other: str | None,
    graph: Path | None,
    markdown: bool,
    curves: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the command `show`; the arguments are its options."""
    for path in filter(None, (graph, curves)):
        refuse_existing(path, force)
    if graph is not None:
        _draw(source, graph, as_json)
        return
    card = own_card(source) if other is None else None
    if curves is not None:
        say(str(_plot_curves(_needed(card, source), curves)))
    if markdown:
        echo(as_markdown(_needed(card, source), read_and_say(source)[0].spec), nl=False)
    elif other is not None:
        _show_difference(layers_of(source), layers_of(other), as_json)
    elif is_netx(source):
        _show_netx(source, as_json)
    else:
        _show_model(read_and_say(source)[0], card, as_json)


def verify_models(source: str | None, against: Path | None, as_json: bool) -> None:
    """Run the command `verify`, whose options are the arguments; exit with 1 if a check fails."""
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
        raise SystemExit(1)


def _draw(source: str, path: Path, as_json: bool) -> None:
    if is_netx(source):
        graph = graph_of_netx(layers_of(source), Path(source).name)
    else:
        model, trained = read_and_say(source)
        graph = graph_of_model(model, trained=trained)
    drawn = graph_svg(graph) if path.suffix == ".svg" else graph_page(graph)
    write_whole(path, drawn.encode())
    echo(json_text({"model": source, "output": str(path)}) if as_json else path)


def _show_model(model: Model, card: Card | None, as_json: bool) -> None:
    if as_json:
        measured = None if card is None else document(card, model.spec)
        costs = costs_in_c(model.spec, card)
        found = {"card": model.card, "measured": measured, "c": None if costs is None else asdict(costs)}
        echo(json_text({"spec": model.spec.model_dump(mode="json"), **found}))
        return
    if card is not None:
        echo(wrap_text(f"{card.name}: {card.description}".rstrip(": ")))
        _show_sections(sections(card, model.spec))
        return
    echo(f"{model.spec.name}: {model.spec.description}".rstrip(": "))
    echo(f"T = {model.spec.time_steps}")
    print_layers(model.spec)
    _show_sections(c_section(model.spec))
    for topic, facts in groupby(card_rows(model.card), key=itemgetter(0)):
        echo(f"\n{topic}")
        for _, key, value in facts:
            echo(wrap_text(": ".join(filter(None, (key, value))), initial_indent="  ", subsequent_indent="    "))


def _needed(card: Card | None, source: str) -> Card:
    if card is None:
        path = model_path(source)
        read_and_say(source)  # raises if it is not a model
        own = path.suffix == ModelFormat.SAFETENSORS.suffix
        command = f"zoo card {path} -o {path.with_suffix('.yaml')}"
        remedy = f"this writes one:\n{command}" if own else "only .safetensors files have cards"
        raise SnnZooError(f"{source} has no card; {remedy}")
    return card


def _show_sections(sections: Iterable[Section]) -> None:
    for section in sections:
        echo(f"\n{section.title}")
        if section.words:
            width = 2 + max(len(name) for name, _ in section.rows)
            for name, text in section.rows:
                echo(wrap_text(text, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2)))
        else:
            print_table(list(section.header), [list(row) for row in section.rows])
        if section.note:
            echo(wrap_text(section.note))


def _plot_curves(card: Card, path: Path) -> Path:
    if not (reports := reports_of(card.training)):
        raise SnnZooError(f"the card of {card.name} has no learning curves: its run did not keep them")
    return save_png(draw_curves([report.record() for report in reports], kept=card.training.epoch), path)


def _show_netx(source: str, as_json: bool) -> None:
    file = layers_of(source)
    if as_json:
        layers = [describe_layer(layer) for layer in file.layers]
        try:
            spec = None if file.spec is None else json.loads(file.spec)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{source}: the spec in it is not JSON: {error}") from None
        echo(json_text({"time_steps": file.time_steps, "spec": spec, "layers": layers}))
        return
    print_table(LAYER_COLUMNS, [layer_row(i, layer) for i, layer in enumerate(file.layers)])
    echo()
    print_table(NEURON_COLUMNS, neuron_rows(file), words=True)
    echo(f"\ntime steps: {file.time_steps or 'not in the file'}")
    if problems := file_problems(file):
        echo(f"not a network that snnzoo can run: {'; '.join(problems)}")
    for problem in limit_problems(file):
        echo(f"limit of Lava: {problem}")
    if file.spec is not None:
        for note in how_lava_runs(carried_spec(file, Path(source))):
            echo(wrap_text(f"note: {note}"))


def _show_difference(a: ChipForm, b: ChipForm, as_json: bool) -> None:
    found = list(differences(a, b))
    if as_json:
        echo(json_text({"same": not found, "differences": [asdict(one) for one in found]}))
    elif found:
        kinds = [layer.kind for layer in (*a.layers, *b.layers[len(a.layers) :])]
        named = ["" if one.layer is None else f"{one.layer} {kinds[one.layer]}" for one in found]
        rows = [[layer, one.what, one.text] for layer, one in zip(named, found, strict=True)]
        print_table(["layer", "what", "difference"], rows, words=True)
    else:
        echo("all layers are the same")
