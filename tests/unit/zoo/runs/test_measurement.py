"""Figures of a card, compared with the functions that measure each of them."""

import datetime
import hashlib
from dataclasses import replace

import pytest

from bootstrap_core import IntegerNetwork, build_network, evaluate
from converters import Model, read_model, write_model
from converters.formats.c import c_writer
from specs import IntegrityError, SnnZooError, load_spec
from specs.io import spec_from_document
from specs.training import Precision
from zoo.card import SeedScore, Versions, dump_card, load_card, seed_accuracies
from zoo.card_text import as_markdown, c_section, costs_in_c, document, seed_words
from zoo.runs.measurement import STEPS, differences, made_by, measure_card, measure_seed, same_network


def test_the_file_and_the_spec_are_told(card, model_file, spec) -> None:
    digest = hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert (card.files["safetensors"].sha256, card.revision) == (digest, digest[:12])
    assert card.files["safetensors"].bytes == model_file.stat().st_size
    assert (card.time_steps, card.input, card.training.recipe) == (3, spec.input, spec.training)


def test_what_the_file_knows_of_its_training_is_told(card) -> None:
    training = card.training
    assert (training.epoch, training.validation_accuracy, training.curves) == (1, 0.25, None)
    assert training.versions == Versions(snnzoo="0", torch="1", numpy="2", python="3")
    assert (card.data.training_images, card.data.validation_images, card.data.validation_seed) == (1500, 500, 7)
    assert card.data.test_images == 40


def test_validation_images_that_the_dataset_sets_apart_are_told(card, model_file, dataset) -> None:
    assert "at random, by the seed" in card.data.validation_rule
    for n, rule in ((500, "set apart by the dataset itself; seed"), (499, card.data.validation_rule)):
        with_own = replace(dataset, train=replace(dataset.train, n_validation=n))
        assert measure_card(model_file, with_own, licence="MIT").data.validation_rule == rule


def test_a_card_also_has_the_accuracy_on_data_from_elsewhere(card, model_file, dataset, spec) -> None:
    other = replace(dataset, name="dig-mnist", test=dataset.train)
    found = measure_card(model_file, dataset, licence="MIT", elsewhere=[other])
    expected = evaluate(IntegerNetwork(read_model(model_file).build()), dataset.train).accuracy
    assert (found.test.elsewhere, card.test.elsewhere) == ({"dig-mnist": expected}, {})
    assert f"On the test images of Dig-MNIST, T = 3: {100 * expected:.2f} %" in as_markdown(found, spec)
    assert [each.field for each in differences(card, found)] == ["test.elsewhere.dig-mnist"]


def test_scores_are_those_of_the_integer_engine_at_each_t(card, model_file, dataset) -> None:
    exact = IntegerNetwork(read_model(model_file).build())
    assert list(card.test.by_steps) == sorted({*STEPS, 3})
    for t, accuracy in card.test.by_steps.items():
        assert accuracy == evaluate(exact, dataset.test, time_steps=t).accuracy
    own = evaluate(exact, dataset.test)
    assert (card.test.accuracy, card.test.loss) == (own.accuracy, own.loss)
    assert tuple(layer.rate for layer in card.layers) == own.rates
    assert tuple(layer.synops for layer in card.layers) == own.synops


def test_without_fitted_activations_there_is_no_ann(card) -> None:
    assert card.test.ann is None
    assert card.operations.ann is None


def test_operations_and_energy_follow_from_synops(card, spec) -> None:
    dense = 784 * 6 + 6 * 10
    synops = sum(layer.synops for layer in card.layers)
    assert card.operations.snn.effective_macs == 0
    assert 0.5 * synops < card.operations.snn.effective_acs <= synops  # some weights are 0
    told = document(card, spec)
    costs = {one["operation"]: one["picojoules"] for one in told["energy"]["constants"]}
    nanojoules = told["energy"]["nanojoules"]
    assert nanojoules["SNN, 32-bit floats"] == pytest.approx(synops * costs["32-bit float add"] / 1000)
    assert nanojoules["ANN, were it in 8 bits"] == pytest.approx(dense * 0.3 / 1000)
    assert told["operations"]["snn"]["dense"] == 3 * dense
    assert told["weight_bytes"] == sum(layer["weight_bytes"] for layer in told["layers"]) == dense
    assert [(layer["kind"], layer["shape"]) for layer in told["layers"]][1:] == [("dense", (6,)), ("affine", (10,))]


