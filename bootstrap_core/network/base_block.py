"""Base classes of blocks, the signals between blocks, and the place of a block in its network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import repeat
from operator import add
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bootstrap_core.functional.cuba import StateLimits
from bootstrap_core.functional.dropout import dropout_mask
from bootstrap_core.functional.quantize import quantize_bias
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.states import STATES_REMEDY, NamedStates, named_states
from bootstrap_core.network.steppers import CubaStepper, Stepper, StreamPlace
from bootstrap_core.network.synapse import ConvSynapse, DenseSynapse, IdentitySynapse, Synapse
from bootstrap_core.ops.neurons import NeuronConstants
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import Operands, one_step_of_layer
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import weigh
from specs.fields import Shape
from specs.layers.block import ConvSpec, IdentitySkip, LayerSpec, SkipSpec, skips_of
from specs.layers.neuron import CubaSpec, LearnDecays
from specs.network import NetworkSpec

Signals = Tensor | Spikes
"""Inputs and outputs of blocks: spikes `[T, N, ...]`, or rates `[N, ...]`. The first block takes images."""


class Block(nn.Module):
    """Base of all blocks.

    `forward(x, mode, time_steps, *skipped)` takes and returns spikes in spiking modes, rates otherwise. `x` is the
    output of the block's own source, `skipped` are the outputs that the block's skips read. An affine readout returns
    logits `[N, classes]` in all modes.

    Attributes:
        potential: name of the state that neurons compare with their threshold, or that a readout gives.
        remedy: end of the message where a state leaves 24 bits.
        delay_shift: whether spikes leave a step later; only blocks with neurons that send have it.
    """

    potential, remedy = "voltage", STATES_REMEDY
    delay_shift: bool

    if TYPE_CHECKING:  # nn.Module leaves it untyped

        def __call__(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
            """Call `forward`."""

    def freeze(self) -> None:
        """Prepare weights and constants for the operators, once. Weights must not change afterwards."""

    def run_checked(self, arriving: Sequence[Signals], time_steps: int) -> tuple[Signals, int]:
        """Run as SNN; return the output and the largest magnitude of a state, in units of 1/4096.

        Args:
            arriving: inputs of the block: the output of its own source, then the outputs that its skips read.
        """
        output = self(arriving[0], Mode.SNN, time_steps, *arriving[1:])
        return output, output.reached if isinstance(output, Spikes) else 0

    def states_of_run(
        self, arriving: Sequence[Signals], time_steps: int, limits: StateLimits | None = None
    ) -> NamedStates:
        """Return the states of a run by the definition, without the shift; none for a block without neurons.

        `arriving` and `time_steps` are those of `run_checked`, `limits` those of the states.
        """
        return iter(())

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        """Return the block as a stream runs it; the arrays of `reads` are bound to it.

        Args:
            reads: steppers of the blocks that it reads: its own source, then the sources of its skips.
        """
        raise NotImplementedError(f"{type(self).__name__} does not run step by step")

    def over_time(self, *sources: Spikes) -> Tensor:
        """Return the output of each step, `[T, N, ...]`, for a block whose output has no time axis."""
        raise NotImplementedError(f"{type(self).__name__} returns spikes, which have a time axis")

    def synapses(self) -> list[tuple[Synapse, Tensor]]:
        """Return the block's own synapses, then those of its skips, each with the weights that the hardware holds."""
        return []


