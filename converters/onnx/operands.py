"""What operators take their inputs as: what depends on the image, constants, and a meeting of both."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from converters.onnx.ann_builder import AnnBuilder
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
    "laid_out",
    "one_number",
    "only_data",
    "shifted",
]


def data_at(inputs: Inputs, place: int) -> Data:
    """An input that must depend on the image."""
    value = inputs[place] if place < len(inputs) else None
    if not isinstance(value, Data):
        raise UnsupportedError(f"its input {place + 1} does not depend on the image")
    return value


def constant(value: Value | None, what: str) -> Array | None:
    """A value that must not depend on the image."""
    if isinstance(value, Data):
        raise UnsupportedError(f"{what} depends on the image")
    return value


def floats_at(inputs: Inputs, place: int, what: str) -> Floats:
    """A constant input that must be there, float64."""
    value = inputs[place] if place < len(inputs) else None
    if isinstance(value, Data) or value is None:
        raise UnsupportedError(f"has {what} computed from the image" if value is not None else f"lacks {what}")
    return as_floats(value)


def as_floats(value: Value | None) -> Floats:
    """A constant, float64; what overflows becomes infinite."""
    if isinstance(value, Data) or value is None:
        raise UnsupportedError("lacks a constant")
    with np.errstate(all="ignore"):
        return value.astype(np.float64)


def bound_at(inputs: Inputs, place: int, default: float) -> float:
    """The one number of a constant input, which may be left out."""
    if place >= len(inputs) or inputs[place] is None:
        return default
    return one_number(floats_at(inputs, place, "a bound"))


def one_number(values: npt.NDArray[np.generic]) -> float:
    """The number that an array holds once or more."""
    numbers = values.astype(np.float64).ravel()
    if not numbers.size or (numbers != numbers[0]).any():
        raise UnsupportedError("bounds that differ between numbers")
    return float(numbers[0])


def only_data(
    inputs: Inputs, otherwise: str = "joins two tensors that depend on the image"
) -> tuple[Data, list[Array]]:
    """The one input that depends on the image, and the others."""
    tensors = [value for value in inputs if isinstance(value, Data)]
    if len(tensors) != 1:
        raise UnsupportedError(otherwise)
    return tensors[0], [value for value in inputs if isinstance(value, np.ndarray)]


def affine(builder: AnnBuilder, data: Data, scale: Floats, shift: Floats | None) -> Data:
    """`scale * x + shift`, each meeting the tensor by broadcasting."""
    for values in (scale, shift):
        if values is not None and not np.isfinite(values).all():
            raise IntegrityError("a factor or a shift that is not finite")
    data, factors = spread_over(data, scale, fill=1.0)
    if shift is None:
        return builder.affine(data, factors, None)
    data, moves = spread_over(data, shift, fill=0.0, moves=True)
    return builder.affine(data, factors, moves)


def shifted(builder: AnnBuilder, data: Data, shift: Floats) -> Data:
    """`x + shift`, which meets the tensor by broadcasting."""
    if not np.isfinite(shift).all():
        raise IntegrityError("a constant that is not finite")
    data, moves = spread_over(data, shift, fill=0.0, moves=True)
    return builder.affine(data, None, moves)


def laid_out(data: Data, index: Index) -> Data:
    """The same numbers in other places."""
    return replace(data, index=np.ascontiguousarray(index))
