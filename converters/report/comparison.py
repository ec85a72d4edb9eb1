"""Comparison of an ANN with the spiking network made from it, on the same images."""

import time
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches
from bootstrap_core.data.splits import Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.inputs import as_input
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.onnx_conversion import OnnxConversion
from converters.ann_to_snn.spiking_layers import prepared
from converters.linear.ann import Ann, run_ann
from converters.linear.linear_fold import Conv, Dense
from converters.report.energy import EnergyEstimate, estimate_energy
from converters.report.network_figures import (
    BATCH,
    Example,
    NetworkFigures,
    measure_network,
    pick_examples,
    run_examples,
)
from specs.layers.block import has_neurons

ROUNDING = 1e-12
"""Spread, relative to the sum of squares, up to which values count as constant: rounding errors."""


@dataclass(frozen=True, eq=False)
class ConversionFigures:
    """Figures for the report of a conversion with data.

    Attributes:
        ann_accuracy: accuracy of the ANN on the images of `network.by_steps`, 0..1.
        agreement: part of these images to which both give the same answer, 0..1.
        correlations: for each layer, correlation of the ANN's activations with the rates; None if it is not defined.
        macs: multiply-accumulate operations of the ANN for one image.
        energy: energy estimates for one image.
        examples: images with the SNN's response, and the ANN's logits.
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
        """Return for each layer the figures that are not in `OnnxConversion.report`, as JSON values."""
        return [
            {"dead": layer.dead, "correlation": r}
            for layer, r in zip(self.network.layers, self.correlations, strict=True)
        ]


def measure_conversion(conversion: OnnxConversion) -> ConversionFigures | None:
    """Run ANN and SNN on test images; return None without data, or if a state leaves 24 bits."""
    accuracy = (conversion.tuned or conversion.converted).get(conversion.spec.time_steps)
    if conversion.dataset is None or conversion.score is None or conversion.score.synops is None or accuracy is None:
        return None
    start = time.perf_counter()
    exact = IntegerNetwork(conversion.model.build())
    network = measure_network(exact, conversion.dataset, conversion.score)
    ann = conversion.imported.ann
    logits = AnnAnswers(ann, conversion.normalization).logits(network.scored)
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
    """Return the multiply-accumulate operations of weights and inputs for one image; those on padding count."""
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
    """Return for each layer, input first, the correlation of the ANN's activations with the rates for them."""
    answers = AnnAnswers(prepared(conversion.imported.ann, conversion.candidate.max_pooling), conversion.normalization)
    layers = exact.spec.layers
    sources = dict(zip(conversion.candidate.blocks, conversion.candidate.layers, strict=True))
    scales = {found.block: found.scale for found in conversion.candidate.calibrations}
    moments, scale = torch.zeros(len(layers), 6, dtype=torch.float64), torch.ones(1)
    for images, _ in batches(split, BATCH):
        rates = exact.rates(images)
        _, values = run_ann(answers.ann, answers.taken(images.float() / 255), keep=True)
        if has_neurons(layers[0]):
            moments[0] += _moments(as_input(images, exact.spec), rates[0])
        for i, source in sources.items():
            output, found = values[source.target], rates[i]
            if source.activation is not None:
                output = source.wanted(output)
                scale = scales.get(i, scale)  # an `any` pool has the scale of what it reads
                found = found * scale.reshape(-1, *[1] * (found.dim() - 2))
            moments[i] += _moments(output, found)
    return [correlation(row) for row in moments]


def _moments(x: Tensor, y: Tensor) -> Tensor:
    """Return count, sums, sums of squares and of products of two tensors of equal size, float64 `[6]`."""
    x, y = x.double().flatten(), y.double().flatten()
    return torch.stack([torch.tensor(float(len(x))).double(), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def correlation(moments: Tensor) -> float | None:
    """Return Pearson's correlation; None if x or y is constant.

    Args:
        moments: summed moments `[n, sum x, sum y, sum x^2, sum y^2, sum x y]`.
    """
    n, x, y, xx, yy, xy = moments.tolist()
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= ROUNDING * n * xx or spread_y <= ROUNDING * n * yy:
        return None
    return float((n * xy - x * y) / (spread_x * spread_y) ** 0.5)
