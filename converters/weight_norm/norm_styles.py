"""Weight norm of one weight: the names of its tensors in three styles, and its arithmetic as in torch.

A weight with weight norm is `w = g * v / |v|`; the norm is taken over all axes but one, or over all axes (Salimans and
Kingma 2016; torch.nn.utils.weight_norm).
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from specs.files.limits import STATE_DICT_DEPTH

WHOLE = -1
"""Value of `dim` for one norm over all axes; torch uses it internally for `dim=None`."""

COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes that torch._weight_norm supports."""

PIECE = 2**21
"""Number of elements that are compared at a time."""
Keys = tuple[str, ...]
"""Path of an entry in nested mappings; empty for the whole."""

NOT_A_MODEL = re.compile(
    r"(?<![a-z])(?:optim|optimi[sz]ers?|sched|(?:lr)?schedulers?|(?:grad)?scalers?|rng)(?!(?-i:[a-z]))|_extra_state",
    re.IGNORECASE,
)
"""Keys of a checkpoint with the tensors of optimizers and the like, which are not the state dict of a model."""


class Style(StrEnum):
    """Style in which a weight is stored."""

    PLAIN = "plain"
    LEGACY = "legacy"
    PARAMETRIZED = "parametrized"


def names_of(base: str, style: Style) -> tuple[str, ...]:
    """Return the names of a weight's tensors: the weight itself, or magnitude g and direction v.

    >>> names_of("conv.weight", Style.LEGACY)
    ('conv.weight_g', 'conv.weight_v')
    >>> names_of("conv.weight", Style.PARAMETRIZED)
    ('conv.parametrizations.weight.original0', 'conv.parametrizations.weight.original1')
    """
    if style is Style.LEGACY:
        return f"{base}_g", f"{base}_v"
    if style is Style.PARAMETRIZED:
        module, dot, name = base.rpartition(".")
        return tuple(f"{module}{dot}parametrizations.{name}.original{i}" for i in (0, 1))
    return (base,)


def multiply_out(values: Sequence[Tensor], dim: int | None) -> Tensor:
    """Return the plain weight of (g, v), bit for bit as torch's module computes it; a plain weight is returned as is.

    Rows where v and g are zero become zero; torch returns NaN.
    """
    if len(values) == 1 or dim is None:
        return values[-1]
    g, v = values
    if not v.numel():  # torch's kernel divides by the number of rows, which kills the process
        return v
    dtype = torch.promote_types(g.dtype, v.dtype)
    weight = torch._weight_norm(v.to(dtype), g.to(dtype), dim).to(v.dtype)
    return weight if all_finite(weight) else weight.masked_fill(zero_rows(v, dim) & (g == 0), 0)


def split(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g and v of a plain weight; multiplied out, they equal it within one rounding of the dtype.

    v is the weight, except in rows with a norm of 0: there v is ones if the row is zero, and the weight at a larger
    scale if only the squares of the row underflow to zero.
    """
    g = _norm(weight, dim)
    if not weight.numel() or not bool((g == 0).any()):
        return g, weight
    largest = _largest(weight, dim)
    # A power of two, so that dividing by it is exact.
    scale = (largest.double() / torch.frexp(largest.double()).mantissa).to(weight.dtype)
    direction = torch.where(largest == 0, torch.ones_like(weight), weight / scale)
    vanished = g == 0
    v = torch.where(vanished.reshape(scale.shape), direction, weight)
    return torch.where(vanished, _norm(v, dim) * torch.where(largest == 0, 0, scale).reshape(g.shape), g), v


def kept_axis(g: Tensor, v: Tensor) -> int | None:
    """Return the axis that the norm keeps, by the shapes of g and v, or `WHOLE`; None if they are not a weight norm."""
    if not (g.is_floating_point() and v.is_floating_point() and v.ndim and v.layout is g.layout is torch.strided):
        return None
    fitting = (axis for axis in range(v.ndim) if g.shape == magnitude_shape(v.shape, axis))
    return next(fitting, WHOLE if g.shape in ((), (1,)) else None)


def magnitude_shape(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """Return the shape of g for a v of the given shape."""
    return () if dim == WHOLE else tuple(n if axis == dim else 1 for axis, n in enumerate(shape))


def zero_rows(v: Tensor, dim: int) -> Tensor:
    """Return a mask of the rows where v is zero along all axes of the norm; it broadcasts with g."""
    return _largest(v, dim) == 0


def has_no_direction(v: Tensor) -> bool:
    """Return whether v `[channels, ...]` has a channel of zeros, for which weight norm divides by zero."""
    return v.dim() > 1 and v.numel() > 0 and bool(zero_rows(v.float(), 0).any())


def parts(tensor: Tensor) -> Sequence[Tensor]:
    """Return a tensor in flat parts, for operations that would need several times its memory."""
    pieces: Sequence[Tensor] = tensor.reshape(-1).split(PIECE)
    return pieces


def all_finite(tensor: Tensor) -> bool:
    """Return whether a tensor of real numbers has neither NaN nor infinity."""
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:  # torch does not compute in 8 bits
        tensor = tensor.float()
    return not tensor.numel() or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))


def _largest(weight: Tensor, dim: int) -> Tensor:
    """Return the largest absolute value along the axes of the norm."""
    axes = [axis for axis in range(weight.ndim) if axis != dim]
    return torch.linalg.vector_norm(weight, torch.inf, axes, keepdim=True) if axes else weight.abs()


def _norm(weight: Tensor, dim: int) -> Tensor:
    if not weight.numel():
        return weight.new_zeros(magnitude_shape(weight.shape, dim))
    if dim in (0, weight.ndim - 1) and weight.dtype in (torch.float32, torch.float64):
        # Sum in the order of the forward pass, so that g / |v| is exactly 1.
        ones = weight.new_ones(magnitude_shape(weight.shape, dim))
        return torch._weight_norm_interface(weight.contiguous(), ones, dim)[1]
    return torch.norm_except_dim(weight, 2, dim)


def holds_tensors(value: object) -> bool:
    """Return whether a value is a mapping with a tensor among its entries."""
    return isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())


def find_state_dicts(checkpoint: object) -> list[Keys]:
    """Return the paths of the innermost mappings of tensors, without those of optimizers and the like.

    >>> import torch
    >>> state = {"w": torch.ones(1)}
    >>> find_state_dicts({"epoch": 3, "generator": state, "optimizer": {"state": state}})
    [('generator',)]
    """
    return _find(checkpoint, (), set())


def _find(value: object, keys: Keys, seen: set[int]) -> list[Keys]:
    inside: list[Keys] = []
    if isinstance(value, Mapping) and len(keys) < STATE_DICT_DEPTH and id(value) not in seen:
        seen.add(id(value))  # A mapping may hold itself, or another one many times.
        for name, entry in value.items():
            if isinstance(name, str) and not NOT_A_MODEL.search(name):
                inside += _find(entry, (*keys, name), seen)
    return inside or ([keys] if holds_tensors(value) else [])


def replace_at(checkpoint: Any, keys: Keys, new: Any) -> Any:
    """Return a checkpoint with `new` at a path; mappings on the way are copied, all other entries are the same."""
    if not keys:
        return new
    first, rest = keys[0], keys[1:]
    return {name: replace_at(value, rest, new) if name == first else value for name, value in checkpoint.items()}
