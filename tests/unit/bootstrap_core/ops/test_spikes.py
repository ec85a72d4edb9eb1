"""Spikes packed in words and spikes as numbers are equal and have equal gradients."""

import pytest
import torch

from bootstrap_core.ops.spikes import Spikes, SteadyInput, empty_link, n_words, pack, unpack

STEPS = [1, 16, 31, 32, 33, 64, 70]
SHAPES = [(5,), (3, 4, 5)]


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (31, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_a_word_holds_32_steps(steps: int, expected: int) -> None:
    assert n_words(steps) == expected


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", STEPS)
def test_words_are_the_spikes_that_were_packed(steps, shape, n, drawn_spikes) -> None:
    x = drawn_spikes(steps, n, *shape)
    words = pack(x)
    assert words.dtype == torch.int32
    assert words.shape == (n_words(steps), n, *shape[1:], shape[0])
    assert unpack(words, steps).dtype == torch.float32
    assert torch.equal(unpack(words, steps), x)


def test_bit_t_of_word_k_is_step_32_k_plus_t_and_channels_come_last() -> None:
    x = torch.zeros(70, 1, 2, 1, 3)
    x[0, 0, 0, 0, 1] = x[31, 0, 1, 0, 2] = x[33, 0, 1, 0, 0] = x[69, 0, 1, 0, 0] = 1
    words = pack(x)
    expected = torch.zeros(3, 1, 1, 3, 2, dtype=torch.int32)
    expected[0, 0, 0, 1, 0], expected[0, 0, 0, 2, 1] = 1, -(1 << 31)
    expected[1, 0, 0, 0, 1], expected[2, 0, 0, 0, 1] = 1 << 1, 1 << 5
    assert torch.equal(words, expected)


def test_spikes_that_lie_in_any_order_or_stand_for_all_steps_are_packed(drawn_spikes) -> None:
    x = drawn_spikes(4, 6, 40).permute(2, 0, 1)
    assert torch.equal(unpack(pack(x), 40), x)
    one = drawn_spikes(1, 2, 3).expand(40, -1, -1)
    assert torch.equal(unpack(pack(one), 40), one)


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_spikes_are_the_numbers_and_hand_their_gradient_on(shape, drawn_spikes) -> None:
    x = drawn_spikes(35, 2, *shape).requires_grad_()
    spikes = Spikes.of(x)
    packed = spikes.packed()
    assert (spikes.words, packed.values) == (None, None)
    assert (packed.steps, packed.n, packed.map_shape, packed.shape) == (35, 2, shape, (35, 2, *shape))
    assert torch.equal(packed.tensor(), x)
    grad = torch.randn(x.shape)
    packed.tensor().backward(grad)
    assert torch.equal(x.grad, grad)
    assert packed.packed() is packed


def test_spikes_without_a_gradient_have_none_when_packed(drawn_spikes) -> None:
    packed = Spikes.of(drawn_spikes(3, 2, 4)).packed()
    assert packed.link is None
    assert not packed.tensor().requires_grad


@pytest.mark.parametrize("in_words", [False, True])
def test_maps_are_flattened_in_the_order_of_channels_rows_and_columns(in_words, drawn_spikes) -> None:
    x = drawn_spikes(35, 2, 3, 4, 5).requires_grad_()
    spikes = Spikes.of(x).packed() if in_words else Spikes.of(x)
    flat = spikes.flatten()
    assert (flat.is_flat, flat.shape, flat.n, flat.map_shape) == (True, (35, 2, 60), 2, (3, 4, 5))
    assert torch.equal(flat.tensor(), x.flatten(2))
    grad = torch.randn(35, 2, 60)
    flat.tensor().backward(grad)
    assert torch.equal(x.grad, grad.view(35, 2, 3, 4, 5))
    assert torch.equal(flat.packed().tensor(), x.flatten(2))


def test_numbers_in_a_row_are_flat_already(drawn_spikes) -> None:
    spikes = Spikes.of(drawn_spikes(3, 2, 4))
    assert spikes.flatten() is spikes


@pytest.mark.parametrize("in_words", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("steps", [1, 5, 31, 32, 33, 64, 69, 70])
def test_the_first_steps_are_cut_without_a_gradient(steps, flat, in_words, drawn_spikes) -> None:
    x = drawn_spikes(70, 2, 3, 2, 2, rate=0.9)
    leaf = x.clone().requires_grad_()
    whole = Spikes.of(leaf, reached=17)
    whole = whole.packed() if in_words else whole
    some = (whole.flatten() if flat else whole).first(steps)
    assert (some.steps, some.reached, some.is_flat) == (steps, 17, flat)
    assert torch.equal(some.tensor(), (x.flatten(2) if flat else x)[:steps])
    assert not some.tensor().requires_grad
    if in_words:
        assert some.words.shape[0] == n_words(steps)
        assert not unpack(some.words, 32 * n_words(steps))[steps:].any()
    assert torch.equal(whole.tensor(), x)


@pytest.mark.parametrize("in_words", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_masked_neurons_are_silent_at_all_steps_and_have_no_gradient(shape, flat, in_words, drawn_spikes) -> None:
    x = drawn_spikes(35, 2, *shape).requires_grad_()
    kept = drawn_spikes(2, *shape, rate=0.5, seed=3) != 0
    spikes = Spikes.of(x).packed() if in_words else Spikes.of(x)
    if flat:
        spikes, kept = spikes.flatten(), kept.flatten(1)
    masked = spikes.masked(kept)
    expected = spikes.tensor().detach() * kept
    assert torch.equal(masked.tensor(), expected)
    assert 0 < expected.sum() < x.sum()
    grad = torch.randn(expected.shape)
    masked.tensor().backward(grad)
    assert torch.equal(x.grad.view_as(grad), grad * kept)
    assert torch.equal(spikes.tensor().view_as(x), x)
    if in_words:
        assert masked.words.is_contiguous()


def test_a_mask_keeps_graded_messages_and_their_type() -> None:
    x = torch.tensor([[[3.0, 7.0]]], dtype=torch.float64)
    masked = Spikes.of(x).masked(torch.tensor([[False, True]]))
    assert masked.tensor().dtype == torch.float64
    assert masked.tensor().tolist() == [[[0.0, 7.0]]]


def test_masked_spikes_come_from_no_steady_input_any_more() -> None:
    steady = SteadyInput(*[torch.zeros(1)] * 5, 0.0, 1.0)
    spikes = Spikes(1, (1,), words=torch.ones(1, 1, 1, dtype=torch.int32), steady=steady)
    assert spikes.flatten().steady is steady
    assert spikes.masked(torch.ones(1, 1, dtype=torch.bool)).steady is None
    assert spikes.first(1).steady is None


@pytest.mark.parametrize("in_words", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_delayed_spikes_come_a_step_later_and_the_last_are_lost(steps, in_words, drawn_spikes) -> None:
    x = drawn_spikes(steps, 2, 5).requires_grad_()
    spikes = Spikes.of(x, reached=9)
    delayed = (spikes.packed() if in_words else spikes).delayed()
    assert (delayed.steps, delayed.reached) == (steps, 9)
    assert not delayed.tensor()[0].any()
    assert torch.equal(delayed.tensor()[1:], x[:-1])
    grad = torch.randn(x.shape)
    delayed.tensor().backward(grad)
    assert torch.equal(x.grad[:-1], grad[1:])
    assert not x.grad[-1].any()


def test_one_step_may_stand_for_all() -> None:
    x = torch.rand(1, 2, 3).expand(5, -1, -1)
    assert Spikes.of(x).is_constant
    assert not Spikes.of(x.contiguous()).is_constant
    assert not Spikes.of(x.round()).packed().is_constant
    assert Spikes.of(x).steps == 5
    assert Spikes.of(x).device == x.device


def test_an_empty_link_has_a_shape_and_takes_no_memory() -> None:
    link = empty_link((70, 1000, 50))
    assert link.shape == (70, 1000, 50)
    assert link.untyped_storage().nbytes() == 4


def test_gradients_of_an_input_undo_the_normalization_of_its_pixels() -> None:
    """The current is weight * (pixel - mean) / std + bias."""
    currents = [torch.zeros(1, 1)] * 3
    steady = SteadyInput(*currents, torch.ones(1, dtype=torch.float64), torch.ones(1), 0.5, 0.25)
    of_weight, of_bias = steady.gradients(3.0, 2.0)
    assert (of_weight.tolist(), of_bias.tolist()) == ([(3.0 - 0.5 * 2.0) / 0.25], [2.0])
    assert (of_weight.dtype, of_bias.dtype) == (torch.float64, torch.float32)
