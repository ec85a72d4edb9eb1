"""Products that are known have the gradients of products that are computed."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.kernels import half
from bootstrap_core.kernels.known_product import known_convolution, known_linear

GEOMETRIES = {
    "few channels": ((16, 2, 20, 19), (5, 2, 3, 3), [3, 2, 1, 1, 3, 1, 0, 1], 1),
    "many channels": ((3, 24, 9, 8), (6, 24, 3, 2), [3, 1, 2, 2, 2, 1, 0, 1], 1),
    "groups": ((8, 4, 18, 18), (6, 2, 3, 3), [3, 1, 1, 1, 3, 2, 1, 1], 2),
    "depthwise": ((8, 4, 18, 18), (4, 1, 5, 5), [5, 1, 2, 1, 5, 1, 2, 1], 4),
}
CASTS = {"float32": nullcontext, "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16)}


def hold_equal(
    product: Callable[[Tensor, Tensor], Tensor],
    known: Callable[[Tensor, Tensor, Tensor], Tensor],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    wanted: tuple[bool, bool],
    cast: str,
    tolerance: float,
) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, generator=generator).requires_grad_(want) for shape, want in zip(shapes, wanted, strict=True)
    ]
    with CASTS[cast]():
        expected = product(*tensors)
        found = known(*tensors, expected.detach().float())
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    grad = torch.randn(expected.shape, generator=generator).to(expected.dtype)
    asked = [tensor for tensor in tensors if tensor.requires_grad]
    for a, b in zip(*(torch.autograd.grad(y, asked, grad) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_of_convolutions(name: str, wanted: tuple[bool, bool], cast: str) -> None:
    *shapes, geometry, groups = GEOMETRIES[name]
    stride, padding, dilation = (geometry[i::4] for i in (1, 2, 3))
    hold_equal(
        lambda x, weight: F.conv2d(x, weight, None, stride, padding, dilation, groups),
        lambda x, weight, z: known_convolution(x, weight, z, geometry, groups),
        tuple(shapes),
        wanted,
        cast,
        1e-5 if cast == "float32" else 2e-2,
    )


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_of_matrices(wanted: tuple[bool, bool], cast: str, halves: bool, monkeypatch) -> None:
    monkeypatch.setattr(half, "HALF_FROM", 1)
    monkeypatch.setattr(half, "multiplies_half", lambda: halves)
    rounds = halves or cast == "bfloat16"
    hold_equal(F.linear, known_linear, ((40, 30), (20, 30)), wanted, cast, 2e-2 if rounds else 1e-5)
