"""Input neurons: currents of pixels, their spikes and the gradients of the input's weight and bias."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bootstrap_core.ops.activation import activate
from bootstrap_core.ops.input_neurons import InputCurrent, input_current, input_gradients, input_rates, input_spikes
from bootstrap_core.ops.library import is_installed
from bootstrap_core.ops.neurons import NeuronConstants
from bootstrap_core.ops.spikes import Spikes

SHAPES = [(40,), (1, 5, 4), (3, 4, 5)]
DECAY = torch.tensor([128 / 4096])


def scaling(weight: float = 1.5, bias: float = 0.25, mean: float = 0.1, std: float = 0.5) -> InputCurrent:
    return InputCurrent(torch.tensor([weight], requires_grad=True), torch.tensor([bias], requires_grad=True), mean, std)


def neurons_of(**given) -> NeuronConstants:
    return NeuronConstants(torch.ones(1), DECAY, 1.25, tau_grad=0.05, **given)


def drawn_images(n: int, *shape: int) -> Tensor:
    """Return images, half of whose pixels are background."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)).sub(0.5).mul(2).clamp_min(0)


def learn(
    images: Tensor,
    neurons: NeuronConstants,
    steps: int,
    change: Callable[[Spikes], Spikes] = lambda x: x,
    **given: float,
) -> tuple[Spikes, tuple[Tensor, ...]]:
    current = scaling(**given)
    spikes = input_spikes(images, current, neurons, steps)
    x = change(spikes).tensor()
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    return spikes, torch.autograd.grad(x, (current.weight, current.bias), grad)


def test_a_current_is_the_pixel_normalized_weighed_and_truncated() -> None:
    images = torch.tensor([[0.0, 0.5, 1.0]])
    # weight 1.5, bias 0.25: 1.5 * (pixel - 0.1) / 0.5 + 0.25 = -0.05, 1.45, 2.95, of which 1/64 are -3.2, 92.8, 188.8
    assert (input_current(images, scaling()) * 64).tolist() == [[-3.0, 92.0, 188.0]]
    assert input_current(images, scaling()).dtype == torch.float32


def test_weight_and_bias_are_put_on_the_grid_of_weights() -> None:
    images = torch.rand(2, 9)
    on_grid = input_current(images, scaling(1.5, 0.25))
    assert torch.equal(input_current(images, scaling(1.5 + 0.4 / 32, 0.25 - 0.4 / 32)), on_grid)
    assert not torch.equal(input_current(images, scaling(1.5 + 0.6 / 32)), on_grid)


def test_currents_stay_within_13_bits() -> None:
    images = torch.tensor([[1e4, -1e4, math.inf, -math.inf]])
    assert (input_current(images, scaling()) * 64).tolist() == [[4095.0, -4096.0, 4095.0, -4096.0]]


def test_gradients_of_a_current_go_straight_through() -> None:
    images, given = torch.rand(2, 9).requires_grad_(), scaling()
    input_current(images, given).sum().backward()
    torch.testing.assert_close(given.weight.grad, ((images - 0.1) / 0.5).sum().detach().view(1))
    assert given.bias.grad.tolist() == [18.0]
    torch.testing.assert_close(images.grad, torch.full((2, 9), 3.0))


def test_gradients_are_wanted_where_a_number_learns() -> None:
    assert scaling().learns
    fixed = torch.ones(1)
    assert not InputCurrent(fixed, fixed, 0.0, 1.0).learns
    assert InputCurrent(fixed, torch.ones(1, requires_grad=True), 0.0, 1.0).learns
    with torch.no_grad():
        assert not scaling().learns


