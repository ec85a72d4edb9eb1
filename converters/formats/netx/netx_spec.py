"""Spec of a netx file: the one in the file, or one inferred from its layers."""

import json
from collections import Counter
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from bootstrap_core.fixed_point import DECAY_ONE, MANT
from converters.formats.netx.netx_layers import INTEGRATOR, NetxFile, NetxLayer, NetxNeuron
from converters.formats.netx.netx_reader import SPEC_ATTRIBUTE
from specs.errors import ConversionError, IntegrityError, SpecError, UnsupportedError
from specs.fields import VTH_MANT_MAX, Shape
from specs.io import name_from, spec_from_document
from specs.network import NetworkSpec
from specs.words import counted

__all__ = ["carried_spec", "spec_of_netx"]

FRAME_BITS = 8
"""Bits of frames for a file of sigma-delta neurons, which does not contain them."""
TIME_STEPS = 16
"""T for a file that does not contain it."""


def spec_of_netx(
    file: NetxFile, path: Path, *, time_steps: int | None, input_bits: int | None
) -> tuple[NetworkSpec, list[str]]:
    """Return a spec that fits the layers of the file, and notes on what was assumed.

    The spec has no weight norm and no batch norm, and a bias where the file has one.

    Raises:
        ConversionError: no valid spec describes the file.
        UnsupportedError: no layer has synapses.
        IntegrityError: the spec in the file is damaged.
    """
    notes: list[str] = []
    document = _carried(file, path) if file.spec else _inferred(file, path, input_bits, notes)
    if not (time_steps or file.time_steps):
        notes.append(f"the file does not contain the time steps: T = {TIME_STEPS} is assumed")
    document["time_steps"] = time_steps or file.time_steps or TIME_STEPS
    try:
        return spec_from_document(document, origin=str(path)), notes
    except SpecError as error:
        raise ConversionError(str(error)) from None


def carried_spec(file: NetxFile, path: Path) -> NetworkSpec:
    """Return the spec that snnzoo wrote into a file. Raises `IntegrityError` if it is damaged or missing."""
    try:
        return spec_from_document(json.loads(file.spec or ""), origin="spec")
    except (ValueError, RecursionError, SpecError) as error:
        raise IntegrityError(f"{path}: attribute {SPEC_ATTRIBUTE}: {error}") from None


def _carried(file: NetxFile, path: Path) -> dict[str, Any]:
    document = carried_spec(file, path).model_dump(mode="json")
    synaptic = [block for block in document["blocks"] if block["kind"] not in {"flatten", "average"}]
    for block, layer in zip(synaptic, file.synaptic, strict=False):  # `read_netx` refuses other numbers of layers
        settled = {"weight_norm": False, "norm": "none", "bias": layer.bias is not None}
        block |= {name: value for name, value in settled.items() if name in block}
    return document


def _inferred(file: NetxFile, path: Path, input_bits: int | None, notes: list[str]) -> dict[str, Any]:
    layers = list(file.layers)
    if not file.synaptic:
        raise UnsupportedError(f"{path} has no layer with synapses")
    first = layers.pop(0) if layers[0].kind == "input" else None
    shape = _input_shape(first, layers, notes)
    entering: dict[str, Any] = {"encoding": "spike"}
    levels = 1
    own = None if first is None else first.neuron
    if own is not None and file.is_sigma_delta:
        entering = {"encoding": "frames", "bits": input_bits or FRAME_BITS, "neuron": _neuron(own)}
        if input_bits is None:
            notes.append(
                f"frames are assumed to be integers of {counted(FRAME_BITS, 'bit')} with sign, in units of 1/64: more "
                "bits do not change the results (--input-bits)"
            )
    elif own is None:
        if input_bits is None:
            entering = {"encoding": "events"}
            notes.append(
                "the file has no input neurons: spikes that differ from step to step (events) enter the first synapse; "
                "for still images, give the bits of a pixel (--input-bits)"
            )
        else:
            entering = {"encoding": "graded", "bits": input_bits}
            levels = 2**input_bits - 1
            notes.append(
                f"the file has no input neurons: pixels in 0..1 enter the first synapse as integers of "
                f"{counted(input_bits, 'bit')}"
            )
        if layers[0].kind == "flatten":
            shape = (prod(shape),)
    else:
        entering["neuron"] = _neuron(own)
        if first is not None and first.weight is None:
            notes.append("the input neurons have no weight in the file: 1 is assumed")

    blocks: list[dict[str, Any]] = []
    before = shape
    for layer in layers:
        if len(before) > 1 and (layer.kind == "flatten" or (layer.kind == "dense" and prod(before[1:]) == 1)):
            blocks.append({"kind": "flatten"})
            before = (prod(before),)
        if layer.kind == "average":
            blocks.append({"kind": "average", "features": prod(layer.shape)})
        elif layer.kind != "flatten":
            blocks.append(_block(layer, levels, is_last=layer is file.synaptic[-1]))
            before, levels = layer.shape if layer.kind == "conv" else (prod(layer.shape),), 1
    return {
        "name": name_from(path.stem),
        # with sigma-delta neurons, each layer of Lava receives what the one before sent in the last step
        "delay_shift": file.is_sigma_delta,
        **_with_common_neuron({"shape": list(shape), **entering}, blocks),
    }


