import pytest
import torch
from torch import nn

from bootstrap_core.analysis.gradient_flow import GradientFlow


class Two(nn.Module):
    """A module of two layers with parameters and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 1)
        self.flatten = nn.Flatten()
        self.last = nn.Linear(1, 1, bias=False)


def set_gradient(parameter: nn.Parameter, *values: float) -> None:
    parameter.grad = torch.tensor(values).view_as(parameter)


def two(first: tuple[float, float, float] = (2.0, 3.0, 6.0), last: float = 5.0) -> Two:
    net = Two()
    set_gradient(net.first.weight, *first[:2])
    set_gradient(net.first.bias, first[2])
    set_gradient(net.last.weight, last)
    return net


def test_the_norm_joins_all_parameters_of_a_layer() -> None:
    flow = GradientFlow(two())
    flow.record()
    assert flow.norms == {"first": 7.0, "last": 5.0}  # sqrt(4 + 9 + 36)


def test_the_gradient_is_that_of_backward() -> None:
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    flow = GradientFlow(net)
    net(torch.tensor([[3.0, -4.0]])).sum().backward()
    flow.record()
    assert flow.norms == {"0": 5.0}


def test_norms_are_means_over_the_steps_of_an_epoch() -> None:
    net = two()
    flow = GradientFlow(net)
    flow.record()
    set_gradient(net.last.weight, -1.0)
    flow.record()
    assert (flow.steps, flow.norms) == (2, {"first": 7.0, "last": 3.0})
    flow.update()
    assert (flow.steps, flow.history) == (0, [{"first": 7.0, "last": 3.0}])
    assert flow.norms == flow.history[-1]
    flow.record()  # the next epoch starts from zero
    assert flow.norms["last"] == 1.0
    flow.update()
    assert [epoch["last"] for epoch in flow.history] == [3.0, 1.0]


def test_vanished_layers_are_found_by_zero_and_by_none() -> None:
    net = two(first=(0.0, 0.0, 0.0))
    net.last.weight.grad = None
    flow = GradientFlow(net)
    flow.record()
    assert flow.norms == {"first": 0.0, "last": None}
    assert flow.vanished() == ["first", "last"]
    assert flow.summary().splitlines() == [
        "layer  gradient norm",
        "first      0.000e+00  vanished",
        "last               -  vanished",
    ]


@pytest.mark.parametrize("size", [1e-25, 1e30])
def test_squares_of_gradients_neither_vanish_nor_overflow(size: float) -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.grad = torch.full((2, 2), size)
    flow = GradientFlow(nn.ModuleList([layer]))
    flow.record()
    assert flow.norms["0"] == pytest.approx(2 * size)
    assert flow.vanished() == []


def test_watching_changes_nothing() -> None:
    net = two()
    flow = GradientFlow(net)
    flow.record()
    assert net.last.weight.grad is not None
    assert net.last.weight.grad.item() == 5.0
    assert not any(module._backward_hooks or module._forward_hooks for module in net.modules())
