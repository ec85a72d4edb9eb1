"""Every operator in every version and spelling. `classify` compares each with onnx's evaluator."""

import math

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from tiny_onnx import kinds, numbers, operations

from converters.ann_to_snn.spiking_layers import activations_first
from converters.linear.ann import AvgPool, Clip, LeakyRelu, MaxPool, PRelu, Relu, apply_operation, run_ann
from converters.linear.linear_fold import Conv, Dense
from converters.onnx.import_ann import import_ann
from converters.onnx.operators import OPERATORS
from converters.onnx.reading.onnx_file import OLDEST_OPSET
from converters.onnx.refused_operators import REFUSED
from specs import ConversionError, UnsupportedError

IMAGES = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(2)) - 0.4


K, B, KD, K1 = numbers(4, 2, 3, 3), numbers(4), numbers(4, 1, 3, 3), numbers(4, 2, 3)
STATS = {"s": numbers(2) + 1, "t": numbers(2, seed=5), "m": numbers(2, seed=6), "v": np.array([0.5, 2.0], np.float32)}


def rows(found):
    return {row["op"]: (row["became"], row["reason"]) for row in found.nodes}


# --- dense layers


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c", [(), (1,), (4,), (1, 4)])
def test_gemm_both_ways_with_any_c(write, opset, trans_b, c) -> None:
    weight = numbers(4, 6) if trans_b else numbers(6, 4)
    path = write(
        f"y = Gemm<transB={trans_b}, alpha=0.5, beta=-2.0>(x, w, c)",
        {"w": weight, "c": numbers(*c, seed=4)},
        shape="1,6",
        opset=opset,
    )
    (dense,) = operations(import_ann(path), Dense)
    assert np.allclose(dense.weight, 0.5 * (weight if trans_b else weight.T))
    assert np.allclose(dense.bias, np.broadcast_to(-2 * numbers(*c, seed=4), (4,) if len(c) < 2 else (1, 4)).ravel())


@pytest.mark.parametrize("broadcast", [0, 1])
def test_gemm_of_opset_6(write, broadcast) -> None:
    c = numbers(4) if broadcast else numbers(1, 4)
    path = write(
        f"y = Gemm<broadcast={broadcast}, transB=1>(x, w, c)", {"w": numbers(4, 6), "c": c}, shape="1,6", opset=6
    )
    assert np.allclose(operations(import_ann(path), Dense)[0].bias, c.ravel())


def test_gemm_without_c(write) -> None:
    path = write("y = Gemm(x, w)", {"w": numbers(6, 4)}, shape="1,6")
    assert not operations(import_ann(path), Dense)[0].bias.any()


def test_gemm_of_a_transposed_tensor(write) -> None:
    path = write("t = Transpose<perm=[1,0]>(x) y = Gemm<transA=1>(t, w)", {"w": numbers(6, 4)}, shape="1,6")
    assert np.allclose(operations(import_ann(path), Dense)[0].weight, numbers(6, 4).T)


def test_gemm_with_the_constant_first(write) -> None:
    nodes = "t = Transpose<perm=[1,0]>(x) p = Gemm<alpha=2.0>(w, t, c) y = Transpose<perm=[1,0]>(p)"
    (dense,) = operations(import_ann(write(nodes, {"w": numbers(4, 6), "c": numbers(4, 1)}, shape="1,6")), Dense)
    assert np.allclose(dense.weight, 2 * numbers(4, 6))
    assert np.allclose(dense.bias, numbers(4, 1).ravel())


def test_gemm_whose_c_is_a_tensor_is_a_sum(write) -> None:
    found = import_ann(write("r = Relu(x) y = Gemm<beta=0.5>(r, w, r)", {"w": numbers(6, 6)}, shape="1,6"))
    assert kinds(found) == ["Relu", "Dense", "Dense", "Add"]


@pytest.mark.parametrize(
    ("nodes", "sign"),
    [
        ("p = MatMul(x, w) y = Add(p, b)", 1),
        ("p = MatMul(x, w) y = Add(b, p)", 1),
        ("p = MatMul(x, w) y = Sub(p, b)", -1),
        ("p = MatMul(x, w) y = Sum(p, b)", 1),
    ],
)
def test_matmul_with_a_bias_beside_it(write, nodes, sign) -> None:
    found = import_ann(write(nodes, {"w": numbers(6, 4), "b": numbers(4)}, shape="N,6"))
    (dense,) = operations(found, Dense)
    assert len(found.ann.nodes) == 1
    assert np.allclose(dense.bias, sign * numbers(4))
    assert np.allclose(dense.weight, numbers(6, 4).T)


def test_a_tensor_taken_from_a_constant_changes_signs(write) -> None:
    found = import_ann(write("p = MatMul(x, w) y = Sub(b, p)", {"w": numbers(6, 4), "b": numbers(4)}, shape="1,6"))
    (dense,) = operations(found, Dense)
    assert np.allclose(dense.weight, -numbers(6, 4).T)
    assert np.allclose(dense.bias, numbers(4))


