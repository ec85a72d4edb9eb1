"""Exact inference that follows the spikes instead of multiplying matrices: the integers of `integer`, much faster.

Needs numba. Spikes travel as trains, words of up to 32 steps (see `kernels.integer_trains`), channels last.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.blocks import AffineBlock, FlattenBlock, GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.fixed_point import (
    BIAS_MANT_MAX,
    BIAS_MANT_MIN,
    DECAY_ONE,
    EXACT_IN_FLOAT,
    MANT,
    STATE,
    STATE_MAX,
    STATE_PER_MANT,
    STATE_PER_WEIGHT,
    WEIGHT_INT_MIN,
    WEIGHT_STEP,
)
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.kernels import integer_trains as kernels
from bootstrap_core.kernels.threads import workers
from bootstrap_core.mode import Mode
from bootstrap_core.network import Network
from bootstrap_core.neuron import CubaNeuron
from bootstrap_core.synapse import DenseSynapse, IdentitySynapse, SkipSynapse, Synapse
from specs.block import ConvSpec, skips_of
from specs.fields import Shape
from specs.neuron import Reset

__all__ = ["EventEngine", "EventRun"]

BLOCK = 64
"""Images that run through the whole network at a time, in one thread, so that their trains stay in its cache."""
FAN_IN_OF_INT16 = 256
"""From so many inputs on, a sum of int8 weights may leave 16 bits."""
MAX_INPUTS = 1 << 16
"""Of one neuron: the sum of so many weights, in state units, stays within 32 bits."""

Words = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class EventRun:
    """What `EventEngine.run` gives.

    Attributes:
        logits: `[N, classes]`, float32.
        spikes: of each block but an affine readout, int8 `[T, N, ...]` (graded input: int32), if asked for.
        counts: of each block but an affine readout, spikes of all images and steps, int64 `[...]`, if asked for.
    """

    logits: Tensor
    spikes: tuple[Tensor, ...] = ()
    counts: tuple[Tensor, ...] = ()


class _OutsideError(Exception):
    """A state left 24 bits, or a weighted input 32."""


@dataclass(frozen=True)
class _Neurons:
    """Constants of a layer's neurons, arrays with an entry for each neuron of an image."""

    bias: Ints
    forgets: np.bool_
    keep_current: Ints
    keep_voltage: Ints
    limit: np.int32
    kept_by_spike: np.int32
    shift: bool

    @classmethod
    def of(
        cls, neuron: CubaNeuron, n: int, *, bias: Tensor | None = None, shift: bool = False, direct: bool = False
    ) -> "_Neurons":
        current_decay, voltage_decay = neuron.quantized_decays()
        keeps = [1 - decay for decay in (torch.ones(1) if direct else current_decay, voltage_decay)]
        keep_current, keep_voltage = (_of_all(_ints(keep * DECAY_ONE), n) for keep in keeps)
        mants = _of_all(_ints(torch.zeros(1) if bias is None else bias * MANT), n)
        return cls(
            bias=mants * np.int32(STATE_PER_MANT),
            forgets=np.bool_(not keep_current.any()),
            keep_current=keep_current,
            keep_voltage=keep_voltage,
            limit=np.int32(neuron.threshold_mant * STATE_PER_MANT),
            kept_by_spike=np.int32(-(neuron.spec.reset is Reset.SUBTRACT)),  # a mask
            shift=shift,
        )

    @property
    def constants(self) -> tuple[Any, ...]:
        """In the order in which kernels take them."""
        return self.bias, self.forgets, self.keep_current, self.keep_voltage, self.limit, self.kept_by_spike


@dataclass
class _State:
    """Of a stage's neurons `[N, n]`: current, voltage, spikes held back by a delay shift; and the steps done."""

    current: Ints
    voltage: Ints
    held: Words
    steps_done: int = 0


class _Stage(ABC):
    """What trains pass through on their way to the readout."""

    @abstractmethod
    def rest(self, n_images: int) -> _State:
        """The state before the first step."""

    @abstractmethod
    def advance(self, x: Any, steps: int, state: _State) -> Words:
        """Trains `[N, *shape]` of the next steps."""