def test_a_card_of_other_layers_is_refused(card, spec) -> None:
    for show in (document, as_markdown):
        with pytest.raises(IntegrityError, match="the card of tiny has 2 layers, the model 3"):
            show(card.model_copy(update={"layers": card.layers[1:]}), spec)


def test_graded_pixels_are_multiplied(spec, dataset, tmp_path) -> None:
    document = spec.model_dump(mode="json")
    document["input"] = {"shape": [784], "encoding": "graded", "bits": 4}
    net = build_network(spec_from_document(document), seed=1)
    found = measure_card(
        write_model(Model.of(net, {"training": {}}), tmp_path / "a.safetensors"), dataset, licence="MIT"
    ).operations.snn
    assert found.effective_macs > found.effective_acs > 0


def test_costs_in_c_are_of_the_operations_that_were_measured(card, spec, monkeypatch) -> None:
    costs = costs_in_c(spec, card)
    synops = sum(layer.synops for layer in card.layers) / card.time_steps
    assert costs.step_synops + costs.picture_synops == pytest.approx(synops)
    assert costs_in_c(spec).step_synops > costs.step_synops
    assert "## As C source" in as_markdown(card, spec)
    monkeypatch.setattr(c_writer, "ENCODINGS", ())
    assert (costs_in_c(spec, card), c_section(spec, card)) == (None, [])


def test_measured_again_a_card_is_the_same(card, model_file, dataset) -> None:
    again = measure_card(model_file, dataset, licence="MIT")
    assert differences(card, again) == []


def test_a_difference_is_told_by_its_field(card) -> None:
    worse = card.model_copy(update={"test": card.test.model_copy(update={"by_steps": {**card.test.by_steps, 3: 1.0}})})
    (one,) = differences(card, worse)
    assert (one.field, one.stored, one.found) == ("test.by_steps.3", card.test.accuracy, 1.0)


def test_rounding_dates_and_versions_are_no_difference(card) -> None:
    other = card.model_copy(
        update={
            "date": datetime.date(2000, 1, 1),
            "versions": card.training.versions,
            "test": card.test.model_copy(update={"loss": card.test.loss * (1 + 1e-9)}),
        }
    )
    assert differences(card, other) == []
    other = card.model_copy(update={"test": card.test.model_copy(update={"loss": card.test.loss * (1 + 1e-3)})})
    assert [one.field for one in differences(card, other)] == ["test.loss"]


def test_golden_images_are_of_the_test_set_and_many_classes(card, dataset) -> None:
    assert card.golden.shape == (8, 1, 28, 28)
    assert len(set(card.golden.labels)) > 4
    assert set(card.golden.labels) <= set(dataset.test.labels.tolist())


def test_a_card_with_a_recipe_is_measured_on_the_data_that_it_was_trained_on(model_file, dataset) -> None:
    with pytest.raises(SnnZooError, match=r"was trained on mnist-sample, .* measure it on mnist-sample, not on mnist"):
        measure_card(model_file, replace(dataset, name="mnist"), licence="MIT")


def test_a_name_of_the_package_must_have_the_packages_spec(model_file, dataset) -> None:
    with pytest.raises(SnnZooError, match="not trained by the package's spec 'mnist-dense'"):
        measure_card(model_file, dataset, name="mnist-dense", licence="MIT")


def test_the_card_of_a_model_without_a_recipe_tells_of_none(card, model_file, dataset, tmp_path) -> None:
    model = read_model(model_file)
    bare = replace(model, spec=model.spec.model_copy(update={"training": None}), card={"by": "me"})
    found = measure_card(write_model(bare, tmp_path / "a.safetensors"), dataset, licence="MIT")
    assert (found.test, found.layers, found.golden) == (card.test, card.layers, card.golden)
    assert (found.training.recipe, found.data.training_images, found.data.validation_rule) == (None, None, None)
    assert found.commands.train is None
    assert seed_words(found) == "not recorded"
    assert "zoo train" not in as_markdown(found, bare.spec)
    dump_card(found, tmp_path / "a.yaml")
    assert load_card(tmp_path / "a.yaml") == found


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"epoch": "many"}, "epoch: must be a whole number"),
        ({"versions": 3}, "versions: must be a mapping"),
        ({"validation_snn_accuracy": 7}, "validation_accuracy: must be at most 1"),
    ],
)
def test_a_file_that_tells_nonsense_of_its_training_is_refused(told, message, model_file, dataset, tmp_path) -> None:
    path = write_model(replace(read_model(model_file), card={"training": told}), tmp_path / "a.safetensors")
    with pytest.raises(
        IntegrityError, match=rf"a\.safetensors: the file's record of its training is wrong: .*{message}"
    ):
        measure_card(path, dataset, licence="MIT")


