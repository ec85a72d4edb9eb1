"""Bootstrap blocks: the same weights run as spikes through time, or as rates through the fitted activation.

This file has the module of each kind of block, and in `BUILDERS` the function that builds it from its spec.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import count as count_up
from itertools import repeat
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import DECAY_ONE, MANT, READOUT_THRESHOLD_MANT, WEIGHT_STEP
from bootstrap_core.functional.cuba import StateLimits
from bootstrap_core.functional.quantize import quantize_bias, quantize_delay, quantize_weight, straight_through
from bootstrap_core.functional.sigma_delta import Activation
from bootstrap_core.network.base_block import Block, Place, Signals, SynapticBlock, as_spikes, is_graded
from bootstrap_core.network.batch_norm import SPREAD, BatchNorm, MeanOnly, NormModule, WeightScale, build_norm
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.network.sigma_delta import DeltaInputBlock, SigmaDeltaBlock, SigmaDeltaNeuron, ValueBlock
from bootstrap_core.network.states import NamedStates, named_states
from bootstrap_core.network.steppers import AffineStepper, CubaStepper, InputStepper, Stepper, StreamPlace
from bootstrap_core.network.synapse import ConvSynapse, DenseSynapse, PoolSynapse, Synapse
from bootstrap_core.ops.input_neurons import InputCurrent, input_current, input_rates, input_spikes
from bootstrap_core.ops.library import runs_native
from bootstrap_core.ops.neurons import NeuronConstants, fire
from bootstrap_core.ops.spike_counts import count
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import one_step_of_layer, spiking_layer
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import part_by_delay, weigh, weigh_delayed
from specs.errors import IntegrityError, SnnZooError
from specs.fields import Shape
from specs.layers.block import (
    AffineSpec,
    AverageSpec,
    AvgPoolSpec,
    ConvSpec,
    DelayTarget,
    DenseSpec,
    FlattenSpec,
    LayerSpec,
)
from specs.layers.input import Encoding, InputSpec
from specs.layers.layer import Layer
from specs.layers.neuron import Reset, SigmaDeltaSpec
from specs.network import Output


class InputBlock(Block):
    """Input neurons, one for each pixel, driven by the same current at each step: `weight * (x - mean) / std + bias`.

    With `exact_input` the current is truncated to 1/64 and enters the voltage, where the hardware's bias does.
    Without it, as in lava-dl, the pixel is rounded to the grid of the weights and its current enters the current state.
    """

    def __init__(self, spec: InputSpec, neuron: CubaNeuron, *, delay_shift: bool) -> None:
        super().__init__()
        self.spec, self.neuron, self.delay_shift = spec, neuron, delay_shift
        self.weight = nn.Parameter(torch.tensor([spec.weight]))
        self.bias = nn.Parameter(torch.tensor([spec.bias]))
        self.sampler = RateSampler(subtracts=neuron.spec.reset is Reset.SUBTRACT)
        self._frozen: tuple[NeuronConstants, InputCurrent] | None = None

    def current(self, images: Tensor) -> Tensor:
        """Return the current of each pixel, `[N, *shape]`, for images in 0..1."""
        if self.spec.exact_input:
            return input_current(images, self._scaling())
        x = (images.double() - self.spec.mean) / self.spec.std
        return (quantize_weight(self.weight) * quantize_weight(x) + quantize_weight(self.bias)).float()

    def rates(self, images: Tensor) -> Tensor:
        """Return the rate of each pixel's neuron, `[N, *shape]`: the fitted activation of its current."""
        if self.spec.exact_input:
            return input_rates(images, self._scaling(), *self.sampler.curve)
        activated: Tensor = self.sampler(self.current(images))
        return activated

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Signals:
        if not mode.spiking:
            if mode is Mode.FIT:
                self.sampler.refit()
            return self.rates(x)
        if self.spec.exact_input:
            spikes = input_spikes(x, self._scaling(), self.constants(), time_steps)
        else:
            spikes = fire(self.current(x)[None], self.constants(), time_steps)
        if mode is Mode.SAMPLE:
            self.sampler.add(self.current(x), count(spikes) / time_steps)
        return spikes

    def states_of_run(
        self, arriving: Sequence[Signals], time_steps: int, limits: StateLimits | None = None
    ) -> NamedStates:
        (images,) = arriving
        assert isinstance(images, Tensor)
        return named_states(repeat(self.current(images), time_steps), self.constants(), images.dim(), limits)

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        drives = (self.current(place.feed.out) for _ in repeat(None))
        return CubaStepper(self.constants(), place, drives, is_steady=True)

    def freeze(self) -> None:
        self._frozen = self.constants(), self._scaling()

    def constants(self) -> NeuronConstants:
        if self._frozen is not None:
            return self._frozen[0]
        return self.neuron.constants(shift=self.delay_shift, direct=self.spec.exact_input)

    def _scaling(self) -> InputCurrent:
        if self._frozen is not None:
            return self._frozen[1]
        return InputCurrent(self.weight, self.bias, self.spec.mean, self.spec.std)


