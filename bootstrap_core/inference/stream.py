"""Streaming: exact inference one time step at a time, with states that are kept between the steps."""

from collections import Counter
from collections.abc import Iterator
from functools import reduce
from itertools import repeat
from operator import add
from threading import Lock
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
from bootstrap_core.network.inputs import as_step
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.neurons import NeuronConstants, OneStep, map_of, one_step
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import WEIGHT_UNIT, one_step_of_layer
from bootstrap_core.ops.weighted_input import weigh
from specs.errors import SnnZooError
from specs.fields import Shape

__all__ = ["Stream", "check_whole"]


class Stream:
    """Network that takes one time step of its input at a time. `IntegerNetwork.stream` makes it.

    The first step plans the others: each block gets its arrays, which every step overwrites, and its native call is
    bound to them.

    Args:
        network: frozen network.
        overflow: refusal of states that leave 24 bits, or the behaviour of the chip.
        overflows: counter to which such states are added, by block.

    Attributes:
        steps: number of steps since the start.
    """

    def __init__(self, network: Network, overflow: Overflow, overflows: Counter[int]) -> None:
        self._network, self._overflow, self._overflows = network, overflow, overflows
        self._gives_spikes = network.spec.gives_spikes
        self._lock = Lock()  # native calls let other threads run
        self.reset()

    def reset(self) -> None:
        """Start again from rest."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self._count = torch.zeros((), dtype=torch.float64)  # `steps` as a tensor: dividing by a tensor is faster
        self._is_whole = True  # no step stopped half way
        self._input: _Input | None = None
        self._layers: list[_Layer | _Average] = []

    def step(self, inputs: Tensor) -> Tensor:
        """Advance one step; return the logits so far, `[N, classes]`, float32: those of a run of `steps` steps.

        With `output: spikes`, it returns the spikes of this step, `[N, ...]`. There is no gradient. Steps of several
        threads run one after another.

        Args:
            inputs: events `[N, ...]` of this step, or for a network of images the image, `[N, ...]` in 0..1.

        Raises:
            DataError: the input does not fit the network, or has another N than before.
            StateOverflowError: a current or voltage leaves the hardware's 24 bits, and `overflow` is `REFUSE`.
            SnnZooError: an earlier step raised such an error, and the stream was not reset.
        """
        with self._lock:
            return self._step(inputs)

    def _step(self, inputs: Tensor) -> Tensor:
        check_whole(self._is_whole)
        if self._input is None or not self._input.take_unchecked(inputs):
            self._check_and_take(inputs)
        self._is_whole = False
        for layer in self._layers:
            layer.run(self.steps)
        self._is_whole = True
        self.steps += 1
        readout = self._layers[-1]
        if self._gives_spikes and isinstance(readout, _Layer):
            return _view_of_step(readout.spikes).float()
        self._count.fill_(self.steps)
        return readout.logits(self._count).flatten(1)

    @torch.no_grad()
    @torch.inference_mode(False)  # other steps may be outside of it, where its tensors cannot be changed
    def _check_and_take(self, inputs: Tensor) -> None:
        """Check an input and copy it; with the first one, plan the steps."""
        given = as_step(inputs, self._network.spec, None if self._input is None else self._input.n)
        if self._input is None:
            self._input = _Input(self._network.block(0), inputs, given)
            self._plan(self._input)
        self._input.take_checked(inputs, given)

    def _plan(self, network_input: "_Input") -> None:
        """Make the layers, each with the arrays that it reads and writes."""
        overflows = self._overflows if self._overflow is Overflow.CHIP else None

        def plan(i: int, read: list[Signals]) -> Signals:
            block, sources = self._network.block(i), [x for x in read if isinstance(x, Spikes)]
            if isinstance(block, FlattenBlock):
                return block(read[0], Mode.SNN, 1)
            if isinstance(block, InputBlock | SynapticBlock):
                kind = _Affine if isinstance(block, AffineBlock) else _Layer
                layer = kind(block, i, network_input, sources, self._network.spec.shapes[i], overflows)
                self._layers.append(layer)
                return layer.spikes
            if isinstance(block, AverageBlock):
                self._layers.append(_Average(block, *sources))
            return read[0]

        for _ in walk(sources_of(self._network.spec), network_input.passed_on, plan):
            pass


def check_whole(is_whole: bool) -> None:
    """Raise `SnnZooError` if a step of a stream stopped half way, as then only some layers are a step further."""
    if not is_whole:
        raise SnnZooError("the last step of this stream failed half way: call reset()")


class _Input:
    """Input of the present step.

    Attributes:
        passed_on: what the first layer with neurons reads: spikes, or the image if that layer is the input block.
        buffer: memory of `passed_on`, `[N, ...]`, which each new input overwrites.
        is_still: True if it is an image, which usually stays the same.
        changes: number of inputs so far that differed from the one before.
    """

    def __init__(self, block: Block, inputs: Tensor, given: Tensor) -> None:
        self.block, self.changes = block, 0
        self.is_still = not isinstance(block, EventInputBlock)
        self.n = given.shape[0 if self.is_still else 1]
        self._last = torch.empty_like(inputs)
        signals = given.clone() if isinstance(block, InputBlock) else block(given, Mode.SNN, 1)
        self.is_graded = isinstance(signals, Spikes) and is_graded(signals)
        self.passed_on = signals.packed() if isinstance(signals, Spikes) and not self.is_graded else signals
        self.buffer = _view_of_step(self.passed_on) if isinstance(self.passed_on, Spikes) else self.passed_on

    def take_unchecked(self, inputs: Tensor) -> bool:
        """Copy an input that needs no check; return False if it needs one.

        The last image again needs none, and neither do spikes that are 0 and 1.
        """
        last = self._last
        if not isinstance(inputs, Tensor) or inputs.dtype != last.dtype or inputs.device != last.device:
            return False
        if inputs.layout is not last.layout or inputs.is_nested:
            return False
        if self.is_still:
            return self.changes > 0 and torch.equal(inputs, last)
        spikes = inputs.detach().bool()
        if self.is_graded or spikes.shape != self.buffer.shape or not torch.equal(spikes.to(inputs.dtype), inputs):
            return False
        self.buffer.copy_(spikes)
        return True

    def take_checked(self, inputs: Tensor, given: Tensor) -> None:
        """Copy an input; `given` is the same input in the shape that blocks take."""
        if self.is_still and self.is_graded:
            given = as_spikes(self.block(given, Mode.SNN, 1)).tensor()
        self.buffer.copy_(given if isinstance(self.block, InputBlock) else given[0])
        self.changes += 1
        self._last = inputs.detach().clone()


def _view_of_step(spikes: Spikes) -> Tensor:
    """Return a view `[N, ...]` of the spikes of one step; writing to it changes them."""
    if spikes.words is None:
        assert spikes.values is not None
        return spikes.values[0]
    words = spikes.words[0]
    return words if words.dim() == 2 else words.movedim(-1, 1)


class _Layer:
    """Block with neurons: its spikes of the present step, and the states that it keeps.

    The native library runs the steps. The definition runs them without the library, and from the step on in which a
    state leaves 24 bits.

    Args:
        block: the block.
        index: its index.
        network_input: input of the network.
        sources: spikes of one step that the block reads; each step overwrites them.
        shape: shape of its output.
        overflows: counter of states that left 24 bits, by block; None if these are refused.

    Attributes:
        spikes: spikes of the present step.
        arriving: memory from which the native library reads the weighted input; None if it weighs the spikes itself.
    """

    def __init__(
        self,
        block: InputBlock | SynapticBlock,
        index: int,
        network_input: _Input,
        sources: list[Spikes],
        shape: Shape,
        overflows: Counter[int] | None,
    ) -> None:
        self.block, n = block, network_input.n
        neurons = block.constants() if isinstance(block, InputBlock) else block.operands().neurons
        self.drive = _Drive(block, network_input, sources, (n, *shape))
        self.definition = _Definition(neurons, index, (n, *shape), overflows)
        self.native: OneStep | None = None
        if isinstance(block, SynapticBlock) and self.drive.delayed is None:
            self.native = one_step_of_layer(sources, block.operands(), weighed=isinstance(block, AffineBlock))
        self.arriving: Tensor | None = None
        self.fits = True  # float32, in which it arrives, holds the weighted input exactly
        if self.native is None:
            maps = torch.empty(n, *map_of(shape), dtype=torch.float32)
            self.arriving = maps[:, 0, 0] if len(shape) == 1 else maps.movedim(-1, 1)
            self.native = one_step(maps, shape, neurons)
        words = torch.zeros(1, n, *(shape if len(shape) == 1 else map_of(shape)), dtype=torch.int32)
        self.spikes = self.native.spikes if self.native else Spikes(1, shape, words=words)
        self.total = torch.zeros(n, *shape, dtype=torch.float64)  # of a readout, summed over the steps

    def run(self, step: int) -> None:
        """Run one step."""
        if self.arriving is not None and self.drive.update():
            z = self.drive.value
            self.arriving.copy_(z)
            self.fits = z.dtype == torch.float32 or torch.equal(self.arriving.to(z.dtype), z)
        if self.native is not None and self.fits and self.native.advance():
            return
        if self.arriving is None:
            self.drive.update()
        if self.native is not None:
            self._leave(self.native)
        _view_of_step(self.spikes).copy_(self.definition.run(self.drive.value, step))

    def logits(self, steps: Tensor) -> Tensor:
        """Return the logits of a readout: the rates of its neurons over all steps."""
        self.total += _view_of_step(self.spikes)
        return (self.total / steps).float()

    def _leave(self, native: OneStep) -> None:
        """Leave the native library for the definition, in this step."""
        self.definition.begin(native.state())
        self.native = None


class _Drive:
    """Weighted input of the neurons of a block, in the present step.

    Args:
        block, network_input, sources: see `_Layer`.
        size: N, and shape of the block's output.

    Attributes:
        value: the weighted input, `[N, ...]`.
        delayed: what is on its way in synapses with delays; None without delays.
    """

    def __init__(
        self,
        block: InputBlock | SynapticBlock,
        network_input: _Input,
        sources: list[Spikes],
        size: tuple[int, ...],
    ) -> None:
        self.block, self.network_input, self.sources = block, network_input, sources
        self.delayed: _Delayed | None = None
        delay = block.quantized_delay() if isinstance(block, SpikingBlock) else None
        if isinstance(block, SpikingBlock) and delay is not None:
            dtype = torch.float64 if is_graded(sources[0]) else torch.float32
            self.delayed = _Delayed(block, delay, size, dtype)
        reads_input = all(x is network_input.passed_on for x in sources)
        self.is_steady = network_input.is_still and self.delayed is None and reads_input
        self.version = 0  # `network_input.changes` when it was computed; 0: not yet
        self.value = torch.empty(0)

    def update(self) -> bool:
        """Compute `value`, once in a step. Return False if it stays, as that of a still image does."""
        if self.is_steady and self.version == self.network_input.changes:
            return False
        if self.delayed is not None:
            self.value = self.delayed.weigh(*self.sources)
        elif isinstance(self.block, SynapticBlock):
            self.value = self.block.weigh(*self.sources)[0]
        else:
            self.value = self.block.driven_by(self.network_input.passed_on)[0][0]
        self.version = self.network_input.changes
        return True


class _Definition:
    """Neurons as `functional.cuba` defines them, one step at a time.

    Args:
        neurons: their constants.
        index: index of their block.
        size: N, and shape of the block's output.
        overflows: see `_Layer`.
    """

    def __init__(
        self, neurons: NeuronConstants, index: int, size: tuple[int, ...], overflows: Counter[int] | None
    ) -> None:
        self.neurons, self.index, self.overflows = neurons, index, overflows
        self.start: CubaState | None = None  # None: rest
        self.states: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
        self.limits = None if overflows is None else StateLimits()
        self.drive = torch.empty(0)  # of the present step
        self.delayed_spikes = torch.zeros(size, dtype=torch.bool)  # those that leave in the next step

    def begin(self, start: CubaState) -> None:
        """Begin from these states, before the first step."""
        self.start, self.delayed_spikes = start, start.spikes.bool()

    @torch.no_grad()
    @torch.inference_mode(False)  # as in `_check_and_take`: states are kept for the next step
    def run(self, drive: Tensor, step: int) -> Tensor:
        """Run one step on a weighted input; return the spikes that leave the block, `[N, ...]`."""
        self.drive = drive
        if self.states is None:
            drives = (self.drive for _ in repeat(None))  # each is read when its step runs
            self.states = self.neurons.states(drives, drive.dim(), self.limits, self.start)
        current, voltage, fired = next(self.states)
        if self.limits is None:
            check_states(self.index, step, current, voltage)
        elif self.overflows is not None:
            self.overflows[self.index] += self.limits.n
            self.limits.n = 0
        leaving = self.delayed_spikes if self.neurons.shift else fired
        self.delayed_spikes = fired
        return leaving


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
            self.coming[at, :, torch.arange(len(at))] += z.transpose(0, 1)  # [O, N, ...]
        now = self.coming[self.step % len(self.coming)]
        arriving = now.clone()
        now.zero_()
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

    def run(self, step: int) -> None:
        """See `_Layer`."""
        if self.block.reads_last:
            (self.total if self.weighed is None else self.weighed).zero_()
        super().run(step)

    def logits(self, steps: Tensor) -> Tensor:
        """Return the logits: the weighted input, its mean over all steps or that of the last one, and the bias."""
        if self.block.reads_last:
            steps = torch.ones_like(steps)
        if self.weighed is not None:
            return self.block.logits_of(self.weighed * WEIGHT_UNIT, steps)
        drive = self.drive.value
        self.total += drive
        return self.block.logits_of(self.total.to(drive.dtype), steps)

    def _leave(self, native: OneStep) -> None:
        """See `_Layer`."""
        super()._leave(native)
        if self.weighed is not None:  # `weighed` already has this step, which `logits` adds again
            self.total, self.weighed = self.weighed.double() * WEIGHT_STEP - self.drive.value.double(), None


class _Average:
    """Readout of rates, which has no neurons of its own."""

    def __init__(self, block: AverageBlock, source: Spikes) -> None:
        self.block, self.source = block, source
        self.total = torch.zeros(source.shape[1:], dtype=torch.float64)

    def run(self, step: int) -> None:
        """Do nothing: the spikes that it reads are there."""

    def logits(self, steps: Tensor) -> Tensor:
        """Return the logits: the mean rate of each group of neurons over all steps."""
        self.total += _view_of_step(self.source).reshape(self.total.shape)
        return self.block.groups((self.total / steps).to(torch.float64 if is_graded(self.source) else torch.float32))
