"""Tuning of a calibrated network, as spikes, by labels and by the answers of the ANN that it was made of."""

import math
from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.data.datasets import Split, train_validation_split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.training.augmentation import are_pictures, augmentation
from bootstrap_core.training.trainer import EpochReport, Teacher, distillation_loss, fit
from converters.ann_to_snn.readout import logit_scale
from specs.errors import StateOverflowError
from specs.network import NetworkSpec
from specs.summary import summarize
from specs.training import AugmentSpec, SnnGradient, TrainingSpec

__all__ = ["Tuning", "epoch_work", "image_work", "neuron_steps", "tune"]

LEARNING_RATES = 1.5e-3, 5e-4
"""Calibrated weights fill the range of 8 bits, so that they are large: a step must be a part of the grid. Deep networks
lose by such steps what they cannot learn back in some epochs: then the smaller ones are tried."""
PARTS = 1.0, 0.75, 0.5, 0.25
"""Of what tuning changes, that may be kept; tried until one is worse than the one before. On the way between two
networks lies much of what a few images teach, and less of the noise of the steps that taught it. Source: Wortsman et
al. 2022, Robust Fine-Tuning of Zero-Shot Models."""
BATCH = 50
"""Small, since a step of spikes costs what its images cost."""
MOVED = AugmentSpec(degrees=5, translate=0.03, scale=(0.97, 1.03), shear=2)
"""How images are changed in tuning: the ANN has learnt them by heart as they are, and they say too little anew."""
LARGEST_VALIDATION, VALIDATION_PART = 5000, 12
"""Images held out, to choose the best epoch by: one in so many, and no more than so many."""
FEWEST_VALIDATION, EPOCH_PART = 1000, 6
"""Of a short epoch, no more than one in so many of the images that it trains on, or than so many if it has them."""
N_MOVES = 2
"""How often each of these is moved for the judge. Most of what it errs by is noise of the spikes, which differs for an
image moved otherwise: so this tells nearly as much as twice the images would."""
LAYER_WORK, LEAST_WORK = 1 << 30, 16 << 30
"""What an epoch may cost: for each layer, as a deep network has more to mend, and for the few of a shallow one. In time
steps of a neuron; the smaller is half a minute or so."""
PRODUCTS = 12
"""Weights of the ANN beside the spikes, which are multiplied forward and back in the time of a neuron's step."""
N_SCALED = 1000
"""Images by which logits are brought to one size."""


class Tuning(NamedTuple):
    """What was done: the recipe, and the part of `PARTS` that was kept of what it changed."""

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
    """Train on, and keep the best epoch; or the network as it was, if its loss on held-out images is smaller.

    All epochs run as spikes: the rates of a few steps with a hard reset stray from any curve by more, layer after
    layer, than tuning has to mend. They learn in tandem with the curves' slopes: surrogates take longer, and left a
    deep network a larger loss. The ANN has seen all images as they are: what tunes, and what both are judged on, is
    moved a little. Of what an epoch changes all is kept, or a part, whichever has the smallest loss on images held out;
    the first of `LEARNING_RATES` by which that loss does not rise is taken. None if it was in vain.

    Args:
        network: tuned in place.
        split: training images.
        teacher: the ANN.
        epochs: passes over the training images, or over as many as `epoch_work` allows.
        seed: of everything random.
        on_epoch: called with the report of each epoch.
    """
    per_epoch = max(BATCH, min(len(split), epoch_work(network.spec) // image_work(network.spec)))
    judged = max(min(per_epoch, FEWEST_VALIDATION), per_epoch // EPOCH_PART)
    n_validation = min(LARGEST_VALIDATION, max(1, len(split) // VALIDATION_PART), judged)
    some = split.images[:N_SCALED]
    recipe = TrainingSpec(
        epochs=epochs,
        snn_epochs=epochs,
        snn_gradient=SnnGradient.TANDEM,
        batch_size=BATCH,
        logit_scale=logit_scale(_by_parts(lambda part: network(part, Mode.SNN), some), _by_parts(teacher, some)),
        augment=MOVED,
        images_per_epoch=per_epoch,
        validation=n_validation,
        seed=seed,
    )
    judge = _Judge(train_validation_split(split, n_validation=n_validation, seed=seed)[1], teacher, recipe)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    untuned = judge.score(network)
    for rate in LEARNING_RATES:
        recipe = recipe.model_copy(update={"snn_learning_rate": rate})
        fit(network, split, recipe, teacher=teacher, on_epoch=on_epoch)
        part, loss = _keep_best_part(network, before, judge)
        if loss <= untuned:
            return Tuning(recipe, part)
        network.load_state_dict(before)
    return None


def neuron_steps(spec: NetworkSpec) -> int:
    """Neurons of all layers times T: what one image costs as spikes."""
    return spec.time_steps * sum(prod(shape) for shape in spec.shapes)


def image_work(spec: NetworkSpec) -> int:
    """What one image costs in tandem, in time steps of a neuron."""
    return neuron_steps(spec) + sum(row.synops for row in summarize(spec)) // PRODUCTS


def epoch_work(spec: NetworkSpec) -> int:
    """What an epoch of tuning may cost, in time steps of a neuron."""
    return max(LEAST_WORK, LAYER_WORK * len(spec.layers))


class _Judge:
    """Tells how well a network answers to images held out, moved, in the integer engine: by the loss that is learnt, as
    accuracies of so few images say less."""

    def __init__(self, held_out: Split, teacher: Teacher, recipe: TrainingSpec) -> None:
        generator = torch.Generator().manual_seed(recipe.seed)
        n_moves = N_MOVES if are_pictures(held_out.images.shape) else 1
        parts = held_out.images[:].repeat(n_moves, 1, 1, 1).split(BATCH)
        moved = (augmentation(MOVED)(part.float() / 255, generator) for part in parts)
        self.images = torch.cat([(images * 255).round().to(torch.uint8) for images in moved])
        self.labels = held_out.labels.repeat(n_moves)
        self.wanted, self.recipe = _by_parts(teacher, self.images), recipe

    def score(self, network: Network) -> float:
        """The loss; infinite if a state leaves 24 bits."""
        try:
            logits = _by_parts(IntegerNetwork(network), self.images)
        except StateOverflowError:
            return math.inf
        recipe = self.recipe
        return float(distillation_loss(logits * recipe.logit_scale, self.labels, self.wanted, recipe.distillation))


@torch.no_grad()
def _keep_best_part(network: Network, before: Mapping[str, Tensor], judge: _Judge) -> tuple[float, float]:
    """Have the parameters go that one of `PARTS` of the way after which the loss is least; gives both."""
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


@torch.no_grad()
def _by_parts(answer: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Logits for images, uint8 `[N, ...]`, some at a time."""
    return torch.cat([answer(part.float() / 255).float() for part in images.split(BATCH)])
