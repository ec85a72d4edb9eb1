"""Scales and shifts between layers: folded exactly where possible, otherwise refused."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from tiny_onnx import kinds, numbers, operations

from converters.linear.ann import Clip, run_ann
from converters.linear.linear_fold import Conv, Dense
from converters.onnx.import_ann import import_ann
from specs import UnsupportedError


def statistics(channels):
    scale = np.linspace(0.5, 1.5, channels) * np.where(np.arange(channels) % 2, 1, -1)
    values = {"s": scale, "t": numbers(channels, seed=5), "m": numbers(channels, seed=6)}
    return {name: v.astype(np.float32) for name, v in values.items()} | {
        "v": np.linspace(0.5, 2, channels, dtype=np.float32)
    }


NORM = "BatchNormalization<epsilon=0.001>"
K, L = numbers(4, 2, 3, 3), numbers(4, 4, 3, 3, seed=8)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_normalisation_after_a_convolution(classify, opset) -> None:
    found = classify(
        f"c = Conv(x, k) n = {NORM}(c, s, t, m, v) h = Relu(n)", {"k": K, **statistics(4)}, opset=opset, features=64
    )
    assert kinds(found) == ["Conv", "Relu", "Flatten", "Dense"]
    s = {name: array.astype(np.float64) for name, array in statistics(4).items()}
    factor = s["s"] / np.sqrt(s["v"] + 0.001)
    (conv,) = operations(found, Conv)
    assert np.allclose(conv.weight, K * factor.reshape(4, 1, 1, 1), atol=1e-6)
    assert np.allclose(conv.bias, s["t"] - s["m"] * factor, atol=1e-6)


def test_normalisation_of_opset_6(classify) -> None:
    classify(
        "c = Conv(x, k) h = BatchNormalization<is_test=1>(c, s, t, m, v)",
        {"k": K, **statistics(4)},
        opset=6,
        features=64,
    )
    with pytest.raises(UnsupportedError, match="eval mode"):
        classify(
            "c = Conv(x, k) h = BatchNormalization(c, s, t, m, v)", {"k": K, **statistics(4)}, opset=6, features=64
        )


def test_normalisation_by_the_batch_is_refused(classify) -> None:
    with pytest.raises(UnsupportedError, match="eval mode"):
        classify("h = BatchNormalization<training_mode=1>(x, s, t, m, v)", statistics(2), opset=15, features=72)


def test_normalisation_after_a_dense_layer(write) -> None:
    nodes = f"d = MatMul(x, w) n = {NORM}(d, s, t, m, v) r = Relu(n) y = MatMul(r, u)"
    found = import_ann(write(nodes, {"w": numbers(6, 4), "u": numbers(4, 3), **statistics(4)}, shape="1,6"))
    assert kinds(found) == ["Dense", "Relu", "Dense"]


@pytest.mark.parametrize("between", ["", "p = AveragePool<kernel_shape=[2,2]>", "p = Flatten", "p = Identity"])
def test_normalisation_after_relu_goes_on_into_the_next_layer(classify, between) -> None:
    nodes = f"c = Conv(x, k) r = Relu(c) n = {NORM}(r, s, t, m, v) "
    nodes += f"{between}(n) h = Identity(p)" if between else "h = Conv(n, l)"
    found = classify(nodes, {"k": K, "l": L, **statistics(4)})
    assert len(operations(found, Conv)) == (1 if between else 2)
    assert len(operations(found, Dense)) == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_normalisation_passes_a_maximum_only_with_factors_above_0(classify, sign) -> None:
    stats = statistics(4)
    stats["s"] = sign * np.abs(stats["s"])
    nodes = f"c = Conv(x, k) r = Relu(c) n = {NORM}(r, s, t, m, v) h = MaxPool<kernel_shape=[2,2]>(n)"
    found = classify(nodes, {"k": K, **stats})
    assert len(operations(found, Conv)) == (1 if sign > 0 else 2)


def test_a_shift_between_a_maximum_and_a_convolution_is_its_bias(classify) -> None:
    """The shift is the same in all places, although sums of floats may round differently there."""
    nodes = f"c = Conv(x, k) r = Relu(c) p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r) n = {NORM}(p, s, t, m, v) "
    stats = statistics(8)
    weights = {"k": numbers(8, 3, 3, 3), "l": numbers(8, 8, 3, 3, seed=8), **stats, "s": np.abs(stats["s"])}
    found = classify(nodes + "q = Conv(n, l) h = Relu(q)", weights, shape="1,3,28,28")
    assert kinds(found) == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "Flatten", "Dense"]


def test_a_shift_before_padding_becomes_a_channel_of_ones(classify) -> None:
    nodes = f"c = Conv(x, k) r = Relu(c) p = MaxPool<kernel_shape=[2,2]>(r) n = {NORM}(p, s, t, m, v) "
    nodes += "h = Conv<pads=[1,1,1,1]>(n, l)"
    stats = statistics(4)
    stats["s"] = np.abs(stats["s"])
    found = classify(nodes, {"k": K, "l": L, **stats})
    first, second = operations(found, Conv)
    assert first.weight.shape[0] == 5
    assert (first.weight[4].abs().sum(), first.bias[4]) == (0, 1)
    assert second.weight.shape[1] == 5
    assert [node.shape[0] for node in found.ann.nodes[:3]] == [5, 5, 5]


def test_a_factor_alone_goes_through_padding(classify) -> None:
    nodes = "c = Conv(x, k) r = Relu(c) n = Mul(r, a) h = Conv<pads=[1,1,1,1]>(n, l)"
    found = classify(nodes, {"k": K, "l": L, "a": numbers(4, 1, 1)})
    assert [tuple(conv.weight.shape) for conv in operations(found, Conv)] == [(4, 2, 3, 3), (4, 4, 3, 3)]


def test_a_shift_before_padding_without_a_way_back_and_a_relu_is_a_layer(classify) -> None:
    nodes = "r = Relu(x) n = Add(r, a) c = Conv<pads=[1,1,1,1]>(n, k) h = Relu(c)"
    found = classify(nodes, {"k": K, "a": numbers(2, 1, 1)})
    assert kinds(found) == ["Relu", "Conv", "Conv", "Relu", "Flatten", "Dense"]


def test_a_normalization_that_a_sum_reads_too_is_a_layer_before_padding(classify) -> None:
    nodes = f"c = Conv(x, k) r = Relu(c) n = {NORM}(r, s, t, m, v) d = Conv<pads=[1,1,1,1]>(n, l) h = Add(d, n)"
    found = classify(nodes, {"k": K, "l": numbers(4, 4, 3, 3), **statistics(4)})
    assert kinds(found)[-5:] == ["Conv", "Conv", "Add", "Flatten", "Dense"]


def test_a_shift_before_padding_goes_on_into_a_dense_layer(classify) -> None:
    nodes = "r = Relu(x) n = Add(r, a) h = Conv<pads=[1,1,1,1]>(n, k)"
    assert kinds(classify(nodes, {"k": K, "a": numbers(2, 1, 1)})) == ["Relu", "Conv", "Flatten", "Dense"]


def test_normalisation_between_a_sum_and_relu_is_a_layer_of_its_own(classify) -> None:
    nodes = f"c = Conv(x, k) r = Relu(c) e = Add(r, c) n = {NORM}(e, s, t, m, v) h = Relu(n)"
    found = classify(nodes, {"k": K, **statistics(4)})
    assert kinds(found) == ["Conv", "Relu", "Add", "Conv", "Relu", "Flatten", "Dense"]
    assert operations(found, Conv)[1].groups == 4


@pytest.mark.parametrize(
    "nodes", ["n = Mul(c, a) m = Add(n, b)", "n = Mul(a, c) m = Add(b, n)", "n = Div(c, i) m = Sub(n, o)"]
)
def test_normalisation_as_factor_and_shift(classify, nodes) -> None:
    a, b = numbers(4, 1, 1) + 2, numbers(1, 4, 1, 1)
    found = classify(f"c = Conv(x, k) {nodes} h = Relu(m)", {"k": K, "a": a, "b": b, "i": 1 / a, "o": -b})
    (conv,) = operations(found, Conv)
    assert np.allclose(conv.weight, K * a.reshape(4, 1, 1, 1), atol=1e-5)
    assert np.allclose(conv.bias, b.ravel(), atol=1e-6)


def test_a_factor_above_0_passes_activations(classify) -> None:
    nodes = "r = Relu(x) a = Mul(r, two) h = Clip(a, zero, six)"
    weights = {"two": np.array(2, np.float32), "zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    found = classify(nodes, weights)
    assert operations(found, Clip) == [Clip(3.0)]
    assert kinds(found) == ["Clip", "Flatten", "Dense"]


def test_a_factor_below_0_does_not(classify) -> None:
    found = classify("r = Relu(x) a = Neg(r) s = Add(a, x) h = Relu(s)")
    assert kinds(found) == ["Relu", "Conv", "Add", "Relu", "Flatten", "Dense"]


def test_a_bias_that_differs_over_height_and_width(classify) -> None:
    weights = {"k": K, "b": numbers(4, 6, 6)}
    shape = {"shape": "1,2,8,8"}
    assert len(operations(classify("c = Conv(x, k) h = Add(c, b)", weights, **shape), Dense)) == 1  # in the dense bias
    with pytest.raises(UnsupportedError, match=r"a \(Add\): its bias values differ over height and width"):
        classify("c = Conv(x, k) a = Add(c, b) h = Relu(a)", weights, **shape)


def test_a_factor_and_a_bias_for_each_region(classify) -> None:
    factor, bias = (np.repeat(np.repeat(numbers(4, 2, 3, seed=i), [3, 1], 1), [1, 2, 1], 2) for i in (1, 2))
    nodes = "c = Conv(x, k) a = Mul(c, f) d = Add(a, b) r = Relu(d) h = Conv<pads=[1,1,1,1]>(r, l)"
    found = classify(nodes, {"k": K, "f": factor, "b": bias, "l": numbers(3, 4, 3, 3)}, spikes=True)
    assert kinds(found).count("Add") == 5
    reasons = {row["op"]: row["reason"] for row in found.nodes}
    assert reasons["Mul"] == reasons["Add"] == "a factor and a shift for each channel and region"


# --- the input


@pytest.mark.parametrize(
    ("nodes", "mean", "std"),
    [
        ("a = Sub(x, m) n = Div(a, s)", 0.25, 0.5),
        ("a = Mul(x, s) n = Sub(a, m)", 0.5, 2.0),
        ("a = Div(x, s) n = Add(m, a)", -0.125, 0.5),
    ],
)
def test_normalisation_of_the_input(classify, nodes, mean, std) -> None:
    weights = {"m": np.array(0.25, np.float32), "s": np.array([0.5], np.float32), "k": K}
    found = classify(f"{nodes} h = Conv<pads=[1,1,1,1]>(n, k)", weights)
    assert found.ann.normalization.as_json() == {"mean": pytest.approx(mean), "std": pytest.approx(std)}
    assert found.nodes[0]["became"] == found.nodes[1]["became"] == "input"
    assert kinds(found) == ["Conv", "Flatten", "Dense"]


MEAN, STD = np.array([0.25, 0.5], np.float32).reshape(2, 1, 1), np.array([0.5, 2], np.float32).reshape(1, 2, 1, 1)


@pytest.mark.parametrize("pads", ["[0,0,0,0]", "[1,1,1,1]"])
def test_normalisation_of_the_input_by_channel(classify, pads) -> None:
    found = classify(
        f"a = Sub(x, m) n = Div(a, s) c = Conv<pads={pads}>(n, k) h = Relu(c)", {"m": MEAN, "s": STD, "k": K}
    )
    assert kinds(found) == ["Conv", "Relu", "Flatten", "Dense"]
    assert found.ann.normalization.as_json() == {"mean": [0.25, 0.5], "std": [0.5, 2.0]}
    assert found.nodes[0]["became"] == found.nodes[1]["became"] == "input"


def test_normalisation_by_channel_before_any_other_in_the_file(classify) -> None:
    weights = {"m": MEAN, "s": STD, "k": K, "half": np.array(0.5, np.float32)}
    found = classify("b = Mul(x, half) a = Sub(b, m) n = Div(a, s) h = Conv<pads=[1,1,1,1]>(n, k)", weights)
    assert found.ann.normalization.as_json() == {"mean": [0.5, 1.0], "std": [1.0, 4.0]}


def test_a_channel_that_is_turned_round_is_no_normalisation(classify) -> None:
    found = classify("n = Mul(x, s) h = Conv(n, k)", {"s": STD * np.float32([-1, 1]).reshape(2, 1, 1), "k": K})
    assert found.ann.normalization.as_json() == {"mean": 0.0, "std": 1.0}
    assert kinds(found) == ["Conv", "Flatten", "Dense"]


# --- quantised models


def quantised(weight, scale):
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8)


SCALE = np.array(0.02, np.float32)


@pytest.mark.parametrize("opset", [10, 13, 21])
@pytest.mark.parametrize(("zero", "kind"), [(np.array(-128, np.int8), "Clip"), (np.array(3, np.int8), None)])
def test_quantised_models(classify, opset, zero, kind) -> None:
    nodes = (
        "w = DequantizeLinear(q, ws, wz) c = Conv(x, w) a = QuantizeLinear(c, as, az) "
        "b = DequantizeLinear(a, as, az) h = MaxPool<kernel_shape=[2,2]>(b)"
    )
    weights = {
        "q": quantised(K, 0.01),
        "ws": np.array(0.01, np.float32),
        "wz": np.array(0, np.int8),
        "as": SCALE,
        "az": zero,
    }
    found = classify(nodes, weights, opset=opset, features=36)
    assert kinds(found) == ["Conv", *([kind] if kind else []), "MaxPool", "Flatten", "Dense"]
    assert np.allclose(operations(found, Conv)[0].weight, quantised(K, 0.01) * 0.01, atol=1e-7)
    if kind:
        assert operations(found, Clip)[0].high == pytest.approx(255 * 0.02)
    assert any("rounding" in note for note in found.notes)


SIGNED = {"s": SCALE, "I": 2 * np.eye(6, dtype=np.float32), "w": numbers(6, 3)}


def test_the_size_of_the_image_may_be_asked_before_it_is_normalised(classify) -> None:
    size = "s = Shape(x) g = Gather(s, i) u = Unsqueeze(g, a) q = Concat<axis=0>(u, m)"
    weights = {
        "i": np.array(0),
        "a": np.array([0]),
        "m": np.array([-1]),
        "d": np.float32(0.3),
        "k": numbers(4, 2, 3, 3),
    }
    found = classify(f"{size} n = Sub(x, d) c = Conv<pads=[1,1,1,1]>(n, k) r = Relu(c) h = Reshape(r, q)", weights)
    assert found.ann.normalization.mean == pytest.approx((0.3,))


def test_a_quantiser_may_name_its_type_without_a_zero_point(write) -> None:
    nodes = "h = MatMul(x, I) q = QuantizeLinear{}(h, s) d = DequantizeLinear(q, s) y = MatMul(d, w)"
    for named, found in (("<output_dtype=3>", ["Dense", "Dense"]), ("", ["Dense", "Clip", "Dense"])):
        assert kinds(import_ann(write(nodes.format(named), SIGNED, shape="1,6", opset=21))) == found
    with pytest.raises(UnsupportedError, match="quantises to float8e4m3fn"):
        import_ann(write(nodes.format("<output_dtype=17>"), SIGNED, shape="1,6", opset=21))


@pytest.mark.parametrize(
    ("back", "message"),
    [
        ("d = DequantizeLinear(q, t)", r"d \(DequantizeLinear\): its scale 0\.1 and zero point 0 must be .* 0\.02"),
        ("c = Cast<to=1>(q) d = Mul(c, s)", r"c \(Cast\): computes with quantised numbers"),
    ],
)
def test_what_is_dequantised_by_another_scale_or_by_hand_is_refused(write, back, message) -> None:
    nodes = f"h = MatMul(x, I) q = QuantizeLinear(h, s) {back} y = MatMul(d, w)"
    with pytest.raises(UnsupportedError, match=message):
        import_ann(write(nodes, {**SIGNED, "t": np.array(0.1, np.float32)}, shape="1,6"))


def test_quantised_numbers_may_be_laid_out_anew(write) -> None:
    nodes = (
        "c = Conv(x, k) q = QuantizeLinear(c, s, z) m = MaxPool<kernel_shape=[2,2]>(q) f = Flatten(m) "
        "d = DequantizeLinear(f, s, z) y = MatMul(d, v)"
    )
    weights = {"k": K, "s": SCALE, "z": np.array(0, np.uint8), "v": numbers(36, 3)}
    assert kinds(import_ann(write(nodes, weights))) == ["Conv", "Clip", "MaxPool", "Flatten", "Dense"]


def test_the_size_of_quantised_numbers_may_be_asked(write) -> None:
    nodes = (
        "c = Conv(x, k) q = QuantizeLinear(c, s, z) h = Shape(q) n = Gather(h, zero) u = Unsqueeze(n, zeros) "
        "r = Concat<axis=0>(u, rest) f = Reshape(q, r) d = DequantizeLinear(f, s, z) y = MatMul(d, v)"
    )
    weights = {
        "k": K, "s": SCALE, "z": np.array(0, np.uint8), "v": numbers(64, 3),
        "zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1]),
    }  # fmt: skip
    assert kinds(import_ann(write(nodes, weights))) == ["Conv", "Clip", "Flatten", "Dense"]


def test_an_image_of_bytes_that_is_dequantised_is_scaled(write) -> None:
    nodes = "d = DequantizeLinear(x, s, z) y = MatMul(d, w)"
    weights = {"s": np.array(0.5, np.float32), "z": np.array(128, np.uint8), "w": numbers(6, 3)}
    found = import_ann(write(nodes, weights, shape="1,6", dtype="uint8"))
    assert kinds(found) == ["Dense"]
    logits = run_ann(found.ann, torch.full((1, 6), 255.0) / 255)[0]
    assert np.allclose(logits.numpy(), (255 - 128) * 0.5 * weights["w"].sum(0), rtol=1e-5)


@pytest.mark.parametrize("start", ["d = DequantizeLinear(x, s, z)", "f = Cast<to=1>(x) g = Add(f, o) d = Mul(g, s)"])
def test_an_image_of_signed_bytes_has_black_at_its_least_value(write, start) -> None:
    """So do the int8 models of MLPerf Tiny, whose images are bytes minus 128."""
    weights = {"s": np.array(0.5, np.float32), "w": numbers(6, 3)}
    weights |= {"z": np.array(-128, np.int8)} if "z" in start else {"o": np.array(128, np.float32)}
    found = import_ann(write(f"{start} y = MatMul(d, w)", weights, shape="1,6", dtype="int8"))
    logits = run_ann(found.ann, torch.full((1, 6), 51.0) / 255)[0]
    assert np.allclose(logits.numpy(), 51 * 0.5 * weights["w"].sum(0), rtol=1e-5)
    assert "0 stands for -128 and 1 stands for 127" in " ".join(found.notes)


def test_weights_quantised_by_channel(classify) -> None:
    scales = np.array([0.01, 0.02, 0.03, 0.04], np.float32)
    weights = {"q": quantised(K, 0.02), "ws": scales, "wz": np.zeros(4, np.int8)}
    (conv,) = operations(classify("w = DequantizeLinear<axis=0>(q, ws, wz) h = Conv(x, w)", weights, features=64), Conv)
    assert np.allclose(conv.weight, quantised(K, 0.02) * scales.reshape(4, 1, 1, 1))


@pytest.mark.parametrize("opset", [10, 13, 21])
def test_quantised_operators_are_read_as_their_parts(classify, opset) -> None:
    nodes = (
        "q = QuantizeLinear(x, s, z) a = QLinearConv<pads=[1,1,1,1]>(q, s, z, k, ks, kz, s, z, b) "
        "c = com.microsoft.QLinearAdd(a, s, z, a, s, z, s, z) "
        "l = com.microsoft.QLinearLeakyRelu<alpha=0.5>(c, s, z, s, z) "
        "j = com.microsoft.QLinearConcat<axis=1>(s, z, a, s, z, l, s, z) "
        "p = com.microsoft.QLinearAveragePool<kernel_shape=[2,2], strides=[2,2]>(j, s, z, s, z) f = Flatten(p) "
        "g = com.microsoft.QGemm<transB=1, alpha=0.5>(f, s, z, m, s, mz, d, s, z) "
        "n = QLinearMatMul(g, s, z, v, s, mz, s, mz) h = DequantizeLinear(n, s, mz)"
    )
    rng = np.random.default_rng(1)
    weights = {
        "s": SCALE, "z": np.array(0, np.uint8), "k": quantised(K, 0.02), "kz": np.zeros(4, np.int8),
        "ks": np.linspace(0.01, 0.04, 4, dtype=np.float32), "b": rng.integers(-500, 500, 4, dtype=np.int32),
        "m": rng.integers(-10, 30, (12, 72), dtype=np.int8), "mz": np.array(3, np.int8),
        "d": rng.integers(-900, 900, 12, dtype=np.int32), "v": rng.integers(-9, 9, (12, 5), dtype=np.int8),
    }  # fmt: skip
    found = classify(nodes, weights, opset=opset, features=5, spikes=True)
    assert {row["name"] for row in found.nodes} == set("qacljpfgnh") | {"flat", "y"}
    real = {name: torch.from_numpy(np.asarray(array, np.float64)) for name, array in weights.items()}
    s, ks = float(SCALE), real["ks"].reshape(4, 1, 1, 1)
    x = torch.rand(3, 2, 6, 6).double()
    first = F.conv2d(x, real["k"] * ks, real["b"] * s * real["ks"], padding=1).clamp(0, 255 * s)
    joined = torch.cat([first, (2 * first).clamp(0, 255 * s)], 1)
    pooled = F.avg_pool2d(joined, 2).flatten(1)
    dense = 0.5 * (pooled @ ((real["m"] - 3) * s).T + real["d"] * s * s)
    wanted = dense.clamp(0, 255 * s) @ ((real["v"] - 3) * s) @ torch.from_numpy(numbers(5, 3, seed=9)).double()
    assert torch.allclose(run_ann(found.ann, x.float())[0].double(), wanted, rtol=1e-4, atol=1e-4)


def test_a_quantised_operator_of_another_kind_is_refused_by_its_name(classify) -> None:
    nodes = "q = QuantizeLinear(x, s, z) [where] w = com.microsoft.QLinearWhere(q, s, z) h = DequantizeLinear(w, s, z)"
    with pytest.raises(UnsupportedError, match=r"where \(com.microsoft.QLinearWhere\): an operator of the domain"):
        classify(nodes, {"s": SCALE, "z": np.array(0, np.uint8)}, features=72)


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_a_linear_classifier_of_scikit_learn(tmp_path, transform) -> None:
    """A graph as skl2onnx writes it, with probabilities for each class by name."""
    coefficients, intercepts = numbers(4, 6), numbers(4, seed=8)
    values = {"coefficients": coefficients.ravel().tolist(), "intercepts": intercepts.tolist()}
    node, ml, offset = onnx.helper.make_node, {"domain": "ai.onnx.ml"}, numbers(6, seed=5)
    nodes = [
        node("Scaler", ["x"], ["e"], offset=offset.tolist(), scale=[2.0] * 6, **ml),
        node("LinearClassifier", ["e"], ["label", "p"], post_transform=transform, **values, **ml),
        node("ZipMap", ["p"], ["by_name"], classlabels_int64s=[0, 1, 2, 3], **ml),
    ]  # fmt: skip
    info = onnx.helper.make_tensor_value_info
    leaving = [info("label", onnx.TensorProto.INT64, ["N"]), info("by_name", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", onnx.TensorProto.FLOAT, ["N", 6])], leaving)
    opsets = [onnx.helper.make_opsetid("", 9), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    path = tmp_path / "linear.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), path)
    found, x = import_ann(path), torch.rand(5, 6)
    wanted = (x - torch.from_numpy(offset)) * 2 @ torch.from_numpy(coefficients).T + torch.from_numpy(intercepts)
    assert torch.allclose(run_ann(found.ann, x)[0], wanted, atol=1e-5)
    nodes[1].attribute.append(onnx.helper.make_attribute("classlabels_ints", [0, 1]))  # of two classes by one score
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", graph.input, leaving), opset_imports=opsets), path
    )
    with pytest.raises(UnsupportedError, match=r"LinearClassifier\): must have an intercept for each class"):
        import_ann(path)


DYNAMIC = {
    "dense": ("q, s, z = DynamicQuantizeLinear(r) m = MatMulInteger(q, w, z, v) f = Cast<to=1>(m) "
              "t = Mul(s, u) h = Mul(f, t)", (72, 4)),
    "convolution": ("q, s, z = DynamicQuantizeLinear(x) m = ConvInteger<pads=[1,1,1,1]>(q, w, z, v) f = Cast<to=1>(m) "
                    "t = Mul(s, u) h = Mul(f, t)", (4, 2, 3, 3)),
    "static": ("q = QuantizeLinear(x, a, b) m = ConvInteger<pads=[1,1,1,1]>(q, w, b, v) f = Cast<to=1>(m) "
               "t = Mul(a, u) h = Mul(f, t)", (4, 2, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", DYNAMIC)
def test_integer_products_are_products_without_rounding(classify, name) -> None:
    nodes, shape = DYNAMIC[name]
    weight = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    weights = {
        "w": weight, "v": np.array(120, np.uint8), "u": np.array(0.01, np.float32), "a": np.array(0.02, np.float32),
        "b": np.array(100, np.uint8),
    }  # fmt: skip
    found = classify(f"r = Flatten(x) {nodes}", weights)
    real = ((weight.astype(np.float32) - 120) * 0.01).reshape(shape)
    made = (
        operations(found, Dense)[0].weight.numpy().T if name == "dense" else operations(found, Conv)[0].weight.numpy()
    )
    assert np.allclose(made, real, atol=1e-6)
    assert "rounding of activations is left out" in " ".join(found.notes)


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas"])
def test_quantisation_of_qonnx_is_refused_with_advice(write, domain) -> None:
    path = write("q = Identity(x) y = MatMul(q, w)", {"w": np.ones((6, 3), np.float32)}, shape="1,6")
    model = onnx.load(path)
    node = model.graph.node[0]
    node.domain, node.op_type = domain, "Quant"
    node.input.extend(["s", "z", "b"])
    values = (("s", 0.1), ("z", 0.0), ("b", 8.0))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.float32(v), name) for name, v in values)
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match=rf"q \({domain}\.Quant\): quantisation of QONNX.*Brevitas: QCDQ"):
        import_ann(path)


def test_weights_are_folded_in_64_bits(classify) -> None:
    """Two factors that cancel leave the weights unchanged, to the bit."""
    weights = {"k": K, "a": np.float32([1e-20]), "b": np.float32([1e20])}
    (conv,) = operations(classify("c = Conv(x, k) m = Mul(c, a) h = Mul(m, b)", weights), Conv)
    assert torch.allclose(conv.weight, torch.from_numpy(K), rtol=1e-6)


def test_normalisation_of_each_number_by_itself(classify) -> None:
    """Statistics with `spatial=0`, until opset 8, have the shape of a feature map."""
    shape = (4, 4, 4)
    weights = {name: numbers(*shape, seed=i) for i, name in enumerate("stm")} | {"v": np.full(shape, 0.5, np.float32)}
    found = classify(
        "c = Conv(x, k) h = BatchNormalization<spatial=0>(c, s, t, m, v)", {"k": K, **weights}, opset=7, features=64
    )
    assert len(operations(found, Dense)) == 1


def test_normalisation_of_channels_last_images(classify) -> None:
    """Keras exports its preprocessing so: normalisation by channel, a transpose to channels first, padding."""
    nodes = "a = Sub(x, m) n = Mul(a, s) t = Transpose<perm=[0,3,1,2]>(n) c = Conv<pads=[1,1,1,1]>(t, k) h = Relu(c)"
    found = classify(nodes, {"m": MEAN.ravel(), "s": STD.ravel(), "k": K}, shape="N,6,5,2")
    assert found.ann.shape == (2, 6, 5)
    assert found.ann.normalization.as_json() == {"mean": [0.25, 0.5], "std": [2.0, 0.5]}
    assert kinds(found) == ["Conv", "Relu", "Flatten", "Dense"]


def test_a_bound_is_not_folded_into_a_relu_that_others_read(classify) -> None:
    found = classify("r = Relu(x) m = Min(r, a) h = Add(m, r)", {"a": np.array(0.25, np.float32)})
    assert kinds(found) == ["Relu", "Clip", "Add", "Flatten", "Dense"]


def test_a_channel_of_ones_does_not_pass_a_bound_below_1(classify) -> None:
    nodes = "c = Conv(x, k) r = Clip(c, zero, {}) n = Add(r, a) d = Conv<pads=[1,1,1,1]>(n, l) h = Relu(d)"
    weights = {"k": K, "l": L, "a": numbers(4, 1, 1), "zero": np.array(0, np.float32)}
    found = classify(nodes.format("two"), {**weights, "two": np.array(2, np.float32)})
    assert operations(found, Conv)[0].weight.shape[0] == 5
    found = classify(nodes.format("half"), {**weights, "half": np.array(0.5, np.float32)})
    assert [conv.weight.shape[0] for conv in operations(found, Conv)] == [4, 4, L.shape[0]]
