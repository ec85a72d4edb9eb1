"""Turn the layers of another program's graph into a model: scaled to the hardware's ranges, as a chip form."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE, MANT, READOUT_THRESHOLD_MANT, STATE, STATE_MAX
from bootstrap_core.functional.quantize import quantize_weight
from converters.chip.form import PIXELS, ChipForm, ChipLayer, ChipNeurons, ChipSynapses, Numbers
from converters.chip.to_model import model_of_form, spec_document
from converters.formats.nir.nir_layers import INPUT, Layer
from converters.linear.grid_fit import GridFit, fit_to_grid
from converters.linear.linear_fold import Conv, Dense
from converters.model import Model
from specs.errors import SpecError, UnsupportedError
from specs.fields import Shape, initial_voltage, threshold_mant
from specs.io import spec_from_document
from specs.layers.input import InputSpec
from specs.layers.neuron import Reset
from specs.shapes import Window
from specs.words import counted

MAX_POOL_WEIGHT = 254 / MANT
LOOP_NOTE = (
    "the file does not say in which order a step goes: here spikes enter the current of their own neurons one step "
    "later, then the current enters the voltage, then neurons spike"
)


def model_of(
    shape: Shape,
    layers: Sequence[Layer],
    *,
    name: str,
    reset: Reset,
    start: float,
    time_steps: int,
    entering: Mapping[str, Any],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    origin: str,
) -> Model:
    """Return a model that computes what the layers do.

    Args:
        shape: shape of the input.
        layers: layers in order; a first layer without weights holds the input neurons.
        name, time_steps: name and T of the spec.
        reset: reset of all neurons.
        start: voltage of all neurons before the first step, as a fraction of the threshold.
        entering: encoding and bits of an input that enters weights directly.
        facts: entries of `card["nir"]` beside `layers` and `notes`, which are added.
        notes: notes for people; more are added.
        origin: path of the file, for error messages.

    Raises:
        UnsupportedError: layers that do not fit the hardware's ranges or a spec; lists all of them.
    """
    first, problems = layers[0], list[str]()
    entering_neurons = isinstance(first.synapse, float)
    readers = [each for layer in layers for at, each in ((layer.source, layer.synapse), *layer.skips) if at == INPUT]
    if all(isinstance(each, Dense) for each in readers):
        shape = (prod(shape),)
    enters = InputSpec.model_validate({"shape": shape} | ({} if entering_neurons else {**entering}))
    found, fits = [] if entering_neurons else [ChipLayer("input", shape)], dict[int, tuple[Layer, GridFit]]()
    places = {} if entering_neurons else {INPUT: 0}
    for i, layer in enumerate(layers):
        try:
            if layer is first and entering_neurons:
                made, fit = _input_neurons(layer, reset)
            else:
                source = places[layer.source]
                levels = enters.levels if source == 0 else 1
                if layer.before != found[source].shape:
                    found.append(ChipLayer("flatten", layer.before, (ChipSynapses(source),)))
                    source = len(found) - 1
                made, fit = _weighted_layer(layer, source, places, reset, levels, time_steps)
        except UnsupportedError as error:
            problems.append(f"{', '.join(layer.names)}: {error}")
            found.append(ChipLayer("", layer.after))
        else:
            fits[len(found)] = layer, fit
            found.append(_starting(made, start))
        places[i] = len(found) - 1
    if problems:
        raise UnsupportedError(f"{origin} cannot be read as a snnzoo network: {'; '.join(problems)}")
    if entering_neurons:
        enters = enters.model_copy(update=_current(found[0]))
    form = ChipForm(tuple(found), time_steps, name=name, input=enters)
    try:
        spec = spec_from_document(spec_document(form), origin=f"{origin} (as a spec)")
    except SpecError as error:
        raise UnsupportedError(str(error)) from None
    told, entries, loops = [*notes, *_input_notes(form)], list[dict[str, Any]](), list[str]()
    for i, (layer, fit) in fits.items():
        names = list(layer.names)
        entries.append({"block": i, "nodes": names, "factor": fit.factor, "weight_error": fit.weight_error})
        told += [_told(i, names, fit)] if fit.factor != 1 or fit.weight_error > 0 else []
        loops += [] if layer.recurrent is None else [f"block {i} ({names[-1]})"]
    told += [f"{', '.join(loops)}: {LOOP_NOTE}"] if loops else []
    card = {"nir": {**facts, "layers": entries, "notes": told}}
    return replace(model_of_form(form, spec, origin=origin), card=card, notes=tuple(told))


def _told(index: int, names: Sequence[str], fit: GridFit) -> str:
    rounding = f"; weights rounded by up to {fit.weight_error:.2%} of the largest" if fit.weight_error else ""
    return f"block {index} ({', '.join(names)}): scaled by {fit.factor:.6g}{rounding}"


def _starting(layer: ChipLayer, start: float) -> ChipLayer:
    """Return the layer with neurons whose voltages start at a fraction of the threshold; those of a readout stay."""
    if layer.neurons is None or layer.kind == "affine":
        return layer
    voltage = initial_voltage(start, layer.neurons.threshold_mant)
    return replace(layer, neurons=replace(layer.neurons, initial_voltage=voltage))


def _input_neurons(layer: Layer, reset: Reset) -> tuple[ChipLayer, GridFit]:
    """Return input neurons, which take pixels as current; weight and bias are on the grid of weights."""
    assert isinstance(layer.synapse, float)
    assert layer.neurons is not None
    if layer.neurons.threshold is None:
        raise UnsupportedError("neurons without spikes directly after the input")
    exact = bool((layer.neurons.current_decay == 1).all())
    if len(layer.bias) > 1 or (not exact and bool(layer.bias.any())):
        raise UnsupportedError("v_leak of input neurons must be equal for all channels, and 0 if their current decays")
    fit = fit_to_grid(torch.tensor([layer.synapse, float(layer.bias[0])]), None, float(layer.neurons.threshold))
    weight, bias = _mants(fit.weight[:1]), _mants(fit.weight[1:])
    neurons = _neurons(layer, fit, reset, 1)
    return ChipLayer("input", layer.before, (ChipSynapses(PIXELS, weight),), bias, neurons, shift=layer.delayed), fit


def _current(layer: ChipLayer) -> dict[str, Any]:
    """Return the fields of an input whose neurons take pixels as current."""
    assert layer.weight is not None
    assert layer.bias is not None
    exact = layer.neurons is not None and bool(np.all(layer.neurons.current_decay == DECAY_ONE))
    return {"weight": float(layer.weight[0]) / MANT, "bias": float(layer.bias[0]) / MANT, "exact_input": exact}


def _weighted_layer(
    layer: Layer, source: int, places: Mapping[int, int], reset: Reset, levels: int, time_steps: int
) -> tuple[ChipLayer, GridFit]:
    """Return the layer with weights on the hardware's ranges; `places` are those of the layers that its skips read."""
    synapse = layer.synapse
    assert not isinstance(synapse, float)
    threshold = None if layer.neurons is None or layer.neurons.threshold is None else float(layer.neurons.threshold)
    bias = layer.bias.expand(len(synapse.weight)) if bool(layer.bias.any()) else None
    most = math.inf if levels == 1 else _roomy_factor(layer, levels, time_steps)
    # All weights of a neuron have the same scale; those to itself do not multiply pixels.
    others = [skip if isinstance(skip, Tensor) else skip.weight for _, skip in layer.skips]
    parts = [synapse.weight, *others, *([] if layer.recurrent is None else [layer.recurrent * levels])]
    weight = torch.cat([part.flatten() for part in parts])
    fit = fit_to_grid(weight, bias, threshold, levels=levels, most=most)
    if threshold is not None and fit.threshold is not None and fit.weight_error:
        # slightly smaller weights, so that only they are rounded and not the threshold
        fit = fit_to_grid(weight, bias, threshold, levels=levels, most=fit.threshold / threshold)
    fitted = [
        whole.reshape(part.shape)
        for whole, part in zip(fit.weight.split([*map(Tensor.numel, parts)]), parts, strict=True)
    ]
    fit = replace(fit, weight=fitted[0])
    recurrent = None if layer.recurrent is None else fitted[-1]
    kind, window = "dense" if threshold is not None else "affine", None
    if isinstance(synapse, Conv):
        if threshold is None:
            raise UnsupportedError("a readout without spikes must be dense")
        kind, window = "conv", Window.of(synapse)
        if bias is None and levels == 1 and layer.delays is None and not layer.skips and _is_pool(synapse, fit):
            kind = "avg_pool"
    delay = None if layer.delays is None else layer.delays.long()
    if delay is not None and delay.dim() == 1:
        delay = delay.expand(len(synapse.weight))
    edge = ChipSynapses(source, _mants(fit.weight), window, None if delay is None else delay.numpy().copy())
    skips = (
        ChipSynapses(places[at], _mants(one), Window.of(skip) if isinstance(skip, Conv) else None)
        for (at, skip), one in zip(layer.skips, fitted[1:], strict=False)  # recurrent ones come last
    )
    made = ChipLayer(
        kind,
        layer.after if window is not None else (prod(layer.after),),
        (edge, *skips),
        None if bias is None or fit.bias is None else _mants(fit.bias) * levels,
        _neurons(layer, fit, reset, levels),
        None if recurrent is None else _mants(recurrent),
        shift=layer.delayed,
    )
    return made, fit


