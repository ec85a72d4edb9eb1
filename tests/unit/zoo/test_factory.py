import pytest

import zoo
from bootstrap_core import IntegerNetwork, evaluate, load_dataset
from specs import load_spec
from zoo.factory import packaged_model
from zoo.runs.measurement import made_by


def test_the_packaged_models_are_named() -> None:
    assert {"mnist-conv", "mnist-dense", "mnist-dense-shallow"} <= set(zoo.model_names())


@pytest.mark.parametrize("name", zoo.model_names())
def test_a_packaged_model_was_made_by_its_spec_in_the_package(name: str) -> None:
    model, spec = packaged_model(name), load_spec(name)
    assert made_by(model, spec)
    assert not any(getattr(block, "weight_norm", False) for block in model.spec.blocks)  # folded into weights
    assert model.card["training"]["seed"] == spec.training.seed


@pytest.mark.parametrize("name", [name for name in zoo.model_names() if load_spec(name).training.data == "mnist"])
def test_a_packaged_model_is_as_good_as_its_card_on_the_sample(name: str) -> None:
    """The sample has 1,000 of 10,000 test images; the tolerance is three standard errors of the card's accuracy."""
    accuracy = packaged_model(name).card["test"]["snn"]["accuracy"]
    found = evaluate(IntegerNetwork(zoo.create_model(name)), load_dataset("mnist-sample").test).accuracy
    assert found >= accuracy - 3 * (accuracy * (1 - accuracy) / 1000) ** 0.5
