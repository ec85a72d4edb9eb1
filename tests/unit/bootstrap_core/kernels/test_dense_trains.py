"""Inputs with the same train are weighed, and learn, as each of them would alone."""

import pytest

pytest.importorskip("numba")

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.kernels import threads, train_gradients, train_sums
from bootstrap_core.kernels.dense_trains import SpikeTrains, TableTrains, weigh, weight_grad
from bootstrap_core.kernels.shared_trains import MOST_SHARED, SLOTS, find_active, tell_apart

SIZES = [(1, 3, 5), (2, 9, 70), (7, 17, 70), (16, 9, 40), (17, 3, 40), (33, 5, 40), (70, 2, 9), (16, 0, 5)]
"""Steps, images and inputs."""


def some_trains(steps: int, images: int, inputs: int, kinds: int, rate: float = 0.4) -> Tensor:
    """Spikes `[T, N, I]`, int8: half of the inputs have one of a few trains, the others their own; some are silent."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.rand(steps, images, kinds, generator=generator) < rate
    chosen = shared.gather(2, torch.randint(kinds, (images, inputs), generator=generator).expand(steps, -1, -1))
    own = torch.rand(steps, images, inputs, generator=generator) < rate
    spikes = torch.where(torch.rand(images, inputs, generator=generator) < 0.5, own, chosen)
    return (spikes & (torch.rand(images, inputs, generator=generator) < 0.8)).to(torch.int8)


def drawn_weight(outputs: int, inputs: int) -> Tensor:
    return torch.randint(-128, 128, (outputs, inputs), generator=torch.Generator().manual_seed(1), dtype=torch.int8)


@pytest.mark.parametrize("outputs", [1, 33, 150])
@pytest.mark.parametrize("size", SIZES)
def test_what_trains_weigh_is_the_product_of_their_spikes(size: tuple[int, int, int], outputs: int) -> None:
    spikes, weight = some_trains(*size, kinds=3), drawn_weight(outputs, size[2])
    assert torch.equal(weigh(SpikeTrains(spikes), weight.t().contiguous()).long(), spikes.long() @ weight.long().T)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("outputs", [1, 33, 150])
@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_is_that_of_the_product_whatever_the_threads(
    size: tuple[int, int, int], outputs: int, half: bool, monkeypatch
) -> None:
    monkeypatch.setattr(threads, "LEAST", 0)
    spikes = some_trains(*size, kinds=3)
    grad = torch.randn(*size[:2], outputs, generator=torch.Generator().manual_seed(2))
    grad = grad.bfloat16() if half else grad
    results = []
    for n in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        results.append(weight_grad(SpikeTrains(spikes), grad))
    assert torch.equal(*results)
    expected = torch.einsum("tno,tni->oi", grad.double(), spikes.double())
    torch.testing.assert_close(results[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_more_trains_than_are_found_again() -> None:
    spikes = some_trains(16, 5, 900, kinds=2, rate=0.5)
    words = (spikes.int() << torch.arange(16, dtype=torch.int32)[:, None, None]).sum(0)
    assert all(len(words_of_one.unique()) > MOST_SHARED + 50 for words_of_one in words)
    weight, grad = drawn_weight(20, 900), torch.randn(16, 5, 20)
    assert torch.equal(weigh(SpikeTrains(spikes), weight.t().contiguous()).long(), spikes.long() @ weight.long().T)
    expected = torch.einsum("tno,tni->oi", grad.double(), spikes.double())
    torch.testing.assert_close(weight_grad(SpikeTrains(spikes), grad).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [5, 40])
def test_trains_of_a_table_are_those_of_the_spikes_that_it_has(steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    fired = (torch.rand(7, steps, generator=generator) < 0.4).to(torch.int8)
    indices = torch.randint(7, (6, 50), generator=generator, dtype=torch.int32)
    spikes = fired[indices.long()].movedim(2, 0)
    table, own = TableTrains(indices.numpy(), fired.numpy()), SpikeTrains(spikes)
    assert (table.steps, table.shape) == (own.steps, own.shape) == (steps, (6, 50))
    for some in (slice(0, 4), slice(4, 20)):
        for bits in (range(16), train_gradients.BITS):
            np.testing.assert_array_equal(table.words(some, bits), own.words(some, bits))


def test_trains_are_told_apart_although_they_meet_in_a_slot() -> None:
    words = np.arange(1, MOST_SHARED + 100, dtype=np.uint32) << np.uint32(16)
    trains = np.concatenate([words, np.zeros(3, np.uint32), words])
    active, which = np.empty(len(trains) + 1, np.int32), np.empty(len(trains), np.int32)
    n = find_active(trains, active)
    assert n == 2 * len(words)
    found, counts = np.empty(n, np.uint32), np.empty(n, np.int64)
    n_found = tell_apart(trains, active[:n], np.empty(SLOTS, np.int32), found, counts, which)
    np.testing.assert_array_equal(found[which[:n]], trains[active[:n]])
    assert n_found == len(words) + 99  # those that are not found again have one each
    assert (counts[:MOST_SHARED] == 2).all()
    assert (counts[MOST_SHARED:n_found] == 1).all()


def test_fewer_images_are_sorted_at_once_where_each_takes_much_memory() -> None:
    assert len(train_sums.make_room(100, 700, 32, 32).n_shared) == train_sums.AT_ONCE
    assert len(train_sums.make_room(2, 700, 32, 32).n_shared) == 2
    assert len(train_sums.make_room(100, train_sums.MOST_ROWS // 8, 4, 32).n_shared) == 2
    assert len(train_sums.make_room(100, train_sums.MOST_ROWS, 4, 32).n_shared) == 1
