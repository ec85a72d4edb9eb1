"""Maxima over windows as sums of rectifiers: `max(a, b) = a + relu(b - a)`, exact for numbers of either sign.

Neurons that fire when any neuron of their window does need inputs that are rates. Where the input of a max pool is not
rectified, as after a leaky ReLU or with no activation at all, this pass replaces the pool.
"""

from dataclasses import replace

import torch

from converters.linear.ann import Add, Ann, Clip, Concat, MaxPool, Node, Relu
from converters.linear.linear_fold import Conv, selection
from specs.fields import Shape


def with_maxima_as_sums(ann: Ann) -> Ann:
    """Replace max pools without padding whose input is not rectified; the last of the new nodes has the pool's name."""
    rectified, nodes = set[str](), list[Node]()
    for node in ann.nodes:
        match node.operation:
            case MaxPool(padding=padding) if node.inputs[0] not in rectified and not any(padding):
                nodes += _sums(node, ann)
            case operation:
                nodes.append(node)
                passes = isinstance(operation, MaxPool | Concat) or (
                    isinstance(operation, Conv) and operation.stride == (1, 1) and selection(operation) is not None
                )
                if isinstance(operation, Relu | Clip) or (passes and rectified.issuperset(node.inputs)):
                    rectified.add(node.name)
    return replace(ann, nodes=tuple(nodes))


def _sums(pool: Node, ann: Ann) -> list[Node]:
    """Return nodes that compute a max pool: along the rows first, then along the columns of the result."""
    assert isinstance(pool.operation, MaxPool)
    kernel, stride, made = pool.operation.kernel, pool.operation.stride, list[Node]()
    channels = pool.shape[0]
    source = pool.inputs[0]
    before = next((node.shape for node in ann.nodes if node.name == source), ann.shape)

    def add(what: str, operation: Conv | Add | Relu, inputs: tuple[str, ...], shape: Shape) -> str:
        made.append(Node(f"{pool.name}, {what}", operation, inputs, shape))
        return made[-1].name

    for axis in (1, 0):
        sides = list(before)
        sides[1 + axis] = (before[1 + axis] - kernel[axis]) // stride[axis] + 1
        shape = (sides[0], sides[1], sides[2])
        steps = (stride[0] if axis == 0 else 1, stride[1] if axis == 1 else 1)
        size = (kernel[0] if axis == 0 else 1, kernel[1] if axis == 1 else 1)
        found = ""
        for i in range(kernel[axis]):
            weight = torch.zeros(channels, 1, *size)
            weight.flatten(1)[:, i] = 1.0
            place = f"place {i} of axis {axis}"
            each = add(place, Conv(weight, torch.zeros(channels), steps, groups=channels), (source,), shape)
            if found:
                minus = Conv(-torch.ones(channels, 1, 1, 1), torch.zeros(channels), groups=channels)
                less = add(f"before {place}", minus, (found,), shape)
                more = add(f"step to {place}", Add(), (each, less), shape)
                each = add(f"rise to {place}", Relu(), (more,), shape)
                each = add(f"up to {place}", Add(), (found, each), shape)
            found = each
        source, before = found, shape
    made[-1] = replace(made[-1], name=pool.name)
    return made
