"""Networks of plain layers: the same spikes and logits as the engines."""

import pytest
import torch

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.analysis.plain_layers import Conv, Dense, PlainNetwork
from specs import parse_spec
from specs.errors import UnsupportedError

NETWORKS = {
    "dense": """
name: a
time_steps: 5
input: {shape: [1, 6, 6], mean: 0.5, std: 0.5}
neuron: {threshold: 0.3}
blocks: [{kind: flatten}, {kind: dense, features: 7, weight_norm: true}, {kind: affine, features: 3}]
""",
    "conv, uneven padding, pool, graded": """
name: a
time_steps: 6
input: {shape: [2, 8, 8], encoding: graded, bits: 4}
neuron: {threshold: 0.4, current_decay: 0.5, voltage_decay: 0.1, reset: subtract}
blocks:
  - {kind: conv, channels: 4, kernel: 3, stride: 2, padding: [0, 0, 1, 1], norm: batch}
  - {kind: avg_pool, kernel: 2}
  - {kind: conv, channels: 6, kernel: 3, padding: 1, groups: 2}
  - {kind: flatten}
  - {kind: dense, features: 5, delay_shift: true}
  - {kind: affine, features: 3}
""",
    "skips": """
name: a
time_steps: 6
input: {shape: [2, 6, 6]}
neuron: {threshold: 0.2}
blocks:
  - {kind: conv, channels: 4, kernel: 3, padding: 1}
  - {kind: conv, channels: 4, kernel: 3, padding: 1, skips: [{kind: identity, source: 1}]}
  - {kind: flatten}
  - {kind: affine, features: 3}
""",
    "recurrent, last": """
name: a
time_steps: 7
input: {shape: [9], encoding: events}
output: last
neuron: {threshold: 0.4}
blocks: [{kind: dense, features: 8, recurrent: true}, {kind: affine, features: 3}]
""",
    "spiking readout": """
name: a
time_steps: 7
input: {shape: [9], encoding: events, bits: 3}
neuron: {threshold: 0.4}
blocks: [{kind: dense, features: 8}, {kind: dense, features: 3}]
""",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_plain_layers_give_the_spikes_of_the_engines(name: str) -> None:
    spec = parse_spec(NETWORKS[name])
    network = build_network(spec, seed=3).eval()
    for block in network.blocks:
        if getattr(block, "bias", None) is not None:
            torch.nn.init.uniform_(block.bias, -0.2, 0.2)
    n = 10
    if spec.input.is_events:
        events = torch.randint(0, spec.input.largest + 1, (spec.time_steps, n, *spec.input.shape), dtype=torch.uint8)
        given, images = events, events.transpose(0, 1)[..., None, None]
        images = images.reshape(n, spec.time_steps, *spec.input.shape, *[1] * (3 - len(spec.input.shape)))
    else:
        given = images = torch.randint(0, 256, (n, *spec.input.shape), dtype=torch.uint8)
    logits, trace = IntegerNetwork(network).run(given)
    plain = PlainNetwork(network)
    torch.testing.assert_close(plain(images), logits, rtol=1e-6, atol=1e-6)
    assert plain.counts
    for i, counts in plain.counts.items():
        assert torch.equal(counts, trace.spikes[i].sum((0, 1)).double())
    assert any(counts.sum() > 0 for counts in plain.counts.values())


def test_its_layers_are_torch_s_with_weights_of_8_bits() -> None:
    network = build_network(parse_spec(NETWORKS["conv, uneven padding, pool, graded"]), seed=0)
    layers = [module for module in PlainNetwork(network).modules() if isinstance(module, Dense | Conv)]
    assert all(isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) for layer in layers)
    weights = [weight for block in network.blocks for _, weight in block.synapses()]
    assert len(layers) == len(weights) == 5
    for layer, weight in zip(layers, weights, strict=True):
        assert layer.weight.dtype == torch.int8
        assert torch.equal(layer.weight * 2 / 64, weight)


def test_delays_are_refused_by_name() -> None:
    text = NETWORKS["dense"].replace("weight_norm: true", "delays: {per: neuron, longest: 3}")
    with pytest.raises(UnsupportedError, match="a: block 2 has delays"):
        PlainNetwork(build_network(parse_spec(text), seed=0))