def test_matmul_with_the_constant_first(write) -> None:
    nodes = "t = Transpose<perm=[1,0]>(x) p = MatMul(w, t) y = Transpose<perm=[1,0]>(p)"
    (dense,) = operations(import_ann(write(nodes, {"w": numbers(4, 6)}, shape="1,6")), Dense)
    assert np.allclose(dense.weight, numbers(4, 6))


def test_weights_that_nodes_compute(write) -> None:
    nodes = "r = Reshape(w, s) t = Transpose<perm=[1,0]>(r) y = MatMul(x, t)"
    path = write(nodes, {"w": numbers(4, 2, 3), "s": np.array([4, 6])}, shape="1,6")
    assert np.allclose(operations(import_ann(path), Dense)[0].weight, numbers(4, 6))


# --- convolutions


@pytest.mark.parametrize("opset", [6, 11, 22])
@pytest.mark.parametrize(
    "options",
    [
        "pads=[1,1,1,1]",
        "strides=[2,1]",
        "dilations=[2,1], pads=[2,0,2,0]",
        "pads=[0,1,2,0]",
        "pads=[2,0,0,1], strides=[2,2]",
        "pads=[1,0,0,0], dilations=[2,2]",
        'auto_pad="SAME_UPPER", strides=[2,2]',
        'auto_pad="SAME_LOWER", strides=[2,2]',
        'auto_pad="SAME_LOWER", strides=[1,2], dilations=[2,1]',
        'auto_pad="VALID"',
    ],
)
def test_convolutions(classify, opset, options) -> None:
    features = None if "auto_pad" not in options else F.conv2d(IMAGES[:1], torch.zeros(4, 2, 3, 3)).numel()
    if "SAME" in options:
        stride = [int(s) for s in options.split("strides=[")[1][:3].split(",")]
        features = 4 * math.ceil(6 / stride[0]) * math.ceil(6 / stride[1])
    found = classify(f"h = Conv<{options}>(x, k, b)", {"k": K, "b": B}, opset=opset, features=features)
    assert kinds(found) == ["Conv", "Flatten", "Dense"]


def test_padding_of_one_side_only_keeps_the_kernel(classify) -> None:
    (conv,) = operations(classify("h = Conv<pads=[1,0,0,0]>(x, k)", {"k": K}), Conv)
    assert conv.padding == (1, 0, 0, 0)
    assert torch.equal(conv.weight, torch.from_numpy(K))
    found = apply_operation(conv, IMAGES)
    assert torch.allclose(found, F.conv2d(F.pad(IMAGES, (0, 0, 1, 0)), torch.from_numpy(K)), atol=1e-6)


