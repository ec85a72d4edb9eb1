"""What a card says of a trained model: what it is, where it came from, what it does, and how to make it again.

`zoo card` writes a card from measurements, never a person. Its parts that are cheap to compute are computed again by
the tests, the others by `make cards`.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, model_validator

from specs.block import InputSpec
from specs.fields import Integer, Name, Number, StrictModel, TimeSteps
from specs.files.file_digest import sha256_of
from specs.files.given_file import check_given_file
from specs.files.limits import CARD_IMAGE_BYTES
from specs.io import dump_document, load_document
from specs.network import NetworkSpec
from specs.training import TrainingSpec
from zoo.model_format import ModelFormat

__all__ = [
    "CARD_VERSION",
    "REVISION_DIGITS",
    "Card",
    "Commands",
    "Curves",
    "Data",
    "Energy",
    "EnergyConstant",
    "FileFacts",
    "Golden",
    "Layer",
    "Operations",
    "OperationsOf",
    "Scores",
    "SeedScore",
    "Training",
    "Versions",
    "check_revision",
    "dump_card",
    "is_card",
    "load_card",
    "revision_of",
    "seed_accuracies",
    "spec_digest",
]

CARD_VERSION: Final = 1
FIRST_KEY: Final = b"card_version:"
REVISION_DIGITS: Final = 12
"""Of the model file's sha256, which make its revision."""

Revision = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{REVISION_DIGITS}}}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256, in hexadecimal digits")]
Count = Annotated[Integer, Field(ge=0, lt=1 << 63)]
Amount = Annotated[Number, Field(ge=0)]
Part = Annotated[Number, Field(ge=0, le=1, description="a part of all, 0 to 1")]
Steps = Annotated[int, Field(ge=1, le=4096)]


class FileFacts(StrictModel):
    """What the bytes of a file must be."""

    sha256: Digest
    bytes: Annotated[Integer, Field(ge=1, lt=1 << 63)]

    @classmethod
    def of_file(cls, path: Path) -> "FileFacts":
        """Those of `path`. Raises `SnnZooError` if it cannot be read."""
        return FileFacts(sha256=sha256_of(path), bytes=path.stat().st_size)


class Versions(StrictModel):
    """Of the programs that made something."""

    snnzoo: str
    torch: str
    numpy: str
    python: str

    @classmethod
    def here(cls) -> "Versions":
        """Those that run now."""
        return cls(
            snnzoo=version("snnzoo"), torch=version("torch"), numpy=version("numpy"), python=platform.python_version()
        )


class Data(StrictModel):
    """Images, and how they were split: for training, for choosing the epoch, for the scores.

    `training_images` and what is of the validation are None where no recipe tells.
    """

    name: str
    classes: tuple[str, ...]
    training_images: Count | None
    validation_images: Count | None
    validation_seed: Count | None
    validation_rule: str | None
    test_images: Count


class Curves(StrictModel):
    """Of a training, by epoch, all as long; `seconds` is what each took on the machine that trained."""

    seconds: tuple[Amount, ...]
    learning_rate: tuple[Amount, ...]
    training_loss: tuple[Amount, ...]
    training_accuracy: tuple[Part, ...]
    validation_ann_loss: tuple[Amount, ...]
    validation_ann_accuracy: tuple[Part, ...]
    validation_snn_loss: tuple[Amount, ...]
    validation_snn_accuracy: tuple[Part, ...]

    @model_validator(mode="after")
    def _check(self) -> "Curves":
        lengths = {name: len(values) for name, values in self}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"curves of one training have other lengths: {lengths}")
        return self


class SeedScore(StrictModel):
    """What the same recipe gave from another seed: the test accuracy of the integer engine, at the network's own T."""

    seed: Count
    epoch: Count | None
    validation_accuracy: Part | None
    accuracy: Part


