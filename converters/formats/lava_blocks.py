"""Blocks of a lava-dl state dict, and the spec as far as it follows from their tensors."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import yaml
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE
from converters.formats.export_advice import EXPORT_ADVICE
from converters.weight_norm.norm_styles import all_finite, has_no_direction
from specs.errors import ConversionError, IntegrityError, UnsupportedError

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
        """True if the neurons are sigma-delta neurons."""
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
    """Yield the faults of a block's tensors."""
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
