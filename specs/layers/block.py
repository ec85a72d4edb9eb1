"""Specs of blocks: one model for each `kind`, with its shapes and costs.

Other code reads these models through the methods of `Layer`. To add a kind, add a class here and name it in the union
`_AnyBlock`.
"""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from specs.fields import (
    MAX_DELAY,
    Flag,
    Integer,
    Name,
    Number,
    Padding,
    Positive,
    PositivePair,
    Shape,
    Source,
    StrictModel,
    without_defaults,
)
from specs.layers.input import InputSpec
from specs.layers.layer import Layer, Role
from specs.layers.neuron import CubaSpec, NeuronSpec, SigmaDeltaSpec
from specs.shapes import ShapeError, axes_of


class Norm(StrEnum):
    """Batch norm of a weighted input."""

    NONE = "none"
    MEAN_ONLY = "mean_only"
    BATCH = "batch"
    WEIGHT_SCALE = "weight_scale"


class _Skip(StrictModel):
    source: Source
    """Earlier block that the skip reads, whatever its kind: its name or its index; `input` or 0 is the input (not with
    `encoding: graded`), 1 the first of `blocks`."""

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        """Return the layer that computes a skip from shape `before` to `after`, and the input shape of that layer.

        >>> conv, seen = IdentitySkip(source=1).as_layer((7,), (7,))
        >>> conv.groups, seen
        (7, (7, 1, 1))
        """
        raise NotImplementedError

    def output_shape(self, before: Shape, after: Shape) -> Shape:
        """Return the shape of the skip's output for a block of shape `after`. Raises `ShapeError`."""
        layer, seen = self.as_layer(before, after)
        return layer.output_shape(seen)


class IdentitySkip(_Skip):
    """Skip from each neuron of the source to the neuron at the same place, with one weight for each channel."""

    kind: Literal["identity"] = "identity"

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        return ConvSpec(channels=before[0], kernel=(1, 1), groups=before[0]), (*before, 1, 1)[:3]

    def output_shape(self, before: Shape, after: Shape) -> Shape:
        return before


class DenseSkip(_Skip):
    """Skip from every neuron of the source to every neuron of the block; the source is flattened in C order."""

    kind: Literal["dense"] = "dense"

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        return DenseSpec(features=after[0]), (math.prod(before),)


class ConvSkip(_Skip):
    """Convolutional skip to the channels of the block; geometry as in `torch.nn.Conv2d`."""

    kind: Literal["conv"] = "conv"
    kernel: PositivePair = (1, 1)
    """Kernel size, one number or `[height, width]`."""
    stride: PositivePair = (1, 1)
    """Stride, one number or `[height, width]`."""
    padding: Padding = (0, 0)
    """Rows and columns of zeros at the edges: one number, `[height, width]`, or `[top, left, bottom, right]`."""
    dilation: PositivePair = (1, 1)
    """Dilation, as in `torch.nn.Conv2d`, one number or `[height, width]`."""
    groups: Positive = 1
    """Number of groups, as in `torch.nn.Conv2d`; must divide the input and output channels."""

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        return ConvSpec(channels=after[0], **self.model_dump(exclude={"kind", "source"})), before


SkipSpec = Annotated[IdentitySkip | DenseSkip | ConvSkip, Field(discriminator="kind")]
"""Skip connection: synapses from an earlier block."""


class _Block(Layer):
    name: Name | None = None
    """Name of the block, by which other blocks read it; unique in the network."""
    source: Source | None = None
    """Earlier block that this one reads: its name or its index; `input` or 0 is the input, 1 the first of `blocks`. The
    default is the block before."""

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(dump(self), self, "name", "source", "recurrent", "delays")


class _Synapse(_Block):
    weight_norm: Flag = False
    """Weight normalization, as in `torch.nn.utils.weight_norm`: trains direction and length of each output's weights
    separately."""
    bias: Flag = False
    """Trainable bias for each output channel, added to the voltage in each time step."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Probability with which an input is silenced in training, for all time steps of an image."""
    neuron: NeuronSpec | None = None
    """Neurons of this block; by default the network's `neuron`, which this replaces as a whole."""
    skips: tuple[SkipSpec, ...] = ()
    """Synapses from further blocks (skip connections). Their weighted inputs are added to the block's own, before norm,
    bias and neurons; a norm `batch` leaves them out. Where shapes differ, use `kind: conv` with a stride. netx cannot
    express them."""

    def n_parameters(self, before: Shape) -> int:
        """Return the number of weights, biases and lengths of weight norm."""
        return self.n_weights(before) + self.output_shape(before)[0] * (self.bias + self.weight_norm)


