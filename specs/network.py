"""What a network is: an input, blocks, defaults, and the checks that take more than one block to make."""

from typing import Final, Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from specs.block import AffineSpec, AvgPoolSpec, BlockSpec, Encoding, FlattenSpec, InputSpec, LayerSpec, Norm
from specs.fields import VTH_MANT_MAX, Name, Shape, StrictModel, TimeSteps
from specs.neuron import CubaSpec
from specs.shapes import ShapeError, output_shape
from specs.training import TrainingSpec

__all__ = ["SCHEMA_VERSION", "NetworkSpec"]

SCHEMA_VERSION: Final = 1


def _problem(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """An error that carries the path of the field to blame; `specs.io` prints it."""
    return PydanticCustomError("network", "{message}", {"message": message, "path": path})


class NetworkSpec(StrictModel):
    """A whole network: `input`, then `blocks`, the last of them an affine readout.

    `neuron` and `delay_shift` are the defaults of every block that has none of its own. `delay_shift` inserts one
    empty step after each spiking block, inside the T steps, as lava-dl's blocks do.

    >>> spec = NetworkSpec.model_validate({"name": "tiny", "time_steps": 4, "input": {"shape": [9]},
    ...     "blocks": [{"kind": "dense", "features": 5}, {"kind": "affine", "features": 2}]})
    >>> spec.shapes
    ((9,), (5,), (2,))
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    description: str = ""
    time_steps: TimeSteps
    neuron: CubaSpec = CubaSpec()
    delay_shift: bool = False
    input: InputSpec
    blocks: tuple[BlockSpec, ...]
    training: TrainingSpec | None = None

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
        return self.shapes[-1][0]

    def neuron_of(self, layer: LayerSpec) -> CubaSpec:
        """The layer's own neuron, or the network's."""
        return getattr(layer, "neuron", None) or self.neuron

    def delay_shift_of(self, layer: LayerSpec) -> bool:
        """Whether an empty step follows the layer. An affine readout has none; the input follows the network."""
        if isinstance(layer, AffineSpec | FlattenSpec):
            return False
        own = getattr(layer, "delay_shift", None)
        return self.delay_shift if own is None else own

    @model_validator(mode="after")
    def _check(self) -> "NetworkSpec":
        self._check_order()
        self._check_shapes()
        self._check_arithmetic()
        return self

    def _check_order(self) -> None:
        if not self.blocks:
            raise _problem(("blocks",), "a network needs at least its readout, {kind: affine, features: N}")
        for i, block in enumerate(self.blocks[:-1]):
            if isinstance(block, AffineSpec):
                raise _problem(
                    ("blocks", i, "kind"),
                    f"affine is a readout and comes last; this is block {i} of {len(self.blocks)} (use dense here)",
                )
        if not isinstance(self.blocks[-1], AffineSpec):
            last = len(self.blocks) - 1
            raise _problem(
                ("blocks", last, "kind"),
                f"the last block is the readout and must be affine, not {self.blocks[-1].kind}",
            )
        if self.input.encoding is Encoding.GRADED and isinstance(self.blocks[0], FlattenSpec | AvgPoolSpec):
            raise _problem(
                ("blocks", 0, "kind"),
                f"graded input enters a dense or conv block, not {self.blocks[0].kind} "
                "(give input.shape as one number to flatten images)",
            )

    def _check_shapes(self) -> None:
        shape: Shape = self.input.shape
        for i, block in enumerate(self.blocks):
            try:
                shape = output_shape(block, shape)
            except ShapeError as error:
                raise _problem(("blocks", i, *([error.field] if error.field else [])), str(error)) from None

    def _check_arithmetic(self) -> None:
        if self.input.encoding is Encoding.GRADED:
            mant = int(64 * self.neuron_of(self.blocks[0]).threshold * self.input.levels)
            if mant > VTH_MANT_MAX and not isinstance(self.blocks[0], AffineSpec):
                raise _problem(
                    ("input", "bits"),
                    f"{self.input.bits} bits scale the first threshold to a mantissa of "
                    f"{mant}; the hardware's limit is {VTH_MANT_MAX}",
                )
        for i, block in enumerate(self.blocks):
            norm = getattr(block, "norm", Norm.NONE)
            if norm is Norm.MEAN_ONLY and self.neuron_of(block).current_decay == 0:
                raise _problem(
                    ("blocks", i, "norm"),
                    "mean_only needs a current_decay above 0: it leaves as the bias mean / current_decay",
                )
            if isinstance(block, AvgPoolSpec):
                weight = self.pool_weight(block)
                if not 1 / 64 < weight <= 254 / 64:
                    raise _problem(
                        ("blocks", i, "kernel"),
                        f"a pool of {block.kernel[0]}x{block.kernel[1]} has weight "
                        f"{weight:.4g}, outside the weight grid (1/64, 254/64]: set gain",
                    )

    def pool_weight(self, pool: AvgPoolSpec) -> float:
        """The one weight of an average pool, `gain / (kernel area)`, before it is rounded to the weight grid."""
        gain = self.neuron_of(pool).threshold if pool.gain is None else pool.gain
        return gain / (pool.kernel[0] * pool.kernel[1])
