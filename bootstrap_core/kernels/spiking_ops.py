"""Spiking layers as operators that torch can compile and export, over the compiled loops of `neuron_loops`.

Spikes travel as int8. Since torch gives integers no gradient, a float tensor of the same shape that holds nothing (one
element, seen through strides of 0) goes beside them, the *link*: their gradient is its gradient, and of its type.

Weights are multiples of `WEIGHT_STEP`, so products with spikes are sums of 8-bit integers, and exact.
"""

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE, STATE_PER_WEIGHT, WEIGHT_STEP
from bootstrap_core.functional.surrogate import surrogate_shape
from bootstrap_core.kernels import event_products, neuron_loops
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.threads import split

__all__ = [
    "cuba",
    "cuba_backward",
    "fire",
    "link",
    "spiking_dense",
    "spiking_dense_backward",
    "unpack",
]

DENSE_FROM, DENSE_GRADIENT_FROM = 0.12, 0.1
"""Rates of spikes from which a matrix product is faster than following them, forward and backward."""

ALIGN = 64
"""Neurons of one thread: whole cache lines of int8."""

_NOTHING = np.empty(0, np.float32)


def link(shape: tuple[int, ...] | torch.Size, weight: Tensor) -> Tensor:
    """A tensor of a shape that holds nothing, to carry the gradient of spikes behind a weight `[O, I, ...]`."""
    dtype = gradient_dtype(prod(shape) * weight[0].numel())
    return torch.zeros(1, device=weight.device, dtype=dtype).expand(shape)


def _flat(x: Tensor) -> tuple[Any, int]:
    """Elements of `[T, ...]` in order, and the distance of steps: 0 where one stands for all."""
    if x.stride(0) == 0 or len(x) == 1:
        return _array(x[0]), 0
    return _array(x), x[0].numel()


def _array(x: Tensor) -> Any:
    x = x.detach().contiguous().reshape(-1)
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


class _Neurons:
    """What both passes of the loops need to know."""

    def __init__(
        self,
        z: Tensor,
        unit: float,
        current_decay: Tensor,
        voltage_decay: Tensor,
        bias: Tensor | None,
        threshold: float,
        subtract: bool,
    ) -> None:
        self.steps, self.size = len(z), z.shape[1:].numel()
        inner = z.shape[3:].numel()
        offset = np.zeros(1) if bias is None else bias.detach().double().reshape(-1).numpy() * STATE
        keeps = ((1 - decay.detach().double().reshape(-1)).numpy() for decay in (current_decay, voltage_decay))
        flat, step = _flat(z)
        self.common = (
            flat, step, float(unit), self.steps, self.size, inner, *keeps, offset, threshold * STATE, subtract
        )  # fmt: skip

    def forward(self, spikes: Tensor, current: Tensor | None = None, voltage: Tensor | None = None) -> None:
        states = current is not None
        s = spikes.view(-1).numpy()
        u = _NOTHING if current is None else current.view(-1).numpy()
        v = _NOTHING if voltage is None else voltage.view(-1).numpy()
        if self.size:
            split(
                lambda start, stop: neuron_loops.forward(*self.common, start, stop, s, states, u, v),
                self.size,
                work=self.steps * self.size,
                align=ALIGN,
            )

    def backward(
        self, grad: Tensor, surrogate: tuple[float, float, float], out: Tensor, *, decays: bool, bias: bool
    ) -> Tensor:
        """Writes the gradient of the weighted input; returns those of decays and bias, `[3, size]`."""
        sums = torch.zeros(3, self.size if decays or bias else 0)
        g, g_step = _flat(grad)
        o, total = _array(out), sums.numpy()
        if self.size:
            split(
                lambda start, stop: neuron_loops.backward(
                    *self.common, start, stop, g, g_step, *surrogate, o, total, decays, bias
                ),
                self.size,
                work=self.steps * self.size,
                align=ALIGN,
            )
        return sums


def _surrogate(threshold: float, tau_grad: float, scale_grad: float) -> tuple[float, float, float]:
    """Centre, width and height."""
    return threshold, *surrogate_shape(threshold, tau_grad, scale_grad)


# --- Neurons alone: z float, spikes float