class _Layer(_Stage):
    """What drives neurons, and they. `shape` is that of one image's trains, channels last."""

    def __init__(self, neurons: _Neurons, shape: Shape) -> None:
        self.neurons, self.shape = neurons, shape

    def rest(self, n_images: int) -> _State:
        size = n_images, prod(self.shape)
        return _State(np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.uint32))

    def advance(self, x: Any, steps: int, state: _State) -> Words:
        trains: Words = np.empty_like(state.held)
        if self._fire(x, steps, state, trains):
            raise _OutsideError
        state.steps_done += steps
        if self.neurons.shift:
            delayed = (trains << np.uint32(1) | state.held) & _mask(steps)
            trains, state.held = delayed, trains >> np.uint32(steps - 1)
        return trains.reshape(len(trains), *self.shape)

    @abstractmethod
    def _fire(self, x: Any, steps: int, state: _State, trains: Words) -> int:
        """Fill `trains`, and move the state on; not 0 where a state leaves its range."""


class _Constant(_Layer):
    """Neurons with the same weighted input at each step, int32 `[N, n]` in state units."""

    def _fire(self, x: Ints, steps: int, state: _State, trains: Words) -> int:
        arguments = *self.neurons.constants, steps, state.current, state.voltage, trains
        return int(kernels.constant_trains(x, *arguments))


class _Table(_Layer):
    """Input neurons, all alike: the train of each of the 8,192 mantissas of a current is in a table.

    Takes pixels, float32 `[N, n]`. After so many steps that a current leaves its range, only pixels in 0..1.
    """

    def __init__(self, block: InputBlock, neurons: _Neurons, shape: Shape) -> None:
        super().__init__(neurons, shape)
        mants = np.arange(BIAS_MANT_MIN, BIAS_MANT_MAX + 1, dtype=np.int32)[None]
        self.currents = mants * np.int32(STATE_PER_MANT)
        self.source = _Constant(_Neurons.of(block.neuron, mants.size, direct=True), (mants.size,))
        self.tables, self.is_narrow = dict[int, Words](), False
        weight, bias = (float(quantize_weight(x)) for x in (block.weight, block.bias))
        self.transform = block.spec.mean, block.spec.std, weight, bias, float(BIAS_MANT_MIN), float(BIAS_MANT_MAX)
        self.ends = np.sort(_ints(block.current(torch.tensor([0.0, 1.0])) * STATE))

    def _fire(self, x: npt.NDArray[np.float32], steps: int, state: _State, trains: Words) -> int:
        part = state.steps_done // kernels.WORD_STEPS
        if part not in self.tables:
            self.tables[part] = self._table(part)
        if self.is_narrow and x.size and (x.min() < 0 or x.max() > 1):
            return 1
        kernels.input_trains(x, *self.transform, self.tables[part] & _mask(steps), trains)
        return 0

    def _table(self, part: int) -> Words:
        """Trains of one word of the time, whichever thread asks."""
        try:
            return self._run(self.currents, part)
        except _OutsideError:
            self.is_narrow = True
            return self._run(self.currents.clip(*self.ends), part)

    def _run(self, currents: Ints, part: int) -> Words:
        state = self.source.rest(1)
        for _ in range(part + 1):
            words: Words = self.source.advance(currents, kernels.WORD_STEPS, state)[0]
        return words


class _Dense(_Layer):
    def __init__(self, neurons: _Neurons, weight: Tensor, *, grouped: bool) -> None:
        super().__init__(neurons, (len(weight),))
        self.weight, self.grouped = _int8(weight.t()), grouped

    def _fire(self, x: Words, steps: int, state: _State, trains: Words) -> int:
        arguments = *self.neurons.constants, steps, state.current, state.voltage, trains
        return int(kernels.dense_trains(x, self.weight, self.grouped, *arguments))


class _Conv(_Layer):
    def __init__(self, neurons: _Neurons, weight: Tensor, spec: ConvSpec, before: Shape, after: Shape) -> None:
        super().__init__(neurons, _last(after))
        self.boxes = _boxes(weight, spec, before, after)
        fan_in = weight[0].numel()
        self.sum_dtype = np.int16 if fan_in < FAN_IN_OF_INT16 else np.int32

    def _fire(self, x: Words, steps: int, state: _State, trains: Words) -> int:
        height, width, channels = self.shape
        z = np.empty((steps, height, width * channels), self.sum_dtype)
        arguments = *self.neurons.constants, steps, state.current, state.voltage, trains
        return int(kernels.conv_trains(x, *self.boxes, z, *arguments))


