"""Blocks of sigma-delta neurons: their messages are changes of activations; as ANN they are a ReLU.

They run in torch alone, by the definition; the native library has no operator for them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import MANT, MESSAGE, SIGMA, SIGMA_PER_MANT
from bootstrap_core.functional.cuba import StateLimits, per_channel
from bootstrap_core.functional.quantize import straight_through
from bootstrap_core.functional.sigma_delta import Activation, SigmaDeltaStates, sigma_delta
from bootstrap_core.network.base_block import Block, Signals, SynapticBlock, as_spikes
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.states import MESSAGES_REMEDY, NamedStates
from bootstrap_core.network.steppers import Definition, MessageStepper, Stepper, StreamPlace, ValueStepper
from bootstrap_core.network.synapse import Synapse
from bootstrap_core.ops.spike_counts import count
from bootstrap_core.ops.spikes import Spikes
from specs.fields import threshold_mant
from specs.layers.neuron import SigmaDeltaSpec


class SigmaDeltaNeuron(nn.Module):
    """Sigma-delta neurons of one layer; see `functional.sigma_delta`. They have no parameters of their own."""

    def __init__(self, spec: SigmaDeltaSpec, activation: Activation) -> None:
        super().__init__()
        self.spec, self.activation = spec, activation
        self.threshold_mant = threshold_mant(spec.threshold)

    def states(self, z: Iterable[Tensor], bias: Tensor | float = 0.0) -> Iterator[SigmaDeltaStates]:
        """Yield states and messages for each step of `z`; `bias` is in float units and broadcasts against a step."""
        sends = self.activation is not Activation.UNIT
        threshold = self.threshold_mant * SIGMA_PER_MANT if sends else 0
        return sigma_delta(z, self.activation, threshold=threshold, bias=bias * SIGMA)


class MessageBlock(Block):
    """Base of the blocks of a sigma-delta network that have states.

    In spiking modes `forward` takes and returns messages (integers of the hardware); as ANN, activations in float
    units. Both are float64, as float32 does not hold all of them exactly.
    """

    neuron: SigmaDeltaNeuron
    delay_shift: bool
    potential, remedy = "sigma", MESSAGES_REMEDY

    def freeze(self) -> None:
        """See `Block`; the definition needs nothing prepared."""

    def drive(self, *arriving: Signals) -> Tensor:
        """Return what drives the neurons, `[T, N, ...]`, as `sigma_delta` takes it."""
        raise NotImplementedError

    def states(self, z: Iterable[Tensor]) -> Iterator[SigmaDeltaStates]:
        """Yield states and messages for each step of `drive`."""
        return self.neuron.states(z)

    def states_of_run(
        self, arriving: Sequence[Signals], time_steps: int, limits: StateLimits | None = None
    ) -> NamedStates:
        """See `Block`; they have no limits."""
        return self.named_states(self.drive(*arriving)[:time_steps])

    def named_states(self, z: Iterable[Tensor]) -> NamedStates:
        """Yield the states that have 24 bits, and the messages, for each step of `drive`."""
        for x in self.states(z):
            names = "weighted input", "sigma", "activation", "change"
            yield dict(zip(names, x[:4], strict=True)), x.message

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        return MessageStepper(self._definition(reads, place), place.size)

    def _definition(self, reads: Sequence[Stepper], place: StreamPlace) -> Definition:
        states = self.named_states(self.drive(*(x.out for x in reads))[0] for _ in repeat(None))
        delayed = torch.zeros(place.size, dtype=torch.float64) if self.delay_shift else None
        return Definition(place, states, MESSAGES_REMEDY, delayed)

    def activations(self, *arriving: Signals) -> Tensor:
        """Return the activations as ANN, `[N, ...]`."""
        raise NotImplementedError

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
        return self.run_checked([x, *skipped], time_steps)[0] if mode.spiking else self.activations(x, *skipped)

    def run_checked(self, arriving: Sequence[Signals], time_steps: int) -> tuple[Signals, int]:
        """See `Block`; states are in units of 1/2^18."""
        reached, messages = 0.0, list[Tensor]()
        for state in self.states(self.drive(*arriving)[:time_steps]):
            reached = max(reached, *map(_largest, state[:4]))
            messages.append(state.message)
        sent = Spikes.of(torch.stack(messages), reached=int(reached), unit=1 / MESSAGE)
        return sent.delayed() if self.delay_shift else sent, int(reached)


class DeltaInputBlock(MessageBlock):
    """Input of frames `[T, N, ...]`, integers in units of 1/64: it sends their changes. As ANN it is the last frame."""

    def __init__(self, neuron: SigmaDeltaNeuron, *, delay_shift: bool) -> None:
        super().__init__()
        self.neuron, self.delay_shift = neuron, delay_shift

    def drive(self, *arriving: Signals) -> Tensor:
        (x,) = arriving
        assert isinstance(x, Tensor)
        return x.double() * SIGMA_PER_MANT

    def activations(self, *arriving: Signals) -> Tensor:
        (x,) = arriving
        assert isinstance(x, Tensor)
        return x[-1].double() / MANT


class SigmaDeltaBlock(MessageBlock, SynapticBlock):
    """Dense, convolutional or pooling synapses, then sigma-delta neurons.

    Args:
        synapse, neuron, channels, skips, bias: see `SynapticBlock`.
        delay_shift: whether messages leave one step later, as in Lava.
    """

    neuron: SigmaDeltaNeuron

    def __init__(
        self,
        synapse: Synapse,
        neuron: SigmaDeltaNeuron,
        *,
        channels: int,
        skips: Sequence[Synapse] = (),
        bias: bool = False,
        delay_shift: bool = False,
    ) -> None:
        super().__init__(synapse, neuron, channels=channels, skips=skips, bias=bias)
        self.delay_shift = delay_shift

    def drive(self, *arriving: Signals) -> Tensor:
        return self.weigh(*map(as_spikes, arriving))

    def states(self, z: Iterable[Tensor]) -> Iterator[SigmaDeltaStates]:
        offset = self._offset()
        return self.neuron.states(z, offset.detach() if isinstance(offset, Tensor) else offset)

    def activations(self, *arriving: Signals) -> Tensor:
        """See `MessageBlock`. They are rounded down to 1/4096, as the message of a first step is."""
        activation = (self.weigh(*arriving) + self._offset()).clamp_min(0)
        return straight_through(activation, (activation * MESSAGE).floor() / MESSAGE)

    def _offset(self) -> Tensor | float:
        """Return the bias, float64, so that it broadcasts against one step."""
        bias = self.quantized_bias()
        return 0.0 if bias is None else per_channel(bias.double(), 2 if self.synapse.spec is None else 4)


class ValueBlock(SigmaDeltaBlock):
    """Readout of values: it adds up its weighted input over time. The output is `[N, values]`, float32.

    float32 holds it exactly as long as sigma has 24 bits, which `IntegerNetwork` checks.
    """

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Tensor:
        """See `Block`. Messages are added up first, so that all steps are weighed at once."""
        if not mode.spiking:
            return (self.weigh(x, *skipped) + self._offset()).float()
        own, *others = (count(as_spikes(each)) for each in (x, *skipped))
        return (self.weigh_rates(own, others) / MESSAGE + self._offset()).float()

    def run_checked(self, arriving: Sequence[Signals], time_steps: int) -> tuple[Signals, int]:
        states = list(self.states(self.drive(*arriving)))
        return self.value(states[-1]), int(max(_largest(x) for state in states for x in state[:4]))

    def over_time(self, *sources: Spikes) -> Tensor:
        """Return the value after each step, `[T, N, values]`, float32."""
        return torch.stack([self.value(state) for state in self.states(self.drive(*sources))])

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        return ValueStepper(self._definition(reads, place), place.size)

    def value(self, state: SigmaDeltaStates) -> Tensor:
        """Return the value of a step, `[N, values]`, float32."""
        return (state.activation / SIGMA).float()


def _largest(x: Tensor) -> float:
    """Return the largest magnitude of a tensor; 0 if it is empty."""
    return float(x.abs().max()) if x.numel() else 0.0
