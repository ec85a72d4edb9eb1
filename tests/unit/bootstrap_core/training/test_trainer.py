import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Split
from bootstrap_core.distributed import Share
from bootstrap_core.functional.dropout import dropout_mask
from bootstrap_core.network import base_block
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops import precision as precision_module
from bootstrap_core.tasks.classes import _pixels
from bootstrap_core.tasks.evaluation import ACCURACY, Evaluation
from bootstrap_core.training.history import EpochReport
from bootstrap_core.training.trainer import DELAY_RATE, Trainer, fit
from specs.errors import DataError, IntegrityError, SnnZooError
from specs.network import NetworkSpec
from specs.training import TrainingSpec

N_TRAINING, N_BATCHES = 180, 4


@pytest.fixture(scope="module")
def split() -> Split:
    """20 images of each class; 20 images are for validation."""
    train = load_dataset("mnist-sample").train
    chosen = torch.cat([(train.labels == label).nonzero().flatten()[:20] for label in range(10)])
    return train.take(chosen)


def recipe(**options: Any) -> TrainingSpec:
    return TrainingSpec(
        **{"epochs": 4, "batch_size": 50, "validation": 20, "sample_iterations": 2, "learning_rate": 0.01, **options}
    )


def network(
    *, seed: int = 0, dropout: float = 0.0, norm: str = "mean_only", training: TrainingSpec | None = None
) -> Network:
    spec = {
        "name": "tiny",
        "time_steps": 4,
        "neuron": {"threshold": 1.0, "voltage_decay": 0.1, "tau_grad": 0.1},
        "input": {"shape": [784]},
        "blocks": [
            {"kind": "dense", "features": 12, "weight_norm": True, "norm": norm, "dropout": dropout},
            {"kind": "affine", "features": 10},
        ],
        "training": training,
    }
    return build_network(NetworkSpec.model_validate(spec), seed=seed)


def tensors(state: Any) -> list[Tensor]:
    """Return all tensors in a nested state, in order."""
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else []
    return [tensor for value in values for tensor in tensors(value)]


def state_bytes(trainer: Trainer) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in tensors(trainer.state_dict()))


def modes_of(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[LayerModes]:
    """Return a list to which the running trainer adds the modes of each training batch."""
    seen: list[LayerModes] = []
    forward = trainer.network.forward

    def spy(images: Tensor, mode: LayerModes) -> Tensor:
        seen.append(mode)
        return forward(images, mode)

    monkeypatch.setattr(trainer.network, "forward", spy)
    return seen


# --- Arguments of a trainer


def test_validation_images_are_cut_from_the_training_images(split: Split) -> None:
    trainer = Trainer(network(), split, recipe())
    assert (len(trainer.training), len(trainer.validation)) == (N_TRAINING, 20)
    assert trainer.validation.labels.bincount().tolist() == [2] * 10
    assert trainer.n_batches == N_BATCHES


@pytest.mark.parametrize("validation", [200, 5000])
def test_more_validation_images_than_there_are_images_are_refused(validation: int, split: Split) -> None:
    with pytest.raises(DataError, match=rf"training.validation: must be below .*200.*, got {validation:,}: lower it"):
        Trainer(network(), split, recipe(validation=validation))


@pytest.mark.parametrize(("shift", "told"), [(1, 10), (-1, -1), (-100, -100)])
def test_labels_beyond_the_classes_are_refused(split: Split, shift: int, told: int) -> None:
    with pytest.raises(DataError, match=f"label {told}: the network has 10 classes"):
        Trainer(network(), Split(split.images, split.labels + shift), recipe())


def test_epochs_beyond_the_recipe_are_refused(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(epochs=1))
    trainer.run_epoch()
    with pytest.raises(SnnZooError, match="1 epoch done, as many as in the recipe"):
        trainer.run_epoch()


def test_the_optimizer_has_the_rate_and_decay_of_the_recipe(split: Split) -> None:
    (group,) = Trainer(network(), split, recipe(learning_rate=0.5, weight_decay=0.25)).optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)


# --- The schedule


def test_an_epoch_samples_fits_and_trains_as_ann(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(), split, recipe(sample_period=2))
    seen = modes_of(trainer, monkeypatch)
    trainer._train(0, lambda done, total: None)
    trainer._train(1, lambda done, total: None)
    assert [modes.base for modes in seen] == [Mode.SAMPLE, Mode.SAMPLE, Mode.FIT, Mode.ANN] + [Mode.ANN] * 4


