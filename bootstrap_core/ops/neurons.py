"""CUBA neurons on a weighted input. Definition: `functional.cuba`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE, MANT, STATE, STATE_PER_MANT, WEIGHT_STEP
from bootstrap_core.functional.cuba import CubaOutput, StateLimits, cuba, cuba_states, per_channel
from bootstrap_core.functional.surrogate import surrogate_shape
from bootstrap_core.ops.library import Backward, Layer, Neurons, Prepared, call, pad_lanes, pointer, runs_native
from bootstrap_core.ops.spikes import Spikes, empty_link, n_words
from specs.fields import Shape

__all__ = ["MOST_REACHED", "LayerRun", "NeuronConstants", "by_image", "by_step", "fire", "map_of"]

PARTS = 16
"""Groups of images; gradients are summed within each and then over all, so that sums do not depend on threads."""
MOST_REACHED = 1 << 30
"""Magnitude from which a 32-bit state could wrap around; such a run is repeated by the definition."""


@dataclass(frozen=True)
class NeuronConstants(Prepared):
    """Constants of a layer's neurons.

    Attributes:
        current_decay, voltage_decay: `[1]` or `[C]`, on the grid of 1/4096.
        threshold: on the grid of 1/64.
        tau_grad, scale_grad: width and height of the surrogate gradient.
        subtract: whether a spike subtracts the threshold instead of setting the voltage to zero.
        shift: whether spikes leave a step later.
        bias: `[C]`, on the grid of 1/64, or None.
        recurrent: weights from the neurons to themselves, `[C, C]`, on the grid of 2/64, or None.
    """

    current_decay: Tensor
    voltage_decay: Tensor
    threshold: float
    tau_grad: float = 1.0
    scale_grad: float = 1.0
    subtract: bool = False
    shift: bool = False
    bias: Tensor | None = None
    recurrent: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tensors that may need a gradient: both decays and the bias."""
        return self.current_decay, self.voltage_decay, self.bias

    @property
    def learns_decays(self) -> bool:
        """True if the decays need a gradient."""
        return torch.is_grad_enabled() and (self.current_decay.requires_grad or self.voltage_decay.requires_grad)

    @cached_property
    def keeps(self) -> tuple[Tensor, Tensor]:
        """Part of current and of voltage that is left after a step, in units of 1/4096, float32 `[1]` or `[C]`."""
        return (1 - self.current_decay.detach()) * DECAY_ONE, (1 - self.voltage_decay.detach()) * DECAY_ONE

    @cached_property
    def forgets(self) -> bool:
        """True if the current of all neurons is lost at each step: a current decay of 1."""
        return not bool(self.keeps[0].any())

    @cached_property
    def input_tables(self) -> dict[tuple[int, int, int], Any]:
        """Cache of `input_neurons`: the table for the currents of the last batch."""
        return {}

    @cached_property
    def own(self) -> Tensor:
        """Recurrent weights by source, in weight steps, int32 `[C, C]` with its rows padded, for the native library."""
        assert self.recurrent is not None
        weight = (self.recurrent.detach().t() / WEIGHT_STEP).round().int()
        return torch.stack([pad_lanes(row, len(weight)) for row in weight])

    @cached_property
    def _record(self) -> dict[int, tuple[Neurons, list[Tensor]]]:
        return {}

    def record(self, channels: int) -> Neurons:
        """Return the constants as the native library takes them."""
        if channels not in self._record:
            bias = torch.zeros(1, dtype=torch.float32) if self.bias is None else self.bias.detach() * MANT
            numbers = *(keep.round().int() for keep in self.keeps), bias.round().int() * STATE_PER_MANT
            arrays = [pad_lanes(x, channels) for x in numbers]
            threshold = min(round(self.threshold * STATE), (1 << 31) - 1)
            record = Neurons(*map(pointer, arrays), threshold, self.forgets, self.subtract, self.shift)
            self._record[channels] = record, arrays  # the record points into the arrays
        return self._record[channels][0]

    def define(self, z: Tensor) -> CubaOutput:
        """Run the definition on a weighted input `[T, N, C, ...]`, without the shift."""
        return cuba(
            z,
            current_decay=self.current_decay,
            voltage_decay=self.voltage_decay,
            threshold=self.threshold,
            bias=self.bias,
            tau_grad=self.tau_grad,
            scale_grad=self.scale_grad,
            subtract=self.subtract,
            recurrent=self.recurrent,
        )

    def states(
        self, steps: Iterable[Tensor], n_axes: int, limits: StateLimits | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield current, voltage and spikes of each step, without the shift; see `cuba_states`.

        Args:
            steps: weighted input of each step, `[N, C, ...]`.
            n_axes: number of its axes.
            limits: limits of the states, or None.
        """
        decays = per_channel(self.current_decay, n_axes), per_channel(self.voltage_decay, n_axes)
        bias = None if self.bias is None else per_channel(self.bias, n_axes)
        return cuba_states(steps, *decays, bias, self.threshold, self.subtract, self.recurrent, limits)

    def fire_definition(self, z: Tensor) -> Spikes:
        """Return the spikes of the definition, a step later if `shift` is set."""
        out = self.define(z)
        spikes = Spikes.of(out.spikes, reached=_reached(out))
        return spikes.delayed() if self.shift else spikes


def _reached(out: CubaOutput) -> int:
    """Return the largest magnitude of a state, in units of 1/4096."""
    if not out.voltage.numel() or torch.compiler.is_compiling():
        return 0
    bounds = [bound.double() * STATE for x in (out.current, out.voltage) for bound in torch.aminmax(x)]
    largest = max(abs(float(bound)) for bound in bounds)
    return int(min(largest, float(1 << 62))) if largest == largest else 0


def fire(z: Tensor, neurons: NeuronConstants, steps: int) -> Spikes:
    """Run neurons from rest on a weighted input; return their spikes.

    Args:
        z: `[T, N, C]` or `[T, N, C, H, W]` in float units, truncated to 1/4096; `[1, N, ...]` stands for all steps.
        neurons: constants of the neurons.
        steps: T.
    """
    constant = len(z) == 1 or z.stride(0) == 0
    native = runs_native(z) and z.numel() > 0 and _is_single(z)
    if neurons.recurrent is not None:
        z = z.expand(steps, *z.shape[1:]) if constant else z
        learns = any(x is not None and x.requires_grad for x in (z, *neurons.tensors, neurons.recurrent))
        if native and not (torch.is_grad_enabled() and learns) and bool(neurons.recurrent.isfinite().all()):
            run = LayerRun(neurons, (z.shape[1], 1, 1, z.shape[2]), steps)
            given, layer = by_image(z).float(), run.layer(trains=False)
            run.reached = call("snn_recurrent", layer, neurons.record(z.shape[2]), pointer(given), pointer(neurons.own))
            if run.reached < MOST_REACHED:
                return run.spikes(tuple(z.shape[2:]), None)
        return neurons.fire_definition(z)
    if native:
        given = z[:1] if constant else z
        run = LayerRun(neurons, (given.shape[1], *map_of(given.shape[2:])), steps)
        link = _Fire.apply(given, *neurons.tensors, run)  # type: ignore[no-untyped-call]
        if run.reached < MOST_REACHED:
            return run.spikes(tuple(given.shape[2:]), link)
    return neurons.fire_definition(z.expand(steps, *z.shape[1:]) if constant else z)


def _is_single(z: Tensor) -> bool:
    """Return whether float32 holds these values exactly."""
    return z.dtype == torch.float32 or torch.equal(z.detach().float().to(z.dtype), z.detach())


def map_of(shape: Shape | torch.Size) -> tuple[int, int, int]:
    """Return height, width and channels of a shape `(C,)` or `(C, H, W)`."""
    channels, height, width = (*shape, 1, 1)[:3]
    return height, width, channels


def by_image(x: Tensor) -> Tensor:
    """Return `[T, N, C]` or `[T, N, C, H, W]` as contiguous `[N, T, C]` or `[N, T, H, W, C]`, for native functions."""
    last = x if x.dim() == 3 else x.movedim(2, -1)
    return last.transpose(0, 1).contiguous()


def by_step(x: Tensor) -> Tensor:
    """Invert `by_image`, as a view."""
    last = x.transpose(0, 1)
    return last if x.dim() == 3 else last.movedim(-1, 2)


class LayerRun:
    """One run of a layer in the native library: its output arrays, and its backward pass.

    Args:
        neurons: constants of the neurons.
        size: images, height, width, channels.
        steps: T.
        weighed: whether to sum the weighted input over time.
    """

    def __init__(
        self, neurons: NeuronConstants, size: tuple[int, int, int, int], steps: int, *, weighed: bool = False
    ) -> None:
        self.neurons, self.size, self.steps = neurons, size, steps
        images, *lying = size
        self.decays = neurons.learns_decays
        self.words = torch.empty(n_words(steps), images, *lying, dtype=torch.int32)
        self.voltage: Tensor | None = None
        self.current: Tensor | None = None
        self.totals = torch.zeros(size, dtype=torch.int32) if weighed else None
        self.reached = 0

    def layer(self, *, trains: bool) -> Layer:
        """Return the output arrays for the native library; with `trains`, also those that the backward pass reads."""
        images, *lying = self.size
        if trains:
            self.voltage = torch.empty(images, self.steps, *lying, dtype=torch.int32)
            self.current = torch.empty_like(self.voltage) if self.decays else None
        outputs = self.words, self.voltage, self.current, self.totals
        return Layer(images, self.steps, *lying, *map(pointer, outputs))

    def spikes(self, shape: Shape, link: Tensor | None) -> Spikes:
        """Return the spikes of the run; `shape` is that of the population, `(C,)` or `(C, H, W)`."""
        words = self.words.view(*self.words.shape[:2], shape[0]) if len(shape) == 1 else self.words
        return Spikes(self.steps, shape, words=words, link=link, reached=self.reached)

    def backward(
        self, grad: Tensor, voltage: Tensor, current: Tensor | None, dtype: torch.dtype, *, constant: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of the weighted input, of both decays and of the bias.

        Args:
            grad: gradient of the spikes, `[T, N, ...]`.
            voltage, current: states of the run, before reset.
            dtype: type of the gradient of the weighted input.
            constant: whether the weighted input was the same at all steps; its gradient is then `[N, H, W, C]` and
                not `[N, T, H, W, C]`.
        """
        images, height, width, channels = self.size
        neurons, parts = self.neurons, min(images, PARTS)
        n = height * width * channels
        alike = grad.stride(0) == 0 and self.steps > 1
        given = by_image(grad[:1] if alike else grad)
        given = given if given.dtype == torch.bfloat16 else given.float()
        lying = height, width, channels
        out = torch.empty((images, *lying) if constant else (images, self.steps, *lying), dtype=dtype)
        padded = pad_lanes(torch.zeros(1, dtype=torch.float32), channels)
        bias = None if neurons.bias is None else torch.zeros(parts, len(padded), dtype=torch.float32)
        decays = torch.zeros(parts, 2, len(padded), dtype=torch.float32) if self.decays else None
        keeps = [pad_lanes(keep / DECAY_ONE, channels) for keep in neurons.keeps]
        tau, peak = surrogate_shape(neurons.threshold, neurons.tau_grad, neurons.scale_grad)
        record = Backward(
            images, parts, self.steps, height * width, channels,
            pointer(voltage), pointer(current), pointer(given),
            n if alike else self.steps * n, 0 if alike else n,
            pointer(out), pointer(bias), pointer(decays), *map(pointer, keeps),
            tau, peak, round(neurons.threshold * STATE), neurons.subtract, neurons.shift,
            constant, given.dtype == torch.bfloat16, dtype == torch.bfloat16,
        )  # fmt: skip
        call("snn_neurons_backward", record)
        of_decays = [None, None] if decays is None else list(decays.sum(0)[:, :channels])
        return (
            out,
            *(None if x is None else _to_shape(x, like) for x, like in zip(of_decays, neurons.tensors, strict=False)),
            None if bias is None else bias.sum(0)[:channels],
        )  # type: ignore[return-value]


def _to_shape(grad: Tensor, like: Tensor | None) -> Tensor:
    """Return a gradient by channel in the shape of `like`: `[C]`, or summed to `[1]`."""
    assert like is not None
    return grad if len(like) > 1 else grad.sum().reshape(1)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, current_decay: Tensor, voltage_decay: Tensor, bias: Tensor | None, run: LayerRun
    ) -> Tensor:
        trains = any(ctx.needs_input_grad)
        given, constant = by_image(z).float(), len(z) == 1
        layer = run.layer(trains=trains)
        run.reached = call("snn_neurons", layer, run.neurons.record(run.size[3]), pointer(given), constant)
        ctx.run, ctx.constant = run, constant
        ctx.save_for_backward(run.voltage, run.current)
        ctx.set_materialize_grads(False)
        return empty_link((run.steps, *z.shape[1:]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if grad is None:
            return (None,) * 5
        out, *others = ctx.run.backward(grad, *ctx.saved_tensors, torch.float32, constant=ctx.constant)
        if out.shape[-3:-1] == (1, 1) and grad.dim() == 3:
            out = out.flatten(-3)
        of_z = by_step(out[:, None] if ctx.constant else out)
        return of_z, *others, None
