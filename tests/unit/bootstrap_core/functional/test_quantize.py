from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bootstrap_core.functional.quantize import quantize_bias, quantize_decay, quantize_weight, truncate_current

QUANTIZERS = (quantize_weight, quantize_bias, quantize_decay, truncate_current)


def mantissas(quantize: Callable[[Tensor], Tensor], unit: int, values: list[float]) -> list[float]:
    """Quantise `values` given in multiples of 1/unit; return multiples of 1/unit."""
    return (quantize(torch.tensor(values) / unit) * unit).tolist()


def test_weights_are_even_mantissas_of_64() -> None:
    assert mantissas(quantize_weight, 64, [0.9, 1.1, 2.0, 2.9, 3.1, -2.9]) == [0, 2, 2, 2, 4, -2]


def test_weights_round_half_to_even_steps() -> None:
    assert mantissas(quantize_weight, 64, [1, 3, 5, -1, -3, -5]) == [0, 4, 4, 0, -4, -4]


def test_weights_are_8_bit_signed_steps() -> None:
    assert mantissas(quantize_weight, 64, [253, 255, 1000, -255, -257, -1000]) == [252, 254, 254, -256, -256, -256]


def test_biases_round_half_to_even() -> None:
    assert mantissas(quantize_bias, 64, [0.5, 1.5, 2.5, -0.5, -1.5, 0.9]) == [0, 2, 2, 0, -2, 1]


def test_biases_are_13_bit_signed_mantissas() -> None:
    assert mantissas(quantize_bias, 64, [4095, 4096, -4096, -4097]) == [4095, 4095, -4096, -4096]


def test_decays_round_half_to_even() -> None:
    assert mantissas(quantize_decay, 4096, [0.5, 1.5, 2.5, 122.88, 4095.4]) == [0, 2, 2, 123, 4095]


def test_decays_stay_between_nothing_and_all() -> None:
    assert mantissas(quantize_decay, 4096, [-1, 0, 4096, 5000]) == [0, 0, 4096, 4096]


def test_input_currents_are_truncated_toward_zero() -> None:
    assert mantissas(truncate_current, 64, [0.99, 1.99, -0.99, -1.99, 3.0]) == [0, 1, 0, -1, 3]


@pytest.mark.parametrize("quantize", QUANTIZERS)
def test_the_gradient_is_the_upstream_s_everywhere_even_where_values_are_clamped(quantize) -> None:
    x = torch.linspace(-100, 100, 41).requires_grad_()
    upstream = torch.randn(41, generator=torch.Generator().manual_seed(0))
    quantize(x).backward(upstream)
    assert torch.equal(x.grad, upstream)


def test_an_input_current_stays_within_a_bias_mantissa() -> None:
    assert (64 * truncate_current(torch.tensor([100.0, -100.0]))).tolist() == [4095, -4096]
