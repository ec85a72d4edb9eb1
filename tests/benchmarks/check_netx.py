"""Export models with `write_netx`, run the files in Lava, and compare every spike with the integer engine.

    python tests/benchmarks/check_netx.py --lava-python PY MODEL... [--images N] [--data NAME] [--data-dir DIR]

MODEL is an argument as for `zoo eval`. Runs images or recordings, evenly spaced in its test set, one window of T steps
after another with `reset_interval=T`. Exits with 1 if anything differs.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from programs import arguments, output_of, run_main
from torch import Tensor

from bootstrap_core import IntegerNetwork, Mode, Network
from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.fixed_point import MANT
from bootstrap_core.network.blocks import EventInputBlock, FlattenBlock, GradedInputBlock
from bootstrap_core.network.inputs import as_input, count_steps
from bootstrap_core.network.sigma_delta import DeltaInputBlock
from converters import write_netx
from converters.report.network_figures import spread_out
from specs import UnsupportedError
from zoo.cli.given_model import load_data
from zoo.sources import read_source


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

    The integers in `inputs` `[n, ...]` are in netx's axis order. With `reset_interval`, which must be `steps`, images
    run one after another; otherwise each runs from rest. Raises WorkerError.
    """
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder, "images.npy"), Path(folder, "out.npz")
        np.save(images, inputs)
        worker = Path(__file__).with_name("netx_worker.py")
        command = [lava_python, "-W", "ignore", str(worker), str(net_path), str(images), str(out)]
        command += ["--steps", str(steps), "--style", style, "--message-bits", str(message_bits)]
        if reset_interval is not None:
            command += ["--reset-interval", str(reset_interval)]
        output_of(f"the simulation of {net_path}", command, timeout_s)
        with np.load(out) as arrays:
            return dict(arrays)


def to_netx(array: np.ndarray) -> np.ndarray:
    """Move `[..., C, H, W]` to the order of netx, `[..., W, H, C]`; return arrays of fewer than 4 axes as they are."""
    return array.swapaxes(-1, -3) if array.ndim >= 4 else array


def compare(
    network: Network,
    images: Tensor,
    lava_python: str,
    *,
    write: Callable[[Network, Path], Path] = write_netx,
    timeout_s: float = 900,
) -> tuple[int, int]:
    """Return how many spikes and final readout voltages were compared, and how many of them differ.

    `images` are images `[N, ...]`, or events or frames `[T, N, ...]`. They follow each other with `reset_interval=T`;
    through recurrent networks and those with delays, each in a simulation of its own. With `delay_shift`, each runs
    from rest for T steps, or one more if it is injected, and Lava's spikes are those of the next step; layer k of a
    recurrent or delayed network then acts k steps late. Of sigma-delta networks, messages and all sigmas of the readout
    are compared.
    """
    spec, first = network.spec, network.blocks[0]
    steps = count_steps(spec, None, images)
    pixels = as_input(images, spec)
    style = spec.input.encoding
    with torch.no_grad():
        if isinstance(first, DeltaInputBlock):
            entering = pixels
        elif isinstance(first, EventInputBlock):
            flat = spec.blocks[0].kind == "flatten"  # Lava takes the input of a first flatten flat, in C order
            entering = pixels.flatten(2) if flat else pixels
        elif isinstance(first, GradedInputBlock):
            entering = first(pixels, Mode.ANN, steps)
        else:
            entering = first.current(pixels) * MANT
    given = to_netx(entering.double().round().int().numpy())
    given = np.moveaxis(given, 0, -1) if spec.input.is_timed else given  # time last
    n_images = len(given)
    _, trace = IntegerNetwork(network).run(images)
    expected = [
        to_netx(spikes.numpy())
        for spikes, block in zip(trace.spikes[:-1], network.blocks[:-1], strict=True)
        if not isinstance(block, FlattenBlock | GradedInputBlock | EventInputBlock)
    ]
    carries = any(layer.extras for layer in spec.blocks)  # spikes beyond a reset
    late = carries and spec.delay_shift  # layer k acts k steps late
    lag = int(not spec.input.has_neurons and spec.delay_shift)
    extra = lag + late * len(expected)
    if late and spec.input.is_events:
        given = np.concatenate([given, np.zeros((*given.shape[:-1], extra), given.dtype)], axis=-1)
    with tempfile.TemporaryDirectory() as folder:
        file = write(network, Path(folder) / "model.net")
        apart = carries and not spec.delay_shift
        runs = [
            run_netx(
                lava_python,
                file,
                inputs,
                steps + extra,
                style,
                reset_interval=None if spec.delay_shift else steps,
                message_bits=spec.input.bits,
                timeout_s=timeout_s,
            )
            for inputs in (np.split(given, n_images) if apart else [given])
        ]
    n, different = 0, 0
    for image in range(n_images):
        found, number = (runs[image], 0) if apart else (runs[0], image)
        for layer, spikes in enumerate(expected):
            ours = np.moveaxis(spikes[:, image], 0, -1)[..., int(spec.delay_shift) :]  # time last
            theirs = found[f"{number}/spikes/{layer}"][..., lag + late * layer :][..., : ours.shape[-1]]
            n += ours.size
            different += int((ours != theirs).sum()) if ours.shape == theirs.shape else ours.size
        voltage, name = trace.readout_voltage[-1, image].numpy(), "readout_voltage"
        if spec.gives_values:
            voltage, name = np.moveaxis(to_netx(trace.readout_voltage[:, image].numpy()), 0, -1), "voltage"
        n += voltage.size
        different += int((voltage != found[f"{number}/{name}"]).sum())
    return n, different


def main() -> int:
    """Compare each model with Lava."""
    parser = arguments(__doc__, lava=True)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--data", help="dataset; default: the model's training data")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    if not options.lava_python:
        parser.error("no Python with lava-dl: name one with --lava-python or $LAVA_PYTHON")
    failed = False
    for name in options.models:
        model, _ = read_source(name)
        dataset = load_data(model, options.data, DataPlaces(options.data_dir))
        inputs = spread_out(dataset.test, options.images).inputs(slice(None))
        try:
            n, different = compare(model.build(), inputs, options.lava_python)
        except UnsupportedError as error:
            print(f"{name}: {error}")
            continue
        print(
            f"{name}: {options.images} images of {dataset.name}, {n:,} spike places and readout voltages, {different} "
            "differ from Lava"
        )
        failed |= different > 0
    return int(failed)


if __name__ == "__main__":
    run_main(main)
