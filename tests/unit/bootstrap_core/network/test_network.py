import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.inputs import as_input
from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.library import is_installed, without_native
from bootstrap_core.ops.spikes import Spikes
from specs.errors import DataError, SnnZooError, StateOverflowError
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


def test_no_step_is_empty_unless_told() -> None:
    """Input neurons, and neurons with a strong input from them, fire in the first step, unless `delay_shift` is set."""
    for options, first in (({}, True), ({"delay_shift": True}, False)):
        network = make(**options)
        with torch.no_grad():
            network.blocks[1].synapse.weight.fill_(2.0)
        _, trace = network.run(torch.ones(1, 1, 4, 4), Mode.SNN)
        assert [bool(spikes[0].any()) for spikes in trace.spikes[:2]] == [first, first]
        assert all(bool(spikes.any()) for spikes in trace.spikes[:2])


def test_each_block_runs_on_the_output_of_the_one_before() -> None:
    network = make()
    _, trace = network.run(images(), Mode.SNN)
    x = images()
    for i, block in enumerate(network.blocks[:-1]):
        x = block(x, Mode.SNN, T)
        assert torch.equal(x.tensor(), trace.spikes[i])
    assert torch.equal(network.readout.over_time(x), trace.spikes[-1])


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
    assert len(x.tensor()) == T
    assert 0 < x.tensor().mean() < 1
    x = x.tensor().mean(0)
    for block in fitted.blocks[crossover:]:
        x = block(x, Mode.ANN, T)
    assert torch.equal(logits, x)
    assert [spikes is not None for spikes in trace.spikes] == [i < crossover for i in range(5)]


def test_graded_pixels_enter_ann_mode_as_they_are() -> None:
    network = make(input={"shape": [1, 4, 4], "encoding": "graded"})
    network(images(50), Mode.SAMPLE)
    network(images(50), Mode.FIT)
    assert torch.equal(network(images(), LayerModes(Mode.ANN, 1)), network(images(), Mode.ANN))


def test_a_tally_counts_graded_input_at_every_step() -> None:
    network = make(input={"shape": [1, 4, 4], "encoding": "graded"})
    x = images().where(images() > 0.5, 0)
    logits, tally = network.tally(x)
    assert torch.equal(logits, network(x))
    assert torch.equal(tally.counts[0], T * (x > 0).sum(0))
    assert tally.rates[0] == pytest.approx((x > 0).float().mean().item())


@torch.no_grad()
@pytest.mark.parametrize("crossover", range(5))
def test_a_tally_of_a_hybrid_counts_spikes_and_has_the_means_of_rates(crossover: int, fitted: Network) -> None:
    modes = LayerModes(Mode.ANN, crossover)
    logits, trace = fitted.run(images(), modes)
    ours, tally = fitted.tally(images(), modes)
    assert torch.equal(ours, logits)
    assert [count is not None for count in tally.counts] == [i < crossover for i in range(5)]
    for i in range(crossover):
        assert torch.equal(tally.counts[i], trace.spikes[i].count_nonzero(dim=(0, 1)))
        assert tally.rates[i] == pytest.approx((trace.spikes[i] != 0).double().mean().item())
    for i in range(crossover, 5):
        assert tally.rates[i] == pytest.approx(trace.rates[i].mean().item())


@pytest.mark.parametrize("steps", [1, 3])
def test_graded_input_is_weighed_as_it_is_for_any_number_of_steps(steps: int) -> None:
    network = make(input={"shape": [1, 4, 4], "encoding": "graded"}, time_steps=steps)
    logits, trace = network.run(images(), Mode.SNN)
    block = network.blocks[1]
    z = F.conv2d(torch.round(255 * images()), block.quantized_weight())
    expected = block.constants().define(z.expand(steps, *z.shape)).spikes
    assert 0 < expected.mean() < 1
    assert torch.equal(trace.spikes[1], expected)
    assert torch.equal(IntegerNetwork(network)(images()), logits)


