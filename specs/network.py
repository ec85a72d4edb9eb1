"""What a network is: an input, blocks, defaults, and the checks that take more than one block to make."""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from specs.block import (
    AffineSpec,
    AvgPoolSpec,
    BlockSpec,
    Encoding,
    FlattenSpec,
    InputSpec,
    LayerSpec,
    Norm,
    SkipSpec,
    has_neurons,
    skips_of,
)
from specs.fields import VTH_MANT_MAX, Flag, Name, Shape, StrictModel, TimeSteps, threshold_mant
from specs.files.limits import NETWORK_BLOCKS, NETWORK_NEURONS, NETWORK_WEIGHTS
from specs.neuron import CubaSpec, Reset
from specs.shapes import ShapeError, n_weights, output_shape, skip_as_layer, skip_shape
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
            shapes.append(output_shape(block, shapes[-1]))
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
        return {self.neuron_of(layer).reset for layer in self.layers if has_neurons(layer)} or {self.neuron.reset}

    def delay_shift_of(self, layer: LayerSpec) -> bool:
        """Whether an empty step follows the layer. One without neurons has none; the input follows the network."""
        if not has_neurons(layer):
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
            if isinstance(block, AffineSpec):
                yield (
                    ("blocks", i, "kind"),
                    f"affine is a readout and comes last; this is block {i} of {len(self.blocks)} (use dense here)",
                )
        if isinstance(last, FlattenSpec):
            yield (
                ("blocks", len(hidden), "kind"),
                "the last block is the readout: affine, or dense, conv or avg_pool to read their rates",
            )
        if self.input.encoding is Encoding.GRADED and isinstance(self.blocks[0], FlattenSpec | AvgPoolSpec):
            yield (
                ("blocks", 0, "kind"),
                f"graded input enters a dense or conv block, not {self.blocks[0].kind} "
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
                after = output_shape(block, before)
            except ShapeError as error:
                yield ("blocks", i, *([error.field] if error.field else [])), str(error)
                return
            total += n_weights(block, before, after)
            for k, skip in enumerate(skips_of(block)):
                problem = self._skip_problem(skip, shapes, after)
                if problem:
                    field, message = problem
                    yield ("blocks", i, "skips", k, *([field] if field else [])), message
                else:
                    layer, seen = skip_as_layer(skip, shapes[skip.source], after)
                    total += n_weights(layer, seen, output_shape(layer, seen))
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
            shape = skip_shape(skip, before, after)
        except ShapeError as error:
            return error.field, str(error)
        if shape != after:
            return "", f"from block {skip.source} {list(before)} gives {list(shape)}, and the block has {list(after)}"
        return None

    def _arithmetic_problems(self) -> Iterator[Problem]:
        if self.blocks and self.input.encoding is Encoding.GRADED and not isinstance(self.blocks[0], AffineSpec):
            mant = threshold_mant(self.neuron_of(self.blocks[0]).threshold, self.input.levels)
            if mant > VTH_MANT_MAX:
                yield (
                    ("input", "bits"),
                    f"{self.input.bits} bits scale the first threshold to a mantissa of "
                    f"{mant}; the hardware's limit is {VTH_MANT_MAX}",
                )
        for i, block in enumerate(self.blocks):
            norm = getattr(block, "norm", Norm.NONE)
            # Decays are on a grid of 1/4096.
            if norm is Norm.MEAN_ONLY and round(4096 * self.neuron_of(block).current_decay) == 0:
                yield (
                    ("blocks", i, "norm"),
                    "mean_only needs a current_decay above 0, in steps of 1/4096: it leaves as the bias "
                    "mean / current_decay",
                )
            if isinstance(block, AvgPoolSpec):
                weight = self.pool_weight(block)
                if not 1 / 64 < weight <= 254 / 64:
                    yield (
                        ("blocks", i, "kernel"),
                        f"a pool of {block.kernel[0]}x{block.kernel[1]} has weight "
                        f"{weight:.4g}, outside the weight grid (1/64, 254/64]: set gain",
                    )

    def pool_weight(self, pool: AvgPoolSpec) -> float:
        """The one weight of an average pool, before it is rounded to the weight grid.

        That is `gain / (kernel area)`; without a gain, the smallest multiple of 2/64 of which the kernel's sum is above
        the threshold.
        """
        area = pool.kernel[0] * pool.kernel[1]
        if pool.gain is not None:
            return pool.gain / area
        threshold_mant = int(64 * self.neuron_of(pool).threshold)
        return 2 * (threshold_mant // (2 * area) + 1) / 64


def _too_many_neurons(shape: Shape) -> str:
    n = math.prod(shape)
    return (
        f"has {n:,} neurons; at most {NETWORK_NEURONS:,} (the states of one image and step take {n / 2**28:,.0f} GiB)"
    )
