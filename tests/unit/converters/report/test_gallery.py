"""The gallery of a model: its figures equal those of the engines, and the page shows all of them."""

from dataclasses import replace

import pytest
import torch

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.splits import Dataset
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from converters.formats.model_files import read_model
from converters.report import network_figures
from converters.report.network_figures import spread_out
from converters.report.pages import gallery_page, measure_gallery
from converters.report.rendering import MAX_FRAMES
from specs.errors import DataError
from specs.io import dump_spec
from zoo.factory import packaged_path


@pytest.fixture(scope="module")
def page(gallery_html, parse):
    return parse(gallery_html)


def words(page) -> str:
    return page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_it_scores_at_most_so_many_images_of_the_whole_test_set(model, dataset, gallery) -> None:
    images = spread_out(dataset.test, 40)
    score = evaluate(IntegerNetwork(model.build()), images)
    assert (gallery.score.n_images, gallery.score.accuracy) == (40, score.accuracy)
    assert gallery.score.synops == score.synops
    assert gallery.network.by_steps[model.spec.time_steps] == score.accuracy
    network = model.build()
    expected = 2 * (evaluate(network, images, mode=Mode.ANN).accuracy,) if network.fitted else None
    assert gallery.ann == expected


def test_the_ann_is_compared_on_the_images_that_steps_are_counted_on(dataset, monkeypatch) -> None:
    monkeypatch.setattr(network_figures, "N_SCORED", 20)
    model = read_model(packaged_path("weights", "mnist-dense-shallow.safetensors"))
    digits = load_dataset("mnist-sample")
    figures = measure_gallery(model, digits, limit=400)
    network = model.build()
    of_all, of_scored = (
        evaluate(network, spread_out(images, n), mode=Mode.ANN).accuracy
        for images, n in ((digits.test, 400), (spread_out(digits.test, 400), 20))
    )
    assert of_all != of_scored
    assert figures.ann == (of_all, of_scored)


def test_examples_come_by_class_and_few_of_them_are_mistakes(model, dataset) -> None:
    network = IntegerNetwork(model.build())
    answers = network(dataset.test.images).argmax(1)
    labels = answers.clone()
    labels[10:20] = (answers[10:20] + 1) % 4
    figures = measure_gallery(model, replace(dataset, test=replace(dataset.test, labels=labels)), limit=90)
    shown = [example.label for example in figures.examples]
    assert len(shown) == 12
    assert shown == sorted(shown)
    assert sum(int(example.scores.argmax()) != example.label for example in figures.examples) == 2


def test_data_without_labels_or_with_other_classes_is_refused(model, dataset) -> None:
    unlabelled = Dataset("x", dataset.train, dataset.test, (UNLABELLED,), "pictures.npz")
    with pytest.raises(DataError, match=r"needs labels; pictures\.npz has no labels"):
        measure_gallery(model, unlabelled, limit=5)
    with pytest.raises(DataError, match="x has 9 classes, the model has only 4"):
        measure_gallery(model, Dataset("x", dataset.train, dataset.test, tuple("123456789"), ""), limit=5)


def test_every_figure_is_on_the_page(page, model, gallery, reports) -> None:
    said = words(page)
    for accuracy in [gallery.score.accuracy, *gallery.network.by_steps.values()]:
        assert accuracy is None or f"{100 * accuracy:.2f} %" in said
    assert f"{sum(gallery.score.synops):,.0f}" in said
    for layer in gallery.network.layers:
        assert layer.name in said
    for report in reports:
        assert f"{100 * report.validation_snn_score:.2f} %" in said
    for line in (dump_spec(model.spec), "zoo gallery '<u>.net'", "training: epoch", "2 (of 3)"):
        assert line in said
    for i in range(len(model.spec.layers)):
        assert f"{i} {model.spec.layers[i].kind}, " in said  # from the drawing


def test_of_a_long_run_the_first_frames_are_shown(model, gallery, parse) -> None:
    example = gallery.examples[0]
    long = replace(example, spikes=torch.cat([example.spikes] * 9), over_time=torch.cat([example.over_time] * 9))
    page = parse(gallery_page(model, replace(gallery, examples=[long]), source="x", command="c"))
    assert f"the first {MAX_FRAMES}" in page.text
    assert [line for line in page.all("line") if line.get("class") == "playhead"] == []


def test_a_network_without_neurons_has_no_film(model, gallery, parse) -> None:
    still = replace(gallery, examples=[replace(gallery.examples[0], spikes=None, rasters=())])
    page = parse(gallery_page(model, still, source="x", command="c"))
    assert len(page.all("article")) == 1
    assert [image for image in page.all("img") if image.get("class") == "film"] == []
