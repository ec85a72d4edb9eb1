"""How a network is trained: data, augmentation, optimiser, and the bootstrap schedule."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from specs.dataset_sources import find_user_data
from specs.errors import DataError, SnnZooError
from specs.fields import Flag, Integer, Number, Positive, StrictModel

__all__ = ["FIND_DATA", "AugmentSpec", "LearningRateSchedule", "Precision", "SnnGradient", "TrainingSpec"]

FIND_DATA = "find data"
"""In the context of a validation: whether data of no known name must be here."""

NonNegative = Annotated[Integer, Field(ge=0)]
Amount = Annotated[Number, Field(ge=0)]


class LearningRateSchedule(StrEnum):
    """How a learning rate changes with the epochs."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Precision(StrEnum):
    """Type of the factors of products in training."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class SnnGradient(StrEnum):
    """How SNN epochs learn. Source of the tandem: Wu et al. 2021, A Tandem Learning Rule for Effective Training and
    Rapid Inference of Deep Spiking Neural Networks."""

    SURROGATE = "surrogate"
    TANDEM = "tandem"


class AugmentSpec(StrictModel):
    """What is done to each image at random."""

    degrees: Annotated[Number, Field(ge=0, le=180)] = 10.0
    """The widest turn, either way."""
    translate: Annotated[Number, Field(ge=0, le=1)] = 0.05
    """The farthest shift along each axis, as a part of its size."""
    scale: tuple[Annotated[Number, Field(gt=0)], Annotated[Number, Field(gt=0)]] = (0.95, 1.05)
    """The smallest and the largest zoom."""
    shear: Annotated[Number, Field(ge=0, lt=90)] = 5.0
    """The widest shear, either way, in degrees."""
    flip: Flag = False
    """Whether half of the images are mirrored, left to right."""
    elastic: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Standard deviation of a smooth displacement, as a part of the size."""
    erase: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Side of a square that is blacked out, as a part of the size."""

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("is [smallest, largest], and falls")
        return scale


class TrainingSpec(StrictModel):
    """The recipe. Its defaults train the tutorial's networks on MNIST.

    Every `sample_period` epochs the first `sample_iterations` batches run as SNN to sample, one fits the activations,
    and the rest train as ANN. ANN and SNN epochs have a learning-rate schedule each.
    """

    data: str = "mnist"
    """A dataset's name, an `.npz` file, or a folder with a folder of images for each class."""
    initialize: Flag = False
    """Whether fresh weights are scaled to the images, without which deep networks do not fire at all."""
    epochs: Positive = 50
    """Of ANN and of SNN."""
    batch_size: Positive = 128
    """Images of one step."""
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-3
    """Of the ANN epochs."""
    learning_rate_schedule: LearningRateSchedule = LearningRateSchedule.COSINE
    """Whether learning rates stay or fall to zero along a cosine."""
    weight_decay: Amount = 0.0
    """Of AdamW."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The part of each label that is spread over all classes."""
    logit_scale: Annotated[Number, Field(gt=0)] = 1.0
    """What logits are multiplied by in the loss."""
    teacher: str | None = None
    """A model, by its name or file, from whose answers the network learns."""
    distillation: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """With a teacher: the part of the loss that is the distance from its answers."""
    augment: AugmentSpec | None = None
    """`{}`: small turns, shifts, zooms and shears; `null`: none."""
    mixup: Annotated[Number, Field(ge=0, le=100)] = 0.0
    """How far each image, and its label, is mixed with another of its batch: the two parts are drawn from
    Beta(mixup, mixup), and the larger is its own. 0.2 to 0.4 is usual; 0: not."""
    precision: Precision = Precision.AUTO
    """Type of the factors of products in training: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the
    processor multiplies that faster. It applies to ANN batches and to the gradients of ANN and SNN batches; weights and
    spikes stay exact. In bfloat16 a gradient is off by at most 2^-9 of itself, at random, which sums average away."""
    images_per_epoch: Positive | None = None
    """An epoch is a pass over so many of the training images, others each time; else over all."""
    validation: Positive = 5000
    """Images that are cut from the training set to choose the best epoch."""
    sample_period: Positive = 10
    """Every how many epochs activations are sampled and fitted."""
    sample_iterations: Positive = 10
    """Batches that run as SNN to sample."""
    crossover_epochs: tuple[NonNegative, ...] = ()
    """At each of these epochs, counted from 0, one more block runs as SNN."""
    snn_epochs: NonNegative = 0
    """The last so many epochs train wholly as SNN."""
    snn_learning_rate: Annotated[Number, Field(gt=0)] = 2e-4
    """Of the SNN epochs."""
    snn_gradient: SnnGradient = SnnGradient.SURROGATE
    """How SNN epochs learn: by the surrogates of the spikes, through all steps; or faster, in tandem with the ANN, by
    its slopes at the rates that the spikes gave."""
    self_distillation: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """The part of the SNN epochs' loss that is the distance from the ANN that they began with; a teacher then teaches
    the epochs before."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The part that a moving average of the weights keeps at each batch; it is what is scored and kept. 0.999 is usual;
    0: the weights themselves."""
    seed: Annotated[Integer, Field(ge=0, lt=1 << 63)] = 0
    """Of weights, the split, the order of images, augmentation and dropout."""

    @field_validator("data")
    @classmethod
    def _check_data(cls, data: str, info: ValidationInfo) -> str:
        if info.context and info.context.get(FIND_DATA):
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
            raise ValueError(f"these are the last of {epochs} epochs: too many")
        return snn_epochs

    @field_validator("crossover_epochs")
    @classmethod
    def _check_crossover_epochs(cls, crossover_epochs: tuple[int, ...]) -> tuple[int, ...]:
        if list(crossover_epochs) != sorted(crossover_epochs):
            raise ValueError("must rise")
        return crossover_epochs

    def check_images(self, n_images: int) -> None:
        """Raise `DataError` unless validation leaves some of so many training images."""
        if self.validation >= n_images:
            fewer = f"lower it, as in --set training.validation={n_images // 4 or 1}"
            raise DataError(
                f"training.validation takes {self.validation:,} of {n_images:,} training images, all of them: "
                + (fewer if n_images > 1 else "there must be more")
            )

    def check_own_teacher(self, *, fitted: bool) -> None:
        """Raise `SnnZooError` if the network is to teach itself as ANN when its SNN epochs begin, and is not fitted."""
        if self.self_distillation and not fitted:
            raise SnnZooError("training.self_distillation learns from the ANN: train an epoch as ANN before")

    def learnt_validation(self, before: "TrainingSpec") -> str | None:
        """What to set where a network that was trained by `before` has learnt from images that validate here; None if
        it has not.

        >>> TrainingSpec(seed=1).learnt_validation(TrainingSpec())
        'training.seed=0 keeps those that were set aside before'
        """
        if self.data != before.data:
            return None
        if self.seed != before.seed:
            return f"training.seed={before.seed} keeps those that were set aside before"
        if self.validation > before.validation:
            return f"no more than training.validation={before.validation} were set aside before"
        return None

    @property
    def idle(self) -> list[str]:
        """What was set and does nothing beside the rest, and why.

        >>> TrainingSpec(self_distillation=0.5).idle
        ['training.self_distillation does nothing without SNN epochs: set training.snn_epochs']
        """
        return [
            f"training.{name} does nothing without {what}: set training.{needed}"
            for needed, what, names in _NEEDED
            for name in names
            if not getattr(self, needed) and getattr(self, name) != TrainingSpec.model_fields[name].default
        ]


_NEEDED = (
    ("snn_epochs", "SNN epochs", ("snn_learning_rate", "snn_gradient", "self_distillation")),
    ("teacher", "a teacher", ("distillation",)),
)
"""Fields without which others do nothing."""
