"""The fitted activation against lava-dl's, in rounds of sampling and fitting without clearing.

First against recorded figures, then against lava-dl's rule on noisy pairs. There we differ on purpose: see
`RateSampler.fit`.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bootstrap_core.network.sampler import RateSampler

ROUNDS = range(3)


@pytest.fixture(scope="module")
def recorded(golden_arrays):
    arrays = golden_arrays("sampler.npz")
    return lambda k, name: torch.from_numpy(arrays[f"{k}/{name}"])


@pytest.fixture
def sampler_after(recorded):
    def run(n_rounds: int) -> RateSampler:
        sampler = RateSampler()
        for k in range(n_rounds):
            sampler.add(recorded(k, "z_rate"), recorded(k, "a_rate"))
            sampler.fit()
        return sampler

    return run


@pytest.mark.parametrize("k", ROUNDS)
def test_centers_equal_lava_dl(k: int, recorded, sampler_after) -> None:
    sampler = sampler_after(k + 1)
    torch.testing.assert_close(sampler.centers[: int(sampler.n_centers)], recorded(k, "centers"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", ROUNDS)
def test_slopes_equal_lava_dl(k: int, recorded, sampler_after) -> None:
    sampler = sampler_after(k + 1)
    torch.testing.assert_close(sampler.slopes[: int(sampler.n_centers) - 1], recorded(k, "slopes"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", ROUNDS)
def test_the_last_center_is_lava_dl_s_maximum(k: int, recorded, sampler_after) -> None:
    sampler = sampler_after(k + 1)
    assert sampler.centers[int(sampler.n_centers) - 1, 1].item() == pytest.approx(recorded(k, "max").item(), abs=1e-6)


@pytest.mark.parametrize("k", ROUNDS)
def test_rates_equal_lava_dl(k: int, recorded, sampler_after) -> None:
    torch.testing.assert_close(sampler_after(k + 1)(recorded(k, "x")), recorded(k, "y"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", ROUNDS)
def test_gradients_equal_lava_dl(k: int, recorded, sampler_after) -> None:
    x = recorded(k, "x").clone().requires_grad_()
    sampler_after(k + 1)(x).backward(recorded(k, "g"))
    torch.testing.assert_close(x.grad, recorded(k, "grad_x"), rtol=1e-5, atol=1e-7)


Points = npt.NDArray[np.float64]


def fit_as_lava_dl(z: Points, a: Points, before: Points) -> tuple[Points, float]:
    """Return the inner centres of lava-dl 0.6.0, rows (z, a), and the maximum; `before` are its centres so far."""
    maximum = max(a[a > 0.9 * a.max()].mean(), 0.8)
    found = []
    for low, high in pairwise(np.linspace(0.1 * maximum, 0.9 * maximum, 6)):
        new = [[np.median(x[(a > low) & (a <= high)]) for x in (z, a)]] if ((a > low) & (a <= high)).any() else []
        old = before[(before[:, 1] > low) & (before[:, 1] <= high)]
        if len(old):
            mean = old.mean(0)
            found.append(0.1 * np.array(new[0]) + 0.9 * mean if new else mean)
        else:
            found += new
    return np.array(found).reshape(-1, 2), maximum


def rounds_of_noisy_pairs(seed: int):
    """Yield the sampler after each of three fits to noisy pairs, and the inner centres of lava-dl's rule.

    Both continue from the sampler's own centres, so that an earlier difference does not count again.
    """
    random, sampler = np.random.default_rng(seed), RateSampler()
    noise, pairs = random.uniform(), np.zeros((0, 2))
    for _ in range(3):
        z = random.uniform(-1, 3, 60).astype(np.float32)
        a = (((z + random.normal(0, noise, 60)) / 3).clip(0, 1) * 16).round().astype(np.float32) / 16
        pairs = np.concatenate([pairs, np.stack([z, a], axis=1)])
        before = sampler.centers[: int(sampler.n_centers)].numpy().copy()
        sampler.add(torch.from_numpy(z), torch.from_numpy(a))
        sampler.fit()
        yield sampler, fit_as_lava_dl(*pairs.T, before)[0]


def inner(sampler: RateSampler) -> Points:
    return sampler.centers[1 : int(sampler.n_centers) - 1].numpy()


def test_noisy_pairs_whose_centers_rise_give_lava_dl_s_centers() -> None:
    n_rising = 0
    for seed in range(100):
        for sampler, theirs in rounds_of_noisy_pairs(seed):
            if (np.diff(theirs[:, 0]) > 0).all():
                n_rising += 1
                np.testing.assert_allclose(inner(sampler), theirs, rtol=0, atol=1e-6)
    assert n_rising > 100


def test_centers_that_do_not_rise_are_dropped_where_lava_dl_keeps_them() -> None:
    n_dropped = 0
    for seed in range(100):
        for sampler, theirs in rounds_of_noisy_pairs(seed):
            rising = theirs[:, 0] > np.maximum.accumulate(np.concatenate([[-np.inf], theirs[:-1, 0]]))
            n_dropped += not rising.all()
            if rising.sum() > 1:
                np.testing.assert_allclose(inner(sampler), theirs[rising], rtol=0, atol=1e-6)
            z, a = sampler.centers[: int(sampler.n_centers)].T
            torch.testing.assert_close(sampler(z), a, rtol=0, atol=1e-5)  # one curve through all its centres
            assert bool((z.diff() >= 0).all())
            assert bool((a.diff() >= 0).all())
    assert n_dropped > 20
