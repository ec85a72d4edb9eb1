"""Weight norm and the weights' grid in one operator that torch can compile and export.

The norm is `torch.nn.utils.parametrizations.weight_norm`'s own, to the bit; what its modules and a graph of two nodes
take around it is as much again.
"""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.kernels.operators import operator

__all__ = ["quantize_normed"]


@operator("quantize_normed")
def _quantize_normed(magnitude: Tensor, direction: Tensor, compiled: bool) -> tuple[Tensor, Tensor]:
    """Rows of `direction` with these magnitudes, on their grid; and the norms that the rows had."""
    weight, norms = torch._weight_norm_interface(direction.contiguous(), magnitude)  # it takes any memory as such
    if not compiled:
        return quantize_weight(weight), norms
    from bootstrap_core.kernels import grid_op

    grid_op.quantize_in_place(weight)
    return weight, norms


@_quantize_normed.register_fake
def _(magnitude: Tensor, direction: Tensor, compiled: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(direction, memory_format=torch.contiguous_format), torch.empty_like(magnitude)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    magnitude, direction, _ = inputs
    ctx.save_for_backward(direction, magnitude, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
    if grad is None:
        return None, None, None
    backward = torch.ops.aten._weight_norm_interface_backward
    direction, *others = ctx.saved_tensors
    of_direction, of_magnitude = backward(grad.contiguous(), direction.contiguous(), *others, 0)
    return of_magnitude, of_direction, None


_quantize_normed.register_autograd(_backward, setup_context=_setup)


def quantize_normed(magnitude: Tensor, direction: Tensor, *, compiled: bool) -> Tensor:
    """`functional.quantize_weight` of the weight that torch's weight norm makes of both.

    Args:
        magnitude: `[outputs, 1, ...]`.
        direction: `[outputs, ...]`.
        compiled: whether numba rounds; of float32 on the CPU.
    """
    weight: Tensor = _quantize_normed(magnitude, direction, compiled)[0]
    return weight
