"""The fitted activation against lava-dl's, in three rounds of sampling and fitting without clearing."""

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
