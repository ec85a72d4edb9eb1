"""Weighted input of spikes, step by step. Definition: `Connection.weigh`."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.functional.delays import delayed_input, lags_of, weight_at
from bootstrap_core.ops.library import Layer, Synapse, call, pointer, runs_native
from bootstrap_core.ops.neurons import by_step, map_of
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.synapses import Connection


def weigh(spikes: Spikes, connection: Connection) -> Tensor:
    """Return the weighted input `[T, N, O]` or `[T, N, O, H, W]`; `[1, N, ...]` if all steps are the same.

    It is float32, or for graded messages float64, in which their sums are exact.
    """
    if spikes.is_constant:
        return connection.weigh(spikes.tensor()[:1])
    if spikes.words is not None and spikes.n and runs_native(spikes.words) and connection.is_finite:
        spikes = connection.laid(spikes)
        return _Weigh.apply(connection, spikes, connection.weight, spikes.link)  # type: ignore[no-any-return, no-untyped-call]
    return connection.weigh(spikes.tensor())


def part_by_delay(connection: Connection, delay: Tensor) -> list[tuple[Tensor, Connection]]:
    """Return connections, each with the delays of its outputs, `[O]`; together they are the given synapses.

    The sum of their weighted inputs has the gradient of the delays, see `functional.delays`. Returned delays are int64,
    unless they require a gradient.

    Args:
        delay: whole steps, `[O]` for all inputs of a neuron or channel, or `[O, I]` for each weight of dense synapses.
    """
    if delay.dim() == 1:
        return [(delay if delay.requires_grad else delay.long(), connection)]
    return [
        (torch.full((len(delay),), lag), replace(connection, weight=weight_at(lag, connection.weight, delay)))
        for lag in lags_of(delay)
    ]


def weigh_delayed(spikes: Spikes, parts: list[tuple[Tensor, Connection]]) -> Tensor:
    """Return the weighted input of synapses with delays, `[T, N, O]` or `[T, N, O, H, W]`; see `weigh`.

    Args:
        parts: the synapses, see `part_by_delay`.
    """
    weighed = ((delay, weigh(spikes, connection)) for delay, connection in parts)
    return reduce(add, (delayed_input(z.expand(spikes.steps, *z.shape[1:]), delay) for delay, z in weighed))


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, connection: Connection, spikes: Spikes, weight: Tensor, link: Tensor | None) -> Tensor:
        record = connection.record(spikes)
        shape = connection.out_shape(spikes.map_shape)
        height, width, channels = map_of(shape)
        lying = (channels,) if len(shape) == 1 else (height, width, channels)
        out = torch.empty(spikes.n, spikes.steps, *lying, dtype=torch.float32)
        layer = Layer(spikes.n, spikes.steps, height, width, channels)
        call("snn_weigh", layer, (Synapse * 1)(record), 1, WEIGHT_STEP, pointer(out))
        ctx.connection, ctx.spikes, ctx.size = connection, spikes, (height, width, channels)
        ctx.dtype = connection.gradient_dtype(spikes)
        ctx.save_for_backward(weight, spikes.words)
        return by_step(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises an error if one was changed in place
        connection, spikes = ctx.connection, ctx.spikes
        last = grads[0] if grads[0].dim() == 3 else grads[0].movedim(2, -1)
        grad = last.transpose(0, 1).contiguous().view(spikes.n, spikes.steps, *ctx.size)
        grad = grad.to(ctx.dtype)
        of_weight = connection.weight_gradient(grad, spikes) if ctx.needs_input_grad[2] else None
        of_link = connection.source_gradient(grad, spikes) if ctx.needs_input_grad[3] else None
        return None, None, of_weight, of_link
