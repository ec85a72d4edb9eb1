"""Inputs of operators: tensors that depend on the image, constants, and arithmetic of both."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from converters.linear.ann import ScaleShift
from converters.linear.passes import narrowed
from converters.onnx.flat_graph import KEPT_WORK, TENSOR_WORK, FlatGraph
from converters.onnx.operator_table import Inputs, Value
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import GraphNode
from converters.onnx.tensor_layout import Data, Floats, spread_over
from specs.errors import IntegrityError, UnsupportedError


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


def scaled(
    node: GraphNode, data: Data, flat: FlatGraph, scale: Floats | None = None, shift: Floats | None = None
) -> Data:
    """Return `scale * x + shift`; both broadcast with the tensor, and are 1 and 0 if left out."""
    parts = []
    for values, fill in ((scale, 1.0), (shift, 0.0)):
        if values is not None and not np.isfinite(values).all():
            raise IntegrityError("its factor or shift is not finite")
        each = np.full([1] * len(data.shape), fill)
        if values is not None:
            flat.budget.spend(TENSOR_WORK * data.index.size)
            try:
                data, each = spread_over(data, values, fill=fill, moves=values is shift)
            except UnsupportedError:
                made = flat.plain(node, data)
                if made is data:
                    raise
                return scaled(node, made, flat, scale, shift)
        few = narrowed(tensor_of(each))
        if bool((few == few.flatten()[0]).all()):
            few = few.flatten()[:1].reshape([1] * few.dim()).clone()
        flat.budget.spend(KEPT_WORK * few.numel())
        parts.append(few)
    made = flat.add(node, ScaleShift(*parts), data)
    return replace(made, grid=data.grid, ending=data.ending)


def tensor_of(array: Floats) -> Tensor:
    """Return a copy as float64; a broadcast view could not be written to."""
    return torch.from_numpy(np.array(array, dtype=np.float64))
