"""Sums over time, and that of spikes as an operator that torch can compile and export; see `count_loop`."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.kernels import count_loop
from bootstrap_core.kernels.dense_products import contiguous_rows
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.threads import split

__all__ = ["add_up", "add_up_at", "count"]


ALIGN = 64
"""Columns of one thread: whole cache lines of int8."""


def add_up(x: Tensor) -> Tensor:
    """`x.sum(0)` as int32, of integers `[R, ...]` of up to 32 bits; `torch.sum` copies all of it to int32 first."""
    order = sorted(range(1, x.dim()), key=x.stride, reverse=True)  # as it lies in memory
    lying = x.permute(0, *order)
    total = torch.empty(lying.shape[1:], dtype=torch.int32)
    rows, out = lying.contiguous().reshape(len(x), total.numel()).numpy(), total.view(-1).numpy()
    split(count_loop.add_up, len(out), rows, out, work=x.numel(), align=ALIGN)
    return total.permute([order.index(axis) for axis in range(1, x.dim())])


def add_up_at(z: Tensor, fired: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """`x[:, places].sum(0)` of both, int32: of whole numbers in float32, and of spikes, int8, `[T, M]`."""
    totals = torch.empty(2, len(places), dtype=torch.int32)
    rows = (contiguous_rows(x).numpy() for x in (z, fired))
    split(count_loop.add_up_at, len(places), *rows, places.numpy(), totals.numpy(), work=2 * len(z) * len(places))
    return totals[0], totals[1]


@operator("count_spikes")
def count(spikes: Tensor, arrives: Tensor) -> Tensor:
    """Spikes of each neuron over time, `[N, ...]` float32; the gradient is that of every step, made once.

    Args:
        spikes, arrives: spikes `[T, N, ...]`, int8, and their link; see `spiking_ops`.
    """
    return add_up(spikes).float()


@count.register_fake
def _(spikes: Tensor, arrives: Tensor) -> Tensor:
    return torch.empty_like(spikes[0], dtype=torch.float32)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.shape, ctx.dtype = inputs[0].shape, inputs[1].dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
    return None, grad.to(ctx.dtype).expand(ctx.shape)


count.register_autograd(_backward, setup_context=_setup)
