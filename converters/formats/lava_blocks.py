"""The blocks in a lava-dl state dict, and the spec that their tensors give away."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import yaml
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE
from converters.weight_norm.norm_styles import all_finite, has_no_direction
from specs.errors import ConversionError, IntegrityError, UnsupportedError

__all__ = ["DECAYS", "DIRECTION", "MAGNITUDE", "MEAN", "PLAIN", "LavaBlock", "infer_document", "lava_blocks"]

DECAYS = ("neuron.current_decay", "neuron.voltage_decay")
MEAN = "neuron.norm.running_mean"
PLAIN, MAGNITUDE, DIRECTION = "synapse.weight", "synapse.weight_g", "synapse.weight_v"
OTHER_NAMES = {
    "synapse.parametrizations.weight.original0": MAGNITUDE,
    "synapse.parametrizations.weight.original1": DIRECTION,
}
KNOWN = {"weight", "bias", *DECAYS, MEAN, PLAIN, MAGNITUDE, DIRECTION}
FOREIGN = {
    "neuron.norm.running_var": "a batch norm that scales what its rounded weights gave",
    "delay.delay": "axonal delays",
    "input_synapse": "recurrent synapses",
    "recurrent_synapse": "recurrent synapses",
    "synapse.real": "complex synapses",
    "synapse.imag": "complex synapses",
}
KEY = re.compile(r"(?P<blocks>[A-Za-z_][\w.]*?)\.(?P<index>\d{1,6})\.(?P<name>.+)")
UNKNOWN = "?"
NOTHING = torch.zeros(0)
DAMAGE_TOLD = 8


@dataclass(frozen=True)
class LavaBlock:
    """A block: its place in the network, and its tensors by their names within it."""

    index: int
    tensors: Mapping[str, Tensor]

    @property
    def weight(self) -> Tensor | None:
        """The tensor of the weight's shape, `[out, in / groups, kernel height, kernel width, 1]`; None for an input."""
        return self.tensors.get(DIRECTION, self.tensors.get(PLAIN))

    @property
    def is_conv(self) -> bool:
        """Whether it has a kernel of more than one tap."""
        return self.weight is not None and prod(self.weight.shape[2:]) > 1


def lava_blocks(state: Mapping[str, Tensor], origin: str) -> list[LavaBlock]:
    """The blocks that have tensors, in order; flatten has none.

    Raises:
        ConversionError: this is no state dict of lava-dl blocks.
        UnsupportedError: it is, with what our blocks cannot be; names all of it.
    """
    lists: set[str] = set()
    found: dict[int, dict[str, Tensor]] = {}
    problems: dict[int, str] = {}
    for key, tensor in state.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise ConversionError(
                f"{origin} is no lava-dl checkpoint: it has a tensor {key} (for other networks: migrate)"
            )
        lists.add(match["blocks"])
        index, name = int(match["index"]), OTHER_NAMES.get(match["name"], match["name"])
        foreign = next((what for start, what in FOREIGN.items() if name.startswith(start)), None)
        if foreign or name not in KNOWN:
            problems.setdefault(index, foreign or f"a tensor {match['name']}, which no block of CUBA neurons has")
        found.setdefault(index, {})[name] = tensor
    if len(lists) != 1 or not any(name in tensors for tensors in found.values() for name in DECAYS):
        raise ConversionError(
            f"{origin} is no lava-dl checkpoint: no list of blocks with neurons (for others: migrate)"
        )
    if problems:
        told = "; ".join(f"block {index}: {problem}" for index, problem in sorted(problems.items()))
        raise UnsupportedError(f"{origin} is no network of CUBA blocks: {told}")
    blocks = [LavaBlock(index, tensors) for index, tensors in sorted(found.items())]
    if damage := [f"block {block.index}: {what}" for block in blocks for what in _damage(block)]:
        raise IntegrityError(f"{origin}: {'; '.join(damage[:DAMAGE_TOLD])}")
    if all(block.weight is None for block in blocks):
        raise ConversionError(f"{origin} is no lava-dl checkpoint of a network: no block has synapses")
    return blocks


def _damage(block: LavaBlock) -> Iterator[str]:
    """What no block that ran can hold."""
    for name, tensor in block.tensors.items():
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
            yield f"{name} is not of plain real numbers"
        elif tensor.is_floating_point() and not all_finite(tensor):
            yield f"{name} holds values that are not finite"
        elif tensor.is_floating_point() and not all_finite(tensor.float()):
            yield f"{name} holds values beyond float32"
        elif name == DIRECTION and has_no_direction(tensor):
            yield f"{name} has a direction of zeros, of which weight norm makes NaN"
    yield from (f"{name} is missing, or empty" for name in DECAYS if not block.tensors.get(name, NOTHING).numel())
    weight = block.weight
    if weight is not None and (weight.ndim < 2 or not weight.numel()):
        yield f"a weight of shape {list(weight.shape)}"
    sizes = [block.tensors.get(name, NOTHING).numel() for name in DECAYS]
    n_channels = weight.shape[0] if weight is not None and weight.ndim else max(sizes)
    for name in (*DECAYS, MEAN):
        if (found := block.tensors.get(name, NOTHING).numel()) > 1 and found != n_channels:
            yield f"{name} holds {found} numbers for {n_channels} channels"
    if (DIRECTION in block.tensors) != (MAGNITUDE in block.tensors):
        yield "half of a weight norm"


def infer_document(
    blocks: list[LavaBlock], origin: str, *, name: str, time_steps: int | None, threshold: float | None
) -> dict[str, Any]:
    """The spec of a checkpoint of bootstrap blocks, as far as tensors give it away.

    Raises:
        ConversionError: something cannot be known; names it, with a draft of the spec to fill in.
    """
    missing = [
        f"{what} ({option})"
        for what, option, value in (
            ("the time steps", "--time-steps", time_steps),
            ("the threshold", "--threshold", threshold),
        )
        if value is None
    ]
    if not _has_input(blocks):
        missing.append("what the input is (there is no input block: graded, of how many bits? 1 for spikes)")
    convs = [block for block in blocks if block.is_conv]
    if convs:
        missing.append(
            f"stride, padding and dilation of block{'s' * (len(convs) > 1)} "
            f"{', '.join(str(block.index) for block in convs)}, and the size of the images"
        )
    document = _draft(blocks, name, time_steps, threshold)
    if missing:
        raise ConversionError(
            "\n- ".join([f"{origin}: a lava-dl state dict does not hold", *missing]) + "\n"
            "Put the .net that lava-dl exported beside it under the same name, or fill in this draft and give it as "
            "--spec; its last block is dense if its spikes count:\n\n"
            f"{yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110)}"
        )
    return document


def _draft(blocks: list[LavaBlock], name: str, time_steps: int | None, threshold: float | None) -> dict[str, Any]:
    """A spec with question marks."""
    weights = [(block, block.weight) for block in blocks if block.weight is not None]
    (first, first_weight), (last, _) = weights[0], weights[-1]
    decays = [round(float(first.tensors[key].flatten()[0]) / DECAY_ONE, 6) for key in DECAYS]
    layers: list[dict[str, Any]] = []
    channels = first_weight.shape[1]
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
        "input": {
            "shape": [first_weight.shape[1], *([UNKNOWN, UNKNOWN] if first.is_conv else [])],
            **({"exact_input": False} if _has_input(blocks) else {"encoding": "graded", "bits": UNKNOWN}),
        },
        "blocks": layers,
    }


def _has_input(blocks: list[LavaBlock]) -> bool:
    return blocks[0].weight is None