@pytest.mark.parametrize("shape", SHAPES)
def test_currents_are_those_of_the_definition_to_the_last_bit(shape, in_both) -> None:
    size = math.prod(shape)
    some = [torch.rand(400, size), (torch.arange(6 * size) % 256 / 255).view(6, size), 40 * torch.randn(9, size)]
    images = torch.cat(some).view(-1, *shape)
    with torch.no_grad():
        found, expected = in_both(lambda: input_current(images, scaling(1.7, -0.35, 0.1307, 0.3081)))
    assert found.dtype == torch.float32
    assert found.shape == images.shape
    assert torch.equal(found, expected)
    assert len(found.unique()) > 300
    assert torch.equal(found, input_current(images, scaling(1.7, -0.35, 0.1307, 0.3081)).detach())


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e30])
def test_currents_of_strange_pixels_are_the_definition_s(value, in_both) -> None:
    with torch.no_grad():
        found, expected = in_both(lambda: input_current(torch.tensor([[0.5, value]]), scaling()))
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(40,), (3, 4, 5)])
def test_steady_inputs_lie_as_words_do(shape, native) -> None:
    images = drawn_images(5, *shape)
    steady = input_spikes(images, scaling(), neurons_of(), 9).steady
    mantissas = (input_current(images, scaling()) * 64).int()
    lying = [x if x.dim() == 2 else x.permute(0, 2, 3, 1).flatten(1) for x in (images, mantissas)]
    assert torch.equal(steady.pixels, lying[0])
    assert steady.currents.dtype == torch.int32
    assert torch.equal(steady.currents - steady.currents.min(), lying[1] - lying[1].min())
    assert steady.slopes.shape[1] == 9
    assert (steady.mean, steady.std) == (0.1, 0.5)


CENTERS = torch.tensor([[0.2, 0.0], [0.4, 0.1], [0.6, 0.3], [1.0, 0.8], [1.3, 1.0]], dtype=torch.float64)
SLOPES = CENTERS[:, 1].diff() / CENTERS[:, 0].diff()


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_rates_are_the_activation_of_currents(shape, n, in_both, hold_close) -> None:
    images = drawn_images(n, *shape)

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        given = scaling(0.8)
        rates = input_rates(images, given, CENTERS, SLOPES)
        grad = torch.randn(rates.shape, generator=torch.Generator().manual_seed(2))
        return rates.detach(), torch.autograd.grad(rates, (given.weight, given.bias), grad)

    (rates, gradients), (expected, wanted) = in_both(run)
    assert rates.dtype == torch.float32
    torch.testing.assert_close(rates, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(expected, activate(input_current(images, scaling(0.8)), CENTERS, SLOPES).detach())
    assert len(expected.unique()) > 10 or n < 5
    hold_close(gradients, wanted, 1e-4)
    with torch.no_grad():
        plain = input_rates(images, scaling(0.8), CENTERS, SLOPES)
    assert not plain.requires_grad
    assert torch.equal(plain, rates)


@pytest.mark.parametrize("case", ["float64", "images that learn"])
def test_rates_of_other_images_are_the_activation_of_currents(case) -> None:
    images = drawn_images(5, 40)
    images = images.double() if case == "float64" else images.requires_grad_()
    given = scaling(0.8)
    rates = input_rates(images, given, CENTERS, SLOPES)
    assert torch.equal(rates, activate(input_current(images, given), CENTERS, SLOPES))
    rates.sum().backward()
    assert given.weight.grad.any()
    assert case == "float64" or images.grad.any()


def test_the_same_neurons_may_take_other_batches_and_steps() -> None:
    """The neurons cache results of the last batch; other batches, steps and weights must not use them."""
    neurons = neurons_of()
    for n, steps, weight in ((5, 9, 1.5), (5, 9, 1.5), (5, 33, 1.5), (2, 9, 1.5), (5, 9, -1.5), (5, 9, 1.5)):
        spikes, gradients = learn(drawn_images(n, 40), neurons, steps, weight=weight)
        fresh, wanted = learn(drawn_images(n, 40), neurons_of(), steps, weight=weight)
        assert torch.equal(spikes.tensor(), fresh.tensor())
        assert all(torch.equal(a, b) for a, b in zip(gradients, wanted, strict=True))


def test_the_current_decay_does_not_matter(in_both) -> None:
    neurons = NeuronConstants(torch.tensor([0.5]), DECAY, 1.25)
    expected = input_spikes(drawn_images(5, 40), scaling(), neurons_of(), 9).tensor()
    for found in in_both(lambda: input_spikes(drawn_images(5, 40), scaling(), neurons, 9).tensor()):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [{}, {"subtract": True}, {"shift": True}])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 16, 32, 33, 70])
