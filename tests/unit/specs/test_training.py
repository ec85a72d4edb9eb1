import re

import pytest

from specs import AugmentSpec, TrainingSpec, dump_spec, parse_spec

NETWORK = "name: a\ntime_steps: 4\ninput: {shape: [9]}\nblocks:\n  - {kind: affine, features: 2}\n"


def test_the_snn_epochs_are_among_the_epochs(refusal) -> None:
    assert refusal(NETWORK + "training: {epochs: 2, snn_epochs: 3}\n") == (
        "net.yaml:6: training.snn_epochs: must be at most training.epochs (2) (got 3)"
    )


def test_crossover_epochs_rise(refusal) -> None:
    assert refusal(NETWORK + "training: {crossover_epochs: [1, 3, 2]}\n") == (
        "net.yaml:6: training.crossover_epochs: must be in ascending order (got [1, 3, 2])"
    )


@pytest.mark.parametrize(
    ("epochs", "reason"),
    [
        ("[3, 50]", r"must be below training.epochs \(50\), since epochs count from 0"),
        (str(list(range(9))), "must have at most . epochs, one for the input and one for each block, got 9"),
    ],
)
def test_crossover_epochs_that_cannot_be_are_refused(epochs, reason, refusal) -> None:
    found = refusal(NETWORK + f"training: {{crossover_epochs: {epochs}}}\n")
    assert re.search(f"net.yaml:[56]: training.crossover_epochs: {reason}", found), found


def test_the_scale_of_augmentation_runs_from_smallest_to_largest(refusal) -> None:
    assert refusal(NETWORK + "training:\n  augment:\n    scale: [1.1, 0.9]\n") == (
        "net.yaml:8: training.augment.scale: must be [smallest, largest] (got [1.1, 0.9])"
    )


DEFAULT = AugmentSpec(degrees=10, translate=0.05, scale=(0.95, 1.05), shear=5)


def test_the_default_augmentation_has_a_name(refusal) -> None:
    recipe = parse_spec(NETWORK + "training: {augment: default}\n").training
    assert (recipe.augment, recipe.idle) == (DEFAULT, [])
    for given, shown in (("defaults", "'defaults'"), ("true", "True")):
        told = refusal(NETWORK + f"training:\n  augment: {given}\n")
        assert f"net.yaml:7: training.augment: must be default, null, or a mapping of fields (got {shown})" in told


def test_an_empty_augmentation_still_means_the_default_one_and_says_so() -> None:
    spec = parse_spec(NETWORK + "training: {augment: {}}\n")
    assert spec.training.augment == DEFAULT
    told = "training.augment: {} means the defaults, and will be refused: write augment: default"
    assert spec.training.idle == [told]
    assert parse_spec(dump_spec(spec)).training.idle == []


def test_what_does_nothing_beside_the_rest_is_told() -> None:
    recipe = TrainingSpec(snn_gradient="tandem", snn_learning_rate=1e-3, distillation=0.7)
    assert recipe.idle == [
        "training.snn_learning_rate has no effect without SNN epochs: set training.snn_epochs",
        "training.snn_gradient has no effect without SNN epochs: set training.snn_epochs",
        "training.distillation has no effect without a teacher: set training.teacher",
    ]
    assert recipe.model_copy(update={"snn_epochs": 1, "teacher": "mnist-conv"}).idle == []
    assert TrainingSpec().idle == []
