"""Networks learn with the native operators as with the definitions, also when torch compiles them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.ops import precision
from bootstrap_core.ops.library import without_native
from bootstrap_core.ops.precision import products_in
from specs.network import NetworkSpec
from specs.training import Precision


def make(*blocks: dict[str, Any], shape: tuple[int, ...] = (40,), steps: int = 9, **options: Any) -> Network:
    spec = {
        "name": "test",
        "time_steps": steps,
        "input": {"shape": shape, "mean": 0.5, "std": 0.25},
        "blocks": [*blocks, {"kind": "affine", "features": 3, **options.pop("readout", {})}],
        "neuron": {"threshold": 0.6, "voltage_decay": 0.03, "tau_grad": 0.1, **options.pop("neuron", {})},
        **options,
    }
    return build_network(NetworkSpec.model_validate(spec), seed=0).train()


def train_once(network: Network, images: Tensor, mode: Mode = Mode.SNN) -> tuple[Tensor, dict[str, Tensor]]:
    network.zero_grad()
    torch.manual_seed(5)
    logits = network(images, mode)
    F.cross_entropy(logits, torch.arange(len(images)) % 3).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def some_images(network: Network, n: int = 5) -> Tensor:
    """Return images, half of whose pixels are background."""
    images = torch.rand(n, *network.spec.input.shape, generator=torch.Generator().manual_seed(1))
    return images.sub(0.5).mul(2).clamp_min(0)


def hold_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    for key, gradient in expected.items():
        assert (found[key] - gradient).abs().max() <= tolerance * gradient.abs().max(), key


DENSE = {"kind": "dense", "features": 70, "weight_norm": True}
CONV = {"kind": "conv", "channels": 6, "kernel": 3, "padding": 1}
FLATTEN = {"kind": "flatten"}
SKIP = {"kind": "conv", "kernel": 3, "padding": 1}
GRADED = {"shape": (40,), "encoding": "graded", "bits": 3}
NETWORKS: dict[str, Callable[[], Network]] = {
    "dense": lambda: make(DENSE, DENSE),
    "biased": lambda: make({**DENSE, "bias": True}, {**DENSE, "bias": True}, readout={"bias": True}),
    "subtract": lambda: make(DENSE, DENSE, neuron={"reset": "subtract"}),
    "leaky": lambda: make(DENSE, DENSE, neuron={"current_decay": 0.5}),
    "shift": lambda: make(DENSE, DENSE, delay_shift=True),
    "learnt": lambda: make(DENSE, DENSE, neuron={"learn_decays": "per_channel"}),
    "inexact": lambda: make(DENSE, input={"shape": (40,), "mean": 0.5, "std": 0.25, "exact_input": False}),
    "norm": lambda: make({**DENSE, "norm": "mean_only"}, DENSE),
    "dropout": lambda: make({**DENSE, "dropout": 0.5}, {**DENSE, "dropout": 0.5}),  # the factor 2 of survivors is exact
    "graded": lambda: make(DENSE, {**DENSE, "norm": "mean_only"}, DENSE, input=GRADED),
    "graded dropout": lambda: make({**DENSE, "dropout": 0.3}, input={**GRADED, "bits": 10}),
    "graded convs": lambda: make(
        {**CONV, "norm": "mean_only"},
        {"kind": "conv", "channels": 5, "kernel": 2, "stride": 2},
        FLATTEN,
        input={**GRADED, "shape": (1, 8, 6)},
    ),
    "conv": lambda: make({"kind": "conv", "channels": 6, "kernel": 3}, FLATTEN, DENSE, shape=(1, 7, 7)),
    "convs": lambda: make(
        CONV,
        {"kind": "conv", "channels": 5, "kernel": 2, "stride": 2, "padding": 1},
        FLATTEN,
        DENSE,
        shape=(2, 7, 6),
        neuron={"threshold": 0.2},
    ),
    "flat": lambda: make(FLATTEN, DENSE, shape=(2, 4, 5)),
    "conv of channels": lambda: make(
        {"kind": "conv", "channels": 6, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 2], "dilation": [1, 2]},
        {"kind": "conv", "channels": 4, "kernel": 2, "groups": 2},
        FLATTEN,
        shape=(3, 8, 6),
    ),
    "convs with a norm": lambda: make(
        CONV,
        {**CONV, "channels": 4, "stride": 2, "norm": "mean_only", "bias": True},
        {"kind": "avg_pool", "kernel": 2, "gain": 2.0},
        FLATTEN,
        {**DENSE, "norm": "mean_only"},
        shape=(2, 8, 8),
        neuron={"threshold": 0.1},
    ),
    "residual": lambda: make(
        CONV,
        {**CONV, "skips": [{"source": 1, "kind": "identity"}, {"source": 0, **SKIP}]},
        FLATTEN,
        {**DENSE, "skips": [{"source": 1, "kind": "dense"}]},
        shape=(2, 8, 8),
    ),
    "one neuron": lambda: make(
        {"kind": "dense", "features": 1},
        {"kind": "dense", "features": 1, "skips": [{"source": 1, "kind": "identity"}]},
        neuron={"threshold": 0.05},
    ),
}


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.SAMPLE])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_as_the_definitions_do(name: str, mode: Mode) -> None:
    network = NETWORKS[name]()
    images = some_images(network)
    logits, gradients = train_once(network, images, mode)
    other = NETWORKS[name]()
    with without_native():
        expected_logits, expected = train_once(other, images, mode)
    assert expected_logits.abs().max() > 0
    assert torch.equal(logits, expected_logits)
    hold_gradients(gradients, expected, 1e-4)
    samplers = ([x for x in each.modules() if isinstance(x, RateSampler)] for each in (network, other))
    for ours, theirs in zip(*samplers, strict=True):
        assert (len(ours.pairs) > 0) == (mode is Mode.SAMPLE)
        torch.testing.assert_close(ours.pairs, theirs.pairs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "tolerance"), [("dense", 5e-3), ("conv", 1e-2), ("convs", 1e-2)])
def test_large_products_round_the_gradient_to_bfloat16_and_lose_little(
    name: str, tolerance: float, monkeypatch
) -> None:
    network = NETWORKS[name]()
    images = some_images(network, 64)
    logits, exact = train_once(network, images)
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    with products_in(Precision.BFLOAT16):
        again, rounded = train_once(network, images)
    assert torch.equal(again, logits)
    assert any(not torch.equal(rounded[key], exact[key]) for key in exact)
    for key, gradient in exact.items():
        of_input = key.startswith("blocks.0.")  # sums over all pixels, whose terms nearly cancel
        assert (rounded[key] - gradient).norm() < (0.1 if of_input else tolerance) * gradient.norm(), key


@pytest.mark.parametrize("name", ["dense", "convs", "residual"])
def test_no_image_goes_through(name: str) -> None:
    network = NETWORKS[name]()
    logits = network(torch.rand(0, *network.spec.input.shape), Mode.SNN)
    assert logits.shape == (0, 3)
    logits.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("name", ["dense", "convs"])
def test_weights_may_lie_in_any_order_in_memory(name: str) -> None:
    network = NETWORKS[name]()
    images = some_images(network)
    logits, gradients = train_once(network, images)
    network.to(memory_format=torch.channels_last)
    again, same = train_once(network, images.to(memory_format=torch.preserve_format))
    assert torch.equal(again, logits)
    hold_gradients(same, gradients, 1e-5)


def small(kind: str) -> Network:
    """Return a network with few time steps, since the compiler unrolls them."""
    if kind == "dense":
        return make({"kind": "dense", "features": 7}, shape=(9,), steps=2, neuron={"threshold": 0.2})
    return make(
        {"kind": "conv", "channels": 3, "kernel": 3}, FLATTEN, shape=(2, 5, 4), steps=2, neuron={"threshold": 0.2}
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # from torch.compile itself
@pytest.mark.parametrize(("kind", "fullgraph"), [("dense", False), ("dense", True), ("conv", True)])
def test_networks_that_torch_compiles_train_as_they_are(kind: str, fullgraph: bool) -> None:
    network = small(kind)
    images = some_images(network)
    expected_logits, expected = train_once(network, images)
    compiled = small(kind)
    torch._dynamo.reset()
    compiled.compile(backend="aot_eager", fullgraph=fullgraph)
    logits, gradients = train_once(compiled, images)
    torch._dynamo.reset()
    assert torch.equal(logits, expected_logits)
    assert all(gradient.any() for gradient in expected.values())
    hold_gradients(gradients, expected, 1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_blocks_take_spikes_of_blocks_that_are_not() -> None:
    """A compiled block reads packed spikes and returns numbers."""
    network = small("dense")
    images = some_images(network)
    expected_logits, expected = train_once(network, images)
    compiled = small("dense")
    torch._dynamo.reset()
    compiled.blocks[1].compile(backend="aot_eager")
    logits, gradients = train_once(compiled, images)
    torch._dynamo.reset()
    assert torch.equal(logits, expected_logits)
    hold_gradients(gradients, expected, 1e-5)
