"""Exact integer inference: the hardware's arithmetic, with no float after the input."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bootstrap_core.fixed_point import (
    DECAY_ONE,
    MANT,
    STATE,
    STATE_MAX,
    STATE_MIN,
    STATE_PER_MANT,
    STATE_PER_WEIGHT,
)
from bootstrap_core.inference.integer_synapses import Weigh, integer_synapses
from bootstrap_core.kernels import engine_is_worthwhile, have_numba
from bootstrap_core.network.blocks import AffineBlock, FlattenBlock, GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Tally, Trace, as_input, check_earlier, count_steps
from bootstrap_core.network.neuron import CubaNeuron
from specs.block import skips_of
from specs.errors import SnnZooError, StateOverflowError
from specs.network import NetworkSpec
from specs.neuron import Reset
from specs.summary import summarize

if TYPE_CHECKING:
    from bootstrap_core.inference.integer_events import EventEngine, EventRun

__all__ = ["IntegerNetwork", "IntegerTrace"]

BLOCK = 64
"""Images that run through the hidden blocks at a time, where matrices are multiplied: states stay in the cache."""
OF_A_NEURON = 600
"""Multiplications in the time that a neuron's step takes, where matrices are multiplied."""


@dataclass(frozen=True)
class IntegerTrace(Trace):
    """A `Trace` with the voltage of the readout's neurons before reset, `[T, N, ...]` in state units of 1/4096.

    The neurons that an affine readout is exported with never fire; their voltage is what the chip reads.
    """

    readout_voltage: Tensor


