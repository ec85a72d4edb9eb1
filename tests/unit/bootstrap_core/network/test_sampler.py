import pytest
import torch
from torch import Tensor

from bootstrap_core.network.sampler import SURPLUS, RateSampler, _keys_below
from specs.errors import IntegrityError, SnnZooError


def line(n: int = 1000) -> tuple[Tensor, Tensor]:
    """Return pairs on the line a = z / 2 for z in 0..2."""
    z = torch.linspace(0, 2, n)
    return z, z / 2


def fitted() -> RateSampler:
    sampler = RateSampler()
    sampler.add(*line())
    sampler.fit()
    return sampler


def curve(sampler: RateSampler) -> Tensor:
    return sampler.centers[: int(sampler.n_centers)].clone()


def as_set(sampler: RateSampler) -> set[tuple[float, ...]]:
    return {tuple(pair) for pair in sampler.pairs.tolist()}


def test_an_unfitted_activation_says_what_to_run_first() -> None:
    sampler = RateSampler()
    assert not sampler.fitted
    with pytest.raises(SnnZooError, match=r"needs fitted .*, or run batches in Mode\.SAMPLE, then one in Mode\.FIT"):
        sampler(torch.zeros(1))


def test_a_new_fit_counts_a_tenth_and_the_fits_before_the_rest() -> None:
    sampler = fitted()
    before = curve(sampler)
    sampler.clear()
    z, a = line()
    sampler.add(z + 1, a)
    sampler.fit()
    torch.testing.assert_close(curve(sampler)[1:-1, 0], before[1:-1, 0] + 0.1)


def test_a_bin_without_new_pairs_keeps_its_old_center() -> None:
    sampler = fitted()
    before = curve(sampler)
    sampler.clear()
    z, a = line()
    high = a > 0.5 * before[-1, 1]
    sampler.add(z[high] + 1, a[high])
    sampler.fit()
    assert torch.equal(curve(sampler)[1], before[1])
    assert curve(sampler)[5, 0] > before[5, 0]


def test_without_pairs_a_fit_changes_nothing() -> None:
    sampler = fitted()
    before = curve(sampler)
    sampler.clear()
    sampler.fit()
    assert torch.equal(curve(sampler), before)


