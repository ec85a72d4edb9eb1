"""The chip form: a network in the integers of the hardware, layer by layer, each with the layers that it reads.

Weights, biases and thresholds are in units of 1/64, decays in units of 1/4096, delays in time steps. Formats write and
read this form alone. `form_of_network` makes it of a network, `model_of_form` makes a model of it. A form from a file
of floats may hold numbers between those of the grid, already scaled to its ranges.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bootstrap_core.fixed_point import DECAY_ONE, READOUT_THRESHOLD_MANT, STATE_PER_MANT
from specs.fields import Shape
from specs.layers.input import InputSpec
from specs.network import Output
from specs.shapes import Window

Numbers = npt.NDArray[Any]
"""Integers of the hardware; floats in their units where a file holds numbers off the grid."""

CUBA, SIGMA_DELTA = "CUBA", "SDNN"
"""Kinds of neurons, by their names in netx files. A file may hold others, which no model has."""
SYNAPTIC = {"dense", "conv", "avg_pool", "affine"}
"""Kinds of layers that weigh what they read."""
PIXELS = -1
"""Source of the synapses of input neurons, which weigh pixels."""
WHOLE = "write a .safetensors, which holds every kind"


@dataclass(frozen=True)
class ChipNeurons:
    """Neurons of a layer.

    Attributes:
        current_decay, voltage_decay: `[1]`, or `[channels]`; None for sigma-delta neurons, which have none.
        kind: `CUBA`, `SIGMA_DELTA`, or the name of other neurons in a file.
        sigma_output: whether they are those of a readout of values: their sigma, without messages.
        subtracts: whether a spike subtracts the threshold; otherwise it sets the voltage to 0.
        initial_voltage: voltage before the first step, in units of 1/4096.
        trained: whether decays were trained, so that the next training may move them.
        threshold: threshold in a spec, where a file of floats gives it; otherwise it follows from `threshold_mant`.
    """

    threshold_mant: int
    current_decay: Numbers | None = None
    voltage_decay: Numbers | None = None
    kind: str = CUBA
    sigma_output: bool = False
    subtracts: bool = False
    initial_voltage: int = 0
    trained: bool = False
    threshold: float | None = None

    @property
    def is_sigma_delta(self) -> bool:
        return self.kind == SIGMA_DELTA

    @property
    def start(self) -> float:
        """Voltage before the first step, as a fraction of the threshold."""
        return self.initial_voltage and self.initial_voltage / (self.threshold_mant * STATE_PER_MANT)


INTEGRATOR = ChipNeurons(READOUT_THRESHOLD_MANT, np.array([0]), np.array([DECAY_ONE]))
"""Neurons that netx gives to a dense layer without neurons."""


@dataclass(frozen=True)
class ChipSynapses:
    """Synapses from one layer to another: an edge of the network.

    Attributes:
        source: index of the layer that they read; `PIXELS` for those of input neurons.
        weight: dense `[out, in]`; convolution `[out, in / groups, kernel height, kernel width]`; from each neuron to
            the one at the same place `[channels]`, of input neurons `[1]`; None for a layer that only reshapes or
            averages.
        window: windows of a convolution, otherwise None.
        delay: delays in steps, `[channels]` or `[out, in]`, or None.
        longest: longest delay that training may reach.
    """

    source: int
    weight: Numbers | None = None
    window: Window | None = None
    delay: Numbers | None = None
    longest: int = 0

    @property
    def is_identity(self) -> bool:
        """True for synapses from each neuron to the one at the same place."""
        return self.weight is not None and self.weight.ndim == 1


@dataclass(frozen=True)
class ChipLayer:
    """Layer of a network: the synapses that it adds up, and its neurons.

    Attributes:
        kind: `input`, `flatten`, `dense`, `conv`, `avg_pool`, `affine`, `average`; a file may hold other kinds.
        shape: shape of the output, `[features]` or `[channels, height, width]`.
        sources: synapses of the layer, its own first, then those of its skips.
        bias: `[channels]`, of input neurons `[1]`; None without.
        neurons: None for a layer without neurons. Those of an affine readout never spike.
        recurrent: weights from the neurons to themselves, `[out, out]`; they read the spikes of the step before.
        shift: whether spikes leave one step later.
        problems: features that our blocks do not have, or that are unknown here.
    """

    kind: str
    shape: Shape
    sources: tuple[ChipSynapses, ...] = ()
    bias: Numbers | None = None
    neurons: ChipNeurons | None = None
    recurrent: Numbers | None = None
    shift: bool = False
    problems: tuple[str, ...] = ()
    name: str = ""

    @property
    def weight(self) -> Numbers | None:
        """Weights of the layer's own synapses."""
        return self.sources[0].weight if self.sources else None

    @property
    def window(self) -> Window | None:
        """Windows of the layer's own synapses; None if they are no convolution."""
        return self.sources[0].window if self.sources else None

    @property
    def delay(self) -> Numbers | None:
        """Delays of the layer's own synapses."""
        return self.sources[0].delay if self.sources else None

    @property
    def skips(self) -> tuple[ChipSynapses, ...]:
        """Synapses beside the layer's own."""
        return self.sources[1:]

    @property
    def weighs(self) -> bool:
        """True for a layer that weighs other layers: not the input, nor one that reshapes or averages."""
        return self.kind in SYNAPTIC

    @property
    def features(self) -> tuple[str, ...]:
        """Features that few formats hold."""
        return tuple(
            name for name, has in (("recurrent", self.recurrent is not None), ("delays", self.delay is not None)) if has
        )

    def with_own(self, **changes: Any) -> "ChipLayer":
        """Return the layer with fields of its own synapses replaced."""
        return replace(self, sources=(replace(self.sources[0], **changes), *self.skips))


