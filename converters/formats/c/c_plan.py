"""Plan of a network's C source, from the spec alone: its populations, its synapses, and what they cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bootstrap_core.fixed_point import DECAY_ONE, MANT
from specs.block import (
    AffineSpec,
    AvgPoolSpec,
    ConvSpec,
    DenseSpec,
    Encoding,
    FlattenSpec,
    IdentitySkip,
    InputSpec,
    Layer,
    LayerSpec,
    Norm,
    skips_of,
)
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.neuron import LearnDecays
from specs.summary import summarize

__all__ = ["CCosts", "Plan", "Population", "Stage", "Synapses", "c_costs", "plan_of"]

GREY_LEVELS = 256
"""Values of a pixel, one byte."""
WORD = 4
"""Bytes of an int32_t, to which the state is aligned."""
CONV_NUMBERS = 15
"""Numbers in the C record of a convolution, `conv_shape`."""
LAYER_NUMBERS = 9
"""Numbers and pointers in the C record of a layer's neurons, `layer`, on a 32-bit processor."""
CYCLES_OF_NEURON, CYCLES_OF_DENSE, CYCLES_OF_CONV, CYCLES_OF_GRADED = 80, 4.5, 10, 8
"""Rough cycles of a Cortex-M4 for a step of a neuron, and for a synaptic operation: of spikes in a dense layer and in a
convolution, and of a graded pixel. `make check-c` counts the instructions of gcc -O2, about a quarter less."""


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

    Attributes:
        name: name of the weights in the C source.
        source: the population that they read.
        layer: the layer that computes them: dense, or a convolution.
        n_weights: number of weights.
        identity: whether they go from each neuron to the one at the same place.
        flattened: whether maps are read as a flat layer, in the order channel, row, column.
    """

    name: str
    source: Population
    layer: Layer
    n_weights: int
    identity: bool = False
    flattened: bool = False

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
        if spec is None:
            return f"{'identity' if self.identity else 'dense'} of {self.source.name}"
        parts = [f"conv {spec.kernel[0]}x{spec.kernel[1]} of {self.source.name}"]
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1))):
            if (value := getattr(spec, name)) != default:
                parts.append(f"{name} {'x '[len(value) > 2].join(map(str, value))}")
        return ", ".join([*parts, *([f"{spec.groups} groups"] if spec.groups > 1 else [])])


@dataclass(frozen=True)
class Stage:
    """Block with synapses. `outputs` are its neurons; those of an affine readout stand for its sums."""

    layer: LayerSpec
    outputs: Population
    synapses: tuple[Synapses, ...]

    @property
    def is_affine(self) -> bool:
        """True for a readout without spikes."""
        return isinstance(self.layer, AffineSpec)


@dataclass(frozen=True)
class Plan:
    """Everything about the C source of a network but its numbers.

    Attributes:
        spec: spec of the network.
        input: the pixels with their padding, as maps with their channels last.
        stages: blocks with synapses, in order; the last is the readout.
    """

    spec: NetworkSpec
    input: Population
    stages: tuple[Stage, ...]

    @property
    def is_graded(self) -> bool:
        """True if pixels enter the first synapses as integers."""
        return self.spec.input.encoding is Encoding.GRADED

    @property
    def is_padded(self) -> bool:
        """True if the input has pixels that the images do not have."""
        return any(self.spec.input.padding)

    @property
    def n_pixels(self) -> int:
        """Number of bytes of an image."""
        return math.prod(self.spec.input.shape)

    @property
    def readout(self) -> Stage:
        """Last stage."""
        return self.stages[-1]

    @property
    def spiking(self) -> list[Population]:
        """Populations of neurons, input first."""
        inputs = [] if self.is_graded else [self.input]
        return [*inputs, *(stage.outputs for stage in self.stages if not stage.is_affine)]

    @property
    def index_bytes(self) -> int:
        """Bytes of the place of a neuron: 2 if all places fit."""
        return 2 if max(each.size for each in (self.input, *self.spiking)) <= 1 << 16 else 4

    @property
    def largest(self) -> int:
        """Number of neurons of the largest population, whose weighted inputs are summed together; 0 without one."""
        return max((each.size for each in self.spiking), default=0)

    @property
    def logit_unit(self) -> int:
        """Divisor of the C source's logits that gives those of the network after T steps."""
        levels = self.spec.input.levels if self.readout.outputs.index == 1 else 1
        return self.spec.time_steps * (MANT * levels if self.readout.is_affine else 1)

    @cached_property
    def state_bytes(self) -> int:
        """Size of the state in RAM, without the stack."""
        total = 2 * WORD + WORD * self.largest + WORD * self.readout.outputs.size
        total += WORD * self.stages[0].outputs.size if self.is_graded else _aligned(self.n_pixels)
        for each in self.spiking:
            total += WORD * (1 + each.shift) + WORD * each.size * (1 + each.has_current)
            total += _aligned(self.index_bytes * each.size * (1 + each.shift))
        return total


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // WORD) * WORD


def plan_of(spec: NetworkSpec) -> Plan:
    """Return the plan of a network; `c_writer.problems` says what the C source cannot express."""
    held: list[Population] = []  # where the output of each layer lies
    stages: list[Stage] = []
    for i, (layer, shape) in enumerate(zip(spec.layers, spec.shapes, strict=True)):
        if isinstance(layer, FlattenSpec):
            held.append(held[-1])
            continue
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
            stages.append(Stage(layer, outputs, (own, *skips)))
        held.append(outputs)
    return Plan(spec, held[0], tuple(stages))


def _population(spec: NetworkSpec, index: int, layer: LayerSpec, shape: Shape) -> Population:
    channels, height, width = (*shape, 1, 1)[:3]
    neuron = spec.cuba_of(layer)
    direct = isinstance(layer, InputSpec) and layer.exact_input
    forgets = round(DECAY_ONE * neuron.current_decay) == DECAY_ONE and neuron.learn_decays is LearnDecays.NONE
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
    n_weights = before[0] if identity else layer.n_weights(seen)
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
        step_cycles, picture_cycles: rough cycles of a Cortex-M4 of a step, and of a picture with all its steps.
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
    of_layers = [row.synops for row in summarize(spec)] if synops is None else synops
    neurons = sum(each.size for each in plan.spiking)
    picture_synops = float(of_layers[1]) if plan.is_graded else 0.0
    step_cycles = float(CYCLES_OF_NEURON * neurons)
    for stage in plan.stages[plan.is_graded :]:
        cycles = CYCLES_OF_DENSE if all(each.is_dense for each in stage.synapses) else CYCLES_OF_CONV
        step_cycles += cycles * of_layers[stage.outputs.index]
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
    total = (GREY_LEVELS + plan.is_padded * plan.input.channels) * (2 if plan.is_graded else WORD)
    for stage in plan.stages:
        total += sum(each.n_weights for each in stage.synapses)
        total += sum(WORD * CONV_NUMBERS for each in stage.synapses if each.convolution)
        if _has_bias(stage.layer):
            total += 2 * stage.outputs.channels
    for each in plan.spiking:
        total += WORD * LAYER_NUMBERS
        per_channel = plan.spec.cuba_of(plan.spec.layers[each.index]).learn_decays is LearnDecays.PER_CHANNEL
        total += 2 * (1 + each.has_current) * (each.channels if per_channel else 1)
    return total


def _has_bias(layer: Layer) -> bool:
    """Return whether a block has a bias on the hardware: its own, or that of a mean-only norm."""
    return bool(getattr(layer, "bias", False)) or getattr(layer, "norm", None) is Norm.MEAN_ONLY
