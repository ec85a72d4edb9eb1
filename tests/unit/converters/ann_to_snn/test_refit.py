"""Refitted weights: lost accuracy is restored, and other weights stay."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from converters.ann_to_snn.refit import Reading, refit
from converters.linear.linear_fold import Conv, Dense


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv(groups: int) -> Conv:
    return Conv(drawn(6, 4 // groups, 3, 2), drawn(6, seed=2), (2, 1), (1, 1), (1, 2), groups)


def convolved(linear: Conv, x: Tensor) -> Tensor:
    return F.conv2d(x, linear.weight, linear.bias, linear.stride, linear.padding, linear.dilation, linear.groups)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_makes_up_for_what_its_inputs_lost(groups: int) -> None:
    linear, x = conv(groups), drawn(16, 4, 9, 8).relu()
    lost = x * torch.tensor([0.8, 0.6, 0.9, 0.7])[:, None, None]
    wanted = convolved(linear, x)
    [found] = refit([Reading(linear, lost)], wanted, rectified=False, generator=seeded())
    before, after = ((convolved(each, lost) - wanted).square().mean() for each in (linear, found))
    assert after < 0.05 * before
    assert (found.stride, found.padding, found.dilation, found.groups) == ((2, 1), (1, 1), (1, 2), groups)


def test_an_exact_answer_is_found_for_all_that_may_change() -> None:
    own, skip, fixed = (
        Dense(drawn(3, 5), drawn(3, seed=2)),
        Dense(drawn(3, 4, seed=3), torch.zeros(3).double()),
        drawn(3),
    )
    x, y, z = drawn(4000, 5, seed=4), drawn(4000, 2, 2, seed=5), drawn(4000, 3, seed=6)
    identity = Dense(fixed.diag(), torch.zeros(3).double())
    wanted = x @ drawn(5, 3, seed=7) + y.flatten(1) @ drawn(4, 3, seed=8) + z * fixed + 3
    readings = [Reading(own, x), Reading(skip, y), Reading(identity, z, is_fixed=True)]
    maps = refit(readings, wanted, rectified=False, generator=seeded())
    assert maps[2] is identity
    torch.testing.assert_close(maps[0].weight, drawn(5, 3, seed=7).T, rtol=0, atol=0.02)
    torch.testing.assert_close(maps[1].weight, drawn(4, 3, seed=8).T, rtol=0, atol=0.02)
    torch.testing.assert_close(maps[0].bias, torch.full((3,), 3.0).double(), rtol=0, atol=0.02)
    assert not maps[1].bias.any()


def test_a_map_in_other_groups_stays() -> None:
    own, skip = conv(1), Conv(drawn(6, 1, 1, 1), torch.zeros(6).double(), groups=6)
    x, y = drawn(8, 4, 8, 8), drawn(8, 6, 4, 8, seed=4)
    wanted = convolved(own, x) + convolved(skip, y) + 1
    found = refit([Reading(own, x), Reading(skip, y)], wanted, rectified=False, generator=seeded())
    assert found[1] is skip
    torch.testing.assert_close(found[0].bias, own.bias + 1, rtol=0, atol=1e-2)


def test_below_zero_one_number_is_as_good_as_another() -> None:
    linear, x = Dense(drawn(3, 5), drawn(3, seed=2)), drawn(200, 5, seed=4)
    z = x @ linear.weight.T + linear.bias
    wanted = torch.where(z > 0, z, 10 * z)
    assert refit([Reading(linear, x)], wanted, rectified=True, generator=seeded()) == [linear]
    assert refit([Reading(linear, x)], wanted, rectified=False, generator=seeded())[0] is not linear
    [found] = refit([Reading(linear, x)], torch.where(z > 0.5, z, -1.0), rectified=True, generator=seeded())
    assert float(found.bias.sum()) < float(linear.bias.sum())  # outputs above 0 that should be silent count as errors


def test_noise_changes_nothing() -> None:
    linear, x = Dense(drawn(3, 50), drawn(3, seed=2)), drawn(20, 50, seed=4)
    wanted = x @ linear.weight.T + linear.bias + drawn(20, 3, seed=5)
    assert refit([Reading(linear, x)], wanted, rectified=False, generator=seeded()) == [linear]
    assert refit([Reading(linear, x[:1])], wanted[:1] + 1, rectified=False, generator=seeded()) == [linear]
