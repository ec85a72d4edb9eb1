"""Spec of a network: input, blocks, defaults, and the checks that involve more than one block."""

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import chain
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from specs.fields import (
    VTH_MANT_MAX,
    Flag,
    Name,
    Number,
    Shape,
    Source,
    StrictModel,
    TimeSteps,
    threshold_mant,
    without_defaults,
)
from specs.files.limits import NETWORK_BLOCKS, NETWORK_NEURONS, NETWORK_WEIGHTS
from specs.layers.block import BLOCK_KINDS, BlockSpec, LayerSpec, SkipSpec, kind_of, skips_of, synapses_of
from specs.layers.input import Encoding, InputSpec, LogMelSpec
from specs.layers.layer import Layer, Role
from specs.layers.neuron import CubaSpec, NeuronSpec, Reset, SigmaDeltaSpec
from specs.shapes import ShapeError
from specs.training import SnnGradient, TrainingSpec
from specs.words import counted, suggest

SCHEMA_VERSION: Final = 1
INPUT: Final = "input"
"""Name of the input among the sources of blocks."""

MOST_NAMES: Final = 10
"""Largest number of names that a message lists."""

Problem = tuple[tuple[str | int, ...], str]
"""Path of a wrong field, and the rest of the error message."""


class Output(StrEnum):
    """Output of a network, as read from its last block, the readout."""

    RATE = "rate"
    LAST = "last"
    SPIKES = "spikes"


