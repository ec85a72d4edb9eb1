"""Beginning of a training: the network and its recipe, the weights, and warnings about them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from bootstrap_core.network.build import build_network
from converters.model import Model
from converters.weight_norm.migration_plan import migrate_state_dict
from converters.weight_norm.norm_styles import Style
from specs.dataset_sources import found_data
from specs.errors import SnnZooError
from specs.files.given_file import sha256_of
from specs.files.named_data import check_named_data
from specs.network import NetworkSpec
from specs.training import TrainingSpec
from zoo.card import revision_of
from zoo.hub.catalog import find_model, local_catalogs
from zoo.runs.card_files import card_of
from zoo.sources import is_spec, model_path, override_spec, read_source, read_start

NORM = ".parametrizations.weight.original0"
"""End of the name of a weight norm's lengths in a state dict."""


def read_recipe(source: str, assignments: tuple[str, ...]) -> tuple[NetworkSpec, Model | None]:
    """Return the network to train, with its recipe, and the model if training continues one.

    Args:
        source: as in `read_start`.
        assignments: fields that replace those of the spec; see `override_spec`.

    Raises:
        SnnZooError: the source has no recipe and `assignments` name no data, or the recipe does not suit the network.
        DataError: the data that a model names are missing, or may not be opened; see `check_named_data`.
    """
    start, model = read_start(source)
    network = override_spec(start, assignments)
    if model is not None:
        network = _without_own_start(network, assignments)
    recipe = network.training or TrainingSpec()
    if problem := network.recipe_problem(recipe):
        raise SnnZooError(f"training.{problem[0]}: {problem[1]}")
    if start.training is None and "data" not in recipe.model_fields_set and not is_spec(source):
        raise SnnZooError(
            f"{start.name} has no recipe, since it was trained elsewhere, or converted and not tuned: name data, as in "
            "--data mnist, to train with the default recipe, which --set changes"
        )
    if (data := found_data(recipe.data)) != recipe.data:
        recipe = recipe.model_copy(update={"data": data})
        network = network.model_copy(update={"training": recipe})
    if not (is_spec(source) or any(assignment.startswith("training.data=") for assignment in assignments)):
        check_named_data(recipe.data, model_path(source), start.name)
    return network, model


def _without_own_start(network: NetworkSpec, assignments: tuple[str, ...]) -> NetworkSpec:
    """Return the network without the start of its recipe, as a model file that is continued is the start itself."""
    if any(assignment.startswith("training.start=") for assignment in assignments):
        raise SnnZooError("training.start: the training starts from the model file itself: leave it out")
    if network.training is None or network.training.start is None:
        return network
    return network.model_copy(update={"training": network.training.model_copy(update={"start": None})})


class Start(NamedTuple):
    """Model that training starts from, its weights in the form of the trained network, and its revision."""

    model: Model
    weights: Mapping[str, Tensor]
    revision: str


def load_start(spec: NetworkSpec) -> Start | None:
    """Load the model that the recipe of `spec` starts from; None without one.

    Raises `SnnZooError` if there is no such model, or it has other layers.
    """
    if spec.training is None or spec.training.start is None:
        return None
    source = spec.training.start
    try:
        model, trained = read_source(source)
        if not trained:
            raise SnnZooError("it is a spec, whose weights are fresh")
        if model.spec.shapes != spec.shapes:
            raise SnnZooError(f"it has {_outline(model.spec)}, not {_outline(spec)}")
        weights = _with_norms_of(spec, model).build().state_dict()
    except SnnZooError as error:
        raise type(error)(f"training.start: {source!r} must have the layers of {spec.name}: {error}") from None
    return Start(model, weights, revision_of(sha256_of(model_path(source))))


def _outline(spec: NetworkSpec) -> str:
    return "-".join("x".join(map(str, shape)) for shape in spec.shapes)


def _with_norms_of(spec: NetworkSpec, model: Model) -> Model:
    """Return a model of `spec` with the weights of `model`, whose weight norms may be multiplied out."""
    normed = [
        name.removesuffix(NORM) + ".weight" for name in build_network(spec, seed=0).state_dict() if name.endswith(NORM)
    ]
    folded = [name for name in normed if name in model.tensors]
    tensors = model.tensors
    if folded or not normed:
        tensors = migrate_state_dict(tensors, to=Style.PARAMETRIZED if folded else Style.PLAIN, only=folded or None)
    return replace(model, spec=spec, tensors=tensors)


def continued(model: Model, source: str) -> Start:
    """Return the start of a training that continues the model in the file `source`."""
    return Start(model, model.build().state_dict(), revision_of(sha256_of(Path(source))))


def learnt_validation(who: str, model: Model, recipe: TrainingSpec) -> Iterator[str]:
    """Yield a warning if the model `who` has learnt from images that `recipe` validates on."""
    before = model.spec.training or (TrainingSpec() if model.card_entry("training") else None)
    has_learnt = model.card_entry("training") or model.card_entry("conversion")
    if before and has_learnt and (remedy := recipe.learnt_validation(before)):
        samples = f"{model.spec.input.sample}s"
        yield f"{who} has learnt from some of the validation {samples}, so their score will be too good: {remedy}"


def doubts_about_teacher(source: str, recipe: TrainingSpec, revision: str | None) -> Iterator[str]:
    """Yield warnings if the teacher of `recipe` is not the one on the card of `source`, or has learnt too much.

    `revision` is that of the teacher now.
    """
    if (teacher := recipe.teacher) is None:
        return
    card = card_of(source)
    taught_by = None if card is None or card.training.recipe is None else card.training.recipe.teacher
    before = None if card is None or taught_by != teacher else card.training.teacher_revision
    known = before and find_model(f"{teacher}@{before}", local_catalogs())
    if before not in (None, revision, known and known.model.revision):
        yield (
            f"{source} was taught by {teacher}@{before}, but {teacher} is now revision "
            f"{revision}: this run will end with other weights"
        )
    yield from learnt_validation(f"the teacher {teacher}", read_source(teacher)[0], recipe)