def test_spikes_are_those_of_the_definition(steps, shape, kind, in_both, hold_close) -> None:
    images = drawn_images(5, *shape)
    (spikes, gradients), (expected, wanted) = in_both(lambda: learn(images, neurons_of(**kind), steps))
    assert (spikes.words is not None) == (spikes.steady is not None) == is_installed()
    assert expected.words is None
    assert spikes.shape == expected.shape == (steps, 5, *shape)
    assert torch.equal(spikes.tensor(), expected.tensor())
    assert spikes.reached.bit_length() == expected.reached.bit_length()
    assert len(expected.tensor().sum(0).unique()) > 2 or steps == 1
    hold_close(gradients, wanted, 1e-4)


@pytest.mark.parametrize("bias", [-3.0, -0.25, 3.5])
@pytest.mark.parametrize("weight", [-1.1, 0.0, 3.9])
def test_currents_of_every_sign_spike_as_the_definition_s(weight, bias, in_both, hold_close) -> None:
    run = lambda: learn(drawn_images(5, 40), neurons_of(), 9, weight=weight, bias=bias)  # noqa: E731
    (spikes, gradients), (expected, wanted) = in_both(run)
    assert torch.equal(spikes.tensor(), expected.tensor())
    hold_close(gradients, wanted, 1e-4)


def test_the_current_enters_the_voltage_past_the_current_decay(in_both) -> None:
    """A current of 0.5 at each step: 0.5, 1, 1.5 fires at a threshold of 1."""
    neurons = NeuronConstants(torch.ones(1), torch.zeros(1), 1.0)
    for spikes in in_both(lambda: input_spikes(torch.tensor([[0.5]]), scaling(1.0, 0.0, 0.0, 1.0), neurons, 6)):
        assert spikes.tensor().flatten().tolist() == [0, 0, 1, 0, 0, 1]


CHANGES: dict[str, Callable[[Spikes], Spikes]] = {
    "flatten": lambda x: x.flatten(),
    "mask": lambda x: x.masked(torch.arange(5 * 60).view(5, 3, 4, 5) % 3 != 0),
    "delay": lambda x: x.delayed(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_gradients_come_through_what_is_made_of_the_spikes(change, in_both, hold_close) -> None:
    run = lambda: learn(drawn_images(5, 3, 4, 5), neurons_of(), 9, CHANGES[change])  # noqa: E731
    (spikes, gradients), (expected, wanted) = in_both(run)
    assert torch.equal(CHANGES[change](spikes).tensor(), CHANGES[change](expected).tensor())
    hold_close(gradients, wanted, 1e-4)


@pytest.mark.parametrize("case", ["learnt decay", "images that learn", "float64", "decay for each channel"])
def test_what_the_library_does_not_take_is_the_definition_s(case, in_both, hold_close) -> None:
    images, decay = drawn_images(5, 40), DECAY.clone()
    if case == "float64":
        images = images.double()
    if case == "decay for each channel":
        decay = torch.linspace(0, 1, 40).mul(4096).round().div(4096)
    learnt = decay.requires_grad_("decay" in case)
    leaf = images.requires_grad_(case == "images that learn")

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        given = scaling()
        spikes = input_spikes(images, given, NeuronConstants(torch.ones(1), learnt, 1.25, tau_grad=0.05), 9)
        leaves = [given.weight, given.bias, *(x for x in (leaf, learnt) if x.requires_grad)]
        assert len(leaves) == (2 if case == "float64" else 3)
        return spikes.tensor(), torch.autograd.grad(spikes.tensor().sum(), leaves)

    (spikes, gradients), (expected, wanted) = in_both(run)
    assert torch.equal(spikes, expected)
    hold_close(gradients, wanted)
    assert all(gradient.any() for gradient in gradients)


def test_a_decay_for_each_channel_that_does_not_learn_is_one(in_both) -> None:
    decay = torch.linspace(0, 1, 3).mul(4096).round().div(4096)
    neurons = NeuronConstants(torch.ones(3), decay, 1.25)
    found, expected = in_both(lambda: input_spikes(drawn_images(5, 3, 4, 4), scaling(), neurons, 9).tensor())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(40,), (3, 4, 5)])