def test_a_readout_right_on_graded_input_gives_the_logits_of_its_one_step() -> None:
    network = make(
        input={"shape": [16], "encoding": "graded"}, blocks=[{"kind": "affine", "features": 2}], time_steps=9
    )
    weight = network.readout.quantized_weight()
    expected = torch.nn.functional.linear(torch.round(255 * images().flatten(1)) / 255, weight)
    torch.testing.assert_close(network(images()), expected)


def test_empty_steps_add_up_from_block_to_block() -> None:
    _, trace = make(delay_shift=True).run(torch.ones(1, 1, 4, 4), Mode.SNN)
    first = [int(trace.spikes[i].flatten(1).any(1).float().argmax()) for i in (0, 1, 2, 3)]
    assert first == [1, 2, 2, 3]


def test_ann_mode_before_a_fit_raises() -> None:
    with pytest.raises(SnnZooError, match="needs fitted activations"):
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


def test_a_tandem_has_the_logits_of_spikes_and_the_gradient_of_the_ann_at_their_rates(fitted: Network) -> None:
    logits = fitted.tandem(images())
    assert torch.equal(logits, fitted(images(), Mode.SNN))
    logits[:, 0].sum().backward()
    _, trace = fitted.run(images(), Mode.SNN)
    pixels, conv, flat, dense, _ = trace.rates
    blocks, drive = fitted.blocks, (flat @ fitted.blocks[3].quantized_weight().T).detach().requires_grad_()
    blocks[3].sampler(drive).sum().backward()
    arriving = blocks[4].quantized_weight()[0] * drive.grad
    assert (arriving != 0).float().mean() > 0
    torch.testing.assert_close(blocks[4].synapse.weight.grad[0], dense.sum(0))
    torch.testing.assert_close(blocks[3].synapse.weight.grad, arriving.T @ flat)
    spikes = (pixels * T).round().double()  # exact: sums lie on corners of the activation
    drive = F.conv2d(spikes, blocks[1].quantized_weight().double()).float().div(T).detach().requires_grad_()
    blocks[1].sampler(drive).sum().backward()
    arriving = (arriving @ blocks[3].quantized_weight()).reshape(conv.shape) * drive.grad
    expected = torch.nn.grad.conv2d_weight(pixels, blocks[1].quantized_weight().shape, arriving)
    torch.testing.assert_close(blocks[1].synapse.weight.grad, expected)


CONV = {"kind": "conv", "channels": 3, "kernel": 3, "padding": 1, "bias": True}
ANY = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 1.0}


@pytest.mark.skipif(not is_installed(), reason="needs the native library")
@pytest.mark.parametrize("dropping", [None, 2, 3, 5, 6])
@pytest.mark.parametrize("entering", [{}, {"encoding": "graded", "bits": 3}, {"exact_input": False}])
def test_a_tandem_is_the_same_by_the_native_library_and_by_the_definitions(
    entering: dict[str, Any], dropping: int | None
) -> None:
    network = make(
        time_steps=8,  # rates in eighths: their sums are exact in float32
        input={"shape": [2, 6, 5], **entering},
        blocks=[
            {**CONV, "channels": 4, "groups": 2},
            {"kind": "avg_pool", "kernel": 2, "gain": 4.2, "neuron": ANY},
            {**CONV, "channels": 4, "weight_norm": True, "skips": [{"source": 2, "kind": "identity"}]},
            {"kind": "flatten"},
            {"kind": "dense", "features": 9},
            {"kind": "affine", "features": 3, "bias": True},
        ],
    )
    x = torch.rand(40, 2, 6, 5)
    for mode in (Mode.SAMPLE, Mode.FIT):
        network(x, mode)
    if dropping is not None:
        network.blocks[dropping].dropout = 0.5
    network.train()
    found = []
    for run in (nullcontext, without_native):
        network.zero_grad()
        torch.manual_seed(3)
        with run():
            logits = network.tandem(x)
            logits.square().sum().backward()
        found.append([logits, *(parameter.grad for parameter in network.parameters())])
    for native, defined in zip(*found, strict=True):
        torch.testing.assert_close(native, defined, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0][0], found[1][0])


