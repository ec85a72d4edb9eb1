"""Layouts: flattening in all its spellings, channels last, transposes, padding, inputs and outputs of all kinds."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from tiny_onnx import kinds, numbers, operations

from converters.linear.ann import AvgPool, MaxPool, run_ann
from converters.linear.linear_fold import Conv, Dense
from converters.onnx.import_ann import import_ann
from specs import UnsupportedError

W = numbers(72, 3, seed=9)
IMAGES = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(2)) - 0.4


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("f = Flatten(x)", 6),
        ("f = Flatten<axis=-3>(x)", 13),
        ("f = Reshape(x, minus)", 6),
        ("f = Reshape(x, zero)", 13),
        ("f = Reshape<allowzero=1>(x, minus)", 14),
        ("f = Reshape(x, one)", 13),
        ("i = Identity(minus) f = Reshape(x, i)", 13),
        ("c = Constant<value_ints=[-1,72]>() f = Reshape(x, c)", 13),
        ("c = Constant<value=int64[2] {-1,72}>() f = Reshape(x, c)", 9),
        ("s = Shape(x) n = Gather(s, at) u = Unsqueeze<axes=[0]>(n) c = Concat<axis=0>(u, last) f = Reshape(x, c)", 11),
        ("s = Shape(x) n = Slice(s, start, end) c = Concat<axis=0>(n, last) f = Reshape(x, c)", 13),
        ("n = Shape<start=0, end=1>(x) c = Concat<axis=0>(n, last) f = Reshape(x, c)", 15),
        ("s = Shape(x) n = Gather(s, at) m = Mul(n, many) u = Unsqueeze(m, start) c = Concat<axis=0>(u, last) "
         "q = Cast<to=7>(c) f = Reshape(x, q)", 13),
        ("t = Transpose<perm=[0,1,2,3]>(x) f = Flatten(t)", 13),
        ("u = Unsqueeze(x, start) s = Squeeze(u, start) f = Flatten(s)", 13),
        ("r = Reshape(x, parts) f = Flatten<axis=2>(r)", 13),
    ],
)  # fmt: skip
def test_flattening_in_all_its_spellings(write, nodes, opset) -> None:
    shapes = {
        "minus": np.array([-1, 72]),
        "zero": np.array([0, -1]),
        "one": np.array([1, 72]),
        "last": np.array([-1]),
        "at": np.array(0),
        "many": np.array(1),
        "start": np.array([0]),
        "end": np.array([1]),
        "parts": np.array([1, 1, 2, 36]),
    }
    path = write(f"{nodes} y = MatMul(f, W)", {**shapes, "W": W}, shape="N,2,6,6", opset=opset)
    found = import_ann(path)
    assert kinds(found) == ["Flatten", "Dense"]
    assert np.allclose(operations(found, Dense)[0].weight, W.T)


def test_without_a_batch_axis_in_between(write) -> None:
    nodes = "f = Reshape(x, s) p = MatMul(f, W) y = Unsqueeze(p, a)"
    found = import_ann(write(nodes, {"s": np.array([72]), "a": np.array([0]), "W": W}))
    assert np.allclose(operations(found, Dense)[0].weight, W.T)


def test_channels_last_before_a_dense_layer_reorders_its_columns(write) -> None:
    path = write("t = Transpose<perm=[0,2,3,1]>(x) f = Flatten(t) y = MatMul(f, W)", {"W": W})
    (dense,) = operations(import_ann(path), Dense)
    wanted = W.T.reshape(3, 6, 6, 2).transpose(0, 3, 1, 2).reshape(3, 72)  # [out, H, W, C] -> [out, C, H, W]
    assert np.allclose(dense.weight, wanted)


def test_a_part_of_the_numbers_leaves_columns_of_zeros(write) -> None:
    nodes = "f = Flatten(x) g = Gather<axis=1>(f, at) y = MatMul(g, W)"
    path = write(nodes, {"at": np.array([3, 70]), "W": numbers(2, 3)})
    (dense,) = operations(import_ann(path), Dense)
    assert np.flatnonzero(dense.weight.abs().sum(0)).tolist() == [3, 70]
    assert np.allclose(dense.weight[:, 70], numbers(2, 3)[1])


KERNEL = numbers(4, 2, 3, 3)


def test_an_image_with_channels_last(write) -> None:
    nodes = (
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, k) u = Transpose<perm=[0,2,3,1]>(c) a = Add(u, b) r = Relu(u) "
        "s = Sub(a, b) q = Add(s, r) f = Flatten(q) y = MatMul(f, W)"
    )
    path = write(nodes, {"k": KERNEL, "b": numbers(4), "W": numbers(48, 3)}, shape="N,5,6,2")
    found = import_ann(path)
    assert found.ann.shape == (2, 5, 6)
    assert any("takes images [5, 6, 2], the SNN [2, 5, 6], channels first" in note for note in found.notes)
    images = torch.rand(3, 2, 5, 6)
    wanted = found.reference.evaluator.run(
        None, {**found.reference.constants, "x": images[:1].permute(0, 2, 3, 1).numpy()}
    )
    assert np.allclose(run_ann(found.ann, images)[0][:1], wanted[0], atol=1e-5)


def test_a_flat_image_that_the_graph_unfolds(write) -> None:
    nodes = "m = Reshape(x, s) c = Conv(m, k) f = Flatten(c) y = MatMul(f, W)"
    path = write(nodes, {"s": np.array([-1, 2, 5, 6]), "k": KERNEL, "W": numbers(48, 3)}, shape="N,60")
    assert import_ann(path).ann.shape == (2, 5, 6)


@pytest.mark.parametrize(
    ("shape", "wanted"), [("N,28,28,1", (1, 28, 28)), ("N,7,7,3", (3, 7, 7)), ("N,8,9", (1, 8, 9))]
)
def test_images_of_which_no_layer_tells_the_layout(write, shape, wanted) -> None:
    size = int(np.prod([int(side) for side in shape[2:].split(",")]))
    found = import_ann(write("f = Flatten(x) y = MatMul(f, W)", {"W": numbers(size, 3)}, shape=shape))
    assert found.ann.shape == wanted


def test_channels_in_another_order_before_a_convolution(classify) -> None:
    (conv,) = operations(
        classify("g = Gather<axis=1>(x, at) h = Conv(g, k)", {"at": np.array([1, 0]), "k": KERNEL}), Conv
    )
    assert np.allclose(conv.weight, KERNEL[:, ::-1])


def test_channels_in_another_order_through_a_pool(classify) -> None:
    classify("r = Relu(x) g = Gather<axis=1>(r, at) h = MaxPool<kernel_shape=[2,2]>(g)", {"at": np.array([1, 0])})


@pytest.mark.parametrize(
    ("nodes", "operation"),
    [
        ("h = MaxPool<kernel_shape=[3,1], strides=[2,1], pads=[1,0,0,0]>(r)", MaxPool((1, 3), (1, 2), (0, 1, 0, 0))),
        ("p = AveragePool<kernel_shape=[2,1], strides=[3,1]>(r) h = Squeeze(p, last)", AvgPool((1, 2), (1, 3))),
        ("h = Conv<group=2, strides=[2,1], pads=[4,0,2,0], dilations=[2,1]>(r, second)", None),
    ],
)
def test_maps_of_one_axis_that_stand_upright(classify, nodes, operation) -> None:
    weights = {
        "first": numbers(4, 2, 3),
        "second": numbers(4, 2, 3, 1, seed=4),
        "upright": np.array([0, 0, 0, 1]),
        "last": np.array([3]),
    }
    found = classify(f"c = Conv(x, first) r = Reshape(c, upright) {nodes}", weights, shape="1,2,16")
    made = found.ann.nodes[1].operation
    if operation is not None:
        assert made == operation
    else:
        assert (made.stride, made.dilation, made.padding, made.groups) == ((1, 2), (1, 2), (0, 4, 0, 2), 2)
        assert np.allclose(made.weight[:, :, 0], weights["second"][..., 0])


def test_maps_in_another_layout_that_would_take_too_many_weights_are_refused(classify) -> None:
    nodes = "c = Conv(x, k) t = Transpose<perm=[0,1,3,2]>(c) h = Conv(t, l)"
    with pytest.raises(UnsupportedError, match=r"h \(Conv\): reads the values of c, \[4, 94, 94\], in another layout"):
        classify(nodes, {"k": KERNEL, "l": numbers(2, 4, 1, 1)}, shape="1,2,96,96")


def test_a_maximum_of_maps_in_another_layout_is_refused(classify) -> None:
    with pytest.raises(UnsupportedError, match=r"h \(MaxPool\): reads the values of x?c?.*which its weights cannot"):
        classify("c = Conv(x, k) t = Transpose<perm=[0,1,3,2]>(c) h = MaxPool<kernel_shape=[2,2]>(t)", {"k": KERNEL})


# --- padding as a node


@pytest.mark.parametrize("opset", [6, 11, 18, 21])
def test_a_pad_goes_into_the_convolution(classify, opset) -> None:
    nodes = "p = Pad<pads=[0,0,1,2,0,0,3,0]>(x) h = Conv(p, k)" if opset < 11 else "p = Pad(x, p0) h = Conv(p, k)"
    weights = {"k": KERNEL} | ({} if opset < 11 else {"p0": np.array([0, 0, 1, 2, 0, 0, 3, 0])})
    assert kinds(classify(nodes, weights, opset=opset)) == ["Conv", "Flatten", "Dense"]


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_pad_may_say_that_it_pads_with_zeros(classify, opset) -> None:
    weights = {"k": numbers(4, 2, 3, 3), "p": np.array([0, 0, 0, 1, 0, 0, 2, 1]), "z": np.zeros((), np.float32)}
    classify("q = Pad(x, p, z) c = Conv(q, k) h = Relu(c)", weights, opset=opset)


def test_a_pad_before_a_pool_of_what_is_never_negative(classify) -> None:
    nodes = "r = Relu(x) p = Pad(r, p0) h = MaxPool<kernel_shape=[2,2], strides=[2,2]>(p)"
    (pool,) = operations(classify(nodes, {"p0": np.array([0, 0, 0, 1, 0, 0, 1, 0])}), MaxPool)
    assert pool.padding == (0, 1, 1, 0)


def test_a_pad_before_a_pool_of_other_numbers_is_refused(classify) -> None:
    with pytest.raises(UnsupportedError, match="may be negative"):
        classify(
            "p = Pad(x, p0) h = MaxPool<kernel_shape=[2,2]>(p)", {"p0": np.array([0, 0, 0, 0, 0, 0, 1, 1])}, features=72
        )


def test_a_pad_counts_in_an_average(classify) -> None:
    nodes = "p = Pad(x, p0) h = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)"
    assert operations(classify(nodes, {"p0": np.array([0, 0, 1, 1, 0, 0, 1, 1])}), AvgPool)[0].padding == (1, 1)


def test_a_pad_of_a_flat_row(classify) -> None:
    classify("f = Flatten(x) h = Pad(f, p0)", {"p0": np.array([0, 2, 0, 3])})


def test_padding_with_other_numbers_is_refused(classify) -> None:
    weights = {"p0": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "k": KERNEL, "v": np.array(1, np.float32)}
    with pytest.raises(UnsupportedError, match="than 0"):
        classify("p = Pad(x, p0, v) h = Conv(p, k)", weights, features=144)


# --- files


def saved(path, graph, opset=13):
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def dense_graph(nodes, weights, *, outputs=("y",), shape=("N", 6), extra_inputs=()):
    value = onnx.helper.make_tensor_value_info
    entering = [value("x", TensorProto.FLOAT, shape), *(value(name, TensorProto.FLOAT, None) for name in extra_inputs)]
    return onnx.helper.make_graph(
        [onnx.helper.make_node(*node) for node in nodes],
        "g",
        entering,
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )


LAYERS = [("MatMul", ["x", "w"], ["a"]), ("Relu", ["a"], ["r"]), ("MatMul", ["r", "v"], ["y"])]
WEIGHTS = {"w": numbers(6, 4), "v": numbers(4, 3)}


@pytest.mark.parametrize("axes", ["", ", , axes"], ids=["all axes", "axes by number"])
def test_a_wide_shortcut_without_weights(write, axes) -> None:
    pads = np.array([0, 0, 0, 0, 0, 32, 0, 0] if not axes else [0, 0, 0, 32])
    weights = {"K": numbers(64, 32, 3, 3), "W": numbers(64, 3, seed=9), "pads": pads, "axes": np.array([0, -3])}
    nodes = f"c = Conv<pads=[1,1,1,1]>(x, K) p = Pad(x, pads{axes}) s = Add(c, p) m = GlobalAveragePool(s)"
    path = write(f"{nodes} f = Flatten(m) y = MatMul(f, W)", weights, shape="1,32,16,16", opset=18)
    images = torch.rand(4, 32, 16, 16, generator=torch.Generator().manual_seed(1))
    maps = F.conv2d(images, torch.from_numpy(weights["K"]), padding=1)
    maps[:, :32] += images
    wanted = maps.mean((2, 3)) @ torch.from_numpy(weights["W"])
    torch.testing.assert_close(run_ann(import_ann(path).ann, images)[0], wanted, rtol=1e-4, atol=1e-4)


def test_nodes_in_any_order(tmp_path) -> None:
    found = import_ann(saved(tmp_path / "a.onnx", dense_graph(LAYERS[::-1], WEIGHTS)))
    assert kinds(found) == ["Dense", "Relu", "Dense"]
    assert [row["name"] for row in found.nodes] == ["y", "r", "a"]  # unnamed: names of outputs, in the file's order


def test_initializers_that_are_inputs_too(tmp_path) -> None:
    assert kinds(import_ann(saved(tmp_path / "a.onnx", dense_graph(LAYERS, WEIGHTS, extra_inputs=("w", "v")))))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions(write, dtype) -> None:
    weights = {name: array.astype(dtype) for name, array in WEIGHTS.items()}
    path = write(
        "a = MatMul(x, w) r = Relu(a) y = MatMul(r, v)",
        weights,
        shape="N,6",
        dtype={"float64": "double"}.get(dtype, dtype),
    )
    assert operations(import_ann(path), Dense)[0].weight.dtype == torch.float32


def test_numbers_in_either_field(tmp_path) -> None:
    graph = dense_graph(LAYERS, {})
    for name, array in WEIGHTS.items():
        graph.initializer.append(onnx.helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel()))
    assert graph.initializer[0].float_data
    (first, _) = operations(import_ann(saved(tmp_path / "a.onnx", graph)), Dense)
    assert np.allclose(first.weight, WEIGHTS["w"].T)


@pytest.mark.parametrize("batch", ["1", "N", "3"])
def test_any_batch(write, batch) -> None:
    sides = {"1": 1, "N": -1, "3": 3}[batch]
    nodes = "c = Conv(x, k) f = Reshape(c, s) y = MatMul(f, W)"
    path = write(nodes, {"k": KERNEL, "s": np.array([sides, 64]), "W": numbers(64, 3)}, shape=f"{batch},2,6,6")
    assert kinds(import_ann(path)) == ["Conv", "Flatten", "Dense"]


def test_images_of_a_batch_may_not_be_mixed(write) -> None:
    nodes = "f = Reshape(x, s) y = MatMul(f, W)"
    with pytest.raises(UnsupportedError):
        import_ann(write(nodes, {"s": np.array([3, 4]), "W": numbers(4, 3)}, shape="2,6"))


def test_bytes_are_images_in_0_to_1(write) -> None:
    nodes = "c = Cast<to=1>(x) d = Div(c, scale) f = Flatten(d) y = MatMul(f, W)"
    path = write(nodes, {"scale": np.array(255, np.float32), "W": W}, dtype="uint8")
    found = import_ann(path)
    assert found.ann.normalization.as_json() == {"mean": 0, "std": pytest.approx(1)}


@pytest.mark.parametrize("outputs", [("y", "p"), ("p", "y"), ("r", "y"), ("y", "y")])
def test_the_output_that_others_lead_to(tmp_path, outputs) -> None:
    nodes = [*LAYERS, ("Softmax", ["y"], ["p"])]
    found = import_ann(saved(tmp_path / "a.onnx", dense_graph(nodes, WEIGHTS, outputs=dict.fromkeys(outputs))))
    assert kinds(found) == ["Dense", "Relu", "Dense"]
    assert len(found.notes) == len(set(outputs)) - 1


def test_an_output_that_can_be_read_is_preferred(tmp_path) -> None:
    nodes = [*LAYERS, ("Tanh", ["r"], ["t"])]
    found = import_ann(saved(tmp_path / "a.onnx", dense_graph(nodes, WEIGHTS, outputs=("t", "y"))))
    assert found.notes == ("the output 'y' is converted; other outputs are ignored: 't'",)
    assert found.nodes[3]["became"] == "unused"


@pytest.mark.parametrize("classes", [[3, 5, 7], ["cat", "dog", "owl"]])
def test_logits_from_which_an_output_of_labels_is_made_are_read(write, classes) -> None:
    ending = "p = Softmax(y) a = ArgMax<axis=1, keepdims=0>(p) label = Gather(classes, a)"
    path = write(
        f"h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) {ending}", {"w": numbers(6, 5), "v": numbers(5, 3)}, shape="1,6"
    )
    model = onnx.load(path)
    model.graph.output[0].name = "p"
    is_text = isinstance(classes[0], str)
    kind = TensorProto.STRING if is_text else TensorProto.INT64
    values = [name.encode() for name in classes] if is_text else classes
    model.graph.initializer.append(onnx.helper.make_tensor("classes", kind, [3], values))
    model.graph.output.append(onnx.helper.make_tensor_value_info("label", kind, [1]))
    onnx.save(model, path)
    found = import_ann(path)
    assert kinds(found) == ["Dense", "Relu", "Dense"]
    assert "label" in found.notes[0]


def test_features_that_a_layer_reads_are_no_logits(write) -> None:
    path = write(
        "h = MatMul(x, w) r = Relu(h) t = Tanh(r) y = MatMul(t, v)",
        {"w": numbers(6, 5), "v": numbers(5, 3)},
        shape="1,6",
    )
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 5]))
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match="Tanh"):
        import_ann(path)


def test_two_inputs_are_refused(tmp_path) -> None:
    nodes = [("MatMul", ["x", "w"], ["a"]), ("Add", ["a", "z"], ["y"])]
    with pytest.raises(UnsupportedError, match="one input; this model uses 2: x, z"):
        import_ann(saved(tmp_path / "a.onnx", dense_graph(nodes, {"w": numbers(6, 4)}, extra_inputs=("z",))))


def test_an_open_height_is_refused(write) -> None:
    with pytest.raises(UnsupportedError, match=r"\[N, 2, H, 6\]: only the batch"):
        import_ann(write("f = Flatten(x) y = MatMul(f, W)", {"W": W}, shape="N,2,H,6"))


def test_functions_of_the_file_are_unfolded(tmp_path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[N,6] x) => (float[N,3] y) { a = MatMul(x, w) r = own.layer(a, v) y = Identity(r) }
        <domain: "own", opset_import: ["": 17]>
        layer (x, w) => (y) { r = Relu(x) y = MatMul(r, w) }
    """)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in WEIGHTS.items())
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    assert kinds(import_ann(path)) == ["Dense", "Relu", "Dense"]


