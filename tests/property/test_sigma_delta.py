"""Networks of sigma-delta neurons: definition, float and integer engine and stream agree; also with plain integers."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.sigma_delta import SigmaDeltaBlock, ValueBlock
from converters.formats.netx.lava_limits import LavaWarning
from converters.formats.netx.netx_model import read_netx, write_netx
from specs.errors import StateOverflowError, UnsupportedError

SEEDS = st.integers(0, 2**16)


def in_integers(network: Network, frames: np.ndarray) -> list[np.ndarray]:
    """Return the messages of each layer with neurons, `[T, N, ...]`, by Lava's equations in NumPy integers."""
    spec, found, sent = network.spec, list[np.ndarray](), list[np.ndarray]()
    for layer, block, sources in zip(spec.layers, network.blocks, spec.sources, strict=True):
        x = sent[sources[0]] if sources else frames.astype(np.int64)
        if layer.kind == "flatten":
            sent.append(x.reshape(*x.shape[:2], -1))
            continue
        if isinstance(block, ValueBlock):
            break
        if isinstance(block, SigmaDeltaBlock):
            z = sum(
                np.stack([
                    synapse.sums(torch.from_numpy(step).double(), (weight * 64).double()).round().long().numpy()
                    for step in sent[source].reshape(-1, *sent[source].shape[2:])
                ])
                for source, (synapse, weight) in zip(sources, block.synapses(), strict=True)
            )  # fmt: skip
            z = z.reshape(*x.shape[:2], *z.shape[1:])
            bias = block.quantized_bias()
            offset = 0 if bias is None else (bias * 64).round().long().numpy().reshape(-1, *[1] * (z.ndim - 3)) << 12
            activation = np.maximum(z.cumsum(0) + offset, 0)
        else:
            activation = x << 12
        threshold = int(64 * spec.neuron_of(layer).threshold) << 12
        messages, residue, before = [], np.zeros_like(activation[0]), np.zeros_like(activation[0])
        for a in activation:
            d = a - before + residue
            sends = np.abs(d) >= threshold
            messages.append(np.where(sends, d >> 6, 0))
            before, residue = a, np.where(sends, 0, d)
        x = np.stack(messages)
        if spec.delay_shift_of(layer):
            x = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
        sent.append(x)
        found.append(x)
    return found


def with_neurons(network: Network, of_layers: tuple) -> list:
    kept = zip(network.spec.layers, network.blocks, of_layers, strict=True)
    return [x for layer, block, x in kept if layer.kind != "flatten" and not isinstance(block, ValueBlock)]


@torch.no_grad()
def test_all_engines_agree_with_integers(
    sigma_delta_networks: Callable, make_trained: Callable, draw_inputs: Callable
) -> None:
    n_sent: list[int] = []

    @settings(max_examples=60)
    @given(spec=sigma_delta_networks(), seed=SEEDS)
    def check(spec, seed: int) -> None:
        network = make_trained(spec, seed)
        frames, exact = draw_inputs(spec, seed), IntegerNetwork(network)
        try:
            values, trace = exact.run(frames)
        except StateOverflowError:
            reject()
        wanted = in_integers(network, frames.numpy())
        for ours, theirs in zip(with_neurons(network, trace.spikes), wanted, strict=True):
            assert np.array_equal(ours.numpy(), theirs)
        n_sent.append(np.count_nonzero(wanted[-1]))
        float_values, float_trace = network.run(frames, Mode.SNN)
        for ours, theirs in zip(float_trace.spikes, trace.spikes, strict=True):
            assert torch.equal(ours.double(), theirs.double())
        counted, tally = exact.tally(frames)
        for ours, theirs in zip(tally.counts, trace.spikes, strict=True):
            assert ours is None or torch.equal(ours, theirs.count_nonzero(dim=(0, 1)))
        for found in (float_values, network(frames), exact(frames), counted):
            assert torch.equal(found, values)
        stream = exact.stream()
        for t, frame in enumerate(frames):
            assert torch.equal(stream.step(frame), exact(frames, time_steps=t + 1))

    check()
    assert len(n_sent) >= 50
    assert sum(map(bool, n_sent)) > 0.7 * len(n_sent)


@settings(max_examples=25)
@given(data=st.data(), seed=SEEDS)
@torch.no_grad()
def test_a_net_file_keeps_the_network(
    data, seed: int, sigma_delta_networks, make_trained, draw_inputs, tmp_path_factory
) -> None:
    spec = data.draw(sigma_delta_networks(skipping=False))
    network, frames = make_trained(spec, seed), draw_inputs(spec, seed)
    path = tmp_path_factory.mktemp("netx") / "a.net"
    if isinstance(network.readout, ValueBlock) and network.readout.bias is not None:
        with pytest.raises(UnsupportedError, match="a bias of a readout of values"):
            write_netx(network, path)
        return
    try:
        with warnings.catch_warnings(action="ignore", category=LavaWarning):  # delay_shift may be false
            write_netx(network, path)
    except UnsupportedError:  # weights that Lava would change
        reject()
    again = read_netx(path).build()
    assert torch.equal(again(frames), network(frames))


@settings(max_examples=25)
@given(data=st.data(), seed=SEEDS)
@torch.no_grad()
def test_at_threshold_0_the_first_frame_gives_the_value_of_the_ann(
    data, seed: int, sigma_delta_networks, make_trained, draw_inputs
) -> None:
    spec = data.draw(sigma_delta_networks())
    document = spec.model_dump(mode="json") | {"delay_shift": False, "neuron": {"kind": "sigma_delta"}}
    for layer in (document["input"], *document["blocks"]):
        layer |= {name: None for name in ("neuron", "delay_shift") if name in layer}
    network = make_trained(type(spec).model_validate(document), seed)
    frame = draw_inputs(spec, seed)[:1]
    expected = network(frame, Mode.ANN).float()
    assert torch.equal(network(frame, Mode.SNN), expected)
    held = frame.expand(4, *frame.shape[1:])
    assert torch.equal(network(held, Mode.SNN), expected)