def test_a_tandem_whose_states_leave_24_bits_goes_on() -> None:
    network = make(
        neuron={"threshold": 0.5, "voltage_decay": 0.0},
        blocks=[{"kind": "flatten"}, {"kind": "dense", "features": 9}, {"kind": "affine", "features": 2}],
    )
    for mode in (Mode.SAMPLE, Mode.FIT):
        network(images(50), mode)
    with torch.no_grad():
        network.blocks[2].synapse.weight.fill_(-3.9)
    network.spec = network.spec.model_copy(update={"time_steps": 200})
    with pytest.raises(StateOverflowError):
        IntegerNetwork(network)(images())
    assert torch.equal(network.tandem(images()), network(images(), Mode.SNN))


@pytest.mark.parametrize("graded", [False, True])
def test_both_of_a_tandem_drop_the_same_inputs(graded: bool) -> None:
    network = make(
        input={"shape": [1, 4, 4], "encoding": "graded"} if graded else {"shape": [1, 4, 4]},
        blocks=[
            {"kind": "conv", "channels": 3, "kernel": 3},
            {"kind": "flatten"},
            {"kind": "dense", "features": 60, "dropout": 0.5},
            {"kind": "affine", "features": 2, "dropout": 0.5},
        ],
    )
    for mode in (Mode.SAMPLE, Mode.FIT):
        network(images(50), mode)
    torch.manual_seed(7)
    logits = network.train().tandem(images(1))
    logits[0, 0].backward()
    weight = network.readout.synapse.weight.grad[0]  # equals the rates that reached the readout
    _, trace = network.eval().run(images(1), Mode.SNN)
    assert 0 < ((weight == 0) & (trace.rates[-2][0] > 0)).sum() < (trace.rates[-2][0] > 0).sum()
    torch.testing.assert_close(logits[0, 0], network.readout.quantized_weight()[0] @ weight)
    torch.manual_seed(7)
    torch.testing.assert_close(network.train()(images(1), Mode.SNN), logits)


def test_a_tandem_has_skips() -> None:
    network = residual()
    for mode in (Mode.SAMPLE, Mode.FIT):
        network(images(50), mode)
    logits = network.tandem(images())
    torch.testing.assert_close(logits, network(images(), Mode.SNN))
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_tandem_is_exact_where_a_caller_lets_torch_round(fitted: Network) -> None:
    exact = fitted(images(), Mode.SNN)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fitted.tandem(images())
    assert torch.equal(rounded, exact)


def test_bytes_are_scaled_to_zero_to_one() -> None:
    pixels = torch.arange(0, 256, 16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert torch.equal(as_input(pixels, make().spec), pixels.float() / 255)
    assert torch.equal(make()(pixels), make()(pixels.float() / 255))


def test_images_of_the_right_size_take_the_shape_of_the_input() -> None:
    assert torch.equal(make()(images().flatten(1)), make()(images()))


WANTED = r"tiny takes images as a tensor \[N, 1, 4, 4\], floats in 0..1 or uint8"


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (torch.zeros(2, 1, 4, 5), rf"images of \[2, 1, 4, 5\] do not fit: {WANTED}$"),
        (torch.zeros(4, 4), rf"images of \[4, 4\] do not fit: {WANTED}; one image is a batch of one: images\[None\]"),
        (torch.tensor(1.0), rf"images of \[\] do not fit: {WANTED}$"),
        ([1], rf"{WANTED}, not a list"),
        (torch.zeros(1, 1, 4, 4).numpy(), rf"{WANTED}, not a ndarray"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int64), rf"{WANTED}, not torch.int64"),
        (torch.zeros(3, 1, 4, 4).index_fill(2, torch.tensor(1), torch.nan), rf"pixels that are NaN: {WANTED}"),
    ],
)
def test_what_are_no_images_is_told_by_both_engines(images, error) -> None:
    for runnable in (make(), IntegerNetwork(make())):
        for run in (runnable, runnable.run, runnable.tally):
            with pytest.raises(DataError, match=error):
                run(images)


