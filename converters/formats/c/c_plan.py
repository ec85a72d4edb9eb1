"""Plan of a network's C source, from its chip form: its populations, its synapses, and what they cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bootstrap_core.fixed_point import DECAY_ONE, MANT, MESSAGE, SIGMA
from converters.chip.form import ChipForm, ChipLayer, ChipSynapses, Numbers
from converters.chip.from_network import GREY_LEVELS
from specs.layers.input import Encoding, InputSpec
from specs.network import Output
from specs.shapes import axes_of

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
        initial_voltage: voltage of the neurons before the first step, in units of 1/4096.
    """

    index: int
    channels: int
    height: int
    width: int
    has_current: bool = False
    shift: bool = False
    initial_voltage: int = 0

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
        return self.channels * self.plane


@dataclass(frozen=True, eq=False)
class Synapses:
    """Synapses from a population to the neurons of a stage.

    Those of a recurrent block to itself have its own neurons as source.

    Attributes:
        name: name of the weights in the C source.
        source: the population that they read.
        edge: their weights, and the windows of a convolution.
        flattened: whether maps are read as a flat layer, in the order channel, row, column.
        recurrent: whether they read what the neurons themselves did in the step before.
    """

    name: str
    source: Population
    edge: ChipSynapses
    flattened: bool = False
    recurrent: bool = False

    @property
    def weight(self) -> Numbers:
        """Weights, in units of 1/64."""
        assert self.edge.weight is not None
        return self.edge.weight

    @property
    def n_weights(self) -> int:
        return self.weight.size

    @property
    def is_dense(self) -> bool:
        """True if every input reaches every output."""
        return not self.edge.is_identity and self.edge.window is None

    @property
    def shape_name(self) -> str:
        """Name of the geometry of a convolution in the C source."""
        return self.name.replace("_weights", "_shape")

    @property
    def synops(self) -> int:
        """Synaptic operations of a step in which every input spikes. Weights that read only padding are not counted."""
        window, source = self.edge.window, self.source
        if window is None:
            return source.size if self.edge.is_identity else self.n_weights
        axes = zip(axes_of(window), (source.height, source.width), strict=True)
        return math.prod(axis.connections(side) for axis, side in axes) * math.prod(self.weight.shape[:2])

    @property
    def words(self) -> str:
        """Kind of the synapses and their source, for people.

        >>> import numpy as np
        >>> from specs.shapes import Window
        >>> edge = ChipSynapses(0, np.ones((8, 1, 3, 3)), Window((3, 3), (2, 2), (1, 1), (1, 1), 1))
        >>> Synapses("block1_weights", Population(0, 1, 28, 28), edge).words
        'conv 3x3 of input, stride 2x2, padding 1x1'
        """
        window = self.edge.window
        if self.recurrent:
            return "itself, a step late"
        if window is None:
            return f"{'identity' if self.edge.is_identity else 'dense'} of {self.source.name}"
        parts = [f"conv {window.kernel[0]}x{window.kernel[1]} of {self.source.name}"]
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1))):
            if (value := getattr(window, name)) != default:
                parts.append(f"{name} {'x '[len(value) > 2].join(map(str, value))}")
        return ", ".join([*parts, *([f"{window.groups} groups"] if window.groups > 1 else [])])


@dataclass(frozen=True, eq=False)
class Stage:
    """Layer with synapses: its own, those of its skips, and those of a recurrent layer to itself.

    `outputs` are its neurons; those of an affine readout stand for its sums.
    """

    layer: ChipLayer
    outputs: Population
    synapses: tuple[Synapses, ...]

    @property
    def own(self) -> Synapses:
        """Synapses from the layer's own source, which delays apply to."""
        return self.synapses[0]

    @property
    def delays(self) -> Numbers | None:
        """Delays of its own synapses; None if there are none, or none longer than 0."""
        return self.layer.delay if self.own.edge.longest else None

    @property
    def delays_each_weight(self) -> bool:
        """True if each weight has a delay of its own."""
        return self.delays is not None and self.delays.ndim == 2

    @property
    def rows(self) -> int:
        """Number of steps in which what arrives now can reach the neurons: 1 and the longest delay."""
        return 1 + self.own.edge.longest

    @property
    def is_late(self) -> bool:
        """True if its own synapses have delays."""
        return self.delays is not None


