"""Measure a trained model for its card."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from bootstrap_core.analysis.evaluation import accuracy_by_steps, count_as_ann, effective_operations, evaluate
from bootstrap_core.data.splits import Dataset
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from converters.formats.model_files import Hints, option_name
from converters.formats.safetensors_file import read_safetensors
from converters.model import Model, without_weight_norm
from converters.report.network_figures import spread_out
from specs.dataset_sources import comma_list, dataset_names
from specs.errors import IntegrityError, SnnZooError, SpecError
from specs.io import load_spec, network_names
from specs.network import NetworkSpec
from specs.training import Precision
from zoo.card import (
    Card,
    Commands,
    Curves,
    Data,
    FileFacts,
    Layer,
    Operations,
    OperationsOf,
    Scores,
    SeedScore,
    Training,
    Versions,
    revision_of,
)
from zoo.model_format import ModelFormat
from zoo.runs.golden import golden_of

Typed = TypeVar("Typed", bound=BaseModel)

STEPS = (1, 2, 4, 8, 16, 32)
"""Numbers of time steps T for which every card has the accuracy, besides the network's T."""
N_GOLDEN, GOLDEN_SEED = 8, 0
DRAWN_VALIDATION = "of each class its share, taken out of the training images at random, by the seed"
OWN_VALIDATION = "set apart by the dataset itself; seed"
FLOAT_TOLERANCE = 1e-6
"""Relative difference up to which two measured floats count as equal: they are sums, and rounding differs."""
CONVERSION_OPTIONS = [
    "validation",
    "epochs",
    "seed",
    "input",
    "max_pool",
    "classes",
    *(hint.name for hint in fields(Hints)),
    "fold",
]
"""Options of `convert` that the file of a converted model records, and that the card's command repeats."""
TRAINING_FACTS = ("start_revision", "start_changes", "teacher_revision", "versions")
"""Facts of a model file about its training that its card repeats under the same name."""
UNMEASURED: dict[str, Any] = {
    "date": True,
    "versions": True,
    "earlier": True,
    "training": {"versions", "curves", "other_seeds"},
}
"""Fields of a card that cannot be measured again, and so are not compared."""


