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
    """How a pixel enters."""

    SPIKE = "spike"
    GRADED = "graded"


class Norm(StrEnum):
    """Batch norm of a synapse."""

    NONE = "none"
    MEAN_ONLY = "mean_only"
    WEIGHT_SCALE = "weight_scale"


class InputSpec(StrictModel):
    """How images, in 0 to 1, come in.

    With spikes, an input neuron for each pixel takes the same current at each step. Graded, the pixel enters the first
    synapse at each step as an integer; threshold and bias of the first block are scaled by `2**bits - 1`, so they are
    written in the units of an input of 1.
    """

    kind: Literal["input"] = "input"
    shape: Annotated[tuple[Positive, ...], Field(json_schema_extra={"minItems": 1, "maxItems": 3})]
    """`[features]` or `[channels, height, width]`."""
    encoding: Encoding = Encoding.SPIKE
    """How a pixel enters: as the current of an input neuron, or as a graded spike straight into the first synapse."""
    bits: Annotated[Integer, Field(ge=1, le=16)] = 8
    """Of a graded pixel, which is rounded to them."""
    mean: Number = 0.0
    """What is taken off each pixel."""
    std: Annotated[Number, Field(gt=0)] = 1.0
    """What the pixel is then divided by."""
    weight: Number = 1.0
    """The current of an input neuron is `weight` times the pixel, plus `bias`; learnt from here on."""
    bias: Number = 0.0
    """Learnt from here on, as `weight` is."""
    exact_input: Flag = True
    """Whether that current is truncated to 1/64, as the hardware takes it; else, as in lava-dl, the pixel is rounded to
    2/64."""
    neuron: CubaSpec | None = None
    """The input's own neurons; else the network's."""

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
    source: Annotated[Integer, Field(ge=0)]
    """An earlier block, as tensors are named: 0 is the input (not a graded one), 1 the first of `blocks`."""


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
    """One number, or `[height, width]`, as all sizes."""
    stride: PositivePair = (1, 1)
    """By how much the kernel moves."""
    padding: Pair = (0, 0)
    """Silent rows and columns at each edge."""
    dilation: PositivePair = (1, 1)
    """How far apart the inputs of a kernel are."""
    groups: Positive = 1
    """Parts of the channels that do not see each other."""


SkipSpec = Annotated[IdentitySkip | DenseSkip | ConvSkip, Field(discriminator="kind")]
"""Further synapses of a block, from any earlier block."""


class _Synapse(StrictModel):
    weight_norm: Flag = False
    """Whether weights are learnt as a direction and a length for each output."""
    bias: Flag = False
    """Whether each channel has a current of its own."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The part of the inputs that training leaves out."""
    neuron: CubaSpec | None = None
    """The block's own neurons; else the network's."""
    skips: tuple[SkipSpec, ...] = ()
    """Further synapses, from any earlier block, whose weighted inputs are added to the block's; bias, norm and neurons
    are of the sum. Not for netx, whose networks are chains."""


class _Hidden(_Synapse):
    norm: Norm = Norm.NONE
    """Batch norm: none, a running mean of the channel that is taken off and becomes the bias, or weights divided by a
    power of two."""
    delay_shift: Flag | None = None
    """Whether an empty step follows; else as the network has it."""


class DenseSpec(_Hidden):
    """Every input to every one of `features` neurons. Input must be flat."""

    kind: Literal["dense"] = "dense"
    features: Positive
    """Neurons."""


class ConvSpec(_Hidden):
    """2-D cross-correlation to `channels` maps; geometry as in `torch.nn.Conv2d`, `[height, width]`."""

    kind: Literal["conv"] = "conv"
    channels: Positive
    """Maps that come out."""
    kernel: PositivePair
    """One number, or `[height, width]`, as all sizes."""
    stride: PositivePair = (1, 1)
    """By how much the kernel moves."""
    padding: Pair = (0, 0)
    """Silent rows and columns at each edge."""
    dilation: PositivePair = (1, 1)
    """How far apart the inputs of a kernel are."""
    groups: Positive = 1
    """Parts of the channels that do not see each other."""


class AvgPoolSpec(StrictModel):
    """Average pooling with neurons of its own: a grouped convolution of the one weight `gain / (kernel area)`."""

    kind: Literal["avg_pool"] = "avg_pool"
    kernel: PositivePair
    """One number, or `[height, width]`, as all sizes."""
    stride: PositivePair | None = None
    """By how much the kernel moves; else by its own size."""
    padding: Pair = (0, 0)
    """Silent rows and columns at each edge; at most half the kernel."""
    gain: Annotated[Number, Field(gt=0)] | None = None
    """The sum of the weights; else of the smallest on the grid with which a pool whose inputs all fire fires too."""
    neuron: CubaSpec | None = None
    """The block's own neurons; else the network's."""
    delay_shift: Flag | None = None
    """Whether an empty step follows; else as the network has it."""

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
    """Classes."""


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