@dataclass(frozen=True)
class Plan:
    """Everything about the C source of a network except its numbers.

    Attributes:
        input: the pixels with their padding, or the events, as maps with their channels last.
        stages: blocks with synapses, in order.
        last: population that the readout reads, or of an affine readout its sums.
    """

    form: ChipForm
    input: Population
    stages: tuple[Stage, ...]
    last: Population

    @property
    def entering(self) -> InputSpec:
        """Spec of the input: shape, encoding and bits."""
        assert self.form.input is not None
        return self.form.input

    @property
    def time_steps(self) -> int:
        """T of a picture, or usually of a recording."""
        assert self.form.time_steps is not None
        return self.form.time_steps

    @property
    def is_graded(self) -> bool:
        """True if pixels enter the first synapses as integers."""
        return self.entering.encoding is Encoding.GRADED

    @property
    def sends_messages(self) -> bool:
        """True for sigma-delta neurons, which send numbers; the output is values."""
        return self.form.is_sigma_delta

    @property
    def counts_events(self) -> bool:
        """True if an input may have several events in a step."""
        return self.entering.is_events and self.entering.is_graded

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
    def input_bytes(self) -> int:
        """Bytes of a pixel, of a number of events, or of a pixel of a frame."""
        return 2 if self.entering.is_timed and self.entering.bits > 8 else 1

    @property
    def is_padded(self) -> bool:
        """True if `input.padding` adds pixels to the images."""
        return any(self.entering.padding)

    @property
    def n_inputs(self) -> int:
        """Number of pixels of an image, or of inputs that have events."""
        return math.prod(self.entering.shape)

    @property
    def n_classes(self) -> int:
        """Number of logits, or of values."""
        return math.prod(self.form.layers[-1].shape)

    @property
    def affine(self) -> Stage | None:
        """Last stage if it is an affine readout; None if the readout counts spikes, or adds up messages."""
        return self.stages[-1] if self.stages and self.stages[-1].layer.kind == "affine" else None

    @property
    def group(self) -> int:
        """Number of neurons whose spikes are the logit of a class: above 1 for a readout that averages."""
        return self.last.size // self.n_classes

    @property
    def spiking(self) -> list[Population]:
        """Populations whose spikes are listed, input first."""
        inputs = [] if self.is_graded else [self.input]
        return [*inputs, *(stage.outputs for stage in self.stages if stage.layer.kind != "affine")]

    @property
    def neurons(self) -> list[Population]:
        """Populations of neurons, input first."""
        return self.spiking[self.entering.is_events :]

    def stage_of(self, neurons: Population) -> Stage | None:
        """Return the stage of a population; None for the input."""
        return next((stage for stage in self.stages if stage.outputs is neurons), None)

    def is_driven(self, stage: Stage) -> bool:
        """Return whether a stage's own synapses weigh graded pixels, once for a picture."""
        return self.is_graded and stage.own.source is self.input

    @property
    def drives(self) -> dict[str, Stage]:
        """Stages whose own synapses weigh graded pixels, by the names of these sums in the state."""
        driven = (stage for stage in self.stages if self.is_driven(stage))
        return {f"drive{stage.outputs.index if i else ''}": stage for i, stage in enumerate(driven)}

    def drive_of(self, stage: Stage) -> str:
        """Return the name of the weighted pixels of a driven stage."""
        return next(name for name, driven in self.drives.items() if driven is stage)

    def sums_in_readout(self, stage: Stage) -> bool:
        """Return whether weighted inputs are added to the readout at once, without a check of 24 bits."""
        return stage.layer.kind == "affine" and not self.sends_messages

    @property
    def index_bytes(self) -> int:
        """Bytes of the place of a neuron: 2 if all places fit."""
        return 2 if max(each.size for each in (self.input, *self.spiking)) <= 1 << 16 else 4

    @property
    def largest(self) -> int:
        """Number of neurons of the largest population, whose weighted inputs are summed together; 0 without one."""
        checked = [
            stage.outputs for stage in self.stages if stage.layer.kind == "affine" and not self.sums_in_readout(stage)
        ]
        return max((each.size for each in [*self.neurons, *checked]), default=0)

    @property
    def reads_last(self) -> bool:
        """True if the logits are those of the last step alone."""
        return self.form.output is Output.LAST

    @property
    def step_unit(self) -> int:
        """Divisor that turns the C source's logits after one step, or values after any, into those of the network."""
        if self.sends_messages:
            return SIGMA if self.affine else MESSAGE
        if self.affine is None:
            return self.group
        return MANT * (self.entering.levels if self.affine.own.source is self.input else 1)

    def unit_after(self, steps: int) -> int:
        """Return the divisor that turns the C source's logits after `steps` steps into those of the network."""
        return self.step_unit * (1 if self.reads_last else steps)

    @cached_property
    def state_bytes(self) -> int:
        """Size of the state in RAM, without the stack."""
        total = 2 * WORD + self.sum_bytes * self.largest + WORD * self.n_classes
        if self.is_graded:
            total += WORD * sum(stage.outputs.size for stage in self.drives.values())
        elif not self.entering.is_timed:
            total += _padded(self.n_inputs, WORD)
        for each in self.spiking:
            lists = self.index_bytes * each.size * (1 + each.shift)
            if each is self.input and self.counts_events:
                lists = _padded(lists, self.input_bytes) + self.input_bytes * each.size
            total += WORD * (1 + each.shift) + _padded(lists, WORD)
            if self.sends_messages:
                total += WORD * each.size * (1 + each.shift)
        for each in self.neurons:
            total += WORD * each.size * (1 + each.has_current + (self.sends_messages and each is not self.input))
        total += sum(WORD * stage.rows * stage.outputs.size for stage in self.stages if stage.is_late)
        return _padded(total, self.sum_bytes)