@torch.library.custom_op("snnzoo::cuba", mutates_args=())
def cuba(
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`functional.cuba`: spikes, current and voltage, float32, like `z` `[T, N, C, ...]`."""
    spikes, current, voltage = (torch.empty(z.shape, dtype=torch.float32) for _ in range(3))
    neurons = _Neurons(z, STATE, current_decay, voltage_decay, bias, threshold, subtract)
    neurons.forward(spikes, current, voltage)
    return spikes, current, voltage


@cuba.register_fake
def _(z: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    spikes, current, voltage = (torch.empty(z.shape, dtype=torch.float32, device=z.device) for _ in range(3))
    return spikes, current, voltage


@torch.library.custom_op("snnzoo::cuba_backward", mutates_args=())
def cuba_backward(
    grad: Tensor,
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    decays: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `z`, both decays (empty without `decays`) and the bias (empty without one)."""
    out = torch.empty(z.shape, dtype=torch.float32)
    neurons = _Neurons(z, STATE, current_decay, voltage_decay, bias, threshold, subtract)
    surrogate = _surrogate(threshold, tau_grad, scale_grad)
    sums = neurons.backward(grad, surrogate, out, decays=decays, bias=bias is not None)
    per_neuron = sums.reshape(3, *z.shape[1:]) if sums.numel() else sums
    return (
        out,
        _over_channels(per_neuron[0], current_decay) if decays else torch.empty(0),
        _over_channels(per_neuron[1], voltage_decay) if decays else torch.empty(0),
        torch.empty(0) if bias is None else _over_channels(per_neuron[2], bias),
    )


def _over_channels(x: Tensor, like: Tensor) -> Tensor:
    """`[N, C, ...]` summed to one value a channel, or to one in all, in the shape of `like`."""
    if not x.numel():
        return torch.zeros(like.shape)
    if like.numel() == 1 and (x.dim() < 2 or x.shape[1] != 1):
        return x.sum().reshape(like.shape)
    return x.sum([axis for axis in range(x.dim()) if axis != 1]).reshape(like.shape)


@cuba_backward.register_fake
def _(
    grad: Tensor, z: Tensor, current_decay: Tensor, voltage_decay: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    decays = rest[-1]
    return (
        torch.empty(z.shape, device=z.device),
        torch.empty(current_decay.shape if decays else 0, device=z.device),
        torch.empty(voltage_decay.shape if decays else 0, device=z.device),
        torch.empty(0 if bias is None else bias.shape, device=z.device),
    )


def _cuba_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, current_decay, voltage_decay, bias, *constants = inputs
    ctx.save_for_backward(z, current_decay, voltage_decay, bias)
    ctx.constants = constants
    ctx.mark_non_differentiable(*output[1:])


def _cuba_backward(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    bias, needs = ctx.saved_tensors[3], ctx.needs_input_grad
    grad_z, grad_cd, grad_vd, grad_bias = cuba_backward(
        grad, *ctx.saved_tensors, *ctx.constants, bool(needs[1] or needs[2])
    )
    return (
        grad_z.to(ctx.saved_tensors[0].dtype),
        grad_cd if needs[1] else None,
        grad_vd if needs[2] else None,
        grad_bias if bias is not None and needs[3] else None,
        *[None] * 4,
    )


cuba.register_autograd(_cuba_backward, setup_context=_cuba_setup)


# --- Dense synapses and their neurons: spikes int8 in and out


@torch.library.custom_op("snnzoo::spiking_dense", mutates_args=())
def spiking_dense(
    spikes: Tensor,
    arrives: Tensor,
    weight: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    survivor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (int8) and their link `[T, N, O]`, and what the weighted input is in steps of a weight, int32.

    Args:
        spikes, arrives: spikes `[T, N, I]`, int8, and their link.
        weight: `[O, I]`, on its grid.
        current_decay, voltage_decay, bias: see `functional.cuba`; without gradients for the decays.
        mask: `[N, I]`, int8: inputs that dropout lets through; or None.
        threshold, tau_grad, scale_grad, subtract: see `functional.cuba`.
        survivor: by how much an input that dropout lets through counts.
    """
    taken = spikes if mask is None else spikes * mask
    steps, n, inputs = spikes.shape
    z = _weigh(_rows(taken.reshape(steps * n, inputs)), _rows(_integers(weight).t())).reshape(steps, n, len(weight))
    fired = torch.empty(z.shape, dtype=torch.int8)
    _Neurons(z, STATE_PER_WEIGHT * survivor, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    return fired, link(z.shape, weight), z


def _density(spikes: Tensor) -> float:
    """The part of `[R, I]` that is 1, told by some hundred rows."""
    some = spikes[:: max(1, len(spikes) // 256)]
    return float(some.sum(dtype=torch.int32)) / max(1, some.numel())


def _weigh(spikes: Tensor, weight: Tensor) -> Tensor:
    """`spikes @ weight`, int32, of int8 `[R, I]` and `[I, O]`."""
    if not spikes.numel() or _density(spikes) >= DENSE_FROM:
        return torch._int_mm(spikes, weight)
    out = torch.empty(len(spikes), weight.shape[1], dtype=torch.int32)
    x, w, z = spikes.numpy(), weight.numpy(), out.numpy()
    split(lambda start, stop: event_products.add_rows(x, w, start, stop, z), len(x), work=out.numel())
    return out


def _correlate(spikes: Tensor, grad: Tensor) -> Tensor:
    """`grad.T @ spikes`, float32, of int8 `[R, I]` and `[R, O]`."""
    if not spikes.numel() or _density(spikes) >= DENSE_GRADIENT_FROM:
        return (grad.t() @ spikes.to(grad.dtype)).float()
    out = torch.empty(spikes.shape[1], grad.shape[1])
    x, total = spikes.numpy(), out.numpy()
    g = grad.view(torch.uint16).numpy() if grad.dtype == torch.bfloat16 else grad.numpy()
    split(
        lambda start, stop: event_products.add_columns(x, g, start, stop, total),
        spikes.shape[1],
        work=grad.numel(),
        align=16,
    )
    return out.t()


def _rows(x: Tensor) -> Tensor:
    """`x` with strides `(columns, 1)`: a single row or column may have others, which _int_mm misreads."""
    return x if x.stride() == (x.shape[1], 1) else x.clone(memory_format=torch.contiguous_format)


def _integers(weight: Tensor) -> Tensor:
    return (weight.detach() * (1 / WEIGHT_STEP)).round_().to(torch.int8)


@spiking_dense.register_fake
def _(spikes: Tensor, arrives: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*spikes.shape[:-1], weight.shape[0])
    fired = torch.empty(shape, dtype=torch.int8, device=spikes.device)
    z = torch.empty(shape, dtype=torch.int32, device=spikes.device)
    return fired, link(shape, weight), z


@torch.library.custom_op("snnzoo::spiking_dense_backward", mutates_args=())
def spiking_dense_backward(
    grad: Tensor,
    spikes: Tensor,
    weight: Tensor,
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    survivor: float,
    arrives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the arriving spikes (empty without `arrives`), the weight, and the bias (empty without one).

    That of the spikes has the type of the products, the others are float32.
    """
    (steps, n, outputs), inputs = z.shape, spikes.shape[-1]
    grad_z = torch.empty(z.shape, dtype=gradient_dtype(z.numel() * weight.shape[1]))
    neurons = _Neurons(z, STATE_PER_WEIGHT * survivor, current_decay, voltage_decay, bias, threshold, subtract)
    surrogate = _surrogate(threshold, tau_grad, scale_grad)
    sums = neurons.backward(grad, surrogate, grad_z, decays=False, bias=bias is not None)
    rows, taken = grad_z.reshape(steps * n, outputs), spikes if mask is None else spikes * mask
    grad_weight = _correlate(_rows(taken.reshape(steps * n, inputs)), rows)
    grad_spikes = torch.empty(0)
    if arrives:
        grad_spikes = (rows @ weight.to(rows.dtype)).reshape(spikes.shape)
        if mask is not None:
            grad_spikes.mul_(mask).mul_(survivor)
    return (
        grad_spikes,
        grad_weight if survivor == 1 else grad_weight.mul_(survivor),
        torch.empty(0) if bias is None else _over_channels(sums[2].reshape(n, outputs), bias),
    )


@spiking_dense_backward.register_fake
def _(
    grad: Tensor, spikes: Tensor, weight: Tensor, z: Tensor, cd: Tensor, vd: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = gradient_dtype(z.numel() * weight.shape[1]) if rest[-1] else torch.float32
    return (
        torch.empty(spikes.shape if rest[-1] else 0, device=z.device, dtype=dtype),
        torch.empty(weight.shape, device=z.device),
        torch.empty(0 if bias is None else bias.shape, device=z.device),
    )


def _dense_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    spikes, _, weight, current_decay, voltage_decay, bias, mask, *constants = inputs
    fired, _, z = output
    ctx.save_for_backward(spikes, weight, z, current_decay, voltage_decay, bias, mask)
    ctx.constants = constants
    ctx.mark_non_differentiable(fired, z)
    ctx.set_materialize_grads(False)


def _dense_backward(ctx: Any, _: Tensor | None, grad: Tensor | None, __: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    needs = ctx.needs_input_grad
    grad_spikes, grad_weight, grad_bias = spiking_dense_backward(grad, *ctx.saved_tensors, *ctx.constants, needs[1])
    return (
        None,
        grad_spikes if needs[1] else None,
        grad_weight if needs[2] else None,
        None,
        None,
        grad_bias if needs[5] else None,
        *[None] * 6,
    )


spiking_dense.register_autograd(_dense_backward, setup_context=_dense_setup)


# --- From weighted input to spikes, and from spikes to tensors


@torch.library.custom_op("snnzoo::fire", mutates_args=())
def fire(
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
) -> tuple[Tensor, Tensor]:
    """`functional.cuba` without its states: spikes (int8) and their link, like `z` `[T, N, C, ...]`."""
    fired = torch.empty(z.shape, dtype=torch.int8)
    _Neurons(z, STATE, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    return fired, link(z.shape, z.new_empty(1, 1))


@fire.register_fake
def _(z: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty(z.shape, dtype=torch.int8, device=z.device), torch.zeros(1, device=z.device).expand(z.shape)


def _fire_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, current_decay, voltage_decay, bias, *constants = inputs
    ctx.save_for_backward(z, current_decay, voltage_decay, bias)
    ctx.constants = constants
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)


def _fire_backward(ctx: Any, _: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None,) * 8 if grad is None else _cuba_backward(ctx, grad)


fire.register_autograd(_fire_backward, setup_context=_fire_setup)


@torch.library.custom_op("snnzoo::unpack", mutates_args=())
def unpack(spikes: Tensor, arrives: Tensor) -> Tensor:
    """Spikes as float32, with the gradient of their link."""
    return spikes.float()


@unpack.register_fake
def _(spikes: Tensor, arrives: Tensor) -> Tensor:
    return torch.empty(spikes.shape, device=spikes.device)


unpack.register_autograd(lambda ctx, grad: (None, grad))
