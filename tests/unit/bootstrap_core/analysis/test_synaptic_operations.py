"""Operations counted from sums over images, compared with operations counted one by one."""

import pytest
import torch
import torch.nn.functional as F

from bootstrap_core import IntegerNetwork, Mode, Network, build_network, evaluate, load_dataset
from bootstrap_core.analysis.evaluation import count_as_ann, effective_operations
from specs import parse_spec, summarize

IMAGES = load_dataset("mnist-sample").test.take(slice(0, 6))
DENSE = """
name: dense
time_steps: 5
neuron: {threshold: 0.5}
input: {shape: [784], INPUT}
blocks:
  - {kind: dense, features: 12, bias: true}
  - {kind: affine, features: 10}
"""
RESIDUAL = """
name: residual
time_steps: 3
neuron: {threshold: 0.3}
input: {shape: [1, 28, 28]}
blocks:
  - {kind: conv, channels: 4, kernel: 3, stride: 2, padding: 1}
  - {kind: avg_pool, kernel: 2}
  - {kind: conv, channels: 4, kernel: 3, padding: 1, groups: 2, skips: [{source: 2, kind: identity}]}
  - {kind: flatten}
  - {kind: affine, features: 10, skips: [{source: 2, kind: dense}]}
"""


def network(text: str) -> Network:
    """Build a network with many weights of 0."""
    net = build_network(parse_spec(text), seed=0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                parameter.mul_(4).masked_fill_(parameter.abs() < 0.05, 0)
    return net


def counted(net: Network | IntegerNetwork) -> tuple[torch.Tensor, ...]:
    return evaluate(net, IMAGES, batch_size=4).counts


@pytest.mark.parametrize("encoding", ["encoding: spike", "encoding: graded"])
def test_a_dense_layer_counts_inputs_that_meet_weights(encoding: str) -> None:
    net = network(DENSE.replace("INPUT", encoding))
    _, trace = net.run(IMAGES.images)
    wanted = 0
    for step in trace.spikes[0]:
        for image in step:
            wanted += int(((net.blocks[1].quantized_weight() != 0) & (image != 0)).sum())
    found = effective_operations(net, counted(net))
    assert found[:2] == [0, wanted]
    assert 0 < found[2] < 5 * 6 * 12 * 10


@torch.no_grad()
def test_layers_of_every_kind_and_skips_count_by_binary_convolutions() -> None:
    net = network(RESIDUAL)
    spikes = [x.double() for x in net.run(IMAGES.images)[1].spikes]
    one = [(block.quantized_weight() != 0).double() if hasattr(block, "synapse") else None for block in net.blocks]
    first = F.conv2d(spikes[0].flatten(0, 1), one[1], stride=2, padding=1)
    pool = spikes[1].sum()  # windows without overlap: each spike arrives once
    second = F.conv2d(spikes[2].flatten(0, 1), one[3], padding=1, groups=2).sum() + spikes[2].sum()
    skip = (net.blocks[5].skips[0].quantized_weight() != 0).double()
    last = F.linear(spikes[4].flatten(2), one[5]).sum() + F.linear(spikes[2].flatten(2), skip).sum()
    found = effective_operations(net, counted(net))
    assert found == pytest.approx([0, float(first.sum()), float(pool), float(second), 0, float(last)])
    assert min(found[i] for i in (1, 2, 3, 5)) > 0


def test_with_all_inputs_and_all_weights_that_is_the_dense_count() -> None:
    net = network(RESIDUAL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1)
    ones = [torch.ones(shape) for shape in net.spec.shapes]
    assert effective_operations(net, ones) == [row.synops for row in summarize(net.spec)]


def test_both_engines_count_alike() -> None:
    net = network(RESIDUAL)
    for ours, theirs in zip(counted(IntegerNetwork(net))[:-1], counted(net)[:-1], strict=True):
        assert torch.equal(ours, theirs)


def test_as_ann_each_rate_above_0_counts_once() -> None:
    net = network(DENSE.replace("INPUT", "mean: 0.5, std: 0.5")).train()
    net(IMAGES.images, Mode.SAMPLE)
    net(IMAGES.images, Mode.FIT)
    net.eval()
    rates = net.run(IMAGES.images, Mode.ANN)[1].rates
    counts = count_as_ann(net, IMAGES)
    assert torch.equal(counts[1], (rates[1] > 0).sum(0))
    assert 0 < int(counts[1].sum()) < 6 * 12
