"""Spikes are counted over time, and each step receives the gradient of the count."""

import pytest
import torch

from bootstrap_core.ops import library
from bootstrap_core.ops.spike_counts import count
from bootstrap_core.ops.spikes import Spikes


@pytest.mark.parametrize("in_words", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 5), (40, 20, 25)])
@pytest.mark.parametrize("steps", [1, 16, 32, 33, 70])
def test_counts_are_sums_over_time(steps, shape, flat, in_words, in_both, drawn_spikes) -> None:
    x = drawn_spikes(steps, 2, *shape)

    def run():
        leaf = x.clone().requires_grad_()
        spikes = Spikes.of(leaf).packed() if in_words else Spikes.of(leaf)
        total = count(spikes.flatten() if flat else spikes)
        grad = torch.randn(total.shape, generator=torch.Generator().manual_seed(0))
        return total, grad, *torch.autograd.grad(total, leaf, grad)

    for total, grad, found in in_both(run):
        assert total.dtype == torch.float32
        expected = x.sum(0)
        assert torch.equal(total, expected.flatten(1) if flat else expected)
        assert torch.equal(found, grad.view_as(expected).expand_as(x))


def test_all_steps_of_all_words_are_counted() -> None:
    assert count(Spikes.of(torch.ones(70, 1, 3)).packed()).tolist() == [[70.0] * 3]


@pytest.mark.parametrize("in_words", [False, True])
def test_no_image_has_no_counts(in_words) -> None:
    spikes = Spikes.of(torch.zeros(5, 0, 3, 4, 4))
    assert count(spikes.packed() if in_words else spikes).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("constant", [False, True])
def test_graded_messages_are_added_up_in_their_own_type(constant) -> None:
    one = torch.tensor([[[(1 << 30) + 1.0, 3.0]]], dtype=torch.float64).requires_grad_()
    x = one.expand(7, -1, -1)
    total = count(Spikes.of(x if constant else x.clone()))
    assert total.dtype == torch.float64
    assert total.tolist() == [[7 * ((1 << 30) + 1.0), 21.0]]
    (grad,) = torch.autograd.grad(total.sum(), one)
    assert grad.tolist() == [[[7.0, 7.0]]]


def test_spikes_without_a_gradient_have_counts_without_one(drawn_spikes) -> None:
    assert not count(Spikes.of(drawn_spikes(5, 2, 3)).packed()).requires_grad


def test_threads_change_no_count(drawn_spikes, with_threads) -> None:
    x = drawn_spikes(5, 3, 7000)
    for n in (1, 2, 3):
        with_threads(n)
        assert torch.equal(count(Spikes.of(x).packed()), x.sum(0))


def test_words_are_counted_without_the_library_too(drawn_spikes, monkeypatch) -> None:
    x = drawn_spikes(40, 2, 3)
    monkeypatch.setattr(library, "_library", lambda: None)
    assert torch.equal(count(Spikes.of(x).packed()), x.sum(0))