def test_external_data_beside_the_file(tmp_path) -> None:
    model = onnx.helper.make_model(dense_graph(LAYERS, WEIGHTS), opset_imports=[onnx.helper.make_opsetid("", 13)])
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    assert np.allclose(operations(import_ann(tmp_path / "a.onnx"), Dense)[1].weight, WEIGHTS["v"].T)


def test_logits_that_are_maps_of_one_place(write) -> None:
    found = import_ann(write("c = Conv(x, k) r = Relu(c) y = GlobalAveragePool(r)", {"k": KERNEL}))
    assert found.ann.nodes[-1].shape == (4,)


def test_an_output_that_is_no_row_of_logits_is_refused(write) -> None:
    with pytest.raises(UnsupportedError, match="not one row of logits"):
        import_ann(write("y = Conv(x, k)", {"k": KERNEL}))


def test_logits_in_another_order_are_refused(write) -> None:
    nodes = "f = Flatten(x) l = MatMul(f, W) y = Gather<axis=1>(l, at)"
    with pytest.raises(UnsupportedError, match="in another order"):
        import_ann(write(nodes, {"W": W, "at": np.array([2, 1, 0])}))


def test_a_dense_layer_on_an_image_with_channels_last(write) -> None:
    weight = numbers(7 * 5 * 3, 2)
    found = import_ann(write("f = Flatten(x) y = MatMul(f, W)", {"W": weight}, shape="N,7,5,3"))
    wanted = weight.T.reshape(2, 7, 5, 3).transpose(0, 3, 1, 2).reshape(2, -1)  # [out, H, W, C] -> [out, C, H, W]
    assert np.allclose(operations(found, Dense)[0].weight, wanted)


