"""The CUBA recurrence in int64 NumPy, written from the equations of the design.

The definition and the native library must agree with it.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from bootstrap_core.functional.cuba import cuba_forward
from bootstrap_core.ops.library import is_installed
from bootstrap_core.ops.neurons import NeuronConstants, by_step, fire

CHANNELS = 6


class Case(NamedTuple):
    """Integer inputs, int64: z `[T, N, C]` (in units of 1/64), decays and bias `[C]`, threshold, start (in 1/4096)."""

    z: np.ndarray
    current_decay: np.ndarray
    voltage_decay: np.ndarray
    bias: np.ndarray
    threshold: int
    start: int
    subtract: bool


def random_case(seed: int, *, subtract: bool) -> Case:
    random = np.random.default_rng(seed)
    decays = random.integers(0, 4097, (2, CHANNELS))
    decays[:, 0], decays[:, 1] = 0, 4096
    threshold = int(random.integers(1, 200))
    z = random.integers(-threshold, 2 * threshold, (25, 3, CHANNELS))
    bias = random.integers(-20, 40, CHANNELS)
    start = int(random.integers(0, 64 * threshold))
    return Case(z, *decays, bias, threshold, start, subtract)


def leak(x: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """Multiply by (4096 - decay), shift the magnitude right by 12, restore the sign."""
    return np.sign(x) * (np.abs(x) * (4096 - decay) >> 12)


def reference(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return spikes, current and voltage before reset, `[T, N, C]`, states in units of 1/4096."""
    u = np.zeros(case.z.shape[1:], dtype=np.int64)
    v = np.full_like(u, case.start)
    spikes, current, voltage = [], [], []
    for z in case.z:
        u = leak(u, case.current_decay) + 64 * z
        v = leak(v, case.voltage_decay) + u + 64 * case.bias
        s = v > 64 * case.threshold
        spikes.append(s)
        current.append(u)
        voltage.append(v)
        v = v - 64 * case.threshold * s if case.subtract else np.where(s, 0, v)
    return np.stack(spikes), np.stack(current), np.stack(voltage)


@pytest.fixture(params=[(seed, subtract) for seed in range(8) for subtract in (False, True)])
def case(request) -> Case:
    seed, subtract = request.param
    case = random_case(seed, subtract=subtract)
    spikes, current, _ = reference(case)
    assert spikes.any()
    assert (current < 0).any()
    return case


def test_the_definition_equals_the_reference(case: Case) -> None:
    ours = cuba_forward(
        torch.from_numpy(case.z) / 64,
        *(torch.from_numpy(decay) / 4096 for decay in (case.current_decay, case.voltage_decay)),
        torch.from_numpy(case.bias) / 64,
        case.threshold / 64,
        case.subtract,
        initial_voltage=case.start / 4096,
    )
    spikes, current, voltage = reference(case)
    assert np.array_equal(ours.spikes.numpy(), spikes)
    assert np.array_equal(ours.current.double().numpy() * 4096, current)
    assert np.array_equal(ours.voltage.double().numpy() * 4096, voltage)


def constants(case: Case) -> NeuronConstants:
    decays = (torch.from_numpy(decay) / 4096 for decay in (case.current_decay, case.voltage_decay))
    bias = torch.from_numpy(case.bias) / 64
    return NeuronConstants(
        *decays,
        threshold=case.threshold / 64,
        subtract=case.subtract,
        bias=bias,
        initial_voltage=case.start / 4096,
    )


@pytest.mark.skipif(not is_installed(), reason="needs the native library")
@pytest.mark.parametrize("learns", [False, True])
def test_the_native_library_equals_the_reference(case: Case, learns: bool) -> None:
    neurons, z = constants(case), (torch.from_numpy(case.z) / 64).requires_grad_(learns)
    for decay in (neurons.current_decay, neurons.voltage_decay):
        decay.requires_grad_(learns)
    fired = fire(z, neurons, len(z))
    spikes, current, voltage = reference(case)
    assert np.array_equal(fired.tensor().detach().numpy(), spikes)
    largest = max(int(np.abs(x).max()) for x in (current, voltage))
    assert fired.reached.bit_length() == largest.bit_length()
    if learns:
        run = fired.link.grad_fn.run
        for ours, theirs in ((run.current, current), (run.voltage, voltage)):
            assert np.array_equal(by_step(ours.view(3, 25, CHANNELS)).numpy(), theirs)