def _padded(n_bytes: int, unit: int) -> int:
    return -(-n_bytes // unit) * unit


def plan_of(form: ChipForm) -> Plan:
    """Return the plan of a network; `c_writer.c_problems` names what the C source cannot express."""
    held: list[Population] = []  # where the output of each layer lies
    stages: list[Stage] = []
    for i, layer in enumerate(form.layers):
        if layer.kind in ("flatten", "average"):  # the latter averages the spikes of what it reads
            held.append(held[layer.sources[0].source])
            continue
        outputs = _population(form, i, layer)
        if i:
            synapses = [
                Synapses(
                    f"block{i}_skip{k - 1}_weights" if k else f"block{i}_weights",
                    held[edge.source],
                    edge,
                    flattened=len(form.layers[edge.source].shape) == 1 and held[edge.source].plane > 1,
                )
                for k, edge in enumerate(layer.sources)
            ]
            if layer.recurrent is not None:
                edge = ChipSynapses(i, layer.recurrent)
                synapses.append(Synapses(f"block{i}_recurrent_weights", outputs, edge, recurrent=True))
            stages.append(Stage(layer, outputs, tuple(synapses)))
        held.append(outputs)
    return Plan(form, held[0], tuple(stages), held[-1])


def _population(form: ChipForm, index: int, layer: ChipLayer) -> Population:
    channels, height, width = (*layer.shape, 1, 1)[:3]
    neurons, is_direct = layer.neurons, index == 0 and form.input is not None and form.input.exact_input
    has_current = (
        neurons is not None
        and neurons.current_decay is not None
        and not is_direct
        and (neurons.trained or bool((neurons.current_decay < DECAY_ONE).any()))
    )
    initial_voltage = 0 if neurons is None else neurons.initial_voltage
    return Population(index, channels, height, width, has_current, layer.shift, initial_voltage)


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


def c_costs(form: ChipForm, synops: Sequence[float] | None = None) -> CCosts:
    """Return the costs of a network in C.

    Args:
        form: the network; of its weights, only their number counts.
        synops: measured synaptic operations of each layer in a step, input first; by default, those of a step in which
            every input spikes.
    """
    plan = plan_of(form)
    of_stages = {stage.outputs.index: sum(each.synops for each in stage.synapses) for stage in plan.stages}
    of_layers = [of_stages.get(i, 0) for i in range(len(form.layers))] if synops is None else synops
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
        step_cycles += CYCLES_OF_DELAY * stage.outputs.size * stage.is_late
    return CCosts(
        flash_bytes=_flash_bytes(plan),
        ram_bytes=plan.state_bytes,
        neurons=neurons,
        step_synops=float(sum(of_layers)) - picture_synops,
        picture_synops=picture_synops,
        step_cycles=step_cycles,
        picture_cycles=CYCLES_OF_GRADED * picture_synops + plan.time_steps * step_cycles,
    )


def _flash_bytes(plan: Plan) -> int:
    levels = 0 if plan.entering.is_timed else GREY_LEVELS + plan.is_padded * plan.input.channels
    total = levels * (2 if plan.is_graded else WORD)
    for stage in plan.stages:
        total += sum(each.n_weights for each in stage.synapses)
        total += sum(WORD * CONV_NUMBERS for each in stage.synapses if each.edge.window)
        if stage.layer.bias is not None:
            total += 2 * stage.outputs.channels
        if stage.delays is not None:
            total += stage.own.n_weights if stage.delays_each_weight else stage.outputs.channels
    if plan.sends_messages:
        return total + WORD * SENDING_NUMBERS * len(plan.neurons)
    for each in plan.neurons:
        neurons = plan.form.layers[each.index].neurons
        assert neurons is not None
        assert neurons.voltage_decay is not None
        total += WORD * LAYER_NUMBERS + 2 * (1 + each.has_current) * len(neurons.voltage_decay)
    return total
