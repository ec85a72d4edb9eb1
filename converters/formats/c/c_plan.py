"""Plan of a network's C source, from the spec alone: its populations, its synapses, and what they cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bootstrap_core.fixed_point import DECAY_ONE, MANT, MESSAGE, SIGMA
from specs.fields import Shape
from specs.layers.block import (
    AffineSpec,
    AverageSpec,
    AvgPoolSpec,
    ConvSpec,
    DelaySpec,
    DelayTarget,
    DenseSpec,
    FlattenSpec,
    IdentitySkip,
    LayerSpec,
    Norm,
    skips_of,
)
from specs.layers.input import Encoding, InputSpec
from specs.layers.layer import Layer
from specs.layers.neuron import CubaSpec, LearnDecays
from specs.network import NetworkSpec, Output
from specs.summary import summarize

__all__ = ["CCosts", "Plan", "Population", "Stage", "Synapses", "c_costs", "plan_of"]

GREY_LEVELS = 256
"""Values of a pixel, one byte."""
WORD = 4
"""Bytes of an int32_t, to which the state is aligned."""
CONV_NUMBERS = 15
"""Numbers in the C record of a convolution, `conv_shape`."""
LAYER_NUMBERS, SENDING_NUMBERS = 9, 5
"""Numbers and pointers in the C record of a layer's neurons, `layer`, on a 32-bit processor: CUBA and sigma-delta."""
CYCLES_OF_NEURON, CYCLES_OF_DELAY = 80, 20
"""Rough cycles of a Cortex-M4 for a step of a neuron, and what is added if its input has a delay.

`make check-c` counts the instructions of gcc -O2, about a quarter less.
"""
CYCLES_OF_DENSE, CYCLES_OF_CONV, CYCLES_OF_GRADED, CYCLES_OF_DELAYED = 4.5, 10, 8, 20
"""The same for a synaptic operation: in a dense layer, in a convolution, of a graded pixel, and with its own delay."""


@dataclass(frozen=True)
class Population:
    """Outputs of a layer as the C source holds them: maps with their channels last.

    The place of a neuron is `(row * width + column) * channels + channel`; a flat layer has one row and one column.

    Attributes:
        index: index of the layer in the network; 0 is the input.
        channels, height, width: size of the maps.
        has_current: whether the current outlasts a step, so that it is stored.
        shift: whether spikes leave a step later.
    """

    index: int
    channels: int
    height: int
    width: int
    has_current: bool = False
    shift: bool = False

    @property
    def name(self) -> str:
        """Name in the C source, such as `block2`."""
        return f"block{self.index}" if self.index else "input"

    @property
    def plane(self) -> int:
        """Number of places of a map."""
        return self.height * self.width

    @property
    def in_pixel_order(self) -> bool:
        """True if the places are also those in the order channel, row, column."""
        return self.channels == 1 or self.plane == 1

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.channels * self.plane


@dataclass(frozen=True)
class Synapses:
    """Synapses from a population to the neurons of a stage.

    Those of a recurrent block to itself have its own neurons as source.

    Attributes:
        name: name of the weights in the C source.
        source: the population that they read.
        layer: the layer that computes them: dense, or a convolution.
        n_weights: number of weights.
        identity: whether they go from each neuron to the one at the same place.
        flattened: whether maps are read as a flat layer, in the order channel, row, column.
        recurrent: whether they read what the neurons themselves did in the step before.
    """

    name: str
    source: Population
    layer: Layer
    n_weights: int
    identity: bool = False
    flattened: bool = False
    recurrent: bool = False

    @property
    def convolution(self) -> ConvSpec | None:
        """Geometry of a convolution; None for dense synapses and for identities."""
        return self.layer if isinstance(self.layer, ConvSpec) and not self.identity else None

    @property
    def is_dense(self) -> bool:
        """True if every input reaches every output."""
        return not self.identity and self.convolution is None

    @property
    def shape_name(self) -> str:
        """Name of the geometry of a convolution in the C source."""
        return self.name.replace("_weights", "_shape")

    @property
    def words(self) -> str:
        """Kind of the synapses and their source, for people.

        >>> pixels = Population(0, 1, 28, 28)
        >>> Synapses("block1_weights", pixels, ConvSpec(channels=8, kernel=3, stride=2, padding=1), 72).words
        'conv 3x3 of input, stride 2x2, padding 1x1'
        """
        spec = self.convolution
        if self.recurrent:
            return "itself, a step late"
        if spec is None:
            return f"{'identity' if self.identity else 'dense'} of {self.source.name}"
        parts = [f"conv {spec.kernel[0]}x{spec.kernel[1]} of {self.source.name}"]
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1))):
            if (value := getattr(spec, name)) != default:
                parts.append(f"{name} {'x '[len(value) > 2].join(map(str, value))}")
        return ", ".join([*parts, *([f"{spec.groups} groups"] if spec.groups > 1 else [])])


