"""Hostile ONNX files: broken, endless, reaching outside their folder, or no ONNX at all; each gets one clear error."""

import contextlib
import os

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from converters.onnx.import_ann import import_ann
from specs import ConversionError, IntegrityError, SnnZooError, UnsupportedError

WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def tiny() -> ModelProto:
    graph = onnx.parser.parse_graph("g (float[1,4] x) => (float[1,3] y) { r = Relu(x) y = MatMul(r, w) }")
    graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])


@pytest.fixture
def refused(tmp_path):
    """Return a function that reads a model or bytes, expects an error of a class, and returns its message."""

    def refused(content: ModelProto | bytes, error: type[SnnZooError]) -> str:
        path = tmp_path / "model.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        with pytest.raises(error) as caught:
            import_ann(path)
        assert len(str(caught.value)) < 1000
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


def test_the_model_itself_is_read(tmp_path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny().SerializeToString())
    assert import_ann(tmp_path / "model.onnx").max_abs_error < 1e-6


# --- not a model


@pytest.mark.parametrize(
    "content",
    [b"", b"just text, no model", b"<html><body>404</body></html>", bytes(range(256)) * 8, b"\x08\x07", b"\x00" * 4096],
    ids=["empty", "text", "html", "noise", "header", "zeros"],
)
def test_other_files(refused, content) -> None:
    refused(content, IntegrityError)


def test_every_truncation(tmp_path) -> None:
    content, path = tiny().SerializeToString(), tmp_path / "model.onnx"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(SnnZooError):
            import_ann(path)


def test_every_byte_changed(tmp_path) -> None:
    """A model with one changed byte is either read or refused with an error of our own."""
    content, path = tiny().SerializeToString(), tmp_path / "model.onnx"
    for place in range(len(content)):
        for value in (0x00, 0x7F, 0xFF):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            with contextlib.suppress(SnnZooError):
                import_ann(path)


def test_a_folder_and_a_missing_file(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "missing.onnx"):
        with pytest.raises(SnnZooError, match="cannot read"):
            import_ann(path)


def test_deep_nesting(refused) -> None:
    graph = onnx.GraphProto(name="inner")
    for _ in range(300):
        outer = onnx.GraphProto(name="outer")
        attribute = outer.node.add(op_type="If", input=["c"], output=["y"]).attribute.add()
        attribute.name, attribute.type = "then_branch", onnx.AttributeProto.GRAPH
        attribute.g.CopyFrom(graph)
        graph = outer
    refused(onnx.helper.make_model(graph), IntegrityError)


# --- external data


@pytest.fixture
def external(refused, tmp_path):
    """Return a function that reads a model with its weight in another file, and returns the error."""

    def external(location: str, error: type[SnnZooError] = IntegrityError, **entries: str) -> str:
        model = tiny()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        return refused(model, error)

    return external


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../../etc/passwd", "a/../../b", "..\\secret", "C:\\secret", "\\\\host\\share", "", "a\0b", "a/.."],
)
def test_data_elsewhere(external, location) -> None:
    assert "only files in the model's folder are read" in external(location)


@pytest.mark.parametrize("directory", [False, True])
def test_data_behind_a_link(external, tmp_path, directory) -> None:
    outside = tmp_path.parent / f"{tmp_path.name} outside"
    outside.mkdir()
    (outside / "data").write_bytes(WEIGHT.tobytes())
    (tmp_path / "link").symlink_to(outside if directory else outside / "data")
    assert "links are not followed" in external("link/data" if directory else "link")


def test_a_link_to_a_file_beside_it(external, tmp_path) -> None:
    (tmp_path / "data").write_bytes(WEIGHT.tobytes())
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert "links are not followed" in external("link")


