"""Objects show themselves at a prompt in a few lines, and in notebooks as pictures where these help."""

from dataclasses import replace
from pathlib import Path

import pytest

from bootstrap_core import IntegerNetwork, LearningStats, build_network, evaluate, load_dataset
from bootstrap_core.pictures import image_uri
from converters import import_onnx, read_model
from specs import NetworkSpec
from specs.outline import MOST_LINES
from zoo.factory import model_file

EXAMPLE = next((Path(__file__).parents[2] / "zoo" / "examples").glob("*.onnx"))
DIGITS = load_dataset("mnist-sample")
DEEP = NetworkSpec.model_validate(
    {
        "name": "deep",
        "time_steps": 3,
        "input": {"shape": [1, 28, 28]},
        "blocks": [{"kind": "flatten"}, *[{"kind": "dense", "features": 20}] * 20, {"kind": "affine", "features": 10}],
    }
)


@pytest.fixture(scope="module")
def shown() -> dict[str, object]:
    network, images = build_network(DEEP, seed=0), DIGITS.test.images[:5]
    exact = IntegerNetwork(network)
    stats = LearningStats()
    stats.update()
    conversion = import_onnx(EXAMPLE, time_steps=2, epochs=0)
    return {
        "network": network,
        "exact": exact,
        "trace": network.run(images)[1],
        "exact trace": exact.run(images)[1],
        "tally": network.tally(images)[1],
        "split": DIGITS.test,
        "empty split": DIGITS.test.take(slice(0, 0)),
        "dataset": replace(DIGITS, classes=tuple(map(str, range(1000)))),
        "evaluation": evaluate(exact, DIGITS.test, also_after=[1, 2]),
        "stats": stats,
        "stat": stats.snn,
        "model": read_model(model_file("mnist-conv")),
        "conversion": conversion,
        "import": conversion.imported,
        "candidate": conversion.candidate,
    }


def test_no_description_is_longer_than_ten_lines(shown) -> None:
    for name, value in shown.items():
        lines = repr(value).splitlines()
        assert len(lines) <= MOST_LINES, name
        assert max(map(len, lines)) <= 300, name


def test_a_split_shows_its_first_images_and_their_labels() -> None:
    html = DIGITS.test._repr_html_()
    assert html.count("<img") == html.count("<figcaption>") == 20
    assert f'src="{image_uri(DIGITS.test.images[7])}"' in html
    assert f"<figcaption>{int(DIGITS.test.labels[7])}</figcaption>" in html
