"""Rates of input neurons times weights, as one operator, beside both computed one after the other."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.functional.piecewise import piecewise
from bootstrap_core.functional.quantize import quantize_weight, truncate_current
from bootstrap_core.kernels import input_linear_op, threads
from bootstrap_core.kernels.input_linear_op import few_apart, input_linear
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from specs.network import NetworkSpec

CENTERS = torch.tensor([[0.2, 0.0], [0.4, 0.1], [0.6, 0.3], [1.0, 0.8], [1.3, 1.0]], dtype=torch.float64)
SLOPES = CENTERS[:, 1].diff() / CENTERS[:, 0].diff()
SIZES = [(5, 10, 7), (70, 50, 24), (130, 31, 100), (1, 64, 25), (64, 28, 1)]
"""Images, inputs, outputs."""


def some_images(n: int, inputs: int, background: float, apart: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, inputs, generator=generator) * (1 - background) + background
    return images.where(torch.rand(n, inputs, generator=generator) < apart, torch.tensor(background))


def run(product: Any, images: Tensor, outputs: int, bias: float) -> list[Tensor]:
    """A product and its gradients by the input's weight and bias, and by the weight."""
    generator = torch.Generator().manual_seed(1)
    weight = quantize_weight(torch.randn(outputs, images.shape[1], generator=generator)).requires_grad_()
    numbers = [torch.tensor([value], requires_grad=True) for value in (1.5, bias)]
    z = product(images, *numbers, 0.1, 0.5, CENTERS, SLOPES, weight)
    return [z, *torch.autograd.grad((z * torch.randn(z.shape, generator=generator)).sum(), [*numbers, weight])]


def defined(images: Tensor, w: Tensor, b: Tensor, mean: float, std: float, *others: Tensor) -> Tensor:
    centers, slopes, weight = others
    current = truncate_current(quantize_weight(w) * ((images.double() - mean) / std) + quantize_weight(b)).float()
    return F.linear(piecewise(current, centers, slopes).double(), weight.double())


@pytest.mark.parametrize("background", [0.0, 0.25])
@pytest.mark.parametrize("bias", [-0.25, 0.5])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_product_of_the_rates(size: tuple[int, int, int], bias: float, background: float) -> None:
    n, inputs, outputs = size
    images = some_images(n, inputs, background)
    both = [run(product, images, outputs, bias) for product in (input_linear, defined)]
    for ours, expected in zip(*both, strict=True):
        assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max().clamp_min(1e-3)


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_all_pixels_may_be_background_or_none(apart: float) -> None:
    images = some_images(9, 40, 0.0, apart)
    assert few_apart(images) == (apart == 0.0)
    for ours, expected in zip(*(run(product, images, 30, 0.5) for product in (input_linear, defined)), strict=True):
        assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max().clamp_min(1e-3)


def test_results_do_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LEAST", 0)
    results = []
    for n in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        results.append(run(input_linear, some_images(100, 90, 0.0), 50, 0.5))
    for alone, together in zip(*results, strict=True):
        assert torch.equal(alone, together)


def test_some_images_tell_whether_few_pixels_are_apart() -> None:
    assert few_apart(some_images(300, 20, 0.25))
    assert not few_apart(torch.rand(300, 20))
    assert not few_apart(torch.rand(0, 20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_registered_as_it_is(dtype: torch.dtype) -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    arguments = some_images(6, 20, 0.0), torch.ones(1), torch.zeros(1), 0.0, 1.0, CENTERS, SLOPES, torch.zeros(5, 20)
    torch.library.opcheck(input_linear_op._input_linear.registered, arguments, test_utils=tests)
    torch.set_default_dtype(dtype)
    try:
        _, *others = input_linear_op._input_linear(*arguments)
        grad = torch.ones(6, 5, dtype=torch.float32)
        torch.library.opcheck(input_linear_op._gradients.registered, (grad, *others), test_utils=tests[:1])
    finally:
        torch.set_default_dtype(torch.float32)


DENSE = {"kind": "dense", "features": 70, "weight_norm": True}


def fitted_network(*blocks: dict[str, Any], shape: tuple[int, ...] = (40,)) -> Network:
    spec = {
        "name": "test", "time_steps": 9, "input": {"shape": shape},
        "blocks": [*blocks, {"kind": "affine", "features": 3}],
        "neuron": {"threshold": 0.6, "voltage_decay": 0.03},
    }  # fmt: skip
    network = build_network(NetworkSpec.model_validate(spec), seed=0).train()
    for module in network.modules():
        if hasattr(module, "compiled"):
            module.compiled = True
    images = some_images(60, torch.Size(shape).numel(), 0.0).reshape(60, *shape)
    for mode in (Mode.SAMPLE, Mode.FIT):
        network(images, mode)
    return network


NETWORKS = {
    "dense": lambda: fitted_network(DENSE),
    "readout alone": fitted_network,
    "flatten": lambda: fitted_network({"kind": "flatten"}, DENSE, shape=(1, 5, 8)),
    "dropout": lambda: fitted_network({**DENSE, "dropout": 0.5}),
    "bias": lambda: fitted_network({**DENSE, "bias": True}),
    "norm": lambda: fitted_network({**DENSE, "norm": "mean_only"}),
    "skip": lambda: fitted_network(DENSE, {**DENSE, "skips": [{"source": 0, "kind": "dense"}]}),
    "conv": lambda: fitted_network({"kind": "conv", "channels": 4, "kernel": 3}, {"kind": "flatten"}, shape=(1, 5, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_learn_the_same_with_it_and_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, calls, results = NETWORKS[name](), [], []
    state = deepcopy(network.state_dict())  # norms learn
    images = some_images(30, 40, 0.0).reshape(30, *network.spec.input.shape)
    monkeypatch.setattr(input_linear_op, "input_linear", lambda *inputs: calls.append(1) or input_linear(*inputs))
    for takes in (True, False):
        monkeypatch.setattr(input_linear_op, "few_apart", lambda images, takes=takes: takes)
        network.load_state_dict(state)
        network.zero_grad()
        torch.manual_seed(0)
        logits = network(images, Mode.ANN)
        logits.square().sum().backward()
        results.append({"logits": logits.detach(), **{name: p.grad for name, p in network.named_parameters()}})
    assert len(calls) == (name not in ("dropout", "skip", "conv"))
    for key, expected in results[1].items():
        assert (results[0][key] - expected).abs().max() <= 1e-4 * expected.abs().max(), key


def test_a_tally_counts_rates_of_a_network_that_learns() -> None:
    network, images = NETWORKS["dense"](), some_images(30, 40, 0.0)
    _, tally = network.tally(images, Mode.ANN)
    with torch.no_grad():
        assert network.tally(images, Mode.ANN)[1].rates == pytest.approx(tally.rates, rel=1e-5)


def test_no_image_and_one_have_gradients() -> None:
    network = NETWORKS["dense"]()
    for n in (0, 1):
        network.zero_grad()
        network(torch.zeros(n, 40), Mode.ANN).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
