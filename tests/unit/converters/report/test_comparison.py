import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from bootstrap_core import IntegerNetwork
from converters.ann_to_snn.best_candidate import SpikingForms
from converters.ann_to_snn.onnx_conversion import import_onnx
from converters.linear.ann import Ann, Node, run_ann
from converters.linear.linear_fold import Conv, Dense
from converters.report.comparison import correlation, count_macs, layer_correlations, measure_conversion
from specs.layers.input import Encoding


def moments(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.tensor([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y], dtype=torch.float64)


def test_the_correlation_is_pearsons_and_none_of_a_constant() -> None:
    x, y = torch.tensor([1.0, 2.0, 4.0, 4.0]).double(), torch.tensor([3.0, 2.0, 1.0, 0.5]).double()
    assert correlation(moments(x, y)) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert correlation(moments(x, 3 * x + 5)) == pytest.approx(1)
    assert correlation(moments(x, 0 * x + 0.1)) is None
    assert correlation(torch.zeros(6).double()) is None


def test_macs_are_weights_times_places() -> None:
    nodes = (
        Node("c", Conv(torch.zeros(6, 2, 3, 3), torch.zeros(6), groups=2), ("input",), (6, 5, 4)),
        Node("d", Dense(torch.zeros(7, 120), torch.zeros(7)), ("c",), (7,)),
    )
    assert count_macs(Ann((4, 7, 6), nodes)) == 6 * 2 * 9 * 20 + 7 * 120


def test_correlations_are_those_of_activations_and_rates(conversion) -> None:
    exact, split = IntegerNetwork(conversion.model.build()), conversion.dataset.test
    found = layer_correlations(conversion, exact, split)
    pixels = split.images.reshape(-1, 16) / 255
    logits, values = run_ann(conversion.imported.ann, pixels.reshape(-1, 1, 4, 4), keep=True)
    source = conversion.candidate.layers[0]
    hidden = source.wanted(values[source.target])
    rates = exact.run(split.images)[1].rates
    scale = next(found.scale for found in conversion.candidate.calibrations if found.block == 2)
    kinds = [layer.kind for layer in exact.spec.layers]
    assert kinds == ["input", "flatten", "dense", "affine"]
    wanted = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(
        (pixels, hidden, logits), (rates[0], rates[2] * scale, rates[3]), strict=True
    )]  # fmt: skip
    assert [found[0], *found[2:]] == pytest.approx(wanted)
    assert found[1] is None
    assert min(wanted) > 0.8


def test_the_input_of_an_ann_that_pads_normalised_images_is_compared_with_its_border(dataset, tmp_path) -> None:
    graph = onnx.parser.parse_graph(
        "pads (float[n, 1, 4, 4] x) => (float[n, 4] y)"
        " { c = Conv <pads=[1, 1, 1, 1]> (x, w) r = Relu(c) f = Flatten(r) y = Gemm(f, v) }"
    )
    random = np.random.default_rng(0)
    for name, shape in (("w", (2, 1, 3, 3)), ("v", (32, 4))):
        graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    spikes = SpikingForms(encodings=[Encoding.SPIKE])
    options = {"dataset": dataset, "labelled": False, "mean": 0.5, "std": 0.25, "epochs": 0, "forms": spikes}
    conversion = import_onnx(tmp_path / "a.onnx", **options)
    assert conversion.spec.input.padding == (1, 1)
    figures = measure_conversion(conversion)
    assert figures.correlations[0] > 0.8


def test_both_programs_run_on_the_same_images(conversion) -> None:
    figures = measure_conversion(conversion)
    assert figures.ann_accuracy == 1.0  # the labels are the ANN's own answers
    assert figures.agreement == figures.network.confusion.accuracy == figures.network.by_steps[16]
    assert figures.network.by_steps[16] == conversion.converted[16]
    assert figures.macs == 16 * 12 + 12 * 4
    for example, ann in figures.examples:
        assert ann.argmax() == example.label
    differ = [int(example.scores.argmax()) != example.label for example, _ in figures.examples]
    assert differ == sorted(differ, reverse=True)
    assert any(differ) == (figures.agreement < 1)
    added = figures.layers_as_json()
    assert [row["dead"] for row in added][1::2] == [None, None]
    assert added[2]["dead"] >= 1  # the neuron that is always 0
    assert added[2]["correlation"] == figures.correlations[2]
