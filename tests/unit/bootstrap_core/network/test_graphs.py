"""Networks whose blocks read other blocks than the one before."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import count_synops
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.graph import walk
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from specs.network import NetworkSpec

LEFT, RIGHT = 5, 3


def network(*blocks: dict[str, Any], encoding: str = "spike") -> Network:
    document = {
        "name": "net",
        "time_steps": 6,
        "neuron": {"threshold": 0.5, "voltage_decay": 0.1, "tau_grad": 0.1},
        "input": {"shape": [7], "encoding": encoding, "bits": 4},
        "blocks": [*blocks],
    }
    return build_network(NetworkSpec.model_validate(document), seed=1)


@torch.no_grad()
def twins(encoding: str) -> tuple[Network, Network]:
    """Return two branches that a readout joins, and the chain whose layer has the neurons of both."""
    graph = network(
        {"kind": "dense", "features": LEFT, "name": "left"},
        {"kind": "dense", "features": RIGHT, "name": "right", "source": "input"},
        {"kind": "affine", "features": 4, "source": "left", "skips": [{"kind": "dense", "source": "right"}]},
        encoding=encoding,
    )
    chain = network({"kind": "dense", "features": LEFT + RIGHT}, {"kind": "affine", "features": 4}, encoding=encoding)
    for weight in parts(graph):
        weight.mul_(3)
    left, right, own, skip = parts(graph)
    first, second = parts(chain)
    first.copy_(torch.cat([left, right]))
    second.copy_(torch.cat([own, skip], 1))
    return graph, chain


def parts(net: Network) -> list[Tensor]:
    """Return the weights of all synapses."""
    return [synapse.weight for block in net.blocks for synapse, _ in block.synapses()]


def images(n: int = 9) -> Tensor:
    return torch.rand(n, 7, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("encoding", ["spike", "graded"])
def test_a_block_of_several_sources_is_one_of_their_concatenation(encoding: str) -> None:
    graph, chain = twins(encoding)
    logits, trace = graph.run(images(), Mode.SNN)
    same, whole = chain.run(images(), Mode.SNN)
    assert torch.equal(logits, same)
    assert torch.equal(torch.cat(trace.spikes[1:3], -1), whole.spikes[1])
    assert 0.05 < whole.rates[1].mean() < 0.95
    exact = IntegerNetwork(graph)
    assert torch.equal(exact(images()), logits)
    assert sum(count_synops(graph.spec, exact.tally(images())[1].counts)) == sum(
        count_synops(chain.spec, IntegerNetwork(chain).tally(images())[1].counts)
    )


@pytest.mark.parametrize("how", ["ann", "snn", "tandem"])
def test_gradients_are_those_of_the_concatenation(how: str) -> None:
    graph, chain = twins("graded")
    for mode in (Mode.SAMPLE, Mode.FIT):
        graph(images(200), mode)
        chain(images(200), mode)
    for i in (1, 2):  # one curve for all, as each block fits its own neurons
        graph.block(i).sampler.load_state_dict(chain.block(1).sampler.state_dict())
    found = []
    for net in (graph, chain):
        net.train()
        output = net.tandem(images()) if how == "tandem" else net(images(), Mode(how))
        found.append(torch.autograd.grad(output.square().sum(), parts(net)))
    (left, right, own, skip), (first, second) = found
    assert first.any()
    torch.testing.assert_close(torch.cat([left, right]), first)
    torch.testing.assert_close(torch.cat([own, skip], 1), second)


def test_an_output_is_freed_after_its_last_reader() -> None:
    class Output: ...

    made: dict[int, weakref.ref[Output]] = {}

    def run(i: int, read: list[Output]) -> Output:
        alive.append({k for k, ref in made.items() if ref() is not None})
        output = Output()
        made[i] = weakref.ref(output)
        return output

    alive: list[set[int]] = []
    for _ in walk([(), (0,), (0,), (2, 1), (3,)], Output(), run):
        pass
    assert alive == [set(), {0}, {0, 1}, {1, 2}, {3}]
