"""Bootstrap blocks: the same weights run as spikes through time, or as rates through the fitted activation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import DECAY_ONE, WEIGHT_STEP
from bootstrap_core.functional.dropout import dropout_mask
from bootstrap_core.functional.quantize import quantize_bias, quantize_weight, straight_through, truncate_current
from bootstrap_core.network.batch_norm import MeanOnly, WeightScale
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.network.spikes import InputRates, Spikes, SteadyInput
from bootstrap_core.network.synapse import DenseSynapse, SkipSynapse, Synapse, geometry_of
from specs.block import InputSpec

__all__ = [
    "AffineBlock",
    "Block",
    "Carried",
    "FlattenBlock",
    "GradedInputBlock",
    "InputBlock",
    "SpikingBlock",
    "packed",
]


Carried = Tensor | Spikes | SteadyInput | InputRates
"""What goes from block to block in a network."""


def packed(x: Carried) -> Tensor | Spikes:
    """Input neurons that have not run, run."""
    if isinstance(x, InputRates):
        return x.tensor()
    return x.spikes() if isinstance(x, SteadyInput) else x


def _floats(x: Carried) -> Tensor:
    x = packed(x)
    return x.tensor() if isinstance(x, Spikes) else x


class Block(nn.Module):
    """Base of all blocks.

    `forward(x, mode, time_steps, *skipped)` takes and gives spikes `[T, N, ...]` in spiking modes, rates `[N, ...]`
    otherwise. A tensor with one step where `time_steps` is more stands for that step repeated. `skipped` are what the
    sources of the block's skips gave.
    """

    if TYPE_CHECKING:  # nn.Module leaves it untyped

        def __call__(self, x: Tensor | InputRates, mode: Mode, time_steps: int, *skipped: Tensor) -> Tensor:
            """`forward`; rates that are still to be computed are for dense synapses."""

    @property
    def same_in_training(self) -> bool:
        """Whether it does to its input in training what it does in inference, and nothing of it learns in passing."""
        return True

    def carry(self, x: Carried, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """The same as `forward`, bit for bit, with spikes packed where a kernel takes or gives them so."""
        return self(_floats(x), mode, time_steps, *map(_floats, skipped))


def _fire(
    neuron: CubaNeuron,
    sampler: RateSampler,
    z: Tensor,
    drive: Tensor,
    mode: Mode,
    shift: bool,
    **options: Tensor | None,
) -> Tensor:
    """Spikes of `z` `[T, N, ...]`; in SAMPLE mode their rates are recorded against `drive` `[N, ...]`."""
    spikes: Tensor = neuron(z, **options).spikes
    if shift:
        spikes = torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]])
    if mode is Mode.SAMPLE:
        sampler.add(drive, spikes.mean(0))
    return spikes


def _fire_packed(
    neuron: CubaNeuron, sampler: RateSampler, z: Tensor, drive: Tensor, mode: Mode, **options: Tensor | None
) -> Spikes:
    """`_fire` without an empty step, in packed spikes."""
    spikes = neuron.fire(z, **options)
    if mode is Mode.SAMPLE:
        sampler.add(drive, spikes.totals() / len(z))
    return spikes


def _fitted(sampler: RateSampler, mode: Mode) -> RateSampler:
    """The activation; in FIT mode it is fitted first."""
    if mode is Mode.FIT:
        sampler.fit()
        sampler.clear()
    return sampler


def _with_channels_last(places: Tensor, channels: int, n_places: int) -> tuple[Tensor, Tensor]:
    """Where numbers at `places` of `[N, C, P]` are in `[N, P, C]`, and their channels."""
    if n_places == 1:
        return places, places % channels
    of_image = places % (channels * n_places)
    channel = of_image // n_places
    place = of_image - channel * n_places
    return places - of_image + place * channels + channel, channel


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

    def current(self, images: Tensor) -> Tensor:
        """Current of each pixel, `[N, *shape]`, for images in 0..1; float64 inside, so that truncation is exact."""
        if self._runs_compiled(images):
            from bootstrap_core.kernels.input_op import input_current

            current: Tensor = input_current(images, self.weight, self.bias, self.spec.mean, self.spec.std)
            return current
        weight, bias = quantize_weight(self.weight), quantize_weight(self.bias)
        x = (images.double() - self.spec.mean) / self.spec.std
        if self.spec.exact_input:
            return truncate_current(weight * x + bias).float()
        return (weight * quantize_weight(x) + bias).float()

    def rates(self, images: Tensor) -> Tensor:
        """What the activation gives for the `current` of each pixel, `[N, *shape]`."""
        return _floats(self._pending_rates(images))

    def _pending_rates(self, images: Tensor) -> Tensor | InputRates:
        """The same, where a kernel gives them still to be computed."""
        if images.requires_grad or not (self._runs_compiled(images) and self.sampler.runs_compiled(images)):
            activated: Tensor = self.sampler(self.current(images))
            return activated
        return InputRates(images, self.weight, self.bias, self.spec.mean, self.spec.std, *self.sampler.curve)

    def _runs_compiled(self, images: Tensor) -> bool:
        return self.spec.exact_input and images.dtype == torch.float32 and self.neuron.runs_compiled(images)

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Tensor:
        """See `Block`."""
        if not mode.spiking:
            _fitted(self.sampler, mode)
            return self.rates(x)
        current = self.current(x)
        z = current.expand(time_steps, *current.shape)
        return _fire(self.neuron, self.sampler, z, current, mode, self.delay_shift, current_decay=self._current_decay())

    def carry(self, x: Carried, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """See `Block`."""
        assert isinstance(x, Tensor)
        if not mode.spiking and self._learns():
            _fitted(self.sampler, mode)
            return self._pending_rates(x)
        if not mode.spiking or self.delay_shift or not len(x) or not self.neuron.runs_compiled(x, steps=time_steps):
            return self(x, mode, time_steps)
        plain = x.dtype == torch.float32 and not x.requires_grad
        if self.spec.exact_input and plain and not self.neuron.learns:
            scaling = self.weight, self.bias, self.spec.mean, self.spec.std
            steady = SteadyInput(x, *scaling, time_steps, self.neuron.voltage_decay, self.neuron.constants)
            if mode is Mode.SAMPLE:
                self.sampler.add_some(x.numel(), steady.pairs_at)
            return steady
        current = self.current(x)
        z = current.expand(time_steps, *current.shape)
        return _fire_packed(self.neuron, self.sampler, z, current, mode, current_decay=self._current_decay())

    def _learns(self) -> bool:
        """Whether this pass is one to learn from, as it is, not by a compiler or in other types."""
        watched = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
        return torch.is_grad_enabled() and not watched and (self.weight.requires_grad or self.bias.requires_grad)

    def _current_decay(self) -> Tensor | None:
        """Entering the voltage is what a current state that forgets everything at once does."""
        return torch.ones_like(self.neuron.current_decay) if self.spec.exact_input else None


class GradedInputBlock(Block):
    """Pixels as integers of `bits` bits, the same each step: one step `[1, N, *shape]` that stands for all.

    The gradient of pixels within 0..1 goes straight through the rounding.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Tensor:
        """See `Block`."""
        levels = x.double().clamp(0, 1) * self.spec.levels
        pixels = straight_through(levels, torch.round(levels))
        # float64: a sum of many large pixels times weights must stay an exact integer.
        return pixels.unsqueeze(0) if mode.spiking else pixels.float()


