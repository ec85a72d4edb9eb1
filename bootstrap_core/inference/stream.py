"""Streaming: exact inference one time step at a time, with states that are kept between the steps."""

from collections import Counter, deque
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.functional.cuba import CubaState, StateLimits
from bootstrap_core.inference.overflow import Overflow, check_states
from bootstrap_core.network.base_block import Block, Signals, SynapticBlock, as_spikes, is_graded
from bootstrap_core.network.blocks import (
    AffineBlock,
    AverageBlock,
    EventInputBlock,
    FlattenBlock,
    InputBlock,
    SpikingBlock,
)
from bootstrap_core.network.graph import sources_of, walk
from bootstrap_core.network.inputs import as_input
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.neurons import OneStep, map_of, one_step
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import WEIGHT_UNIT, one_step_of_layer
from bootstrap_core.ops.weighted_input import weigh
from specs.errors import DataError
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.shapes import fit_input

__all__ = ["Stream"]


class Stream:
    """Network that takes one time step of its input at a time. `IntegerNetwork.stream` makes it.

    The first step plans the others: each block gets its arrays, which every step overwrites, and its native call is
    bound to them.

    Args:
        network: frozen network.
        overflow: what happens where a state leaves 24 bits.
        overflows: counter to which such states are added, by block.

    Attributes:
        steps: number of steps since the start.
    """

    def __init__(self, network: Network, overflow: Overflow, overflows: Counter[int]) -> None:
        self._network, self._overflow, self._overflows = network, overflow, overflows
        self.reset()

    def reset(self) -> None:
        """Start again from rest."""
        self.steps = 0
        self._count = torch.zeros((), dtype=torch.float64)  # steps, as torch divides by them fastest
        self._input: _Input | None = None
        self._layers: list[_Layer | _Average] = []

    def step(self, inputs: Tensor) -> Tensor:
        """Advance one step; return the logits so far, `[N, classes]`, float32: those of a run of `steps` steps.

        Args:
            inputs: events `[N, ...]` of this step, or for a network of images the image, `[N, ...]` in 0..1.

        Raises:
            DataError: the input does not fit the network, or has another N than before.
            StateOverflowError: a current or voltage leaves the hardware's 24 bits, and this is to be refused; the
                stream must then be reset.
        """
        if self._input is None or not self._input.takes(inputs):
            self._take(inputs)
        for layer in self._layers:
            layer.run(self.steps)
        self.steps += 1
        self._count.fill_(self.steps)
        return self._layers[-1].logits(self._count).flatten(1)

    @torch.no_grad()
    @torch.inference_mode(False)  # other steps may be outside of it, where its tensors cannot be changed
    def _take(self, inputs: Tensor) -> None:
        """Check an input and take it; with the first one, plan the steps."""
        given = _checked(inputs, self._network.spec)
        if self._input is None:
            self._input = _Input(self._network.block(0), inputs, given)
            self._plan(self._input)
        self._input.take(inputs, given)

    def _plan(self, given: "_Input") -> None:
        """Make the layers, each with the arrays that it reads and writes."""
        overflows = self._overflows if self._overflow is Overflow.CHIP else None

        def plan(i: int, read: list[Signals]) -> Signals:
            block, sources = self._network.block(i), [x for x in read if isinstance(x, Spikes)]
            if isinstance(block, FlattenBlock):
                return block(read[0], Mode.SNN, 1)
            if isinstance(block, InputBlock | SynapticBlock):
                kind = _Affine if isinstance(block, AffineBlock) else _Layer
                layer = kind(block, i, given, sources, self._network.spec.shapes[i], overflows)
                self._layers.append(layer)
                return layer.spikes
            if isinstance(block, AverageBlock):
                self._layers.append(_Average(block, *sources))
            return read[0]

        deque(walk(sources_of(self._network.spec), given.passed_on, plan), maxlen=0)


def _checked(inputs: Tensor, spec: NetworkSpec) -> Tensor:
    """Return the input of one step as blocks take it: an image `[N, ...]`, or events `[1, N, ...]`."""
    if isinstance(inputs, Tensor):
        if spec.input.is_events:
            _check_step(inputs, spec)
            inputs = inputs[None]
        inputs = inputs.cpu()
    return as_input(inputs, spec)


def _check_step(events: Tensor, spec: NetworkSpec) -> None:
    """Raise `DataError` unless these are the events of one step, `[N, ...]`."""
    shape = spec.input.shape
    if events.dim() and fit_input(tuple(events.shape[1:]), shape):
        return
    hint = "; of one recording, its step is events[None]" if fit_input(tuple(events.shape), shape) else ""
    wanted = f"a step of {spec.name} takes events as a tensor [N, {', '.join(map(str, shape))}]"
    raise DataError(f"events of {list(events.shape)} do not fit: {wanted}{hint}")


