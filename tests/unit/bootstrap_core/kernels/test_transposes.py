"""Matrices turned round."""

import pytest
import torch

from bootstrap_core.kernels.transposes import turned


@pytest.mark.parametrize(
    "shape", [(1, 1), (8, 8), (64, 16), (5, 7), (70, 785), (1, 24), (24, 1), (3, 100, 16), (2, 9, 3), (0, 4), (4, 0)]
)
def test_rows_become_columns(shape: tuple[int, ...]) -> None:
    matrices = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    assert torch.equal(turned(matrices), matrices.mT)
    assert turned(matrices).is_contiguous()


def test_the_order_in_memory_and_the_type_do_not_matter() -> None:
    matrix = torch.rand(33, 20, dtype=torch.float64).float().double()
    assert torch.equal(turned(matrix.t()).double(), matrix)
