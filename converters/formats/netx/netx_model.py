"""Convert networks to netx files and back."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import BIAS_MANT_MAX, BIAS_MANT_MIN, DECAY_ONE, MANT, READOUT_THRESHOLD_MANT
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.network.base_block import SynapticBlock
from bootstrap_core.network.blocks import (
    AffineBlock,
    AverageBlock,
    EventInputBlock,
    FlattenBlock,
    GradedInputBlock,
    InputBlock,
    SpikingBlock,
)
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network, check_network
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sigma_delta import DeltaInputBlock, SigmaDeltaBlock, SigmaDeltaNeuron, ValueBlock
from bootstrap_core.network.synapse import PoolSynapse
from converters.formats.hdf5.hdf5_node import IntArray
from converters.formats.netx.lava_limits import (
    LavaWarning,
    enlarge_kernel,
    limit_problems,
    merge_groups,
    restore_kernel,
    split_groups,
    unlike_lava,
)
from converters.formats.netx.netx_layers import (
    INTEGRATOR,
    SIGMA_DELTA_NAME,
    ConvGeometry,
    NetxFile,
    NetxLayer,
    NetxNeuron,
)
from converters.formats.netx.netx_reader import SPEC_ATTRIBUTE, load_netx
from converters.formats.netx.netx_spec import spec_of_netx
from converters.formats.netx.netx_writer import save_netx
from converters.formats.refusals import SIGMA_DELTA, problems_by_place, refuse_unknown_kinds, unknown_kinds
from converters.model import Model, check_fit
from specs.arguments import check_path
from specs.errors import ConversionError, IntegrityError, UnsupportedError
from specs.fields import Shape
from specs.layers.block import (
    AffineSpec,
    AverageSpec,
    AvgPoolSpec,
    ConvSpec,
    DenseSpec,
    FlattenSpec,
    LayerSpec,
    skips_of,
)
from specs.layers.input import Encoding
from specs.layers.neuron import LearnDecays, Reset
from specs.network import NetworkSpec

__all__ = ["layer_of_block", "netx_of", "read_netx", "write_netx"]

KINDS = (DenseSpec, ConvSpec, AvgPoolSpec, FlattenSpec, AffineSpec, AverageSpec)
EXTRAS = ("recurrent", "delays", SIGMA_DELTA)
"""Kinds of blocks that a .net can hold, and their extras."""


def write_netx(network: Network, path: str | Path) -> Path:
    """Write a network as a netx file: the weights, biases, thresholds and decays that the integer engine runs on.

    The network is not changed. Average pools become grouped convolutions; more groups than Lava holds become fewer,
    with zeros between. Where padding differs between opposite sides, the kernel gets zeros instead. An affine readout
    becomes a dense layer that never fires. In Lava, feed `(x - mean) / std` to a network with `spike` input; load one
    with `graded` input or `events` with `input_message_bits` of at least the bits of the input (0 for events of 1 bit).

    Warns with a `LavaWarning` if no run in Lava gives the same spikes.

    Raises:
        ConversionError: an argument has the wrong type.
        UnsupportedError: features that netx cannot express or Lava would change, all of them in one message.
    """
    check_network(network, "write_netx", error=ConversionError)
    path = check_path(path, "write_netx takes the path of a file", error=ConversionError)
    file = netx_of(network)
    if problems := limit_problems(file):
        raise UnsupportedError(f"{path}: Lava cannot run {'; '.join(problems)}")
    if notes := unlike_lava(network.spec):
        warnings.warn(f"{path}: {'; '.join(notes)}", LavaWarning, stacklevel=2)
    return save_netx(file, path)


@torch.no_grad()
def netx_of(network: Network) -> NetxFile:
    """Return the network as netx layers; see `write_netx`."""
    _refuse(network)
    shapes = (network.spec.input.shape, *network.spec.shapes)
    layers = (layer_of_block(block, *shapes[i : i + 2]) for i, block in enumerate(network.blocks))
    return NetxFile(
        layers=tuple(merge_groups(enlarge_kernel(layer)) for layer in layers if layer is not None),
        time_steps=network.spec.time_steps,
        spec=network.spec.model_dump_json(exclude={"training"}),
    )


def _refuse(network: Network) -> None:
    problems = unknown_kinds(network.spec, KINDS, EXTRAS)
    problems += problems_by_place("block", map(_problems, network.spec.layers, network.blocks))
    if problems:
        raise UnsupportedError("netx cannot express " + "; ".join(problems))


def _problems(layer: LayerSpec, block: torch.nn.Module) -> Iterator[str]:
    """Yield the features of a block that netx cannot express."""
    if skips_of(layer):
        yield "skips (a .net is a chain of layers)"
    if isinstance(layer, ConvSpec) and layer.delays:
        yield "delays of a convolution (Lava ignores them)"
    if isinstance(layer, DenseSpec) and layer.delays and layer.recurrent:
        yield "delays of a recurrent block (Lava would also delay its recurrent synapses)"
    neuron = None if isinstance(block, AffineBlock) else getattr(block, "neuron", None)  # an affine readout never fires
    if isinstance(neuron, CubaNeuron) and neuron.spec.reset is Reset.SUBTRACT:
        yield "reset by subtraction (convert with --reset zero, or train with neuron.reset: zero)"
    if isinstance(block, ValueBlock) and block.bias is not None:
        yield "a bias of a readout of values (Lava's sigma neurons have none)"
    if isinstance(block, SynapticBlock) and (bias := block.quantized_bias()) is not None:
        mant = (bias * MANT).round()
        if bool(((mant < BIAS_MANT_MIN) | (mant > BIAS_MANT_MAX)).any()):
            yield f"a bias mantissa outside {BIAS_MANT_MIN} to {BIAS_MANT_MAX}"


@torch.no_grad()
def layer_of_block(block: torch.nn.Module, before: Shape, after: Shape) -> NetxLayer | None:
    """Return a block as a netx layer, without its skips; None for a flatten of flat data or its input without neurons.

    Args:
        block: block of a network.
        before: shape of its input.
        after: shape of its output.
    """
    match block:
        case InputBlock():
            weight, offset = quantize_weight(block.weight), quantize_weight(block.bias)
            return NetxLayer("input", after, _mants(weight), _mants(offset), _neuron(block.neuron))
        case GradedInputBlock() | EventInputBlock() if len(after) > 1:
            return NetxLayer("input", after)  # netx cannot infer the size of maps
        case DeltaInputBlock():
            return NetxLayer("input", after, neuron=_neuron(block.neuron))
        case FlattenBlock() if len(before) > 1:
            return NetxLayer("flatten", (*after, 1, 1))
        case SpikingBlock() | AffineBlock() | SigmaDeltaBlock():
            synapse, bias = block.synapse, block.quantized_bias()
            geometry = None if synapse.spec is None else ConvGeometry.of(synapse.spec)
            neuron = replace(_neuron(block.neuron), sigma_output=isinstance(block, ValueBlock))
            spiking = block if isinstance(block, SpikingBlock) else None
            recurrent, delay = (spiking.recurrent, spiking.quantized_delay()) if spiking else (None, None)
            return NetxLayer(
                kind="conv" if geometry else "dense",
                shape=after,
                weight=_mants(block.quantized_weight()),
                bias=None if bias is None else _mants(bias),
                neuron=replace(neuron, threshold_mant=READOUT_THRESHOLD_MANT)
                if isinstance(block, AffineBlock)
                else neuron,
                geometry=geometry,
                recurrent=_mants(recurrent.quantized_weight()) if recurrent is not None else None,
                delay=delay.cpu().long().numpy() if delay is not None else None,
            )
        case AverageBlock():
            return NetxLayer("average", (*after, 1, 1))
        case _:
            return None


def _neuron(neuron: CubaNeuron | SigmaDeltaNeuron) -> NetxNeuron:
    if isinstance(neuron, SigmaDeltaNeuron):
        return NetxNeuron(neuron.threshold_mant, kind=SIGMA_DELTA_NAME)
    current_decay, voltage_decay = (
        (decay.cpu() * DECAY_ONE).round().long().numpy() for decay in neuron.quantized_decays()
    )
    return NetxNeuron(neuron.threshold_mant, current_decay, voltage_decay)


def _mants(x: Tensor) -> IntArray:
    """Return mantissas, in units of 1/64."""
    mants: IntArray = (x.cpu() * MANT).round().long().numpy()
    return mants


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
    file = load_netx(path)
    if file.problems:
        raise UnsupportedError(f"{path} is not a network that our blocks can represent: {'; '.join(file.problems)}")
    if file.spec is not None and input_bits is not None:
        raise ConversionError(f"{path}: leave out --input-bits: a file of snnzoo contains the bits of its input")
    spec, notes = spec_of_netx(file, path, time_steps=time_steps, input_bits=input_bits)
    refuse_unknown_kinds(spec, KINDS, f"{path}: netx", EXTRAS)
    held = sum(array.size for layer in file.layers for array in (layer.weight, layer.bias) if array is not None)
    check_fit(spec, held, origin=str(path))
    network = build_network(spec, seed=0)
    state, problems = network.state_dict(), []
    for i, stored in _layers_by_block(spec, file, path).items():
        layer = _as_in_spec(stored, network.blocks[i])
        problems += [f"layer of block {i}: {problem}" for problem in _disagreements(spec, i, network.blocks[i], layer)]
        for name, value in _tensors(layer, network.blocks[i]).items():
            key = f"blocks.{i}.{name}"
            if key not in state:
                problems.append(f"{key} belongs to no block of the spec")
            elif value.shape != state[key].shape:
                problems.append(f"{key} has shape {list(value.shape)}, expected {list(state[key].shape)}")
            state[key] = value
    if problems:
        raise IntegrityError(f"{path}: {'; '.join(problems)}")
    model = Model(spec, state, notes=tuple(notes))
    says_it = file.spec is not None or spec.input.encoding is not Encoding.SPIKE
    return model if says_it and mean is None and std is None else model.normalizing(mean, std)


def _as_in_spec(layer: NetxLayer, block: torch.nn.Module) -> NetxLayer:
    """Return a layer with the groups and the kernel of the block's convolution or pool, if it was written from it."""
    spec = block.synapse.spec if isinstance(block, SpikingBlock | SigmaDeltaBlock) else None
    return layer if spec is None else restore_kernel(split_groups(layer, spec.groups), spec)


