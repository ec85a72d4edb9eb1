"""Tuning of a calibrated network: training as spikes, on labels and on the ANN's answers.

Inputs are a calibrated network with its judge, labelled training images, and the ANN as teacher. The result is the
network, changed in place, and the recipe; or no change, if the judge finds it no better (`judge`). Calibration treats
one layer after another; tuning trains all layers together, on what is left of their errors.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.data.augmentation import are_pictures, augment
from bootstrap_core.data.splits import Split
from bootstrap_core.network.mode import Mode
from bootstrap_core.training.history import EpochReport
from bootstrap_core.training.trainer import Teacher, fit
from converters.ann_to_snn.judge import BestSoFar, batched_logits, logit_scale
from specs.network import NetworkSpec
from specs.summary import summarize
from specs.training import AugmentSpec, SnnGradient, TrainingSpec

LEARNING_RATES = 3e-3, 1e-3
"""Learning rates to try for a network of one block, in this order, until the network is better than before.

For more blocks they are divided by the square root of their number. Calibrated weights fill the range of 8 bits, so a
step must be a noticeable part of their grid; but what such steps cost in the first batches adds up over the blocks.
"""
PARTS = 1.0, 0.5
"""Parts of the change by tuning to try, in this order, until one is no better than those before.

Weights between the calibrated and the tuned ones keep much of what was learnt from a few images, and less of the noise
of the steps. Source: Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models.
"""
BATCH = 50
"""Batch size; small, since the time of a step as spikes is proportional to its images."""
MOVED = AugmentSpec(degrees=5, translate=0.03, scale=(0.97, 1.03), shear=2)
"""Random changes of the images. The ANN was trained on the unchanged ones, so its answers to them teach little."""
MEANING_KEPT = 0.75
"""Part of its accuracy that the ANN must have on changed images; otherwise they mean something else, and none are
changed. Of its accuracy, a keyword spotter keeps a quarter on turned and moved spectrograms, networks of digits keep 96
to 100 %, and a ResNet of photographs 100 %."""
LAYER_WORK, LEAST_WORK = 5 << 30, 16 << 30
"""Largest cost of an epoch for each layer, and the least of it for any network, in time steps of a neuron.

It grows with the layers, as a deep network has more errors to correct: by about ten seconds for each. The least takes
about half a minute.
"""
SECONDS = 30
"""Duration of an epoch of `LEAST_WORK` on two cores; for estimates only."""
PRODUCTS = 12
"""Number of the ANN's weights that are multiplied, forward and backward, in the time of one step of a neuron."""
N_SCALED = 1000
"""Number of images by which the network's logits are brought to the size of the ANN's."""
FEWEST_EPOCHS, MOST_EPOCHS, EPOCH_STEPS = 2, 8, 32
"""Bounds of the usual number of epochs, and the number that is divided by T to get it."""
MUCH_AGREEMENT = 0.9
"""Agreement of the calibrated network with the ANN, 0..1, from which the fewest epochs are enough."""


class Tuning(NamedTuple):
    """Result of tuning: the recipe, and the part of the change that was kept, one of `PARTS`."""

    recipe: TrainingSpec
    part: float


