"""Exchange NIR files with snntorch, sinabs and norse in both directions, ours with spikingjelly, and compare spikes.

    python tests/benchmarks/check_nir.py --peer-python PY --snntorch-python PY [--keep FOLDER]

--peer-python is a Python with `pip install sinabs norse`, which requires nir 1.0.4. --snntorch-python is one with `pip
install snntorch spikingjelly nir==1.0.8 nirtorch==2.6`: snntorch's export needs nodes that have `v_reset`, and older
nirtorch reads no recurrent network of ours. `nir_worker.py` runs in each; its docstring lists the settings under which
the programs agree.

Rows "theirs": networks that each program wrote, read with `read_nir` and run in both engines. Rows "ours": networks
that `write_nir` wrote, run in each program that can read them, or the reason why it cannot. Exits with 1 at a
difference or failure that is not listed below as known. `--keep` writes the files of the other programs, with input and
spikes, to FOLDER, as in `tests/golden/nir`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from programs import arguments

from bootstrap_core import IntegerNetwork, Network, build_network
from bootstrap_core.network.blocks import AffineBlock, SpikingBlock
from converters import Model
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import NetworkSpec

STEPS, IMAGES = 8, 16
PEERS, SNNTORCH = ("sinabs", "norse"), ("snntorch", "spikingjelly")
"""Programs that `--peer-python` has, and those that `--snntorch-python` has."""
FLAT, DENSE, CONV = {"shape": [12]}, {"kind": "dense", "features": 10, "bias": True}, {"kind": "conv", "channels": 4}
READOUT = {"kind": "dense", "features": 5, "bias": True}
HALF = {"threshold": 33 / 64, "voltage_decay": 0.5}

UNLIKE = {
    ("lif", "sinabs"): "reads time constants in seconds as steps, decays by exp(-1 / tau), ignores r",
    ("lif", "norse"): "ignores r",
    ("conv_lif", "norse"): "ignores r",
    ("recurrent", "sinabs"): "leaves recurrent weights out",
    ("recurrent", "norse"): "returns the output of the recurrent weights, another layer",
    ("recurrent_lif", "snntorch"): "sends the weighted input through the recurrent weights, and no spike back",
    ("recurrent_lif", "sinabs"): "as lif and recurrent",
    ("recurrent_lif", "norse"): "as lif and recurrent",
}
"""Known differences of spikes, with the reason in the program's source code, by case and program."""

UNREADABLE = {
    "snntorch": {
        **dict.fromkeys(
            ("if", "affine", "current", "conv", "recurrent"), "imports IF as Leaky(0.9), which also returns its state"
        ),
        **dict.fromkeys(("pool", "delay"), "has no SumPool2d, Scale, Delay"),
    },
    "sinabs": {
        "cuba": "has no CubaLIF",
        "conv_lif": "requires v_leak with one axis",
        "pool": "has no Scale",
        "delay": "has no Delay",
    },
    "norse": {"pool": "has no Scale", "delay": "has no Delay"},
    "spikingjelly": dict.fromkeys(
        ("if", "affine", "current", "conv", "pool", "delay", "recurrent"), "requires r = 1 / dt of an IF"
    ),
}
"""Files that a program cannot read or run, with the reason in its source code. Any other failure counts as ours."""


def our_networks() -> Iterator[tuple[str, Network]]:
    """Yield networks with random weights; together they use every block, and every node that `write_nir` writes."""
    graded = {"encoding": "graded", "bits": 1}
    free, images = {"threshold": 33 / 64}, {"shape": [2, 8, 8], **graded}
    pool = {"kind": "avg_pool", "kernel": 2, "gain": 1.0}
    conv = {**CONV, "kernel": 3, "bias": True}
    cases = {
        "if": ({**FLAT, **graded}, free, [DENSE, READOUT]),
        "lif": ({**FLAT, **graded}, HALF, [DENSE, READOUT]),
        "cuba": (
            {**FLAT, **graded},
            {**HALF, "current_decay": 0.5},
            [{**DENSE, "bias": False}, {**READOUT, "bias": False}],
        ),
        "affine": ({**FLAT, **graded}, free, [DENSE, {"kind": "affine", "features": 5, "bias": True}]),
        "current": (FLAT, free, [DENSE, READOUT]),
        "conv": (images, free, [conv, {"kind": "flatten"}, READOUT]),
        "conv_lif": (images, HALF, [conv, {"kind": "flatten"}, READOUT]),
        "pool": (images, free, [conv, pool, {"kind": "flatten"}, READOUT]),
        "delay": ({**FLAT, **graded}, free, [{**DENSE, "delay_shift": True}, READOUT]),
        "recurrent": ({**FLAT, **graded}, free, [{**DENSE, "recurrent": True}, READOUT]),
        "recurrent_lif": ({**FLAT, **graded}, HALF, [{**DENSE, "recurrent": True}, READOUT]),
    }
    for name, (entering, neuron, blocks) in cases.items():
        document = {"name": name, "time_steps": STEPS, "neuron": neuron, "input": entering, "blocks": blocks}
        yield name, drawn(build_network(NetworkSpec.model_validate(document), seed=3))


