"""Compare trained delays with fixed ones, drawn at random, on patterns that differ only in when each channel spikes.

    python tests/benchmarks/bench_delays.py [--seeds N]

Each class has a time for each of 16 channels, 0 to 8 steps from the start of the pattern. A recording has one spike of
each channel, up to a step early or late; the start is random. Neurons keep nothing from one step to the next, so they
see only spikes that arrive together. Writes `results/delays.json`.
"""

from typing import Any

import torch
from programs import RESULTS, arguments, stamp, write_report

from bootstrap_core import build_network, evaluate, fit
from bootstrap_core.data.splits import Split
from specs.network import NetworkSpec

CLASSES, CHANNELS, LONGEST, TIME_STEPS, JITTER = 6, 16, 8, 24, 1
VALIDATION, N_TEST = 200, 1000
KINDS = {"none": {"longest": 0}, "fixed": {"longest": LONGEST}, "trained": {"longest": LONGEST, "learn": True}}
SIZES = (8, 32)


def patterns(n: int, *, seed: int) -> Split:
    """Return recordings, uint8 `[n, T, channels, 1, 1]`, and classes; all seeds have the same classes."""
    times = torch.randint(LONGEST + 1, (CLASSES, CHANNELS), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    start = torch.randint(JITTER, TIME_STEPS - LONGEST - JITTER, (n, 1), generator=generator)
    moved = torch.randint(-JITTER, JITTER + 1, (n, CHANNELS), generator=generator)
    at = start + times[labels] + moved
    events = torch.zeros(n, TIME_STEPS, CHANNELS, dtype=torch.uint8).scatter_(1, at[:, None], 1)
    return Split(events[..., None, None], labels)


def accuracy(delays: dict[str, Any], neurons: int, *, seed: int, epochs: int = 10, n_training: int = 1000) -> float:
    """Train a network with these delays of single synapses; return its accuracy on test recordings."""
    document = {
        "name": "patterns",
        "time_steps": TIME_STEPS,
        "neuron": {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 1.0, "tau_grad": 0.005},
        "input": {"shape": [CHANNELS, 1, 1], "encoding": "events"},
        "blocks": [
            {"kind": "flatten"},
            {"kind": "dense", "features": neurons, "delays": {"per": "synapse", **delays}},
            {"kind": "affine", "features": CLASSES, "bias": True},
        ],
        "training": {
            "initialize": True,
            "epochs": epochs,
            "snn_epochs": epochs,
            "batch_size": 50,
            "validation": VALIDATION,
            "snn_learning_rate": 0.01,
            "logit_scale": TIME_STEPS,
        },
    }
    network = build_network(NetworkSpec.model_validate(document), seed=seed)
    fit(network, patterns(n_training + VALIDATION, seed=1))
    return evaluate(network, patterns(N_TEST, seed=2)).accuracy


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of networks for each figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        str(neurons): {
            kind: [accuracy(delays, neurons, seed=seed) for seed in range(options.seeds)]
            for kind, delays in KINDS.items()
        }
        for neurons in SIZES
    }
    report = {**stamp(), "classes": CLASSES, "channels": CHANNELS, "longest": LONGEST, "accuracies": found}
    write_report(RESULTS / "delays.json", report)


if __name__ == "__main__":
    main()
