"""An ANN as layers that can spike: each a linear map, and the activation that its neurons will stand for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod

import torch
from torch import Tensor

from converters import ann as nets
from converters.ann import Ann, Node
from converters.linear_fold import Conv, Dense, fold_conv, pool, spread
from specs.errors import UnsupportedError
from specs.fields import Shape

__all__ = ["MaxPooling", "SpikingLayer", "activations_first", "spiking_layers"]

ACTIVATIONS = (nets.Relu, nets.Clip, nets.LeakyRelu, nets.PRelu)
LARGEST_READOUT = 1 << 26
"""Weights of a readout that a final convolution and pool become."""


class MaxPooling(StrEnum):
    """What becomes of a maximum over windows.

    `any`: neurons that fire when any neuron of their window does; `average`: the mean instead, folded into the next
    layer; `error`: it is refused.
    """

    ANY = "any"
    AVERAGE = "average"
    ERROR = "error"


@dataclass(frozen=True)
class SpikingLayer:
    """A layer of neurons, or the readout.

    Attributes:
        target: node of the ANN whose output the rates of the neurons stand for; of a readout, the logits.
        linear: weights and bias; of an `any` pool, ones.
        before, after: shapes of its input, before it is flattened, and output.
        activation: what the neurons stand for; None for a readout without neurons.
        flattens: whether its input is flattened first.
        is_any: whether it is an `any` pool.
        slopes: of a leaky activation, `[channels]` above 0: the first half of the channels stands for what is above
            0, the second for what is below, divided by the slope and turned positive; None for others.
    """

    target: str
    linear: Dense | Conv
    before: Shape
    after: Shape
    activation: nets.Operation | None
    flattens: bool = False
    is_any: bool = False
    slopes: Tensor | None = None

    def wanted(self, output: Tensor) -> Tensor:
        """What the rates stand for, `[N, *after]` and never negative, for the node's output `[N, ...]`."""
        if self.slopes is None:
            return output.reshape(len(output), *self.after).clamp_min(0)
        slopes = self.slopes.to(output.dtype).reshape(-1, *[1] * (output.dim() - 2))
        return torch.cat([output.clamp_min(0), (-output / slopes).clamp_min(0)], dim=1)


def spiking_layers(ann: Ann, max_pooling: MaxPooling) -> list[SpikingLayer]:
    """The layers in order, of an ANN with its `activations_first`. Averages fold into the weights beside them, exactly.

    Raises:
        UnsupportedError: what has no spiking form; names all of it that can be told at once.
    """
    nodes = ann.nodes
    problems = [f"{node.name}: a sum of two branches" for node in nodes if isinstance(node.operation, nets.Add)]
    if max_pooling is MaxPooling.ERROR:
        problems += [f"{node.name}: a maximum" for node in nodes if isinstance(node.operation, nets.MaxPool)]
    if problems:
        raise UnsupportedError("no spiking layers for " + "; ".join(problems))
    return list(_Lowering(ann.shape, max_pooling).layers(list(nodes)))


def activations_first(ann: Ann) -> Ann:
    """The same ANN with maxima behind activations instead of before them: both only rise."""
    ordered = list(ann.nodes)
    i = 0
    while i + 1 < len(ordered):
        first, second = ordered[i], ordered[i + 1]
        if (
            isinstance(first.operation, nets.MaxPool)
            and isinstance(second.operation, ACTIVATIONS)
            and second.inputs == (first.name,)
        ):
            before = next((node.shape for node in ordered if node.name == first.inputs[0]), ())
            early = replace(second, name=f"{second.name} before {first.name}", inputs=first.inputs, shape=before)
            ordered[i : i + 2] = [early, replace(first, name=second.name, inputs=(early.name,))]
            i = max(i - 1, 0)
        else:
            i += 1
    return replace(ann, nodes=tuple(ordered))