def _mants(x: Tensor) -> Numbers:
    """Return numbers in units of 1/64; they may lie between those of the grid."""
    mants: Numbers = (x * MANT).numpy()
    return mants


def _roomy_factor(layer: Layer, levels: int, time_steps: int) -> float:
    """Return the largest factor with which no image can overflow 24 bits: graded pixels enter at each step."""
    assert not isinstance(layer.synapse, float)
    weight = layer.synapse.weight.double().flatten(1)
    worst = max(_largest(weight.clamp_min(0)), _largest((-weight).clamp_min(0))) * levels
    if layer.neurons is not None:
        for decay in (layer.neurons.current_decay, layer.neurons.voltage_decay):
            worst *= min(time_steps, 1 / max(float(decay.min()), 1 / time_steps))
    return STATE_MAX / STATE / max(worst, 1e-12)


def _is_pool(synapse: Conv, fit: GridFit) -> bool:
    """Return whether an average pool equals a convolution."""
    weight = float(fit.weight.flatten()[0])
    uniform = bool(((fit.weight - weight).abs() <= 1e-9 * abs(weight)).all())
    small_padding = all(pad < side for pad, side in zip(synapse.padding, synapse.kernel * 2, strict=False))
    whole = synapse.is_pool and synapse.dilation == (1, 1)
    return whole and uniform and small_padding and 1 / MANT < weight <= MAX_POOL_WEIGHT


