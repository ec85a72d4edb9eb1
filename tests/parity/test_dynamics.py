"""The CUBA neuron against lava-dl's figures, and its gradients against torch autograd.

lava-dl and snnzoo agree in the forward pass and in the gradient of the weighted input. They differ in the gradients of
the decays, where lava-dl's figures are not derivatives of its own dynamics:

- `grad_current_decay` has the opposite sign: it is the gradient with respect to 1 - decay.
- `grad_voltage_decay` has the opposite sign too, and multiplies by the voltage before the reset, while the leak acts on
  the voltage after it.

Both also lack the factor 1/4096 of decays in units of 1/4096. The last tests show that snnzoo's gradients are the true
derivatives of the recurrence in which a spike has its surrogate's gradient and a reset subtracts a constant.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.functional.cuba import CubaOutput, cuba
from bootstrap_core.ops.library import is_installed
from bootstrap_core.ops.neurons import NeuronConstants, by_step, fire

CASES = range(12)
ROUNDING = 1e-6
"""Tolerance of a decay's gradient, as a part of the sum of the magnitudes of its terms.

The gradient is a sum over all steps, images and neurons whose terms cancel, up to 700-fold: its error in float32 is a
part of the terms, and no fixed part of the sum.
"""


@dataclass(frozen=True)
class Case:
    """One recorded case, time first, and our outputs and gradients for it."""

    recorded: dict[str, Tensor]
    parameters: dict[str, Any]
    z: Tensor
    current_decay: Tensor
    voltage_decay: Tensor
    ours: CubaOutput


def by_native(z: Tensor, **constants: Any) -> CubaOutput:
    """Run `cuba` with the native library."""
    spikes = fire(z, NeuronConstants(**constants), len(z))
    run = spikes.link.grad_fn.run
    states = (by_step(state.view(*state.shape[:2], -1)) / 4096 for state in (run.current, run.voltage))
    return CubaOutput(spikes.tensor(), *states)


@pytest.fixture(scope="module", params=[cuba, by_native], ids=["defined", "native"])
def run_case(request, golden_arrays, golden_json):
    if request.param is by_native and not is_installed():
        pytest.skip("needs the native library")
    arrays, parameters = golden_arrays("dynamics.npz"), golden_json("dynamics.json")

    def run(k: int) -> Case:
        names = ("z", "current", "voltage", "spikes", "grad_spikes", "grad_z")
        recorded = {name: torch.from_numpy(arrays[f"{k}/{name}"]).permute(2, 0, 1) for name in names}  # [T, N, C]
        recorded |= {f"grad_{d}": torch.from_numpy(arrays[f"{k}/grad_{d}"]) for d in ("current_decay", "voltage_decay")}
        device = parameters[k]["device_params"]
        z = recorded["z"].clone().requires_grad_()
        current_decay, voltage_decay = (
            torch.tensor([device[name] / 4096], requires_grad=True) for name in ("iDecay", "vDecay")
        )
        options = {name: parameters[k].get(name, 1.0) for name in ("tau_grad", "scale_grad")}
        options["threshold"] = device["vThMant"] / 64
        ours = request.param(z, current_decay=current_decay, voltage_decay=voltage_decay, **options)
        ours.spikes.backward(recorded["grad_spikes"])
        return Case(recorded, options, z, current_decay, voltage_decay, ours)

    return run


@pytest.mark.parametrize("k", CASES)
@pytest.mark.parametrize("name", ["spikes", "current", "voltage"])
def test_states_and_spikes_equal_lava_dl_to_the_last_bit(k: int, name: str, run_case) -> None:
    case = run_case(k)
    assert case.recorded["spikes"].any()
    assert torch.equal(getattr(case.ours, name), case.recorded[name])


@pytest.mark.parametrize("k", CASES)
def test_gradient_of_the_weighted_input_equals_lava_dl(k: int, run_case) -> None:
    case = run_case(k)
    expected = case.recorded["grad_z"]
    assert (case.z.grad - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("k", CASES)
def test_lava_dl_gives_the_current_decay_the_opposite_sign(k: int, run_case) -> None:
    case = run_case(k)
    rounding = ROUNDING * (case.z.grad[1:] * case.ours.current[:-1]).abs().sum().item()
    expected = -case.recorded["grad_current_decay"].item()
    assert case.current_decay.grad.item() == pytest.approx(expected, rel=0, abs=rounding)


@pytest.mark.parametrize("k", CASES)
def test_lava_dl_takes_the_voltage_before_reset_in_the_gradient_of_the_voltage_decay(k: int, run_case) -> None:
    case = run_case(k)
    grad_v = case.z.grad.clone()
    grad_v[:-1] -= (1 - case.current_decay.detach()) * case.z.grad[1:]  # invert the filter of the current
    terms = grad_v[1:] * case.ours.voltage[:-1]
    rounding = ROUNDING * terms.abs().sum().item()
    assert case.recorded["grad_voltage_decay"].item() == pytest.approx(terms.sum().item(), rel=0, abs=rounding)


class _Spike(torch.autograd.Function):
    """A step function at the threshold, with gradient `scale / (2 tau) exp(-|v - threshold| / tau)`."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, threshold: float, tau: float, scale: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.constants = threshold, tau, scale
        return (v > threshold).to(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (v,), (threshold, tau, scale) = ctx.saved_tensors, ctx.constants
        return grads[0] * scale / (2 * tau) * torch.exp(-(v - threshold).abs() / tau), None, None, None


def untruncated_spikes(
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    *,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    bias: Tensor | float = 0.0,
    subtract: bool = False,
    initial_voltage: float = 0.0,
) -> Tensor:
    """Run the recurrence in real numbers, for autograd; the amount that a reset subtracts has no gradient."""
    u = torch.zeros_like(z[0])
    v = torch.full_like(z[0], initial_voltage)
    spikes = []
    for step in z:
        u = (1 - current_decay) * u + step
        v = (1 - voltage_decay) * v + u + bias
        spike = _Spike.apply(v, threshold, 100 * threshold * tau_grad, 0.1 * scale_grad)
        spikes.append(spike)
        v = v - (spike * (threshold if subtract else v)).detach()
    return torch.stack(spikes)


@pytest.mark.parametrize("k", CASES)
def test_decay_gradients_are_those_of_autograd_up_to_the_truncation_of_the_states(k: int, run_case) -> None:
    case = run_case(k)
    z, *decays = (x.detach().double().requires_grad_() for x in (case.z, case.current_decay, case.voltage_decay))
    spikes = untruncated_spikes(z, *decays, **case.parameters)
    assert torch.equal(spikes.float(), case.ours.spikes)
    spikes.backward(case.recorded["grad_spikes"].double())
    for ours, true in zip((case.current_decay, case.voltage_decay), decays, strict=True):
        assert ours.grad.item() == pytest.approx(true.grad.item(), rel=5e-3)


def random_exact_case(channels: int, seed: int) -> dict[str, Tensor]:
    """Draw 7 steps with decays 0, 1/2 or 1 and inputs on a coarse grid: all states are on the grid of 1/4096."""
    generator = torch.Generator().manual_seed(seed)

    def grid(low: int, high: int, denominator: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator) / denominator

    return {
        "z": grid(-16, 32, 16, 7, 4, channels, 2),
        "current_decay": grid(0, 2, 2, channels),
        "voltage_decay": grid(0, 2, 2, channels),
        "bias": grid(-8, 16, 64, channels),
        "grad_spikes": grid(-8, 8, 4, 7, 4, channels, 2),
    }


@pytest.mark.parametrize("initial_voltage", [0.0, 0.625])
@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_all_gradients_are_those_of_autograd_where_nothing_is_truncated(
    subtract: bool, seed: int, initial_voltage: float
) -> None:
    case = random_exact_case(channels=5, seed=seed)
    options = {
        "threshold": 1.25,
        "tau_grad": 0.01,
        "scale_grad": 2.0,
        "subtract": subtract,
        "initial_voltage": initial_voltage,
    }
    names = ("z", "current_decay", "voltage_decay", "bias")
    ours = {name: case[name].clone().requires_grad_() for name in names}
    true = {name: case[name].double().requires_grad_() for name in names}

    spikes = cuba(**ours, **options).spikes
    per_channel = {name: true[name].reshape(-1, 1) for name in names[1:]}  # [C] -> [C, 1] against [N, C, 2]
    expected = untruncated_spikes(true["z"], **per_channel, **options)
    assert 0 < expected.mean() < 1
    assert torch.equal(spikes.double(), expected)

    spikes.backward(case["grad_spikes"])
    expected.backward(case["grad_spikes"].double())
    for name in names:
        assert ours[name].grad.shape == true[name].grad.shape
        torch.testing.assert_close(ours[name].grad.double(), true[name].grad, rtol=1e-5, atol=1e-7, msg=name)


def test_the_gradient_of_a_shared_decay_is_the_sum_over_channels() -> None:
    case = random_exact_case(channels=5, seed=9)
    options = {"threshold": 1.0, "tau_grad": 0.01, "scale_grad": 1.0}
    grads = []
    for size in (1, 5):
        decays = [torch.full((size,), 0.5, requires_grad=True) for _ in range(2)]
        out = cuba(case["z"], current_decay=decays[0], voltage_decay=decays[1], bias=case["bias"], **options)
        out.spikes.backward(case["grad_spikes"])
        grads.append([decay.grad for decay in decays])
    for shared, single in zip(*grads, strict=True):
        assert shared.shape == (1,)
        assert shared.item() == pytest.approx(single.sum().item(), rel=1e-4)
