"""Read netx files into the chip form: current and old forms, and layers that our blocks cannot represent."""

import json
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from bootstrap_core.fixed_point import (
    BIAS_MANT_MAX,
    BIAS_MANT_MIN,
    DECAY_ONE,
    MANT_PER_WEIGHT,
    WEIGHT_INT_MAX,
    WEIGHT_INT_MIN,
)
from converters.chip.form import CUBA, SIGMA_DELTA, ChipForm, ChipLayer, ChipNeurons, ChipSynapses, problems_by_place
from converters.formats.hdf5.hdf5_node import Hdf5Node, IntArray, open_hdf5
from specs.errors import IntegrityError, SpecError
from specs.fields import MAX_DELAY, Shape
from specs.files.limits import NETWORK_BLOCKS
from specs.io import spec_from_document
from specs.network import NetworkSpec
from specs.shapes import Window

SPEC_ATTRIBUTE = "snnzoo_spec"
"""Root attribute with the spec as JSON: netx has no place for names, normalisation and surrogate gradients."""

WEIGHT_GRID = range(WEIGHT_INT_MIN * MANT_PER_WEIGHT, WEIGHT_INT_MAX * MANT_PER_WEIGHT + 1, MANT_PER_WEIGHT)
FARTHEST = 1 << 40
"""Bound to which numbers are clipped before they become integers; it is off every grid."""
BIAS_GRID = range(BIAS_MANT_MIN, BIAS_MANT_MAX + 1)

CUBA_NAMES = (CUBA, "LOIHI")
"""Names of CUBA neurons in files: the current one, which is written, and the old one."""
ACTIVATION = "relu"
"""Activation of sigma-delta neurons."""

MOST_SIDES = 8
"""Most sides of a layer's shape: channels, rows and columns, and sides of 1 that some files add."""

RECURRENT = {"dense_rec": "weight_rec", "recurrent": "recWeight"}
"""Types of recurrent layers, that of netx and that of older files, and their datasets of recurrent weights."""
FOREIGN_KINDS = {
    "dense_comp": "complex synapses",
    "concat": "a branch",
    "pool": "a pool, which netx cannot load either",
    "convT": "a transposed convolution",
    "unpool": "an unpooling",
}
FOREIGN_DATASETS = {"weight/imag": "complex weights"}


def load_netx(path: Path) -> ChipForm:
    """Read a netx file, in its current or an old form, with neurons of any type."""
    with open_hdf5(path) as root:
        layers = root.child("layer")
        if layers is None:
            raise IntegrityError(f"{path}: an HDF5 file, but not a netx file: it has no group 'layer'")
        names = sorted(layers.names, key=lambda name: (len(name), name))
        if not 0 < len(names) <= NETWORK_BLOCKS or names != [str(i) for i in range(len(names))]:
            raise IntegrityError(f"{path}: layers must be numbered from 0, got {', '.join(names[:8]) or 'none'}")
        found = tuple(_read_layer(layers, name) for name in names)
        return ChipForm(
            _without_mixed_neurons(found),
            time_steps=root.integer("simulation/tSample"),
            spec=root.attribute(SPEC_ATTRIBUTE),
        )


def file_problems(file: ChipForm) -> list[str]:
    """Return the features of a file that our blocks do not have, each with the layers that have it."""
    return problems_by_place("layer", (layer.problems for layer in file.layers))


def carried_spec(file: ChipForm, path: Path) -> NetworkSpec:
    """Return the spec that snnzoo wrote into a file. Raises `IntegrityError` if it is damaged or missing."""
    try:
        return spec_from_document(json.loads(file.spec or ""), origin="spec")
    except (ValueError, RecursionError, SpecError) as error:
        raise IntegrityError(f"{path}: attribute {SPEC_ATTRIBUTE}: {error}") from None


def _without_mixed_neurons(layers: tuple[ChipLayer, ...]) -> tuple[ChipLayer, ...]:
    """Return the layers with a problem for each whose neurons are of another kind than those of the input."""
    sends_messages = ChipForm(layers).is_sigma_delta

    def problems(layer: ChipLayer) -> Iterator[str]:
        has_messages = layer.neurons is not None and layer.neurons.is_sigma_delta
        if has_messages and not sends_messages:
            yield "sigma-delta neurons behind another input"
        if sends_messages and layer.kind != "flatten" and not has_messages:
            yield "other neurons in a network of sigma-delta neurons"

    return tuple(replace(layer, problems=(*layer.problems, *problems(layer))) for layer in layers)


