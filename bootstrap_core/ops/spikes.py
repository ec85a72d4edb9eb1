"""Spikes of a population over time, as blocks pass them on, in training and in inference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from specs.fields import Shape

WORD_STEPS = 32


def n_words(steps: int) -> int:
    """Return the number of words for a number of time steps."""
    return -(-steps // WORD_STEPS)


@dataclass(frozen=True)
class SteadyInput:
    """Origin of the spikes of input neurons: one current for each pixel, the same at each step.

    With it, the next layer computes the gradients of the input's weight and bias directly, without those of the spikes.

    Attributes:
        currents: `[N, inputs]`, int32, indices of rows of `slopes`; inputs are ordered as in `Spikes.words`.
        slopes: `[currents, T]`, float32, derivative of each step's spike with respect to the current.
        mean, std: mean and deviation of the pixels; the current is `weight * (pixel - mean) / std + bias`.
    """

    currents: Tensor
    pixels: Tensor
    slopes: Tensor
    weight: Tensor
    bias: Tensor
    mean: float
    std: float

    def gradients(self, by_pixel: float, by_one: float) -> tuple[Tensor, Tensor]:
        """Return the gradients of `weight` and `bias`, from the sums of gradient * pixel, and of the gradient alone."""
        of_weight = (by_pixel - self.mean * by_one) / self.std
        return self.weight.new_full((1,), of_weight), self.bias.new_full((1,), by_one)


@dataclass(frozen=True)
class Spikes:
    """Spikes `[T, N, C]` or `[T, N, C, H, W]`, held as words or as numbers.

    Words are int32, `[ceil(T / 32), N, C]` or `[..., N, H, W, C]`: bit t of word k is the spike of step 32 k + t. Torch
    has no gradients of integers: `link`, a float tensor of the spikes' shape that takes no memory, carries them.
    `values` are spikes as numbers; they may be graded, and have a stride of 0 over time if all steps are the same.
    Messages of sigma-delta neurons have a `unit`: they are changes, which add up to an activation.

    Attributes:
        words, link, values: see above; either `words` or `values` is given.
        is_flat: whether a map `[C, H, W]` is read as `[C * H * W]`; its layout in memory stays that of the map.
        reached: largest magnitude of the neurons' states, in units of 1/4096. From the native library it is a larger
            number of as many bits, which is enough to check limits that are powers of two.
        unit: activation that a message of 1 stands for; None for spikes.
    """

    steps: int
    map_shape: Shape
    words: Tensor | None = None
    link: Tensor | None = None
    values: Tensor | None = None
    is_flat: bool = False
    steady: SteadyInput | None = None
    reached: int = 0
    unit: float | None = None

    @classmethod
    def of(cls, values: Tensor, *, reached: int = 0, unit: float | None = None) -> Spikes:
        """Return spikes, or graded messages, given as numbers `[T, N, ...]`."""
        return cls(len(values), tuple(values.shape[2:]), values=values, reached=reached, unit=unit)

    @property
    def held(self) -> Tensor:
        """Words or values, whichever is given."""
        held = self.words if self.values is None else self.values
        assert held is not None
        return held

    @property
    def n(self) -> int:
        """Number of images."""
        return self.held.shape[1]

    @property
    def is_constant(self) -> bool:
        """True if all steps are the same, and only one is held."""
        return self.values is not None and self.values.stride(0) == 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(T, N, ...)` as a tensor."""
        return (self.steps, self.n, *((prod(self.map_shape),) if self.is_flat else self.map_shape))

    @property
    def device(self) -> torch.device:
        return self.held.device

    def tensor(self) -> Tensor:
        """Return the spikes as numbers `[T, N, ...]`, float32 unless graded; differentiable."""
        if self.values is not None:
            x = self.values
        else:
            assert self.words is not None
            x = _Unpack.apply(self.words, self.steps, self.link)  # type: ignore[no-untyped-call]
        return x.flatten(2) if self.is_flat else x

    def packed(self) -> Spikes:
        """Return the same spikes held as words. They must be 0 and 1."""
        if self.values is None:
            return self
        link = self.values.float() if self.values.requires_grad else None
        return replace(self, words=pack(self.values.detach()), link=link, values=None)

    def flatten(self) -> Spikes:
        """Return maps flattened to `[C * H * W]`; nothing is copied."""
        return self if len(self.map_shape) == 1 else replace(self, is_flat=True)

    def in_rows(self) -> Spikes:
        """Return the same spikes, with flattened maps laid out in memory as `[C * H * W]`."""
        if not self.is_flat:
            return self
        flat = replace(self, map_shape=(prod(self.map_shape),), is_flat=False, steady=None)
        if self.words is None:
            return replace(flat, values=self.tensor())
        words = self.words.movedim(-1, 2).flatten(2).contiguous()
        return replace(flat, words=words, link=None if self.link is None else self.link.flatten(2))

    def masked(self, kept: Tensor) -> Spikes:
        """Return the spikes of the neurons in `kept`, bool `[N, ...]`; the others are silent at all steps."""
        if self.words is None:
            assert self.values is not None
            return replace(self, values=self.values * kept.view(self.n, *self.map_shape), steady=None)
        maps = kept.view(self.n, *self.map_shape)
        words = self.words * (maps if maps.dim() == 2 else maps.movedim(1, -1))
        link = None if self.link is None else _Masked.apply(self.link, maps)  # type: ignore[no-untyped-call]
        return replace(self, words=words.contiguous(), link=link, steady=None)

    def first(self, steps: int) -> Spikes:
        """Return the first steps, without a gradient."""
        if self.values is not None:
            return replace(self, steps=steps, values=self.values[:steps].detach(), steady=None)
        assert self.words is not None
        words = self.words[: n_words(steps)].clone()
        if steps % WORD_STEPS:
            words[-1] &= (1 << steps % WORD_STEPS) - 1
        return replace(self, steps=steps, words=words, link=None, steady=None)

    def delayed(self) -> Spikes:
        """Return the spikes a step later: the first step is silent, and the spikes of the last step are lost."""
        x = self.tensor()
        return Spikes.of(torch.cat([torch.zeros_like(x[:1]), x[:-1]]), reached=self.reached, unit=self.unit)


def unpack(words: Tensor, steps: int) -> Tensor:
    """Return words as spikes `[T, N, C, ...]`, float32."""
    bits = torch.arange(WORD_STEPS, dtype=torch.int32).view(1, -1, *[1] * (words.dim() - 1))
    spikes = (words[:, None] >> bits & 1).flatten(0, 1)[:steps].float()
    return spikes.movedim(-1, 2)


def pack(values: Tensor) -> Tensor:
    """Return spikes `[T, N, C, ...]` as words, see `Spikes`."""
    spikes = values.movedim(2, -1).to(torch.int32)
    words = spikes.new_zeros(n_words(len(values)), *spikes.shape[1:])
    for t, step in enumerate(spikes):
        words[t // WORD_STEPS] |= step << t % WORD_STEPS
    return words


def empty_link(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a float tensor of any shape that takes no memory; `dtype` is that of its gradient."""
    return torch.zeros((), dtype=dtype).expand(shape)


class _Unpack(torch.autograd.Function):
    """Convert words to numbers; the gradient of these goes to the link."""

    @staticmethod
    def forward(ctx: Any, words: Tensor, steps: int, link: Tensor | None) -> Tensor:
        return unpack(words, steps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, grads[0]


class _Masked(torch.autograd.Function):
    """Pass a link on; its gradient is that of the kept neurons only."""

    @staticmethod
    def forward(ctx: Any, link: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        return link.view_as(link)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.saved_tensors[0], None