@pytest.mark.parametrize(
    ("auto_pad", "before"), [("SAME_UPPER", (0, 1, 0, 1)), ("SAME_LOWER", (1, 0, 1, 0))], ids=["upper", "lower"]
)
def test_the_odd_row_of_same_padding(write, auto_pad, before) -> None:
    """The end that gets the odd row is compared with torch, independently of our reading of the ONNX text."""
    nodes = f'c = Conv<auto_pad="{auto_pad}", strides=[2,2]>(x, k) g = GlobalAveragePool(c) y = Flatten(g)'
    found = run_ann(import_ann(write(nodes, {"k": K})).ann, IMAGES)[0]
    wanted = F.conv2d(F.pad(IMAGES, before), torch.from_numpy(K), stride=2).mean((2, 3))
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_groups(classify, groups) -> None:
    weight = numbers(4, 2 // groups, 3, 3)
    (conv,) = operations(classify(f"h = Conv<group={groups}>(x, k)", {"k": weight}), Conv)
    assert conv.groups == groups
    assert np.allclose(conv.weight, weight)


def test_one_axis_is_maps_of_height_1(classify) -> None:
    nodes = "c = Conv<strides=[2], pads=[0,1]>(x, k, b) r = Relu(c) h = MaxPool<kernel_shape=[2]>(r)"
    found = classify(nodes, {"k": K1, "b": B}, shape="N,2,9")
    assert found.ann.shape == (2, 1, 9)
    assert operations(found, MaxPool)[0].kernel == (1, 2)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_a_bias_beside_a_convolution(classify, shape) -> None:
    found = classify("c = Conv(x, k) a = Add(c, b) h = Relu(a)", {"k": K, "b": B.reshape(shape)})
    assert np.allclose(operations(found, Conv)[0].bias, B)
    assert rows(found)["Add"] == ("c", "folded into its weights, exactly")


def test_old_operators_fit_constants_by_axis(classify) -> None:
    nodes = "c = Conv(x, k) a = Add<axis=1, broadcast=1>(c, b) h = Mul<axis=1, broadcast=1>(a, b)"
    (conv,) = operations(classify(nodes, {"k": K, "b": B}, opset=6, features=64), Conv)
    assert np.allclose(conv.bias, B * B)


# --- pools


@pytest.mark.parametrize("opset", [6, 8, 10, 12, 22])
@pytest.mark.parametrize("options", ["strides=[2,2]", "pads=[1,1,1,1]", "pads=[0,1,1,0], strides=[2,2]", ""])
def test_max_pool(classify, opset, options) -> None:
    options = f"kernel_shape=[2,3]{', ' if options else ''}{options}"
    assert kinds(classify(f"h = MaxPool<{options}>(x)", opset=opset)) == ["MaxPool", "Flatten", "Dense"]


@pytest.mark.parametrize(
    ("auto_pad", "pads"), [("SAME_UPPER", (0, 1, 0, 1)), ("SAME_LOWER", (1, 0, 1, 0))], ids=["upper", "lower"]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_of_same_size(write, auto_pad, pads, stride) -> None:
    nodes = (
        f'p = MaxPool<auto_pad="{auto_pad}", kernel_shape=[{stride + 1},{stride + 1}], strides=[{stride},{stride}]>(x)'
    )
    nodes += " g = GlobalAveragePool(p) y = Flatten(g)"
    found = run_ann(import_ann(write(nodes)).ann, IMAGES)[0]
    wanted = F.max_pool2d(F.pad(IMAGES, pads, value=-math.inf), stride + 1, stride).mean((2, 3))
    assert torch.allclose(found, wanted, atol=1e-6)


def test_ceil_mode(write) -> None:
    nodes = "p = MaxPool<ceil_mode=1, kernel_shape=[3,3], strides=[2,2]>(x) g = GlobalAveragePool(p) y = Flatten(g)"
    found = import_ann(write(nodes))
    assert torch.allclose(
        run_ann(found.ann, IMAGES)[0], F.max_pool2d(IMAGES, 3, 2, ceil_mode=True).mean((2, 3)), atol=1e-6
    )
    assert operations(found, MaxPool)[0].padding == (0, 0, 1, 1)


def test_ceil_mode_without_effect(classify) -> None:
    found = classify("h = MaxPool<ceil_mode=1, kernel_shape=[2,2], strides=[2,2]>(x)", opset=10)
    assert operations(found, MaxPool) == [MaxPool((2, 2), (2, 2))]


@pytest.mark.parametrize("opset", [7, 10, 11, 19, 22])
def test_average_pool(classify, opset) -> None:
    found = classify("h = AveragePool<kernel_shape=[2,3], strides=[2,1]>(x)", opset=opset)
    assert operations(found, AvgPool) == [AvgPool((2, 3), (2, 1))]


def test_average_pool_whose_padding_counts(classify) -> None:
    found = classify("h = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)")
    assert operations(found, AvgPool) == [AvgPool((3, 3), (1, 1), (1, 1))]


def test_what_scales_an_average_of_one_side_comes_before_its_bounds(classify) -> None:
    bounded = "c = Conv(x, k) r = Clip(c, z, s)"
    pool = "p = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1], count_include_pad=1>(r)"
    weights = {"k": 9 * K, "z": np.float32(0), "s": np.float32(6), "t": np.float32(2)}
    scaled = classify(f"{bounded} {pool} n = Mul(p, t) h = Clip(n, z, s)", weights)
    assert kinds(scaled).count("Clip") == 2
    shifted = classify(f"{bounded} {pool} n = Sub(p, t) h = Relu(n)", weights)
    assert kinds(shifted).count("Relu") == 1


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_constants_of_opset_6_fit_from_an_axis_on(write, operator) -> None:
    weight, by = numbers(6, 4), numbers(6, seed=4)
    path = write(
        f"w = {operator}<axis=0, broadcast=1>(v, s) y = MatMul(x, w)", {"v": weight, "s": by}, shape="1,6", opset=6
    )
    apply = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[operator]
    assert np.allclose(operations(import_ann(path), Dense)[0].weight, apply(weight, by[:, None]).T)


def test_nodes_may_name_onnx_as_their_domain(write) -> None:
    path = write("c = Conv(x, k) r = Relu(c) f = Flatten(r) y = MatMul(f, w)", {"k": K, "w": numbers(64, 3)})
    model = onnx.load(path)
    for node in model.graph.node:
        node.domain = "ai.onnx"
    onnx.save(model, path)
    assert kinds(import_ann(path)) == ["Conv", "Relu", "Flatten", "Dense"]


def test_a_layer_of_which_only_the_shape_is_read_is_unused(write) -> None:
    size = "s = Shape(c) g = Gather(s, i) u = Unsqueeze(g, a) q = Concat<axis=0>(u, m)"
    weights = {"k": K, "i": np.array(0), "a": np.array([0]), "m": np.array([-1]), "w": numbers(72, 3)}
    found = import_ann(write(f"c = Conv(x, k) {size} f = Reshape(x, q) y = MatMul(f, w)", weights))
    assert rows(found)["Conv"] == ("unused", "its numbers are not read")
    assert "Conv" not in kinds(found)


def test_average_pool_padded_on_one_side(classify) -> None:
    found = classify("h = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1], count_include_pad=1>(x)")
    assert operations(found, AvgPool) == [AvgPool((2, 2), (1, 1), (0, 0, 1, 1))]


@pytest.mark.parametrize(
    ("options", "as_torch"),
    [
        ("kernel_shape=[3,3], pads=[1,1,1,1]",
         {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False}),
        ("kernel_shape=[3,3], strides=[2,2], ceil_mode=1", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ("kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,1,1], count_include_pad=1",
         {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1}),
        ("kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,1,1]",
         {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1, "count_include_pad": False}),
    ],
)  # fmt: skip
def test_averages_over_windows_of_different_sizes_fold_into_a_dense_layer(classify, options, as_torch) -> None:
    found = classify(f"r = Relu(x) h = AveragePool<{options}>(r)", opset=19)
    pooled = F.avg_pool2d(IMAGES.relu(), **as_torch)
    weights = torch.from_numpy(np.random.default_rng(9).normal(0.1, 0.5, (pooled[0].numel(), 3)).astype(np.float32))
    assert torch.allclose(run_ann(found.ann, IMAGES)[0], pooled.flatten(1) @ weights, atol=1e-5)


MEAN = "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>"
PARTLY = {
    "before a convolution": f"r = Relu(x) p = {MEAN}(r) c = Conv<pads=[1,1,1,1]>(p, k) h = Relu(c)",
    "after a convolution": f"c = Conv(x, k, b) p = {MEAN}(c) r = Relu(p) h = Conv(r, l)",
    "of the image": f"p = {MEAN}(x) h = Conv(p, k)",
    "with a last window that is partly outside": "r = Relu(x) p = AveragePool<kernel_shape=[4,4], strides=[3,3], "
                                                 "ceil_mode=1>(r) c = Conv(p, k1) h = Relu(c)",
    "in a sum": f"a = Relu(x) p = {MEAN}(a) c = Conv<pads=[1,1,1,1]>(x, k2) s = Add(p, c) r = Relu(s) h = Conv(r, k)",
    "in a branch": f"a = Relu(x) p = {MEAN}(a) c = Conv(p, k1, b) q = Conv(x, k1) j = Concat<axis=1>(c, q) "
                   "r = Relu(j) h = Conv(r, l8)",
    "average of all before padding": "r = Relu(x) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r) "
                                     "c = Conv<pads=[1,1,1,1]>(p, k) h = Relu(c)",
    "average of all before padding that its stride does not divide": (
        "c = Conv(x, k) p = AveragePool<kernel_shape=[3,3], strides=[2,2]>(c) d = Conv<pads=[1,1,1,1]>(p, l) "
        "h = Relu(d)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTLY)
def test_averages_over_windows_of_different_sizes_anywhere(classify, name) -> None:
    weights = {"k": K, "b": B, "l": numbers(3, 4, 2, 2), "k1": numbers(4, 2, 1, 1), "k2": numbers(2, 2, 3, 3),
               "l8": numbers(3, 8, 2, 2)}  # fmt: skip
    classify(PARTLY[name], weights, opset=19, spikes=True)


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("g = GlobalAveragePool(r) y = Flatten(g)", 13),
        ("g = GlobalAveragePool(r) y = Flatten(g)", 22),
        ("y = ReduceMean<axes=[2,3], keepdims=0>(r)", 13),
        ("y = ReduceMean<axes=[-1,-2], keepdims=0>(r)", 11),
        ("y = ReduceMean<keepdims=0>(r, axes)", 18),
        ("y = ReduceSum<keepdims=0>(r, axes)", 13),
        ("t = Transpose<perm=[0,2,3,1]>(r) y = ReduceMean<axes=[1,2], keepdims=0>(t)", 13),
    ],
)
def test_means_of_maps(write, nodes, opset) -> None:
    weights = {"axes": np.array([2, 3])} if "(r, axes)" in nodes else {}
    found = import_ann(write(f"r = Relu(x) {nodes}", weights, opset=opset))
    assert operations(found, AvgPool) == [AvgPool((6, 6), (1, 1))]


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [("g = GlobalMaxPool(x) y = Flatten(g)", 13), ("y = ReduceMax<axes=[2,3], keepdims=0>(x)", 13)],
)
def test_largest_of_maps(write, nodes, opset) -> None:
    assert operations(import_ann(write(nodes, opset=opset)), MaxPool) == [MaxPool((6, 6), (1, 1))]


def test_the_largest_of_one_axis(classify) -> None:
    nodes, weights = "c = Conv(x, k) g = GlobalMaxPool(c) h = Squeeze(g, last)", {"k": K1, "last": np.array([2])}
    found = classify(nodes, weights, shape="1,2,9", features=4)
    assert operations(found, MaxPool) == [MaxPool((1, 7), (1, 1))]


def test_maxima_over_channels_are_refused(classify) -> None:
    with pytest.raises(UnsupportedError, match="only height and width"):
        classify("h = ReduceMax<axes=[1]>(x)", features=36)


# --- activations


@pytest.mark.parametrize("opset", [6, 13, 14])
def test_relu(classify, opset) -> None:
    assert kinds(classify("h = Relu(x)", opset=opset)) == ["Relu", "Flatten", "Dense"]


ZERO, SIX = np.array(0, np.float32), np.array([6], np.float32)


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("h = Clip<min=0.0, max=6.0>(x)", 6),
        ("h = Clip(x, zero, six0)", 11),
        ("h = Clip(x, zero, six0)", 12),
        ("h = Clip(x, zero, six0)", 13),
        ("r = Relu(x) h = Min(r, six)", 13),
        ("r = Relu(x) h = Min(six, r)", 8),
        ("r = Max(x, zero) h = Min(r, six)", 13),
        ("m = Min(x, six) h = Max(zero, m)", 13),
        ("m = Min(x, six) h = Relu(m)", 13),
        ("r = Relu(x) h = Clip(r, , six0)", 13),
    ],
)
def test_relu6_in_all_spellings(classify, nodes, opset) -> None:
    weights = {"zero": ZERO, "six": SIX, "six0": SIX.reshape(())}
    found = classify(nodes, {k: v for k, v in weights.items() if k in nodes.replace("six0", "six0 ")}, opset=opset)
    assert operations(found, Clip) == [Clip(6.0)]
    assert kinds(found) == ["Clip", "Flatten", "Dense"]


