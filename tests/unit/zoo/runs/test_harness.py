"""NeuroBench's harness beside our counts."""

from dataclasses import replace

import pytest
import torch

from bootstrap_core import IntegerNetwork, build_network, evaluate, load_dataset
from specs import load_spec
from specs.errors import SnnZooError
from zoo.factory import create_model
from zoo.runs.harness import compare, measure_with_harness

FOUND = {
    "Footprint": 1.0,
    "ConnectionSparsity": 0.5,
    "ActivationSparsity": 0.25,
    "SynapticOperations": {"Effective_ACs": 3.0, "Effective_MACs": 0.0, "Dense": 4.0},
    "ClassificationAccuracy": 0.125,
}


@pytest.fixture(scope="module")
def scored():
    network, split = create_model("mnist-dense"), load_dataset("mnist-sample").test.take(slice(0, 60))
    return network, split, evaluate(IntegerNetwork(network), split)


def test_our_figures_follow_from_what_was_counted(scored) -> None:
    network, split, score = scored
    found = {one.name: one for one in compare(network, score, FOUND)}
    assert [one.theirs for one in found.values()] == [1.0, 0.5, 0.25, 3.0, 0.0, 4.0, 0.125]
    _, trace = network.run(split.images)
    neurons = trace.spikes[:3]
    silent = sum(int((spikes == 0).sum()) for spikes in neurons) / sum(spikes.numel() for spikes in neurons)
    assert found["activation sparsity"].ours == pytest.approx(silent)
    assert found["footprint, bytes"].ours == 784 * 512 + 512 * 512 + 512 * 10
    assert found["dense operations"].ours == 16 * found["footprint, bytes"].ours
    assert found["accuracy"].ours == score.accuracy
    weights = torch.cat([network.block(i).quantized_weight().flatten() for i in (1, 2, 3)])
    assert found["connection sparsity"].ours == pytest.approx(float((weights == 0).double().mean()))


def test_a_difference_has_a_note_and_no_difference_has_none(scored) -> None:
    network, _, score = scored
    ours = {one.name: one.ours for one in compare(network, score, FOUND)}
    same = {
        "Footprint": ours["footprint, bytes"],
        "ConnectionSparsity": ours["connection sparsity"],
        "ActivationSparsity": ours["activation sparsity"] + 1e-12,
        "SynapticOperations": {
            "Effective_ACs": ours["effective ACs"],
            "Effective_MACs": 0.0,
            "Dense": ours["dense operations"],
        },
        "ClassificationAccuracy": ours["accuracy"],
    }
    assert not any(one.note for one in compare(network, score, same))
    notes = {one.name: one.note for one in compare(network, score, FOUND)}
    assert "biases" in notes["footprint, bytes"]
    assert "no known reason" in notes["activation sparsity"]


def test_the_harness_agrees_in_all_that_has_one_definition(scored) -> None:
    pytest.importorskip("neurobench")
    found = {one.name: one for one in measure_with_harness(*scored)}
    for name in ("effective ACs", "effective MACs", "dense operations"):
        assert found[name].theirs == found[name].ours
    assert found["activation sparsity"].theirs == pytest.approx(found["activation sparsity"].ours)
    assert found["connection sparsity"].theirs == round(found["connection sparsity"].ours, 4)
    assert 0 < found["footprint, bytes"].theirs - found["footprint, bytes"].ours < 100


def test_graded_pixels_are_macs_for_both() -> None:
    pytest.importorskip("neurobench")
    spec = load_spec("mnist-dense-t4")
    network, split = build_network(spec, seed=0), load_dataset("mnist-sample").test.take(slice(0, 20))
    found = {one.name: one for one in measure_with_harness(network, split, evaluate(IntegerNetwork(network), split))}
    assert spec.input.is_graded
    assert found["effective MACs"].theirs == found["effective MACs"].ours > 0
    assert found["effective ACs"].theirs == found["effective ACs"].ours


def test_other_spikes_than_the_engine_s_are_an_error(scored) -> None:
    pytest.importorskip("neurobench")
    network, split, score = scored
    counts = (score.counts[0] + torch.ones_like(score.counts[0]), *score.counts[1:])
    with pytest.raises(SnnZooError, match="block 0: 784 of 784 neurons spike another number of times"):
        measure_with_harness(network, split, replace(score, counts=counts))
