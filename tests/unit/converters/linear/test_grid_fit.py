import pytest
import torch

from bootstrap_core.functional.quantize import quantize_bias, quantize_weight
from converters.linear.grid_fit import fit_to_grid
from specs import UnsupportedError
from specs.fields import VTH_MANT_MAX, threshold_mant


def test_what_lies_on_the_grids_stays_as_it_is() -> None:
    weight, bias = torch.tensor([[-4.0, 254 / 64], [2 / 64, 0]]), torch.tensor([1 / 64, -64.0])
    fit = fit_to_grid(weight, bias, 33 / 64)
    assert (fit.factor, fit.threshold, fit.weight_error) == (1.0, 33 / 64, 0.0)
    assert torch.equal(fit.weight.float(), weight)
    assert torch.equal(fit.bias.float(), bias)


def test_float32_noise_does_not_move_a_threshold_to_the_mantissa_below() -> None:
    fit = fit_to_grid(torch.tensor([0.5]), None, float(torch.tensor(1.0) - 3e-7))
    assert fit.threshold == 1.0


@pytest.mark.parametrize("divisor", [4, 9, 36])
def test_a_whole_factor_puts_pooled_weights_on_the_grid(divisor) -> None:
    weight = torch.tensor([3, -5, 1]).double() * 2 / 64
    fit = fit_to_grid(weight / divisor, torch.tensor([0.5]) / divisor, 1 / divisor)
    assert (fit.factor, fit.weight_error) == (divisor, 0.0)
    assert torch.equal(fit.weight, weight)
    assert (fit.bias.item(), fit.threshold) == (pytest.approx(0.5), pytest.approx(1.0))


def test_a_power_of_two_brings_large_weights_into_range() -> None:
    fit = fit_to_grid(torch.tensor([8.0, -1.0]), None, 16.0)
    assert (fit.factor, fit.threshold) == (0.25, 4.0)


def test_weights_off_the_grid_are_scaled_as_far_as_they_go() -> None:
    weight = torch.tensor([0.1234, -0.0567])
    fit = fit_to_grid(weight, None, 0.7)
    assert fit.factor == pytest.approx(254 / 64 / 0.1234, rel=1e-6)
    assert 0 < fit.weight_error <= 1 / 254
    assert fit.threshold == int(64 * 0.7 * fit.factor) / 64
    assert torch.allclose(fit.weight / fit.factor, weight.double())  # not rounded: the network rounds


def test_a_negative_weight_may_reach_one_step_further() -> None:
    fit = fit_to_grid(torch.tensor([-0.1234]), None, None)
    assert fit.factor == pytest.approx(4 / 0.1234, rel=1e-6)


@pytest.mark.parametrize("levels", [1, 3, 255])
def test_bias_and_threshold_are_in_range_in_units_of_the_input(levels) -> None:
    generator = torch.Generator().manual_seed(levels)
    weight, bias = torch.randn(50, generator=generator) / 7, torch.randn(5, generator=generator)
    fit = fit_to_grid(weight, bias, 1.3, levels=levels)
    assert (quantize_weight(fit.weight) - fit.weight).abs().max() <= 1 / 64 + 1e-9
    assert (quantize_bias(fit.bias * levels) - fit.bias * levels).abs().max() <= 1 / 128 + 1e-9
    assert 0 < threshold_mant(fit.threshold, levels) <= VTH_MANT_MAX


def test_the_threshold_has_17_bits() -> None:
    fit = fit_to_grid(torch.tensor([0.01]), None, 2.0, levels=255)
    assert threshold_mant(fit.threshold, 255) <= VTH_MANT_MAX
    assert fit.factor < 5


def test_a_graded_threshold_has_the_mantissa_it_was_written_with() -> None:
    for mant in range(255, 5000, 7):
        fit = fit_to_grid(torch.tensor([0.5]), None, float(torch.tensor(mant / 64 / 255)), levels=255)
        assert threshold_mant(fit.threshold, 255) == mant


def test_weights_too_large_for_the_threshold_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"too large relative to the threshold of 0\.1"):
        fit_to_grid(torch.tensor([100.0]), None, 0.1)


def test_weights_too_small_for_the_threshold_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"too small relative to the threshold of 1e\+05"):
        fit_to_grid(torch.tensor([0.1]), None, 1e5)


def test_weights_too_small_for_the_bias_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="too small relative to the bias"):
        fit_to_grid(torch.tensor([0.1]), torch.tensor([1e5]), None)


def test_small_weights_are_not_taken_for_zeros_on_the_grid() -> None:
    fit = fit_to_grid(torch.tensor([1e-6, 2e-6]), torch.tensor([1e-7]), 1e-5)
    assert fit.weight.max() > 1


def test_zeros_fit() -> None:
    fit = fit_to_grid(torch.zeros(3), torch.zeros(3), 1.0)
    assert (fit.factor, fit.weight_error, fit.threshold) == (1.0, 0.0, 1.0)
