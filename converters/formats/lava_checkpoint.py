"""lava-dl checkpoints (`.pt`): state dicts of networks of its bootstrap or slayer blocks, CUBA or sigma-delta."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE
from bootstrap_core.functional.quantize import quantize_decay, quantize_weight
from bootstrap_core.network.build import build_network
from converters.chip.form import kind_problems
from converters.formats.lava_blocks import (
    DECAYS,
    DIRECTION,
    MAGNITUDE,
    MEAN,
    NEURON_BIAS,
    PLAIN,
    TAKES_EVENTS,
    THRESHOLD,
    LavaBlock,
    infer_document,
    lava_blocks,
)
from converters.formats.netx.netx_model import read_netx
from converters.formats.netx.netx_reader import load_netx
from converters.formats.state_dict_file import open_state_dict
from converters.model import Model
from specs.errors import ConversionError, IntegrityError, SpecError, UnsupportedError
from specs.io import name_from, spec_from_document
from specs.network import NetworkSpec
from specs.words import counted

KINDS = ("dense", "conv", "avg_pool", "flatten", "affine")
"""Kinds of blocks that a lava-dl checkpoint can hold."""

OUR_NAMES = {
    **{name: name for name in ("weight", "bias", *DECAYS, PLAIN)},
    MEAN: "norm.running_mean",
    MAGNITUDE: "synapse.parametrizations.weight.original0",
    DIRECTION: "synapse.parametrizations.weight.original1",
}
SIGMA_DELTA_NOTE = (
    "lava-dl's blocks round frames to 2/64 and messages not at all: values agree with them for even frames, up to the "
    "rounding of messages to 1/4096"
)
INPUT_DEFAULTS = {"weight": torch.ones(1), "bias": torch.zeros(1)}


def read_checkpoint(
    path: Path,
    *,
    spec: NetworkSpec | None = None,
    time_steps: int | None = None,
    threshold: float | None = None,
    input_bits: int | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Model:
    """Read the network of a checkpoint file; see `model_of_checkpoint`.

    Without `spec`, the missing values are read from the `.net` of the same name beside it, which lava-dl's own scripts
    export. `mean` and `std` are the normalisation of the training images, if there is no spec.
    """
    with open_state_dict(path) as file:
        state = {
            name: file.whole(name) if value.layout is torch.strided else value for name, value in file.tensors.items()
        }
    if spec is not None and input_bits is not None:
        raise ConversionError(f"{path}: the bits of pixels are those of the spec; leave out --input-bits")
    beside, known, notes, spec_from = path.with_suffix(".net"), spec, tuple[str, ...](), ""
    if spec is None and beside.is_file():
        says_steps = time_steps is None and load_netx(beside).time_steps is not None
        taken = "threshold, time steps and geometry" if says_steps else "threshold and geometry"
        exported = read_netx(beside, time_steps=time_steps, input_bits=input_bits, mean=mean, std=std)
        notes = (f"{taken} are those of {beside.name} beside it", *exported.notes)
        known, spec_from = _as_lava_runs(exported.spec), f"{beside.name} beside it"
    model = model_of_checkpoint(
        state,
        origin=str(path),
        spec=known,
        spec_from=spec_from,
        time_steps=time_steps,
        threshold=threshold,
        input_bits=input_bits,
    )
    model = replace(model, notes=(*model.notes, *notes))
    is_told = known is not None if spec is None else mean is None and std is None
    return model if is_told else model.normalizing(mean, std)


def model_of_checkpoint(
    state: Mapping[str, Tensor],
    *,
    origin: str,
    spec: NetworkSpec | None = None,
    spec_from: str = "",
    time_steps: int | None = None,
    threshold: float | None = None,
    input_bits: int | None = None,
) -> Model:
    """Return the network of a lava-dl state dict. It can run as SNN; for ANN mode, fit its activations first.

    A state dict does not contain threshold, time steps and the geometry of convolutions. They come from `spec`. Without
    a spec, a dense network needs only `time_steps` and `threshold`; it then runs as lava-dl's blocks do: an empty step
    after each block, pixels rounded to 2/64, and an affine readout as last block, which a note says. Without an input
    block it takes events, or with `input_bits` still images whose pixels have so many bits. Norms and decays are always
    read from the state dict. Messages call the spec `spec_from`, if that is given.
    """
    notes: tuple[str, ...] = ()
    blocks = lava_blocks(state, origin)
    if spec is None:
        name = name_from(Path(origin).stem)
        document = infer_document(
            blocks, origin, name=name, time_steps=time_steps, threshold=threshold, input_bits=input_bits
        )
        notes = ("the last block is read as an affine readout; if it was a Dense, with counted spikes, give --spec",)
        if blocks[0].weight is not None and input_bits is None:
            notes += (TAKES_EVENTS,)
    else:
        if problems := kind_problems(((layer.kind, layer.extras) for layer in spec.layers), KINDS):
            raise UnsupportedError(f"{origin}: a lava-dl checkpoint cannot express {'; '.join(problems)}")
        if spec.gives_values != blocks[0].is_sigma_delta:
            neurons = ("CUBA", "sigma-delta") if blocks[0].is_sigma_delta else ("sigma-delta", "CUBA")
            raise ConversionError(f"{origin}: the spec has {neurons[0]} neurons, the checkpoint {neurons[1]} neurons")
        if beside := spec.beside_chain:
            raise ConversionError(
                f"{origin}: lava-dl's blocks form a chain, but the spec of {spec.name} has skips or branches "
                f"(block {', '.join(map(str, beside))})"
            )
        if threshold is not None:
            raise ConversionError(
                f"{origin}: thresholds come from the spec or the .net beside it; leave out --threshold"
            )
        document = spec.model_dump(mode="json")
    if blocks[0].is_sigma_delta:
        notes = (SIGMA_DELTA_NOTE,)
    if time_steps is not None:
        document["time_steps"] = time_steps
    spec_from = spec_from or f"the spec of {document['name']}"
    layers = _layers_with_tensors(document, blocks, origin, spec_from)
    for layer, block in zip(layers.values(), blocks, strict=True):
        _settle(layer, document["neuron"], block, origin)
    try:
        settled = spec_from_document(document, origin=origin)
    except SpecError as error:
        raise ConversionError(str(error)) from None

    tensors = build_network(settled, seed=0).state_dict()
    problems = []
    for (place, layer), block in zip(layers.items(), blocks, strict=True):
        for name, value in _our_tensors(block).items():
            if _is_pool(layer) and name == OUR_NAMES[PLAIN]:
                continue  # in the spec, as the gain of the pool
            key = f"blocks.{place}.{name}"
            if key not in tensors:
                problems.append(f"{key} belongs to no block of the spec")
            elif _sides(value) != _sides(tensors[key]):
                problems.append(f"{key} has shape {list(value.shape)}, expected {list(tensors[key].shape)}")
            else:
                tensors[key] = value.reshape(tensors[key].shape)
    if problems:
        raise IntegrityError(f"{origin} does not fit {spec_from}: {'; '.join(problems)}")
    return Model(settled, tensors, notes=notes)


def _as_lava_runs(spec: NetworkSpec) -> NetworkSpec:
    """Return the spec of an exported network as lava-dl's blocks run it: with empty steps and untruncated input.

    Its sigma-delta blocks have no empty steps.
    """
    document = spec.model_dump(mode="json") | {"delay_shift": not spec.gives_values}
    if spec.input.encoding == "spike":
        document["input"]["exact_input"] = False
    return spec_from_document(document)


def _layers_with_tensors(
    document: dict[str, Any], blocks: list[LavaBlock], origin: str, spec_from: str
) -> dict[int, dict[str, Any]]:
    """Return the layers of a spec that have tensors in a checkpoint, by their index in the network."""
    layers = [document["input"], *document["blocks"]]
    found = {i: layer for i, layer in enumerate(layers) if layer.get("kind") != "flatten"}
    if document["input"].get("encoding") in {"graded", "events"}:
        del found[0]
    kinds = ["input" if block.weight is None else "synapses" for block in blocks]
    wanted = ["input" if i == 0 else "synapses" for i in found]
    if kinds != wanted:
        encodings = "; without an input block, input.encoding must be graded or events" if "input" not in kinds else ""
        raise IntegrityError(f"{origin} has {_counted(kinds)}; {spec_from} has {_counted(wanted)}{encodings}")
    return found


def _counted(kinds: list[str]) -> str:
    n_synapses = counted(kinds.count("synapses"), "block")
    return f"{'an' if 'input' in kinds else 'no'} input block and {n_synapses} with synapses"


def _settle(layer: dict[str, Any], default: dict[str, Any], block: LavaBlock, origin: str) -> None:
    """Write the values that follow from a block's tensors into the layer's spec."""
    if _is_pool(layer) and block.weight is not None:
        wanted, kernel = list(layer["kernel"]), list(block.weight.shape[2:4])
        if kernel != wanted or block.weight.unique().numel() > 1:
            found = "its weights differ" if kernel == wanted else f"its kernel is {kernel}"
            raise IntegrityError(f"{origin}: block {block.index} is not a pool with kernel {wanted}: {found}")
        layer["gain"] = float(block.weight.double().sum())
    elif block.weight is not None:
        layer["weight_norm"] = DIRECTION in block.tensors
        layer["bias"] = _sigma_delta_bias(block) is not None
    if block.is_sigma_delta:
        threshold = float(block.tensors[THRESHOLD].flatten()[0])
        layer["neuron"] = {"kind": "sigma_delta", "threshold": threshold}
        return
    if MEAN in block.tensors or "norm" in layer:
        layer["norm"] = "mean_only" if MEAN in block.tensors else "none"
    neuron = dict(layer.get("neuron") or default)
    for name in DECAYS:
        field, decay = name.removeprefix("neuron."), block.tensors[name].flatten()
        if len(decay) > 1:
            neuron["learn_decays"] = "per_channel"
        elif round(float(decay)) != round(DECAY_ONE * neuron[field]):
            neuron[field] = round(float(decay) / DECAY_ONE, 6)
    if neuron != default:
        layer["neuron"] = neuron


def _is_pool(layer: Mapping[str, Any]) -> bool:
    return layer.get("kind") == "avg_pool"


def _our_tensors(block: LavaBlock) -> dict[str, Tensor]:
    """Return the block's tensors in our units, by our names within a block."""
    if block.is_sigma_delta:
        found = {name: block.tensors[name] for name in (PLAIN, MAGNITUDE, DIRECTION) if name in block.tensors}
        found |= {} if (bias := _sigma_delta_bias(block)) is None else {"bias": bias}
        return {OUR_NAMES[name]: tensor.detach().float() for name, tensor in found.items()}
    tensors = {OUR_NAMES[name]: tensor.detach().float() for name, tensor in block.tensors.items()}
    n_decays = max(block.tensors[name].numel() for name in DECAYS)
    for name in DECAYS:
        tensors[name] = (tensors[name].flatten() / DECAY_ONE).expand(n_decays).clone()
    if MEAN in block.tensors:
        # lava-dl subtracts the mean from the current; we subtract it from the weighted input, which adds up in the
        # current to 1 / decay times as much.
        tensors[OUR_NAMES[MEAN]] = tensors[OUR_NAMES[MEAN]] * quantize_decay(tensors[DECAYS[0]])
    return tensors if block.weight is not None else INPUT_DEFAULTS | tensors


def _sigma_delta_bias(block: LavaBlock) -> Tensor | None:
    """Return the bias of sigma-delta neurons, `[out]`: their own, less the mean of a norm on the weights' grid."""
    bias, weight = block.tensors.get(NEURON_BIAS), block.weight
    if weight is None or not block.is_sigma_delta:
        return None
    total = torch.zeros(len(weight)) if bias is None else bias.detach().float().flatten().expand(len(weight))
    if MEAN in block.tensors:
        total = total - quantize_weight(block.tensors[MEAN].detach().float())
    return total if bool(total.any()) or MEAN in block.tensors else None


def _sides(tensor: Tensor) -> list[int]:
    """Return the shape without sides of 1: lava-dl's weights have five axes."""
    return [side for side in tensor.shape if side != 1]
