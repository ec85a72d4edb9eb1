"""Random chains of operators, imported and compared with onnx's evaluator."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from converters.linear.ann import run_ann
from converters.onnx.import_ann import import_ann
from specs import UnsupportedError

OPSETS = (14, 17, 18, 21)
KINDS = (
    *("conv", "depthwise", "norm", "mul", "div", "add", "sub", "sum"),
    *("relu", "clip", "leaky", "max_pool", "average_pool", "pad", "twice", "mirror", "enlarge", "transposed", "where"),
)


@dataclass
class Chain:
    """A graph to which operators are appended."""

    opset: int
    generator: np.random.Generator
    shape: tuple[int, ...]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    channels_last: bool = False
    earlier: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    @property
    def last(self) -> str:
        return self.nodes[-1].output[0] if self.nodes else "x"

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def numbers(self, *shape: int) -> str:
        return self.constant(self.generator.normal(0.1, 0.6, shape).astype(np.float32))

    def node(self, op: str, *others: str, first: str | None = None, **attributes: object) -> None:
        name = f"n{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, [first or self.last, *others], [name], **attributes))


@st.composite
def map_steps(draw: st.DrawFn, chain: Chain) -> None:
    channels, height, width = chain.shape
    kind = draw(st.sampled_from(KINDS))
    if kind in ("conv", "depthwise"):
        groups = channels if kind == "depthwise" else draw(st.sampled_from([1, *([2] if channels % 2 == 0 else [])]))
        out = groups * draw(st.integers(1, 2))
        kernel = [draw(st.integers(1, min(3, side))) for side in (height, width)]
        stride = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
        options = {"pads": draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))}
        if draw(st.booleans()):
            options = {"auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))}
        weights = [chain.numbers(out, channels // groups, *kernel)]
        if draw(st.booleans()):
            weights.append(chain.numbers(out))
        chain.node("Conv", *weights, group=groups, strides=stride, **options)
    elif kind == "norm":
        spread = chain.constant(chain.generator.uniform(0.5, 2, channels).astype(np.float32))
        scale = chain.constant(
            chain.generator.uniform(-1 if draw(st.booleans()) else 0.2, 1.5, channels).astype(np.float32)
        )
        chain.node("BatchNormalization", scale, chain.numbers(channels), chain.numbers(channels), spread)
    elif kind in ("mul", "add", "sub", "div"):
        shape = draw(st.sampled_from([(), (1,), (channels, 1, 1), (1, channels, 1, 1)]))
        name = chain.numbers(*shape) if kind != "div" else chain.constant(np.float32(1.5) + np.zeros(shape, np.float32))
        if draw(st.booleans()) and kind != "div":
            chain.nodes.append(onnx.helper.make_node(kind.title(), [name, chain.last], [f"n{len(chain.nodes)}"]))
        else:
            chain.node(kind.title(), name)
    elif kind == "relu":
        chain.node("Relu")
        chain.earlier.append((chain.last, chain.shape))
    elif kind == "clip":
        chain.node(
            "Clip", chain.constant(np.float32(0)), chain.constant(np.float32(draw(st.sampled_from([0.5, 1, 6]))))
        )
    elif kind == "leaky":
        chain.node("LeakyRelu", alpha=draw(st.sampled_from([0.0, 0.125, 0.5])))
    elif kind == "pad":
        pads = [0, 0, *draw(st.lists(st.integers(0, 2), min_size=2, max_size=2))] * 2
        chain.node("Pad", chain.constant(np.array(pads)))
    elif kind == "mirror":
        pads = [0, 0, *draw(st.lists(st.integers(0, min(1, height - 1, width - 1)), min_size=2, max_size=2))] * 2
        chain.node("Pad", chain.constant(np.array(pads)), mode=draw(st.sampled_from(["reflect", "edge"])))
    elif kind == "enlarge" and height * width <= 36:
        scales = [1, 1, *draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))]
        chain.node("Resize", "", chain.constant(np.array(scales, np.float32)))
    elif kind == "transposed" and height * width <= 36:
        stride = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
        pads = draw(st.lists(st.integers(0, 1), min_size=4, max_size=4))
        options = {"strides": stride, "pads": pads, "output_padding": [step - 1 for step in stride]}
        chain.node("ConvTranspose", chain.numbers(channels, draw(st.integers(1, 2)), 3, 3), **options)
    elif kind == "where":
        values, zero = chain.last, chain.constant(np.zeros((), np.float32))
        chain.node("Greater", zero)
        chain.node("Where", values, zero)
    elif kind == "sum":
        fitting = [name for name, shape in chain.earlier if shape == chain.shape and name != chain.last]
        if fitting:
            chain.node(draw(st.sampled_from(["Add", "Sub"])), draw(st.sampled_from(fitting)))
    elif kind == "twice":  # to channels last and back
        chain.node("Transpose", perm=[0, 2, 3, 1])
        if draw(st.booleans()):
            chain.node("Add", chain.numbers(channels))
        chain.node("Transpose", perm=[0, 3, 1, 2])
    elif min(height, width) >= 2:
        options = {"kernel_shape": [2, 2], "strides": draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))}
        if kind == "max_pool":
            options["pads"] = draw(st.lists(st.integers(0, 1), min_size=4, max_size=4))
        chain.node("MaxPool" if kind == "max_pool" else "AveragePool", **options)


def model_of(chain: Chain, shape: tuple[int, ...], output: str) -> onnx.ModelProto:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        chain.nodes,
        "chain",
        [value("x", TensorProto.FLOAT, ["N", *shape])],
        [value(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in chain.weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", chain.opset)])


def dims_of(model: onnx.ModelProto) -> tuple[int, ...]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return tuple(d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim)[1:]


@st.composite
def chains(draw: st.DrawFn) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    start = (draw(st.integers(1, 3)), draw(st.integers(3, 6)), draw(st.integers(3, 6)))
    generator = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    chain = Chain(draw(st.sampled_from(OPSETS)), generator, start)
    shape = start
    if draw(st.booleans()):
        shape = (start[1], start[2], start[0])
        chain.node("Transpose", perm=[0, 3, 1, 2])
    for _ in range(draw(st.integers(1, 7))):
        draw(map_steps(chain))
        if chain.nodes:
            chain.shape = dims_of(model_of(chain, shape, chain.last))
    order = draw(st.sampled_from([None, [0, 2, 3, 1], [0, 3, 2, 1]]))
    if order:
        chain.node("Transpose", perm=order)
    chain.node("Flatten")
    size = int(np.prod(chain.shape))
    if draw(st.booleans()):
        chain.node("MatMul", chain.numbers(size, 5))
        chain.node("Add", chain.numbers(5))
        chain.node("Relu")
        size = 5
    chain.node("Gemm", chain.numbers(4, size), chain.numbers(4), transB=1, alpha=0.5)
    return model_of(chain, shape, chain.last), shape


FOR_CAUSE = (
    "differ over height and width",
    "may be negative",
    "must be smaller than the windows",
    "changes the zeros of the Pad",
    "in another layout",
)
"""Parts of errors for operators that cannot be imported exactly."""


def test_any_chain_is_imported_exactly_or_refused_for_cause(tmp_path) -> None:
    imported, images = [], torch.Generator().manual_seed(1)

    @settings(max_examples=120)
    @given(chains())
    def check(drawn) -> None:
        model, _ = drawn
        path = tmp_path / "chain.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            found = import_ann(path)
        except UnsupportedError as error:
            if any(cause in str(error) for cause in FOR_CAUSE):
                return
            raise
        x = torch.rand(3, *found.ann.shape, generator=images)
        logits, wanted = run_ann(found.ann, x)[0], found.reference.logits(x)
        assert np.abs(logits.numpy() - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())
        for i in range(3):  # a batch equals its images one by one
            assert torch.allclose(run_ann(found.ann, x[i : i + 1])[0][0], logits[i], rtol=1e-4, atol=1e-4)
        assert len(found.nodes) == len(model.graph.node)
        names = {node.name for node in found.ann.nodes}
        assert {row["became"] for row in found.nodes} <= {*names, "input", "constant", "layout", "removed", "unused"}
        imported.append(path)

    check()
    assert len(imported) > 40
