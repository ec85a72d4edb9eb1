"""Sums of rows in registers, against NumPy's."""

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")

from bootstrap_core.kernels import row_sums  # noqa: E402
from bootstrap_core.kernels.input_linear_loop import take_blocks  # noqa: E402
from bootstrap_core.kernels.row_sums import (  # noqa: E402
    SLACK,
    TRIPLED,
    add_rows,
    add_totals,
    blocks_shape,
    in_blocks,
)
from bootstrap_core.kernels.threads import alone  # noqa: E402


@numba.njit
def _mix(rows, first, members, factors, at, n, out, to, apart):
    row_sums.mix_three(rows, first, members, factors, at, n, out, to, apart)


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


@pytest.mark.parametrize("columns", [1, 23, 24, 25, 48, 100])
def test_floats_are_in_blocks_with_zeros_behind(columns) -> None:
    matrix = np.random.default_rng(columns).standard_normal((5, columns), np.float32)
    blocks = np.full(blocks_shape(5, columns), 7, np.float32)
    alone(take_blocks, 5, matrix, blocks)
    side_by_side = np.concatenate(list(blocks), 1)
    assert (side_by_side[:, :columns] == matrix).all()
    assert (side_by_side[:, columns:] == 0).all()


@pytest.mark.parametrize("n", [0, 1, 13])
def test_rows_are_mixed_by_three_factors_each(n) -> None:
    random = np.random.default_rng(n)
    rows, factors = (random.standard_normal(size, np.float32) for size in (2 + 9 * TRIPLED, 3 * 20))
    members = random.integers(0, 9, 20).astype(np.int32)
    out = np.full(3 * TRIPLED + 12, 7, np.float32)
    _mix(rows, 2, members, factors, 4, n, out, 1, TRIPLED + 5)
    chosen = rows[2:].reshape(9, TRIPLED)[members[4 : 4 + n]]
    for c in range(3):
        first = 1 + c * (TRIPLED + 5)
        wanted = factors.reshape(20, 3)[4 : 4 + n, c] @ chosen
        np.testing.assert_allclose(out[first : first + TRIPLED], wanted, rtol=1e-5, atol=1e-5)
        out[first : first + TRIPLED] = 7
    assert (out == 7).all()
