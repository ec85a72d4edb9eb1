"""Estimate the cost of tuning a network of ImageNet's size: `python tests/benchmarks/estimate_cluster.py`.

Divides the counts of `specs.summary` for ResNet-50 by the figures of a GPU; writes `results/estimate.json`. None of
these figures is measured: no network of this size has been converted.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specs import NetworkSpec, summarize

RESULT = Path(__file__).parent / "results" / "estimate.json"
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and first stride of ResNet-50's stages: He et al., "Deep Residual Learning", 2015, table 1."""


@dataclass(frozen=True)
class Assumed:
    """Assumptions of the estimate.

    Products are float32, as in `functional/`; a training step takes three times the products of a forward pass. Neurons
    run as elementwise operations on float64 states, limited by memory bandwidth: forward and backward pass together
    read and write `neuron_bytes` for each neuron and step; `kept_bytes` stay in memory between the two passes.
    """

    gpu: str = "A100, 80 GB"
    products_per_second: float = 19.5e12 / 2
    part_of_peak: float = 0.5
    bytes_per_second: float = 2.0e12
    neuron_bytes: float = 500.0
    kept_bytes: float = 16.0
    memory_bytes: float = 60e9
    network_bytes_per_second: float = 3e9
    dollars_per_hour: float = 2.0
    images: int = 1_281_167
    image_bytes: int = 3 * 224 * 224
    epochs: int = 2


def resnet50(time_steps: int) -> NetworkSpec:
    """Return ResNet-50 as a spec, with average pools in place of max pools, and projections as skips."""
    blocks: list[dict[str, Any]] = [
        {"kind": "conv", "channels": 64, "kernel": 7, "stride": 2, "padding": 3, "bias": True},
        {"kind": "avg_pool", "kernel": 3, "stride": 2, "padding": 1},
    ]
    for width, n, stride in STAGES:
        for i in range(n):
            first = i == 0
            step = stride if first else 1
            skip: dict[str, Any] = {"source": len(blocks), "kind": "conv" if first else "identity"}
            if first:
                skip["stride"] = step
            blocks += [
                {"kind": "conv", "channels": width, "kernel": 1, "bias": True},
                {"kind": "conv", "channels": width, "kernel": 3, "stride": step, "padding": 1, "bias": True},
                {"kind": "conv", "channels": 4 * width, "kernel": 1, "bias": True, "skips": [skip]},
            ]
    blocks += [{"kind": "avg_pool", "kernel": 7}, {"kind": "flatten"}, {"kind": "affine", "features": 1000}]
    document = {
        "name": "resnet50",
        "time_steps": time_steps,
        "neuron": {"threshold": 1.0, "voltage_decay": 0.0},
        "input": {"shape": [3, 224, 224], "encoding": "graded"},
        "blocks": blocks,
    }
    return NetworkSpec.model_validate(document)


def estimate(time_steps: int, gpus: int, assumed: Assumed) -> dict[str, float]:
    """Return hours and dollars of tuning at T on `gpus` GPUs, and the batch that fits one of them."""
    rows = summarize(resnet50(time_steps))
    products = sum(row.synops for row in rows) * time_steps
    neuron_steps = sum(row.shape[0] * (row.shape[1] * row.shape[2] if len(row.shape) == 3 else 1) for row in rows)
    neuron_steps *= time_steps
    seconds = 3 * products / (assumed.products_per_second * assumed.part_of_peak)
    seconds += neuron_steps * assumed.neuron_bytes / assumed.bytes_per_second
    batch = int(assumed.memory_bytes / (neuron_steps * assumed.kept_bytes))
    gradient_bytes = 4 * sum(row.parameters for row in rows)
    meeting = 2 * (gpus - 1) / gpus * gradient_bytes / assumed.network_bytes_per_second
    steps = assumed.epochs * assumed.images / (batch * gpus)
    hours = steps * (batch * seconds + meeting) / 3600
    return {
        "time_steps": time_steps,
        "gpus": gpus,
        "batch": batch,
        "hours": round(hours, 2),
        "meeting_part": round(meeting / (batch * seconds + meeting), 4),
        "dollars": round(hours * gpus * assumed.dollars_per_hour),
    }


def report() -> dict[str, Any]:
    """Return the estimates with their assumptions."""
    assumed = Assumed()
    rows = summarize(resnet50(1))
    return {
        "assumed": asdict(assumed),
        "products": sum(row.synops for row in rows),
        "parameters": sum(row.parameters for row in rows),
        "rows": [estimate(t, gpus, assumed) for t in (4, 16) for gpus in (1, 8, 32)],
    }


if __name__ == "__main__":
    RESULT.write_text(json.dumps(report(), indent=1) + "\n", "utf-8")
