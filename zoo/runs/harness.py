"""Figures of NeuroBench's own harness for a network, beside ours.

The harness hooks layers of torch, so the network runs as `PlainNetwork`. Its spikes are compared with those of the
engine, neuron by neuron. Source: J. Yik et al., Nature Communications 16, 1545, 2025; the package neurobench.
"""

from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch.utils.data import DataLoader

from bootstrap_core.analysis.evaluation import effective_operations
from bootstrap_core.analysis.plain_layers import Neurons, PlainNetwork
from bootstrap_core.data.splits import Split
from bootstrap_core.network.network import Network
from bootstrap_core.tasks.evaluation import Evaluation
from specs.errors import SnnZooError
from specs.summary import summarize

BATCH = 100
"""Images at a time: the harness keeps the inputs of all layers and steps of a batch."""


@dataclass(frozen=True)
class HarnessFigure:
    """A figure of the harness and ours; `note` says why they differ, and is empty if they are equal."""

    name: str
    theirs: float
    ours: float
    note: str


def measure_with_harness(network: Network, split: Split, score: Evaluation) -> list[HarnessFigure]:
    """Run NeuroBench's harness on a network, as SNN at its T.

    Args:
        score: our scores of the same images, at the same T.

    Raises:
        UnsupportedError: plain layers cannot hold the network.
        SnnZooError: neurobench is not installed, or a metric fails in it, or its run gave other spikes than `score`.
    """
    check_harness()
    plain = PlainNetwork(network)
    found = _run(plain, split)
    for i, counts in plain.counts.items():
        ours = score.counts[i]
        if (differing := int((counts.reshape(ours.shape) != ours).sum())) > 0:
            raise SnnZooError(
                f"{network.spec.title_of(i)}: {differing:,} of {ours.numel():,} neurons spike another number of times "
                "in plain layers than in the engine; NeuroBench's figures would be of another network"
            )
    return compare(network, score, found)


def compare(network: Network, score: Evaluation, found: dict[str, Any]) -> list[HarnessFigure]:
    """Return the harness's results `found` beside ours, with the reason where they differ."""
    spec, n = network.spec, score.n_images
    rows = summarize(spec)
    weights = [weight for i in range(len(network.blocks)) for _, weight in network.block(i).synapses()]
    n_weights = sum(weight.numel() for weight in weights)
    neurons = [count for layer, count in zip(spec.layers, score.counts, strict=True) if layer.has_neurons]
    n_sent = n * score.time_steps * sum(count.numel() for count in neurons)
    operations = effective_operations(network, score.counts)
    macs = operations[1] if spec.input.is_graded else 0.0
    ours = {
        "footprint, bytes": sum(row.weight_bytes for row in rows),
        "connection sparsity": sum(int((weight == 0).sum()) for weight in weights) / n_weights,
        "activation sparsity": 1 - sum(int(count.sum()) for count in neurons) / n_sent,
        "effective ACs": (sum(operations) - macs) / n,
        "effective MACs": macs / n,
        "dense operations": score.time_steps * sum(row.synops for row in rows),
        "accuracy": score.accuracy,
    }
    operations_there = found["SynapticOperations"]
    theirs = {
        "footprint, bytes": found["Footprint"],
        "connection sparsity": found["ConnectionSparsity"],
        "activation sparsity": found["ActivationSparsity"],
        "effective ACs": operations_there["Effective_ACs"],
        "effective MACs": operations_there["Effective_MACs"],
        "dense operations": operations_there["Dense"],
        "accuracy": found["ClassificationAccuracy"],
    }
    return [
        HarnessFigure(name, float(theirs[name]), float(ours[name]), _note(name, theirs[name], ours[name]))
        for name in ours
    ]


READS_TENSORS = "NeuroBench takes an input for spikes if a batch holds only 0 and 1 in a time step; we ask the spec."
NOTES = {
    "footprint, bytes": "NeuroBench adds biases, decays and thresholds (2 to 4 bytes each) to the 8-bit weights, which "
    "are ours. Neither counts states.",
    "connection sparsity": "NeuroBench rounds to 4 digits.",
    "effective ACs": READS_TENSORS,
    "effective MACs": READS_TENSORS,
}
"""Reasons for differences."""
UNKNOWN = "This difference has no known reason: please report it."
ROUNDING = {"activation sparsity": 1e-9, "accuracy": 1e-6}
"""Differences that come from rounding alone: the harness adds up means of batches."""


def _note(name: str, theirs: float, ours: float) -> str:
    if abs(theirs - ours) <= ROUNDING.get(name, 0):
        return ""
    return NOTES.get(name, UNKNOWN)


def harness_version() -> str:
    """Return the version of neurobench."""
    return version("neurobench")


def check_harness() -> None:
    """Raise `SnnZooError` unless neurobench is installed."""
    try:
        import neurobench.benchmarks  # noqa: F401
    except ImportError as error:
        raise SnnZooError(f"--neurobench needs neurobench 2 ({error}): pip install 'snnzoo[neurobench]'") from None


def _run(plain: PlainNetwork, split: Split) -> dict[str, Any]:
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, ClassificationAccuracy, SynapticOperations
    from neurobench.models import TorchModel

    model = TorchModel(plain)
    model.add_activation_module(Neurons)
    workload = [ActivationSparsity, SynapticOperations, ClassificationAccuracy]
    loader = DataLoader[Any](split, batch_size=BATCH)  # type: ignore[arg-type] # torch takes any sequence
    benchmark = Benchmark(
        model, loader, [], [partial(torch.argmax, dim=1)], [[Footprint, ConnectionSparsity], workload]
    )
    found: dict[str, Any] = benchmark.run(quiet=True)
    if not isinstance(found["SynapticOperations"], dict):  # the harness prints errors of a metric, and gives 0.0
        raise SnnZooError("a metric of NeuroBench failed; run zoo eval again without --neurobench")
    return found
