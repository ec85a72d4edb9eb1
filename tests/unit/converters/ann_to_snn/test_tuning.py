"""Tuning with a known teacher."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core import IntegerNetwork, build_network, evaluate, fit, load_dataset
from bootstrap_core.data.splits import Dataset
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from converters.ann_to_snn import tuning
from converters.ann_to_snn.tuning import epoch_work, image_work, neuron_steps, tune, usual_epochs
from specs.network import NetworkSpec
from specs.training import TrainingSpec


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("mnist-sample")


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Network:
    neuron = {"threshold": 1.25, "current_decay": 1.0, "voltage_decay": 0.03, "tau_grad": 0.1}
    document = {
        "name": "tuned",
        "time_steps": 8,
        "neuron": neuron,
        "input": {"shape": [784], "mean": 0.5, "std": 0.5},
        "blocks": [{"kind": "dense", "features": 40}, {"kind": "affine", "features": 10}],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    fit(network, digits.train, TrainingSpec(epochs=6, validation=200, batch_size=50, learning_rate=3e-3))
    return network


def copied(network: Network) -> Network:
    again = build_network(network.spec, seed=1)
    again.load_state_dict(network.state_dict())
    return again


def by(network: Network, factor: float = 1.0):
    """Return a teacher whose logits are those of the network times a factor, plus 3."""

    def answer(images: Tensor) -> Tensor:
        with torch.no_grad():
            return factor * network(images, Mode.SNN) + 3

    return answer


def test_logits_are_brought_to_the_size_of_the_teacher_s(trained: Network, digits: Dataset, monkeypatch) -> None:
    found: list[TrainingSpec] = []
    monkeypatch.setattr(tuning, "fit", lambda network, split, recipe, **options: found.append(recipe))
    tune(copied(trained), digits.train, by(trained, 7.0), 1)
    assert found[0].logit_scale == pytest.approx(7, rel=1e-3)


def test_an_image_costs_its_neurons_times_the_steps(trained: Network) -> None:
    assert neuron_steps(trained.spec) == 8 * (784 + 40 + 10)
    assert image_work(trained.spec) == neuron_steps(trained.spec) + (784 * 40 + 40 * 10) // 12


def test_a_damaged_network_is_mended(trained: Network, digits: Dataset) -> None:
    damaged = copied(trained)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in damaged.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator) * parameter.std())
    before = evaluate(IntegerNetwork(damaged), digits.test).accuracy
    tune(damaged, digits.train, by(trained, 5.0), 2)
    assert evaluate(IntegerNetwork(damaged), digits.test).accuracy > before + 0.05


def test_the_steps_of_deeper_networks_are_smaller() -> None:
    dense, readout = {"kind": "dense", "features": 4}, {"kind": "affine", "features": 2}
    few, many = (
        NetworkSpec.model_validate(
            {"name": "deep", "time_steps": 4, "input": {"shape": [4]}, "blocks": [*[dense] * n_hidden, readout]}
        )
        for n_hidden in (3, 15)
    )
    assert tuning.learning_rates(few) == [2 * rate for rate in tuning.learning_rates(many)]


def test_what_answers_worse_is_taken_back(trained: Network, digits: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(tuning, "LEARNING_RATES", (5.0, 5.0))
    network = copied(trained)
    tune(network, digits.train, by(trained), 1)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name]), name


def test_smaller_steps_follow_on_those_that_made_it_worse(trained: Network, digits: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(tuning, "LEARNING_RATES", (5.0, 1e-12, 1e-13))  # the second is too small to change a weight
    network, seen = copied(trained), []
    tuned = tune(network, digits.train, by(trained), 1, on_epoch=seen.append)
    assert tuned is not None
    rates = tuning.learning_rates(network.spec)
    assert tuned.recipe.snn_learning_rate == rates[1]
    assert [report.learning_rate for report in seen] == rates[:2]


@pytest.mark.parametrize("best", tuning.PARTS)
def test_that_part_of_what_tuning_changed_is_kept_whose_loss_is_smallest(trained: Network, best: float) -> None:
    network, before = copied(trained), trained.state_dict()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(2)

    class Judge:
        def score(self, network: Network) -> float:
            off = (p - before[name] - 2 * best for name, p in network.named_parameters())
            return sum(float(x.abs().sum()) for x in off)

    assert tuning._keep_best_part(network, before, Judge()) == (best, pytest.approx(0, abs=1e-2))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] + 2 * best)


@pytest.mark.parametrize(
    ("losses", "kept", "asked"),
    [([1.0, 2.0], 1.0, 2), ([3.0, 2.0, 2.5], 0.75, 3), ([math.inf, 3.0, 2.0, 1.0], 0.25, 4)],
)
def test_parts_are_tried_until_one_is_worse(trained: Network, losses: list[float], kept: float, asked: int) -> None:
    network, left = copied(trained), list(losses)

    class Judge:
        def score(self, network: Network) -> float:
            return left.pop(0)

    assert tuning._keep_best_part(network, trained.state_dict(), Judge()) == (kept, min(losses))
    assert len(losses) - len(left) == asked


def test_what_is_kept_is_judged_by_what_is_learnt(trained: Network, digits: Dataset) -> None:
    def judge(scale: float, distillation: float) -> tuning._Judge:
        recipe = TrainingSpec(logit_scale=scale, distillation=distillation)
        return tuning._Judge(digits.test.take(slice(0, 60)), by(trained, 3.0), recipe)

    moved, labels = judge(3.0, 1.0).images.float() / 255, digits.test.labels[:60].repeat(tuning.N_MOVES)
    assert len(moved) == 60 * tuning.N_MOVES
    assert not torch.equal(moved[:60], moved[60:120])
    with torch.no_grad():
        logits = trained(moved, Mode.SNN)
    assert judge(3.0, 1.0).score(trained) == pytest.approx(0, abs=1e-5)
    assert judge(1.0, 1.0).score(trained) > 0.01
    of_labels = float(F.cross_entropy(3 * logits, labels))
    assert judge(3.0, 0.25).score(trained) == pytest.approx(0.75 * of_labels, rel=1e-5)


def test_an_epoch_is_as_long_as_the_work_allows(trained: Network, digits: Dataset, monkeypatch) -> None:
    found: list[TrainingSpec] = []
    monkeypatch.setattr(tuning, "fit", lambda network, split, recipe, **options: found.append(recipe))
    monkeypatch.setattr(tuning, "LAYER_WORK", 0)
    monkeypatch.setattr(tuning, "LEAST_WORK", 200 * image_work(trained.spec))
    tune(copied(trained), digits.train, by(trained), 3)
    assert (found[0].epochs, found[0].snn_epochs, found[0].images_per_epoch) == (3, 3, 200)
    assert found[0].validation == len(digits.train) // 12
    monkeypatch.setattr(tuning, "LEAST_WORK", 100 * image_work(trained.spec))
    tune(copied(trained), digits.train, by(trained), 3)
    assert (found[1].images_per_epoch, found[1].validation) == (100, 100)
    monkeypatch.setattr(tuning, "LEAST_WORK", 1 << 60)
    tune(copied(trained), digits.train, by(trained), 3)
    assert found[2].images_per_epoch == len(digits.train)
    monkeypatch.setattr(tuning, "FEWEST_VALIDATION", 30)
    monkeypatch.setattr(tuning, "LEAST_WORK", 300 * image_work(trained.spec))
    tune(copied(trained), digits.train, by(trained), 3)
    assert (found[3].images_per_epoch, found[3].validation) == (300, 50)


def test_each_layer_of_a_deep_network_has_its_work(trained: Network) -> None:
    spec = trained.spec
    deep = spec.model_copy(update={"blocks": (*spec.blocks[:-1], *(spec.blocks[-1:] * 31))})
    assert len(deep.layers) == len(spec.layers) + 30
    assert epoch_work(spec) == tuning.LEAST_WORK
    assert epoch_work(deep) == tuning.LAYER_WORK * len(deep.layers) > tuning.LEAST_WORK


def test_networks_that_agree_little_are_tuned_longer_with_few_steps() -> None:
    assert [usual_epochs(0.6, t) for t in (1, 4, 8, 16, 64)] == [8, 8, 4, 2, 2]
    assert {usual_epochs(0.95, t) for t in (1, 4, 8, 16, 64)} == {2}
