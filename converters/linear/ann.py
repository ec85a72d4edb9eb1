"""An ANN as data, and its evaluation in torch: the starting point of a conversion.

An importer builds an `Ann` from a file. `run_ann` returns its logits and activations, which all later steps compare
with. The ANN is data rather than a torch module, so that those steps can fold, reorder and replace its nodes.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d, padded
from converters.linear.image_normalization import AS_THEY_ARE, Normalization
from converters.linear.linear_fold import Conv as Conv
from converters.linear.linear_fold import Dense as Dense
from specs.fields import Padding, Shape
from specs.shapes import Window


@dataclass(frozen=True)
class AvgPool(Window):
    """Average pooling; padded zeros count in the mean."""


@dataclass(frozen=True)
class MaxPool(Window):
    """Max pooling; padded places are never the maximum."""


@dataclass(frozen=True)
class Relu:
    """ReLU: `max(x, 0)`."""


@dataclass(frozen=True)
class Clip:
    """Clipped ReLU, such as ReLU6: `min(max(x, 0), high)`."""

    high: float


@dataclass(frozen=True)
class LeakyRelu:
    """Leaky ReLU: `x` above 0, `slope * x` below."""

    slope: float


@dataclass(frozen=True)
class PRelu:
    """PReLU: `x` above 0, `slope * x` below, with one slope for each channel: `slope` is `[channels]`."""

    slope: Tensor


SMOOTH: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gelu": lambda x, _: F.gelu(x),
    "gelu (tanh)": lambda x, _: F.gelu(x, approximate="tanh"),
    "silu": lambda x, constant: x * torch.sigmoid(constant * x),
    "hard_swish": lambda x, _: F.hardswish(x),
    "elu": lambda x, constant: F.elu(x, constant),
    "selu": lambda x, _: F.selu(x),
    "celu": lambda x, constant: F.celu(x, constant),
    "softplus": lambda x, _: F.softplus(x),
    "mish": lambda x, _: F.mish(x),
}
"""Activations close to a rectifier by name; functions of a tensor and a constant."""


@dataclass(frozen=True)
class Smooth:
    """Activation of `SMOOTH`, with its constant; only in ANNs whose answers others learn."""

    name: str
    constant: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return SMOOTH[self.name](x, self.constant)


@dataclass(frozen=True)
class Flatten:
    """Reshape of `[C, H, W]` to `[C * H * W]`, in C order."""


@dataclass(frozen=True)
class Add:
    """Sum of two outputs of the same shape."""


@dataclass(frozen=True)
class Concat:
    """Channels of all inputs, one after the other."""


@dataclass(frozen=True)
class ScaleShift:
    """`scale * x + shift`, float64; both have as many axes as the output for one image, and broadcast with it."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Bound:
    """`min(max(x, low), high)`; either bound may be infinite."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class ZeroPad:
    """Zeros around maps, `(top, left, bottom, right)`."""

    padding: Padding


@dataclass(frozen=True)
class Unread:
    """All that was not read of an incomplete file; it reads what the rest of the graph leaves unread."""


Operation = (
    Dense | Conv | AvgPool | MaxPool | Relu | Clip | LeakyRelu | PRelu | Flatten | Add | Concat
    | ScaleShift | Bound | ZeroPad | Smooth | Unread
)  # fmt: skip
"""Operation of a node. Those of the second line are only in graphs as read; `passes` folds or refuses them."""


@dataclass(frozen=True)
class Node:
    """One operation of the network.

    Attributes:
        name: name, that of the file's node if there is one.
        inputs: names of the nodes that it reads.
        shape: shape of the output, without the batch.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: Shape

    @property
    def place(self) -> str:
        """Name and kind of the node, for messages."""
        return f"node {self.name} ({type(self.operation).__name__})"


@dataclass(frozen=True)
class Ann:
    """Image classifier: a normalization of images `[N, *shape]`, then nodes, the last of which returns the logits.

    Attributes:
        shape: shape of one image, `(C, H, W)` or `(features,)`.
        nodes: operations in the order in which they run; the first reads `input_name`.
        normalization: normalization inside the file, applied before the first node.
        input_name: name under which nodes read the normalised images.
        folded: name of the node that does the work of a node that passes removed, or `removed`; and how it came.
        refused: reason to refuse a node, by name.
    """

    shape: Shape
    nodes: tuple[Node, ...]
    normalization: Normalization = AS_THEY_ARE
    input_name: str = "input"
    folded: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    refused: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def readers(self) -> Counter[str]:
        """Number of times that each node is read; the last node is read once more, as the output."""
        return Counter([self.nodes[-1].name, *(name for node in self.nodes for name in node.inputs)])


def run_ann(ann: Ann, images: Tensor, *, keep: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits `[N, classes]`, and the outputs of all nodes by name.

    Args:
        images: `[N, *shape]`, normalised as the ANN expects, apart from `ann.normalization`.
        keep: True to return the outputs of all nodes; False returns an empty dict in their place.
    """
    values = {ann.input_name: ann.normalization(images)}
    last_use = {name: i for i, node in enumerate(ann.nodes) for name in node.inputs}
    for i, node in enumerate(ann.nodes):
        values[node.name] = apply_operation(node.operation, *(values[name] for name in node.inputs))
        if not keep:
            for name in node.inputs:
                if last_use[name] == i:
                    values.pop(name, None)
    return values[ann.nodes[-1].name], (values if keep else {})


def apply_operation(operation: Operation, *inputs: Tensor) -> Tensor:
    """Return the output of one operation on inputs `[N, ...]`."""
    x = inputs[0]
    match operation:
        case Dense(weight, bias):
            return F.linear(x, weight, bias)
        case Conv(weight, bias):
            last = torch.channels_last  # up to twice as fast, also a pool after it
            found = conv2d(x, weight.contiguous(memory_format=last), operation, bias)
            return found.contiguous(memory_format=last)
        case AvgPool(kernel, stride, padding):
            return F.avg_pool2d(padded(x, padding), kernel, stride)
        case MaxPool(kernel, stride, padding):
            return F.max_pool2d(padded(x, padding, -math.inf), kernel, stride)
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
        case Concat():
            return torch.cat(inputs, 1)
        case ScaleShift(scale, shift):
            return x * scale + shift
        case Bound(low, high):
            return x.clamp(low, high)
        case ZeroPad(padding):
            return padded(x, padding)
        case Smooth():
            return operation(x)
        case Unread():
            raise ValueError("an incomplete graph cannot be run")