@pytest.mark.parametrize("nodes", ["h = Clip(x, zero)", "h = Max(x, zero)"])
def test_relu_in_other_words(classify, nodes) -> None:
    assert kinds(classify(nodes, {"zero": ZERO})) == ["Relu", "Flatten", "Dense"]


WHERE = {
    "i = Greater(c, zero) h = Where(i, c, zero)": 0,
    "i = Less(c, zero) h = Where(i, zero, c)": 0,
    "i = Less(zero, c) h = Where(i, c, zero)": 0,
    "i = GreaterOrEqual(c, zero) a = Mul(c, slope) h = Where(i, c, a)": 0.125,
    "a = Mul(slope, c) i = LessOrEqual(c, zero) h = Where(i, a, c)": 0.125,
}


@pytest.mark.parametrize("nodes", WHERE)
def test_where_as_relu(classify, nodes) -> None:
    weights = {"zero": ZERO, "slope": np.array(0.125, np.float32), "k": K}
    found = classify(f"c = Conv(x, k) {nodes}", weights, opset=16, spikes=True)
    activation = LeakyRelu(WHERE[nodes]) if WHERE[nodes] else Relu()
    assert [node.operation for node in found.ann.nodes][1] == activation
    assert kinds(found) == ["Conv", type(activation).__name__, "Flatten", "Dense"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("c = Greater(x, one) h = Where(c, x, one)", r"c \(Greater\): compares with a number other than 0"),
        ("c = Greater(x, zero) h = Where(c, x, one)", r"h \(Where\): chooses between values"),
        ("c = Greater(x, zero) a = Mul(x, x2) h = Where(c, a, x)", r"h \(Where\): chooses between values"),
        ("c = Greater(x, zero) a = Cast<to=1>(c) h = Mul(x, a)", r"a \(Cast\): computes with a comparison"),
    ],
)
def test_other_choices_are_refused(classify, nodes, reason) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        classify(nodes, {"zero": ZERO, "one": np.array(1, np.float32), "x2": np.array(2, np.float32)}, features=72)