def test_crossover_epochs_move_blocks_to_snn(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(), split, recipe(crossover_epochs=(1, 2)))
    trainer.run_epoch()
    seen = modes_of(trainer, monkeypatch)
    trainer._train(1, lambda done, total: None)
    trainer._train(2, lambda done, total: None)
    assert [modes.crossover for modes in seen] == [1] * 4 + [2] * 4


def test_the_last_snn_epochs_run_wholly_as_snn(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(), split, recipe(epochs=3, snn_epochs=2))
    seen = modes_of(trainer, monkeypatch)
    for epoch in range(3):
        trainer._train(epoch, lambda done, total: None)
    assert {modes.base for modes in seen[:N_BATCHES]} == {Mode.SAMPLE, Mode.FIT, Mode.ANN}
    assert [modes.base for modes in seen[N_BATCHES:]] == [Mode.SNN] * 2 * N_BATCHES


def test_the_snn_epochs_may_learn_in_tandem_with_the_ann(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(), split, recipe(epochs=3, snn_epochs=1, snn_gradient="tandem"))
    seen, tandem, fitted = modes_of(trainer, monkeypatch), trainer.network.tandem, []
    monkeypatch.setattr(trainer.network, "tandem", lambda x: fitted.append(trainer.network.fitted) or tandem(x))
    for epoch in range(3):
        trainer._train(epoch, lambda done, total: None)
    assert len(seen) == 2 * N_BATCHES
    assert fitted == N_BATCHES * [True]


def test_a_tandem_of_a_network_that_was_never_fitted_begins_with_a_fit(split: Split) -> None:
    first = network()
    options = recipe(epochs=4, snn_epochs=4, snn_gradient="tandem", snn_learning_rate=0.01)
    trainer = Trainer(first, split, options)
    reports = [trainer.run_epoch() for _ in range(4)]
    assert reports[-1].training_loss < 0.9 * reports[0].training_loss


@pytest.mark.parametrize(("schedule", "factors"), [("constant", [1, 1]), ("cosine", [1, 0.5])])
def test_the_learning_rate_follows_its_schedule_epoch_by_epoch(schedule: str, factors, split: Split) -> None:
    trainer = Trainer(network(), split, recipe(epochs=2, learning_rate_schedule=schedule))
    assert [trainer.run_epoch().learning_rate for _ in range(2)] == pytest.approx([0.01 * f for f in factors])


