"""Products of spikes with weights and gradients: by matrices, or, where few neurons spike, by following them."""

from functools import cache

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.kernels import event_products
from bootstrap_core.kernels.neuron_run import as_array
from bootstrap_core.kernels.threads import split

__all__ = ["PackedWeight", "as_integers", "contiguous_rows", "correlate", "is_dense", "weigh"]

DENSE_FROM = 1 / 5120
"""Rate of spikes, for each output, from which a matrix product is faster than following them: finding them is work by
itself, which few outputs do not pay for."""

FLOAT32_SLOWNESS = 4
"""How many times longer float32 products take than those of int8 and bfloat16."""


def is_dense(rate: float, outputs: int) -> bool:
    """Whether a matrix product with spikes of this rate is faster than following them."""
    return rate >= DENSE_FROM * outputs


def _are_dense(spikes: Tensor, outputs: int, slowness: int = 1) -> bool:
    """`is_dense` for spikes `[R, I]`, whose rate some hundred rows tell."""
    some = spikes[:: max(1, len(spikes) // 256)]
    rate = float(some.sum(dtype=torch.int32)) / max(1, some.numel())
    return not some.numel() or is_dense(rate, outputs * slowness)


class PackedWeight:
    """A weight `[O, I]`, int8, for many products: kept in the order in which the CPU multiplies."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = _pack(weight) if _can_pack() else weight.t()
        self.outputs = len(weight)

    def weigh(self, spikes: Tensor) -> Tensor:
        """`spikes @ weight.T`, whole numbers of any type, of 0 and 1, int8 `[R, I]`."""
        if _can_pack():
            return _weigh_packed(spikes, self.packed, self.outputs)
        return torch._int_mm(spikes, self.packed)


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
    return packed


def _weigh_packed(spikes: Tensor, packed: Tensor, outputs: int) -> Tensor:
    """Float32: exact, as sums are of fewer than 2**17 weights."""
    scales, zero_points = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int64)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        spikes.view(torch.uint8), 1.0, 0, packed, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


@cache
def _can_pack() -> bool:
    """Whether this torch, on this CPU, multiplies by packed weights: tried once, as it promises nobody that it does."""
    weight = torch.tensor([[-128, 127], [3, -1]], dtype=torch.int8)
    spikes = torch.tensor([[1, 1], [0, 1], [1, 0]], dtype=torch.int8)
    try:
        return torch.equal(_weigh_packed(spikes, _pack(weight), 2).long(), spikes.long() @ weight.long().t())
    except (AttributeError, RuntimeError, TypeError):
        return False


def weigh(spikes: Tensor, weight: Tensor) -> Tensor:
    """`spikes @ weight`, int32, of int8 `[R, I]` and `[I, O]`."""
    spikes, weight = contiguous_rows(spikes), contiguous_rows(weight)
    if _are_dense(spikes, weight.shape[1]):
        return torch._int_mm(spikes, weight)
    out = torch.empty(len(spikes), weight.shape[1], dtype=torch.int32)
    x, w, z = spikes.numpy(), weight.numpy(), out.numpy()
    split(lambda start, stop: event_products.add_rows(x, w, start, stop, z), len(x), work=out.numel())
    return out


def correlate(spikes: Tensor, grad: Tensor) -> Tensor:
    """`grad.T @ spikes`, float32, of int8 `[R, I]` and `[R, O]`."""
    spikes = contiguous_rows(spikes)
    if _are_dense(spikes, grad.shape[1], FLOAT32_SLOWNESS if grad.dtype == torch.float32 else 1):
        return (grad.t() @ spikes.to(grad.dtype)).float()
    out = torch.empty(spikes.shape[1], grad.shape[1])
    x, g, total = spikes.numpy(), as_array(grad).reshape(grad.shape), out.numpy()
    split(
        lambda start, stop: event_products.add_columns(x, g, start, stop, total),
        spikes.shape[1],
        work=grad.numel(),
        align=16,
    )
    return out.t()


def contiguous_rows(x: Tensor) -> Tensor:
    """`x` with strides `(columns, 1)`: a single row or column may have others, which _int_mm misreads."""
    return x if x.stride() == (x.shape[1], 1) else x.clone(memory_format=torch.contiguous_format)


def as_integers(weight: Tensor) -> Tensor:
    """Weights in steps of `WEIGHT_STEP`, int8."""
    return (weight.detach() * (1 / WEIGHT_STEP)).round_().to(torch.int8)
