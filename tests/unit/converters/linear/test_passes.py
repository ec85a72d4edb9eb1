"""Passes over graphs as they are read from files: each returns a graph that computes the same."""

import math

import pytest
import torch
from torch import Tensor

from converters.linear.ann import (
    Add,
    Ann,
    AvgPool,
    Bound,
    Clip,
    Flatten,
    LeakyRelu,
    MaxPool,
    Node,
    Operation,
    PRelu,
    Relu,
    ScaleShift,
    Unread,
    ZeroPad,
    apply_operation,
    run_ann,
)
from converters.linear.linear_fold import Conv, Dense
from converters.linear.passes import PART, PASSES, folded, in_single_precision, rectified

GENERATOR = torch.Generator().manual_seed(4)
SHAPE = (2, 6, 5)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def conv(channels: int, inputs: int, **options) -> Conv:
    return Conv(numbers(channels, inputs, 3, 3), numbers(channels), **options)


def scale(channels: int, *, positive: bool = False) -> ScaleShift:
    factors = numbers(channels, 1, 1)
    return ScaleShift(factors.abs() + 0.1 if positive else factors, torch.zeros_like(factors))


def shift(channels: int) -> ScaleShift:
    return ScaleShift(torch.ones(channels, 1, 1).double(), numbers(channels, 1, 1))


def graph(*nodes: tuple[str, Operation, str]) -> Ann:
    """Return an ANN of nodes `(name, operation, names of its inputs)` on the image `x`, with shapes."""
    made, outputs = [], {"x": torch.zeros(1, *SHAPE).double()}
    for name, operation, inputs in nodes:
        outputs[name] = apply_operation(operation, *(outputs[i] for i in inputs.split()))
        made.append(Node(name, operation, tuple(inputs.split()), tuple(outputs[name].shape[1:])))
    return Ann(SHAPE, tuple(made), input_name="x")


def chain(*operations: Operation) -> Ann:
    names = ["x", *(f"n{i}" for i in range(len(operations)))]
    return graph(*zip(names[1:], operations, names, strict=False))


def ending(features: int) -> tuple[Operation, Operation]:
    return Flatten(), Dense(numbers(3, features), numbers(3))


