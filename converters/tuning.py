"""Tuning of a calibrated network, as spikes, by labels and by the answers of the ANN that it was made of."""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.augment import augmentation
from bootstrap_core.datasets import Split, train_validation_split
from bootstrap_core.evaluation import evaluate
from bootstrap_core.integer import IntegerNetwork
from bootstrap_core.mode import Mode
from bootstrap_core.network import Network
from bootstrap_core.training import EpochReport, Teacher, distillation_loss, fit
from converters.readout import logit_scale
from specs.errors import StateOverflowError
from specs.network import NetworkSpec
from specs.training import AugmentSpec, TrainingSpec

__all__ = ["Tuning", "neuron_steps", "tune"]

LEARNING_RATES = 3e-3, 1e-3
"""Calibrated weights fill the range of 8 bits, so that they are large: a step must be a part of the grid. Deep networks
lose by such steps what they cannot learn back in some epochs: then the smaller ones are tried."""
PARTS = 1.0, 0.5
"""Of what tuning changes, that may be kept. Halfway between two networks lies much of what a few images teach, and
less of the noise of the steps that taught it. Source: Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models."""
BATCH = 50
"""Small, since a step of spikes costs what its images cost."""
MOVED = AugmentSpec(degrees=5, translate=0.03, scale=(0.97, 1.03), shear=2)
"""How images are changed in tuning: the ANN has learnt them by heart as they are, and they say too little anew."""
LARGEST_VALIDATION, VALIDATION_PART = 5000, 12
"""Images held out, to choose the best epoch by: one in so many, no more than so many, nor than an epoch trains on."""
NEURON_STEPS = 8 << 30
"""Work of all epochs at most, in neurons of all images and time steps: a minute or two."""
N_COMPARED = 1000
"""Images on which logits are compared."""


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
    """Train on, and keep the best epoch; or the network as it was, if that answers better on held-out images.

    All epochs run as spikes: the rates of a few steps with a hard reset stray from any curve by more, layer after
    layer, than tuning has to mend. The ANN has seen all images as they are: what tunes, and what both are judged on, is
    moved a little. Of what an epoch changes all is kept, or half, whichever has the smaller loss on images held out;
    the first of `LEARNING_RATES` by which the network is no worse is taken. None if it was in vain.

    Args:
        network: tuned in place.
        split: training images.
        teacher: the ANN.
        epochs: passes over the training images, or over as many as `NEURON_STEPS` allows.
        seed: of everything random.
        on_epoch: called with the report of each epoch.
    """
    per_epoch = max(BATCH, min(len(split), NEURON_STEPS // (epochs * neuron_steps(network.spec))))
    n_validation = min(LARGEST_VALIDATION, max(1, len(split) // VALIDATION_PART), per_epoch)
    recipe = TrainingSpec(
        epochs=epochs,
        snn_epochs=epochs,
        batch_size=BATCH,
        logit_scale=logit_scale(*_compared(network, split.images[:N_COMPARED].float() / 255, teacher)),
        augment=MOVED,
        images_per_epoch=per_epoch,
        validation=n_validation,
        seed=seed,
    )
    held_out = train_validation_split(split, n_validation=n_validation, seed=seed)[1]
    generator = torch.Generator().manual_seed(seed)
    moved = augmentation(MOVED)(held_out.images[:].float() / 255, generator)
    judging = Split((moved * 255).round().to(torch.uint8), held_out.labels)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    untuned = _accuracy(network, judging)
    loss = partial(_loss, network, moved[:N_COMPARED], judging.labels[:N_COMPARED], teacher, recipe)
    for rate in LEARNING_RATES:
        recipe = recipe.model_copy(update={"snn_learning_rate": rate})
        fit(network, split, recipe, teacher=teacher, on_epoch=on_epoch)
        part = _keep_best_part(network, before, loss)
        if _accuracy(network, judging) >= untuned:
            return Tuning(recipe, part)
        network.load_state_dict(before)
    return None


def neuron_steps(spec: NetworkSpec) -> int:
    """Neurons of all layers times T: what one image costs."""
    return spec.time_steps * sum(prod(shape) for shape in spec.shapes)


@torch.no_grad()
def _keep_best_part(network: Network, before: Mapping[str, Tensor], loss: Callable[[], float]) -> float:
    """Have the parameters go that one of `PARTS` of the way from `before` after which the loss is least."""
    tuned = {name: parameter.clone() for name, parameter in network.named_parameters()}

    def go(part: float) -> None:
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.lerp(before[name], tuned[name], part))

    def reached(part: float) -> float:
        go(part)
        return loss()

    best = min(PARTS, key=reached)
    go(best)
    return best


@torch.no_grad()
def _loss(network: Network, images: Tensor, labels: Tensor, teacher: Teacher, recipe: TrainingSpec) -> float:
    """What the recipe has the network learn: the labels, and the teacher's answers."""
    ours, theirs = _compared(network, images, teacher, recipe.logit_scale)
    return float(distillation_loss(ours, labels, theirs, recipe.distillation))


@torch.no_grad()
def _compared(network: Network, images: Tensor, teacher: Teacher, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of the network, times `scale`, and of the teacher."""
    parts = images.split(BATCH)
    ours = torch.cat([network(part, Mode.SNN) for part in parts])
    return ours * scale, torch.cat([teacher(part).float() for part in parts])


def _accuracy(network: Network, split: Split) -> float:
    """In the integer engine; 0 if a state leaves 24 bits."""
    try:
        return evaluate(IntegerNetwork(network), split).accuracy
    except StateOverflowError:
        return 0.0
