"""Operators: what a call goes past, and when it may not."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from bootstrap_core.kernels.operators import Operator, operator


@operator("test_double")
def double(x: Tensor, factor: float) -> Tensor:
    """Twice the factor, by way of numpy, which no tracer sees."""
    return torch.from_numpy(x.detach().numpy() * factor * 2)


@double.register_fake
def _(x: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.factor = inputs[1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad * ctx.factor * 2, None


double.register_autograd(_backward, setup_context=_setup)


@operator("test_constant")
def constant(x: Tensor) -> Tensor:
    """An operator without a gradient."""
    return torch.from_numpy(x.detach().numpy() + 1)


@pytest.fixture
def no_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("called as an operator")

    for each in (double, constant):
        monkeypatch.setattr(each, "registered", refuse)


@pytest.mark.usefixtures("no_way_round")
@pytest.mark.parametrize("make", [torch.tensor, lambda values: torch.nn.Parameter(torch.tensor(values))])
def test_plain_tensors_go_past_torch_and_have_the_operator_s_gradient(make) -> None:
    x = make([1.0, 2.0]).requires_grad_()
    y = double(x, 3.0)
    assert y.tolist() == [6.0, 12.0]
    y.sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]
    assert y.grad_fn.name() == "snnzoo_test_doubleBackward"


@pytest.mark.usefixtures("no_way_round")
def test_without_a_gradient_wanted_nothing_is_kept_for_one() -> None:
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert not double(x, 1.0).requires_grad
    assert not double(x.detach(), 1.0).requires_grad
    with torch.inference_mode():
        assert double(x, 1.0).tolist() == [2.0, 2.0]
    assert constant(x.detach()).tolist() == [2.0, 2.0]


def test_a_gradient_that_an_operator_has_not_is_an_error_as_torch_has_it() -> None:
    with pytest.raises(RuntimeError, match=r"snnzoo.test_constant.* no autograd formula"):
        constant(torch.ones(2, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_tracer_sees_the_operator(mode: str) -> None:
    graph = make_fx(lambda x: double(x, 2.0), tracing_mode=mode)(torch.ones(2))
    assert torch.ops.snnzoo.test_double.default in [node.target for node in graph.graph.nodes]


def test_a_compiler_and_an_exporter_see_the_operator() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return double(x, 2.0)

    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
    x = torch.full((2,), 5.0, requires_grad=True)
    y = compiled(x)
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist()) == ([20.0, 20.0], [4.0, 4.0])
    exported = torch.export.export(Module(), (torch.ones(2),))
    assert "snnzoo.test_double" in str(exported.graph)


def test_tensors_of_other_classes_are_not_run() -> None:
    with FakeTensorMode():
        assert double(torch.empty(3), 2.0).shape == (3,)


def test_an_operator_tells_what_its_function_does() -> None:
    assert isinstance(double, Operator)
    assert double.__doc__.startswith("Twice")
