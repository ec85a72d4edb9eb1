"""Notes for people on a conversion: whether data, normalization and ANN belong together, and what went badly."""

from math import prod

import torch
from torch import Tensor

from bootstrap_core.data.splits import Dataset, Split, hint_from_one
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.best_candidate import Candidate
from converters.ann_to_snn.judge import Judge
from converters.linear.ann import Ann
from converters.linear.image_normalization import Normalization, usual_normalizations
from converters.linear.linear_fold import Conv
from specs.dataset_sources import classes_as_option
from specs.errors import DataError
from specs.shapes import fit_input
from specs.words import counted

DOUBT_IMAGES = 1000
"""Number of training images on which several normalizations, and orders of the classes, are compared."""
STANDARD_ERRORS = 3
"""Required margin between two normalizations or orders, in standard errors."""
DOUBTFUL = 0.5
"""Accuracy of the ANN, 0..1, below which a note says that it may take other images."""
SHRUNK = 0.05
"""Part of the grid of its weights below which a note names a layer: six levels of either sign are left."""
MOST_LOSS = 0.005
"""Loss of accuracy, 0..1, above which a note suggests more time steps or epochs."""
FEWEST_TO_SCORE = 100
"""Number of test images below which a note says how far the accuracy may be off."""


def notes_on_data(ann: Ann, dataset: Dataset, labelled: bool) -> list[str]:
    """Return notes on an ANN and its data; raise `DataError` if they do not fit each other."""
    shape, n_classes = tuple(dataset.test.images.shape[1:]), prod(ann.nodes[-1].shape)
    if not fit_input(shape, ann.shape):
        raise DataError(f"{dataset.name} has images of {list(shape)}, the ANN takes {list(ann.shape)}: convert them")
    least, most = map(int, torch.cat([dataset.train.labels, dataset.test.labels]).aminmax())
    if labelled and most >= n_classes:
        raise DataError(
            f"{dataset.name} has the label {most}; the ANN has classes 0 to {n_classes - 1} only"
            f"{hint_from_one(least, most, n_classes)}"
        )
    if not labelled or len(dataset.classes) >= n_classes:
        return []
    if dataset.has_names:
        raise DataError(
            f"{dataset.name} has {counted(len(dataset.classes), 'class')}, the ANN has {n_classes}, so the numbers of "
            "the classes are unknown: name all classes of the ANN in its order, as in --classes a,b,c"
        )
    return [f"the ANN has {counted(n_classes, 'class')}, and no label of {dataset.name} is above {most}"]


def doubt_about_data(answers: AnnAnswers, dataset: Dataset, seed: int) -> str | None:
    """Return a note if the ANN answers clearly better with another common normalization, or order of its classes.

    Both are tried on some of the training images. None without such a finding.
    """
    train = dataset.train
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:DOUBT_IMAGES]
    some = Split(train.images[chosen], train.labels[chosen])
    found = answers.classes(some)
    if int((found != some.labels).sum()) <= STANDARD_ERRORS**2:  # too few mistakes for a clear difference
        return None
    every = train if isinstance(train.images, Tensor) else some
    return _other_normalization(answers, some, found == some.labels, every) or _other_order(found, some, dataset)


def _other_normalization(answers: AnnAnswers, some: Split, right: Tensor, every: Split) -> str | None:
    """Return a note if another common normalization makes the ANN right on clearly more images.

    Args:
        answers: the ANN with its own normalization.
        some: images to compare on.
        right: for each of them, whether the ANN is right with its own normalization, bool.
        every: images whose mean and standard deviation are one of the common normalizations.
    """
    ways = [
        way
        for way in usual_normalizations(every.images[:])
        if way != answers.normalization and way.fits(answers.ann.shape)
    ]
    found = [(AnnAnswers(answers.ann, way).right(some), way) for way in ways]
    best, _ = max(found, key=lambda pair: int(pair[0].sum()))
    gained, lost = int((best & ~right).sum()), int((right & ~best).sum())
    if gained - lost <= STANDARD_ERRORS * (gained + lost) ** 0.5 or best.double().mean() < DOUBTFUL:
        return None
    options = " or ".join(way.option for right, way in found if right.sum() == best.sum())
    return _better(len(some), int(right.sum()), f"with {options}", int(best.sum()))


