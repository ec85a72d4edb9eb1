"""Card of a trained model: origin, measured figures, and the commands that reproduce them.

`zoo card` writes cards from measurements; nobody writes one by hand. The tests recompute the parts that are cheap to
compute, `make cards` measures the others again.

A model and its card must suffice to verify it, so the card has golden images and curves. What follows from the spec in
the model file is not stored: see `zoo.card_text.document`.
"""

import platform
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from specs.fields import Integer, Name, Number, StrictModel, TimeSteps
from specs.files.given_file import check_given_file, sha256_of
from specs.files.limits import CARD_IMAGE_BYTES
from specs.io import dump_document, load_document
from specs.layers.input import InputSpec
from specs.training import TrainingSpec
from zoo.model_format import ModelFormat

CARD_VERSION: Final = 1
FIRST_KEY: Final = b"card_version:"
REVISION_DIGITS: Final = 12
"""Number of leading digits of a model file's sha256 that are its revision."""
NO_LICENCE: Final = "NOASSERTION"
"""Licence on a card if none is given: SPDX's identifier for no statement."""

Revision = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{REVISION_DIGITS}}}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256, in hexadecimal digits")]
Count = Annotated[Integer, Field(ge=0, lt=1 << 63)]
Amount = Annotated[Number, Field(ge=0)]
Part = Annotated[Number, Field(ge=0, le=1, description="fraction, 0 to 1")]
Steps = Annotated[int, Field(ge=1, le=4096)]


class Record(StrictModel):
    """Part of a card. Cards of before also have the keys in `former`, which are left out."""

    former: ClassVar[set[str]] = set()

    @model_validator(mode="before")
    @classmethod
    def _without_former(cls, given: Any) -> Any:
        return {key: given[key] for key in given if key not in cls.former} if isinstance(given, dict) else given


class FileFacts(StrictModel):
    """Digest and size of a file."""

    sha256: Digest
    bytes: Annotated[Integer, Field(ge=1, lt=1 << 63)]

    @classmethod
    def of_file(cls, path: Path) -> "FileFacts":
        """Return digest and size of the file `path`. Raises `SnnZooError` if it cannot be read."""
        return FileFacts(sha256=sha256_of(path), bytes=path.stat().st_size)


class Versions(StrictModel):
    """Versions of the programs that trained or measured a model."""

    snnzoo: str
    torch: str
    numpy: str
    python: str

    @classmethod
    def here(cls) -> "Versions":
        return cls(
            snnzoo=version("snnzoo"), torch=version("torch"), numpy=version("numpy"), python=platform.python_version()
        )


class Data(StrictModel):
    """Dataset of a model, and its split into images for training, for the choice of the epoch, and for the scores.

    `training_images` and the `validation_*` fields are None if the model file has no recipe. `credit` is origin and
    licence of the data, where they have to be named.
    """

    name: str
    credit: str | None = None
    classes: tuple[str, ...]
    training_images: Count | None
    validation_images: Count | None
    validation_seed: Count | None
    validation_rule: str | None
    test_images: Count


class Curves(StrictModel):
    """Learning curves of a training run, with one value for each epoch.

    `seconds` is the duration of an epoch on the machine that trained.
    """

    seconds: tuple[Amount, ...]
    learning_rate: tuple[Amount, ...]
    training_loss: tuple[Amount, ...]
    training_accuracy: tuple[Part, ...]
    validation_ann_loss: tuple[Amount | None, ...]
    validation_ann_accuracy: tuple[Part | None, ...]
    validation_snn_loss: tuple[Amount | None, ...]
    validation_snn_accuracy: tuple[Part | None, ...]

    @model_validator(mode="after")
    def _check(self) -> "Curves":
        lengths = {name: len(values) for name, values in self}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"learning curves must have equal lengths, got {lengths}")
        return self