@dataclass(frozen=True)
class Stage:
    """Block with synapses: its own, those of its skips, and those of a recurrent block to itself.

    `outputs` are its neurons; those of an affine readout stand for its sums.
    """

    layer: LayerSpec
    outputs: Population
    synapses: tuple[Synapses, ...]

    @property
    def own(self) -> Synapses:
        """Synapses from the block before, which delays apply to."""
        return self.synapses[0]

    @property
    def others(self) -> tuple[Synapses, ...]:
        """Synapses of skips, and of a recurrent block to itself."""
        return self.synapses[1:]

    @property
    def delays(self) -> DelaySpec | None:
        """Delays of its own synapses; None if there are none, or none longer than 0."""
        delays: DelaySpec | None = getattr(self.layer, "delays", None)
        return delays if delays is not None and delays.longest else None

    @property
    def delays_each_weight(self) -> bool:
        """True if each weight has a delay of its own."""
        return self.delays is not None and self.delays.per is DelayTarget.SYNAPSE

    @property
    def rows(self) -> int:
        """Number of steps in which what arrives now can reach the neurons: 1 and the longest delay."""
        return 1 + (self.delays.longest if self.delays else 0)

    @property
    def is_affine(self) -> bool:
        """True for a readout without spikes."""
        return isinstance(self.layer, AffineSpec)


@dataclass(frozen=True)
class Plan:
    """Everything about the C source of a network except its numbers.

    Attributes:
        spec: spec of the network.
        input: the pixels with their padding, or the events, as maps with their channels last.
        stages: blocks with synapses, in order.
        last: population that the readout reads, or of an affine readout its sums.
    """

    spec: NetworkSpec
    input: Population
    stages: tuple[Stage, ...]
    last: Population

    @property
    def is_graded(self) -> bool:
        """True if pixels enter the first synapses as integers."""
        return self.spec.input.encoding is Encoding.GRADED

    @property
    def is_events(self) -> bool:
        """True if the input is events, which have no neurons."""
        return self.spec.input.is_events

    @property
    def is_timed(self) -> bool:
        """True if the input differs from step to step: events, or frames."""
        return self.spec.input.is_timed

    @property
    def sends_messages(self) -> bool:
        """True for sigma-delta neurons, which send numbers; the output is values."""
        return self.spec.gives_values

    @property
    def counts_events(self) -> bool:
        """True if an input may have several events in a step."""
        return self.is_events and self.spec.input.is_graded

    def has_counts(self, source: Population) -> bool:
        """Return whether spikes of a source carry a number that multiplies its weights.

        Those are graded pixels, counts of events, and messages.
        """
        return self.sends_messages or (source is self.input and (self.is_graded or self.counts_events))

    @property
    def sum_bytes(self) -> int:
        """Bytes of a weighted input. Those of messages of 18 bits may need more than 32 bits."""
        return 2 * WORD if self.sends_messages else WORD

    @property
    def most_events(self) -> int:
        """Largest number of events of an input in a step."""
        return self.spec.input.largest

    @property
    def input_bytes(self) -> int:
        """Bytes of a pixel, of a number of events, or of a pixel of a frame."""
        return 2 if self.is_timed and self.spec.input.bits > 8 else 1

    @property
    def is_padded(self) -> bool:
        """True if `input.padding` adds pixels to the images."""
        return any(self.spec.input.padding)

    @property
    def n_inputs(self) -> int:
        """Number of pixels of an image, or of inputs that have events."""
        return math.prod(self.spec.input.shape)

    @property
    def n_classes(self) -> int:
        """Number of logits, or of values."""
        return self.spec.n_classes

    @property
    def affine(self) -> Stage | None:
        """Last stage if it is an affine readout; None if the readout counts spikes, or adds up messages."""
        return self.stages[-1] if self.stages and self.stages[-1].is_affine else None

    @property
    def group(self) -> int:
        """Number of neurons whose spikes are the logit of a class: above 1 for a readout that averages."""
        return self.last.size // self.n_classes

    @property
    def spiking(self) -> list[Population]:
        """Populations whose spikes are listed, input first."""
        inputs = [] if self.is_graded else [self.input]
        return [*inputs, *(stage.outputs for stage in self.stages if not stage.is_affine)]

    @property
    def neurons(self) -> list[Population]:
        """Populations of neurons, input first."""
        return self.spiking[self.is_events :]

    def stage_of(self, neurons: Population) -> Stage | None:
        """Return the stage of a population; None for the input."""
        return next((stage for stage in self.stages if stage.outputs is neurons), None)

    def is_driven(self, stage: Stage) -> bool:
        """Return whether a stage's own synapses weigh graded pixels, once for a picture."""
        return self.is_graded and stage is self.stages[0]

    def sums_in_readout(self, stage: Stage) -> bool:
        """Return whether weighted inputs are added to the readout at once, without a check of 24 bits."""
        return stage.is_affine and not self.sends_messages

    @property
    def index_bytes(self) -> int:
        """Bytes of the place of a neuron: 2 if all places fit."""
        return 2 if max(each.size for each in (self.input, *self.spiking)) <= 1 << 16 else 4

    @property
    def largest(self) -> int:
        """Number of neurons of the largest population, whose weighted inputs are summed together; 0 without one."""
        checked = [stage.outputs for stage in self.stages if stage.is_affine and not self.sums_in_readout(stage)]
        return max((each.size for each in [*self.neurons, *checked]), default=0)

    @property
    def reads_last(self) -> bool:
        """True if the logits are those of the last step alone."""
        return self.spec.output is Output.LAST

    @property
    def step_unit(self) -> int:
        """Divisor that turns the C source's logits after one step, or values after any, into those of the network."""
        if self.sends_messages:
            return SIGMA if self.affine else MESSAGE
        if self.affine is None:
            return self.group
        return MANT * (self.spec.input.levels if self.affine.outputs.index == 1 else 1)

    @property
    def logit_unit(self) -> int:
        """Divisor that turns the C source's logits after T steps into those of the network."""
        return self.unit_after(self.spec.time_steps)

    def unit_after(self, steps: int) -> int:
        """Return the divisor that turns the C source's logits after `steps` steps into those of the network."""
        return self.step_unit * (1 if self.reads_last else steps)

    @cached_property
    def state_bytes(self) -> int:
        """Size of the state in RAM, without the stack."""
        total = 2 * WORD + self.sum_bytes * self.largest + WORD * self.n_classes
        if self.is_graded:
            total += WORD * self.stages[0].outputs.size
        elif not self.is_timed:
            total += _aligned(self.n_inputs)
        for each in self.spiking:
            lists = self.index_bytes * each.size * (1 + each.shift)
            if each is self.input and self.counts_events:
                lists = _padded(lists, self.input_bytes) + self.input_bytes * each.size
            total += WORD * (1 + each.shift) + _aligned(lists)
            if self.sends_messages:
                total += WORD * each.size * (1 + each.shift)
        for each in self.neurons:
            total += WORD * each.size * (1 + each.has_current + (self.sends_messages and each is not self.input))
        total += sum(WORD * stage.rows * stage.outputs.size for stage in self.stages if stage.delays)
        return _padded(total, self.sum_bytes)


