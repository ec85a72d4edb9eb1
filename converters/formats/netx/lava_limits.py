"""Limits of Lava: layers that its netx loads with other integers than the file holds, and how a file runs there.

Source: lava-dl 0.6.0 and lava-nc 0.10.0. `tests/benchmarks/check_netx_corners.py` runs networks at these limits there.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np

from converters.chip.form import ChipForm, ChipLayer, Numbers, problems_by_place
from converters.linear.even_padding import evened, unevened
from specs.layers.block import AverageSpec, ConvSpec, Norm
from specs.layers.input import Encoding
from specs.layers.layer import Layer
from specs.network import NetworkSpec
from specs.shapes import Window

GEOMETRY_MAX = 127
"""Largest number of groups, kernel side, stride, padding and dilation: lava/proc/conv/models.py has them as int8."""

SIGMA_DELTA_RUN = (
    "sigma-delta neurons have no reset: in Lava, run each recording from rest, without reset_interval, and send its "
    "frames to in_layer.neuron.a_in; an output of values is sigma, in units of 1/2^18"
)
SIGMA_DELTA_LATE = (
    "delay_shift is false, but in Lava each layer receives messages one step later: only with delay_shift: true are "
    "the messages the same there"
)


class LavaWarning(UserWarning):
    """Warning of `write_netx`: no run of the file in Lava gives the spikes or messages of the network."""


def limit_problems(file: ChipForm) -> list[str]:
    """Return what Lava would load with other integers or not at all, each with its layers and what to do."""
    return problems_by_place("layer", map(_problems, file.layers))


def _problems(layer: ChipLayer) -> Iterator[str]:
    if layer.recurrent is not None and layer.weight is not None:
        yield from _problems(replace(layer.with_own(weight=np.hstack([layer.weight, layer.recurrent])), recurrent=None))
        return
    if layer.window is not None:
        for name, value in asdict(layer.window).items():
            if np.max(value) > GEOMETRY_MAX:
                remedy = "write the file again with zoo convert" if name == "groups" else "use a smaller one"
                yield f"{name} {np.max(value)} (Lava holds at most {GEOMETRY_MAX}: {remedy})"
    if layer.kind != "dense" or layer.weight is None:
        return
    lowest, highest = -int(layer.weight.min()), int(layer.weight.max())
    if lowest == highest == 0:
        yield "all weights are 0 (Lava cannot load such a dense layer: remove the block, or train the network further)"
    elif highest <= 0 and lowest & (lowest - 1) == 0:
        # netx/utils.py scales the lowest weight to -256, which proc/dense/models.py clips to -255 and truncates.
        yield (
            f"no weight is positive, and the lowest mantissa is {-lowest} (Lava changes weights of such a dense layer "
            "if the lowest is minus a power of two: train the network further, or change one weight)"
        )


def enlarge_kernel(layer: ChipLayer) -> ChipLayer:
    """Return a convolution with the same padding on opposite sides, by zeros in the kernel."""
    window = layer.window
    if window is None or layer.weight is None or len(window.padding) == 2:
        return layer
    weight, dilation, padding = evened(layer.weight, window.dilation, window.padding)
    kernel = weight.shape[2], weight.shape[3]
    return layer.with_own(weight=weight, window=replace(window, kernel=kernel, dilation=dilation, padding=padding))


def restore_kernel(layer: ChipLayer, spec: ConvSpec) -> ChipLayer:
    """Invert `enlarge_kernel` for a convolution of this spec; return the layer itself if it is not such a one."""
    if layer.window is None or layer.weight is None or len(spec.padding) == 2:
        return layer
    weight = unevened(layer.weight, spec)
    enlarged = None if weight is None else enlarge_kernel(layer.with_own(weight=weight, window=Window.of(spec)))
    if weight is None or enlarged is None or enlarged.window != layer.window:
        return layer
    return layer.with_own(weight=weight, window=Window.of(spec))


def merge_groups(layer: ChipLayer) -> ChipLayer:
    """Return a convolution with as few groups as Lava holds, by zeros between the groups that become one."""
    if layer.window is None or layer.weight is None or layer.window.groups <= GEOMETRY_MAX:
        return layer
    groups = layer.window.groups
    fewer = max(n for n in range(1, GEOMETRY_MAX + 1) if groups % n == 0)
    weight = _merged(layer.weight, groups, fewer)
    return layer.with_own(weight=weight, window=replace(layer.window, groups=fewer))


def split_groups(layer: ChipLayer, groups: int) -> ChipLayer:
    """Invert `merge_groups` into `groups` groups; return the layer itself if it is not such a merged one."""
    if layer.window is None or layer.weight is None or layer.window.groups < 1:
        return layer
    fewer, (outputs, inputs, *kernel) = layer.window.groups, layer.weight.shape
    factor = groups // fewer
    if factor < 2 or groups % fewer or outputs % groups or inputs % factor:
        return layer
    parts = layer.weight.reshape(groups, outputs // groups, factor, inputs // factor, *kernel)
    numbers = np.arange(groups)
    weight = parts[numbers, :, numbers % factor].reshape(outputs, inputs // factor, *kernel)
    if not np.array_equal(_merged(weight, groups, fewer), layer.weight):
        return layer
    return layer.with_own(weight=weight, window=replace(layer.window, groups=groups))


def _merged(weight: Numbers, groups: int, fewer: int) -> Numbers:
    """Return the kernels `[out, in / groups, height, width]` of a convolution for `fewer` groups."""
    (outputs, inputs, *kernel), factor = weight.shape, groups // fewer
    merged = np.zeros((groups, outputs // groups, factor, inputs, *kernel), weight.dtype)
    numbers = np.arange(groups)
    merged[numbers, :, numbers % factor] = weight.reshape(groups, outputs // groups, inputs, *kernel)
    return merged.reshape(outputs, factor * inputs, *kernel)


def how_lava_runs(spec: NetworkSpec) -> list[str]:
    """Return notes on how a network runs in Lava, if `reset_interval=T` does not give the same spikes there."""
    return [note for note, _ in _notes(spec)]


def unlike_lava(spec: NetworkSpec) -> list[str]:
    """Return those notes of `how_lava_runs` that say why no run in Lava gives the same spikes or messages."""
    return [note for note, same in _notes(spec) if not same]


def _notes(spec: NetworkSpec) -> Iterator[tuple[str, bool]]:
    """Yield notes on how a network runs in Lava, and whether it gives the same spikes there if one heeds the note."""
    shifts = {spec.delay_shift_of(layer) for layer in spec.layers if layer.has_neurons}
    if spec.gives_values:
        yield SIGMA_DELTA_RUN, True
        if shifts != {True}:
            yield SIGMA_DELTA_LATE, False
        return
    steps, graded = spec.time_steps, spec.input.encoding is not Encoding.SPIKE
    biased = [_has_bias(layer) for layer in spec.blocks]
    if any(layer.extras for layer in spec.blocks):
        beyond = "recurrent synapses and delays carry spikes beyond a reset: in Lava, "
        if True in shifts:
            late = f"{beyond}layer k acts k steps late (the same spikes only without biases behind the first layer)"
            yield late, not any(biased[graded:])
        else:
            alone = (
                f"{beyond}run each input in a simulation of its own, with reset_interval={steps} (the same spikes "
                "unless a bias alone makes neurons spike before their input arrives)"
            )
            yield alone, True
    if any(isinstance(layer, AverageSpec) for layer in spec.blocks):
        without = (
            "Lava has no average layer: load the file there without it, and average the spikes of the layer before it"
        )
        yield without, True
    if shifts == {True}:
        but = " (the same spikes only without biases)" if graded else ""
        from_rest = (
            f"delay_shift is true, as in lava-dl: in Lava, run each image from rest for {steps + graded} steps, without"
            f" reset_interval{but}; with reset_interval={steps} the spikes differ"
        )
        yield from_rest, not (graded and any(biased))
    elif len(shifts) > 1:
        differs = (
            "delay_shift differs between blocks: no run in Lava gives the same spikes; give all blocks the same value"
        )
        yield differs, False
    if not graded and not spec.input.exact_input:
        rounds = (
            "input.exact_input is false, as in lava-dl: the chip truncates the input's currents to 1/64, so its spikes "
            "may differ; a network with exact_input: true runs there with the same spikes"
        )
        yield rounds, False


def _has_bias(layer: Layer) -> bool:
    """Return whether a bias drives neurons of a block; a norm that subtracts the mean makes one."""
    subtracts = getattr(layer, "norm", Norm.NONE) in {Norm.MEAN_ONLY, Norm.BATCH}
    return layer.has_neurons and (subtracts or getattr(layer, "bias", False))
