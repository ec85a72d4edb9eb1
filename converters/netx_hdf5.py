"""netx HDF5 (`.net`): the network description that Lava's netx loads."""

import io
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.blocks import AffineBlock, Block, FlattenBlock, InputBlock, SpikingBlock
from bootstrap_core.fixed_point import BIAS_MANT_MAX, BIAS_MANT_MIN, DECAY_ONE, MANT, READOUT_THRESHOLD_MANT
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.network import Network
from bootstrap_core.neuron import CubaNeuron
from bootstrap_core.synapse import DenseSynapse
from specs.errors import UnsupportedError
from specs.fields import Shape
from specs.neuron import Reset
from specs.whole_file import write_whole

__all__ = ["SPEC_ATTRIBUTE", "write_netx"]

SPEC_ATTRIBUTE = "snnzoo_spec"
"""Attribute of the file's root with the spec as JSON: netx has no place for names, means and surrogate gradients."""

STRING = h5py.string_dtype()
REFRACTORY_STEPS = 1


def write_netx(network: Network, path: Path) -> Path:
    """Write the network for netx: the weights, biases, thresholds and decays that the integer engine runs on.

    The network is only read. Average pools become grouped convolutions, the readout a dense layer that never fires.
    Feed a `spike` network `(x - mean) / std`; load a `graded` one with `input_message_bits` of at least its bits.

    Raises:
        UnsupportedError: what netx cannot express, all of it at once.
    """
    _refuse(network)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file, torch.no_grad():
        file.attrs[SPEC_ATTRIBUTE] = network.spec.model_dump_json(exclude={"training"})
        shapes, n_layers = network.spec.shapes, 0
        for i, block in enumerate(network.blocks):
            before = shapes[i - 1] if i else shapes[0]
            if _is_layer(block, before):
                _write_layer(file.create_group(f"layer/{n_layers}"), block, before, shapes[i])
                n_layers += 1
        file["simulation/Ts"] = np.int64(1)
        file["simulation/tSample"] = np.int64(network.spec.time_steps)
    return write_whole(path, buffer.getvalue())


def _refuse(network: Network) -> None:
    problems = []
    for i, block in enumerate(network.blocks):
        neuron = getattr(block, "neuron", None)
        if not isinstance(neuron, CubaNeuron):
            continue
        if neuron.spec.reset is Reset.SUBTRACT:
            problems.append(f"block {i}: reset by subtraction (train with neuron.reset: zero)")
        for name, decay in zip(("current_decay", "voltage_decay"), neuron.quantized_decays(), strict=True):
            if int(decay.unique().numel()) > 1:
                problems.append(f"block {i}: a {name} for each channel (train with learn_decays: shared)")
        if isinstance(block, SpikingBlock | AffineBlock) and (bias := block.quantized_bias()) is not None:
            mant = (bias * MANT).round()
            if bool(((mant < BIAS_MANT_MIN) | (mant > BIAS_MANT_MAX)).any()):
                problems.append(f"block {i}: a bias mantissa outside {BIAS_MANT_MIN} to {BIAS_MANT_MAX}")
    if problems:
        raise UnsupportedError("netx cannot express " + "; ".join(problems))


def _is_layer(block: torch.nn.Module, before: Shape) -> bool:
    """Whether the block is a layer for netx: graded input is not (it is injected), nor flattening what is flat."""
    if isinstance(block, FlattenBlock):
        return len(before) > 1
    return isinstance(block, InputBlock | SpikingBlock | AffineBlock)


def _write_layer(group: h5py.Group, block: Block | torch.nn.Module, before: Shape, after: Shape) -> None:
    match block:
        case InputBlock():
            _write_type(group, "input", after)
            group["weight"] = _mants(quantize_weight(block.weight))
            group["bias"] = _mants(quantize_weight(block.bias))
            _write_neuron(group, block.neuron, block.neuron.threshold_mant)
        case FlattenBlock():
            _write_type(group, "flatten", (*after, 1, 1))
        case AffineBlock():
            _write_synapse(group, block, before, after)
            _write_neuron(group, block.neuron, READOUT_THRESHOLD_MANT)
        case SpikingBlock():
            _write_synapse(group, block, before, after)
            _write_neuron(group, block.neuron, block.neuron.threshold_mant)


def _write_synapse(group: h5py.Group, block: SpikingBlock | AffineBlock, before: Shape, after: Shape) -> None:
    synapse = block.synapse
    if isinstance(synapse, DenseSynapse):
        _write_type(group, "dense", after)
        group["inFeatures"], group["outFeatures"] = np.int64(before[0]), np.int64(after[0])
    else:
        _write_type(group, "conv", after)
        group["inChannels"], group["outChannels"] = np.int64(before[0]), np.int64(after[0])
        group["groups"] = np.int64(synapse.spec.groups)
        for key, pair in (
            ("kernelSize", synapse.spec.kernel),
            ("stride", synapse.spec.stride),
            ("padding", synapse.spec.padding),
            ("dilation", synapse.spec.dilation),
        ):
            group[key] = np.array(pair, np.int64)
    group["weight"] = _mants(block.quantized_weight())
    bias = block.quantized_bias()
    if bias is not None:
        group["bias"] = _mants(bias)


def _write_type(group: h5py.Group, kind: str, shape: Shape) -> None:
    group["type"] = np.array([kind.encode()], "S10")
    group["shape"] = np.array(shape, np.int64)


def _write_neuron(group: h5py.Group, neuron: CubaNeuron, threshold_mant: int) -> None:
    current_decay, voltage_decay = (round(float(decay[0]) * DECAY_ONE) for decay in neuron.quantized_decays())
    neuron_group = group.create_group("neuron")
    neuron_group.create_dataset("type", data="CUBA", dtype=STRING)
    neuron_group["iDecay"], neuron_group["vDecay"] = np.int64(current_decay), np.int64(voltage_decay)
    neuron_group["vThMant"] = np.int64(threshold_mant)
    neuron_group["refDelay"] = np.int64(REFRACTORY_STEPS)
    neuron_group["gradedSpike"] = np.bool_(False)


def _mants(x: Tensor) -> npt.NDArray[np.float32]:
    """Mantissas in units of 1/64; netx takes them as float32 and truncates, so they are whole already."""
    mants: npt.NDArray[np.float32] = (x.cpu() * MANT).round().numpy().astype(np.float32)
    return mants