class _Sum(_Layer):
    """Neurons that several blocks reach, one synapse each: image by image, so that the sums stay in the cache."""

    def __init__(self, neurons: _Neurons, shape: Shape, synapses: Sequence["_Synapse"]) -> None:
        super().__init__(neurons, shape)
        self.synapses = synapses

    def _fire(self, x: Sequence[Words], steps: int, state: _State, trains: Words) -> int:
        z = np.empty((steps, trains.shape[1]), np.int32)
        arriving = [synapse.seen(source) for synapse, source in zip(self.synapses, x, strict=True)]
        outside = 0
        for image in range(len(trains)):
            z[:] = 0
            for synapse, source in zip(self.synapses, arriving, strict=True):
                synapse.add(source[image], steps, z)
            states = state.current[image], state.voltage[image], trains[image]
            outside |= int(kernels.weighed_trains(z, *self.neurons.constants, steps, *states))
        return outside


class _Synapse(ABC):
    """One of the synapses behind which a `_Sum` stands."""

    @abstractmethod
    def seen(self, x: Words) -> Words:
        """Trains of a source as the synapse reads them."""

    @abstractmethod
    def add(self, x: Words, steps: int, z: Ints) -> None:
        """Add its weighted input of one image to `z` `[steps, n]`."""


class _DenseSynapse(_Synapse):
    def __init__(self, weight: Tensor) -> None:
        self.weight = _int8(weight.t())

    def seen(self, x: Words) -> Words:
        return _rows(x)

    def add(self, x: Words, steps: int, z: Ints) -> None:
        kernels.add_dense(x, self.weight, steps, z)


class _ConvSynapse(_Synapse):
    def __init__(self, weight: Tensor, spec: ConvSpec, before: Shape, after: Shape) -> None:
        self.boxes, self.n_rows = _boxes(weight, spec, before, after), after[1]

    def seen(self, x: Words) -> Words:
        return x

    def add(self, x: Words, steps: int, z: Ints) -> None:
        kernels.add_conv(x, *self.boxes, z.reshape(steps, self.n_rows, -1))


