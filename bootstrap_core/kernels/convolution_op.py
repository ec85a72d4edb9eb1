"""A convolution of rates whose gradients are products of patches, as an operator that torch can compile and export.

Of few channels, where those of `F.conv2d` take up to five times as long; see `_from_patches`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
WEIGHED_CHANNELS = 2
"""Of the input, up to which the weight's gradient is faster than torch's; oneDNN has its own way for three."""


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
        split(scatter_places, len(some), rows, sources, total, work=seen.numel())

    n_at_once = images_at_once(dtype.itemsize * len(by_tap) * grad.shape[2:].numel())
    for some, into in zip(grad.split(n_at_once), out.split(n_at_once), strict=True):
        write(some, into)
    return out


@_input_grad.register_fake
def _(grad: Tensor, weight: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    return torch.empty(len(grad), *size, device=grad.device)


@operator("convolution_weight_grad")
def _weight_grad(grad: Tensor, x: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    """Of a weight of `size`, from images `[N, C, H, W]` and the gradient of the output, `[N, O, OH, OW]`; float32."""
    from bootstrap_core.kernels.conv_loops import gather_places

    sources = sources_of((*x.shape[2:], 1), tuple(geometry)).T
    taps, places = sources.shape
    rows = x.shape[1] * taps
    total = torch.zeros(rows, size[0])
    n_at_once = images_at_once(x.itemsize * rows * places)
    for some, of_some in zip(x.detach().split(n_at_once), grad.split(n_at_once), strict=True):
        seen = torch.empty(len(some), rows, places)
        images, out = some.flatten(2).numpy(), seen.view(len(some), x.shape[1], -1).numpy()
        split(gather_places, len(some), images, sources, out, work=seen.numel())
        total += torch.bmm(seen, of_some.flatten(2).transpose(1, 2)).sum(0)
    return total.t().contiguous().view(size)


@_weight_grad.register_fake
def _(grad: Tensor, x: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    return torch.empty(size, device=grad.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *saved, ctx.geometry = inputs
    ctx.save_for_backward(*saved)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    (x, weight), (of_x, of_weight, _) = ctx.saved_tensors, ctx.needs_input_grad
    return *convolution_gradients(grad, x, weight, of_x, of_weight, geometry=ctx.geometry, groups=1), None


_convolution.register_autograd(_backward, setup_context=_setup)


def convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool, *, geometry: list[int], groups: int
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a convolution of rates by its input and its weight, as far as wanted; see `convolve`."""
    x_from_patches, weight_from_patches = _from_patches(x, groups, geometry, of_x, of_weight)
    others = [of_x and not x_from_patches, of_weight and not weight_from_patches]
    grad_x = grad_weight = None
    if any(others):
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, *layout(geometry), False, [0, 0], groups, [*others, False]
        )
    if x_from_patches:
        grad_x = _input_grad(grad, weight, x.shape[1:], geometry)
    if weight_from_patches:
        grad_weight = _weight_grad(grad, x, weight.shape, geometry)
    return grad_x, grad_weight


def convolve(x: Tensor, weight: Tensor, geometry: list[int]) -> Tensor:
    """`F.conv2d` of rates `[N, C, H, W]`; `geometry` as of `patches`, `weight` in one group."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return _rounded(x, weight, geometry, torch.get_autocast_dtype("cpu"))
    if not (torch.is_grad_enabled() and any(_from_patches(x, 1, geometry, x.requires_grad, weight.requires_grad))):
        return _convolve(x, weight, geometry)
    product: Tensor = _convolution(x, weight, geometry)
    return product


def _from_patches(x: Tensor, groups: int, geometry: list[int], of_x: bool, of_weight: bool) -> tuple[bool, bool]:
    """Which of the gradients that are wanted are faster made of patches: the input's, and the weight's."""
    fits = groups == 1 and x.dtype == torch.float32 and x.device.type == "cpu" and is_worthwhile(x.numel(), compiled)
    channels = x.shape[1]
    return fits and of_x and _are_few(channels, geometry), fits and of_weight and channels <= WEIGHED_CHANNELS


def _are_few(channels: int, geometry: list[int]) -> bool:
    """Whether so many channels are few enough for the input's gradient."""
    kernel_height, stride_height, _, _, kernel_width, stride_width, _, _ = geometry
    few_products = kernel_height * kernel_width <= FEW_PRODUCTS * stride_height * stride_width
    most = FEW_CHANNELS if few_products or multiplies_half() else FEWEST_CHANNELS
    return channels <= most


def _rounded(x: Tensor, weight: Tensor, geometry: list[int], dtype: torch.dtype) -> Tensor:
    """`_convolve` as autocast does it, channels last, which oneDNN is up to twice as fast with."""
    x, weight = (y.to(dtype).contiguous(memory_format=torch.channels_last) for y in (x, weight))
    return _convolve(x, weight, geometry).contiguous(memory_format=torch.channels_last)
