"""Rules of the CUBA neuron, each on the smallest case that shows it. Parity and gradients are in tests/parity."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.functional.cuba import CubaOutput, StateLimits, cuba, cuba_states

STATE = 1 / 4096


def run(z: list[float], *, current_decay: float = 1.0, voltage_decay: float = 0.0, **options: Any) -> CubaOutput:
    """Run one neuron over time."""
    decays = {"current_decay": torch.tensor([current_decay]), "voltage_decay": torch.tensor([voltage_decay])}
    return cuba(torch.tensor(z).reshape(-1, 1, 1), **decays, **{"threshold": 1.0, **options})


def values(x: Tensor) -> list[float]:
    return x.flatten().tolist()


@pytest.mark.parametrize("sign", [1, -1])
def test_leaks_truncate_toward_zero(sign: int) -> None:
    out = run([3 * sign * STATE, 0, 0], current_decay=0.5, voltage_decay=1.0)
    assert values(out.current) == [3 * sign * STATE, sign * STATE, 0]


@pytest.mark.parametrize(("z", "taken"), [(1.9, 1), (-1.9, -1)])
def test_weighted_input_is_truncated_toward_zero(z: float, taken: int) -> None:
    assert values(run([z * STATE]).current) == [taken * STATE]


def test_a_voltage_at_the_threshold_does_not_fire() -> None:
    assert values(run([1.0]).spikes) == [0]


def test_the_least_voltage_above_the_threshold_fires() -> None:
    assert values(run([1.0 + STATE]).spikes) == [1]


@pytest.mark.parametrize("space", [(), (3, 4)])
def test_decays_and_bias_are_those_of_the_channel(space: tuple[int, ...]) -> None:
    z = torch.zeros(2, 5, 2, *space)
    z[0] = 0.5
    out = cuba(
        z,
        current_decay=torch.tensor([1.0, 0.0]),
        voltage_decay=torch.tensor([0.0, 1.0]),
        bias=torch.tensor([0.0, 0.125]),
        threshold=9.0,
    )
    assert out.current.shape == out.voltage.shape == out.spikes.shape == z.shape
    assert out.current[1, :, 0].unique().tolist() == [0]
    assert out.current[1, :, 1].unique().tolist() == [0.5]
    assert out.voltage[1, :, 0].unique().tolist() == [0.5]
    assert out.voltage[1, :, 1].unique().tolist() == [0.625]


def test_outputs_are_float32_whatever_the_input() -> None:
    out = cuba(
        torch.ones(2, 1, 1, dtype=torch.float64),
        current_decay=torch.ones(1),
        voltage_decay=torch.ones(1),
        threshold=0.5,
    )
    assert {x.dtype for x in out} == {torch.float32}


def test_tau_and_scale_reach_the_surrogate_gradient() -> None:
    z = torch.full((1, 1, 1), 3.0, requires_grad=True)
    one = torch.ones(1)
    cuba(z, current_decay=one, voltage_decay=one, threshold=2.0, tau_grad=0.5, scale_grad=4.0).spikes.sum().backward()
    assert z.grad.item() == pytest.approx(0.4 / 200 * math.exp(-0.01), rel=1e-6)


def test_the_surrogate_is_as_wide_and_high_as_lava_dl_s_by_default() -> None:
    gradients = []
    for options in ({}, {"tau_grad": 1.0, "scale_grad": 1.0}):
        z = torch.full((1, 1, 1), 3.0, requires_grad=True)
        cuba(z, current_decay=torch.ones(1), voltage_decay=torch.ones(1), threshold=2.0, **options).spikes.backward(
            torch.ones(1, 1, 1)
        )
        gradients.append(z.grad.item())
    assert gradients[0] == gradients[1]


def test_gradient_flows_back_in_time_through_both_leaks_and_not_forward() -> None:
    z = torch.zeros(3, 1, 1, requires_grad=True)
    decays = {"current_decay": torch.tensor([0.5]), "voltage_decay": torch.tensor([0.25])}
    cuba(z, **decays, threshold=1.0).spikes[1].sum().backward()
    earlier, now, later = values(z.grad)
    assert later == 0
    assert earlier / now == pytest.approx(0.75 + 0.5)


@pytest.mark.parametrize(("subtract", "left"), [(False, 0.0), (True, 0.125)])
def test_the_initial_voltage_leaks_in_the_first_step(subtract: bool, left: float) -> None:
    out = run([1.0, 1.0], voltage_decay=0.25, threshold=2.0, subtract=subtract, initial_voltage=1.5)
    assert values(out.voltage) == [0.75 * 1.5 + 1, 0.75 * left + 1]
    assert values(out.spikes) == [1, 0]


# --- recurrence


def test_spikes_of_a_step_drive_the_next_one_by_the_recurrent_weights() -> None:
    own = torch.tensor([[0.0, 0.5], [-0.25, 0.0]])  # from neuron 1 to 0, and from 0 to 1
    z = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0], [0.0, 0.0]]).unsqueeze(1)
    one = torch.ones(1)
    out = cuba(z, current_decay=one, voltage_decay=one, threshold=1.0, recurrent=own)
    assert out.spikes[:, 0].tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert out.current[:, 0].tolist() == [[2, 0], [0, -0.25], [0, 3], [0.5, 0]]


def test_the_gradient_goes_back_through_the_recurrent_synapses() -> None:
    """Against the chain rule written out step by step, in torch's autograd with the surrogate as its only rule."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(9, 2, 5, generator=generator).mul(32).round().div(16).requires_grad_()
    own = torch.randn(5, 5, generator=generator).mul(16).round().div(32).requires_grad_()
    tau, keep_u, keep_v = 0.01, 0.75, 0.5
    u = v = torch.zeros(2, 5)
    s, spikes = torch.zeros(2, 5), []
    for step in z:
        u = keep_u * u + step + s @ own.t()
        v = keep_v * v + u
        slope = torch.exp(-(v.detach() - 1).abs() / (100 * tau)) * 0.1 / (200 * tau)
        fired = (v.detach() > 1).float()
        s = fired + slope * (v - v.detach())
        v = v + (0 - v).detach() * fired  # the reset is not differentiated
        spikes.append(s)
    expected = torch.stack(spikes)
    decays = {"current_decay": torch.tensor([1 - keep_u]), "voltage_decay": torch.tensor([1 - keep_v])}
    found = cuba(z, **decays, threshold=1.0, tau_grad=tau, recurrent=own).spikes
    grad = torch.randn(9, 2, 5, generator=generator)
    assert torch.equal(found, expected.detach())
    for a, b in zip(
        torch.autograd.grad(found, (z, own), grad), torch.autograd.grad(expected, (z, own), grad), strict=True
    ):
        assert torch.allclose(a, b, rtol=5e-3, atol=1e-5)  # states are truncated