class _Flatten(_Stage):
    """From channels last to the order of a flattened `[C, H, W]`; no neurons."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def rest(self, n_images: int) -> _State:
        empty = np.empty((n_images, 0), np.int32)
        return _State(empty, empty, empty.astype(np.uint32))

    def advance(self, x: Words, steps: int, state: _State) -> Words:
        return _rows(x)


class _Readout:
    """An affine readout: sums of its weighted input over time; its neurons never fire. Reads all sources in a row."""

    def __init__(self, block: AffineBlock) -> None:
        weight = torch.cat([_as_matrix(synapse, weight) for synapse, weight in block.synapses()], dim=1)
        self.neurons = _Neurons.of(block.neuron, len(weight), bias=block.quantized_bias())
        self.weight = _int8(weight.t())
        self.both = np.concatenate([self.weight, np.abs(self.weight.astype(np.int16))], axis=1)

    def totals(self, trains: list[Words], parts: list[int]) -> npt.NDArray[np.int64]:
        """Weighted input of all steps, `[N, classes]` in state units, for the trains `[N, inputs]` of all parts."""
        steps, n_inputs = sum(parts), len(self.weight)
        exact = np.float32 if -WEIGHT_INT_MIN * n_inputs * steps < EXACT_IN_FLOAT else np.float64
        counts = np.zeros(trains[0].shape, exact)
        for words in trains:
            kernels.count_trains(words, counts)
        totals, reach = np.split((counts @ self.both.astype(exact)).astype(np.float64) * STATE_PER_WEIGHT, 2, axis=1)
        bias = self.neurons.bias.astype(np.float64) * steps
        # No state goes further than all its input in one direction: mostly that is within bounds by far. Where the
        # current is kept, the voltage takes it again at each step.
        reach *= 1 if self.neurons.forgets else steps
        if (reach + np.abs(bias)).max(initial=0) >= STATE_MAX and self._leaves(trains, parts):
            raise _OutsideError
        summed: npt.NDArray[np.int64] = (totals + bias).astype(np.int64)
        return summed

    def _leaves(self, trains: list[Words], parts: list[int]) -> bool:
        state = _Constant(self.neurons, (len(self.neurons.bias),)).rest(len(trains[0]))
        return any(
            kernels.never_fires(words, self.weight, *self.neurons.constants, part, state.current, state.voltage)
            for words, part in zip(trains, parts, strict=True)
        )


class EventEngine:
    """A network compiled for `run`; a snapshot of its weights.

    Args:
        network: one that the engine `takes`.
    """

    def __init__(self, network: Network) -> None:
        self.spec = network.spec
        with torch.no_grad():
            self._pixels, self._drive, stages = _entry(network)
            last = network.blocks[-1]
            self._readout = _Readout(last) if isinstance(last, AffineBlock) else None
            for i in range(len(stages) + (self._pixels is not None), len(network.blocks) - (self._readout is not None)):
                stages.append(_stage(network, i, grouped=i == 1))
            self._stages = stages
        first = len(self.spec.layers) - len(stages) - (self._readout is not None)  # the block of the first stage
        self._sources = [[skip.source - first for skip in skips_of(layer)] for layer in self.spec.layers[first:]]

    @staticmethod
    def takes(network: Network) -> bool:
        """Whether a neuron has fewer than 65,536 inputs, and no readout stands straight on graded input."""
        graded = isinstance(network.blocks[0], GradedInputBlock)
        fan_in = [
            sum(weight[0].numel() for _, weight in block.synapses())
            for block in network.blocks
            if isinstance(block, SpikingBlock | AffineBlock)
        ]
        return max(fan_in) < MAX_INPUTS and not (graded and isinstance(network.blocks[1], AffineBlock))

    @torch.no_grad()
    def run(self, images: Tensor, steps: int, *, spikes: bool = False, counts: bool = False) -> EventRun | None:
        """Logits, and what else is asked for; None where a state leaves 24 bits, for the caller to find out which.

        Args:
            images: `[N, *shape of the input]`, float32 in 0..1, on the CPU.
            steps: T.
            spikes: whether to give all spikes.
            counts: whether to count them.
        """
        threads = torch.get_num_threads()
        parts = images.split(max(1, min(BLOCK, -(-len(images) // threads))))

        def run_part(part: Tensor) -> tuple[Tensor, list[list[Words]]]:
            with torch.no_grad():  # each thread has its own mode
                return self._run(part, steps, keep=spikes or counts)

        try:
            parallel = len(parts) > 1 and threads > 1
            done = list(workers().map(run_part, parts) if parallel else map(run_part, parts))
        except _OutsideError:
            return None
        trains = [
            [np.concatenate(part) for part in zip(*stage, strict=True)]
            for stage in zip(*(kept for _, kept in done), strict=True)
        ]
        return EventRun(
            logits=torch.cat([logits for logits, _ in done]),
            spikes=self._spikes(images, trains, steps) if spikes else (),
            counts=self._counts(images, trains, steps) if counts else (),
        )

    def _run(self, images: Tensor, steps: int, *, keep: bool) -> tuple[Tensor, list[list[Words]]]:
        """Logits of a few images; and the trains of each stage, in parts of the time."""
        driven, n_images = self._drive(images), len(images)
        states = [stage.rest(n_images) for stage in self._stages]
        kept: list[list[Words]] = [[] for _ in self._stages]
        parts, last = _parts(steps), list[Words]()
        for part in parts:
            x, outputs = driven, list[Words]()
            for stage, state, sources, trains in zip(self._stages, states, self._sources, kept, strict=False):
                x = stage.advance([x, *(outputs[source] for source in sources)] if sources else x, part, state)
                outputs.append(x)
                if keep:
                    trains.append(x)
            read = [x] if self._readout is None else [x, *(outputs[source] for source in self._sources[-1])]
            last.append(np.concatenate([_rows(words) for words in read], axis=1))
        if self._readout is None:
            counts = np.zeros(last[0].shape, np.int64)
            for words in last:
                kernels.count_trains(words, counts)
            return torch.from_numpy(counts).float() / steps, kept
        totals = self._readout.totals(last, parts)
        return (torch.from_numpy(totals).double() / STATE / steps).float(), kept

    def _spikes(self, images: Tensor, trains: list[list[Words]], steps: int) -> tuple[Tensor, ...]:
        spikes = []
        if self._pixels is not None:
            pixels = self._pixels(images, Mode.SNN, steps).int()
            spikes.append(pixels.expand(steps, *pixels.shape[1:]))
        for stage in trains:
            parts = []
            for words, part in zip(stage, _parts(steps), strict=True):
                shifts = np.arange(part, dtype=np.uint32).reshape(-1, *[1] * words.ndim)
                parts.append((_channels_first(words) >> shifts & np.uint32(1)).astype(np.int8))
            spikes.append(torch.from_numpy(np.concatenate(parts)))
        return tuple(spikes)

    def _counts(self, images: Tensor, trains: list[list[Words]], steps: int) -> tuple[Tensor, ...]:
        counts = []
        if self._pixels is not None:
            counts.append(self._pixels(images, Mode.SNN, steps)[0].count_nonzero(0) * steps)
        for stage in trains:
            total = np.zeros((1, prod(stage[0].shape[1:])), np.int64)
            for words in stage:
                kernels.count_trains(_channels_first(words).reshape(len(words), total.shape[1]), total)
            counts.append(torch.from_numpy(total.reshape(_channels_first(stage[0][:1]).shape[1:])))
        return tuple(counts)


def _entry(network: Network) -> tuple[GradedInputBlock | None, Callable[[Tensor], Any], list[_Stage]]:
    """The block of graded pixels if there is one, what the first stage takes for images, and that stage."""
    block, spec = network.blocks[0], network.spec
    if isinstance(block, GradedInputBlock):
        first = network.blocks[1]
        assert isinstance(first, SpikingBlock)
        shape = spec.shapes[1]
        neurons = _Neurons.of(first.neuron, prod(shape), bias=first.quantized_bias(), shift=first.delay_shift)
        graded = block

        def weighted(images: Tensor) -> Ints:
            pixels = graded(images, Mode.SNN, 1)
            z = first.synapse(pixels, first._scale())[0] * STATE
            if float(z.abs().max()) >= 1 << 31:
                raise _OutsideError
            return _flat(_ints(z))

        return block, weighted, [_Constant(neurons, _last(shape))]

    assert isinstance(block, InputBlock)
    shape, exact = spec.input.shape, block.spec.exact_input
    neurons = _Neurons.of(block.neuron, prod(shape), shift=block.delay_shift, direct=exact)
    if exact and len(block.neuron.current_decay) == 1:
        return None, lambda images: _flat(images.numpy()), [_Table(block, neurons, _last(shape))]
    return None, lambda images: _flat(_ints(block.current(images) * STATE)), [_Constant(neurons, _last(shape))]


def _stage(network: Network, index: int, *, grouped: bool) -> _Stage:
    block, shapes = network.blocks[index], network.spec.shapes
    before, after = shapes[index - 1], shapes[index]
    if isinstance(block, FlattenBlock):
        return _Flatten(after)
    assert isinstance(block, SpikingBlock)
    weight = block.quantized_weight()
    neurons = _Neurons.of(block.neuron, prod(after), bias=block.quantized_bias(), shift=block.delay_shift)
    if skips := skips_of(network.spec.layers[index]):
        sources = [before, *(shapes[skip.source] for skip in skips)]
        synapses = [_synapse(*pair, source, after) for pair, source in zip(block.synapses(), sources, strict=True)]
        return _Sum(neurons, _last(after), synapses)
    if isinstance(block.synapse, DenseSynapse):
        return _Dense(neurons, weight, grouped=grouped)
    return _Conv(neurons, weight, block.synapse.spec, before, after)


def _synapse(synapse: Synapse | SkipSynapse, weight: Tensor, before: Shape, after: Shape) -> _Synapse:
    if len(after) == 1:
        return _DenseSynapse(_as_matrix(synapse, weight))
    if isinstance(synapse, IdentitySynapse):
        one = ConvSpec(channels=len(weight), kernel=(1, 1), groups=len(weight))
        return _ConvSynapse(weight.reshape(-1, 1, 1, 1), one, before, after)
    assert not isinstance(synapse, DenseSynapse)
    return _ConvSynapse(weight, synapse.spec, before, after)


def _as_matrix(synapse: Synapse | SkipSynapse, weight: Tensor) -> Tensor:
    """The weight `[outputs, inputs]` of synapses between flat layers."""
    return weight.diag() if isinstance(synapse, IdentitySynapse) else weight


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """The weight `[channels, C, kh, kw]` of one group that does what `groups` do: zeros between them."""
    channels, inputs = weight.shape[:2]
    whole = weight.new_zeros(channels, groups * inputs, *weight.shape[2:])
    for group in range(groups):
        members = slice(group * channels // groups, (group + 1) * channels // groups)
        whole[members, group * inputs : (group + 1) * inputs] = weight[members]
    return whole


def _reached(spec: ConvSpec, axis: int, n_inputs: int, n_outputs: int) -> list[list[tuple[int, int]]]:
    """For each input position the pairs (tap of the kernel, output position) that read it."""
    kernel, stride, padding, dilation = (
        getattr(spec, name)[axis] for name in ("kernel", "stride", "padding", "dilation")
    )
    taps = [[(tap, at + padding - tap * dilation) for tap in range(kernel)] for at in range(n_inputs)]
    return [
        [(tap, at // stride) for tap, at in pairs if at % stride == 0 and 0 <= at // stride < n_outputs]
        for pairs in taps
    ]


def _boxes(
    weight: Tensor, spec: ConvSpec, before: Shape, after: Shape
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What `add_conv` takes for a convolution of weight `[channels, C / groups, kh, kw]`: slabs, rows, columns."""
    rows, columns = (_reached(spec, axis, before[1 + axis], after[1 + axis]) for axis in range(2))
    taps, width = _int8(_ungrouped(weight, spec.groups).permute(2, 3, 1, 0)), after[2]
    kernel_height, _, inputs, channels = taps.shape
    row_table = np.full((len(rows), max(map(len, rows)) + 1, 2), -1, np.int64)
    for y, pairs in enumerate(rows):
        row_table[y, : len(pairs)] = np.array(pairs, np.int64).reshape(-1, 2)

    column_table = np.zeros((len(columns), 4), np.int64)
    patterns: dict[tuple[tuple[int, int], ...], int] = {}
    longest = 1
    for x, pairs in enumerate(columns):
        outputs = [at for _, at in pairs]
        first = min(outputs, default=0)
        length = max(outputs, default=-1) - first + 1
        pattern = tuple((tap, at - first) for tap, at in pairs)
        column_table[x] = patterns.setdefault(pattern, len(patterns)), first, length, width
        longest = max(longest, length)
    slabs = np.zeros((len(patterns), kernel_height, inputs, longest, channels), np.int8)
    for pattern, index in patterns.items():
        for tap, place in pattern:
            slabs[index, :, :, place] = taps[:, tap]
    return slabs.reshape(len(patterns), kernel_height, inputs, -1), row_table, column_table


