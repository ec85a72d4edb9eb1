"""Convert networks to netx files and back."""

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bootstrap_core.network.network import Network, check_network
from converters.chip.form import (
    CUBA,
    INTEGRATOR,
    SIGMA_DELTA,
    ChipForm,
    ChipLayer,
    ChipNeurons,
    ChipSynapses,
    form_problems,
)
from converters.chip.from_network import form_of_network
from converters.chip.to_model import conv_of, model_of_form, spec_document, with_common_neuron
from converters.formats.netx.lava_limits import (
    LavaWarning,
    enlarge_kernel,
    limit_problems,
    merge_groups,
    restore_kernel,
    split_groups,
    unlike_lava,
)
from converters.formats.netx.netx_reader import ACTIVATION, SPEC_ATTRIBUTE, carried_spec, file_problems, load_netx
from converters.model import Model, check_fit
from specs.arguments import check_path
from specs.errors import ConversionError, IntegrityError, SpecError, UnsupportedError
from specs.fields import VTH_MANT_MAX, Shape
from specs.files.whole_file import refuse_overwriting, write_whole
from specs.io import name_from, spec_from_document
from specs.layers.input import Encoding, InputSpec
from specs.network import NetworkSpec
from specs.words import counted

KINDS = ("dense", "conv", "avg_pool", "flatten", "affine", "average")
FEATURES = ("recurrent", "delays", SIGMA_DELTA)
"""Kinds of layers that a .net can hold, and their features."""
FRAME_BITS = 8
"""Bits of frames for a file of sigma-delta neurons, which does not contain them."""
TIME_STEPS = 16
"""T for a file that does not contain it."""
STRING = h5py.string_dtype()
REFRACTORY_STEPS = 1


