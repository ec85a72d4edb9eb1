import math
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.tasks.evaluation import ACCURACY
from bootstrap_core.training.history import REPORTED, EpochReport
from converters.ann_to_snn.best_candidate import SpikingForms
from converters.ann_to_snn.onnx_conversion import OnnxConversion, import_onnx
from converters.model import Model
from converters.report.comparison import measure_conversion
from converters.report.pages import GalleryFigures, conversion_page, gallery_page, measure_gallery
from specs.layers.input import Encoding

VOID = {"meta", "link", "img", "br", "input"}
HOSTILE = '<script>alert("1")</script>'


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory) -> Path:
    """An ONNX file: 16 pixels, 12 hidden neurons (the last is always 0), 4 classes, and a node with a hostile name."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(12, 16)).astype(np.float32), random.normal(size=(4, 12)).astype(np.float32)
    first[-1] = 0
    weights = {"w": first, "v": second, "b": np.array([0.1] * 11 + [-5], np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"], "flat\u202e"),
            helper.make_node("Gemm", ["f", "w", "b"], ["g"], HOSTILE, transB=1),
            helper.make_node("Relu", ["g"], ["r"]),
            helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("report") / "four.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """300 training and 90 test images of noise, all with label 0."""
    images = torch.randint(0, 256, (390, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    train, test = (Split(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split([300, 90]))
    return Dataset("noise", train, test, ("<b>a", "b", "c", "d"), "drawn <at> random")


@pytest.fixture(scope="session")
def conversion(onnx_file, dataset) -> OnnxConversion:
    return import_onnx(
        onnx_file, dataset=dataset, labelled=False, epochs=0, forms=SpikingForms(encodings=[Encoding.SPIKE])
    )


@pytest.fixture(scope="session")
def conversion_html(conversion) -> str:
    outputs = [{"path": "<i>.net", "format": "net", "sha256": "0f" * 32}]
    figures = measure_conversion(conversion)
    return conversion_page(conversion, figures, source="<u>.onnx", command="convert '<u>.onnx'", outputs=outputs)


@pytest.fixture(scope="session")
def model(conversion) -> Model:
    """The converted model with a hostile description and a hostile card."""
    spec = conversion.model.spec.model_copy(update={"description": HOSTILE})
    return replace(conversion.model, spec=spec, card={"training": {"data": HOSTILE, "epoch": 1, "epochs": 3}})


@pytest.fixture(scope="session")
def gallery(model, dataset) -> GalleryFigures:
    return measure_gallery(model, dataset, limit=40)


@pytest.fixture(scope="session")
def reports() -> list[EpochReport]:
    """Reports of three epochs; the loss of the first overflows."""
    rows = (
        (math.inf, 0.5, 1.5, 0.625, 1.75, 0.375, True),
        (0.5, 0.75, 1.0, 0.875, 1.25, 0.8125, True),
        (0.25, 1.0, 1.0, 0.9375, 1.5, 0.8125, False),
    )
    figures = [f"{part}_{figure}" for part in REPORTED for figure in ("loss", "score")]
    return [
        EpochReport(
            measure=ACCURACY,
            epoch=epoch,
            seconds=1.0,
            learning_rate=0.01,
            **dict(zip((*figures, "best"), row, strict=True)),
        )
        for epoch, row in enumerate(rows)
    ]


@pytest.fixture(scope="session")
def gallery_html(model, gallery, reports) -> str:
    return gallery_page(model, gallery, source="<u>.net", command="zoo gallery '<u>.net'", reports=reports)


class Page(HTMLParser):
    """A parsed page: elements with their attributes, and text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="session")
def parse() -> Callable[[str], Page]:
    """The class that parses a page."""
    return Page