@dataclass(frozen=True)
class ChipForm:
    """Network as the chip holds it.

    Attributes:
        layers: layers in order, each after those that it reads; the input first, unless a file leaves it out.
        time_steps: number of time steps; None if a file does not say it.
        spec: spec as JSON, without the recipe: what integers do not say; None if a file has none.
        input: how inputs enter; None if a file does not say it.
        pixels: what each value of a pixel, 0 to 255, becomes: a graded integer, or a current in units of 1/4096.
        border: the same for the pixels of `input.padding`, by channel.
        problems: features of the whole network that are unknown here.
    """

    layers: tuple[ChipLayer, ...]
    time_steps: int | None = None
    spec: str | None = None
    name: str = ""
    output: Output = Output.RATE
    input: InputSpec | None = None
    pixels: Sequence[int] = ()
    border: Sequence[int] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_sigma_delta(self) -> bool:
        """True if frames enter by sigma-delta neurons."""
        first = self.layers[0]
        return first.kind == "input" and first.neurons is not None and first.neurons.is_sigma_delta

    @property
    def n_numbers(self) -> int:
        """Number of weights and biases, without skips."""
        arrays = (array for layer in self.layers for array in (layer.weight, layer.bias, layer.recurrent))
        return sum(array.size for array in arrays if array is not None)

    def problems_by_block(self, found: Iterable[Iterable[str]]) -> list[str]:
        """Return each problem once with its blocks; see `problems_by_place`."""
        return problems_by_place("block", found, [layer.name for layer in self.layers])

    def levels_of(self, layer: ChipLayer) -> int:
        """Return the largest value of what a layer reads; above 1 only for a layer that reads graded input."""
        reads_input = self.input is not None and bool(layer.sources) and layer.sources[0].source == 0
        return self.input.levels if self.input is not None and reads_input else 1

    @property
    def synaptic(self) -> list[ChipLayer]:
        """Layers with synapses of their own."""
        return [layer for layer in self.layers if layer.weighs]


def problems_by_place(noun: str, found: Iterable[Iterable[str]], names: Sequence[str] = ()) -> list[str]:
    """Return each problem once with its places, as in `layers 0, 2 stem: no weights`.

    `found` has the problems by place, `names` the name of each place, if it has one.
    """
    places_with: dict[str, list[str]] = {}
    for i, problems in enumerate(found):
        place = f"{i} {names[i]}".rstrip() if names else str(i)
        for problem in dict.fromkeys(problems):
            places_with.setdefault(problem, []).append(place)
    return [
        f"{noun}{'s' * (len(places) > 1)} {', '.join(places)}: {problem}" for problem, places in places_with.items()
    ]


def kind_problems(
    layers: Iterable[tuple[str, Collection[str]]],
    kinds: Collection[str],
    features: Collection[str] = (),
    names: Sequence[str] = (),
) -> list[str]:
    """Return the kinds of blocks, and the features of blocks, that a format does not hold.

    A problem has the blocks, the kind or feature, and what to do.

    Args:
        layers: kind and features of each layer; the input, which is first, may be of any kind.
        kinds, features: what the format holds.
        names: name of each layer, if it has one.

    >>> kind_problems([("input", ()), ("dense", ()), ("affine", ())], ["dense"])
    ['block 2: kind affine (only dense; replace the block, or write a .safetensors, which holds every kind)']
    """
    hint = f"only {', '.join(kinds)}; replace the block, or {WHOLE}"
    found = (
        [
            *([] if kind in kinds or i == 0 else [f"kind {kind} ({hint})"]),
            *(f"{feature} ({WHOLE})" for feature in own if feature not in features),
        ]
        for i, (kind, own) in enumerate(layers)
    )
    return problems_by_place("block", found, names)


def form_problems(form: ChipForm, kinds: Collection[str], features: Collection[str] = ()) -> list[str]:
    """Return what a format that holds these `kinds` of layers and `features` cannot hold of a network.

    `SIGMA_DELTA` is a feature of the whole network.
    """
    values = form.is_sigma_delta and SIGMA_DELTA not in features
    return [
        *([f"sigma-delta neurons ({WHOLE})"] if values else []),
        *kind_problems(
            ((layer.kind, layer.features) for layer in form.layers),
            kinds,
            features,
            [layer.name for layer in form.layers],
        ),
        *form.problems,
        *form.problems_by_block(layer.problems for layer in form.layers),
    ]
