"""Make a model of a chip form: its spec, taken from the file or inferred from the layers, and its tensors."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE, MANT, MANT_PER_WEIGHT
from bootstrap_core.functional.quantize import quantize_decay, quantize_weight
from bootstrap_core.network.build import build_network
from converters.chip.form import ChipForm, ChipLayer, ChipNeurons, ChipSynapses, Numbers
from converters.model import Model, check_fit
from specs.errors import IntegrityError
from specs.fields import Shape, threshold_mant
from specs.layers.block import AffineSpec, AvgPoolSpec, ConvSpec, LayerSpec, skips_of
from specs.layers.neuron import CubaSpec, LearnDecays
from specs.network import NetworkSpec

Document = dict[str, Any]

DECAYS = ("current_decay", "voltage_decay")


def spec_document(form: ChipForm) -> Document:
    """Return a spec of a form as a document: without weight norm and batch norm, every field of its layers written."""
    assert form.input is not None
    entering, *layers = form.layers
    own = {} if entering.neurons is None else {"neuron": _neurons(entering.neurons, 1)}
    return {
        "name": form.name,
        "time_steps": form.time_steps,
        "delay_shift": entering.shift,
        "input": form.input.model_dump(mode="json") | own,
        "blocks": [_block(layer, form.levels_of(layer)) | _reads(layer, i) for i, layer in enumerate(layers)],
    }


def _reads(layer: ChipLayer, before: int) -> Document:
    """Return what the spec says of the layers that a layer reads, if it is not just the layer before."""
    source = layer.sources[0].source if layer.sources else before
    own = {} if source == before else {"source": source}
    return own | ({"skips": [_skip(skip) for skip in layer.skips]} if layer.skips else {})


def _skip(skip: ChipSynapses) -> Document:
    kind = "identity" if skip.is_identity else "dense" if skip.window is None else "conv"
    return {"kind": kind, "source": skip.source} | ({} if skip.window is None else asdict(skip.window))


def _block(layer: ChipLayer, levels: int) -> Document:
    kind, weight, window = layer.kind, layer.weight, layer.window
    if kind == "flatten":
        return {"kind": kind}
    if kind == "average":
        return {"kind": kind, "features": prod(layer.shape)}
    assert weight is not None
    neurons = None if layer.neurons is None else _neurons(layer.neurons, levels)
    block: Document = {"kind": kind, "neuron": neurons}
    if kind == "affine":
        if neurons is not None and layer.neurons is not None and not layer.neurons.is_sigma_delta:
            del neurons["threshold"], neurons["start"]  # an affine readout has none
        return block | {"features": len(weight), "bias": layer.bias is not None}
    block["delay_shift"] = layer.shift
    if kind == "avg_pool":
        assert window is not None
        geometry = {name: getattr(window, name) for name in ("kernel", "stride", "padding")}
        return block | geometry | {"gain": float(weight.flat[0]) / MANT * prod(window.kernel)}
    block["bias"] = layer.bias is not None
    if layer.delay is not None:
        per = "neuron" if layer.delay.ndim == 1 else "synapse"
        block["delays"] = {"per": per, "longest": int(layer.delay.max())}
    if window is not None:
        return block | {"channels": len(weight), **asdict(window)}
    return block | {"features": len(weight), "recurrent": layer.recurrent is not None}


def _neurons(neurons: ChipNeurons, levels: int) -> Document:
    if neurons.is_sigma_delta:
        return {"kind": "sigma_delta", "threshold": neurons.threshold_mant / MANT}
    # Half a mantissa more, so that multiplying by the levels and truncating restores the mantissa.
    threshold = (neurons.threshold_mant + 0.5) / levels if levels > 1 else neurons.threshold_mant
    document: Document = {"threshold": neurons.threshold or threshold / MANT, "learn_decays": LearnDecays.NONE}
    document["reset"] = "subtract" if neurons.subtracts else "zero"
    document["start"] = neurons.start
    for name, decay in (("current_decay", neurons.current_decay), ("voltage_decay", neurons.voltage_decay)):
        assert decay is not None
        document[name] = int(decay[0]) / DECAY_ONE
        if len(decay) > 1:
            document["learn_decays"] = LearnDecays.PER_CHANNEL
    return document


def with_common_neuron(document: Document) -> Document:
    """Return a document of `spec_document` in which the most frequent neuron, and `delay_shift`, stand once."""
    layers = [document["input"], *document["blocks"]]
    counts = Counter(json.dumps(layer["neuron"]) for layer in layers if "threshold" in (layer.get("neuron") or {}))
    common = json.loads(counts.most_common(1)[0][0]) if counts else {}
    for layer in layers:
        if (layer.get("neuron") or {}).items() <= common.items():
            layer.pop("neuron", None)
        layer.pop("delay_shift", None)
    return document | {"neuron": common}


def model_of_form(form: ChipForm, spec: NetworkSpec, *, origin: str) -> Model:
    """Return the model of a spec with the numbers of a form, whose layers are those of the spec.

    Raises `IntegrityError` if the form contradicts the spec; the message lists all differences.
    """
    check_fit(spec, form.n_numbers, origin=origin)
    state, problems = build_network(spec, seed=0).state_dict(), []
    shapes, every = spec.shapes, spec.levels
    for i, (layer, shape, levels) in enumerate(zip(form.layers, shapes, every, strict=True)):
        told = _disagreements(spec, i, layer, state, shape, levels)
        problems += [f"layer of block {i}: {problem}" for problem in told]
        for name, value in _tensors(layer, levels).items():
            key = f"blocks.{i}.{name}"
            if key not in state:
                problems.append(f"{key} belongs to no block of the spec")
            elif value.shape != state[key].shape:
                problems.append(f"{key} has shape {list(value.shape)}, expected {list(state[key].shape)}")
            state[key] = value
    if problems:
        raise IntegrityError(f"{origin}: {'; '.join(problems)}")
    return Model(spec, state)


def _tensors(layer: ChipLayer, levels: int) -> dict[str, Tensor]:
    """Return the tensors of a layer, by their names within its block. A pool has none, as its weight is its gain."""
    tensors = {}
    if layer.kind == "input" and layer.weight is not None:
        tensors["weight"] = _unit(layer.weight)
    elif layer.weight is not None and layer.kind != "avg_pool":
        tensors["synapse.weight"] = _unit(layer.weight)
    for k, skip in enumerate(layer.skips):
        assert skip.weight is not None
        tensors[f"skips.{k}.weight"] = _unit(skip.weight)
    if layer.recurrent is not None:
        tensors["recurrent.weight"] = _unit(layer.recurrent)
    if layer.delay is not None:
        tensors["delay"] = torch.from_numpy(layer.delay).float()
    if layer.bias is not None:
        tensors["bias"] = _unit(layer.bias, levels)
    neurons = layer.neurons
    if neurons is None or neurons.current_decay is None or neurons.voltage_decay is None:
        return tensors
    decays = np.broadcast_arrays(neurons.current_decay, neurons.voltage_decay)
    for name, decay in zip(DECAYS, decays, strict=True):
        tensors[f"neuron.{name}"] = torch.from_numpy(decay.copy()).float() / DECAY_ONE
    return tensors


def _unit(mants: Numbers, levels: int = 1) -> Tensor:
    """Return mantissas in float units, for an input of 1."""
    return (torch.from_numpy(mants).double() / MANT / levels).float()


def _disagreements(
    spec: NetworkSpec, index: int, layer: ChipLayer, state: dict[str, Tensor], shape: Shape, levels: int
) -> Iterator[str]:
    """Yield the differences between a layer and its spec, as an edited file has them."""
    own, neurons = spec.layers[index], layer.neurons
    if own.own_fan_out and layer.recurrent is None:
        yield "the spec has recurrent synapses, the layer has none"
    if len(skips_of(own)) != len(layer.skips):
        yield f"the spec has skips, {len(skips_of(own))}, the layer has {len(layer.skips)}"
    if neurons is None:
        return
    is_affine = isinstance(own, AffineSpec)
    if neurons.is_sigma_delta != spec.gives_values or neurons.sigma_output != (is_affine and spec.gives_values):
        yield "its neurons are of another kind than in the spec"
        return
    neuron = spec.neuron_of(own)
    wanted = threshold_mant(neuron.threshold, levels)
    if not is_affine and neurons.threshold_mant != wanted:
        yield f"threshold is {neurons.threshold_mant}, expected {wanted} from the spec"
    if isinstance(neuron, CubaSpec) and (is_affine or neuron.learn_decays is LearnDecays.NONE):
        for name, dataset in zip(DECAYS, ("iDecay", "vDecay"), strict=True):
            decay, initial = getattr(neurons, name), quantize_decay(state[f"blocks.{index}.neuron.{name}"]) * DECAY_ONE
            if (decay != initial.round().numpy()).any():
                yield f"{dataset} is {decay[0]}, expected {round(float(initial[0]))} from the spec"
    geometry = conv_of(own, shape)
    if geometry is not None and layer.window is not None:
        for name, value in asdict(layer.window).items():
            if value != getattr(geometry, name):
                yield f"{name} is {value}, expected {getattr(geometry, name)} from the spec"
    if isinstance(own, AvgPoolSpec) and layer.weight is not None and layer.window is not None:
        weight = float(quantize_weight(torch.tensor(own.weight(neuron)))) * MANT
        wanted_shape = layer.shape[0], 1, *own.kernel
        if layer.weight.shape != wanted_shape or (abs(layer.weight - weight) > MANT_PER_WEIGHT / 2).any():
            yield "the weights differ from those of the pool in the spec"


def conv_of(layer: LayerSpec, shape: Shape) -> ConvSpec | None:
    """Return the convolution that a block of output `shape` is, also that of a pool; None for other blocks."""
    if isinstance(layer, AvgPoolSpec):
        return layer.as_conv(shape[0])
    return layer if isinstance(layer, ConvSpec) else None