def test_data_that_are_missing_or_no_file(external, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    assert "not beside the model" in external("missing", SnnZooError)
    assert "not beside the model" in external("folder", SnnZooError)


@pytest.mark.parametrize(
    "entries",
    [{"offset": "40"}, {"length": "4000"}, {"offset": "-8"}, {"offset": "x"}, {"length": "7"}, {"offset": "9" * 40}],
)
def test_data_that_do_not_fit(external, tmp_path, entries) -> None:
    (tmp_path / "data").write_bytes(WEIGHT.tobytes())
    external("data", **entries)


# --- tensors


@pytest.mark.parametrize("dims", [[1 << 60], [1 << 40, 1 << 40], [-1], [4, 4], [1 << 62, 0]])
def test_shapes_that_the_data_do_not_fill(refused, dims) -> None:
    model = tiny()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    assert "tensor 'w'" in refused(model, IntegrityError)


@pytest.mark.parametrize("kind", [TensorProto.UNDEFINED, 99])
def test_types_that_are_no_numbers(refused, kind) -> None:
    model = tiny()
    model.graph.initializer[0].data_type = kind
    refused(model, IntegrityError)


def test_logits_of_texts(refused) -> None:
    model = tiny()
    model.graph.initializer[0].data_type = TensorProto.STRING
    assert "is computed from strings" in refused(model, UnsupportedError)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(refused, value) -> None:
    model = tiny()
    weight = WEIGHT.copy()
    weight[1, 2] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    assert "not finite" in refused(model, SnnZooError)


@pytest.mark.parametrize(
    "nodes",
    [
        "b = ConstantOfShape(s) y = Add(x, b)",
        "b = Expand(w, s) y = MatMul(x, b)",
        "b = Tile(w, t) y = MatMul(x, b)",
        "b = Range(zero, s0, one) c = Cast<to=1>(b) y = Mul(x, c)",
        "b = MatMul(u, v) y = MatMul(x, b)",
        "b = Add(u, v) y = MatMul(x, b)",
        "b = Expand(x, s) y = MatMul(b, w)",
        "p = Pad(x, big) y = MatMul(p, w)",
        "b = Pad(w, big) y = MatMul(x, b)",
        "b = Pad(w, far, zero, back) y = MatMul(x, b)",
        "b = Pad(w, big, zero, back) y = MatMul(x, b)",
    ],
)
def test_constants_that_would_fill_the_memory(refused, nodes) -> None:
    graph = onnx.parser.parse_graph(f"g (float[1,4] x) => (float[1,3] y) {{ {nodes} }}")
    tensors = {
        "w": WEIGHT,
        "s": np.array([1 << 30, 4]),
        "s0": np.array(1 << 50),
        "t": np.array([1 << 40, 1]),
        "zero": np.array(0),
        "one": np.array(1),
        "big": np.array([0, 1 << 40, 0, 0]),
        "far": np.array([0, -(1 << 63)]),
        "back": np.array([-2]),
        "u": np.ones((1 << 18, 1), np.float32),
        "v": np.ones((1, 1 << 18), np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items() if name in nodes)
    opset = 18 if "back" in nodes else 13
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    assert "numbers" in refused(model, SnnZooError)


@pytest.mark.parametrize(
    "options", ["pads=[1000000000000,0,0,0]", "strides=[0,1]", "dilations=[-1,1]", "group=0", "pads=[1,1]", "group=-3"]
)
def test_windows_of_no_sense(refused, options) -> None:
    graph = onnx.parser.parse_graph(
        f"g (float[1,1,4,4] x) => (float y) {{ c = Conv<{options}>(x, k) y = GlobalAveragePool(c) }}"
    )
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 2, 2), np.float32), "k"))
    refused(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), SnnZooError)


def test_an_image_of_no_size(refused) -> None:
    for side in (1 << 60, 1 << 31):
        model = tiny()
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = side
        refused(model, SnnZooError)


# --- graphs


def test_a_circle(refused) -> None:
    graph = onnx.parser.parse_graph("g (float[1,4] x) => (float y) { a = Add(x, b) b = Relu(a) y = Relu(b) }")
    assert "has a cycle through" in refused(onnx.helper.make_model(graph), IntegrityError)


