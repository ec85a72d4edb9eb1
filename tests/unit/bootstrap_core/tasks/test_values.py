"""Scores of networks of values: errors, messages and synops."""

import pytest
import torch

from bootstrap_core import IntegerNetwork, Mode, build_network, evaluate, load_dataset
from bootstrap_core.data.frames import Frames
from specs.errors import SnnZooError
from specs.network import NetworkSpec


@pytest.fixture
def network():
    document = {
        "name": "steer",
        "time_steps": 4,
        "neuron": {"kind": "sigma_delta"},
        "input": {"shape": [2], "encoding": "frames"},
        "blocks": [{"kind": "dense", "features": 3}, {"kind": "affine", "features": 1}],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        network.block(1).synapse.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        network.block(2).synapse.weight.copy_(torch.tensor([[1.0, -2.0, 1.0]]))
    return network


X = torch.tensor([[[64, 0], [0, 0]], [[64, 32], [0, 32]], [[64, 32], [0, 32]]])
"""Two recordings of three steps."""


@pytest.mark.parametrize("engine", [lambda net: net, IntegerNetwork])
def test_errors_messages_and_synops(engine, network) -> None:
    seen = []
    found = evaluate(
        engine(network), Frames(X, torch.tensor([[0.5], [-1.0]])), progress=lambda *done: seen.append(done)
    )
    assert found.outputs.tolist() == [[0.0], [-1.0]]
    assert found.figures["mean_error"] == 0.25
    assert found.score == pytest.approx(0.125**0.5)
    # input: 2 and 1 messages of 12 places; dense: the same changes reach units 1 and 2; unit 3 stays at 0
    assert found.rates == (3 / 12, 3 / 18, None)
    assert found.synops == (0.0, 3 * 3 / 2 / 3, 3 / 2 / 3)
    assert (found.time_steps, found.mode, seen) == (3, Mode.SNN, [(2, 2)])


def test_without_values_there_is_no_error_and_an_ann_has_no_messages(network) -> None:
    found = evaluate(network, Frames(X), mode=Mode.ANN)
    assert found.outputs.tolist() == [[0.0], [-1.0]]
    assert (found.figures["mean_error"], found.score, found.synops) == (None, None, None)
    assert found.rates == (None, None, None)
    assert evaluate(network, Frames(X), time_steps=1).outputs.tolist() == [[1.0], [0.0]]


def test_classes_and_values_are_not_mixed_up(network) -> None:
    with pytest.raises(SnnZooError, match="steer gives values and learns from Frames, not a Split"):
        evaluate(network, load_dataset("mnist-sample").test)
    with pytest.raises(SnnZooError, match="no recordings to score"):
        evaluate(network, Frames(X[:, :0]))
