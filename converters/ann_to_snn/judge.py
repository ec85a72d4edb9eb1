"""The rule that keeps or undoes each step of a conversion, and the images that decide it.

A step is a form of the network, a refit, or tuning. It is kept if images that no step learns from get clearly more
right answers; or, where the difference is within its noise, not fewer right answers and a clearly lower loss. Otherwise
what was there before is kept. Answers are right by the labels, or without labels if they are the ANN's.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.data.splits import Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.network import Network
from bootstrap_core.training.trainer import Teacher
from specs.errors import StateOverflowError

NOISE = 1.0
"""Standard errors by which a difference is clear."""
BATCH = 50
"""Number of images to run at a time."""


def is_lower(losses: Tensor, before: Tensor) -> bool:
    """Return whether the losses of the same examples, `[N]`, are clearly lower than before."""
    fall = (before - losses).flatten().double()
    return len(fall) > 1 and bool(fall.mean() > NOISE * fall.std() / len(fall) ** 0.5)


@dataclass(frozen=True, eq=False)
class Verdict:
    """Answers of a network to the images of a `Judge`.

    Attributes:
        right: whether each answer is right, bool `[N]`.
        losses: loss of each, `[N]`.
        agreement: part of the answers that are the ANN's, 0..1.
    """

    right: Tensor
    losses: Tensor
    agreement: float

    def is_better_than(self, before: "Verdict") -> bool:
        """Return whether a step from a network with the verdict `before` to this one is to be kept."""
        gained, lost = int((self.right & ~before.right).sum()), int((before.right & ~self.right).sum())
        if abs(gained - lost) > NOISE * (gained + lost) ** 0.5:  # standard error of the difference of two counts
            return gained > lost
        return gained >= lost and is_lower(self.losses, before.losses)


class Judge:
    """Images that no step of a conversion learns from.

    Args:
        examples: the images and their labels.
        teacher: the ANN.
    """

    @torch.no_grad()
    def __init__(self, examples: Split, teacher: Teacher) -> None:
        self.images, self.labels = examples[:]
        self.wanted = batched_logits(teacher, self.images)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ann_accuracy(self) -> float:
        """Accuracy of the ANN on the images, 0..1."""
        return float((self.wanted.argmax(1) == self.labels).double().mean())

    @torch.no_grad()
    def verdict(self, network: Network) -> Verdict:
        """Return the verdict on a network, run in integers; raise `StateOverflowError` if a state leaves 24 bits."""
        return self.verdict_on(IntegerNetwork(network))

    @torch.no_grad()
    def verdict_on(self, answer: Teacher) -> Verdict:
        """Return the verdict on a function that returns logits.

        The loss is the mean of the cross-entropy with the labels and of the divergence from the ANN's answers.
        """
        logits = batched_logits(answer, self.images)
        found, answers = (logits * logit_scale(logits, self.wanted)).log_softmax(1), logits.argmax(1)
        distance = F.kl_div(found, self.wanted.log_softmax(1), log_target=True, reduction="none").sum(1)
        losses = (F.nll_loss(found, self.labels, reduction="none") + distance) / 2
        return Verdict(answers == self.labels, losses, float((answers == self.wanted.argmax(1)).double().mean()))


@dataclass
class BestSoFar:
    """A network, and the weights with which its judge likes it best so far.

    Attributes:
        network: the network, whose weights steps change.
        judge: images that decide.
        verdict: verdict on the best weights.
        state: the best weights.
    """

    network: Network
    judge: Judge
    verdict: Verdict
    state: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.state = _copied(self.network)

    def keep(self) -> bool:
        """Keep the present weights if they are better than the best so far; return whether they are."""
        try:
            verdict = self.judge.verdict(self.network)
        except StateOverflowError:
            return False
        if not verdict.is_better_than(self.verdict):
            return False
        self.verdict, self.state = verdict, _copied(self.network)
        return True

    def restore(self) -> None:
        """Give the network the best weights again."""
        self.network.load_state_dict(self.state)


def _copied(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def logit_scale(ours: Tensor, theirs: Tensor) -> float:
    """Return the factor that brings our logits, `[N, classes]`, to the size of theirs; a common shift is ignored."""
    ours, theirs = (logits - logits.mean(1, keepdim=True) for logits in (ours, theirs))
    return max(1e-3, float((ours * theirs).sum() / ours.square().sum().clamp_min(1e-12)))


@torch.no_grad()
def batched_logits(answer: Teacher, images: Tensor) -> Tensor:
    """Return the logits for images, uint8 `[N, ...]`, computed in batches; float32 `[N, classes]`."""
    return torch.cat([answer(part.float() / 255).float() for part in images.split(BATCH)])