def test_floats_that_were_not_divided_or_were_normalised_are_told_by_both_engines() -> None:
    whole = images().round()
    rare = torch.zeros_like(whole)
    rare[0, 0, 0, 0] = 1.5
    normalising = build_network(
        make().spec.model_copy(update={"input": make().spec.input.model_copy(update={"mean": 0.5, "std": 0.25})})
    )
    by_itself = "the network normalises them, by its input.mean 0.5 and input.std 0.25"
    not_at_all = "this network does not normalise them"
    for network, done in ((make(), not_at_all), (normalising, by_itself)):
        for runnable in (network, IntegerNetwork(network)):
            with pytest.warns(UserWarning, match=f"images have values up to 255: {WANTED}; only uint8 is"):
                runnable(whole * 255)
            for given, bounds in ((whole * 2 - 1, "-1 to 1"), (rare, "0 to 1.5")):
                told = f"images have values from {bounds}, as if they had been normalised: {WANTED}; {done}"
                with pytest.warns(UserWarning, match=told):
                    runnable(given)
            runnable(whole * 1.1 - 0.05)  # no warning: resizing leaves 0..1 by so much


def test_probabilities_are_those_of_the_scaled_logits_in_both_engines() -> None:
    network = build_network(make().spec.model_copy(update={"logit_scale": 3.0}), seed=0)
    expected = (3 * network(images(), time_steps=5)).softmax(1)
    for runnable in (network, network.train(), IntegerNetwork(network)):
        assert torch.equal(runnable.probabilities(images(), time_steps=5), expected)
    told = "gives spike trains, not classes, and so no probabilities"
    spikes = NetworkSpec.model_validate({
        "name": "n", "time_steps": 4, "output": "spikes", "input": {"shape": [4], "encoding": "events"},
        "blocks": [{"kind": "dense", "features": 3}],
    })  # fmt: skip
    with pytest.raises(SnnZooError, match=told):
        build_network(spikes).probabilities(torch.zeros(4, 1, 4))


def test_names_of_classes_go_wherever_the_network_goes() -> None:
    network = make()
    numbers = tuple(map(str, range(network.spec.n_classes)))
    assert network.classes == IntegerNetwork(network).classes == numbers
    names = [f"class {number}" for number in numbers]
    network.classes = names
    copies = (copy.deepcopy(network), IntegerNetwork(network), copy.deepcopy(IntegerNetwork(network)))
    assert all(each.classes == tuple(names) for each in (network, *copies))
    with pytest.raises(DataError, match=r"classes: 1 name for the \d+ classes of tiny: give one name for each class"):
        network.classes = ["one"]
    with pytest.raises(DataError, match="'twice' occurs twice"):
        network.classes = ["twice"] * len(names)


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2"])
def test_a_run_of_no_whole_number_of_steps_is_refused_by_both_engines(steps: Any) -> None:
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
    assert torch.equal(network.tally(images)[1].counts[-1], trace.spikes[-1].count_nonzero((0, 1)))
    fired = integer_trace.readout_voltage > 0.5 * 4096
    assert torch.equal(fired.to(torch.int8), integer_trace.spikes[-1])


# --- outputs


def timed(output: str, *, recurrent: bool = False) -> Network:
    readout = {"kind": "affine" if output == "last" else "dense", "features": 4, "bias": True}
    document = {
        "name": "timed",
        "time_steps": 7,
        "neuron": {"threshold": 0.5, "current_decay": 0.5, "voltage_decay": 0.1, "tau_grad": 0.1},
        "input": {"shape": [9], "encoding": "events"},
        "output": output,
        "blocks": [{"kind": "dense", "features": 16, "recurrent": recurrent}, readout],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.3, 0.5, generator=torch.Generator().manual_seed(1))
    return network


