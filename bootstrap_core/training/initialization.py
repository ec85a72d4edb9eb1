"""Scaling of initial weights to images, so that the neurons of all layers spike."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bootstrap_core.network.base_block import as_spikes
from bootstrap_core.network.batch_norm import SPREAD, BatchNorm, MeanOnly
from bootstrap_core.network.blocks import SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.weighted_input import weigh

N_ROUNDS = 2
"""Number of scalings: weights are rounded to their grid after each, and the second corrects for the rounding."""


@torch.no_grad()
def initialize(network: Network, images: Tensor) -> None:
    """Scale the weights of each channel so that its neurons spike, and centre its weighted input at 0.

    The usual random weights suit ReLU, which has no threshold: with them, neurons of deep layers never spike, and so do
    not learn. Here images run through the network as spikes, and each block is scaled to the spikes that reach it.
    Weights are scaled to a standard deviation of the weighted input; in blocks without a bias or a mean-only norm,
    which cannot be centred, to a root mean square. Batch norms take their first statistics from these images instead.
    Pools and the readout keep their weights.

    Args:
        images: `[N, C, H, W]`; a few hundred are enough.

    Source: Salimans and Kingma, "Weight Normalization", 2016, section 3.

    >>> from bootstrap_core import build_network, load_dataset
    >>> from specs import load_spec
    >>> net, digits = build_network(load_spec("mnist-dense"), seed=0), load_dataset("mnist-sample")
    >>> initialize(net, digits.train.images[:100])
    >>> bool(net.run(digits.test.images[:100])[1].rates[2].mean() > 0.05)
    True
    """
    was_training = network.training
    learning = [block for block in network.blocks if isinstance(block, SpikingBlock) and block.synapse.is_learned]
    hooks = [block.register_forward_pre_hook(_scale_to_input) for block in learning]
    try:
        network.eval().run(images, Mode.SNN)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)


def _scale_to_input(block: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Scale a block to its input; called before the block runs."""
    assert isinstance(block, SpikingBlock)
    x, _, time_steps, *skipped = arguments
    current_decay, _ = block.neuron.quantized_decays()
    current_decay = current_decay.clamp_min(1 / time_steps)  # without decay, the current is the sum of all steps
    wanted = SPREAD * block.neuron.spec.threshold * current_decay  # standard deviation of the weighted input
    if isinstance(block.norm, BatchNorm):
        block.norm.gain.copy_(wanted)
        for _ in range(N_ROUNDS):
            scale = block.norm.scale() * block.levels
            mean, square = _moments(weigh(as_spikes(x), block.connections()[0]))
            block.norm.running_mean.copy_(mean / scale)
            block.norm.running_variance.copy_((square - mean.square()) / scale.square())
        return
    centred = block.bias is not None or isinstance(block.norm, MeanOnly)
    for _ in range(N_ROUNDS):
        mean, square = _moments(block.weigh(x, *skipped) / block.levels)
        deviation = (square - mean.square() if centred else square).clamp_min(1e-12).sqrt()
        _scale_weights(block, (wanted / deviation).float())
    mean, _ = _moments(block.weigh(x, *skipped) / block.levels)
    if block.bias is not None:
        block.bias.copy_(-mean / current_decay)
    elif isinstance(block.norm, MeanOnly):
        block.norm.running_mean.copy_(mean)


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and mean square of each channel of `z`, `[T, N, C, ...]`."""
    axes = [axis for axis in range(z.dim()) if axis != 2]
    return z.mean(axes), z.square().mean(axes)


def _scale_weights(block: SpikingBlock, factor: Tensor) -> None:
    """Multiply the weights of each output channel by `factor`, `[C]`; weight norms stay in place."""
    for synapse in (block.synapse, *block.skips):
        weight = synapse.weight * factor.reshape(-1, *[1] * (synapse.weight.dim() - 1))
        if is_parametrized(synapse, "weight"):
            synapse.weight = weight
        else:
            synapse.weight.copy_(weight)