def test_names_made_twice(refused) -> None:
    model = tiny()
    model.graph.node.add(op_type="Relu", input=["x"], output=["r"])
    assert "'r' is produced twice" in refused(model, IntegrityError)
    model = tiny()
    model.graph.initializer.append(model.graph.initializer[0])
    assert "two initializers are named 'w'" in refused(model, IntegrityError)
    model = tiny()
    model.graph.node.add(op_type="Relu", input=["x"], output=["w"])
    assert "'w' is produced twice" in refused(model, IntegrityError)


def test_tensors_that_nothing_makes(refused) -> None:
    model = tiny()
    model.graph.node[1].input[0] = "ghost"
    assert "produces the tensor 'ghost'" in refused(model, IntegrityError)


@pytest.mark.parametrize("inputs", [[], ["x"], ["x", "w", "w", "w"]])
def test_nodes_with_too_many_or_few_inputs(refused, inputs) -> None:
    model = tiny()
    del model.graph.node[1].input[:]
    model.graph.node[1].input.extend(inputs)
    refused(model, SnnZooError)


def test_attributes_of_other_types(refused) -> None:
    model = tiny()
    model.graph.node[0].op_type = "LeakyRelu"
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("alpha", "much"))
    refused(model, IntegrityError)


@pytest.mark.parametrize(
    ("opset", "error"), [(9999, ConversionError), (5, UnsupportedError), (0, UnsupportedError), (-1, UnsupportedError)]
)
def test_opsets_that_there_are_not(refused, opset, error) -> None:
    model = tiny()
    model.opset_import[0].version = opset
    assert f"opset {opset}" in refused(model, error)


def test_no_opset_and_two(refused) -> None:
    model = tiny()
    del model.opset_import[:]
    assert "declares no opset" in refused(model, IntegrityError)
    model = tiny()
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx", 17))
    assert "declares 2 opsets" in refused(model, IntegrityError)


def test_an_opset_older_than_its_nodes(refused) -> None:
    """An operator newer than the model's opset is refused."""
    model = tiny()
    model.graph.node[0].op_type = "Gelu"
    assert "Gelu" in refused(model, UnsupportedError)


def test_functions_without_end(refused) -> None:
    nodes = [onnx.helper.make_node("f", ["a"], ["b"], domain="own")]
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("own", 1)]
    model = tiny()
    model.opset_import.append(opsets[1])
    model.functions.append(onnx.helper.make_function("own", "f", ["a"], ["b"], nodes, opsets))
    model.graph.node.add(op_type="f", domain="own", input=["x"], output=["z"])
    assert "calls itself" in refused(model, IntegrityError)


def test_functions_that_double_each_time(refused) -> None:
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("own", 1)]
    model = tiny()
    model.opset_import.append(opsets[1])
    for i in range(40):
        called = {"op_type": f"f{i + 1}", "domain": "own"} if i < 39 else {"op_type": "Relu", "domain": ""}
        nodes = [
            onnx.helper.make_node(called["op_type"], [name], [out], domain=called["domain"])
            for name, out in (("a", "m"), ("m", "b"))
        ]
        model.functions.append(onnx.helper.make_function("own", f"f{i}", ["a"], ["b"], nodes, opsets))
    model.graph.node.add(op_type="f0", domain="own", input=["x"], output=["z"])
    assert "when its functions are inlined" in refused(model, IntegrityError)