class IntegerNetwork:
    """Inference in integers alone, on the CPU; the same spikes as the float network and as Lava's `fixed_pt` models.

    Weights are 8-bit integers, states 32-bit ones checked against the hardware's 24 bits. A snapshot: training the
    network further does not change it. Once it runs batches, the process keeps freed memory for the next one.

    Args:
        network: the float network.

    >>> from bootstrap_core import build_network
    >>> from specs import load_spec
    >>> net = build_network(load_spec("mnist-dense"), seed=0)
    >>> images = torch.rand(2, 1, 28, 28)
    >>> torch.equal(IntegerNetwork(net)(images), net(images))
    True
    """

    device = torch.device("cpu")

    def __init__(self, network: Network) -> None:
        if network.device != self.device:
            network = deepcopy(network).to(self.device)
        self.spec: NetworkSpec = network.spec
        self.compiled: bool | None = None
        """Whether kernels follow the spikes; None: where it is worthwhile."""
        self._events = _event_engine(network)
        self._work = sum(row.synops + OF_A_NEURON * prod(row.shape) for row in summarize(network.spec))
        with torch.no_grad():
            self._input = _integer_input(network.blocks[0])
            self._hidden = [_integer_layer(block, i + 1) for i, block in enumerate(network.blocks[1:-1])]
            self._sources = [[skip.source for skip in skips_of(layer)] for layer in self.spec.layers]
            self._readout = _integer_readout(network.readout, len(network.blocks) - 1)

    def __call__(self, images: Tensor, *, time_steps: int | None = None) -> Tensor:
        """Logits `[N, classes]`, float32, for images `[N, ...]` in 0..1. Raises `StateOverflowError` like `run`."""
        images, steps, events = self._prepared(images, time_steps)
        done = None if events is None else events.run(images, steps)
        return self._logits(images, steps) if done is None else done.logits

    def run(
        self, images: Tensor, mode: Mode | None = None, *, time_steps: int | None = None
    ) -> tuple[Tensor, IntegerTrace]:
        """Logits and what each layer gave; in `trace.spikes` an affine readout has its weighted input.

        Raises:
            StateOverflowError: a current or voltage leaves the hardware's 24 bits; says where.
        """
        images, steps, events = self._prepared(images, time_steps, mode)
        return self._traced(images, steps, None if events is None else events.run(images, steps, spikes=True))

    def rates(self, images: Tensor, *, time_steps: int | None = None) -> tuple[Tensor, ...]:
        """What each block gives on average over time, float32 `[N, ...]`, a readout its logits; faster than `run`."""
        images, steps, events = self._prepared(images, time_steps)
        followed = None if events is None else events.follow(images, steps)
        if followed is not None:
            return tuple(followed.rates)
        logits, trace = self._traced(images, steps, None)
        return *trace.rates[:-1], logits.view(trace.rates[-1].shape)

    def tally(
        self,
        images: Tensor,
        mode: Mode | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        """Like `run`, with the trace only counted; faster, and in memory that T does not matter for.

        `also_after` are numbers of steps up to T, whose logits are `earlier`.
        """
        images, steps, events = self._prepared(images, time_steps, mode)
        also_after = check_earlier(steps, also_after)
        done = events.run(images, steps, also_after=also_after, counts=True) if events and len(images) else None
        if done is None:
            logits, trace = self._traced(images, steps, None)
            return logits, replace(trace.tally(), earlier=trace.logits_after(also_after))
        rates = tuple(float(count.sum()) / (count.numel() * len(images) * steps) for count in done.counts)
        missing = len(self.spec.layers) - len(rates)  # an affine readout
        return done.logits, Tally((*done.counts, *[None] * missing), (*rates, *[0.0] * missing), done.earlier)

    def _prepared(
        self, images: Tensor, time_steps: int | None, mode: Mode | None = None
    ) -> tuple[Tensor, int, "EventEngine | None"]:
        """The images, T, and what follows their spikes, or None if matrices shall be multiplied."""
        if mode not in (None, Mode.SNN):
            raise SnnZooError(f"the integer engine runs spikes: Mode.SNN, not {mode}")
        steps, x = count_steps(self.spec, time_steps), as_input(images, self.spec).cpu()
        if self._events is None or self.compiled is False:
            return x, steps, None
        worthwhile = self.compiled or engine_is_worthwhile(len(x) * steps * self._work, self._events.kernels)
        return x, steps, self._events if worthwhile else None

    def _logits(self, images: Tensor, steps: int) -> Tensor:
        """By matrix products, of some images at a time, as these keep every spike."""
        try:
            return torch.cat([self._traced(some, steps, None)[0] for some in images.split(BLOCK)])
        except StateOverflowError:
            return self._traced(images, steps, None)[0]  # raises it of all images

    @torch.no_grad()
    def _traced(self, images: Tensor, steps: int, done: "EventRun | None") -> tuple[Tensor, IntegerTrace]:
        """What `run` gives; by matrix products, if no spikes were followed."""
        outputs = self._matrices(images, steps) if done is None else list(done.spikes[: len(self._hidden) + 1])
        x, voltage = self._readout.read(*self._arriving(outputs))
        outputs.append(x)
        return (x.sum(0, dtype=torch.float64) / len(x)).float().flatten(1), IntegerTrace(
            spikes=tuple(outputs),
            rates=tuple(output.mean(0, dtype=torch.float32) for output in outputs),
            readout_voltage=voltage,
        )

    def _matrices(self, images: Tensor, steps: int) -> list[Tensor]:
        """Spikes of each block but the last, by matrix products."""
        entering = self._input(images, steps)
        try:
            parts = [self._through(block) for block in entering.split(BLOCK, dim=1)]
        except StateOverflowError:
            parts = [self._through(entering)]  # raises it of all images
        return [entering, *(torch.cat(outputs, dim=1) for outputs in zip(*parts, strict=True))]

    def _through(self, entering: Tensor) -> list[Tensor]:
        """Spikes of the hidden blocks."""
        outputs = [entering]
        for layer in self._hidden:
            outputs.append(layer(*self._arriving(outputs)))
        return outputs[1:]

    def _arriving(self, outputs: list[Tensor]) -> list[Tensor]:
        """What the next layer reads: the output before it, and those of its skips' sources."""
        return [outputs[-1], *(outputs[source] for source in self._sources[len(outputs)])]


def _event_engine(network: Network) -> "EventEngine | None":
    if not have_numba():
        return None
    from bootstrap_core.inference.integer_events import EventEngine

    return EventEngine(network) if EventEngine.takes(network) else None


class _Neurons:
    """Integer CUBA neurons of one layer."""

    def __init__(self, neuron: CubaNeuron, index: int, *, shift: bool, direct: bool = False) -> None:
        current_decay, voltage_decay = ((decay * DECAY_ONE).int() for decay in neuron.quantized_decays())
        self.keep_current = torch.zeros(1, dtype=torch.int32) if direct else DECAY_ONE - current_decay
        self.keep_voltage = DECAY_ONE - voltage_decay
        self.threshold = neuron.threshold_mant * STATE_PER_MANT
        self.subtract = neuron.spec.reset is Reset.SUBTRACT
        self.index, self.shift = index, shift

    def voltages(self, z: Tensor, bias: Tensor | None, *, fire: bool = True) -> tuple[Tensor, Tensor]:
        """Voltage before reset (int32) and spikes (int8) `[T, N, C, ...]`, for z in state units, int32 or int64."""
        axes = [1] * (z.dim() - 3)
        keep_current, keep_voltage = (keep.reshape(-1, *axes) for keep in (self.keep_current, self.keep_voltage))
        offset = 0 if bias is None else bias.reshape(-1, *axes)
        voltage, spikes = torch.empty_like(z, dtype=torch.int32), torch.zeros_like(z, dtype=torch.int8)
        u, v = torch.zeros_like(z[0]), torch.zeros_like(z[0])
        forgets = not bool(keep_current.any())
        for t in range(len(z)):
            u = z[t] if forgets else _leak(u, keep_current).add_(z[t])
            v = _leak(v, keep_voltage).add_(u).add_(offset)
            self._check("current", u, t)
            self._check("voltage", v, t)
            voltage[t] = v
            if fire:
                fired = v > self.threshold
                spikes[t] = fired
                v = v - self.threshold * fired.to(v.dtype) if self.subtract else v.masked_fill_(fired, 0)
        return voltage, spikes

    def fire(self, z: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes, after the layer's empty step if it has one, and the voltage before reset."""
        voltage, spikes = self.voltages(z, bias)
        return torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]]) if self.shift else spikes, voltage

    def _check(self, name: str, state: Tensor, step: int) -> None:
        low, high = (int(bound) for bound in torch.aminmax(state)) if state.numel() else (0, 0)
        if low < STATE_MIN or high > STATE_MAX:
            worst = low if -low > high else high
            raise StateOverflowError(
                f"the {name} of block {self.index} reaches {worst} at step {step}; the hardware holds "
                f"{STATE_MIN} to {STATE_MAX} (24 bits): lower the weights, the threshold or input.bits, or run fewer "
                "steps"
            )


