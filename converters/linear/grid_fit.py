"""Scaling of a layer onto the hardware's grids: one factor for weights, bias and threshold.

Inputs are float weights, bias and threshold; the result is a `GridFit`. If all three are multiplied by one factor, the
spikes stay the same, so the factor is free. Some factor may put all numbers on their grids, so that nothing is lost:
average pooling and weights that were quantised before are like that. Otherwise rounding loses least with the largest
factor in range.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bootstrap_core.fixed_point import BIAS_MANT_MAX, BIAS_MANT_MIN, MANT, WEIGHT_INT_MAX, WEIGHT_INT_MIN, WEIGHT_STEP
from specs.errors import UnsupportedError
from specs.fields import VTH_MANT_MAX, threshold_mant

TOLERANCE, NOISE = 1e-3, 4e-6
"""Largest distance of a number that counts as on the grid: in grid steps, and relative to the largest number.

Both bounds hold. Numbers from float32 files are off by less. The second excludes numbers that would all round to 0.
"""

LARGEST_DIVISOR = 8
"""Largest divisor of a factor above `most`: it leaves 16 of the 128 levels of a weight of either sign."""
WHOLE_FACTORS = range(1, 65)
POWERS = range(-12, 13)


@dataclass(frozen=True)
class GridFit:
    """Layer scaled into the hardware's ranges.

    Attributes:
        factor: factor on weights, bias and threshold. Spikes do not depend on it; logits are proportional to it.
        weight: scaled weights, float64; rounded only if all were on their grid already, but for noise.
        bias: scaled bias in units of an input of 1, or None.
        threshold: scaled threshold on its grid, in units of an input of 1, or None.
        weight_error: largest rounding error of a weight, relative to the largest weight.
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

    The factor is the first of these that exists:

    1. the whole number or power of two closest to 1 that puts weights, bias and threshold on their grids;
    2. the largest whole number or power of two that puts weights and bias on their grids;
    3. the largest that the ranges allow, with which rounding loses least.

    Args:
        weight: any shape; its grid is multiples of 2/64 in [-256, 254]/64.
        bias: any shape, on a grid of 1/(64 levels) with 13 bits, or None.
        threshold: truncated to 1/(64 levels), at most 17 bits; None for a readout, which never fires.
        levels: largest value of a graded input; 1 for spikes.
        most: largest factor in case 3, so that states do not overflow; but weights keep at least 5 bits.

    Raises `UnsupportedError` if the threshold is below 1/64 with the weights in range, or all weights round to 0.

    >>> fit = fit_to_grid(torch.tensor([0.25, -0.5]) / 9, None, 1 / 9)
    >>> fit.factor, fit.weight.tolist(), fit.threshold, fit.weight_error
    (9.0, [0.25, -0.5], 1.0, 0.0)
    """
    weight, bias = weight.double(), None if bias is None else bias.double()
    largest = _largest_factor(weight, bias, threshold, levels)
    smallest = 0.0 if threshold is None else 1 / (MANT * threshold)
    if largest < smallest * (1 - 1e-9):
        raise UnsupportedError(
            f"weights or biases are too large relative to the threshold of {threshold:.4g}: scaled into the hardware's "
            f"range, it would be {largest * (threshold or 0):.2g}; it must be at least 1/64"
        )
    factor, exact = _choose_factor(weight, bias, threshold, levels, smallest, largest)
    if not exact:
        factor = max(min(factor, most), factor / LARGEST_DIVISOR, smallest)
    scaled, scaled_bias = weight * factor, None if bias is None else bias * factor
    if exact:
        scaled = torch.round(scaled / WEIGHT_STEP) * WEIGHT_STEP
    steps = torch.round(scaled / WEIGHT_STEP).clamp(WEIGHT_INT_MIN, WEIGHT_INT_MAX)
    peak = scaled.abs().max().item() if scaled.numel() else 0.0
    if peak and not bool(steps.any()):
        beside = "the bias" if threshold is None else f"the threshold of {threshold:.4g}, or the bias"
        raise UnsupportedError(f"weights are too small relative to {beside}: all would round to 0")
    error = (steps * WEIGHT_STEP - scaled).abs().max().item() / peak if peak else 0.0
    on_grid = None if threshold is None else _threshold(_mantissa(threshold * factor, levels), levels)
    return GridFit(factor, scaled, scaled_bias, on_grid, error)


def _largest_factor(weight: Tensor, bias: Tensor | None, threshold: float | None, levels: int) -> float:
    """Return the largest factor that keeps all numbers in range; infinite for a layer of zeros."""
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
    """Return a factor between the bounds, and whether it puts weights and bias on their grids."""
    wanted = {float(n) for n in WHOLE_FACTORS} | {2.0**n for n in POWERS}
    slack = 1 + 1e-6  # for float32 noise at the end of a range
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
    """Return whether all numbers are whole, within the tolerance; the first 256 decide most cases."""
    flat = multiples.flatten()
    if not flat.numel():
        return True
    tolerance = min(TOLERANCE, NOISE * flat.abs().max().item())
    return all(bool(((part - part.round()).abs() <= tolerance).all()) for part in (flat[:256], flat))


def _mantissa(threshold: float, levels: int) -> int:
    """Return the mantissa of a threshold: truncated, but rounded if it is within noise of a whole number."""
    mant = MANT * threshold * levels
    return min(round(mant) if abs(mant - round(mant)) < TOLERANCE else math.trunc(mant), VTH_MANT_MAX)


def _threshold(mant: int, levels: int) -> float:
    """Return the threshold that has this mantissa in a spec."""
    threshold = max(mant / MANT / levels, 1 / MANT)
    while threshold_mant(threshold, levels) < mant:
        threshold = math.nextafter(threshold, math.inf)
    return threshold