def test_functions_that_grow_by_their_overloads_or_in_branches(refused) -> None:
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("own", 1)]
    for hides in ("overload", "branch"):
        model = tiny()
        model.opset_import.append(opsets[1])
        for i in range(20):
            name, domain = (f"f{i + 1}", "own") if i < 19 else ("Relu", "")
            called = onnx.helper.make_node(name, ["a"], ["b"], domain=domain)
            nodes = [called] * 4
            if hides == "branch":
                body = onnx.helper.make_graph([called] * 4, "body", [], [])
                nodes = [onnx.helper.make_node("If", ["a"], ["b"], then_branch=body, else_branch=body)]
            model.functions.append(onnx.helper.make_function("own", f"f{i}", ["a"], ["b"], nodes, opsets))
            if hides == "overload":
                small = onnx.helper.make_function("own", f"f{i}", ["a"], ["b"], [called], opsets)
                small.overload = "small"
                model.functions.append(small)
        model.graph.node.add(op_type="f0", domain="own", input=["x"], output=["z"])
        assert "when its functions are inlined" in refused(model, IntegrityError)


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan"])
def test_control_flow(refused, kind) -> None:
    model = tiny()
    model.graph.node[0].op_type = kind
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", tiny().graph))
    assert kind in refused(model, SnnZooError)


def test_too_many_nodes(refused) -> None:
    model = tiny()
    for i in range(21_000):
        model.graph.node.add(op_type="Relu", input=["x"], output=[f"r{i}"])
    assert "at most 20,000" in refused(model, IntegrityError)


def test_sparse_and_missing_graphs(refused) -> None:
    model = tiny()
    model.ClearField("graph")
    refused(model, IntegrityError)
    model = tiny()
    model.graph.sparse_initializer.add()
    assert "sparse" in refused(model, UnsupportedError)


# --- under limits, by function and by command


def graph(text: str, **tensors: np.ndarray) -> bytes:
    made = onnx.parser.parse_graph(text)
    made.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 13)]).SerializeToString()


def secret(path) -> None:
    """Write a model whose weight is a valid file in another folder."""
    (path.parent / "elsewhere").mkdir()
    (path.parent / "elsewhere" / "data").write_bytes(WEIGHT.tobytes())
    folder = path.parent / "model"
    folder.mkdir()
    model = tiny()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere/data")
    path.write_bytes(model.SerializeToString())


def sparse_data(path) -> None:
    """Write a model with 100 GiB of external data, as a sparse file."""
    model = tiny()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    (path.parent / "data").touch()
    os.truncate(path.parent / "data", 100 << 30)
    path.write_bytes(model.SerializeToString())


def constants(n: int, made: str = "ConstantOfShape(s)") -> str:
    """Return a graph of `n` nodes that each make a large constant, all added to the logits."""
    nodes = " ".join(f"c{i} = {made} t{i} = ReduceMax<keepdims=0>(c{i})" for i in range(n))
    return f"g (float[1,4] x) => (float y) {{ {nodes} y = Sum(x, {', '.join(f't{i}' for i in range(n))}) }}"


def chain(call: str, n: int, *, shape: str = "1,4", between: str = "") -> str:
    """Return a graph of `n` nodes, each of which reads the one before; `between` is an operator between them."""
    nodes, last = [], "x"
    for i in range(n):
        if between:
            nodes.append(f"b{i} = {between}({last})")
            last = f"b{i}"
        nodes.append(f"r{i} = {call.format(last)}")
        last = f"r{i}"
    return f"g (float[{shape}] x) => (float y) {{ {' '.join(nodes)} y = Relu({last}) }}"