def _read_layer(layers: Hdf5Node, name: str) -> ChipLayer:
    node = layers.child(name)
    kind = node.text("type") if node is not None else ""
    if node is None or not kind:
        raise IntegrityError(f"{layers.where}/{name}: the layer has no type")
    problems = [what for dataset, what in FOREIGN_DATASETS.items() if node.find(dataset) is not None]
    recurrent = _mants(node, RECURRENT[kind], WEIGHT_GRID, problems) if kind in RECURRENT else None
    if kind in RECURRENT:
        if recurrent is None:
            raise IntegrityError(f"{node.where}: the recurrent layer has no {RECURRENT[kind]}")
        kind = "dense"
    if kind not in {"input", "flatten", "dense", "conv", "average"}:
        problems.append(FOREIGN_KINDS.get(kind, f"a layer of type {kind[:40]!r}"))
    if kind == "input" and name != "0":
        problems.append("an input layer after other layers")
    weight = _mants(node, "weight", WEIGHT_GRID, problems)
    bias = _mants(node, "bias", WEIGHT_GRID if kind == "input" else BIAS_GRID, problems)  # grids of our blocks
    declared = node.integers("shape")
    if declared is not None and declared.size > MOST_SIDES:
        raise IntegrityError(f"{node.where}: the shape has {declared.size:,} sides; at most {MOST_SIDES} are read")
    shape = tuple(int(side) for side in declared) if declared is not None else ()
    if declared is None and weight is not None:
        shape = (len(weight),)
    if not shape or min(shape) < 1:
        raise IntegrityError(f"{node.where}: expected a shape of sides of at least 1, got {list(shape)}")

    neuron = _read_neuron(node, shape, problems)
    if kind == "input" and neuron is not None and neuron.is_sigma_delta:
        if weight is not None or bias is not None:
            problems.append("a weight or a bias of the input of sigma-delta neurons, which Lava ignores")
    elif neuron is not None and neuron.sigma_output and kind != "dense":
        problems.append(f"a sigma output of a layer of type {kind[:40]}")
    elif kind == "input" and neuron is not None:
        for dataset, mants in (("weight", weight), ("bias", bias)):
            if mants is None and node.find(dataset) is not None and not problems:
                raise IntegrityError(f"{node.where}/{dataset}: is a group, not a dataset")
        weight = None if weight is None else weight.ravel()
        sizes = [1 if each is None else each.size for each in (weight, bias)]
        if sizes != [1, 1]:
            raise IntegrityError(f"{node.where}: expected one weight and one bias, got {sizes[0]} and {sizes[1]}")
    window = None
    if kind == "dense" and weight is not None:
        weight = _matrix(node, weight, prod(shape))
    if kind == "conv" and weight is not None:
        if len(shape) != 3:
            raise IntegrityError(f"{node.where}: expected a shape of channels, rows and columns, got {list(shape)}")
        weight = _kernels(node, weight, shape[0])
        window = _read_window(node, weight)
    if recurrent is not None and recurrent.size != prod(shape) ** 2:
        raise IntegrityError(
            f"{node.where}: recurrent weights of shape {list(recurrent.shape)} for {prod(shape)} outputs"
        )
    delay = _read_delay(node, kind, weight, problems)
    if delay is not None and recurrent is not None:
        problems.append("recurrent synapses with delays")
    if kind in {"dense", "conv"} and weight is None and not problems:
        raise IntegrityError(f"{node.where}: the {kind} layer has no weights")
    if bias is not None and weight is not None and bias.size != len(weight):
        raise IntegrityError(f"{node.where}: {bias.size} biases for {len(weight)} outputs")
    recurrent = None if recurrent is None else recurrent.reshape(prod(shape), -1)
    own = () if weight is None else (ChipSynapses(int(name) - 1, weight, window, delay),)
    return ChipLayer(kind, shape, own, bias, neuron, recurrent, problems=tuple(problems))


def _read_delay(node: Hdf5Node, kind: str, weight: IntArray | None, problems: list[str]) -> IntArray | None:
    """Return delays in steps, `[out]` or `[out, in]`, as Lava reads them; None if there are none."""
    delay = node.array("delay")
    if delay is None or not delay.any():
        return None
    steps: IntArray = np.clip(np.nan_to_num(delay), -FARTHEST, FARTHEST).astype(np.int64)
    if kind != "dense" or weight is None:
        problems.append(f"delays of up to {delay.max():g} steps in a {kind} layer, which Lava ignores")
        return None
    if (steps != delay).any() or steps.min() < 0 or steps.max() > MAX_DELAY:
        problems.append(f"delays that are not whole steps from 0 to {MAX_DELAY}, such as {delay.flat[0]:g}")
        return None
    outputs, inputs = weight.shape
    if steps.size == 1:
        return np.full(outputs, steps.item())
    if steps.ndim == 1 and steps.size == outputs:  # netx asks for the outputs first
        return steps
    if steps.ndim == 1 and steps.size == inputs:
        return np.repeat(steps[None], outputs, axis=0)
    if steps.shape != weight.shape:
        raise IntegrityError(f"{node.where}/delay: delays of shape {list(delay.shape)} for {outputs}x{inputs} weights")
    return steps


