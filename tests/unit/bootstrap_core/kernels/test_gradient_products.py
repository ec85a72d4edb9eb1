"""Products of gradients with weights in 16 bits, against those in float64."""

import pytest
import torch

pytest.importorskip("numba")

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.kernels import gradient_products, half, short_products
from bootstrap_core.kernels.gradient_products import GradientProduct

pytestmark = pytest.mark.skipif(not short_products.has_short_products(), reason="this CPU has no instruction for it")


@pytest.fixture(autouse=True)
def multiplies_shorts(monkeypatch) -> None:
    monkeypatch.setattr(half, "HALF_FROM", 1)
    monkeypatch.setattr(half, "multiplies_half", lambda: False)
    monkeypatch.setattr(gradient_products, "LEAST_OUTPUTS", 1)
    monkeypatch.setattr(gradient_products, "multiplies_shorts", lambda: True)


def some(rows: int, outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + outputs + inputs)
    sizes = torch.logspace(-20, 20, rows)[:, None]
    grad = torch.randn(rows, outputs, generator=generator) * sizes
    return grad, torch.randint(-128, 128, (outputs, inputs), generator=generator) * WEIGHT_STEP


@pytest.mark.parametrize("rows", [1, 5, 6, 13, 700])
@pytest.mark.parametrize("outputs", [1, 2, 33, 300])
@pytest.mark.parametrize("inputs", [16, 17, 32, 45])
def test_each_row_is_off_by_what_its_rounding_makes_of_it(rows, outputs, inputs) -> None:
    grad, weight = some(rows, outputs, inputs)
    product = GradientProduct(weight, rows, grad.dtype)
    assert product.shorts is not None
    off = product(grad).double() - grad.double() @ weight.double()
    most = 2**-16 * grad.abs().amax(1, keepdim=True).double() * weight.abs().sum(0).double()
    assert (off.abs() <= 1.01 * most).all()


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("outputs", [512, 513, 4097])
def test_no_sum_leaves_its_bits_however_large_the_weights(weight: int, outputs: int) -> None:
    grad, matrix = torch.full((7, outputs), 3.0), torch.full((outputs, 20), weight * WEIGHT_STEP)
    expected = torch.full((7, 20), 3.0 * weight * WEIGHT_STEP * outputs)
    torch.testing.assert_close(GradientProduct(matrix, 7, grad.dtype)(grad), expected, rtol=1e-4, atol=0)


def test_weights_of_zero_and_rows_of_next_to_nothing_give_zeros() -> None:
    grad, weight = some(20, 70, 30)
    assert not GradientProduct(torch.zeros_like(weight), 20, grad.dtype)(grad).any()
    grad[3], grad[4], grad[5] = 0.0, 1e-45, -1e-39
    found = GradientProduct(weight, 20, grad.dtype)(grad)
    assert not found[3:6].any()
    assert found[2].any()
    assert found[6].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_in_its_row_alone(value: float) -> None:
    grad, weight = some(20, 70, 30)
    before = GradientProduct(weight, 20, grad.dtype)(grad)
    grad[8, 69] = value
    found = GradientProduct(weight, 20, grad.dtype)(grad)
    assert found[8].isnan().all()
    others = [row for row in range(20) if row != 8]
    assert torch.equal(found[others], before[others])


def test_a_weight_that_is_no_number_shows() -> None:
    grad, weight = some(20, 70, 30)
    weight[3, 4] = float("nan")
    assert GradientProduct(weight, 20, grad.dtype)(grad).isnan().all()


def test_threads_do_not_change_a_bit() -> None:
    grad, weight = some(701, 70, 301)
    before, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(GradientProduct(weight, 701, grad.dtype)(grad))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_small_products_and_those_in_bfloat16_are_torchs(monkeypatch) -> None:
    grad, weight = some(20, 70, 30)
    rounded = GradientProduct(weight, 20, torch.bfloat16)
    assert rounded.shorts is None
    assert rounded(grad.bfloat16()).dtype == torch.bfloat16
    for name, least in (("LEAST_OUTPUTS", 71), ("COLUMNS", 31)):
        with monkeypatch.context() as patch:
            patch.setattr(gradient_products, name, least)
            assert GradientProduct(weight, 20, grad.dtype).shorts is None
    monkeypatch.setattr(half, "HALF_FROM", 20 * 70 * 30 + 1)
    assert torch.equal(GradientProduct(weight, 20, grad.dtype)(grad), grad @ weight)
