"""Steppers: blocks in a stream, which run one time step at a time and keep their states between the steps.

`Block.stepper` makes them. What leaves a stepper is in the same memory at each step, so that native calls are bound to
it once.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from bootstrap_core.fixed_point import MESSAGE, SIGMA, WEIGHT_STEP
from bootstrap_core.functional.cuba import StateLimits
from bootstrap_core.network.states import STATES_REMEDY, NamedStates, check_states, named_states
from bootstrap_core.ops.neurons import NeuronConstants, OneStep, map_of, one_step
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import WEIGHT_UNIT


class Stepper:
    """Block in a stream, without states of its own.

    Args:
        out: what leaves the block in the present step; each step overwrites it.
        is_steady: True if it changes only with the input of the network.
        mean: what a readout makes of the mean of `out` over time.
    """

    def __init__(
        self, out: Tensor | Spikes, *, is_steady: bool = False, mean: Callable[[Tensor], Tensor] = Tensor.float
    ) -> None:
        self.out, self.is_steady, self._mean = out, is_steady, mean
        self._total: Tensor | float = 0.0  # of a readout, summed over the steps

    @property
    def spikes(self) -> Spikes:
        """Spikes or messages that leave the block."""
        assert isinstance(self.out, Spikes)
        return self.out

    @property
    def view(self) -> Tensor:
        """View `[1, N, ...]` of the spikes; writing to it changes them."""
        spikes = self.spikes
        if spikes.words is None:
            return spikes.tensor()
        words = spikes.words.movedim(-1, 2)
        return words.flatten(2) if spikes.is_flat else words

    def run(self, step: int) -> None:
        """Run one step."""

    def answer(self, steps: Tensor) -> Tensor:
        """Return the logits or values of a readout after these steps, from its spikes of all of them."""
        spikes = self.spikes
        self._total = self._total + self.view[0].double()
        mean = self._total / steps if spikes.unit is None else self._total * spikes.unit
        return self._mean(mean if spikes.words is None else mean.float()).float()


class Feed(Stepper):
    """Input of a network in a stream.

    Args:
        given: input of the present step, as blocks take it: an image `[N, ...]`, or events or a frame `[1, N, ...]`.

    Attributes:
        changes: number of inputs so far that differed from the one before.
    """

    out: Tensor

    def __init__(self, given: Tensor) -> None:
        super().__init__(given, is_steady=True)
        self.changes = 0

    def take(self, given: Tensor) -> None:
        """Take an input that differs from the last one; the axis of time may be left out."""
        self.out = given
        self.changes += 1


@dataclass(frozen=True)
class StreamPlace:
    """Place of a block in a stream.

    Args:
        title: what messages call it.
        size: N, and shape of the block's output.
        overflows: counter of states that left 24 bits, by block, where the stream goes on as the chip does; None where
            it refuses them.
    """

    index: int
    title: str
    size: tuple[int, ...]
    feed: Feed
    overflows: Counter[int] | None


class InputStepper(Stepper):
    """Input without neurons.

    Args:
        out: spikes or graded input of the first step.
        convert: makes `out` of the input, except for the type.
    """

    def __init__(self, out: Spikes, convert: Callable[[Tensor], Tensor], feed: Feed) -> None:
        super().__init__(out, is_steady=True)
        self._target, self._convert, self._feed, self._version = self.view, convert, feed, 0

    def run(self, step: int) -> None:
        """Take the input, if it changed."""
        if self._version != self._feed.changes:
            self._target.copy_(self._convert(self._feed.out))
            self._version = self._feed.changes


class Definition:
    """Neurons as `functional` defines them, one step at a time.

    Args:
        remedy: end of the message where a state leaves 24 bits.
        delayed: what leaves in the first step; None if everything leaves in its own step.
        limits: limits that the states keep to, where the stream goes on as the chip does; without them, states that
            leave 24 bits are an error.
    """

    def __init__(
        self,
        place: StreamPlace,
        states: NamedStates,
        remedy: str,
        delayed: Tensor | None,
        limits: StateLimits | None = None,
    ) -> None:
        self.place, self.states, self.remedy, self.delayed, self.limits = place, states, remedy, delayed, limits

    @torch.no_grad()
    @torch.inference_mode(False)  # other steps may be outside of it, where its tensors cannot be changed
    def run(self, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """Run one step; return the states and what leaves the block, `[N, ...]`."""
        states, sent = next(self.states)
        if self.limits is None or self.place.overflows is None:
            check_states(self.place.title, step, states, self.remedy)
        else:
            self.place.overflows[self.place.index] += self.limits.n
            self.limits.n = 0
        if self.delayed is None:
            return states, sent
        leaving, self.delayed = self.delayed, sent
        return states, leaving


class CubaStepper(Stepper):
    """Block with CUBA neurons.

    The native library runs the steps. The definition runs them without the library, and from the step on in which a
    state leaves 24 bits.

    Args:
        drives: yields the weighted input of the neurons in each step, `[N, ...]`.
        is_steady: True if it changes only with the input of the network.
        native: the block, if the native library weighs its spikes.
    """

    def __init__(
        self,
        neurons: NeuronConstants,
        place: StreamPlace,
        drives: Iterator[Tensor],
        *,
        is_steady: bool,
        native: OneStep | None = None,
    ) -> None:
        n, *shape = place.size
        self._neurons, self._place, self._drives, self._drive_is_steady = neurons, place, drives, is_steady
        self._version = 0  # `changes` of the feed when `drive` was computed; 0: not yet
        self.drive = torch.empty(0)
        self._arriving: Tensor | None = None  # from which the library reads the weighted input, unless it weighs
        self._fits = True  # float32, in which it arrives, holds the weighted input exactly
        if native is None:
            maps = torch.empty(n, *map_of(tuple(shape)), dtype=torch.float32)
            self._arriving = maps[:, 0, 0] if len(shape) == 1 else maps.movedim(-1, 1)
            native = one_step(maps, tuple(shape), neurons)
        self.native = native
        words = torch.zeros(1, n, *(shape if len(shape) == 1 else map_of(tuple(shape))), dtype=torch.int32)
        super().__init__(native.spikes if native else Spikes(1, tuple(shape), words=words))
        self._definition = None if native else self._define()

    def run(self, step: int) -> None:
        if self._arriving is not None and self._update():
            self._arriving.copy_(self.drive)
            self._fits = self.drive.dtype == torch.float32 or torch.equal(self._arriving.double(), self.drive)
        if self.native is not None and self._fits and self.native.advance():
            return
        if self._arriving is None:
            self._update()
        if self._definition is None:
            self._leave()
        assert self._definition is not None
        self.view.copy_(self._definition.run(step)[1])

    def _update(self) -> bool:
        """Compute `drive`, once in a step. Return False if it stays, as that of a still image does."""
        changes = self._place.feed.changes
        if self._drive_is_steady and self._version == changes:
            return False
        self.drive, self._version = next(self._drives), changes
        return True

    def _leave(self) -> None:
        """Leave the native library for the definition, in this step."""
        self._definition, self.native = self._define(), None

    def _define(self) -> Definition:
        """Return the definition, from rest or from the states of the native library."""
        start = self.native.state() if self.native else None
        limits = None if self._place.overflows is None else StateLimits()
        drives = (self.drive for _ in repeat(None))  # each is read when its step runs
        states = named_states(drives, self._neurons, len(self._place.size), limits, start)
        delayed = torch.zeros(self._place.size, dtype=torch.bool) if start is None else start.spikes.bool()
        return Definition(self._place, states, STATES_REMEDY, delayed if self._neurons.shift else None, limits)


class AffineStepper(CubaStepper):
    """Affine readout; its neurons never spike, and their states are checked.

    Args:
        reads_last: whether the logits are those of the last step alone.
        logits_of: makes logits of a weighted input summed over steps, and of their number.
    """

    def __init__(
        self,
        reads_last: bool,
        logits_of: Callable[[Tensor, Tensor], Tensor],
        neurons: NeuronConstants,
        place: StreamPlace,
        drives: Iterator[Tensor],
        *,
        is_steady: bool,
        native: OneStep | None,
    ) -> None:
        super().__init__(neurons, place, drives, is_steady=is_steady, native=native)
        self._reads_last, self._logits_of = reads_last, logits_of
        self._sum = torch.zeros(place.size, dtype=torch.float64)
        totals = None if self.native is None else self.native.run.totals
        self._weighed = None if totals is None else totals.view(place.size)  # summed over the steps, natively

    def run(self, step: int) -> None:
        if self._reads_last:
            (self._sum if self._weighed is None else self._weighed).zero_()
        super().run(step)

    def answer(self, steps: Tensor) -> Tensor:
        """Return the logits: the weighted input, its mean over all steps or that of the last one, and the bias."""
        if self._reads_last:
            steps = torch.ones_like(steps)
        if self._weighed is not None:
            return self._logits_of(self._weighed * WEIGHT_UNIT, steps)
        self._sum += self.drive
        return self._logits_of(self._sum.to(self.drive.dtype), steps)

    def _leave(self) -> None:
        super()._leave()
        if self._weighed is not None:  # `_weighed` already has this step, which `answer` adds again
            self._sum, self._weighed = self._weighed.double() * WEIGHT_STEP - self.drive.double(), None


class MessageStepper(Stepper):
    """Block with sigma-delta neurons, which run by the definition."""

    def __init__(self, definition: Definition, size: tuple[int, ...]) -> None:
        super().__init__(Spikes.of(torch.zeros(1, *size, dtype=torch.float64), unit=1 / MESSAGE))
        self._definition, self._target = definition, self.view
        self.states: dict[str, Tensor] = {}

    def run(self, step: int) -> None:
        self.states, leaving = self._definition.run(step)
        self._target.copy_(leaving)


class ValueStepper(MessageStepper):
    """Readout of values."""

    def answer(self, steps: Tensor) -> Tensor:
        return (self.states["activation"] / SIGMA).float()
