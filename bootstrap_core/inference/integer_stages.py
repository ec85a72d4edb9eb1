"""What trains of spikes pass through: neurons with what drives them, in integers, channels last.

Needs numba. A train is a word of up to 32 steps (see `kernels.integer_trains`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, gcd, prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
from bootstrap_core.inference.byte_weight import ByteWeight
from bootstrap_core.inference.spike_taps import taps_of
from bootstrap_core.inference.trains import Words, as_rows, channels_last, mask, rows
from bootstrap_core.kernels import integer_trains as kernels
from bootstrap_core.kernels.byte_products import ROWS
from bootstrap_core.kernels.dense_products import least_rate
from bootstrap_core.kernels.exact_products import (
    LEAST_PACKED_CHANNELS,
    PackedConvolution,
    PackedWeight,
    can_pack,
    has_int8_instruction,
)
from bootstrap_core.kernels.row_sums import SLACK, in_blocks
from bootstrap_core.kernels.threads import alone
from bootstrap_core.network.blocks import AffineBlock, InputBlock
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.synapse import IdentitySynapse, SkipSynapse, Synapse
from specs.block import ConvSpec
from specs.fields import Shape
from specs.neuron import Reset

__all__ = [
    "Adding",
    "AddingConv",
    "AddingDense",
    "AnyPool",
    "Constant",
    "Conv",
    "Dense",
    "Flatten",
    "Ints",
    "Neurons",
    "OutsideError",
    "Readout",
    "Stage",
    "State",
    "Sum",
    "Table",
    "as_ints",
    "as_matrix",
]

PRODUCT_SIZE = 1 << 19
"""Numbers that one product gives: they stay in the cache."""
LEAST_PRODUCT = 1 << 17
"""Numbers, below which calling a product takes longer than following spikes."""
LEAST_RATE = 0.1 if has_int8_instruction() else 0.4
"""Of spikes, from which a product is faster than following them."""
FULL_OUTPUTS = 96
"""Of one input, from which on following a spike takes no more time for each; for fewer, the rate is less."""

Ints = npt.NDArray[np.int32]


class OutsideError(Exception):
    """A state left 24 bits, or a weighted input 32."""


@dataclass(frozen=True)
class Neurons:
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
    ) -> "Neurons":
        """Those of n neurons: a bias for each channel, a delay shift, no current state where the input is `direct`."""
        current_decay, voltage_decay = neuron.quantized_decays()
        keeps = [1 - decay for decay in (torch.ones(1) if direct else current_decay, voltage_decay)]
        keep_current, keep_voltage = (_of_all(as_ints(keep * DECAY_ONE), n) for keep in keeps)
        mants = _of_all(as_ints(torch.zeros(1) if bias is None else bias * MANT), n)
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
class State:
    """Of a stage's neurons `[N, n]`.

    Attributes:
        current, voltage: in state units; no current `[N, 0]` of neurons that keep none.
        held: spikes held back by a delay shift; `[N, 0]` without one.
        totals: sum over the steps done of what synapses weighed, in steps of a weight; empty if it is not wanted.
        steps_done: how many.
    """

    current: Ints
    voltage: Ints
    held: Words
    totals: Ints
    steps_done: int = 0


class Stage(ABC):
    """What trains pass through on their way to the readout.

    Attributes:
        kernel: of `integer_trains`, which follows the spikes and takes a compiler long; None without one.
        has_totals: whether it can tell what synapses weighed.
    """

    kernel: ClassVar[str | None] = None
    has_totals: ClassVar[bool] = False

    @abstractmethod
    def rest(self, n_images: int, *, totals: bool = False) -> State:
        """The state before the first step; `totals`: whether they are wanted, of a stage that has them."""

    @abstractmethod
    def advance(self, x: Any, steps: int, state: State) -> Words:
        """Trains `[N, *shape]` of the next steps."""


class _Layer(Stage):
    """What drives neurons, and they. `shape` is that of one image's trains, channels last."""

    def __init__(self, neurons: Neurons, shape: Shape) -> None:
        self.neurons, self.shape = neurons, shape

    def rest(self, n_images: int, *, totals: bool = False) -> State:
        size, none = (n_images, prod(self.shape)), (n_images, 0)
        return State(
            current=np.zeros(none if self.neurons.forgets else size, np.int32),
            voltage=np.zeros(size, np.int32),
            held=np.zeros(size if self.neurons.shift else none, np.uint32),
            totals=np.zeros(size if totals and self.has_totals else (0, 0), np.int32),
        )

    def advance(self, x: Any, steps: int, state: State) -> Words:
        trains: Words = np.empty(state.voltage.shape, np.uint32)
        if self._fire(x, steps, state, trains):
            raise OutsideError
        state.steps_done += steps
        if self.neurons.shift:
            kernels.delay_trains(trains, state.held, steps)
        return trains.reshape(len(trains), *self.shape)

    @abstractmethod
    def _fire(self, x: Any, steps: int, state: State, trains: Words) -> int:
        """Fill `trains`, and move the state on; not 0 where a state leaves its range."""


