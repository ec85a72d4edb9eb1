"""The compiled kernels of training against the definitions: forward to the last bit, gradients closely."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("numba")

from bootstrap_core import kernels
from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.functional import cuba, piecewise
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.kernels import (
    conv_op,
    convolution_op,
    count_op,
    curve_op,
    dense_products,
    gradient_products,
    grid_op,
    half,
    input_op,
    linear_op,
    patches,
    short_products,
    spiking_ops,
    steady_op,
    steady_synapses,
    subset_sums,
    synapse_op,
    threads,
    weight_norm_op,
)
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.neuron_run import NeuronRun
from bootstrap_core.kernels.operators import Operator
from bootstrap_core.kernels.steady_synapses import InputTables, SteadyDense
from bootstrap_core.network import synapse
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.network.spikes import Spikes, SteadyInput
from bootstrap_core.network.synapse import DenseSynapse
from specs.network import NetworkSpec


def random_z(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).mul(40).round().div(32).add(0.3)


def random_case(seed: int, z: Tensor) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    channels = z.shape[2]

    def decay() -> Tensor:
        size = 1 if torch.rand((), generator=generator) < 0.5 else channels
        return torch.randint(0, 4097, (size,), generator=generator) / 4096

    return {
        "current_decay": torch.ones(1) if seed % 3 == 0 else decay(),
        "voltage_decay": decay(),
        "bias": torch.randint(-20, 40, (channels,), generator=generator) / 64 if seed % 2 else None,
        "threshold": 1.25,
        "tau_grad": 0.05,
        "scale_grad": 2.0,
        "subtract": seed % 4 > 1,
    }


SHAPES = [(16, 3, 700), (7, 2, 5, 4, 3), (1, 4, 6), (5, 1, 1), (3, 0, 4), (4, 2, 3, 1, 1)]


def leaf(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone().requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_neurons_equal_the_definition(seed: int, shape: tuple[int, ...]) -> None:
    z = random_z(seed, *shape)
    case = random_case(seed, z)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    results = []
    for run in (lambda z, **k: spiking_ops.cuba(z, *k.values()), cuba):
        leaves = {name: leaf(case[name]) for name in ("current_decay", "voltage_decay", "bias")}
        x = leaf(z)
        rest = {name: case[name] for name in ("threshold", "tau_grad", "scale_grad", "subtract")}
        outputs = run(x, **leaves, **rest)
        assert [output.requires_grad for output in outputs] == [True, False, False]
        outputs[0].backward(grad)
        results.append((outputs, [x.grad, *(y.grad for y in leaves.values() if y is not None)]))
    for ours, expected in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(ours, expected)
    for ours, expected in zip(results[0][1], results[1][1], strict=True):
        assert ours.shape == expected.shape
        torch.testing.assert_close(
            ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max() if len(z[0]) else 0)
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_neurons_in_whole_numbers_equal_those_in_floats(seed: int, shape: tuple[int, ...]) -> None:
    z = (random_z(seed, *shape) * 32).to(torch.int32)
    case = random_case(seed, z)
    neuron = [case[name] for name in ("current_decay", "voltage_decay", "bias", "threshold", "subtract")]
    grad, results = torch.randn(shape, generator=torch.Generator().manual_seed(seed)), []
    for reach in (math.inf, 1000):
        run = NeuronRun(z, 128, *neuron, reach=reach)
        assert run.is_whole == (reach == 1000)
        fired, out = torch.empty(shape, dtype=torch.int8), torch.empty(shape)
        states = torch.empty(shape), torch.empty(shape)
        run.forward(fired, *states)
        sums = run.backward(grad, case["tau_grad"], case["scale_grad"], out, decays=bool(seed % 2), bias=True)
        results.append((fired, *states, out, sums))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ("change", "is_whole"),
    [({}, True), ({"unit": 256}, True), ({"unit": 128 / 0.9}, False), ({"reach": 1 << 22}, False),
     ({"threshold": 0.3}, False), ({"bias": torch.tensor([1e9])}, False),
     ({"voltage_decay": torch.tensor([0.1])}, True)],
)  # fmt: skip
def test_neurons_are_whole_where_that_loses_nothing(change: dict[str, Any], is_whole: bool) -> None:
    neuron = {
        "z": torch.zeros(16, 2, 3, dtype=torch.int32), "unit": 128, "current_decay": torch.ones(1),
        "voltage_decay": torch.tensor([0.125]), "bias": None, "threshold": 1.25, "subtract": False, "reach": 1 << 16,
    }  # fmt: skip
    assert NeuronRun(**{**neuron, **change}).is_whole == is_whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neurons_take_steps_that_stand_for_all_and_any_order_in_memory(dtype: torch.dtype) -> None:
    case = random_case(1, random_z(0, 6, 4, 8))
    for z in (random_z(0, 4, 8).to(dtype).expand(6, 4, 8), random_z(0, 4, 6, 8).to(dtype).transpose(0, 1)):
        ours = spiking_ops.cuba(z, *case.values())
        for a, b in zip(ours, cuba(z, **case), strict=True):
            assert torch.equal(a, b)
        packed, _ = spiking_ops.fire(z, *case.values())
        assert torch.equal(packed.float(), ours[0])


def test_many_outputs_are_multiplied_from_one_rate_of_spikes_on() -> None:
    assert dense_products.least_rate(64) < dense_products.least_rate(512) == dense_products.least_rate(4096) < 0.2


def make(*blocks: dict[str, Any], shape: tuple[int, ...] = (40,), **options: Any) -> Network:
    spec = {
        "name": "test",
        "time_steps": 9,
        "input": {"shape": shape, "mean": 0.5, "std": 0.25},
        "blocks": [*blocks, {"kind": "affine", "features": 3, **options.pop("readout", {})}],
        "neuron": {"threshold": 0.6, "voltage_decay": 0.03, "tau_grad": 0.1, **options.pop("neuron", {})},
        **options,
    }
    return build_network(NetworkSpec.model_validate(spec), seed=0).train()


def choose_kernels(network: Network, compiled: bool) -> None:
    for module in network.modules():
        if isinstance(module, CubaNeuron | RateSampler):
            module.compiled = compiled


def train_once(network: Network, images: Tensor, mode: Mode, *, compiled: bool) -> tuple[Tensor, dict[str, Tensor]]:
    choose_kernels(network, compiled)
    network.zero_grad()
    torch.manual_seed(5)
    logits = network(images, mode)
    labels = torch.arange(len(images)) % 3
    F.cross_entropy(logits, labels).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


DENSE = {"kind": "dense", "features": 70, "weight_norm": True}
CONV = {"kind": "conv", "channels": 6, "kernel": 3, "padding": 1}
SKIP = {"kind": "conv", "kernel": 3, "padding": 1}
GRADED = {"shape": (40,), "encoding": "graded", "bits": 3}
NETWORKS = {
    "dense": lambda: make(DENSE, DENSE),
    "biased": lambda: make({**DENSE, "bias": True}, {**DENSE, "bias": True}, readout={"bias": True}),
    "subtract": lambda: make(DENSE, DENSE, neuron={"reset": "subtract"}),
    "leaky": lambda: make(DENSE, DENSE, neuron={"current_decay": 0.5}),
    "shift": lambda: make(DENSE, DENSE, delay_shift=True),
    "learnt": lambda: make(DENSE, DENSE, neuron={"learn_decays": "per_channel"}),
    "inexact": lambda: make(DENSE, input={"shape": (40,), "mean": 0.5, "std": 0.25, "exact_input": False}),
    "norm": lambda: make({**DENSE, "norm": "mean_only"}, DENSE),
    "graded": lambda: make(DENSE, {**DENSE, "norm": "mean_only"}, DENSE, input=GRADED),
    "graded convs": lambda: make(
        {"kind": "conv", "channels": 6, "kernel": 3, "padding": 1, "norm": "mean_only"},
        {"kind": "conv", "channels": 5, "kernel": 2, "stride": 2},
        {"kind": "flatten"},
        input={**GRADED, "shape": (1, 8, 6)},
    ),
    "conv": lambda: make({"kind": "conv", "channels": 6, "kernel": 3}, {"kind": "flatten"}, DENSE, shape=(1, 7, 7)),
    "convs": lambda: make(
        {"kind": "conv", "channels": 6, "kernel": 3, "padding": 1},
        {"kind": "conv", "channels": 5, "kernel": 2, "stride": 2, "padding": 1},
        {"kind": "flatten"},
        DENSE,
        shape=(2, 7, 6),
        neuron={"threshold": 0.2},
    ),
    "flat": lambda: make({"kind": "flatten"}, DENSE, shape=(2, 4, 5)),
    "conv of channels": lambda: make(
        {"kind": "conv", "channels": 6, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 2], "dilation": [1, 2]},
        {"kind": "conv", "channels": 4, "kernel": 2, "groups": 2},
        {"kind": "flatten"},
        shape=(3, 8, 6),
    ),
    "convs with a norm": lambda: make(
        CONV,
        {**CONV, "channels": 4, "stride": 2, "norm": "mean_only", "bias": True},
        {"kind": "avg_pool", "kernel": 2, "gain": 2.0},
        {"kind": "flatten"},
        {**DENSE, "norm": "mean_only"},
        shape=(2, 8, 8),
        neuron={"threshold": 0.1},
    ),
    "residual": lambda: make(
        CONV,
        {**CONV, "skips": [{"source": 1, "kind": "identity"}, {"source": 0, **SKIP}]},
        {"kind": "flatten"},
        {**DENSE, "skips": [{"source": 1, "kind": "dense"}]},
        shape=(2, 8, 8),
    ),
}


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.SAMPLE])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_as_the_definition_does(name: str, mode: Mode) -> None:
    images = torch.rand(5, *NETWORKS[name]().spec.input.shape, generator=torch.Generator().manual_seed(1))
    images = images.sub(0.5).mul(2).clamp_min(0)  # half of the pixels are background
    logits, gradients = train_once(NETWORKS[name](), images, mode, compiled=True)
    expected_logits, expected = train_once(NETWORKS[name](), images, mode, compiled=False)
    assert expected_logits.abs().max() > 0
    assert torch.equal(logits, expected_logits)
    assert set(gradients) == set(expected)
    for key, gradient in expected.items():
        assert (gradients[key] - gradient).abs().max() < 1e-4 * gradient.abs().max(), key


@pytest.mark.parametrize("at_once", [1, 150, 700])
@pytest.mark.parametrize("name", ["convs", "conv of channels"])
def test_convolutions_have_the_same_gradients_of_some_images_at_a_time(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(7, *NETWORKS[name]().spec.input.shape, generator=torch.Generator().manual_seed(1))
    _, expected = train_once(NETWORKS[name](), images, Mode.SNN, compiled=True)
    monkeypatch.setattr(patches, "CACHE", 8 * at_once)
    _, gradients = train_once(NETWORKS[name](), images, Mode.SNN, compiled=True)
    for key, gradient in expected.items():
        assert (gradients[key] - gradient).abs().max() <= 1e-4 * gradient.abs().max(), key


@pytest.mark.parametrize("name", ["graded", "graded convs", "norm"])
def test_blocks_behind_floats_give_packed_spikes(name: str) -> None:
    network = NETWORKS[name]()
    choose_kernels(network, True)
    carried = torch.rand(5, *network.spec.input.shape)
    for block in network.blocks[:-1]:
        carried = block.carry(carried, Mode.SNN, 9)
    assert isinstance(carried, Spikes)


def test_dropout_drops_the_same_inputs() -> None:
    blocks = [{**DENSE, "dropout": 0.5}, {**DENSE, "dropout": 0.5}]  # survivors count twice: exactly
    images = torch.rand(5, 40, generator=torch.Generator().manual_seed(1))
    results = [train_once(make(*blocks), images, Mode.SNN, compiled=compiled) for compiled in (True, False)]
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[1][1].items():
        assert (results[0][1][name] - gradient).abs().max() < 1e-4 * gradient.abs().max(), name


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_sampled_pairs_are_those_of_the_definition(dropout: float) -> None:
    images = torch.rand(5, 40, generator=torch.Generator().manual_seed(1))
    check_samples([make(DENSE, {**DENSE, "dropout": dropout}) for _ in range(2)], images)


@pytest.mark.parametrize("capacity", [30, 1000])
def test_sampled_pairs_of_convolutions_are_those_of_the_definition(capacity: int) -> None:
    networks = [NETWORKS["convs"]() for _ in range(2)]
    for module in (module for network in networks for module in network.modules() if isinstance(module, RateSampler)):
        module.capacity = capacity
    check_samples(networks, torch.rand(5, *networks[0].spec.input.shape, generator=torch.Generator().manual_seed(1)))


def check_samples(networks: list[Network], images: Tensor) -> None:
    for network, compiled in zip(networks, (True, False), strict=True):
        train_once(network, images, Mode.SAMPLE, compiled=compiled)
    sampled = [[module for module in network.modules() if isinstance(module, RateSampler)] for network in networks]
    for ours, expected in zip(*sampled, strict=True):
        assert len(ours.pairs) > 0
        assert torch.equal(ours.pairs, expected.pairs)


@pytest.mark.parametrize("shape", [(5, 3, 700), (1, 4), (600, 2, 130), (0, 3), (4, 0, 2), (40, 1)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
def test_sums_along_the_first_axis(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    bound = 128 if dtype == torch.int8 else 1 << 20
    x = torch.randint(-bound, bound, shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for numbers in (x, x.transpose(0, -1)):
        total = count_op.add_up(numbers)
        assert total.dtype == torch.int32
        assert torch.equal(total, numbers.sum(0, dtype=torch.int32))


def test_spikes_are_counted_over_time_and_each_step_gets_the_gradient_of_their_number() -> None:
    values = (torch.rand(6, 3, 50, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.int8)
    link = torch.zeros(values.shape, requires_grad=True)
    spikes, grad = Spikes(values, link), torch.randn(3, 50)
    totals = spikes.totals()
    totals.backward(grad)
    assert torch.equal(totals, values.float().sum(0))
    assert torch.equal(link.grad, grad.expand(6, 3, 50))
    assert torch.equal(spikes.counts(), values.long().sum((0, 1)))


@pytest.mark.parametrize("subtract", [False, True])
def test_input_neurons_are_counted_without_running_each(subtract: bool) -> None:
    current = torch.randint(-70, 200, (5, 60), generator=torch.Generator().manual_seed(0)) / 64
    gain = torch.ones(1, requires_grad=True)
    steady = SteadyInput(current, gain, torch.zeros(1), 0.0, 1.0, 11, torch.tensor([0.125]), (1.25, 0.1, 1.0, subtract))
    expected = steady.spikes().values.float().sum(0)
    assert len(expected.unique()) > 5
    drive, rates = steady.pairs_at(torch.arange(expected.numel()))
    assert torch.equal(drive, current.flatten())
    assert torch.equal(rates, expected.flatten() / 11)
    assert torch.equal(steady.counts(), expected.long().sum(0))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_tally_counts_what_a_run_shows(name: str, compiled: bool) -> None:
    network = NETWORKS[name]().eval()
    choose_kernels(network, compiled)
    images = torch.rand(5, *network.spec.input.shape, generator=torch.Generator().manual_seed(1))
    logits, trace = network.run(images)
    ours, tally = network.tally(images)
    expected = trace.tally()
    assert torch.equal(ours, logits)
    assert tally.rates == (*expected.rates[:-1], 0.0)
    assert tally.rates[-2] > 0
    assert tally.counts[-1] is None
    for count, shown in zip(tally.counts[:-1], expected.counts[:-1], strict=True):
        assert torch.equal(count, shown)


@pytest.mark.parametrize("outputs", [33, 300])
def test_inputs_of_one_train_are_weighed_as_each_of_them(outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mantissas = torch.randint(-70, 200, (5, 60), generator=generator, dtype=torch.int32)
    tables = InputTables(mantissas, 11, torch.tensor([0.125]), 1.25, False)
    weight = torch.randint(-128, 128, (outputs, 60), generator=generator) / 32
    spikes = torch.from_numpy(tables.fired)[tables.indices.long()].movedim(2, 0)  # [T, N, I]
    assert len(np.unique(tables.fired, axis=0)) > 3
    assert torch.equal(SteadyDense(tables).weigh(weight), spikes.float() @ (32 * weight.T))


@pytest.mark.parametrize("by_product", [False, True])
def test_the_gradient_of_an_input_is_the_sum_over_its_pixels(by_product: bool, monkeypatch) -> None:
    monkeypatch.setattr(steady_synapses, "FEW_STEPS", 99 if by_product else -99)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(-40, 100, (6, 50), generator=generator, dtype=torch.int32).clamp(min=0)  # many alike
    voltage_decay, images = torch.tensor([0.125]), levels / 100
    tables = InputTables(levels, 7, voltage_decay, 1.25, False)
    slopes = tables.slopes(0.1, 1.0)
    grad = torch.randn(7, 6, 33, generator=generator)
    weight = torch.randint(-128, 128, (33, 50), generator=generator) / 32
    of_current = (grad.double() @ weight.double()) * torch.from_numpy(slopes).double()[levels.long()].movedim(2, 0)
    expected = torch.stack([(of_current * images).sum(), of_current.sum()])
    _, sums = SteadyDense(tables).gradients(grad, weight, images, slopes)
    torch.testing.assert_close(torch.from_numpy(sums), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("rate", [0.01, 0.5])
@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize(("half", "tables"), [(False, False), (False, True), (True, False)])
def test_products_that_follow_spikes_are_the_matrix_products(
    rate: float, steps: int, half: bool, tables: bool, monkeypatch
) -> None:
    monkeypatch.setattr(subset_sums, "is_faster", lambda *sizes: tables)
    monkeypatch.setattr(dense_products, "multiplies_tiles", lambda: False)  # which decides where to follow them
    monkeypatch.setitem(dense_products.SLOWNESS, torch.int8, 1.0)
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(steps, 600 // steps, 45, generator=generator) < rate).to(torch.int8)
    weight = torch.randint(-128, 128, (300, 45), generator=generator, dtype=torch.int8)
    assert torch.equal(dense_products.weigh(spikes, weight * WEIGHT_STEP).long(), spikes.long() @ weight.long().T)
    grad = torch.randn(*spikes.shape[:2], 300, generator=generator).to(torch.bfloat16 if half else torch.float32)
    ours, expected = dense_products.correlate(spikes, grad), torch.einsum("tno,tni->oi", grad.float(), spikes.float())
    tolerance = 1e-2 if half and rate > 0.1 else 1e-5
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(("name", "tolerance"), [("dense", 5e-3), ("conv", 1e-2), ("convs", 1e-2)])
def test_large_products_round_the_gradient_to_bfloat16_and_lose_little(
    name: str, tolerance: float, tiles: bool, monkeypatch
) -> None:
    images = torch.rand(64, *NETWORKS[name]().spec.input.shape, generator=torch.Generator().manual_seed(1))
    _, exact = train_once(NETWORKS[name](), images, Mode.SNN, compiled=True)
    monkeypatch.setattr(half, "HALF_FROM", 1)
    monkeypatch.setattr(half, "multiplies_half", lambda: True)
    monkeypatch.setattr(steady_synapses, "multiplies_tiles", lambda: tiles)
    _, rounded = train_once(NETWORKS[name](), images, Mode.SNN, compiled=True)
    assert any(not torch.equal(rounded[key], exact[key]) for key in exact)
    for key, gradient in exact.items():
        assert (rounded[key] - gradient).norm() < tolerance * gradient.norm(), key


@pytest.mark.skipif(not short_products.has_short_products(), reason="this CPU has no instruction for it")
@pytest.mark.parametrize("name", ["dense", "norm", "conv", "convs"])
def test_large_products_round_the_gradient_to_16_bits_and_lose_next_to_nothing(name: str, monkeypatch) -> None:
    images = torch.rand(64, *NETWORKS[name]().spec.input.shape, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(half, "HALF_FROM", 1)
    monkeypatch.setattr(half, "multiplies_half", lambda: False)
    monkeypatch.setattr(gradient_products, "LEAST_OUTPUTS", 1)
    results = []
    for shorts in (False, True):
        monkeypatch.setattr(gradient_products, "multiplies_shorts", lambda shorts=shorts: shorts)
        results.append(train_once(NETWORKS[name](), images, Mode.SNN, compiled=True)[1])
    exact, rounded = results
    assert any(not torch.equal(rounded[key], exact[key]) for key in exact)
    for key, gradient in exact.items():
        assert (rounded[key] - gradient).norm() < 1e-4 * gradient.norm(), key


def test_large_products_of_rates_round_their_gradients_alone(monkeypatch) -> None:
    monkeypatch.setattr(half, "HALF_FROM", 1)
    monkeypatch.setattr(half, "multiplies_half", lambda: True)
    generator = torch.Generator().manual_seed(0)
    x, weight, grad = (torch.randn(shape, generator=generator) for shape in ((9, 70), (50, 70), (9, 50)))
    results = []
    for run in (linear_op.linear, F.linear):
        leaves = [leaf(x), leaf(weight)]
        out = run(*leaves)
        out.backward(grad)
        results.append((out.detach(), *(tensor.grad for tensor in leaves)))
    assert torch.equal(results[0][0], results[1][0])
    for ours, expected in zip(results[0][1:], results[1][1:], strict=True):
        assert not torch.equal(ours, expected)
        assert (ours - expected).norm() < 5e-3 * expected.norm()


GEOMETRIES = [[3, 1, 0, 1, 3, 1, 0, 1], [5, 2, 2, 1, 3, 1, 1, 2], [2, 3, 1, 2, 4, 2, 0, 1]]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("dtype", "tables"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
def test_convolutions_of_spikes_have_the_gradients_of_torch(
    geometry: list[int], dtype: torch.dtype, tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subset_sums, "is_faster", lambda *sizes: tables)
    generator = torch.Generator().manual_seed(0)
    lies = (torch.rand(2, 3, 11, 9, 4, generator=generator) < 0.3).to(torch.int8)
    spikes = lies.permute(0, 1, 4, 2, 3)  # [T, N, C, H, W], channels last
    weight = torch.randn(5, 4, geometry[0], geometry[4], generator=generator).to(dtype).float()
    leaves = [leaf(spikes.flatten(0, 1).float()), leaf(weight)]
    out = F.conv2d(*leaves, None, *patches.layout(geometry))
    grad = torch.randn(out.shape, generator=generator).to(dtype)
    out.backward(grad.float())
    rows = grad.permute(0, 2, 3, 1).reshape(2, -1, 5)
    ours = conv_op.spike_convolution_gradients(rows, spikes, weight, geometry, 1, True, True)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2  # without its instructions, sums are bfloat16 too
    for gradient, expected in zip((ours[0].flatten(0, 1).float(), ours[1]), leaves, strict=True):
        assert (gradient - expected.grad).norm() < tolerance * expected.grad.norm()


@pytest.mark.parametrize("images", [1, 19, 20, 61])
@pytest.mark.parametrize("outputs", [1, 16, 17, 140])
def test_tables_give_the_gradient_of_a_weight_whatever_the_threads(images: int, outputs: int, monkeypatch) -> None:
    monkeypatch.setattr(threads, "LEAST", 0)
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(images, 5 * 4 * 3, generator=generator) < 0.4).to(torch.int8)
    geometry = (3, 2, 1, 1, 2, 1, 0, 1)
    seen = patches.patches(spikes.view(images, 5, 4, 3).double(), geometry).view(images, 9, 18)
    grad = torch.randn(images, 9, outputs, generator=generator)
    results = []
    for n in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        results.append(subset_sums.weight_grad(spikes, grad, (5, 4, 3), geometry))
    assert torch.equal(*results)
    expected = torch.einsum("mpo,mpk->ok", grad.double(), seen)
    torch.testing.assert_close(results[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_tables_are_of_float32_whatever_the_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        for steps in (2, 10):
            spikes, grad = torch.ones(steps, 150, 70, dtype=torch.int8), torch.ones(steps, 150, 40, dtype=torch.float32)
            ours = dense_products.correlate(spikes, grad)
            assert torch.equal(ours, torch.full((40, 70), steps * 150.0, dtype=torch.float32))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_step_that_stands_for_all_has_the_gradient_of_each(stride: int) -> None:
    geometry, weight = [3, stride, 1, 1] * 2, torch.randn(5, 9, 3, 3)
    spikes = (torch.rand(4, 32, 9, 6, 6) < 0.5).to(torch.int8)
    one = torch.randn(1, 32 * (6 // stride) ** 2, 5)
    each = [one.expand(4, -1, -1), one.expand(4, -1, -1).contiguous()]
    ours = [conv_op.spike_convolution_gradients(g, spikes, weight, geometry, 1, False, True)[1] for g in each]
    assert torch.equal(*ours)


def test_no_images_have_no_gradient() -> None:
    weight, geometry = torch.randn(2, 3, 3, 2), [3, 2, 1, 1, 2, 1, 0, 1]
    spikes = torch.zeros(4, 0, 3, 5, 4, dtype=torch.int8)
    ours = conv_op.spike_convolution_gradients(torch.zeros(4, 0, 2), spikes, weight, geometry, 1, False, True)
    assert torch.equal(ours[1], torch.zeros_like(weight))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("images_at_once", [3, 2, 0])
def test_convolutions_of_rates_have_the_gradients_of_torch(
    geometry: list[int], images_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution_op, "compiled", True)
    generator = torch.Generator().manual_seed(0)
    stride, padding, dilation = (geometry[i::4] for i in (1, 2, 3))
    x = torch.randn(3, 2, 11, 9, generator=generator)
    weight = torch.randn(5, 2, geometry[0], geometry[4], generator=generator)
    one = 4 * weight[0].numel() * F.conv2d(x[0], weight, None, stride, padding, dilation)[0].numel()
    monkeypatch.setattr(patches, "CACHE", images_at_once * one // torch.get_num_threads())
    results = []
    for run in (
        lambda x, w: convolution_op.convolve(x, w, geometry),
        lambda x, w: F.conv2d(x, w, None, stride, padding, dilation),
    ):
        leaves = [leaf(x), leaf(weight)]
        out = run(*leaves)
        out.backward(torch.linspace(-1, 2, out.numel()).reshape(out.shape))
        results.append((out.detach(), *(tensor.grad for tensor in leaves)))
    assert torch.equal(results[0][0], results[1][0])
    for ours, expected in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "half", "operator"),
    [
        (3, 5, 1, False, True),
        (4, 3, 1, False, False),
        (16, 3, 2, False, True),
        (17, 3, 2, False, False),
        (8, 5, 2, False, False),
        (16, 5, 1, True, True),
        (17, 3, 2, True, False),
    ],
)
def test_the_input_s_gradient_is_made_of_patches_where_that_is_faster(
    channels: int, kernel: int, stride: int, half: bool, operator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution_op, "compiled", True)
    monkeypatch.setattr(convolution_op, "multiplies_half", lambda: half)
    assert (
        takes_operator(leaf(torch.rand(2, channels, 9, 9)), torch.rand(4, channels, kernel, kernel), stride) == operator
    )


@pytest.mark.parametrize(
    ("channels", "learns", "operator"), [(1, True, True), (2, True, True), (3, True, False), (1, False, False)]
)
def test_the_weight_s_gradient_is_made_of_patches_where_that_is_faster(
    channels: int, learns: bool, operator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution_op, "compiled", True)
    images, weight = torch.rand(2, channels, 9, 9), torch.rand(4, channels, 5, 5).requires_grad_(learns)
    assert takes_operator(images, weight, stride=1) == operator


def takes_operator(x: Tensor, weight: Tensor, stride: int) -> bool:
    node = convolution_op.convolve(x, weight, [weight.shape[2], stride, 0, 1] * 2).grad_fn
    return type(node).__name__ == "snnzoo_convolutionBackward"


def test_weights_on_their_grid_are_the_definition_s_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    sixteenths = torch.arange(-16 * 140, 16 * 140) / 16 * WEIGHT_STEP  # ties between steps, and beyond both ends
    special = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 1e30, -1e-30])
    weight = torch.cat([sixteenths, torch.nextafter(sixteenths, special[3]), torch.randn(1000), special])
    ours, definition = grid_op.quantize_weight(weight), quantize_weight(weight)
    assert torch.equal(ours.view(torch.int32), definition.view(torch.int32))
    dense = DenseSynapse(40, 30, normalize=True)
    results = []
    for compiled in (False, True):
        monkeypatch.setattr(synapse, "compiled", compiled)
        dense.zero_grad()
        quantized = dense.quantized_weight(1.7)
        (quantized * torch.linspace(-1, 1, 1200).reshape(30, 40)).sum().backward()
        results.append([quantized.detach(), *(parameter.grad for parameter in dense.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("block", [DENSE, {**CONV, "weight_norm": True}])
@pytest.mark.parametrize("compiled", [False, True])
def test_normed_weights_on_their_grid_are_those_of_torch_s_norm(block: dict, compiled: bool, monkeypatch) -> None:
    monkeypatch.setattr(synapse, "compiled", compiled)
    network = make(DENSE) if block is DENSE else make(block, {"kind": "flatten"}, shape=(2, 5, 4))
    ours = network.blocks[1].synapse
    magnitude, direction = ours.parametrizations.weight.original0, ours.parametrizations.weight.original1
    with torch.no_grad():
        magnitude.mul_(torch.linspace(0.5, 40, len(magnitude)).view_as(magnitude))  # beyond the grid's ends, too
    towards = torch.randn(direction.shape, generator=torch.Generator().manual_seed(0)).transpose(0, 1).contiguous()
    found = []
    for weight in (ours.quantized_weight(), quantize_weight(ours.weight)):
        ours.zero_grad()
        weight.backward(towards.transpose(0, 1))  # not contiguous
        found.append((weight.detach(), magnitude.grad, direction.grad))
    assert found[0][0].abs().max() > 3.9
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("mode", [Mode.ANN, Mode.FIT])
def test_rates_of_pixels_are_the_activation_of_their_currents(mode: Mode) -> None:
    network = make(CONV, {"kind": "flatten"}, shape=(1, 50, 60))
    block, images = network.blocks[0], torch.rand(3, 1, 50, 60, generator=torch.Generator().manual_seed(0))
    choose_kernels(network, True)
    with torch.no_grad():
        block.weight.fill_(1.3)
        block.bias.fill_(-0.4)
        block(images, Mode.SAMPLE, 9)
    if mode is Mode.ANN:
        block.sampler.fit()
    ours = block(images, mode, 9)
    towards = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    ours.backward(towards)
    found = block.weight.grad.clone(), block.bias.grad.clone()
    block.zero_grad()
    expected = block.sampler(block.current(images))
    expected.backward(towards)
    assert ours.grad_fn.name() == "snnzoo_input_ratesBackward"
    assert torch.equal(ours, expected)
    torch.testing.assert_close(found, (block.weight.grad, block.bias.grad), rtol=1e-5, atol=1e-4)
    followed = leaf(images)
    block(followed, Mode.ANN, 9).backward(towards)
    assert followed.grad.abs().max() > 0
    with torch.no_grad():
        assert torch.equal(block(images, Mode.ANN, 9), ours)


@pytest.mark.parametrize("last", [1.3, -0.1])
@pytest.mark.parametrize("n_centers", [2, 4, 7])
def test_the_activation_equals_the_definition(n_centers: int, last: float) -> None:
    centers = torch.stack([torch.linspace(-0.2, last, n_centers), torch.linspace(0, 0.9, n_centers) ** 2], 1).double()
    slopes = (centers[:, 1].diff() / centers[:, 0].diff()).double()
    infinity = torch.tensor([math.inf, -math.inf])
    z = torch.cat([torch.linspace(-1, 2, 4001), centers[:, 0].float(), infinity])
    results = []
    for run in (curve_op.piecewise, piecewise):
        x = leaf(z)
        rates = run(x, centers, slopes)
        rates.backward(torch.linspace(1, 2, len(z)))
        results.append((rates.detach(), x.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-7)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_activation_keeps_type_and_layout_and_rounds_at_the_end(memory_format: torch.memory_format) -> None:
    centers = torch.tensor([[0.1001, 0.0], [0.7003, 0.9]], dtype=torch.float64)  # between numbers of bfloat16
    slopes = centers[:, 1].diff() / centers[:, 0].diff()
    z = torch.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(torch.bfloat16, memory_format=memory_format)
    sampler = RateSampler()
    sampler._store(centers, slopes)
    for sampler.compiled in (False, True):
        x = leaf(z)
        rates = sampler(x)
        rates.backward(torch.ones_like(rates))
        exact = leaf(z.float())
        piecewise(exact, centers, slopes).sum().backward()
        assert torch.equal(rates, piecewise(z.float(), centers, slopes).to(z.dtype))
        assert rates.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(x.grad, exact.grad.to(z.dtype), rtol=1e-2, atol=0)


def test_rounded_convolutions_are_those_of_autocast_with_channels_last() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.rand(4, 3, 9, 9, generator=generator), torch.randn(8, 3, 3, 3, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        ours = convolution_op.convolve(x, weight, [3, 2, 1, 1] * 2)
        expected = F.conv2d(x, weight, None, 2, 1)
    assert ours.dtype == torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch.compile's own
@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("name", ["dense", "convs", "conv of channels", "convs with a norm"])
def test_networks_that_torch_compiles_train_as_they_are(
    name: str, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(5, *NETWORKS[name]().spec.input.shape, generator=torch.Generator().manual_seed(1))
    expected_logits, expected = train_once(NETWORKS[name](), images, Mode.SNN, compiled=True)
    network = NETWORKS[name]()
    torch._dynamo.reset()
    if in_parts:  # a graph for each block: what one hands to the next has a gradient laid out in memory
        for kind in {type(block) for block in network.blocks}:
            monkeypatch.setattr(kind, "carry", after_break(kind.carry))
    network.compile(backend="aot_eager")
    logits, gradients = train_once(network, images, Mode.SNN, compiled=True)
    assert torch.equal(logits, expected_logits)
    for key, gradient in expected.items():
        assert (gradients[key] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), key


def after_break(carry: Callable[..., Any]) -> Callable[..., Any]:
    def broken(*args: Any) -> Any:
        torch._dynamo.graph_break()
        return carry(*args)

    return broken


def check_operator(operator: Operator, *args: Any) -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operator.registered, args, test_utils=tests)


def of_shape(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def spikes_of_shape(*shape: int, rate: float = 0.5) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < rate).to(torch.int8)


ONE, ZERO, NEURON = torch.ones(1), torch.zeros(1), (1.0, 0.1, 1.0, False)
LEAK = ONE, ZERO
CURVE = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)


def test_operators_are_registered_as_they_are() -> None:
    rows, learnt = of_shape(7, 120).requires_grad_(), torch.ones(1, requires_grad=True)
    for z in (of_shape(3, 2, 4), of_shape(3, 4, 2).mT, of_shape(3, 2, 5, 4, 6).permute(0, 1, 4, 2, 3)):
        check_operator(spiking_ops.cuba, z.detach().requires_grad_(), *LEAK, None, *NEURON)
        check_operator(spiking_ops.fire, z.detach().requires_grad_(), *LEAK, None, *NEURON)
        channels = torch.zeros(z.shape[2])
        check_operator(spiking_ops.cuba_backward, of_shape(*z.shape), z, *LEAK, channels, *NEURON, True)
    check_operator(grid_op.quantize_weight, rows)
    for direction in (rows, of_shape(7, 2, 3, 3).to(memory_format=torch.channels_last)):
        magnitude = torch.ones(7, *[1] * (direction.dim() - 1), requires_grad=True)
        for compiled in (False, True):
            check_operator(weight_norm_op._quantize_normed, magnitude, direction, compiled)
    check_operator(input_op._input_rates, torch.rand(7, 120), learnt, learnt, 0.5, 0.25, *CURVE, True)
    check_operator(input_op.input_current, torch.rand(7, 12), learnt, learnt, 0.5, 0.25)
    check_operator(input_op.input_current_backward, of_shape(7, 12), torch.rand(7, 12), 0.5, 0.25)
    check_operator(curve_op._piecewise, of_shape(2, 3, 4, 5).to(memory_format=torch.channels_last), *CURVE, True)


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_operators_of_dense_spikes_are_registered_as_they_are(rate: float) -> None:
    spikes, weight, bias = spikes_of_shape(5, 4, 9, rate=rate), quantize_weight(of_shape(64, 9)), torch.zeros(64)
    arrives, grad, z = torch.zeros(1).expand(spikes.shape), of_shape(5, 4, 64), of_shape(5, 4, 64).round()
    for operator in (count_op.count, spiking_ops.unpack):
        check_operator(operator, spikes, arrives)
    check_operator(spiking_ops.spiking_dense, spikes, arrives, weight, *LEAK, bias, None, *NEURON, 1.0)
    for incoming in (grad, grad[0].expand(5, -1, -1)):
        known = incoming, spikes, weight, z, *LEAK, bias, None, *NEURON, 1.0
        check_operator(spiking_ops.spiking_dense_backward, *known, True)
    check_operator(synapse_op.multiply_spikes, spikes, arrives, weight)
    check_operator(synapse_op._multiply_backward, grad, spikes, weight, True)
    pixels, neurons = (torch.rand(4, 9), ONE, ZERO, 0.0, 1.0), (ZERO, *NEURON, *LEAK, bias, *NEURON)
    check_operator(steady_op.steady, *pixels, weight, [], 5, *neurons)
    check_operator(steady_op.steady_backward, grad, z, *pixels, weight, [], *neurons, True)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("geometry", "groups"), [([3, 1, 0, 1] * 2, 1), ([3, 2, 1, 1, 3, 1, 2, 2], 1), ([3, 1, 1, 1] * 2, 3)]
)
def test_operators_of_convolutions_are_registered_as_they_are(geometry: list[int], groups: int, last: bool) -> None:
    spikes = spikes_of_shape(5, 4, 6, 8, 3).permute(0, 1, 4, 2, 3)
    spikes = spikes if last else spikes.contiguous()
    weight, bias = quantize_weight(of_shape(6, 3 // groups, 3, 3)), torch.zeros(6)
    arrives, places = torch.zeros(1).expand(spikes.shape), (geometry, groups)
    for operator in (count_op.count, spiking_ops.unpack):
        check_operator(operator, spikes, arrives)
    check_operator(conv_op.spiking_conv, spikes, arrives, weight, *places, *LEAK, bias, *NEURON)
    fired, _, z = conv_op.spiking_conv(spikes, arrives, weight, *places, *LEAK, bias, *NEURON)
    grad = of_shape(*fired.shape)
    check_operator(conv_op.spiking_conv_backward, grad, spikes, weight, z, *places, *LEAK, bias, *NEURON, True, True)
    check_operator(synapse_op.convolve_spikes, spikes, arrives, weight, *places)
    check_operator(synapse_op._convolve_backward, grad, spikes, weight, *places, True, True)


@pytest.mark.parametrize("geometry", [[3, 1, 0, 1] * 2, [3, 2, 1, 1, 3, 1, 2, 2]])
def test_operators_of_convolved_input_are_registered_as_they_are(geometry: list[int]) -> None:
    weight, bias, images = quantize_weight(of_shape(6, 3, 3, 3)), torch.zeros(6), torch.rand(4, 3, 6, 8)
    pixels, neurons = (images, ONE, ZERO, 0.0, 1.0), (ZERO, *NEURON, *LEAK, bias, *NEURON)
    check_operator(steady_op.steady, *pixels, weight, geometry, 5, *neurons)
    fired, _, z = steady_op.steady(*pixels, weight, geometry, 5, *neurons)
    grad = of_shape(*fired.shape)
    check_operator(steady_op.steady_backward, grad, z, *pixels, weight, geometry, *neurons, True)
    check_operator(convolution_op._convolution, images, weight, geometry)
    check_operator(convolution_op._input_grad, grad[0], weight, list(images.shape[1:]), geometry)
    check_operator(convolution_op._weight_grad, grad[0], images, list(weight.shape), geometry)


def test_no_image_goes_through_convolutions() -> None:
    network = NETWORKS["convs"]()
    choose_kernels(network, compiled=True)
    assert network(torch.rand(0, *network.spec.input.shape), Mode.SNN).shape == (0, 3)


@pytest.mark.parametrize("compiled", [False, True])
def test_normed_weights_may_lie_in_any_order_in_memory(compiled: bool) -> None:
    network = make({**CONV, "weight_norm": True}, {"kind": "flatten"}, shape=(2, 5, 5))
    synapse, images = network.blocks[1].synapse, torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    logits, gradients = train_once(network, images, Mode.SNN, compiled=compiled)
    network.to(memory_format=torch.channels_last)
    assert not synapse.parametrizations.weight.original1.is_contiguous()
    assert torch.equal(synapse.quantized_weight(), quantize_weight(synapse.weight))
    again, same = train_once(network, images, Mode.SNN, compiled=compiled)
    assert torch.equal(again, logits)
    for key, gradient in gradients.items():
        torch.testing.assert_close(same[key], gradient)


def test_loops_are_compiled_where_none_can_be_kept() -> None:
    import numba

    namespace: dict[str, Any] = {"__name__": "nowhere"}
    exec("def double(x):\n    return 2 * x", namespace)  # of no file, so numba finds no folder for it
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(namespace["double"])
    double = compiler()(namespace["double"])
    assert not kernels._is_compiled(double)
    assert double(21) == 42
    assert kernels._is_compiled(double)


@pytest.mark.parametrize(
    ("tiles", "vectors", "intel", "faster"),
    [(True, True, True, True), (False, True, True, False), (False, True, False, True), (False, False, False, False)],
)
def test_bfloat16_is_multiplied_where_that_is_faster(monkeypatch, tiles, vectors, intel, faster) -> None:
    for name, has in (("multiplies_tiles", tiles), ("_multiplies_half_vectors", vectors), ("_is_intel", intel)):
        monkeypatch.setattr(half, name, lambda has=has: has)
    assert half.multiplies_half.__wrapped__() is faster