class DelayTarget(StrEnum):
    """Place of delays."""

    NEURON = "neuron"
    SYNAPSE = "synapse"


class DelaySpec(StrictModel):
    """Delays of the synapses of a block, in whole time steps, drawn at random when the network is built."""

    per: DelayTarget = DelayTarget.NEURON
    """Place of delays: `neuron` delays all inputs of a neuron alike, in a `conv` block those of a channel; `synapse`
    has a delay for each weight, only in `dense` blocks."""
    longest: Annotated[Integer, Field(ge=0, le=MAX_DELAY)] = MAX_DELAY
    """Longest delay that is drawn or reached in training, in time steps; the default is the hardware's limit."""
    learn: Flag = False
    """Training of the delays: `true` trains them together with the weights, in SNN epochs with surrogate gradients (set
    `snn_epochs`). The network always runs with delays of whole steps. By default delays stay as they were drawn."""

    @field_validator("learn")
    @classmethod
    def _check_learn(cls, learn: bool, info: ValidationInfo) -> bool:
        if learn and info.data.get("longest") == 0:
            raise ValueError("needs a longest delay of at least 1 step, got longest: 0")
        return learn

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(dump(self), self, "learn")


class _Hidden(_Synapse):
    norm: Norm = Norm.NONE
    """Batch norm of the weighted input: `none`; `mean_only` subtracts a running mean for each channel, which becomes a
    bias; `weight_scale` divides the weights of the block by a power of two near the standard deviation of the
    weighted input; `batch` is the usual batch norm of each channel, with a trainable gain (set `bias: true` for its
    offset), which deep networks need. SNN epochs keep its mean and deviation as they are. No norm costs anything on
    the hardware: all are folded into weights and biases."""
    delay_shift: Flag | None = None
    """Delay of the output spikes by one time step; those of step T are lost. The default is the network's."""
    delays: DelaySpec | None = None
    """Delays of the block's own synapses, not of its skips: an input reaches the neurons some steps later. Rates, and
    so the ANN, do not depend on them. `{}` for the defaults."""
    takes_graded_input = True

    def n_parameters(self, before: Shape) -> int:
        """See `_Synapse`; a batch norm adds a gain for each channel, and trained delays count."""
        of_channel = int(self.norm is Norm.BATCH)
        if self.delays is not None and self.delays.learn:
            of_channel += before[0] if self.delays.per is DelayTarget.SYNAPSE else 1
        return super().n_parameters(before) + self.output_shape(before)[0] * of_channel

    @property
    def extras(self) -> tuple[str, ...]:
        return tuple(name for name in ("recurrent", "delays") if getattr(self, name, None))

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        yield from super().problems(neuron)
        if not isinstance(neuron, CubaSpec):
            return
        if self.norm in (Norm.MEAN_ONLY, Norm.BATCH) and round(4096 * neuron.current_decay) == 0:  # the grid of decays
            yield (
                "norm",
                f"{self.norm} needs a current_decay of at least 1/4096: the mean is exported as the bias "
                "mean / current_decay",
            )


class DenseSpec(_Hidden):
    """Fully connected block: every input to each of `features` neurons. The input must be flat."""

    kind: Literal["dense"] = "dense"
    features: Positive
    """Number of neurons."""
    recurrent: Flag = False
    """Recurrent synapses: spikes of a step reach all neurons of the block in the next step, by further weights of
    `features` x `features`. Such networks have no ANN: set `snn_epochs` to `epochs`, to train them as SNN
    alone, by surrogate gradients."""

    @property
    def own_fan_out(self) -> int:
        return self.features if self.recurrent else 0

    def output_shape(self, before: Shape) -> Shape:
        return _dense_shape(self, before)

    def n_weights(self, before: Shape) -> int:
        return (before[0] + self.own_fan_out) * self.features

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        return ([self.features],)