class Constant(_Layer):
    """Neurons with the same weighted input at each step, int32 `[N, n]` in state units."""

    def _fire(self, x: Ints, steps: int, state: State, trains: Words) -> int:
        arguments = *self.neurons.constants, steps, state.current, state.voltage, trains
        return int(kernels.constant_trains(x, *arguments))


class Table(_Layer):
    """Input neurons, all alike: the train of each of the 8,192 mantissas of a current is in a table.

    Takes pixels, float32 `[N, n]`. After so many steps that a current leaves its range, only pixels in 0..1.
    """

    def __init__(self, block: InputBlock, neurons: Neurons, shape: Shape) -> None:
        super().__init__(neurons, shape)
        mants = np.arange(BIAS_MANT_MIN, BIAS_MANT_MAX + 1, dtype=np.int32)[None]
        self.currents = mants * np.int32(STATE_PER_MANT)
        self.source = Constant(Neurons.of(block.neuron, mants.size, direct=True), (mants.size,))
        self.tables, self.is_narrow = dict[int, Words](), False
        weight, bias = (float(quantize_weight(x)) for x in (block.weight, block.bias))
        self.transform = block.spec.mean, block.spec.std, weight, bias, float(BIAS_MANT_MIN), float(BIAS_MANT_MAX)
        self.ends = np.sort(as_ints(block.current(torch.tensor([0.0, 1.0])) * STATE))

    def _fire(self, x: npt.NDArray[np.float32], steps: int, state: State, trains: Words) -> int:
        part = state.steps_done // kernels.WORD_STEPS
        if part not in self.tables:
            self.tables[part] = self._table(part)
        if self.is_narrow and x.size and (x.min() < 0 or x.max() > 1):
            return 1
        kernels.input_trains(x, *self.transform, self.tables[part] & mask(steps), trains)
        return 0

    def _table(self, part: int) -> Words:
        """Trains of one word of the time, whichever thread asks."""
        try:
            return self._run(self.currents, part)
        except OutsideError:
            self.is_narrow = True
            return self._run(self.currents.clip(*self.ends), part)

    def _run(self, currents: Ints, part: int) -> Words:
        state = self.source.rest(1)
        for _ in range(part + 1):
            words: Words = self.source.advance(currents, kernels.WORD_STEPS, state)[0]
        return words


