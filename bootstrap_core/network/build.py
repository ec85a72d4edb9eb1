"""A spec compiled into a network: the only place that makes blocks."""

import torch

from bootstrap_core.network.base_block import Place
from bootstrap_core.network.blocks import BUILDERS
from bootstrap_core.network.network import Network
from specs.files.memory import refuse_beyond_memory
from specs.network import NetworkSpec
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
    shapes = spec.shapes
    blocks = [BUILDERS[type(layer)](layer, Place(spec, i, shapes)) for i, layer in enumerate(spec.layers)]
    return Network(spec, blocks).eval()