# --- values picked from maps, and joined

JOINED = {
    "channels": "a = Conv(x, K) b = Neg(a) c = Conv(x, K) h = Concat<axis=1>(a, b, c)",
    "with the same twice": "a = Relu(x) j = Concat<axis=1>(a, x, a) h = Conv(j, W6)",
    "channels last": "a = Conv(x, K) r = Relu(a) t = Transpose<perm=[0,2,3,1]>(r) u = Transpose<perm=[0,2,3,1]>(a) "
                     "j = Concat<axis=3>(t, u) v = Transpose<perm=[0,3,1,2]>(j) h = Conv(v, W8)",
    "features": "a = Conv(x, K) f = Flatten(a) g = Flatten(x) h = Concat<axis=1>(g, f)",
    "with zeros": "a = Relu(x) j = Concat<axis=1>(ZEROS, a, ZEROS) h = Conv(j, W6)",
    "split": "a = Conv(x, K) b, c = Split<axis=1>(a, SIZES) d = Relu(c) j = Concat<axis=1>(d, b) h = Conv(j, W4)",
    "sliced": "a = Conv(x, K) b = Slice(a, ONE, THREE, ONE) r = Relu(b) h = Conv(r, W2)",
    "shuffled": "a = Conv(x, K) b = Reshape(a, GROUPS) c = Transpose<perm=[0,2,1,3,4]>(b) d = Reshape(c, MAPS) "
                "h = Conv<group=4>(d, EACH)",
    "every other place": "a = Slice(x, FIRST, LAST, AXES, STEPS) h = Conv(a, W2)",
    "cropped": "a = Slice(x, FROM, TO, AXES) h = Conv<pads=[1,1,1,1]>(a, W2)",
    "space to depth": "a = SpaceToDepth<blocksize=2>(x) h = Conv(a, W8)",
    "shortcut without weights": "c = Conv<strides=[2,2],pads=[0,0,1,1]>(x, K) "
                                "s = Slice(x, FIRST, LAST, AXES, STEPS) p = Pad(s, MORE) h = Add(c, p)",
    "shortcut by pooling": "c = Conv<strides=[2,2],pads=[0,0,1,1]>(x, K) "
                           "s = AveragePool<kernel_shape=[1,1],strides=[2,2]>(x) "
                           "q = Mul(s, NOUGHT) p = Concat<axis=1>(s, q) h = Add(c, p)",
    "a shift after padding": "p = Pad(x, AROUND) h = Add(p, BOTH)",
    "a sum with what was padded": "c = Conv<pads=[2,2,2,2]>(x, SAME) p = Pad(x, AROUND) h = Add(c, p)",
    "pooled": "a = Relu(x) j = Concat<axis=1>(a, x) h = GlobalAveragePool(j)",
    "a maximum": "a = Relu(x) b = Conv<pads=[1,1,1,1]>(x, K) r = Relu(b) j = Concat<axis=1>(a, r) "
                 "h = MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]>(j)",
    "normalized": "a = Relu(x) m = Mul(a, BOTH) b = Conv<pads=[1,1,1,1]>(x, K) j = Concat<axis=1>(m, b) "
                  "n = BatchNormalization(j, SIX, SIX, SIX, SIX) r = Relu(n) h = Conv(r, W6)",
    "mean of tensors": "a = Relu(x) b = Conv<pads=[1,1,1,1]>(x, SAME) h = Mean(a, b, x)",
    "repeated channels": "a = Tile(x, TWICE) h = Conv(a, W4)",
    "turned over": "c = Conv(x, K) t = Transpose<perm=[0,1,3,2]>(c) h = Conv(t, W4)",
    "a sum with what is turned over": "c = Conv(x, K) t = Transpose<perm=[0,1,3,2]>(c) s = Add(c, t) h = Relu(s)",
    "depth to space": "c = Conv(x, K) d = DepthToSpace<blocksize=2>(c) r = Relu(d) h = Conv(r, W1)",
    "depth to space, by columns": 'c = Conv(x, K) d = DepthToSpace<blocksize=2, mode="CRD">(c) h = Conv(d, W1)',
    "enlarged": "r = Relu(x) u = Resize(r, , ENLARGE) c = Conv<pads=[1,1,1,1]>(u, K) h = Relu(c)",
    "enlarged to a size": 'u = Resize<nearest_mode="floor", coordinate_transformation_mode="asymmetric">'
                          "(x, , , SIZE) h = Conv<pads=[1,1,1,1]>(u, K)",
    "enlarged in groups": "c = Conv(x, K) u = Resize(c, , ENLARGE) h = Conv<group=2>(u, HALVES)",
    "a mean of what is enlarged": "r = Relu(x) u = Resize(r, , ENLARGE) c = Conv<pads=[1,1,1,1]>(u, K) d = Relu(c) "
                                  "h = GlobalAveragePool(d)",
    "made smaller": "u = Resize(x, , HALF) h = Conv<pads=[1,1,1,1]>(u, K)",
    "enlarged before strides": "r = Relu(x) u = Resize(r, , ENLARGE) c = Conv<strides=[2,4], pads=[0,1,1,2]>(u, K) "
                               "h = Relu(c)",
    "enlarged before an average": "r = Relu(x) u = Resize(r, , ENLARGE) "
                                  "h = AveragePool<kernel_shape=[2,2],strides=[2,2]>(u)",
    "a sum with what is enlarged": "c = Conv<pads=[1,1,1,1]>(x, SAME) u = Resize(c, , ENLARGE) "
                                   "d = Conv<pads=[1,1,1,1]>(u, SAME) s = Add(u, d) r = Relu(s) "
                                   "e = Conv<pads=[1,1,1,1], strides=[2,2]>(r, SAME) h = Add(e, c)",
    "padded by its mirror image": 'p = Pad<mode="reflect">(x, MIRROR) c = Conv(p, K) r = Relu(c) h = Conv(r, W4)',
    "padded by its edge": 'r = Relu(x) p = Pad<mode="edge">(r, MIRROR) c = Conv(p, K) h = Relu(c)',
    "features as an image": "f = Flatten(x) d = MatMul(f, WIDE) r = Relu(d) m = Reshape(r, IMAGE) "
                            "c = Conv<pads=[1,1,1,1]>(m, SAME) b = BatchNormalization(c, TWO, TWO, TWO, TWO) "
                            "e = Relu(b) p = AveragePool<kernel_shape=[2,2]>(e) h = Conv(p, W2)",
    "a mean of channels": "c = Conv(x, K) r = Relu(c) h = ReduceMean<axes=[1]>(r)",
}  # fmt: skip
INTEGERS = {
    "SIZES": [1, 3], "ONE": [1], "THREE": [3], "FIRST": [0, 0], "LAST": [6, 6], "AXES": [2, 3], "STEPS": [2, 2],
    "FROM": [1, 1], "TO": [5, 4], "GROUPS": [1, 2, 2, 4, 4], "MAPS": [1, 4, 4, 4], "MORE": [0, 1, 0, 0, 0, 1, 0, 0],
    "AROUND": [0, 0, 1, 1, 0, 0, 1, 1], "TWICE": [1, 2, 1, 1], "SIZE": [1, 2, 9, 13],
    "MIRROR": [0, 0, 2, 1, 0, 0, 1, 2], "IMAGE": [1, 2, 4, 5],
}  # fmt: skip
FLOATS = {
    "K": numbers(4, 2, 3, 3), "SAME": numbers(2, 2, 3, 3), "EACH": numbers(4, 1, 2, 2), "BOTH": numbers(1, 2, 1, 1),
    "ZEROS": np.zeros((1, 2, 6, 6), np.float32), "NOUGHT": np.zeros((1, 1, 1, 1), np.float32),
    "SIX": np.abs(numbers(6)) + 0.5, "TWO": np.abs(numbers(2)) + 0.5, "WIDE": numbers(72, 40),
    "HALVES": numbers(2, 2, 3, 3),
    "ENLARGE": np.array([1, 1, 2, 2], np.float32), "HALF": np.array([1, 1, 0.5, 0.5], np.float32),
    **{f"W{n}": numbers(3, n, 2, 2) for n in (1, 2, 4, 6, 8)},
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_joined_moved_and_copied_values_are_read(classify, name) -> None:
    weights = FLOATS | {key: np.array(values, np.int64) for key, values in INTEGERS.items()}
    classify(JOINED[name], weights, spikes=True)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("before", ["r = Relu(x)", "r = Relu(x) r2 = Reshape(r, R)"])
def test_padding_with_copies_keeps_maps(classify, mode, before) -> None:
    is_row = "Reshape" in before
    pads = np.array([0, 0, 2, 0, 0, 1] if is_row else [0, 0, 1, 2, 0, 0, 2, 1])
    source, kernel = ("r2", numbers(4, 2, 3)) if is_row else ("r", KERNEL)
    weights = {"p": pads, "k": kernel, "W4": numbers(3, 4, 2) if is_row else FLOATS["W4"]}
    weights |= {"R": np.array([1, 2, 36])} if is_row else {}
    nodes = f'{before} q = Pad<mode="{mode}">({source}, p) c = Conv(q, k) d = Relu(c) h = Conv(d, W4)'
    found = classify(nodes, weights, opset=19, spikes=not is_row)
    assert is_row or kinds(found)[-4:] == ["Relu", "Conv", "Flatten", "Dense"]


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("u = Upsample<height_scale=2.0, width_scale=3.0>(r)", 6),
        ("u = Upsample<scales=[1.0, 1.0, 2.0, 3.0]>(r)", 7),
        ("u = Upsample(r, scales)", 9),
        ("u = Resize(r, scales)", 10),
        ("u = Resize(r, , scales)", 13),
        ("u = Resize<axes=[2,3]>(r, , two)", 18),
    ],
)
def test_enlarging_in_all_its_spellings(classify, nodes, opset) -> None:
    weights = {"scales": np.array([1, 1, 2, 3], np.float32), "two": np.array([2, 3], np.float32), "k": KERNEL}
    weights = {name: array for name, array in weights.items() if name == "k" or f" {name})" in nodes}
    found = classify(f"r = Relu(x) {nodes} h = Conv<pads=[1,1,1,1]>(u, k)", weights, opset=opset, features=864)
    assert "Dense" not in kinds(found)[:-1]
    enlarged = F.conv2d(F.interpolate(IMAGES.relu(), scale_factor=(2, 3)), torch.from_numpy(KERNEL), padding=1)
    weight = torch.from_numpy(np.random.default_rng(9).normal(0.1, 0.5, (864, 3)).astype(np.float32))
    torch.testing.assert_close(run_ann(found.ann, IMAGES)[0], enlarged.flatten(1) @ weight, rtol=1e-4, atol=1e-4)


