"""Bootstrap blocks: the same weights run as spikes through time, or as rates through the fitted activation."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import DECAY_ONE, MANT, READOUT_THRESHOLD_MANT, WEIGHT_STEP
from bootstrap_core.functional.dropout import dropout_mask
from bootstrap_core.functional.quantize import quantize_bias, quantize_weight, straight_through
from bootstrap_core.network.batch_norm import MeanOnly, WeightScale
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.network.synapse import SkipSynapse, Synapse
from bootstrap_core.ops.input_neurons import InputCurrent, input_current, input_rates, input_spikes
from bootstrap_core.ops.neurons import NeuronConstants, fire
from bootstrap_core.ops.spike_counts import count
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import Operands, spiking_layer
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import weigh
from specs.block import InputSpec

__all__ = [
    "AffineBlock",
    "Block",
    "FlattenBlock",
    "GradedInputBlock",
    "InputBlock",
    "Signals",
    "SpikingBlock",
    "is_graded",
]

Signals = Tensor | Spikes
"""What goes from block to block: spikes `[T, N, ...]`, or rates `[N, ...]`; images go into the first."""


class Block(nn.Module):
    """Base of all blocks.

    `forward(x, mode, time_steps, *skipped)` takes and gives spikes in spiking modes, rates otherwise. `skipped` are
    what the sources of the block's skips gave. An affine readout gives logits `[N, classes]` in all modes.
    """

    if TYPE_CHECKING:  # nn.Module leaves it untyped

        def __call__(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
            """`forward`."""

    def freeze(self) -> None:
        """Prepare what operators take once and for all. Weights must not change any more."""


def _fitted(sampler: RateSampler, mode: Mode) -> RateSampler:
    """The activation; in FIT mode it is fitted first."""
    if mode is Mode.FIT:
        sampler.fit()
        sampler.clear()
    return sampler


class InputBlock(Block):
    """Pixels as currents: `weight * (x - mean) / std + bias` drives a neuron for each, the same each step.

    With `exact_input` the current is truncated to 1/64 and enters the voltage, where the hardware's bias does.
    Without it, as in lava-dl, the pixel is rounded to the grid of the weights and its current enters the current state.

    Args:
        spec: the input.
        neuron: a neuron for each pixel.
        delay_shift: whether an empty step comes first, inside the T steps.
    """

    def __init__(self, spec: InputSpec, neuron: CubaNeuron, *, delay_shift: bool) -> None:
        super().__init__()
        self.spec, self.neuron, self.delay_shift = spec, neuron, delay_shift
        self.weight = nn.Parameter(torch.tensor([spec.weight]))
        self.bias = nn.Parameter(torch.tensor([spec.bias]))
        self.sampler = RateSampler()
        self._frozen: tuple[NeuronConstants, InputCurrent] | None = None

    def current(self, images: Tensor) -> Tensor:
        """Current of each pixel, `[N, *shape]`, for images in 0..1."""
        if self.spec.exact_input:
            return input_current(images, self._scaling())
        x = (images.double() - self.spec.mean) / self.spec.std
        return (quantize_weight(self.weight) * quantize_weight(x) + quantize_weight(self.bias)).float()

    def rates(self, images: Tensor) -> Tensor:
        """What the activation gives for the `current` of each pixel, `[N, *shape]`."""
        if self.spec.exact_input:
            return input_rates(images, self._scaling(), *self.sampler.curve)
        activated: Tensor = self.sampler(self.current(images))
        return activated

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Signals:
        """See `Block`."""
        if not mode.spiking:
            _fitted(self.sampler, mode)
            return self.rates(x)
        if self.spec.exact_input:
            spikes = input_spikes(x, self._scaling(), self.constants(), time_steps)
        else:
            spikes = fire(self.current(x)[None], self.constants(), time_steps)
        if mode is Mode.SAMPLE:
            self.sampler.add(self.current(x), count(spikes) / time_steps)
        return spikes

    def freeze(self) -> None:
        """See `Block`."""
        self._frozen = self.constants(), self._scaling()

    def constants(self) -> NeuronConstants:
        """Constants of the neurons."""
        if self._frozen is not None:
            return self._frozen[0]
        return self.neuron.constants(shift=self.delay_shift, direct=self.spec.exact_input)

    def _scaling(self) -> InputCurrent:
        if self._frozen is not None:
            return self._frozen[1]
        return InputCurrent(self.weight, self.bias, self.spec.mean, self.spec.std)


class GradedInputBlock(Block):
    """Pixels as integers of `bits` bits, the same each step.

    The gradient of pixels within 0..1 goes straight through the rounding.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Signals:
        """See `Block`."""
        levels = x.double().clamp(0, 1) * self.spec.levels
        pixels = straight_through(levels, torch.round(levels))
        # float64: a sum of many large pixels times weights must stay an exact integer.
        return Spikes.of(pixels.expand(time_steps, *pixels.shape)) if mode.spiking else pixels.float()


