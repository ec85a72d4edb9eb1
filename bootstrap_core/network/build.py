"""Build networks from specs."""

import torch

from bootstrap_core.network.base_block import Place
from bootstrap_core.network.blocks import BUILDERS
from bootstrap_core.network.network import Network
from specs.arguments import check_spec
from specs.files.limits import refuse_beyond_memory
from specs.network import NetworkSpec
from specs.summary import summarize

FLOAT_BYTES = 4
COPIES = 2
"""Copies of the weights in memory: the trainable ones, and those on the grid of the hardware."""


def build_network(spec: NetworkSpec, *, seed: int | None = None) -> Network:
    """Build a network with fresh weights, in eval mode.

    Args:
        spec: spec of the network.
        seed: seed of the weights; torch's global generator is not used. None draws from the global generator.

    Raises:
        SpecError: `spec` is not a `NetworkSpec`.
        SnnZooError: the weights take more memory than is free.

    >>> from specs import load_spec
    >>> net = build_network(load_spec("mnist-dense"), seed=0)
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    check_spec(spec, "build_network")
    n_weights = sum(row.parameters for row in summarize(spec))
    refuse_beyond_memory(COPIES * FLOAT_BYTES * n_weights, f"a network of {n_weights:,} weights, {spec.name},")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    shapes = spec.shapes
    read = [[shapes[source] for source in sources] or [spec.input.shape] for sources in spec.sources]
    places = (
        Place(spec, i, tuple(read[i]), shape, levels, generator)
        for i, (shape, levels) in enumerate(zip(shapes, spec.levels, strict=True))
    )
    blocks = [BUILDERS[type(layer)](layer, place) for layer, place in zip(spec.layers, places, strict=True)]
    return Network(spec, blocks).eval()
