"""Read NIR files: those of snnzoo as the model that was written, those of other programs by their nodes.

The layers of another program's graph are scaled to the hardware's ranges, as a chip form.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE, MANT, READOUT_THRESHOLD_MANT, STATE, STATE_MAX
from bootstrap_core.functional.quantize import quantize_weight
from converters.chip.form import PIXELS, ChipForm, ChipLayer, ChipNeurons, ChipSynapses, Numbers
from converters.chip.to_model import model_of_form, spec_document
from converters.formats.nir.nir_file import Graph, Node, edges_digest, node_digest, read_graph
from converters.formats.nir.nir_graph import End, ends_of
from converters.formats.nir.nir_layers import INPUT, Layer, layers_of
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_writer import METADATA_FORMAT, METADATA_KEY, TENSORS_KEY
from converters.linear.grid_fit import GridFit, fit_to_grid
from converters.linear.linear_fold import Conv, Dense
from converters.model import Model, check_card
from specs.arguments import check_path
from specs.errors import ConversionError, IntegrityError, SpecError, UnsupportedError
from specs.fields import Shape, initial_voltage, threshold_mant
from specs.io import name_from, spec_from_document
from specs.layers.input import Encoding, InputSpec
from specs.layers.neuron import Reset
from specs.shapes import Window
from specs.words import counted

MAX_POOL_WEIGHT = 254 / MANT
LOOP_NOTE = (
    "the file does not say in which order a step goes: here spikes enter the current of their own neurons one step "
    "later, then the current enters the voltage, then neurons spike"
)
DEFAULT_TIME_STEPS = 16
TIMED_TYPES = ("CubaLIF", "LIF", "CubaLI", "LI", "Delay")


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
        layers: layers in order; a first layer without weights holds the input neurons.
        name, time_steps: name and T of the spec.
        start: voltage of all neurons before the first step, as a fraction of the threshold.
        entering: encoding and bits of an input that enters weights directly.
        facts: entries of `card["nir"]` beside `layers` and `notes`, which are added.
        notes: notes for people; more are added.

    Raises `UnsupportedError` for layers that do not fit the hardware's ranges or a spec; lists all of them.
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


def read_nir(
    path: str | Path,
    *,
    dt: float | None = None,
    time_constants: TimeConstants = TimeConstants.EULER,
    reset: Reset | None = None,
    time_steps: int | None = None,
    input_bits: int | None = None,
    nodes_only: bool = False,
) -> Model:
    """Read a NIR file.

    A file of `write_nir` returns the model that was written, with other `time_steps` if given. A graph of another
    program is read from its nodes: Affine, Linear, Conv2d, pools, Scale, Flatten, Delay, and CubaLIF, LIF or IF neurons
    in any graph without cycles, except that an Affine or Linear may lead from neurons back to themselves (`recurrent`).
    Pools and scalings without neurons are folded into the weights beside them, exactly. Each layer is scaled to the
    hardware's ranges (see `fit_to_grid`), which does not change spikes. LI or CubaLI at the end become the neurons of
    an affine readout: logits are still the mean of its weighted input; `IntegerTrace.readout_voltage` is their membrane
    voltage.
    `card["nir"]` describes the conversion of each layer, `notes` list the assumptions.

    If the graph begins with neurons, its input is their current (`spike` encoding). If it begins with weights, spikes
    that differ from step to step enter it (`events`); with `input_bits`, an image in 0..1, rounded to so many bits, the
    same in each step (`graded`).

    Args:
        dt: length of a time step in seconds, if the file does not contain it: 1e-4 for snnTorch. Norse's exporter
            multiplies its time constants by its dt, so its files need `dt**2`, 1e-6. Sinabs counts in steps: 1, with
            `exact`.
        time_constants: conversion to decays: `euler` (snnTorch, norse), `exact` (sinabs).
        reset: effect of a spike on the voltage, which NIR cannot express; by default `zero`, with a note.
        time_steps: T of the model; by default from the file, or 16.
        input_bits: bits of a still image that enters weights directly; by default spikes enter, step by step.
        nodes_only: read files of snnzoo from their nodes, too, for instance after someone changed them. By default,
            reset, first voltages and form of the input, which nodes do not contain, then come from the spec in the
            file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the file is not a NIR file, or is damaged.
        UnsupportedError: features that snnzoo does not have; the message lists all of them.
        ConversionError: dt is missing or contradicts the file, input_bits is out of range, a file of snnzoo contains
            what is given or its nodes were changed, or `path` is not a path.
    """
    path = check_path(path, "read_nir takes the path of a file", error=ConversionError)
    if input_bits is not None and not 1 <= input_bits <= 16:
        raise ConversionError(f"input_bits must be from 1 to 16, got {input_bits}")
    graph = read_graph(path)
    said = _number(graph.metadata.get("dt"))
    if METADATA_KEY in graph.metadata and not nodes_only:
        if dt is not None and said is not None and abs(dt - said) > 1e-6 * said:
            raise ConversionError(f"{path} was written for time steps of {said:g} s, not {dt:g} s: leave out --dt")
        facts = {
            "--reset": reset,
            "--input-bits": input_bits,
            "--time-constants": time_constants if time_constants is not TimeConstants.EULER else None,
        }
        if useless := [option for option, fact in facts.items() if fact is not None]:
            raise ConversionError(
                f"{path}: leave out {' and '.join(useless)}: a file of snnzoo contains the value; --nodes-only reads "
                "the nodes, with the value that is given"
            )
        return _own_model(graph, path, time_steps)
    ends = ends_of(graph, origin=str(path))
    chosen = _time_step(ends, said if dt is None else dt, path)
    shape, layers, notes = layers_of(ends, dt=chosen or 1.0, time_constants=time_constants, origin=str(path))
    told = time_steps or int(_number(graph.metadata.get("time_steps")) or 0)
    own_reset, own_start, own_input = _told_inside(graph)
    graded = {"encoding": Encoding.GRADED, "bits": input_bits}
    steps, does = told or DEFAULT_TIME_STEPS, Reset(reset or own_reset or Reset.ZERO)
    unsaid = [] if reset or own_reset else [f"reset {does} (--reset)"]
    unsaid += [] if told else [f"T = {steps} (--time-steps)"]
    unsaid += [] if own_start is not None else ["voltages that start at 0, since neuron.start differs between layers"]
    model = model_of(
        shape,
        layers,
        name=name_from(path.stem),
        reset=does,
        start=own_start or 0.0,
        time_steps=steps,
        entering=graded if input_bits else own_input or {"encoding": Encoding.EVENTS},
        facts={"dt": chosen, "time_constants": str(time_constants), "reset": str(does)},
        notes=[*notes, *_fed(graph)],
        origin=str(path),
    )
    return replace(model, notes=(*model.notes, f"assumed, not in the file: {', '.join(unsaid)}")) if unsaid else model


def _told_inside(graph: Graph) -> tuple[Reset | None, float | None, dict[str, Any] | None]:
    """Return reset and start of all neurons, and encoding and bits of the input, from the spec in a file of snnzoo.

    What is not there is None, as is the input if it has neurons; without a spec, voltages start at 0.
    """
    try:
        spec = spec_from_document(json.loads(graph.metadata[METADATA_KEY])["spec"], origin="spec")
    except (SpecError, ValueError, TypeError, KeyError, RecursionError):  # written by another program, or damaged
        return None, 0.0, None
    (reset, *other_resets), (start, *other_starts) = spec.resets, spec.starts
    entering = None if spec.input.has_neurons else spec.input.model_dump(include={"encoding", "bits"})
    return None if other_resets else reset, None if other_starts else start, entering


def _fed(graph: Graph) -> list[str]:
    """Return a note on the input that a file of snnzoo describes."""
    feed = graph.metadata.get("feed") if METADATA_KEY in graph.metadata else None
    return [f"input, as the file describes it: {feed}"] if isinstance(feed, str) else []


def _own_model(graph: Graph, path: Path, time_steps: int | None) -> Model:
    """Return the model in the metadata of a file of snnzoo; refuse it if the nodes were changed."""
    try:
        document = json.loads(graph.metadata[METADATA_KEY])
        digests, card, version = document["digests"], document["card"], document["format"]
        spec_document = document["spec"] | ({} if time_steps is None else {"time_steps": time_steps})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(f"{path}: damaged metadata {METADATA_KEY!r}: {error!r}") from None
    if version != METADATA_FORMAT or not isinstance(digests, dict) or not isinstance(card, dict):
        raise IntegrityError(f"{path}: metadata of format {version!r}; expected {METADATA_FORMAT}, undamaged")
    nodes = {name: node_digest(node) for name, node in graph.nodes.items() if isinstance(node, Node)}
    changed = sorted(name for name in nodes.keys() | digests.keys() if nodes.get(name) != digests.get(name))
    if document.get("edges") not in (None, edges_digest(graph)):  # files from before 0.1 have no digest of edges
        changed.append("the edges")
    if changed or len(nodes) < len(graph.nodes):
        raise ConversionError(
            f"{path}: the graph was changed since snnzoo wrote it: {', '.join(changed)}. The metadata describe the "
            "network before the change; read the nodes instead with --nodes-only"
        )
    tensors = graph.metadata.get(TENSORS_KEY)
    if not isinstance(tensors, Mapping) or not all(isinstance(array, np.ndarray) for array in tensors.values()):
        raise IntegrityError(f"{path}: the metadata contain no tensors")
    try:
        spec = spec_from_document(spec_document, origin=f"{path} (spec inside)")
        # TypeError: torch lacks this dtype, such as big-endian or wide unsigned integers
        copies = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    except (SpecError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: {error}") from None
    return Model(spec, copies, check_card(card, str(path)), origin=str(path))


def _time_step(ends: list[End], dt: float | None, path: Path) -> float | None:
    nodes = (each for end in ends for each in (*(n for way in end.ways for n in way.nodes), (end.name, end.node)))
    timed = [f"{name} ({node.type})" for name, node in nodes if node.type in TIMED_TYPES]
    if dt is None and timed:
        raise ConversionError(
            f"{path} does not contain the length of a time step, which {timed[0]} needs. Give --dt 1e-4 if snnTorch "
            "wrote it; --dt 1e-6 if norse did, with its dt of 1e-3; --dt 1 --time-constants exact if sinabs did. Add "
            "--reset subtract if a spike subtracts the threshold"
        )
    if dt is not None and not 0 < dt < float("inf"):
        raise ConversionError(f"--dt must be a finite number of seconds above 0, got {dt}")
    return dt


def _number(value: object) -> float | None:
    """Return a value of the metadata as a number; None if it is not a single number."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        return None
    return float(value.flat[0])
