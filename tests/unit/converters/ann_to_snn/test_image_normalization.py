"""Normalisation of images by channel: its arithmetic, and its conversion."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Dataset, Split
from converters.ann_to_snn.best_candidate import SpikingForms
from converters.ann_to_snn.onnx_conversion import import_onnx
from converters.linear.image_normalization import AS_THEY_ARE, Normalization, usual_normalizations
from specs import DataError
from specs.layers.input import Encoding

pytestmark = pytest.mark.usefixtures("few_images")

COLOURS = Normalization.of([0.35, 0.2, 0.5], [0.3, 0.2, 0.4])
IMAGES = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def tinted(split: Split, generator: torch.Generator) -> Split:
    """Return the digits in random colours on grounds of other colours."""
    grey = split.images.float()[:, :, ::2, ::2] / 255
    ink, ground = torch.rand(2, len(split), 3, 1, 1, generator=generator)
    ink[:, 2], ground[:, 2] = 0.8 + 0.2 * ink[:, 2], 0.5 * ground[:, 2]  # blue separates ink and ground
    return Split(((ground + (ink - ground) * grey) * 255).round().to(torch.uint8), split.labels)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    grey, generator = load_dataset("mnist-sample"), torch.Generator().manual_seed(0)
    train, test = (tinted(split, generator) for split in (grey.train, grey.test))
    return Dataset("colours", train, test, grey.classes, "a test")


class Network(nn.Module):
    def __init__(self, *, flat: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = None if flat else nn.Conv2d(3, 8, 3, 2, 1)
        self.hidden, self.readout = nn.Linear(588 if flat else 392, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.conv is None else self.conv(x).relu()
        return self.readout(self.hidden(x.flatten(1)).relu())


def trained(digits: Dataset, *, flat: bool) -> Network:
    network = Network(flat=flat)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for indices in torch.arange(12 * len(digits.train)).split(100):
        images = COLOURS(digits.train.images[indices % len(digits.train)].float() / 255)
        loss = nn.functional.cross_entropy(network(images), digits.train.labels[indices % len(digits.train)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def accuracy(network: Network, test: Split) -> float:
    with torch.no_grad():
        answers = network(COLOURS(test.images.float() / 255)).argmax(1)
    return float((answers == test.labels).double().mean())


def write(path: Path, network: Network, *, normalises: bool, channels_last: bool = False) -> Path:
    """Write a network as ONNX, optionally with normalisation, for images `[N, 14, 14, 3]`, `[N, 3, 14, 14]` or flat."""
    weights = {name.replace(".", "_"): tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    side = (-1,) if channels_last else (-1, 1, 1)
    weights |= {name: np.float32(getattr(COLOURS, name)).reshape(side) for name in ("mean", "std")}
    nodes = "d = Sub(x, mean) n = Div(d, std) " if normalises else "n = Identity(x) "
    if network.conv is not None:
        turned = "t = Transpose<perm=[0,3,1,2]>(n) " if channels_last else "t = Identity(n) "
        nodes += turned + "c = Conv<strides=[2,2], pads=[1,1,1,1]>(t, conv_weight, conv_bias) r = Relu(c) "
    nodes += "f = Flatten(r) " if network.conv is not None else "f = Flatten(n) "
    nodes += "h = Gemm<transB=1>(f, hidden_weight, hidden_bias) a = Relu(h) "
    nodes += "y = Gemm<transB=1>(a, readout_weight, readout_bias)"
    shape = "588" if network.conv is None else "14, 14, 3" if channels_last else "3, 14, 14"
    graph = onnx.parser.parse_graph(f"colours (float[n, {shape}] x) => (float[n, 10] y) {{ {nodes} }}")
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(weights[name], name) for name in sorted(used & weights.keys()))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# --- the arithmetic


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_usually_normalised_by_their_own_mean_and_deviation(channels) -> None:
    images = torch.randint(0, 256, (9, channels, 4, 5), dtype=torch.uint8) // torch.arange(1, channels + 1).view(
        -1, 1, 1
    )
    ways = usual_normalizations(images)
    x = images.double() / 255
    own = ways[3](x)
    assert own.mean((0, 2, 3)).abs().max() < 5e-3
    assert (own.var((0, 2, 3), correction=0) - 1).abs().max() < 5e-3
    assert [way.option for way in ways[:3]] == ["--mean 0 --std 1", "--mean 0.5 --std 0.5", "--raw"]
    assert [way.option for way in ways[4:]] == ["--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"] * (channels == 3)


def test_images_of_one_colour_have_no_deviation_to_be_divided_by() -> None:
    images = torch.full((50_000, 1, 3, 3), 7, dtype=torch.uint8)
    assert len(usual_normalizations(images)) == 3
    images[0, 0, 0, 0] = 8
    assert len(usual_normalizations(images)) == 3


@pytest.mark.parametrize(
    ("shape", "fits"), [((3, 6, 5), True), ((90,), True), ((1, 1, 90), False), ((1, 90, 1), False)]
)
def test_channels_have_to_be_where_they_can_be_told_apart(shape, fits) -> None:
    assert COLOURS.fits(shape) is fits
    assert AS_THEY_ARE.fits(shape)


def test_each_channel_has_its_own_of_maps_and_of_rows() -> None:
    wanted = torch.stack([(IMAGES[:, c] - COLOURS.mean[c]) / COLOURS.std[c] for c in range(3)], 1)
    torch.testing.assert_close(COLOURS(IMAGES), wanted)
    torch.testing.assert_close(COLOURS(IMAGES.flatten(1)), wanted.flatten(1))


@pytest.mark.parametrize("other", [Normalization.of(0.1, 2.0), Normalization.of([0.1, 0.2, 0.3], 0.5), AS_THEY_ARE])
def test_one_after_the_other(other: Normalization) -> None:
    for first, second in ((COLOURS, other), (other, COLOURS)):
        torch.testing.assert_close(second.after(first)(IMAGES), second(first(IMAGES)))


def test_numbers_that_are_no_channels_are_refused() -> None:
    for fits in ((3, 6, 5), (90,)):
        COLOURS.check(fits)
    AS_THEY_ARE.check((7,))
    for other in ((1, 28, 28), (6, 5, 5), (784,)):
        with pytest.raises(DataError, match=r"^got 3 means for images of \["):
            COLOURS.check(other)
    with pytest.raises(DataError, match=r"^got 2 standard deviations for images of \[3, 6, 5\]: give one, or one"):
        Normalization.of(0.0, [1.0, 2.0]).check((3, 6, 5))


# --- conversions


@pytest.mark.parametrize("encoding", SpikingForms().encodings)
@pytest.mark.parametrize("flat", [False, True], ids=["convolution that pads", "dense"])
def test_a_conversion_answers_like_the_ann(digits, tmp_path, flat, encoding) -> None:
    network = trained(digits, flat=flat)
    path = write(tmp_path / "colours.onnx", network, normalises=False)
    options = {
        "mean": COLOURS.mean,
        "std": COLOURS.std,
        "time_steps": 8,
        "epochs": 0,
        "forms": SpikingForms(encodings=[encoding]),
    }
    found = import_onnx(path, dataset=digits, **options)
    assert found.ann == accuracy(network, digits.test) > 0.8
    assert found.converted[8] > found.ann - 0.04
    assert found.model.card["conversion"]["mean"] == list(COLOURS.mean)
    entering = found.model.spec.input
    assert (any(entering.padding), entering.border == pytest.approx(COLOURS.mean)) == (not flat, not flat)
    assert not any("pads" in note for note in found.notes)  # nothing differs near edges


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_file_that_normalises_converts_to_the_same_network(digits, tmp_path, channels_last) -> None:
    network = trained(digits, flat=False)
    outside = write(tmp_path / "a.onnx", network, normalises=False)
    inside = write(tmp_path / "b.onnx", network, normalises=True, channels_last=channels_last)
    options = {"dataset": digits, "time_steps": 8, "epochs": 0, "forms": SpikingForms(encodings=[Encoding.GRADED])}
    given = import_onnx(outside, mean=COLOURS.mean, std=COLOURS.std, **options)
    read = import_onnx(inside, **options)
    assert read.ann == given.ann
    assert read.imported.ann.normalization.mean == pytest.approx(COLOURS.mean)
    assert read.converted[8] == pytest.approx(given.converted[8], abs=0.01)


def test_means_that_are_no_channels_are_refused(digits, tmp_path) -> None:
    path = write(tmp_path / "a.onnx", trained(digits, flat=False), normalises=False)
    with pytest.raises(DataError, match=r"^got 2 means for images of \[3, 14, 14\]"):
        import_onnx(path, dataset=digits, mean=[0.5, 0.5])