class NetworkSpec(StrictModel):
    """Network: an input, then blocks, of which the last is the readout.

    >>> spec = NetworkSpec.model_validate({"name": "tiny", "time_steps": 4, "input": {"shape": [9]},
    ...     "blocks": [{"kind": "dense", "features": 5}, {"kind": "affine", "features": 2}]})
    >>> spec.shapes
    ((9,), (5,), (2,))
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of the spec format."""
    name: Name
    """Name of the network: lower-case letters, digits, `.`, `_` and `-`; at most 64 characters."""
    description: str = ""
    """One-line description, shown in listings and cards."""
    time_steps: TimeSteps
    """Number of time steps (T) for which each image is presented; of a recording of events, the number of steps that
    readers make of it; of a sound with `encoding: events`, the `frames` of its `log_mel`; of a single frame, the number
    for which it is held."""
    neuron: NeuronSpec = CubaSpec()
    """Neurons of the input and of all blocks that do not define their own `neuron`."""
    delay_shift: Flag = False
    """Delay of one time step after the input neurons and each block with neurons, as in lava-dl: the first of the T
    steps is silent, and spikes of the last are lost. Blocks can override it. Meant for lava-dl checkpoints."""
    input: InputSpec
    """Shape and encoding of the images or events."""
    blocks: Annotated[tuple[BlockSpec, ...], Field(max_length=NETWORK_BLOCKS)]
    """Blocks after the input, in order; `kind` selects the type. Each reads the block before it, or those that its
    `source` and `skips` name. The last block is the readout: `affine`, or a block with neurons, whose rates are then
    the logits. With sigma-delta neurons, the outputs are the sums of their messages."""
    logit_scale: Annotated[Number, Field(gt=0)] = 1.0
    """Factor on the logits in probabilities and in the loss of an evaluation; it does not change the class. Conversions
    fit it to the ANN, so that probabilities mean the same. Training does not use it: see `training.logit_scale`."""
    output: Output = Output.RATE
    """Output of the network. `rate`: logits, the mean output of the readout over all time steps; for a readout with
    neurons, their rates. `last`: logits, the output of an `affine` readout in the last time step. `spikes`: spike
    trains, those of the readout's neurons. With `last` or `spikes` the network has no ANN, since rates do not tell when
    spikes come. Networks of sigma-delta neurons give values and take only `rate`."""
    training: TrainingSpec | None = None
    """Training recipe for `zoo train`; the default values apply if it is omitted."""

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Input and blocks, in order; `Network.blocks` uses the same indices."""
        return (self.input, *self.blocks)

    @property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the layers that each of `layers` reads: its own source, then those of its skips.

        >>> branches = [{"kind": "dense", "features": 5, "name": "left"}, {"kind": "dense", "features": 3, "source": 0}]
        >>> readout = {"kind": "affine", "features": 2, "skips": [{"kind": "dense", "source": "left"}]}
        >>> spec = NetworkSpec.model_validate({"name": "tiny", "time_steps": 4, "input": {"shape": [9]},
        ...     "blocks": [*branches, readout]})
        >>> spec.sources
        ((), (0,), (0,), (2, 1))
        """
        places = {INPUT: 0} | {block.name: i for i, block in enumerate(self.blocks, 1) if block.name is not None}

        def place(source: Source | None, before: int) -> int:
            return before if source is None else places[source] if isinstance(source, str) else source

        return ((), *(tuple(place(each, i) for _, each in _given(block)) for i, block in enumerate(self.blocks)))

    @property
    def beside_chain(self) -> tuple[int, ...]:
        """Indices of the layers that read other layers than the one before; empty for a chain."""
        return tuple(i for i, read in enumerate(self.sources) if i and read != (i - 1,))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of each of `layers`."""
        shapes = [self.input.output_shape(self.input.shape)]
        for block, (own, *_) in zip(self.blocks, self.sources[1:], strict=True):
            shapes.append(block.output_shape(shapes[own]))
        return tuple(shapes)

    @property
    def levels(self) -> tuple[int, ...]:
        """Largest value of what each of `layers` reads; above 1 only for those that read graded input."""
        return tuple(self.input.levels if read[:1] == (0,) else 1 for read in self.sources)

    @property
    def n_classes(self) -> int:
        """Number of logits, of values, or of spike trains, whichever the network gives."""
        return math.prod(self.shapes[-1])

    @property
    def gives_values(self) -> bool:
        """True if the outputs are values, as of sigma-delta neurons, not logits of classes."""
        return isinstance(self.neuron, SigmaDeltaSpec)

    @property
    def gives_spikes(self) -> bool:
        """True if the outputs are spike trains, not logits of classes."""
        return self.output is Output.SPIKES

    @property
    def gives(self) -> str:
        """Kind of the outputs, for messages: `classes`, `values` or `spike trains`."""
        return "values" if self.gives_values else "spike trains" if self.gives_spikes else "classes"

    @property
    def without_classes(self) -> str | None:
        """Beginning of a message that the network gives no classes; None if its outputs are logits of classes."""
        return None if (kind := self.gives) == "classes" else f"{self.name} gives {kind}, not classes"

    def title_of(self, i: int) -> str:
        """Return what messages call layer `i`: its index, and its name if it has one, as in `block 2 (stem)`."""
        name = getattr(self.layers[i], "name", None)
        return f"block {i}" if name is None else f"block {i} ({name})"

    def neuron_of(self, layer: LayerSpec) -> NeuronSpec:
        """Return the neuron spec of a layer: its own, or the network's."""
        return getattr(layer, "neuron", None) or self.neuron

    def cuba_of(self, layer: LayerSpec) -> CubaSpec:
        """Return the neuron spec of a layer of a network of CUBA neurons."""
        neuron = self.neuron_of(layer)
        assert isinstance(neuron, CubaSpec)
        return neuron

    @property
    def has_ann(self) -> bool:
        """True if the network also runs as ANN, on rates."""
        return self.without_ann is None

    @property
    def without_ann(self) -> str | None:
        """Kind of a network that has no ANN, for messages, such as `a recurrent network`; None if it has one."""
        if any(layer.own_fan_out for layer in self.layers):
            return "a recurrent network"
        return None if self.output is Output.RATE else f"a network with output: {self.output}"

    def recipe_problem(self, recipe: TrainingSpec) -> tuple[str, str] | None:
        """Return the field of a recipe that does not fit this network, and the message; None if it fits."""
        return recipe.problem_for(self.gives, self.without_ann)

    def idle(self, recipe: TrainingSpec) -> list[str]:
        """Return warnings about fields of the network and of a recipe for it that are set but have no effect.

        Delays have gradients only in batches that run as SNN; without SNN epochs, these are the few that sample.
        """
        as_spikes = (recipe.snn_epochs and recipe.snn_gradient is SnnGradient.SURROGATE) or recipe.crossover_epochs
        learned = [i for i, block in enumerate(self.blocks) if getattr(getattr(block, "delays", None), "learn", False)]
        untrained = [
            f"blocks[{i}].delays.learn has almost no effect without SNN epochs of surrogate gradients: set "
            "training.snn_epochs"
            for i in learned
            if not as_spikes
        ]
        return [*self.input.idle, *recipe.idle, *untrained]

    @property
    def resets(self) -> set[Reset]:
        """Resets of all layers with neurons; if there are none, that of the network. Sigma-delta neurons have none."""
        return {neuron.reset for neuron in self._cuba_neurons}

    @property
    def starts(self) -> set[float]:
        """Voltages before the first step, as fractions of the threshold; of the same neurons as `resets`."""
        return {neuron.start for neuron in self._cuba_neurons}

    @property
    def _cuba_neurons(self) -> list[CubaSpec]:
        neurons = [self.neuron_of(layer) for layer in self.layers if layer.has_neurons] or [self.neuron]
        return [neuron for neuron in neurons if isinstance(neuron, CubaSpec)]

    def delay_shift_of(self, layer: LayerSpec) -> bool:
        """Return whether the layer delays its spikes by a time step; False for layers without neurons."""
        if not layer.has_neurons:
            return False
        own = getattr(layer, "delay_shift", None)
        return self.delay_shift if own is None else own

    def with_log_mel(self, log_mel: LogMelSpec | None) -> "NetworkSpec":
        """Return the spec of a network whose data are recordings that `log_mel` made images of; unchanged for None."""
        if log_mel is None:
            return self
        return self.model_copy(update={"input": self.input.model_copy(update={"log_mel": log_mel})})

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(dump(self), self, "logit_scale", "output")

    @model_validator(mode="after")
    def _check(self) -> "NetworkSpec":
        problems = list(self._neuron_problems())  # the other checks need neurons of one kind
        if not problems:
            problems = list(self._source_problems())  # and sources that exist
        if not problems:
            problems = list(
                chain(
                    self._order_problems(),
                    self._unread_problems(),
                    self._shape_problems(),
                    self._arithmetic_problems(),
                    self._schedule_problems(),
                )
            )
        if problems:
            details: list[InitErrorDetails] = [
                {"type": PydanticCustomError("network", "{message}", {"message": message}), "loc": path, "input": None}
                for path, message in problems
            ]
            raise ValidationError.from_exception_data("NetworkSpec", details)
        return self

    def _neuron_problems(self) -> Iterator[Problem]:
        for path, layer in ((("input",), self.input), *((("blocks", i), block) for i, block in enumerate(self.blocks))):
            kind = self.neuron_of(layer).kind
            if kind != self.neuron.kind:
                yield (
                    (*path, "neuron", "kind"),
                    f"must be {self.neuron.kind}, as all neurons of a network are of one kind, got {kind}",
                )
        is_frames, is_sigma_delta = self.input.encoding is Encoding.FRAMES, isinstance(self.neuron, SigmaDeltaSpec)
        if is_frames and not is_sigma_delta:
            yield ("input", "encoding"), "frames are for sigma-delta neurons: set neuron: {kind: sigma_delta}"
        if is_sigma_delta and not is_frames:
            yield ("input", "encoding"), f"must be frames, as the neurons are sigma-delta, got {self.input.encoding}"
        given = "sigma-delta neurons, whose outputs are values" if is_sigma_delta else f"output: {self.output}"
        if self.logit_scale != 1 and self.without_classes:
            yield ("logit_scale",), f"does not apply to {given}: remove it"
        if is_sigma_delta and self.output is not Output.RATE:
            yield ("output",), f"does not apply to {given}: remove it"

    def _order_problems(self) -> Iterator[Problem]:
        if not self.blocks:
            yield ("blocks",), "must have at least one block, the readout: {kind: affine, features: N}"
            return
        *hidden, last = self.blocks
        for i, block in enumerate(hidden):
            if block.role is Role.LOGITS:
                yield (
                    ("blocks", i, "kind"),
                    f"{block.kind} is a readout and must be the last block, got block {i} of {len(self.blocks)}: "
                    "use dense here",
                )
        readouts, spiking = _kinds(Role.LOGITS), _kinds(Role.SPIKES)
        if last.role is Role.RESHAPED:
            yield (
                ("blocks", len(hidden), "kind"),
                f"{last.kind} cannot be the last block, the readout: use {_either(readouts)}, or {_either(spiking)} to "
                "classify by rates",
            )
        if self.output is Output.LAST and last.kind != "affine":
            yield ("output",), f"last is for an affine readout, got {last.kind}: set it to rate"
        if self.output is Output.SPIKES and not self.input.is_events:
            yield ("output",), f"spikes needs input.encoding: events, got {self.input.encoding}"
        if self.output is Output.SPIKES and last.role is Role.LOGITS:
            yield ("output",), f"spikes needs a readout with neurons, {_either(spiking)}, got {last.kind}"
        if self.input.encoding is Encoding.GRADED:
            takers = [kind for kind in spiking if kind.takes_graded_input]
            for i, (block, (own, *_)) in enumerate(zip(self.blocks, self.sources[1:], strict=True)):
                if own == 0 and not block.takes_graded_input:
                    yield (
                        ("blocks", i, "kind"),
                        f"graded input must enter a {_either(takers)} block, got {block.kind}: to flatten images, give "
                        "input.shape as [features]",
                    )

    def _source_problems(self) -> Iterator[Problem]:
        places: dict[str, int] = {INPUT: 0}
        for i, block in enumerate(self.blocks):
            for path, source in _given(block):
                if problem := None if source is None else _source_problem(source, i, places):
                    yield ("blocks", i, *path), problem
            if block.name is not None and places.setdefault(block.name, i + 1) != i + 1:
                taken = f"blocks[{found - 1}] has" if (found := places[block.name]) else "the input has"
                yield ("blocks", i, "name"), f"must be a name of this block alone, got {block.name}, which {taken}"

    def _unread_problems(self) -> Iterator[Problem]:
        read = set(chain.from_iterable(self.sources))
        for i, block in enumerate(self.blocks[:-1]):
            if i + 1 not in read:
                name = "" if block.name is None else f" {block.name}"
                yield (
                    ("blocks", i),
                    f"no block reads block {i + 1}{name}: name it as a source or a skip of a later block, or remove it",
                )

    def _shape_problems(self) -> Iterator[Problem]:
        shapes, total = [self.input.output_shape(self.input.shape)], 0
        if math.prod(shapes[0]) > NETWORK_NEURONS:
            yield ("input", "shape"), _too_many_neurons(shapes[0])
            return
        for i, (block, sources) in enumerate(zip(self.blocks, self.sources[1:], strict=True)):
            read = [shapes[source] for source in sources]
            try:
                after = block.output_shape(read[0])
            except ShapeError as error:
                yield ("blocks", i, *([error.field] if error.field else [])), str(error)
                return
            skips = zip(skips_of(block), sources[1:], strict=True)
            found = [self._skip_problem(skip, source, sources[0], shapes, after) for skip, source in skips]
            for k, problem in enumerate(found):
                if problem:
                    field, message = problem
                    yield ("blocks", i, "skips", k, *([field] if field else [])), message
            if not any(found):
                total += sum(each.n_weights(before) for each, before in synapses_of(block, read, after))
            if total > NETWORK_WEIGHTS:
                yield (
                    ("blocks", i),
                    f"the network may have at most {NETWORK_WEIGHTS:,} weights; up to this block it has {total:,} "
                    f"({total / 2**28:,.0f} GiB as float32)",
                )
                return
            if math.prod(after) > NETWORK_NEURONS:
                yield ("blocks", i), _too_many_neurons(after)
                return
            shapes.append(after)

    def _skip_problem(
        self, skip: SkipSpec, source: int, own: int, shapes: list[Shape], after: Shape
    ) -> tuple[str, str] | None:
        """Return the wrong field of a skip to the block after `shapes`, and the message; None if the skip is valid.

        `own` is the source of the block itself.
        """
        if self.input.encoding is Encoding.GRADED and source == 0:
            return "source", (
                f"{skip.source} is a graded input, which skips cannot read: skip from a block with neurons"
            )
        if self.input.encoding is Encoding.GRADED and own == 0:
            return "source", "a block that reads graded input cannot read spikes as well, as their units differ"
        try:
            shape = skip.output_shape(shapes[source], after)
        except ShapeError as error:
            return error.field, str(error)
        if shape != after:
            return (
                "",
                f"output of the skip from source {skip.source} is {list(shape)}, but this block has {list(after)}",
            )
        return None

    def _schedule_problems(self) -> Iterator[Problem]:
        problem = None if self.training is None else self.recipe_problem(self.training)
        if problem:
            field, message = problem
            yield ("training", field), message
        given = () if self.training is None else self.training.crossover_epochs
        most = len(self.layers)
        if len(given) > most:
            yield (
                ("training", "crossover_epochs"),
                f"must have at most {most} epochs, one for the input and one for each block, got {len(given)}",
            )

    def _arithmetic_problems(self) -> Iterator[Problem]:
        log_mel = self.input.log_mel
        if log_mel is not None and self.input.is_events and log_mel.frames != self.time_steps:
            yield ("time_steps",), f"must be {log_mel.frames}, input.log_mel.frames, got {self.time_steps}"
        for i, (block, levels) in enumerate(zip(self.blocks, self.levels[1:], strict=True), 1):
            mant = threshold_mant(self.neuron_of(block).threshold, levels)
            if mant > VTH_MANT_MAX and block.role is not Role.LOGITS:
                yield (
                    ("input", "bits"),
                    f"input of {counted(self.input.bits, 'bit')} scales the threshold of block {i} to a mantissa of "
                    f"{mant}; the hardware allows at most {VTH_MANT_MAX}: use fewer bits or a lower threshold",
                )
        for i, block in enumerate(self.blocks):
            for field, message in block.problems(self.neuron_of(block)):
                yield ("blocks", i, field), message


