"""ANNs as networks of messages: their values, and the same values in netx, in a stream and in C."""

import json
import warnings

import pytest
import torch
from c_programs import compile_c, needs_compiler
from c_programs import run as run_program
from torch import Tensor, nn

from bootstrap_core import IntegerNetwork
from bootstrap_core.data.splits import Dataset, Split
from converters import read_model, write_model
from converters.ann_to_snn.message_layers import LayerScaler, Scaling, is_relay, message_layers, with_relays
from converters.ann_to_snn.messages import MessageConversion, import_messages
from converters.linear.image_normalization import Normalization
from converters.onnx.import_ann import import_ann
from specs import UnsupportedError


def images(n: int = 60) -> Dataset:
    """Return noise with stripes, with labels that mean nothing."""
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, :, :, ::2] *= torch.linspace(0, 1, n)[:, None, None, None]
    split = Split((x * 255).byte(), torch.zeros(n, dtype=torch.int64))
    return Dataset("noise", split, split, ("unlabelled",), source="noise")


def converted(network: nn.Module, tmp_path, **normalization: float) -> MessageConversion:
    path = tmp_path / "ann.onnx"
    with warnings.catch_warnings(action="ignore"):  # torch advises its other exporter
        torch.onnx.export(network.eval(), (torch.zeros(1, 1, 8, 8),), str(path), dynamo=False, verbose=False)
    return import_messages(path, dataset=images(), **normalization)


def conv_net(outputs: int) -> nn.Sequential:
    torch.manual_seed(1)
    pooled = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    network = nn.Sequential(*pooled, nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, outputs))
    for layer in (network[0], network[4], network[6]):
        nn.init.kaiming_normal_(layer.weight)
    return network


def frames(found: MessageConversion) -> Tensor:
    x = (images().test.images.double() / 255 * found.levels).round().int()
    return x.expand(found.model.spec.time_steps, *x.shape)


@pytest.mark.parametrize("outputs", [1, 3])
def test_values_are_those_of_the_ann(outputs: int, tmp_path) -> None:
    network = conv_net(outputs)
    found = converted(network, tmp_path)
    with torch.no_grad():
        wanted = network(images().test.images.float() / 255)
        values = IntegerNetwork(found.model.build())(frames(found)) / found.output_scale
    assert float((values - wanted).square().mean().sqrt()) < (0.05 if outputs == 1 else 0.3) * float(wanted.std())
    assert found.score is not None
    assert sum(found.score.messages) > 0
    assert json.dumps(found.report)
    assert found.multiplications == 36 * 36 + 36 * 8 + 8 * outputs


@needs_compiler
def test_netx_and_c_give_the_same_values(tmp_path) -> None:
    found = converted(conv_net(1), tmp_path)
    x = frames(found)[:, :1]
    exact = IntegerNetwork(found.model.build())
    for name in ("a.net", "a.c"):
        write_model(found.model, tmp_path / name)
    again = IntegerNetwork(read_model(tmp_path / "a.net").build())
    _, trace = exact.run(x)
    for ours, theirs in zip(trace.spikes, again.run(x)[1].spikes, strict=True):
        assert torch.equal(ours, theirs)
    program = compile_c(tmp_path / "a.c", "-DSNN_STDIN")
    line = run_program(program, x.numpy().astype("<i2" if found.levels > 127 else "i1").tobytes(), str(len(x))).stdout
    assert [int(line.split()[0])] == (exact(x)[0].double() * 2**18).long().tolist()
    stream = exact.stream()
    assert torch.equal([stream.step(step) for step in x][-1], exact(x))


def test_upper_bounds_are_pairs_of_rectifiers(tmp_path) -> None:
    torch.manual_seed(3)
    maps = nn.Conv2d(1, 4, 3), nn.Hardtanh(0.0, 0.5), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6(), nn.MaxPool2d(2)
    network = nn.Sequential(*maps, nn.Flatten(), nn.Linear(16, 8), nn.Hardtanh(0.0, 1.0), nn.Linear(8, 1))
    for layer in (network[0], network[2], network[6], network[8]):
        nn.init.kaiming_normal_(layer.weight)
    found = converted(network, tmp_path)
    with torch.no_grad():
        reached = (network[:2](images().test.images.float() / 255) == 0.5).double().mean()
        wanted = network(images().test.images.float() / 255)
        values = IntegerNetwork(found.model.build())(frames(found)) / found.output_scale
    assert reached > 0.1
    channels = [block.channels for block in found.model.spec.blocks if block.kind == "conv"]
    assert channels[0] == 8  # pairs
    assert 4 in channels  # behind ReLU6, whose bound nothing reaches
    assert any("the upper bound of 2 activation layers is left out" in note for note in found.notes)
    assert float((values - wanted).square().mean().sqrt()) < 0.1 * float(wanted.std())


