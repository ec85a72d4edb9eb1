"""Figures of a network with known answers: the class is the first bright pixel, and no image is dark."""

import pytest
import torch

from bootstrap_core import IntegerNetwork, build_network, evaluate
from bootstrap_core.data.splits import Dataset, Split
from converters.report.network_figures import (
    TIME_STEPS,
    Confusion,
    count_confusions,
    dead_units,
    measure_network,
    pick_examples,
    run_examples,
    spread_out,
)
from specs.network import NetworkSpec


@pytest.fixture
def exact() -> IntegerNetwork:
    """A network in which pixel i fires hidden neuron i, which votes for class i; pixel 3 has no weight."""
    document = {
        "name": "known", "time_steps": 5, "neuron": {"threshold": 0.5, "current_decay": 1.0, "voltage_decay": 1.0},
        "input": {"shape": [4], "encoding": "graded", "bits": 1},
        "blocks": [{"kind": "dense", "features": 4}, {"kind": "affine", "features": 3}],
    }  # fmt: skip
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        network.blocks[1].synapse.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])))
        network.blocks[2].synapse.weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 1.0, 0]]))
    return IntegerNetwork(network)


BRIGHT = [0, 0, 0, 1, 1, 2]
LABELS = [0, 0, 1, 1, 2, 2]


@pytest.fixture
def split() -> Split:
    images = torch.zeros(6, 1, 1, 4, dtype=torch.uint8)
    images[range(6), 0, 0, BRIGHT] = 255
    return Split(images, torch.tensor(LABELS))


def test_figures_of_a_known_network(exact, split) -> None:
    dataset = Dataset("known", split, split, ("a", "b", "c"), "by hand")
    figures = measure_network(exact, dataset, evaluate(exact, split))
    assert figures.confusion.counts.tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]  # [class, answer]
    assert figures.confusion.accuracy == pytest.approx(4 / 6)
    assert figures.by_steps == dict.fromkeys(TIME_STEPS, pytest.approx(4 / 6))
    assert figures.classes == ("a", "b", "c")
    names = [(layer.name, layer.shape, layer.n_units) for layer in figures.layers]
    assert names == [("0 input", (4,), 4), ("1 dense", (4,), 4), ("2 affine", (3,), 3)]
    assert [layer.rate for layer in figures.layers] == [None, pytest.approx(0.25), None]
    assert [layer.synops for layer in figures.layers] == [0, 5 * 4, 5 * 3]
    assert [layer.dead for layer in figures.layers] == [None, 1, None]
    assert figures.logits.argmax(1).tolist() == BRIGHT


def test_units_are_dead_if_no_image_makes_them_spike(exact, split) -> None:
    assert dead_units(exact, split.take([0, 3])) == [None, 2, None]


def test_the_most_frequent_mistakes_come_first() -> None:
    confusion = Confusion(torch.tensor([[9, 1, 0], [3, 9, 2], [0, 0, 9]]))
    assert confusion.most_frequent(2) == [(1, 0, 3), (1, 2, 2)]
    assert confusion.most_frequent(9) == [(1, 0, 3), (1, 2, 2), (0, 1, 1)]
    assert count_confusions(torch.tensor([2]), torch.tensor([0]), 3).counts[2, 0] == 1


def test_images_lie_evenly_in_a_set_sorted_by_class() -> None:
    labels = torch.arange(10).repeat_interleave(30)
    split = Split(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), labels)
    assert spread_out(split, 20).labels.bincount().tolist() == [2] * 10
    assert spread_out(split, 300) is split
    assert len(spread_out(split, 299)) == 299


def test_half_of_the_examples_are_interesting_and_the_others_differ_in_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 0])
    interesting = torch.tensor([False, True, True, False, False, False, True, False])
    assert pick_examples(labels, interesting, 4) == [1, 6, 0, 3]
    assert pick_examples(labels, interesting, 6) == [1, 6, 2, 0, 3, 5]
    assert pick_examples(labels, torch.zeros(8).bool(), 5) == [0, 3, 5, 6, 1]
    assert sorted(pick_examples(labels, torch.ones(8).bool(), 9)) == list(range(8))
    assert pick_examples(labels, interesting, 6, n_interesting=1) == [1, 0, 3, 5, 4, 7]


def test_an_example_shows_the_output_up_to_each_step(exact, split) -> None:
    example = run_examples(exact, split, [3])[0]
    assert example.label == 1
    assert torch.equal(example.image, split.images[3])
    assert example.over_time.tolist() == [[0.0, 2.0, 0.0]] * 5
    assert torch.equal(example.scores.float(), exact(split.images[3:4])[0])
    (raster,) = example.rasters
    assert (raster.layer, raster.n_neurons) == ("1 dense", 4)
    assert raster.spikes.tolist() == [[0, 1, 0, 0]] * 5  # [T, neurons]
    assert torch.equal(example.spikes, raster.spikes)


def test_classes_are_numbers_where_the_dataset_names_others(exact, split) -> None:
    dataset = Dataset("x", split, split, ("unlabelled",), "")
    assert measure_network(exact, dataset, evaluate(exact, split)).classes == ("0", "1", "2")
