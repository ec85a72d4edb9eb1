"""Make small valid files of each format, the start of fuzzing and of hostile files."""

import base64
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import ModelProto, numpy_helper

SPEC: dict[str, Any] = {
    "name": "tiny",
    "time_steps": 4,
    "input": {"shape": [1, 4, 4]},
    "blocks": [
        {"kind": "conv", "channels": 2, "kernel": 3, "padding": 1, "weight_norm": True, "bias": True},
        {"kind": "avg_pool", "kernel": 2},
        {"kind": "flatten"},
        {"kind": "dense", "features": 5, "norm": "mean_only", "skips": [{"source": 3, "kind": "dense"}]},
        {"kind": "affine", "features": 3},
    ],
}
CHAIN = {**SPEC, "blocks": [{k: v for k, v in block.items() if k != "skips"} for block in SPEC["blocks"]]}
DENSE = {
    "name": "tiny",
    "time_steps": 4,
    "input": {"shape": [6]},
    "blocks": [{"kind": "dense", "features": 4, "bias": True}, {"kind": "affine", "features": 3}],
}
CHANGES = {
    **DENSE,
    "delay_shift": True,
    "neuron": {"kind": "sigma_delta", "threshold": 0.1},
    "input": {"shape": [6], "encoding": "frames"},
}
WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def model(document: dict[str, Any]):
    """Return a network with fresh weights."""
    from bootstrap_core.network.build import build_network
    from converters.model import Model
    from specs import NetworkSpec

    return Model.of(build_network(NetworkSpec.model_validate(document), seed=0), {"note": "made by a test"})


def spec_text() -> bytes:
    """Return a spec in YAML."""
    from specs import NetworkSpec, dump_spec

    return dump_spec(NetworkSpec.model_validate(SPEC)).encode()


def written(document: dict[str, Any], name: str, folder: Path) -> bytes:
    """Return a model file as snnzoo writes it."""
    from converters.formats.model_files import write_model

    return write_model(model(document), folder / name, overwrite=True).read_bytes()


def packed(folder: Path) -> bytes:
    """Return a model file with weights in 8 bits."""
    from converters.formats.model_files import write_model

    return write_model(model(CHAIN).folded(), folder / "packed.safetensors", overwrite=True).read_bytes()


def foreign_netx(folder: Path) -> bytes:
    """Return a netx file as other programs write it: dense layers, no spec."""
    with h5py.File(folder / "foreign.net", "w") as file:
        neuron = {"iDecay": 4096, "vDecay": 123, "vThMant": 80, "refDelay": 1, "gradedSpike": False}
        layers = [("input", [6], [64.0]), ("dense", [4], np.full((4, 6), 2.0)), ("dense", [3], np.full((3, 4), -4.0))]
        for i, (kind, shape, weight) in enumerate(layers):
            group = file.create_group(f"layer/{i}")
            group["type"], group["shape"], group["weight"] = np.array([kind.encode()], "S10"), shape, weight
            group["neuron/type"] = b"LOIHI"
            for name, value in neuron.items():
                group[f"neuron/{name}"] = value
        file["simulation/tSample"] = 4
    return (folder / "foreign.net").read_bytes()


def foreign_nir() -> bytes:
    """Return a NIR graph as other programs write it: neurons and weights, with a convolution."""
    from converters.formats.nir.nir_file import Graph, Node, graph_bytes

    lif = {"tau": np.full(8, 2e-4), "r": np.ones(8), "v_leak": np.zeros(8), "v_threshold": np.full(8, 0.5)}
    nodes = {
        "input": Node("Input", {"shape": np.array([8])}),
        "fc": Node("Affine", {"weight": np.linspace(-1, 1, 64).reshape(8, 8), "bias": np.zeros(8)}),
        "lif": Node("LIF", lif),
        "out": Node("Linear", {"weight": np.linspace(-1, 1, 24).reshape(3, 8)}),
        "output": Node("Output", {"shape": np.array([3])}),
    }
    names = list(nodes)
    return graph_bytes(Graph(nodes, tuple(pairwise(names)), {"dt": np.array(1e-4)}))


