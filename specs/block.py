"""Specs of blocks: one model for each `kind`, with its shapes and costs.

Other code reads these models through the methods of `Layer`. To add a kind, add a class here and name it in the union
`_AnyBlock`.
"""

import math
from collections.abc import Iterator, Sequence
from enum import Enum, StrEnum, auto
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from specs.fields import MAX_DELAY, Flag, Integer, Levels, Number, Padding, Positive, PositivePair, Shape, StrictModel
from specs.neuron import CubaSpec, NeuronSpec, SigmaDeltaSpec
from specs.shapes import ShapeError, axes_of, fit_input, pads_of
from specs.words import counted

__all__ = [
    "BLOCK_KINDS",
    "AffineSpec",
    "AverageSpec",
    "AvgPoolSpec",
    "BlockSpec",
    "ConvSkip",
    "ConvSpec",
    "DelaySpec",
    "DelayTarget",
    "DenseSkip",
    "DenseSpec",
    "Encoding",
    "FlattenSpec",
    "IdentitySkip",
    "InputSpec",
    "Layer",
    "LayerSpec",
    "LogMelSpec",
    "Norm",
    "Role",
    "SkipSpec",
    "has_neurons",
    "kind_of",
    "skips_of",
]


NOT_FOR_SIGMA_DELTA = ("recurrent", "delays", "skips", "norm", "dropout")
"""Fields of blocks that sigma-delta neurons do not have: their messages are changes, and they are not trained."""


class Encoding(StrEnum):
    """Encoding of the input."""

    SPIKE = "spike"
    GRADED = "graded"
    EVENTS = "events"
    FRAMES = "frames"


TIMED = (Encoding.EVENTS, Encoding.FRAMES)
"""Encodings of inputs that differ from step to step."""


class Norm(StrEnum):
    """Batch norm of a weighted input."""

    NONE = "none"
    MEAN_ONLY = "mean_only"
    BATCH = "batch"
    WEIGHT_SCALE = "weight_scale"


class Role(Enum):
    """Kind of output of a layer."""

    SPIKES = auto()
    """Spikes of the layer's neurons; of the last block, their rates are the logits."""
    LOGITS = auto()
    """Logits of a readout, which must be the last block."""
    RESHAPED = auto()
    """Input of the layer in another shape; such a layer cannot be the last block."""


class Layer(StrictModel):
    """Base of the input and of all kinds of blocks: shapes, sizes and costs.

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
        """Return the shape of the outputs. Raises `ShapeError` if the input does not fit."""
        raise NotImplementedError

    def n_weights(self, before: Shape) -> int:
        """Return the number of weights, trainable or not."""
        return 0

    def n_parameters(self, before: Shape) -> int:
        """Return the number of trainable parameters, without the decays of neurons and without skips."""
        return 0

    def n_synops(self, before: Shape) -> int:
        """Return the synaptic operations of a time step if every input spikes; by default, one for each weight."""
        return self.n_weights(before)

    @property
    def own_fan_out(self) -> int:
        """Number of weights that each spike of the layer reaches in the layer itself; 0 unless it is recurrent."""
        return 0

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of features that few formats hold, such as `recurrent`; empty for most blocks."""
        return ()

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """Return the number of weights that each input reaches, as a list of factors for each axis of `before`.

        A list of one number broadcasts.

        >>> ConvSpec(channels=8, kernel=3).fan_out((1, 4, 5))
        ([8], [1, 2, 2, 1], [1, 2, 3, 2, 1])
        """
        return ([0],) * len(before)

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        """Yield each field that does not fit the block's neurons, with the rest of an error message."""
        if isinstance(neuron, SigmaDeltaSpec):
            fields = type(self).model_fields
            for name in NOT_FOR_SIGMA_DELTA:
                if name in fields and getattr(self, name) != fields[name].default:
                    yield name, "does not apply to sigma-delta neurons: remove it"