def _given(block: BlockSpec) -> Iterator[tuple[tuple[str | int, ...], Source | None]]:
    """Yield the path of each field of a block that names a block to read, and its value: the own source first."""
    yield ("source",), block.source
    yield from ((("skips", k, "source"), skip.source) for k, skip in enumerate(skips_of(block)))


def _source_problem(source: Source, last: int, places: Mapping[str, int]) -> str | None:
    """Return what is wrong with a source of the block after block `last`; `places` has the names of earlier blocks."""
    if isinstance(source, str):
        if source in places:
            return None
        shown = ", ".join([*places][-MOST_NAMES:])
        return f"no earlier block is called {source}{suggest(source, places)}; earlier names: {shown}"
    if source <= last:
        return None
    which = "the block itself" if source == last + 1 else "not an earlier block"
    return (
        f"must be the index of an earlier block, 0 (the input) to {last}; {source} is {which} (the first of blocks has "
        "index 1)"
    )


def _kinds(role: Role) -> list[type[Layer]]:
    return [model for model in BLOCK_KINDS if model.role is role]


def _either(models: list[type[Layer]]) -> str:
    """Return the names of kinds as text, such as `dense, conv or avg_pool`."""
    *others, last = map(kind_of, models)
    return f"{', '.join(others)} or {last}" if others else last


def _too_many_neurons(shape: Shape) -> str:
    n = math.prod(shape)
    return (
        f"may have at most {NETWORK_NEURONS:,} neurons, got {n:,} (the states of one image take {n / 2**28:,.0f} GiB)"
    )
