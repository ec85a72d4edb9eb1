"""The rule that keeps or undoes each step of a conversion."""

import pytest
import torch
from torch import Tensor

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.data.splits import Split
from bootstrap_core.network.network import Network
from converters.ann_to_snn.judge import BestSoFar, Judge, Verdict, is_lower, logit_scale
from specs.network import NetworkSpec


def verdict(right: str, losses: list[float]) -> Verdict:
    return Verdict(torch.tensor([answer == "1" for answer in right]), torch.tensor(losses), 1.0)


LOW, MIDDLE, UNCLEAR = [0.1, 0.2, 0.1, 0.2, 0.1], [0.5, 0.6, 0.5, 0.6, 0.5], [0.1, 1.2, 0.1, 1.0, 0.0]


@pytest.mark.parametrize(
    ("right", "losses", "kept"),
    [
        ("11111", MIDDLE, True),  # three right answers gained
        ("11111", [9.0] * 5, True),  # whatever the loss
        ("00000", LOW, False),  # both lost
        ("10000", LOW, False),  # one lost, within its noise, which the loss does not make up for
        ("10100", LOW, True),  # one gained and one lost: the loss decides
        ("11000", LOW, True),
        ("11000", MIDDLE, False),
        ("11000", UNCLEAR, False),  # a lower loss, within its noise
        ("11000", [0.1] * 4 + [float("nan")], False),
    ],
)
def test_right_answers_decide_and_within_their_noise_the_loss(right: str, losses: list[float], kept: bool) -> None:
    assert verdict(right, losses).is_better_than(verdict("11000", MIDDLE)) is kept


def test_one_example_tells_nothing_clearly() -> None:
    assert not is_lower(torch.zeros(1), torch.ones(1))
    assert is_lower(torch.zeros(2), torch.tensor([1.0, 1.1]))


def network(bias: float = 0.0) -> Network:
    document = {
        "name": "judged",
        "time_steps": 60,
        "neuron": {"threshold": 0.6, "current_decay": 1.0, "voltage_decay": 0.0},
        "input": {"shape": [30]},
        "blocks": [{"kind": "dense", "features": 60, "bias": True}, {"kind": "affine", "features": 5}],
    }
    made = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
        made.blocks[1].bias.fill_(bias)
    return made


def images_of(n: int, seed: int = 1) -> Tensor:
    return torch.randint(256, (n, 1, 1, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def best_of(judged: Network, n: int = 200) -> BestSoFar:
    """Return the network as a judge likes it whose ANN gives its answers."""
    exact, images = IntegerNetwork(judged), images_of(n)
    judge = Judge(Split(images, exact(images).argmax(1)), lambda some: 4 * exact(some))
    return BestSoFar(judged, judge, judge.verdict(judged))


def test_the_verdict_is_on_labels_and_on_the_answers_of_the_ann() -> None:
    best = best_of(network())
    assert (len(best.judge), best.judge.ann_accuracy, best.verdict.agreement) == (200, 1.0, 1.0)
    assert best.verdict.right.all()
    found = best.judge.wanted.log_softmax(1)
    torch.testing.assert_close(best.verdict.losses, -found.amax(1) / 2)  # the divergence is 0
    best.judge.labels = (best.judge.labels + 1) % 5
    other = best.judge.verdict(best.network)
    assert (other.agreement, int(other.right.sum()), best.judge.ann_accuracy) == (1.0, 0, 0.0)


def test_a_step_that_harms_is_undone_and_one_that_mends_is_kept() -> None:
    best = best_of(network())
    weight, kept = best.network.readout.synapse.weight, best.network.readout.synapse.weight.detach().clone()
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    damaged = BestSoFar(best.network, best.judge, best.judge.verdict(best.network))
    assert not best.keep()
    best.restore()
    assert torch.equal(weight, kept)
    assert damaged.keep()
    assert not damaged.keep()  # as good as before is not better
    damaged.restore()
    assert torch.equal(weight, kept)


def test_a_step_by_which_states_leave_their_range_is_undone() -> None:
    best = best_of(network())
    with torch.no_grad():
        best.network.blocks[1].bias.fill_(-60)
    assert not best.keep()


def test_logits_are_brought_to_the_size_of_the_teacher_s() -> None:
    ours = torch.randn(20, 5, generator=torch.Generator().manual_seed(4))
    assert logit_scale(ours, 7 * ours + 3) == pytest.approx(7)
    assert logit_scale(torch.zeros(20, 5), ours) == 1e-3
