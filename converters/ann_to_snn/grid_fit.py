"""Float weights onto the hardware's grids: scaled, with bias and threshold, by the factor that loses least."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bootstrap_core.fixed_point import (
    BIAS_MANT_MAX,
    BIAS_MANT_MIN,
    MANT,
    WEIGHT_INT_MAX,
    WEIGHT_INT_MIN,
    WEIGHT_STEP,
)
from specs.errors import UnsupportedError
from specs.fields import VTH_MANT_MAX, threshold_mant

__all__ = ["GridFit", "fit_to_grid"]

TOLERANCE, NOISE = 1e-3, 4e-6
"""Closer to the grid than the first, in its steps, and the second, in parts of the largest, a number counts as on it.

Float32 files are off by less; and numbers so small that the grid would make zeros of them are not on it.
"""

KEPT_LEVELS = 8
"""Of the 128 levels that a weight has either way, one in so many at least is left."""
WHOLE_FACTORS = range(1, 65)
POWERS = range(-12, 13)


@dataclass(frozen=True)
class GridFit:
    """A layer in the hardware's ranges.

    Attributes:
        factor: what weights, bias and threshold were multiplied by. Spikes do not depend on it; logits grow with it.
        weight: float64; rounded to its grid only where it lay on it.
        bias: in units of an input of 1, or None.
        threshold: on its grid, in units of an input of 1, or None.
        weight_error: largest rounding of a weight, as a part of the largest weight.
    """

    factor: float
    weight: Tensor
    bias: Tensor | None
    threshold: float | None
    weight_error: float


def fit_to_grid(
    weight: Tensor, bias: Tensor | None, threshold: float | None, *, levels: int = 1, most: float = math.inf
) -> GridFit:
    """Scale a layer into the hardware's ranges.

    What lies on the grids already stays as it is. Else the factor nearest to 1, a whole number or a power of two, that
    puts everything on them; else the largest of those with which at least weights and bias are on them; else the
    largest that the ranges allow, with which rounding loses least.

    Args:
        weight: of any shape; the grid is multiples of 2/64 in [-256, 254]/64.
        bias: of any shape, on a grid of 1/(64 levels) with 13 bits, or None.
        threshold: truncated to 1/(64 levels), at most 17 bits; None for a readout that never fires.
        levels: largest value of a graded input.
        most: the largest factor where rounding cannot be helped, so that states have room; but weights keep 5 bits.

    Raises:
        UnsupportedError: the weights are so large beside the threshold that in range it falls below 1/64, or so small
            that they all become 0.

    >>> fit = fit_to_grid(torch.tensor([0.25, -0.5]) / 9, None, 1 / 9)
    >>> fit.factor, fit.weight.tolist(), fit.threshold, fit.weight_error
    (9.0, [0.25, -0.5], 1.0, 0.0)
    """
    weight, bias = weight.double(), None if bias is None else bias.double()
    largest = _largest_factor(weight, bias, threshold, levels)
    smallest = 0.0 if threshold is None else 1 / (MANT * threshold)
    if largest < smallest * (1 - 1e-9):
        raise UnsupportedError(
            f"weights or biases too large beside the threshold of {threshold:.4g}: in the hardware's range it would "
            f"be {largest * (threshold or 0):.2g}, below 1/64"
        )
    factor, exact = _choose_factor(weight, bias, threshold, levels, smallest, largest)
    if not exact:
        factor = max(min(factor, most), factor / KEPT_LEVELS, smallest)
    scaled, scaled_bias = weight * factor, None if bias is None else bias * factor
    if exact:
        scaled = torch.round(scaled / WEIGHT_STEP) * WEIGHT_STEP
    steps = torch.round(scaled / WEIGHT_STEP).clamp(WEIGHT_INT_MIN, WEIGHT_INT_MAX)
    peak = scaled.abs().max().item() if scaled.numel() else 0.0
    if peak and not bool(steps.any()):
        beside = "the bias" if threshold is None else f"the threshold of {threshold:.4g}, or the bias"
        raise UnsupportedError(f"weights too small beside {beside}: all become 0")
    error = (steps * WEIGHT_STEP - scaled).abs().max().item() / peak if peak else 0.0
    mant = None if threshold is None else _mantissa(threshold * factor, levels)
    return GridFit(factor, scaled, scaled_bias, None if mant is None else _threshold(mant, levels), error)


def _largest_factor(weight: Tensor, bias: Tensor | None, threshold: float | None, levels: int) -> float:
    """The largest factor that keeps everything in range; infinite for a layer of zeros."""
    bounds = [math.inf]
    for x, low, high in (
        (weight, WEIGHT_INT_MIN * WEIGHT_STEP, WEIGHT_INT_MAX * WEIGHT_STEP),
        (bias, BIAS_MANT_MIN / MANT / levels, BIAS_MANT_MAX / MANT / levels),
    ):
        if x is None or not x.numel():
            continue
        least, most = x.min().item(), x.max().item()
        bounds += [high / most] if most > 0 else []
        bounds += [low / least] if least < 0 else []
    if threshold is not None:
        bounds.append(VTH_MANT_MAX / MANT / levels / threshold)
    return min(bounds)


def _choose_factor(
    weight: Tensor, bias: Tensor | None, threshold: float | None, levels: int, smallest: float, largest: float
) -> tuple[float, bool]:
    """A factor between the bounds, and whether it puts weights and bias on their grids."""
    wanted = {float(n) for n in WHOLE_FACTORS} | {2.0**n for n in POWERS}
    slack = 1 + 1e-6  # float32 noise at the end of a range
    allowed = [factor for factor in wanted if smallest / slack <= factor <= largest * slack]
    allowed.sort(key=lambda factor: (abs(math.log2(factor)), factor))
    exact = [
        factor
        for factor in allowed
        if _on_grid(weight * (factor / WEIGHT_STEP)) and (bias is None or _on_grid(bias * (factor * MANT * levels)))
    ]
    for factor in exact:
        if threshold is None or _on_grid(torch.tensor(threshold * factor * MANT * levels, dtype=torch.float64)):
            return factor, True
    if exact:
        return max(exact), True
    return (largest if math.isfinite(largest) else 1.0), False


def _on_grid(multiples: Tensor) -> bool:
    """Whether all are whole numbers; the first few decide most cases."""
    flat = multiples.flatten()
    if not flat.numel():
        return True
    tolerance = min(TOLERANCE, NOISE * flat.abs().max().item())
    return all(bool(((part - part.round()).abs() <= tolerance).all()) for part in (flat[:256], flat))


def _mantissa(threshold: float, levels: int) -> int:
    """Truncated, but for what lies just under a whole number."""
    mant = MANT * threshold * levels
    return min(round(mant) if abs(mant - round(mant)) < TOLERANCE else math.trunc(mant), VTH_MANT_MAX)


def _threshold(mant: int, levels: int) -> float:
    """The threshold of a spec that has this mantissa."""
    threshold = max(mant / MANT / levels, 1 / MANT)
    while threshold_mant(threshold, levels) < mant:
        threshold = math.nextafter(threshold, math.inf)
    return threshold
