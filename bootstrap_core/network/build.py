"""A spec compiled into a network: the only place that makes blocks."""

import torch

from bootstrap_core.network.batch_norm import build_norm
from bootstrap_core.network.blocks import AffineBlock, Block, FlattenBlock, GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.network.network import Network
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.synapse import ConvSynapse, DenseSynapse, IdentitySynapse, PoolSynapse, SkipSynapse
from specs.block import (
    AffineSpec,
    AvgPoolSpec,
    ConvSpec,
    DenseSpec,
    Encoding,
    FlattenSpec,
    IdentitySkip,
    InputSpec,
    LayerSpec,
    SkipSpec,
    skips_of,
)
from specs.fields import Shape
from specs.files.memory import refuse_beyond_memory
from specs.network import NetworkSpec
from specs.neuron import LearnDecays
from specs.shapes import pool_as_conv, skip_as_layer
from specs.summary import summarize

__all__ = ["build_network"]

FLOAT_BYTES = 4
COPIES = 2
"""Of the weights: as they are learnt, and on the grid of the hardware."""


def build_network(spec: NetworkSpec, *, seed: int | None = None) -> Network:
    """Blocks with fresh weights, in eval mode.

    Args:
        spec: what to build.
        seed: of the weights, leaving torch's global generator alone; None draws from the global generator.

    Raises:
        SnnZooError: its weights take more memory than is free; says how much.

    >>> from specs import load_spec
    >>> net = build_network(load_spec("mnist-dense"), seed=0)
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    n_weights = sum(row.parameters for row in summarize(spec))
    refuse_beyond_memory(COPIES * FLOAT_BYTES * n_weights, f"a network of {n_weights:,} weights, {spec.name},")
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _build(spec)
    return _build(spec)


def _build(spec: NetworkSpec) -> Network:
    shapes = (spec.input.shape, *spec.shapes)
    return Network(spec, [_build_block(spec, i, shapes[i], shapes[i + 1]) for i in range(len(spec.layers))]).eval()


def _build_block(spec: NetworkSpec, index: int, before: Shape, after: Shape) -> Block:
    layer = spec.layers[index]
    levels = spec.input.levels if index == 1 else 1
    channels = after[0]
    shift = spec.delay_shift_of(layer)
    skips = [_build_skip(skip, spec.shapes[skip.source], after) for skip in skips_of(layer)]

    def neuron(layer: LayerSpec) -> CubaNeuron:
        return CubaNeuron(spec.neuron_of(layer), channels=channels, levels=levels)

    def readout_neuron(layer: LayerSpec) -> CubaNeuron:
        fixed = spec.neuron_of(layer).model_copy(update={"learn_decays": LearnDecays.NONE})  # no gradient reaches them
        return CubaNeuron(fixed, channels=channels, levels=levels)

    match layer:
        case InputSpec(encoding=Encoding.GRADED):
            return GradedInputBlock(layer)
        case InputSpec():
            return InputBlock(layer, neuron(layer), delay_shift=shift)
        case FlattenSpec():
            return FlattenBlock(len(before))
        case AvgPoolSpec():
            pool = PoolSynapse(pool_as_conv(layer, channels), spec.pool_weight(layer))
            return SpikingBlock(pool, neuron(layer), channels=channels, delay_shift=shift)
        case AffineSpec():
            synapse = DenseSynapse(before[0], channels, normalize=layer.weight_norm)
            return AffineBlock(
                synapse,
                readout_neuron(layer),
                channels=channels,
                skips=skips,
                bias=layer.bias,
                dropout=layer.dropout,
                levels=levels,
            )
        case DenseSpec() | ConvSpec():
            return SpikingBlock(
                DenseSynapse(before[0], channels, normalize=layer.weight_norm)
                if isinstance(layer, DenseSpec)
                else ConvSynapse(layer, before[0], normalize=layer.weight_norm),
                neuron(layer),
                channels=channels,
                skips=skips,
                bias=layer.bias,
                dropout=layer.dropout,
                norm=build_norm(layer.norm, channels),
                delay_shift=shift,
                levels=levels,
            )


def _build_skip(skip: SkipSpec, before: Shape, after: Shape) -> SkipSynapse:
    if isinstance(skip, IdentitySkip):
        return IdentitySynapse(before)
    layer, seen = skip_as_layer(skip, before, after)
    if isinstance(layer, ConvSpec):
        return ConvSynapse(layer, seen[0], normalize=False)
    return DenseSynapse(seen[0], layer.features, normalize=False, n_axes=len(before))
