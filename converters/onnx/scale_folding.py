"""Exact folding of scalings and shifts into the weights of layers, in float64."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.linear.ann import AvgPool, Clip, Conv, Dense, LeakyRelu, MaxPool, Node, Operation, Relu
from converters.onnx.tensor_layout import Floats
from specs.errors import ConversionError
from specs.fields import Shape

__all__ = ["add_channel_of_ones", "channel_wise", "in_single_precision", "normalization_values", "scaled", "tensor_of"]


def channel_wise(values: Floats | None) -> Floats | None:
    """Return one value per channel, `[C]`, of values `[C, H, W]` or `[C]`; None if they differ over height and width.

    >>> channel_wise(np.array([[[2.0, 2.0]], [[3.0, 3.0]]])), channel_wise(np.array([[[2.0, 1.0]]]))
    (array([2., 3.]), None)
    """
    if values is None:
        return None
    first = values.reshape(len(values), -1)[:, 0]
    return first if bool((values.reshape(len(values), -1) == first[:, None]).all()) else None


def normalization_values(values: Floats | None, default: float, shape: Shape) -> Floats | None:
    """Return values `[C]` as a normalization takes them: `[1]` if all are equal, `[C]` for maps, otherwise None.

    `default` stands for missing values; `shape` is the shape of an image.
    """
    if values is None:
        return np.array([default])
    if not np.ptp(values):
        return values[:1]
    return values if len(shape) == 3 else None


def scaled(operation: Dense | Conv, scale: Floats | None, shift: Floats | None) -> Dense | Conv:
    """Return the layer with its outputs multiplied by `scale`, plus `shift`, each `[channels]` or None."""
    weight, bias = operation.weight, operation.bias
    if scale is not None:
        factors = tensor_of(scale)
        weight = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
        bias = bias * factors
    if shift is not None:
        bias = bias + tensor_of(shift)
    return replace(operation, weight=weight, bias=bias)


def add_channel_of_ones(nodes: dict[str, Node], source: str, shared: Collection[str]) -> str | None:
    """Append a channel of ones to the maps of `source`; return the convolution that computes it, None if none can.

    A shift before padding cannot become the bias of the next convolution, whose windows see zeros in the padding. A
    channel that is 1 in the maps and 0 in the padding carries the shift: its weight in the next convolution is, at each
    place of the kernel, the sum of the other weights times the shift. The last convolution before `source` gets the
    channel, with weights 0 and bias 1; activations and pools in between must leave a 1 unchanged, and no other node may
    read the maps.
    """
    path: list[str] = []
    name = source
    while name in nodes and name not in shared:
        path.append(name)
        match nodes[name].operation:
            case Conv(groups=1) as first:
                row = torch.zeros(1, *first.weight.shape[1:], dtype=torch.float64)
                bias = torch.cat([first.bias, torch.ones(1, dtype=torch.float64)])
                grown = replace(first, weight=torch.cat([first.weight, row]), bias=bias)
                nodes[name] = replace(nodes[name], operation=grown)
                for node in [nodes[step] for step in path]:
                    nodes[node.name] = replace(node, shape=(node.shape[0] + 1, *node.shape[1:]))
                return name
            case Clip(high) if high < 1:
                return None
            case Relu() | LeakyRelu() | MaxPool() | Clip() | AvgPool(padding=(0, 0)):
                name = nodes[name].inputs[0]
            case _:
                return None
    return None


def in_single_precision(node: Node) -> Operation:
    """Return the operation with its weights in 32 bits.

    Raises:
        ConversionError: a weight is not finite in 32 bits.
    """
    operation = node.operation
    tensors = {n: v.float() for n, v in vars(operation).items() if isinstance(v, Tensor)}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ConversionError(f"{node.name}: its {name} is not finite in 32 bits")
    values: dict[str, Any] = tensors
    return replace(operation, **values)


def tensor_of(array: Floats) -> Tensor:
    """Return a copy as float64; a broadcast view could not be written to."""
    return torch.from_numpy(np.array(array, dtype=np.float64))