class SeedScore(StrictModel):
    """Score of the same recipe with another seed.

    `accuracy` is the test accuracy of the integer engine at the network's T. `epoch`, counted from 0, is the one that
    was kept; its `validation_accuracy` is measured as SNN.
    """

    seed: Count
    epoch: Count | None
    validation_accuracy: Part | None
    accuracy: Part


class Training(StrictModel):
    """Training that made the weights.

    Attributes:
        recipe: recipe of the training or tuning; None for weights that were trained elsewhere and not tuned.
        epoch: the epoch that was kept, counted from 0; None if no epoch ended.
        validation_accuracy: accuracy of that epoch on the validation images, as SNN.
        start_revision: revision of the model that the training started from; None for fresh weights.
        start_changes: fields of that model's spec that were replaced, as `key=value`.
        teacher_revision: revision of the teacher; None without one, or if the model file does not contain it.
        versions: versions of the programs that trained; None if the model file does not contain them.
        curves: learning curves; None if the run did not keep them.
        other_seeds: scores of runs with other seeds, whose weights are not published.
    """

    recipe: TrainingSpec | None
    epoch: Count | None
    validation_accuracy: Part | None
    start_revision: Revision | None = None
    start_changes: tuple[str, ...] = ()
    teacher_revision: Revision | None = None
    versions: Versions | None = None
    curves: Curves | None = None
    other_seeds: tuple[SeedScore, ...] = ()


class Layer(Record):
    """Activity of a layer on the test images at the network's T.

    `rate` is the mean number of spikes per neuron and time step; None for a layer without neurons. `synops` is the mean
    number of synaptic operations per image: weights that arriving spikes reach.
    """

    former: ClassVar[set[str]] = {"kind", "shape", "parameters", "weight_bytes"}
    rate: Part | None
    synops: Amount


class Scores(StrictModel):
    """Scores of the integer engine on all test images.

    Attributes:
        accuracy: accuracy at the network's T, 0 to 1.
        loss: mean cross-entropy at the network's T.
        by_steps: accuracy by number of time steps; None if a state leaves the hardware's 24 bits.
        ann: accuracy as ANN, in floats; None without fitted activations.
        elsewhere: accuracy at the network's T on all test images of other datasets of the same classes, by their names.
    """

    engine: Literal["integer"] = "integer"
    accuracy: Part
    loss: Amount
    by_steps: dict[Steps, Part | None]
    ann: Part | None
    elsewhere: dict[str, Part] = Field(default_factory=dict)


class OperationsOf(Record):
    """Effective synaptic operations of one inference, as NeuroBench defines them: without those with a factor of 0.

    `effective_acs` are accumulates, for spikes; `effective_macs` are multiply-accumulates, for any other input.
    """

    former: ClassVar[set[str]] = {"dense"}
    effective_macs: Amount
    effective_acs: Amount


class Operations(StrictModel):
    """Synaptic operations of the network as SNN at its T, and as ANN; `ann` is None without fitted activations."""

    snn: OperationsOf
    ann: OperationsOf | None


GOLDEN_LETTERS = 1 << 15
"""Limit on the text of a card's golden images, in characters of base64."""


