"""Whole networks with lava-dl's weights: outputs of every block, logits and gradients, as SNN and as ANN.

The mean-only network runs in training mode, as in the recording: without updates, and with lava-dl's gradient, which
treats the mean as a constant. All tests run with the definitions and with the native library.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from bootstrap_core.network.batch_norm import MeanOnly
from bootstrap_core.network.mode import Mode
from bootstrap_core.ops.library import is_installed, without_native

NAMES = ("dense", "dense_meanonly", "conv")


@pytest.fixture(params=[False, True], ids=["defined", "native"])
def native(request) -> Iterator[bool]:
    if request.param and not is_installed():
        pytest.skip("needs the native library")
    with nullcontext() if request.param else without_native():
        yield request.param


@pytest.fixture(params=NAMES)
def golden(request, native, load_golden_network, monkeypatch):
    golden = load_golden_network(request.param, exact_input=False)
    if request.param == "dense_meanonly":
        for method in ("update", "centre_gradient"):
            monkeypatch.setattr(MeanOnly, method, lambda self, z, channel_axis: None)
        golden.network.train()
    return golden


def test_spikes_of_every_block_equal_lava_dl(golden) -> None:
    _, trace = golden.network.run(golden.images, Mode.SNN)
    for i in golden.spiking_blocks:
        assert trace.spikes[i].any()
        assert torch.equal(trace.spikes[i], golden.block_spikes(i)), f"block {i}"


def test_weighted_input_of_the_readout_equals_lava_dl(golden) -> None:
    _, trace = golden.network.run(golden.images, Mode.SNN)
    assert torch.equal(trace.spikes[-1], golden.block_spikes(len(trace.spikes) - 1))


def test_snn_logits_equal_lava_dl(golden) -> None:
    assert torch.equal(golden.network(golden.images, Mode.SNN), golden.snn_logits)


def test_rates_of_every_block_equal_lava_dl(golden) -> None:
    logits, trace = golden.network.run(golden.images, Mode.ANN)
    assert logits is trace.rates[-1]
    for i, rates in enumerate(trace.rates):
        torch.testing.assert_close(rates, golden.block_rates(i), rtol=0, atol=1e-6, msg=f"block {i}")


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.ANN])
def test_gradients_of_all_parameters_equal_lava_dl(golden, mode: Mode) -> None:
    logits = golden.network(golden.images, mode)
    torch.nn.functional.cross_entropy(logits, golden.labels).backward()
    expected = golden.gradients(mode)
    assert set(expected) == {name for name, _ in golden.network.named_parameters()}
    for name, parameter in golden.network.named_parameters():
        error = (parameter.grad - expected[name]).abs().max() / expected[name].abs().max()
        assert error < 1e-4, name
