"""Conversion of an ANN into a network of messages: sigma-delta neurons, which send changes of their activation.

A frame is shown until it has passed all layers; then the values are the ANN's but for the grids of weights and biases,
and the thresholds. Three things are measured on images: the scale of each layer (weights have 8 bits and states 24, so
that a layer's weights and activations cannot both be large), and one factor on all thresholds, the largest that loses
at most what is allowed. Networks of messages are chains: residual sums are refused.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches, count_synops
from bootstrap_core.data.splits import Split
from bootstrap_core.fixed_point import BIAS_MANT_MAX, MANT, SIGMA, STATE_MAX, WEIGHT_INT_MAX, WEIGHT_STEP
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.best_candidate import images_wanted
from converters.ann_to_snn.onnx_conversion import Data, divided, drawn, imported_ann, loaded_data
from converters.ann_to_snn.spiking_layers import MaxPooling, SpikingLayer, activations_first, spiking_layers
from converters.linear.ann import Ann, Conv, Dense, MaxPool, Node, Relu, apply_operation
from converters.linear.image_normalization import Normalization
from converters.linear.linear_fold import scale_inputs, scale_outputs
from converters.model import Model
from converters.onnx.import_ann import OnnxImport
from specs.errors import StateOverflowError, UnsupportedError
from specs.io import name_from, spec_from_document
from specs.summary import summarize

MOST_WEIGHT, MOST_BIAS = WEIGHT_INT_MAX * WEIGHT_STEP, BIAS_MANT_MAX / MANT
MARGINS = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
"""Parts of the hardware's 24 bits that activations may take on the images of the calibration, to try in this order."""
RESERVE = 0.5
"""Part of a margin with which no state overflows that is used, since other images reach further."""
LEVELS = (255, 127, 63, 31, 15)
"""Largest pixels of the frames to try."""
GROWTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Factors to try by which the largest activation of a layer is below that of the next."""
FACTORS = (0.0, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)
"""Thresholds to try, in root mean squares of a layer's activations."""
MOST_CHANGED = 0.002
"""Part of the images that judge whose class may change; the loss of accuracy is at most that."""
MOST_ERROR = 0.01
"""Root mean square of the error of values, in standard deviations of the ANN's, that is allowed."""
BATCH, SCALING_IMAGES = 100, 128


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
    on_step: Callable[[str], object] = lambda text: None,
) -> MessageConversion:
    """Convert an ANN, a chain of layers with rectifiers, into a network of sigma-delta neurons.

    Arguments are those of `import_onnx`. An ANN with one output gives values, others classes. Without data, noise takes
    the place of images.

    Raises `UnsupportedError` for an ANN with branches, and for a layer that the hardware's ranges cannot hold.
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
    layers = chain_of(ann, normalization)
    images = drawn(learning, min(SCALING_IMAGES, images_wanted(ann)), seed)
    made = _Messages(layers, answers, images, path.stem, by_labels)
    on_step("choosing the scales of all layers")
    made.choose_margin(judging)
    on_step(f"choosing thresholds on {len(judging):,} images")
    factor = made.choose_factor(judging)
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
    card: dict[str, Any] = {"source": path.name, "levels": made.levels, "output_scale": made.output_scale}
    if data is not None:
        card["data"] = data.name
    if made.output_scale != 1 and not by_labels:
        notes.append(f"the values are {made.output_scale:.4g} times the ANN's, so that states have 24 bits")
    notes.append(f"frames are pixels as integers from 0 to {made.levels}")
    return MessageConversion(
        model=replace(model, card={"conversion": card}, notes=tuple(notes)),
        imported=imported,
        levels=made.levels,
        output_scale=made.output_scale,
        factor=factor,
        ann=accuracy,
        score=score,
        multiplications=_multiplications(ann),
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
    )


def chain_of(ann: Ann, normalization: Normalization) -> list[SpikingLayer]:
    """Return the layers of a chain, which take pixels in 0..1; raise `UnsupportedError` for any other ANN."""
    with_maxima = _with_maxima_in_pairs(activations_first(ann))
    layers = spiking_layers(with_maxima, MaxPooling.ERROR, narrow=0)
    for i, layer in enumerate(layers):
        if layer.skips or layer.source != i:
            raise UnsupportedError(f"node {layer.target} reads several layers: networks of messages are chains")
        if layer.activation is not None and hasattr(layer.activation, "high"):
            raise UnsupportedError(f"node {layer.target} has an upper bound, and sigma-delta neurons have none")
    first, taken = layers[0], ann.normalization.after(normalization)
    means, stds = taken.each(first.before[0])
    if isinstance(first.linear, Conv) and any(first.linear.padding) and bool(means.any()):
        raise UnsupportedError(f"node {first.target} pads images whose black is not 0: needs --mean 0, or no padding")
    linear = scale_inputs(first.linear, 1 / stds)
    bias = linear.bias - scale_inputs(linear, means).weight.flatten(1).sum(1)
    return [replace(first, linear=replace(linear, bias=bias)), *layers[1:]]


def _with_maxima_in_pairs(ann: Ann) -> Ann:
    """Replace max pools of rectified maps: `max(a, b) = relu(a - b) + relu(b)`, pair by pair, as layers of a chain."""
    shapes, nodes = {node.name: node for node in ann.nodes}, list[Node]()
    for node in ann.nodes:
        if not isinstance(node.operation, MaxPool):
            nodes.append(node)
            continue
        pool, source, channels = node.operation, shapes.get(node.inputs[0]), node.shape[0]
        if source is None or not isinstance(source.operation, Relu):
            raise UnsupportedError(f"{node.place}: messages need a ReLU before a max pool")
        merge, name = torch.eye(prod(pool.kernel)), node.inputs[0]
        kernel, stride, padding = pool.kernel, pool.stride, pool.padding
        while len(merge) > 1:
            pairs = torch.arange(len(merge)).split(2)
            rows = [[merge[p[0]] - merge[p[1]], merge[p[1]]] if len(p) > 1 else [merge[p[0]]] for p in pairs]
            each = torch.stack([row for pair in rows for row in pair])  # [neurons, places of the kernel, or neurons]
            weight = each.repeat(channels, 1).reshape(-1, 1, *kernel) if kernel != (1, 1) else each.repeat(channels, 1)
            weight = weight if weight.dim() == 4 else weight[:, :, None, None]
            shape = (channels * len(each), *node.shape[1:])
            conv = Conv(weight, torch.zeros(len(weight)), stride, padding, groups=channels)
            nodes.append(Node(f"{node.name}, differences of {len(merge)}", conv, (name,), shape))
            nodes.append(Node(f"{node.name}, of {len(merge)}", Relu(), (nodes[-1].name,), shape))
            name, kernel, stride, padding = nodes[-1].name, (1, 1), (1, 1), (0, 0)
            merge = torch.zeros(len(pairs), len(each))
            column = 0
            for k, pair in enumerate(rows):
                merge[k, column : column + len(pair)] = 1
                column += len(pair)
        weight = merge.repeat(channels, 1)[:, :, None, None]
        nodes.append(Node(node.name, Conv(weight, torch.zeros(channels), groups=channels), (name,), node.shape))
    return replace(ann, nodes=tuple(nodes))


class _Messages:
    """Layers of a chain, images, and the scale of each layer."""

    def __init__(
        self, layers: Sequence[SpikingLayer], answers: AnnAnswers, images: Tensor, name: str, by_labels: bool
    ) -> None:
        self.layers, self.answers, self.images, self.by_labels = list(layers), answers, images, by_labels
        self.name = name_from(name)
        self.wanted = answers(images.float() / 255).detach()
        self.reach, self.size = list[Tensor](), list[Tensor]()  # of each channel: largest sum; mean square of outputs
        x = images.reshape(len(images), *layers[0].before).double() / 255
        self.pixels = float(x.square().mean().sqrt())
        for layer in layers:
            x = apply_operation(layer.linear, x.flatten(1) if layer.flattens else x)
            self.reach.append(x.abs().transpose(0, 1).flatten(1).amax(1).clamp_min(1e-9))
            x = x if layer.activation is None else x.relu()
            self.size.append(x.square().transpose(0, 1).flatten(1).mean(1))
        self.levels, self.growth, self.output_scale, self.margin = LEVELS[0], 1.0, 1.0, MARGINS[0]
        self.in_units = False

    def choose_margin(self, judges: Split) -> None:
        """Choose scales with which states stay within 24 bits, and some way below.

        Raises `StateOverflowError` if they do not with the least margin.
        """
        for self.margin in MARGINS:
            self.choose_scales()
            try:
                self.score(self.model(0.0), judges)
                break
            except StateOverflowError:
                if self.margin == MARGINS[-1]:
                    raise
        self.margin *= RESERVE
        self.choose_scales()

    @torch.no_grad()
    def choose_scales(self) -> None:
        """Choose levels and growth with which the values, at thresholds of 0, are closest to the ANN's."""
        errors = dict[tuple[int, float, bool], float]()
        units = (False,) if self.by_labels else (True, False)
        for self.levels, self.growth, self.in_units in product(LEVELS, GROWTHS, units):
            model = self.model(0.0)
            found = model.build()(self._frames(self.images, 1), Mode.ANN) / self.output_scale
            errors[self.levels, self.growth, self.in_units] = float((found - self.wanted).square().mean())
        self.levels, self.growth, self.in_units = min(errors, key=lambda key: errors[key])

    def choose_factor(self, judges: Split) -> float:
        """Return the largest factor of `FACTORS` that loses at most what is allowed; found by halving the list."""
        low, high = 0, len(FACTORS)
        while high - low > 1:
            middle = (low + high) // 2
            found = self.score(self.model(FACTORS[middle]), judges)
            fits = found.error <= MOST_ERROR if found.agreement is None else found.agreement >= 1 - MOST_CHANGED
            low, high = (middle, high) if fits else (low, middle)
        return FACTORS[low]

    def model(self, factor: float) -> Model:
        """Return the network with these thresholds, and set `output_scale`."""
        before = torch.tensor([self.levels / MANT], dtype=torch.float64)
        root = float(before) * self.pixels
        entering = {"shape": list(self.layers[0].before), "encoding": "frames", "bits": self.levels.bit_length() + 1}
        entering["neuron"] = _neuron(factor * root)
        blocks, tensors = list[dict[str, Any]](), dict[str, Tensor]()
        for i, (layer, reach, size) in enumerate(zip(self.layers, self.reach, self.size, strict=True)):
            if layer.flattens:
                blocks.append({"kind": "flatten"})
            factors = 1 / before if i else (1 / before).expand(layer.before[0])
            linear = scale_inputs(layer.linear, factors)
            most = self.margin * STATE_MAX / SIGMA / self.growth ** sum(map(_rounds, self.layers[i + 1 :]))
            weights = linear.weight.flatten(1).abs().amax(1).clamp_min(1e-9)
            scale = torch.minimum(MOST_WEIGHT / weights, most / reach)
            scale = torch.minimum(scale, MOST_BIAS / linear.bias.abs().clamp_min(1e-9))
            if not _rounds(layer):
                scale = before.reshape(linear.groups, -1)[:, 0].repeat_interleave(len(scale) // linear.groups)
            if layer.activation is None:
                scale = scale.min().expand(len(scale))
                if self.in_units and float(scale[0]) >= 1:
                    scale = torch.ones_like(scale)
                self.output_scale = float(scale[0])
            linear = scale_outputs(linear, scale)
            place = len(blocks) + 1
            tensors |= {
                f"blocks.{place}.synapse.weight": linear.weight.float(),
                f"blocks.{place}.bias": linear.bias.float(),
            }
            block: dict[str, Any] = {"bias": True}
            if isinstance(linear, Dense):
                block |= {"kind": "dense" if layer.activation else "affine", "features": len(linear.weight)}
            else:
                block |= {"kind": "conv", "channels": len(linear.weight), "groups": linear.groups}
                block |= {key: list(getattr(linear, key)) for key in ("kernel", "stride", "padding", "dilation")}
            if layer.activation is not None:
                block["neuron"] = _neuron(factor * float((size * scale.square()).mean().sqrt()))
            blocks.append(block)
            before = scale
        if blocks[-2:] and [block["kind"] for block in blocks[-2:]] == ["dense", "affine"]:
            _move_last_bias(blocks, tensors)
        document = {
            "name": self.name, "time_steps": len(self.layers) + 1, "neuron": _neuron(0.0), "delay_shift": True,
            "input": entering, "blocks": blocks,
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
        answers, n = torch.cat(outputs) / self.output_scale, len(split)
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
        levels = (images.double() * (self.levels / 255)).round().int()
        levels = levels.reshape(len(images), *self.layers[0].before)
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


def _rounds(layer: SpikingLayer) -> bool:
    """Return whether the grid of weights changes a layer: not if its weights, as those of maxima, are 1, 0 and -1."""
    weight, bias = layer.linear.weight, layer.linear.bias
    return (
        not isinstance(layer.linear, Conv) or bool(bias.any()) or not bool(((weight.abs() == 1) | (weight == 0)).all())
    )


def _neuron(threshold: float) -> dict[str, Any]:
    return {"kind": "sigma_delta", "threshold": int(threshold * MANT) / MANT}


def _multiplications(ann: Ann) -> int:
    """Return the number of multiplications of the ANN for an image."""
    return sum(
        prod(node.shape[1:]) * node.operation.weight.numel()
        for node in ann.nodes
        if isinstance(node.operation, Conv | Dense)
    )
