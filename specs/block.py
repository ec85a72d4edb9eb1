"""What a block is: one model for each kind, told apart by `kind`."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from specs.fields import Flag, Integer, Number, Pair, Positive, PositivePair, Shape, StrictModel
from specs.neuron import CubaSpec

__all__ = [
    "AffineSpec",
    "AvgPoolSpec",
    "BlockSpec",
    "ConvSkip",
    "ConvSpec",
    "DenseSkip",
    "DenseSpec",
    "Encoding",
    "FlattenSpec",
    "IdentitySkip",
    "InputSpec",
    "LayerSpec",
    "Norm",
    "SkipSpec",
    "has_neurons",
    "skips_of",
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
    shape: Annotated[tuple[Positive, ...], Field(json_schema_extra={"minItems": 1, "maxItems": 3})]
    encoding: Encoding = Encoding.SPIKE
    bits: Annotated[Integer, Field(ge=1, le=16)] = 8
    mean: Number = 0.0
    std: Annotated[Number, Field(gt=0)] = 1.0
    weight: Number = 1.0
    bias: Number = 0.0
    exact_input: Flag = True
    neuron: CubaSpec | None = None

    @field_validator("shape")
    @classmethod
    def _check_shape(cls, shape: Shape) -> Shape:
        if len(shape) not in {1, 3}:
            raise ValueError(f"is [features] or [channels, height, width]; this has {len(shape)} numbers")
        return shape

    @field_validator("mean", "std", "weight", "bias", "exact_input", "neuron")
    @classmethod
    def _check_graded(cls, value: Any, info: ValidationInfo) -> Any:
        graded = info.data.get("encoding") is Encoding.GRADED
        if graded and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError(
                "graded input is the pixel itself, with no neuron: leave this out (mean and std fold into the weights)"
            )
        return value

    @property
    def idle(self) -> list[str]:
        """What was set and does nothing beside the rest, and why.

        >>> InputSpec(shape=(4,), bits=3).idle
        ['input.bits does nothing with spikes: set input.encoding=graded']
        """
        idle = self.encoding is Encoding.SPIKE and self.bits != InputSpec.model_fields["bits"].default
        return ["input.bits does nothing with spikes: set input.encoding=graded"] if idle else []

    @property
    def levels(self) -> int:
        """Largest value of a graded pixel, `2**bits - 1`; 1 for `spike`."""
        return (1 << self.bits) - 1 if self.encoding is Encoding.GRADED else 1


class _Skip(StrictModel):
    source: Annotated[Integer, Field(ge=0, description="an earlier block: the input is 0, the first of blocks is 1")]


class IdentitySkip(_Skip):
    """Each neuron of the source to the one in its place, with one weight for each channel."""

    kind: Literal["identity"] = "identity"


class DenseSkip(_Skip):
    """Every neuron of the source, flattened in C order, to every one of the block's."""

    kind: Literal["dense"] = "dense"


class ConvSkip(_Skip):
    """2-D cross-correlation to the block's channels; geometry as in `ConvSpec`."""

    kind: Literal["conv"] = "conv"
    kernel: PositivePair = (1, 1)
    stride: PositivePair = (1, 1)
    padding: Pair = (0, 0)
    dilation: PositivePair = (1, 1)
    groups: Positive = 1


SkipSpec = Annotated[IdentitySkip | DenseSkip | ConvSkip, Field(discriminator="kind")]
"""Further synapses of a block, from any earlier block."""


class _Synapse(StrictModel):
    """`skips` add their weighted inputs to that of the block's own synapses; bias, norm and neurons are of the sum."""

    weight_norm: Flag = False
    bias: Flag = False
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    neuron: CubaSpec | None = None
    skips: tuple[SkipSpec, ...] = ()


class _Hidden(_Synapse):
    norm: Norm = Norm.NONE
    delay_shift: Flag | None = None


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

    Without `gain` that is the smallest weight of the grid with which a pool whose inputs all fire fires too.
    """

    kind: Literal["avg_pool"] = "avg_pool"
    kernel: PositivePair
    stride: PositivePair | None = None
    padding: Pair = (0, 0)
    gain: Annotated[Number, Field(gt=0)] | None = None
    neuron: CubaSpec | None = None
    delay_shift: Flag | None = None

    @field_validator("padding")
    @classmethod
    def _check_padding(cls, padding: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        most = tuple(side // 2 for side in info.data.get("kernel", ()))
        if any(side > half for side, half in zip(padding, most, strict=False)):
            raise ValueError(f"at most half the kernel, {list(most)}")
        return padding


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


def has_neurons(layer: LayerSpec) -> bool:
    """Whether a layer's outputs are spikes: not those of a graded input, a flatten, or an affine readout."""
    if isinstance(layer, InputSpec):
        return layer.encoding is Encoding.SPIKE
    return not isinstance(layer, FlattenSpec | AffineSpec)


def skips_of(layer: LayerSpec) -> tuple[SkipSpec, ...]:
    """The layer's synapses from other layers than the one before it."""
    return layer.skips if isinstance(layer, _Synapse) else ()