@pytest.mark.parametrize("nodes", ["h = Clip(x, six)", "h = Max(x, six)", "h = Min(x, six)", "h = Clip(x, four, six)"])
def test_other_bounds_are_rectifiers_between_shifts(classify, nodes) -> None:
    found = classify(nodes, {"six": np.array(0.5, np.float32), "four": np.array(-0.4, np.float32)}, features=72)
    assert len(operations(found, Relu) + operations(found, Clip)) == 1


@pytest.mark.parametrize("opset", [6, 16])
def test_leaky_relu(classify, opset) -> None:
    assert operations(classify("h = LeakyRelu<alpha=0.125>(x)", opset=opset), LeakyRelu) == [LeakyRelu(0.125)]
    (default,) = operations(classify("h = LeakyRelu(x)", opset=opset), LeakyRelu)
    assert default.slope == pytest.approx(0.01)


@pytest.mark.parametrize("slope", [np.array([0.25], np.float32), np.full((2, 1, 1), 0.25, np.float32)])
def test_prelu_of_one_slope(classify, slope) -> None:
    assert operations(classify("h = PRelu(x, a)", {"a": slope}), LeakyRelu) == [LeakyRelu(0.25)]


def test_prelu_of_a_slope_for_each_channel(classify) -> None:
    found = classify("h = PRelu(x, a)", {"a": np.array([0.5, -0.25], np.float32).reshape(2, 1, 1)})
    assert operations(found, PRelu)[0].slope.tolist() == [0.5, -0.25]