def tune(
    best: BestSoFar,
    split: Split,
    teacher: Teacher,
    epochs: int,
    *,
    seed: int = 0,
    on_epoch: Callable[[EpochReport], object] = lambda report: None,
) -> Tuning | None:
    """Tune a network in place; return the recipe and the part that was kept, or None if tuning did not help.

    All epochs run as spikes: with few steps and a hard reset, rates differ from any fitted curve by more, layer after
    layer, than tuning has to correct. Gradients follow the slopes of these curves (tandem): surrogates take longer, and
    left deep networks with a larger loss. Images are changed at random (`MOVED`), unless the ANN takes that for another
    image. The first of `learning_rates` that makes the network better is taken; if there is none, the network stays as
    it was.

    Args:
        best: network to tune, and its judge.
        split: training images.
        teacher: the ANN.
        epochs: number of passes over the training images, or over as many as `epoch_work` allows.
        seed: seed of everything random.
        on_epoch: called with the report of each epoch.
    """
    network, some = best.network, split.take(slice(0, N_SCALED))
    answers = batched_logits(teacher, some.images[:])
    recipe = TrainingSpec(
        epochs=epochs,
        snn_epochs=epochs,
        snn_gradient=SnnGradient.TANDEM,
        batch_size=BATCH,
        logit_scale=logit_scale(batched_logits(lambda part: network(part, Mode.SNN), some.images[:]), answers),
        augment=MOVED if _keeps_meaning(some, answers, teacher, seed) else None,
        images_per_epoch=epoch_size(network.spec, len(split))[0],
        validation=0,
        seed=seed,
    )
    before = best.state
    for rate in learning_rates(network.spec):
        recipe = recipe.model_copy(update={"snn_learning_rate": rate})
        fit(network, split, recipe, teacher=teacher, on_epoch=on_epoch)
        part = _keep_best_part(best, before)
        if part is not None:
            return Tuning(recipe, part)
    return None


def _keeps_meaning(some: Split, answers: Tensor, teacher: Teacher, seed: int) -> bool:
    """Return whether the ANN, whose `answers` to the images are given, knows their classes if they are changed, too."""
    generator, images = torch.Generator().manual_seed(seed), some.images[:]
    if not are_pictures(images.shape):
        return False
    moved = (augment(images.float() / 255, MOVED, generator) * 255).round().to(torch.uint8)
    before, after = (int((found.argmax(1) == some.labels).sum()) for found in (answers, batched_logits(teacher, moved)))
    return after >= MEANING_KEPT * before


def usual_epochs(agreement: float, time_steps: int) -> int:
    """Return the number of epochs if the user gives none.

    A network that often answers otherwise than the ANN has more to learn, above all with few time steps.
    `mlperf-resnet8.onnx` at T = 4, on the 10,000 test images (CIFAR-10, JPEG copies): 61.1 % before tuning, 68.2 %
    after 8 epochs, 70.6 % after 24; the ANN has 75.5 %.

    Args:
        agreement: part of the images to which the calibrated network gives the ANN's answer, 0..1.
        time_steps: T.
    """
    if agreement >= MUCH_AGREEMENT:
        return FEWEST_EPOCHS
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, EPOCH_STEPS // time_steps))


def learning_rates(spec: NetworkSpec) -> list[float]:
    """Return the initial learning rates to try, in this order."""
    return [rate / math.sqrt(len(spec.blocks)) for rate in LEARNING_RATES]


def neuron_steps(spec: NetworkSpec) -> int:
    """Return the cost of one image as spikes: neurons of all layers times T."""
    return spec.time_steps * sum(math.prod(shape) for shape in spec.shapes)


def image_work(spec: NetworkSpec) -> int:
    """Return the cost of one image in tandem training, in time steps of a neuron."""
    return neuron_steps(spec) + sum(row.synops for row in summarize(spec)) // PRODUCTS


def epoch_work(spec: NetworkSpec) -> int:
    """Return the largest cost of an epoch of tuning, in time steps of a neuron."""
    return max(LEAST_WORK, LAYER_WORK * len(spec.layers))


def epoch_size(spec: NetworkSpec, n_images: int) -> tuple[int, float]:
    """Return the number of images in an epoch, of `n_images` in all, and an estimate of its seconds."""
    per_epoch = max(BATCH, min(n_images, epoch_work(spec) // image_work(spec)))
    return per_epoch, SECONDS * per_epoch * image_work(spec) / LEAST_WORK


@torch.no_grad()
def _keep_best_part(best: BestSoFar, before: Mapping[str, Tensor]) -> float | None:
    """Keep the best of `PARTS` of the change since `before`; return it, or None if none is better than before."""
    tuned, kept = {name: parameter.clone() for name, parameter in best.network.named_parameters()}, None
    for part in PARTS:
        for name, parameter in best.network.named_parameters():
            parameter.copy_(torch.lerp(before[name], tuned[name], part))
        if best.keep():
            kept = part
        elif kept is not None:
            break
    best.restore()
    return kept