class _Input:
    """Input of the present step.

    Attributes:
        passed_on: signals that the first layer with neurons reads: spikes, or an image where it is the input's own.
        is_still: whether it is an image, which usually stays the same.
        changes: number of inputs so far that differed from the one before.
    """

    def __init__(self, block: Block, inputs: Tensor, given: Tensor) -> None:
        self.block, self.changes = block, 0
        self.is_still = not isinstance(block, EventInputBlock)
        self.n = given.shape[int(not self.is_still)]
        self._last = torch.empty_like(inputs)
        signals = given.clone() if isinstance(block, InputBlock) else block(given, Mode.SNN, 1)
        self.is_graded = isinstance(signals, Spikes) and is_graded(signals)
        self.passed_on = signals.packed() if isinstance(signals, Spikes) and not self.is_graded else signals
        self.held = _step_of(self.passed_on) if isinstance(self.passed_on, Spikes) else self.passed_on

    def takes(self, inputs: Tensor) -> bool:
        """Take an input that needs no check: the image of the last step, or spikes that prove to be 0 and 1.

        Return whether this is one.
        """
        last = self._last
        if not (isinstance(inputs, Tensor) and inputs.dtype == last.dtype and inputs.device == last.device):
            return False
        if self.is_still:
            return self.changes > 0 and torch.equal(inputs, last)
        spikes = inputs.detach().bool()
        if self.is_graded or spikes.shape != self.held.shape or not torch.equal(spikes.to(inputs.dtype), inputs):
            return False
        self.held.copy_(spikes)
        return True

    def take(self, inputs: Tensor, given: Tensor) -> None:
        """Take an input, which is `given` as blocks take it."""
        n = given.shape[int(not self.is_still)]
        if n != self.n:
            raise DataError(f"a stream of {self.n} inputs got {n}: keep their number, or call reset()")
        if self.is_still and self.is_graded:
            given = as_spikes(self.block(given, Mode.SNN, 1)).tensor()
        self.held.copy_(given if isinstance(self.block, InputBlock) else given[0])
        self.changes += 1
        self._last = inputs.detach().clone()


def _step_of(spikes: Spikes) -> Tensor:
    """Return spikes of one step as numbers `[N, ...]` that lie in their memory."""
    if spikes.words is None:
        assert spikes.values is not None
        return spikes.values[0]
    words = spikes.words[0]
    return words if words.dim() == 2 else words.movedim(-1, 1)


class _Layer:
    """Block with neurons: its weighted input and its spikes of the present step, and the states that it keeps.

    The native library runs the steps. The definition runs them without the library, and from the step on in which a
    state leaves 24 bits.

    Args:
        block: the block.
        index: its index.
        given: input of the network.
        sources: spikes of one step that the block reads; each step overwrites them.
        shape: shape of its output.
        overflows: counter of states that left 24 bits, by block; None if these are refused.

    Attributes:
        spikes: spikes of the present step.
    """

    def __init__(
        self,
        block: InputBlock | SynapticBlock,
        index: int,
        given: _Input,
        sources: list[Spikes],
        shape: Shape,
        overflows: Counter[int] | None,
    ) -> None:
        self.block, self.index, self.given, self.sources, self.overflows = block, index, given, sources, overflows
        self.neurons = block.constants() if isinstance(block, InputBlock) else block.operands().neurons
        self.delayed: _Delayed | None = None
        if isinstance(block, SpikingBlock) and block.delay is not None:
            dtype = torch.float64 if is_graded(sources[0]) else torch.float32
            self.delayed = _Delayed(block, block.delay, (given.n, *shape), dtype)
        self.is_steady = given.is_still and self.delayed is None and all(x is given.passed_on for x in sources)
        self.drive = torch.empty(0)  # weighted input, `[N, ...]`
        self.changes = 0  # of the input when the drive was computed; 0: never
        self.start: CubaState | None = None  # of the definition; None: rest
        self.states: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
        self.limits = None if overflows is None else StateLimits()
        self.native: OneStep | None = None
        if isinstance(block, SynapticBlock) and self.delayed is None:
            self.native = one_step_of_layer(sources, block.operands(), weighed=isinstance(block, AffineBlock))
        self.arriving: Tensor | None = None  # drive for the native library, unless it weighs the spikes itself
        self.fits = True  # float32 holds the drive exactly
        if self.native is None:
            maps = torch.empty(given.n, *map_of(shape), dtype=torch.float32)
            self.arriving = maps[:, 0, 0] if len(shape) == 1 else maps.movedim(-1, 1)
            self.native = one_step(maps, shape, self.neurons)
        words = torch.zeros(1, given.n, *(shape if len(shape) == 1 else map_of(shape)), dtype=torch.int32)
        self.spikes = self.native.spikes if self.native else Spikes(1, shape, words=words)
        self.held = torch.zeros(given.n, *shape, dtype=torch.bool)  # spikes that leave in the next step
        self.total = torch.zeros(given.n, *shape, dtype=torch.float64)  # of a readout, summed over the steps

    def run(self, step: int) -> None:
        """Run one step."""
        if self.arriving is not None:
            self._weigh()
        if self.native is not None and self.fits and self.native.advance():
            return
        if self.arriving is None:
            self._weigh()
        if self.native is not None:
            self._leave(self.native)
        self._define(step)

    def logits(self, steps: Tensor) -> Tensor:
        """Return the logits of a readout: the rates of its neurons over all steps."""
        self.total += _step_of(self.spikes)
        return (self.total / steps).float()

    def _weigh(self) -> None:
        """Compute the drive of this step; that of a still image is computed once."""
        if self.is_steady and self.changes == self.given.changes:
            return
        block, sources = self.block, self.sources
        if self.delayed is not None:
            self.drive = self.delayed.weigh(*sources)
        elif isinstance(block, SynapticBlock):
            self.drive = block.weigh(*sources)[0]
        else:
            self.drive = block.driven_by(self.given.passed_on)[0][0]
        self.changes = self.given.changes
        if self.arriving is not None:
            self.arriving.copy_(self.drive)
            self.fits = self.drive.dtype == torch.float32 or torch.equal(self.arriving.to(self.drive.dtype), self.drive)

    def _leave(self, native: OneStep) -> None:
        """Leave the native library for the definition, in this step."""
        self.start, self.native = native.state(), None
        self.held = self.start.spikes.bool()

    def _define(self, step: int) -> None:
        """Run one step of the definition."""
        if self.states is None:
            self.states = self.neurons.states(self._drives(), self.drive.dim(), self.limits, self.start)
        current, voltage, fired = next(self.states)
        if self.limits is None:
            check_states(self.index, step, current, voltage)
        elif self.overflows is not None:
            self.overflows[self.index] += self.limits.n
            self.limits.n = 0
        leaving, self.held = (self.held if self.neurons.shift else fired), fired
        _step_of(self.spikes).copy_(leaving)

    def _drives(self) -> Iterator[Tensor]:
        """Yield the drive of each step, when it is asked for."""
        while True:
            yield self.drive