TRANSPOSED = {
    "strides=[2,2]": {"stride": 2},
    "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]": {"stride": 2, "padding": 1, "output_padding": 1},
    "pads=[1,1,1,1]": {"padding": 1},
    "pads=[3,3,3,3]": {"padding": 3},
    "strides=[2,3], dilations=[1,2], pads=[1,0,1,0], output_padding=[1,2]": {
        "stride": (2, 3),
        "dilation": (1, 2),
        "padding": (1, 0),
        "output_padding": (1, 2),
    },
    "group=2, strides=[2,2]": {"groups": 2, "stride": 2},
    'strides=[2,2], auto_pad="SAME_UPPER"': {"stride": 2},
    'strides=[2,2], auto_pad="SAME_LOWER"': {"stride": 2},
    "strides=[2,2], output_shape=[11,12]": {"stride": 2},
}


@pytest.mark.parametrize("options", TRANSPOSED)
def test_transposed_convolutions_are_those_of_torch(classify, options) -> None:
    kernel, bias = numbers(2, 2 if "group" in options else 4, 3, 3), numbers(4)
    tensors = IMAGES.relu(), torch.from_numpy(kernel), torch.from_numpy(bias)
    made = F.conv_transpose2d(*tensors, **TRANSPOSED[options])
    if "UPPER" in options:
        made = made[:, :, :-1, :-1]
    elif "LOWER" in options:
        made = made[:, :, 1:, 1:]
    elif "output_shape" in options:
        made = made[:, :, 1:-1, 1:]
    nodes, features = f"r = Relu(x) c = ConvTranspose<{options}>(r, k, b) h = Relu(c)", made[0].numel()
    found = classify(nodes, {"k": kernel, "b": bias}, features=features, spikes=True)
    weight = torch.from_numpy(np.random.default_rng(9).normal(0.1, 0.5, (features, 3)).astype(np.float32))
    wanted = made.relu().flatten(1) @ weight
    torch.testing.assert_close(run_ann(found.ann, IMAGES)[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_factor_and_a_shift_of_what_was_padded_whose_channels_might_be_last(classify) -> None:
    weights = {
        "p": np.array([0, 0, 0, 1, 0, 0, 0, 1]),
        "s": numbers(2) + 1,
        "t": numbers(2),
        "v": np.ones(2, np.float32),
    }
    classify("q = Pad(x, p) h = BatchNormalization(q, s, t, t, v)", weights, shape="1,2,3,3", spikes=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('mode="linear"', "mode='linear' is not supported"),
        ('coordinate_transformation_mode="tf_crop_and_resize"', "crops before"),
        ('keep_aspect_ratio_policy="not_larger"', "aspect ratio"),
    ],
)
def test_other_resizing_is_refused(classify, options, reason) -> None:
    nodes = f"u = Resize<{options}>(x, BOX, ENLARGE) h = Relu(u)"
    with pytest.raises(UnsupportedError, match=rf"u \(Resize\): .*{reason}"):
        classify(nodes, {"ENLARGE": FLOATS["ENLARGE"], "BOX": np.ones(8, np.float32)}, features=288, opset=19)