def test_pixels_may_lie_in_any_order_in_memory(shape, hold_close) -> None:
    images = drawn_images(5, *shape)
    spikes, gradients = learn(images, neurons_of(), 9)
    again, same = learn(images.movedim(0, -1).contiguous().movedim(-1, 0), neurons_of(), 9)
    assert torch.equal(again.tensor(), spikes.tensor())
    hold_close(same, gradients)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_spikes_of_strange_pixels_are_the_definition_s(value, in_both) -> None:
    images = drawn_images(2, 40)
    images[1, 7] = value
    found, expected = in_both(lambda: input_spikes(images, scaling(), neurons_of(), 9).tensor())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_image_has_no_spikes_and_no_gradient(shape) -> None:
    spikes, gradients = learn(torch.zeros(0, *shape), neurons_of(), 9)
    assert spikes.shape == (9, 0, *shape)
    assert [gradient.tolist() for gradient in gradients] == [[0.0], [0.0]]


def test_states_that_leave_24_bits_tell_and_those_that_leave_30_are_the_definition_s(in_both) -> None:
    neurons = NeuronConstants(torch.ones(1), torch.zeros(1), 1e6)
    images = torch.ones(1, 2)
    for steps, bits in ((31, 23), (33, 24), (4200, 31)):
        run = lambda steps=steps: input_spikes(images, scaling(3.9, 3.9, -20.0, 1.0), neurons, steps)  # noqa: E731
        found, expected = in_both(run)
        assert found.reached.bit_length() == expected.reached.bit_length() == bits
        assert (found.words is not None) == (is_installed() and bits <= 30)
        assert torch.equal(found.tensor(), expected.tensor())


def test_without_a_gradient_wanted_none_is_kept() -> None:
    with torch.no_grad():
        spikes = input_spikes(drawn_images(2, 40), scaling(), neurons_of(), 9)
    assert spikes.steady is None
    assert not spikes.tensor().requires_grad
    assert torch.equal(spikes.tensor(), input_spikes(drawn_images(2, 40), scaling(), neurons_of(), 9).tensor())


def test_threads_change_no_spike_and_next_to_no_gradient(with_threads, hold_close) -> None:
    images, results = drawn_images(7, 3, 60, 60), []
    for n in (1, 2, 3):
        with_threads(n)
        results.append(learn(images, neurons_of(), 9))
    for spikes, gradients in results[1:]:
        assert torch.equal(spikes.tensor(), results[0][0].tensor())
        hold_close(gradients, results[0][1])


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_sums_of_each_pixel_s(shape, native, hold_close) -> None:
    spikes = input_spikes(drawn_images(5, *shape), scaling(), neurons_of(), 9)
    steady, grad = spikes.steady, torch.randn(9, 5, *shape)
    lying = grad if len(shape) == 1 else grad.movedim(2, -1)
    of_current = (lying.flatten(2) * steady.slopes[steady.currents.long()].permute(2, 0, 1)).sum(0).double()
    expected = steady.gradients(float((of_current * steady.pixels).sum()), float(of_current.sum()))
    hold_close(input_gradients(grad, steady), expected, 1e-4)