def _neurons(layer: Layer, fit: GridFit, reset: Reset, levels: int) -> ChipNeurons | None:
    """Return the neurons of a layer; None if the graph has none."""
    neurons = layer.neurons
    if neurons is None:
        return None
    decays = [neurons.current_decay, neurons.voltage_decay]
    if fit.threshold is None and any(len(decay) > 1 for decay in decays):
        raise UnsupportedError("time constants of a readout must not differ between channels")
    mant = READOUT_THRESHOLD_MANT if fit.threshold is None else threshold_mant(fit.threshold, levels)
    current_decay, voltage_decay = ((decay * DECAY_ONE).round().long().numpy() for decay in decays)
    subtracts = reset is Reset.SUBTRACT
    return ChipNeurons(mant, current_decay, voltage_decay, subtracts=subtracts, threshold=fit.threshold)


def _input_notes(form: ChipForm) -> list[str]:
    """Return notes on the expected input, and on a possible overflow of the first current by bright images."""
    enters = form.input
    assert enters is not None
    if enters.has_neurons:
        grid = "truncated to 1/64" if enters.exact_input else "rounded to 2/64"
        return [f"input: the graph begins with neurons, so the input is their current, {grid}"]
    if enters.is_events:
        events = "spikes" if enters.bits == 1 else f"integers of {counted(enters.bits, 'bit')}"
        return [
            f"input: {events} that differ from step to step (events); for still images, give the bits of a pixel "
            "(--input-bits)"
        ]
    notes = [f"input: images in 0..1, rounded to {counted(enters.bits, 'bit')}, the same in each step"]
    for i, layer in enumerate(form.layers):
        if layer.weight is None or form.levels_of(layer) == 1:
            continue
        weight = quantize_weight(torch.from_numpy(layer.weight) / MANT).flatten(1)
        worst = max(_largest(weight.clamp_min(0)), _largest((-weight).clamp_min(0))) * enters.levels * STATE
        if worst <= STATE_MAX:
            continue
        notes.append(
            f"block {i}: its current can reach {worst / STATE_MAX:.1f} times the range of 24 bits if every pixel is "
            "bright; the integer engine reports an overflow (then give fewer input bits)"
        )
    return notes


def _largest(weight: Tensor) -> float:
    return float(weight.sum(1).max())
