"""A convolution of rates whose input's gradient is a matrix product, as an operator that torch can compile and export.

Of very few channels, or of few and with a stride, it is up to four times faster than that of `F.conv2d`; else slower.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from bootstrap_core.kernels import by_size, is_worthwhile
from bootstrap_core.kernels.half import gradient_dtype, multiplies_half
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.patches import images_at_once, layout, sources_of
from bootstrap_core.kernels.threads import split

__all__ = ["convolution_gradients", "convolve"]

compiled = by_size()

FEW_CHANNELS, FEWEST_CHANNELS = 16, 3
"""Of the input, up to which the operator is not slower than torch's: with few products for each input, and with any."""
FEW_PRODUCTS = 4
"""Of weights with gradients for each input: a kernel's places by those of a stride."""


def _convolve(x: Tensor, weight: Tensor, geometry: list[int]) -> Tensor:
    return F.conv2d(x, weight, None, *layout(geometry))


_convolution = operator("convolution")(_convolve)
_convolution.register_fake(_convolve)


@operator("convolution_input_grad")
def _input_grad(grad: Tensor, weight: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    """Float32 `[N, C, H, W]`, from that of the output, `[N, O, OH, OW]`."""
    from bootstrap_core.kernels.conv_loops import scatter_places
    from bootstrap_core.kernels.neuron_run import as_array

    channels, height, width = size
    sources = sources_of((height, width, 1), tuple(geometry)).T
    dtype = gradient_dtype(grad.numel() * weight[0].numel())
    by_tap = weight.detach().flatten(1).t().to(dtype)  # [C * K, O]
    out = torch.empty(len(grad), channels, height, width)

    def write(some: Tensor, into: Tensor) -> None:
        seen = torch.bmm(by_tap.expand(len(some), -1, -1), some.flatten(2).to(dtype))  # [n, C * K, P]
        rows, total = as_array(seen).reshape(len(some), channels, -1), into.flatten(2).numpy()
        split(lambda start, stop: scatter_places(rows, sources, start, stop, total), len(some), work=seen.numel())

    n_at_once = images_at_once(dtype.itemsize * len(by_tap) * grad.shape[2:].numel())
    for some, into in zip(grad.split(n_at_once), out.split(n_at_once), strict=True):
        write(some, into)
    return out


@_input_grad.register_fake
def _(grad: Tensor, weight: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    return torch.empty(len(grad), *size, device=grad.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *saved, ctx.geometry = inputs
    ctx.save_for_backward(*saved)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    of_x, of_weight, _ = ctx.needs_input_grad
    return (
        _input_grad(grad, weight, x.shape[1:], ctx.geometry) if of_x else None,
        conv2d_weight(x, weight.shape, grad, *layout(ctx.geometry)) if of_weight else None,
        None,
    )


_convolution.register_autograd(_backward, setup_context=_setup)


def convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool, *, geometry: list[int], groups: int
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a convolution of rates by its input and its weight, as far as wanted; see `convolve`."""
    quick = of_x and groups == 1 and _can_be_faster(x, geometry)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *layout(geometry), False, [0, 0], groups, [of_x and not quick, of_weight, False]
    )
    return _input_grad(grad, weight, x.shape[1:], geometry) if quick else grad_x, grad_weight


def convolve(x: Tensor, weight: Tensor, geometry: list[int]) -> Tensor:
    """`F.conv2d` of rates `[N, C, H, W]`; `geometry` as of `patches`, `weight` in one group."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return _rounded(x, weight, geometry, torch.get_autocast_dtype("cpu"))
    differentiates = x.requires_grad and torch.is_grad_enabled()
    if not (differentiates and _can_be_faster(x, geometry)):
        return _convolve(x, weight, geometry)
    product: Tensor = _convolution(x, weight, geometry)
    return product


def _can_be_faster(x: Tensor, geometry: list[int]) -> bool:
    """Whether the operator can take the rates, and is faster."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu" and _is_faster(x.shape[1], geometry)
    return fits and is_worthwhile(x.numel(), compiled)


def _is_faster(channels: int, geometry: list[int]) -> bool:
    """Whether the operator is, for an input of so many channels."""
    kernel_height, stride_height, _, _, kernel_width, stride_width, _, _ = geometry
    few_products = kernel_height * kernel_width <= FEW_PRODUCTS * stride_height * stride_width
    most = FEW_CHANNELS if few_products or multiplies_half() else FEWEST_CHANNELS
    return channels <= most


def _rounded(x: Tensor, weight: Tensor, geometry: list[int], dtype: torch.dtype) -> Tensor:
    """`_convolve` as autocast does it, channels last, which oneDNN is up to twice as fast with."""
    x, weight = (y.to(dtype).contiguous(memory_format=torch.channels_last) for y in (x, weight))
    return _convolve(x, weight, geometry).contiguous(memory_format=torch.channels_last)