def test_prelu_of_one_slope_below_0_keeps_its_place_and_is_noted(classify) -> None:
    nodes = "p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x) h = PRelu(p, a)"
    found = classify(nodes, {"a": np.array([-0.5], np.float32)}, features=18)
    assert set(operations(found, PRelu)[0].slope.tolist()) == {-0.5}
    assert any("slopes below 0, in 2 of its channels, become 0" in note for note in found.notes)
    assert [type(node.operation) for node in activations_first(found.ann).nodes][:2] == [MaxPool, PRelu]


def test_slopes_below_0_of_some_channels_are_noted(classify) -> None:
    found = classify("h = PRelu(x, a)", {"a": np.array([0.5, -0.25], np.float32).reshape(2, 1, 1)})
    assert any("slopes below 0, in 1 of its channels, become 0" in note for note in found.notes)


def test_a_leaky_relu_that_falls_is_refused(classify) -> None:
    with pytest.raises(UnsupportedError, match="slope -1: spike rates only rise"):
        classify("h = LeakyRelu<alpha=-1.0>(x)")


def test_a_clip_of_what_is_never_positive(classify) -> None:
    weights = {"low": np.array(-9, np.float32), "high": np.array(5, np.float32)}
    classify("r = Relu(x) n = Neg(r) h = Clip(n, low, high)", weights)


def test_a_batch_larger_than_the_channels_survives_a_shift_before_padding(write) -> None:
    nodes = (
        "c = Conv(x, k) r = Relu(c) b = BatchNormalization(r, g, o, z, g) p = Conv<pads=[1,1,1,1]>(b, l) "
        "f = Reshape(p, rows) y = MatMul(f, w)"
    )
    two = np.ones(2, np.float32)
    weights = {
        "k": numbers(2, 1, 2, 2), "g": two, "o": two, "z": 0 * two, "l": numbers(2, 2, 3, 3, seed=4),
        "rows": np.array([8, -1]), "w": numbers(18, 3, seed=5),
    }  # fmt: skip
    assert import_ann(write(nodes, weights, shape="8,1,4,4")).ann.nodes[-1].shape == (3,)


def test_an_expand_to_its_own_shape_makes_no_more_numbers(write) -> None:
    nodes = "e = Expand(k, to) c = Conv(x, e) r = Relu(c) g = GlobalAveragePool(r) y = Flatten(g)"
    weights = {"k": numbers(64, 2, 64, 64), "to": np.array([64, 2, 64, 64])}
    assert kinds(import_ann(write(nodes, weights, shape="1,2,64,64")))[0] == "Conv"


def test_a_second_relu_changes_nothing(classify) -> None:
    found = classify("r = Relu(x) p = MaxPool<kernel_shape=[2,2]>(r) h = Relu(p)")
    assert kinds(found) == ["Relu", "MaxPool", "Flatten", "Dense"]


# --- last operators, and operators without effect


@pytest.mark.parametrize(
    ("ending", "opset"),
    [
        ("y = Softmax<axis=1>(l)", 11),
        ("y = Softmax(l)", 13),
        ("y = Softmax<axis=-1>(l)", 13),
        ("y = LogSoftmax(l)", 13),
        ("s = Softmax(l) y = Log(s)", 13),
        ("y = Sigmoid(l)", 13),
        ("y = Relu(l)", 13),
        ("r = Relu(l) y = Softmax(r)", 13),
        ("y = ArgMax<axis=1>(l)", 13),
        ("s = Softmax(l) a = ArgMax<axis=-1, keepdims=0>(s) y = Cast<to=6>(a)", 13),
    ],
)
def test_endings_are_left_out(write, ending, opset) -> None:
    found = import_ann(write(f"l = MatMul(x, w) {ending}", {"w": numbers(6, 4)}, shape="1,6", opset=opset))
    assert kinds(found) == ["Dense"]
    assert found.nodes[-1]["became"] == "removed"


def test_a_relu_before_a_pool_stays(write) -> None:
    found = import_ann(write("c = Conv(x, k) h = Relu(c) p = GlobalAveragePool(h) y = Flatten(p)", {"k": K}))
    assert rows(found)["Relu"][0] != "removed"


@pytest.mark.parametrize(("kind", "zero"), [("Softmax", -128), ("LogSoftmax", 127)])
def test_an_ending_may_be_quantised(write, kind, zero) -> None:
    nodes = f"l = MatMul(x, w) s = {kind}(l) q = QuantizeLinear(s, step, zero) y = DequantizeLinear(q, step, zero)"
    weights = {"w": numbers(6, 4), "step": np.array(1 / 256, np.float32), "zero": np.array(zero, np.int8)}
    found = import_ann(write(nodes, weights, shape="1,6"))
    assert kinds(found) == ["Dense"]
    assert [row["became"] for row in found.nodes[1:]] == ["removed"] * 3


