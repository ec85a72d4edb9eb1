"""What a block is: one model for each kind, told apart by `kind`."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.fields import Pair, Positive, PositivePair, StrictModel
from specs.neuron import CubaSpec

__all__ = [
    "AffineSpec",
    "AvgPoolSpec",
    "BlockSpec",
    "ConvSpec",
    "DenseSpec",
    "Encoding",
    "FlattenSpec",
    "InputSpec",
    "LayerSpec",
    "Norm",
]


class Encoding(StrEnum):
    """How a pixel enters: as the current of an input neuron, or as a graded spike straight into the first synapse."""

    SPIKE = "spike"
    GRADED = "graded"


class Norm(StrEnum):
    """Batch norm of a synapse: none, subtract the channel mean, or scale weights by a power of two."""

    NONE = "none"
    MEAN_ONLY = "mean_only"
    WEIGHT_SCALE = "weight_scale"


class InputSpec(StrictModel):
    """The input of a network. Images come in 0..1; `(x - mean) / std` happens inside.

    `spike`: an input neuron for each pixel takes the current `weight * x + bias` each step; both are learnable, and
    the values here are where they start. With `exact_input` that current is truncated to 1/64, the grid on which the
    hardware takes it, as a bias of the voltage; without it, as in lava-dl, the pixel is rounded to 2/64 instead.

    `graded`: the pixel, rounded to `bits` bits, enters the first synapse each step as an integer. The threshold and
    bias of the first block are scaled by `2**bits - 1`, so they are written in the units of an input of 1.
    """

    kind: Literal["input"] = "input"
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=3)]
    encoding: Encoding = Encoding.SPIKE
    bits: Annotated[int, Field(ge=1, le=16)] = 8
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0
    weight: float = 1.0
    bias: float = 0.0
    exact_input: bool = True
    neuron: CubaSpec | None = None

    @model_validator(mode="after")
    def _check(self) -> "InputSpec":
        if len(self.shape) == 2:
            raise ValueError(f"shape is [features] or [channels, height, width]; {list(self.shape)} has two numbers")
        if self.encoding is Encoding.GRADED and (self.mean != 0 or self.std != 1):
            raise ValueError("graded input is the pixel itself: mean must be 0 and std 1 (fold them into the weights)")
        return self

    @property
    def levels(self) -> int:
        """Largest value of a graded pixel, `2**bits - 1`; 1 for `spike`."""
        return (1 << self.bits) - 1 if self.encoding is Encoding.GRADED else 1


class _Synapse(StrictModel):
    weight_norm: bool = False
    bias: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    neuron: CubaSpec | None = None


class _Hidden(_Synapse):
    norm: Norm = Norm.NONE
    delay_shift: bool | None = None


class DenseSpec(_Hidden):
    """Every input to every one of `features` neurons. Input must be flat."""

    kind: Literal["dense"] = "dense"
    features: Positive


class ConvSpec(_Hidden):
    """2-D cross-correlation to `channels` maps; geometry as in `torch.nn.Conv2d`, `[height, width]`."""

    kind: Literal["conv"] = "conv"
    channels: Positive
    kernel: PositivePair
    stride: PositivePair = (1, 1)
    padding: Pair = (0, 0)
    dilation: PositivePair = (1, 1)
    groups: Positive = 1


class AvgPoolSpec(StrictModel):
    """Average pooling with neurons of its own: a grouped convolution of the one weight `gain / (kernel area)`.

    `gain` defaults to the threshold of its neurons, so that a pool whose inputs all fire fires too.
    """

    kind: Literal["avg_pool"] = "avg_pool"
    kernel: PositivePair
    stride: PositivePair | None = None
    padding: Pair = (0, 0)
    gain: Annotated[float, Field(gt=0)] | None = None
    neuron: CubaSpec | None = None
    delay_shift: bool | None = None


class FlattenSpec(StrictModel):
    """`[C, H, W]` to `[C * H * W]`, C order."""

    kind: Literal["flatten"] = "flatten"


class AffineSpec(_Synapse):
    """The readout: synapses without spikes. Logits are the mean over time of its weighted input.

    `neuron` gives the decays that the exported readout neuron integrates with; it never fires.
    """

    kind: Literal["affine"] = "affine"
    features: Positive


BlockSpec = Annotated[DenseSpec | ConvSpec | AvgPoolSpec | FlattenSpec | AffineSpec, Field(discriminator="kind")]
LayerSpec = InputSpec | DenseSpec | ConvSpec | AvgPoolSpec | FlattenSpec | AffineSpec