def test_noise_of_neurons_that_subtract_does_not_lift_their_curve() -> None:
    """Noise makes weakly driven neurons fire, so the median z of pairs with low rates is too low."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(8000, generator=generator) * 0.3 - 0.2
    noisy = z + 0.2 * torch.randn(8000, generator=generator)
    rates = (noisy * 8).round().clamp(0, 8) / 8
    curves = []
    for subtracts in (False, True):
        sampler = RateSampler(subtracts=subtracts)
        sampler.add(z, rates)
        sampler.fit()
        curves.append(sampler(z).mean())
    assert curves[1] == pytest.approx(rates.mean().item(), rel=0.15)
    assert curves[0] > 1.2 * rates.mean(), "the curve through pairs, as lava-dl fits it"


@pytest.mark.parametrize(("subtracts", "gradient"), [(False, 1.0), (True, 0.5)])
def test_the_gradient_of_neurons_that_subtract_is_the_slope(subtracts: bool, gradient: float) -> None:
    sampler = RateSampler(subtracts=subtracts)
    sampler.add(*line())
    sampler.fit()
    z = torch.tensor([1.0], requires_grad=True)
    sampler(z).sum().backward()
    assert z.grad.item() == pytest.approx(gradient, rel=0.02)


def test_pairs_of_a_silent_layer_still_give_a_curve() -> None:
    sampler = RateSampler()
    sampler.add(torch.linspace(-1, 0, 10), torch.zeros(10))
    sampler.fit()
    assert sampler(torch.tensor([-1.0, 0.5, 9.0])).tolist() == pytest.approx([0, 0.5, 0.8])
    assert (curve(sampler).diff(dim=0) > 0).all()


def test_one_center_alone_is_joined_to_the_origin() -> None:
    sampler = RateSampler()
    sampler.add(torch.tensor([2.0, 5.0]), torch.tensor([0.2, 1.0]))
    sampler.fit()
    expected = torch.tensor([[0, 0], [0, 0], [2, 0.2], [10, 1]], dtype=torch.float64)
    torch.testing.assert_close(curve(sampler), expected)


def test_centers_do_not_fall_in_z_even_where_the_pairs_do() -> None:
    sampler = RateSampler()
    z, a = line()
    sampler.add(2 - z, a)
    sampler.fit()
    assert bool((curve(sampler)[:, 0].diff() >= 0).all())


def test_centers_do_not_fall_in_z_where_a_bias_fires_against_inhibition() -> None:
    sampler = RateSampler()
    sampler.add(torch.tensor([-2.0, 5.0]), torch.tensor([0.2, 1.0]))
    sampler.fit()
    assert bool((curve(sampler)[:, 0].diff() >= 0).all())


def test_a_second_shorter_fit_leaves_nothing_of_the_first_behind_it() -> None:
    sampler = fitted()
    n_before = int(sampler.n_centers)
    sampler.n_centers.zero_()  # forget the old centres, not their storage
    sampler.clear()
    sampler.add(torch.tensor([1.0, 2.0]), torch.tensor([0.2, 1.0]))
    sampler.fit()
    n = int(sampler.n_centers)
    assert n < n_before
    assert not sampler.centers[n:].any()
    assert not sampler.slopes[n - 1 :].any()


def test_pairs_of_any_shape_are_recorded_in_order_as_z_and_rate() -> None:
    sampler = RateSampler()
    z = torch.arange(6.0).reshape(2, 3).requires_grad_()
    sampler.add(z, z / 10)
    assert sampler.pairs.dtype == torch.float32
    assert not sampler.pairs.requires_grad
    torch.testing.assert_close(sampler.pairs, torch.stack([torch.arange(6.0), torch.arange(6.0) / 10], dim=1))


def test_memory_is_bounded_by_the_capacity() -> None:
    sampler, z = RateSampler(capacity=100), torch.rand(20, 70)
    before = torch.get_rng_state()
    for some in z:
        sampler.add(some, some)
        held = [(len(pairs), len(keys)) for pairs, keys in sampler._held]
        assert sampler._n_held == sum(n for n, _ in held) == sum(n for _, n in held) <= SURPLUS * 100 + 70
    assert sampler.pairs.shape == (100, 2)
    assert sampler.n_seen == 1400
    assert torch.equal(torch.get_rng_state(), before)  # the sampler has its own generator


def test_the_sample_is_uniform_over_all_that_was_added() -> None:
    sampler = RateSampler(capacity=2000)
    for start in range(0, 20_000, 1000):
        sampler.add(torch.arange(start, start + 1000.0), torch.zeros(1000))
    counts = torch.histc(sampler.pairs[:, 0], bins=20, min=0, max=20_000)
    assert 60 <= counts.min() <= counts.max() <= 140  # 100 expected; standard deviation 9.5


@pytest.mark.parametrize("batches", [1, 2, 3, 10])
@pytest.mark.parametrize("n", [101, 140, 1000, 50_000])
def test_a_sample_of_large_batches_is_full(n: int, batches: int) -> None:
    for seed in range(50):
        sampler = RateSampler(seed=seed, capacity=100)
        for _ in range(batches):
            sampler.add(torch.arange(float(n)), torch.zeros(n))
        assert len(sampler.pairs) == 100


@pytest.mark.parametrize("limit", [0.002, 0.3, 0.9, 1.0])
def test_keys_below_a_limit_are_as_if_all_had_been_drawn(limit: float) -> None:
    n, rounds, generator = 500, 400, torch.Generator().manual_seed(0)
    drawn = [_keys_below(limit, n, generator) for _ in range(rounds)]
    assert all(bool((places.diff() > 0).all()) for places, _ in drawn)
    numbers = torch.tensor([float(len(places)) for places, _ in drawn], dtype=torch.float64)
    deviation = (n * limit * (1 - limit)) ** 0.5  # standard deviation of a binomial number
    assert numbers.mean().item() == pytest.approx(n * limit, abs=4 * deviation / rounds**0.5)
    assert numbers.std().item() == pytest.approx(deviation, rel=0.2)
    places, keys = (torch.cat(column) for column in zip(*drawn, strict=True))
    share = torch.histc(places.double(), bins=5, min=0, max=n) / len(places)
    assert (share - 0.2).abs().max() < 4 * (0.16 / len(places)) ** 0.5
    assert 0 <= keys.min() <= keys.max() < limit
    assert keys.mean().item() == pytest.approx(limit / 2, abs=4 * limit / (12 * len(keys)) ** 0.5)


def test_a_full_sampler_takes_no_pairs_too() -> None:
    sampler = RateSampler(capacity=10)
    sampler.add(torch.arange(20.0), torch.zeros(20))
    before = as_set(sampler)
    sampler.add(torch.zeros(0), torch.zeros(0))
    assert as_set(sampler) == before


def test_each_batch_of_a_sampler_draws_new_keys() -> None:
    sampler = RateSampler(capacity=20)
    for batch in range(2):
        sampler.add(torch.arange(100.0) + 100 * batch, torch.zeros(100))
    kept = sampler.pairs[:, 0]
    assert set(kept[kept < 100].tolist()) != set((kept[kept >= 100] - 100).tolist())


def test_sampling_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    RateSampler(capacity=5).add(torch.zeros(10), torch.zeros(10))
    assert torch.equal(torch.rand(1), expected)


def test_the_curve_comes_back_from_the_state_dict() -> None:
    sampler, other = fitted(), RateSampler()
    other.load_state_dict(sampler.state_dict())
    assert other.fitted
    z = torch.linspace(-1, 4, 100)
    assert torch.equal(other(z), sampler(z))


def test_a_sampler_that_was_made_float32_fits_on() -> None:
    sampler, z = fitted().float(), torch.linspace(-1, 4, 1 << 14)
    assert (sampler(z) - fitted()(z)).abs().max() < 1e-6
    sampler.add(z, (z / 4).clamp(0, 1))
    sampler.fit()
    assert sampler(z).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_centers": torch.tensor(1)}, "n_centers must be 0, or 2 to 7, got 1"),
        ({"n_centers": torch.tensor(8)}, "n_centers must be 0, or 2 to 7, got 8"),
        ({"n_centers": torch.tensor(-2)}, "n_centers must be 0, or 2 to 7, got -2"),
        ({"centers": fitted().centers.flip(0)}, "centers must not descend in z"),
        ({"centers": torch.full((7, 2), torch.nan)}, "centers must not descend in z"),
    ],
)
def test_a_curve_that_is_not_a_function_is_refused(changes, reason) -> None:
    with pytest.raises(IntegrityError, match=f"activation\\.{reason}"):
        torch.nn.ModuleDict({"activation": RateSampler()}).load_state_dict(
            {f"activation.{name}": tensor for name, tensor in (fitted().state_dict() | changes).items()}
        )


def test_rows_behind_those_in_use_may_hold_anything() -> None:
    sampler = RateSampler()
    few = {
        "n_centers": torch.tensor(3),
        "centers": torch.tensor([*[[0.0, 0.0], [1.0, 0.5], [2.0, 0.9]], *[[-1.0, 0]] * 4]),
    }
    sampler.load_state_dict(fitted().state_dict() | few)
    assert sampler(torch.tensor([1.0])).item() == pytest.approx(0.5, abs=0.01)