def test_a_softmax_over_other_axes_is_refused(write) -> None:
    with pytest.raises(UnsupportedError, match="not over the classes"):
        import_ann(write("l = MatMul(x, w) y = Softmax<axis=0>(l)", {"w": numbers(6, 4)}, shape="1,6"))


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid", "LogSoftmax"])
def test_endings_between_layers_are_refused(write, kind) -> None:
    nodes = f"l = MatMul(x, w) s = {kind}(l) y = MatMul(s, u)"
    with pytest.raises(UnsupportedError, match=rf"s \({kind}\): stands between layers"):
        import_ann(write(nodes, {"w": numbers(6, 4), "u": numbers(4, 3)}, shape="1,6"))


@pytest.mark.parametrize(
    ("nodes", "total", "told"),
    [
        (
            "a = Sigmoid(l) m = MatMul(a, q) b = Sigmoid(m) h = MatMul(b, q)",
            2,
            ["2 nodes, such as a (Sigmoid): stands betw"],
        ),
        (
            "a = Sigmoid(l) s = Mul(l, a) m = MatMul(s, q) b = Sigmoid(m) t = Mul(m, b) h = MatMul(t, q)",
            4,
            ["2 nodes, such as a (Sigmoid): stands between", "2 nodes, such as s (Mul): multiplies or divides"],
        ),
        ("a = Tanh(l) b = Sigmoid(a) h = MatMul(b, q)", 2, ["a (Tanh): a smooth function", "b (Sigmoid): stands"]),
        ("a = Tanh(l) m = MatMul(a, q) h = Sigmoid(m)", 1, ["a (Tanh): a smooth function"]),
    ],
)
def test_all_refused_nodes_are_named_once(write, nodes, total, told) -> None:
    nodes = f"l = MatMul(x, w) {nodes} y = Identity(h)"
    with pytest.raises(UnsupportedError, match=f"{total} of its nodes cannot become spiking layers") as caught:
        import_ann(write(nodes, {"w": numbers(6, 4), "q": numbers(4, 4)}, shape="1,6"))
    for words in told:
        assert str(caught.value).count(words) == 1


def test_refused_nodes_are_counted_by_their_reason(write) -> None:
    nodes = " ".join(f"t{i + 1} = Tanh(t{i})" for i in range(150))
    with pytest.raises(UnsupportedError, match=r": 150 nodes, such as t1 \(Tanh\): a smooth [^;]*$"):
        import_ann(
            write(
                f"t0 = MatMul(x, w) {nodes} y = MatMul(t150, q)", {"w": numbers(6, 4), "q": numbers(4, 4)}, shape="1,6"
            )
        )


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("i = Identity(x) h = Dropout<is_test=1, ratio=0.5>(i)", 6),
        ("i = Identity(x) h, mask = Dropout<is_test=1>(i)", 6),
        ("i = Identity(x) h = Dropout<ratio=0.5>(i)", 7),
        ("i = Identity(x) h, mask = Dropout<ratio=0.5>(i)", 10),
        ("h, mask = Dropout(x, ratio)", 12),
        ("h = Dropout(x, ratio, off)", 13),
        ("h = Cast<to=1>(x)", 13),
    ],
)
def test_what_does_nothing(classify, nodes, opset) -> None:
    weights = {"ratio": np.array(0.5, np.float32), "off": np.array(False)}
    weights = {name: array for name, array in weights.items() if f", {name}" in nodes}
    found = classify(nodes, weights, opset=opset, features=72)
    assert kinds(found) == ["Flatten", "Dense"]


def test_a_mask_that_is_read_is_refused(classify) -> None:
    with pytest.raises(UnsupportedError, match="its output 'm' is read"):
        classify("d, m = Dropout(x) c = Cast<to=1>(m) h = Add(d, c)", features=72)


# --- sums


def test_residual_sums(classify) -> None:
    nodes = "c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) s = Add(r, x) h = Relu(s)"
    found = classify(nodes, {"k": numbers(2, 2, 3, 3)})
    assert kinds(found) == ["Conv", "Relu", "Add", "Relu", "Flatten", "Dense"]
    assert next(node.inputs for node in found.ann.nodes if node.name == "s") == ("r", "input")


def test_a_bias_is_not_folded_into_what_others_read(classify) -> None:
    nodes = "c = Conv<pads=[1,1,1,1]>(x, k) a = Add(c, b) r = Relu(a) h = Add(r, c)"
    found = classify(nodes, {"k": numbers(2, 2, 3, 3), "b": numbers(2, 1, 1)})
    first, second = operations(found, Conv)
    assert not first.bias.any()
    assert np.allclose(second.bias, numbers(2))


def test_a_difference_of_tensors(classify) -> None:
    nodes = "c = Conv<pads=[1,1,1,1]>(x, k) h = Sub(x, c)"
    found = classify(nodes, {"k": numbers(2, 2, 3, 3)})
    assert np.allclose(operations(found, Conv)[0].weight, -numbers(2, 2, 3, 3))


# --- refusals