class Golden(StrictModel):
    """Golden images: test images, and the output of the integer engine for them at the network's T.

    Attributes:
        seed: seed from which the images were drawn, for data whose images cards must not contain; None for test images.
        images: pixels, uint8 of `shape`, compressed by zlib, in base64.
        shape: `[N, C, H, W]`, or `[N, T, C, H, W]` of events.
        labels: classes of the images, `[N]`; of drawn images the network's answers.
        logits: exact logits, `[N, classes]`.
        spikes: number of spikes in each layer that has neurons, input first, `[N, layers]`.
    """

    seed: Count | None = None
    images: Annotated[str, Field(max_length=GOLDEN_LETTERS)]
    shape: tuple[Count, Count, Count, Count] | tuple[Count, Count, Count, Count, Count]
    labels: tuple[Count, ...]
    logits: tuple[tuple[Number, ...], ...]
    spikes: tuple[tuple[Count, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> "Golden":
        n_images, n_bytes = self.shape[0], prod(self.shape)
        if not 0 < n_bytes <= CARD_IMAGE_BYTES:
            raise ValueError(f"images of {list(self.shape)}: must be 1 to {CARD_IMAGE_BYTES:,} bytes, got {n_bytes:,}")
        for name, rows in (("labels", self.labels), ("logits", self.logits), ("spikes", self.spikes)):
            if len(rows) != n_images:
                raise ValueError(f"{name}: must have a row for each of the {n_images} images, got {len(rows)}")
        return self


class Commands(StrictModel):
    """Commands that reproduce the model, its scores and this card.

    `train` is None if the model file has neither a recipe nor the options of a conversion.
    """

    train: str | None
    eval: str
    card: str


class Card(Record):
    """Card of a trained model.

    Attributes:
        revision: first digits of the safetensors file's sha256.
        date: date of the measurement.
        files: digest and size of the model's files by format; the safetensors file is always there.
        earlier: sha256 of former safetensors files of this model, which had other bytes and gave the same output.
        input: shape of the images, and their preprocessing.
        versions: versions of the programs that measured.
    """

    former: ClassVar[set[str]] = {"spec_sha256", "parameters", "weight_bytes", "energy"}
    card_version: Literal[1] = CARD_VERSION
    name: Name
    revision: Revision
    description: str
    licence: str = NO_LICENCE
    date: date
    time_steps: TimeSteps
    files: dict[ModelFormat, FileFacts]
    earlier: tuple[Digest, ...] = ()
    input: InputSpec
    data: Data
    training: Training
    layers: tuple[Layer, ...]
    test: Scores
    operations: Operations
    commands: Commands
    versions: Versions
    golden: Golden

    @model_validator(mode="after")
    def _check(self) -> "Card":
        check_revision(self.revision, self.files)
        if self.time_steps not in self.test.by_steps:
            raise ValueError(f"test.by_steps: must contain the network's time_steps, {self.time_steps}")
        data = self.data
        split = data.training_images, data.validation_images, data.validation_seed, data.validation_rule
        if any((part is None) is not (self.training.recipe is None) for part in split):
            raise ValueError("data: training_images and validation_* need values if training.recipe has one, else null")
        if (accuracy := self.test.accuracy) != (own := self.test.by_steps[self.time_steps]):
            raise ValueError(f"test.accuracy: must be {own}, as by_steps has at T = {self.time_steps}, got {accuracy}")
        return self


def seed_accuracies(card: Card) -> list[float]:
    """Return the test accuracies of all seeds; the first one is of the model that the card describes."""
    return [card.test.accuracy, *(run.accuracy for run in card.training.other_seeds)]


def load_card(path: Path) -> Card:
    """Read a card. Raises `SpecError` with every problem found, each with its line and field."""
    return load_document(path, Card)


def is_card(path: Path) -> bool:
    """Return whether a file begins like a card. Raises `SnnZooError` if it cannot be read."""
    check_given_file(path, what="card ")
    with path.open("rb") as file:
        return file.read(len(FIRST_KEY)) == FIRST_KEY


def dump_card(card: Card, path: Path | None = None) -> str:
    """Return the card as YAML text; also write it to `path` if given."""
    return dump_document(card, path)


def revision_of(sha256: str) -> str:
    """Return the revision of a model file from its sha256."""
    return sha256[:REVISION_DIGITS]


def check_revision(revision: str, files: Mapping[Any, FileFacts]) -> None:
    """Raise `ValueError` unless `files`, by format, have a safetensors file of this revision."""
    if ModelFormat.SAFETENSORS not in files:
        raise ValueError("files: the safetensors file is missing, from which all other formats are made")
    own = revision_of(files[ModelFormat.SAFETENSORS].sha256)
    if revision != own:
        raise ValueError(f"revision: must be {own}, the first digits of the safetensors file's sha256, got {revision}")
