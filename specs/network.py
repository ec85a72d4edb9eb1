"""What a network is: an input, blocks, defaults, and the checks that take more than one block to make."""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from specs.block import (
    BLOCK_KINDS,
    BlockSpec,
    Encoding,
    InputSpec,
    Layer,
    LayerSpec,
    Role,
    SkipSpec,
    kind_of,
    skips_of,
)
from specs.fields import VTH_MANT_MAX, Flag, Name, Shape, StrictModel, TimeSteps, threshold_mant
from specs.files.limits import NETWORK_BLOCKS, NETWORK_NEURONS, NETWORK_WEIGHTS
from specs.neuron import CubaSpec, Reset
from specs.shapes import ShapeError
from specs.training import TrainingSpec

__all__ = ["SCHEMA_VERSION", "NetworkSpec"]

SCHEMA_VERSION: Final = 1

Problem = tuple[tuple[str | int, ...], str]
"""The path of the field to blame, and what is wrong."""


class NetworkSpec(StrictModel):
    """A whole network: an input, then blocks, the last of which is the readout.

    >>> spec = NetworkSpec.model_validate({"name": "tiny", "time_steps": 4, "input": {"shape": [9]},
    ...     "blocks": [{"kind": "dense", "features": 5}, {"kind": "affine", "features": 2}]})
    >>> spec.shapes
    ((9,), (5,), (2,))
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    """The version of this form of spec."""
    name: Name
    """What the network is called: lower case, digits, `.`, `_` and `-`."""
    description: str = ""
    """What people read of it."""
    time_steps: TimeSteps
    """T, the length of one presentation."""
    neuron: CubaSpec = CubaSpec()
    """The neurons of the input and of each block that has none of its own."""
    delay_shift: Flag = False
    """Whether an empty step, inside the T steps, follows the input's neurons and each block of neurons, as in lava-dl;
    a block may have its own."""
    input: InputSpec
    """How images come in."""
    blocks: Annotated[tuple[BlockSpec, ...], Field(max_length=NETWORK_BLOCKS)]
    """What follows the input, told apart by `kind`; the last is the readout: affine, or neurons whose rates are the
    logits."""
    training: TrainingSpec | None = None
    """The recipe that `zoo train` follows."""

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The input and the blocks, in order; `Network.blocks` has the same indices."""
        return (self.input, *self.blocks)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of each of `layers`."""
        shapes = [self.input.shape]
        for block in self.blocks:
            shapes.append(block.output_shape(shapes[-1]))
        return tuple(shapes)

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return math.prod(self.shapes[-1])

    def neuron_of(self, layer: LayerSpec) -> CubaSpec:
        """The layer's own neuron, or the network's."""
        return getattr(layer, "neuron", None) or self.neuron

    @property
    def resets(self) -> set[Reset]:
        """What spikes do, of all layers with neurons; without any, of the network's."""
        return {self.neuron_of(layer).reset for layer in self.layers if layer.has_neurons} or {self.neuron.reset}

    def delay_shift_of(self, layer: LayerSpec) -> bool:
        """Whether an empty step follows the layer. One without neurons has none; the input follows the network."""
        if not layer.has_neurons:
            return False
        own = getattr(layer, "delay_shift", None)
        return self.delay_shift if own is None else own

    @model_validator(mode="after")
    def _check(self) -> "NetworkSpec":
        problems = list(chain(self._order_problems(), self._shape_problems(), self._arithmetic_problems()))
        if problems:
            details: list[InitErrorDetails] = [
                {"type": PydanticCustomError("network", "{message}", {"message": message}), "loc": path, "input": None}
                for path, message in problems
            ]
            raise ValidationError.from_exception_data("NetworkSpec", details)
        return self

    def _order_problems(self) -> Iterator[Problem]:
        if not self.blocks:
            yield ("blocks",), "a network needs at least its readout, {kind: affine, features: N}"
            return
        *hidden, last = self.blocks
        for i, block in enumerate(hidden):
            if block.role is Role.LOGITS:
                yield (
                    ("blocks", i, "kind"),
                    f"{block.kind} is a readout and comes last; this is block {i} of {len(self.blocks)} "
                    "(use dense here)",
                )
        readouts, spiking = _kinds(Role.LOGITS), _kinds(Role.SPIKES)
        if last.role is Role.RESHAPED:
            yield (
                ("blocks", len(hidden), "kind"),
                f"the last block is the readout: {_either(readouts)}, or {_either(spiking)} to read their rates",
            )
        if self.input.encoding is Encoding.GRADED and not self.blocks[0].takes_graded_input:
            takers = [kind for kind in spiking if kind.takes_graded_input]
            yield (
                ("blocks", 0, "kind"),
                f"graded input enters a {_either(takers)} block, not {self.blocks[0].kind} "
                "(give input.shape as one number to flatten images)",
            )

    def _shape_problems(self) -> Iterator[Problem]:
        shapes, total = [self.input.shape], 0
        if math.prod(self.input.shape) > NETWORK_NEURONS:
            yield ("input", "shape"), _too_many_neurons(self.input.shape)
            return
        for i, block in enumerate(self.blocks):
            before = shapes[-1]
            try:
                after = block.output_shape(before)
            except ShapeError as error:
                yield ("blocks", i, *([error.field] if error.field else [])), str(error)
                return
            total += block.n_weights(before)
            for k, skip in enumerate(skips_of(block)):
                problem = self._skip_problem(skip, shapes, after)
                if problem:
                    field, message = problem
                    yield ("blocks", i, "skips", k, *([field] if field else [])), message
                else:
                    layer, seen = skip.as_layer(shapes[skip.source], after)
                    total += layer.n_weights(seen)
            if total > NETWORK_WEIGHTS:
                yield (
                    ("blocks", i),
                    f"with this block the network has {total:,} weights; at most {NETWORK_WEIGHTS:,} "
                    f"(as floats they take {total / 2**28:,.0f} GiB)",
                )
                return
            if math.prod(after) > NETWORK_NEURONS:
                yield ("blocks", i), _too_many_neurons(after)
                return
            shapes.append(after)

    def _skip_problem(self, skip: SkipSpec, shapes: list[Shape], after: Shape) -> tuple[str, str] | None:
        """The field to blame and what is wrong with a skip to the block that follows `shapes`."""
        own = len(shapes)
        if skip.source >= own:
            which = "this block itself" if skip.source == own else "a later block, or none"
            return "source", (
                f"{skip.source} is {which}; a skip comes from an earlier one, 0 (the input) to {own - 1} "
                "(the first of blocks is 1)"
            )
        if skip.source == 0 and self.input.encoding is Encoding.GRADED:
            return "source", "0 is graded input, whose units are not those of spikes: skip from a block of neurons"
        before = shapes[skip.source]
        try:
            shape = skip.output_shape(before, after)
        except ShapeError as error:
            return error.field, str(error)
        if shape != after:
            return "", f"from block {skip.source} {list(before)} gives {list(shape)}, and the block has {list(after)}"
        return None

    def _arithmetic_problems(self) -> Iterator[Problem]:
        if self.blocks and self.input.encoding is Encoding.GRADED and self.blocks[0].role is not Role.LOGITS:
            mant = threshold_mant(self.neuron_of(self.blocks[0]).threshold, self.input.levels)
            if mant > VTH_MANT_MAX:
                yield (
                    ("input", "bits"),
                    f"{self.input.bits} bits scale the first threshold to a mantissa of "
                    f"{mant}; the hardware's limit is {VTH_MANT_MAX}",
                )
        for i, block in enumerate(self.blocks):
            for field, message in block.problems(self.neuron_of(block)):
                yield ("blocks", i, field), message


def _kinds(role: Role) -> list[type[Layer]]:
    return [model for model in BLOCK_KINDS if model.role is role]


def _either(models: list[type[Layer]]) -> str:
    """Names of kinds, as in `dense, conv or avg_pool`."""
    *others, last = map(kind_of, models)
    return f"{', '.join(others)} or {last}" if others else last


def _too_many_neurons(shape: Shape) -> str:
    n = math.prod(shape)
    return (
        f"has {n:,} neurons; at most {NETWORK_NEURONS:,} (the states of one image and step take {n / 2**28:,.0f} GiB)"
    )