def _parts(steps: int) -> list[int]:
    """T in words."""
    whole, rest = divmod(steps, kernels.WORD_STEPS)
    return [kernels.WORD_STEPS] * whole + [rest] * (rest > 0)


def _mask(steps: int) -> np.uint32:
    return np.uint32((1 << steps) - 1)


def _last(shape: Shape) -> Shape:
    """`(C, H, W)` to `(H, W, C)`."""
    return (*shape[1:], shape[0])


def _flat(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[N, C, H, W]` to `[N, H * W * C]`, or `[N, C]` as it is."""
    last = x if x.ndim == 2 else x.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(last).reshape(len(x), prod(x.shape[1:]))


def _rows(x: Words) -> Words:
    """`[N, n]`, in the order of a flattened `[C, H, W]`."""
    return np.ascontiguousarray(_channels_first(x)).reshape(len(x), prod(x.shape[1:]))


def _channels_first(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[N, H, W, C]` to `[N, C, H, W]`, or `[N, C]` as it is."""
    return x if x.ndim == 2 else x.transpose(0, 3, 1, 2)


def _of_all(x: Ints, n: int) -> Ints:
    """A value for each channel, or one, as one for each of n neurons, channels last."""
    return np.tile(x, n // len(x))


def _ints(x: Tensor) -> Ints:
    return x.round().to(torch.int32).numpy()


def _int8(weight: Tensor) -> npt.NDArray[np.int8]:
    integers: npt.NDArray[np.int8] = (weight / WEIGHT_STEP).round().to(torch.int8).contiguous().numpy()
    return integers