EVENTS = (torch.rand(7, 5, 9, generator=torch.Generator().manual_seed(0)) < 0.3).float()


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_logits_may_be_those_of_the_last_step(recurrent: bool) -> None:
    network = timed("last", recurrent=recurrent)
    logits, trace = network.run(EVENTS)
    weight, bias = network.readout.quantized_weight(), network.readout.quantized_bias()
    by_step = trace.spikes[1] @ weight.T + bias
    assert torch.equal(logits, by_step[-1])
    assert not torch.equal(logits, by_step.mean(0))
    assert torch.equal(trace.logits_after([3])[0], by_step[2])
    for runnable in (network, IntegerNetwork(network)):
        assert torch.equal(runnable.tally(EVENTS, also_after=[3])[1].earlier[0], by_step[2])
        assert torch.equal(runnable(EVENTS), logits)
    network(EVENTS, Mode.SNN).sum().backward()
    last = trace.spikes[1][-1].sum(0)
    assert torch.equal(network.readout.synapse.weight.grad, last.expand(4, 16))


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_network_may_give_the_spikes_of_its_readout(recurrent: bool) -> None:
    network = timed("spikes", recurrent=recurrent)
    trains, trace = network.run(EVENTS)
    assert torch.equal(trains, trace.spikes[-1])
    assert 0 < trains.mean() < 1
    assert torch.equal(trace.rates[-1], trains.mean(0))
    for runnable in (network, IntegerNetwork(network)):
        assert torch.equal(runnable(EVENTS), trains)
        assert torch.equal(runnable.tally(EVENTS, also_after=[3])[1].earlier[0], trains[:3])
    network(EVENTS, Mode.SNN)[3:].sum().backward()  # each spike has a gradient of its own
    assert all(bool(parameter.grad.any()) for parameter in network.parameters())


@pytest.mark.parametrize("output", ["last", "spikes"])
def test_outputs_that_depend_on_the_step_have_no_ann(output: str) -> None:
    network = timed(output)
    for mode in (Mode.ANN, Mode.SAMPLE):
        with pytest.raises(SnnZooError, match=f"a network with output: {output} runs only in Mode.SNN"):
            network(EVENTS, mode)
    with pytest.raises(SnnZooError, match=f"a network with output: {output} runs only in Mode.SNN"):
        network.tandem(EVENTS)


# --- skips


