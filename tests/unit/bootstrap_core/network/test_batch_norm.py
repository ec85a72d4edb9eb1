import pytest
import torch

from bootstrap_core.network.batch_norm import BatchNorm, MeanOnly, WeightScale


@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 1), ((5, 3, 2, 2), 1), ((4, 5, 3), 2), ((4, 5, 3, 2, 2), 2)])
def test_the_running_mean_moves_a_tenth_toward_the_mean_of_each_channel(shape: tuple[int, ...], axis: int) -> None:
    means = torch.tensor([1.0, 2.0, -3.0])
    z = means.reshape(-1, *[1] * (len(shape) - 1 - axis)).expand(shape)
    norm = MeanOnly(3)
    norm.update(z, channel_axis=axis)
    torch.testing.assert_close(norm.running_mean, 0.1 * means)
    norm.update(z, channel_axis=axis)
    torch.testing.assert_close(norm.running_mean, 0.19 * means)


@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 1), ((5, 3, 2, 2), 1), ((4, 5, 3), 2)])
def test_the_gradient_is_that_of_subtracting_the_mean_of_the_batch(shape: tuple[int, ...], axis: int) -> None:
    generator = torch.Generator().manual_seed(0)
    z, weights = torch.randn(shape, generator=generator, requires_grad=True), torch.randn(shape, generator=generator)
    axes = [i for i in range(len(shape)) if i != axis]
    ((z - z.mean(axes, keepdim=True)).tanh() * weights).sum().backward()
    expected, z.grad = z.grad, None
    weighted = z * 1.0
    MeanOnly(3).centre_gradient(weighted, channel_axis=axis)
    ((weighted - z.detach().mean(axes, keepdim=True)).tanh() * weights).sum().backward()
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize(
    ("deviation", "scale"),
    [(1.0, 1), (1.1, 1 / 2), (2.0, 1 / 2), (2.1, 1 / 4), (0.9, 1), (0.5, 2), (0.4, 2), (0.25, 4)],
)
def test_the_weight_scale_is_the_power_of_two_that_brings_the_deviation_to_one_or_below(deviation, scale) -> None:
    norm = WeightScale()
    norm.running_variance.fill_(deviation**2)
    assert norm.scale().item() == scale


@pytest.mark.parametrize(("variance", "scale"), [(1e9, 1 / 8), (1e-9, 8), (0.0, 8)])
def test_the_weight_scale_is_at_most_eight_either_way(variance: float, scale: float) -> None:
    norm = WeightScale()
    norm.running_variance.fill_(variance)
    assert norm.scale().item() == scale


def test_the_running_variance_moves_a_tenth_toward_that_of_the_weighted_input() -> None:
    norm = WeightScale()
    norm.update(torch.tensor([-1.0, 1.0, -1.0, 1.0, 3.0, -3.0]), channel_axis=1)
    assert norm.running_variance.item() == pytest.approx(0.9 + 0.1 * 22 / 5)


def test_the_variance_is_measured_as_if_weights_were_not_scaled() -> None:
    z = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 6
    norm = WeightScale()
    for _ in range(200):
        norm.update(norm.scale() * z, channel_axis=1)
    assert norm.running_variance.item() == pytest.approx(z.var().item(), rel=1e-3)
    assert norm.scale().item() == 1 / 8


def test_a_batch_of_one_number_leaves_the_running_variance() -> None:
    norm = WeightScale()
    norm.update(torch.ones(1, 1), 1)
    assert norm.running_variance == 1


# --- batch


GAIN = torch.tensor([0.5, 1.0, 2.0])


def batch_norms() -> tuple[BatchNorm, torch.nn.BatchNorm2d]:
    """Return our norm and torch's, with the same statistics and gain."""
    ours, theirs = BatchNorm(3, 1.0), torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        ours.gain.copy_(GAIN)
        theirs.weight.copy_(GAIN)
        for name, same in (("running_mean", ours.running_mean), ("running_var", ours.running_variance)):
            values = torch.tensor([0.5, 2.0, 1.0]) if name == "running_var" else torch.tensor([1.0, -1.0, 0.0])
            same.copy_(values)
            getattr(theirs, name).copy_(values)
    return ours, theirs


@pytest.mark.parametrize("levels", [1, 31])
def test_in_training_the_batch_norm_is_torchs_whatever_the_scale_of_the_weights(levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    given = (torch.randn(8, 3, 4, 4, generator=generator) * 3 + 1).requires_grad_()
    weights = torch.randn(8, 3, 4, 4, generator=generator)
    ours, theirs = batch_norms()
    wanted = theirs(given)
    (wanted.tanh() * weights).sum().backward()
    expected, given.grad = given.grad, None
    scale = (ours.scale().detach() * levels).reshape(-1, 1, 1)
    found = ours.normalize(given * scale, levels) / levels
    (found.tanh() * weights).sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(given.grad, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.gain.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var, rtol=1e-2, atol=0)  # ours is of the batch


def test_folded_the_batch_norm_is_torchs_with_running_statistics() -> None:
    z = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = batch_norms()
    folded = z * ours.scale().reshape(-1, 1, 1) - ours.mean().reshape(-1, 1, 1)
    torch.testing.assert_close(folded, theirs.eval()(z))


def test_a_gain_of_zero_still_learns() -> None:
    norm = BatchNorm(2, 0.0)
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) * norm.scale().detach()
    found = norm.normalize(z, 1)
    assert found.isfinite().all()
    assert found.any()


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_a_batch_of_one_number_is_normalised_by_the_running_statistics(shape: tuple[int, ...]) -> None:
    ours, theirs = batch_norms()
    x = torch.tensor([4.0, -2.0, 1.0])
    found = ours.normalize((x * ours.scale().detach()).reshape(shape), 1)
    torch.testing.assert_close(found.flatten(), theirs.eval()(x.reshape(1, 3, 1, 1)).flatten())
    assert ours.running_mean.tolist() == [1.0, -1.0, 0.0]
