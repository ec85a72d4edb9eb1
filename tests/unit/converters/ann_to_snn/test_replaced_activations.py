"""Networks of GELU, SiLU and the like, in which ReLU takes the place of these activations."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from bootstrap_core import load_dataset
from converters.ann_to_snn.onnx_conversion import import_onnx
from converters.onnx.import_ann import import_ann
from specs import ConversionError, DataError, UnsupportedError

pytestmark = pytest.mark.usefixtures("few_images")


class Written(nn.Module):
    """An activation that is written as several operators."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Gated(nn.Module):
    """Squeeze-and-excite: factors for channels that depend on the image, after a SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = nn.functional.silu(self.first(x))
        return (x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))).flatten(1)


ACTIVATIONS = [
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Hardswish(), nn.ELU(), nn.ELU(0.5), nn.SELU(), nn.CELU(1.5),
    nn.Softplus(), nn.Mish(), Written(lambda x: x * torch.sigmoid(x)), Written(lambda x: x * torch.sigmoid(1.702 * x)),
    Written(lambda x: x * nn.functional.hardsigmoid(x)), Written(lambda x: x * nn.functional.relu6(x + 3) / 6),
    Written(lambda x: x * torch.tanh(nn.functional.softplus(x))),
]  # fmt: skip


def exported(network: nn.Module, path: Path, shape=(1, 28, 28), opset: int = 17) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.rand(1, *shape),), str(path), dynamo=False, opset_version=opset)
    return path


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_each_way_to_write_an_activation_is_found(activation, opset, tmp_path) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), activation, nn.Conv2d(4, 4, 3), activation, nn.Flatten(), nn.Linear(64, 5)
    path = exported(nn.Sequential(*layers), tmp_path / "net.onnx", (1, 8, 8), opset)
    with pytest.raises(UnsupportedError, match="--replace-activations relu puts ReLU in the place of 2 "):
        import_ann(path)
    found = import_ann(path, replace_activations=True)  # compares both ANNs with the ONNX reference
    assert found.replaced.startswith("2 ")
    assert found.original is not None


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Tanh(), nn.Softsign()], ids=str)
def test_other_curves_stay_refused(activation, tmp_path) -> None:
    path = exported(nn.Sequential(nn.Linear(4, 4), activation, nn.Linear(4, 3)), tmp_path / "net.onnx", (4,))
    with pytest.raises(UnsupportedError) as refused:
        import_ann(path, replace_activations=True)
    with pytest.raises(UnsupportedError) as otherwise:
        import_ann(path)
    assert str(refused.value) == str(otherwise.value)


def test_gates_stay_refused(tmp_path) -> None:
    with pytest.raises(UnsupportedError, match=r"multiplies .* two tensors"):
        import_ann(exported(Gated(), tmp_path / "net.onnx", (1, 5, 5)), replace_activations=True)


def test_the_report_says_what_the_replacement_costs(tmp_path) -> None:
    torch.manual_seed(0)
    digits = load_dataset("mnist-sample")
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(5):
        for places in torch.randperm(len(digits.train)).split(50):
            images, labels = digits.train[places]
            loss = nn.functional.cross_entropy(network(images.float() / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    path = exported(network, tmp_path / "net.onnx")
    found = import_onnx(path, dataset=digits, replace_activations="relu", time_steps=8, epochs=0)
    cost = found.replacement
    assert cost is not None
    assert cost.kept
    assert cost.untuned < cost.tuned
    assert found.ann == cost.file
    assert abs(cost.file - cost.tuned) < 0.05
    assert found.report["replaced"] == {
        "activations": "2 elu", "file": cost.file, "untuned": cost.untuned, "tuned": cost.tuned, "kept": True
    }  # fmt: skip
    assert [row["op"] for row in found.nodes].count("Elu") == 2


def test_images_are_needed(tmp_path) -> None:
    path = exported(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3)), tmp_path / "net.onnx", (4,))
    with pytest.raises(DataError, match="tunes the ANN on images: give them with --data"):
        import_onnx(path, replace_activations="relu")
    with pytest.raises(ConversionError, match="must be 'relu' or None, got 'gelu'"):
        import_onnx(path, replace_activations="gelu")