def _leak(x: Tensor, keep: Tensor) -> Tensor:
    """`x * keep / 4096` toward zero, for x of 24 bits within 32 of them."""
    whole, rest = x.abs(), x.abs()
    whole.bitwise_right_shift_(12).mul_(keep)
    rest.bitwise_and_(DECAY_ONE - 1).mul_(keep).bitwise_right_shift_(12)
    return whole.add_(rest).mul_(x.sign())


class _Layer:
    """Integer synapses and neurons."""

    def __init__(self, block: SpikingBlock, index: int) -> None:
        self.synapses = integer_synapses(block)
        self.bias = _integer_bias(block.quantized_bias())
        self.neurons = _Neurons(block.neuron, index, shift=block.delay_shift)

    def __call__(self, *arriving: Tensor) -> Tensor:
        return self.read(*arriving)[0]

    def read(self, *arriving: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes, and the voltage before reset; `[T, N, C, ...]`."""
        return self.neurons.fire(_weigh(self.synapses, arriving), self.bias)


class _Readout:
    """Integer affine readout."""

    def __init__(self, block: AffineBlock, index: int) -> None:
        self.synapses = integer_synapses(block)
        self.bias = _integer_bias(block.quantized_bias())
        self.levels = block.levels
        self.neurons = _Neurons(block.neuron, index, shift=False)

    def read(self, *arriving: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted input plus bias, float32 in units of an input of 1, and the voltage; `[T, N, C]`."""
        z = _weigh(self.synapses, arriving)
        voltage, _ = self.neurons.voltages(z, self.bias, fire=False)
        total = z if self.bias is None else z + self.bias
        return total.float() / STATE / self.levels, voltage


def _integer_input(block: object) -> Callable[[Tensor, int], Tensor]:
    """From images `[N, ...]` and T to spikes `[T, N, ...]`: int8, or graded int32."""
    if isinstance(block, GradedInputBlock):
        return partial(_graded, block)
    assert isinstance(block, InputBlock)
    neurons = _Neurons(block.neuron, 0, shift=block.delay_shift, direct=block.spec.exact_input)
    return partial(_fired, deepcopy(block), neurons)


def _graded(block: GradedInputBlock, images: Tensor, steps: int) -> Tensor:
    pixels: Tensor = block(images, Mode.SNN, steps)
    return pixels.int().expand(steps, *pixels.shape[1:])


def _fired(block: InputBlock, neurons: _Neurons, images: Tensor, steps: int) -> Tensor:
    current = (block.current(images) * STATE).long()
    return neurons.fire(current.expand(steps, *current.shape))[0]


def _integer_layer(block: object, index: int) -> "_Layer | Callable[[Tensor], Tensor]":
    match block:
        case SpikingBlock():
            return _Layer(block, index)
        case FlattenBlock():
            return partial(torch.flatten, start_dim=-block.n_axes)
        case _:
            raise SnnZooError(f"block {index} ({type(block).__name__}) has no integer form")


def _integer_readout(block: object, index: int) -> "_Readout | _Layer":
    match block:
        case AffineBlock():
            return _Readout(block, index)
        case SpikingBlock():
            return _Layer(block, index)
        case _:
            raise SnnZooError(f"block {index} ({type(block).__name__}) is no readout")


def _integer_bias(bias: Tensor | None) -> Tensor | None:
    """Bias in state units, int32."""
    return None if bias is None else (bias * MANT).round().int() * STATE_PER_MANT


def _weigh(synapses: list[Weigh], arriving: Sequence[Tensor]) -> Tensor:
    """The weighted input of all synapses, `[T, N, ...]` in state units, for what each of them reads."""
    own, *skipped = (_over_time(weigh, x) for weigh, x in zip(synapses, arriving, strict=True))
    return sum(skipped, own.long() if skipped else own) * STATE_PER_WEIGHT


def _over_time(weigh: Weigh, x: Tensor) -> Tensor:
    """Weigh all steps `[T, N, ...]`; a step that stands for all is weighed once."""
    if x.stride(0) == 0:
        z = weigh(x[0])
        return z.expand(len(x), *z.shape)
    z = weigh(x.flatten(0, 1))
    return z.view(*x.shape[:2], *z.shape[1:])