class LogMelSpec(StrictModel):
    """Log-mel spectrogram: the picture of a recording that a network of sounds takes, `[1, bands, frames]`.

    With `encoding: events` the network takes it column by column, one in each time step, as integers of `bits` bits.

    Rows are frequency bands, equally wide on the mel scale, the highest first; columns are moments. A pixel is the
    power in decibels below the strongest pixel of the recording, so loudness does not count. The picture is centred on
    the recording's centre of power: what is outside is cut off, and what is missing is 0.
    """

    sample_rate: Annotated[Integer, Field(ge=1000, le=192_000)] = 8000
    """Samples per second. Recordings at a higher rate are resampled; those at a lower rate are refused."""
    window: Annotated[Integer, Field(ge=16, le=1 << 14)] = 256
    """Length of the Hann window of a Fourier transform, in samples."""
    hop: Annotated[Integer, Field(ge=1, le=1 << 14)] = 128
    """Distance from one column to the next, in samples."""
    bands: Annotated[Integer, Field(ge=2, le=512)] = 40
    """Number of bands, the rows of the picture."""
    frames: Annotated[Integer, Field(ge=2, le=4096)] = 48
    """Number of columns of the picture."""
    low_hz: Annotated[Number, Field(ge=0)] = 60.0
    """Lower end of the lowest band, in hertz."""
    high_hz: Annotated[Number, Field(gt=0, validate_default=True)] = 4000.0
    """Upper end of the highest band, in hertz; at most half the `sample_rate`."""
    range_db: Annotated[Number, Field(gt=0, le=200)] = 40.0
    """Decibels from black to white: a pixel this far below the strongest one, or farther, is 0."""

    @field_validator("high_hz")
    @classmethod
    def _check_high(cls, high_hz: float, info: ValidationInfo) -> float:
        rate, low = info.data.get("sample_rate", math.inf), info.data.get("low_hz", 0.0)
        if not low < high_hz <= rate / 2:
            raise ValueError(f"must be above low_hz ({low:g}) and at most half the sample_rate ({rate / 2:g})")
        return high_hz

    @property
    def picture(self) -> Shape:
        """Shape of the picture, `(1, bands, frames)`."""
        return 1, self.bands, self.frames

    @property
    def column(self) -> Shape:
        """Shape of a column of the picture, `(1, bands, 1)`."""
        return 1, self.bands, 1


