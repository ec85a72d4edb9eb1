"""A card for people: its sections as rows of words, and as Markdown."""

from dataclasses import dataclass
from statistics import mean

from specs.training import TrainingSpec
from zoo.model_format import ModelFormat
from zoo.runs.card import Card, OperationsOf, Versions, seed_accuracies

__all__ = ["Section", "as_markdown", "percent", "rate_words", "sections", "seed_words"]


SAME_LAYERS = (
    "ANN: these layers with activations instead of neurons. That from which a network was converted may have others: "
    "`zoo convert --report` tells of it."
)


@dataclass(frozen=True)
class Section:
    """A title, a table, whose first column names its rows, and perhaps a note below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: bool = False


def sections(card: Card) -> list[Section]:
    """All that a person wants to know of a model, the most wanted first; learning curves and golden images aside."""
    file = card.files[ModelFormat.SAFETENSORS]
    facts = {
        "revision": card.revision,
        "sha256": file.sha256,
        "size": f"{file.bytes:,} bytes; {card.parameters:,} parameters, {card.weight_bytes:,} bytes of 8-bit weights",
        "input": _input_words(card),
        "licence": card.licence,
        "measured": f"{card.date}; {_versions(card.versions)}",
    }
    data, training = card.data, card.training
    how = {"data": data.name}
    if (recipe := training.recipe) is not None:
        epoch = "" if training.epoch is None else f"epoch {training.epoch + 1} of {recipe.epochs}, "
        how = {
            "data": f"{data.name}: {data.training_images:,} images to train, {data.validation_images:,} to choose by",
            "split": f"{data.validation_rule} {data.validation_seed}",
            "chosen": f"{epoch}{percent(training.validation_accuracy)} of the validation images",
            "recipe": _recipe_words(recipe, training.teacher_revision),
            "seeds": seed_words(card),
        }
    if training.start_revision is not None:
        how["start"] = f"the model {training.start_revision}"
    how |= {
        "took": "not recorded" if training.curves is None else f"{sum(training.curves.seconds) / 60:.0f} minutes",
        "by": "not recorded" if training.versions is None else _versions(training.versions),
    }
    return [
        Section("Model", ("", ""), tuple(facts.items()), words=True),
        Section(
            f"Accuracy on the {data.test_images:,} test images, {card.test.engine} engine",
            ("T", *map(str, card.test.by_steps), "as ANN"),
            (("%", *(_number(accuracy) for accuracy in (*card.test.by_steps.values(), card.test.ann))),),
        ),
        Section(
            f"Layers, at T = {card.time_steps}",
            ("layer", "shape", "parameters", "rate", "synops/image"),
            tuple(
                (
                    f"{i} {layer.kind}",
                    "x".join(map(str, layer.shape)),
                    f"{layer.parameters:,}",
                    rate_words(layer.rate),
                    f"{layer.synops:,.0f}",
                )
                for i, layer in enumerate(card.layers)
            ),
        ),
        Section(
            "Synaptic operations of an image, as NeuroBench counts them",
            ("", "dense", "effective MACs", "effective ACs"),
            tuple(
                (name, *_operations(found))
                for name, found in ((f"SNN, T = {card.time_steps}", card.operations.snn), ("ANN", card.operations.ann))
                if found is not None
            ),
            note=SAME_LAYERS,
        ),
        Section(
            "Energy of an image, estimated",
            ("", "nJ"),
            tuple((program, f"{value:,.0f}") for program, value in card.energy.nanojoules.items()),
            note=card.energy.caveat,
        ),
        Section("Training", ("", ""), tuple(how.items()), words=True),
        Section(
            "Again",
            ("", ""),
            (*card.commands.model_dump(exclude_none=True).items(), *_seed_commands(card)),
            note=_teacher_words(recipe, training.teacher_revision),
            words=True,
        ),
    ]


def as_markdown(card: Card) -> str:
    """The card as a page of Markdown."""
    lines = [f"# {card.name}", "", card.description]
    for section in sections(card):
        lines += ["", f"## {section.title}", ""]
        lines += [
            _row(section.header),
            _row(("---", *("---" if section.words else "--:",) * (len(section.header) - 1))),
        ]
        command = section.title == "Again"
        lines += [_row((name, *(f"`{cell}`" if command else cell for cell in cells))) for name, *cells in section.rows]
        if section.note:
            lines += ["", section.note]
    constants = [f"{one.operation}: {one.picojoules:g} pJ ({one.source})" for one in card.energy.constants]
    lines += ["", "Constants of the energy:", "", *(f"- {line}" for line in constants)]
    return "\n".join(lines) + "\n"


def rate_words(rate: float | None) -> str:
    """Spikes of a neuron and step; graded input, a flattening and a readout have no neurons."""
    return "no neurons" if rate is None else f"{rate:.4f}"


def _recipe_words(recipe: TrainingSpec, teacher_revision: str | None) -> str:
    """What the recipe says that its defaults do not."""
    told = recipe.model_dump(mode="json", exclude_defaults=True)
    if "teacher" in told and teacher_revision is not None:
        told["teacher"] += f"@{teacher_revision}"
    if recipe.augment is not None:
        told["augment"] = " ".join(f"{key} {value}" for key, value in told["augment"].items()) or "default"
    return ", ".join(f"{key} {value}" for key, value in told.items()) or "the defaults"


def _teacher_words(recipe: TrainingSpec | None, revision: str | None) -> str:
    """Why training again gives other weights."""
    if recipe is None or recipe.teacher is None:
        return ""
    taught = f"{recipe.teacher}@{revision}" if revision else f"a {recipe.teacher} whose revision was not recorded"
    return f"Taught by {taught}; by another one it becomes other weights."


def _seed_commands(card: Card) -> list[tuple[str, str]]:
    """How the runs of other seeds are made again."""
    train = card.commands.train
    return [(f"seed {one.seed}", f"{train}-{one.seed} --seed {one.seed}") for one in card.training.other_seeds if train]


def seed_words(card: Card) -> str:
    """Mean and spread of the test accuracy over the seeds that were trained."""
    found = seed_accuracies(card)
    if len(found) == 1:
        return "not recorded" if card.training.recipe is None else f"{card.training.recipe.seed} alone"
    return f"{len(found)} seeds: {percent(mean(found))} in the mean, {_number(min(found))} to {percent(max(found))}"


def percent(part: float | None) -> str:
    """0.9876 as `98.76 %`; a dash for None."""
    return "-" if part is None else f"{_number(part)} %"


def _number(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.2f}"


def _operations(found: OperationsOf) -> tuple[str, str, str]:
    return f"{found.dense:,}", f"{found.effective_macs:,.0f}", f"{found.effective_acs:,.0f}"


def _versions(versions: Versions) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.model_dump().items())


def _input_words(card: Card) -> str:
    spec = card.input
    shape = "x".join(map(str, spec.shape))
    if spec.levels > 1:
        return f"{shape}, pixels in 0..1 as integers of {spec.bits} bits"
    return f"{shape}, pixels in 0..1, (x - {spec.mean:g}) / {spec.std:g}, as spikes"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
