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
    """Constant, or a cosine from the learning rate to zero."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Precision(StrEnum):
    """What ANN batches, and gradients in tandem, compute with: float32, or bfloat16 where torch's autocast does and the
    processor multiplies it faster; weights stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class SnnGradient(StrEnum):
    """How the SNN epochs learn: by the surrogate of each spike, through all steps; or in tandem with the ANN, by the
    slopes of its activations at the rates that the spikes gave. Source: Wu et al. 2021, A Tandem Learning Rule for
    Effective Training and Rapid Inference of Deep Spiking Neural Networks."""

    SURROGATE = "surrogate"
    TANDEM = "tandem"


class AugmentSpec(StrictModel):
    """What is done to each image at random.

    An affine map: rotation and shear in degrees, translation as a part of the size, and `flip`, left to right, of half
    of the images. `elastic` is the standard deviation of a smooth displacement, `erase` the side of a square blacked
    out, both as a part of the size.
    """

    degrees: Annotated[Number, Field(ge=0, le=180)] = 10.0
    translate: Annotated[Number, Field(ge=0, le=1)] = 0.05
    scale: tuple[Annotated[Number, Field(gt=0)], Annotated[Number, Field(gt=0)]] = (0.95, 1.05)
    shear: Annotated[Number, Field(ge=0, lt=90)] = 5.0
    flip: Flag = False
    elastic: Annotated[Number, Field(ge=0, le=1)] = 0.0
    erase: Annotated[Number, Field(ge=0, le=1)] = 0.0

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("is [smallest, largest], and falls")
        return scale


class TrainingSpec(StrictModel):
    """The recipe. Its defaults train the tutorial's networks on MNIST.

    `initialize` scales fresh weights to the images, which deep networks need before they fire at all.

    Every `sample_period` epochs the first `sample_iterations` batches run as SNN to sample, one fits the activations,
    and the rest train as ANN; `crossover_epochs` moves one more block to SNN mode at each epoch named, `snn_epochs`
    trains the last epochs wholly as SNN, at `snn_learning_rate` and by `snn_gradient`; each of the two phases has its
    own learning-rate schedule. `validation` images are cut from the training set to choose the best epoch. An epoch is
    one pass over the training images, or over `images_per_epoch` of them, others each time. With `mixup` each image,
    and its label, is mixed with another of its batch: the two parts are drawn from Beta(mixup, mixup), the larger is
    its own. With a teacher, `distillation` is the part of the loss that is the distance from its answers; with
    `self_distillation`, the network as it was when the SNN epochs began, answering as ANN, is their teacher, of that
    part. With `ema_decay` it is an exponential moving average of the weights that is scored and kept: this part of it
    stays at each batch.
    """

    data: str = "mnist"
    initialize: Flag = False
    epochs: Positive = 50
    batch_size: Positive = 128
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-3
    learning_rate_schedule: LearningRateSchedule = LearningRateSchedule.COSINE
    weight_decay: Amount = 0.0
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    logit_scale: Annotated[Number, Field(gt=0)] = 1.0
    teacher: str | None = None
    distillation: Annotated[Number, Field(ge=0, le=1)] = 0.5
    augment: AugmentSpec | None = None
    mixup: Annotated[Number, Field(ge=0, le=100)] = 0.0
    precision: Precision = Precision.FLOAT32
    images_per_epoch: Positive | None = None
    validation: Positive = 5000
    sample_period: Positive = 10
    sample_iterations: Positive = 10
    crossover_epochs: tuple[NonNegative, ...] = ()
    snn_epochs: NonNegative = 0
    snn_learning_rate: Annotated[Number, Field(gt=0)] = 2e-4
    snn_gradient: SnnGradient = SnnGradient.SURROGATE
    self_distillation: Annotated[Number, Field(ge=0, le=1)] = 0.0
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    seed: Annotated[Integer, Field(ge=0, lt=1 << 63)] = 0

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
