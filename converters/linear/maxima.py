"""Maxima over windows as sums of rectifiers: `max(a, b) = a + relu(b - a)`, exact for numbers of either sign.

Neurons that fire when any neuron of their window does need inputs that are rates, and fire more often than the most
active of them. Sums need more neurons, and no rates.
"""

from dataclasses import replace
from math import prod

import torch

from converters.linear.ann import Add, Ann, Clip, Concat, MaxPool, Node, Relu
from converters.linear.linear_fold import Conv, selection
from specs.shapes import pads_of


def with_maxima_as_sums(ann: Ann, *, rectified_too: bool) -> Ann:
    """Replace max pools by sums; the last of the new nodes has the pool's name.

    Pools of what is not rectified, as after a leaky ReLU or with no activation at all, are replaced if they have no
    padding; the others only with `rectified_too`.
    """
    rectified, nodes = set[str](), list[Node]()
    for node in ann.nodes:
        operation = node.operation
        is_rectified = rectified.issuperset(node.inputs)
        if isinstance(operation, MaxPool) and (rectified_too if is_rectified else not any(operation.padding)):
            nodes += _sums(node, ann)
        else:
            nodes.append(node)
        passes = isinstance(operation, MaxPool | Concat) or (
            isinstance(operation, Conv) and operation.stride == (1, 1) and selection(operation) is not None
        )
        if isinstance(operation, Relu | Clip) or (passes and is_rectified):
            rectified.add(node.name)
    return replace(ann, nodes=tuple(nodes))


def _sums(pool: Node, ann: Ann) -> list[Node]:
    """Return nodes that compute a max pool: along the rows first, then along the columns of the result.

    Padding is one of zeros, which are never above a rectified maximum.
    """
    assert isinstance(pool.operation, MaxPool)
    kernel, stride = pool.operation.kernel, pool.operation.stride
    top, left, bottom, right = pads_of(pool.operation.padding)
    channels, made = pool.shape[0], list[Node]()
    source = pool.inputs[0]
    shape = next((node.shape for node in ann.nodes if node.name == source), ann.shape)

    def add(what: str, operation: Conv | Add | Relu, *inputs: str) -> str:
        made.append(Node(f"{pool.name}, {what}", operation, inputs, shape))
        return made[-1].name

    for side, steps, pads in (
        ((1, kernel[1]), (1, stride[1]), (0, left, 0, right)),
        ((kernel[0], 1), (stride[0], 1), (top, 0, bottom, 0)),
    ):
        places = [
            Conv(weight.expand(channels, 1, *side), torch.zeros(channels), steps, pads, groups=channels)
            for weight in torch.eye(prod(side)).reshape(-1, 1, 1, *side)
        ]
        found, shape = "", places[0].output_shape(shape)
        for i, place in enumerate(places):
            which = f"place {i} of {side}"
            each = add(which, place, source)
            if found:
                minus = Conv(-torch.ones(channels, 1, 1, 1), torch.zeros(channels), groups=channels)
                rise = add(f"step to {which}", Add(), each, add(f"before {which}", minus, found))
                each = add(f"up to {which}", Add(), found, add(f"rise to {which}", Relu(), rise))
            found = each
        source = found
    made[-1] = replace(made[-1], name=pool.name)
    return made
