"""How a network is trained: data, augmentation, optimiser, and the bootstrap schedule."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from specs.fields import Positive, StrictModel

__all__ = ["AugmentSpec", "LearningRateSchedule", "TrainingSpec"]

NonNegative = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class LearningRateSchedule(StrEnum):
    """Constant, or a cosine from the learning rate to zero."""

    CONSTANT = "constant"
    COSINE = "cosine"


class AugmentSpec(StrictModel):
    """Random affine maps of each image: rotation and shear in degrees, translation as a part of the size."""

    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    translate: Annotated[float, Field(ge=0, le=1)] = 0.05
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.95, 1.05)
    shear: Annotated[float, Field(ge=0, lt=90)] = 5.0

    @model_validator(mode="after")
    def _check(self) -> "AugmentSpec":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is [smallest, largest]; {list(self.scale)} falls")
        return self


class TrainingSpec(StrictModel):
    """The recipe. Its defaults train the tutorial's networks on MNIST.

    Every `sample_period` epochs the first `sample_iterations` batches run as SNN to sample, one fits the activations,
    and the rest train as ANN; `crossover_epochs` moves one more block to SNN mode at each epoch named, `snn_epochs`
    trains the last epochs wholly as SNN, at `snn_learning_rate`; each of the two phases has its own learning-rate
    schedule. `validation` images are cut from the training set to choose the best epoch.
    """

    data: str = "mnist"
    epochs: Positive = 50
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_schedule: LearningRateSchedule = LearningRateSchedule.COSINE
    weight_decay: Amount = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    logit_scale: Annotated[float, Field(gt=0)] = 1.0
    augment: AugmentSpec | None = None
    validation: Positive = 5000
    sample_period: Positive = 10
    sample_iterations: Positive = 10
    crossover_epochs: tuple[NonNegative, ...] = ()
    snn_epochs: NonNegative = 0
    snn_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    seed: NonNegative = 0

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        if self.snn_epochs > self.epochs:
            raise ValueError(f"snn_epochs ({self.snn_epochs}) are the last of epochs ({self.epochs}): too many")
        if list(self.crossover_epochs) != sorted(self.crossover_epochs):
            raise ValueError(f"crossover_epochs must rise: {list(self.crossover_epochs)}")
        return self