def _aligned(n_bytes: int) -> int:
    return _padded(n_bytes, WORD)


def _padded(n_bytes: int, unit: int) -> int:
    return -(-n_bytes // unit) * unit


def plan_of(spec: NetworkSpec) -> Plan:
    """Return the plan of a network; `c_writer.spec_problems` names what the C source cannot express."""
    held: list[Population] = []  # where the output of each layer lies
    stages: list[Stage] = []
    for i, (layer, shape) in enumerate(zip(spec.layers, spec.shapes, strict=True)):
        if isinstance(layer, FlattenSpec):
            held.append(held[-1])
            continue
        if isinstance(layer, AverageSpec):
            continue  # it averages the spikes of the last population
        outputs = _population(spec, i, layer, shape)
        if i:
            before = spec.shapes[i - 1]
            own = _synapses(f"block{i}_weights", held[-1], _as_layer(layer, before), before)
            skips = (
                _synapses(
                    f"block{i}_skip{k}_weights",
                    held[skip.source],
                    skip.as_layer(spec.shapes[skip.source], shape)[0],
                    spec.shapes[skip.source],
                    identity=isinstance(skip, IdentitySkip),
                )
                for k, skip in enumerate(skips_of(layer))
            )
            n = layer.own_fan_out  # of a recurrent block, the number of its neurons
            recurrent = Synapses(f"block{i}_recurrent_weights", outputs, layer, n * n, recurrent=True)
            stages.append(Stage(layer, outputs, (own, *skips, *([recurrent] if n else []))))
        held.append(outputs)
    return Plan(spec, held[0], tuple(stages), held[-1])


def _population(spec: NetworkSpec, index: int, layer: LayerSpec, shape: Shape) -> Population:
    channels, height, width = (*shape, 1, 1)[:3]
    neuron = spec.neuron_of(layer)
    direct = isinstance(layer, InputSpec) and (layer.exact_input or not layer.has_neurons)
    forgets = not isinstance(neuron, CubaSpec) or (
        round(DECAY_ONE * neuron.current_decay) == DECAY_ONE and neuron.learn_decays is LearnDecays.NONE
    )
    return Population(
        index,
        channels,
        height,
        width,
        has_current=not (direct or forgets),
        shift=spec.delay_shift_of(layer),
    )


def _as_layer(layer: LayerSpec, before: Shape) -> Layer:
    return layer.as_conv(before[0]) if isinstance(layer, AvgPoolSpec) else layer


def _synapses(name: str, source: Population, layer: Layer, before: Shape, *, identity: bool = False) -> Synapses:
    seen = (math.prod(before),) if isinstance(layer, DenseSpec | AffineSpec) else (*before, 1, 1)[:3]
    n_weights = before[0] if identity else layer.n_weights(seen) - layer.own_fan_out**2
    return Synapses(name, source, layer, n_weights, identity, flattened=len(before) == 1 and source.plane > 1)


@dataclass(frozen=True)
class CCosts:
    """Costs of the C source of a network on a 32-bit processor.

    Attributes:
        flash_bytes: weights and other constants, without code.
        ram_bytes: the state, without the stack.
        neurons: neurons that are updated in each step.
        step_synops: synaptic operations of a step.
        picture_synops: those done once for a picture: graded pixels, whose sums are the same at each step.
        step_cycles, picture_cycles: rough cycles of a Cortex-M4 of a step, and of all T steps of a picture or of a
            recording.
    """

    flash_bytes: int
    ram_bytes: int
    neurons: int
    step_synops: float
    picture_synops: float
    step_cycles: float
    picture_cycles: float


def c_costs(spec: NetworkSpec, synops: Sequence[float] | None = None) -> CCosts:
    """Return the costs of a network in C.

    Args:
        spec: spec of the network.
        synops: measured synaptic operations of each layer in a step, input first; by default, those of a step in which
            every input spikes.

    >>> from specs import load_spec
    >>> costs = c_costs(load_spec("mnist-dense-shallow"))
    >>> costs.flash_bytes, costs.ram_bytes, costs.step_synops
    (408102, 7220, 5120.0)
    """
    plan = plan_of(spec)
    of_layers: Sequence[float] = [row.synops for row in summarize(spec)] if synops is None else synops
    neurons = sum(each.size for each in plan.neurons)
    picture_synops = 0.0
    step_cycles = float(CYCLES_OF_NEURON * neurons)
    for stage in plan.stages:
        # We do not know how many synops of a layer are those of its own synapses, and take their part of the weights.
        part = stage.own.n_weights / sum(each.n_weights for each in stage.synapses)
        own, others = part * of_layers[stage.outputs.index], (1 - part) * of_layers[stage.outputs.index]
        cycles = CYCLES_OF_DENSE if all(each.is_dense for each in stage.synapses) else CYCLES_OF_CONV
        if plan.is_driven(stage):
            picture_synops, own = own, 0.0
        step_cycles += (CYCLES_OF_DELAYED if stage.delays_each_weight else cycles) * own + cycles * others
        step_cycles += CYCLES_OF_DELAY * stage.outputs.size * bool(stage.delays)
    return CCosts(
        flash_bytes=_flash_bytes(plan),
        ram_bytes=plan.state_bytes,
        neurons=neurons,
        step_synops=float(sum(of_layers)) - picture_synops,
        picture_synops=picture_synops,
        step_cycles=step_cycles,
        picture_cycles=CYCLES_OF_GRADED * picture_synops + spec.time_steps * step_cycles,
    )


def _flash_bytes(plan: Plan) -> int:
    levels = 0 if plan.is_timed else GREY_LEVELS + plan.is_padded * plan.input.channels
    total = levels * (2 if plan.is_graded else WORD)
    for stage in plan.stages:
        total += sum(each.n_weights for each in stage.synapses)
        total += sum(WORD * CONV_NUMBERS for each in stage.synapses if each.convolution)
        if _has_bias(stage.layer):
            total += 2 * stage.outputs.channels
        if stage.delays:
            total += stage.own.n_weights if stage.delays_each_weight else stage.outputs.channels
    if plan.sends_messages:
        return total + WORD * SENDING_NUMBERS * len(plan.neurons)
    for each in plan.neurons:
        total += WORD * LAYER_NUMBERS
        per_channel = plan.spec.cuba_of(plan.spec.layers[each.index]).learn_decays is LearnDecays.PER_CHANNEL
        total += 2 * (1 + each.has_current) * (each.channels if per_channel else 1)
    return total


def _has_bias(layer: Layer) -> bool:
    """Return whether a block has a bias on the hardware: its own, or that of a norm."""
    return bool(getattr(layer, "bias", False)) or getattr(layer, "norm", None) in {Norm.MEAN_ONLY, Norm.BATCH}
