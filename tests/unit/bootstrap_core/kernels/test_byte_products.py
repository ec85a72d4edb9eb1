"""Products of bytes in registers, against NumPy's."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from bootstrap_core.kernels import byte_products
from bootstrap_core.kernels.byte_products import ROWS, add_products, in_fours

pytestmark = pytest.mark.skipif(not byte_products.has_byte_products(), reason="this CPU has no instruction for it")


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 40, 48, 49, 96, 130])
@pytest.mark.parametrize("inputs", [1, 4, 7, 64, 601])
@pytest.mark.parametrize("n_rows", [ROWS, 3 * ROWS])
def test_products_are_exact_however_large(outputs, inputs, n_rows) -> None:
    random = np.random.default_rng(outputs + inputs)
    matrix = random.integers(-128, 128, (outputs, inputs), np.int8)
    matrix[::3], matrix[1::3] = -128, 127
    weight = in_fours(torch.from_numpy(matrix))
    apart, width = inputs + 5, weight.shape[0] * weight.shape[2] // 4
    spikes = random.integers(0, 2, 3 + n_rows * apart + 4, np.uint8)
    rows, taps = random.permutation(n_rows) * apart, np.arange(0, inputs, 4)
    before = random.integers(-1000, 1000, n_rows * outputs + width).astype(np.int32)
    totals = before.copy()
    add_products(spikes, 3, rows, taps, weight, totals, np.arange(n_rows) * outputs)
    seen = np.stack([spikes[3 + row :][:inputs] for row in rows]).astype(np.int64)
    assert (totals[: n_rows * outputs] - before[: n_rows * outputs] == (seen @ matrix.T).ravel()).all()
    assert (totals[n_rows * outputs :] == before[n_rows * outputs :]).all()


def test_a_row_reads_from_anywhere() -> None:
    random = np.random.default_rng(0)
    matrix, spikes = random.integers(-9, 9, (20, 12), np.int8), random.integers(0, 2, 100, np.uint8)
    totals, taps = np.zeros(ROWS * 20 + 48, np.int32), np.array([50, 0, 17])
    add_products(spikes, 1, np.arange(ROWS), taps, in_fours(torch.from_numpy(matrix)), totals, np.arange(ROWS) * 20)
    for row, found in enumerate(totals[: ROWS * 20].reshape(ROWS, 20)):
        seen = np.concatenate([spikes[1 + row + tap :][:4] for tap in taps]).astype(np.int64)
        assert (found == matrix @ seen).all()
