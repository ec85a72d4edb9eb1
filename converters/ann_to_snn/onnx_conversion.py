"""From an ONNX file to a tuned spiking network, with every figure on the way."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.analysis.evaluation import Evaluation, accuracy_by_steps, batches, evaluate, evaluate_exactly
from bootstrap_core.data.datasets import Dataset, Split
from bootstrap_core.data.image_files import UNLABELLED
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.network import Network
from bootstrap_core.ops.heap import keep_freed_memory
from bootstrap_core.training.augmentation import are_pictures
from bootstrap_core.training.trainer import EpochReport, Teacher
from converters.ann_to_snn.ann import Ann, run_ann
from converters.ann_to_snn.best_candidate import EVERY_FORM, Candidate, SpikingForms, best_candidate, images_wanted
from converters.ann_to_snn.image_normalization import Normalization, usual_normalizations
from converters.ann_to_snn.linear_fold import Conv
from converters.ann_to_snn.readout import refit_readout
from converters.ann_to_snn.tuning import neuron_steps, tune
from converters.model import Model
from converters.onnx.ann_builder import LAYER
from converters.onnx.import_ann import OnnxImport, import_ann
from specs.block import Encoding
from specs.errors import DataError, StateOverflowError, UnsupportedError
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.shapes import fit_input
from specs.training import TrainingSpec

__all__ = ["ImportCallbacks", "OnnxConversion", "ann_input", "drawn", "import_onnx"]

BATCH = 250
READOUT_STEPS = 1 << 31
"""Neurons of all images and time steps that a readout is fitted on, at most: ten seconds or twenty."""
FEWEST_TO_TUNE = 2
"""Images: one to learn from, one to judge by."""
SHRUNK = 0.05
"""Part of their grid that weights of a layer must have left, or it is told: six integers up and six down."""
DOUBTFUL = 0.5
"""Accuracy of an ANN below which its images are probably of another kind."""
MUCH = 0.05
"""Accuracy that a conversion loses, from which on it is told."""
DOUBT_IMAGES = 1000
"""Training images that the ANN is asked for, normalised in several ways."""
STANDARD_ERRORS = 3
"""By so many must one of two ways be better than the other."""


def _ignore(_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class ImportCallbacks:
    """Functions that `import_onnx` calls on its way, each with what it has just found; one that raises ends the import.

    Attributes:
        on_imported: called with the ANN, before anything else is done with it.
        on_doubt: called with the note that the images seem to be normalised otherwise, before anything that takes long.
        on_calibrated: called with the network before its readout is fitted and it is tuned; only its tensors change
            afterwards.
        on_epoch: called with the report of each epoch of tuning.
    """

    on_imported: Callable[[Ann], object] = _ignore
    on_doubt: Callable[[str], object] = _ignore
    on_calibrated: Callable[[Model], object] = _ignore
    on_epoch: Callable[[EpochReport], object] = _ignore


NO_CALLBACKS = ImportCallbacks()


@dataclass(frozen=True)
class OnnxConversion:
    """What came of an ONNX file. Accuracies are of the test images, by labels; without those, by the ANN's answers.

    Attributes:
        model: the spiking network.
        imported: nodes, and the largest difference from the ONNX reference.
        candidate: what calibration chose.
        dataset: what it was tuned and scored on, with the labels that it was scored by; None without data.
        normalization: of the ANN's images.
        ann: accuracy of the ANN; None without data.
        converted, tuned: accuracy by time steps, before and after tuning; None where a state leaves 24 bits.
        score: of the final network at its own T, with rates and synops, in floats where a state leaves 24 bits; None
            without data.
        notes: what was assumed.
        doubt: that of them which says that the images seem to be normalised otherwise; None without it.
        seconds: all of it.
    """

    model: Model
    imported: OnnxImport
    candidate: Candidate
    dataset: Dataset | None
    normalization: Normalization
    ann: float | None
    converted: dict[int, float | None]
    tuned: dict[int, float | None]
    score: Evaluation | None
    notes: tuple[str, ...]
    doubt: str | None
    seconds: float

    @property
    def spec(self) -> NetworkSpec:
        """Of the spiking network."""
        return self.model.spec

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its state dict."""
        return self.model.tensors

    @property
    def nodes(self) -> list[dict[str, str]]:
        """What became of each node of the file, see `OnnxImport`; the reason of a layer names the blocks it is in."""
        blocks, layers = self.candidate.blocks_of(self.imported.ann), self.model.spec.layers
        words = {i: f"block {i}, {layer.kind}" for i, layer in enumerate(layers)}
        for i, layer in zip(self.candidate.blocks, self.candidate.layers, strict=True):
            if layer.population is not None:
                words[i] += f", {layer.population.drive.shape[1]} neurons for each unit"
        return [
            {**node, "reason": "; ".join(words[i] for i in blocks[node["became"]])} if node["reason"] == LAYER else node
            for node in self.imported.nodes
        ]

    @property
    def report(self) -> dict[str, Any]:
        """All figures as JSON values, as `convert --json` prints them."""
        score = self.score
        saturated = {found.block: found.saturated for found in self.candidate.calibrations}
        return {
            "nodes": self.nodes,
            "import_max_abs_error": self.imported.max_abs_error,
            "time_steps": self.model.spec.time_steps,
            "normalization": self.normalization.as_json(),
            "input": str(self.candidate.input_form.encoding),
            "input_bits": self.model.spec.input.bits if self.model.spec.input.encoding is Encoding.GRADED else None,
            "agreement": self.candidate.agreement,
            "accuracy": {
                "ann": self.ann,
                "converted": {str(t): accuracy for t, accuracy in self.converted.items()},
                "tuned": {str(t): accuracy for t, accuracy in self.tuned.items()},
            },
            "samples": 0 if score is None else score.n_images,
            "layers": [
                {
                    "block": f"{i} {layer.kind}",
                    "rate": None if score is None else score.rates[i],
                    "saturated": saturated.get(i),
                    "synops": None if score is None or score.synops is None else score.synops[i],
                }
                for i, layer in enumerate(self.model.spec.layers)
            ],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def import_onnx(
    path: str | Path,
    *,
    dataset: Dataset | Callable[[Shape], Dataset] | None = None,
    labelled: bool | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    time_steps: int = 16,
    epochs: int = 2,
    forms: SpikingForms = EVERY_FORM,
    seed: int = 0,
    callbacks: ImportCallbacks = NO_CALLBACKS,
) -> OnnxConversion:
    """Import an ANN, calibrate its spiking form, fit the readout, tune it all by bootstrap, and score every stage.

    Args:
        path: of the ONNX file.
        dataset: images to calibrate, tune and score on, or what loads them for the shape that the ANN takes; without,
            images of noise calibrate, and nothing is tuned.
        labelled: whether its labels mean something, by default if its class is not `UNLABELLED`; if they do not, the
            ANN's answers stand for them.
        mean, std: what the ANN's images were normalised by, `(x - mean) / std` of x in 0..1: one number each, or one
            for each channel.
        time_steps: T.
        epochs: of tuning; 0 for none.
        forms: forms of the input and of max pools to choose from, by measure.
        seed: of everything random.
        callbacks: functions to call with what is found on the way.

    Raises:
        UnsupportedError: nodes without a spiking form, names all of them; or an output of one number.
        DataError: images or labels that the ANN has no use for.
        ConversionError: the import does not agree with the ONNX reference.
    """
    path = Path(path)
    start = time.perf_counter()
    keep_freed_memory()
    imported = import_ann(path)
    ann, notes = imported.ann, list(imported.notes)
    if prod(ann.nodes[-1].shape) == 1:
        raise UnsupportedError(f"{path} gives one number, no classes to tell apart: of a sigmoid of z make two, [0, z]")
    callbacks.on_imported(ann)
    normalization = Normalization.of(mean, std)
    normalization.check(ann.shape)
    dataset = dataset(ann.shape) if callable(dataset) else dataset
    if labelled is None:
        labelled = dataset is None or dataset.classes != (UNLABELLED,)
    if dataset is not None:
        notes += _check(ann, dataset, labelled)
    teacher, doubt = partial(_logits, ann, normalization), None
    if dataset is None:
        notes.append("no data: calibrated on noise, and not tuned; with --data it would be better, and its score known")
    elif not labelled:
        dataset = _answered(teacher, dataset)
        notes.append("no labels: the ANN's answers stand for them, in tuning and in every accuracy")
    elif doubt := _doubt(ann, dataset.train, normalization, seed):
        callbacks.on_doubt(doubt)
        notes.append(doubt)
    candidate = best_candidate(
        ann,
        _calibration_images(ann, dataset, seed),
        name=path.stem,
        time_steps=time_steps,
        forms=forms,
        normalization=normalization,
        balanced=dataset is not None,
    )
    notes += _shrunk(candidate, time_steps) + _padded(candidate, ann.normalization.after(normalization))
    callbacks.on_calibrated(candidate.model)
    network, done = candidate.model.build(), _Learnt()
    if dataset is not None:
        done = _learn(network, teacher, dataset, time_steps, epochs, seed, callbacks.on_epoch)
        if done.ann is not None and done.ann < DOUBTFUL and not doubt:
            right = f"{100 * done.ann:.1f} %"
            notes.append(f"the ANN itself is right in {right} only: does it take other images (--mean, --std, --raw)?")
        notes += _lost(done, time_steps, epochs)
    notes += done.notes
    told = {"source": path.name, "epochs": epochs, "seed": seed, **normalization.as_json()}
    for option, choices in (("input", forms.encodings), ("max_pool", forms.max_pooling)):
        if len(choices) == 1:  # else they are chosen again
            told[option] = str(choices[0])
    return OnnxConversion(
        model=replace(_as_model(network, told, dataset, labelled, done.recipe), notes=tuple(notes)),
        imported=imported,
        candidate=candidate,
        dataset=dataset,
        normalization=normalization,
        ann=done.ann,
        converted=done.converted,
        tuned=done.tuned,
        score=done.score,
        notes=tuple(notes),
        doubt=doubt,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class _Learnt:
    """What a calibrated network learnt of data, see `OnnxConversion`, and the recipe of what is kept of its tuning."""

    ann: float | None = None
    converted: dict[int, float | None] = field(default_factory=dict)
    tuned: dict[int, float | None] = field(default_factory=dict)
    score: Evaluation | None = None
    recipe: TrainingSpec | None = None
    notes: tuple[str, ...] = ()


def _lost(done: _Learnt, time_steps: int, epochs: int) -> list[str]:
    """That the SNN is much worse than the ANN, if it is."""
    if done.ann is None or done.score is None or done.ann - done.score.accuracy <= MUCH:
        return []
    return [
        f"the SNN is right in {done.score.accuracy:.1%} only, the ANN in {done.ann:.1%}: more than --time-steps "
        f"{time_steps}, or more than --epochs {epochs} of tuning, may bring it nearer"
    ]


def _learn(
    network: Network,
    teacher: Teacher,
    dataset: Dataset,
    time_steps: int,
    epochs: int,
    seed: int,
    on_epoch: Callable[[EpochReport], object],
) -> _Learnt:
    """Fit the readout, tune, and score what there is before and after; `teacher` answers as the ANN."""
    notes, tuning, test = list[str](), None, dataset.test
    steps = sorted({time_steps, max(1, time_steps // 2), max(1, time_steps // 4)}, reverse=True)
    if refit_readout(network, drawn(dataset.train, READOUT_STEPS // neuron_steps(network.spec), seed), teacher):
        notes.append("the readout was fitted once more, to the ANN's answers")
    converted, score = _scored(network, test, steps)
    tuned = dict[int, float | None]()
    if epochs and len(dataset.train) < FEWEST_TO_TUNE:
        notes.append("not tuned: of one training image none can be held out")
    elif epochs and (tuning := tune(network, dataset.train, teacher, epochs, seed=seed, on_epoch=on_epoch)):
        if tuning.part < 1:
            notes.append(f"{tuning.part:.0%} of what tuning changed is kept: images held out speak for that")
        tuned, score = _scored(network, test, steps)
    elif epochs:
        moved = ", shifted and turned a little" if are_pictures(dataset.train.images.shape) else ""
        notes.append(f"tuning was taken back: it answered worse on training images held out{moved}")
        tuned = converted
    if score is None:
        score, overflow = evaluate_exactly(network, test)
        notes.append(f"{overflow} (--time-steps with fewer, or --input spike)")
    return _Learnt(
        ann=float((_answers(teacher, test) == test.labels).double().mean()),
        converted=converted,
        tuned=tuned,
        score=score,
        recipe=None if tuning is None else tuning.recipe.model_copy(update={"data": dataset.name}),
        notes=tuple(notes),
    )


def _as_model(
    network: Network, told: dict[str, Any], dataset: Dataset | None, labelled: bool, recipe: TrainingSpec | None
) -> Model:
    """The network with a card, which tells its conversion, and the recipe of its tuning."""
    card: dict[str, Any] = {"conversion": told}
    if dataset is not None:
        told["data"] = dataset.name
        if labelled:
            card["classes"] = list(dataset.classes)
        card["image_shape"] = list(dataset.test.images.shape[1:])
    model = Model.of(network, card)
    return replace(model, spec=model.spec.model_copy(update={"training": recipe}))


def _shrunk(candidate: Candidate, time_steps: int) -> list[str]:
    """Which layers have to do with a small part of their weights' grid."""
    return [
        f"block {found.block}: 24 bits do not hold {time_steps} steps of what drives it, unless its weights are on "
        f"{found.shrink:.2g} of their grid: fewer time steps, or spikes for input, would lose less"
        for found in candidate.calibrations
        if found.shrink < SHRUNK
    ]


def _padded(candidate: Candidate, normalization: Normalization) -> list[str]:
    """That images are padded otherwise."""
    first = candidate.layers[0].linear
    if not isinstance(first, Conv) or not any(first.padding) or not any(normalization.mean):
        return []
    return ["the ANN pads normalised images with 0, their mean, and the network with black: near edges they differ"]


def _check(ann: Ann, dataset: Dataset, labelled: bool) -> list[str]:
    """What there is to say of an ANN and its data; raises `DataError` where they do not fit."""
    shape, n_classes = tuple(dataset.test.images.shape[1:]), prod(ann.nodes[-1].shape)
    if not fit_input(shape, ann.shape):
        raise DataError(f"{dataset.name} has images of {list(shape)}, the ANN takes {list(ann.shape)}: make them so")
    highest = max(int(split.labels.max()) for split in (dataset.train, dataset.test))
    if labelled and highest >= n_classes:
        raise DataError(f"{dataset.name} has the label {highest}, and the ANN {n_classes} classes, from 0 on")
    if labelled and len(dataset.classes) < n_classes:
        return [
            f"the ANN has {n_classes} classes, {dataset.name} {len(dataset.classes)}: are these the ANN's images? If a "
            "class is missing, those behind it have its number"
        ]
    return []


def _doubt(ann: Ann, train: Split, normalization: Normalization, seed: int) -> str | None:
    """That the ANN gives clearly better answers to images normalised in another of the usual ways."""
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:DOUBT_IMAGES]
    images = train.images[chosen]
    some = Split(images, train.labels[chosen])

    def right_answers(way: Normalization) -> Tensor:
        return _answers(partial(_logits, ann, way), some) == some.labels

    right = right_answers(normalization)
    if int((~right).sum()) <= STANDARD_ERRORS**2:  # even if all of these became right
        return None
    every = train.images if isinstance(train.images, Tensor) else images
    ways = [way for way in usual_normalizations(every) if way != normalization and way.fits(ann.shape)]
    found = [(right_answers(way), way) for way in ways]
    best, _ = max(found, key=lambda pair: int(pair[0].sum()))
    gained, lost = int((best & ~right).sum()), int((right & ~best).sum())
    if gained - lost <= STANDARD_ERRORS * (gained + lost) ** 0.5 or best.double().mean() < DOUBTFUL:
        return None
    before, after = (f"{100 * x.double().mean():.1f} %" for x in (right, best))
    options = " or ".join(way.option for right, way in found if right.sum() == best.sum())
    return f"the ANN is right in {before} of {len(some):,} training images, and with {options} in {after}"


def ann_input(ann: Ann, images: Tensor, normalization: Normalization) -> Tensor:
    """What the ANN takes, float32 `[N, *shape]`, of images `[N, C, H, W]` in 0..1."""
    return normalization(images.reshape(len(images), *ann.shape))


def _logits(ann: Ann, normalization: Normalization, images: Tensor) -> Tensor:
    """Of images in 0..1."""
    return run_ann(ann, ann_input(ann, images, normalization))[0]


def _answers(teacher: Teacher, split: Split) -> Tensor:
    """The classes that the ANN sees, int64 `[N]`."""
    with torch.no_grad():
        return torch.cat([teacher(images.float() / 255).argmax(1) for images, _ in batches(split, BATCH)])


def _answered(teacher: Teacher, dataset: Dataset) -> Dataset:
    """The dataset with the ANN's answers as labels."""
    train, test = (Split(split.images, _answers(teacher, split)) for split in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test)


def drawn(split: Split, n: int, seed: int) -> Tensor:
    """Some `n` images, or all there are, `[N, ...]`, uint8."""
    return split.images[torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n]]


def _calibration_images(ann: Ann, dataset: Dataset | None, seed: int) -> Tensor:
    """Images `[N, ...]` in 0..1, drawn from the training set, or blurred noise."""
    n = images_wanted(ann)
    if dataset is not None:
        return drawn(dataset.train, n, seed).float() / 255
    noise = torch.rand(n, *ann.shape, generator=torch.Generator().manual_seed(seed))
    if noise.ndim < 4:
        return noise
    blurred = F.avg_pool2d(noise, 3, 1, 1)
    low, high = blurred.amin((1, 2, 3), keepdim=True), blurred.amax((1, 2, 3), keepdim=True)
    return (blurred - low) / (high - low).clamp_min(1e-6)


def _scored(network: Network, split: Split, steps: Sequence[int]) -> tuple[dict[int, float | None], Evaluation | None]:
    """In the integer engine, accuracies by T, and all of the run at the first T, the network's own; None beyond."""
    exact = IntegerNetwork(network)
    try:
        score = evaluate(exact, split, also_after=steps[1:])
    except StateOverflowError:
        shorter = accuracy_by_steps(exact, split, steps[1:])
        return {t: shorter.get(t) for t in steps}, None
    return {t: score.by_steps[t] for t in steps}, score
