"""An ANN as layers that can spike: as floats, they are the ANN."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from converters import ann as nets
from converters.ann import Ann, Node, run_ann
from converters.linear_fold import Dense
from converters.spiking_layers import MaxPooling, SpikingLayer, activations_first, spiking_layers
from specs import UnsupportedError

GENERATOR = torch.Generator().manual_seed(0)


def conv(channels: int, inputs: int, kernel: int = 3, **options) -> nets.Conv:
    return nets.Conv(torch.randn(channels, inputs, kernel, kernel, generator=GENERATOR),
                     torch.randn(channels, generator=GENERATOR), **options)  # fmt: skip


def dense(outputs: int, inputs: int) -> nets.Dense:
    return nets.Dense(torch.randn(outputs, inputs, generator=GENERATOR), torch.randn(outputs, generator=GENERATOR))


def chain(shape: tuple[int, ...], *operations: nets.Operation) -> Ann:
    """An ANN of operations in a row, with their shapes."""
    nodes, name, x = [], "input", torch.zeros(1, *shape)
    for i, operation in enumerate(operations):
        x = nets.apply_operation(operation, x)
        nodes.append(Node(f"{type(operation).__name__}{i}", operation, (name,), tuple(x.shape[1:])))
        name = nodes[-1].name
    return Ann(shape, tuple(nodes))


def forward(layers: list[SpikingLayer], x: Tensor) -> Tensor:
    """The layers with ideal neurons."""
    x = x.double()
    for layer in layers:
        assert tuple(x.shape[1:]) == layer.before
        x = x.flatten(1) if layer.flattens else x
        linear = layer.linear
        if layer.is_any:
            x = F.max_pool2d(x, linear.kernel, linear.stride, linear.padding)
        elif isinstance(linear, Dense):
            x = F.linear(x, linear.weight, linear.bias)
        else:
            geometry = linear.stride, linear.padding, linear.dilation, linear.groups
            x = F.conv2d(x, linear.weight, linear.bias, *geometry)
        if layer.activation is not None:
            activation = nets.Relu() if layer.slopes is not None else layer.activation
            x = nets.apply_operation(activation, x)
        assert tuple(x.shape[1:]) == layer.after
    return x


AVERAGED = {
    "dense": ((6,), dense(5, 6), nets.Relu(), dense(3, 5)),
    "dense on maps": ((2, 3, 3), nets.Flatten(), dense(5, 18), nets.Relu(), dense(3, 5)),
    "conv": ((2, 6, 6), conv(3, 2, stride=(2, 1), padding=(1, 0)), nets.Relu(), nets.Flatten(), dense(4, 36)),
    "average into conv": ((1, 8, 8), conv(2, 1), nets.Relu(), nets.AvgPool((2, 2), (2, 2)), conv(3, 2), nets.Relu(),
                          nets.Flatten(), dense(4, 3)),
    "average into dense": ((1, 8, 8), conv(2, 1), nets.Relu(), nets.AvgPool((3, 3), (3, 3)), nets.Flatten(),
                           dense(4, 8)),
    "two averages": ((1, 10, 10), conv(2, 1), nets.Relu(), nets.AvgPool((2, 2), (2, 2)), nets.AvgPool((2, 2), (2, 2)),
                     nets.Flatten(), dense(4, 8)),
    "average before its activation": ((1, 8, 8), conv(2, 1), nets.AvgPool((2, 2), (2, 2)), nets.Clip(1.5),
                                      nets.Flatten(), dense(4, 18)),
    "global average as logits": ((1, 6, 6), conv(4, 1), nets.Relu(), nets.AvgPool((4, 4), (4, 4)), nets.Flatten()),
    "conv as logits": ((1, 6, 6), conv(2, 1), nets.Relu(), conv(4, 2), nets.AvgPool((2, 2), (2, 2)), nets.Flatten()),
    "leaky dense": ((6,), dense(5, 6), nets.LeakyRelu(0.3), dense(4, 5), nets.LeakyRelu(0.1), dense(3, 4)),
    "leaky conv": ((1, 8, 8), conv(2, 1), nets.LeakyRelu(0.3), nets.AvgPool((2, 2), (2, 2)), conv(3, 2),
                   nets.PRelu(torch.tensor([0.1, 0.2, 0.5])), nets.Flatten(), dense(4, 3)),
    "leaky into dense": ((1, 6, 6), conv(2, 1), nets.LeakyRelu(0.2), nets.AvgPool((2, 2), (2, 2)), nets.Flatten(),
                         dense(4, 8)),
    "dense after dense": ((6,), dense(5, 6), dense(4, 5), nets.Relu(), dense(3, 4)),
    "depthwise scale": ((2, 5, 5), conv(2, 1, 1, groups=2), conv(3, 2), nets.LeakyRelu(0.1), nets.Flatten(),
                        dense(4, 27)),
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGED)
def test_with_ideal_neurons_the_layers_are_the_ann(name) -> None:
    shape, *operations = AVERAGED[name]
    ann = chain(shape, *operations)
    layers = spiking_layers(ann, MaxPooling.ERROR)
    x = torch.randn(7, *shape, generator=GENERATOR)
    wanted, _ = run_ann(ann, x)
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
    assert [layer.activation is None for layer in layers] == [False] * (len(layers) - 1) + [True]


@pytest.mark.parametrize("first", ["activation", "maximum"])
def test_maxima_by_any_are_the_maxima_whichever_comes_first(first) -> None:
    pair = [nets.Relu(), nets.MaxPool((2, 2), (2, 2))]
    order = pair if first == "activation" else pair[::-1]
    ann = chain((1, 9, 9), conv(2, 1), *order, conv(3, 2), nets.Relu(), nets.Flatten(), dense(4, 3))
    moved = activations_first(ann)
    x = torch.randn(7, 1, 9, 9, generator=GENERATOR)
    wanted, _ = run_ann(ann, x)
    assert torch.equal(run_ann(moved, x)[0], wanted)
    layers = spiking_layers(moved, MaxPooling.ANY)
    assert [layer.is_any for layer in layers] == [False, True, False, False]
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
    outputs = run_ann(moved, x, keep=True)[1]
    assert all(layer.target in outputs for layer in layers)


def test_maxima_by_average_are_folded_away() -> None:
    ann = chain((1, 9, 9), conv(2, 1), nets.Relu(), nets.MaxPool((2, 2), (2, 2)), nets.Flatten(), dense(4, 18))
    layers = spiking_layers(activations_first(ann), MaxPooling.AVERAGE)
    assert [layer.is_any for layer in layers] == [False, False]
    assert layers[1].before == (2, 7, 7)


def test_what_has_no_spiking_layers_is_refused() -> None:
    maxima = chain((1, 9, 9), conv(2, 1), nets.Relu(), nets.MaxPool((2, 2), (2, 2)), nets.Flatten(), dense(4, 18))
    with pytest.raises(UnsupportedError, match="MaxPool2: a maximum"):
        spiking_layers(maxima, MaxPooling.ERROR)
    twice = chain((1, 9, 9), conv(2, 1), conv(2, 2), nets.Relu(), nets.Flatten(), dense(4, 50))
    with pytest.raises(UnsupportedError, match="Conv1: weights behind weights"):
        spiking_layers(twice, MaxPooling.ANY)
    branch = Node("sum", nets.Add(), ("Relu1", "Relu1"), (5,))
    ann = chain((6,), dense(5, 6), nets.Relu())
    with pytest.raises(UnsupportedError, match="sum: a sum of two branches"):
        spiking_layers(Ann((6,), (*ann.nodes, branch)), MaxPooling.ANY)
