"""Synapses: quantised weights, dense, convolutional and pooling. Rates and spikes go through the same code.

Packed spikes are weighed as integers, with the same result; see `kernels.synapse_op`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.kernels import by_size, is_worthwhile
from bootstrap_core.kernels.convolution_op import convolve
from bootstrap_core.kernels.known_product import known_convolution, known_linear
from bootstrap_core.kernels.linear_op import linear
from bootstrap_core.kernels.weight_norm_op import quantize_normed
from bootstrap_core.network.spikes import InputRates, Spikes
from specs.block import ConvSpec
from specs.fields import Shape

__all__ = ["ConvSynapse", "DenseSynapse", "IdentitySynapse", "PoolSynapse", "SkipSynapse", "Synapse", "geometry_of"]


compiled = by_size()


def _on_grid(weight: Tensor, scale: Tensor | float) -> Tensor:
    """The weight after multiplication by `scale`, quantised."""
    scaled = weight if _is_one(scale) else weight * scale
    if _is_compiled(scaled):
        from bootstrap_core.kernels import grid_op

        quantized: Tensor = grid_op.quantize_weight(scaled)
        return quantized
    return quantize_weight(scaled)


def _is_one(scale: Tensor | float) -> bool:
    return isinstance(scale, float) and scale == 1


def _is_compiled(weight: Tensor) -> bool:
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32
    return fits and is_worthwhile(weight.numel(), compiled)


def geometry_of(spec: ConvSpec) -> list[int]:
    """Kernel, stride, padding and dilation of the rows, then of the columns."""
    axes = zip(spec.kernel, spec.stride, spec.padding, spec.dilation, strict=True)
    return [number for axis in axes for number in axis]


class _LearnedSynapse(nn.Module):
    """What dense and convolutional synapses share: a weight, perhaps with weight norm, on its grid."""

    weight: Tensor

    def quantized_weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """The weight on its grid, `[outputs, inputs]` or `[channels, C / groups, kernel height, kernel width]`, after
        multiplication by `scale`."""
        if not (_is_one(scale) and is_parametrized(self, "weight")):
            return _on_grid(self.weight, scale)
        parametrizations: Any = self.parametrizations
        normed = parametrizations.weight
        return quantize_normed(normed.original0, normed.original1, compiled=_is_compiled(normed.original1))


class DenseSynapse(_LearnedSynapse):
    """`z = x W^T`, `[..., inputs]` to `[..., outputs]`; `weight` is `[outputs, inputs]`.

    The last `n_axes` of its input are flattened.
    """

    def __init__(self, inputs: int, outputs: int, *, normalize: bool, n_axes: int = 1) -> None:
        super().__init__()
        self.n_axes = n_axes
        self.weight = nn.Linear(inputs, outputs, bias=False).weight
        if normalize:
            weight_norm(self)

    def forward(
        self, x: Tensor | Spikes | InputRates, scale: Tensor | float = 1.0, known: Tensor | None = None
    ) -> Tensor:
        """Weighted input, in the dtype of `x`; where it is `known`, for rates, only its gradient is computed."""
        x, weight = x.flatten(-self.n_axes), self.quantized_weight(scale)
        if not isinstance(x, Tensor):
            return x.multiplied(weight)
        weight = weight.to(x.dtype)
        return linear(x, weight) if known is None else known_linear(x, weight, known)


class ConvSynapse(_LearnedSynapse):
    """2-D cross-correlation, `[..., C, H, W]`; `weight` is `[channels, C / groups, kernel height, kernel width]`."""

    def __init__(self, spec: ConvSpec, in_channels: int, *, normalize: bool) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Conv2d(in_channels, spec.channels, spec.kernel, groups=spec.groups, bias=False).weight
        if normalize:
            weight_norm(self)

    def forward(self, x: Tensor | Spikes, scale: Tensor | float = 1.0, known: Tensor | None = None) -> Tensor:
        """Weighted input, in the dtype of `x`; where it is `known`, for rates, only its gradient is computed."""
        spec, weight = self.spec, self.quantized_weight(scale)
        if isinstance(x, Spikes):
            return x.convolved(weight, geometry_of(spec), spec.groups)
        weight = weight.to(x.dtype)
        if known is not None:
            return known_convolution(x, weight, known, geometry_of(spec), spec.groups)
        if x.dim() == 4 and spec.groups == 1:
            return convolve(x, weight, geometry_of(spec))
        flat = x.flatten(0, -4)  # [T, N, C, H, W] -> [T * N, C, H, W]
        z = F.conv2d(flat, weight, None, spec.stride, spec.padding, spec.dilation, spec.groups)
        return z.reshape(*x.shape[:-3], *z.shape[1:])


class PoolSynapse(nn.Module):
    """The grouped convolution of one weight that is an average pool, `[..., C, H, W]`. Nothing to learn.

    `weight` is `[C, 1, kernel height, kernel width]`, every entry the same: the export of the pool.
    """

    weight: Tensor

    def __init__(self, spec: ConvSpec, weight: float) -> None:
        super().__init__()
        self.spec = spec
        value = quantize_weight(torch.tensor(weight))
        self.register_buffer("weight", value.repeat(spec.channels, 1, *spec.kernel), persistent=False)

    def quantized_weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """The weight, `[C, 1, kernel height, kernel width]`."""
        return self.weight

    def forward(self, x: Tensor | Spikes, scale: Tensor | float = 1.0, known: Tensor | None = None) -> Tensor:
        """Weighted input: the sum under the kernel times the weight, which is computed even where it is `known`."""
        if isinstance(x, Spikes):
            return x.convolved(self.weight, geometry_of(self.spec), self.spec.groups)
        flat = x.flatten(0, -4)  # [T, N, C, H, W] -> [T * N, C, H, W]
        total = F.avg_pool2d(flat, self.spec.kernel, self.spec.stride, self.spec.padding, divisor_override=1)
        z = total * self.weight[0, 0, 0, 0].to(x.dtype)
        return z.reshape(*x.shape[:-3], *z.shape[1:])


class IdentitySynapse(nn.Module):
    """Each neuron to the one in its place, `[..., C]` or `[..., C, H, W]`; `weight` is `[C]`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.broadcast = (shape[0], *[1] * (len(shape) - 1))
        self.weight = nn.Parameter(torch.ones(shape[0]))

    def quantized_weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """The weight on its grid, `[C]`."""
        return _on_grid(self.weight, scale)

    def forward(self, x: Tensor | Spikes, scale: Tensor | float = 1.0) -> Tensor:
        """Weighted input, in the dtype of `x`."""
        x = x.tensor() if isinstance(x, Spikes) else x
        return x * self.quantized_weight(scale).to(x.dtype).reshape(self.broadcast)


Synapse = DenseSynapse | ConvSynapse | PoolSynapse
SkipSynapse = IdentitySynapse | DenseSynapse | ConvSynapse
