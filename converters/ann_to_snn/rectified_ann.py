"""Tuning of an ANN whose activations rectifiers have replaced, to the answers that it gave before.

Inputs are the ANN with rectifiers, the ANN as its file has it, and training images. The result is the ANN with other
weights, or with its own if the judge finds no epoch better (`judge`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from bootstrap_core.data.splits import Split
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.judge import Judge
from converters.linear.ann import Ann, Conv, Dense

EPOCHS = 4
"""Number of epochs."""
IMAGES_PER_EPOCH = 20_000
BATCH = 50
LEARNING_RATE = 1e-3
"""Initial learning rate; it falls to 0 as half a cosine."""


@dataclass(frozen=True)
class Replacement:
    """Result of replacing activations by ReLU; accuracies are on the test images, 0..1.

    Attributes:
        activations: the replaced activations in words, such as "2 gelu".
        file: accuracy of the file as it is.
        untuned, tuned: accuracy with rectifiers, before and after tuning; equal if tuning was undone.
        kept: True if tuning was kept.
    """

    activations: str
    file: float
    untuned: float
    tuned: float
    kept: bool


def tune_ann(
    rectified: AnnAnswers,
    wanted: AnnAnswers,
    split: Split,
    judge: Judge,
    *,
    seed: int,
    on_step: Callable[[str], object],
) -> Ann:
    """Return the ANN with the weights of its best epoch of tuning to the answers `wanted`.

    Args:
        rectified: the ANN with rectifiers.
        wanted: the ANN of the file.
        split: training images.
        judge: judge of each epoch.
        seed: seed of the order of the images.
        on_step: called with a text for people before each epoch.
    """
    best, verdict = rectified.ann, judge.verdict_on(rectified)
    ann = _with_gradients(rectified.ann)
    answers = replace(rectified, ann=ann)
    weights = [tensor for node in ann.nodes for tensor in vars(node.operation).values() if _learns(tensor)]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)
    n = min(len(split), IMAGES_PER_EPOCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-n // BATCH))
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(EPOCHS):
        on_step(f"tuning the ANN with ReLU to its former answers, epoch {epoch + 1} of {EPOCHS}")
        for places in torch.randperm(len(split), generator=generator)[:n].split(BATCH):
            images = split.images[places].float() / 255
            with torch.no_grad():
                target = wanted(images).log_softmax(1)
            loss = F.kl_div(answers(images).log_softmax(1), target, log_target=True, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        found = judge.verdict_on(answers)
        if found.is_better_than(verdict):
            best, verdict = _without_gradients(ann), found
    return best


def _learns(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def _with_gradients(ann: Ann) -> Ann:
    """Return a copy of the ANN whose weights and biases can learn."""
    return _of_linear(ann, lambda tensor: tensor.detach().clone().requires_grad_())


def _without_gradients(ann: Ann) -> Ann:
    """Return a copy of the ANN as data."""
    return _of_linear(ann, lambda tensor: tensor.detach().clone())


def _of_linear(ann: Ann, change: Callable[[torch.Tensor], torch.Tensor]) -> Ann:
    """Return the ANN with changed weights and biases of dense and convolution layers."""
    nodes = [
        replace(node, operation=replace(each, weight=change(each.weight), bias=change(each.bias)))
        if isinstance(each := node.operation, Dense | Conv)
        else node
        for node in ann.nodes
    ]
    return replace(ann, nodes=tuple(nodes))
