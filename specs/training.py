"""Spec of a training run: data, augmentation, optimizer, and the bootstrap schedule."""

import os
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from specs.dataset_sources import find_user_data, found_data
from specs.errors import DataError, SnnZooError, SpecError
from specs.fields import Flag, Integer, Number, Positive, StrictModel

FIND_DATA, SPEC_FOLDER = "find data", "spec folder"
"""Keys of a Pydantic validation context: whether what `data` names must exist, and the folder of the spec."""

NonNegative = Annotated[Integer, Field(ge=0)]
Amount = Annotated[Number, Field(ge=0)]


class LearningRateSchedule(StrEnum):
    """Learning rate over the epochs."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Precision(StrEnum):
    """Number type of matrix products in training."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class SnnGradient(StrEnum):
    """Gradient of SNN epochs.

    Source of `tandem`: Wu et al. 2021, A Tandem Learning Rule for Effective Training and Rapid Inference of Deep
    Spiking Neural Networks.
    """

    SURROGATE = "surrogate"
    TANDEM = "tandem"


class AugmentSpec(StrictModel):
    """Random augmentation of each training image. To recordings of events `shift`, `flip`, `drop`, `jitter` apply, and
    to sounds all that applies to images: with `encoding: events` it acts on the whole spectrogram."""

    degrees: Annotated[Number, Field(ge=0, le=180)] = 10.0
    """Maximum rotation, in degrees, in either direction."""
    translate: Annotated[Number, Field(ge=0, le=1)] = 0.05
    """Maximum shift along each axis, as a fraction of the image size."""
    scale: tuple[Annotated[Number, Field(gt=0)], Annotated[Number, Field(gt=0)]] = (0.95, 1.05)
    """Smallest and largest zoom factor."""
    shear: Annotated[Number, Field(ge=0, lt=90)] = 5.0
    """Maximum shear, in degrees, in either direction."""
    shift: Annotated[Integer, Field(ge=0, le=64)] = 0
    """Maximum shift along each axis, in whole pixels, with black beyond the edges; as `RandomCrop` with this padding in
    torchvision. The image is not resampled."""
    flip: Flag = False
    """Mirror images left to right, with probability 1/2."""
    elastic: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Standard deviation of a smooth random displacement of pixels, as a fraction of the image size; 0 disables it."""
    erase: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Side of a square that is set to 0 at a random place, as a fraction of the image size; 0 disables it."""
    drop: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Largest part of the events that are left out of a recording; the part is drawn for each recording."""
    jitter: Annotated[Integer, Field(ge=0, le=64)] = 0
    """Maximum shift of each event in time, in time steps, either way. Events that leave the recording are lost."""

    def check(self, *, events: bool) -> None:
        """Raise `SpecError` for fields that do not apply to events, or to images, or if nothing in it does."""
        for name, of_events in _APPLY.items():
            value = getattr(self, name)
            if of_events != events and value != type(self).model_fields[name].default:
                what, others = ("events", "images") if events else ("images", "events")
                raise SpecError(f"training.augment.{name}: applies to {others}, not to {what}: remove it")
        if events and not (self.shift or self.flip or self.drop or self.jitter):
            raise SpecError("training.augment: changes no events: set shift, flip, drop or jitter, or augment to null")

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be [smallest, largest]")
        return scale


_APPLY = {
    **dict.fromkeys(("degrees", "translate", "scale", "shear", "elastic", "erase"), False),
    **dict.fromkeys(("drop", "jitter"), True),
}
"""Fields that apply only to images (False) or only to events (True)."""


def _as_augment(value: object) -> object:
    """Return the fields of an augmentation; `default` stands for all defaults."""
    if value == "default":
        return AugmentSpec().model_dump()
    if isinstance(value, str | int | float | list):
        raise ValueError("must be default, null, or a mapping of fields")
    return value


Augment = Annotated[
    AugmentSpec | None,
    BeforeValidator(_as_augment, json_schema_input_type=AugmentSpec | Literal["default"] | None),
]


class TrainingSpec(StrictModel):
    """Training recipe. The defaults train the networks of lava-dl's bootstrap tutorial on MNIST.

    The output of the network decides what it learns. A network that gives logits learns classes: the loss is the
    cross-entropy, and the epoch with the highest accuracy is kept. One that gives values learns their targets: the loss
    is the mean squared error, and the epoch with the lowest rms error is kept. One that gives spike trains learns
    wanted ones: the loss is the van Rossum distance, and the epoch with the smallest distance is kept. Fields about
    classes, such as `label_smoothing`, apply only to networks that give logits.

    ANN epochs replace each neuron by its activation, a curve fitted to the neuron's measured rates. Every
    `sample_period` epochs, the first `sample_iterations` batches run as SNN and sample the neurons, the next
    batch fits the activations, and the remaining batches train as ANN. ANN epochs and SNN epochs each have their own
    learning-rate schedule. The optimizer is AdamW.
    """

    data: str = "mnist"
    """Dataset: a name from `zoo data list`, an `.npz` file, or a folder or `.tar` that has a folder of images, WAV
    files or recordings of events for each class; see "Images" in `converters/README.md`. For a network that gives
    values or spike trains, an `.npz` of inputs and targets; see "Frames" and "Spike trains" in `zoo/README.md`. A
    relative path starts at the working folder."""
    initialize: Flag = False
    """Scale initial weights layer by layer so that all layers spike on the training images. Deep networks need it."""
    start: str | None = None
    """Name or file of a trained model with the same layers, from whose weights `zoo train` starts; the default is fresh
    weights. In Python, `fit` starts from the weights of the network that it is given."""
    epochs: Positive = 50
    """Total number of epochs, ANN and SNN together."""
    batch_size: Positive = 128
    """Number of images in a batch; of all processes together in distributed training."""
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-3
    """Initial learning rate of the ANN epochs."""
    learning_rate_schedule: LearningRateSchedule = LearningRateSchedule.COSINE
    """Learning rates over the epochs: `constant`, or `cosine`, which decreases to 0."""
    weight_decay: Amount = 0.0
    """Weight decay of the AdamW optimizer."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Label smoothing, as in `torch.nn.CrossEntropyLoss`: fraction of each label that is spread over all classes."""
    logit_scale: Annotated[Number, Field(gt=0)] = 1.0
    """Factor on the logits in the training loss only. Probabilities and the loss of an evaluation, also on validation
    images, take the `logit_scale` of the network instead."""
    teacher: str | None = None
    """Teacher for distillation: name or model file of a trained network with the same classes."""
    distillation: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Weight of the distillation loss, from 0 (labels only) to 1 (teacher only); needs a `teacher`."""
    augment: Augment = None
    """Augmentation of training images: `default` rotates, shifts, zooms and shears by the defaults of `AugmentSpec`; a
    mapping sets some of its fields; `null` means none. For crops and mirroring alone, as is usual for CIFAR-10, set the
    defaults to zero: `{degrees: 0, translate: 0, scale: [1, 1], shear: 0, shift: 4, flip: true}`. For events,
    rotations, zooms and the like do not apply: set what does, as in `{shift: 2, drop: 0.3, jitter: 1}`."""
    mixup: Annotated[Number, Field(ge=0, le=100)] = 0.0
    """Mixup: each image and its label are mixed with another of the batch, in proportions drawn from
    Beta(mixup, mixup); the image itself always gets the larger share. Usual values are 0.2 to 0.4; 0 disables it."""
    precision: Precision = Precision.AUTO
    """Number type of matrix products in training: `float32`, `bfloat16`, or `auto`, which is bfloat16 on processors
    that multiply it faster. It applies to ANN batches and to gradients; weights and spikes stay exact. In bfloat16 each
    factor of a gradient has a random relative error of at most 2^-9."""
    images_per_epoch: Positive | None = None
    """Number of training images in an epoch, drawn anew for each epoch; the default is all."""
    validation: NonNegative = 5000
    """Number of images that are held out of the training set to choose the best epoch. With 0 none are, and the last
    epoch is kept."""
    sample_period: Positive = 10
    """Number of epochs from one sampling and fit of the activations to the next."""
    sample_iterations: Positive = 10
    """Number of batches that run as SNN to sample the neurons, at the start of such an epoch."""
    crossover_epochs: tuple[NonNegative, ...] = ()
    """Hybrid training: epochs below `epochs`, counted from 0, in ascending order. From the first of them on the input
    runs as SNN, from the second also the first block, and so on; the other blocks run as ANN. An epoch may occur
    several times."""
    snn_epochs: NonNegative = 0
    """Number of epochs at the end, at most `epochs`, that train the whole network as SNN."""
    snn_learning_rate: Annotated[Number, Field(gt=0)] = 2e-4
    """Initial learning rate of the SNN epochs."""
    snn_gradient: SnnGradient = SnnGradient.SURROGATE
    """Gradient of the SNN epochs: `surrogate` goes back through all time steps with surrogate gradients; `tandem` is
    faster and uses the slopes of the fitted activations at the measured rates. Sigma-delta neurons need `tandem`."""
    self_distillation: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Weight, from 0 to 1, of a distillation loss in the SNN epochs whose teacher is the network itself, as ANN, at the
    start of these epochs. A `teacher`, if given, then teaches the ANN epochs only."""
    spike_tau: Annotated[Number, Field(gt=0)] = 5.0
    """Time constant of the van Rossum distance between spike trains, in time steps; only for networks with `output:
    spikes`. A spike that is early or late by much less than this costs little."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, for each batch. The averaged weights are evaluated and
    saved. A usual value is 0.999; 0 disables it."""
    seed: Annotated[Integer, Field(ge=0, lt=1 << 63)] = 0
    """Random seed of initial weights, validation split, order of images, augmentation and dropout."""

    @field_validator("data")
    @classmethod
    def _check_data(cls, data: str, info: ValidationInfo) -> str:
        context = info.context or {}
        if SPEC_FOLDER in context and not os.path.exists(data):  # noqa: PTH110 - False for a bad name
            data = found_data(data, context[SPEC_FOLDER])
        if context.get(FIND_DATA):
            try:
                find_user_data(data)
            except DataError as error:
                raise ValueError(str(error)) from None
        return data

    @field_validator("snn_epochs")
    @classmethod
    def _check_snn_epochs(cls, snn_epochs: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs", snn_epochs)
        if snn_epochs > epochs:
            raise ValueError(f"must be at most training.epochs ({epochs})")
        return snn_epochs

    @field_validator("crossover_epochs")
    @classmethod
    def _check_crossover_epochs(cls, crossover_epochs: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if list(crossover_epochs) != sorted(crossover_epochs):
            raise ValueError("must be in ascending order")
        epochs = info.data.get("epochs")
        if crossover_epochs and epochs is not None and crossover_epochs[-1] >= epochs:
            raise ValueError(f"must be below training.epochs ({epochs}), since epochs count from 0")
        return crossover_epochs

    def check_images(self, n_images: int, what: str = "images") -> None:
        """Raise `DataError` if the validation split would take all of `n_images` training images, or other `what`."""
        if self.validation >= n_images:
            fewer = f"lower it, for example with --set training.validation={n_images // 4 or 1}"
            raise DataError(
                f"training.validation: must be below the number of training {what} ({n_images:,}), got "
                f"{self.validation:,}: " + (fewer if n_images > 1 else f"provide more {what}")
            )

    def problem_for(self, outputs: str, only_snn: str | None) -> tuple[str, str] | None:
        """Return the first field that does not apply to a network, and the message; None if all apply.

        Args:
            outputs: what the network gives: classes, values or spike trains.
            only_snn: kind of a network that has no ANN, for the message; None if it has one.
        """
        for name, reason in _UNFIT[outputs].items():
            if getattr(self, name) != type(self).model_fields[name].default:
                return name, reason if name == "spike_tau" else f"{_NOT_FOR} {outputs}, {reason}: remove it"
        if outputs == "values":
            if self.precision is Precision.BFLOAT16:
                return "precision", "must be auto: a network that gives values trains in float64, got bfloat16"
            if self.snn_epochs and self.snn_gradient is SnnGradient.SURROGATE:
                return "snn_gradient", "must be tandem: sigma-delta neurons have no surrogate gradient, got surrogate"
        if only_snn is None:
            return None
        if self.snn_epochs < self.epochs:
            return "snn_epochs", (
                f"{only_snn} has no ANN, so all epochs must be SNN epochs: set it to {self.epochs}, the epochs, got "
                f"{self.snn_epochs}"
            )
        if self.snn_gradient is not SnnGradient.SURROGATE:
            return "snn_gradient", f"must be surrogate, as {only_snn} has no ANN"
        if self.self_distillation:
            return "self_distillation", f"must be 0, as {only_snn} has no ANN to teach it"
        return None

    def check_kind(self, *, events: bool, columns: bool = False) -> None:
        """Raise `SpecError` for fields that do not apply to events, or to images, or to pictures in `columns`."""
        if self.augment is not None:
            self.augment.check(events=events and not columns)
        if events and self.mixup:
            raise SpecError("training.mixup: applies to images, not to events: remove it")

    def check_own_teacher(self, *, fitted: bool) -> None:
        """Raise `SnnZooError` if `self_distillation` is set and the activations are not fitted (`fitted` is False)."""
        if self.self_distillation and not fitted:
            raise SnnZooError("training.self_distillation: the teacher is the ANN: train at least one ANN epoch first")

    def learnt_validation(self, before: "TrainingSpec") -> str | None:
        """Return advice if a network trained with `before` has learnt from images that this recipe validates on.

        Returns None if the validation images are still unseen.

        >>> TrainingSpec(seed=1).learnt_validation(TrainingSpec())
        'set training.seed=0 to keep the validation images of the earlier training'
        """
        if self.data != before.data:
            return None
        if self.seed != before.seed:
            return f"set training.seed={before.seed} to keep the validation images of the earlier training"
        if self.validation > before.validation:
            fewer = " or less" if before.validation else ""
            return f"set training.validation={before.validation}{fewer}, as in the earlier training"
        return None

    @property
    def idle(self) -> list[str]:
        """Warnings about fields that are set but have no effect, or are written in an old form.

        >>> TrainingSpec(self_distillation=0.5).idle
        ['training.self_distillation has no effect without SNN epochs: set training.snn_epochs']
        """
        found = ["training.initialize has no effect with training.start"] if self.start and self.initialize else []
        if self.augment is not None and not self.augment.model_fields_set:
            found.append("training.augment: {} means the defaults, and will be refused: write augment: default")
        return found + [
            f"training.{name} has no effect without {what}: set training.{needed}"
            for needed, what, names in _NEEDED
            for name in names
            if not getattr(self, needed) and getattr(self, name) != TrainingSpec.model_fields[name].default
        ]


_NOT_FOR = "does not apply to a network that gives"
_NO_TRAINS = {"spike_tau": "applies only to a network with output: spikes: remove it"}
_NOT_FOR_VALUES = {
    **_NO_TRAINS,
    **dict.fromkeys(("label_smoothing", "logit_scale", "mixup"), "as it has no classes"),
    **dict.fromkeys(("teacher", "distillation", "self_distillation"), "whose only loss is the error from its targets"),
    "augment": "as a change of a frame may change its target",
    "initialize": "whose neurons have no threshold for a spike",
    "crossover_epochs": "whose blocks run as ANN or as SNN all together",
    **dict.fromkeys(("sample_period", "sample_iterations"), "whose activations are ReLU and not fitted"),
}
"""Fields that do not apply to networks that give values, and why."""

_NOT_FOR_SPIKES = {
    **dict.fromkeys(("label_smoothing", "logit_scale", "mixup"), "as it has no classes"),
    **dict.fromkeys(("teacher", "distillation", "self_distillation"), "whose only loss is the distance of its spikes"),
    "augment": "as a change of a recording may change its target",
}
"""Fields that do not apply to networks that give spike trains, and why."""

_UNFIT = {"classes": _NO_TRAINS, "values": _NOT_FOR_VALUES, "spike trains": _NOT_FOR_SPIKES}

_NEEDED = (
    ("snn_epochs", "SNN epochs", ("snn_learning_rate", "snn_gradient", "self_distillation")),
    ("teacher", "a teacher", ("distillation",)),
)
"""Fields that others need to have an effect: the field, its name in messages, and the others."""