class GradedInputBlock(Block):
    """Graded input: pixels as integers of `bits` bits, the same at each step.

    The gradient of pixels within 0..1 passes the rounding unchanged.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Signals:
        levels = x.double().clamp(0, 1) * self.spec.levels
        pixels = straight_through(levels, torch.round(levels))
        # float64: a sum of many large pixels times weights must stay an exact integer.
        return Spikes.of(pixels.expand(time_steps, *pixels.shape)) if mode.spiking else pixels.float()

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:

        def levels(images: Tensor) -> Tensor:
            return as_spikes(self(images, Mode.SNN, 1)).tensor()

        return InputStepper(Spikes.of(levels(place.feed.out)), levels, place.feed)


class EventInputBlock(Block):
    """Input of events: spikes, or small integers, that differ from step to step; as ANN, their mean over time."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, mode: Mode, time_steps: int) -> Signals:
        """See `Block`; `x` is `[T, N, ...]`, of which the first `time_steps` are taken."""
        x = x[:time_steps]
        if not mode.spiking:
            return x.float().mean(0)
        if self.spec.is_graded:
            return Spikes.of(x.double())  # float64: see `GradedInputBlock`
        spikes = Spikes.of(x.float())
        return spikes.packed() if runs_native(x) else spikes

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        spikes = as_spikes(self(place.feed.out.clone(), Mode.SNN, 1))
        return InputStepper(spikes if self.spec.is_graded else spikes.packed(), lambda events: events, place.feed)


class FlattenBlock(Block):
    """Flatten `[..., C, H, W]` to `[..., C * H * W]`."""

    def __init__(self, n_axes: int) -> None:
        super().__init__()
        self.n_axes = n_axes

    def forward(self, x: Signals, mode: Mode, time_steps: int) -> Signals:
        if mode.spiking:
            return as_spikes(x).flatten()
        assert isinstance(x, Tensor)
        return x.flatten(-self.n_axes)

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        return Stepper(reads[0].spikes.flatten(), is_steady=reads[0].is_steady)