@pytest.mark.parametrize("facts", [[], "text", 3])
def test_facts_that_are_no_mapping_tell_nothing(facts, model_file, dataset, tmp_path) -> None:
    card = {"conversion": facts, "test": facts}
    model = replace(read_model(model_file), card=card)
    found = measure_card(write_model(model, tmp_path / "a.safetensors"), dataset, licence="MIT")
    assert (found.training.epoch, model.data, model.overflow) == (None, "mnist-sample", None)
    assert model.folded().card == card


def test_folding_weight_norm_leaves_a_network_the_same() -> None:
    spec = load_spec("mnist-dense")
    folded = tuple(block.model_copy(update={"weight_norm": False}) for block in spec.blocks)
    assert same_network(spec, spec.model_copy(update={"blocks": folded}))
    rounded = spec.training.model_copy(update={"precision": Precision.BFLOAT16})
    assert same_network(spec, spec.model_copy(update={"training": rounded}))
    assert not same_network(spec, spec.model_copy(update={"time_steps": 4}))
    assert not same_network(spec, spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": 81})}))


def test_a_model_that_was_trained_on_keeps_the_network_and_not_the_recipe(model_file) -> None:
    model = read_model(model_file)
    longer = model.spec.model_copy(update={"training": model.spec.training.model_copy(update={"epochs": 81})})
    on = replace(model, card={"training": {"start_revision": "0123456789ab"}})
    assert made_by(on, longer)
    assert not made_by(on, longer.model_copy(update={"time_steps": 7}))
    assert not made_by(model, longer)


def test_a_start_is_told_where_there_was_one(card, spec) -> None:
    on = card.model_copy(update={"training": card.training.model_copy(update={"start_revision": "0123456789ab"})})
    assert "model 0123456789ab" in as_markdown(on, spec)
    assert "model 0123456789ab" not in as_markdown(card, spec)


def test_a_run_of_another_seed_is_scored_and_counts_for_mean_and_spread(
    card, model_file, spec, dataset, tmp_path
) -> None:
    model = read_model(model_file)
    other = _of_seed(spec, 8, tmp_path)
    found = measure_seed(other, model, dataset)
    accuracy = evaluate(IntegerNetwork(read_model(other).build()), dataset.test).accuracy
    assert found == SeedScore(seed=8, epoch=1, validation_accuracy=0.25, accuracy=accuracy)
    assert seed_words(card) == "7 only"
    both = measure_card(model_file, dataset, licence="MIT", other_seeds=(found,))
    assert differences(card, both) == []
    assert seed_accuracies(both) == [card.test.accuracy, accuracy]
    figures = sorted(100 * one for one in seed_accuracies(both))
    mean = f"mean {sum(figures) / 2:.2f} %"
    assert f"`{both.commands.train}-8 --seed 8`" in as_markdown(both, spec)
    assert seed_words(both) == f"2 seeds: {mean}, {figures[0]:.2f} to {figures[1]:.2f} %"


def test_a_run_of_the_same_seed_or_of_another_recipe_is_no_other_seed(model_file, spec, dataset, tmp_path) -> None:
    model = read_model(model_file)
    with pytest.raises(SnnZooError, match="not a run with another seed"):
        measure_seed(model_file, model, dataset)
    nonsense = replace(read_model(_of_seed(spec, 8, tmp_path)), card={"training": {"epoch": "many"}})
    with pytest.raises(IntegrityError, match="epoch: must be a whole number"):
        measure_seed(write_model(nonsense, tmp_path / "nonsense.safetensors"), model, dataset)
    with pytest.raises(SnnZooError, match="differs from tiny in more than the seed"):
        measure_seed(_of_seed(spec, 8, tmp_path, epochs=3), model, dataset)
    for known in (model, other := read_model(_of_seed(spec, 8, tmp_path))):
        known.card["training"]["teacher_revision"] = "a" if known is model else "b"
    with pytest.raises(SnnZooError, match="was taught by None@b, but tiny by None@a"):
        measure_seed(write_model(other, tmp_path / "other.safetensors", overwrite=True), model, dataset)


def _of_seed(spec, seed: int, folder, **recipe):
    """Write a model file as of a run with another seed."""
    training = spec.training.model_copy(update={"seed": seed, **recipe})
    network = build_network(spec.model_copy(update={"training": training}), seed=seed)
    facts = {"training": {"epoch": 1, "validation_snn_accuracy": 0.25}}
    return write_model(Model.of(network, facts), folder / "other.safetensors", overwrite=True)
