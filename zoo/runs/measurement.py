"""Measuring a trained model for its card."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bootstrap_core.analysis.evaluation import accuracy_by_steps, evaluate
from bootstrap_core.analysis.synaptic_operations import ActivityCounter, effective_operations
from bootstrap_core.data.datasets import Dataset
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from converters.formats.model_files import Hints, option_name
from converters.formats.safetensors_file import read_safetensors
from converters.model import Model, without_weight_norm
from converters.report.energy import CAVEAT, COSTS, estimate_energy
from converters.report.network_figures import spread_out
from specs.block import Encoding
from specs.dataset_sources import dataset_names
from specs.errors import IntegrityError, SnnZooError
from specs.io import load_spec, network_names
from specs.network import NetworkSpec
from specs.summary import summarize
from specs.training import Precision, TrainingSpec
from zoo.model_format import ModelFormat
from zoo.runs.card import (
    Card,
    Commands,
    Curves,
    Data,
    Energy,
    EnergyConstant,
    FileFacts,
    Layer,
    Operations,
    OperationsOf,
    Scores,
    SeedScore,
    Training,
    Versions,
    revision_of,
    spec_digest,
)
from zoo.runs.golden import golden_of

__all__ = ["STEPS", "Difference", "differences", "energy_of", "made_by", "measure_card", "measure_seed", "same_network"]

Typed = TypeVar("Typed", bound=BaseModel)

STEPS = (1, 2, 4, 8, 16, 32)
"""Every card tells the accuracy of so many steps, and of the network's own number."""
N_GOLDEN = 8
VALIDATION_RULE = "of each class its share, taken out of the training images at random, by the seed"
FLOAT_TOLERANCE = 1e-6
"""Relative; of figures that floats were added up for."""
CONVERSION_OPTIONS = ["epochs", "seed", "input", "max_pool", *(hint.name for hint in fields(Hints)), "fold"]
"""Of `convert`, that the file of a converted model tells."""
UNMEASURED: dict[str, Any] = {"date": True, "versions": True, "training": {"versions", "curves", "other_seeds"}}
"""Parts of a card that measuring again does not find."""


def measure_card(
    path: Path,
    dataset: Dataset,
    *,
    name: str | None = None,
    licence: str,
    curves: Curves | None = None,
    other_seeds: tuple[SeedScore, ...] = (),
    progress: Callable[[str], object] = lambda what: None,
) -> Card:
    """Measure the model in a safetensors file on all test images of `dataset`.

    Args:
        path: the model file; tells its spec, and perhaps its recipe and how it was trained.
        dataset: what it was trained on.
        name: of the model; by default the spec's.
        licence: of the weights.
        curves: of its training.
        other_seeds: what `measure_seed` gave of other runs.
        progress: called with what is scored next.

    Raises:
        SnnZooError: the file tells neither training nor conversion, or the spec of this name in the package is another.
        IntegrityError: what it tells of its training is of other types.
        StateOverflowError: the network leaves the hardware's 24 bits at its own T.
    """
    model = read_safetensors(path)
    spec, recipe, name = model.spec, model.spec.training, name or model.spec.name
    if name in network_names() and not made_by(model, load_spec(name)):
        raise SnnZooError(
            f"{path} was not made by the spec {name!r} of the package, so `zoo train {name}` would not make it again: "
            "give it another name, or bring the spec up to date"
        )
    network = model.build()
    if not model.card and not network.fitted:
        raise SnnZooError(
            f"{path} tells neither training nor conversion, so a card has nothing to tell: zoo train {path} -o run, or "
            "convert it again from its source"
        )
    if recipe is not None and recipe.data != dataset.name and {recipe.data, dataset.name} & set(dataset_names()):
        raise SnnZooError(
            f"{path} was trained on {recipe.data}, and a card tells how that was split: measure it on that, not on "
            f"{dataset.name}"
        )
    if recipe is not None:
        recipe.check_images(len(dataset.train))
    training = _training(path, model, recipe, curves, other_seeds)
    exact = IntegerNetwork(network)
    golden = golden_of(exact, spread_out(dataset.test, N_GOLDEN))

    as_snn, as_ann = ActivityCounter(exact), ActivityCounter(network)
    progress(f"T = {spec.time_steps}")
    own = evaluate(as_snn, dataset.test, also_after=[t for t in STEPS if t < spec.time_steps])
    progress(f"T up to {max(STEPS)}")
    longer = accuracy_by_steps(exact, dataset.test, [t for t in STEPS if t > spec.time_steps])
    by_steps = {**own.by_steps, **longer}
    progress("ANN")
    ann = evaluate(as_ann, dataset.test, mode=Mode.ANN) if network.fitted else None

    operations = Operations(
        snn=_operations(network, as_snn, len(dataset.test), steps=spec.time_steps),
        ann=None if ann is None else _operations(network, as_ann, len(dataset.test)),
    )
    rows, facts = summarize(spec), FileFacts.of_file(path)
    assert own.synops is not None
    return Card(
        name=name,
        revision=revision_of(facts.sha256),
        description=spec.description,
        licence=licence,
        date=date.today(),
        time_steps=spec.time_steps,
        spec_sha256=spec_digest(spec),
        files={ModelFormat.SAFETENSORS: facts},
        parameters=sum(row.parameters for row in rows),
        weight_bytes=sum(row.weight_bytes for row in rows),
        input=spec.input,
        data=Data(
            name=dataset.name,
            classes=dataset.classes,
            training_images=None if recipe is None else len(dataset.train) - recipe.validation,
            validation_images=None if recipe is None else recipe.validation,
            validation_seed=None if recipe is None else recipe.seed,
            validation_rule=None if recipe is None else VALIDATION_RULE,
            test_images=len(dataset.test),
        ),
        training=training,
        layers=tuple(
            Layer(
                kind=row.kind,
                shape=row.shape,
                parameters=row.parameters,
                weight_bytes=row.weight_bytes,
                rate=rate,
                synops=synops,
            )
            for row, rate, synops in zip(rows, own.rates, own.synops, strict=True)
        ),
        test=Scores(accuracy=own.accuracy, loss=own.loss, by_steps=by_steps, ann=None if ann is None else ann.accuracy),
        operations=operations,
        energy=energy_of(spec, own.synops, operations.ann),
        commands=_commands(name, by_steps, model, training, dataset.name),
        versions=Versions.here(),
        golden=golden,
    )


