"""ANNs trained on the embedded digits, converted from ONNX to spiking networks."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import converters
from bootstrap_core import IntegerNetwork, build_network, evaluate, load_dataset
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.splits import Dataset, Split
from converters import read_model, write_model
from converters.ann_to_snn import conversion_notes
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.best_candidate import SpikingForms, best_candidate
from converters.ann_to_snn.calibrate import InputForm, calibrate
from converters.ann_to_snn.judge import Judge
from converters.ann_to_snn.onnx_conversion import ImportCallbacks, import_onnx
from converters.ann_to_snn.spiking_layers import MaxPooling, activations_first, spiking_layers
from converters.linear.ann import run_ann
from converters.linear.image_normalization import Normalization
from converters.onnx.import_ann import import_ann
from specs import ConversionError, DataError, SnnZooError, SpecError, UnsupportedError
from specs.layers.block import skips_of
from specs.layers.input import Encoding
from specs.layers.neuron import Reset

pytestmark = pytest.mark.usefixtures("few_images")

MEAN, STD = 0.13, 0.31
NORMAL = Normalization.of(MEAN, STD)
SPIKES, GRADED = (SpikingForms(encodings=[encoding]) for encoding in (Encoding.SPIKE, Encoding.GRADED))


def write_onnx(path: Path, network: nn.Sequential) -> Path:
    """Write the network's layers as ONNX nodes."""
    nodes, weights, name = [], [], "image"
    for i, layer in enumerate(network):
        inputs, attributes = [name], {}
        match layer:
            case nn.Flatten():
                op = "Flatten"
            case nn.ReLU():
                op = "Relu"
            case nn.MaxPool2d():
                op, attributes = "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
            case nn.Conv2d():
                op, attributes = "Conv", {"strides": list(layer.stride)}
            case nn.Linear():
                op, attributes = "Gemm", {"transB": 1}
        if isinstance(layer, nn.Conv2d | nn.Linear):
            for part in ("weight", "bias"):
                weights.append(numpy_helper.from_array(getattr(layer, part).detach().numpy(), f"{part}{i}"))
                inputs.append(f"{part}{i}")
        nodes.append(helper.make_node(op, inputs, [f"out{i}"], f"{op}{i}", **attributes))
        name = f"out{i}"
    entering = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])
    leaving = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "digits", [entering], [leaving], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def train(network: nn.Sequential, split: Split, epochs: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for indices in torch.randperm(len(split), generator=generator).split(100):
            images = (split.images[indices].float() / 255 - MEAN) / STD
            loss = nn.functional.cross_entropy(network(images), split.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


class Residual(nn.Module):
    """A network with three skips: an identity, a strided projection with norms, and one that is read without a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.w0, self.w1, self.w2 = nn.Conv2d(1, 6, 5, 2, 2), nn.Conv2d(6, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.w3, self.w4, self.wp = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(6, 8, 1, 2)
        self.n4, self.np = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.w5, self.w6 = nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(392, 10)

    def forward(self, x: Tensor) -> Tensor:
        r0 = self.w0(x).relu()
        r2 = (self.w2(self.w1(r0).relu()) + r0).relu()
        r4 = (self.n4(self.w4(self.w3(r2).relu())) + self.np(self.wp(r2))).relu()
        return self.w6((self.w5(r4).relu() + r4).flatten(1))


RESIDUAL_NODES = """
c0 = Conv <strides=[2, 2], pads=[2, 2, 2, 2]> (x, w0.weight, w0.bias)                r0 = Relu(c0)
c1 = Conv <pads=[1, 1, 1, 1]> (r0, w1.weight, w1.bias)                               r1 = Relu(c1)
c2 = Conv <pads=[1, 1, 1, 1]> (r1, w2.weight, w2.bias)              s2 = Add(c2, r0) r2 = Relu(s2)
c3 = Conv <strides=[2, 2], pads=[1, 1, 1, 1]> (r2, w3.weight, w3.bias)               r3 = Relu(c3)
c4 = Conv <pads=[1, 1, 1, 1]> (r3, w4.weight, w4.bias)
n4 = BatchNormalization(c4, n4.weight, n4.bias, n4.running_mean, n4.running_var)
p4 = Conv <strides=[2, 2]> (r2, wp.weight, wp.bias)
m4 = BatchNormalization(p4, np.weight, np.bias, np.running_mean, np.running_var)     s4 = Add(m4, n4) r4 = Relu(s4)
c5 = Conv <pads=[1, 1, 1, 1]> (r4, w5.weight, w5.bias)              r5 = Relu(c5)    s5 = Add(r5, r4)
f = Flatten(s5)
y = Gemm <transB=1> (f, w6.weight, w6.bias)
"""


def write_residual(path: Path, network: Residual) -> Path:
    nodes = re.sub(r"(\w+)\.(\w+)", r"\1_\2", RESIDUAL_NODES)
    graph = onnx.parser.parse_graph(f"digits (float[n, 1, 28, 28] x) => (float[n, 10] y) {{ {nodes} }}")
    tensors = {name.replace(".", "_"): tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(tensors[name], name) for name in sorted(used & tensors.keys()))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("mnist-sample")


@pytest.fixture(scope="module")
def mlp(tmp_path_factory, digits) -> Path:
    torch.manual_seed(0)
    hidden = nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()
    network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(32, 10))
    train(network, digits.train, 6)
    return write_onnx(tmp_path_factory.mktemp("mlp") / "digits mlp.onnx", network)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory, digits) -> Path:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(216, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip
    train(network, digits.train, 6)
    return write_onnx(tmp_path_factory.mktemp("cnn") / "cnn.onnx", network)


@pytest.fixture(scope="module")
def residual(tmp_path_factory, digits) -> Path:
    torch.manual_seed(0)
    network = Residual().eval()
    for norm in (network.n4, network.np):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.2, 0.6)
    train(network, digits.train, 3)
    return write_residual(tmp_path_factory.mktemp("residual") / "residual.onnx", network)


class StopError(Exception):
    pass


def stop(told: object) -> None:
    raise StopError(told)


@pytest.mark.parametrize("given", [{}, {"mean": 0.5, "std": 0.5}, {"std": 1 / 255}])
def test_that_images_seem_to_be_normalised_otherwise_is_told_at_once(mlp, digits, given) -> None:
    with pytest.raises(StopError) as told:
        import_onnx(mlp, dataset=digits, **given, callbacks=ImportCallbacks(on_doubt=stop))
    n, before, mean, std, after = re.fullmatch(
        r"accuracy of the ANN on ([\d,]+) training images: ([\d.]+) %; with --mean (\S+) --std (\S+): ([\d.]+) %",
        str(told.value),
    ).groups()
    assert float(before) < float(after)
    assert int(n.replace(",", "")) == min(1000, len(digits.train))
    assert float(mean) == pytest.approx(float((digits.train.images / 255).mean()), abs=1e-4)
    assert float(std) == pytest.approx(float((digits.train.images / 255).std()), abs=1e-4)


@pytest.mark.parametrize("named", [True, False])
def test_that_classes_seem_to_be_in_another_order_is_told_at_once(mlp, digits, named) -> None:
    names = tuple("abcdefghij") if named else digits.classes
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # label i of the data is the ANN's class order[i]
    label_of = order.argsort()
    train, test = (Split(split.images, label_of[split.labels]) for split in (digits.train, digits.test))
    moved = replace(digits, train=train, test=test, classes=tuple(names[i] for i in order) if named else names)
    with pytest.raises(StopError) as told:
        import_onnx(mlp, dataset=moved, mean=MEAN, std=STD, callbacks=ImportCallbacks(on_doubt=stop))
    way = f"with --classes {','.join(names)}"
    if not named:
        way = f"if its classes 0 to 9 are the labels {','.join(map(str, label_of.tolist()))}"
    found = rf"accuracy of the ANN on [\d,]+ training images: ([\d.]+) %; {way}: ([\d.]+) %"
    before, after = re.fullmatch(found, str(told.value)).groups()
    assert float(before) < 30
    assert float(after) > 90


def test_of_images_normalised_as_the_ann_knows_them_there_is_no_doubt(mlp, cnn, digits) -> None:
    for path in (mlp, cnn):
        with pytest.raises(StopError):
            import_onnx(
                path,
                dataset=digits,
                mean=MEAN,
                std=STD,
                callbacks=ImportCallbacks(on_doubt=pytest.fail, on_calibrated=stop),
            )


def test_sums_of_branches_become_skips_that_answer_like_the_ann(residual, digits) -> None:
    ann = import_ann(residual).ann
    images = digits.train.images[:360].float() / 255
    judge = Judge(digits.train.take(slice(360, 720)), AnnAnswers(ann, NORMAL))
    found = best_candidate(ann, images, judge, name="residual", time_steps=16, forms=SPIKES, normalization=NORMAL)
    spec = found.model.spec
    assert [[(skip.source, skip.kind) for skip in skips_of(layer)] for layer in spec.layers] == [
        [], [], [], [(1, "identity")], [], [(3, "conv")], [], [], [(5, "dense")],
    ]  # fmt: skip
    assert spec.blocks[4].skips[0].stride == (2, 2)
    assert spec.blocks[-2].kind == "flatten"
    assert found.verdict.agreement > 0.85
    assert found.blocks == [1, 2, 3, 4, 5, 6, 8]
    blocks: dict[str, list[list[int]]] = {}
    for node in ann.nodes:
        blocks.setdefault(type(node.operation).__name__, []).append(found.blocks_of(ann)[node.name])
    assert blocks["Relu"] == [[i] for i in range(1, 7)]
    assert blocks["Conv"][4] == blocks["Add"][1] == [5]
    assert blocks["Add"][2] == [8]
    network = found.model.build()
    with torch.no_grad():
        logits, trace = network.run(images[:8])
        exact_logits, exact = IntegerNetwork(network).run(images[:8])
        assert torch.equal(network(images[:8]), logits)
    assert torch.equal(logits, exact_logits)
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(trace.spikes, exact.spikes, strict=True))


@pytest.mark.parametrize("entering", SpikingForms().encodings)
@pytest.mark.parametrize("which", ["mlp", "cnn"])
def test_untuned_accuracy_stays_near_the_anns(which, entering, digits, request) -> None:
    path = request.getfixturevalue(which)
    found = import_onnx(path, dataset=digits, mean=MEAN, std=STD, epochs=0, forms=SpikingForms(encodings=[entering]))
    assert found.ann is not None
    assert found.ann > 0.85
    assert found.converted[16] > found.ann - 0.03
    assert found.tuned == {}
    assert found.candidate.input_form.encoding is entering


def test_tuning_never_loses_what_it_is_judged_by(mlp, digits) -> None:
    found = import_onnx(mlp, dataset=digits, mean=MEAN, std=STD, time_steps=4, epochs=2, forms=SPIKES)
    assert found.tuned[4] > found.converted[4] - 0.02
    assert found.tuned[4] > found.ann - 0.05
    assert list(found.tuned) == [4, 2, 1]
    recipe = found.model.spec.training  # for further training
    assert (recipe.data, recipe.epochs, recipe.snn_epochs) == (digits.name, 2, 2)


def test_images_and_labels_that_the_ann_cannot_take_are_told(mlp, digits) -> None:
    cut = (Split(split.images[:, :, 2:-2, 2:-2], split.labels) for split in (digits.train, digits.test))
    small = replace(digits, **dict(zip(("train", "test"), cut, strict=True)), name="small")
    with pytest.raises(DataError, match=r"small has images of \[1, 24, 24\], the ANN takes \[1, 28, 28\]"):
        import_onnx(mlp, dataset=small)
    beyond = replace(digits, test=Split(digits.test.images, digits.test.labels + 5))
    with pytest.raises(DataError, match="the label 14; the ANN has classes 0 to 9 only"):
        import_onnx(mlp, dataset=beyond)


def test_classes_that_the_data_has_not_are_told(mlp, digits) -> None:
    five = replace(digits, classes=digits.classes[:5], **{
        part: Split(split.images[split.labels < 5], split.labels[split.labels < 5])
        for part, split in (("train", digits.train), ("test", digits.test))
    })  # fmt: skip
    found = import_onnx(mlp, dataset=five, mean=MEAN, std=STD, time_steps=4, epochs=0, forms=SPIKES)
    assert "the ANN has 10 classes, and no label of mnist-sample is above 4" in found.notes
    assert found.model.classes == tuple("0123456789")
    named = replace(five, classes=tuple("abcde"))
    with pytest.raises(DataError, match=r"mnist-sample has 5 classes, the ANN has 10, .* as in --classes a,b,c"):
        import_onnx(mlp, dataset=named, mean=MEAN, std=STD, time_steps=4, epochs=0, forms=SPIKES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": 0.0}, "std: must be above 0, got 0.0"),
        ({"std": 63.0}, "std: must be at most 1, .*; if it is a std of images in 0..255, give 0.2471"),
        ({"mean": float("nan")}, "mean: must be finite, got nan"),
        ({"forms": "zero"}, r"forms must be SpikingForms, .*SpikingForms\(resets="),
    ],
)
def test_wrong_arguments_are_told(mlp, digits, options, message) -> None:
    with pytest.raises(SnnZooError, match=message):
        import_onnx(mlp, dataset=digits, **options)


def test_an_ann_that_errs_too_much_makes_one_doubt_its_images(mlp, digits) -> None:
    options = {"dataset": digits, "time_steps": 4, "epochs": 0, "forms": SPIKES}
    dark = replace(
        digits,
        **{name: Split(255 - getattr(digits, name).images, getattr(digits, name).labels) for name in ("train", "test")},
    )
    found = import_onnx(mlp, mean=MEAN, std=STD, **options | {"dataset": dark})
    assert found.ann < 0.5
    assert any("other images" in note for note in found.notes)
    mistaken = import_onnx(mlp, mean=-9.0, std=0.31, **options)
    assert mistaken.ann < 0.5
    assert ["; with --mean" in note for note in mistaken.notes] == [True, False]
    told = import_onnx(mlp, mean=MEAN, std=STD, **options).notes
    assert [note for note in told if "--mean" in note or "other images" in note] == []


def test_a_conversion_that_loses_much_is_told(mlp, digits, monkeypatch) -> None:
    monkeypatch.setattr(conversion_notes, "MOST_LOSS", 0.03)
    options = {"dataset": digits, "mean": MEAN, "std": STD, "epochs": 0, "forms": SPIKES}
    for steps, loses in ((1, True), (8, False)):
        found = import_onnx(mlp, time_steps=steps, **options)
        assert (found.ann - found.score.accuracy > 0.03) == loses
        assert any(f"more time steps than {steps} (--time-steps)" in note for note in found.notes) == loses


def test_weights_with_hardly_any_grid_left_are_told(mlp, digits) -> None:
    few = replace(digits, test=digits.test.take(slice(0, 200)))
    options = {"dataset": few, "mean": MEAN, "std": STD, "epochs": 0, "forms": GRADED}
    assert not any("of their grid" in note for note in import_onnx(mlp, time_steps=4, **options).notes)
    long = import_onnx(mlp, time_steps=200, **options)
    (told,) = (note for note in long.notes if "of their grid" in note)
    assert told.startswith("block 1: its input over 200 steps would exceed 24 bits")
    assert long.converted[200] < 0.9


def test_images_that_leave_24_bits_are_told_and_the_network_is_kept(mlp, digits) -> None:
    dim = replace(digits.train, images=digits.train.images // 16)
    white = Split(torch.cat([digits.test.images[:40] // 16, torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)]),
                  digits.test.labels[:41])  # fmt: skip
    options = {"epochs": 0, "forms": GRADED}
    found = import_onnx(mlp, dataset=replace(digits, train=dim, test=white), time_steps=64, **options)
    assert next(iter(found.converted.items())) == (64, None)
    assert found.score is not None
    assert found.score.n_images == 41
    assert any("24 bits" in note and "(use fewer --time-steps, or --input spike)" in note for note in found.notes)


def test_one_output_tells_no_classes_apart(tmp_path) -> None:
    graph = onnx.parser.parse_graph("one (float[n, 4] x) => (float[n, 1] y) { y = Gemm(x, w) }")
    graph.initializer.append(numpy_helper.from_array(np.ones((4, 1), np.float32), "w"))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "one.onnx")
    with pytest.raises(UnsupportedError, match=r"one.onnx has one output; a classifier needs one for each class"):
        import_onnx(tmp_path / "one.onnx")


@pytest.mark.parametrize(("least", "epochs"), [(1.0, 3), (0.0, 2)])
def test_the_agreement_decides_for_how_long_a_network_is_tuned(mlp, digits, monkeypatch, least, epochs) -> None:
    monkeypatch.setattr("converters.ann_to_snn.tuning.MUCH_AGREEMENT", least)
    monkeypatch.setattr("converters.ann_to_snn.tuning.MOST_EPOCHS", 3)
    few = replace(digits, train=digits.train.take(slice(0, 100)), test=digits.test.take(slice(0, 100)))
    reports = []
    callbacks = ImportCallbacks(on_epoch=reports.append)
    found = import_onnx(mlp, dataset=few, mean=MEAN, std=STD, time_steps=2, forms=SPIKES, callbacks=callbacks)
    assert found.candidate.verdict.agreement < 1
    assert max(report.epoch for report in reports) + 1 == epochs
    assert found.model.card["conversion"]["epochs"] == epochs


def test_tuning_in_vain_is_said(mlp, digits, monkeypatch) -> None:
    monkeypatch.setattr("converters.ann_to_snn.tuning.LEARNING_RATES", (9.0,))
    found = import_onnx(mlp, dataset=digits, mean=MEAN, std=STD, time_steps=4, epochs=1, forms=SPIKES)
    assert found.tuned == found.converted
    assert (found.written, found.model.spec.training) == ("converted", None)
    assert any("tuning was undone" in note and "--epochs 0" in note for note in found.notes)


def test_one_training_image_tunes_nothing_and_that_is_said(mlp, digits) -> None:
    one = replace(digits, train=Split(digits.train.images[:1], digits.train.labels[:1]))
    found = import_onnx(mlp, dataset=one, time_steps=4, epochs=1)
    assert found.tuned == {}
    assert any("not tuned" in note for note in found.notes)


def test_one_test_image_is_told(mlp, digits) -> None:
    one = replace(digits, test=Split(digits.test.images[:1], digits.test.labels[:1]))
    told = import_onnx(mlp, dataset=one, time_steps=4, epochs=0, forms=SPIKES).notes
    assert any(note.startswith("scored on only one test image: each is 100 points") for note in told)


def test_a_pool_that_spikes_when_any_neuron_does_is_named_and_each_step_told(cnn, digits) -> None:
    steps: list[str] = []
    forms = SpikingForms(encodings=[Encoding.SPIKE], max_pooling=[MaxPooling.ANY])
    callbacks = ImportCallbacks(on_step=steps.append)
    found = import_onnx(
        cnn, dataset=digits, mean=MEAN, std=STD, epochs=0, time_steps=4, forms=forms, callbacks=callbacks
    )
    (pool,) = (node["reason"] for node in found.nodes if node["op"] == "MaxPool")
    assert pool.endswith("avg_pool, spikes when any neuron of its window does")
    assert found.report["max_pool"] == "any"
    assert [step.split()[0] for step in steps] == ["importing", *["calibrating"] * 3, "fitting", "scoring"]
    assert [step.split("reset: ")[1] for step in steps if "reset" in step] == [
        "subtract, start: 0.5",
        "subtract",
        "zero",
    ]


def test_probabilities_are_calibrated_as_the_ann_s(cnn, digits) -> None:
    found = import_onnx(cnn, dataset=digits, mean=MEAN, std=STD, epochs=0)
    images = digits.test.images
    ann, _ = run_ann(found.imported.ann, NORMAL(images.float() / 255))
    loss = float(nn.functional.cross_entropy(ann, digits.test.labels))
    assert found.score.loss < 1.5 * loss + 0.05


@pytest.mark.parametrize(
    ("reset", "suffixes"),
    [(Reset.ZERO, (".safetensors", ".net", ".nir")), (Reset.SUBTRACT, (".safetensors", ".nir"))],
)
def test_the_model_runs_exactly_as_scored_in_every_format(cnn, digits, tmp_path, reset, suffixes) -> None:
    forms = SpikingForms(resets=[reset])
    found = import_onnx(cnn, dataset=digits, mean=MEAN, std=STD, epochs=0, forms=forms)
    assert found.report["reset"] == reset
    network = found.model.build()
    assert found.score.accuracy == found.converted[16]
    for suffix in suffixes:
        again = read_model(write_model(found.model, tmp_path / f"a{suffix}")).build()
        assert torch.equal(again(digits.test.images[:50]), network(digits.test.images[:50]))
        assert again.spec.logit_scale == network.spec.logit_scale != 1
    assert evaluate(IntegerNetwork(network), digits.test).accuracy == found.score.accuracy


def test_the_figures_are_those_of_the_contract(mlp, digits) -> None:
    figures = import_onnx(mlp, dataset=digits, mean=MEAN, std=STD, epochs=0, forms=SPIKES).report
    assert [node["op"] for node in figures["nodes"]] == ["Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    hidden = ["block 2, dense, 2 neurons for each unit"] * 2 + ["block 3, dense, 4 neurons for each unit"] * 2
    assert [node["reason"] for node in figures["nodes"][1:]] == [*hidden, "block 4, affine"]
    assert figures["import_max_abs_error"] < 1e-4
    assert set(figures["accuracy"]) == {"ann", "converted", "tuned"}
    assert (figures["time_steps"], figures["normalization"]) == (16, {"mean": MEAN, "std": STD})
    assert (figures["input"], figures["input_bits"]) == ("spike", None)
    assert (figures["judged_by"], figures["written"]) == ("400 training images that no step learns from", "converted")
    assert figures["samples"] == 1000
    assert {"block", "rate", "saturated", "synops"} == set(figures["layers"][0])
    assert sum(layer["synops"] for layer in figures["layers"]) > 1000


def test_the_contract_of_import_onnx(mlp) -> None:
    found = converters.import_onnx(str(mlp))
    assert found.spec == found.model.spec
    assert found.tensors.keys() == build_network(found.spec).state_dict().keys()
    assert found.report["accuracy"] == {"ann": None, "converted": {}, "tuned": {}}
    assert "no data: calibrated on noise" in " ".join(found.report["notes"])


def test_the_figures_tell_the_bits_of_graded_input(mlp, digits) -> None:
    found = import_onnx(mlp, dataset=digits, mean=MEAN, std=STD, forms=GRADED, epochs=0)
    assert (found.report["input"], found.report["input_bits"]) == ("graded", found.model.spec.input.bits)


def test_without_labels_the_anns_answers_stand_for_them(mlp, digits) -> None:
    blind = replace(digits, train=_without_labels(digits.train), test=_without_labels(digits.test))
    found = import_onnx(mlp, dataset=blind, labelled=False, mean=MEAN, std=STD, epochs=1)
    assert found.ann == 1.0
    assert found.tuned[16] > 0.93
    assert any("no labels" in note for note in found.notes)


def _without_labels(split: Split) -> Split:
    return Split(split.images, torch.zeros_like(split.labels))


def test_without_data_noise_calibrates_and_that_is_said(mlp, digits) -> None:
    found = import_onnx(mlp, mean=MEAN, std=STD)
    assert (found.ann, found.tuned, found.score) == (None, {}, None)
    assert any("no data" in note for note in found.notes)
    assert evaluate(IntegerNetwork(found.model.build()), digits.test).accuracy > 0.6


def test_the_same_seed_gives_the_same_bytes(mlp, digits, tmp_path) -> None:
    models = [import_onnx(mlp, dataset=digits, mean=MEAN, std=STD, epochs=1).model for _ in range(2)]
    first, second = (write_model(model, tmp_path / f"{i}.safetensors") for i, model in enumerate(models))
    assert first.read_bytes() == second.read_bytes()


def test_rates_times_their_scale_are_the_activations(mlp, digits) -> None:
    ann = import_ann(mlp).ann
    images = digits.train.images[:200].float().reshape(-1, *ann.shape) / 255
    layers = spiking_layers(activations_first(ann), MaxPooling.ANY)
    model, found = calibrate(
        ann, layers, images, name="x", time_steps=64, input_form=InputForm(Encoding.SPIKE), normalization=NORMAL
    )
    _, wanted = run_ann(ann, (images - MEAN) / STD, keep=True)
    with torch.no_grad():
        _, trace = model.build().run(images)
    for calibration, layer in zip(found[1:], layers[:-1], strict=True):
        rates = trace.rates[calibration.block]
        goal = layer.wanted(wanted[calibration.target])
        error = (rates * calibration.scale - goal).square().mean().sqrt() / goal.square().mean().sqrt()
        assert float(error) == pytest.approx(calibration.error, rel=0.15)
        assert float(error) < 0.15
    logits = trace.spikes[-1].mean(0)
    assert (logits.argmax(1) == wanted[layers[-1].target].argmax(1)).float().mean() > 0.97


def test_more_steps_leave_less_error(mlp, digits) -> None:
    ann = import_ann(mlp).ann
    images = digits.train.images[:200].float().reshape(-1, *ann.shape) / 255
    layers = spiking_layers(activations_first(ann), MaxPooling.ANY)
    options = {"name": "x", "input_form": InputForm(Encoding.SPIKE), "normalization": NORMAL}
    errors = [calibrate(ann, layers, images, time_steps=t, **options)[1][-1].error for t in (4, 16, 64)]
    assert errors[0] > errors[1] > errors[2]


def test_no_other_pooling_is_better_than_the_one_that_is_chosen(cnn, digits) -> None:
    ann = import_ann(cnn).ann
    images = digits.train.images[:800].float() / 255
    options = {"name": "x", "time_steps": 8, "normalization": NORMAL}
    forms = replace(SPIKES, resets=[Reset.ZERO])
    judge = Judge(digits.train.take(slice(800, 1600)), AnnAnswers(ann, NORMAL))
    each = [best_candidate(ann, images, judge, forms=replace(forms, max_pooling=[pooling]), **options)
            for pooling in (MaxPooling.ANY, MaxPooling.AVERAGE)]  # fmt: skip
    for order in ([MaxPooling.ANY, MaxPooling.AVERAGE], [MaxPooling.AVERAGE, MaxPooling.ANY]):
        found = best_candidate(ann, images, judge, forms=replace(forms, max_pooling=order), **options)
        assert not any(other.verdict.is_better_than(found.verdict) for other in each)
    with pytest.raises(UnsupportedError, match="max pooling is refused"):
        best_candidate(ann, images, judge, forms=replace(SPIKES, max_pooling=[MaxPooling.ERROR]), **options)


def test_images_for_validation_judge_alone(mlp, digits, tmp_path) -> None:
    options = {"dataset": digits, "mean": MEAN, "std": STD, "time_steps": 2, "epochs": 1, "forms": SPIKES}
    some = digits.test.take(slice(0, 60))
    np.savez(tmp_path / "own.npz", x=some.images.numpy(), y=some.labels.numpy())
    found = import_onnx(mlp, validation=tmp_path / "own.npz", **options)
    assert found.judged_by == f"60 images of {tmp_path / 'own.npz'}"
    assert len(found.candidate.verdict.right) == 60
    apart = replace(digits, name="apart", train=some)  # its test images judge, not those that an ANN may have seen
    assert import_onnx(mlp, validation=apart, **options).judged_by == "1,000 images of apart"
    blind = replace(apart, test=_without_labels(some), classes=(UNLABELLED,))
    assert import_onnx(mlp, validation=blind, **options).candidate.verdict.agreement > 0.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "must have other images than --data, got mnist-sample for both"),
        ({"name": "other", "classes": tuple("abcdefghij")}, None),  # the others have numbers alone
        (
            {"name": "other", "test": Split(torch.zeros(1, 1, 9, 9, dtype=torch.uint8), torch.tensor([0]))},
            "other has im",
        ),
    ],
)
def test_unfit_images_for_validation_are_refused(mlp, digits, changes, told) -> None:
    options = {"dataset": digits, "mean": MEAN, "std": STD, "time_steps": 1, "epochs": 0, "forms": SPIKES}
    if told is None:
        named = replace(digits, classes=tuple("bacdefghij"))
        told, options = "other has the classes a, b, .*--classes a,b,c", {**options, "dataset": named}
    with pytest.raises(DataError, match=told):
        import_onnx(mlp, validation=replace(digits, **changes), **options)


def test_images_that_the_ann_was_trained_on_are_said_to_judge_too_kindly(mlp, digits) -> None:
    options = {"mean": MEAN, "std": STD, "time_steps": 2, "epochs": 0, "forms": SPIKES}
    wrong = digits.test.labels.clone()
    wrong[:300] += 1
    harder = replace(digits, test=Split(digits.test.images, wrong % 10))
    learnt = replace(digits, test=digits.train.take(slice(0, 1000)))
    for dataset, kind in ((learnt, False), (harder, True)):
        assert any("judge too kindly" in note for note in import_onnx(mlp, dataset=dataset, **options).notes) is kind


def test_states_have_room_on_the_images_of_the_calibration(cnn, digits) -> None:
    for bits in (8, 5):
        ann = activations_first(import_ann(cnn).ann)
        images = digits.train.images[:100].float() / 255
        layers = spiking_layers(ann, MaxPooling.ANY)
        form = InputForm(Encoding.GRADED, bits)
        model, _ = calibrate(ann, layers, images, name="x", time_steps=16, input_form=form, normalization=NORMAL)
        IntegerNetwork(model.build()).run(images)  # raises if a state leaves 24 bits
        assert model.spec.input.bits == bits
        assert np.isfinite(float(model.tensors["blocks.1.synapse.weight"].abs().max()))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"time_steps": 0}, r"import_onnx: time_steps: .* 1 .*got 0"),
        ({"time_steps": 1.5}, r"time_steps: must be a whole number .got 1\.5"),
        ({"epochs": -1}, r"epochs: .* 0 .*got -1"),
        ({"seed": "a"}, r"seed: must be a whole number .got 'a'"),
    ],
)
def test_numbers_out_of_range_are_refused(given, told, mlp) -> None:
    with pytest.raises(SpecError, match=told):
        import_onnx(mlp, **given)


def test_a_dataset_may_be_named_or_lie_in_a_file(mlp, digits, tmp_path) -> None:
    some = digits.test.take(slice(0, 50))
    np.savez(tmp_path / "own.npz", x=some.images.numpy(), y=some.labels.numpy())
    for given, n in (("mnist-sample", 1000), (tmp_path / "own.npz", 10), (str(tmp_path / "own.npz"), 10)):
        found = import_onnx(mlp, dataset=given, time_steps=1, epochs=0, forms=GRADED)
        assert (found.dataset.name, len(found.dataset.test)) == (str(given), n)


def test_a_dataset_that_is_none_is_refused(mlp, digits) -> None:
    with pytest.raises(
        DataError,
        match=r"dataset must be a Dataset, also of torch, a DataLoader, the name of one, or the path .*, not a Split",
    ):
        import_onnx(mlp, dataset=digits.test)
    with pytest.raises(DataError, match=r"mnist-sampl.*mnist-sample"):
        import_onnx(mlp, dataset="mnist-sampl")


def test_a_model_in_memory_gives_the_network_of_its_file(mlp) -> None:
    given, read = (import_onnx(source, time_steps=2, forms=GRADED) for source in (onnx.load(mlp), mlp))
    assert given.spec.name == "model"
    assert all(torch.equal(given.tensors[name], tensor) for name, tensor in read.tensors.items())


def test_a_torch_module_is_exported_on_the_way_and_stays_as_it_is() -> None:
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(49, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3)
    )
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = import_onnx(module, example=torch.zeros(1, 1, 7, 7), time_steps=4)
    images = torch.rand(5, 1, 7, 7)
    assert torch.allclose(run_ann(found.imported.ann, images)[0], module.eval()(images), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module.train()
    module[2].eval()
    import_onnx(module, example=torch.zeros(1, 1, 7, 7), time_steps=4)
    assert [part.training for part in module] == [True, True, False, True, True, True]


def test_what_torch_cannot_export_is_said_with_its_words(mlp) -> None:
    with pytest.raises(ConversionError, match=r"torch cannot export Linear for images \[1, 5\]: mat1 and mat2 shapes"):
        import_onnx(nn.Linear(4, 3), example=torch.zeros(1, 5))
    with pytest.raises(ConversionError, match="takes a torch module and example images together"):
        import_onnx(nn.Linear(4, 3))
    with pytest.raises(ConversionError, match="example is only for a torch module"):
        import_onnx(mlp, example=torch.zeros(1, 784))