class FlattenBlock(Block):
    """`[..., C, H, W]` to `[..., C * H * W]`."""

    def __init__(self, n_axes: int) -> None:
        super().__init__()
        self.n_axes = n_axes

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Tensor:
        """See `Block`."""
        return x.flatten(-self.n_axes)

    def carry(self, x: Carried, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """See `Block`."""
        return x.flatten(-self.n_axes)


class _SynapticBlock(Block):
    """What blocks with synapses share: dropout of inputs, weighted input, bias.

    Args:
        synapse: gives the weighted input.
        skips: give what is added to it, from the outputs of earlier blocks.
        channels: of the output.
        bias: whether there is one to learn; in units of an input of 1.
        dropout: part of the inputs of `synapse` silenced in training, for all of an image's steps.
        levels: largest value of the input: above 1 only for a block that takes graded input.
    """

    bias: Tensor | None

    def __init__(
        self, synapse: Synapse, *, skips: Sequence[SkipSynapse], channels: int, bias: bool, dropout: float, levels: int
    ) -> None:
        super().__init__()
        self.synapse, self.dropout, self.levels = synapse, dropout, levels
        self.skips = nn.ModuleList(skips)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if bias else None)

    @property
    def same_in_training(self) -> bool:
        """See `Block`."""
        return self.dropout == 0

    def synapses(self) -> list[tuple[Synapse | SkipSynapse, Tensor]]:
        """The block's own synapses, then those of its skips, each with the weights that the hardware holds."""
        return [(synapse, synapse.quantized_weight(self._scale())) for synapse in (self.synapse, *self.skips)]

    def quantized_weight(self) -> Tensor:
        """The weights of the block's own synapses that the hardware holds: normed, scaled, on their grid."""
        return self.synapse.quantized_weight(self._scale())

    def weigh(
        self,
        x: Tensor | Spikes | InputRates,
        skipped: Sequence[Tensor | Spikes],
        mode: Mode,
        weighed: Tensor | None = None,
    ) -> Tensor:
        """Weighted input of all synapses; `weighed` that of the first, where it is known but for its gradient."""
        scale = self._scale()
        z: Tensor = self.synapse(self.dropped(x, mode), scale, weighed)
        for skip, source in zip(self.skips, skipped, strict=True):
            z = z + skip(source, scale)
        return z

    def _scale(self) -> Tensor | float:
        """What multiplies the weights before they are quantised."""
        return 1.0

    def carry(self, x: Carried, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """See `Block`."""
        if isinstance(x, InputRates) and isinstance(self.synapse, DenseSynapse) and not self._drops:
            return self(x, mode, time_steps, *map(_floats, skipped))
        return super().carry(x, mode, time_steps, *skipped)

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout > 0

    def dropped(self, x: Tensor | Spikes | InputRates, mode: Mode) -> Tensor | Spikes | InputRates:
        """Inputs after dropout: one mask for all steps, survivors scaled up."""
        if not self._drops:
            return x
        mask = self.mask((x.values if isinstance(x, Spikes) else x)[0] if mode.spiking else _floats(x))
        return x if mask is None else _floats(x) * mask

    def mask(self, like: Tensor) -> Tensor | None:
        """What dropout multiplies inputs `[N, ...]` by, or None."""
        if not self._drops:
            return None
        return dropout_mask(like.shape, self.dropout, like.device)


class SpikingBlock(_SynapticBlock):
    """Dense, convolutional or pooling synapses, then CUBA neurons.

    The bias, and a mean-only norm, enter the voltage as the hardware's bias does; as ANN they count for
    `current_decay` times as much, since a steady weighted input z gives the current z / current_decay.

    Args:
        synapse, skips, channels, bias, dropout, levels: see `_SynapticBlock`.
        neuron: the neurons.
        norm: a norm of the weighted input, or None.
        delay_shift: whether an empty step comes first, inside the T steps.
    """

    def __init__(
        self,
        synapse: Synapse,
        neuron: CubaNeuron,
        *,
        channels: int,
        skips: Sequence[SkipSynapse] = (),
        bias: bool = False,
        dropout: float = 0.0,
        norm: MeanOnly | WeightScale | None = None,
        delay_shift: bool = False,
        levels: int = 1,
    ) -> None:
        super().__init__(synapse, skips=skips, channels=channels, bias=bias, dropout=dropout, levels=levels)
        self.neuron, self.norm, self.delay_shift = neuron, norm, delay_shift
        self.sampler = RateSampler()

    @property
    def same_in_training(self) -> bool:
        """See `Block`."""
        return super().same_in_training and self.norm is None

    def quantized_bias(self) -> Tensor | None:
        """The bias that the hardware holds, `[channels]` on the grid of 1/64, in units of the input's levels."""
        total = None
        if self.bias is not None:
            total = quantize_bias(self.bias * self.levels)
        if isinstance(self.norm, MeanOnly):
            current_decay, _ = self.neuron.quantized_decays()
            mean = self.norm.running_mean * self.levels / current_decay.clamp_min(1 / DECAY_ONE)
            mean = straight_through(mean, torch.round(mean / WEIGHT_STEP) * WEIGHT_STEP)
            total = quantize_bias(-mean if total is None else total - mean)
        return total

    def forward(
        self, x: Tensor | InputRates, mode: Mode, time_steps: int, *skipped: Tensor, weighed: Tensor | None = None
    ) -> Tensor:
        """See `Block`, and `weigh` for `weighed`."""
        z, bias = self._normed(x, skipped, mode, weighed), self.quantized_bias()
        if not mode.spiking:
            rates: Tensor = _fitted(self.sampler, mode)(self._drive(z, bias))
            return rates
        z, drive = self._over_time(z, bias, mode, time_steps)
        return _fire(self.neuron, self.sampler, z, drive, mode, self.delay_shift, bias=bias)

    def carry(self, x: Carried, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """See `Block`."""
        if not mode.spiking or self.delay_shift:
            return super().carry(x, mode, time_steps, *skipped)
        unpacked = any(isinstance(arriving, Tensor) for arriving in (x, *skipped))
        alone = not (self.neuron.learns or skipped or unpacked or self.norm is not None)
        spec = None if isinstance(self.synapse, DenseSynapse) else self.synapse.spec
        geometry = [] if spec is None else geometry_of(spec)
        plain = alone and not self._drops
        if isinstance(x, SteadyInput) and plain and (spec.groups == 1 if spec else x.images.dim() == 2):
            weight, bias = self.synapse.quantized_weight(), self.quantized_bias()
            return self._sampled(*self.neuron.weigh_steady(x, weight, geometry, bias), bias, mode)
        x = packed(x)
        if not (isinstance(x, Spikes) and (plain if spec else alone)):
            return self._carry_floats(x, mode, time_steps, *skipped)
        weight, bias, unit = self.synapse.quantized_weight(), self.quantized_bias(), WEIGHT_STEP
        if spec is not None:
            spikes, z = self.neuron.convolve_and_fire(x, weight, geometry, spec.groups, bias)
        else:
            mask = self.mask(x.values[0])
            survivor = 1.0 if mask is None else 1 / (1 - self.dropout)
            spikes, z = self.neuron.weigh_and_fire(x, weight, bias, mask, survivor)
            unit *= survivor
        return self._sampled(spikes, z, bias, mode, unit=unit)

    def _carry_floats(self, x: Tensor | Spikes, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """`carry` with floats from the synapses to the neurons, for what no kernel does at once."""
        z = self._normed(packed(x), [packed(source) for source in skipped], mode)
        bias = self.quantized_bias()
        z, drive = self._over_time(z, bias, mode, time_steps)
        if self.neuron.runs_compiled(z):
            return _fire_packed(self.neuron, self.sampler, z, drive, mode, bias=bias)
        return _fire(self.neuron, self.sampler, z, drive, mode, self.delay_shift, bias=bias)

    def _normed(
        self,
        x: Tensor | Spikes | InputRates,
        skipped: Sequence[Tensor | Spikes],
        mode: Mode,
        weighed: Tensor | None = None,
    ) -> Tensor:
        """Weighted input, of which the norm has learnt."""
        z = self.weigh(x, skipped, mode, weighed)
        if self.training and self.norm is not None:
            channel_axis = 2 if mode.spiking else 1
            self.norm.update(z / self.levels, channel_axis)
            if isinstance(self.norm, MeanOnly):
                self.norm.centre_gradient(z, channel_axis)
        return z

    def _over_time(self, z: Tensor, bias: Tensor | None, mode: Mode, time_steps: int) -> tuple[Tensor, Tensor]:
        """`z` of all steps, and what SAMPLE records beside the spikes; in other modes something of its shape."""
        drive = self._drive(z.mean(0), bias) if mode is Mode.SAMPLE else z[0]
        return z.expand(time_steps, *z.shape[1:]), drive

    def _sampled(
        self, spikes: Spikes, z: Tensor, bias: Tensor | None, mode: Mode, *, unit: float = WEIGHT_STEP
    ) -> Spikes:
        """`spikes`, recorded in SAMPLE mode; `z` is the weighted input in whole numbers, of which 1 is `unit`.

        It is `[T, N, C]`, or `[T, N, P, C]` of the places of a convolution.
        """
        if mode is Mode.SAMPLE:
            from bootstrap_core.kernels.count_op import add_up_at

            steps, n, channels, n_places = len(z), z.shape[1], z.shape[-1], z[0, 0, ..., 0].numel()
            fired = spikes.values.flatten(3).movedim(2, -1) if z.dim() == 4 else spikes.values  # in the order of z

            def pairs_at(places: Tensor) -> tuple[Tensor, Tensor]:
                at, channel = _with_channels_last(places, channels, n_places)
                weighed, spiked = add_up_at(z.flatten(1), fired.flatten(1), at)
                drive = self._drive(weighed * unit / steps, None if bias is None else bias[channel])
                return drive, spiked / steps

            self.sampler.add_some(n * channels * n_places, pairs_at)
        return spikes

    def _scale(self) -> Tensor | float:
        return self.norm.scale() if isinstance(self.norm, WeightScale) else 1.0

    def _drive(self, z: Tensor, bias: Tensor | None) -> Tensor:
        """What the activation is a function of: `z + current_decay * bias` `[N, C, ...]`, in units of an input of 1."""
        if bias is not None:
            current_decay, _ = self.neuron.quantized_decays()
            z = z + (current_decay * bias).to(z.dtype).reshape(-1, *[1] * (z.dim() - 2))
        return z / self.levels if self.levels != 1 else z


class AffineBlock(_SynapticBlock):
    """The readout: weighted input plus bias, no spikes; its mean over time is the logits.

    `neuron` only says how the readout neuron of an exported network integrates.
    """

    def __init__(
        self,
        synapse: Synapse,
        neuron: CubaNeuron,
        *,
        channels: int,
        skips: Sequence[SkipSynapse] = (),
        bias: bool,
        dropout: float,
        levels: int,
    ) -> None:
        super().__init__(synapse, skips=skips, channels=channels, bias=bias, dropout=dropout, levels=levels)
        self.neuron = neuron

    def quantized_bias(self) -> Tensor | None:
        """The bias that the hardware holds, `[channels]` on the grid of 1/64."""
        return None if self.bias is None else quantize_bias(self.bias * self.levels)

    def forward(self, x: Tensor | InputRates, mode: Mode, time_steps: int, *skipped: Tensor) -> Tensor:
        """See `Block`."""
        z = self.weigh(x, skipped, mode)
        bias = self.quantized_bias()
        z = z if bias is None else z + bias
        return (z / self.levels if self.levels != 1 else z).float()

    def carry(self, x: Carried, mode: Mode, time_steps: int, *skipped: Carried) -> Carried:
        """See `Block`; for packed spikes the sum over all steps `[1, N, C]`, weighed at once, over their number."""
        x = packed(x) if mode.spiking else x
        if not isinstance(x, Spikes) or skipped:
            return super().carry(x, mode, time_steps, *skipped)
        counts = x.totals()
        mask = self.mask(counts)
        z: Tensor = self.synapse(counts if mask is None else counts * mask)
        bias = self.quantized_bias()
        return ((z if bias is None else z + bias * time_steps) / time_steps).unsqueeze(0)
