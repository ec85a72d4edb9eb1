"""Run a netx file in Lava's bit-accurate simulation and compare every spike with a recorded reference.

    python tests/benchmarks/check_netx.py --lava-python PY FILE.net REFERENCE.npz [--steps S]

REFERENCE.npz has the layout of `lava_simulation.npz` in tests/golden. For image n it contains `n/input_bias_mant` (or
`n/input_graded`: integers injected into the first synapse at each step), `n/spikes/k` `[C, steps]` of layer k and,
optionally, `n/readout_voltage`. With a scalar `reset_interval` the images run one after another, in windows of that
many steps. In the golden files the last column was never written: they ran for T + layers - 1 steps (19 for dense, 16
for conv), one less than their columns. Pass that number as --steps; later columns are not compared.
PY is a Python with lava-dl and lava-nc; default: $LAVA_PYTHON. Slow: each Lava process is a system process.

Exit code 0: no difference; 1: a difference, or Lava failed; 2: wrong usage.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORKER = Path(__file__).with_name("netx_worker.py")
STYLES = {"input_bias_mant": "spike", "input_graded": "graded"}
"""Style of input for the worker, by the name of the input in a reference."""


class LavaError(Exception):
    """Lava could not be run; the message gives the reason."""


def run_netx(
    lava_python: str,
    net_path: Path | str,
    inputs: np.ndarray,
    steps: int,
    style: str = "spike",
    *,
    reset_interval: int | None = None,
    message_bits: int = 8,
    timeout_s: float = 900,
) -> dict[str, np.ndarray]:
    """Simulate `net_path` in Lava's `fixed_pt` models; return the arrays that `netx_worker.py` describes.

    Args:
        lava_python: path of a Python that has lava-dl and lava-nc.
        net_path: the netx file.
        inputs: integers `[n, ...]`, in netx's axis order: bias mantissas ("spike") or pixel levels ("graded").
        steps: time steps of each image.
        style: "spike" or "graded".
        reset_interval: None runs each image from rest; otherwise it must be `steps`.
        message_bits: bits of a graded input.
        timeout_s: time limit of the whole run in seconds.

    Raises:
        LavaError: the Python is missing, it has no Lava, or the simulation failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder, "images.npy"), Path(folder, "out.npz")
        np.save(images, inputs)
        command = [lava_python, "-W", "ignore", str(WORKER), str(net_path), str(images), str(out)]
        command += ["--steps", str(steps), "--style", style, "--message-bits", str(message_bits)]
        if reset_interval is not None:
            command += ["--reset-interval", str(reset_interval)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except OSError as error:
            raise LavaError(f"cannot start {lava_python}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise LavaError(f"the simulation of {net_path} took more than {timeout_s:g} s") from error
        if done.returncode != 0:
            raise LavaError(f"the simulation of {net_path} failed:\n{_tail(done.stderr)}")
        with np.load(out) as arrays:
            return dict(arrays)


def _tail(text: str, n_lines: int = 12) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-n_lines:])


def compare(reference: dict[str, np.ndarray], found: dict[str, np.ndarray], steps: int) -> list[tuple[str, int, int]]:
    """Return (array name, elements that differ, elements) for each output in `reference`, up to step `steps`.

    All elements of an array differ if it is missing or has another shape.
    """
    rows = []
    for name, array in reference.items():
        if "/" not in name or name.split("/")[1] in STYLES:
            continue
        expected = array[..., :steps] if "/spikes/" in name else array
        actual = found.get(name)
        if actual is None or actual.shape != expected.shape:
            n_different = expected.size
        else:
            n_different = int(np.count_nonzero(actual != expected))
        rows.append((name, n_different, expected.size))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lava-python", default=os.environ.get("LAVA_PYTHON"), help="default: $LAVA_PYTHON")
    parser.add_argument("net", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--steps", type=int, help="steps that the reference ran; default: its number of columns")
    options = parser.parse_args()
    if not options.lava_python:
        parser.error("no Python with lava-dl: name one with --lava-python or $LAVA_PYTHON")
    for path in (options.net, options.reference):
        if not path.is_file():
            parser.error(f"{path}: no such file")

    with np.load(options.reference) as arrays:
        reference = dict(arrays)
    key = next((key for key in STYLES if f"0/{key}" in reference), None)
    if key is None or "0/spikes/0" not in reference:
        parser.error(f"{options.reference} lacks 0/spikes/0, or one of {', '.join(f'0/{key}' for key in STYLES)}")
    n_images = sum(name.endswith(f"/{key}") for name in reference)
    inputs = np.stack([reference[f"{n}/{key}"] for n in range(n_images)])
    reset = int(reference["reset_interval"]) if "reset_interval" in reference else None
    n_columns = reference["0/spikes/0"].shape[-1]
    steps = n_columns if options.steps is None else options.steps
    if not 0 < steps <= n_columns or reset not in (None, steps):
        parser.error(f"--steps {steps}: the reference has {n_columns} columns, reset_interval {reset}")
    try:
        found = run_netx(options.lava_python, options.net, inputs, steps, STYLES[key], reset_interval=reset)
    except LavaError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    rows = compare(reference, found, steps)
    for name, n_different, size in rows:
        spikes = f", {np.count_nonzero(reference[name][..., :steps])} spikes" if "/spikes/" in name else ""
        print(f"{name}: {n_different} of {size} differ{spikes}")
    n_different = sum(row[1] for row in rows)
    verdict = "no difference" if n_different == 0 else f"{n_different} DIFFER"
    print(f"{n_images} images, {len(rows)} arrays, {steps} of {n_columns} steps: {verdict}")
    return int(n_different > 0)


if __name__ == "__main__":
    sys.exit(main())
