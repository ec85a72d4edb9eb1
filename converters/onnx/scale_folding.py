"""Scalings and shifts in the weights of layers: what is exact, in float64."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.ann_to_snn.ann import AvgPool, Clip, Conv, Dense, LeakyRelu, MaxPool, Node, Operation, Relu
from converters.onnx.tensor_layout import Floats
from specs.errors import ConversionError
from specs.fields import Shape

__all__ = ["add_channel_of_ones", "channel_wise", "in_single_precision", "of_images", "scaled", "tensor_of"]


def channel_wise(values: Floats | None) -> Floats | None:
    """`[C]` of values `[C, H, W]` that are the same over height and width, or of `[C]`; else None.

    >>> channel_wise(np.array([[[2.0, 2.0]], [[3.0, 3.0]]])), channel_wise(np.array([[[2.0, 1.0]]]))
    (array([2., 3.]), None)
    """
    if values is None:
        return None
    first = values.reshape(len(values), -1)[:, 0]
    return first if bool((values.reshape(len(values), -1) == first[:, None]).all()) else None


def of_images(values: Floats | None, default: float, shape: Shape) -> Floats | None:
    """`[1]` of values `[C]` that are the same, `[C]` of others if images of `shape` are maps; `default` for None."""
    if values is None:
        return np.array([default])
    if not np.ptp(values):
        return values[:1]
    return values if len(shape) == 3 else None


def scaled(operation: Dense | Conv, scale: Floats | None, shift: Floats | None) -> Dense | Conv:
    """The layer with its outputs times `scale` `[channels]`, plus `shift`."""
    weight, bias = operation.weight, operation.bias
    if scale is not None:
        factors = tensor_of(scale)
        weight = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
        bias = bias * factors
    if shift is not None:
        bias = bias + tensor_of(shift)
    return replace(operation, weight=weight, bias=bias)


def add_channel_of_ones(nodes: dict[str, Node], source: str, shared: Collection[str]) -> str | None:
    """Give the maps of `source` a last channel of ones, and name the convolution that makes it, if there is one.

    A shift before padding is no bias: the next windows see zeros around. A channel that is 1 inside, and 0 around as
    all are, carries it: the next layer weighs it by what its other weights make of the shift. The last convolution
    before the source gets the channel, weights 0 and bias 1; activations and pools in between leave a 1 as it is.
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
    """The operation with weights of 32 bits.

    Raises:
        ConversionError: one of them is not finite.
    """
    operation = node.operation
    tensors = {n: v.float() for n, v in vars(operation).items() if isinstance(v, Tensor)}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ConversionError(f"{node.name}: a {name} that is not finite in 32 bits")
    values: dict[str, Any] = tensors
    return replace(operation, **values)


def tensor_of(array: Floats) -> Tensor:
    """A float64 copy: views that broadcast cannot be written."""
    return torch.from_numpy(np.array(array, dtype=np.float64))