def write_netx(network: Network, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a network as a netx file: the weights, biases, thresholds and decays that the integer engine runs on.

    The network is not changed. Average pools become grouped convolutions; more groups than Lava holds become fewer,
    with zeros between. Where padding differs between opposite sides, the kernel gets zeros instead. An affine readout
    becomes a dense layer that never fires. In Lava, feed `(x - mean) / std` to a network with `spike` input; load one
    with `graded` input or `events` with `input_message_bits` of at least the bits of the input (0 for events of 1 bit).

    Warns with a `LavaWarning` if no run in Lava gives the same spikes.

    Raises:
        ConversionError: an argument has the wrong type, or the file exists and `overwrite` is false.
        UnsupportedError: features that netx cannot express or Lava would change, all of them in one message.
    """
    check_network(network, "write_netx", error=ConversionError)
    path = check_path(path, "write_netx takes the path of a file", error=ConversionError)
    refuse_overwriting(path, overwrite=overwrite)
    file = netx_of(network)
    if problems := limit_problems(file):
        raise UnsupportedError(f"{path}: Lava cannot run {'; '.join(problems)}")
    if notes := unlike_lava(network.spec):
        warnings.warn(f"{path}: {'; '.join(notes)}", LavaWarning, stacklevel=2)
    return save_netx(file, path)


def netx_of(network: Network) -> ChipForm:
    """Return the network as the layers of a netx file; see `write_netx`."""
    form = form_of_network(network)
    if problems := _inexpressible(form):
        raise UnsupportedError(f"netx cannot express {'; '.join(problems)}")
    return replace(_in_file(form), spec=network.spec.model_dump_json(exclude={"training"}))


def netx_problems(form: ChipForm) -> list[str]:
    """Return what `write_netx` would refuse in a network."""
    if problems := _inexpressible(form):
        return [f"netx cannot express {'; '.join(problems)}"]
    problems = limit_problems(_in_file(form))
    return [f"Lava cannot run {'; '.join(problems)}"] if problems else []


def _inexpressible(form: ChipForm) -> list[str]:
    found = (_problems(form, i, layer) for i, layer in enumerate(form.layers))
    return [*form_problems(form, KINDS, FEATURES), *form.problems_by_block(found)]


def _problems(form: ChipForm, index: int, layer: ChipLayer) -> Iterator[str]:
    if index and (source := layer.sources[0].source) != index - 1:
        read = f"{source} {form.layers[source].name}".rstrip()
        yield f"it reads block {read}, not the block before it (a .net is a chain of layers)"
    if layer.skips:
        yield "skips (a .net is a chain of layers)"
    if layer.window is not None and layer.delay is not None:
        yield "delays of a convolution (Lava ignores them)"
    if layer.delay is not None and layer.recurrent is not None:
        yield "delays of a recurrent block (Lava would also delay its recurrent synapses)"
    if layer.neurons is not None and layer.neurons.subtracts and layer.kind != "affine":  # which never spikes
        yield "reset by subtraction (convert with --reset zero, or train with neuron.reset: zero)"
    if layer.neurons is not None and layer.neurons.initial_voltage:
        yield (
            f"neuron.start {layer.neurons.start:g}, as voltages start at 0 there (convert with --reset zero, or train "
            "with neuron.start: 0)"
        )
    if layer.neurons is not None and layer.neurons.sigma_output and layer.bias is not None:
        yield "a bias of a readout of values (Lava's sigma neurons have none)"


def _in_file(form: ChipForm) -> ChipForm:
    """Return the layers of a network as a netx file has them: in a chain, without those that say nothing there."""
    found: list[ChipLayer] = []
    for layer in form.layers:
        own = layer
        if layer.kind in ("flatten", "average"):
            if layer.kind == "flatten" and len(form.layers[layer.sources[0].source].shape) == 1:
                continue
            own = replace(layer, shape=(*layer.shape, 1, 1), sources=())
        elif layer.kind != "input":
            kind = "dense" if layer.window is None else "conv"
            own = merge_groups(enlarge_kernel(replace(layer, kind=kind)))
            own = own.with_own(source=len(found) - 1)
        elif layer.neurons is None and len(layer.shape) == 1:
            continue  # netx infers the size of a flat input, but not that of maps
        found.append(own)
    return replace(form, layers=tuple(found))


def read_netx(
    path: Path,
    *,
    time_steps: int | None = None,
    input_bits: int | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Model:
    """Read a netx file into a network with exactly the integers of the file; writing it again restores them.

    Files of snnzoo contain their spec; for other files it is inferred. Their last layer is an affine readout if it has
    no neurons or a threshold that no voltage reaches; otherwise its spikes are counted.

    Args:
        path: the file; CUBA neurons (`LOIHI` in old files) or sigma-delta neurons (`SDNN`).
        time_steps: T, if the file does not contain it or to replace it.
        input_bits: bits of a pixel of still images, for a file without input neurons, which by default takes events;
            bits of frames for one of sigma-delta neurons, by default 8.
        mean, std: normalisation of the training images, if the file does not contain it.

    Raises:
        IntegrityError: the file is damaged, or its layers do not fit each other.
        UnsupportedError: features that our blocks do not have; the message lists all of them.
        ConversionError: `input_bits` for a file of snnzoo, which contains them.
    """
    file, notes = load_netx(path), list[str]()
    if problems := file_problems(file):
        raise UnsupportedError(f"{path} is not a network that our blocks can represent: {'; '.join(problems)}")
    if file.spec is not None and input_bits is not None:
        raise ConversionError(f"{path}: leave out --input-bits: a file of snnzoo contains the bits of its input")
    steps = time_steps or file.time_steps or TIME_STEPS
    form = file
    if file.spec:
        document = _carried(file, path)
    else:
        form = replace(_completed(file, path, input_bits, notes), time_steps=steps)
        document = with_common_neuron(spec_document(form))
    if not (time_steps or file.time_steps):
        notes.append(f"the file does not contain the time steps: T = {TIME_STEPS} is assumed")
    try:
        spec = spec_from_document(document | {"time_steps": steps}, origin=str(path))
    except SpecError as error:
        raise ConversionError(str(error)) from None
    if file.spec:
        check_fit(spec, file.n_numbers, origin=str(path))
        form = _in_spec(file, spec, path)
    model = replace(model_of_form(form, spec, origin=str(path)), notes=tuple(notes))
    says_it = file.spec is not None or spec.input.encoding is not Encoding.SPIKE
    return model if says_it and mean is None and std is None else model.normalizing(mean, std)


def _carried(file: ChipForm, path: Path) -> dict[str, Any]:
    """Return the spec in a file, without weight norm and norm, and with a bias where the file has one."""
    document = carried_spec(file, path).model_dump(mode="json")
    synaptic = [block for block in document["blocks"] if block["kind"] not in {"flatten", "average"}]
    for block, layer in zip(synaptic, file.synaptic, strict=False):  # `_in_spec` refuses other numbers of layers
        settled = {"weight_norm": False, "norm": "none", "bias": layer.bias is not None}
        block |= {name: value for name, value in settled.items() if name in block}
    return document


def _in_spec(file: ChipForm, spec: NetworkSpec, path: Path) -> ChipForm:
    """Return the layers of a file as those of the spec in it, with the groups and kernels that they were made from."""
    synaptic, (first, *_) = iter(file.synaptic), file.layers
    has_input = first.kind == "input" and first.neurons is not None
    layers, missing = [], has_input != spec.input.has_neurons
    for i, (own, shape) in enumerate(zip(spec.layers, spec.shapes, strict=True)):
        layer: ChipLayer | None = ChipLayer(own.kind, shape)
        if i == 0 and has_input:
            layer = first
        elif i and own.kind not in {"flatten", "average"} and (layer := next(synaptic, None)) is not None:
            if (geometry := conv_of(own, shape)) is not None:
                layer = restore_kernel(split_groups(layer, geometry.groups), geometry)
            layer = replace(layer, kind=own.kind, neurons=layer.neurons or INTEGRATOR)
        if layer is None:
            missing = True
        else:
            layers.append(layer)
    if missing or next(synaptic, None) is not None:
        raise IntegrityError(f"{path}: the layers do not match the spec in the attribute {SPEC_ATTRIBUTE}")
    return replace(file, layers=tuple(layers))


def _completed(file: ChipForm, path: Path, input_bits: int | None, notes: list[str]) -> ChipForm:
    """Return the layers of a file of another program with those that it leaves out: the input, and flattens.

    Raises `UnsupportedError` if no layer has synapses.
    """
    layers = list(file.layers)
    if not file.synaptic:
        raise UnsupportedError(f"{path} has no layer with synapses")
    first = layers.pop(0) if layers[0].kind == "input" else None
    shape = _input_shape(first, layers, notes)
    encoding, bits = Encoding.SPIKE, FRAME_BITS
    if first is not None and first.neurons is not None:
        if file.is_sigma_delta:
            encoding, bits = Encoding.FRAMES, input_bits or FRAME_BITS
            if input_bits is None:
                notes.append(
                    f"frames are assumed to be integers of {counted(FRAME_BITS, 'bit')} with sign, in units of 1/64: "
                    "more bits do not change the results (--input-bits)"
                )
        elif first.weight is None:
            notes.append("the input neurons have no weight in the file: 1 is assumed")
    else:
        if input_bits is None:
            encoding, bits = Encoding.EVENTS, 1
            notes.append(
                "the file has no input neurons: spikes that differ from step to step (events) enter the first synapse; "
                "for still images, give the bits of a pixel (--input-bits)"
            )
        else:
            encoding, bits = Encoding.GRADED, input_bits
            notes.append(
                f"the file has no input neurons: pixels in 0..1 enter the first synapse as integers of "
                f"{counted(input_bits, 'bit')}"
            )
        if layers[0].kind == "flatten":
            shape = (prod(shape),)
    # with sigma-delta neurons, each layer of Lava receives what the one before sent in the last step
    shift, found = file.is_sigma_delta, [replace(first, shape=shape) if first else ChipLayer("input", shape)]
    found[0] = replace(found[0], shift=shift)
    for layer in layers:
        before = found[-1].shape
        if len(before) > 1 and (layer.kind == "flatten" or (layer.kind == "dense" and prod(before[1:]) == 1)):
            found.append(ChipLayer("flatten", (prod(before),), (ChipSynapses(len(found) - 1),)))
        if layer.kind == "flatten":
            continue
        after = layer.shape if layer.kind == "conv" else (prod(layer.shape),)
        kind = "affine" if _is_readout(layer, is_last=layer is file.synaptic[-1]) else layer.kind
        neurons = None if kind == "average" else layer.neurons or INTEGRATOR
        sources = (replace(layer.sources[0] if layer.sources else ChipSynapses(0), source=len(found) - 1),)
        found.append(replace(layer, kind=kind, shape=after, sources=sources, neurons=neurons, shift=shift))
    entering = InputSpec.model_construct(shape=shape, encoding=encoding, bits=bits)
    return replace(file, layers=tuple(found), name=name_from(path.stem), input=entering)


def _is_readout(layer: ChipLayer, *, is_last: bool) -> bool:
    """Return whether a layer is an affine readout: a last one without time of its own that never spikes, or values."""
    neurons = layer.neurons or INTEGRATOR
    never_spikes = is_last and not layer.features and layer.window is None and neurons.threshold_mant >= VTH_MANT_MAX
    return never_spikes or neurons.sigma_output


def _input_shape(first: ChipLayer | None, layers: list[ChipLayer], notes: list[str]) -> Shape:
    follows = next(layer for layer in layers if layer.weight is not None and layer.kind != "flatten")
    weight, window = follows.weight, follows.window
    assert weight is not None
    if first is not None:
        shape = first.shape if len(first.shape) != 2 else (1, *first.shape)  # netx leaves out a single channel
        return (prod(shape),) if layers[0].kind == "dense" else shape
    if window is None:
        return (weight.shape[1],)
    sides = [
        (follows.shape[1 + axis] - 1) * window.stride[axis]
        + window.dilation[axis] * (window.kernel[axis] - 1)
        + 1
        - 2 * window.padding[axis]
        for axis in range(2)
    ]
    shape = (weight.shape[1] * window.groups, *sides)
    notes.append(
        f"the file has no input layer: inputs of {list(shape)} are assumed, the smallest for its first convolution"
    )
    return shape


def save_netx(network: ChipForm, path: Path) -> Path:
    """Write layers as a netx file; the same layers give the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if network.spec is not None:
            file.attrs[SPEC_ATTRIBUTE] = network.spec
        for i, layer in enumerate(network.layers):
            _save_layer(file.create_group(f"layer/{i}"), layer)
        file["simulation/Ts"] = np.int64(1)
        file["simulation/tSample"] = np.int64(network.time_steps or 0)
    return write_whole(path, buffer.getvalue())


def _save_layer(group: h5py.Group, layer: ChipLayer) -> None:
    kind = layer.kind if layer.recurrent is None else "dense_rec"
    group["type"] = np.array([kind.encode()], "S10")
    group["shape"] = np.array(layer.shape, np.int64)
    if layer.weight is not None:
        group["weight"] = layer.weight.astype(np.float32)
    if layer.bias is not None:
        group["bias"] = layer.bias.astype(np.float32)
    if layer.recurrent is not None:
        group["weight_rec"] = layer.recurrent.astype(np.float32)
    if layer.delay is not None:
        group["delay"] = layer.delay.astype(np.float32)
    if layer.kind == "dense" and layer.weight is not None:
        group["outFeatures"], group["inFeatures"] = (np.int64(side) for side in layer.weight.shape)
    if layer.window is not None and layer.weight is not None:
        window = layer.window
        group["outChannels"] = np.int64(len(layer.weight))
        group["inChannels"] = np.int64(layer.weight.shape[1] * window.groups)
        group["groups"] = np.int64(window.groups)
        group["kernelSize"] = np.array(window.kernel, np.int64)
        for name in ("stride", "padding", "dilation"):
            group[name] = np.array(getattr(window, name), np.int64)
    if layer.neurons is not None:
        _save_neuron(group.create_group("neuron"), layer.neurons)


def _save_neuron(group: h5py.Group, neuron: ChipNeurons) -> None:
    group["vThMant"] = np.int64(neuron.threshold_mant)
    if neuron.is_sigma_delta:
        group.create_dataset("type", data=SIGMA_DELTA, dtype=STRING)
        group.create_dataset("activation", data=ACTIVATION, dtype=STRING)
        if neuron.sigma_output:
            group["sigma_output"] = np.bool_(True)
        return
    group.create_dataset("type", data=CUBA, dtype=STRING)
    for name, decay in (("iDecay", neuron.current_decay), ("vDecay", neuron.voltage_decay)):
        assert decay is not None
        group[name] = decay if len(decay) > 1 else decay[0]
    group["refDelay"] = np.int64(REFRACTORY_STEPS)
    group["gradedSpike"] = np.bool_(False)