@torch.no_grad()
def drawn(network: Network) -> Network:
    """Draw weights and biases of both signs, multiples of 2/64: no sum equals the threshold, whose mantissa is odd."""
    generator = torch.Generator().manual_seed(5)
    for block in network.blocks:
        if isinstance(block, SpikingBlock | AffineBlock) and isinstance(block.synapse.weight, torch.nn.Parameter):
            block.synapse.weight.uniform_(-0.4, 0.5, generator=generator)
            if block.bias is not None:
                block.bias.uniform_(-0.1, 0.1, generator=generator).mul_(32).round_().div_(32)
    return network


def compare_theirs(folder: Path) -> Iterator[tuple[str, str, str, int, int, str]]:
    """Yield rows: direction, case, reader, numbers compared, numbers that differ, remark."""
    for path in sorted(folder.glob("*.nir")):
        recorded = np.load(path.with_suffix(".npz"))
        options = json.loads(str(recorded["options"]))
        network = read_nir(path, **options).build()
        x, wanted = torch.from_numpy(recorded["x"]).float(), recorded["spikes"]
        told = ", ".join(
            f"{name}={value}" for name, value in options.items() if name not in {"time_steps", "input_bits"}
        )
        for engine, run in (("float", network.run), ("integer", IntegerNetwork(network).run)):
            found = run(x)[1].spikes[-1].detach().numpy().reshape(wanted.shape)
            yield "theirs", path.stem, f"snnzoo, {engine}", wanted.size, int((found != wanted).sum()), told


def write_ours(folder: Path) -> dict[str, np.ndarray]:
    """Write our files and their input; return the expected output of each, `[T, N, features]`."""
    folder.mkdir()
    expected = {}
    for name, network in our_networks():
        shape = network.spec.input.shape
        x = torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(7))
        x = x.round() if network.spec.input.encoding == "graded" else (x * 32).round() / 32
        fed = network.blocks[0].current(x).detach() if name == "current" else x
        write_nir(Model.of(network), folder / f"{name}.nir")
        np.save(folder / f"{name}.npy", fed.numpy())
        expected[name] = network.run(x)[1].spikes[-1].detach().numpy().reshape(STEPS, IMAGES, -1)
    return expected


def compare_ours(folder: Path, expected: dict[str, np.ndarray]) -> Iterator[tuple[str, str, str, int, int, str]]:
    """Yield rows as `compare_theirs` does, with 0 numbers compared where the program could not read the file."""
    for name, wanted in expected.items():
        for tool in (*SNNTORCH, *PEERS):
            found, reason = folder / f"{name}.{tool}.npy", folder / f"{name}.{tool}.txt"
            if found.is_file():
                spikes = np.load(found)
                different = int((spikes != wanted).sum()) if spikes.shape == wanted.shape else wanted.size
                yield "ours", name, tool, wanted.size, different, UNLIKE.get((name, tool), "")
            else:
                known = UNREADABLE[tool].get(name)
                yield "ours", name, tool, 0, int(known is None), known or reason.read_text()[:200]


def main() -> int:
    """Compare in both directions, and print a row for each file and reader."""
    parser = arguments(__doc__, peers=True)
    parser.add_argument(
        "--snntorch-python", default=os.environ.get("SNNTORCH_PYTHON"), help="default: $SNNTORCH_PYTHON"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if not options.peer_python or not options.snntorch_python:
        parser.error("name a Python with sinabs and norse (--peer-python), and one with snntorch and spikingjelly "
                     "(--snntorch-python)")  # fmt: skip
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "theirs").mkdir()
        expected = write_ours(folder / "ours")
        worker = Path(__file__).with_name("nir_worker.py")
        for tool in (*SNNTORCH, *PEERS):
            python = options.snntorch_python if tool in SNNTORCH else options.peer_python
            done = subprocess.run([python, worker, tool, folder], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"Error: {tool} in {python} failed: {done.stderr.strip()[-500:]}", file=sys.stderr)
                return 1
            versions = json.loads((folder / f"{tool}.json").read_text())
            print(", ".join(f"{package} {number}" for package, number in versions.items()))
        rows = [*compare_theirs(folder / "theirs"), *compare_ours(folder / "ours", expected)]
        for direction, case, reader, n, different, remark in rows:
            print(f"{direction:7} {case:18} {reader:16} {n:6,} compared {different:6,} differ  {remark}")
            failed |= different > 0 and (case, reader) not in UNLIKE
        if options.keep:
            shutil.copytree(folder / "theirs", options.keep, dirs_exist_ok=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