class Residual(nn.Module):
    """A residual sum of an identity, one of a convolution, a concatenation, and the mean of each map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.third, self.straight = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(6, 8, 1, 2)
        self.joined, self.last = nn.Conv2d(14, 6, 1), nn.Linear(6, 3)
        for layer in (self.first, self.second, self.third, self.joined, self.last):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (x + self.second(x)).relu()
        y = (self.straight(x) + self.third(x)).relu()
        x = self.joined(torch.cat([y, x[:, :, ::2, ::2]], 1)).relu()
        return self.last(x.mean((2, 3)))


def test_a_residual_network_has_the_values_of_its_ann(tmp_path) -> None:
    network = Residual()
    found = converted(network, tmp_path)
    assert found.model.spec.time_steps == 1
    assert found.score is not None
    assert found.score.error < 0.1
    with torch.no_grad():
        wanted = network(images().test.images.float() / 255)
        values = IntegerNetwork(found.model.build())(frames(found)) / found.output_scale
    assert float((values - wanted).square().mean().sqrt()) < 0.1 * float(wanted.std())


def test_padding_of_normalised_images_is_their_mean(tmp_path) -> None:
    network = Residual()
    found = converted(network, tmp_path, mean=0.5, std=0.25)
    with torch.no_grad():
        wanted = network((images().test.images.float() / 255 - 0.5) / 0.25)
        values = IntegerNetwork(found.model.build())(frames(found)) / found.output_scale
    assert found.score is not None
    assert found.score.error < 0.1
    assert float((values - wanted).square().mean().sqrt()) < 0.1 * float(wanted.std())


@needs_compiler
def test_a_graph_has_the_same_values_in_all_engines_and_in_c(tmp_path) -> None:
    found = converted(Residual(), tmp_path)
    network, x = found.model.build(), frames(found)[:, :5]
    exact = IntegerNetwork(network)
    (values, trace), (floats, float_trace) = exact.run(x), network.run(x)
    assert torch.equal(values, floats)
    for ours, theirs in zip(trace.spikes, float_trace.spikes, strict=True):
        assert torch.equal(ours.double(), theirs.double())
    assert torch.equal(exact.stream().step(x[0]), values)
    write_model(found.model, tmp_path / "a.safetensors")
    assert torch.equal(IntegerNetwork(read_model(tmp_path / "a.safetensors").build())(x), values)
    write_model(found.model, tmp_path / "a.c")
    program = compile_c(tmp_path / "a.c", "-DSNN_STDIN")
    for frame, value in zip(x[0], values, strict=True):
        line = run_program(program, frame.numpy().astype("<i2" if found.levels > 127 else "i1").tobytes(), "1").stdout
        assert [int(number) for number in line.split()] == (value.double() * 2**18).long().tolist()
    for name in ("a.net", "a.nir"):
        with pytest.raises(UnsupportedError):
            write_model(found.model, tmp_path / name)


def test_relays_keep_the_values_and_skips_of_one_weight_pass_them_by(tmp_path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(Residual(), (torch.zeros(1, 1, 8, 8),), str(tmp_path / "a.onnx"), dynamo=False)
    layers = message_layers(import_ann(tmp_path / "a.onnx").ann, Normalization())
    relayed = with_relays(layers)
    assert [layer.target for layer in relayed if is_relay(layer)] == [layer.target for layer in layers[:3]]
    x = images().test.images
    plain, other = (LayerScaler(each, x) for each in (layers, relayed))
    assert torch.equal(plain.sums[-1], other.sums[-1])
    residual = next(layer for layer in relayed if layer.skips and layer.skips[0].diagonal is not None)
    assert not is_relay(relayed[residual.skips[0].source - 1])
    scaled = other.scaled(Scaling(growth=4.0))
    factor = scaled.layers[relayed.index(residual)].skips[0].diagonal
    assert factor is not None
    assert torch.equal(factor * 32, (factor * 32).round())
