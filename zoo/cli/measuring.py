"""Measure a model on a dataset, and write its card or a page: the work of `card` and `gallery`."""

from functools import partial
from pathlib import Path

from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.data.datasets import find_dataset
from bootstrap_core.training.history import EpochReport
from converters.cli.console import command_line, echo, json_text, print_table, refuse_existing, say
from converters.cli.options import say_sample, use_threads
from converters.formats.file_kind import USES, FileKind, kind_of_file
from converters.formats.model_files import MODEL_SUFFIXES
from converters.formats.safetensors_file import read_safetensors
from converters.report.pages import gallery_page, measure_gallery
from specs.dataset_sources import SAMPLE_NAME, found_data, sources
from specs.errors import ConversionError, SnnZooError
from specs.files.whole_file import write_whole
from specs.words import counted
from zoo.card import NO_LICENCE, Card, FileFacts, dump_card, load_card
from zoo.cli.given_model import load_data, need_classes, own_card, read_and_say, say_fresh
from zoo.factory import local_model, unknown_model
from zoo.runs.card_files import card_path
from zoo.runs.measurement import differences, measure_card, measure_seed
from zoo.runs.training_run import read_curves, read_metrics, reports_of
from zoo.sources import TRAINED, refuse_folder


def make_card(
    source: str,
    *,
    output: Path | None,
    check: bool,
    data: str | None,
    run: Path | None,
    seed_runs: tuple[Path, ...],
    name: str | None,
    licence: str | None,
    places: DataPlaces,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the command `card`; the arguments are its options."""
    path, before = Path(source), None
    if path.is_dir():
        path, run = path / TRAINED, run or path
        if not path.exists():
            refuse_folder(path.parent)
    elif not path.exists() and path.suffix not in MODEL_SUFFIXES:
        local = local_model(source)
        if local is None:
            raise unknown_model(source)
        path, before, name = local, card_path(source), name or source.partition("@")[0]
    if (kind := kind_of_file(path)) is not FileKind.SAFETENSORS:
        raise ConversionError(f"a card describes a .safetensors file, but {path} is {USES[kind]}")
    if output is not None and not check:
        refuse_existing(output, force)
    before = before or card_path(str(path))
    if output is not None and output.exists():
        before = output
    use_threads(threads)
    model = read_safetensors(path).with_data(partial(found_data, folder=path.parent))
    need_classes(model, "card")
    dataset = load_data(model, data, places)
    say_sample(dataset)
    old = None if before is None else load_card(before)
    licence = licence or (NO_LICENCE if old is None else old.licence)
    if licence == NO_LICENCE:
        say("note: the card has no licence: set one, as in --licence Apache-2.0")
    kept = None if old is None or FileFacts.of_file(path) not in old.files.values() else old
    curves, seeds = (None, ()) if kept is None else (kept.training.curves, kept.training.other_seeds)
    if run is not None:
        curves = read_curves(run)
    if seed_runs:
        seeds = tuple(measure_seed(folder / TRAINED, model, dataset) for folder in seed_runs)
    other = sources()[dataset.name].elsewhere if dataset.name in sources() else None
    say(f"{name or model.spec.name}: measuring on {len(dataset.test):,} test {dataset.sample}s of {dataset.name}")
    found = measure_card(
        path,
        dataset,
        name=name,
        licence=licence,
        curves=curves,
        other_seeds=seeds,
        earlier=() if kept is None else kept.earlier,
        elsewhere=[] if other is None else [load_data(model, other, places)],
        progress=lambda name: say(f"  {name}"),
    )
    if check:
        _compare(before, found, as_json)
        return
    text = dump_card(found, output)
    if as_json:
        echo(json_text(found.model_dump(mode="json")))
    else:
        echo(text if output is None else f"{output}\n", nl=False)


def _compare(before: Path | None, found: Card, as_json: bool) -> None:
    """Print the fields in which the card differs from the measurements; raise `SnnZooError` if there are any."""
    if before is None:
        raise SnnZooError(f"{found.name} has no card to check: write one with -o")
    different = differences(load_card(before), found)
    rows = [[one.field, _short(one.stored), _short(one.found)] for one in different]
    if as_json:
        fields = [dict(zip(("field", "card", "measured"), row, strict=True)) for row in rows]
        echo(json_text({"name": found.name, "differences": fields}))
    elif different:
        print_table(["field", "card", "measured"], rows, words=True)
    else:
        echo(f"{found.name}: the card agrees with the measurements")
    if not different:
        return
    n = len(different)
    raise SnnZooError(
        f"{before} differs from the measurements in {counted(n, 'field')}: write it anew with -o {before} --force"
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def make_page(
    source: str,
    *,
    output: Path,
    data: str | None,
    limit: int,
    places: DataPlaces,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the command `gallery`; the arguments are its options."""
    refuse_existing(output, force)
    model, trained = read_and_say(source)
    need_classes(model, "page")
    say_fresh(trained)
    use_threads(threads)
    if data is None and model.data == "mnist" and find_dataset("mnist", data_dir=places.data_dir) is None:
        data = SAMPLE_NAME  # rather than download the other
    dataset = load_data(model, data, places)
    say_sample(dataset)
    figures = measure_gallery(model, dataset, limit=limit)
    page = gallery_page(model, figures, source=source, command=command_line(), reports=_reports(source))
    write_whole(output, page.encode())
    if as_json:
        echo(json_text({
            "model": source,
            "output": str(output),
            "data": dataset.name,
            "images": figures.score.n_images,
            "accuracy": figures.score.accuracy,
            "seconds": figures.seconds,
        }))  # fmt: skip
    else:
        echo(output)


def _reports(source: str) -> list[EpochReport]:
    """Return the reports of all epochs of a model's training, empty if unknown."""
    card = own_card(source)
    if card is not None and (reports := reports_of(card.training)):
        return reports
    return read_metrics(Path(source).parent) if Path(source).is_file() else []
