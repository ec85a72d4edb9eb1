"""Conversion of an ANN into a network of messages: sigma-delta neurons, which send changes of their activation.

A frame is shown until it has passed all layers; then the values are the ANN's but for the grids of weights and biases,
and the thresholds. Scales come first (`message_layers`), then one factor on all thresholds, the largest that loses at
most what is allowed; both are measured on images. A chain gets Lava's delays, a step for each layer. In a graph, skips
would arrive before what they are added to, and neurons would send each of the sums; so messages pass all layers in the
step in which they are sent, and a frame takes one step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches, count_synops
from bootstrap_core.data.splits import Split
from bootstrap_core.fixed_point import MANT
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.best_candidate import images_wanted
from converters.ann_to_snn.message_layers import (
    MOST_SUM,
    MOST_WEIGHT,
    RARELY,
    LayerScaler,
    Scaling,
    is_relay,
    message_layers,
    with_relays,
    without_rare_bounds,
)
from converters.ann_to_snn.onnx_conversion import Data, divided, drawn, imported_ann, loaded_data
from converters.ann_to_snn.spiking_layers import SpikingLayer
from converters.linear.ann import Ann, Conv, Dense
from converters.linear.image_normalization import Normalization
from converters.model import Model
from converters.onnx.import_ann import OnnxImport
from specs.errors import StateOverflowError
from specs.io import name_from, spec_from_document
from specs.summary import summarize
from specs.words import counted

MARGINS = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
"""Parts of the hardware's 24 bits that sums may take on the images of the calibration, to try in this order."""
RESERVE = 0.5
"""Part of a margin with which no state overflows that is used, since other images reach further."""
LEVELS = (255, 127, 63, 31, 15)
"""Largest pixels of the frames to try."""
GROWTHS = (1.0, 1.5, 2.0, 4.0, 8.0, 16.0)
"""Factors to try by which the largest sum of a layer is below that of the next."""
FACTORS = (0.0, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)
"""Thresholds to try, in root mean squares of a layer's activations."""
MOST_CHANGED = 0.002
"""Part of the judging images whose class may change; if the weights alone change more, that of the thresholds."""
MOST_ERROR = 0.01
"""Root mean square of the error of values, in standard deviations of the ANN's, that is allowed."""
BATCH, SCALING_IMAGES = 100, 256


@dataclass(frozen=True)
class MessageScore:
    """Figures of a network of messages on images.

    Attributes:
        accuracy: share of right classes, 0..1; None for values.
        agreement: share of the ANN's classes, 0..1; None for values.
        error: root mean square of the difference from the ANN's outputs, in standard deviations of those.
        messages: mean messages of each layer for a frame, input first.
        synops: mean synaptic operations of each layer for a frame.
    """

    accuracy: float | None
    agreement: float | None
    error: float
    messages: list[float]
    synops: list[float]

    def fits(self, exact: "MessageScore | None" = None) -> bool:
        """Return whether classes or values are close enough to the ANN's.

        If those of `exact`, with thresholds of 0, are not, classes may differ a little more than theirs.
        """
        if self.agreement is None:
            return self.error <= MOST_ERROR
        enough = 1 - MOST_CHANGED
        if exact is not None and exact.agreement is not None and exact.agreement < enough:
            enough = exact.agreement - MOST_CHANGED
        return self.agreement >= enough

    def is_better(self, other: "MessageScore") -> bool:
        """Return whether classes or values are closer to the ANN's."""
        if self.agreement is not None and other.agreement is not None:
            return self.agreement > other.agreement
        return self.error < other.error