class _Delayed:
    """Weighted input of synapses with delays, which is kept until the step in which it arrives.

    Args:
        block: block with delays.
        delay: its delays.
        size: N, and shape of the block's output.
        dtype: type of the weighted input.
    """

    def __init__(self, block: SpikingBlock, delay: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> None:
        self.block, self.step = block, 0
        # `[longest + 1, N, O, ...]`; what arrives in step t is at t modulo its length
        self.coming = torch.zeros(int(delay.max()) + 1, *size, dtype=dtype)

    def weigh(self, source: Spikes, *skipped: Spikes) -> Tensor:
        """Take the spikes of a step; return the weighted input that arrives in it, `[N, O, ...]`."""
        for delay, connection in self.block.parts:
            z = weigh(source, connection)[0]
            at = (delay + self.step) % len(self.coming)
            self.coming[at, :, torch.arange(len(at))] += z.transpose(0, 1)
        now = self.coming[self.step % len(self.coming)]
        arriving, _ = now.clone(), now.zero_()
        self.step += 1
        others = zip(skipped, self.block.connections()[1:], strict=True)
        return reduce(add, (weigh(*pair)[0] for pair in others), arriving)


class _Affine(_Layer):
    """Affine readout; its neurons never spike, and their states are checked."""

    block: AffineBlock

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        totals = None if self.native is None else self.native.run.totals
        self.weighed = None if totals is None else totals.view(self.total.shape)  # summed over the steps, natively

    def logits(self, steps: Tensor) -> Tensor:
        """Return the logits: the mean over all steps of the weighted input, and the bias."""
        if self.weighed is not None:
            return self.block.logits_of(self.weighed * WEIGHT_UNIT, steps)
        self.total += self.drive
        return self.block.logits_of(self.total.to(self.drive.dtype), steps)

    def _leave(self, native: OneStep) -> None:
        """See `_Layer`."""
        super()._leave(native)
        if self.weighed is not None:  # with this step, which `logits` adds
            self.total, self.weighed = self.weighed.double() * WEIGHT_STEP - self.drive.double(), None


class _Average:
    """Readout of rates, which has no neurons of its own."""

    def __init__(self, block: AverageBlock, source: Spikes) -> None:
        self.block, self.source = block, source
        self.total = torch.zeros(source.shape[1:], dtype=torch.float64)

    def run(self, step: int) -> None:
        """Do nothing: the spikes that it reads are there."""

    def logits(self, steps: Tensor) -> Tensor:
        """Return the logits: the mean rate of each group of neurons over all steps."""
        self.total += _step_of(self.source).reshape(self.total.shape)
        return self.block.groups((self.total / steps).float())
