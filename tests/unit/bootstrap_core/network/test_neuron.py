import pytest
import torch
from torch import nn

from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.ops.library import is_installed
from bootstrap_core.ops.neurons import fire
from specs.layers.neuron import CubaSpec, LearnDecays

DECAYS = {"current_decay": 0.37, "voltage_decay": 0.03}


def make(learn: LearnDecays = LearnDecays.NONE, *, channels: int = 3, levels: int = 1, **options) -> CubaNeuron:
    return CubaNeuron(CubaSpec(**{**DECAYS, **options}, learn_decays=learn), channels=channels, levels=levels)


@pytest.mark.parametrize(
    ("learn", "size"), [(LearnDecays.NONE, 1), (LearnDecays.SHARED, 1), (LearnDecays.PER_CHANNEL, 3)]
)
def test_decays_are_one_for_the_layer_or_one_for_each_channel(learn: LearnDecays, size: int) -> None:
    neuron = make(learn)
    for name, value in DECAYS.items():
        assert torch.equal(getattr(neuron, name).detach(), torch.full((size,), value))


@pytest.mark.parametrize("learn", [LearnDecays.SHARED, LearnDecays.PER_CHANNEL])
def test_learnt_decays_are_parameters(learn: LearnDecays) -> None:
    neuron = make(learn)
    assert {name for name, _ in neuron.named_parameters()} == {"current_decay", "voltage_decay"}
    assert isinstance(neuron.current_decay, nn.Parameter)


@pytest.mark.parametrize("learn", [LearnDecays.SHARED, LearnDecays.PER_CHANNEL])
def test_gradients_reach_learnt_decays(learn: LearnDecays) -> None:
    neuron = make(learn, tau_grad=0.01)
    neuron.constants().define(torch.rand(8, 4, 3, generator=torch.Generator().manual_seed(0))).spikes.sum().backward()
    for decay in neuron.parameters():
        assert decay.grad.shape == decay.shape
        assert bool((decay.grad < 0).all())  # more decay, fewer spikes


def test_decays_run_on_the_grid_of_4096() -> None:
    current_decay, voltage_decay = make().quantized_decays()
    assert (4096 * current_decay).tolist() == [1516]
    assert (4096 * voltage_decay).tolist() == [123]


@pytest.mark.skipif(not is_installed(), reason="needs the native library")
def test_the_quantized_decays_are_what_the_native_library_runs() -> None:
    neuron = make(LearnDecays.SHARED, threshold=9.0)
    spikes = fire(torch.tensor([1.0, 0.0]).reshape(2, 1, 1), neuron.constants(), 2)
    assert spikes.link.grad_fn.run.current.flatten().tolist() == [4096, 4096 - 1516]


def test_a_direct_input_enters_the_voltage_past_the_current() -> None:
    z = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    assert make(threshold=9.0).constants(direct=True).define(z).current[1].item() == 0


@pytest.mark.parametrize(
    ("threshold", "levels", "mant"), [(1.25, 1, 80), (0.1, 1, 6), (0.1, 15, 96), (1.0, 255, 16_320)]
)
def test_the_threshold_is_truncated_to_64ths_after_the_levels_of_its_input(threshold, levels, mant) -> None:
    assert make(threshold=threshold, levels=levels).threshold_mant == mant


@pytest.mark.parametrize(("option", "factor"), [("scale_grad", 3.0), ("tau_grad", 1 / 3)])
def test_the_surrogate_is_that_of_the_spec(option: str, factor: float) -> None:
    gradients = []
    for options in ({}, {option: 3.0}):
        z = torch.full((1, 1, 1), 1.0, requires_grad=True)  # at the threshold: scale / (2 tau)
        make(**options).constants().define(z).spikes.sum().backward()
        gradients.append(z.grad.item())
    assert gradients[1] / gradients[0] == pytest.approx(factor, rel=1e-5)
