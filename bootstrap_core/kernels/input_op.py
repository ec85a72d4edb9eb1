"""Currents of input neurons, and their rates, as operators that torch can compile and export; see `input_loop`."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import BIAS_MANT_MAX, BIAS_MANT_MIN, MANT
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.kernels import input_loop
from bootstrap_core.kernels.curve_op import tables_of
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.threads import split, split_sum

__all__ = ["input_current", "input_current_backward", "input_mantissas", "input_rates", "scaling_of"]

LIMITS = float(MANT), float(BIAS_MANT_MIN), float(BIAS_MANT_MAX)


@operator("input_current")
def input_current(images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float) -> Tensor:
    """`truncate_current(weight * (images - mean) / std + bias)`, float32, computed in float64.

    Args:
        images: `[N, ...]`, float32.
        weight, bias: `[1]`; put on their grid, which their gradients go straight through.
        mean, std: see `InputSpec`.
    """
    return _currents(images, weight, bias, mean, std, 1 / MANT, torch.float32)


def input_mantissas(images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float) -> Tensor:
    """`input_current` in units of 1/64, int32."""
    return _currents(images, weight, bias, mean, std, 1.0, torch.int32)


def _currents(
    images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float, step: float, dtype: torch.dtype
) -> Tensor:
    x, out = images.detach().contiguous(), torch.empty(images.shape, dtype=dtype)
    flat, currents = x.view(-1).numpy(), out.view(-1).numpy()
    scaling = scaling_of(weight, bias, mean, std)
    split(input_loop.currents, flat.size, flat, *scaling, step, currents, work=flat.size)
    return out


def scaling_of(weight: Tensor, bias: Tensor, mean: float, std: float) -> tuple[float, ...]:
    """What `input_loop.currents` takes beside the images."""
    w, b = quantize_weight(torch.cat([weight.detach(), bias.detach()])).tolist()
    return mean, std, w, b, *LIMITS


@input_current.register_fake
def _(images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float) -> Tensor:
    return torch.empty(images.shape, device=images.device)


@operator("input_current_backward")
def input_current_backward(grad: Tensor, images: Tensor, mean: float, std: float) -> Tensor:
    """Gradients of weight and bias, `[2]` float32."""
    g, x = grad.contiguous().view(-1).numpy(), images.detach().contiguous().view(-1).numpy()
    sums = split_sum(input_loop.add_gradients, g.size, g, x, mean, std, shape=(2,), work=g.size)
    return torch.from_numpy(sums).float()


@input_current_backward.register_fake
def _(grad: Tensor, images: Tensor, mean: float, std: float) -> Tensor:
    return torch.empty(2, device=grad.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, weight, _, *ctx.scaling = inputs
    ctx.save_for_backward(images, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    images, weight = ctx.saved_tensors
    of_images = grad * (quantize_weight(weight.detach()) / ctx.scaling[1]) if ctx.needs_input_grad[0] else None
    of_weight, of_bias = input_current_backward(grad, images, *ctx.scaling).split(1)
    return of_images, of_weight, of_bias, None, None


input_current.register_autograd(_backward, setup_context=_setup)


@operator("input_rates")
def _input_rates(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: float,
    std: float,
    centers: Tensor,
    slopes: Tensor,
    differentiate: bool,
) -> tuple[Tensor, Tensor]:
    """Rates of `input_current` by an activation and, with `differentiate`, its gradient at each current."""
    rates = torch.empty(images.shape)
    gradients = torch.empty(images.shape if differentiate else 0)
    x, r, g = images.detach().contiguous().view(-1).numpy(), rates.view(-1).numpy(), gradients.view(-1).numpy()
    scaling, curve = scaling_of(weight, bias, mean, std), tables_of(centers, slopes)
    split(input_loop.rates, x.size, x, scaling, *curve, r, g, work=x.size)
    return rates, gradients


@_input_rates.register_fake
def _(images: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    differentiate = others[-1]
    return torch.empty(images.shape), torch.empty(images.shape if differentiate else 0)


@operator("input_rates_backward")
def _input_rates_backward(grad: Tensor, gradients: Tensor, images: Tensor, mean: float, std: float) -> Tensor:
    """Gradients of weight and bias, `[2]` float32."""
    g, s, x = (values.detach().contiguous().view(-1).numpy() for values in (grad, gradients, images))
    sums = split_sum(input_loop.add_rate_gradients, g.size, g, s, x, mean, std, shape=(2,), work=g.size)
    return torch.from_numpy(sums).float()


@_input_rates_backward.register_fake
def _(grad: Tensor, gradients: Tensor, images: Tensor, mean: float, std: float) -> Tensor:
    return torch.empty(2)


def _setup_rates(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    images, _, _, *ctx.scaling = inputs[:5]
    ctx.save_for_backward(images, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward_rates(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    images, gradients = ctx.saved_tensors
    of_weight, of_bias = _input_rates_backward(grad, gradients, images, *ctx.scaling).split(1)
    return None, of_weight, of_bias, *(None,) * 5


_input_rates.register_autograd(_backward_rates, setup_context=_setup_rates)


def input_rates(
    images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float, centers: Tensor, slopes: Tensor
) -> Tensor:
    """`functional.piecewise` of `input_current`, by a curve of float64; no gradient reaches the images."""
    needs = torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad)
    rates: Tensor = _input_rates(images, weight, bias, mean, std, centers, slopes, needs)[0]
    return rates
