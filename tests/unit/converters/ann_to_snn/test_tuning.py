"""Tuning with a known teacher."""

import pytest
import torch
from torch import Tensor

from bootstrap_core import IntegerNetwork, build_network, evaluate, fit, load_dataset
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from converters.ann_to_snn import tuning
from converters.ann_to_snn.judge import BestSoFar, Judge
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


def moved(network: Network, by: float) -> Network:
    """Return a copy with other weights, `by` times a random matrix away."""
    other, generator = copied(network), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.dim() > 1:
                parameter.add_(by * torch.randn(parameter.shape, generator=generator) * parameter.std())
    return other


def by(network: Network, factor: float = 1.0):
    """Return a teacher whose logits are those of the network times a factor, plus 3."""

    def answer(images: Tensor) -> Tensor:
        with torch.no_grad():
            return factor * network(images, Mode.SNN) + 3

    return answer


def best_of(network: Network, split: Split, teacher) -> BestSoFar:
    """Return the network as the first 400 images of a split like it; the others are for tuning, see `learning`."""
    judge = Judge(split.take(slice(0, 400)), teacher)
    return BestSoFar(network, judge, judge.verdict(network))


def learning(digits: Dataset) -> Split:
    return digits.train.take(slice(400, None))


def recipes_of(trained: Network, split: Split, teacher, epochs: int, monkeypatch) -> list[TrainingSpec]:
    """Return the recipes with which a network is tuned, without training."""
    found: list[TrainingSpec] = []
    monkeypatch.setattr(tuning, "fit", lambda network, split, recipe, **options: found.append(recipe))
    assert tune(best_of(copied(trained), split, teacher), split, teacher, epochs) is None
    return found


def test_logits_are_brought_to_the_size_of_the_teacher_s(trained: Network, digits: Dataset, monkeypatch) -> None:
    (first, _) = recipes_of(trained, digits.train, by(trained, 7.0), 1, monkeypatch)
    assert first.logit_scale == pytest.approx(7, rel=1e-3)


def test_an_image_costs_its_neurons_times_the_steps(trained: Network) -> None:
    assert neuron_steps(trained.spec) == 8 * (784 + 40 + 10)
    assert image_work(trained.spec) == neuron_steps(trained.spec) + (784 * 40 + 40 * 10) // 12


def test_a_damaged_network_is_mended(trained: Network, digits: Dataset) -> None:
    damaged = moved(trained, 0.7)
    before = evaluate(IntegerNetwork(damaged), digits.test).accuracy
    teacher = by(trained, 5.0)
    assert tune(best_of(damaged, digits.train, teacher), learning(digits), teacher, 2)
    assert evaluate(IntegerNetwork(damaged), digits.test).accuracy > before + 0.05


def test_images_are_changed_only_where_the_ann_still_knows_them(trained: Network, digits: Dataset, monkeypatch) -> None:
    (first, _) = recipes_of(trained, digits.train, by(trained), 1, monkeypatch)
    assert first.augment == tuning.MOVED
    places = torch.randperm(784, generator=torch.Generator().manual_seed(0))  # means something in its place alone
    shuffled = Split(digits.train.images.flatten(1)[:, places].view(-1, 1, 28, 28), digits.train.labels)

    def teacher(images: Tensor) -> Tensor:
        return by(trained)(images.flatten(1)[:, places.argsort()].view(-1, 1, 28, 28))

    (first, _) = recipes_of(trained, shuffled, teacher, 1, monkeypatch)
    assert first.augment is None


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
    assert tune(best_of(network, digits.train, by(trained)), learning(digits), by(trained), 1) is None
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name]), name


def test_smaller_steps_follow_on_those_that_made_it_worse(trained: Network, digits: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(tuning, "LEARNING_RATES", (5.0, 3e-3))
    damaged, seen = moved(trained, 0.7), []
    best = best_of(damaged, digits.train, by(trained))
    tuned = tune(best, learning(digits), by(trained), 1, on_epoch=seen.append)
    assert tuned is not None
    rates = tuning.learning_rates(damaged.spec)
    assert tuned.recipe.snn_learning_rate == rates[1]
    assert [report.learning_rate for report in seen] == rates


@pytest.mark.parametrize("best", tuning.PARTS)
def test_that_part_of_what_tuning_changed_is_kept_that_is_best(trained: Network, digits: Dataset, best: float) -> None:
    network = moved(trained, -1.0)
    so_far = best_of(network, digits.train, by(trained))
    before = so_far.state
    network.load_state_dict(moved(trained, 1 / best - 1).state_dict())  # the teacher lies at this part of the way
    assert tuning._keep_best_part(so_far, before) == best
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, trained.get_parameter(name))


def test_an_epoch_is_as_long_as_the_work_allows(trained: Network, digits: Dataset, monkeypatch) -> None:
    for images, length in ((200, 200), (1 << 30, len(digits.train))):
        monkeypatch.setattr(tuning, "LAYER_WORK", 0)
        monkeypatch.setattr(tuning, "LEAST_WORK", images * image_work(trained.spec))
        first, *_ = recipes_of(trained, digits.train, by(trained), 3, monkeypatch)
        assert (first.epochs, first.snn_epochs, first.images_per_epoch, first.validation) == (3, 3, length, 0)


def test_each_layer_of_a_deep_network_has_its_work(trained: Network) -> None:
    spec = trained.spec
    deep = spec.model_copy(update={"blocks": (*spec.blocks[:-1], *(spec.blocks[-1:] * 31))})
    assert len(deep.layers) == len(spec.layers) + 30
    assert epoch_work(spec) == tuning.LEAST_WORK
    assert epoch_work(deep) == tuning.LAYER_WORK * len(deep.layers) > tuning.LEAST_WORK


def test_networks_that_agree_little_are_tuned_longer_with_few_steps() -> None:
    assert [usual_epochs(0.6, t) for t in (1, 4, 8, 16, 64)] == [8, 8, 4, 2, 2]
    assert {usual_epochs(0.95, t) for t in (1, 4, 8, 16, 64)} == {2}
