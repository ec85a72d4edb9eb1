"""lava-dl checkpoints (`.pt`): state dicts of networks of its bootstrap or slayer blocks, CUBA or sigma-delta."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE
from bootstrap_core.functional.quantize import quantize_decay, quantize_weight
from bootstrap_core.network.build import build_network
from converters.chip.form import kind_problems
from converters.formats.file_kind import EXPORT_ADVICE
from converters.formats.netx.netx_model import read_netx
from converters.formats.netx.netx_reader import load_netx
from converters.formats.state_dict_file import open_state_dict
from converters.model import Model
from converters.weight_norm.norm_styles import all_finite, has_no_direction
from specs.errors import ConversionError, IntegrityError, SpecError, UnsupportedError
from specs.io import name_from, spec_from_document
from specs.network import NetworkSpec
from specs.words import counted

DECAYS = ("neuron.current_decay", "neuron.voltage_decay")
THRESHOLD, NEURON_BIAS = "neuron.delta.threshold", "neuron.bias"
"""Tensors of sigma-delta neurons; the bias is a single 0 unless one was set."""
NEURONS = (*DECAYS, "neuron.sin_decay", THRESHOLD)
"""Tensors by which lava-dl's blocks are known: of CUBA, resonate-and-fire and sigma-delta neurons."""
DELAY = "delay.delay"
MEAN = "neuron.norm.running_mean"
PLAIN, MAGNITUDE, DIRECTION = "synapse.weight", "synapse.weight_g", "synapse.weight_v"
OTHER_NAMES = {
    "synapse.parametrizations.weight.original0": MAGNITUDE,
    "synapse.parametrizations.weight.original1": DIRECTION,
}
SYNAPSES = {PLAIN, MAGNITUDE, DIRECTION}
KNOWN = {"weight", "bias", *DECAYS, MEAN, *SYNAPSES}
KNOWN_OF_SIGMA_DELTA = {THRESHOLD, NEURON_BIAS, MEAN, *SYNAPSES}
FOREIGN = {
    "neuron.norm.running_var": "a batch norm that scales the output of rounded weights",
    DELAY: "axonal delays",
    "input_synapse": "recurrent synapses",
    "recurrent_synapse": "recurrent synapses",
    "synapse.real": "complex synapses",
    "synapse.imag": "complex synapses",
    "neuron.sin_decay": "resonate-and-fire neurons",
    "neuron.cos_decay": "resonate-and-fire neurons",
    "neuron.threshold_decay": "neurons with adaptive thresholds",
    "neuron.refractory_decay": "neurons with adaptive thresholds",
}
"""Tensors that our blocks do not have, by the beginning of their names within a block."""
KEY = re.compile(r"(?P<blocks>[A-Za-z_][\w.]*?)\.(?P<index>\d{1,6})\.(?P<name>.+)")
UNKNOWN = "?"
TAKES_EVENTS = "without an input block the network takes events; for still images, give --input-bits"
NOTHING = torch.zeros(0)
DAMAGE_TOLD = 8
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


@dataclass(frozen=True)
class LavaBlock:
    """Block of a network: its index, and its tensors by their names within the block."""

    index: int
    tensors: Mapping[str, Tensor]

    @property
    def weight(self) -> Tensor | None:
        """Weight or its direction, `[out, in / groups, kernel height, kernel width, 1]`; None for an input block."""
        return self.tensors.get(DIRECTION, self.tensors.get(PLAIN))

    @property
    def is_sigma_delta(self) -> bool:
        return THRESHOLD in self.tensors

    @property
    def is_conv(self) -> bool:
        """True if the kernel has more than one tap."""
        return self.weight is not None and prod(self.weight.shape[2:]) > 1


def lava_blocks(state: Mapping[str, Tensor], origin: str) -> list[LavaBlock]:
    """Return the blocks that have tensors, in order; a flatten has none. Blocks that snnzoo lacks are all named."""
    lists: set[str] = set()
    found: dict[int, dict[str, Tensor]] = {}
    problems: dict[int, str] = {}
    is_sigma_delta = any(key.endswith(f".{THRESHOLD}") for key in state)
    known, kind = (KNOWN_OF_SIGMA_DELTA, "sigma-delta") if is_sigma_delta else (KNOWN, "CUBA")
    for key, tensor in state.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise _foreign(origin, f"it has a tensor {key}")
        lists.add(match["blocks"])
        index, name = int(match["index"]), OTHER_NAMES.get(match["name"], match["name"])
        if name == DELAY and tensor.layout is torch.strided and not tensor.is_quantized and not tensor.any():
            continue  # as without delays
        foreign = next((what for start, what in FOREIGN.items() if name.startswith(start)), None)
        if foreign or name not in known:
            problems.setdefault(index, foreign or f"a tensor {match['name']}, which {kind} blocks do not have")
        found.setdefault(index, {})[name] = tensor
    if len(lists) != 1 or not any(name in tensors for tensors in found.values() for name in NEURONS):
        raise _foreign(origin, "no list of blocks has neurons")
    if problems:
        told = "; ".join(f"block {index}: {problem}" for index, problem in sorted(problems.items()))
        raise UnsupportedError(f"{origin} is not a network of {kind} blocks: {told}")
    blocks = [LavaBlock(index, tensors) for index, tensors in sorted(found.items())]
    if damage := [f"block {block.index}: {what}" for block in blocks for what in _damage(block)]:
        raise IntegrityError(f"{origin}: {'; '.join(damage[:DAMAGE_TOLD])}")
    if all(block.weight is None for block in blocks):
        raise ConversionError(f"{origin} is not a lava-dl checkpoint of a network: no block has synapses")
    return blocks


