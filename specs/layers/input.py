"""Specs of the input: its encoding, and how sounds become pictures.

Graded pixels are parts of 1: threshold and bias of the first block are written for inputs up to 1, and multiplied by
`2^bits - 1` when it is built, so one spec does for all encodings. Events are numbers of spikes: one event is 1,
whatever `bits` is.
"""

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from specs.fields import Flag, Integer, Levels, Number, Padding, Positive, Shape, StrictModel, without_defaults
from specs.files.limits import TIME_STEPS
from specs.layers.layer import Layer
from specs.layers.neuron import NeuronSpec
from specs.shapes import fit_input, pads_of
from specs.words import counted, sample_word


class Encoding(StrEnum):
    """Encoding of the input."""

    SPIKE = "spike"
    GRADED = "graded"
    EVENTS = "events"
    FRAMES = "frames"


TIMED = (Encoding.EVENTS, Encoding.FRAMES)
"""Encodings of inputs that differ from step to step."""


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
    frames: Annotated[Integer, Field(ge=2, le=TIME_STEPS)] = 48
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
    """Number of bits of a pixel with the encoding `graded`, and with its sign with `frames`; the default is 8. With
    `events`, the number of bits of the number of events in a step; the default is 1. Without effect with `spike`."""
    bin_us: Positive = 10_000
    """Duration of a step in microseconds, with the encoding `events`. Readers of recordings count the events of each
    such bin. Without effect otherwise."""
    padding: Padding = (0, 0)
    """Rows and columns that are added to each image: one number, `[height, width]`, or `[top, left, bottom, right]`.
    The first convolution then needs no padding. Their pixels are `border`."""
    border: Levels = (0.0,)
    """Pixel from 0 to 1 that `padding` adds, one number or one for each channel: the mean, for an ANN that pads images
    after it has normalised them."""
    mean: Number = 0.0
    """Mean that is subtracted from each pixel; only with the encoding `spike`, as are `std`, `weight`, `bias` and
    `exact_input`."""
    std: Annotated[Number, Field(gt=0)] = 1.0
    """Standard deviation by which each pixel is divided, after `mean` is subtracted."""
    weight: Number = 1.0
    """Initial weight of the input neurons; trainable. The current is `weight * (pixel - mean) / std + bias`, with
    `weight` and `bias` rounded to multiples of 2/64: 1.1 counts as 1.09375."""
    bias: Number = 0.0
    """Initial bias of the input neurons; trainable; rounded as `weight` is."""
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
    def _without_new_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document = without_defaults(dump(self), self, "padding", "border", "log_mel")
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
        """Word for what the network takes at a time: `image`, `sound` or `recording`."""
        return sample_word(is_sound=self.log_mel is not None, is_timed=self.is_timed)

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