def state_dict() -> dict[str, torch.Tensor]:
    """Return a lava-dl state dict of a dense network with weight norm."""
    decays = {"neuron.current_decay": torch.tensor([4096.0]), "neuron.voltage_decay": torch.tensor([123.0])}
    shapes = {1: (4, 6), 2: (3, 4)}
    state = {f"blocks.0.{name}": tensor for name, tensor in decays.items()}
    state |= {"blocks.0.weight": torch.ones(1), "blocks.0.bias": torch.zeros(1)}
    for i, (n_out, n_in) in shapes.items():
        state |= {f"blocks.{i}.{name}": tensor.clone() for name, tensor in decays.items()}
        state[f"blocks.{i}.synapse.weight_g"] = torch.ones(n_out, 1, 1, 1, 1)
        state[f"blocks.{i}.synapse.weight_v"] = torch.linspace(-1, 1, n_out * n_in).reshape(n_out, n_in, 1, 1, 1)
    return state


def saved(content: object, **options: Any) -> bytes:
    """Return the bytes that torch.save writes."""
    data = io.BytesIO()
    torch.save(content, data, **options)
    return data.getvalue()


def onnx_model() -> ModelProto:
    """Return a small classifier: convolution, pool, reshape to a computed shape, dense."""
    graph = onnx.parser.parse_graph(
        "g (float[1,1,4,4] x) => (float[1,3] y) { c = Conv<pads=[1,1,1,1]>(x, k, b) r = Relu(c) "
        "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r) f = Reshape(p, s) m = MatMul(f, w) y = Add(m, d) }"
    )
    tensors = {
        "k": np.linspace(-1, 1, 9, dtype=np.float32).reshape(1, 1, 3, 3),
        "b": np.array([0.1], np.float32),
        "s": np.array([1, 4]),
        "w": WEIGHT,
        "d": np.zeros(3, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])


