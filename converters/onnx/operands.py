"""Inputs of operators: tensors that depend on the image, constants, and arithmetic of both."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from converters.onnx.ann_builder import TENSOR_WORK, AnnBuilder
from converters.onnx.operator_table import Inputs, Value
from converters.onnx.reading.onnx_file import Array
from converters.onnx.tensor_layout import Data, Floats, Index, spread_over
from specs.errors import IntegrityError, UnsupportedError

__all__ = [
    "affine",
    "as_floats",
    "bound_at",
    "constant",
    "data_at",
    "floats_at",
    "input_at",
    "laid_out",
    "one_number",
    "only_data",
    "shifted",
]


def input_at(inputs: Inputs, place: int) -> Value | None:
    """Return an input; None if it is left out."""
    return inputs[place] if place < len(inputs) else None


def data_at(inputs: Inputs, place: int) -> Data:
    """Return an input that must depend on the image."""
    value = input_at(inputs, place)
    if not isinstance(value, Data):
        raise UnsupportedError(f"its input {place + 1} must depend on the image, not be constant")
    return value


def constant(value: Value | None, what: str) -> Array | None:
    """Return an input that must be constant; `what` names it in the message."""
    if isinstance(value, Data):
        raise UnsupportedError(f"{what} must be constant, not computed from the image")
    return value


def floats_at(inputs: Inputs, place: int, what: str) -> Floats:
    """Return a required constant input as float64; `what` names it in the message."""
    value = constant(input_at(inputs, place), what)
    if value is None:
        raise UnsupportedError(f"{what} must be given")
    return as_floats(value)


def as_floats(value: Value | None) -> Floats:
    """Return a constant as float64; numbers that overflow become infinite."""
    if isinstance(value, Data) or value is None:
        raise UnsupportedError("one of its inputs must be constant")
    with np.errstate(all="ignore"):
        return value.astype(np.float64)


def bound_at(inputs: Inputs, place: int, default: float) -> float:
    """Return the number in an optional constant input, or `default` if it is left out."""
    return default if input_at(inputs, place) is None else one_number(floats_at(inputs, place, "its bound"))


def one_number(values: npt.NDArray[np.generic]) -> float:
    """Return the number that all elements of an array are equal to."""
    numbers = values.astype(np.float64).ravel()
    if not numbers.size or (numbers != numbers[0]).any():
        raise UnsupportedError("its bounds must be one number, the same for all values")
    return float(numbers[0])


def only_data(
    inputs: Inputs, otherwise: str = "exactly one of its inputs may depend on the image, the others must be constant"
) -> tuple[Data, list[Array]]:
    """Return the one input that depends on the image, and the constant inputs."""
    tensors = [value for value in inputs if isinstance(value, Data)]
    if len(tensors) != 1:
        raise UnsupportedError(otherwise)
    return tensors[0], [value for value in inputs if isinstance(value, np.ndarray)]


def affine(builder: AnnBuilder, data: Data, scale: Floats, shift: Floats | None) -> Data:
    """Return `scale * x + shift`; scale and shift broadcast with the tensor."""
    for values in (scale, shift):
        if values is not None and not np.isfinite(values).all():
            raise IntegrityError("its factor or shift is not finite")
    builder.budget.spend(TENSOR_WORK * data.index.size)
    data, factors = spread_over(data, scale, fill=1.0)
    if shift is None:
        return builder.affine(data, factors, None)
    data, moves = spread_over(data, shift, fill=0.0, moves=True)
    return builder.affine(data, factors, moves)


def shifted(builder: AnnBuilder, data: Data, shift: Floats) -> Data:
    """Return `x + shift`; shift broadcasts with the tensor."""
    if not np.isfinite(shift).all():
        raise IntegrityError("its constant is not finite")
    builder.budget.spend(TENSOR_WORK * data.index.size)
    data, moves = spread_over(data, shift, fill=0.0, moves=True)
    return builder.affine(data, None, moves)


def laid_out(data: Data, index: Index) -> Data:
    """Return the tensor with its values at other places."""
    return replace(data, index=np.ascontiguousarray(index))
