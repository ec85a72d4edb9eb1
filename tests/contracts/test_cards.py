"""Cards of the packaged models: every figure that is cheap to compute is checked; `make cards` measures the rest."""

import shlex
from pathlib import Path

import pytest

import zoo
from bootstrap_core import IntegerNetwork, evaluate, load_dataset
from specs import load_spec, summarize
from zoo.card import Card, FileFacts
from zoo.card_text import as_markdown
from zoo.cli.program import zoo as command
from zoo.factory import model_file, packaged_model
from zoo.model_format import ModelFormat
from zoo.runs.card_files import packaged_card
from zoo.runs.golden import golden_differences
from zoo.runs.measurement import STEPS, made_by


@pytest.fixture(params=zoo.model_names())
def card(request) -> Card:
    return packaged_card(request.param)


def test_every_packaged_model_has_a_card_and_every_card_a_model() -> None:
    cards = (Path(zoo.__file__).parent / "cards").glob("*.yaml")
    assert sorted(path.stem for path in cards) == zoo.model_names() != []


def test_it_is_of_this_file(card: Card) -> None:
    assert FileFacts.of_file(model_file(card.name)) == card.files[ModelFormat.SAFETENSORS]


def test_it_is_of_this_spec_and_of_the_network_of_that_in_the_package(card: Card) -> None:
    model = packaged_model(card.name)
    spec = model.spec
    assert (spec.name, spec.description, spec.time_steps) == (card.name, card.description, card.time_steps)
    assert (spec.input, spec.training) == (card.input, card.training.recipe)
    assert len(card.layers) == len(spec.layers)
    assert made_by(model, load_spec(card.name))


def test_its_training_is_that_of_the_file(card: Card) -> None:
    told = packaged_model(card.name).card["training"]
    assert (card.training.epoch, card.training.validation_accuracy) == (told["epoch"], told["validation_snn_accuracy"])
    assert card.data.name == told["data"]
    assert card.data.validation_images == card.training.recipe.validation
    assert card.data.validation_seed == card.training.recipe.seed
    if card.training.curves is not None:
        curves = card.training.curves.model_dump()
        assert {len(curve) for curve in curves.values()} == {card.training.recipe.epochs}
        best = card.training.curves.validation_snn_accuracy[card.training.epoch]
        assert best == max(card.training.curves.validation_snn_accuracy)
        assert best == pytest.approx(card.training.validation_accuracy, abs=1e-6)  # curves have six digits


def test_it_has_every_number_of_steps_and_is_of_whole_images(card: Card) -> None:
    longest = card.time_steps if card.input.is_events else max(STEPS)
    assert set(card.test.by_steps) == {*(t for t in STEPS if t <= longest), card.time_steps}
    assert card.test.accuracy == card.test.by_steps[card.time_steps]
    n = card.data.test_images
    assert None not in [accuracy for t, accuracy in card.test.by_steps.items() if t <= card.time_steps]
    assert (card.test.ann is not None) == load_spec(card.name).has_ann
    for accuracy in filter(None, (*card.test.by_steps.values(), card.test.ann)):
        assert n * accuracy == pytest.approx(round(n * accuracy), abs=1e-6)


def test_its_command_scores_what_holds_24_bits(card: Card) -> None:
    steps = card.commands.eval.rpartition(" ")[2]
    assert steps == ",".join(str(t) for t, accuracy in card.test.by_steps.items() if accuracy is not None)


def test_the_golden_output_comes_out_again(card: Card) -> None:
    assert golden_differences(IntegerNetwork(zoo.create_model(card.name)), card.golden) == []


def test_its_rates_are_those_of_the_sample_within_a_tenth(card: Card) -> None:
    if card.data.name != "mnist":
        pytest.skip("no sample of its data in the package")
    score = evaluate(IntegerNetwork(zoo.create_model(card.name)), load_dataset("mnist-sample").test)
    for layer, rate, synops in zip(card.layers, score.rates, score.synops, strict=True):
        assert layer.rate is rate is None or layer.rate == pytest.approx(rate, rel=0.1)
        assert layer.synops == pytest.approx(synops, rel=0.1)


def test_its_operations_are_no_more_than_there_can_be(card: Card) -> None:
    dense = sum(row.synops for row in summarize(packaged_model(card.name).spec))
    snn, ann = card.operations.snn, card.operations.ann
    assert 0 < snn.effective_macs + snn.effective_acs <= sum(layer.synops for layer in card.layers)
    assert (ann is not None) == load_spec(card.name).has_ann
    if ann is not None:
        assert ann.effective_acs == 0
        assert 0 < ann.effective_macs < dense


def test_its_commands_can_be_run(card: Card) -> None:
    """Its commands parse, and name the model."""
    for line in card.commands.model_dump().values():
        program, name, *arguments = shlex.split(line)
        assert program == "zoo"
        assert arguments[0] == card.name
        command.commands[name].make_context(name, arguments)


def test_it_tells_its_teacher(card: Card) -> None:
    recipe, text = card.training.recipe, as_markdown(card, packaged_model(card.name).spec)
    assert recipe is not None
    assert ("\nTaught by " in text) == (recipe.teacher is not None)
