"""A model: names of its classes and shapes of its images, as its card says them."""

from pathlib import Path

import pytest

from bootstrap_core.network.build import build_network
from converters.formats.model_files import read_model, write_model
from converters.model import Model
from specs.dataset_sources import known_classes
from specs.io import load_spec, spec_from_document


@pytest.mark.parametrize(
    ("card", "names"),
    [
        ({"classes": [*"abcdefghij"]}, "abcdefghij"),
        ({"classes": ["a", "b"]}, "ab23456789"),
        ({"classes": ["7", "b"]}, "0123456789"),
        ({"classes": [*"abcdefghija"]}, "0123456789"),
        ({"classes": "abcdefghij"}, "0123456789"),
        ({"classes": [*"abcdefghi", "\x1b[2J"]}, "0123456789"),
        ({"training": {"data": "fruit"}}, "0123456789"),
    ],
)
def test_names_that_do_not_fit_or_cannot_be_shown_are_numbers(card: dict, names: str) -> None:
    assert Model(load_spec("mnist-dense"), {}, card).classes == tuple(names)


@pytest.mark.parametrize(
    ("entering", "told", "wanted"),
    [
        ([1440], [3, 24, 20], (3, 24, 20)),
        ([784], None, (1, 28, 28)),
        ([784], [1, 1, 784], (1, 28, 28)),
        ([784], [1, -28, -28], (1, 28, 28)),
        ([784], [True, 28, 28], (1, 28, 28)),
        ([784], [3, 28, 28], (1, 28, 28)),
        ([784], "abc", (1, 28, 28)),
        ([1, 28, 28], [1, 14, 56], (1, 28, 28)),
        ([4, 8, 8], [4, 8, 8], None),
        ([1440], [[3], 24, 20], None),
    ],
)
def test_a_model_of_rows_remembers_its_images(entering: list, told: object, wanted: object) -> None:
    document = {"name": "a", "time_steps": 2, "neuron": {"threshold": 1.0}, "input": {"shape": entering}}
    document["blocks"] = [{"kind": "flatten"}, {"kind": "affine", "features": 4}][len(entering) == 1 :]
    spec = spec_from_document(document, origin="a test")
    assert Model(spec, {}, {"image_shape": told}).image_shape == wanted


@pytest.mark.parametrize(
    ("entering", "told", "wanted"),
    [
        ([2312], [2, 34, 34], (2, 34, 34)),
        ([2312], None, None),
        ([2312], [2, 30, 34], None),
        ([2, 34, 34], None, (2, 34, 34)),
    ],
)
def test_a_model_of_events_remembers_its_frames(entering: list, told: object, wanted: object) -> None:
    document = {"name": "a", "time_steps": 2, "input": {"shape": entering, "encoding": "events"}}
    document["blocks"] = [{"kind": "flatten"}, {"kind": "affine", "features": 4}][len(entering) == 1 :]
    spec = spec_from_document(document, origin="a test")
    assert Model(spec, {}, {"image_shape": told}).image_shape == wanted


def test_known_data_names_the_classes_of_a_model_whose_card_does_not() -> None:
    assert Model(load_spec("fashion-mnist-dense"), {}).classes[-1] == "Ankle boot"


def test_names_of_classes_survive_files_and_networks(tmp_path: Path) -> None:
    network = build_network(load_spec("fashion-mnist-dense"), seed=0)
    assert network.classes == known_classes("fashion-mnist")
    assert "classes" not in Model.of(network).card  # they follow from the data
    network.classes = [*"abcdefghij"]
    assert Model.of(network).build().classes == network.classes
    path = write_model(network, tmp_path / "named.safetensors")
    assert read_model(path).build().classes == read_model(path).classes == tuple("abcdefghij")
    write_model(network, tmp_path / "named_net.c")
    assert "Classes, from 0: a, b, c, d, e, f, g, h, i, j." in (tmp_path / "named_net.h").read_text()
    assert Model.of(network, {"classes": [*"klmnopqrst"]}).classes == tuple("klmnopqrst")
