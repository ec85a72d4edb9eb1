"""Text of a card for people: sections of tables, and a page of Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from bootstrap_core.network.build import build_network
from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import CCosts, c_costs
from converters.formats.c.c_writer import c_problems
from converters.report.energy import CAVEAT, COSTS, estimate_energy
from specs.dataset_sources import dataset_title, sources
from specs.errors import IntegrityError
from specs.network import NetworkSpec
from specs.summary import LayerSummary, summarize
from specs.training import TrainingSpec
from specs.words import counted, percent
from zoo.card import Card, Training, Versions, seed_accuracies
from zoo.model_format import ModelFormat

SAME_LAYERS = (
    "ANN: the same layers with fitted activations instead of neurons. An ANN from which the network was converted may "
    "have other layers: see `zoo convert --report`."
)


CYCLES = "Cycles: a rough estimate for a Cortex-M4 whose memory never waits."
COMMANDS = "Commands that reproduce it"


@dataclass(frozen=True)
class Section:
    """Section of a card: a title, a table, and a note below it, which may be empty.

    The first column of the table names its rows. `words` is true for tables of text, whose columns align left.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: bool = False


def _costs(card: Card, spec: NetworkSpec) -> list[LayerSummary]:
    rows = summarize(spec)
    if len(rows) != len(card.layers):
        raise IntegrityError(f"the card of {card.name} has {len(card.layers)} layers, the model {len(rows)}")
    return rows


def energies(card: Card, spec: NetworkSpec) -> dict[str, float]:
    """Return estimates of the energy of one inference, in nJ, for each way to run the network."""
    synops, ann = [layer.synops for layer in card.layers], card.operations.ann
    macs = sum(row.synops for row in summarize(spec)) if spec.has_ann else None
    effective = None if ann is None else ann.effective_macs
    return {one.program: one.nanojoules for one in estimate_energy(spec, synops, macs, effective)}


def document(card: Card, spec: NetworkSpec) -> dict[str, Any]:
    """Return a card as a JSON document, with what follows from the spec in its model file."""
    found, rows = card.model_dump(mode="json"), [asdict(row) for row in _costs(card, spec)]
    kept = ("kind", "shape", "parameters", "weight_bytes")
    found["layers"] = [
        {**{key: row[key] for key in kept}, **layer} for row, layer in zip(rows, found["layers"], strict=True)
    ]
    dense = sum(row["synops"] for row in rows)
    for name, steps in (("snn", spec.time_steps), ("ann", 1)):
        if found["operations"][name] is not None:
            found["operations"][name]["dense"] = steps * dense
    constants = [asdict(cost) for cost in COSTS]
    energy = {"nanojoules": energies(card, spec), "constants": constants, "caveat": CAVEAT}
    return {**found, **{key: sum(row[key] for row in rows) for key in kept[2:]}, "energy": energy}


