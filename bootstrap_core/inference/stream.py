"""Streaming: exact inference one time step at a time, with states that are kept between the steps."""

from collections import Counter, deque
from collections.abc import Iterator
from functools import reduce
from operator import add

import torch
from torch import Tensor

from bootstrap_core.functional.cuba import StateLimits
from bootstrap_core.inference.overflow import Overflow, check_states
from bootstrap_core.network.base_block import Block, Signals, SynapticBlock
from bootstrap_core.network.blocks import AffineBlock, AverageBlock, InputBlock, SpikingBlock
from bootstrap_core.network.graph import sources_of, walk
from bootstrap_core.network.inputs import as_input
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.neurons import NeuronConstants
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.weighted_input import weigh
from specs.errors import DataError
from specs.network import NetworkSpec
from specs.shapes import fit_input

__all__ = ["Stream"]


class Stream:
    """Network that takes one time step of its input at a time. `IntegerNetwork.stream` makes it.

    Args:
        network: frozen network.
        overflow: what happens where a state leaves 24 bits.
        overflows: counter to which such states are added, by block.

    Attributes:
        steps: number of steps since the start.
    """

    def __init__(self, network: Network, overflow: Overflow, overflows: Counter[int]) -> None:
        self._network, self._overflow, self._overflows = network, overflow, overflows
        self._sources = sources_of(network.spec)
        self.reset()

    def reset(self) -> None:
        """Start again from rest."""
        self.steps = 0
        self._n: int | None = None
        self._spikes: Tensor | float = 0.0  # of a spiking readout, summed over the steps
        self._layers = [
            _Layer(self._network.block(i), i, None if self._overflow is Overflow.REFUSE else StateLimits())
            for i in range(len(self._network.blocks))
        ]

    @torch.no_grad()
    def step(self, inputs: Tensor) -> Tensor:
        """Advance one step; return the logits so far, `[N, classes]`, float32: those of a run of `steps` steps.

        Args:
            inputs: events `[N, ...]` of this step, or for a network of images the image, `[N, ...]` in 0..1.

        Raises:
            DataError: the input does not fit the network, or has another N than before.
            StateOverflowError: a current or voltage leaves the hardware's 24 bits, and this is to be refused.
        """
        spec = self._network.spec
        if isinstance(inputs, Tensor):
            if spec.input.is_events:
                _check_step(inputs, spec)
                inputs = inputs[None]
            inputs = inputs.cpu()
        arriving = as_input(inputs, spec)
        n = arriving.shape[int(spec.input.is_events)]
        if self._n not in {None, n}:
            raise DataError(f"a stream of {self._n} inputs got {n}: keep their number, or call reset()")
        self._n = n
        step = self.steps
        given: Signals = arriving
        output = deque(walk(self._sources, given, lambda i, read: self._layers[i].run(read, step)), maxlen=1).pop()
        self.steps += 1
        for layer in self._layers:
            if layer.limits is not None:
                self._overflows[layer.index] += layer.limits.n
                layer.limits.n = 0
        if isinstance(output, Spikes):  # a spiking readout: its rates
            self._spikes = self._spikes + output.tensor()[0]
            output = (self._spikes / self.steps).float()
        return output.flatten(1)


def _check_step(events: Tensor, spec: NetworkSpec) -> None:
    """Raise `DataError` unless these are the events of one step, `[N, ...]`."""
    shape = spec.input.shape
    if events.dim() and fit_input(tuple(events.shape[1:]), shape):
        return
    hint = "; of one recording, its step is events[None]" if fit_input(tuple(events.shape), shape) else ""
    wanted = f"a step of {spec.name} takes events as a tensor [N, {', '.join(map(str, shape))}]"
    raise DataError(f"events of {list(events.shape)} do not fit: {wanted}{hint}")


class _Layer:
    """A block with the states of its neurons, and what arrived in the last steps if its synapses have delays."""

    def __init__(self, block: Block, index: int, limits: StateLimits | None) -> None:
        self.block, self.index, self.limits = block, index, limits
        self.drive = torch.empty(0)  # weighted input of the present step
        self.states: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
        self.held: Tensor | None = None  # spikes that leave in the next step
        self.total: Tensor | float = 0.0  # of a readout: its weighted input or spikes, summed over the steps
        delay = getattr(block, "delay", None)
        self.before: deque[Tensor] = deque(maxlen=1 + (0 if delay is None else int(delay.max())))

    def run(self, read: list[Signals], step: int) -> Signals:
        """Run one step on the outputs of other blocks, each of one step."""
        block = self.block
        if isinstance(block, InputBlock):
            z, neurons = block.driven_by(*read)
            return self._fire(z[0], neurons, step)
        if isinstance(block, AverageBlock):
            (spikes,) = read
            assert isinstance(spikes, Spikes)
            self.total = self.total + spikes.tensor()[0]
            return block.groups(self.total / (step + 1))
        if not isinstance(block, SynapticBlock):
            return block(read[0], Mode.SNN, 1)
        z = self._weigh(block, read)
        fired = self._fire(z, block.constants(), step)
        if isinstance(block, AffineBlock):  # its neurons never fire; their states are checked
            self.total = self.total + z
            return block.logits_of(self.total, step + 1)
        return fired

    def _weigh(self, block: SynapticBlock, read: list[Signals]) -> Tensor:
        """Return the weighted input of this step, `[N, ...]`."""
        own, *others = block.connections()
        first, *skipped = (x for x in read if isinstance(x, Spikes))
        if isinstance(block, SpikingBlock) and block.delay is not None:
            self.before.append(first.tensor())
            first = Spikes.of(torch.cat(list(self.before)))
        z = block.weigh_own(first, own)[-1]
        return reduce(add, (weigh(*pair)[0] for pair in zip(skipped, others, strict=True)), z)

    def _drives(self) -> Iterator[Tensor]:
        """Yield the weighted input of each step, when it is asked for."""
        while True:
            yield self.drive

    def _fire(self, z: Tensor, neurons: NeuronConstants, step: int) -> Spikes:
        """Return the spikes of this step that leave the block."""
        self.drive = z
        if self.states is None:
            self.states = neurons.states(self._drives(), z.dim(), self.limits)
        current, voltage, fired = next(self.states)
        if self.limits is None:
            check_states(self.index, step, current, voltage)
        spikes = fired.float()[None]
        if neurons.shift:
            spikes, self.held = torch.zeros_like(spikes) if self.held is None else self.held, spikes
        return Spikes.of(spikes)