class SpikingBlock(SynapticBlock):
    """Dense, convolutional or pooling synapses, then CUBA neurons.

    The bias, and a mean-only norm, enter the voltage as the hardware's bias does; as ANN they count for
    `current_decay` times as much, since a steady weighted input z gives the current z / current_decay.

    With `recurrent` synapses, spikes of a step also drive the block's own neurons in the next one. Such a block has no
    ANN mode: no activation of its input gives its rates.

    Args:
        synapse, neuron, channels, skips, bias, dropout, levels: see `SynapticBlock`.

    Attributes:
        recurrent: synapses from the block's neurons to themselves, or None.
        parts: own synapses of a frozen block with delays, cut by `part_by_delay`; empty otherwise.
        delay: delays of the block's own synapses in steps, `[channels]` or `[outputs, inputs]`, or None; a parameter
            if they are trained.
        longest: longest delay that training may reach.
    """

    neuron: CubaNeuron
    recurrent: DenseSynapse | None
    delay: Tensor | None

    def __init__(
        self,
        synapse: Synapse,
        neuron: CubaNeuron,
        *,
        channels: int,
        norm: NormModule | None = None,
        delay_shift: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(synapse, neuron, channels=channels, **shared)
        self.norm, self.delay_shift, self.recurrent = norm, delay_shift, None
        self.register_buffer("delay", None)
        self.longest = 0
        self.parts: list[tuple[Tensor, Connection]] = []
        self.sampler = RateSampler(subtracts=neuron.spec.reset is Reset.SUBTRACT)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load the tensors; refuse fixed delays that `DelaySpec` rules out. Trained ones are rounded where they run."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.delay is None or self.learns_delay:
            return
        wrong = self.delay[quantize_delay(self.delay, self.longest) != self.delay]
        if len(wrong):
            raise IntegrityError(
                f"{prefix}delay must hold whole time steps from 0 to {self.longest}, got {float(wrong[0]):g}"
            )

    def freeze(self) -> None:
        super().freeze()
        delay = self.quantized_delay()
        if delay is not None:
            self.parts = part_by_delay(self.connections()[0], delay)

    def quantized_bias(self) -> Tensor | None:
        """See `SynapticBlock`; a norm of the mean adds its own."""
        total = super().quantized_bias()
        if isinstance(self.norm, MeanOnly | BatchNorm):
            current_decay, _ = self.neuron.quantized_decays()
            mean = self.norm.mean() * self.levels / current_decay.clamp_min(1 / DECAY_ONE)
            mean = straight_through(mean, torch.round(mean / WEIGHT_STEP) * WEIGHT_STEP)
            total = quantize_bias(-mean if total is None else total - mean)
        return total

    @property
    def learns_delay(self) -> bool:
        """True if the delays are trained."""
        return isinstance(self.delay, nn.Parameter)

    def quantized_delay(self) -> Tensor | None:
        """Return the delays that the hardware holds, whole steps, in the shape of `delay`; None without delays."""
        return quantize_delay(self.delay, self.longest) if self.delay is not None and self.learns_delay else self.delay

    @torch.no_grad()
    def limit_delay(self) -> None:
        """Bring trained delays back into their range, after a step of the optimizer."""
        assert self.delay is not None
        self.delay.clamp_(0, self.longest)

    def constants(self) -> NeuronConstants:
        if self._frozen is not None:
            return self._frozen.neurons
        recurrent = None if self.recurrent is None else self.recurrent.quantized_weight()
        return self.neuron.constants(self.quantized_bias(), shift=self.delay_shift, recurrent=recurrent)

    def weigh_own(self, x: Spikes, connection: Connection) -> Tensor:
        """See `SynapticBlock`; each input arrives after its delay."""
        delay = self.quantized_delay()
        if delay is None:
            return super().weigh_own(x, connection)
        return weigh_delayed(x, self.parts or part_by_delay(connection, delay))

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        if self.delay is None:
            return super().stepper(reads, place)
        sources = [x.spikes for x in reads]
        length = 1 + max(int(delay.max()) for delay, _ in self.parts)
        coming = torch.zeros(length, *place.size, dtype=torch.float64 if is_graded(sources[0]) else torch.float32)
        drives = self._arriving(sources, coming)
        return CubaStepper(self.constants(), place, drives, is_steady=False)

    def _arriving(self, sources: list[Spikes], coming: Tensor) -> Iterator[Tensor]:
        """Yield the weighted input that arrives in each step, `[N, O, ...]`; the rest waits in `coming`, by t."""
        (own, *skipped), length = sources, len(coming)
        for step in count_up():
            for delay, connection in self.parts:
                z = weigh(own, connection)[0]
                coming[(delay + step) % length, :, torch.arange(len(delay))] += z.transpose(0, 1)  # [O, N, ...]
            now = coming[step % length].clone()
            coming[step % length].zero_()
            others = zip(skipped, self.connections()[1:], strict=True)
            yield reduce(add, (weigh(*pair)[0] for pair in others), now)

    def synapses(self) -> list[tuple[Synapse, Tensor]]:
        own = [] if self.recurrent is None else [(self.recurrent, self.recurrent.quantized_weight())]
        return [*super().synapses(), *own]

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
        """See `Block`. SAMPLE mode also records pairs of drive and rate for the activation."""
        if not mode.spiking:
            z = self.weigh(x, *skipped)
            self._update_norm(z, channel_axis=1)
            bias = super().quantized_bias() if self._takes_batch else self.quantized_bias()
            if mode is Mode.FIT:
                self.sampler.refit()
            rates: Tensor = self.sampler(self._drive(z, bias))
            return rates
        sources, weighed = [as_spikes(each) for each in (x, *skipped)], None
        in_steps = self.delay is not None or any(map(is_graded, sources))
        if self._drops or self._learning_norm is not None or in_steps:
            z = self.weigh(*sources)
            self._update_norm(z, channel_axis=2)
            constants = self.constants()  # after the norm was updated, since it changes the bias
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

    @property
    def _learning_norm(self) -> MeanOnly | WeightScale | None:
        """Norm that follows each weighted input in training; None without one, and outside training."""
        return self.norm if self.training and isinstance(self.norm, MeanOnly | WeightScale) else None

    def _update_norm(self, z: Tensor, channel_axis: int) -> None:
        norm = self._learning_norm
        if norm is not None:
            norm.update(z / self.levels, channel_axis)
        if isinstance(norm, MeanOnly):
            norm.centre_gradient(z, channel_axis)

    @property
    def _takes_batch(self) -> bool:
        """True if the norm takes the statistics of the batch in ANN mode."""
        return isinstance(self.norm, BatchNorm) and self.norm.training

    def _normalized(self, z: Tensor) -> Tensor:
        return self.norm.normalize(z, self.levels) if isinstance(self.norm, BatchNorm) and self._takes_batch else z

    def weight_scale(self, synapse: nn.Module) -> Tensor | float:
        if isinstance(self.norm, BatchNorm) and synapse is self.synapse:
            scale = self.norm.scale()
            return (scale.detach() if self._takes_batch else scale).reshape(-1, *[1] * (self.synapse.weight.dim() - 1))
        return self.norm.scale() if isinstance(self.norm, WeightScale) and synapse is not self.recurrent else 1.0

    def _drive(self, z: Tensor, bias: Tensor | None) -> Tensor:
        """Return the activation's argument `z + current_decay * bias`, `[N, C, ...]`, in units of an input of 1."""
        if bias is not None:
            current_decay, _ = self.neuron.quantized_decays()
            z = z + (current_decay * bias).to(z.dtype).reshape(-1, *[1] * (z.dim() - 2))
        return z / self.levels if self.levels != 1 else z


class AffineBlock(SynapticBlock):
    """Affine readout: weighted input plus bias, without spikes. Its mean over time is the logits, in all modes.

    `neuron` has the decays of the readout's neurons in an exported network; logits do not depend on them. With
    `reads_last`, the logits are the weighted input of the last time step alone, plus bias.
    """

    neuron: CubaNeuron

    def __init__(self, *arguments: Any, reads_last: bool, **shared: Any) -> None:
        super().__init__(*arguments, **shared)
        self.reads_last = reads_last

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Tensor:
        """See `Block`. Spikes are counted first, so that all steps are weighed at once."""
        if not mode.spiking:
            return self.logits_of(self.weigh(x, *skipped), 1)
        sources = [as_spikes(each) for each in (x, *skipped)]
        own, *others = (each.tensor()[-1] if self.reads_last else count(each) for each in sources)
        return self.logits_of(self.weigh_rates(own, others), 1 if self.reads_last else time_steps)

    def run_checked(self, arriving: Sequence[Signals], time_steps: int) -> tuple[Signals, int]:
        """See `Block`; the states are those of the neurons that an exported readout has."""
        sources = [x for x in arriving if isinstance(x, Spikes)]
        if any(is_graded(source) for source in sources):
            reached = fire(self.weigh(*sources), self.constants(), time_steps).reached
        else:
            fired = spiking_layer(sources, self.operands(), weighed=not self.reads_last)
            reached = fired.spikes.reached
            if fired.weighed is not None:
                return self.logits_of(fired.weighed, time_steps), reached
        return self(sources[0], Mode.SNN, time_steps, *sources[1:]), reached

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        sources, operands = [x.spikes for x in reads], self.operands()
        return AffineStepper(
            self.reads_last,
            self.logits_of,
            operands.neurons,
            place,
            (self.weigh(*sources)[0] for _ in repeat(None)),
            is_steady=all(x.is_steady for x in reads),
            native=one_step_of_layer(sources, operands, weighed=True),
        )

    def constants(self) -> NeuronConstants:
        """Return the constants of the neurons of an exported readout, which never fire and start at 0."""
        own = self.neuron.constants(self.quantized_bias())
        return replace(own, threshold=READOUT_THRESHOLD_MANT / MANT, initial_voltage=0.0)

    def over_time(self, *sources: Spikes) -> Tensor:
        """Return weighted input plus bias of each step, `[T, N, classes]`, in units of an input of 1."""
        steps = sources[0].steps
        z = self.logits_of(self.weigh(*sources), 1)
        return z.expand(steps, *z.shape[1:])

    def logits_of(self, z: Tensor, time_steps: int | Tensor) -> Tensor:
        """Add the bias to a weighted input summed over `time_steps` steps; return the mean as logits `[N, classes]`."""
        bias = self.quantized_bias() if self._frozen is None else self._frozen.neurons.bias
        z = z if bias is None else z + bias * time_steps
        z = z / time_steps
        return (z / self.levels if self.levels != 1 else z).float()


class AverageBlock(Block):
    """Readout of rates: the mean over groups of consecutive neurons, and over time."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Signals, mode: Mode, time_steps: int) -> Tensor:
        rates = count(as_spikes(x)) / time_steps if mode.spiking else x
        assert isinstance(rates, Tensor)
        return self.groups(rates)

    def over_time(self, *sources: Spikes) -> Tensor:
        return self.groups(sources[0].tensor())

    def stepper(self, reads: Sequence[Stepper], place: StreamPlace) -> Stepper:
        return Stepper(reads[0].spikes, mean=self.groups)

    def groups(self, x: Tensor) -> Tensor:
        """Return the mean of each group of rates or spikes, `[..., features]`, float32."""
        return x.reshape(*x.shape[:-1], self.features, x.shape[-1] // self.features).mean(-1).float()


def _build_input(layer: InputSpec, place: Place) -> Block:
    if layer.encoding is Encoding.GRADED:
        return GradedInputBlock(layer)
    if layer.is_events:
        return EventInputBlock(layer)
    if neuron := _sigma_delta(layer, place, Activation.FRAME):
        return DeltaInputBlock(neuron, delay_shift=place.delay_shift)
    return InputBlock(layer, place.neuron(), delay_shift=place.delay_shift)


def _build_flatten(layer: FlattenSpec, place: Place) -> Block:
    return FlattenBlock(len(place.before))


def _build_pool(layer: AvgPoolSpec, place: Place) -> Block:
    weight = layer.weight(place.network.neuron_of(layer))
    synapse = PoolSynapse(layer.as_conv(place.channels), weight)
    if neuron := _sigma_delta(layer, place):
        return SigmaDeltaBlock(synapse, neuron, channels=place.channels, delay_shift=place.delay_shift)
    return SpikingBlock(synapse, place.neuron(), channels=place.channels, delay_shift=place.delay_shift)


def _build_dense(layer: DenseSpec, place: Place) -> Block:
    block = _build_spiking(layer, place, _dense_synapse(layer, place))
    if layer.recurrent:
        assert isinstance(block, SpikingBlock)
        n = place.channels
        block.recurrent = DenseSynapse(n, n, normalize=False, generator=place.generator)
    return block


def _build_conv(layer: ConvSpec, place: Place) -> Block:
    synapse = ConvSynapse(layer, place.before[0], normalize=layer.weight_norm, generator=place.generator)
    return _build_spiking(layer, place, synapse)


def _dense_synapse(layer: DenseSpec | AffineSpec, place: Place) -> DenseSynapse:
    return DenseSynapse(place.before[0], place.channels, normalize=layer.weight_norm, generator=place.generator)


def _sigma_delta(layer: LayerSpec, place: Place, activation: Activation = Activation.RELU) -> SigmaDeltaNeuron | None:
    spec = place.network.neuron_of(layer)
    return SigmaDeltaNeuron(spec, activation) if isinstance(spec, SigmaDeltaSpec) else None


def _build_spiking(layer: DenseSpec | ConvSpec, place: Place, synapse: Synapse) -> SpikingBlock | SigmaDeltaBlock:
    if neuron := _sigma_delta(layer, place):
        return SigmaDeltaBlock(
            synapse,
            neuron,
            channels=place.channels,
            skips=place.skips(),
            bias=layer.bias,
            delay_shift=place.delay_shift,
        )
    block = SpikingBlock(
        synapse,
        place.neuron(),
        channels=place.channels,
        skips=place.skips(),
        bias=layer.bias,
        dropout=layer.dropout,
        norm=build_norm(layer.norm, place.channels, gain=SPREAD * place.network.neuron_of(layer).threshold),
        delay_shift=place.delay_shift,
        levels=place.levels,
    )
    if layer.delays is not None:
        shape = synapse.weight.shape if layer.delays.per is DelayTarget.SYNAPSE else (place.channels,)
        delay = torch.randint(layer.delays.longest + 1, shape, generator=place.generator).float()
        block.delay, block.longest = nn.Parameter(delay) if layer.delays.learn else delay, layer.delays.longest
    return block


def _build_average(layer: AverageSpec, place: Place) -> Block:
    return AverageBlock(layer.features)


def _build_affine(layer: AffineSpec, place: Place) -> Block:
    if neuron := _sigma_delta(layer, place, Activation.UNIT):
        synapse, skips = _dense_synapse(layer, place), place.skips()
        return ValueBlock(synapse, neuron, channels=place.channels, skips=skips, bias=layer.bias)
    return AffineBlock(
        _dense_synapse(layer, place),
        place.neuron(learn=False),  # no gradient reaches its decays
        channels=place.channels,
        skips=place.skips(),
        bias=layer.bias,
        dropout=layer.dropout,
        levels=place.levels,
        reads_last=place.network.output is Output.LAST,
    )


BUILDERS: Mapping[type[Layer], Callable[[Any, Place], Block]] = {
    InputSpec: _build_input,
    DenseSpec: _build_dense,
    ConvSpec: _build_conv,
    AvgPoolSpec: _build_pool,
    FlattenSpec: _build_flatten,
    AffineSpec: _build_affine,
    AverageSpec: _build_average,
}
"""Builder of each kind of block, called with its spec and its place in the network."""


class OwnBlock(Block):
    """A torch module that takes and gives spikes `[T, N, ...]`; it has no ANN and no integers.

    Args:
        module: called with the spikes of each block that the replaced block reads.
        index: index of the block; 0 is the input.
        shape: shape of the neurons that the next block reads.
    """

    def __init__(self, module: nn.Module, index: int, shape: Shape) -> None:
        super().__init__()
        self.module, self.shape = module, shape
        self.called = f"block {index} ({type(module).__name__})"

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
        read = [as_spikes(each).tensor().float() for each in (x, *skipped)]
        spikes = self.module(*read)
        wanted = [time_steps, read[0].shape[1], *self.shape]
        if list(spikes.shape) != wanted:
            raise SnnZooError(f"{self.called}: must give spikes [T, N, ...], here {wanted}, got {list(spikes.shape)}")
        return as_spikes(spikes)
