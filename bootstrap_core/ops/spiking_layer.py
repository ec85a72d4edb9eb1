"""Synapses and the neurons behind them, in one pass over the spikes.

Definition: `Connection.weigh` of each source, added up, then `functional.cuba`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.ops.library import Layer, Synapse, call, runs_native
from bootstrap_core.ops.neurons import MOST_REACHED, LayerRun, NeuronConstants, OneStep, learns, map_of
from bootstrap_core.ops.precision import link_dtype
from bootstrap_core.ops.spikes import Spikes, empty_link
from bootstrap_core.ops.synapses import Connection

WEIGHT_UNIT = torch.tensor(WEIGHT_STEP, dtype=torch.float32, device="cpu")
"""Step of the weight grid. A product with a tensor takes half the time of one with a number."""


@dataclass(frozen=True)
class Operands:
    """Synapses, one connection for each source, and neurons of a layer. Kept between calls, they are prepared once."""

    connections: tuple[Connection, ...]
    neurons: NeuronConstants


@dataclass(frozen=True)
class Fired:
    """Result of `spiking_layer`.

    Attributes:
        weighed: weighted input of the neurons summed over time, `[N, C, ...]`, float32; None unless asked for.
    """

    spikes: Spikes
    weighed: Tensor | None = None


def spiking_layer(sources: Sequence[Spikes], operands: Operands, *, weighed: bool = False) -> Fired:
    """Run synapses and the neurons behind them, from their first step, on spikes of 0 and 1."""
    if _fits(sources, operands):
        packed, tensors = list[Spikes](), [*operands.neurons.tensors]
        for connection, spikes in zip(operands.connections, sources, strict=True):
            packed.append(connection.laid(spikes))
            tensors.append(connection.weight)
        for spikes in packed:
            tensors += _differentiable(spikes)
        shape = operands.connections[0].out_shape(packed[0].map_shape)
        run = LayerRun(operands.neurons, (packed[0].n, *map_of(shape)), packed[0].steps, weighed=weighed)
        link = None
        if learns(tensors):
            link = _SpikingLayer.apply(operands, packed, run, *tensors)  # type: ignore[no-untyped-call]
        else:
            run.reached = call("snn_layer", *_arguments(operands, packed, run.layer(trains=False)))
        if run.reached < MOST_REACHED:
            total = None if run.totals is None else _in_units(run.totals, len(shape))
            return Fired(run.spikes(shape, link), total)
    z = reduce(add, (each.weigh(x.tensor()) for each, x in zip(operands.connections, sources, strict=True)))
    return Fired(operands.neurons.fire_definition(z), z.detach().sum(0) if weighed else None)


def _fits(sources: Sequence[Spikes], operands: Operands) -> bool:
    """Return whether the native library can run this layer: weights in 8 bits, and sums over all inputs in 32."""
    own = operands.neurons.recurrent
    inputs = 0 if own is None else len(own)
    for connection, spikes in zip(operands.connections, sources, strict=True):
        if not (runs_native(spikes.held) and spikes.n and connection.is_finite):
            return False
        inputs += connection.weight[0].numel()
    return inputs < 1 << 16 and operands.neurons.is_finite


def one_step_of_layer(sources: Sequence[Spikes], operands: Operands, *, weighed: bool = False) -> OneStep | None:
    """Return a layer that runs one step at a time on the words of `sources`; None if it does not run natively.

    Args:
        sources: spikes of one step, held as words, which are read at each step.
        operands, weighed: as in `spiking_layer`; the weighted input is added to the totals of the run.
    """
    if any(x.words is None for x in sources) or not _fits(sources, operands):
        return None
    packed = [each.laid(spikes) for each, spikes in zip(operands.connections, sources, strict=True)]
    if any(one.words is not other.words for one, other in zip(packed, sources, strict=True)):
        return None  # they are laid out anew for each step
    shape = operands.connections[0].out_shape(packed[0].map_shape)
    run = LayerRun(operands.neurons, (packed[0].n, *map_of(shape)), 1, weighed=weighed, goes_on=True)
    _, *arguments = _arguments(operands, packed, run.layer(trains=False))
    return OneStep(run, shape, "snn_layer", *arguments, reads=(packed, operands))


def _in_units(totals: Tensor, n_axes: int) -> Tensor:
    """Return sums `[N, H, W, C]`, in steps of the weight grid, as `[N, C]` or `[N, C, H, W]` in float units."""
    weighed = totals * WEIGHT_UNIT
    return weighed.flatten(1) if n_axes == 1 else weighed.movedim(-1, 1)


def _differentiable(spikes: Spikes) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the tensors that the gradient of spikes goes to: weight and bias of the input, or else the link."""
    steady = spikes.steady
    if steady is not None:
        return steady.weight, steady.bias, None
    return None, None, spikes.link


def _arguments(operands: Operands, sources: list[Spikes], layer: Layer) -> tuple[Any, ...]:
    records = (Synapse * len(sources))()
    for i, (connection, spikes) in enumerate(zip(operands.connections, sources, strict=True)):
        records[i] = connection.record(spikes)
    return layer, operands.neurons.record(layer.channels), records, len(sources)


class _SpikingLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operands: Operands, sources: list[Spikes], run: LayerRun, *tensors: Tensor | None) -> Tensor:
        run.reached = call("snn_layer", *_arguments(operands, sources, run.layer(trains=True)))
        ctx.layer, ctx.n = (operands, sources, run), len(sources)
        first = operands.connections[0]
        ctx.dtype = first.gradient_dtype(sources[0])
        saved = [run.voltage, run.current]
        for connection, spikes in zip(operands.connections, sources, strict=True):
            saved += connection.weight, spikes.words
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        shape = first.out_shape(sources[0].map_shape)
        return empty_link((run.steps, run.size[0], *shape), link_dtype(run.voltage))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad,), n = grads, ctx.n
        if grad is None:
            return (None,) * int(7 + 4 * n)
        operands: Operands
        sources: list[Spikes]
        run: LayerRun
        operands, sources, run = ctx.layer
        voltage, current, *_ = ctx.saved_tensors  # raises an error if one was changed in place
        of_z, *of_neurons = run.backward(grad, voltage, current, ctx.dtype)
        needs = ctx.needs_input_grad
        of_weights, of_sources = list[Tensor | None](), list[Tensor | None]()
        for i, (connection, spikes) in enumerate(zip(operands.connections, sources, strict=True)):
            of_weight, of_input, of_link = needs[7 + i], any(needs[7 + n + 3 * i :][:2]), needs[7 + n + 3 * i + 2]
            found = connection.weight_gradient(of_z, spikes) if of_weight else None
            back = connection.source_gradient(of_z, spikes) if of_link else None
            numbers = connection.input_gradients(of_z, spikes) if of_input else (None, None)
            of_weights.append(found)
            of_sources += [*numbers, back]
        return None, None, None, *of_neurons, *of_weights, *of_sources