class FlattenBlock(Block):
    """`[..., C, H, W]` to `[..., C * H * W]`."""

    def __init__(self, n_axes: int) -> None:
        super().__init__()
        self.n_axes = n_axes

    def forward(self, x: Signals, mode: Mode, time_steps: int) -> Signals:
        """See `Block`."""
        if mode.spiking:
            return _as_spikes(x).flatten()
        assert isinstance(x, Tensor)
        return x.flatten(-self.n_axes)


class _SynapticBlock(Block):
    """Base of blocks with synapses: dropout of inputs, weighted input, bias.

    Args:
        synapse: gives the weighted input.
        skips: give what is added to it, from the outputs of earlier blocks.
        neuron: the neurons.
        channels: of the output.
        bias: whether there is one to learn; in units of an input of 1.
        dropout: part of the inputs of `synapse` silenced in training, for all of an image's steps.
        levels: largest value of the input: above 1 only for a block that takes graded input.
    """

    bias: Tensor | None

    def __init__(
        self,
        synapse: Synapse,
        neuron: CubaNeuron,
        *,
        channels: int,
        skips: Sequence[SkipSynapse] = (),
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
        """See `Block`."""
        self._frozen = self.operands()

    def operands(self) -> Operands:
        """What operators take."""
        return self._frozen or Operands(self.connections(), self.constants())

    def constants(self) -> NeuronConstants:
        """Constants of the neurons, with the bias."""
        raise NotImplementedError

    def synapses(self) -> list[tuple[Synapse | SkipSynapse, Tensor]]:
        """The block's own synapses, then those of its skips, each with the weights that the hardware holds."""
        return [(synapse, synapse.quantized_weight(self._scale())) for synapse in (self.synapse, *self.skips)]

    def quantized_weight(self) -> Tensor:
        """The weights of the block's own synapses that the hardware holds: normed, scaled, on their grid."""
        return self.synapse.quantized_weight(self._scale())

    def quantized_bias(self) -> Tensor | None:
        """The bias that the hardware holds, `[channels]` on the grid of 1/64, in units of the input's levels."""
        return None if self.bias is None else quantize_bias(self.bias * self.levels)

    def connections(self) -> tuple[Connection, ...]:
        """What operators take of `synapses`."""
        if self._frozen is not None:
            return self._frozen.connections
        return tuple(synapse.connection(self._scale()) for synapse in (self.synapse, *self.skips))

    def weigh(self, x: Signals, *skipped: Signals) -> Tensor:
        """Weighted input of all synapses: of spikes `[T, N, ...]`, `[1, N, ...]` if steps are alike; or `[N, ...]`."""
        if not isinstance(x, Spikes):
            return self._weigh_rates(x, skipped)
        own, *others = self.connections()
        mask = self._mask(x.shape[1:], x.device)
        z = weigh(x, own) if mask is None else weigh(x.masked(mask != 0), own) / (1 - self.dropout)
        sources = (source for source in skipped if isinstance(source, Spikes))
        return reduce(add, (weigh(*pair) for pair in zip(sources, others, strict=True)), z)

    def _weigh_rates(self, x: Tensor, skipped: Sequence[Signals]) -> Tensor:
        mask, scale = self._mask(x.shape, x.device), self._scale()
        z: Tensor = self.synapse(x if mask is None else x * mask, scale)
        for skip, source in zip(self.skips, skipped, strict=True):
            z = z + skip(source, scale)
        return z

    def _scale(self) -> Tensor | float:
        """What multiplies the weights before they are quantised."""
        return 1.0

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout > 0

    def _mask(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """What dropout multiplies inputs `[N, ...]` by: 0, or more than 1; None without dropout."""
        return dropout_mask(shape, self.dropout, device) if self._drops else None


class SpikingBlock(_SynapticBlock):
    """Dense, convolutional or pooling synapses, then CUBA neurons.

    The bias, and a mean-only norm, enter the voltage as the hardware's bias does; as ANN they count for
    `current_decay` times as much, since a steady weighted input z gives the current z / current_decay.

    Args:
        synapse, neuron, channels, skips, bias, dropout, levels: see `_SynapticBlock`.
        norm: a norm of the weighted input, or None.
        delay_shift: whether an empty step comes first, inside the T steps.
    """

    def __init__(
        self,
        synapse: Synapse,
        neuron: CubaNeuron,
        *,
        channels: int,
        norm: MeanOnly | WeightScale | None = None,
        delay_shift: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(synapse, neuron, channels=channels, **shared)
        self.norm, self.delay_shift = norm, delay_shift
        self.sampler = RateSampler()

    def quantized_bias(self) -> Tensor | None:
        """See `_SynapticBlock`; with that of a mean-only norm."""
        total = super().quantized_bias()
        if isinstance(self.norm, MeanOnly):
            current_decay, _ = self.neuron.quantized_decays()
            mean = self.norm.running_mean * self.levels / current_decay.clamp_min(1 / DECAY_ONE)
            mean = straight_through(mean, torch.round(mean / WEIGHT_STEP) * WEIGHT_STEP)
            total = quantize_bias(-mean if total is None else total - mean)
        return total

    def constants(self) -> NeuronConstants:
        """See `_SynapticBlock`."""
        return self.neuron.constants(self.quantized_bias(), shift=self.delay_shift)

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
        """See `Block`. In SAMPLE mode rates are recorded against what drives the neurons."""
        if not mode.spiking:
            z = self._normed(self.weigh(x, *skipped), channel_axis=1)
            rates: Tensor = _fitted(self.sampler, mode)(self._drive(z, self.quantized_bias()))
            return rates
        sources, weighed = [_as_spikes(each) for each in (x, *skipped)], None
        learns_norm = self.training and self.norm is not None
        if self._drops or learns_norm or any(is_graded(source) for source in sources):
            z = self._normed(self.weigh(*sources), channel_axis=2)
            constants = self.constants()  # with what the norm has learnt
            spikes = fire(z, constants, time_steps)
            if mode is Mode.SAMPLE:
                weighed = z.detach().mean(0)
        else:
            operands = self.operands()
            fired = spiking_layer(sources, operands, weighed=mode is Mode.SAMPLE)
            spikes, constants = fired.spikes, operands.neurons
            if fired.weighed is not None:
                weighed = fired.weighed / time_steps
        if weighed is not None:
            self.sampler.add(self._drive(weighed, constants.bias), count(spikes) / time_steps)
        return spikes

    def _normed(self, z: Tensor, channel_axis: int) -> Tensor:
        """Weighted input, of which the norm has learnt."""
        if self.training and self.norm is not None:
            self.norm.update(z / self.levels, channel_axis)
            if isinstance(self.norm, MeanOnly):
                self.norm.centre_gradient(z, channel_axis)
        return z

    def _scale(self) -> Tensor | float:
        return self.norm.scale() if isinstance(self.norm, WeightScale) else 1.0

    def _drive(self, z: Tensor, bias: Tensor | None) -> Tensor:
        """What the activation is a function of: `z + current_decay * bias` `[N, C, ...]`, in units of an input of 1."""
        if bias is not None:
            current_decay, _ = self.neuron.quantized_decays()
            z = z + (current_decay * bias).to(z.dtype).reshape(-1, *[1] * (z.dim() - 2))
        return z / self.levels if self.levels != 1 else z


class AffineBlock(_SynapticBlock):
    """The readout: weighted input plus bias, no spikes; its mean over time is the logits, in all modes.

    `neuron` only says how the readout neuron of an exported network integrates.
    """

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Tensor:
        """See `Block`. Of spikes their counts are weighed, all steps at once."""
        if not mode.spiking:
            return self.logits_of(self.weigh(x, *skipped), 1)
        counts = [count(_as_spikes(each)) for each in (x, *skipped)]
        return self.logits_of(self._weigh_rates(counts[0], counts[1:]), time_steps)

    def constants(self) -> NeuronConstants:
        """Constants of the neurons that an exported readout has, which never fire."""
        return replace(self.neuron.constants(self.quantized_bias()), threshold=READOUT_THRESHOLD_MANT / MANT)

    def over_time(self, *sources: Spikes) -> Tensor:
        """The weighted input plus bias of each step, `[T, N, classes]` in units of an input of 1."""
        steps = sources[0].steps
        z = self.logits_of(self.weigh(*sources), 1)
        return z.expand(steps, *z.shape[1:])

    def logits_of(self, z: Tensor, time_steps: int) -> Tensor:
        """Logits for the weighted input of so many steps, added up; with the bias, in units of an input of 1."""
        bias = self.quantized_bias()
        z = z if bias is None else z + bias * time_steps
        z = z / time_steps if time_steps != 1 else z
        return (z / self.levels if self.levels != 1 else z).float()


def is_graded(spikes: Spikes) -> bool:
    """Whether spikes may be more than 0 and 1: in float64, or one step that stands for all."""
    return spikes.values is not None and (spikes.values.dtype == torch.float64 or spikes.is_constant)


def _as_spikes(x: Signals) -> Spikes:
    """Spikes, which may be given as numbers `[T, N, ...]`."""
    if isinstance(x, Spikes):
        return x
    return Spikes.of(x.double() if ((x != 0) & (x != 1)).any() else x)