def measure_seed(path: Path, model: Model, dataset: Dataset) -> SeedScore:
    """Score a run that differs from that of `model` by its seed alone.

    Args:
        path: the run's model file.
        model: the one that a card is about.
        dataset: as of `measure_card`.

    Raises:
        SnnZooError: the run is of another spec, recipe or teacher, or of the same seed.
        IntegrityError: what it tells of its training is of other types.
    """
    other = read_safetensors(path)
    recipe, own = other.spec.training, model.spec.training
    if recipe is None or own is None or recipe.seed == own.seed:
        raise SnnZooError(f"{path} is no run of another seed than {model.spec.name} itself")
    if not same_network(
        other.spec.model_copy(update={"training": recipe.model_copy(update={"seed": own.seed})}), model.spec
    ):
        raise SnnZooError(f"{path} differs from {model.spec.name} by more than its seed")
    teachers = [one.told("training").get("teacher_revision") for one in (other, model)]
    if None not in teachers and teachers[0] != teachers[1]:
        raise SnnZooError(f"{path} was taught by {recipe.teacher}@{teachers[0]}, {model.spec.name} by @{teachers[1]}")
    return _believed(
        path,
        SeedScore,
        seed=recipe.seed,
        epoch=other.told("training").get("epoch"),
        validation_accuracy=other.told("training").get("validation_snn_accuracy"),
        accuracy=evaluate(IntegerNetwork(other.build()), dataset.test).accuracy,
    )


def made_by(model: Model, spec: NetworkSpec) -> bool:
    """Whether a model is of the network of `spec` and, unless it was trained on from another model, of its recipe."""
    if model.told("training").get("start_revision") is None:
        return same_network(model.spec, spec)
    trained_on = {"training": spec.training, "description": spec.description}
    return same_network(model.spec.model_copy(update=trained_on), spec)


def same_network(spec: NetworkSpec, other: NetworkSpec) -> bool:
    """Return whether two specs have the same network and recipe.

    Weight norm is not compared, since it folds into the weights; nor is `precision`, whose `auto` depends on the
    machine.
    """
    return _as_compared(spec) == _as_compared(other)


def _as_compared(spec: NetworkSpec) -> NetworkSpec:
    recipe = spec.training and spec.training.model_copy(update={"precision": Precision.AUTO})
    return without_weight_norm(spec).model_copy(update={"training": recipe})


@dataclass(frozen=True)
class Difference:
    """A field of a card, by its path, and its two values."""

    field: str
    stored: object
    found: object


