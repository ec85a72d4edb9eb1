"""Modules of one's own in the place of a block: they train and are scored, and all else refuses them by name."""

import pytest
import torch
from torch import Tensor, nn

from bootstrap_core import IntegerNetwork, Mode, Network, build_network, evaluate, fit, load_dataset
from bootstrap_core.functional.quantize import straight_through
from converters import Model, write_model
from specs import ConversionError, SnnZooError, TrainingSpec, parse_spec

SPEC = """
name: small
time_steps: 4
neuron: {threshold: 1.25, current_decay: 1.0, voltage_decay: 0.03, tau_grad: 0.1}
input: {shape: [784], mean: 0.5, std: 0.5}
blocks: [{kind: dense, features: 32}, {kind: dense, features: 16}, {kind: affine, features: 10}]
"""


class Leaky(nn.Module):
    def __init__(self, outputs: int = 32) -> None:
        super().__init__()
        self.weights = nn.Linear(784, outputs)

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(()), []
        for z in self.weights(x):
            v = 0.9 * v + z
            spikes.append(straight_through(torch.sigmoid(4 * (v - 1)), (v > 1).float()))
            v = v * (v <= 1)
        return torch.stack(spikes)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    made = build_network(parse_spec(SPEC), seed=0)
    made.replace(1, Leaky())
    return made


def test_it_gives_the_spikes_that_the_next_block_reads(network) -> None:
    images = load_dataset("mnist-sample").test.images[:5]
    _, trace = network.run(images, Mode.SNN)
    before, own, after = trace.spikes[:3]
    assert own.shape == (4, 5, 32)
    assert torch.equal(own, network.blocks[1].module(before))
    plain = build_network(parse_spec(SPEC), seed=0)
    plain.load_state_dict(network.state_dict(), strict=False)
    assert torch.equal(after, plain.blocks[2](own, Mode.SNN, 4).tensor())


def test_it_trains_and_is_scored(network) -> None:
    digits = load_dataset("mnist-sample")
    before = network.blocks[1].module.weights.weight.clone()
    recipe = TrainingSpec(epochs=4, snn_epochs=4, batch_size=50, snn_learning_rate=0.003, validation=200)
    stats = fit(network, digits.train, recipe)
    assert not torch.equal(network.blocks[1].module.weights.weight, before)
    score = evaluate(network, digits.test)
    assert score.accuracy > 0.5
    assert stats.snn.best_score > 0.5


def test_it_reads_graded_pixels_as_floats() -> None:
    graded = build_network(parse_spec(SPEC.replace("mean: 0.5, std: 0.5", "encoding: graded")), seed=0)
    graded.replace(1, Leaky())
    assert graded(torch.ones(2, 784)).shape == (2, 10)


def test_epochs_as_ann_are_refused(network) -> None:
    with pytest.raises(SnnZooError, match=r"snn_epochs: a network with block 1 \(Leaky\) has no ANN"):
        fit(network, load_dataset("mnist-sample").train, TrainingSpec(epochs=2))
    with pytest.raises(SnnZooError, match=r"block 1 \(Leaky\) runs only in"):
        network(torch.zeros(1, 784), Mode.ANN)


def test_files_and_integers_refuse_it_by_its_name(network, tmp_path) -> None:
    with pytest.raises(SnnZooError, match=r"IntegerNetwork: block 1 \(Leaky\) is a module of your own"):
        IntegerNetwork(network)
    with pytest.raises(ConversionError, match=r"block 1 \(Leaky\)"):
        Model.of(network)
    for suffix in ("safetensors", "net", "nir", "c"):
        with pytest.raises(ConversionError, match=r"block 1 \(Leaky\)"):
            write_model(network, tmp_path / f"net.{suffix}")
    assert not list(tmp_path.iterdir())


def test_wrong_shapes_and_places_are_refused(network) -> None:
    network.replace(1, Leaky(33))
    with pytest.raises(SnnZooError, match=r"block 1 \(Leaky\): .* \[4, 2, 32\], got \[4, 2, 33\]"):
        network(torch.zeros(2, 784))
    for i in (0, 3, -1):
        with pytest.raises(SnnZooError, match=f"1 to 2, got {i}"):
            network.replace(i, Leaky())
    with pytest.raises(SnnZooError, match=r"torch module"):
        network.replace(1, "Leaky")