def idx(shape: tuple[int, ...] = (3, 4, 4)) -> bytes:
    """Return an IDX file of bytes."""
    header = b"\0\0\x08" + bytes([len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
    return header + bytes(range(int(np.prod(shape))))


def cifar_pickle(
    labels: list[int], pixels: np.ndarray, *, function: bytes = b"numpy.core.multiarray\n_reconstruct\n"
) -> bytes:
    """Return a batch of CIFAR-10 as Python 2 and NumPy 1 pickled it, for pixels uint8 `[N, C * H * W]`."""

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"c" + function + b"cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + number(1) + shape + kind + b"\x89" + text(pixels.tobytes()) + b"tb"
    entries = text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e" + text(b"data") + array
    return b"\x80\x02}(" + text(b"batch_label") + text(b"a batch") + entries + b"u."


def tar(files: dict[str, bytes], **options: Any) -> bytes:
    """Return a tar archive of files; `options` are those of `tarfile.open`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, **({"mode": "w"} | options)) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def npz(compressed: bool = False, **arrays: Any) -> bytes:
    """Return an .npz, by default of 20 images and labels."""
    generator = np.random.default_rng(0)
    default = {"x": generator.integers(0, 256, (20, 1, 4, 4), np.uint8), "y": np.arange(20) % 3}
    data = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(data, **(arrays or default))
    return data.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Return an .npy."""
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def words(*events: tuple[int, int, int, int]) -> bytes:
    """Return events (x, y, p, t) in 40 bits each, as .bs2 and .bin have them; in a .bs1, x and y are one number."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, p, t in events)


def image(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> bytes:
    """Return an image file."""
    from PIL import Image

    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels, "RGB").convert(mode).save(data, kind)
    return data.getvalue()


def card(folder: Path) -> bytes:
    """Write a model file to `folder` and return a short card for it."""
    from zoo.card import Card, Curves, FileFacts, dump_card, load_card, revision_of
    from zoo.runs.card_files import card_file

    file = folder / "tiny.safetensors"
    written(DENSE, file.name, folder)
    facts, measured = FileFacts.of_file(file), load_card(card_file("mnist-dense-shallow"))
    golden = measured.golden.model_copy(
        update={
            "images": base64.b64encode(zlib.compress(bytes(6))).decode(),
            "shape": (1, 1, 2, 3),
            **{name: getattr(measured.golden, name)[:1] for name in ("labels", "logits", "spikes")},
        }
    )
    curves = Curves(**dict.fromkeys(Curves.model_fields, (0.5, 0.25)))
    short = {
        "name": "tiny",
        "revision": revision_of(facts.sha256),
        "files": {"safetensors": facts},
        "golden": golden,
        "training": measured.training.model_copy(update={"curves": curves}),
    }
    return dump_card(Card.model_validate({**dict(measured), **short})).encode()


def index(folder: Path) -> bytes:
    """Return an index with two revisions of the card's model; the newer one is in `folder`."""
    from zoo.card import load_card
    from zoo.hub.index import IndexedFile, IndexedModel, ZooIndex, dump_index

    (folder / "tiny.yaml").write_bytes(card(folder))
    files = {"safetensors": IndexedFile.of(folder / "tiny.safetensors", "tiny.safetensors")}
    model = IndexedModel.of(load_card(folder / "tiny.yaml"), files, IndexedFile.of(folder / "tiny.yaml", "tiny.yaml"))
    old = files["safetensors"].model_copy(update={"sha256": "0" * 64})
    before = model.model_copy(update={"revision": "0" * 12, "files": {"safetensors": old, "netx": old}})
    return dump_index(ZooIndex.empty().adding("tiny", before).adding("tiny", model))


def safetensors_state() -> bytes:
    """Return a state dict with weight norm as safetensors."""
    return safetensors.torch.save({"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.ones(2, 3), "n": torch.ones(2)})


def safetensors_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into its header and the bytes of its tensors."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def safetensors_of(header: dict[str, Any] | str, tensors: bytes) -> bytes:
    """Return a safetensors file with the given header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return data.getvalue()


def valid_files(folder: Path) -> dict[str, list[bytes]]:
    """Return valid files of each format in `reader_targets.TARGETS`; `folder` is for temporary files."""
    from sounds import tone, wav

    last = (1 << 23) - 1  # microseconds
    fields = {"x": np.array([3, 0, 33]), "y": np.array([1, 33, 0]), "p": np.array([1, 0, 1]), "t": np.array([5, 9, 7])}
    records = np.zeros(3, [("x", "<i2"), ("y", "<i2"), ("p", "?"), ("t", "<i8")])
    return {
        "safetensors": [
            written(SPEC, "a.safetensors", folder),
            written(DENSE, "b.safetensors", folder),
            packed(folder),
        ],
        "state-dict": [safetensors_state(), saved({"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.ones(2, 3)})],
        "netx": [written(CHAIN, "a.net", folder), foreign_netx(folder), written(CHANGES, "b.net", folder)],
        "nir": [written(SPEC, "a.nir", folder), foreign_nir()],
        "torch": [saved(state_dict()), saved(state_dict(), _use_new_zipfile_serialization=False)],
        "onnx": [onnx_model().SerializeToString()],
        "spec": [spec_text(), json.dumps(DENSE).encode()],
        "idx": [idx(), gzip.compress(idx((5,)), mtime=0)],
        "npz": [npz(), npz(compressed=True), npz(x=np.linspace(0, 1, 32).reshape(8, 4))],
        "bs1": [words((0, 0, 1, 0)), words((255, 255, 0, last), (0, 0, 1, last), (1, 44, 0, 70_000), (0, 2, 1, 3))],
        "bs2": [words((33, 2, 0, 7)), words((3, 1, 1, last), (0, 240, 0, 0), (33, 0, 0, 70_000), (255, 255, 1, 3))],
        "events": [npz(**fields), npz(compressed=True, x=fields["x"], t=fields["t"]), npz(events=records)],
        "events-npy": [npy(records), npy(records.astype([("x", ">u2"), ("y", ">u2"), ("pol", "i1"), ("ts", ">u8")]))],
        "sound": [wav(tone(700, seconds=0.05)), wav(np.full((480, 2), 0.5), rate=48_000)],
        "frames": [
            npz(x=np.ones((10, 4, 6)), y=np.zeros((10, 3))),
            npz(compressed=True, x=np.ones((10, 6), np.int8), y=np.eye(10, 3)),
        ],
        "index": [index(folder)],
        "card": [card(folder)],
        "image": [image(), image("JPEG"), image("GIF", "L"), image("TIFF", "L"), image("BMP"), image("PPM", "L")],
    }