SIDE = np.array([1 << 12, 1 << 12])
FEW = "at most 4,194,304 numbers are supported"
CASES = {
    f"onnx, {name}": ("onnx", content, message)
    for name, content, message in [
        ("data in another folder", secret, "only files in the model's folder"),
        ("100 GiB of external data", sparse_data, "tensor 'w': more than 2047 MiB of external data"),
        (
            "constants that add up",
            graph(constants(9), s=SIDE),
            r"9 nodes, such as t0 \(ReduceMax\): computes up to 16,777,216 numbers; at most [\d,]+ are supported here",
        ),
        (
            "a product of constants",
            graph(constants(1, "MatMul(w, w)"), w=np.ones((1 << 11, 1 << 11), np.float32)),
            r"c0 \(MatMul\): computes up to 268,435,456 numbers",
        ),
        (
            "one constant 10,000 times",
            graph(constants(1, f"Concat<axis=0>({', '.join(['w'] * 9000)})"), w=np.ones(1 << 15, np.float32)),
            r"c0 \(Concat\): the import up to here takes 29\d,\d{3},\d{3} numbers",
        ),
        (
            "an image of 10^9 pixels",
            graph("g (float[1,1,32768,32768] x) => (float y) { y = Relu(x) }"),
            rf"\[1, 1, 32768, 32768\]; {FEW}",
        ),
        (
            "a batch of 10^9",
            graph("g (float[1000000000,4] x) => (float y) { y = Relu(x) }"),
            rf"\[1000000000, 4\]; {FEW}",
        ),
        # found by fuzzing
        (
            "a million channels",
            graph("g (float[1,1048576,4,4] x) => (float y) { y = Relu(x) }"),
            rf"\[1, 1048576, 4, 4\]; {FEW}",
        ),
        (
            "constants that broadcast",
            graph(constants(1, "Mul(u, v)"), u=np.ones((11000, 1), np.float32), v=np.ones((1, 11000), np.float32)),
            r"c0 \(Mul\): computes up to 121,000,000 numbers",
        ),
        (
            "an image repeated",
            graph("g (float[1,4] x) => (float y) { e = Expand(x, s) y = ReduceMax(e) }", s=np.array([1 << 24, 4])),
            r"e \(Expand\): computes up to 67,108,864 numbers; at most 16,777,216",
        ),
        *(
            (
                f"{pool} with windows of {side} x {side}",
                graph(f"g (float[1,1,512,512] x) => (float y) {{ y = {pool}<kernel_shape=[{side},{side}]>(x) }}"),
                r"y \(\w+\): its windows have 4,083,210,000 numbers; at most 33,554,432",
            )
            for pool, side in [("MaxPool", 300), ("AveragePool", 300)]
        ),
        (
            "a convolution with wide gaps",
            graph(
                "g (float[1,1,4,4] x) => (float y) { y = Conv<dilations=[9000,9000], pads=[9000,9000,9000,9000]>"
                "(x, w) }",
                w=np.ones((1, 1, 2, 2), np.float32),
            ),
            r"y \(Conv\): makes 324,144,016 numbers; at most 16,777,216",
        ),
        (
            "many layers of large maps",
            graph(chain("LeakyRelu<alpha=0.5>({})", 40, shape="1,1,2048,2048")),
            r"the import up to here takes 20\d,\d{3},\d{3} numbers; at most 201,",
        ),
        (
            "many changes of large maps",
            graph(chain("Transpose({})", 90, shape="1,1,2048,2048")),
            "the import up to here",
        ),
        (
            "19,000 layers",
            graph(chain("MatMul({}, w)", 19_000), w=np.eye(4, dtype=np.float32)),
            "the import up to here",
        ),
        (
            "one constant added 400 times",
            graph(chain(f"Sum({{}}, {', '.join(['c'] * 400)})", 1, shape="1,4194304"), c=np.ones((), np.float32)),
            "the import up to here",
        ),
        (
            "layers of ones on a diagonal",
            graph(chain("Add({}, c)", 30, shape="1,4096", between="Relu"), c=np.ones(4096, np.float32)),
            "weights for all such nodes",
        ),
        (
            "100 outputs",
            graph(
                f"g (float[1,4] x) => ({', '.join(f'float y{i}' for i in range(100))}) "
                f"{{ {' '.join(f'y{i} = Relu(x)' for i in range(100))} }}"
            ),
            "has 100 outputs; at most 64 are supported",
        ),
        ("a pipe", os.mkfifo, "a pipe or a device"),
        ("a device without end", lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
        ("nothing", b"", "is empty"),
    ]
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name) -> None:
    check_case(CASES[name])