class InputSpec(Layer):
    """Input of the network: images with pixels from 0 to 1, or events.

    With `encoding: spike`, each pixel drives an input neuron with the same current at each time step. With `encoding:
    graded`, each pixel enters the first synapses as an integer of `bits` bits, at each time step. Threshold and bias of
    the first block are multiplied by `2**bits - 1` when the network is built: write `threshold` for pixels from 0 to 1.

    With `encoding: events`, the input differs from step to step: numbers of events, 0 to `2**bits - 1`, which enter the
    first synapses as they are, so that one event counts as one spike. Networks take them as `[T, N, *shape]`, time
    first, and run for the T steps of the tensor. With a `log_mel`, the steps are the columns of a sound's spectrogram.

    With `encoding: frames`, too, the input differs from step to step: integers from `-2**(bits - 1)` to
    `2**(bits - 1) - 1`, in units of 1/64. Sigma-delta neurons of the input send their changes.
    """

    kind: Literal["input"] = "input"
    shape: Annotated[tuple[Positive, ...], Field(json_schema_extra={"minItems": 1, "maxItems": 3})]
    """Shape of an image, or of the events of one step: `[features]` or `[channels, height, width]`."""
    encoding: Encoding = Encoding.SPIKE
    """Encoding of the input: `spike` makes a pixel the current of an input neuron; `graded` makes it an integer that
    enters the first synapses directly, as a graded spike of Loihi 2; `events` takes such integers that differ from step
    to step; `frames` takes integers with sign, for networks of sigma-delta neurons."""
    bits: Annotated[Integer, Field(ge=1, le=16)] = 8
    """Number of bits. With `encoding: graded`, those of a pixel; the default is 8. With `encoding: events`, those of
    the number of events in a step; the default is 1. With `encoding: frames`, those of a pixel with its sign; the
    default is 8. Without effect with `encoding: spike`."""
    bin_us: Positive = 10_000
    """Duration of a step in microseconds, with `encoding: events`: readers of recordings count the events of each such
    bin; without effect otherwise."""
    padding: Padding = (0, 0)
    """Rows and columns that are added to each image: one number, `[height, width]`, or `[top, left, bottom, right]`.
    The first convolution then needs no padding. Their pixels are `border`."""
    border: Levels = (0.0,)
    """Pixel from 0 to 1 that `padding` adds, one number or one for each channel: the mean, for an ANN that pads images
    after it has normalised them."""
    mean: Number = 0.0
    """Mean that is subtracted from each pixel; only with `encoding: spike`, as are `std`, `weight`, `bias` and
    `exact_input`."""
    std: Annotated[Number, Field(gt=0)] = 1.0
    """Standard deviation by which each pixel is divided, after `mean` is subtracted."""
    weight: Number = 1.0
    """Initial weight of the input neurons; trainable. The current is `weight * (pixel - mean) / std + bias`."""
    bias: Number = 0.0
    """Initial bias of the input neurons; trainable."""
    exact_input: Flag = True
    """Rounding of the input: `true` truncates the current to a multiple of 1/64, as the hardware needs it; `false`
    rounds the pixel to a multiple of 2/64 instead, as lava-dl does."""
    neuron: NeuronSpec | None = None
    """Neurons of the input; by default the network's `neuron`, which this replaces as a whole."""
    log_mel: LogMelSpec | None = None
    """Spectrogram that a network of sounds takes; `{}` for the defaults. `shape` is then that of an image,
    `[1, bands, frames]`. With `encoding: events`, which takes a column in each time step, it is `[bands]` or
    `[1, bands, 1]`. Training on WAV files adds it, except with `encoding: events`."""

    @model_validator(mode="before")
    @classmethod
    def _count_single_events(cls, document: Any) -> Any:
        """Give events a default of one bit."""
        if isinstance(document, dict) and document.get("encoding") == Encoding.EVENTS:
            return {"bits": 1, **document}
        return document

    @model_serializer(mode="wrap")
    def _without_what_most_lack(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields that have their default, so that files of networks without them stay as they were."""
        document: dict[str, Any] = dump(self)
        for name in ("padding", "border", "log_mel"):
            if getattr(self, name) == InputSpec.model_fields[name].default:
                document.pop(name, None)
        if not self.is_events or self.log_mel is not None:
            document.pop("bin_us", None)
        return document

    @field_validator("padding", "border")
    @classmethod
    def _check_border(cls, value: Any, info: ValidationInfo) -> Any:
        shape = info.data.get("shape", (0, 0, 0))
        if any(value) and info.data.get("encoding") in TIMED:
            raise ValueError(
                f"does not apply to encoding: {info.data['encoding']}: remove it; the first convolution has a padding"
            )
        if info.field_name == "padding" and any(value) and len(shape) != 3:
            raise ValueError("needs an input.shape of [channels, height, width]")
        if info.field_name == "border" and len(value) not in {1, shape[0]}:
            raise ValueError(f"must be one number, or one for each of the {shape[0]} channels")
        return value

    @field_validator("log_mel")
    @classmethod
    def _check_picture(cls, log_mel: LogMelSpec | None, info: ValidationInfo) -> LogMelSpec | None:
        shape, encoding = info.data.get("shape"), info.data.get("encoding")
        if log_mel is None or shape is None:
            return log_mel
        if encoding is Encoding.FRAMES:
            raise ValueError("makes images, which encoding: frames does not take: remove one of them")
        what, made = ("time steps", log_mel.column) if encoding is Encoding.EVENTS else ("images", log_mel.picture)
        if not fit_input(made, shape):
            raise ValueError(f"makes {what} of {list(made)}, but input.shape is {list(shape)}")
        return log_mel

    @field_validator("shape")
    @classmethod
    def _check_shape(cls, shape: Shape) -> Shape:
        if len(shape) not in {1, 3}:
            raise ValueError("must be [features] or [channels, height, width]")
        return shape

    @field_validator("mean", "std", "weight", "bias", "exact_input", "neuron")
    @classmethod
    def _check_graded(cls, value: Any, info: ValidationInfo) -> Any:
        encoding = info.data.get("encoding", Encoding.SPIKE)
        if encoding is Encoding.FRAMES and info.field_name == "neuron":
            return value
        if encoding is not Encoding.SPIKE and value != cls.model_fields[str(info.field_name)].default:
            neurons = "" if encoding is Encoding.FRAMES else ", which has no input neurons"
            raise ValueError(
                f"does not apply to encoding: {encoding}{neurons}: remove it (mean and std can be folded into the "
                "first weights)"
            )
        return value

    @property
    def idle(self) -> list[str]:
        """Warnings about fields that are set but have no effect.

        >>> InputSpec(shape=(4,), bits=3).idle
        ['input.bits has no effect with input.encoding=spike: set input.encoding=graded']
        """
        idle = {
            "bits": (self.encoding is Encoding.SPIKE, Encoding.GRADED),
            "bin_us": (not self.is_events, Encoding.EVENTS),
        }
        found = [
            f"input.{name} has no effect with input.encoding={self.encoding}: set input.encoding={needed}"
            for name, (has_none, needed) in idle.items()
            if has_none and getattr(self, name) != InputSpec.model_fields[name].default
        ]
        if any(self.border) and not any(self.padding):
            found.append("input.border has no effect without input.padding")
        return found

    @property
    def sample(self) -> str:
        """Word for what the network takes at a time: `image` or `recording`."""
        return "recording" if self.is_events else "image"

    @property
    def is_events(self) -> bool:
        """True if the input is events, which readers of recordings count."""
        return self.encoding is Encoding.EVENTS

    @property
    def is_timed(self) -> bool:
        """True if the input differs from step to step, and inputs are tensors `[T, N, *shape]`."""
        return self.encoding in TIMED

    @property
    def is_graded(self) -> bool:
        """True if synapses multiply the input: graded pixels, and events of more than one bit."""
        return self.encoding is Encoding.GRADED or (self.is_events and self.bits > 1)

    @property
    def form(self) -> str:
        """Form in which the input enters the first synapses, in words.

        >>> InputSpec(shape=(4,), encoding="graded", bits=3).form, InputSpec(shape=(4,)).form
        ('graded, 3 bits', 'spikes')
        """
        return "spikes" if self.encoding is Encoding.SPIKE else f"{self.encoding}, {counted(self.bits, 'bit')}"

    @property
    def has_neurons(self) -> bool:
        """True if the input has neurons; graded pixels and events do not."""
        return self.encoding in (Encoding.SPIKE, Encoding.FRAMES)

    def output_shape(self, before: Shape) -> Shape:
        """Return the shape of an image with its `padding`, or of the events of one step."""
        if not any(self.padding):
            return self.shape
        (channels, height, width), (top, left, bottom, right) = self.shape, pads_of(self.padding)
        return channels, height + top + bottom, width + left + right

    def n_parameters(self, before: Shape) -> int:
        """Return 2, the weight and the bias of neurons that pixels drive; 0 if there are none."""
        return 2 if self.encoding is Encoding.SPIKE else 0

    @property
    def levels(self) -> int:
        """Factor of the input's units: `2**bits - 1` for graded pixels; 1 for `spike`, and for events, which count."""
        return self.largest if self.encoding is Encoding.GRADED else 1

    @property
    def least(self) -> int:
        """Smallest value of the input: `-2**(bits - 1)` for frames, otherwise 0."""
        return -(1 << self.bits - 1) if self.encoding is Encoding.FRAMES else 0

    @property
    def largest(self) -> int:
        """Largest value of the input: `2**bits - 1`, for frames `2**(bits - 1) - 1`; 1 for `spike`."""
        return 1 if self.encoding is Encoding.SPIKE else self.least + (1 << self.bits) - 1


class _Skip(StrictModel):
    source: Annotated[Integer, Field(ge=0)]
    """Index of the earlier block that the skip reads: 0 is the input (not with `encoding: graded`), 1 the first of
    `blocks`, whatever its kind."""

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
        """Return a convolution with kernel 1 and one group for each channel."""
        return ConvSpec(channels=before[0], kernel=(1, 1), groups=before[0]), (*before, 1, 1)[:3]

    def output_shape(self, before: Shape, after: Shape) -> Shape:
        """Return the shape of the source."""
        return before


class DenseSkip(_Skip):
    """Skip from every neuron of the source to every neuron of the block; the source is flattened in C order."""

    kind: Literal["dense"] = "dense"

    def as_layer(self, before: Shape, after: Shape) -> tuple["ConvSpec | DenseSpec", Shape]:
        """Return a dense layer from the flattened source."""
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
        """Return the convolution and the shape of its input."""
        return ConvSpec(channels=after[0], **self.model_dump(exclude={"kind", "source"})), before


SkipSpec = Annotated[IdentitySkip | DenseSkip | ConvSkip, Field(discriminator="kind")]
"""Skip connection: synapses from an earlier block."""


class _Synapse(Layer):
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
    """Synapses from earlier blocks (skip connections). Their weighted inputs are added to the block's own, before norm,
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
    """Delays of the synapses of a block, in whole time steps; fixed, drawn at random when the network is built."""

    per: DelayTarget = DelayTarget.NEURON
    """Place of delays: `neuron` delays all inputs of a neuron alike, in a `conv` block those of a channel; `synapse`
    has a delay for each weight, only in `dense` blocks."""
    longest: Annotated[Integer, Field(ge=0, le=MAX_DELAY)] = MAX_DELAY
    """Longest delay that is drawn, in time steps; the default is the hardware's limit."""


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
        """See `_Synapse`; a batch norm adds a gain for each channel."""
        return super().n_parameters(before) + self.output_shape(before)[0] * (self.norm is Norm.BATCH)

    @model_serializer(mode="wrap")
    def _without_what_most_lack(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out delays and recurrence where there are none, so that files of other networks stay as they were."""
        document: dict[str, Any] = dump(self)
        for name in ("recurrent", "delays"):
            if not document.get(name):
                document.pop(name, None)
        return document

    @property
    def extras(self) -> tuple[str, ...]:
        """See `Layer`."""
        return tuple(name for name in ("recurrent", "delays") if getattr(self, name, None))

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        """See `Layer`."""
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
        """See `Layer`."""
        return self.features if self.recurrent else 0

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
        return _dense_shape(self, before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`."""
        return (before[0] + self.own_fan_out) * self.features

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
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
        """See `Layer`."""
        height, width = (axis.fanout(side) for axis, side in zip(axes_of(self), before[1:], strict=True))
        return [self.channels // self.groups], height, width

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        """See `Layer`."""
        yield from super().problems(neuron)
        if self.delays is not None and self.delays.per is DelayTarget.SYNAPSE:
            yield "delays", "per: synapse is for dense blocks; a conv block has one delay for each channel: per: neuron"


class AvgPoolSpec(Layer):
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
        """See `Layer`."""
        channels, *_ = _maps(self, before)
        return self.as_conv(channels).output_shape(before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`. The weights are not trainable."""
        return self.as_conv(before[0]).n_weights(before)

    def n_synops(self, before: Shape) -> int:
        """See `Layer`."""
        return self.as_conv(before[0]).n_synops(before)

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
        return self.as_conv(before[0]).fan_out(before)

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        """See `Layer`."""
        yield from super().problems(neuron)
        weight = self.weight(neuron)
        if not 1 / 64 < weight <= 254 / 64:
            yield (
                "kernel",
                f"a pool of {self.kernel[0]}x{self.kernel[1]} has weight {weight:.4g}, outside the weight grid "
                "(1/64, 254/64]: set gain",
            )


class FlattenSpec(Layer):
    """Flatten `[channels, height, width]` to `[features]`, in C order. It has no neurons."""

    kind: Literal["flatten"] = "flatten"
    role = Role.RESHAPED

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
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
        """See `Layer`."""
        return _dense_shape(self, before)

    def n_weights(self, before: Shape) -> int:
        """See `Layer`."""
        return before[0] * self.features

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """See `Layer`."""
        return ([self.features],)


class AverageSpec(Layer):
    """Readout: the mean rate of groups of neurons. Each class has equally many consecutive neurons of a flat input."""

    kind: Literal["average"] = "average"
    features: Positive
    """Number of classes; must divide the number of inputs."""
    role = Role.LOGITS

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        """See `Layer`."""
        if isinstance(neuron, SigmaDeltaSpec):
            yield "kind", "sigma-delta neurons have no rates to average: use affine"

    def output_shape(self, before: Shape) -> Shape:
        """See `Layer`."""
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


def _dense_shape(layer: DenseSpec | AffineSpec, before: Shape) -> Shape:
    if len(before) != 1:
        raise ShapeError("", f"{layer.kind} needs a flat input, got {list(before)}: put a flatten block before it")
    return (layer.features,)


def _maps(layer: ConvSpec | AvgPoolSpec, before: Shape) -> Shape:
    """Return the shape of the input, `[channels, height, width]`."""
    if len(before) != 3:
        raise ShapeError("", f"{layer.kind} needs an input [channels, height, width], got {list(before)}")
    return before
