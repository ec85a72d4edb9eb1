"""Run random networks at the limits of netx in Lava, and compare every spike with the integer engine.

    python tests/benchmarks/check_netx_corners.py --lava-python PY [--networks N] [--seed S] [--seconds S]
        [--sigma-delta]

Groups around 128, layers without a positive weight or of extreme weights, decays for each channel, graded input and
events of few and many bits, delay shifts, recurrence and delays. A network that `write_netx` refuses for its weights is
run all the same, to see whether Lava fails or differs; it need not, as a layer may be silent. Exits with 1 if a network
that is not refused differs.
"""

import random
import sys
from pathlib import Path
from typing import Any

import torch
from check_netx import compare
from programs import WorkerError, arguments

from bootstrap_core import IntegerNetwork, Network, build_network
from converters.formats.netx.lava_limits import limit_problems
from converters.formats.netx.netx_model import netx_of
from converters.formats.netx.netx_writer import save_netx
from specs import NetworkSpec, StateOverflowError

N_IMAGES = 2
CHANNELS = (1, 2, 64, 127, 128, 131, 192, 254, 256, 300)
DECAYS = (0.0, 1 / 4096, 0.1, 0.5, 4095 / 4096, 1.0)
WEIGHTS = (
    (0,), (2,), (128, 0), (254, 0), (-2, 2), (-4, 254, 0), (-256, 2), (-256, 254), tuple(range(-256, 256, 2)),
    (-2,), (-8, 0), (-128, -2), (-256,), (-256, -2, 0), (-6, -2), (-130, -4), (-254,),
)  # fmt: skip
"""Mantissas to draw the weights of a layer from."""


def draw_network(draw: random.Random, *, sigma_delta: bool = False) -> Network:
    """Return a random network whose layers stand at limits of netx."""
    spec = NetworkSpec.model_validate((_draw_sigma_delta if sigma_delta else _draw_document)(draw))
    network = build_network(spec, seed=0).eval()
    with torch.no_grad():
        for block in network.blocks:
            own = dict(block.named_parameters())
            if "synapse.weight" in own and draw.random() < 0.6:
                _fill(own["synapse.weight"], [mant / 64 for mant in draw.choice(WEIGHTS)], draw)
            if "synapse.weight" in own and "bias" in own:
                _fill(own["bias"], [-0.5, 0.0, 1 / 64, 0.3, 1.5], draw)
            for name in ("neuron.current_decay", "neuron.voltage_decay"):
                if name in own:
                    _fill(own[name], DECAYS, draw)
    return network


def draw_inputs(spec: NetworkSpec, generator: torch.Generator) -> torch.Tensor:
    """Return random images `[N, ...]`, or events or frames `[T, N, ...]`."""
    if spec.input.is_timed:
        shape = spec.time_steps, N_IMAGES, *spec.input.shape
        return torch.randint(spec.input.least, 1 + spec.input.largest, shape, generator=generator)
    return torch.rand(N_IMAGES, *spec.input.shape, generator=generator)


def _draw_document(draw: random.Random) -> dict[str, Any]:
    neuron = {
        "threshold": draw.choice((1 / 64, 0.5, 2.0)),
        "current_decay": draw.choice(DECAYS),
        "voltage_decay": draw.choice(DECAYS),
        "learn_decays": draw.choice(("none", "per_channel")),
    }
    bits = draw.choice((None, None, 1, 4, 8, 10))
    encoding = draw.choice(("graded", "events"))
    shifted = draw.random() < 0.25
    bias = not (shifted and bits)  # such a network runs with the same spikes only without biases
    timed = not shifted and draw.random() < 0.3
    bias = bias and not timed
    channels = draw.choice(CHANNELS)
    maps = draw.random() < 0.7
    blocks: list[dict[str, Any]] = []
    if maps:
        multiplier = draw.choice((1, 2)) if channels < 256 else 1
        depthwise = {
            "kind": "conv",
            "channels": multiplier * channels,
            "kernel": [1, 2],
            "groups": channels,
            "bias": bias,
        }
        blocks += [depthwise] if bits or draw.random() < 0.5 else [{"kind": "avg_pool", "kernel": [2, 1]}]
        blocks.append({"kind": "flatten"})
    if bits is None or maps or draw.random() < 0.7:
        dense: dict[str, Any] = {"kind": "dense", "features": draw.choice((1, 5, 40)), "bias": bias}
        per = draw.choice(("neuron", "synapse"))
        delayed = {"delays": {"per": per, "longest": draw.choice((1, 62))}}
        blocks.append(dense | (draw.choice(({"recurrent": True}, delayed)) if timed else {}))
    blocks.append({"kind": "affine", "features": 4, "bias": bias})
    entering: dict[str, Any] = {"shape": [channels, 3, 2] if maps else [channels]}
    return {
        "name": "corner",
        "time_steps": draw.choice((1, 4, 9)),
        "delay_shift": shifted,
        "neuron": neuron,
        "input": entering | ({"encoding": encoding, "bits": bits} if bits else {"bias": draw.choice((0.0, 0.5))}),
        "blocks": blocks,
    }