def _layers_by_block(spec: NetworkSpec, file: NetxFile, path: Path) -> dict[int, NetxLayer]:
    """Return the layer of each block that has tensors in the file."""
    blocks = [i for i, layer in enumerate(spec.layers) if i > 0 and not isinstance(layer, FlattenSpec | AverageSpec)]
    inputs = [layer for layer in file.layers[:1] if layer.kind == "input" and layer.neuron is not None]
    if len(blocks) != len(file.synaptic) or len(inputs) != spec.input.has_neurons:
        raise IntegrityError(f"{path}: the layers do not match the spec in the attribute {SPEC_ATTRIBUTE}")
    return dict(zip([0] * len(inputs) + blocks, inputs + file.synaptic, strict=True))


def _tensors(layer: NetxLayer, block: torch.nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a layer, by their names within its block."""
    tensors: dict[str, Tensor] = {}
    if isinstance(block, InputBlock):
        tensors |= {} if layer.weight is None else {"weight": _unit(layer.weight)}
    elif isinstance(block, SynapticBlock) and not isinstance(block.synapse, PoolSynapse):
        tensors["synapse.weight"] = _unit(layer.weight)
    if layer.recurrent is not None:
        tensors["recurrent.weight"] = _unit(layer.recurrent)
    if layer.delay is not None:
        tensors["delay"] = torch.from_numpy(layer.delay).float()
    if layer.bias is not None:
        tensors["bias"] = _unit(layer.bias) / getattr(block, "levels", 1)
    neuron = layer.neuron or INTEGRATOR
    if neuron.current_decay is None or neuron.voltage_decay is None:
        return tensors
    decays = np.broadcast_arrays(neuron.current_decay, neuron.voltage_decay)
    for name, decay in zip(("current_decay", "voltage_decay"), decays, strict=True):
        tensors[f"neuron.{name}"] = torch.from_numpy(decay.copy()).float() / DECAY_ONE
    return tensors


def _disagreements(spec: NetworkSpec, index: int, block: torch.nn.Module, layer: NetxLayer) -> Iterator[str]:
    """Yield the differences between a layer and its spec, as an edited file has them."""
    own, neuron = spec.layers[index], layer.neuron or INTEGRATOR
    if "recurrent" in own.extras and layer.recurrent is None:
        yield "the spec has recurrent synapses, the layer has none"
    if skips_of(own):
        yield "the spec has skips, which a .net cannot hold"
    assert isinstance(block, InputBlock | SpikingBlock | AffineBlock | DeltaInputBlock | SigmaDeltaBlock)
    if neuron.is_sigma_delta != spec.gives_values or neuron.sigma_output != isinstance(block, ValueBlock):
        yield "its neurons are of another kind than in the spec"
        return
    if not isinstance(own, AffineSpec) and neuron.threshold_mant != block.neuron.threshold_mant:
        yield f"threshold is {neuron.threshold_mant}, expected {block.neuron.threshold_mant} from the spec"
    if isinstance(block.neuron, CubaNeuron) and block.neuron.spec.learn_decays is LearnDecays.NONE:
        for name, decay, wanted in zip(
            ("iDecay", "vDecay"),
            (neuron.current_decay, neuron.voltage_decay),
            block.neuron.quantized_decays(),
            strict=True,
        ):
            assert decay is not None
            if bool((decay != (wanted * DECAY_ONE).round().long().numpy()).any()):
                yield f"{name} is {decay[0]}, expected {round(float(wanted[0]) * DECAY_ONE)} from the spec"
    if isinstance(own, ConvSpec) and layer.geometry is not None:
        for name, value in asdict(layer.geometry).items():
            if value != getattr(own, name):
                yield f"{name} is {value}, expected {getattr(own, name)} from the spec"
    if isinstance(block, SynapticBlock) and isinstance(block.synapse, PoolSynapse):
        pool, found = block.quantized_weight(), _unit(layer.weight)
        if pool.shape != found.shape or not torch.equal(pool, found):
            yield "the weights differ from those of the pool in the spec"


def _unit(mants: IntArray | None) -> Tensor:
    """Return mantissas in float units."""
    assert mants is not None
    return torch.from_numpy(mants).float() / MANT