def test_the_cosine_falls_with_every_batch_to_almost_nothing(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(epochs=1))
    rates: list[float] = []
    trainer.run_epoch(lambda done, total: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    expected = [0.005 * (1 + math.cos(math.pi * step / N_BATCHES)) for step in range(N_BATCHES)]
    assert rates == pytest.approx(expected)


def test_the_snn_epochs_have_a_rate_and_a_schedule_of_their_own(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(epochs=4, snn_epochs=2, snn_learning_rate=0.003))
    rates = [trainer.run_epoch().learning_rate for _ in range(4)]
    assert rates == pytest.approx([0.01, 0.005, 0.003, 0.0015])


# --- The loss


def test_each_epoch_sees_every_training_image_once_in_another_order(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(), split, recipe())
    seen: list[Tensor] = []
    forward = trainer.network.forward
    monkeypatch.setattr(trainer.network, "forward", lambda x, mode: seen.append(x.sum((1, 2, 3))) or forward(x, mode))
    for epoch in range(2):
        trainer._train(epoch, lambda done, total: None)
    first, second = torch.cat(seen).split(N_TRAINING)
    expected = (trainer.training.images.float() / 255).sum((1, 2, 3))
    assert not torch.equal(first, second)
    for epoch in (first, second):
        torch.testing.assert_close(epoch.sort().values, expected.sort().values)


def test_the_loss_is_cross_entropy_of_scaled_logits_with_smoothed_labels(split: Split) -> None:
    options = {"logit_scale": 2.5, "label_smoothing": 0.2, "snn_learning_rate": 1e-12}
    trainer = Trainer(network(), split, recipe(epochs=2, snn_epochs=1, **options))
    trainer.run_epoch()
    trainer.network.blocks[1].norm.update = lambda z, channel_axis: None
    with torch.no_grad():
        logits = trainer.network(trainer.training.images, Mode.SNN)
    expected = F.cross_entropy(2.5 * logits, trainer.training.labels, label_smoothing=0.2).item()
    report = trainer.run_epoch()
    assert report.training_loss == pytest.approx(expected, rel=1e-5)
    accuracy = (logits.argmax(1) == trainer.training.labels).float().mean().item()
    assert report.training_score == pytest.approx(accuracy)


def test_a_teacher_s_part_of_the_loss_is_the_distance_from_its_answers(split: Split) -> None:
    options = {"logit_scale": 2.5, "distillation": 0.3, "snn_learning_rate": 1e-12}
    matrix = torch.randn(784, 10, generator=torch.Generator().manual_seed(0))

    def teacher(images: Tensor) -> Tensor:
        return images.flatten(1) @ matrix / 10

    trainer = Trainer(network(), split, recipe(epochs=2, snn_epochs=1, **options), teacher=teacher)
    trainer.run_epoch()
    trainer.network.blocks[1].norm.update = lambda z, channel_axis: None
    images = trainer.training.images.float() / 255
    with torch.no_grad():
        ours = (2.5 * trainer.network(images, Mode.SNN)).softmax(1)
    theirs = teacher(images).softmax(1)
    distance = (theirs * (theirs / ours).log()).sum(1).mean().item()
    entropy = -ours.log()[torch.arange(N_TRAINING), trainer.training.labels].mean().item()
    assert distance > 0.05
    assert trainer.run_epoch().training_loss == pytest.approx(0.7 * entropy + 0.3 * distance, rel=1e-4)


def test_the_snn_epochs_may_learn_from_the_ann_that_they_began_with(split: Split) -> None:
    options = {"logit_scale": 2.5, "self_distillation": 0.3, "snn_learning_rate": 1e-12}
    trainer = Trainer(network(), split, recipe(epochs=2, snn_epochs=1, **options))
    trainer.run_epoch()
    trainer.network.blocks[1].norm.update = lambda z, channel_axis: None
    images = trainer.training.images.float() / 255
    with torch.no_grad():
        ours = (2.5 * trainer.network(images, Mode.SNN)).softmax(1)
        theirs = (2.5 * trainer.network(images, Mode.ANN)).softmax(1)
    distance = (theirs * (theirs / ours).log()).sum(1).mean().item()
    entropy = -ours.log()[torch.arange(N_TRAINING), trainer.training.labels].mean().item()
    assert distance > 1e-3
    assert trainer.run_epoch().training_loss == pytest.approx(0.7 * entropy + 0.3 * distance, rel=1e-4)


def test_a_network_teaches_itself_as_it_was_after_a_resumed_run_too(split: Split) -> None:
    options = recipe(epochs=4, snn_epochs=2, self_distillation=0.5)
    trainer, resumed = (Trainer(network(), split, options) for _ in range(2))
    for _ in range(3):
        trainer.run_epoch()
    resumed.load_state_dict(trainer.state_dict())
    assert resumed.run_epoch().training_loss == trainer.run_epoch().training_loss


def test_a_resumed_run_of_other_numbers_of_epochs_has_the_teacher_of_its_own(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(epochs=2, snn_epochs=1, self_distillation=0.5))
    for _ in range(2):
        trainer.run_epoch()
    longer = Trainer(network(), split, recipe(epochs=4, snn_epochs=1, self_distillation=0.5))
    longer.load_state_dict(trainer.state_dict())
    longer.run_epoch()
    assert longer.as_ann is None  # trains as ANN
    shorter = Trainer(network(), split, recipe(epochs=5, snn_epochs=4, self_distillation=0.5))
    shorter.load_state_dict(longer.state_dict())
    shorter.run_epoch()
    assert shorter.as_ann is not None  # although its SNN epochs should have started earlier


def test_a_network_that_was_never_fitted_cannot_teach_itself(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(epochs=1, snn_epochs=1, self_distillation=0.5))
    with pytest.raises(SnnZooError, match="the teacher is the ANN"):
        trainer.run_epoch()


def test_the_average_is_trained_on_nothing_and_is_what_is_scored(split: Split) -> None:
    plain, averaged = (Trainer(network(), split, recipe(ema_decay=decay)) for decay in (0.0, 0.9))
    for _ in range(2):
        plain.run_epoch()
        report = averaged.run_epoch()
    assert plain.trained is plain.network
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(averaged.network.state_dict()[name], tensor), name
    assert not torch.equal(averaged.trained.readout.synapse.weight, averaged.network.readout.synapse.weight)
    for mode, loss in (Mode.ANN, report.validation_ann_loss), (Mode.SNN, report.validation_snn_loss):
        assert evaluate(averaged.trained, averaged.validation, mode=mode).loss == pytest.approx(loss, rel=1e-6)


def test_a_recipe_that_names_a_teacher_wants_its_answers(split: Split) -> None:
    with pytest.raises(SnnZooError, match="teacher is 'somebody'"):
        Trainer(network(), split, recipe(teacher="somebody"))


def test_ann_batches_may_be_rounded_and_spikes_and_samples_are_not(split: Split, monkeypatch) -> None:
    monkeypatch.setattr(precision_module, "multiplies_half", lambda: True)

    def losses(precision: str, **options: Any) -> list[float]:
        trainer = Trainer(network(), split, recipe(epochs=1, precision=precision, **options))
        found: list[float] = []
        trainer.stats.training.add = lambda value, *counts: found.append(value)
        trainer._train(0, lambda done, total: None)
        return found

    exact, rounded = losses("float32"), losses("bfloat16")
    assert rounded[:2] == exact[:2]  # the first two batches are SAMPLE, the others ANN
    assert rounded[3] != exact[3]
    assert rounded == pytest.approx(exact, rel=0.02)
    assert losses("bfloat16", snn_epochs=1) == losses("float32", snn_epochs=1)
    options = {"snn_epochs": 1, "snn_gradient": "tandem", "snn_learning_rate": 0.01}
    tandems = [losses(precision, **options) for precision in ("float32", "bfloat16")]
    assert tandems[0][0] == tandems[1][0]  # spikes are exact
    assert tandems[0][3] != tandems[1][3]  # gradients are rounded
    assert losses("auto") == rounded
    monkeypatch.setattr(precision_module, "multiplies_half", lambda: False)
    assert losses("auto") == exact


@pytest.mark.parametrize("norm", ["none", "mean_only"])  # backward in one pass, and in parts
def test_gradients_of_snn_batches_are_rounded_as_the_recipe_says(norm: str, split: Split, monkeypatch) -> None:
    monkeypatch.setattr(precision_module, "HALF_FROM", 1)
    monkeypatch.setattr(precision_module, "multiplies_half", lambda: True)

    def gradient(precision: str) -> Tensor:
        trainer = Trainer(network(norm=norm), split, recipe(epochs=1, snn_epochs=1, precision=precision))
        kept = list[Tensor]()
        *_, weight = trainer.network.blocks[1].synapse.parameters()
        monkeypatch.setattr(trainer.optimizer, "step", lambda: kept.append(weight.grad.clone()))
        trainer._train(0, lambda done, total: None)
        return kept[0]

    exact, rounded, auto = (gradient(precision) for precision in ("float32", "bfloat16", "auto"))
    assert torch.equal(auto, rounded)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0.02, atol=1e-4)
    monkeypatch.setattr(precision_module, "multiplies_half", lambda: False)
    assert torch.equal(gradient("auto"), exact)


