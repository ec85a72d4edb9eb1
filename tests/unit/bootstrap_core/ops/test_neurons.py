"""Neurons on a weighted input: spikes equal those of the definition, and gradients are close."""

import ctypes
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE, STATE_MAX
from bootstrap_core.functional.cuba import cuba
from bootstrap_core.ops.library import LANES, is_installed
from bootstrap_core.ops.neurons import MOST_REACHED, NeuronConstants, fire
from bootstrap_core.ops.spikes import Spikes

SHAPES = [
    (16, 3, 70),
    (7, 2, 5, 4, 3),
    (32, 2, 33),
    (33, 2, 16),
    (70, 1, 17, 2, 2),
    (1, 4, 6),
    (5, 1, 1),
    (4, 2, 3, 1, 1),
]
GRID = torch.tensor([1.0]), torch.tensor([128 / 4096])


def drawn_input(*shape: int, seed: int = 0) -> Tensor:
    """Draw weighted input that is not on the grid of 1/4096."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).mul(40).round().div(32).add(0.3)


def drawn_neurons(channels: int, seed: int) -> NeuronConstants:
    """Draw neurons; successive seeds give all kinds."""
    generator = torch.Generator().manual_seed(seed)

    def decay() -> Tensor:
        size = 1 if torch.rand((), generator=generator) < 0.5 else channels
        return (torch.randint(0, 4097, (size,), generator=generator) / 4096).requires_grad_(seed % 5 != 1)

    return NeuronConstants(
        current_decay=torch.ones(1) if seed % 3 == 0 else decay(),
        voltage_decay=decay(),
        threshold=1.25,
        tau_grad=0.05,
        scale_grad=2.0,
        subtract=seed % 4 > 1,
        shift=seed in (1, 2, 6),
        bias=(torch.randint(-20, 40, (channels,), generator=generator) / 64).requires_grad_() if seed % 2 else None,
        initial_voltage=(0.0, 1.25, 2561 / 4096)[seed % 3],
    )


def leaves_of(neurons: NeuronConstants) -> list[Tensor]:
    return [x for x in neurons.tensors if x is not None and x.requires_grad]


def learn(z: Tensor, neurons: NeuronConstants, grad: Tensor, steps: int | None = None) -> tuple[Spikes, list[Tensor]]:
    """Return the spikes, and the gradients of the weighted input and of the trainable constants."""
    leaf = z.detach().requires_grad_()
    spikes = fire(leaf, neurons, steps or len(z))
    return spikes, list(torch.autograd.grad(spikes.tensor(), [leaf, *leaves_of(neurons)], grad))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_neurons_equal_the_definition(seed: int, shape: tuple[int, ...], in_both, hold_close) -> None:
    z, neurons = drawn_input(*shape, seed=seed), drawn_neurons(shape[2], seed)
    grad = torch.randn(shape)
    (spikes, gradients), (expected, wanted) = in_both(lambda: learn(z, neurons, grad))
    assert (spikes.words is not None) == is_installed()
    assert expected.words is None
    assert (spikes.steps, spikes.map_shape, spikes.shape) == (shape[0], shape[2:], shape)
    assert torch.equal(spikes.tensor(), expected.tensor())
    assert spikes.reached.bit_length() == expected.reached.bit_length()
    hold_close(gradients, wanted)


def test_the_table_of_neurons_fires_and_rests() -> None:
    spikes = [fire(drawn_input(16, 3, 70), drawn_neurons(70, seed), 16).tensor().detach() for seed in range(8)]
    rates = [float(each.mean()) for each in spikes]
    assert all(0.02 < rate < 0.98 for rate in rates), rates


def test_currents_and_voltages_leak_toward_zero_and_spikes_set_the_voltage_to_zero() -> None:
    """Values by hand in units of 1/4096: a step keeps 3/4 of the current, 1/2 of the voltage; threshold 1/64."""
    decays = torch.tensor([0.25]), torch.tensor([0.5])
    neurons = NeuronConstants(*decays, threshold=1 / 64)
    z = torch.tensor([-3.0, 0.0, 0.0, 66.0, 0.0, 0.0]).div(STATE).view(-1, 1, 1)
    # u: -3, trunc(-2.25) = -2, trunc(-1.5) = -1, 66 + 0, 49, 36
    # v: -3, -1 - 2 = -3, -1 - 1 = -2, -1 + 66 = 65 > 64, 49, 24 + 36 = 60
    assert fire(z, neurons, 6).tensor().flatten().tolist() == [0, 0, 0, 1, 0, 0]
    # with a reset that subtracts the threshold, the voltage after the spike is not 0
    subtracting = replace(neurons, subtract=True, threshold=59 / STATE)
    # v: -3, -3, -2, 65 > 59 -> 6, 3 + 49 = 52, 26 + 36 = 62 > 59
    assert fire(z, subtracting, 6).tensor().flatten().tolist() == [0, 0, 0, 1, 0, 1]
    assert fire(z, replace(subtracting, subtract=False), 6).tensor().flatten().tolist() == [0, 0, 0, 1, 0, 1]
    # the voltage before the first step leaks in it: v: 10 / 2 - 3 = 2, 1 - 2 = -1, -1, 66 > 65 -> 1, 49, 24 + 36 = 60
    started = replace(subtracting, initial_voltage=10 / STATE, threshold=65 / STATE)
    assert fire(z, started, 6).tensor().flatten().tolist() == [0, 0, 0, 1, 0, 0]
    assert fire(z, replace(started, initial_voltage=0.0), 6).tensor().flatten().tolist() == [0, 0, 0, 0, 1, 0]
    biased = replace(neurons, bias=torch.tensor([1 / 64]))  # 64 more at each step
    assert fire(0 * z, biased, 6).tensor().flatten().tolist() == [0, 1, 0, 1, 0, 1]


def test_a_voltage_at_the_threshold_does_not_fire() -> None:
    z = torch.tensor([0.5, 0.5 + 1 / STATE]).view(1, 1, 2)
    assert fire(z, NeuronConstants(*GRID, threshold=0.5), 1).tensor().flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("steps", [1, 2, 32, 33, 70])
@pytest.mark.parametrize("shape", [(20,), (5, 2, 2)])
def test_shifted_spikes_leave_a_step_later(steps: int, shape: tuple[int, ...], hold_close) -> None:
    z, neurons = drawn_input(steps, 2, *shape), drawn_neurons(shape[0], 3)
    plain, shifted = fire(z, neurons, steps), fire(z, replace(neurons, shift=True), steps)
    assert torch.equal(shifted.tensor(), plain.delayed().tensor())
    grad = torch.randn(steps, 2, *shape)
    earlier = torch.cat([grad[1:], torch.zeros_like(grad[:1])])
    _, gradients = learn(z, replace(neurons, shift=True), grad)
    _, expected = learn(z, neurons, earlier)
    hold_close(gradients, expected)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 4])
@pytest.mark.parametrize("given", ["one step", "a stride of zero"])
@pytest.mark.parametrize("steps", [1, 9, 70])
def test_one_step_of_input_may_stand_for_all(steps, given, seed, shift, in_both, hold_close) -> None:
    one, neurons = drawn_input(1, 3, 20), replace(drawn_neurons(20, seed), shift=shift)
    z = one if given == "one step" else one.expand(steps, -1, -1)
    grad = torch.randn(steps, 3, 20)
    (spikes, gradients), (expected, wanted) = in_both(lambda: learn(z, neurons, grad, steps))
    repeated, of_steps = learn(one.repeat(steps, 1, 1), neurons, grad, steps)
    for found in (spikes, expected):
        assert found.shape == (steps, 3, 20)
        assert torch.equal(found.tensor(), repeated.tensor())
    of_z, *others = gradients
    assert of_z.shape == z.shape
    hold_close([of_z.sum(0), *others], [of_steps[0].sum(0), *of_steps[1:]])
    hold_close([of_z.sum(0), *others], [wanted[0].sum(0), *wanted[1:]])


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "steps last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "images last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "channels last": lambda x: x.movedim(2, -1).contiguous().movedim(-1, 2),
    "every second": lambda x: torch.stack([x, x + 1], -1)[..., 0],
}


@pytest.mark.parametrize("shape", [(9, 2, 20), (9, 2, 5, 4, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_and_gradient_may_lie_in_any_order_in_memory(layout: str, shape: tuple[int, ...], hold_close) -> None:
    z, grad, neurons = drawn_input(*shape), torch.randn(shape), drawn_neurons(shape[2], 5)
    spikes, gradients = learn(z, neurons, grad)
    lying = LAYOUTS[layout](z)
    assert lying.is_contiguous() == (layout == "channels last" and z.dim() == 3)
    again, same = learn(lying, neurons, LAYOUTS[layout](grad))
    assert torch.equal(again.tensor(), spikes.tensor())
    hold_close(same, gradients, 1e-6)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("shape", [(9, 2, 20), (35, 2, 5, 4, 3), (1, 2, 20)])
def test_one_gradient_may_stand_for_all_steps(shape: tuple[int, ...], shift: bool, hold_close) -> None:
    z, one = drawn_input(*shape), torch.randn(1, *shape[1:])
    neurons = replace(drawn_neurons(shape[2], 5), shift=shift)
    _, gradients = learn(z, neurons, one.expand(shape))
    _, expected = learn(z, neurons, one.repeat(shape[0], *[1] * (len(shape) - 1)))
    hold_close(gradients, expected, 1e-6)


def test_input_and_gradient_in_float64_keep_its_type(in_both, hold_close) -> None:
    z, neurons = drawn_input(9, 2, 20).double(), drawn_neurons(20, 5)
    grad = torch.randn(9, 2, 20)
    (spikes, gradients), (expected, wanted) = in_both(lambda: learn(z, neurons, grad))
    assert torch.equal(spikes.tensor(), expected.tensor())
    assert [x.dtype for x in gradients] == [torch.float64, *[torch.float32] * 3]
    hold_close([x.float() for x in gradients], [x.float() for x in wanted])


def test_float64_just_below_a_state_is_truncated_as_by_the_definition(in_both) -> None:
    z = torch.full((1, 1, 1), 4097 / STATE - 1e-12, dtype=torch.float64)
    neurons = NeuronConstants(*GRID, threshold=1.0)
    found, expected = in_both(lambda: fire(z, neurons, 1).tensor())
    assert expected.tolist() == [[[0.0]]]
    assert torch.equal(found, expected)


def test_large_float64_is_the_definition_s_state_although_float32_would_round_it(in_both) -> None:
    """Graded input after dropout may be so large: 5000 needs 25 bits in units of 1/4096."""
    z = torch.tensor([5000 + 1 / STATE, -5000 - 1 / STATE], dtype=torch.float64).view(2, 1, 1)
    neurons = NeuronConstants(torch.zeros(1), torch.ones(1), 5000.0)
    found, expected = in_both(lambda: fire(z, neurons, 2).tensor().flatten())
    assert expected.tolist() == [1.0, 0.0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, -3e38])
@pytest.mark.parametrize("constant", [False, True])
def test_what_is_not_finite_is_left_to_the_definition(value: float, constant: bool, in_both) -> None:
    z, neurons = drawn_input(1 if constant else 5, 2, 20), drawn_neurons(20, 4)
    z[0, 1, 7] = value
    found, expected = in_both(lambda: fire(z, neurons, 5))
    assert found.words is None
    assert torch.equal(found.tensor(), expected.tensor())
    assert found.reached == expected.reached


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("excess", "leaves"), [(0, False), (1, True)])
def test_the_states_tell_whether_they_left_24_bits(excess: int, leaves: bool, sign: int, in_both) -> None:
    """The largest magnitude of 24 bits is 2^23 - 1, of either sign."""
    z = torch.tensor([[[sign * (STATE_MAX + excess) / STATE]]], dtype=torch.float64)
    for found in in_both(lambda: fire(z, NeuronConstants(*GRID, threshold=1.0), 1)):
        assert (found.reached >= 1 << 23) == leaves
        assert found.tensor().item() == (sign > 0)


def test_a_current_that_leaves_24_bits_tells_although_the_voltage_does_not(in_both) -> None:
    neurons = NeuronConstants(*GRID, threshold=1.0, bias=torch.tensor([-63.0]))
    z = torch.full((1, 1, 1), 2060.0)
    for found in in_both(lambda: fire(z, neurons, 1)):
        assert 1 << 23 <= found.reached < 1 << 24


@pytest.mark.parametrize("subtract", [False, True])
def test_states_that_32_bits_might_not_hold_are_left_to_the_definition(subtract: bool, in_both, hold_close) -> None:
    never = torch.zeros(1)
    neurons = NeuronConstants(never, never, 100_000.0, subtract=subtract)
    z = torch.full((40, 2, 3), 900.0)
    z[:, 0, 1] = -900.0
    z[:, 1, 2] = 0.5
    grad = torch.randn(40, 2, 3)
    (spikes, gradients), (expected, wanted) = in_both(lambda: learn(z, neurons, grad))
    assert spikes.reached == expected.reached >= MOST_REACHED
    assert spikes.words is None
    assert 0 < expected.tensor().sum() < expected.tensor().numel()
    assert torch.equal(spikes.tensor(), expected.tensor())
    hold_close(gradients, wanted, 1e-6)


@pytest.mark.parametrize("shape", [(4, 0, 5), (4, 0, 5, 2, 2)])
def test_no_image_has_no_spikes_and_no_gradient(shape: tuple[int, ...]) -> None:
    neurons = drawn_neurons(5, 5)
    spikes, gradients = learn(torch.zeros(shape), neurons, torch.zeros(shape))
    assert spikes.shape == shape
    assert spikes.reached == 0
    assert [x.shape for x in gradients] == [shape, *(x.shape for x in leaves_of(neurons))]
    assert not any(x.any() for x in gradients)


@pytest.mark.parametrize("seed", [0, 1])
def test_threads_change_no_spike_and_next_to_no_gradient(seed: int, with_threads, hold_close) -> None:
    z, neurons, grad = drawn_input(16, 7, 20, 3, 2), drawn_neurons(20, seed), torch.randn(16, 7, 20, 3, 2)
    results = []
    for n in (1, 2, 3):
        with_threads(n)
        results.append(learn(z, neurons, grad))
    for spikes, gradients in results[1:]:
        assert torch.equal(spikes.tensor(), results[0][0].tensor())
        assert spikes.reached == results[0][0].reached
        hold_close(gradients, results[0][1])
        assert torch.equal(gradients[0], results[0][1][0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_runs_although_torch_had_threads(native, with_threads) -> None:
    """A forked process has no other threads; waiting for them would never end."""
    with_threads(2)
    z, neurons = drawn_input(16, 7, 20), drawn_neurons(20, 2)
    expected = fire(z, neurons, 16).words
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)
            os._exit(0 if torch.equal(fire(z, neurons, 16).words, expected) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_decays_have_gradients_of_their_own_shape_each_of_which_may_be_left_out(in_both, hold_close) -> None:
    z, grad = drawn_input(9, 2, 20), torch.randn(9, 2, 20)
    for sizes in ((1, 20), (20, 1)):
        for wanted in ((True, False), (False, True), (True, True)):
            decays = [torch.full((n,), 0.25).requires_grad_(learns) for n, learns in zip(sizes, wanted, strict=True)]
            neurons = NeuronConstants(*decays, 1.25, tau_grad=0.05)
            assert neurons.learns_decays
            (_, found), (_, expected) = in_both(lambda neurons=neurons: learn(z, neurons, grad))
            assert [x.shape[0] for x in found[1:]] == [n for n, learns in zip(sizes, wanted, strict=True) if learns]
            hold_close(found, expected)


def test_without_a_gradient_wanted_none_is_kept() -> None:
    z, neurons = drawn_input(4, 2, 5).requires_grad_(), drawn_neurons(5, 5)
    with torch.no_grad():
        assert not neurons.learns_decays
        spikes = fire(z, neurons, 4)
        assert not spikes.tensor().requires_grad
    plain = NeuronConstants(*GRID, 1.0)
    assert not plain.learns_decays
    assert not fire(z.detach(), plain, 4).tensor().requires_grad
    assert torch.equal(spikes.tensor(), fire(z, neurons, 4).tensor())


def test_a_graph_that_is_kept_gives_its_gradients_again() -> None:
    z, neurons = drawn_input(4, 2, 5).requires_grad_(), drawn_neurons(5, 5)
    x = fire(z, neurons, 4).tensor()
    first, second = (torch.autograd.grad(x.sum(), [z, *leaves_of(neurons)], retain_graph=True) for _ in range(2))
    assert first[0].any()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_surrogate_has_its_width_and_height(in_both) -> None:
    neurons = NeuronConstants(*GRID, 2.0, tau_grad=0.01, scale_grad=3.0)
    tau = 100 * 2.0 * 0.01
    z = torch.tensor([2.0, 2.5, 1.0, -400.0]).view(1, 1, 4)
    for _, (grad,) in in_both(lambda: learn(z, neurons, torch.ones(1, 1, 4))):
        expected = 0.1 * 3.0 / (2 * tau) * torch.exp(-(z - 2.0).abs() / tau)
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-7)


def test_constants_tell_what_is_kept() -> None:
    assert NeuronConstants(torch.ones(1), torch.zeros(1), 1.0).forgets
    some = NeuronConstants(torch.tensor([1.0, 0.75]), torch.tensor([0.0, 1.0]), 1.0)
    assert not some.forgets
    assert [keep.tolist() for keep in some.keeps] == [[0.0, 1024.0], [4096.0, 0.0]]
    assert all(a is b for a, b in zip(some.tensors, (some.current_decay, some.voltage_decay, None, None), strict=True))


def test_the_record_of_neurons_is_in_units_of_states_and_padded_with_zeros() -> None:
    def array(address: int) -> list[int]:
        return list((ctypes.c_int32 * LANES).from_address(address))

    neurons = NeuronConstants(
        torch.tensor([0.75, 1.0, 0.5]),
        torch.tensor([0.25]),
        1.5,
        subtract=True,
        bias=torch.tensor([1.0, -2.0, 1 / 64]),
        initial_voltage=0.75,
    )
    record = neurons.record(3)
    assert array(record.keep_current) == [1024, 0, 2048, *[0] * (LANES - 3)]
    assert array(record.keep_voltage) == [3072, 3072, 3072, *[0] * (LANES - 3)]
    assert array(record.bias) == [4096, -8192, 64, *[0] * (LANES - 3)]
    numbers = record.threshold, record.forgets, record.subtract, record.shift, record.initial_voltage
    assert numbers == (6144, 0, 1, 0, 3072)
    assert neurons.record(3) is record
    assert replace(neurons, threshold=1e9).record(3).threshold == (1 << 31) - 1


def test_the_definition_is_run_with_every_constant() -> None:
    z, neurons = drawn_input(9, 2, 20), drawn_neurons(20, 7)
    expected = cuba(
        z, current_decay=neurons.current_decay, voltage_decay=neurons.voltage_decay, bias=neurons.bias,
        threshold=1.25, tau_grad=0.05, scale_grad=2.0, subtract=True, initial_voltage=1.25,
    )  # fmt: skip
    found = neurons.define(z)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    grads: list[Any] = [torch.autograd.grad(x.spikes.sum(), leaves_of(neurons)) for x in (found, expected)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    states = torch.stack([expected.current, expected.voltage]) * STATE
    largest = max(int(states.max()), -int(states.min()))
    assert neurons.fire_definition(z).reached == largest
