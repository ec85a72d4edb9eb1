"""Convolutions with uneven padding, compared with sums over the places that a window covers."""

import pytest
import torch
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d, evenly_padded, padded
from specs import ConvSpec

MAPS = torch.arange(2 * 4 * 5 * 6, dtype=torch.float64).reshape(2, 4, 5, 6) % 7 - 3


def summed(x: Tensor, weight: Tensor, spec: ConvSpec, top: int, left: int, shape: tuple[int, ...]) -> Tensor:
    """Return the cross-correlation, place by place; `top` and `left` are the padding there."""
    out = torch.zeros(len(x), *shape, dtype=x.dtype)
    inputs, outputs = weight.shape[1], spec.channels // spec.groups
    for o, y, z in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        for c, a, b in torch.cartesian_prod(*map(torch.arange, weight.shape[1:])).tolist():
            row = y * spec.stride[0] - top + a * spec.dilation[0]
            column = z * spec.stride[1] - left + b * spec.dilation[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                out[:, o, y, z] += weight[o, c, a, b] * x[:, o // outputs * inputs + c, row, column]
    return out


@pytest.mark.parametrize(
    ("padding", "top", "left"), [((1, 2), 1, 2), ((0, 0, 1, 1), 0, 0), ((2, 0, 0, 3), 2, 0), ((0, 3, 2, 1), 0, 3)]
)
def test_uneven_padding_adds_zeros_at_each_side(padding: tuple[int, ...], top: int, left: int) -> None:
    spec = ConvSpec(channels=6, kernel=(3, 2), stride=(2, 1), padding=padding, dilation=(1, 2), groups=2)
    weight = torch.arange(6 * 2 * 3 * 2, dtype=torch.float64).reshape(6, 2, 3, 2) % 5 - 2
    bias = torch.arange(6.0).double()
    expected = summed(MAPS, weight, spec, top, left, spec.output_shape(MAPS.shape[1:]))
    assert torch.equal(conv2d(MAPS, weight, spec), expected)
    assert torch.equal(conv2d(MAPS, weight, spec, bias), expected + bias.reshape(6, 1, 1))


def test_a_value_is_put_around_maps() -> None:
    around = padded(torch.ones(1, 2, 2), (0, 1, 2, 0), 5.0)
    assert around.tolist() == [[[5, 1, 1], [5, 1, 1], [5, 5, 5], [5, 5, 5]]]


def test_even_padding_is_left_to_torch() -> None:
    assert evenly_padded(MAPS, (1, 2))[0] is MAPS
    assert evenly_padded(MAPS, (1, 2))[1] == (1, 2)
    assert evenly_padded(MAPS, (0, 0, 1, 2))[0].shape[2:] == (6, 8)