def _other_order(found: Tensor, some: Split, dataset: Dataset) -> str | None:
    """Return a note if the classes that the ANN found, `[N]`, agree clearly better with the labels in another order.

    In that order, each label has the class that the ANN finds most often in its images. No two may have the same.
    """
    n = len(dataset.classes)
    if int(found.max()) >= n:
        return None
    pairs = torch.bincount(some.labels * n + found, minlength=n * n).reshape(n, n)
    right, best, class_of = int(pairs.diagonal().sum()), int(pairs.amax(1).sum()), pairs.argmax(1)
    one_to_one = class_of.unique().numel() == n
    if not one_to_one or best - right <= STANDARD_ERRORS * len(some) ** 0.5 or best < DOUBTFUL * len(some):
        return None
    order = [dataset.classes[label] for label in class_of.argsort()]
    otherwise = f"with {classes_as_option(order)}"
    if not dataset.has_names:
        otherwise = f"if its classes 0 to {n - 1} are the labels {','.join(order)}"
    return _better(len(some), right, otherwise, best)


def _better(n_images: int, right: int, otherwise: str, better: int) -> str:
    """Return the note on an ANN that is right on more images otherwise."""
    before, after = (f"{100 * x / n_images:.1f} %" for x in (right, better))
    return f"accuracy of the ANN on {counted(n_images, 'training image')}: {before}; {otherwise}: {after}"


def notes_on_candidate(candidate: Candidate, normalization: Normalization) -> list[str]:
    """Return notes on layers whose weights use little of their grid, and on padding that differs from the ANN's.

    Args:
        candidate: the calibrated network.
        normalization: normalization of the images, the ANN's own included.
    """
    spec = candidate.model.spec
    notes = [
        f"block {found.block}: its input over {spec.time_steps} steps would exceed 24 bits, so its weights use only "
        f"{found.shrink:.2g} of their grid and are less precise; use fewer --time-steps, or --input spike"
        for found in candidate.calibrations
        if found.shrink < SHRUNK
    ]
    first, is_bordered = candidate.layers[0].linear, any(spec.input.padding)
    if isinstance(first, Conv) and any(first.padding) and any(normalization.mean) and not is_bordered:
        notes.append("the ANN pads images with their mean, the network pads them with black: near edges they differ")
    return notes


def notes_on_judge(judge: Judge, ann: float, n_test: int) -> list[str]:
    """Return a note if the ANN was clearly trained on the images that judge: it is better on them than on new ones.

    Args:
        judge: images that were held out of the training images.
        ann: accuracy of the ANN on the test images, 0..1.
        n_test: number of test images.
    """
    own = judge.ann_accuracy
    noise = (ann * (1 - ann) * (1 / len(judge) + 1 / n_test)) ** 0.5
    if own - ann <= STANDARD_ERRORS * noise:
        return []
    return [
        f"the ANN was trained on the images that judged forms and tuning (accuracy {own:.1%}, on the test images "
        f"{ann:.1%}), so they judge too kindly; --validation takes images that it has not seen"
    ]


def notes_on_accuracy(ann: float, snn: float, test: Split, *, advice: str, doubted: bool) -> list[str]:
    """Return notes on a bad ANN, on accuracy that the conversion lost, and on a score of few images.

    Args:
        ann, snn: accuracies on the test images, 0..1.
        test: the test images.
        advice: what may make up for a loss.
        doubted: True if a note already says that images or classes seem to be others than the ANN's.
    """
    notes = []
    if ann < DOUBTFUL and not doubted:
        notes.append(
            f"the ANN itself has an accuracy of only {100 * ann:.1f} %; it may take other images, another "
            "normalization (--mean, --std, --raw), or have its classes in another order (--classes)"
        )
    if ann - snn > MOST_LOSS:
        notes.append(
            f"accuracy falls from {ann:.1%} (ANN) to {snn:.1%} (SNN): {advice} may help; --neuron sigma-delta, a "
            "network of messages in the place of spikes, usually loses less"
        )
    if (n := len(test)) < FEWEST_TO_SCORE:
        images = "one test image" if n == 1 else f"{n} test images"
        notes.append(
            f"scored on only {images}: each is {100 / n:.3g} points of the accuracy; use at least {FEWEST_TO_SCORE}"
        )
    return notes
