"""The piecewise-linear activation as an operator that torch can compile and export; see `curve_loop`."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.functional.piecewise import GRADIENT_FLOOR
from bootstrap_core.kernels import curve_loop
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.threads import split

__all__ = ["flat", "piecewise", "tables_of"]


@operator("piecewise")
def _piecewise(z: Tensor, centers: Tensor, slopes: Tensor, differentiate: bool) -> tuple[Tensor, Tensor]:
    """Rates and, with `differentiate`, the gradient at each, in the type and the layout of `z`."""
    z = z if _is_dense(z) else z.contiguous()
    rates = torch.empty_like(z)
    gradients = torch.empty_like(z) if differentiate else z.new_empty(0)
    x, r, g = map(flat, (z, rates, gradients))
    curve = tables_of(centers, slopes)
    split(curve_loop.piecewise, z.numel(), x, *curve, r, g, work=z.numel())
    return rates, gradients


def _is_dense(z: Tensor) -> bool:
    """Whether the numbers lie side by side, channels last or not."""
    return z.is_contiguous() or (z.dim() == 4 and z.is_contiguous(memory_format=torch.channels_last))


def flat(x: Tensor) -> Any:
    """Elements as they lie in memory, where they lie side by side; bfloat16 as uint16."""
    numbers = x.detach().as_strided((x.numel(),), (1,))
    return (numbers.view(torch.uint16) if x.dtype == torch.bfloat16 else numbers).numpy()


def tables_of(centers: Tensor, slopes: Tensor) -> tuple[Any, ...]:
    """A curve as `curve_loop` takes it: z and a of each centre and the slope behind it, tuples of `CENTERS`;
    then `steepness` and `floor`."""
    return _tables(centers.double().numpy().tobytes(), slopes.double().numpy().tobytes())


@lru_cache
def _tables(of_centers: bytes, of_slopes: bytes) -> tuple[Any, ...]:
    centers = np.frombuffer(of_centers).astype(np.float32).reshape(-1, 2)
    slopes = np.frombuffer(of_slopes).astype(np.float32)
    n, floor = len(centers), np.float32(GRADIENT_FLOOR)
    tables = np.full((3, curve_loop.CENTERS), np.inf, np.float32)
    tables[:2, :n] = centers.T
    tables[2, : n - 1], tables[2, n - 1] = slopes, 0.0
    return *(tuple(row) for row in tables), abs(centers[-1, 0] / centers[-1, 1]), floor


@_piecewise.register_fake
def _(z: Tensor, centers: Tensor, slopes: Tensor, differentiate: bool) -> tuple[Tensor, Tensor]:
    z = z if _is_dense(z) else z.contiguous()
    return torch.empty_like(z), torch.empty_like(z) if differentiate else z.new_empty(0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None, None, None]:
    return None if grad is None else grad * ctx.saved_tensors[0], None, None, None


_piecewise.register_autograd(_backward, setup_context=_setup)


def piecewise(z: Tensor, centers: Tensor, slopes: Tensor) -> Tensor:
    """`functional.piecewise` of float32 on the CPU; of bfloat16, computed in float32 and rounded."""
    needs = z.requires_grad and torch.is_grad_enabled()
    rates: Tensor = _piecewise(z, centers, slopes, needs)[0]
    return rates