class ConvSpec(_Hidden):
    """2-D convolution to `channels` feature maps; geometry as in `torch.nn.Conv2d`."""

    kind: Literal["conv"] = "conv"
    channels: Positive
    """Number of output channels."""
    kernel: PositivePair
    """Kernel size, one number or `[height, width]`."""
    stride: PositivePair = (1, 1)
    """Stride, one number or `[height, width]`."""
    padding: Padding = (0, 0)
    """Rows and columns of zeros at the edges: one number, `[height, width]`, or `[top, left, bottom, right]`."""
    dilation: PositivePair = (1, 1)
    """Dilation, as in `torch.nn.Conv2d`, one number or `[height, width]`."""
    groups: Positive = 1
    """Number of groups, as in `torch.nn.Conv2d`; must divide the input and output channels."""

    def output_shape(self, before: Shape) -> Shape:
        """Return the shape of the outputs. Raises `ShapeError`.

        >>> ConvSpec(channels=8, kernel=3, stride=2).output_shape((1, 28, 28))
        (8, 13, 13)
        """
        channels, *size = _maps(self, before)
        if channels % self.groups or self.channels % self.groups:
            raise ShapeError(
                "groups", f"{self.groups} groups must divide the {channels} input and {self.channels} output channels"
            )
        outputs = [axis.output(side) for axis, side in zip(axes_of(self), size, strict=True)]
        for name, axis, side, n in zip(("height", "width"), axes_of(self), size, outputs, strict=True):
            if n < 1:
                raise ShapeError(
                    "kernel",
                    f"covers {axis.reach} pixels along the {name}, more than the padded input has "
                    f"({side + axis.start + axis.end})",
                )
        return (self.channels, *outputs)

    def n_weights(self, before: Shape) -> int:
        """Return the number of weights.

        >>> ConvSpec(channels=8, kernel=3, groups=2).n_weights((4, 28, 28))
        144
        """
        return math.prod(self.kernel) * self.channels * (before[0] // self.groups)

    def n_synops(self, before: Shape) -> int:
        """See `Layer`. Weights that read only padding are not counted."""
        height, width = (axis.connections(side) for axis, side in zip(axes_of(self), before[1:], strict=True))
        return height * width * self.channels * (before[0] // self.groups)

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        height, width = (axis.fanout(side) for axis, side in zip(axes_of(self), before[1:], strict=True))
        return [self.channels // self.groups], height, width

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        yield from super().problems(neuron)
        if self.delays is not None and self.delays.per is DelayTarget.SYNAPSE:
            yield "delays", "per: synapse is for dense blocks; a conv block has one delay for each channel: per: neuron"


class AvgPoolSpec(_Block):
    """Average pooling followed by neurons: a grouped convolution with one fixed weight, `gain / (kernel area)`."""

    kind: Literal["avg_pool"] = "avg_pool"
    kernel: PositivePair
    """Kernel size, one number or `[height, width]`."""
    stride: PositivePair | None = None
    """Stride, one number or `[height, width]`; the default is the kernel size."""
    padding: Padding = (0, 0)
    """Rows and columns of zeros at the edges: one number, `[height, width]`, or `[top, left, bottom, right]`; each
    must be smaller than the kernel."""
    gain: Annotated[Number, Field(gt=0)] | None = None
    """Sum of the weights of one pool. The default is the smallest with which a neuron spikes if all inputs spike; of
    sigma-delta neurons it is 1, the mean."""
    neuron: NeuronSpec | None = None
    """Neurons of this block; by default the network's `neuron`, which this replaces as a whole."""
    delay_shift: Flag | None = None
    """Delay of the output spikes by one time step; those of step T are lost. The default is the network's."""

    @field_validator("padding")
    @classmethod
    def _check_padding(cls, padding: Padding, info: ValidationInfo) -> Padding:
        kernel = info.data.get("kernel", ())
        for pad, side, axis in zip(padding, (*kernel, *kernel), ("height", "width") * 2, strict=False):
            if pad >= side:
                raise ValueError(f"must be smaller than the kernel, which has a {axis} of {side}")
        return padding

    def as_conv(self, channels: int) -> ConvSpec:
        """Return the grouped convolution that computes this pool over `channels` feature maps."""
        return ConvSpec(
            channels=channels,
            kernel=self.kernel,
            stride=self.stride or self.kernel,
            padding=self.padding,
            groups=channels,
            neuron=self.neuron,
            delay_shift=self.delay_shift,
        )

    def weight(self, neuron: NeuronSpec) -> float:
        """Return the weight of the pool, before it is rounded to the weight grid.

        It is `gain / (kernel area)`. Without a gain, it is the smallest multiple of 2/64 whose sum over the kernel is
        above the threshold of `neuron`; of sigma-delta neurons, that of a mean.
        """
        area = self.kernel[0] * self.kernel[1]
        if self.gain is not None or isinstance(neuron, SigmaDeltaSpec):
            return (1 if self.gain is None else self.gain) / area
        threshold_mant = int(64 * neuron.threshold)
        return 2 * (threshold_mant // (2 * area) + 1) / 64

    def output_shape(self, before: Shape) -> Shape:
        channels, *_ = _maps(self, before)
        return self.as_conv(channels).output_shape(before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`. The weights are not trainable."""
        return self.as_conv(before[0]).n_weights(before)

    def n_synops(self, before: Shape) -> int:
        return self.as_conv(before[0]).n_synops(before)

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        return self.as_conv(before[0]).fan_out(before)

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        yield from super().problems(neuron)
        weight = self.weight(neuron)
        if not 1 / 64 < weight <= 254 / 64:
            yield (
                "kernel",
                f"a pool of {self.kernel[0]}x{self.kernel[1]} has weight {weight:.4g}, outside the weight grid "
                "(1/64, 254/64]: set gain",
            )


class FlattenSpec(_Block):
    """Flatten `[channels, height, width]` to `[features]`, in C order. It has no neurons."""

    kind: Literal["flatten"] = "flatten"
    role = Role.RESHAPED

    def output_shape(self, before: Shape) -> Shape:
        return (math.prod(before),)


class AffineSpec(_Synapse):
    """Readout: synapses whose weighted input, averaged over time, is the logits.

    It has no spikes in this package. A netx file needs a neuron for it, which has the decays of `neuron` and never
    spikes. In a network of sigma-delta neurons, the weighted input is added up over time, and the output is values.
    """

    kind: Literal["affine"] = "affine"
    features: Positive
    """Number of classes, or of values."""
    role = Role.LOGITS
    takes_graded_input = True

    def output_shape(self, before: Shape) -> Shape:
        return _dense_shape(self, before)

    def n_weights(self, before: Shape) -> int:
        return before[0] * self.features

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        return ([self.features],)


class AverageSpec(_Block):
    """Readout: the mean rate of groups of neurons. Each class has equally many consecutive neurons of a flat input."""

    kind: Literal["average"] = "average"
    features: Positive
    """Number of classes; must divide the number of inputs."""
    role = Role.LOGITS

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        if isinstance(neuron, SigmaDeltaSpec):
            yield "kind", "sigma-delta neurons have no rates to average: use affine"

    def output_shape(self, before: Shape) -> Shape:
        if len(before) != 1:
            raise ShapeError("", f"average needs a flat input, got {list(before)}: put a flatten block before it")
        if before[0] % self.features:
            raise ShapeError("features", f"{self.features} classes must divide the {before[0]} inputs")
        return (self.features,)


_AnyBlock = DenseSpec | ConvSpec | AvgPoolSpec | FlattenSpec | AffineSpec | AverageSpec
"""Union of all kinds of blocks; schema, tables and builders follow from it."""
BlockSpec = Annotated[_AnyBlock, Field(discriminator="kind")]
LayerSpec = InputSpec | _AnyBlock
BLOCK_KINDS: tuple[type[Layer], ...] = get_args(_AnyBlock)


def kind_of(model: type[Layer]) -> str:
    """Return the name of a kind of layer in specs, tables and drawings.

    >>> kind_of(AvgPoolSpec)
    'avg_pool'
    """
    return str(model.model_fields["kind"].default)


def has_neurons(layer: LayerSpec) -> bool:
    """Return whether a layer has neurons. A graded input, events, a flatten and an affine readout have none."""
    return layer.has_neurons


def skips_of(layer: LayerSpec) -> tuple[SkipSpec, ...]:
    """Return the skips of a layer; empty if its kind has none."""
    return layer.skips if isinstance(layer, _Synapse) else ()


def synapses_of(layer: LayerSpec, read: Sequence[Shape], after: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Yield a block of output shape `after` and then each skip as a layer, with the shape of the input of each.

    `read` are the shapes of the blocks that it reads: its own source, then those of its skips.
    """
    own, *others = read
    yield layer, own
    yield from (skip.as_layer(before, after) for skip, before in zip(skips_of(layer), others, strict=True))


def _dense_shape(layer: DenseSpec | AffineSpec, before: Shape) -> Shape:
    if len(before) != 1:
        raise ShapeError("", f"{layer.kind} needs a flat input, got {list(before)}: put a flatten block before it")
    return (layer.features,)


def _maps(layer: ConvSpec | AvgPoolSpec, before: Shape) -> Shape:
    """Return the shape of the input, `[channels, height, width]`."""
    if len(before) != 3:
        raise ShapeError("", f"{layer.kind} needs an input [channels, height, width], got {list(before)}")
    return before