def test_all_that_has_no_meaning_is_named_at_once(classify) -> None:
    nodes = "c = Conv(x, k) t = Tanh(c) g = Gelu(t) l = LayerNormalization(g, one) h = Foo(l)"
    with pytest.raises(UnsupportedError, match="4 of its nodes") as caught:
        classify(nodes, {"k": K, "one": np.ones(4, np.float32)}, opset=20, features=64)
    for text in ("2 nodes, such as t (Tanh): a smooth", "l (LayerNormalization): normalises", "h (Foo): an op"):
        assert text in str(caught.value)


def test_nodes_that_nothing_needs_are_not_refused(classify) -> None:
    found = classify("h = Relu(x) t = Tanh(x)")
    assert rows(found)["Tanh"][0] == "unused"


def test_a_branch_that_reads_a_tensor_from_outside_is_refused_as_control_flow(write) -> None:
    branches = ", ".join(f"{name} = b{i} () => (float h) {{ h = {op}(c) }}" for i, (name, op) in enumerate(
        (("then_branch", "Relu"), ("else_branch", "Neg"))))  # fmt: skip
    nodes = f"c = Conv(x, k) s = ReduceSum<keepdims=0>(c) q = Greater(s, zero) h = If<{branches}>(q) y = Flatten(h)"
    path = write(nodes, {"k": K, "zero": ZERO})
    with pytest.raises(UnsupportedError, match=r"h \(If\): control flow"):
        import_ann(path)


def test_a_product_of_tensors_is_refused_even_behind_a_refused_node(classify) -> None:
    with pytest.raises(UnsupportedError, match=r"s \(Sigmoid\).*h \(Mul\)"):
        classify("c = Conv<pads=[1,1,1,1]>(x, k) s = Sigmoid(c) h = Mul(c, s)", {"k": numbers(2, 2, 3, 3)}, features=72)


def test_attention_is_named_whole_and_what_is_computed_of_sizes_is_not(classify) -> None:
    nodes = (
        "q = LayerNormalization(x, one) n = Shape(q) f = Cast<to=1>(n) r = Sqrt(f) g = Div(q, r) "
        "m = MatMul(g, q) s = Softmax(m) i = Identity(s) h = MatMul(i, q)"
    )
    with pytest.raises(UnsupportedError, match="4 of its nodes") as caught:
        classify(nodes, {"one": np.ones(6, np.float32)}, opset=20, features=72)
    for text in ("q (LayerN", "s (Softmax): stands between", "2 nodes, such as m (MatMul): multiplies"):
        assert text in str(caught.value)


def test_every_node_is_accounted_for(classify) -> None:
    nodes = "c = Conv(x, k) a = Add(c, b) i = Identity(a) h = Relu(i)"
    found = classify(nodes, {"k": K, "b": B.reshape(4, 1, 1)})
    assert [row["op"] for row in found.nodes] == ["Conv", "Add", "Identity", "Relu", "Flatten", "MatMul"]
    names = {node.name for node in found.ann.nodes}
    assert all(row["became"] in {*names, "removed", "layout"} and row["reason"] for row in found.nodes)


# --- the check


def test_an_import_that_differs_from_the_evaluator_is_refused(classify, monkeypatch) -> None:
    monkeypatch.setattr("converters.onnx.import_ann.largest_errors", lambda *given: (2e-4, 1.0))
    with pytest.raises(ConversionError, match=r"differs from onnx's evaluator by 0\.0002, 0\.0002 of"):
        classify("h = Relu(x)")


# --- versions


def versions_of(key: tuple[str, str]) -> list[int]:
    """Return the versions of an operator in the installed onnx, in rising order."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return sorted(schema.since_version for schema in schemas if (schema.domain, schema.name) == key)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_version_that_onnx_has_is_read(name) -> None:
    """A failure means that a new opset changed an operator: read its changes, then add the version to the table."""
    history = versions_of(("", name))
    in_force = {v for v, after in zip(history, [*history[1:], 1 << 30], strict=True) if after > OLDEST_OPSET}
    assert in_force <= set(OPERATORS[name].versions)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_no_version_is_made_up(name) -> None:
    newest = onnx.defs.onnx_opset_version()
    assert {v for v in OPERATORS[name].versions if v <= newest} <= set(versions_of(("", name)))


def test_no_operator_is_read_and_refused() -> None:
    assert not {("", name) for name in OPERATORS} & REFUSED.keys()


@pytest.mark.parametrize("opset", range(6, onnx.defs.onnx_opset_version() + 1))
def test_a_network_in_every_opset(write, opset) -> None:
    nodes = (
        "c = Conv<pads=[1,1,1,1]>(x, k, b) r = Relu(c) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) "
        "f = Reshape(p, s) l = MatMul(f, w) y = Add(l, d)"
    )
    weights = {"k": K, "b": B, "s": np.array([-1, 36]), "w": numbers(36, 3), "d": numbers(1, 3)}
    assert kinds(import_ann(write(nodes, weights, opset=opset))) == ["Conv", "Relu", "MaxPool", "Flatten", "Dense"]
    assert operations(import_ann(write(nodes, weights, opset=opset)), Relu)