class _Lowering:
    """Walks along the chain, with the linear map that waits for its activation and the averages before it."""

    def __init__(self, shape: Shape, max_pooling: MaxPooling) -> None:
        self.before, self.max_pooling = shape, max_pooling
        self.average: Conv | None = None
        self.slopes: Tensor | None = None  # of the layer before
        self.linear: Dense | Conv | None = None
        self.flattens = False

    def layers(self, nodes: list[Node]) -> Iterator[SpikingLayer]:
        for node in nodes:
            match node.operation:
                case nets.Flatten():
                    self.flattens = self.flattens or len(self.before) > 1
                case nets.Conv() as conv:
                    weight, bias = conv.weight.double(), conv.bias.double()
                    self._take_conv(node, Conv(weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups))
                case nets.Dense(weight, bias):
                    self._take_dense(node, Dense(weight.double(), bias.double()))
                case nets.AvgPool(kernel, stride, padding):
                    self._take_average(kernel, stride, padding)
                case nets.MaxPool(extra=extra) if any(extra):
                    raise UnsupportedError(f"{node.name}: a maximum over windows padded by {extra} at one end only")
                case nets.MaxPool(kernel, stride, padding) if self.max_pooling is MaxPooling.AVERAGE:
                    self._take_average(kernel, stride, padding)
                case nets.MaxPool(kernel, stride, padding):
                    if self.average is not None or self.linear is not None or self.slopes is not None:
                        raise UnsupportedError(f"{node.name}: a maximum with no activation, or a leaky one, before it")
                    self.linear = pool(torch.ones(self.before[0]), kernel, stride, padding)
                    yield self._close(node, nets.Relu(), is_any=True)
                case _:
                    if self.linear is None:
                        raise UnsupportedError(f"{node.name}: an activation with no weights before it")
                    yield self._close(node, node.operation)
        if self.linear is None and self.average is None:
            return
        yield self._readout(nodes[-1])

    def _close(self, node: Node, activation: nets.Operation | None, *, is_any: bool = False) -> SpikingLayer:
        assert self.linear is not None
        slopes, after = _slopes_of(activation, node.shape[0]), node.shape
        linear = self.linear
        if slopes is not None:  # leaky(x) = relu(x) - slope relu(-x)
            linear, after = _both_signs(linear), (2 * after[0], *after[1:])
        layer = SpikingLayer(node.name, linear, self.before, after, activation, self.flattens, is_any, slopes)
        self.before, self.linear, self.average, self.flattens, self.slopes = after, None, None, False, slopes
        return layer

    def _joined(self, weight: Tensor, channels: int) -> Tensor:
        """The weight `[outputs, inputs, ...]` for both halves of a leaky layer before it."""
        if self.slopes is None or self.linear is not None:
            return weight
        places = weight.shape[1] // channels  # of each channel, flattened
        slopes = self.slopes.repeat_interleave(places).reshape(1, -1, *[1] * (weight.dim() - 2))
        return torch.cat([weight, -slopes * weight], dim=1)

    def _readout(self, last: Node) -> SpikingLayer:
        n_classes = prod(last.shape)
        if self.linear is None:  # averages alone
            self._take_dense(last, Dense(torch.eye(n_classes, dtype=torch.float64), torch.zeros(n_classes).double()))
        elif isinstance(self.linear, Conv):
            self.linear = _as_dense(self.linear, self.before)
        self.flattens = len(self.before) > 1
        return self._close(replace(last, shape=(n_classes,)), None)

    def _take_conv(self, node: Node, conv: Conv) -> None:
        if self.slopes is not None and conv.groups > 1:
            raise UnsupportedError(f"{node.name}: a grouped convolution of a leaky activation")
        conv = replace(conv, weight=self._joined(conv.weight, conv.weight.shape[1]))
        first = self.linear or self.average
        if isinstance(first, Dense) or (isinstance(first, Conv) and not (first.depthwise or conv.depthwise)):
            raise UnsupportedError(f"{node.name}: weights behind weights with no activation between them")
        self.linear = fold_conv(first, conv, self.before) if first else conv
        self.average = None

    def _take_dense(self, node: Node, dense: Dense) -> None:
        dense = replace(dense, weight=self._joined(dense.weight, 0 if self.slopes is None else len(self.slopes)))
        match self.linear:
            case Dense() as first:
                self.linear = Dense(dense.weight @ first.weight, dense.weight @ first.bias + dense.bias)
            case Conv() as first if first.depthwise:
                self.linear = spread(first, dense, self.before)
            case Conv() as first:
                whole = _as_dense(first, self.before)
                self.linear = Dense(dense.weight @ whole.weight, dense.weight @ whole.bias + dense.bias)
            case None:
                self.linear = spread(self.average, dense, self.before) if self.average else dense
        self.flattens = len(self.before) > 1
        self.average = None

    def _take_average(self, kernel: nets.Pair, stride: nets.Pair, padding: nets.Pair) -> None:
        if isinstance(self.linear, Dense):
            raise UnsupportedError("an average over the outputs of a dense layer")
        channels = self.before[0] if self.linear is None else len(self.linear.bias)
        mean = pool(torch.full((channels,), 1 / prod(kernel)), kernel, stride, padding)
        if self.linear is not None:
            self.linear = fold_conv(self.linear, mean, self.before)
        else:
            self.average = fold_conv(self.average, mean, self.before) if self.average else mean


def _slopes_of(activation: nets.Operation | None, channels: int) -> Tensor | None:
    """Slopes below zero, `[channels]`, of an activation that has any above 0."""
    match activation:
        case nets.LeakyRelu(slope):
            slopes = torch.full((channels,), slope, dtype=torch.float64)
        case nets.PRelu(slope):
            slopes = slope.double().reshape(-1).expand(channels).clone()
        case _:
            return None
    if bool((slopes <= 0).all()):
        return None
    return slopes.clamp_min(1e-6)


def _both_signs(linear: Dense | Conv) -> Dense | Conv:
    """The map and its negative, one after the other."""
    weight, bias = torch.cat([linear.weight, -linear.weight]), torch.cat([linear.bias, -linear.bias])
    if isinstance(linear, Dense):
        return Dense(weight, bias)
    if linear.groups > 1:
        raise UnsupportedError("a leaky activation of a grouped convolution")
    return replace(linear, weight=weight, bias=bias)


def _as_dense(conv: Conv, shape: Shape) -> Dense:
    """The dense layer on flattened inputs that a convolution is."""
    n_inputs, n_outputs = prod(shape), prod(conv.output_shape(shape))
    if n_inputs * n_outputs > LARGEST_READOUT:
        raise UnsupportedError(f"a readout of {n_outputs} by {n_inputs} weights")
    columns = torch.eye(n_inputs, dtype=torch.float64).reshape(n_inputs, *shape)
    bias = torch.zeros_like(conv.bias)
    outputs = torch.nn.functional.conv2d(
        columns, conv.weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )
    places = outputs[0, 0].numel()
    return Dense(outputs.flatten(1).T.contiguous(), conv.bias.repeat_interleave(places))
