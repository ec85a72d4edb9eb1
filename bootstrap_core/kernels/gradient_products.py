"""Products of gradients with the weight that they come back through, in 16 bits where that is faster.

Importing this imports numba.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.kernels import short_products
from bootstrap_core.kernels.dense_products import as_integers
from bootstrap_core.kernels.half import is_large
from bootstrap_core.kernels.short_products import COLUMNS, ROWS
from bootstrap_core.kernels.threads import split

__all__ = ["GradientProduct", "multiplies_shorts"]

LEAST_OUTPUTS = 64
"""Of fewer, rounding their gradients takes longer than it spares."""


@cache
def multiplies_shorts() -> bool:
    """Whether this CPU multiplies numbers of 16 bits faster than float32, for which it may have registers of 512."""
    return short_products.has_short_products() and not short_products.CPU.get("avx512f")


class GradientProduct:
    """`grad @ weight` for parts of so many rows of gradients, and a weight `[O, I]` on its grid.

    Gradients are as `gradient_dtype` has them. In 16 bits, a row of them is off by 2**-16 of its largest at most; by
    more where outputs are so many, and weights so large, that their sums need some of the bits. A row is zeros if its
    largest is below 1e-34, and no numbers if one of it, or of the weight, is none.
    """

    def __init__(self, weight: Tensor, rows: int, dtype: torch.dtype) -> None:
        self.inputs, self.weight = weight.shape[1], weight.detach().to(dtype)
        self.shorts = _in_shorts(self.weight) if dtype == torch.float32 and _is_short(rows, *weight.shape) else None

    def __call__(self, grad: Tensor) -> Tensor:
        """`[R, I]`, of the type of `grad` `[R, O]`."""
        if self.shorts is None:
            return grad @ self.weight
        missing = ROWS - len(grad)
        rows = F.pad(grad, (0, 0, 0, missing)) if missing > 0 else grad.contiguous()
        out = torch.empty(len(rows), self.inputs)
        work = rows.numel() * self.inputs
        split(short_products.multiply, len(rows), rows.numpy(), *self.shorts, out.numpy(), work=work, align=ROWS)
        return out[: len(grad)]


def _in_shorts(weight: Tensor) -> tuple[Any, ...]:
    """The weight as `short_products.multiply` takes it; its step is no number if one of the weights is none."""
    steps, not_finite = as_integers(weight), 0 * weight.sum().item()
    return short_products.in_pairs(steps), short_products.largest_of(steps), np.float32(WEIGHT_STEP + not_finite)


def _is_short(rows: int, outputs: int, inputs: int) -> bool:
    """Whether products of so many gradients are faster in 16 bits."""
    fits = outputs >= LEAST_OUTPUTS and inputs >= COLUMNS
    return fits and is_large(rows * outputs * inputs) and multiplies_shorts()