def measure_card(
    path: Path,
    dataset: Dataset,
    *,
    name: str | None = None,
    licence: str,
    curves: Curves | None = None,
    other_seeds: tuple[SeedScore, ...] = (),
    earlier: tuple[str, ...] = (),
    elsewhere: Sequence[Dataset] = (),
    progress: Callable[[str], object] = lambda what: None,
) -> Card:
    """Measure the model in a safetensors file on all test images of `dataset`.

    Args:
        dataset: the dataset that the model was trained on.
        licence: licence of the weights, as SPDX names it.
        other_seeds: results of `measure_seed` for other runs.
        earlier: see `Card`.
        elsewhere: other datasets of the same classes, on whose test images the card also gives the accuracy.
        progress: called with the name of the next score.

    Raises:
        SnnZooError: the file records neither training nor conversion, or the package has another spec of this name, or
            the model was trained on another dataset.
        IntegrityError: the file's record of its training has wrong types.
        StateOverflowError: a state leaves the hardware's 24 bits at the network's T.
    """
    model = read_safetensors(path)
    spec, recipe, name = model.spec, model.spec.training, name or model.spec.name
    if name in network_names() and not made_by(model, load_spec(name)):
        raise SnnZooError(
            f"{path} was not trained by the package's spec {name!r}, so `zoo train {name}` would not reproduce it: "
            "give the model another name with --name, or update the spec"
        )
    network = model.build()
    if not model.card and not network.fitted:
        raise SnnZooError(
            f"{path} records neither training nor conversion, and a card needs one of them: train it with "
            f"zoo train {path} -o run, or convert it again from its source"
        )
    if recipe is not None and recipe.data != dataset.name and {recipe.data, dataset.name} & set(dataset_names()):
        raise SnnZooError(
            f"{path} was trained on {recipe.data}, and its card describes the split of that dataset: measure it on "
            f"{recipe.data}, not on {dataset.name}"
        )
    if recipe is not None:
        recipe.check_images(len(dataset.train))
    known = model.card_entry("training")
    training = _believed(
        path,
        Training,
        recipe=recipe,
        epoch=known.get("epoch"),
        validation_accuracy=known.get("validation_snn_accuracy"),
        curves=curves,
        other_seeds=other_seeds,
        **{key: known[key] for key in TRAINING_FACTS if key in known},
    )
    exact = IntegerNetwork(network)
    seed = None if dataset.in_cards else GOLDEN_SEED
    golden = golden_of(exact, spread_out(dataset.test, N_GOLDEN), seed=seed)

    progress(f"T = {spec.time_steps}")
    own = evaluate(exact, dataset.test, also_after=[t for t in STEPS if t < spec.time_steps])
    progress(f"T up to {max(STEPS)}")
    longest = own.time_steps if spec.input.is_events else max(STEPS)  # a recording has no further steps
    longer = accuracy_by_steps(exact, dataset.test, [t for t in STEPS if spec.time_steps < t <= longest])
    by_steps = {**own.by_steps, **longer}
    progress("ANN")
    ann = evaluate(network, dataset.test, mode=Mode.ANN) if network.fitted else None

    operations = Operations(
        snn=_operations(network, own.counts, len(dataset.test)),
        ann=None
        if ann is None
        else _operations(network, count_as_ann(network, dataset.test), len(dataset.test), is_ann=True),
    )
    facts = FileFacts.of_file(path)
    sets_apart = recipe is not None and recipe.validation == dataset.train.n_validation > 0
    assert own.synops is not None
    return Card(
        name=name,
        revision=revision_of(facts.sha256),
        description=spec.description,
        licence=licence,
        date=date.today(),
        time_steps=spec.time_steps,
        files={ModelFormat.SAFETENSORS: facts},
        earlier=earlier,
        input=spec.input,
        data=Data(
            name=dataset.name,
            credit=dataset.credit,
            classes=dataset.classes,
            training_images=None if recipe is None else len(dataset.train) - recipe.validation,
            validation_images=None if recipe is None else recipe.validation,
            validation_seed=None if recipe is None else recipe.seed,
            validation_rule=None if recipe is None else OWN_VALIDATION if sets_apart else DRAWN_VALIDATION,
            test_images=len(dataset.test),
        ),
        training=training,
        layers=tuple(Layer(rate=rate, synops=synops) for rate, synops in zip(own.rates, own.synops, strict=True)),
        test=Scores(
            accuracy=own.accuracy,
            loss=own.loss,
            by_steps=by_steps,
            ann=None if ann is None else ann.accuracy,
            elsewhere={other.name: evaluate(exact, other.test).accuracy for other in elsewhere},
        ),
        operations=operations,
        commands=_commands(name, by_steps, model, training, dataset.name),
        versions=Versions.here(),
        golden=golden,
    )


def measure_seed(path: Path, model: Model, dataset: Dataset) -> SeedScore:
    """Score the run in the file `path`, which differs from the run of `model`, on the same data, only in its seed.

    Raises:
        SnnZooError: the run has another spec, recipe or teacher, or the same seed.
        IntegrityError: the file's record of its training has wrong types.
    """
    other = read_safetensors(path)
    recipe, own = other.spec.training, model.spec.training
    if recipe is None or own is None or recipe.seed == own.seed:
        raise SnnZooError(f"{path} is not a run with another seed than {model.spec.name}")
    if not same_network(
        other.spec.model_copy(update={"training": recipe.model_copy(update={"seed": own.seed})}), model.spec
    ):
        raise SnnZooError(f"{path} differs from {model.spec.name} in more than the seed")
    teachers = [one.card_entry("training").get("teacher_revision") for one in (other, model)]
    if None not in teachers and teachers[0] != teachers[1]:
        theirs, ours = (f"{recipe.teacher}@{revision}" for revision in teachers)
        raise SnnZooError(f"{path} was taught by {theirs}, but {model.spec.name} by {ours}")
    return _believed(
        path,
        SeedScore,
        seed=recipe.seed,
        epoch=other.card_entry("training").get("epoch"),
        validation_accuracy=other.card_entry("training").get("validation_snn_accuracy"),
        accuracy=evaluate(IntegerNetwork(other.build()), dataset.test).accuracy,
    )


