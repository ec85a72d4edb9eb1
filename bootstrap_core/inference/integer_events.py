"""Exact inference that follows spikes, not matrices: the integers of `integer_network`, much faster.

Needs numba. Spikes travel as trains, words of up to 32 steps, through the stages of `integer_stages`.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE, STATE_PER_WEIGHT, WEIGHT_STEP
from bootstrap_core.inference.integer_stages import (
    Adding,
    AddingConv,
    AddingDense,
    AnyPool,
    Constant,
    Conv,
    Dense,
    Flatten,
    Ints,
    Neurons,
    OutsideError,
    Readout,
    Stage,
    Sum,
    Table,
    as_ints,
    as_matrix,
)
from bootstrap_core.inference.integer_synapses import Weigh, integer_synapses
from bootstrap_core.inference.trains import (
    Words,
    as_rows,
    channels_first,
    channels_last,
    first_steps,
    flat,
    in_words,
    rows,
)
from bootstrap_core.kernels import integer_trains as kernels
from bootstrap_core.kernels.memory import keep_freed_memory
from bootstrap_core.kernels.threads import alone, each, split
from bootstrap_core.network.blocks import AffineBlock, FlattenBlock, GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.spikes import Spikes
from bootstrap_core.network.synapse import DenseSynapse, IdentitySynapse, PoolSynapse, SkipSynapse, Synapse
from specs.block import ConvSpec, skips_of
from specs.fields import Shape
from specs.summary import summarize

__all__ = ["EventEngine", "EventRun", "Followed"]

BLOCK = 128
"""Images that run through the whole network at a time, in one thread, so that their trains stay in its cache."""
MAX_INPUTS = 1 << 16
"""Of one neuron: the sum of so many weights, in state units, stays within 32 bits."""


@dataclass(frozen=True)
class EventRun:
    """What `EventEngine.run` gives.

    Attributes:
        logits: `[N, classes]`, float32.
        earlier: the same after fewer steps, for each number of them that was asked for.
        spikes: of each block but an affine readout, int8 `[T, N, ...]` (graded input: int32), if asked for.
        counts: of each block but an affine readout, spikes of all images and steps, int64 `[...]`, if asked for.
    """

    logits: Tensor
    earlier: tuple[Tensor, ...] = ()
    spikes: tuple[Tensor, ...] = ()
    counts: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Followed:
    """What `EventEngine.follow` gives.

    Attributes:
        rates: what each block gives on average over time, float32 `[N, ...]`; a readout its logits.
        weighed: what the synapses of each block weigh on average, float32 `[N, ...]` in units of the weights, if asked
            for; None of those that are none, or several.
        trains: of each stage, in parts of the time.
        first: the block of the first stage.
        steps: T.
    """

    rates: list[Tensor]
    weighed: list[Tensor | None]
    trains: list[list[Words]]
    first: int
    steps: int

    def spikes(self, block: int) -> Spikes:
        """Of a block, one byte each."""
        values = _unpacked(self.trains[block - self.first], self.steps)
        return Spikes(values, torch.zeros(1).expand(values.shape))


_Run = tuple[list[Tensor], list[list[Words]], list[Ints]]
"""Logits at each end, the first of which is T; of each stage, its trains in parts of time, and `State.totals`."""


class EventEngine:
    """A network compiled for `run`; a snapshot of its weights.

    Args:
        network: one that the engine `takes`.
        n_blocks: how many of its blocks, at least two, if it is for `follow` alone; all of them by default.
    """

    def __init__(self, network: Network, n_blocks: int | None = None) -> None:
        self.spec = network.spec
        n_blocks = len(network.blocks) if n_blocks is None else n_blocks
        with torch.no_grad():
            self._pixels, self._drive, stages = _entry(network)
            last = network.blocks[n_blocks - 1]
            self._readout = Readout(last) if isinstance(last, AffineBlock) else None
            self._first = first = int(self._pixels is not None)  # the block of the first stage
            for i in range(len(stages) + first, n_blocks - (self._readout is not None)):
                stages.append(_stage(network, i, grouped=i == 1))
            self._stages = stages
        layers = self.spec.layers[first:n_blocks]
        self._sources = [[skip.source - first for skip in skips_of(layer)] for layer in layers]

    @property
    def kernels(self) -> set[str]:
        """Which kernels run it that take a compiler long."""
        return {stage.kernel for stage in self._stages if stage.kernel is not None}

    @staticmethod
    def takes(network: Network) -> bool:
        """Whether a neuron has fewer than 65,536 inputs, and no readout stands straight on graded input."""
        graded = isinstance(network.blocks[0], GradedInputBlock)
        fan_in = max(row.weight_bytes // row.shape[0] for row in summarize(network.spec))
        return fan_in < MAX_INPUTS and not (graded and isinstance(network.blocks[1], AffineBlock))

    @torch.no_grad()
    def run(
        self,
        images: Tensor,
        steps: int,
        *,
        also_after: Sequence[int] = (),
        spikes: bool = False,
        counts: bool = False,
    ) -> EventRun | None:
        """Logits, and what else is asked for; None where a state leaves 24 bits, for the caller to find out which.

        Args:
            images: `[N, *shape of the input]`, float32 in 0..1, on the CPU.
            steps: T.
            also_after: fewer steps, after which the logits are wanted too.
            spikes: whether to give all spikes.
            counts: whether to count them.
        """
        done = self._in_parts(images, (steps, *also_after), keep=spikes or counts)
        if done is None:
            return None
        (logits, *earlier), trains, _ = done
        return EventRun(
            logits=logits,
            earlier=tuple(earlier),
            spikes=self._spikes(images, trains, steps) if spikes else (),
            counts=self._counts(images, trains, steps) if counts else (),
        )

    @torch.no_grad()
    def follow(self, images: Tensor, steps: int, *, weighed: bool = False) -> Followed | None:
        """The rates of every block and, for who goes on from one of them, its spikes; None as in `run`.

        `weighed`: whether to tell what synapses weigh, too.
        """
        done = self._in_parts(images, (steps,), keep=True, totals=weighed)
        if done is None:
            return None
        (logits,), trains, totals = done
        rates = [_mean(stage, steps) for stage in trains]
        rates[0] = rates[0].contiguous().flatten().view(rates[0].shape)  # lies as images do, be it of one channel
        if self._pixels is not None:
            rates.insert(0, self._pixels(images, Mode.ANN, steps))
        if self._readout is not None:
            rates.append(logits)
        means: list[Tensor | None] = [None] * len(rates)
        for i, (rate, total) in enumerate(zip(rates[self._first :], totals, strict=False), self._first):
            if total.size:
                mean = torch.from_numpy(total).float().mul_(WEIGHT_STEP).div_(steps)
                means[i] = mean.view(len(mean), *rate.movedim(1, -1).shape[1:]).movedim(-1, 1)
        return Followed(rates, means, trains, self._first, steps)

    def _in_parts(self, images: Tensor, ends: Sequence[int], *, keep: bool, totals: bool = False) -> _Run | None:
        """`_run` for all images, some at a time, in threads; None where a state leaves 24 bits."""
        if len(images) > 1:
            keep_freed_memory()
        parts = images.split(max(1, min(BLOCK, -(-len(images) // torch.get_num_threads()))))

        def run_part(part: Tensor) -> _Run:
            with torch.no_grad():  # each thread has its own mode
                return self._run(part, ends, keep=keep, totals=totals)

        try:
            done = each(run_part, parts)
        except OutsideError:
            return None
        logits, trains, weighed = (zip(*parts, strict=True) for parts in zip(*done, strict=True))
        return (
            [torch.cat(some) for some in logits],
            [[np.concatenate(some) for some in zip(*stage, strict=True)] for stage in trains],
            [np.concatenate(some) for some in weighed],
        )

    def _run(self, images: Tensor, ends: Sequence[int], *, keep: bool, totals: bool) -> _Run:
        driven, n_images = self._drive(images), len(images)
        states = [stage.rest(n_images, totals=totals) for stage in self._stages]
        kept: list[list[Words]] = [[] for _ in self._stages]
        parts, last = in_words(ends[0]), list[Words]()
        for part in parts:
            x, outputs = driven, list[Words]()
            for stage, state, sources, trains in zip(self._stages, states, self._sources, kept, strict=False):
                x = stage.advance([x, *(outputs[source] for source in sources)] if sources else x, part, state)
                outputs.append(x)
                if keep:
                    trains.append(x)
            read = [x] if self._readout is None else [x, *(outputs[source] for source in self._sources[-1])]
            last.append(rows(x) if len(read) == 1 else np.concatenate([rows(words) for words in read], axis=1))
        logits = [self._logits(last if end == ends[0] else first_steps(last, end), end) for end in ends]
        return logits, kept, [state.totals for state in states]

    def _logits(self, trains: list[Words], steps: int) -> Tensor:
        """Of the trains that the readout reads, in parts of the time."""
        if self._readout is None:
            counts = np.zeros(trains[0].shape, np.int64)
            for words in trains:
                alone(kernels.count_trains, len(words), words, counts)
            return torch.from_numpy(counts).float() / steps
        totals = self._readout.totals(trains, in_words(steps))
        return (torch.from_numpy(totals).double() / STATE / steps).float()

    def _spikes(self, images: Tensor, trains: list[list[Words]], steps: int) -> tuple[Tensor, ...]:
        spikes = []
        if self._pixels is not None:
            pixels = self._pixels(images, Mode.SNN, steps).int()
            spikes.append(pixels.expand(steps, *pixels.shape[1:]))
        spikes += [_unpacked(stage, steps) for stage in trains]
        return tuple(spikes)

    def _counts(self, images: Tensor, trains: list[list[Words]], steps: int) -> tuple[Tensor, ...]:
        counts = []
        if self._pixels is not None:
            counts.append(self._pixels(images, Mode.SNN, steps)[0].count_nonzero(0) * steps)
        for stage in trains:
            total = np.zeros((1, prod(stage[0].shape[1:])), np.int64)
            for words in stage:
                trains_of_all = channels_first(words).reshape(len(words), total.shape[1])
                alone(kernels.count_trains, len(words), trains_of_all, total)
            counts.append(torch.from_numpy(total.reshape(channels_first(stage[0][:1]).shape[1:])))
        return tuple(counts)


def _unpacked(stage: list[Words], steps: int) -> Tensor:
    """Spikes `[T, N, ...]`, int8, channels last in memory, of trains in parts of the time."""
    n, *shape = stage[0].shape
    spikes = torch.empty(n, steps, prod(shape), dtype=torch.int8)
    for words, part in zip(stage, spikes.split(in_words(steps), 1), strict=True):
        split(kernels.unpack_trains, n, as_rows(words), part.numpy(), work=words.size)
    values = spikes.view(n, steps, *shape).transpose(0, 1)
    return values if len(shape) == 1 else values.movedim(-1, 2)


def _mean(stage: list[Words], steps: int) -> Tensor:
    """Rates `[N, ...]`, channels last in memory, of trains in parts of the time."""
    counts = np.zeros((len(stage[0]), prod(stage[0].shape[1:])), np.float32)
    for words in stage:
        split(kernels.count_trains, len(words), as_rows(words), counts, work=words.size)
    return torch.from_numpy(channels_first(counts.reshape(stage[0].shape))).div_(steps)


def _entry(network: Network) -> tuple[GradedInputBlock | None, Callable[[Tensor], Any], list[Stage]]:
    """The block of graded pixels if there is one, what the first stage takes for images, and that stage."""
    block, spec = network.blocks[0], network.spec
    if isinstance(block, GradedInputBlock):
        first = network.blocks[1]
        assert isinstance(first, SpikingBlock)
        shape = spec.shapes[1]
        neurons = Neurons.of(first.neuron, prod(shape), bias=first.quantized_bias(), shift=first.delay_shift)
        drive = partial(_weighted_pixels, block, integer_synapses(first)[0])
        return block, drive, [Constant(neurons, channels_last(shape))]

    assert isinstance(block, InputBlock)
    shape, exact = spec.input.shape, block.spec.exact_input
    neurons = Neurons.of(block.neuron, prod(shape), shift=block.delay_shift, direct=exact)
    if exact and len(block.neuron.current_decay) == 1:
        return None, _as_they_are, [Table(block, neurons, channels_last(shape))]
    return None, partial(_currents, deepcopy(block)), [Constant(neurons, channels_last(shape))]


def _weighted_pixels(graded: GradedInputBlock, weigh: Weigh, images: Tensor) -> Ints:
    z = weigh(graded(images, Mode.SNN, 1)[0].int()) * STATE_PER_WEIGHT
    if z.numel() and int(z.abs().max()) >= 1 << 31:
        raise OutsideError
    return flat(z.to(torch.int32).numpy())


def _as_they_are(images: Tensor) -> Any:
    return flat(images.numpy())


def _currents(block: InputBlock, images: Tensor) -> Ints:
    return flat(as_ints(block.current(images) * STATE))


def _stage(network: Network, index: int, *, grouped: bool) -> Stage:
    block, shapes = network.blocks[index], network.spec.shapes
    before, after = shapes[index - 1], shapes[index]
    if isinstance(block, FlattenBlock):
        return Flatten(after)
    assert isinstance(block, SpikingBlock)
    weight = block.quantized_weight()
    neurons = Neurons.of(block.neuron, prod(after), bias=block.quantized_bias(), shift=block.delay_shift)
    if skips := skips_of(network.spec.layers[index]):
        sources = [before, *(shapes[skip.source] for skip in skips)]
        synapses = [_synapse(*pair, source, after) for pair, source in zip(block.synapses(), sources, strict=True)]
        return Sum(neurons, channels_last(after), synapses)
    if isinstance(block.synapse, DenseSynapse):
        return Dense(neurons, weight, grouped=grouped)
    if isinstance(block.synapse, PoolSynapse) and AnyPool.takes(neurons, weight):
        return AnyPool(neurons, block.synapse.spec, before, after)
    return Conv(neurons, weight, block.synapse.spec, before, after)


def _synapse(synapse: Synapse | SkipSynapse, weight: Tensor, before: Shape, after: Shape) -> Adding:
    if len(after) == 1:
        return AddingDense(as_matrix(synapse, weight))
    if isinstance(synapse, IdentitySynapse):
        one = ConvSpec(channels=len(weight), kernel=(1, 1), groups=len(weight))
        return AddingConv(weight.reshape(-1, 1, 1, 1), one, before, after)
    assert not isinstance(synapse, DenseSynapse)
    return AddingConv(weight, synapse.spec, before, after)
