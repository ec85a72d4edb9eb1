"""An ANN beside the spiking network made of it, on the same images."""

import time
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches
from bootstrap_core.data.datasets import Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.ann_to_snn.ann import Ann, Conv, Dense, run_ann
from converters.ann_to_snn.onnx_conversion import OnnxConversion, ann_input
from converters.ann_to_snn.spiking_layers import activations_first
from converters.report.energy import EnergyEstimate, estimate_energy
from converters.report.network_figures import (
    BATCH,
    Example,
    NetworkFigures,
    measure_network,
    pick_examples,
    run_examples,
)
from specs.block import has_neurons

__all__ = ["ConversionFigures", "correlation", "count_macs", "layer_correlations", "measure_conversion"]

ROUNDING = 1e-12
"""Part of a sum of squares that rounding leaves where nothing varies."""


@dataclass(frozen=True, eq=False)
class ConversionFigures:
    """What a page shows of a conversion with data.

    Attributes:
        network: the spiking network by itself.
        ann_accuracy: on the same images as `network.by_steps`.
        agreement: part of them to which both give one answer.
        correlations: for each layer, of the ANN's activations with the rates; None where there is nothing to compare.
        macs: multiplications and additions of the ANN for an image.
        energy: estimates for an image.
        examples: images with what the SNN makes of them, and the ANN's logits.
        seconds: what measuring took.
    """

    network: NetworkFigures
    ann_accuracy: float
    agreement: float
    correlations: tuple[float | None, ...]
    macs: int
    energy: list[EnergyEstimate]
    examples: list[tuple[Example, Tensor]]
    seconds: float

    def layers_as_json(self) -> list[dict[str, float | int | None]]:
        """For each layer what JSON has of it beside the conversion's own figures."""
        return [
            {"dead": layer.dead, "correlation": r}
            for layer, r in zip(self.network.layers, self.correlations, strict=True)
        ]


def measure_conversion(conversion: OnnxConversion) -> ConversionFigures | None:
    """Run both programs on test images; None without data, or if a state leaves 24 bits."""
    accuracy = (conversion.tuned or conversion.converted).get(conversion.spec.time_steps)
    if conversion.dataset is None or conversion.score is None or conversion.score.synops is None or accuracy is None:
        return None
    start = time.perf_counter()
    exact = IntegerNetwork(conversion.model.build())
    network = measure_network(exact, conversion.dataset, conversion.score)
    ann, normalization = conversion.imported.ann, conversion.normalization
    with torch.no_grad():
        logits = torch.cat(
            [
                run_ann(ann, ann_input(ann, images.float() / 255, normalization))[0]
                for images, _ in batches(network.scored, BATCH)
            ]
        )
    answers, spiking_answers = logits.argmax(1), network.logits.argmax(1)
    differ = answers != spiking_answers
    picked = pick_examples(network.scored.labels, differ)
    macs = count_macs(ann)
    return ConversionFigures(
        network=network,
        ann_accuracy=float((answers == network.scored.labels).double().mean()),
        agreement=1 - float(differ.double().mean()),
        correlations=tuple(layer_correlations(conversion, exact, network.watched)),
        macs=macs,
        energy=estimate_energy(exact.spec, conversion.score.synops, macs),
        examples=list(zip(run_examples(exact, network.scored, picked), logits[picked], strict=True)),
        seconds=time.perf_counter() - start,
    )


def count_macs(ann: Ann) -> int:
    """Multiplications of weights with inputs for one image, each with its addition; padding counts."""
    total = 0
    for node in ann.nodes:
        match node.operation:
            case Dense(weight):
                total += weight.numel()
            case Conv(weight):
                total += weight.numel() * prod(node.shape[1:])
    return total


@torch.no_grad()
def layer_correlations(conversion: OnnxConversion, exact: IntegerNetwork, split: Split) -> list[float | None]:
    """For each layer, input first, how the ANN's activations and the rates that stand for them correlate."""
    ann = activations_first(conversion.imported.ann)
    layers = exact.spec.layers
    sources = dict(zip(conversion.candidate.blocks, conversion.candidate.layers, strict=True))
    scales = {found.block: found.scale for found in conversion.candidate.calibrations}
    moments, scale = torch.zeros(len(layers), 6, dtype=torch.float64), torch.ones(1)
    for images, _ in batches(split, BATCH):
        rates = exact.rates(images)
        _, values = run_ann(ann, ann_input(ann, images.float() / 255, conversion.normalization), keep=True)
        if has_neurons(layers[0]):
            moments[0] += _moments(images, rates[0])
        for i, source in sources.items():
            output, found = values[source.target], rates[i]
            if source.activation is not None:
                output = source.wanted(output)
                scale = scales.get(i, scale)  # neurons for any of a window stand for what those in it do
                found = found * scale.reshape(-1, *[1] * (found.dim() - 2))
            moments[i] += _moments(output, found)
    return [correlation(row) for row in moments]


def _moments(x: Tensor, y: Tensor) -> Tensor:
    """Number, sums, sums of squares and of products of two tensors with as many elements, float64 `[6]`."""
    x, y = x.double().flatten(), y.double().flatten()
    return torch.stack([torch.tensor(float(len(x))).double(), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def correlation(moments: Tensor) -> float | None:
    """Pearson's, of summed moments `[n, sum x, sum y, sum x^2, sum y^2, sum x y]`; None where one does not vary."""
    n, x, y, xx, yy, xy = moments.tolist()
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= ROUNDING * n * xx or spread_y <= ROUNDING * n * yy:
        return None
    return float((n * xy - x * y) / (spread_x * spread_y) ** 0.5)