def differences(stored: Card, found: Card) -> list[Difference]:
    """Where two cards of one model differ, but for what measuring again does not find; floats may by rounding."""
    a, b = (dict(_leaves(card.model_dump(mode="json", exclude=UNMEASURED))) for card in (stored, found))
    return [
        Difference(field, a.get(field), b.get(field))
        for field in sorted({*a, *b})
        if not _same(a.get(field), b.get(field))
    ]


def _training(
    path: Path, model: Model, recipe: TrainingSpec | None, curves: Curves | None, other_seeds: tuple[SeedScore, ...]
) -> Training:
    facts = model.told("training")
    return _believed(
        path,
        Training,
        recipe=recipe,
        epoch=facts.get("epoch"),
        validation_accuracy=facts.get("validation_snn_accuracy"),
        start_revision=facts.get("start_revision"),
        start_changes=facts.get("start_changes", ()),
        teacher_revision=facts.get("teacher_revision"),
        versions=facts.get("versions"),
        curves=curves,
        other_seeds=other_seeds,
    )


def _believed(path: Path, kind: type[Typed], **facts: object) -> Typed:
    """Facts of a model file as part of a card. Raises `IntegrityError` if they are of other types."""
    try:
        return kind.model_validate(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise IntegrityError(
            f"{path}: what the file tells of its training cannot be: {where}: {problem['msg']}"
        ) from None


def _operations(network: Network, counter: ActivityCounter, n_images: int, *, steps: int | None = None) -> OperationsOf:
    """Of an image, as SNN of so many steps, or as ANN."""
    found = effective_operations(network, counter.counts)
    graded = network.spec.input.encoding is Encoding.GRADED
    macs = sum(found) if steps is None else found[1] if graded else 0.0
    return OperationsOf(
        dense=(steps or 1) * sum(row.synops for row in summarize(network.spec)),
        effective_macs=macs / n_images,
        effective_acs=(sum(found) - macs) / n_images,
    )


def energy_of(spec: NetworkSpec, synops: Sequence[float], ann: OperationsOf | None) -> Energy:
    """Of synops of each layer, and of the ANN's operations, if they were counted."""
    macs, effective = sum(row.synops for row in summarize(spec)), None if ann is None else ann.effective_macs
    return Energy(
        nanojoules={one.program: one.nanojoules for one in estimate_energy(spec, synops, macs, effective)},
        constants=tuple(EnergyConstant(**asdict(cost)) for cost in COSTS),
        caveat=CAVEAT,
    )


def _commands(name: str, by_steps: Mapping[int, float | None], model: Model, training: Training, data: str) -> Commands:
    start, changes, conversion = training.start_revision, training.start_changes, model.told("conversion")
    train = None
    if start is not None:
        options = "".join(f" --set {shlex.quote(change)}" for change in changes)
        train = f"zoo train START.safetensors -o run/{name}{options} # START is the file whose sha256 begins {start}"
    elif conversion:
        told = {key: conversion[key] for key in CONVERSION_OPTIONS if key in conversion}
        if "epochs" in told:  # of an ANN
            calibrated = {"data": data} if conversion.get("data") is not None else {}
            told = {**calibrated, "time_steps": model.spec.time_steps, **told}
        if "spec" in told:
            told["spec"] = _spec_source(str(told["spec"]))
        words = [str(conversion.get("source", "ANN.onnx")), *(_option(*option) for option in told.items())]
        train = f"zoo convert {shlex.join(words)} -o {name}.safetensors"
    elif model.spec.training is not None:
        train = f"zoo train {name} -o run/{name}"
    steps = ",".join(str(t) for t, accuracy in by_steps.items() if accuracy is not None)
    untold = "" if model.data == data else f" {shlex.quote(_option('data', data))}"
    return Commands(
        train=train,
        eval=f"zoo eval {name}{untold} --engine integer --time-steps {steps}",
        card=f"zoo card {name}{untold} --check",
    )


def _spec_source(name: str) -> str:
    """How a command finds a spec: of the package by its name, another in a file."""
    return name if name in network_names() else f"{name}.yaml"


def _option(name: str, value: object) -> str:
    """An option with a value of a card; lists with commas, and flags alone."""
    option = option_name(name)
    if value is True:
        return option
    return f"{option}={','.join(map(str, value)) if isinstance(value, list) else value}"


def _leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a JSON document with its path; lists of numbers are one value."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        for i, value in enumerate(tree):
            yield from _leaves(value, f"{path}[{i}]")
    else:
        yield path, tree


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=FLOAT_TOLERANCE)
    return a == b
