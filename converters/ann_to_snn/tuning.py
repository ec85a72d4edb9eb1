"""Tuning of a calibrated network: training as spikes, on labels and on the ANN's answers.

Inputs are a calibrated network, labelled training images, and the ANN as teacher. The result is the network, changed in
place, and the recipe; or no change, if its loss on held-out images would rise. Calibration treats one layer after
another; tuning trains all layers together, on what is left of their errors.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.data.augmentation import are_pictures, augment
from bootstrap_core.data.splits import Split, train_validation_split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.tasks.classes import distillation_loss
from bootstrap_core.training.history import EpochReport
from bootstrap_core.training.trainer import Teacher, fit
from converters.ann_to_snn.readout import batched_logits, logit_scale
from specs.errors import StateOverflowError
from specs.network import NetworkSpec
from specs.summary import summarize
from specs.training import AugmentSpec, SnnGradient, TrainingSpec

LEARNING_RATES = 3e-3, 1e-3
"""Learning rates to try for a network of one block, in this order, until the loss on held-out images does not rise.

For more blocks they are divided by the square root of their number. Calibrated weights fill the range of 8 bits, so a
step must be a noticeable part of their grid; but what such steps cost in the first batches adds up over the blocks.
"""
PARTS = 1.0, 0.75, 0.5, 0.25
"""Parts of the change by tuning to try, in this order, until the loss on held-out images rises.

Weights between the calibrated and the tuned ones keep much of what was learnt from a few images, and less of the noise
of the steps. Source: Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models.
"""
BATCH = 50
"""Batch size; small, since the time of a step as spikes is proportional to its images."""
MOVED = AugmentSpec(degrees=5, translate=0.03, scale=(0.97, 1.03), shear=2)
"""Random changes of the images. The ANN was trained on the unchanged ones, so its answers to them teach little."""
LARGEST_VALIDATION, VALIDATION_PART = 5000, 12
"""Held-out images, which choose the best epoch: one in 12 of the training images, at most 5,000."""
FEWEST_VALIDATION, EPOCH_PART = 1000, 6
"""Limit of the held-out images for short epochs: 1,000, or a sixth of an epoch's images if that is more."""
N_MOVES = 2
"""Number of random changes of each held-out image.

Most of the error of the loss is noise of the spikes, which differs from change to change. So two changes say nearly as
much as twice the images.
"""
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
    network: Network,
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
    left deep networks with a larger loss. All images are changed at random, as the ANN was trained on the unchanged
    ones. Of the change of the weights, the part with the least loss on held-out images is kept. The first of
    `learning_rates` by which that loss does not rise is taken; if there is none, the network stays as it was.

    Args:
        network: network to tune.
        split: training images.
        teacher: the ANN.
        epochs: number of passes over the training images, or over as many as `epoch_work` allows.
        seed: seed of everything random.
        on_epoch: called with the report of each epoch.
    """
    per_epoch, _ = epoch_size(network.spec, len(split))
    judged = max(min(per_epoch, FEWEST_VALIDATION), per_epoch // EPOCH_PART)
    n_validation = min(LARGEST_VALIDATION, max(1, len(split) // VALIDATION_PART), judged)
    some = split.images[:N_SCALED]
    recipe = TrainingSpec(
        epochs=epochs,
        snn_epochs=epochs,
        snn_gradient=SnnGradient.TANDEM,
        batch_size=BATCH,
        logit_scale=logit_scale(
            batched_logits(lambda part: network(part, Mode.SNN), some), batched_logits(teacher, some)
        ),
        augment=MOVED,
        images_per_epoch=per_epoch,
        validation=n_validation,
        seed=seed,
    )
    judge = _Judge(train_validation_split(split, n_validation=n_validation, seed=seed)[1], teacher, recipe)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    untuned = judge.score(network)
    for rate in learning_rates(network.spec):
        recipe = recipe.model_copy(update={"snn_learning_rate": rate})
        fit(network, split, recipe, teacher=teacher, on_epoch=on_epoch)
        part, loss = _keep_best_part(network, before, judge)
        if loss <= untuned:
            return Tuning(recipe, part)
        network.load_state_dict(before)
    return None


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


class _Judge:
    """Loss of networks on held-out images, changed at random, in the integer engine.

    It is the loss of training, since the accuracy on so few images says less.
    """

    def __init__(self, held_out: Split, teacher: Teacher, recipe: TrainingSpec) -> None:
        generator = torch.Generator().manual_seed(recipe.seed)
        n_moves = N_MOVES if are_pictures(held_out.images.shape) else 1
        parts = held_out.images[:].repeat(n_moves, 1, 1, 1).split(BATCH)
        moved = (augment(part.float() / 255, MOVED, generator) for part in parts)
        self.images = torch.cat([(images * 255).round().to(torch.uint8) for images in moved])
        self.labels = held_out.labels.repeat(n_moves)
        self.wanted, self.recipe = batched_logits(teacher, self.images), recipe

    def score(self, network: Network) -> float:
        """Return the loss; infinite if a state leaves 24 bits."""
        try:
            logits = batched_logits(IntegerNetwork(network), self.images)
        except StateOverflowError:
            return math.inf
        recipe = self.recipe
        return float(distillation_loss(logits * recipe.logit_scale, self.labels, self.wanted, recipe.distillation))


@torch.no_grad()
def _keep_best_part(network: Network, before: Mapping[str, Tensor], judge: _Judge) -> tuple[float, float]:
    """Keep the one of `PARTS` of the change since `before` that has the least loss; return the part and its loss."""
    tuned = {name: parameter.clone() for name, parameter in network.named_parameters()}

    def go(part: float) -> None:
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.lerp(before[name], tuned[name], part))

    best, least = PARTS[0], math.inf
    for part in PARTS:
        go(part)
        loss = judge.score(network)
        if loss > least:
            break
        best, least = part, loss
    go(best)
    return best, least