def _draw_sigma_delta(draw: random.Random) -> dict[str, Any]:
    def neuron() -> dict[str, Any]:
        return {"kind": "sigma_delta", "threshold": draw.choice((0.0, 1 / 64, 0.2, 1.0))}

    channels = draw.choice((1, 3, 128))
    blocks: list[dict[str, Any]] = []
    maps = draw.random() < 0.7
    if maps:
        conv = {"kind": "conv", "channels": 2 * channels, "kernel": [1, 2], "groups": channels}
        blocks += [conv | {"bias": draw.random() < 0.5, "neuron": neuron()}]
        blocks += [{"kind": "avg_pool", "kernel": [2, 1], "neuron": neuron()}] if draw.random() < 0.5 else []
        blocks.append({"kind": "flatten"})
    blocks.append({"kind": "dense", "features": draw.choice((1, 5, 40)), "bias": True, "neuron": neuron()})
    blocks += [{"kind": "affine", "features": 4}] if draw.random() < 0.7 else []
    bits = draw.choice((1, 4, 7, 8))
    return {
        "name": "corner",
        "time_steps": draw.choice((4, 9, 12)),
        "delay_shift": True,
        "neuron": neuron(),
        "input": {"shape": [channels, 3, 2] if maps else [channels], "encoding": "frames", "bits": bits},
        "blocks": blocks,
    }


def _fill(tensor: torch.Tensor, values: Any, draw: random.Random) -> None:
    flat = torch.tensor(draw.choices(list(values), k=tensor.numel()))
    tensor.copy_(flat.reshape(tensor.shape))


def describe(network: Network) -> str:
    """Return a line on a network: its input, and the kinds and groups of its blocks."""
    spec = network.spec
    blocks = ", ".join(
        " ".join([b.kind, *([f"g{b.groups}"] if b.kind == "conv" else []), *b.extras]) for b in spec.blocks
    )
    shifted = ", sigma-delta" if spec.gives_values else ", delay shift" * spec.delay_shift
    return f"{'x'.join(map(str, spec.input.shape))} {spec.input.form}, {blocks}, T = {spec.time_steps}{shifted}"


def main() -> int:
    """Compare random networks with Lava."""
    parser = arguments(__doc__, lava=True)
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300, help="limit of each simulation; default: 300")
    parser.add_argument("--sigma-delta", action="store_true", help="networks of sigma-delta neurons")
    options = parser.parse_args()
    if not options.lava_python:
        parser.error("no Python with lava-dl: name one with --lava-python or $LAVA_PYTHON")
    draw, images = random.Random(options.seed), torch.Generator().manual_seed(options.seed)
    n_networks = n_refused = n_needed = n_failed = n_places = 0
    while n_networks < options.networks:
        network = draw_network(draw, sigma_delta=options.sigma_delta)
        pixels = draw_inputs(network.spec, images)
        try:
            IntegerNetwork(network)(pixels)
        except StateOverflowError:  # refused by our engine too
            continue
        problems = limit_problems(netx_of(network))
        try:
            n, different = compare(network, pixels, options.lava_python, write=_write, timeout_s=options.seconds)
            found = f"{n:,} places, {different} differ"
        except WorkerError as error:
            n, different, found = 0, 1, str(error).splitlines()[-1].strip()
        failed = different > 0 and not problems
        n_networks, n_failed = n_networks + 1, n_failed + failed
        n_refused, n_needed = n_refused + bool(problems), n_needed + (different > 0 and bool(problems))
        n_places += 0 if problems else n
        told = "".join(f"; refused: {problem.partition(' (')[0]}" for problem in problems)
        print(f"{'FAILED: ' * failed}{describe(network)}: {found}{told}", flush=True)
    print(
        f"{n_networks} networks of seed {options.seed}: {n_networks - n_refused} written, {n_places:,} spike places "
        f"and readout voltages, {n_failed} networks differ; {n_refused} refused, of which Lava changes {n_needed}"
    )
    return int(n_failed > 0)


def _write(network: Network, path: Path) -> Path:
    """Write a network also if Lava cannot run it."""
    return save_netx(netx_of(network), path)


if __name__ == "__main__":
    sys.exit(main())
