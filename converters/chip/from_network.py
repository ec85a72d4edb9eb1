"""Make the chip form of a network: the only place, beside the engines, that looks into its blocks."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import DECAY_ONE, MANT, READOUT_THRESHOLD_MANT, STATE
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.network.base_block import SynapticBlock
from bootstrap_core.network.blocks import AffineBlock, GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sigma_delta import SigmaDeltaNeuron, ValueBlock
from converters.chip.form import PIXELS, SIGMA_DELTA, ChipForm, ChipLayer, ChipNeurons, ChipSynapses, Numbers
from specs.fields import Shape, StrictModel, initial_voltage
from specs.layers.block import LayerSpec, skips_of
from specs.layers.neuron import LearnDecays, Reset
from specs.network import NetworkSpec
from specs.shapes import Window

GREY_LEVELS = 256
"""Values of a pixel, one byte."""
KNOWN_FIELDS = {
    "schema_version", "name", "description", "time_steps", "input", "blocks", "logit_scale", "training", "kind",
    "shape", "encoding", "bits", "bin_us", "border", "mean", "std", "weight", "bias", "exact_input", "log_mel",
    "neuron", "output",
    "features", "channels", "kernel", "stride", "padding", "dilation", "groups", "gain", "skips", "source",
    "weight_norm", "dropout", "norm", "delay_shift", "threshold", "current_decay", "voltage_decay", "tau_grad",
    "scale_grad", "reset", "learn_decays", "recurrent", "delays", "per", "longest", "learn", "start",
}  # fmt: skip
"""Fields of specs that the form holds, or that do not change what a network computes; others that are set are told."""


@torch.no_grad()
def form_of_network(network: Network) -> ChipForm:
    """Return a network in the integers that the integer engine runs on. The network is not changed."""
    spec, entering = network.spec, network.block(0)
    levels = torch.arange(GREY_LEVELS, dtype=torch.float32) / (GREY_LEVELS - 1)
    border = torch.tensor(spec.input.border).expand(spec.input.shape[0])
    return ChipForm(
        layers=tuple(
            _layer(spec, layer, read, shape, network.block(i))
            for i, (layer, read, shape) in enumerate(zip(spec.layers, spec.sources, spec.shapes, strict=True))
        ),
        time_steps=spec.time_steps,
        name=spec.name,
        output=spec.output,
        input=spec.input,
        pixels=_entering(entering, levels),
        border=_entering(entering, border) if any(spec.input.padding) else (),
        problems=tuple(_unknown_fields(spec)),
    )


def _layer(spec: NetworkSpec, layer: LayerSpec, read: tuple[int, ...], shape: Shape, block: nn.Module) -> ChipLayer:
    sources = tuple(ChipSynapses(source) for source in read)
    bias = recurrent = neurons = None
    match block:
        case InputBlock():
            sources = (ChipSynapses(PIXELS, _mants(quantize_weight(block.weight))),)
            bias = _mants(quantize_weight(block.bias))
        case SynapticBlock():
            delay = block.quantized_delay() if isinstance(block, SpikingBlock) else None
            longest = getattr(getattr(layer, "delays", None), "longest", 0)
            sources = tuple(
                ChipSynapses(
                    source,
                    _mants(weight),
                    None if synapse.spec is None or weight.dim() == 1 else Window.of(synapse.spec),
                )
                for source, (synapse, weight) in zip(read, block.synapses(), strict=False)  # recurrent ones come last
            )
            own = replace(sources[0], delay=None if delay is None else _whole(delay), longest=longest)
            sources = (own, *sources[1:])
            bias = None if (found := block.quantized_bias()) is None else _mants(found)
            if isinstance(block, SpikingBlock) and block.recurrent is not None:
                recurrent = _mants(block.recurrent.quantized_weight())
    match getattr(block, "neuron", None):
        case CubaNeuron() as cuba:
            current_decay, voltage_decay = (_whole(decay * DECAY_ONE) for decay in cuba.quantized_decays())
            is_readout = isinstance(block, AffineBlock)
            neurons = ChipNeurons(
                READOUT_THRESHOLD_MANT if is_readout else cuba.threshold_mant,
                current_decay,
                voltage_decay,
                initial_voltage=0 if is_readout else initial_voltage(cuba.spec.start, cuba.threshold_mant),
                subtracts=cuba.spec.reset is Reset.SUBTRACT,
                trained=cuba.spec.learn_decays is not LearnDecays.NONE,
            )
        case SigmaDeltaNeuron() as sigma:
            is_readout = isinstance(block, ValueBlock)
            neurons = ChipNeurons(sigma.threshold_mant, kind=SIGMA_DELTA, sigma_output=is_readout)
    return ChipLayer(
        layer.kind,
        shape,
        sources,
        bias,
        neurons,
        recurrent,
        shift=spec.delay_shift_of(layer),
        problems=tuple(chain.from_iterable(map(_unknown_fields, _records(spec, layer)))),
        name=getattr(layer, "name", None) or "",
    )


def _entering(block: nn.Module, pixels: Tensor) -> list[int]:
    """Return what pixels become: graded integers, or currents in units of 1/4096; nothing for other inputs."""
    if isinstance(block, GradedInputBlock):
        graded = block(pixels, Mode.ANN, 1)
        assert isinstance(graded, Tensor)
        return [int(level) for level in _whole(graded)]
    if isinstance(block, InputBlock):
        return [int(current) for current in _whole(block.current(pixels[:, None]).double().flatten() * STATE)]
    return []


def _mants(x: Tensor) -> Numbers:
    """Return mantissas, in units of 1/64."""
    return _whole(x * MANT)


def _whole(x: Tensor) -> Numbers:
    mants: Numbers = x.cpu().round().long().numpy()
    return mants


def _records(spec: NetworkSpec, layer: LayerSpec) -> Iterator[StrictModel]:
    yield from (layer, spec.neuron_of(layer), *skips_of(layer))
    if (delays := getattr(layer, "delays", None)) is not None:
        yield delays


def _unknown_fields(record: StrictModel) -> Iterator[str]:
    """Yield the fields of a record that are set and not known here."""
    for name, given in type(record).model_fields.items():
        if name not in KNOWN_FIELDS and getattr(record, name) != given.get_default(call_default_factory=True):
            yield f"the field {name}"
