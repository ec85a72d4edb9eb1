"""Products of rates and weights: equal to torch's, with gradients in the type that training chooses."""

import pytest
import torch
import torch.nn.functional as F

from bootstrap_core.functional.convolution import conv2d
from bootstrap_core.ops import precision
from bootstrap_core.ops.precision import products_in
from bootstrap_core.ops.products import convolve, linear
from specs.layers.block import ConvSpec
from specs.training import Precision


def learn(product, x, weight, wanted=(True, True)):
    leaves = x.clone().requires_grad_(wanted[0]), weight.clone().requires_grad_(wanted[1])
    z = product(*leaves)
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
    return z.detach(), torch.autograd.grad(z, [leaf for leaf in leaves if leaf.requires_grad], grad)


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("shape", [(9, 70), (4, 3, 70)])
def test_large_products_round_their_gradients_alone(shape, wanted, hold_close, monkeypatch) -> None:
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    x, weight = torch.randn(shape), torch.randn(50, 70)
    z, exact = learn(F.linear, x, weight, wanted)
    with products_in(Precision.BFLOAT16):
        again, rounded = learn(linear, x, weight, wanted)
    assert torch.equal(again, z)
    assert not any(torch.equal(a, b) for a, b in zip(rounded, exact, strict=True))
    hold_close(rounded, exact, 1e-2)
    plain, same = learn(linear, x, weight, wanted)
    assert torch.equal(plain, z)
    assert all(torch.equal(a, b) for a, b in zip(same, exact, strict=True))


@pytest.mark.parametrize(("least", "rounds"), [(9 * 70 * 50, True), (9 * 70 * 50 + 1, False)])
def test_small_products_are_torchs(least, rounds, monkeypatch) -> None:
    monkeypatch.setattr(precision, "HALF_FROM", least)
    x, weight = torch.randn(9, 70), torch.randn(50, 70)
    with products_in(Precision.BFLOAT16):
        (_, found), (_, expected) = learn(linear, x, weight), learn(F.linear, x, weight)
    assert torch.equal(found[0], expected[0]) != rounds


@pytest.mark.parametrize("case", ["float64", "autocast", "no gradient"])
def test_other_products_are_torchs(case, monkeypatch) -> None:
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    x, weight = torch.randn(9, 70), torch.randn(50, 70, requires_grad=True)
    x, weight = (x.double(), weight.double()) if case == "float64" else (x, weight)
    autocast, gradient = (
        torch.autocast("cpu", enabled=case == "autocast"),
        torch.set_grad_enabled(case != "no gradient"),
    )
    with products_in(Precision.BFLOAT16), autocast, gradient:
        found, expected = linear(x, weight), F.linear(x, weight)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert type(found.grad_fn) is type(expected.grad_fn)


CONVOLUTIONS = {
    "kernel 1": ConvSpec(channels=6, kernel=(1, 1)),
    "stride": ConvSpec(channels=5, kernel=(2, 3), stride=(3, 2)),
    "padding": ConvSpec(channels=5, kernel=(3, 3), padding=(4, 1)),
    "all": ConvSpec(channels=6, kernel=(3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "uneven padding": ConvSpec(channels=5, kernel=(3, 3), stride=(2, 2), padding=(0, 2, 1, 0)),
    "groups": ConvSpec(channels=6, kernel=(3, 3), padding=(1, 1), groups=2),
    "depthwise": ConvSpec(channels=4, kernel=(5, 5), padding=(2, 2), groups=4),
}


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_torchs(name, wanted, n, in_both, hold_close) -> None:
    spec = CONVOLUTIONS[name]
    x, weight = torch.randn(n, 4, 9, 8), torch.randn(spec.channels, 4 // spec.groups, *spec.kernel)
    z, expected = learn(lambda x, w: conv2d(x, w, spec), x, weight, wanted)
    for again, found in in_both(lambda: learn(lambda x, w: convolve(x, w, spec), x, weight, wanted)):
        hold_close([again, *found], [z, *expected])


def test_convolutions_of_rates_that_lie_with_channels_last_are_torchs(hold_close) -> None:
    spec = CONVOLUTIONS["all"]
    x, weight = torch.randn(3, 4, 9, 8), torch.randn(6, 4, 3, 2)
    lying = [each.contiguous(memory_format=torch.channels_last) for each in (x, weight)]
    z, expected = learn(lambda x, w: convolve(x, w, spec), x, weight)
    again, found = learn(lambda x, w: convolve(x, w, spec), *lying)
    hold_close([again, *found], [z, *expected])


def test_large_convolutions_round_their_gradients_alone(hold_close, monkeypatch) -> None:
    spec = CONVOLUTIONS["all"]
    x, weight = torch.randn(3, 4, 9, 8), torch.randn(6, 4, 3, 2)
    z, exact = learn(lambda x, w: convolve(x, w, spec), x, weight)
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    with products_in(Precision.BFLOAT16):
        again, rounded = learn(lambda x, w: convolve(x, w, spec), x, weight)
    assert torch.equal(again, z)
    hold_close(rounded, exact, 1e-2)


def test_rounded_convolutions_are_those_of_autocast_with_channels_last() -> None:
    x, weight = torch.rand(4, 3, 9, 9), torch.randn(8, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        ours = convolve(x, weight, ConvSpec(channels=8, kernel=(3, 3), stride=(2, 2), padding=(1, 1)))
        expected = F.conv2d(x, weight, None, 2, 1)
    assert ours.dtype == torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2)
