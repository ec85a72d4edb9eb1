"""Distance of spike trains, against sums over pairs of spikes."""

import math

import pytest
import torch

from bootstrap_core.functional.van_rossum import van_rossum_distance


def by_pairs(spikes: list[tuple[int, int]], steps: int, tau: float) -> float:
    """Return the distance from the overlap of the filters of each two spikes `(step, sign)`, added in closed form."""
    ratio = math.exp(-1 / tau)
    total = 0.0
    for step, sign in spikes:
        for other, other_sign in spikes:
            late, apart = max(step, other), abs(step - other)
            overlap = ratio**apart * (1 - ratio ** (2 * (steps - late))) / (1 - ratio**2)
            total += sign * other_sign * overlap
    return total / tau


@pytest.mark.parametrize("tau", [0.5, 3.0, 40.0])
def test_the_distance_is_a_sum_over_pairs_of_spikes(tau: float) -> None:
    generator = torch.Generator().manual_seed(0)
    spikes, others = ((torch.rand(30, 2, 3, generator=generator) < 0.2).double() for _ in range(2))
    found = van_rossum_distance(spikes, others, tau)
    assert found.shape == (2, 3)
    for n in range(2):
        for c in range(3):
            signs = (spikes - others)[:, n, c]
            pairs = [(t, int(sign)) for t, sign in enumerate(signs) if sign]
            assert float(found[n, c]) == pytest.approx(by_pairs(pairs, 30, tau), rel=1e-9, abs=1e-12)


def test_its_gradient_is_that_of_the_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    spikes = torch.rand(9, 1, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    others = torch.rand(9, 1, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: van_rossum_distance(x, others, 3.0), (spikes,))