# --- limits of the chip


def held(z: list[float], *, current_decay: float = 0.0, voltage_decay: float = 0.0) -> tuple[list[int], list[int], int]:
    """Return currents and voltages of a neuron that never spikes, in units of 1/4096, and the number of overflows."""
    limits = StateLimits()
    decays = torch.tensor(current_decay), torch.tensor(voltage_decay)
    steps = torch.tensor(z, dtype=torch.float64).reshape(-1, 1, 1) * STATE
    states = [(int(u), int(v)) for u, v, _ in cuba_states(steps, *decays, None, math.inf, False, None, limits)]
    return [u for u, _ in states], [v for _, v in states], limits.n


MOST = 2**23


@pytest.mark.parametrize(
    ("drive", "current"),
    [(MOST, MOST), (MOST + 1, 1 - MOST), (1 - MOST, 1 - MOST), (-MOST, MOST), (-MOST - 5, MOST - 5)],
)
def test_a_current_wraps_around_as_lava_has_it(drive: int, current: int) -> None:
    currents, _, n = held([drive], voltage_decay=1.0)
    assert currents == [current]
    assert n == int(current != drive) + int(abs(current) == MOST)  # a voltage of 2^23 is clipped


@pytest.mark.parametrize("sign", [1, -1])
def test_a_voltage_is_clipped(sign: int) -> None:
    _, voltages, n = held([sign * (MOST - 1), sign * 3, 0], current_decay=1.0)
    assert voltages == [sign * (MOST - 1)] * 3
    assert n == 1
    _, voltages, n = held([sign * (MOST - 1), -sign * 3], current_decay=1.0)
    assert voltages == [sign * (MOST - 1), sign * (MOST - 4)]
    assert n == 0