class SynapticBlock(Block):
    """Base of blocks with synapses: it drops inputs, weighs them, and adds the bias.

    Args:
        synapse: the block's own synapses, from its own source.
        skips: synapses from further blocks, whose weighted input is added.
        bias: whether the block has a trainable bias, in units of an input of 1.
        dropout: part of the inputs of `synapse` that is silenced in training, for all time steps of an image.
        levels: largest value of the input; above 1 only for a block that takes graded input.
    """

    bias: Tensor | None
    neuron: nn.Module

    def __init__(
        self,
        synapse: Synapse,
        neuron: nn.Module,
        *,
        channels: int,
        skips: Sequence[Synapse] = (),
        bias: bool = False,
        dropout: float = 0.0,
        levels: int = 1,
    ) -> None:
        super().__init__()
        self.synapse, self.neuron, self.dropout, self.levels = synapse, neuron, dropout, levels
        self.skips = nn.ModuleList(skips)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if bias else None)
        self._frozen: Operands | None = None

    def freeze(self) -> None:
        self._frozen = self.operands()

    def operands(self) -> Operands:
        """Return synapses and neurons as `spiking_layer` takes them."""
        return self._frozen or Operands(self.connections(), self.constants())

    def constants(self) -> NeuronConstants:
        raise NotImplementedError

    def states_of_run(
        self, arriving: Sequence[Signals], time_steps: int, limits: StateLimits | None = None
    ) -> NamedStates:
        z = self.weigh(*arriving)
        return named_states(z.expand(time_steps, *z.shape[1:]), self.constants(), z.dim() - 1, limits)

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        sources = [x.spikes for x in reads]
        native = one_step_of_layer(sources, self.operands())
        drives = (self.weigh(*sources)[0] for _ in repeat(None))
        is_steady = all(x.is_steady for x in reads)
        return CubaStepper(self.operands().neurons, place, drives, is_steady=is_steady, native=native)

    def synapses(self) -> list[tuple[Synapse, Tensor]]:
        return [(each, each.quantized_weight(self.weight_scale(each))) for each in (self.synapse, *self.skips)]

    def quantized_weight(self) -> Tensor:
        """Return the weights of the block's own synapses that the hardware holds: scaled by the norm, on their grid."""
        return self.synapse.quantized_weight(self.weight_scale(self.synapse))

    def quantized_bias(self) -> Tensor | None:
        """Return the bias that the hardware holds, `[channels]` on the grid of 1/64, in units of the input's levels."""
        return None if self.bias is None else quantize_bias(self.bias * self.levels)

    def connections(self) -> tuple[Connection, ...]:
        """Return the block's own synapses, then those of its skips, as operators take them."""
        if self._frozen is not None:
            return self._frozen.connections
        return tuple(each.connection(self.weight_scale(each)) for each in (self.synapse, *self.skips))

    def weigh(self, x: Signals, *skipped: Signals) -> Tensor:
        """Return the weighted input of all synapses together.

        For spikes it is `[T, N, ...]`, or `[1, N, ...]` if it is the same at all steps; for rates `[N, ...]`.
        """
        if not isinstance(x, Spikes):
            return self.weigh_rates(x, skipped)
        own, *others = self.connections()
        mask = self._mask(x.shape[1:], x.device)
        z = self.weigh_own(x, own) if mask is None else self.weigh_own(x.masked(mask != 0), own) / (1 - self.dropout)
        sources = (source for source in skipped if isinstance(source, Spikes))
        return reduce(add, (weigh(*pair) for pair in zip(sources, others, strict=True)), z)

    def weigh_own(self, x: Spikes, connection: Connection) -> Tensor:
        """Return the weighted input of the block's own synapses; see `weigh`."""
        return weigh(x, connection)

    def weigh_rates(self, x: Tensor, skipped: Sequence[Signals]) -> Tensor:
        """Return the weighted input of all synapses together, for rates or spike counts `[N, ...]`."""
        mask = self._mask(x.shape, x.device)
        z = self._normalized(self.synapse(x if mask is None else x * mask, self.weight_scale(self.synapse)))
        for skip, source in zip(self.skips, skipped, strict=True):
            z = z + skip(source, self.weight_scale(skip))
        return z

    def _normalized(self, z: Tensor) -> Tensor:
        """Return the weighted input of the block's own synapses, `[N, ...]`, after a norm that is not folded."""
        return z

    def weight_scale(self, synapse: nn.Module) -> Tensor | float:
        """Return the factor that the norm puts on weights before they are quantised; it broadcasts with them."""
        return 1.0

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout > 0

    def _mask(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """Return the dropout mask of inputs `[N, ...]`: 0 where silenced, 1 / (1 - dropout) elsewhere; None without."""
        return dropout_mask(shape, self.dropout, device) if self._drops else None


@dataclass(frozen=True)
class Place:
    """Place of a layer in a network: everything that its builder reads.

    Args:
        index: index of the layer; 0 is the input.
        read: shapes of the layers that it reads, its own source first; for the input, the shape of an image.
        levels: largest value of what it reads: above 1 only behind graded input.
        generator: generator that draws the weights; None for torch's global one.
    """

    network: NetworkSpec
    index: int
    read: tuple[Shape, ...]
    shape: Shape
    levels: int = 1
    generator: torch.Generator | None = None

    @property
    def layer(self) -> LayerSpec:
        return self.network.layers[self.index]

    @property
    def before(self) -> Shape:
        """Shape of the input of the block's own synapses."""
        return self.read[0]

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def delay_shift(self) -> bool:
        """True if spikes leave a step later, so that the first of the T steps is silent."""
        return self.network.delay_shift_of(self.layer)

    def neuron(self, *, learn: bool = True) -> CubaNeuron:
        """Return the block's neurons; with `learn=False`, their decays are fixed whatever the spec says."""
        spec = self.network.cuba_of(self.layer)
        if not learn:
            spec = spec.model_copy(update={"learn_decays": LearnDecays.NONE})
        return CubaNeuron(spec, channels=self.channels, levels=self.levels)

    def skips(self) -> list[Synapse]:
        pairs = zip(skips_of(self.layer), self.read[1:], strict=True)
        return [self._build_skip(skip, before) for skip, before in pairs]

    def _build_skip(self, skip: SkipSpec, before: Shape) -> Synapse:
        if isinstance(skip, IdentitySkip):
            neuron = self.network.neuron_of(self.layer)
            return IdentitySynapse(before, neuron.threshold if isinstance(neuron, CubaSpec) else 1.0)
        layer, seen = skip.as_layer(before, self.shape)
        if isinstance(layer, ConvSpec):
            return ConvSynapse(layer, seen[0], normalize=False, generator=self.generator)
        return DenseSynapse(seen[0], layer.features, normalize=False, n_axes=len(before), generator=self.generator)


def is_graded(spikes: Spikes) -> bool:
    """Return whether spikes may be graded, that is, other than 0 and 1: those in float64, or with one step for all."""
    return spikes.values is not None and (spikes.values.dtype == torch.float64 or spikes.is_constant)


def as_spikes(x: Signals) -> Spikes:
    """Return `Spikes`, also for a plain tensor `[T, N, ...]`, whose type becomes float64 if it is graded."""
    if isinstance(x, Spikes):
        return x
    return Spikes.of(x.double() if ((x != 0) & (x != 1)).any() else x)