@dataclass(frozen=True)
class MessageConversion:
    """Result of `import_messages`.

    Attributes:
        model: the network; its outputs are `output_scale` times the ANN's.
        imported: the ANN, its nodes, and the largest difference from the ONNX reference.
        levels: largest pixel of a frame, which stands for a pixel of 1.
        factor: thresholds, in root mean squares of the activations.
        ann: accuracy of the ANN on the test images; None for values, or without data.
        score: figures on the test images; None without data.
        multiplications: weights that the ANN multiplies for an image.
    """

    model: Model
    imported: OnnxImport
    levels: int
    output_scale: float
    factor: float
    ann: float | None
    score: MessageScore | None
    multiplications: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """All figures as JSON values."""
        score, spec = self.score, self.model.spec
        return {
            "nodes": self.imported.nodes,
            "import_max_abs_error": self.imported.max_abs_error,
            "neuron": "sigma-delta",
            "time_steps": spec.time_steps,
            "levels": self.levels,
            "output_scale": self.output_scale,
            "threshold_factor": self.factor,
            "accuracy": {"ann": self.ann, "messages": None if score is None else score.accuracy},
            "agreement": None if score is None else score.agreement,
            "error": None if score is None else score.error,
            "messages_per_frame": None if score is None else sum(score.messages),
            "synops_per_frame": None if score is None else sum(score.synops),
            "ann_multiplications": self.multiplications,
            "layers": [
                {"block": f"{i} {layer.kind}"}
                | ({} if score is None else {"messages": score.messages[i], "synops": score.synops[i]})
                for i, layer in enumerate(spec.layers)
            ],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def import_messages(
    path: str | Path,
    *,
    dataset: Data | None = None,
    validation: Data | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    seed: int = 0,
    on_imported: Callable[[Ann], object] = lambda ann: None,
    on_scaled: Callable[[Model], object] = lambda model: None,
    on_step: Callable[[str], object] = lambda text: None,
) -> MessageConversion:
    """Convert an ANN, any graph of linear maps and rectifiers, into a network of sigma-delta neurons.

    Arguments are those of `import_onnx`. `on_scaled` gets a first network, before scales and thresholds are chosen. An
    ANN with one output gives values, others classes. Without data, noise takes the place of images.

    Raises `StateOverflowError` if states do not fit.
    """
    start = time.perf_counter()
    path, imported = imported_ann(path, None)
    ann, notes = imported.ann, list(imported.notes)
    on_imported(ann)
    normalization = Normalization.of(mean, std)
    normalization.check(ann.shape)
    answers = AnnAnswers(ann, normalization)
    data, unseen = loaded_data(dataset, ann.shape), loaded_data(validation, ann.shape, "validation")
    by_labels = prod(ann.nodes[-1].shape) > 1
    if data is not None and (not by_labels or len(data.classes) == 1):
        data = answers.as_labels(data)
    learning, judging, judged_by = divided(answers, data, unseen, by_labels, seed)
    notes.append(f"thresholds judged by {judged_by}")
    images = drawn(learning, min(SCALING_IMAGES, images_wanted(ann)), seed)
    bounded = without_rare_bounds(ann, answers.taken(images.float() / 255))
    if n_left_out := sum(old is not new for old, new in zip(ann.nodes, bounded.nodes, strict=True)):
        notes.append(
            f"the upper bound of {counted(n_left_out, 'activation layer')} is left out: at most {RARELY:.1%} of the "
            "values of a layer reach it"
        )
    layers = message_layers(bounded, normalization)
    made = _Messages(layers, answers, images, path.stem, by_labels)
    on_scaled(made.model(0.0))
    on_step(f"choosing the scales of {len(layers)} layers")
    exact = made.choose(judging)
    if not exact.fits() and len(relayed := with_relays(layers)) > len(layers):
        on_step(f"choosing the scales of {len(relayed)} layers, some of which only scale activations down")
        other = _Messages(relayed, answers, images, path.stem, by_labels)
        if (found := other.choose(judging)).is_better(exact):
            made, exact = other, found
    on_step(f"choosing thresholds on {len(judging):,} images")
    factor = made.choose_factor(judging, exact)
    model = made.model(factor)
    score, accuracy = None, None
    if data is not None:
        on_step(f"scoring on {len(data.test):,} test images")
        accuracy = float(answers.right(data.test).double().mean()) if by_labels else None
        try:
            score = made.score(model, data.test)
        except StateOverflowError as error:  # no choice is made by test images
            notes.append(f"not scored: {error}")
    if score is not None and not by_labels and score.error > MOST_ERROR:
        notes.append(f"the values differ from the ANN's by {score.error:.1%} of their spread, as weights have 8 bits")
    levels, output_scale = made.scaling.levels, made.scaled.output_scale
    card: dict[str, Any] = {"source": path.name, "levels": levels, "output_scale": output_scale}
    if data is not None:
        card["data"] = data.name
    if output_scale != 1 and not by_labels:
        notes.append(f"the values are {output_scale:.4g} times the ANN's, so that states have 24 bits")
    notes.append(f"frames are pixels as integers from 0 to {levels}")
    return MessageConversion(
        model=replace(model, card={"conversion": card}, notes=tuple(notes)),
        imported=imported,
        levels=levels,
        output_scale=output_scale,
        factor=factor,
        ann=accuracy,
        score=score,
        multiplications=_multiplications(ann),
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
    )


class _Messages:
    """Layers, with the scales that were chosen, and images."""

    def __init__(
        self, layers: Sequence[SpikingLayer], answers: AnnAnswers, images: Tensor, name: str, by_labels: bool
    ) -> None:
        self.answers, self.by_labels, self.name = answers, by_labels, name_from(name)
        self.is_chain = all(layer.source == i and not layer.skips for i, layer in enumerate(layers))
        fitted = images[: (len(images) + 1) // 2]
        self.scaler, self.checked = LayerScaler(layers, fitted), images[len(fitted) :] if len(images) > 1 else fitted
        self.scaling = Scaling()
        self.scaled = self.scaler.scaled(self.scaling)

    def choose(self, judges: Split) -> MessageScore:
        """Choose all scales, with which states stay within 24 bits; return the figures at thresholds of 0.

        Raises `StateOverflowError` if a state leaves them with the least margin.
        """
        self._choose_scales()
        for margin in MARGINS:
            self.scaled = self.scaler.scaled(self.scaling._replace(margin=margin))
            try:
                self.score(self.model(0.0), judges)
                break
            except StateOverflowError:
                if margin == MARGINS[-1]:
                    raise
        self.scaling = self.scaling._replace(margin=margin * RESERVE)
        self.scaled = self.scaler.scaled(self.scaling)
        return self.score(self.model(0.0), judges)

    @torch.no_grad()
    def _choose_scales(self) -> None:
        """Choose growth, levels, and units, one after the other: those whose values are closest to the ANN's."""
        wanted = self.answers(self.checked.float() / 255)
        errors = dict[Scaling, float]()
        free: list[tuple[str, Sequence[Any]]] = [("growth", GROWTHS), ("levels", LEVELS)]
        for name, values in free if self.by_labels else [*free, ("in_units", (False, True))]:
            for scaling in [self.scaling._replace(**{name: value}) for value in values]:
                if scaling not in errors:
                    self.scaling, self.scaled = scaling, self.scaler.scaled(scaling)
                    found = self.model(0.0).build()(self._frames(self.checked, 1), Mode.ANN) / self.scaled.output_scale
                    error = float((found - wanted).square().mean())
                    errors[scaling] = error if self.scaled.most <= MOST_SUM else inf
            self.scaling = min(errors, key=lambda scaling: errors[scaling])

    def choose_factor(self, judges: Split, exact: MessageScore) -> float:
        """Return the largest factor of `FACTORS` that loses at most what is allowed; found by halving the list.

        Args:
            judges: images that judge.
            exact: figures at thresholds of 0.
        """
        low, high = 0, len(FACTORS)
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.score(self.model(FACTORS[middle]), judges).fits(exact)
            low, high = (middle, high) if fits else (low, middle)
        return FACTORS[low]

    def model(self, factor: float) -> Model:
        """Return the network with thresholds of `factor` root mean squares of the activations."""
        layers, (root, *sizes) = self.scaled.layers, self.scaled.sizes
        entering: dict[str, Any] = {"shape": list(layers[0].before), "encoding": "frames"}
        entering |= {"bits": self.scaling.levels.bit_length() + 1, "neuron": _neuron(factor * root)}
        blocks, tensors, places = list[dict[str, Any]](), dict[str, Tensor](), [0]
        for layer, size in zip(layers, sizes, strict=True):
            source: dict[str, Any] = {"source": places[layer.source]} if places[layer.source] != len(blocks) else {}
            if layer.flattens:
                blocks.append({"kind": "flatten"} | source)
                source = {}
            block = layer.document([skip.document(places[skip.source]) for skip in layer.skips]) | source
            if layer.activation is not None:
                block["neuron"] = _neuron(0.0 if is_relay(layer) else factor * size)
            blocks.append(block)
            place = f"blocks.{len(blocks)}"
            tensors |= {
                f"{place}.bias": layer.linear.bias.float(),
                f"{place}.synapse.weight": layer.linear.weight.float(),
            }
            for k, skip in enumerate(layer.skips):
                weight = skip.linear.weight if skip.diagonal is None else skip.diagonal
                tensors[f"{place}.skips.{k}.weight"] = weight.float()
            places.append(len(blocks))
        if self.is_chain and [block["kind"] for block in blocks[-2:]] == ["dense", "affine"]:
            _move_last_bias(blocks, tensors)
        document = {
            "name": self.name, "time_steps": len(layers) + 1 if self.is_chain else 1, "neuron": _neuron(0.0),
            "delay_shift": self.is_chain, "input": entering, "blocks": blocks,
        }  # fmt: skip
        spec = spec_from_document(document, origin=self.name)
        return Model(spec, build_network(spec, seed=0).state_dict() | tensors)

    @torch.no_grad()
    def score(self, model: Model, split: Split) -> MessageScore:
        """Return the figures of a network on images, each shown until it has passed all layers."""
        network, spec = IntegerNetwork(model.build()), model.spec
        counts = [torch.zeros(shape, dtype=torch.int64) for shape in spec.shapes]
        outputs = list[Tensor]()
        for images, _ in batches(split, BATCH):
            found, tally = network.tally(self._frames(images, spec.time_steps))
            outputs.append(found)
            for total, count in zip(counts, tally.counts, strict=True):
                total += 0 if count is None else count.reshape(total.shape)
        answers, n = torch.cat(outputs) / self.scaled.output_scale, len(split)
        wanted = self.answers.logits(split)
        right, same = (
            float((answers.argmax(1) == classes).double().mean()) if self.by_labels else None
            for classes in (split.labels, wanted.argmax(1))
        )
        error = float((answers - wanted).square().mean().sqrt() / wanted.std().clamp_min(1e-12))
        sends = [row.kind != "flatten" for row in summarize(spec)]
        messages = [float(count.sum()) / n if sent else 0.0 for count, sent in zip(counts, sends, strict=True)]
        return MessageScore(right, same, error, messages, [synops / n for synops in count_synops(spec, counts)])

    def _frames(self, images: Tensor, steps: int) -> Tensor:
        """Return images, uint8 `[N, ...]`, as frames `[T, N, ...]`."""
        levels = (images.double() * (self.scaling.levels / 255)).round().int()
        levels = levels.reshape(len(images), *self.scaled.layers[0].before)
        return levels.expand(steps, *levels.shape)


def _move_last_bias(blocks: list[dict[str, Any]], tensors: dict[str, Tensor]) -> None:
    """Give the layer before the readout a neuron of constant activation, which stands for the readout's bias.

    netx has no bias in a readout of values.
    """
    dense, readout = (f"blocks.{len(blocks) - i}" for i in (1, 0))
    bias = tensors.pop(f"{readout}.bias")
    least = max(float(bias.abs().max()) / MOST_WEIGHT, blocks[-2]["neuron"]["threshold"], 1 / MANT)
    constant = ceil(least * MANT) / MANT
    weight = tensors[f"{dense}.synapse.weight"]
    tensors |= {
        f"{dense}.synapse.weight": torch.cat([weight, weight.new_zeros(1, weight.shape[1])]),
        f"{dense}.bias": torch.cat([tensors[f"{dense}.bias"], bias.new_tensor([constant])]),
        f"{readout}.synapse.weight": torch.cat([tensors[f"{readout}.synapse.weight"], bias[:, None] / constant], 1),
    }
    blocks[-2]["features"] += 1
    blocks[-1]["bias"] = False


def _neuron(threshold: float) -> dict[str, Any]:
    return {"kind": "sigma_delta", "threshold": int(threshold * MANT) / MANT}


def _multiplications(ann: Ann) -> int:
    """Return the number of multiplications of the ANN for an image."""
    return sum(
        prod(node.shape[1:]) * node.operation.weight.numel()
        for node in ann.nodes
        if isinstance(node.operation, Conv | Dense)
    )
