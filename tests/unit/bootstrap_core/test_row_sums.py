"""Sums of rows in registers, against NumPy's."""

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")

from bootstrap_core.kernels import row_sums  # noqa: E402
from bootstrap_core.kernels.row_sums import LANES_OF_FLOATS, MOST_FLOATS, SLACK, add_rows, add_totals, in_blocks  # noqa: E402


@numba.njit
def _mix(rows, n, factors, at, width, out, to):
    row_sums.mix_rows(rows, n, factors, at, width, out, to)


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 96, 128, 129, 320, 400])
def test_blocks_are_of_one_width_that_registers_hold_with_few_columns_more(columns) -> None:
    n_blocks, rows, width = in_blocks(torch.ones(7, columns, dtype=torch.int8)).shape
    assert rows == 7
    assert width % 32 == 0
    assert width <= SLACK
    assert 0 <= n_blocks * width - columns < SLACK


@pytest.mark.parametrize("columns", [3, 16, 40, 128, 200])
@pytest.mark.parametrize("n", [0, 1, 255, 256, 700])
def test_rows_are_added_exactly_however_many_and_however_large(columns, n) -> None:
    random = np.random.default_rng(columns + n)
    matrix = random.integers(-128, 128, (50, columns), np.int8)
    matrix[10:20], matrix[20:30] = -128, 127
    blocks = in_blocks(torch.from_numpy(matrix))
    for low, high in [(0, 40), (10, 20), (20, 30)]:
        members = random.integers(low, high, n + 4).astype(np.int32) - 2
        before = random.integers(-1000, 1000, columns + SLACK).astype(np.int32)
        totals = before.copy()
        for block in range(len(blocks)):
            add_rows(blocks, block, 2, members, 4, len(members), totals, block * blocks.shape[2])
        added = matrix[members[4:] + 2].sum(0, dtype=np.int64)
        assert (totals[:columns] - before[:columns] == added).all()
        assert (totals[columns:] == before[columns:]).all()


@pytest.mark.parametrize("apart", [8, 64, 72, 200])
def test_rows_of_totals_are_added(apart) -> None:
    random = np.random.default_rng(apart)
    rows, before = (random.integers(-(2**30), 2**30, n).astype(np.int32) for n in (9 * apart, apart + 4))
    totals, members = before.copy(), np.array([7, 0, 3, 8, 3, 1], np.int32)
    add_totals(rows, apart, members, 1, 5, totals, 2)
    added = rows.reshape(9, apart)[[0, 3, 8, 3]].sum(0, dtype=np.int64).astype(np.int32)  # wraps
    assert (totals[2:-2] == before[2:-2] + added).all()
    assert (totals[[0, 1, -2, -1]] == before[[0, 1, -2, -1]]).all()


@pytest.mark.parametrize("width", range(LANES_OF_FLOATS, MOST_FLOATS + 1, LANES_OF_FLOATS))
@pytest.mark.parametrize("n", [0, 1, 13])
def test_rows_are_mixed_by_their_factors(width, n) -> None:
    random = np.random.default_rng(width)
    rows, factors = (random.standard_normal(size, np.float32) for size in (13 * MOST_FLOATS, 20))
    out = np.full(width + 2, 7, np.float32)
    _mix(rows, n, factors, 6, width, out, 1)
    wanted = sum((factors[6 + k] * rows[k * MOST_FLOATS :][:width] for k in range(n)), np.zeros(width))
    np.testing.assert_allclose(out[1:-1], wanted, rtol=1e-5, atol=1e-5)
    assert (out[[0, -1]] == 7).all()