def test_an_epoch_may_be_some_of_the_images_others_each_time(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(), split, recipe(images_per_epoch=70))
    seen: list[Tensor] = []
    forward = trainer.network.forward
    monkeypatch.setattr(trainer.network, "forward", lambda x, mode: seen.append(x.sum((1, 2, 3))) or forward(x, mode))
    for epoch in range(2):
        trainer._train(epoch, lambda done, total: None)
    assert trainer.n_batches == 2
    first, second = (set(part.tolist()) for part in torch.cat(seen).split(70))
    assert len(first) > 65
    assert len(second) > 65
    assert first != second


def batches_of(trainer: Trainer, n: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return `n` batches of 40 images and more, each drawn with its own generator."""
    orders = (torch.arange(len(trainer.training)).roll(i)[: 40 + i] for i in range(n))
    return [
        trainer.task.batch(
            trainer.training,
            order,
            torch.Generator().manual_seed(i),
            Share(slice(0, len(order)), len(order)),
            trainer.network.device,
            in_time=True,
        )
        for i, order in enumerate(orders)
    ]


def test_mixup_adds_another_image_and_as_much_of_its_label(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(mixup=0.4))
    kept = []
    for images, labels, targets in batches_of(trainer, 20):
        indices = torch.arange(len(trainer.training)).roll(len(images) - 40)[: len(images)]
        plain, _ = _pixels(trainer.training, indices, trainer.network.device)
        own = targets.gather(1, labels[:, None])[:, 0]
        same = labels == labels.roll(1)
        assert (targets.sum(1) - 1).abs().max() < 1e-6
        assert torch.allclose(own[same], torch.ones(int(same.sum())))
        part = own[~same, None, None, None]
        expected = part * plain[~same] + (1 - part) * plain.roll(1, 0)[~same]
        torch.testing.assert_close(images[~same], expected)
        kept.append(own[~same])
    parts = torch.cat(kept)
    assert parts.min() >= 0.5
    drawn = torch.distributions.Beta(0.4, 0.4).sample((100_000,))
    assert parts.mean() == pytest.approx(float(torch.maximum(drawn, 1 - drawn).mean()), abs=0.02)


def test_a_loss_that_is_not_a_number_stops_training_and_says_where(split: Split) -> None:
    trainer = Trainer(network(), split, recipe())
    trainer.run_epoch()
    with torch.no_grad():
        trainer.network.readout.synapse.weight.fill_(math.nan)
    with pytest.raises(SnnZooError, match="loss is nan in epoch 1, batch 0: lower the learning rate"):
        trainer.run_epoch()


# --- Reports


def test_a_report_has_the_validation_scores_of_both_modes(split: Split) -> None:
    trainer = Trainer(network(), split, recipe())
    trainer.run_epoch()
    report = trainer.run_epoch()
    ann, snn = (evaluate(trainer.network, trainer.validation, mode=mode) for mode in (Mode.ANN, Mode.SNN))
    assert (report.validation_ann_score, report.validation_ann_loss) == (ann.accuracy, pytest.approx(ann.loss))
    assert (report.validation_snn_score, report.validation_snn_loss) == (snn.accuracy, pytest.approx(snn.loss))
    assert ann.loss != snn.loss
    assert (report.epoch, trainer.epoch) == (1, 2)


# --- Determinism


HARD = {"augment": "default", "sample_period": 2, "crossover_epochs": (3,), "weight_decay": 0.01, "seed": 3}
"""A recipe that uses all random and all scheduled parts."""


def test_one_seed_gives_the_same_bytes_whatever_the_global_generator(split: Split) -> None:
    found = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        trainer = Trainer(network(dropout=0.3), split, recipe(**HARD))
        for _ in range(3):
            trainer.run_epoch()
        found.append(state_bytes(trainer))
    assert found[0] == found[1]


def test_trainings_in_threads_give_the_bytes_of_each_alone(split: Split) -> None:
    def trained(seed: int) -> bytes:
        trainer = Trainer(network(seed=seed, dropout=0.3), split, recipe(**{**HARD, "seed": seed}))
        trainer.run_epoch()
        return state_bytes(trainer)

    alone = [trained(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(trained, range(3))) == alone


def test_another_seed_gives_other_bytes(split: Split) -> None:
    found = []
    for seed in (3, 4):
        trainer = Trainer(network(), split, recipe(seed=seed))
        trainer.run_epoch()
        found.append(state_bytes(trainer))
    assert found[0] != found[1]


def test_dropout_draws_anew_in_each_epoch(split: Split, monkeypatch) -> None:
    trainer = Trainer(network(dropout=0.5), split, recipe())
    trainer.run_epoch()  # the first epoch samples, later ones do not
    drawn: list[Tensor] = []
    monkeypatch.setattr(base_block, "dropout_mask", lambda *args: drawn.append(dropout_mask(*args)) or drawn[-1])
    trainer.run_epoch()
    n_first = len(drawn)
    trainer.run_epoch()
    assert not torch.equal(drawn[0], drawn[n_first])


# --- Stopping and resuming


def saved(trainer: Trainer) -> dict[str, Any]:
    """Save the state to a file of tensors and plain values only, and load it again."""
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def without_time(report: EpochReport) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name != "seconds"}


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_resumed_goes_on_as_if_it_had_not_stopped(stop: int, ema_decay: float, split: Split) -> None:
    options = recipe(**HARD, epochs=5, ema_decay=ema_decay)
    whole = Trainer(network(dropout=0.3), split, options)
    reports = [without_time(whole.run_epoch()) for _ in range(5)]

    first = Trainer(network(dropout=0.3), split, options)
    for _ in range(stop):
        first.run_epoch()
    second = Trainer(network(seed=99, dropout=0.3), split, options)
    second.load_state_dict(saved(first))
    resumed = [without_time(second.run_epoch()) for _ in range(stop, 5)]

    assert resumed == reports[stop:]
    assert state_bytes(second) == state_bytes(whole)
    assert second.stats.records() == whole.stats.records()


def test_a_state_stays_as_it_was_while_the_run_goes_on(split: Split) -> None:
    trainer, other = (Trainer(network(), split, recipe(epochs=3)) for _ in range(2))
    trainer.run_epoch()
    state = trainer.state_dict()
    other.load_state_dict(state)
    reports = [without_time(each.run_epoch()) for each in (trainer, other)]
    trainer.load_state_dict(state)
    assert reports == 2 * [without_time(trainer.run_epoch())]


def test_weights_that_the_last_step_makes_infinite_are_no_epoch(split: Split) -> None:
    huge = recipe(epochs=1, snn_epochs=1, snn_learning_rate=1e38, batch_size=len(split))
    with pytest.raises(SnnZooError, match="not finite after epoch 0: lower the learning rate"):
        Trainer(network(), split, huge).run_epoch()


def test_a_checkpoint_of_another_recipe_is_refused_with_the_fields_that_differ(split: Split) -> None:
    trainer = Trainer(network(), split, recipe())
    other = Trainer(network(), split, recipe(seed=1, learning_rate=0.5))
    with pytest.raises(SnnZooError, match=r"another recipe \(differs in: learning_rate, seed\)"):
        other.load_state_dict(trainer.state_dict())


def test_a_refused_checkpoint_changes_nothing(split: Split) -> None:
    trainer, other = Trainer(network(), split, recipe()), Trainer(network(seed=1), split, recipe(seed=1))
    before = state_bytes(other)
    with pytest.raises(SnnZooError):
        other.load_state_dict(trainer.state_dict())
    assert state_bytes(other) == before


def test_a_checkpoint_needs_the_reports_of_its_epochs(split: Split) -> None:
    trainer, other = Trainer(network(), split, recipe()), Trainer(network(), split, recipe())
    trainer.run_epoch()
    with pytest.raises(IntegrityError, match="reports: must be those of 1 epochs, got 0"):
        other.load_state_dict({**trainer.state_dict(), "reports": []})


# --- fit


@pytest.fixture
def script(monkeypatch) -> Callable[..., None]:
    """Script the correct answers on 10 validation images: best as SNN in epochs 1 and 3, best as ANN in epoch 2.

    The returned function takes a list that is True for epochs in which states leave 24 bits, and the losses as SNN.
    """
    right = {Mode.ANN: iter([1, 2, 9, 4]), Mode.SNN: iter([3, 6, 5, 6])}

    def score(network: Network, split: Split, *, mode: Mode, loss: float = 1.0, **others: object) -> Evaluation:
        n_correct = next(right[mode])
        return Evaluation(
            measure=ACCURACY,
            mode=mode,
            time_steps=4,
            n_images=10,
            score=n_correct / 10,
            loss=loss,
            rates=(),
            synops=None,
            seconds=1.0,
            n_correct=n_correct,
        )

    def set_script(beyond: Sequence[bool] = (False,) * 4, losses: Sequence[float] = (1.0,) * 4) -> None:
        overflows, snn_losses = iter(beyond), iter(losses)

        def score_exactly(network: Network, split: Split, **others: object) -> tuple[Evaluation, str | None]:
            found = score(network, split, mode=Mode.SNN, loss=next(snn_losses))
            return found, "a state" if next(overflows) else None

        monkeypatch.setattr("bootstrap_core.training.trainer.evaluate", score)
        monkeypatch.setattr("bootstrap_core.training.trainer.evaluate_exactly", score_exactly)

    return set_script


def test_fit_leaves_the_weights_of_the_first_best_epoch_by_snn_accuracy(split: Split, script) -> None:
    script()
    trained, snapshots, best = network(), [], []

    def on_epoch(report: EpochReport) -> None:
        best.append(report.best)
        snapshots.append({name: tensor.clone() for name, tensor in trained.state_dict().items()})

    stats = fit(trained, split, recipe(), on_epoch=on_epoch)
    assert best == [True, True, False, False]
    assert stats.snn.best_epoch == 1
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, snapshots[1][name]), name
    assert not torch.equal(trained.readout.synapse.weight, snapshots[3]["blocks.2.synapse.weight"])


def train_resumed(split: Split, best: list[bool]) -> Trainer:
    """Train an epoch for each of `best`, resuming before the next; check which epochs are called the best."""
    trainer, found = Trainer(network(), split, recipe()), []
    while len(found) < len(best):
        found.append(trainer.run_epoch().best)
        resumed = Trainer(network(), split, recipe())
        resumed.load_state_dict(trainer.state_dict())
        trainer = resumed
    assert found == best
    return trainer


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((1.0, 1.0, 0.1, 0.9), [True, True, False, True]),
        ((1.0, 1.0, 0.1, 1.1), [True, True, False, False]),
        ((1.0, math.nan, 1.0, 2.0), [True, True, False, True]),
    ],
)
def test_of_epochs_with_the_same_score_the_one_with_the_lower_loss_is_kept(
    losses: tuple[float, ...], best: list[bool], split: Split, script
) -> None:
    script(losses=losses)
    trainer = train_resumed(split, best)
    assert trainer.stats.snn.best_epoch == 3 - best[::-1].index(True)


def test_without_validation_all_images_train_and_the_last_epoch_is_kept(split: Split) -> None:
    trainer = Trainer(network(), split, recipe(validation=0))
    assert len(trainer.training) == len(split)
    reports = [trainer.run_epoch() for _ in range(2)]
    assert [(report.best, report.validation_ann_score, report.validation_snn_loss) for report in reports] == [
        (True, None, None)
    ] * 2
    other = Trainer(network(), split, recipe(validation=0))
    other.load_state_dict(trainer.state_dict())
    assert [other.run_epoch().best for _ in range(2)] == [True, True]
    fit(trained := network(), split, recipe(validation=0))
    assert all(map(torch.equal, trained.state_dict().values(), other.network.state_dict().values()))


def test_fit_leaves_the_average_of_the_best_epoch(split: Split, script, monkeypatch) -> None:
    script()
    trained, averages = network(), []
    run_epoch = Trainer.run_epoch

    def spy(trainer: Trainer, *progress: Any) -> EpochReport:
        report = run_epoch(trainer)
        averages.append({name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()})
        return report

    monkeypatch.setattr(Trainer, "run_epoch", spy)
    fit(trained, split, recipe(ema_decay=0.9))
    assert len(averages) == 4
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, averages[1][name]), name


@pytest.mark.parametrize(
    ("beyond", "best"),
    [
        ([True, True, False, False], [True, True, True, True]),  # within 24 bits from the third epoch on
        ([False, True, True, True], [True, False, False, False]),
        ([True, True, True, True], [True, True, False, False]),
    ],
)
def test_an_epoch_that_the_hardware_can_hold_beats_any_that_it_cannot(
    beyond: list[bool], best: list[bool], split: Split, script
) -> None:
    script(beyond)
    train_resumed(split, best)


def test_snn_epochs_keep_the_statistics_of_batch_norms(split: Split) -> None:
    document = network().spec.model_dump(mode="json")
    hidden, *others = document["blocks"]
    document["blocks"] = [{**hidden, "norm": "batch"}, *others]
    net = build_network(NetworkSpec.model_validate(document), seed=0)
    trainer = Trainer(net, split, recipe(epochs=2, snn_epochs=1))
    means = [net.blocks[1].norm.running_mean.clone()]
    for _ in range(2):
        trainer.run_epoch()
        means.append(net.blocks[1].norm.running_mean.clone())
    assert not torch.equal(means[0], means[1])
    assert torch.equal(means[1], means[2])


# --- events


@pytest.fixture(scope="module")
def recordings() -> Split:
    """Events of three classes: an edge that moves to the right, to the left, or stands still and flickers."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    images = torch.zeros(120, 10, 2, 6, 10, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        for t in range(10):
            column = (t, 9 - t, int(torch.randint(10, (), generator=generator)))[label]
            images[i, t, t % 2, :, column] = 1
    noise = torch.rand(images.shape, generator=generator) < 0.02
    return Split(images | noise.byte(), labels)


def moving(**training: Any) -> Network:
    spec = {
        "name": "moving",
        "time_steps": 10,
        "neuron": {"threshold": 0.5, "voltage_decay": 0.2, "tau_grad": 0.05},
        "input": {"shape": [2, 6, 10], "encoding": "events"},
        "blocks": [
            {"kind": "conv", "channels": 6, "kernel": 3, "stride": 2, "norm": "mean_only"},
            {"kind": "flatten"},
            {"kind": "dense", "features": 24, "dropout": 0.1},
            {"kind": "affine", "features": 3},
        ],
        "training": {"epochs": 8, "batch_size": 20, "validation": 30, "learning_rate": 0.01, "sample_iterations": 1}
        | {"sample_period": 2, "snn_learning_rate": 0.01, "initialize": True, **training},
    }
    return build_network(NetworkSpec.model_validate(spec), seed=0)


@pytest.mark.parametrize(
    "options",
    [{"snn_epochs": 6}, {"snn_epochs": 6, "snn_gradient": "tandem"}, {"crossover_epochs": [1, 2], "ema_decay": 0.5}],
    ids=["surrogate", "tandem", "hybrid"],
)
def test_a_network_learns_from_events(options: dict[str, Any], recordings: Split) -> None:
    net = moving(**options)
    stats = fit(net, recordings)
    assert stats.snn.best_score > (0.6 if "snn_epochs" in options else 0.4)
    score = evaluate(net, recordings)
    assert (score.time_steps, score.n_images) == (10, 120)
    assert evaluate(net, recordings, time_steps=3).time_steps == 3


def test_a_recurrent_network_learns_as_snn_alone(recordings: Split) -> None:
    document = moving(snn_epochs=8).spec.model_dump(mode="json")
    document["blocks"][2] |= {"recurrent": True, "delays": {"longest": 2}}
    net = build_network(NetworkSpec.model_validate(document), seed=0)
    trainer = Trainer(net, recordings)
    report = trainer.run_epoch()
    assert (report.validation_ann_loss, report.validation_ann_score) == (None, None)
    assert fit(net, recordings).snn.best_score > 0.6
    with pytest.raises(SnnZooError, match=r"training\.snn_epochs: a recurrent network has no ANN"):
        Trainer(net, recordings, net.spec.training.model_copy(update={"snn_epochs": 3}))


# --- trained delays


def delayed(*, learn: bool = True, **training: Any) -> Network:
    document = moving(**{"epochs": 3, "snn_epochs": 3, **training}).spec.model_dump(mode="json")
    document["blocks"][0]["delays"] = {"longest": 3, "learn": learn}
    document["blocks"][2]["delays"] = {"per": "synapse", "longest": 2, "learn": learn}
    return build_network(NetworkSpec.model_validate(document), seed=0)


def test_delays_have_a_faster_rate_of_their_own_and_do_not_decay(recordings: Split) -> None:
    trainer = Trainer(delayed(weight_decay=0.25), recordings)
    weights, delays = trainer.optimizer.param_groups
    assert [tuple(each.shape) for each in delays["params"]] == [(6,), (24, 48)]
    assert (weights["weight_decay"], delays["weight_decay"]) == (0.25, 0)
    assert len(weights["params"]) + 2 == len(list(trainer.network.parameters()))
    trainer.run_epoch()
    assert delays["lr"] == pytest.approx(DELAY_RATE * weights["lr"])
    (only,) = Trainer(delayed(learn=False), recordings).optimizer.param_groups
    assert len(only["params"]) == len(weights["params"])


def test_training_moves_delays_within_their_range(recordings: Split) -> None:
    net = delayed()
    before = [net.block(i).delay.detach().clone() for i in (1, 3)]
    trainer = Trainer(net, recordings)
    trainer.run_epoch()
    for i, longest, old in zip((1, 3), (3, 2), before, strict=True):
        delay = net.block(i).delay
        assert not torch.equal(net.block(i).quantized_delay(), old)
        assert 0 <= delay.min() < delay.max() <= longest
        assert not torch.equal(delay, delay.round())


def test_tandem_leaves_delays_as_they_are(recordings: Split) -> None:
    net = delayed(epochs=1, snn_epochs=1, snn_gradient="tandem")
    before = net.block(3).delay.detach().clone()
    Trainer(net, recordings).run_epoch()
    assert torch.equal(net.block(3).delay, before)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_with_trained_delays_resumes_between_whole_steps(ema_decay: float, recordings: Split) -> None:
    whole, first, second = (Trainer(delayed(ema_decay=ema_decay), recordings) for _ in range(3))
    for _ in range(3):
        whole.run_epoch()
    first.run_epoch()
    second.load_state_dict(saved(first))
    for _ in range(2):
        second.run_epoch()
    assert state_bytes(second) == state_bytes(whole)
    x = recordings.images.transpose(0, 1)
    assert torch.equal(second.trained(x), whole.trained(x))


@pytest.mark.parametrize("options", [{"augment": {"degrees": 5}}, {"mixup": 0.2}])
def test_events_are_not_changed_as_images_are(options: dict[str, Any], recordings: Split) -> None:
    with pytest.raises(SnnZooError, match=r"training\.(augment\.degrees|mixup): applies to images, not to events"):
        Trainer(moving(**options), recordings)
