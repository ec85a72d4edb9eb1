"""Train small classifiers of colour images, deep or graphs, in torch, and write them as ONNX files by both exporters.

    python tests/benchmarks/train_graphs.py [NAME ...] --folder DIR [--data-dir DIR]

`mobilenet`, `densenet` and `inception` have the parts of MobileNetV2, DenseNet and Inception, and fewer than 300,000
parameters. `resnet20` is the ResNet-20 of the residual paper, whose shortcuts have no parameters (He et al. 2016,
option A); `vgg` has nine convolutions with norms, and max pools. Epochs and rates are fixed; the test images are
scored once, at the end. The files are for `bench_deep.py`. The newer exporter of torch
needs `pip install onnxscript`.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.data.splits import Split

EPOCHS = {"mobilenet": 10, "densenet": 10, "inception": 10, "resnet20": 30, "vgg": 30}
"""Epochs of training of each network."""
BATCH, RATE, DECAY, MOST_SHIFT, SEED = 128, 4e-3, 0.02, 4, 0
PLAIN = {"dynamo": False, "verbose": False}
"""Options of `torch.onnx.export` for the older exporter."""


def conv(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, linear: bool = False
) -> nn.Module:
    """Return a convolution with norm, and with a ReLU6 unless it is linear."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([] if linear else [nn.ReLU6()]))


class Bottleneck(nn.Module):
    """Inverted residual block: wide depthwise convolution between two narrow, linear outputs."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, factor: int = 4) -> None:
        super().__init__()
        wide = factor * inputs
        self.layers = nn.Sequential(
            conv(inputs, wide, 1), conv(wide, wide, stride=stride, groups=wide), conv(wide, outputs, 1, linear=True)
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.is_residual else y


class Growing(nn.Module):
    """Layer of a dense block: norm, ReLU and convolution, whose outputs are appended to its inputs."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Branches(nn.Module):
    """Inception module: four branches side by side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        part = outputs // 4
        self.branches = nn.ModuleList([
            conv(inputs, part, 1),
            nn.Sequential(conv(inputs, part, 1), conv(part, part)),
            nn.Sequential(conv(inputs, part, 1), conv(part, part), conv(part, part)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, part, 1)),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Residual(nn.Module):
    """Two convolutions and a shortcut, which takes every second place and appends channels of zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.more = outputs // inputs, outputs - inputs
        self.layers = nn.Sequential(conv(inputs, outputs, stride=self.stride), conv(outputs, outputs, linear=True))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(self.layers(x) + shortcut)


def dense_block(inputs: int, growth: int, layers: int) -> Iterator[nn.Module]:
    """Yield the layers of a dense block, and a transition to half of its channels and sides."""
    for i in range(layers):
        yield Growing(inputs + i * growth, growth)
    channels = inputs + layers * growth
    yield nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2))


def head(inputs: int) -> Iterator[nn.Module]:
    """Yield a mean over all places and a readout."""
    yield from (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def network(name: str) -> nn.Module:
    """Return a network with random weights."""
    match name:
        case "mobilenet":
            sizes = [(24, 24, 1), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 48, 1), (48, 80, 1)]
            return nn.Sequential(
                conv(3, 24, stride=2), *(Bottleneck(*each) for each in sizes), conv(80, 240, 1), *head(240)
            )
        case "densenet":
            blocks = [*dense_block(24, 12, 4), *dense_block(36, 16, 4), *dense_block(50, 24, 5)]
            return nn.Sequential(conv(3, 24), nn.MaxPool2d(2), *blocks, conv(85, 160, 1), *head(160))
        case "resnet20":
            sizes = [(16, 16)] * 3 + [(16, 32)] + [(32, 32)] * 2 + [(32, 64)] + [(64, 64)] * 2
            return nn.Sequential(conv(3, 16), *(Residual(*each) for each in sizes), *head(64))
        case "vgg":
            channels = [32, 32, 0, 64, 64, 0, 128, 128, 128, 0, 192, 192]
            pairs = pairwise([3, *filter(None, channels)])
            layers = [conv(*next(pairs)) if each else nn.MaxPool2d(2) for each in channels]
            return nn.Sequential(*layers, *head(192))
        case _:
            modules = [Branches(32, 64), nn.MaxPool2d(2), Branches(64, 128), Branches(128, 128), nn.MaxPool2d(2)]
            return nn.Sequential(conv(3, 32), nn.MaxPool2d(2), *modules, Branches(128, 192), *head(192))


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images `[N, C, H, W]`, each mirrored with probability 1/2, all moved by the same few pixels."""
    is_mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    down, right = torch.randint(2 * MOST_SHIFT + 1, (2,), generator=generator).tolist()
    height, width = images.shape[2:]
    around = F.pad(torch.where(is_mirrored, images.flip(3), images), [MOST_SHIFT] * 4)
    return around[:, :, down : down + height, right : right + width]


def train(model: nn.Module, split: Split, epochs: int) -> None:
    """Train with the labels, AdamW, and one cycle of the learning rate."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    steps = epochs * -(-len(split) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    model.train().to(memory_format=torch.channels_last)
    for epoch in range(epochs):
        total = 0.0
        for indices in torch.randperm(len(split), generator=generator).split(BATCH):
            images, labels = split.images[indices].float() / 255, split.labels[indices]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(moved(images, generator).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss) * len(labels)
        print(f"epoch {epoch}: loss {total / len(split):.4f}", file=sys.stderr, flush=True)
    model.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Return the part of right answers, 0..1."""
    parts = zip(split.images[:].split(250), split.labels.split(250), strict=True)
    return sum(int((model(x.float() / 255).argmax(1) == y).sum()) for x, y in parts) / len(split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(EPOCHS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", default="cifar-10-jpeg")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    if unknown := set(given.names) - set(EPOCHS):
        parser.error(f"no network {', '.join(sorted(unknown))}: there are {', '.join(EPOCHS)}")
    data = DataPlaces(given.data_dir).load(given.data)
    for name in given.names:
        torch.manual_seed(SEED)
        model = network(name)
        print(f"{name}: {sum(x.numel() for x in model.parameters()):,} parameters", file=sys.stderr, flush=True)
        train(model, data.train, EPOCHS[name])
        example = torch.zeros(1, 3, 32, 32)
        torch.onnx.export(model, (example,), str(given.folder / f"{name}.onnx"), **PLAIN)
        torch.onnx.export(model, (example,), str(given.folder / f"{name}-dynamo.onnx"), dynamo=True)
        print(f"{name}: {accuracy(model, data.test):.2%} of the test images", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