def sections(card: Card, spec: NetworkSpec) -> list[Section]:
    """Return the sections of a card, the most important first; without learning curves and golden images.

    `spec` is that of the model file.
    """
    file, rows = card.files[ModelFormat.SAFETENSORS], _costs(card, spec)
    parameters, weight_bytes = sum(row.parameters for row in rows), sum(row.weight_bytes for row in rows)
    facts = {
        "revision": card.revision,
        "sha256": file.sha256,
        "size": f"{file.bytes:,} bytes; {parameters:,} parameters, {weight_bytes:,} bytes of 8-bit weights",
        "input": _input_words(card),
        "licence": card.licence,
        "golden": _golden_words(card),
        "measured": f"{card.date}; {_versions(card.versions)}",
    }
    data, training = card.data, card.training
    title, sample = dataset_title(data.name), card.input.sample
    how = {"data": title}
    if (recipe := training.recipe) is not None:
        epoch = "" if training.epoch is None else f"epoch {training.epoch + 1} of {recipe.epochs}, "
        how = {
            "data": f"{title}: {data.training_images:,} training, {data.validation_images:,} validation {sample}s",
            "split": f"{data.validation_rule} {data.validation_seed}",
            "kept": f"{epoch}{percent(training.validation_accuracy)} on the validation {sample}s",
            "recipe": _recipe_words(recipe, training),
            "seeds": seed_words(card),
        }
    if training.start_revision is not None and (recipe is None or recipe.start is None):
        how["start"] = f"model {training.start_revision}"
    if data.credit is not None:
        how["origin"] = data.credit
    how |= {
        "duration": "not recorded" if training.curves is None else f"{sum(training.curves.seconds) / 60:.0f} minutes",
        "versions": "not recorded" if training.versions is None else _versions(training.versions),
    }
    return [
        _section("Model", facts),
        Section(
            f"Accuracy on {data.test_images:,} test {sample}s of {title}, {card.test.engine} engine",
            ("T", *map(str, card.test.by_steps), "as ANN"),
            (
                *_milliseconds(card),
                ("%", *(_number(accuracy) for accuracy in (*card.test.by_steps.values(), card.test.ann))),
            ),
            "".join(
                f"On the test {sample}s of {dataset_title(name)}, T = {card.time_steps}: {percent(accuracy)}."
                for name, accuracy in card.test.elsewhere.items()
            ),
        ),
        Section(
            f"Layers, at T = {card.time_steps}",
            ("layer", "shape", "parameters", "rate", f"synops/{sample}"),
            tuple(
                (
                    f"{i} {row.kind}",
                    "x".join(map(str, row.shape)),
                    f"{row.parameters:,}",
                    "no neurons" if layer.rate is None else f"{layer.rate:.4f}",
                    f"{layer.synops:,.0f}",
                )
                for i, (row, layer) in enumerate(zip(rows, card.layers, strict=True))
            ),
        ),
        Section(
            f"Synaptic operations per {sample}, as NeuroBench counts them",
            ("", "dense", "effective MACs", "effective ACs"),
            tuple(
                (name, f"{steps * sum(row.synops for row in rows):,}", *(f"{count:,.0f}" for _, count in found))
                for name, steps, found in (
                    (f"SNN, T = {card.time_steps}", card.time_steps, card.operations.snn),
                    ("ANN", 1, card.operations.ann),
                )
                if found is not None
            ),
            note=SAME_LAYERS,
        ),
        Section(
            f"Estimated energy per {sample}",
            ("", "nJ"),
            tuple((program, f"{value:,.0f}") for program, value in energies(card, spec).items()),
            note=CAVEAT,
        ),
        *c_section(spec, card),
        _section("Training", how),
        _section(COMMANDS, _commands(card), _teacher_words(recipe, training.teacher_revision)),
    ]


def _section(title: str, rows: Mapping[str, str], note: str = "") -> Section:
    return Section(title, ("", ""), tuple(rows.items()), note, words=True)


def costs_in_c(spec: NetworkSpec, card: Card | None = None) -> CCosts | None:
    """Return the costs of the network as C source; None if C source cannot express it.

    With a card, operations are those measured on the test images; otherwise, those if every input spikes.
    """
    form = form_of_network(build_network(spec, seed=0))
    if c_problems(form, numbers=False):
        return None
    return c_costs(form, None if card is None else [layer.synops / card.time_steps for layer in card.layers])


def c_section(spec: NetworkSpec, card: Card | None = None) -> list[Section]:
    """Return a section with the costs of the network as C source; see `costs_in_c`."""
    costs = costs_in_c(spec, card)
    if costs is None:
        return []
    once = f", and {costs.picture_synops:,.0f} once for a picture" if costs.picture_synops else ""
    whole = f"a recording of {spec.time_steps} steps" if spec.input.is_timed else "a picture"
    rows = {
        "flash": f"{costs.flash_bytes:,} bytes of weights and constants, and 1 to 2 KB of code",
        "RAM": f"{costs.ram_bytes:,} bytes, and the stack",
        "a step": f"{costs.neurons:,} neurons, {'' if card else 'at most '}{costs.step_synops:,.0f} synops{once}",
        "cycles": f"about {costs.step_cycles:,.0f} a step, {costs.picture_cycles:,.0f} {whole}",
    }
    return [_section("As C source, by zoo convert -o FILE.c", rows, CYCLES)]