def residual(**options: Any) -> Network:
    """Return conv 1, conv 2 (skips from 0 and 1), flatten 3, dense 4 (skip from 1), affine 5 (skip from 4)."""
    network = make(
        blocks=[
            {"kind": "conv", "channels": 3, "kernel": 3, "padding": 1},
            {
                "kind": "conv", "channels": 3, "kernel": 1, "bias": True, **options,
                "skips": [{"source": 1, "kind": "identity"}, {"source": 0, "kind": "conv", "kernel": 3, "padding": 1}],
            },
            {"kind": "flatten"},
            {"kind": "dense", "features": 2, "neuron": {"threshold": 7.0}, "skips": [{"source": 1, "kind": "dense"}]},
            {"kind": "affine", "features": 2, "bias": True, "skips": [{"source": 4, "kind": "identity"}]},
        ]
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "skips" in name:
                parameter.uniform_(-0.2, 0.5, generator=generator)
        network.blocks[2].bias.fill_(0.125)
    return network


def weighted_by_hand(network: Network, i: int, outputs: list[Tensor]) -> Tensor:
    """Compute z of block i from the outputs of all blocks, `[M, ...]` each, with torch's own functions."""
    own, skips = network.blocks[i].quantized_weight(), [skip.quantized_weight() for skip in network.blocks[i].skips]
    match i:
        case 2:
            z = F.conv2d(outputs[1], own) + outputs[1] * skips[0].reshape(3, 1, 1)
            return z + F.conv2d(outputs[0], skips[1], padding=1)
        case 4:
            return outputs[3] @ own.T + outputs[1].flatten(1) @ skips[0].T
        case _:
            return outputs[4] @ own.T + outputs[4] * skips[0] + network.readout.quantized_bias()


def test_a_block_weighs_its_skips_as_torch_does_and_takes_its_bias_once() -> None:
    network = residual()
    logits, trace = network.run(images(), Mode.SNN)
    steps = [[x[t] for x in trace.spikes] for t in range(T)]
    for i in (2, 4):
        block = network.blocks[i]
        z = torch.stack([weighted_by_hand(network, i, step) for step in steps])
        assert torch.equal(block.constants().define(z).spikes, trace.spikes[i])
        assert 0 < trace.rates[i].mean() < 1
    expected = sum(weighted_by_hand(network, 5, step) for step in steps) / T
    torch.testing.assert_close(logits, expected)


def test_in_ann_mode_rates_are_weighed_likewise() -> None:
    network = residual()
    network(images(50), Mode.SAMPLE)
    network(images(50), Mode.FIT)
    logits, trace = network.run(images(), Mode.ANN)
    rates = list(trace.rates)
    decay, bias = network.blocks[2].neuron.quantized_decays()[0], network.blocks[2].quantized_bias()
    drive = weighted_by_hand(network, 2, rates) + (decay * bias).reshape(3, 1, 1)
    assert torch.equal(network.blocks[2].sampler(drive), rates[2])
    torch.testing.assert_close(logits, weighted_by_hand(network, 5, rates))
    assert torch.equal(network(images(), Mode.ANN), logits)


@pytest.mark.parametrize("crossover", range(1, 6))
def test_a_skip_over_the_crossover_takes_the_mean_rate(crossover: int) -> None:
    network = residual()
    network(images(50), Mode.SAMPLE)
    network(images(50), Mode.FIT)
    modes = LayerModes(Mode.ANN, crossover)
    logits, trace = network.run(images(), modes)
    for i, block in enumerate(network.blocks):
        sources = [i - 1, *(skip.source for skip in getattr(network.spec.layers[i], "skips", ()))]
        seen = [trace.spikes[s] if modes[i].spiking else trace.rates[s] for s in sources if s >= 0] or [images()]
        output = block(seen[0], modes[i], T, *seen[1:])
        if isinstance(output, Spikes):
            assert torch.equal(output.tensor(), trace.spikes[i])
        else:
            torch.testing.assert_close(output, trace.rates[i])
    assert torch.equal(network(images(), modes), logits)


@pytest.mark.skipif(not is_installed(), reason="needs the native library")
@pytest.mark.parametrize("options", [{}, {"norm": "weight_scale"}, {"delay_shift": True}, {"dropout": 0.2}])
def test_packed_spikes_with_skips_give_the_same_logits_and_gradients(options: dict[str, Any]) -> None:
    network, gradients = residual(**options).train(), []
    for run in (nullcontext, without_native):
        torch.manual_seed(0)
        network.zero_grad()
        with run():
            logits = network(images(), Mode.SNN)
            logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad for parameter in network.parameters())])
        if "norm" in options:
            network.blocks[2].norm.running_variance.fill_(1.0)
    for packed, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-5)
    assert all(network.blocks[2].skips[k].weight.grad.abs().sum() > 0 for k in range(2))


def test_a_weight_scale_is_of_all_synapses() -> None:
    network = residual(norm="weight_scale")
    block = network.blocks[2]
    block.norm.running_variance.fill_(4.0)
    for synapse, weight in block.synapses():
        assert torch.equal(weight, quantize_weight(synapse.weight / 2))
    _, trace = network.run(images(), Mode.SNN)
    _, exact = IntegerNetwork(network).run(images())
    assert torch.equal(exact.spikes[2].float(), trace.spikes[2])


@pytest.mark.parametrize("run", ["__call__", "run", "tally"])
def test_spikes_are_exact_where_a_caller_lets_torch_round(run: str) -> None:
    network = make().eval()
    with torch.no_grad():
        expected = network(images())
        with torch.autocast("cpu", torch.bfloat16):
            found = getattr(network, run)(images(), Mode.SNN)
    assert torch.equal(found if run == "__call__" else found[0], expected)


@pytest.mark.parametrize("convert", [lambda n: n.half(), lambda n: n.bfloat16(), lambda n: n.to(torch.float16)])
def test_types_that_round_weights_are_refused_and_nothing_changes(convert) -> None:
    network = make()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for module in (network, nn.Sequential(network)):
        with pytest.raises(SnnZooError, match=r"weights cannot be b?float16, .* network is float32 or float64"):
            convert(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_skips_are_in_the_state_dict_by_number() -> None:
    names = [name for name in residual().state_dict() if "skips" in name]
    assert names == [
        "blocks.2.skips.0.weight", "blocks.2.skips.1.weight", "blocks.4.skips.0.weight", "blocks.5.skips.0.weight",
    ]  # fmt: skip
