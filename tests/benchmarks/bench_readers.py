"""Measure the peak memory of each reader, without that of Python and torch, against the size of its file.

    python tests/benchmarks/bench_readers.py [--mib 1,16,128]

Each file is read in a separate process, under the limits of tests/fuzz/limited.py. Writes
tests/benchmarks/results/readers.json.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from programs import arguments, stamp, write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
MIB = 1 << 20
SIDE = 1024
"""Number of inputs of the large layer."""


def spec(features: int) -> dict[str, Any]:
    """Return the spec of a network with one large dense layer."""
    blocks = [{"kind": "dense", "features": features}, {"kind": "affine", "features": 2}]
    return {"name": "wide", "time_steps": 4, "input": {"shape": [SIDE]}, "blocks": blocks}


def model_file(name: str) -> Callable[[Path, int], None]:
    """Return a function that writes a model of about `n_bytes`, in the format of the path's suffix."""

    def write(path: Path, n_bytes: int) -> None:
        from valid_files import model

        from converters.formats.model_files import write_model

        write_model(model(spec(n_bytes // (4 * SIDE))), path)

    write.__doc__ = name
    return write


def state_dict(path: Path, n_bytes: int) -> None:
    """Write a lava-dl state dict with one large layer."""
    import torch
    from valid_files import state_dict

    rows = n_bytes // (4 * SIDE)
    state = state_dict()
    decays = {name: value for name, value in state.items() if "decay" in name or name.startswith("blocks.0")}
    weights = {"blocks.1.synapse.weight": torch.randn(rows, SIDE), "blocks.2.synapse.weight": torch.randn(3, rows)}
    torch.save({**decays, **weights}, path)


def onnx_file(path: Path, n_bytes: int) -> None:
    """Write a dense network with one large layer."""
    import onnx
    from onnx import numpy_helper

    rows = n_bytes // (4 * SIDE)
    graph = onnx.parser.parse_graph(
        f"g (float[1,{SIDE}] x) => (float[1,2] y) {{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }}"
    )
    generator = np.random.default_rng(0)
    for name, shape in (("w", (SIDE, rows)), ("v", (rows, 2))):
        graph.initializer.append(numpy_helper.from_array(generator.normal(size=shape).astype("f4") / SIDE, name))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), path)


def npz(path: Path, n_bytes: int) -> None:
    """Write uint8 images without labels."""
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (n_bytes // 784, 784), np.uint8))


def idx(path: Path, n_bytes: int) -> None:
    """Write an IDX file of images."""
    rows = n_bytes // 784
    path.write_bytes(b"\0\0\x08\3" + b"".join(n.to_bytes(4, "big") for n in (rows, 28, 28)) + bytes(rows * 784))


def image(path: Path, n_bytes: int) -> None:
    """Write a picture of noise, three bytes per pixel."""
    from PIL import Image

    side = round((n_bytes / 3) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG", compress_level=0)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "safetensors": model_file("safetensors"),
    "state-dict": state_dict,
    "netx": model_file("netx"),
    "nir": model_file("nir"),
    "torch": state_dict,
    "onnx": onnx_file,
    "idx": idx,
    "npz": npz,
    "image": image,
}
"""Writer of a file of each format. Specs are left out: they have at most 64 KiB."""


def main() -> None:
    """Measure all formats and sizes, and write the results."""
    from limited import Server
    from reader_targets import TARGETS

    parser = arguments(__doc__, output="readers.json")
    parser.add_argument("--mib", default="1,16,128", help="sizes of the files in MiB")
    given = parser.parse_args()
    sizes = [int(size) for size in given.mib.split(",")]
    rows, server = [], Server()
    for name, write in WRITERS.items():
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"a{TARGETS[name].suffix}"
                write(path, size * MIB)
                outcome = server.call(name, path)
                row = {"format": name, "file_mib": round(path.stat().st_size / MIB, 1), "peak_mib": round(outcome.mib)}
                said = "" if outcome.kind == "read" else outcome.text.replace(folder, "").strip()[:200]
                rows.append({**row, "seconds": round(outcome.seconds, 2), "outcome": outcome.kind, "text": said})
                print(rows[-1], flush=True)
    server.close()
    write_report(given.output, {**stamp(), "rows": rows})


if __name__ == "__main__":
    main()