class _Weighed(_Layer):
    """Neurons behind synapses: spikes are followed, or, where many arrive, multiplied by packed weights.

    Args:
        neurons, shape: see `_Layer`.
        packed: the weight of each synapse; none for spikes to be followed always.
        least_rate: of the spikes that reach the first synapse, from which products are faster.
        in_bytes: the weight of the only synapse, where products in registers are faster than by `packed`.
    """

    def __init__(
        self,
        neurons: Neurons,
        shape: Shape,
        packed: Sequence[PackedConvolution],
        least_rate: float,
        in_bytes: ByteWeight | None = None,
    ) -> None:
        super().__init__(neurons, shape)
        self.packed, self.in_bytes = packed, in_bytes
        self.least_rate = in_bytes.least_rate if in_bytes else least_rate

    def _fire(self, x: Any, steps: int, state: State, trains: Words) -> int:
        arriving = self._arriving(x)
        can_multiply = self.packed or self.in_bytes
        if can_multiply and trains.size * steps >= LEAST_PRODUCT and self._is_dense(arriving[0], steps):
            if self.in_bytes:
                return self._multiply_bytes(self.in_bytes, arriving[0], steps, state, trains)
            return self._multiply(arriving, steps, state, trains)
        return self._follow(arriving, steps, state, trains)

    def _arriving(self, x: Any) -> list[Words]:
        """Trains as each synapse reads them."""
        return [x]

    def _is_dense(self, x: Words, steps: int) -> bool:
        return bool(kernels.count_spikes(as_rows(x)) >= self.least_rate * x.size * steps)

    def _multiply(self, arriving: list[Words], steps: int, state: State, trains: Words) -> int:
        outside = 0
        n = max(1, PRODUCT_SIZE // (steps * trains.shape[1]))
        # Tensors are aligned to cache lines, as numpy's arrays are not.
        spikes = [torch.empty(n, steps, *x.shape[1:], dtype=torch.int8) for x in arriving]
        for images in (slice(first, first + n) for first in range(0, len(trains), n)):
            some = [buffer[: len(x[images])] for buffer, x in zip(spikes, arriving, strict=True)]
            for each, x in zip(some, arriving, strict=True):
                alone(kernels.unpack_trains, len(each), as_rows(x[images]), each.flatten(2).numpy())
            z, *others = (weight.weigh(each.flatten(0, 1)) for weight, each in zip(self.packed, some, strict=True))
            for other in others:
                z += other
            states = (each[images] for each in (state.current, state.voltage, trains, state.totals))
            weighed = z.numpy().reshape(-1, steps, trains.shape[1])
            outside |= int(kernels.weighed_trains(weighed, *self.neurons.constants, *states))
        return outside

    def _multiply_bytes(self, weight: ByteWeight, x: Words, steps: int, state: State, trains: Words) -> int:
        """Images of a dense layer are put side by side, as columns of a map, until they have enough steps."""
        constants = self.neurons.constants
        states: tuple[npt.NDArray[Any], ...] = state.current, state.voltage, trains, state.totals
        if x.ndim == 2:
            n = gcd(len(x), ROWS // gcd(steps, ROWS))
            weight, x = weight.beside(n), x.reshape(-1, 1, n, x.shape[1])
            states = tuple(each.reshape(len(x), each.size // len(x)) for each in states)
            constants = tuple(np.tile(each, n) if isinstance(each, np.ndarray) else each for each in constants)
        return int(kernels.multiplied_trains(*weight.in_maps(x, steps), *constants, *states))

    @abstractmethod
    def _follow(self, arriving: list[Words], steps: int, state: State, trains: Words) -> int:
        """`_fire`, spike by spike."""


class Dense(_Weighed):
    """Dense synapses; `grouped` for trains of which many are alike."""

    kernel, has_totals = "dense_trains", True

    def __init__(self, neurons: Neurons, weight: Tensor, *, grouped: bool) -> None:
        integers = _int8(weight)
        packed = [PackedWeight(integers)] if can_pack() and not grouped else []
        in_bytes = None if grouped else ByteWeight.of_matrix(integers)
        super().__init__(neurons, (len(weight),), packed, _least_dense_rate(len(weight)), in_bytes)
        self.weight = in_blocks(integers.t())

    def _follow(self, arriving: list[Words], steps: int, state: State, trains: Words) -> int:
        arguments = *self.neurons.constants, steps, state.current, state.voltage, trains, state.totals
        return int(kernels.dense_trains(*arriving, self.weight, *arguments))


class Conv(_Weighed):
    """Convolutional synapses."""

    kernel, has_totals = "conv_trains", True

    def __init__(self, neurons: Neurons, weight: Tensor, spec: ConvSpec, before: Shape, after: Shape) -> None:
        integers = _int8(weight)
        in_bytes = ByteWeight.of(integers, spec, before, after)
        super().__init__(
            neurons, channels_last(after), _packed_convolution(integers, spec), _least_rate(len(weight)), in_bytes
        )
        self.taps = taps_of(integers, spec, before, after)

    def _follow(self, arriving: list[Words], steps: int, state: State, trains: Words) -> int:
        arguments = *self.neurons.constants, steps, state.current, state.voltage, trains, state.totals
        return int(kernels.conv_trains(*arriving, *self.taps, *arguments))


class AnyPool(_Layer):
    """Neurons that forget at once, and fire for any spike under their kernel."""

    def __init__(self, neurons: Neurons, spec: ConvSpec, before: Shape, after: Shape) -> None:
        super().__init__(neurons, channels_last(after))
        self.taps = [_read_by_tap(spec, axis, before[1 + axis], after[1 + axis]) for axis in range(2)]

    @staticmethod
    def takes(neurons: Neurons, weight: Tensor) -> bool:
        """Whether neurons behind a pool of this weight `[C, 1, KH, KW]` are such; their states stay in range."""
        one = int(_int8(weight).flatten()[0]) * STATE_PER_WEIGHT
        forget = neurons.forgets and not neurons.keep_voltage.any() and not neurons.bias.any()
        return bool(forget and neurons.limit < one and one * weight[0].numel() <= STATE_MAX)

    def _fire(self, x: Words, steps: int, state: State, trains: Words) -> int:
        out = trains.reshape(len(trains), *self.shape)
        out[:] = 0
        for (to_rows, from_rows), (to_columns, from_columns) in product(*self.taps):
            out[:, to_rows, to_columns] |= x[:, from_rows, from_columns]
        return 0


class Sum(_Weighed):
    """Neurons that several blocks reach, one synapse each."""

    def __init__(self, neurons: Neurons, shape: Shape, synapses: Sequence["Adding"]) -> None:
        packed = [weight for synapse in synapses for weight in synapse.packed]
        all_are = len(packed) == len(synapses)
        super().__init__(neurons, shape, packed if all_are else [], synapses[0].least_rate)
        self.synapses = synapses

    def _arriving(self, x: Sequence[Words]) -> list[Words]:
        return [synapse.seen(source) for synapse, source in zip(self.synapses, x, strict=True)]

    def _follow(self, arriving: list[Words], steps: int, state: State, trains: Words) -> int:
        """Image by image, so that the sums stay in the cache."""
        n = trains.shape[1]
        z = np.empty(steps * n + SLACK, np.int32)
        weighed = z[: steps * n].reshape(1, steps, n)
        outside = 0
        for image in range(len(trains)):
            z[:] = 0
            for synapse, source in zip(self.synapses, arriving, strict=True):
                synapse.add(source[image], steps, z)
            states = (each[image : image + 1] for each in (state.current, state.voltage, trains, state.totals))
            outside |= int(kernels.weighed_trains(weighed, *self.neurons.constants, *states))
        return outside


class Adding(ABC):
    """One of the synapses behind which a `Sum` stands; see `_Weighed`."""

    packed: Sequence[PackedConvolution]
    least_rate: float

    @abstractmethod
    def seen(self, x: Words) -> Words:
        """Trains of a source as the synapse reads them."""

    @abstractmethod
    def add(self, x: Words, steps: int, z: Ints) -> None:
        """Add its weighted input of one image to `z`, flat of `[steps, n]`; see `row_sums.SLACK`."""


class AddingDense(Adding):
    """Between flat layers."""

    def __init__(self, weight: Tensor) -> None:
        integers = _int8(weight)
        self.packed, self.least_rate = [PackedWeight(integers)] if can_pack() else [], _least_dense_rate(len(weight))
        self.weight, self.n = in_blocks(integers.t()), len(weight)

    def seen(self, x: Words) -> Words:
        """See `Adding`."""
        return rows(x)

    def add(self, x: Words, steps: int, z: Ints) -> None:
        """See `Adding`."""
        kernels.add_dense(x, self.weight, self.n, steps, z)


class AddingConv(Adding):
    """Between maps."""

    def __init__(self, weight: Tensor, spec: ConvSpec, before: Shape, after: Shape) -> None:
        integers = _int8(weight)
        self.packed, self.least_rate = _packed_convolution(integers, spec), _least_rate(len(weight))
        self.taps = taps_of(integers, spec, before, after)

    def seen(self, x: Words) -> Words:
        """See `Adding`."""
        return x

    def add(self, x: Words, steps: int, z: Ints) -> None:
        """See `Adding`."""
        kernels.add_conv(x, *self.taps, steps, z)


class Flatten(Stage):
    """From channels last to the order of a flattened `[C, H, W]`; no neurons."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def rest(self, n_images: int, *, totals: bool = False) -> State:
        """See `Stage`."""
        empty = np.empty((n_images, 0), np.int32)
        return State(empty, empty, empty.astype(np.uint32), empty)

    def advance(self, x: Words, steps: int, state: State) -> Words:
        """See `Stage`."""
        return rows(x)


class Readout:
    """An affine readout: sums of its weighted input over time; its neurons never fire. Reads all sources in a row."""

    def __init__(self, block: AffineBlock) -> None:
        weight = torch.cat([as_matrix(synapse, weight) for synapse, weight in block.synapses()], dim=1)
        self.neurons = Neurons.of(block.neuron, len(weight), bias=block.quantized_bias())
        integers = _int8(weight)
        self.weight = in_blocks(integers.t())
        self.both = torch.cat([integers, integers.short().abs()]).numpy()

    def totals(self, trains: list[Words], parts: list[int]) -> npt.NDArray[np.int64]:
        """Weighted input of all steps, `[N, classes]` in state units, for the trains `[N, inputs]` of all parts."""
        steps, n_inputs = sum(parts), self.both.shape[1]
        exact = np.float32 if -WEIGHT_INT_MIN * n_inputs * steps < EXACT_IN_FLOAT else np.float64
        counts = np.zeros(trains[0].shape, exact)
        for words in trains:
            alone(kernels.count_trains, len(words), words, counts)
        both = np.empty((len(counts), len(self.both)), exact)
        kernels.weigh_counts(counts, self.both.astype(exact, order="C"), both)
        totals, reach = np.split(both.astype(np.float64) * STATE_PER_WEIGHT, 2, axis=1)
        bias = self.neurons.bias.astype(np.float64) * steps
        # No state goes further than all its input in one direction: mostly that is within bounds by far. Where the
        # current is kept, the voltage takes it again at each step.
        reach *= 1 if self.neurons.forgets else steps
        if (reach + np.abs(bias)).max(initial=0) >= STATE_MAX and self._leaves(trains, parts):
            raise OutsideError
        summed: npt.NDArray[np.int64] = (totals + bias).astype(np.int64)
        return summed

    def _leaves(self, trains: list[Words], parts: list[int]) -> bool:
        states = [np.zeros((len(trains[0]), len(self.neurons.bias)), np.int32) for _ in range(2)]
        return any(
            kernels.never_fires(words, self.weight, *self.neurons.constants, part, *states)
            for words, part in zip(trains, parts, strict=True)
        )


def as_matrix(synapse: Synapse | SkipSynapse, weight: Tensor) -> Tensor:
    """The weight `[outputs, inputs]` of synapses between flat layers."""
    return weight.diag() if isinstance(synapse, IdentitySynapse) else weight


def _read_by_tap(spec: ConvSpec, axis: int, n_inputs: int, n_outputs: int) -> list[tuple[slice, slice]]:
    """For each tap of the kernel, the output positions at which it reads an input, and the inputs there."""
    kernel, stride, padding, dilation = (
        getattr(spec, name)[axis] for name in ("kernel", "stride", "padding", "dilation")
    )
    slices = []
    for shift in (tap * dilation - padding for tap in range(kernel)):
        first, last = max(0, ceil(-shift / stride)), min(n_outputs - 1, (n_inputs - 1 - shift) // stride)
        if first <= last:
            at = first * stride + shift
            slices.append((slice(first, last + 1), slice(at, at + (last - first) * stride + 1, stride)))
    return slices


def _least_rate(outputs: int) -> float:
    """Rate of spikes from which a product is faster than following them."""
    return LEAST_RATE * min(1.0, outputs / FULL_OUTPUTS)


def _least_dense_rate(outputs: int) -> float:
    """The same for a matrix, which CPUs with instructions for int8 multiply fastest."""
    return least_rate(outputs) if has_int8_instruction() else _least_rate(outputs)


def _of_all(x: Ints, n: int) -> Ints:
    """A value for each channel, or one, as one for each of n neurons, channels last."""
    return np.tile(x, n // len(x))


def as_ints(x: Tensor) -> Ints:
    """Whole numbers that are held in floats."""
    return x.round().to(torch.int32).numpy()


def _packed_convolution(weight: Tensor, spec: ConvSpec) -> list[PackedConvolution]:
    """The weight, int8, or nothing where following spikes is always faster."""
    if not can_pack() or weight.shape[1] * spec.groups < LEAST_PACKED_CHANNELS:
        return []
    return [PackedConvolution(weight, spec.stride, spec.padding, spec.dilation, spec.groups)]


def _int8(weight: Tensor) -> Tensor:
    return (weight / WEIGHT_STEP).round().to(torch.int8).contiguous()
