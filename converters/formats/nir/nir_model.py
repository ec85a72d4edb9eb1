"""Turn the layers of another program's graph into a model: scaled to the hardware's ranges, as spec and tensors."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import MANT, STATE, STATE_MAX
from bootstrap_core.network.blocks import AffineBlock, InputBlock, SpikingBlock
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from converters.formats.nir.nir_layers import Layer
from converters.linear.grid_fit import GridFit, fit_to_grid
from converters.linear.linear_fold import Conv
from converters.model import Model
from specs.errors import SpecError, UnsupportedError
from specs.io import spec_from_document
from specs.layers.input import InputSpec
from specs.layers.neuron import LearnDecays, Reset
from specs.words import counted

__all__ = ["model_of"]

MAX_POOL_WEIGHT = 254 / MANT
LOOP_NOTE = (
    "the file does not say in which order a step goes: here spikes enter the current of their own neurons one step "
    "later, then the current enters the voltage, then neurons spike"
)


@dataclass(frozen=True)
class _Block:
    """Block of the spec as a document, with its layer and its fitted numbers; a flatten has neither.

    `recurrent` has the fitted weights from the neurons to themselves, or None.
    """

    document: dict[str, Any]
    layer: Layer | None = None
    fit: GridFit | None = None
    recurrent: Tensor | None = None


def model_of(
    layers: Sequence[Layer],
    *,
    name: str,
    reset: Reset,
    time_steps: int,
    entering: Mapping[str, Any],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    origin: str,
) -> Model:
    """Return a model that computes what the layers do.

    Args:
        layers: layers in order; a first layer without weights holds the input neurons.
        name, time_steps: name and T of the spec.
        reset: reset of all neurons.
        entering: encoding and bits of an input that enters weights directly.
        facts: entries of `card["nir"]` beside `layers` and `notes`, which are added.
        notes: notes for people; more are added.
        origin: path of the file, for error messages.

    Raises:
        UnsupportedError: layers that do not fit the hardware's ranges or a spec; lists all of them.
    """
    blocks, problems = _blocks(layers, reset, entering, time_steps)
    if problems:
        raise UnsupportedError(f"{origin} cannot be read as a snnzoo network: {'; '.join(problems)}")
    document = {
        "name": name,
        "time_steps": time_steps,
        "delay_shift": layers[0].delayed and isinstance(layers[0].synapse, float),  # the input uses the network's
        "input": blocks[0].document,
        "blocks": [block.document for block in blocks[1:]],
    }
    try:
        spec = spec_from_document(document, origin=f"{origin} (as a spec)")
    except SpecError as error:
        raise UnsupportedError(str(error)) from None
    network = build_network(spec, seed=0)
    with torch.no_grad():
        for block, module in zip(blocks, network.blocks, strict=True):
            if block.layer is not None and block.fit is not None:
                _fill(module, block, block.layer, block.fit)
        told = [*notes, *_input_notes(network)]
    entries, loops = [], []
    for i, block in enumerate(blocks):
        if block.layer is not None and block.fit is not None:
            names, fit = list(block.layer.names), block.fit
            entries.append({"block": i, "nodes": names, "factor": fit.factor, "weight_error": fit.weight_error})
            told += [_told(i, names, fit)] if fit.factor != 1 or fit.weight_error > 0 else []
            loops += [] if block.recurrent is None else [f"block {i} ({names[-1]})"]
    told += [f"{', '.join(loops)}: {LOOP_NOTE}"] if loops else []
    card = {"nir": {**facts, "layers": entries, "notes": told}}
    model = Model.of(network, card)
    return Model(model.spec, model.tensors, card, tuple(told))


def _told(index: int, names: Sequence[str], fit: GridFit) -> str:
    rounding = f"; weights rounded by up to {fit.weight_error:.2%} of the largest" if fit.weight_error else ""
    return f"block {index} ({', '.join(names)}): scaled by {fit.factor:.6g}{rounding}"


def _blocks(
    layers: Sequence[Layer], reset: Reset, encoding: Mapping[str, Any], time_steps: int
) -> tuple[list[_Block], list[str]]:
    """Return the input and the blocks, and the problems of layers that no block can represent."""
    problems: list[str] = []
    entering, *rest = layers
    if isinstance(entering.synapse, float):
        blocks, levels = [_try(_neuron_input, problems, entering, reset)], 1
    else:
        blocks = [_Block({"kind": "input", "shape": list(entering.before), **encoding})]
        levels, rest = InputSpec.model_validate(blocks[0].document).levels, list(layers)
    before = entering.after if isinstance(entering.synapse, float) else entering.before
    for layer in rest:
        if layer.before != before:
            blocks.append(_Block({"kind": "flatten"}))
        blocks.append(_try(_weighted_block, problems, layer, reset, levels, time_steps))
        before, levels = layer.after, 1
    return blocks, problems


def _try(make: Callable[..., _Block], problems: list[str], layer: Layer, *arguments: Any) -> _Block:
    """Return the block that `make` returns; if it is refused, add a problem and return an empty block."""
    try:
        return make(layer, *arguments)
    except UnsupportedError as error:
        problems.append(f"{', '.join(layer.names)}: {error}")
        return _Block({})


def _neuron_input(layer: Layer, reset: Reset) -> _Block:
    """Return an input block, whose neurons take pixels as current; weight and bias are on the grid of weights."""
    assert isinstance(layer.synapse, float)
    assert layer.neurons is not None
    if layer.neurons.threshold is None:
        raise UnsupportedError("neurons without spikes directly after the input")
    exact = bool((layer.neurons.current_decay == 1).all())
    if len(layer.bias) > 1 or (not exact and bool(layer.bias.any())):
        raise UnsupportedError("v_leak of input neurons must be equal for all channels, and 0 if their current decays")
    fit = fit_to_grid(torch.tensor([layer.synapse, float(layer.bias[0])]), None, float(layer.neurons.threshold))
    weight, bias = fit.weight.tolist()
    document = {"kind": "input", "shape": list(layer.before), "weight": weight, "bias": bias, "exact_input": exact}
    return _Block({**document, "neuron": _neuron(layer, fit, reset)}, layer, fit)


def _weighted_block(layer: Layer, reset: Reset, levels: int, time_steps: int) -> _Block:
    """Return the block for a layer with weights."""
    synapse = layer.synapse
    assert not isinstance(synapse, float)
    threshold = None if layer.neurons is None or layer.neurons.threshold is None else float(layer.neurons.threshold)
    bias = layer.bias.expand(len(synapse.weight)) if bool(layer.bias.any()) else None
    most = math.inf if levels == 1 else _roomy_factor(layer, levels, time_steps)
    weight, recurrent = synapse.weight, layer.recurrent
    if recurrent is not None:  # all weights of a neuron have the same scale; those to itself do not multiply pixels
        weight = torch.cat([weight, recurrent * levels], 1)
    fit = fit_to_grid(weight, bias, threshold, levels=levels, most=most)
    if threshold is not None and fit.threshold is not None and fit.weight_error:
        # slightly smaller weights, so that only they are rounded and not the threshold
        fit = fit_to_grid(weight, bias, threshold, levels=levels, most=fit.threshold / threshold)
    if recurrent is not None:
        own, recurrent = fit.weight.split([synapse.weight.shape[1], len(recurrent)], 1)
        fit = replace(fit, weight=own)
    neuron = {"neuron": _neuron(layer, fit, reset)}
    spiking: dict[str, Any] = {**neuron, "delay_shift": layer.delayed}
    if layer.delays is not None:
        per = "synapse" if layer.delays.dim() > 1 else "neuron"
        spiking["delays"] = {"per": per, "longest": int(layer.delays.max())}
    if isinstance(synapse, Conv):
        if threshold is None:
            raise UnsupportedError("a readout without spikes must be dense")
        if bias is None and levels == 1 and layer.delays is None and (gain := _pool_gain(synapse, fit)) is not None:
            window = {name: list(getattr(synapse, name)) for name in ("kernel", "stride", "padding")}
            return _Block({"kind": "avg_pool", "gain": gain, **window, **spiking}, layer, fit)
        geometry = {name: list(getattr(synapse, name)) for name in ("kernel", "stride", "padding", "dilation")}
        channels = {"channels": len(synapse.weight), "groups": synapse.groups, "bias": bias is not None}
        return _Block({"kind": "conv", **channels, **geometry, **spiking}, layer, fit)
    features = {"features": prod(layer.after), "bias": bias is not None}
    if threshold is None:
        return _Block({"kind": "affine", **features, **neuron}, layer, fit)
    return _Block({"kind": "dense", **features, **spiking, "recurrent": recurrent is not None}, layer, fit, recurrent)


def _roomy_factor(layer: Layer, levels: int, time_steps: int) -> float:
    """Return the largest factor with which no image can overflow 24 bits: graded pixels enter at each step."""
    assert not isinstance(layer.synapse, float)
    weight = layer.synapse.weight.double().flatten(1)
    worst = max(_largest(weight.clamp_min(0)), _largest((-weight).clamp_min(0))) * levels
    if layer.neurons is not None:
        for decay in (layer.neurons.current_decay, layer.neurons.voltage_decay):
            worst *= min(time_steps, 1 / max(float(decay.min()), 1 / time_steps))
    return STATE_MAX / STATE / max(worst, 1e-12)


def _pool_gain(synapse: Conv, fit: GridFit) -> float | None:
    """Return the gain of the average pool that equals a convolution; None if no pool does."""
    weight = float(fit.weight.flatten()[0])
    uniform = bool(((fit.weight - weight).abs() <= 1e-9 * abs(weight)).all())
    small_padding = all(pad < side for pad, side in zip(synapse.padding, synapse.kernel * 2, strict=False))
    whole = synapse.is_pool and synapse.dilation == (1, 1)
    if not (whole and uniform and small_padding and 1 / MANT < weight <= MAX_POOL_WEIGHT):
        return None
    return weight * prod(synapse.kernel)


def _neuron(layer: Layer, fit: GridFit, reset: Reset) -> dict[str, Any] | None:
    """Return the neuron of a block as a document."""
    neurons = layer.neurons
    if neurons is None:
        return None
    decays = {"current_decay": neurons.current_decay, "voltage_decay": neurons.voltage_decay}
    per_channel = any(len(decay) > 1 for decay in decays.values())
    if fit.threshold is None and per_channel:
        raise UnsupportedError("time constants of a readout must not differ between channels")
    neuron = {
        **{name: float(decay[0]) for name, decay in decays.items()},
        "reset": str(reset),
        "learn_decays": str(LearnDecays.PER_CHANNEL if per_channel else LearnDecays.NONE),
    }
    return neuron if fit.threshold is None else {"threshold": fit.threshold, **neuron}


def _fill(module: torch.nn.Module, block: _Block, layer: Layer, fit: GridFit) -> None:
    """Copy the numbers that a spec does not contain into a block."""
    if isinstance(module, SpikingBlock | AffineBlock):
        if isinstance(module.synapse.weight, torch.nn.Parameter):  # a pool's weight follows from its spec
            module.synapse.weight.copy_(fit.weight.reshape(module.synapse.weight.shape))
        if module.bias is not None:
            assert fit.bias is not None
            module.bias.copy_(fit.bias)
    if isinstance(module, SpikingBlock):
        if module.recurrent is not None and block.recurrent is not None:
            module.recurrent.weight.copy_(block.recurrent)
        if module.delay is not None and layer.delays is not None:
            module.delay.copy_(layer.delays)
    if isinstance(module, SpikingBlock | InputBlock) and layer.neurons is not None:
        module.neuron.current_decay.copy_(layer.neurons.current_decay)
        module.neuron.voltage_decay.copy_(layer.neurons.voltage_decay)


def _input_notes(network: Network) -> list[str]:
    """Return notes on the expected input, and on a possible overflow of the first current by bright images."""
    entering, block = network.blocks[0], network.blocks[min(1, len(network.blocks) - 1)]
    if isinstance(entering, InputBlock):
        grid = "truncated to 1/64" if entering.spec.exact_input else "rounded to 2/64"
        return [f"input: the graph begins with neurons, so the input is their current, {grid}"]
    if network.spec.input.is_events:
        form = "spikes" if network.spec.input.bits == 1 else f"integers of {counted(network.spec.input.bits, 'bit')}"
        return [
            f"input: {form} that differ from step to step (events); for still images, give the bits of a pixel "
            "(--input-bits)"
        ]
    notes = [f"input: images in 0..1, rounded to {counted(network.spec.input.bits, 'bit')}, the same in each step"]
    assert isinstance(block, SpikingBlock | AffineBlock)
    weight = block.quantized_weight().double().flatten(1)
    worst = max(_largest(weight.clamp_min(0)), _largest((-weight).clamp_min(0))) * block.levels * STATE
    if worst > STATE_MAX:
        notes.append(
            f"block 1: its current can reach {worst / STATE_MAX:.1f} times the range of 24 bits if every pixel is "
            "bright; the integer engine reports an overflow (then give fewer input bits)"
        )
    return notes


def _largest(weight: Tensor) -> float:
    return float(weight.sum(1).max())
