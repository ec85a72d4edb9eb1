"""Classes: networks give logits and learn the labels of images or recordings."""

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.data.augmentation import are_columns, augment
from bootstrap_core.data.splits import Split, check_split, time_first, train_validation_split
from bootstrap_core.data.torch_data import is_torch_data, split_of
from bootstrap_core.distributed import Share
from bootstrap_core.network.inputs import AxesWarning, as_input
from bootstrap_core.tasks.evaluation import ACCURACY, Evaluation
from bootstrap_core.tasks.task import Batch, Figures, Task, number


class Classes(Task):
    """Cross-entropy of the logits from labels; the score is the accuracy."""

    measure, examples, per_step, rates_as_ann, batch_size = ACCURACY, "images", False, True, 250
    carded = ("accuracy",)

    def examples_of(self, given: Any) -> Any:
        """Return a `Split`, also of torch's datasets and loaders."""
        return split_of(given, self.spec) if is_torch_data(given) else given

    def check(self, examples: object) -> None:
        self.check_scored(examples)
        assert isinstance(examples, Split)
        with warnings.catch_warnings(action="ignore", category=AxesWarning):  # time comes first
            as_input(examples.inputs(slice(0, 1)), self.spec)
        self.recipe.check_kind(events=examples.has_events, columns=are_columns(examples.images.shape))

    def check_scored(self, examples: object) -> None:
        check_split(examples, self.spec.n_classes)

    def divided(self, examples: Split) -> tuple[Split, Split]:
        if not self.recipe.validation:
            return examples, examples.take([])
        return train_validation_split(examples, n_validation=self.recipe.validation, seed=self.recipe.seed)

    def batch(
        self,
        examples: Split,
        indices: Tensor,
        generator: torch.Generator,
        share: Share,
        device: torch.device,
        *,
        in_time: bool,
    ) -> Batch:
        """Mix and augment images; targets of mixed ones are probabilities `[n, classes]`."""
        images, labels = _pixels(examples, indices[share.rows], device)
        targets = labels
        if self.recipe.mixup:
            others, other_labels = _pixels(examples, indices.roll(1)[share.rows], device)
            kept = _parts_kept(self.recipe.mixup, len(indices), generator)[share.rows].to(images)
            images = torch.lerp(others, images, kept[:, None, None, None])
            classes = torch.eye(self.spec.n_classes, device=images.device)
            targets = torch.lerp(classes[other_labels], classes[labels], kept[:, None])
        if self.recipe.augment is not None:
            images = augment(images, self.recipe.augment, generator, share)
        return Batch(time_first(images), labels, targets)

    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        logits = outputs.float() * self.recipe.logit_scale
        return distillation_loss(logits, batch.targets, taught, part, self.recipe.label_smoothing)

    def n_correct(self, outputs: Tensor, batch: Batch) -> int:
        return int((outputs.argmax(1) == batch.answers).sum())

    def targets(self, examples: Split, steps: int) -> Tensor:
        return examples.labels

    def sums(self, outputs: Tensor, targets: Tensor) -> list[float]:
        loss = 0.0
        for logits, labels in zip(outputs.split(self.batch_size), targets.split(self.batch_size), strict=True):
            loss += float(F.cross_entropy(logits * self.spec.logit_scale, labels, reduction="sum"))
        return [int((outputs.argmax(1) == targets).sum()), loss]

    def figures(self, sums: list[float], n: int, *, has_targets: bool) -> Figures:
        correct, loss = sums
        return Figures(correct / n, loss / n, int(correct))

    def shown(self, score: Evaluation) -> dict[str, float | None]:
        return {"accuracy": score.score, "loss": score.loss}

    def cells(self, score: Evaluation) -> dict[str, str]:
        sample, synops = self.spec.input.sample, score.synops
        return {
            "accuracy": self.measure.text(score.score),
            f"{sample}s": f"{score.n_images:,}",
            "loss": number(score.loss, ".4f"),
            f"synops/{sample}": number(None if synops is None else sum(synops)),
            f"{sample}s/s": number(self.speed(score)),
        }


def _pixels(examples: Split, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images in 0..1, or stored events `[n, T, C, H, W]`, and labels."""
    images = examples.pixels(indices).to(device)
    if not examples.has_events:
        images = images.float().div_(255)
    return images, examples.labels[indices].to(device)


def distillation_loss(
    logits: Tensor, targets: Tensor, taught: Tensor | None, part: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy with the targets, mixed with the Kullback-Leibler divergence from a teacher.

    Args:
        targets: labels `[N]`, or probabilities `[N, classes]`.
        taught: logits of the teacher, `[N, classes]`; None without a teacher, with `part` 0.
    """
    loss = (1 - part) * F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if taught is None:
        return loss
    distance = F.kl_div(logits.log_softmax(1), taught.log_softmax(1), log_target=True, reduction="batchmean")
    return loss + part * distance


def _parts_kept(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw the share that each of `n` images keeps in mixup, `[n]`: the larger of two parts from Beta(alpha, alpha).

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
    drawn = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n))
    return torch.maximum(drawn, 1 - drawn).float()
