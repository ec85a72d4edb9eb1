"""Run lava-dl for the benchmarks, under a Python that has it: bootstrap blocks as in its tutorial.

Time is the last axis; ANN mode has one time step. Each block delays its spikes by one step, so outputs differ a little
from those of the other programs; the work is the same. `Tutorial` is the training of its notebook, for
`bench_accuracy.py`.
"""

import time
import warnings
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from workload import THRESHOLD, VOLTAGE_DECAY, dense, load_weights, make_synapses, serve

NEURON = {"threshold": THRESHOLD, "current_decay": 1, "voltage_decay": VOLTAGE_DECAY, "tau_grad": 0.1, "scale_grad": 1}
SYNAPSE = {"weight_norm": True, "weight_scale": 2}


class Program:
    """The network with the weights of the request's file."""

    bootstrap = True

    def __init__(self, request):
        import lava.lib.dl.bootstrap as bootstrap

        weights, (gain, offset) = load_weights(request)
        self.modes, self.steps = bootstrap.Mode, request["time_steps"]
        self.blocks = torch.nn.ModuleList(make_blocks(request["layers"], bootstrap.block.cuba, gain, offset))
        self.parameters, self.train = self.blocks.parameters, self.blocks.train
        synaptic = [block for block in self.blocks if getattr(block, "synapse", None) is not None]
        with torch.no_grad():
            for weight, block in zip(weights or [], synaptic, strict=bool(weights)):
                held = block.synapse.weight_v
                held.copy_(weight.reshape(held.shape))
                block.synapse.weight_g.copy_(held.flatten(1).norm(dim=1).reshape(block.synapse.weight_g.shape))

    def logits(self, images, mode):
        mode = self.modes[mode.upper()]
        steps = self.steps if mode in (self.modes.SAMPLE, self.modes.SNN) else 1
        x = ((images - 0.5) / 0.5).unsqueeze(-1)
        x = x.repeat(*[1] * images.dim(), steps)  # [N, ..., T]
        for block in self.blocks:
            x = block(x, mode=mode)
        return x.mean(-1).flatten(1)  # [N, 10, 1, 1, T] -> [N, 10]

    def samplers(self):
        return [block.f for block in self.blocks[:-1] if getattr(block, "f", None) is not None]

    def forget_samples(self):
        for sampler in self.samplers():
            sampler.clear()

    def work(self, name, images):
        """Return a call that runs FIT alone; it keeps the sampled points, so that every call fits the same number."""
        assert name == "fit"
        for _ in range(5):
            self.logits(images, "sample")
        samplers = [sampler for sampler in self.samplers() if len(sampler.z)]
        return lambda: [sampler.fit() for sampler in samplers], len(samplers)


def make_blocks(layers, blocks, gain, offset, neuron=NEURON):
    """Yield the input block, the layers, and a flatten where a dense layer follows a convolution."""
    yield blocks.Input(neuron, weight=gain, bias=offset)
    before, sizes = None, [next(s.parameters()).shape[1] for s in make_synapses(layers)]
    for (kind, features, *options), inputs in zip(layers, sizes, strict=True):
        if kind == "conv":
            kernel, stride = options
            yield blocks.Conv(neuron, inputs, features, kernel, stride=stride, **SYNAPSE)
        else:
            if before == "conv":
                yield blocks.Flatten()
            block = blocks.Dense if kind == "dense" else blocks.Affine
            yield block(neuron, inputs, features, **SYNAPSE)
        before = kind


class Tutorial:
    """lava-dl's notebook `tutorials/lava/lib/dl/bootstrap/mnist/train.ipynb`, run epoch by epoch."""

    def __init__(self, request):
        import lava.lib.dl.bootstrap as bootstrap
        from torchvision import transforms

        torch.manual_seed(request["seed"])
        neuron = {**NEURON, "tau_grad": 1}
        blocks = make_blocks(dense(), bootstrap.block.cuba, 1, 0, neuron)
        self.blocks, self.modes = torch.nn.ModuleList(blocks), bootstrap.Mode
        self.scheduler = bootstrap.routine.Scheduler()
        self.optimizer = torch.optim.Adam(self.blocks.parameters(), lr=0.001)
        scale = [transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
        augment = transforms.RandomAffine(degrees=10, translate=(0.05, 0.05), scale=(0.95, 1.05), shear=5)
        with np.load(request["path"]) as arrays:
            parts = [(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "validation")]
        self.loaders = [
            torch.utils.data.DataLoader(Images(*part, transforms.Compose(steps)), batch_size=32, shuffle=True)
            for part, steps in zip(parts, ([augment, *scale], scale), strict=True)
        ]
        self.epoch, self.wall, self.cpu = 0, 0.0, 0.0

    def forward(self, images, mode):
        x = images.flatten(1).unsqueeze(-1).repeat(1, 1, 1 if mode.base_mode == self.modes.ANN else 16)
        for block, block_mode in zip(self.blocks, mode, strict=False):  # the iterator of modes is endless
            x = block(x, mode=block_mode)
        return x.mean(-1).reshape(len(images), -1)

    def run_epoch(self):
        """Train for an epoch; return the seconds since the start, and the accuracy as SNN."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.blocks.train()
        for i, (images, labels) in enumerate(self.loaders[0]):
            loss = F.cross_entropy(self.forward(images, self.scheduler.mode(self.epoch, i, True)), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.blocks.eval()
        n_correct = 0
        with torch.no_grad():
            for images, labels in self.loaders[1]:
                logits = self.forward(images, self.scheduler.mode(0, 0, False))  # the scheduler scores epoch 0 as SNN
                n_correct += int((logits.argmax(1) == labels).sum())
        self.epoch += 1
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return {"wall": self.wall, "cpu": self.cpu, "accuracy": n_correct / len(self.loaders[1].dataset)}


class Images(torch.utils.data.Dataset):
    """Pairs of a transformed PIL image and its label, as in torchvision's MNIST."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(Program, tutorial=Tutorial, version=version("lava-dl"))