def made_by(model: Model, spec: NetworkSpec) -> bool:
    """Return whether a model has the network of `spec` and its recipe.

    The recipe is not compared if the training continued that of a model file.
    """
    if model.card_entry("training").get("start_revision") is None or (spec.training and spec.training.start):
        return same_network(model.spec, spec)
    ignored = {"training": spec.training, "description": spec.description}
    return same_network(model.spec.model_copy(update=ignored), spec)


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
    """Difference between two cards: the path of a field, its value in the file, and its measured value."""

    field: str
    stored: object
    found: object


def differences(stored: Card, found: Card) -> list[Difference]:
    """Return the fields in which two cards of one model differ.

    Floats may differ by rounding. Fields in `UNMEASURED` are not compared.
    """
    a, b = (dict(_leaves(card.model_dump(mode="json", exclude=UNMEASURED))) for card in (stored, found))
    return [
        Difference(field, a.get(field), b.get(field))
        for field in sorted({*a, *b})
        if not _same(a.get(field), b.get(field))
    ]


def _believed(path: Path, kind: type[Typed], **facts: object) -> Typed:
    """Validate facts from a model file as part of a card. Raises `IntegrityError` if they have wrong types."""
    try:
        return kind.model_validate(facts)
    except SpecError as error:
        problem = str(error).splitlines()[0]
        raise IntegrityError(f"{path}: the file's record of its training is wrong: {problem}") from None


def _operations(network: Network, counts: Sequence[Tensor], n_images: int, *, is_ann: bool = False) -> OperationsOf:
    found = effective_operations(network, counts)
    macs = sum(found) if is_ann else found[1] if network.spec.input.is_graded else 0.0
    return OperationsOf(effective_macs=macs / n_images, effective_acs=(sum(found) - macs) / n_images)


def _commands(name: str, by_steps: Mapping[int, float | None], model: Model, training: Training, data: str) -> Commands:
    start, changes, conversion = training.start_revision, training.start_changes, model.card_entry("conversion")
    train = None
    if start is not None and (training.recipe is None or training.recipe.start is None):
        options = "".join(f" --set {shlex.quote(change)}" for change in changes)
        train = f"zoo train START.safetensors -o run/{name}{options} # START is the file whose sha256 begins {start}"
    elif conversion:
        given = {key: conversion[key] for key in CONVERSION_OPTIONS if key in conversion}
        if "epochs" in given:  # only conversions of ONNX files have epochs
            calibrated = {"data": data} if conversion.get("data") is not None else {}
            given = {**calibrated, "time_steps": model.spec.time_steps, **given}
        if "spec" in given:
            given["spec"] = given["spec"] if given["spec"] in network_names() else f"{given['spec']}.yaml"
        words = [str(conversion.get("source", "ANN.onnx")), *(_option(*option) for option in given.items())]
        train = f"zoo convert {shlex.join(words)} -o {name}.safetensors"
    elif model.spec.training is not None:
        train = f"zoo train {name} -o run/{name}"
    steps = ",".join(str(t) for t, accuracy in by_steps.items() if accuracy is not None)
    data_option = "" if model.data == data and data in dataset_names() else f" {shlex.quote(_option('data', data))}"
    return Commands(
        train=train,
        eval=f"zoo eval {name}{data_option} --engine integer --time-steps {steps}",
        card=f"zoo card {name}{data_option} --check",
    )


def _option(name: str, value: object) -> str:
    """Return an option with its value for the command line; lists get commas, flags stand alone."""
    option = option_name(name)
    if value is True:
        return option
    return f"{option}={comma_list(value) if isinstance(value, list) else value}"


def _leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every value of a JSON document with its path; a list of numbers is one value."""
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
