"""Specs of blocks: one model for each `kind`, with its shapes and costs.

All other code asks these models through the methods of `Layer`. A new kind is a class here and its place in the union
`_AnyBlock`.
"""

import math
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum, auto
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from specs.fields import Flag, Integer, Number, Pair, Positive, PositivePair, Shape, StrictModel
from specs.neuron import CubaSpec
from specs.shapes import ShapeError, axis_connections, axis_fanout, axis_output

__all__ = [
    "BLOCK_KINDS",
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
    "Layer",
    "LayerSpec",
    "Norm",
    "Role",
    "SkipSpec",
    "has_neurons",
    "kind_of",
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


class Role(Enum):
    """Kind of output of a layer."""

    SPIKES = auto()
    """The spikes of its neurons; as the last block, their rates are the logits."""
    LOGITS = auto()
    """Logits: a readout, which comes last."""
    RESHAPED = auto()
    """The input in another shape; such a layer is never the last."""


class Layer(StrictModel):
    """Base of the input and of all kinds of blocks: what other code asks of them.

    `before` is always the shape of the layer's input.
    """

    role: ClassVar[Role] = Role.SPIKES
    takes_graded_input: ClassVar[bool] = False
    """True if the block may follow graded input."""

    @property
    def has_neurons(self) -> bool:
        """True if the outputs are spikes of the layer's own neurons."""
        return self.role is Role.SPIKES

    def output_shape(self, before: Shape) -> Shape:
        """Shape of the outputs; raises `ShapeError`."""
        raise NotImplementedError

    def n_weights(self, before: Shape) -> int:
        """Number of weights, trainable or not."""
        return 0

    def n_parameters(self, before: Shape) -> int:
        """Number of trainable parameters, without the decays of neurons and without skips."""
        return 0

    def n_synops(self, before: Shape) -> int:
        """Synaptic operations of one step in which every input spikes; by default each weight is reached once."""
        return self.n_weights(before)

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """Weights that each input reaches, as one list of factors for each axis of `before`; a list of one broadcasts.

        >>> ConvSpec(channels=8, kernel=3).fan_out((1, 4, 5))
        ([8], [1, 2, 2, 1], [1, 2, 3, 2, 1])
        """
        return ([0],) * len(before)

    def problems(self, neuron: CubaSpec) -> Iterator[tuple[str, str]]:
        """Yield each field that is wrong together with the block's neurons, and what is wrong."""
        yield from ()


class InputSpec(Layer):
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
    def has_neurons(self) -> bool:
        """True if pixels enter through input neurons; graded pixels do not."""
        return self.encoding is Encoding.SPIKE

    def output_shape(self, before: Shape) -> Shape:
        """Shape of the images."""
        return self.shape

    def n_parameters(self, before: Shape) -> int:
        """Two, the weight and the bias of the input neurons; none for graded input."""
        return 2 if self.has_neurons else 0

    @property
    def levels(self) -> int:
        """Largest value of a graded pixel, `2**bits - 1`; 1 for `spike`."""
        return (1 << self.bits) - 1 if self.encoding is Encoding.GRADED else 1


class _Skip(StrictModel):
    source: Annotated[Integer, Field(ge=0)]
    """An earlier block, as tensors are named: 0 is the input (not a graded one), 1 the first of `blocks`."""

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        """Return the layer that a skip from `before` to `after` is, and its input's shape as that layer sees it.

        >>> conv, seen = IdentitySkip(source=1).as_layer((7,), (7,))
        >>> conv.groups, seen
        (7, (7, 1, 1))
        """
        raise NotImplementedError

    def output_shape(self, before: Shape, after: Shape) -> Shape:
        """Shape of what the skip adds to a block of shape `after`; raises `ShapeError`."""
        layer, seen = self.as_layer(before, after)
        return layer.output_shape(seen)


class IdentitySkip(_Skip):
    """Each neuron of the source to the one in its place, with one weight for each channel."""

    kind: Literal["identity"] = "identity"

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        """Return a convolution of kernel 1 with a group for each channel."""
        return ConvSpec(channels=before[0], kernel=(1, 1), groups=before[0]), (*before, 1, 1)[:3]

    def output_shape(self, before: Shape, after: Shape) -> Shape:
        """Shape of the source."""
        return before


class DenseSkip(_Skip):
    """Every neuron of the source, flattened in C order, to every one of the block's."""

    kind: Literal["dense"] = "dense"

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        """Return a dense layer from the flattened source."""
        return DenseSpec(features=after[0]), (math.prod(before),)


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

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        """Return the convolution."""
        return ConvSpec(channels=after[0], **self.model_dump(exclude={"kind", "source"})), before


SkipSpec = Annotated[IdentitySkip | DenseSkip | ConvSkip, Field(discriminator="kind")]
"""Further synapses of a block, from any earlier block."""


class _Synapse(Layer):
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

    def n_parameters(self, before: Shape) -> int:
        """Weights, and for each output channel its bias and the length that weight norm learns."""
        return self.n_weights(before) + self.output_shape(before)[0] * (self.bias + self.weight_norm)


class _Hidden(_Synapse):
    norm: Norm = Norm.NONE
    """Batch norm: none, a running mean of the channel that is taken off and becomes the bias, or weights divided by a
    power of two."""
    delay_shift: Flag | None = None
    """Whether an empty step follows; else as the network has it."""
    takes_graded_input = True

    def problems(self, neuron: CubaSpec) -> Iterator[tuple[str, str]]:
        """See `Layer`."""
        # Decays are on a grid of 1/4096.
        if self.norm is Norm.MEAN_ONLY and round(4096 * neuron.current_decay) == 0:
            yield (
                "norm",
                "mean_only needs a current_decay above 0, in steps of 1/4096: it leaves as the bias "
                "mean / current_decay",
            )


class DenseSpec(_Hidden):
    """Every input to every one of `features` neurons. Input must be flat."""

    kind: Literal["dense"] = "dense"
    features: Positive
    """Neurons."""

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
        return _dense_shape(self, before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`."""
        return before[0] * self.features

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
        return ([self.features],)


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

    def output_shape(self, before: Shape) -> Shape:
        """Shape of the outputs; raises `ShapeError`.

        >>> ConvSpec(channels=8, kernel=3, stride=2).output_shape((1, 28, 28))
        (8, 13, 13)
        """
        channels, *size = _maps(self, before)
        if channels % self.groups or self.channels % self.groups:
            raise ShapeError(
                "groups", f"{self.groups} groups must divide {channels} input and {self.channels} output channels"
            )
        outputs = [axis_output(size[axis], **self._along(axis)) for axis in range(2)]
        for axis, n in enumerate(outputs):
            if n < 1:
                reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
                raise ShapeError(
                    "kernel",
                    f"reaches {reach} along {('height', 'width')[axis]}, where the padded input has "
                    f"{size[axis] + 2 * self.padding[axis]}: nothing is left",
                )
        return (self.channels, *outputs)

    def n_weights(self, before: Shape) -> int:
        """Number of weights.

        >>> ConvSpec(channels=8, kernel=3, groups=2).n_weights((4, 28, 28))
        144
        """
        return math.prod(self.kernel) * self.channels * (before[0] // self.groups)

    def n_synops(self, before: Shape) -> int:
        """See `Layer`; weights that read only padding are not reached."""
        height, width = (axis_connections(before[1 + axis], **self._along(axis)) for axis in range(2))
        return height * width * self.channels * (before[0] // self.groups)

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
        height, width = (axis_fanout(before[1 + axis], **self._along(axis)) for axis in range(2))
        return [self.channels // self.groups], height, width

    def _along(self, axis: int) -> dict[str, int]:
        return {name: getattr(self, name)[axis] for name in ("kernel", "stride", "padding", "dilation")}


class AvgPoolSpec(Layer):
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

    def as_conv(self, channels: int) -> ConvSpec:
        """Return the grouped convolution that the pool over `channels` maps is."""
        return ConvSpec(
            channels=channels,
            kernel=self.kernel,
            stride=self.stride or self.kernel,
            padding=self.padding,
            groups=channels,
            neuron=self.neuron,
            delay_shift=self.delay_shift,
        )

    def weight(self, neuron: CubaSpec) -> float:
        """The one weight of the pool, before it is rounded to the weight grid.

        That is `gain / (kernel area)`; without a gain, the smallest multiple of 2/64 of which the kernel's sum is above
        the threshold of `neuron`.
        """
        area = self.kernel[0] * self.kernel[1]
        if self.gain is not None:
            return self.gain / area
        threshold_mant = int(64 * neuron.threshold)
        return 2 * (threshold_mant // (2 * area) + 1) / 64

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
        channels, *_ = _maps(self, before)
        return self.as_conv(channels).output_shape(before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`; none of them is trainable."""
        return self.as_conv(before[0]).n_weights(before)

    def n_synops(self, before: Shape) -> int:
        """See `Layer`."""
        return self.as_conv(before[0]).n_synops(before)

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
        return self.as_conv(before[0]).fan_out(before)

    def problems(self, neuron: CubaSpec) -> Iterator[tuple[str, str]]:
        """See `Layer`."""
        weight = self.weight(neuron)
        if not 1 / 64 < weight <= 254 / 64:
            yield (
                "kernel",
                f"a pool of {self.kernel[0]}x{self.kernel[1]} has weight {weight:.4g}, outside the weight grid "
                "(1/64, 254/64]: set gain",
            )


class FlattenSpec(Layer):
    """`[C, H, W]` to `[C * H * W]`, C order."""

    kind: Literal["flatten"] = "flatten"
    role = Role.RESHAPED

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
        return (math.prod(before),)


class AffineSpec(_Synapse):
    """The readout: synapses without spikes. Logits are the mean over time of its weighted input.

    `neuron` gives the decays that the exported readout neuron integrates with; it never fires.
    """

    kind: Literal["affine"] = "affine"
    features: Positive
    """Classes."""
    role = Role.LOGITS
    takes_graded_input = True

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
        return _dense_shape(self, before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`."""
        return before[0] * self.features

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
        return ([self.features],)


_AnyBlock = DenseSpec | ConvSpec | AvgPoolSpec | FlattenSpec | AffineSpec
"""All kinds of blocks; everything else follows from this union."""
BlockSpec = Annotated[_AnyBlock, Field(discriminator="kind")]
LayerSpec = InputSpec | _AnyBlock
BLOCK_KINDS: tuple[type[Layer], ...] = get_args(_AnyBlock)


def kind_of(model: type[Layer]) -> str:
    """Name by which specs, tables and drawings call a kind of layer.

    >>> kind_of(AvgPoolSpec)
    'avg_pool'
    """
    return str(model.model_fields["kind"].default)


def has_neurons(layer: LayerSpec) -> bool:
    """Whether a layer's outputs are spikes: not those of a graded input, a flatten, or an affine readout."""
    return layer.has_neurons


def skips_of(layer: LayerSpec) -> tuple[SkipSpec, ...]:
    """The layer's synapses from other layers than the one before it."""
    return layer.skips if isinstance(layer, _Synapse) else ()


def _dense_shape(layer: DenseSpec | AffineSpec, before: Shape) -> Shape:
    if len(before) != 1:
        raise ShapeError("", f"{layer.kind} needs a flat input, gets {list(before)}: put a flatten before it")
    return (layer.features,)


def _maps(layer: ConvSpec | AvgPoolSpec, before: Shape) -> Shape:
    """Return the shape of the input, `[channels, height, width]`."""
    if len(before) != 3:
        raise ShapeError("", f"{layer.kind} needs [channels, height, width], and gets {list(before)}")
    return before