class Training(StrictModel):
    """How the weights came to be.

    `recipe` is None of weights that were trained elsewhere and not tuned. `epoch`, counted from 0, is that of the best
    `validation_accuracy` as SNN; None if no epoch ended. `start_revision` is of the model that was trained on, None of
    fresh weights; `start_changes`, as `key=value`, is what was replaced of its spec. `versions`, `teacher_revision` and
    `curves` are None where the model file, or its run, did not keep them. `other_seeds` are runs that were not shipped.
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


class Layer(StrictModel):
    """A layer, input first: what it costs, and what it does on the test images at the network's own T.

    `rate` is spikes of a neuron and step, None without neurons; `synops` are the weights that arriving spikes reach, of
    an image.
    """

    kind: str
    shape: tuple[Count, ...]
    parameters: Count
    weight_bytes: Count
    rate: Part | None
    synops: Amount


class Scores(StrictModel):
    """Accuracy on all test images, of the integer engine as SNN.

    Attributes:
        accuracy: at the network's own T.
        loss: cross-entropy there.
        by_steps: accuracy of T steps; None where a state leaves the 24 bits of the hardware.
        ann: accuracy as ANN, in floats; None without fitted activations.
    """

    engine: Literal["integer"] = "integer"
    accuracy: Part
    loss: Amount
    by_steps: dict[Steps, Part | None]
    ann: Part | None


class OperationsOf(StrictModel):
    """Synaptic operations of an inference as NeuroBench defines them: no bias, no neuron, no padding.

    `dense` counts every synapse, at each step; the effective ones only where neither weight nor input is 0. They are
    accumulations (`acs`) of spikes, and multiplications with accumulation (`macs`) of any other input.
    """

    dense: Count
    effective_macs: Amount
    effective_acs: Amount


class Operations(StrictModel):
    """Of the spiking network at its own T, and of the same weights as ANN, if its activations are fitted."""

    snn: OperationsOf
    ann: OperationsOf | None


class EnergyConstant(StrictModel):
    """What one operation costs, and who says so."""

    operation: str
    picojoules: Amount
    source: str


class Energy(StrictModel):
    """Of an image, estimated from its operations."""

    nanojoules: dict[str, Amount]
    constants: tuple[EnergyConstant, ...]
    caveat: str


GOLDEN_LETTERS = 1 << 15
"""That the golden images of a card may take."""


class Golden(StrictModel):
    """Test images and what the integer engine makes of them, at the network's own T.

    Attributes:
        images: uint8 `shape`, compressed by zlib, in base64.
        shape: `[N, C, H, W]`.
        labels: the classes of the images.
        logits: `[N, classes]`, exact.
        spikes: `[N, layers]`, of the layers that have neurons, input first.
    """

    images: Annotated[str, Field(max_length=GOLDEN_LETTERS)]
    shape: tuple[Count, Count, Count, Count]
    labels: tuple[Count, ...]
    logits: tuple[tuple[Number, ...], ...]
    spikes: tuple[tuple[Count, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> "Golden":
        n_images, n_bytes = self.shape[0], prod(self.shape)
        if not 0 < n_bytes <= CARD_IMAGE_BYTES:
            raise ValueError(f"images of {list(self.shape)} have {n_bytes:,} bytes, not 1 to {CARD_IMAGE_BYTES:,}")
        for name, rows in (("labels", self.labels), ("logits", self.logits), ("spikes", self.spikes)):
            if len(rows) != n_images:
                raise ValueError(f"{n_images} images have {len(rows)} {name}")
        return self


class Commands(StrictModel):
    """That make the model, its scores and this card again; `train` is None where nobody tells recipe or conversion."""

    train: str | None
    eval: str
    card: str


class Card(StrictModel):
    """A trained model.

    Attributes:
        revision: the first digits of the safetensors file's sha256.
        date: when it was measured.
        spec_sha256: of the spec in the model file, as `spec_digest` computes it.
        files: by format; always the safetensors file.
        weight_bytes: of all weights, 8 bits each.
        input: shape and preprocessing.
        versions: of what measured.
    """

    card_version: Literal[1] = CARD_VERSION
    name: Name
    revision: Revision
    description: str
    licence: str
    date: date
    time_steps: TimeSteps
    spec_sha256: Digest
    files: dict[ModelFormat, FileFacts]
    parameters: Count
    weight_bytes: Count
    input: InputSpec
    data: Data
    training: Training
    layers: tuple[Layer, ...]
    test: Scores
    operations: Operations
    energy: Energy
    commands: Commands
    versions: Versions
    golden: Golden

    @model_validator(mode="after")
    def _check(self) -> "Card":
        check_revision(self.revision, self.files)
        if self.time_steps not in self.test.by_steps:
            raise ValueError(f"test.by_steps lacks the network's own time_steps, {self.time_steps}")
        data = self.data
        split = data.training_images, data.validation_images, data.validation_seed, data.validation_rule
        if any((part is None) is not (self.training.recipe is None) for part in split):
            raise ValueError("data tells how images were split if, and only if, training.recipe tells a recipe")
        if self.test.accuracy != (own := self.test.by_steps[self.time_steps]):
            raise ValueError(f"test.accuracy is {self.test.accuracy}, of its own {self.time_steps} time steps {own}")
        return self


def seed_accuracies(card: Card) -> list[float]:
    """Test accuracies of all seeds that were trained, that of the shipped weights first."""
    return [card.test.accuracy, *(run.accuracy for run in card.training.other_seeds)]


def load_card(path: Path) -> Card:
    """Read a card. Raises `SpecError` with every problem found, each with its line and field."""
    return load_document(path, Card)


def is_card(path: Path) -> bool:
    """Whether a file is a card, by how it begins. Raises `SnnZooError` if it cannot be read."""
    check_given_file(path, what="card ")
    with path.open("rb") as file:
        return file.read(len(FIRST_KEY)) == FIRST_KEY


def dump_card(card: Card, path: Path | None = None) -> str:
    """The card as YAML text; also written to `path` if given."""
    return dump_document(card, path)


def revision_of(sha256: str) -> str:
    """The revision of a model file with that digest."""
    return sha256[:REVISION_DIGITS]


def check_revision(revision: str, files: Mapping[Any, FileFacts]) -> None:
    """Raise `ValueError` unless there is a safetensors file among `files`, by format, and it is of that revision."""
    if ModelFormat.SAFETENSORS not in files:
        raise ValueError("files has no safetensors, from which all other formats are made")
    own = revision_of(files[ModelFormat.SAFETENSORS].sha256)
    if revision != own:
        raise ValueError(f"revision {revision} is not {own}, as the sha256 of its safetensors file begins")


def spec_digest(spec: NetworkSpec) -> str:
    """Sha256 of the spec's canonical JSON: keys sorted, no spaces, ASCII.

    Defaults are left out, so that a spec keeps its digest when specs grow fields; each block's `kind` stays.
    """
    text = json.dumps(_told(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _told(value: object) -> object:
    """What a spec says beyond its defaults, as JSON values."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: _told(one) for name, one in value if name == "kind" or one != fields[name].default}
    return [_told(one) for one in value] if isinstance(value, tuple) else value
