"""Float and integer engine agree; neither depends on the batching of images or the order of neurons."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from bootstrap_core.functional.cuba import CubaOutput, cuba_forward
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.blocks import AffineBlock, InputBlock, SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.library import without_native
from specs.errors import StateOverflowError

SEEDS = st.integers(0, 2**16)
few = settings(max_examples=25)


def n_hidden_spikes(network: Network, spikes: tuple[Tensor, ...]) -> int:
    """Return the number of spikes of all blocks with neurons except the input and the readout."""
    return sum(
        int(x.count_nonzero())
        for x, layer in zip(spikes[1:-1], network.spec.blocks[:-1], strict=True)
        if layer.kind != "flatten"
    )


def leaves_24_bits(network: Network, images: Tensor) -> bool:
    """Return True if a state of the float network exceeds 24 bits, also in the readout, which never fires."""
    outputs: list[CubaOutput] = []
    with without_native():
        for block, (read, output) in zip(network.blocks, network.outputs(images, Mode.SNN), strict=True):
            if isinstance(block, InputBlock):
                current = block.current(*read)
                outputs.append(block.constants().define(current.expand(output.steps, *current.shape)))
            elif isinstance(block, AffineBlock):
                z = block.weigh(*read).expand(read[0].steps, -1, -1)
                decays, bias = block.neuron.quantized_decays(), block.quantized_bias()
                outputs.append(cuba_forward(z, *decays, bias, threshold=math.inf, subtract=False))
            elif isinstance(block, SpikingBlock):
                z = block.weigh(*read)
                outputs.append(block.constants().define(z.expand(output.steps, *z.shape[1:])))
    states = [state * 4096 for output in outputs for state in (output.current, output.voltage)]
    return any(bool((state.abs() > 2**23 - 1).any()) for state in states)


@pytest.mark.parametrize(
    ("skipping", "timed"), [(False, False), (True, False), (False, True)], ids=["chain", "skips", "timed"]
)
@pytest.mark.parametrize("encoding", ["spike", "graded", "events"])
@pytest.mark.parametrize("flat", [False, True])
@torch.no_grad()
def test_both_engines_give_the_same_spikes_and_logits(
    flat: bool,
    encoding: str,
    skipping: bool,
    timed: bool,
    network_specs: Callable,
    make_trained: Callable,
    draw_inputs: Callable,
) -> None:
    n_fired: list[bool] = []
    n_examples = 50 if skipping or timed else 100

    @settings(max_examples=n_examples)
    @given(spec=network_specs(flat=flat, encoding=encoding, skipping=skipping, timed=timed), seed=SEEDS)
    def check(spec, seed: int) -> None:
        network = make_trained(spec, seed)
        images = draw_inputs(network.spec, seed)
        try:
            logits, trace = IntegerNetwork(network).run(images)
        except StateOverflowError:
            assert leaves_24_bits(network, images)
            reject()
        assert not leaves_24_bits(network, images)
        float_logits, float_trace = network.run(images, Mode.SNN)
        for i, (ours, theirs) in enumerate(zip(float_trace.spikes, trace.spikes, strict=True)):
            assert torch.equal(ours.double(), theirs.double()), f"block {i}, {spec.layers[i].kind}"
        assert torch.equal(float_logits, logits)
        assert torch.equal(network(images, Mode.SNN), logits)
        exact = IntegerNetwork(network)
        assert torch.equal(exact(images), logits)
        _, tally = exact.tally(images)
        with without_native():  # the definitions in torch
            defined_logits, defined_trace = exact.run(images)
            float_logits, float_trace = network.run(images, Mode.SNN)
        assert torch.equal(defined_logits, logits)
        assert torch.equal(float_logits, logits)
        for ours, defined, floats in zip(trace.spikes, defined_trace.spikes, float_trace.spikes, strict=True):
            assert torch.equal(ours.double(), defined.double())
            assert torch.equal(ours.double(), floats.double())
        for ours, theirs in zip(tally.counts, defined_trace.spikes, strict=True):
            assert ours is None or torch.equal(ours, theirs.count_nonzero(dim=(0, 1)))
        n_fired.append(n_hidden_spikes(network, trace.spikes) > 0)

    check()
    assert len(n_fired) >= 0.85 * n_examples
    assert sum(n_fired) > 0.7 * len(n_fired)


@few
@given(data=st.data(), seed=SEEDS)
@torch.no_grad()
def test_an_image_gives_the_same_spikes_alone_and_in_a_batch(
    data, seed: int, network_specs, make_trained, draw_inputs
) -> None:
    network = make_trained(data.draw(network_specs(timed=True)), seed)
    images = draw_inputs(network.spec, seed)
    logits, trace = network.run(images, Mode.SNN)
    for n in range(len(logits)):
        one = images[:, n : n + 1] if network.spec.input.is_events else images[n : n + 1]
        alone, alone_trace = network.run(one, Mode.SNN)
        assert torch.equal(alone[0], logits[n])
        for spikes, alone_spikes in zip(trace.spikes, alone_trace.spikes, strict=True):
            assert torch.equal(alone_spikes[:, 0], spikes[:, n])


@few
@given(data=st.data(), seed=SEEDS)
@torch.no_grad()
def test_fewer_steps_give_the_first_spikes_of_more(data, seed: int, network_specs, make_trained, draw_inputs) -> None:
    network = make_trained(data.draw(network_specs(timed=True)), seed)
    images = draw_inputs(network.spec, seed)
    _, trace = network.run(images, Mode.SNN)
    fewer = network.spec.time_steps - 2
    _, short = network.run(images, Mode.SNN, time_steps=fewer)
    for spikes, short_spikes in zip(trace.spikes, short.spikes, strict=True):
        assert torch.equal(short_spikes, spikes[:fewer])


@few
@given(data=st.data(), seed=SEEDS)
@torch.no_grad()
def test_reordering_hidden_neurons_reorders_their_spikes_and_nothing_else(
    data, seed: int, network_specs, make_trained, draw_inputs
) -> None:
    network = make_trained(data.draw(network_specs(flat=True, skipping=False)), seed)
    images = draw_inputs(network.spec, seed)
    logits, trace = network.run(images, Mode.SNN)

    order = torch.randperm(network.spec.shapes[1][0], generator=torch.Generator().manual_seed(seed))
    state = network.state_dict()
    for name, tensor in state.items():
        if name.startswith("blocks.1.") and "sampler" not in name and tensor.dim() and len(tensor) == len(order):
            state[name] = tensor[order]
    columns = "blocks.2.synapse.weight"
    columns = columns if columns in state else "blocks.2.synapse.parametrizations.weight.original1"
    state[columns] = state[columns][:, order]
    network.load_state_dict(state)

    reordered_logits, reordered = network.run(images, Mode.SNN)
    assert torch.equal(reordered.spikes[1], trace.spikes[1][:, :, order])
    for ours, theirs in zip(reordered.spikes[2:], trace.spikes[2:], strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(reordered_logits, logits)


@few
@given(data=st.data(), seed=SEEDS)
@torch.no_grad()
def test_a_stream_gives_the_logits_of_one_run(data, seed: int, network_specs, make_trained, draw_inputs) -> None:
    network = make_trained(data.draw(network_specs(timed=True)), seed)
    inputs, exact = draw_inputs(network.spec, seed), IntegerNetwork(network)
    stream, defined = exact.stream(), exact.stream()
    for t in range(network.spec.time_steps):
        step = inputs[t] if network.spec.input.is_events else inputs
        try:
            expected = exact(inputs, time_steps=t + 1)
        except StateOverflowError:
            with pytest.raises(StateOverflowError):
                stream.step(step)
            reject()
        assert torch.equal(stream.step(step), expected)
        with without_native():
            assert torch.equal(defined.step(step), expected)
