"""Products of rates with weights. Definition: `F.linear` and `functional.convolution.conv2d`.

Gradients may be computed in bfloat16; see `precision`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d, evenly_padded
from bootstrap_core.ops.library import runs_native
from bootstrap_core.ops.precision import gradient_dtype
from bootstrap_core.ops.synapses import fold, sources_of_places
from specs.layers.block import ConvSpec
from specs.shapes import axes_of


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x W^T` for rates `[..., I]` and a weight `[O, I]`."""
    if _trains(x) and x.dim() > 1 and gradient_dtype(x.numel() * len(weight)) == torch.bfloat16:
        return _HalfLinear.apply(x, weight)  # type: ignore[no-any-return, no-untyped-call]
    return F.linear(x, weight)


def convolve(x: Tensor, weight: Tensor, spec: ConvSpec) -> Tensor:
    """Return the cross-correlation of rates `[N, C, H, W]` with a weight `[O, C / groups, kh, kw]`."""
    if _trains(x) and x.requires_grad and spec.groups == 1 and runs_native(x):
        return _Convolve.apply(x, weight, spec)  # type: ignore[no-any-return, no-untyped-call]
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # oneDNN is faster with channels last
        x, weight = (y.contiguous(memory_format=torch.channels_last) for y in (x, weight))
    return conv2d(x, weight, spec)


def _trains(x: Tensor) -> bool:
    """Return whether this is eager training on the CPU, in float32 without autocast."""
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return plain and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _Convolve(torch.autograd.Function):
    """`conv2d`; the gradient of its input is a product and a fold, faster than torch's for few channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, spec: ConvSpec) -> Tensor:
        ctx.save_for_backward(x, weight)
        z = conv2d(x, weight, spec)
        ctx.spec, ctx.dtype = spec, gradient_dtype(z.numel() * weight[0].numel())
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), spec, grad = ctx.saved_tensors, ctx.spec, grads[0]
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            n, channels, *size = x.shape
            sources = sources_of_places((size[0], size[1]), axes_of(spec))
            by_place = weight.detach().permute(0, 2, 3, 1).flatten(1).to(ctx.dtype)
            given = grad.movedim(1, -1).flatten(1, 2).to(ctx.dtype).contiguous()
            folded = fold(given, by_place, sources, size[0] * size[1]).to(x.dtype)
            of_x = folded.view(n, *size, channels).movedim(-1, 1)
        if ctx.needs_input_grad[1]:
            x, padding = evenly_padded(x, spec.padding)
            geometry = spec.stride, padding, spec.dilation, False, (0, 0), 1, (False, True, False)
            _, of_weight, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry)
        return of_x, of_weight, None


class _HalfLinear(torch.autograd.Function):
    """`F.linear` with gradients computed in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight), half = ctx.saved_tensors, grads[0].to(torch.bfloat16)
        of_x = (half @ weight.to(half.dtype)).float() if ctx.needs_input_grad[0] else None
        rows, inputs = half.flatten(0, -2), x.flatten(0, -2)
        of_weight = (rows.t() @ inputs.to(half.dtype)).float() if ctx.needs_input_grad[1] else None
        return of_x, of_weight
