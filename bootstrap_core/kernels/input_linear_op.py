"""Rates of input neurons and their product with weights as one operator that torch can export; see `input_linear_loop`.

The input has two numbers to learn, whose gradients take a product as large as the weights' own if they are sought
backward. Forward each is one more sum beside the one that is made anyway.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.kernels import input_linear_loop
from bootstrap_core.kernels.curve_op import tables_of
from bootstrap_core.kernels.input_op import scaling_of
from bootstrap_core.kernels.neuron_run import as_array
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.row_sums import blocks_shape
from bootstrap_core.kernels.threads import split

__all__ = ["few_apart", "input_linear"]

MOST_APART = 0.5
"""Part of the pixels up to which sums of those alone are faster than products of all."""
SOME = 8
"""Images, about, that tell so of all."""


def few_apart(images: Tensor) -> bool:
    """Whether most pixels have the lowest value, which some images tell; not of none."""
    some = images[:: max(1, len(images) // SOME)]
    return some.numel() > 0 and int(torch.count_nonzero(some != some.min())) <= MOST_APART * some.numel()


@operator("input_linear")
def _input_linear(
    images: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    mean: float,
    std: float,
    centers: Tensor,
    slopes: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The product `[N, O]`; the rates `[N, I]`; and the product with its derivatives by the input's weight, times the
    pixels, and bias, `[3, B, N, W]`, see `blocks_shape`."""
    (n, inputs), outputs, x, matrix = images.shape, len(weight), images.contiguous().numpy(), as_array(weight)
    columns = torch.empty(blocks_shape(inputs + 1, outputs), dtype=torch.float32)
    rates = torch.empty(images.shape, dtype=torch.float32)
    weighed = torch.empty(3, *blocks_shape(n, outputs), dtype=torch.float32)
    z = torch.empty(n, outputs, dtype=torch.float32)
    c, r, w = columns.view(-1).numpy(), rates.numpy(), weighed.view(-1).numpy()
    split(input_linear_loop.take_columns, len(columns), matrix, outputs, inputs, c, work=matrix.size)
    neurons, curve = scaling_of(input_weight, input_bias, mean, std), tables_of(centers, slopes)
    common = np.float32(images.min().item())
    split(input_linear_loop.weigh, n, x, common, neurons, curve, c, r, w, z.numpy(), work=x.size * len(columns))
    return z, rates, weighed


@_input_linear.register_fake
def _(images: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    n, outputs = len(images), len(others[-1])
    return torch.empty(n, outputs), torch.empty(images.shape), torch.empty(3, *blocks_shape(n, outputs))


@operator("input_linear_backward")
def _gradients(grad: Tensor, rates: Tensor, weighed: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input's weight, for pixels as they are, and bias, `[2]` float64; of the weight, `[O, I]`."""
    (n, outputs), inputs = grad.shape, rates.shape[1]
    columns = torch.empty(blocks_shape(n, outputs), dtype=torch.float32)
    split(input_linear_loop.take_blocks, n, grad.contiguous().numpy(), columns.numpy(), work=columns.numel())
    out = torch.empty(outputs, inputs, dtype=torch.float32)
    r, c, total = rates.numpy(), columns.view(-1).numpy(), out.view(-1).numpy()
    work, align = rates.numel() * len(columns), input_linear_loop.TOGETHER
    split(input_linear_loop.correlate, inputs, r, c, outputs, total, work=work, align=align)
    return torch.mv(weighed[1:].flatten(1), columns.flatten()).double(), out


@_gradients.register_fake
def _(grad: Tensor, rates: Tensor, weighed: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(2, dtype=torch.float64), torch.empty(grad.shape[1], rates.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.scaling = inputs[3:5]
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    (mean, std), (of_input, of_weight) = ctx.scaling, _gradients(grad, *ctx.saved_tensors)
    by_pixel, whole = of_input.split(1)
    return None, ((by_pixel - mean * whole) / std).float(), whole.float(), *(None,) * 4, of_weight


_input_linear.register_autograd(_backward, setup_context=_setup)


def input_linear(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: float,
    std: float,
    centers: Tensor,
    slopes: Tensor,
    into: Tensor,
) -> Tensor:
    """`F.linear(input_rates(images, ...), into)`, for images `[N, I]` and weights `into` `[O, I]`, both float32."""
    z: Tensor = _input_linear(images, weight, bias, mean, std, centers, slopes, into)[0]
    return z
