from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.build import build_network
from bootstrap_core.integer import IntegerNetwork
from bootstrap_core.mode import Mode
from bootstrap_core.network import Network, as_input
from bootstrap_core.schedule import LayerModes
from specs.errors import DataError, SnnZooError
from specs.network import NetworkSpec

T = 6


def make(**options: Any) -> Network:
    spec: dict[str, Any] = {
        "name": "tiny",
        "time_steps": T,
        "neuron": {"threshold": 0.5, "voltage_decay": 0.1},
        "input": {"shape": [1, 4, 4]},
        "blocks": [
            {"kind": "conv", "channels": 3, "kernel": 3},
            {"kind": "flatten"},
            {"kind": "dense", "features": 8},
            {"kind": "affine", "features": 2, "bias": True},
        ],
    }
    network = build_network(NetworkSpec.model_validate(spec | options), seed=0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("synapse.weight"):
                parameter.add_(0.2)
    return network


def images(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fitted() -> Network:
    network = make()
    network(images(50), Mode.SAMPLE)
    network(images(50), Mode.FIT)
    return network


def test_logits_are_the_mean_of_the_readout_over_time() -> None:
    logits, trace = make().run(images(), Mode.SNN)
    torch.testing.assert_close(logits, trace.spikes[-1].mean(0))


def test_each_block_runs_on_the_output_of_the_one_before() -> None:
    network = make()
    _, trace = network.run(images(), Mode.SNN)
    x = images()
    for i, block in enumerate(network.blocks):
        x = block(x, Mode.SNN, T)
        assert torch.equal(x, trace.spikes[i])


def test_running_gives_the_logits_of_calling() -> None:
    network = make()
    assert torch.equal(network.run(images(), Mode.SNN)[0], network(images(), Mode.SNN))


def test_the_default_mode_is_snn_in_evaluation_and_ann_in_training(fitted: Network) -> None:
    assert torch.equal(fitted(images()), fitted(images(), Mode.SNN))
    assert torch.equal(fitted.train()(images()), fitted(images(), Mode.ANN))
    assert not torch.equal(fitted(images(), Mode.ANN), fitted(images(), Mode.SNN))


def test_a_trace_has_spikes_of_every_step_and_their_mean_rate() -> None:
    _, trace = make().run(images(), Mode.SNN)
    assert [tuple(x.shape) for x in trace.spikes] == [
        (T, 5, 1, 4, 4),
        (T, 5, 3, 2, 2),
        (T, 5, 12),
        (T, 5, 8),
        (T, 5, 2),
    ]
    for spikes, rates in zip(trace.spikes, trace.rates, strict=True):
        assert torch.equal(spikes.mean(0), rates)


def test_a_trace_of_ann_mode_has_rates_only(fitted: Network) -> None:
    logits, trace = fitted.run(images(), Mode.ANN)
    assert trace.spikes == (None,) * 5
    assert [tuple(x.shape) for x in trace.rates] == [(5, 1, 4, 4), (5, 3, 2, 2), (5, 12), (5, 8), (5, 2)]
    assert torch.equal(trace.rates[-1], logits)


@pytest.mark.parametrize("crossover", range(1, 5))
def test_blocks_before_the_crossover_run_all_steps_and_their_mean_rate_enters_the_next(
    crossover: int, fitted: Network
) -> None:
    logits, trace = fitted.run(images(), LayerModes(Mode.ANN, crossover))
    x = images()
    for block in fitted.blocks[:crossover]:
        x = block(x, Mode.SNN, T)
    assert len(x) == T
    assert 0 < x.mean() < 1
    x = x.mean(0)
    for block in fitted.blocks[crossover:]:
        x = block(x, Mode.ANN, T)
    assert torch.equal(logits, x)
    assert [spikes is not None for spikes in trace.spikes] == [i < crossover for i in range(5)]


def test_a_crossover_past_the_last_block_is_snn(fitted: Network) -> None:
    assert torch.equal(fitted(images(), LayerModes(Mode.ANN, 99)), fitted(images(), Mode.SNN))


def test_graded_pixels_enter_ann_mode_as_they_are() -> None:
    network = make(input={"shape": [1, 4, 4], "encoding": "graded"})
    network(images(50), Mode.SAMPLE)
    network(images(50), Mode.FIT)
    assert torch.equal(network(images(), LayerModes(Mode.ANN, 1)), network(images(), Mode.ANN))


def test_a_trace_shows_graded_input_at_every_step() -> None:
    _, trace = make(input={"shape": [1, 4, 4], "encoding": "graded"}).run(images(), Mode.SNN)
    assert trace.spikes[0].shape == (T, 5, 1, 4, 4)
    assert torch.equal(trace.rates[0], torch.round(255 * images().double()).float())


def test_a_readout_right_on_graded_input_gives_the_logits_of_its_one_step() -> None:
    network = make(
        input={"shape": [16], "encoding": "graded"}, blocks=[{"kind": "affine", "features": 2}], time_steps=9
    )
    weight = network.readout.quantized_weight()
    expected = torch.nn.functional.linear(torch.round(255 * images().flatten(1)) / 255, weight)
    torch.testing.assert_close(network(images()), expected)


def test_time_steps_overrule_those_of_the_spec() -> None:
    logits, trace = make().run(images(), Mode.SNN, time_steps=3)
    assert {len(spikes) for spikes in trace.spikes} == {3}
    assert torch.equal(make()(images(), Mode.SNN, time_steps=3), logits)


def test_empty_steps_add_up_from_block_to_block() -> None:
    _, trace = make(delay_shift=True).run(torch.ones(1, 1, 4, 4), Mode.SNN)
    first = [int(trace.spikes[i].flatten(1).any(1).float().argmax()) for i in (0, 1, 2, 3)]
    assert first == [1, 2, 2, 3]


def test_sampling_and_fitting_make_ann_mode_defined() -> None:
    network = make()
    assert not network.fitted
    network(images(50), Mode.SAMPLE)
    assert not network.fitted
    network(images(50), Mode.FIT)
    assert network.fitted


def test_a_network_is_fitted_when_every_activation_is() -> None:
    network = make()
    network.blocks[0].sampler.add(torch.rand(50), torch.rand(50))
    network.blocks[0].sampler.fit()
    assert not network.fitted


def test_ann_mode_before_a_fit_raises() -> None:
    with pytest.raises(SnnZooError, match="no activation yet"):
        make()(images(), Mode.ANN)


def test_a_network_without_its_own_fit_gets_it_from_the_state_dict(fitted: Network) -> None:
    other = make()
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other(images(), Mode.ANN), fitted(images(), Mode.ANN))


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.ANN, Mode.SAMPLE])
def test_gradients_reach_every_parameter_in_every_mode(mode: Mode, fitted: Network) -> None:
    fitted(images(), mode).sum().backward()
    for name, parameter in fitted.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_bytes_are_scaled_to_zero_to_one() -> None:
    pixels = torch.arange(0, 256, 16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert torch.equal(as_input(pixels, make().spec), pixels.float() / 255)
    assert torch.equal(make()(pixels), make()(pixels.float() / 255))


def test_images_of_the_right_size_take_the_shape_of_the_input() -> None:
    assert torch.equal(make()(images().flatten(1)), make()(images()))


def test_images_of_another_size_name_both_shapes_and_the_network() -> None:
    with pytest.raises(DataError, match=r"images of \[1, 4, 5\] do not fit the input \[1, 4, 4\] of tiny"):
        make()(torch.zeros(2, 1, 4, 5))


def test_no_images_give_no_logits() -> None:
    assert make()(torch.zeros(0, 1, 4, 4)).shape == (0, 2)


def test_a_number_is_no_image() -> None:
    with pytest.raises(DataError):
        make()(torch.tensor(0.5))


def test_the_readout_is_the_last_block() -> None:
    network = make()
    assert network.readout is network.blocks[-1]


def test_the_device_is_that_of_the_weights() -> None:
    assert make().device == torch.device("cpu")
    assert make().to("meta").device == torch.device("meta")


@pytest.mark.parametrize("steps", [0, -1])
def test_a_run_of_no_steps_is_refused_by_both_engines(steps: int) -> None:
    network = make()
    for runnable in (network, IntegerNetwork(network)):
        with pytest.raises(SnnZooError, match="at least 1"):
            runnable.run(torch.zeros(1, 1, 4, 4), time_steps=steps)


@pytest.mark.parametrize("last", [{"kind": "dense", "features": 5}, {"kind": "conv", "channels": 2, "kernel": 2}])
def test_a_spiking_readout_gives_its_rates_as_logits(last) -> None:
    shape = [6] if last["kind"] == "dense" else [1, 3, 3]
    spec = {"name": "n", "time_steps": 8, "neuron": {"threshold": 0.5}, "input": {"shape": shape}, "blocks": [last]}
    network = build_network(NetworkSpec.model_validate(spec), seed=0)
    with torch.no_grad():
        network.readout.synapse.weight.uniform_(-0.2, 1)
    images = torch.rand(3, *shape)
    logits, trace = network.run(images)
    assert 0 < trace.spikes[-1].sum() < trace.spikes[-1].numel()
    assert torch.equal(logits, trace.spikes[-1].mean(0).flatten(1))
    assert logits.shape == (3, network.spec.n_classes)
    exact, integer_trace = IntegerNetwork(network).run(images)
    assert torch.equal(exact, logits)
    fired = integer_trace.readout_voltage > 0.5 * 4096
    assert torch.equal(fired.to(torch.int8), integer_trace.spikes[-1])
