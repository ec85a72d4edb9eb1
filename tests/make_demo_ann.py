"""Train the ANN of `zoo demo` and write zoo/examples/mnist-relu.onnx: `python tests/make_demo_ann.py DATA_DIR`.

A ReLU network, 784-96-10, trained on MNIST with torch. Its normalisation is part of the graph, as exporters write it.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bootstrap_core.data.datasets import load_dataset

SEED, EPOCHS, BATCH, HIDDEN = 0, 6, 128, 96
MEAN, STD = 0.1307, 0.3081
TARGET = Path(__file__).parents[1] / "zoo" / "examples" / "mnist-relu.onnx"


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """Train a ReLU network on images `[N, 1, 28, 28]` in 0..1."""
    torch.manual_seed(SEED)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(net((images[chosen] - MEAN) / STD), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


def as_onnx(net: nn.Sequential) -> onnx.ModelProto:
    """Return the network as an ONNX model: Sub, Div, Flatten, Gemm, Relu, Gemm."""
    constants = {"mean": np.float32(MEAN), "std": np.float32(STD)}
    constants |= {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    nodes = [
        helper.make_node("Sub", ["images", "mean"], ["centred"], "normalise_mean"),
        helper.make_node("Div", ["centred", "std"], ["normalised"], "normalise_std"),
        helper.make_node("Flatten", ["normalised"], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "1.weight", "1.bias"], ["hidden"], "hidden", transB=1),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("Gemm", ["active", "3.weight", "3.bias"], ["logits"], "readout", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mnist-relu",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="snnzoo")


def main(data_dir: Path, target: Path = TARGET) -> None:
    """Train the network and write its file."""
    mnist = load_dataset("mnist", data_dir=data_dir, offline=True)
    model = as_onnx(train(mnist.train.images.float() / 255, mnist.train.labels))
    onnx.checker.check_model(model, full_check=True)
    target.parent.mkdir(exist_ok=True)
    onnx.save(model, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