MINUS = ScaleShift(-torch.ones(1, 1, 1).double(), torch.zeros(1, 1, 1).double())
GRAPHS = {
    "norm after a convolution": chain(conv(4, 2), scale(4), shift(4), Relu(), *ending(48)),
    "norm before padding": chain(conv(4, 2), Relu(), scale(4), shift(4), conv(3, 4, padding=(1, 1)), *ending(36)),
    "norm before pools": chain(conv(4, 2), Relu(), shift(4), scale(4, positive=True), MaxPool((2, 2)),
                               AvgPool((2, 2), padding=(1, 0)), *ending(16)),
    "norm of a sum": graph(("c", conv(4, 2), "x"), ("r", Relu(), "c"), ("a", Add(), "c r"), ("n", scale(4), "a"),
                           ("s", shift(4), "n"), ("q", Relu(), "s"), ("f", Flatten(), "q"),
                           ("y", Dense(numbers(3, 48), numbers(3)), "f")),
    "what two read": graph(("c", conv(4, 2), "x"), ("n", scale(4), "c"), ("p", Relu(), "n"), ("q", Relu(), "c"),
                           ("a", Add(), "p q"), ("f", Flatten(), "a"), ("y", Dense(numbers(3, 48), numbers(3)), "f")),
    "norm of the image": chain(ScaleShift(torch.tensor([[[2.0]], [[3.0]]]).double(), numbers(2, 1, 1)), conv(4, 2),
                               Relu(), *ending(48)),
    "image turned over": chain(ScaleShift(torch.full((1, 1, 1), -2.0).double(), numbers(1, 1, 1)),
                               conv(4, 2, padding=(1, 0)), Relu(), *ending(72)),
    "minimum before maximum": chain(conv(4, 2), Bound(high=0.5), Bound(low=0.0), *ending(48)),
    "bounds around a factor": chain(conv(4, 2), Relu(), ScaleShift(torch.full((1, 1, 1), 3.0).double(),
                                    torch.zeros(1, 1, 1).double()), Bound(0.0, 0.5), *ending(48)),
    "bounds without effect": chain(conv(4, 2), Relu(), Bound(-1.0, math.inf), LeakyRelu(0.1), Bound(), *ending(48)),
    "bounds that are not 0": chain(Bound(-0.5, 0.75), conv(4, 2), Bound(high=0.5), AvgPool((2, 2)), Bound(low=0.25),
                                   Bound(-1.0, 2.0), *ending(24)),
    "an upper bound that a convolution reads": graph(
        ("c", conv(4, 2), "x"), ("m", Bound(high=0.5), "c"), ("r", Relu(), "m"), ("d", conv(4, 4, padding=(1, 1)), "m"),
        ("f", Flatten(), "r"), ("g", Flatten(), "d"), ("a", Dense(numbers(3, 48), numbers(3)), "f"),
        ("b", Dense(numbers(3, 48), numbers(3)), "g"), ("y", Add(), "a b")),
    "slopes as Keras writes them": graph(
        ("c", conv(4, 2), "x"), ("r", Relu(), "c"), ("m", MINUS, "c"),
        ("q", Relu(), "m"), ("s", scale(4), "q"), ("a", Add(), "s r"), ("f", Flatten(), "a"),
        ("y", Dense(numbers(3, 48), numbers(3)), "f")),
    "a factor and a shift for each region": chain(
        conv(4, 2), ScaleShift(numbers(4, 4, 1), numbers(4, 1, 3)), Relu(), conv(3, 4, padding=(1, 1)), *ending(36)),
    "zeros before a maximum": chain(conv(4, 2), Relu(), ZeroPad((0, 1, 1, 0)), MaxPool((2, 2)), *ending(48)),
    "last node": chain(*ending(60), ScaleShift(numbers(3), numbers(3))),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_each_pass_computes_the_same(name) -> None:
    ann, x = GRAPHS[name], torch.randn(6, *SHAPE, generator=GENERATOR, dtype=torch.float64)
    wanted, _ = run_ann(ann, x)
    for run in PASSES[:-1]:
        ann = run(ann)
        assert torch.allclose(run_ann(ann, x)[0], wanted, rtol=1e-9, atol=1e-9), run.__name__
    assert not ann.refused
    assert not {type(node.operation) for node in ann.nodes} & {ScaleShift, Bound, ZeroPad}
    known = {"x", "removed", *(node.name for node in GRAPHS[name].nodes)}
    assert {became.replace(PART, "") for became, _ in ann.folded.values()} <= known
    assert torch.allclose(run_ann(in_single_precision(ann), x.float())[0].double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("operations", "name", "reason"),
    [
        ((conv(4, 2), Bound(0.5, 0.5)), "n1", "bounds 0.5 to 0.5 leave one value"),
        ((ZeroPad((1, 1, 1, 1)), MaxPool((2, 2))), "n1", "values that may be negative"),
        (
            (conv(4, 2, padding=(1, 1)), ScaleShift(numbers(4, 6, 5), torch.zeros(1, 1, 1)), Relu()),
            "n1",
            "its factors diff",
        ),
        (
            (conv(4, 2, padding=(1, 1)), ScaleShift(torch.ones(1, 1, 1), numbers(4, 6, 5)), Relu()),
            "n1",
            "its bias values",
        ),
    ],
)
def test_what_has_no_exact_form_is_refused_by_name(operations, name, reason) -> None:
    found = folded(chain(*operations))
    assert found.refused.keys() == {name}
    assert reason in found.refused[name]


def test_all_refusals_of_an_incomplete_graph_are_found() -> None:
    ann = chain(Bound(1.0, 1.0), conv(4, 2), Bound(2.0, 0.5), AvgPool((2, 2)), Bound(high=2.0))
    incomplete = Node("", Unread(), ("n4",), (0,))
    found = folded(Ann(SHAPE, (*ann.nodes, incomplete), input_name="x"))
    assert found.refused.keys() == {"n0", "n2"}  # what follows n4 is not known


def test_a_bound_of_another_reader_stays() -> None:
    both = graph(("c", conv(4, 2), "x"), ("r", Relu(), "c"), ("m", Bound(0.0, 0.5), "r"), ("a", Add(), "r m"))
    assert [type(node.operation) for node in folded(both).nodes] == [Conv, Relu, Clip, Add]
    assert [type(node.operation) for node in rectified(both).nodes] == [Conv, Relu, Clip, Add]


def test_slopes_as_keras_writes_them_become_one_activation() -> None:
    assert [type(node.operation) for node in folded(GRAPHS["slopes as Keras writes them"]).nodes] == [
        Conv,
        PRelu,
        Flatten,
        Dense,
    ]