def _mants(node: Hdf5Node, name: str, grid: range, problems: list[str]) -> IntArray | None:
    """Return a dataset of mantissas, biases flattened; add a problem if some are off the grid."""
    value = node.array(name)
    if value is None:
        return None
    if value.size == 0:
        raise IntegrityError(f"{node.where}/{name}: holds no numbers")
    near = np.clip(value.astype(np.float64), -FARTHEST, FARTHEST) if value.dtype.kind == "f" else value
    mants: IntArray = np.trunc(near).astype(np.int64)
    off = (mants != value) | (mants < grid.start) | (mants >= grid.stop) | ((mants - grid.start) % grid.step != 0)
    if off.any():
        problems.append(
            f"{np.count_nonzero(off)} of {off.size} {name} mantissas off the grid "
            f"({grid.start} to {grid[-1]} in steps of {grid.step}), such as {value[off].flat[0]:g}"
        )
    flat: IntArray = mants.ravel()
    return flat if name == "bias" else mants


def _matrix(node: Hdf5Node, weight: IntArray, outputs: int) -> IntArray:
    """Return `[out, in]` of a dense layer; files also have `[out, in, 1, 1, 1]`, or a flat row or column."""
    if weight.size == 0 or weight.size % outputs or (weight.ndim > 1 and len(weight) != outputs):
        raise IntegrityError(f"{node.where}: weights of shape {list(weight.shape)} for {outputs} outputs")
    return weight.reshape(outputs, -1)


def _kernels(node: Hdf5Node, weight: IntArray, channels: int) -> IntArray:
    """Return `[out, in / groups, kh, kw]` of a conv layer; some files have a fifth axis, time, of size 1."""
    if weight.ndim == 5 and weight.shape[4] == 1:
        weight = weight[..., 0]
    if weight.ndim != 4 or weight.size == 0 or len(weight) != channels:
        raise IntegrityError(f"{node.where}: kernels of shape {list(weight.shape)} for {channels} channels")
    return weight


def _read_window(node: Hdf5Node, weight: IntArray) -> Window:
    def pair(name: str, default: int) -> tuple[int, int]:
        value = node.integers(name)
        if value is None:
            return default, default
        if value.size not in (1, 2):
            raise IntegrityError(f"{node.where}/{name}: holds {value.size} numbers, not one or two")
        return int(value[0]), int(value[-1])

    groups = node.integer("groups")
    return Window(
        kernel=(weight.shape[2], weight.shape[3]),
        stride=pair("stride", 1),
        padding=pair("padding", 0),
        dilation=pair("dilation", 1),
        groups=1 if groups is None else groups,
    )


def _read_neuron(node: Hdf5Node, shape: Shape, problems: list[str]) -> ChipNeurons | None:
    neuron = node.child("neuron")
    if neuron is None:
        return None
    kind = neuron.text("type")
    if kind == SIGMA_DELTA:
        return _read_sigma_delta(neuron, problems)
    if kind not in CUBA_NAMES:
        problems.append(f"{kind[:40] or 'unnamed'} neurons")
    if any(flag is not None and flag.any() for flag in map(neuron.array, ("gradedSpike", "messageBits"))):
        problems.append("graded spikes")
    for exponent in map(neuron.array, ("wgtExp", "weight_exp")):
        if exponent is not None and exponent.any():
            problems.append(f"a weight exponent of {float(exponent.max()):g}")
    if neuron.integer("refDelay") not in (None, 1):
        problems.append(f"a refractory delay of {neuron.integer('refDelay')} steps")
    threshold = _read_threshold(neuron, problems)
    decays = [neuron.integers(name) for name in ("iDecay", "vDecay")]
    if threshold is None or any(decay is None for decay in decays):
        if kind in CUBA_NAMES:
            raise IntegrityError(f"{neuron.where}: CUBA neurons need vThMant, iDecay and vDecay")
        return ChipNeurons(threshold or 0, kind=kind)
    current_decay, voltage_decay = (_per_channel(neuron, decay, shape) for decay in decays if decay is not None)
    return ChipNeurons(threshold, current_decay, voltage_decay, kind)


def _read_sigma_delta(neuron: Hdf5Node, problems: list[str]) -> ChipNeurons:
    threshold = _read_threshold(neuron, problems)
    if threshold is None:
        raise IntegrityError(f"{neuron.where}: sigma-delta neurons need vThMant")
    activation = neuron.text("activation")
    if activation not in ("", ACTIVATION):
        problems.append(f"the activation {activation[:40]} of sigma-delta neurons (Lava has {ACTIVATION} only)")
    # as Lava reads it: true if it is there at all
    return ChipNeurons(threshold, kind=SIGMA_DELTA, sigma_output="sigma_output" in neuron.names)


def _read_threshold(neuron: Hdf5Node, problems: list[str]) -> int | None:
    thresholds = neuron.integers("vThMant")
    if thresholds is None or not thresholds.size:
        return None
    if len(set(thresholds.tolist())) != 1:
        problems.append("thresholds that differ between neurons")
    return int(thresholds[0])


def _per_channel(neuron: Hdf5Node, decay: IntArray, shape: Shape) -> IntArray:
    if decay.size not in (1, shape[0]) or bool(((decay < 0) | (decay > DECAY_ONE)).any()):
        raise IntegrityError(
            f"{neuron.where}: expected one decay, or one for each of {shape[0]} channels, from 0 to {DECAY_ONE}"
        )
    return decay