def _foreign(origin: str, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"{origin} is not a lava-dl checkpoint: {why}. zoo migrate changes the weight norms of any state dict.\n"
        f"{EXPORT_ADVICE}"
    )


def _damage(block: LavaBlock) -> Iterator[str]:
    for name, tensor in block.tensors.items():
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
            yield f"{name} is not a dense tensor of real numbers"
        elif tensor.is_floating_point() and not all_finite(tensor):
            yield f"{name} holds values that are not finite"
        elif tensor.is_floating_point() and not all_finite(tensor.float()):
            yield f"{name} holds values beyond the range of float32"
        elif name == DIRECTION and has_no_direction(tensor):
            yield f"{name} has a channel of zeros, for which weight norm returns NaN"
    needed = (THRESHOLD,) if block.is_sigma_delta else DECAYS
    yield from (f"{name} is missing or empty" for name in needed if not block.tensors.get(name, NOTHING).numel())
    weight = block.weight
    if weight is not None and (weight.ndim < 2 or not weight.numel()):
        yield f"the weight has shape {list(weight.shape)}, expected two axes or more and no side of 0"
    if len(block.tensors.get(THRESHOLD, NOTHING).unique()) > 1:
        yield f"{THRESHOLD} differs between channels"
    sizes = [block.tensors.get(name, NOTHING).numel() for name in needed]
    n_channels = weight.shape[0] if weight is not None and weight.ndim else max(sizes)
    for name in (*DECAYS, MEAN, NEURON_BIAS):
        if (found := block.tensors.get(name, NOTHING).numel()) > 1 and found != n_channels:
            yield f"{name} has {found} values, expected 1 or {n_channels}"
    if (DIRECTION in block.tensors) != (MAGNITUDE in block.tensors):
        yield "a weight norm needs magnitude and direction, and one of them is missing"


def infer_document(
    blocks: list[LavaBlock],
    origin: str,
    *,
    name: str,
    time_steps: int | None,
    threshold: float | None,
    input_bits: int | None,
) -> dict[str, Any]:
    """Return the spec of a checkpoint of bootstrap blocks, if it follows from the tensors.

    Otherwise the error lists what is missing, with a draft of the spec to fill in.
    """
    if blocks[0].is_sigma_delta:
        raise ConversionError(
            f"{origin}: of a sigma-delta network, give the --spec, or put the .net that lava-dl exported beside it, "
            "under the same name"
        )
    missing = ["the time steps (--time-steps)"] if time_steps is None else []
    missing += ["the threshold (--threshold)"] if threshold is None else []
    if blocks[0].weight is None and input_bits is not None:
        raise ConversionError(f"{origin} has an input block, which takes any pixels: leave out --input-bits")
    convs = [block for block in blocks if block.is_conv]
    if convs:
        missing.append(
            f"stride, padding and dilation of block{'s' * (len(convs) > 1)} "
            f"{', '.join(str(block.index) for block in convs)}, and the size of the images"
        )
    document = _draft(blocks, name, time_steps, threshold, input_bits)
    if missing:
        counts = "if the spikes of the last block are counted, change its kind to dense"
        advice = f"{counts}; {TAKES_EVENTS}" if document["input"].get("encoding") == "events" else counts
        raise ConversionError(
            "\n- ".join([f"{origin}: a lava-dl state dict does not contain", *missing]) + "\n"
            "Put the .net that lava-dl exported beside it under the same name, or fill in this draft and give it as "
            f"--spec; {advice}:\n\n"
            f"{yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110)}"
        )
    return document


def _draft(
    blocks: list[LavaBlock], name: str, time_steps: int | None, threshold: float | None, input_bits: int | None
) -> dict[str, Any]:
    """Return a spec document with a question mark for each unknown value."""
    weights = [(block, block.weight) for block in blocks if block.weight is not None]
    (first, first_weight), (last, _) = weights[0], weights[-1]
    decays = [round(float(first.tensors[key].flatten()[0]) / DECAY_ONE, 6) for key in DECAYS]
    layers: list[dict[str, Any]] = []
    channels = first_weight.shape[1]
    entering: dict[str, Any] = {"exact_input": False}
    if blocks[0].weight is not None:
        encoding, bits = ("events", 1) if input_bits is None else ("graded", input_bits)
        entering = {"encoding": encoding, "bits": bits}
    for block, weight in weights:
        outputs, inputs, *kernel = weight.shape[:4]
        if block.is_conv and inputs == outputs == 1 < channels:
            layers.append({"kind": "avg_pool", "kernel": kernel, "stride": UNKNOWN, "padding": UNKNOWN})
            continue
        if block.is_conv:
            unknown = dict.fromkeys(("stride", "padding", "dilation"), UNKNOWN)
            groups = channels // inputs
            layers.append({"kind": "conv", "channels": outputs, "kernel": kernel, **unknown, "groups": groups})
        else:
            if layers and layers[-1]["kind"] in {"conv", "avg_pool"}:
                layers.append({"kind": "flatten"})
            layers.append({"kind": "affine" if block is last else "dense", "features": outputs})
        channels = outputs
    return {
        "name": name,
        "time_steps": time_steps or UNKNOWN,
        "delay_shift": True,
        "neuron": {"threshold": threshold or UNKNOWN, "current_decay": decays[0], "voltage_decay": decays[1]},
        "input": {"shape": [first_weight.shape[1], *([UNKNOWN, UNKNOWN] if first.is_conv else [])], **entering},
        "blocks": layers,
    }


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
