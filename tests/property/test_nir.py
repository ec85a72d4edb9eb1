"""Models through NIR and back: exact with the metadata, the same spikes with the nodes alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap_core import Mode, Network
from bootstrap_core.network.inputs import as_input
from converters import Model
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import NetworkSpec

SEEDS = st.integers(0, 2**16)
few = settings(max_examples=25)


def forget_metadata(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["node/metadata"]


def sayable(spec: NetworkSpec, reset: str | None = None) -> NetworkSpec:
    """Restrict a spec to what a file can express: no delays of single weights, no average as readout.

    With a `reset`, restrict it to what nodes alone can: this reset for all layers, voltages that start at 0, input
    currents on the grid of 1/64, events of one bit, and logits that are means.
    """
    document = spec.model_dump(mode="json", exclude_none=True)
    if document["blocks"][-1]["kind"] == "average":
        document["blocks"].pop()
    for part in [document, document["input"], *document["blocks"]]:
        if "neuron" in part and reset:
            part["neuron"] |= {"reset": reset, "start": 0.0}
        if "delays" in part:
            part["delays"]["per"] = "neuron"
    if reset:
        document.pop("output", None)
        document["input"] |= {"spike": {"exact_input": True}, "events": {"bits": 1}}.get(spec.input.encoding, {})
    return NetworkSpec.model_validate(document)


def what_the_nodes_are_fed(network: Network, images: torch.Tensor) -> torch.Tensor:
    block, x = network.blocks[0], as_input(images, network.spec)
    return block.current(x).detach() if hasattr(block, "current") else x


@pytest.mark.parametrize("encoding", ["spike", "graded", "events"])
def test_a_model_comes_back_as_it_was(
    encoding: str,
    network_specs: Callable[..., Any],
    make_trained: Callable[..., Network],
    draw_inputs: Callable[..., torch.Tensor],
    tmp_path: Path,
) -> None:
    @few
    @given(network_specs(encoding=encoding, timed=True), SEEDS)
    def check(spec: NetworkSpec, seed: int) -> None:
        spec = sayable(spec)
        network = make_trained(spec, seed)
        images = draw_inputs(spec, seed)
        if spec.has_ann:
            with torch.no_grad():
                network(images, Mode.SAMPLE)
                network(images, Mode.FIT)
        model = Model.of(network, {"seed": seed})
        again = read_nir(write_nir(model, tmp_path / "a.nir", overwrite=True))
        assert again.spec == spec
        assert again.card == model.card
        assert again.tensors.keys() == model.tensors.keys()
        for name, tensor in model.tensors.items():
            assert tensor.dtype == again.tensors[name].dtype
            assert torch.equal(tensor, again.tensors[name])
        for mode in (Mode.SNN, Mode.ANN) if spec.has_ann else (Mode.SNN,):
            assert torch.equal(network(images, mode), again.build()(images, mode))

    check()


@pytest.mark.filterwarnings("ignore:images have values:UserWarning")  # currents, fed in the place of pixels
@pytest.mark.parametrize("encoding", ["spike", "graded", "events"])
def test_the_nodes_alone_give_the_same_spikes(
    encoding: str,
    network_specs: Callable[..., Any],
    make_trained: Callable[..., Network],
    draw_inputs: Callable[..., torch.Tensor],
    tmp_path: Path,
) -> None:
    n_spikes = 0

    @few
    @given(network_specs(encoding=encoding, timed=True), SEEDS, st.sampled_from(["zero", "subtract"]))
    def check(spec: NetworkSpec, seed: int, reset: str) -> None:
        nonlocal n_spikes
        network = make_trained(sayable(spec, reset), seed)
        path = write_nir(Model.of(network), tmp_path / "a.nir", dt=1e-3, overwrite=True)
        forget_metadata(path)
        bits = None if encoding == "events" else spec.input.bits
        read = read_nir(path, dt=1e-3, reset=reset, time_steps=spec.time_steps, input_bits=bits)
        images = draw_inputs(network.spec, seed)
        expected, trace = network.run(images)
        found, again = read.build().run(what_the_nodes_are_fed(network, images))
        assert torch.equal(expected, found)
        theirs = [x for x in again.spikes if x is not None]
        # The number of blocks may differ by a flatten, so only the last blocks are compared.
        assert torch.equal(trace.spikes[-1], theirs[-1])
        n_spikes += sum(int((x > 0).sum()) for x in trace.spikes[:-1])

    check()
    assert n_spikes > 1000
