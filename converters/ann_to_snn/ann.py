"""An ordinary ANN as data: what an importer makes of a file, and a spiking network is made from. Runs in torch."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.ann_to_snn.image_normalization import AS_THEY_ARE, Normalization
from converters.ann_to_snn.linear_fold import Conv, Dense, Pair
from specs.fields import Shape

__all__ = [
    "Add",
    "Ann",
    "AvgPool",
    "Clip",
    "Conv",
    "Dense",
    "Flatten",
    "LeakyRelu",
    "MaxPool",
    "Node",
    "Operation",
    "PRelu",
    "Relu",
    "apply_operation",
    "run_ann",
]


@dataclass(frozen=True)
class AvgPool:
    """Mean over windows; padding, if any, counts as zeros in the mean."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class MaxPool:
    """Maximum over windows; padding never is the maximum. `extra`: how much more is padded below and on the right."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    extra: Pair = (0, 0)


@dataclass(frozen=True)
class Relu:
    """`max(x, 0)`."""


@dataclass(frozen=True)
class Clip:
    """`min(max(x, 0), high)`: ReLU6 and its kind."""

    high: float


@dataclass(frozen=True)
class LeakyRelu:
    """`x` above 0, `slope * x` below."""

    slope: float


@dataclass(frozen=True)
class PRelu:
    """`x` above 0, `slope * x` below, with a slope for each channel: `[channels]`."""

    slope: Tensor


@dataclass(frozen=True)
class Flatten:
    """`[C, H, W]` to `[C * H * W]`, C order."""


@dataclass(frozen=True)
class Add:
    """The sum of two outputs of one shape."""


Operation = Dense | Conv | AvgPool | MaxPool | Relu | Clip | LeakyRelu | PRelu | Flatten | Add


@dataclass(frozen=True)
class Node:
    """One operation: its output's name, those of its inputs, the output's shape without the batch."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class Ann:
    """A classifier: images `[N, *shape]` in 0..1, normalised, then nodes in order; the last gives the logits.

    Attributes:
        shape: of one image, `(C, H, W)` or `(features,)`.
        nodes: in an order in which each comes after its inputs; the first reads `input_name`.
        normalization: what the file itself does to its input before the first node.
    """

    shape: Shape
    nodes: tuple[Node, ...]
    normalization: Normalization = AS_THEY_ARE
    input_name: str = "input"


def run_ann(ann: Ann, images: Tensor, *, keep: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits `[N, classes]`, and with `keep` the output of every node by name.

    Args:
        ann: the network.
        images: `[N, *shape]`, as the file itself takes them.
        keep: whether to give all outputs.
    """
    values = {ann.input_name: ann.normalization(images)}
    last_use = {name: i for i, node in enumerate(ann.nodes) for name in node.inputs}
    for i, node in enumerate(ann.nodes):
        values[node.name] = apply_operation(node.operation, *(values[name] for name in node.inputs))
        if not keep:
            for name in node.inputs:
                if last_use[name] == i:
                    values.pop(name, None)
    return values[ann.nodes[-1].name], values if keep else {}


def apply_operation(operation: Operation, *inputs: Tensor) -> Tensor:
    """One operation on `[N, ...]`."""
    x = inputs[0]
    match operation:
        case Dense(weight, bias):
            return F.linear(x, weight, bias)
        case Conv():
            o, last = operation, torch.channels_last  # in which oneDNN, and pools behind, are up to twice as fast
            weight = o.weight.contiguous(memory_format=last)
            found = F.conv2d(x, weight, o.bias, o.stride, o.padding, o.dilation, o.groups)
            return found.contiguous(memory_format=last)
        case AvgPool(kernel, stride, padding):
            return F.avg_pool2d(x, kernel, stride, padding)
        case MaxPool(kernel, stride, padding, extra):
            top, left, bottom, right = *padding, padding[0] + extra[0], padding[1] + extra[1]
            if any((left, right, top, bottom)):
                x = F.pad(x, (left, right, top, bottom), value=-math.inf)
            return F.max_pool2d(x, kernel, stride)
        case Relu():
            return torch.relu(x)
        case Clip(high):
            return x.clamp(0, high)
        case LeakyRelu(slope):
            return F.leaky_relu(x, slope)
        case PRelu(slope):
            return F.prelu(x, slope)
        case Flatten():
            return x.flatten(1)
        case Add():
            return x + inputs[1]