def as_markdown(card: Card, spec: NetworkSpec) -> str:
    """Return the card as a page of Markdown; `spec` as for `sections`."""
    lines = [f"# {card.name}", "", card.description]
    for section in sections(card, spec):
        command = section.title == COMMANDS
        rows = [(name, *(f"`{cell}`" if command else cell for cell in cells)) for name, *cells in section.rows]
        lines += ["", f"## {section.title}", "", table(section.header, rows, words=section.words)]
        if section.note:
            lines += ["", section.note]
    constants = [f"{one.operation}: {one.picojoules:g} pJ ({one.source})" for one in COSTS]
    lines += ["", "Energy of one operation:", "", *(f"- {line}" for line in constants)]
    return "\n".join(lines) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: bool = True) -> str:
    """Return a table in Markdown; columns after the first align left if they have `words`."""
    rule = ("---", *("---" if words else "--:",) * (len(header) - 1))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _recipe_words(recipe: TrainingSpec, training: Training) -> str:
    """Return the fields of a recipe that differ from their defaults, as text."""
    fields = recipe.model_dump(mode="json", exclude_defaults=True)
    for name, revision in (("start", training.start_revision), ("teacher", training.teacher_revision)):
        if name in fields and revision is not None:
            fields[name] += f"@{revision}"
    if recipe.augment is not None:
        fields["augment"] = " ".join(f"{key} {value}" for key, value in fields["augment"].items()) or "default"
    return ", ".join(f"{key} {value}" for key, value in fields.items()) or "defaults"


def _teacher_words(recipe: TrainingSpec | None, revision: str | None) -> str:
    """Return a note that names the teacher; empty without one."""
    if recipe is None or recipe.teacher is None:
        return ""
    taught = f"{recipe.teacher}@{revision}" if revision else f"{recipe.teacher} (revision not recorded)"
    return f"Taught by {taught}. Training with another teacher leads to other weights."


def _commands(card: Card) -> dict[str, str]:
    """Return the commands of a card by name, and those that repeat the runs of other seeds."""
    commands: dict[str, str] = card.commands.model_dump(exclude_none=True)
    if train := card.commands.train:
        seeds = [one.seed for one in card.training.other_seeds]
        commands |= {f"seed {seed}": f"{train}-{seed} --seed {seed}" for seed in seeds}
    return commands


def seed_words(card: Card) -> str:
    """Return mean and range of the test accuracy over all trained seeds, as text."""
    found = seed_accuracies(card)
    if len(found) == 1:
        return "not recorded" if card.training.recipe is None else f"{card.training.recipe.seed} only"
    return f"{len(found)} seeds: mean {percent(mean(found))}, {_number(min(found))} to {percent(max(found))}"


def _number(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.2f}"


def _versions(versions: Versions) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.model_dump().items())


def _input_words(card: Card) -> str:
    spec = card.input
    shape = "x".join(map(str, spec.shape))
    if spec.log_mel is not None:
        what = "columns of log-mel pictures" if spec.is_events else "log-mel pictures"
        shape += f", {what} of recordings at {spec.log_mel.sample_rate:,} samples per second"
    if spec.is_events:
        return f"{shape}, integers of {counted(spec.bits, 'bit')} in each time step"
    if spec.levels > 1:
        return f"{shape}, pixels in 0..1, as integers of {counted(spec.bits, 'bit')}"
    return f"{shape}, pixels in 0..1, normalised by (x - {spec.mean:g}) / {spec.std:g}, as spikes"


def _milliseconds(card: Card) -> list[tuple[str, ...]]:
    """Return a row with the time of a recording that was seen after each T; none for images and sequences."""
    entering, steps = card.input, card.test.by_steps
    source = sources().get(card.data.name)
    if not entering.is_events or (source is not None and source.sequence is not None):
        return []
    sound = entering.log_mel
    step_ms = entering.bin_us / 1000 if sound is None else 1000 * sound.hop / sound.sample_rate
    return [("ms seen", *(f"{t * step_ms:,.0f}" for t in steps), "all")]


def _golden_words(card: Card) -> str:
    """Return what the golden images are: test images, or drawn at random."""
    golden, sample = card.golden, card.input.sample
    if golden.seed is None:
        return counted(golden.shape[0], f"test {sample}")
    return f"{counted(golden.shape[0], sample)}, drawn at random from the seed {golden.seed}; none is of the data"
