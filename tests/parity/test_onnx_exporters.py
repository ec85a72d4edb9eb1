"""Models from torch's ONNX exporters, imported and compared with torch."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion

from converters.linear.ann import run_ann
from converters.onnx.import_ann import OnnxImport, import_ann


class Residual(nn.Module):
    """Network with branches, normalisation, ReLU6, leaky ReLU, and a flatten that computes shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6))
        self.last = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        x = self.first((x - 0.25) / 0.5)
        x = torch.nn.functional.leaky_relu(x + self.second(x), 0.125)
        x = nn.functional.max_pool2d(x, 2)
        return torch.log_softmax(self.last(x.view(x.size(0), -1)), dim=1)


class AfterRelu(nn.Module):
    """Network with normalisation after ReLU, then padding; a global mean; dropout; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.BatchNorm2d(8),
            nn.PReLU(8),
            nn.Dropout(0.5),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        features = self.body(x).mean((2, 3))
        return self.head(features)


class Line(nn.Module):
    """Network of 1-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, 4, 5, stride=2, padding=2),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Flatten(),
            nn.Linear(8 * 4, 6),
            nn.BatchNorm1d(6),
            nn.Hardtanh(0, 2),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        return self.body(x)


CASES = {"residual": (Residual, (2, 8, 8)), "after_relu": (AfterRelu, (2, 8, 8)), "line": (Line, (2, 32))}


def trained(kind: type[nn.Module]) -> nn.Module:
    """Make a network with batch norm statistics of all signs and sizes."""
    torch.manual_seed(3)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval().requires_grad_(False)


def export(model: nn.Module, example: torch.Tensor, path, **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn about themselves
        torch.onnx.export(model, (example,), str(path), **options)


def check(model: nn.Module, found: OnnxImport, shape: tuple[int, ...]) -> None:
    images = torch.rand(6, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(images)
    logits = run_ann(found.ann, images.reshape(6, *found.ann.shape))[0]
    if isinstance(model, Residual):
        logits = torch.log_softmax(logits, 1)
    assert torch.allclose(logits, wanted, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("opset", [9, 11, 13, 17])
@pytest.mark.parametrize("folded", [True, False])
def test_torchscript(tmp_path, name, opset, folded) -> None:
    kind, shape = CASES[name]
    model, path = trained(kind), tmp_path / "model.onnx"
    options = {} if folded else {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    axes = {"x": {0: "batch"}}
    example = torch.rand(1, *shape)
    export(model, example, path, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes=axes, **options)
    check(model, import_ann(path), shape)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="torch's dynamo exporter needs onnxscript")
@pytest.mark.skipif(TorchVersion(torch.__version__) < "2.9", reason="the dynamo exporter is the default from 2.9 on")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("options", [{}, {"external_data": True}, {"optimize": False}], ids=str)
def test_dynamo(tmp_path, name, options) -> None:
    kind, shape = CASES[name]
    model, path = trained(kind), tmp_path / "model.onnx"
    batch = torch.export.Dim("batch")
    export(model, torch.rand(2, *shape), path, dynamo=True, verbose=False, dynamic_shapes=({0: batch},), **options)
    check(model, import_ann(path), shape)


def test_a_fixed_batch_and_other_outputs(tmp_path) -> None:
    model, path = trained(AfterRelu), tmp_path / "model.onnx"

    class Both(nn.Module):
        def forward(self, x):
            logits = model(x)
            return torch.softmax(logits, 1), logits, logits.argmax(1)

    export(Both().eval(), torch.rand(3, 2, 8, 8), path, dynamo=False, opset_version=13)
    found = import_ann(path)
    assert np.isfinite(found.max_abs_error)
    check(model, found, (2, 8, 8))