def _input_shape(first: NetxLayer | None, layers: list[NetxLayer], notes: list[str]) -> Shape:
    follows = next(layer for layer in layers if layer.weight is not None and layer.kind != "flatten")
    assert follows.weight is not None
    if first is not None:
        shape = first.shape if len(first.shape) != 2 else (1, *first.shape)  # netx leaves out a single channel
        return (prod(shape),) if layers[0].kind == "dense" else shape
    if follows.geometry is None:
        return (follows.weight.shape[1],)
    geometry = follows.geometry
    sides = [
        (follows.shape[1 + axis] - 1) * geometry.stride[axis]
        + geometry.dilation[axis] * (geometry.kernel[axis] - 1)
        + 1
        - 2 * geometry.padding[axis]
        for axis in range(2)
    ]
    shape = (follows.weight.shape[1] * geometry.groups, *sides)
    notes.append(
        f"the file has no input layer: inputs of {list(shape)} are assumed, the smallest for its first convolution"
    )
    return shape


def _block(layer: NetxLayer, levels: int, *, is_last: bool) -> dict[str, Any]:
    assert layer.weight is not None
    neuron = layer.neuron or INTEGRATOR
    block: dict[str, Any] = {"kind": layer.kind, "bias": layer.bias is not None, "neuron": _neuron(neuron, levels)}
    if layer.geometry is not None:
        return block | {"channels": len(layer.weight), **asdict(layer.geometry)}
    if layer.recurrent is not None:
        block["recurrent"] = True
    if layer.delay is not None:
        per = "neuron" if layer.delay.ndim == 1 else "synapse"
        block["delays"] = {"per": per, "longest": int(layer.delay.max())}
    if is_last and layer.recurrent is None and layer.delay is None and neuron.threshold_mant >= VTH_MANT_MAX:
        del block["neuron"]["threshold"]  # an affine readout has none
        block["kind"] = "affine"
    if neuron.sigma_output:
        block["kind"] = "affine"
    return block | {"features": len(layer.weight)}


def _neuron(neuron: NetxNeuron, levels: int = 1) -> dict[str, Any]:
    # Add half a mantissa, so that multiplying by the levels and truncating restores the mantissa.
    if neuron.is_sigma_delta:
        return {"kind": "sigma_delta", "threshold": neuron.threshold_mant / MANT}
    threshold = (neuron.threshold_mant + 0.5) / levels if levels > 1 else neuron.threshold_mant
    document: dict[str, Any] = {"threshold": threshold / MANT, "learn_decays": "none"}
    for name, decay in (("current_decay", neuron.current_decay), ("voltage_decay", neuron.voltage_decay)):
        assert decay is not None
        document[name] = int(decay[0]) / DECAY_ONE
        if len(decay) > 1:
            document["learn_decays"] = "per_channel"
    return document


def _with_common_neuron(entering: dict[str, Any], blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `neuron`, `input` and `blocks` of a spec; the most frequent neuron is written once, as `neuron`."""
    with_neuron = [layer for layer in (entering, *blocks) if "threshold" in layer.get("neuron", {})]
    counts = Counter(json.dumps(layer["neuron"]) for layer in with_neuron)
    common = json.loads(counts.most_common(1)[0][0]) if counts else {}
    for layer in (entering, *blocks):
        if layer.get("neuron", {}).items() <= common.items():
            layer.pop("neuron", None)
    return {"neuron": common, "input": entering, "blocks": blocks}
