"""Describe netx layers, and list the differences of two networks, for people and for programs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from bootstrap_core.fixed_point import DECAY_ONE, MANT, MANT_PER_WEIGHT
from converters.chip.form import INTEGRATOR, ChipForm, ChipLayer, ChipNeurons, Numbers
from specs.fields import VTH_MANT_MAX

BARS = " ▁▂▃▄▅▆▇█"
MOST_BINS = 16
"""Most bins of a histogram, which ranges from the smallest to the largest weight in bins of equally many levels."""


@dataclass(frozen=True)
class LayerDifference:
    """Difference between a layer of two networks.

    Attributes:
        layer: index of the layer; None for the network as a whole.
        what: name of the quantity, such as `weight`.
        n, n_differing: number of values compared, and of those that differ; 0 if it is not an array.
        largest: largest absolute difference of two values, in mantissas.
    """

    layer: int | None
    what: str
    text: str
    n: int = 0
    n_differing: int = 0
    largest: int = 0

    @property
    def place(self) -> str:
        """Name of the layer, such as `layer 2`; empty for the network as a whole."""
        return "" if self.layer is None else f"layer {self.layer}"


def describe_layer(layer: ChipLayer) -> dict[str, Any]:
    """Return a layer as JSON values: mantissas, and beside them their values in float units."""
    facts: dict[str, Any] = {"kind": layer.kind, "shape": list(layer.shape)}
    if layer.window is not None:
        facts["geometry"] = dict(vars(layer.window))
    for name in ("weight", "recurrent", "delay", "bias"):
        mants = getattr(layer, name)
        if mants is not None:
            facts[name] = _numbers(mants)
    if layer.neurons is not None:
        neuron = layer.neurons
        facts["neuron"] = {
            "type": neuron.kind,
            "vThMant": neuron.threshold_mant,
            "threshold": neuron.threshold_mant / MANT,
        }
        if neuron.sigma_output:
            facts["neuron"]["sigma_output"] = True
        for key, name in (("iDecay", "current_decay"), ("vDecay", "voltage_decay")):
            mants = getattr(neuron, name)
            if mants is None:
                continue
            facts["neuron"] |= {key: mants.tolist(), name: (mants / DECAY_ONE).tolist()}
    if layer.problems:
        facts["problems"] = list(layer.problems)
    return facts


def _numbers(mants: Numbers) -> dict[str, Any]:
    values, counts = np.unique(mants, return_counts=True)
    return {
        "shape": list(mants.shape),
        "n": int(mants.size),
        "min": int(values[0]),
        "max": int(values[-1]),
        "zeros": int(counts[values == 0].sum()),
        "levels": len(values),
        "histogram": histogram(mants).tolist(),
    }


LAYER_COLUMNS = ["layer", "shape", "kernel", "weights", "range", "levels", "histogram", "bias"]
NEURON_COLUMNS = ["neurons of layers", "type", "threshold", "current decay", "voltage decay"]


def layer_row(index: int, layer: ChipLayer) -> list[str]:
    """Return one row of `LAYER_COLUMNS`; of a recurrent layer, with its recurrent weights."""
    weight, bias, kind, cells = layer.weight, layer.bias, layer.kind, [""] * 4
    if weight is not None and layer.recurrent is not None:
        weight, kind = np.concatenate([weight.ravel(), layer.recurrent.ravel()]), f"{kind}, recurrent"
    if layer.delay is not None:
        kind += f", delays up to {layer.delay.max()}"
    if weight is not None:
        levels = str(len(np.unique(weight)))
        cells = [f"{weight.size:,}", f"{weight.min()}..{weight.max()}", levels, _sparkline(weight)]
    bias_range = "" if bias is None else f"{bias.min()}..{bias.max()}"
    return [f"{index} {kind}", "x".join(map(str, layer.shape)), geometry_text(layer), *cells, bias_range]


def neuron_rows(file: ChipForm) -> list[list[str]]:
    """Return one row of `NEURON_COLUMNS` for all layers with equal neurons: mantissas, and their values."""
    layers_with: dict[tuple[str, ...], list[str]] = {}
    for i, layer in enumerate(file.layers):
        if layer.neurons is not None:
            neuron = layer.neurons
            decays = map(decay_text, (neuron.current_decay, neuron.voltage_decay))
            key = _neuron_text(neuron), threshold_text(neuron), *decays
            layers_with.setdefault(key, []).append(str(i))
    return [[", ".join(layers), *key] for key, layers in layers_with.items()]


def _neuron_text(neuron: ChipNeurons) -> str:
    if not neuron.is_sigma_delta:
        return neuron.kind
    return "sigma alone: the output is a value" if neuron.sigma_output else "sigma-delta"


def geometry_text(layer: ChipLayer) -> str:
    """Return kernel, stride, padding, dilation and groups of a convolution, without defaults, such as `3x3 p1x1`."""
    if layer.window is None:
        return ""
    geometry = layer.window
    defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    parts = ["x".join(map(str, geometry.kernel))]
    parts += [
        f"{name[0]}{'x'.join(map(str, getattr(geometry, name)))}"
        for name, default in defaults.items()
        if getattr(geometry, name) != default
    ]
    return " ".join(parts + ([f"g{geometry.groups}"] if geometry.groups > 1 else []))


def threshold_text(neuron: ChipNeurons) -> str:
    """Return the mantissa of the threshold and its value, such as `64 = 1`."""
    return f"{neuron.threshold_mant} = {neuron.threshold_mant / MANT:g}"


def decay_text(mants: Numbers | None) -> str:
    """Return the mantissa of a decay and its value, or the range of the mantissas of all channels; `-` without one."""
    if mants is None:
        return "-"
    if len(mants) > 1:
        return f"{mants.min()}..{mants.max()}, for each channel"
    return f"{mants[0]} = {mants[0] / DECAY_ONE:.4g}"


def _sparkline(weight: Numbers) -> str:
    """Draw the histogram with block characters. Heights are the square roots of counts, so that tails show."""
    heights = np.sqrt(histogram(weight))
    return "".join(BARS[int(np.ceil(8 * height / heights.max()))] for height in heights)


def histogram(mants: Numbers) -> Numbers:
    """Count the numbers in each of at most `MOST_BINS` bins, from the smallest number to the largest."""
    levels = (mants - mants.min()) // MANT_PER_WEIGHT
    counts: Numbers = np.bincount(levels.ravel() // (levels.max() // MOST_BINS + 1))
    return counts


def differences(a: ChipForm, b: ChipForm) -> Iterator[LayerDifference]:
    """Yield all differences of two networks, layer by layer. Thresholds of two readouts that never fire count as equal.

    Time steps are compared only if both files contain them: those of other programs may not.

    >>> list(differences(ChipForm((), 4), ChipForm((), None, "{}")))
    []
    """
    if None not in (a.time_steps, b.time_steps) and a.time_steps != b.time_steps:
        yield LayerDifference(None, "time steps", f"{a.time_steps} and {b.time_steps}")
    for i, (left, right) in enumerate(zip_longest(a.layers, b.layers)):
        if left is None or right is None:
            yield LayerDifference(
                i, "layer", f"only in the {'second' if left is None else 'first'}: {(left or right).kind}"
            )
        elif left.kind != right.kind:
            yield LayerDifference(i, "type", f"{left.kind} and {right.kind}")
        else:
            yield from _layer_differences(i, left, right)


def _layer_differences(i: int, a: ChipLayer, b: ChipLayer) -> Iterator[LayerDifference]:
    if _sides(a) != _sides(b):
        yield LayerDifference(i, "shape", f"{list(a.shape)} and {list(b.shape)}")
    if a.window != b.window:
        yield LayerDifference(i, "geometry", f"{geometry_text(a)} and {geometry_text(b)}")
    for what, name in (("weight",) * 2, ("bias",) * 2, ("recurrent weight", "recurrent"), ("delay",) * 2):
        yield from _number_differences(i, what, getattr(a, name), getattr(b, name))
    if a.neurons is None and b.neurons is None:
        return
    left, right = a.neurons or INTEGRATOR, b.neurons or INTEGRATOR
    if (left.is_sigma_delta, left.sigma_output) != (right.is_sigma_delta, right.sigma_output):
        yield LayerDifference(i, "neurons", f"{_neuron_text(left)} and {_neuron_text(right)}")
    silent = min(left.threshold_mant, right.threshold_mant) >= VTH_MANT_MAX
    if left.threshold_mant != right.threshold_mant and not silent:
        yield LayerDifference(i, "threshold", f"{threshold_text(left)} and {threshold_text(right)}")
    yield from _number_differences(i, "iDecay", left.current_decay, right.current_decay)
    yield from _number_differences(i, "vDecay", left.voltage_decay, right.voltage_decay)


def _sides(layer: ChipLayer) -> list[int]:
    """Return the shape without sides of 1: old files have [256, 1, 1], and that of a flatten in either order."""
    return [side for side in layer.shape if side > 1]


def _number_differences(i: int, what: str, a: Numbers | None, b: Numbers | None) -> Iterator[LayerDifference]:
    if a is None or b is None:
        if (a is None) != (b is None):
            yield LayerDifference(i, what, f"only in the {'second' if a is None else 'first'}")
    elif a.shape != b.shape and min(a.size, b.size) > 1:
        yield LayerDifference(i, what, f"{list(a.shape)} and {list(b.shape)} numbers")
    else:
        apart = np.abs(a - b)
        n_differing, largest = int(np.count_nonzero(apart)), int(apart.max(initial=0))
        if n_differing:
            text = (
                f"{n_differing:,} of {apart.size:,} differ ({100 * n_differing / apart.size:.1f} %), by up to {largest}"
            )
            yield LayerDifference(i, what, text, apart.size, n_differing, largest)
