"""The chip form of a network says all that it computes, and a model made of it computes the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bootstrap_core import IntegerNetwork, Network, build_network
from converters.chip import from_network
from converters.chip.form import PIXELS
from converters.chip.from_network import form_of_network
from converters.chip.to_model import model_of_form, spec_document
from converters.formats.model_files import problems_in, write_model
from converters.model import Model
from specs import IntegrityError, NetworkSpec, UnsupportedError
from specs.io import spec_from_document

CONV = {"kind": "conv", "channels": 2, "kernel": 3, "padding": [0, 1, 1, 0], "bias": True}
BLOCKS = [
    CONV,
    CONV | {"kernel": 1, "padding": 0, "skips": [{"source": 1, "kind": "identity"}], "delays": {"longest": 3}},
    {"kind": "avg_pool", "kernel": 2},
    {"kind": "flatten"},
    {"kind": "dense", "features": 5, "recurrent": True, "norm": "mean_only", "skips": [{"source": 1, "kind": "dense"}]},
    {"kind": "affine", "features": 3, "bias": True},
]  # fmt: skip


def network(blocks: list[dict[str, Any]] = BLOCKS, **entering: Any) -> Network:
    document = {"name": "tiny", "time_steps": 4, "input": {"shape": [1, 6, 6], **entering}, "blocks": blocks}
    net = build_network(NetworkSpec.model_validate(document), seed=1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias") and not name.startswith("blocks.0"):
                parameter.uniform_(-0.2, 0.4, generator=torch.Generator().manual_seed(2))
    return net


def test_every_layer_names_the_layers_that_it_reads() -> None:
    layers = form_of_network(network()).layers
    assert [[edge.source for edge in layer.sources] for layer in layers] == [
        [PIXELS],
        [0],
        [1, 1],
        [2],
        [3],
        [4, 1],
        [5],
    ]
    assert [layer.kind for layer in layers if layer.weighs] == ["conv", "conv", "avg_pool", "dense", "affine"]
    assert layers[2].skips[0].is_identity
    assert layers[5].recurrent is not None
    assert layers[5].recurrent.shape == (5, 5)
    assert layers[5].bias is not None  # of the norm


def test_its_integers_are_those_of_the_hardware() -> None:
    net = network()
    first, second = form_of_network(net).layers[1:3]
    assert first.weight is not None
    assert first.weight.dtype == np.int64
    assert torch.equal(torch.from_numpy(first.weight) / 64, net.blocks[1].quantized_weight())
    assert second.delay is not None
    assert second.delay.tolist() == net.blocks[2].delay.tolist()
    assert second.sources[0].longest == 3


def test_pixels_become_currents_or_graded_integers() -> None:
    assert form_of_network(network(mean=0.5, std=0.5)).pixels[::51] == [-4096, -2432, -768, 768, 2432, 4096]
    graded = form_of_network(network([CONV, {"kind": "flatten"}, BLOCKS[-1]], encoding="graded", bits=2))
    assert (graded.pixels[0], graded.pixels[100], graded.pixels[255]) == (0, 1, 3)
    padded = form_of_network(network(padding=[1, 1], border=1.0))
    assert padded.border == [padded.pixels[255]]


def test_a_model_of_its_form_computes_the_same() -> None:
    net = network()
    form = form_of_network(net)
    document = net.spec.model_dump(mode="json")
    document["blocks"][4] |= {"norm": "none", "bias": True}  # the form has the bias of the norm
    again = model_of_form(form, spec_from_document(document), origin="a").build()
    images = torch.rand(5, 1, 6, 6)
    assert torch.equal(IntegerNetwork(again)(images), IntegerNetwork(net)(images))
    assert IntegerNetwork(net)(images).any()


@pytest.mark.parametrize("entering", [{}, {"encoding": "graded", "bits": 3}, {"encoding": "events"}])
def test_its_spec_follows_from_its_layers(entering: dict[str, Any]) -> None:
    blocks = [{key: value for key, value in block.items() if key not in ("skips", "norm")} for block in BLOCKS]
    net = network(blocks, **entering)
    form = form_of_network(net)
    spec = spec_from_document(spec_document(form))
    assert [block.kind for block in spec.blocks] == [block["kind"] for block in blocks]
    again = form_of_network(model_of_form(form, spec, origin="a").build())
    for ours, theirs in zip(form.layers, again.layers, strict=True):
        assert np.array_equal(ours.weight, theirs.weight)
        assert ours.neurons is None or theirs.neurons is None or ours.kind == "affine" or (
            ours.neurons.threshold_mant == theirs.neurons.threshold_mant
        )  # fmt: skip


CHANGES = {
    "has shape": lambda layer: layer.with_own(weight=layer.weight[:, :, :1]),
    "the spec has skips, 0, the layer has 1": lambda layer: replace(layer, sources=layer.sources * 2),
    "threshold is 9, expected 64": lambda layer: replace(layer, neurons=replace(layer.neurons, threshold_mant=9)),
    "padding is": lambda layer: layer.with_own(window=replace(layer.window, padding=(0, 0))),
}


@pytest.mark.parametrize("problem", CHANGES)
def test_a_form_that_contradicts_the_spec_is_told(problem: str) -> None:
    net = network()
    form = form_of_network(net)
    layers = [*form.layers]
    layers[1] = CHANGES[problem](layers[1])
    with pytest.raises(IntegrityError, match=problem):
        model_of_form(replace(form, layers=tuple(layers)), net.spec, origin="a")


@pytest.mark.parametrize("suffix", [".net", ".nir", ".c"])
def test_a_field_that_is_unknown_here_is_refused_by_every_format(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_network, "KNOWN_FIELDS", from_network.KNOWN_FIELDS - {"gain", "stride"})
    net = network([{"kind": "avg_pool", "kernel": 2, "gain": 2.0, "stride": 3}, {"kind": "flatten"}, BLOCKS[-1]])
    with pytest.raises(UnsupportedError, match="block 1: the field stride; block 1: the field gain"):
        write_model(net, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".net", ".nir", ".c", ".safetensors"])
@pytest.mark.parametrize("delays", [None, {"per": "neuron"}, {"per": "synapse"}])
@pytest.mark.parametrize("skips", [[], [{"source": 1, "kind": "dense"}]])
def test_what_a_format_is_asked_is_what_it_refuses(
    suffix: str, delays: dict[str, Any] | None, skips: list[dict[str, Any]], tmp_path: Path
) -> None:
    hidden = {"kind": "dense", "features": 5, "delays": delays, "skips": skips}
    net = network([CONV, {"kind": "flatten"}, hidden, BLOCKS[-1]])
    problems = problems_in(form_of_network(net), suffix)
    if problems:
        with pytest.raises(UnsupportedError) as refused:
            write_model(net, tmp_path / f"a{suffix}")
        assert str(refused.value) == "; ".join(problems)
    else:
        write_model(Model.of(net), tmp_path / f"a{suffix}")
