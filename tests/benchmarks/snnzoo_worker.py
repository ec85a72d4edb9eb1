"""Run snnzoo for the benchmarks, which start this file as a worker."""

from importlib.metadata import version
from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F
from workload import THRESHOLD, VOLTAGE_DECAY, input_shape, load_images, load_weights, serve

from bootstrap_core import IntegerNetwork, Mode, build_network, fit
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Split
from bootstrap_core.network.blocks import AffineBlock, InputBlock, SpikingBlock
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.ops.library import describe
from bootstrap_core.training.trainer import Trainer
from specs import NetworkSpec
from specs.dataset_sources import SAMPLE_NAME
from specs.training import AugmentSpec, TrainingSpec

RECIPE = TrainingSpec(epochs=50, batch_size=256, learning_rate=4e-3, augment=AugmentSpec())
"""Recipe like the tutorial's; without the teacher and the long training with which `mnist-dense.yaml` gains tenths."""
EVENT_STEPS = 64
KINDS = {"conv": ("channels", "kernel", "stride"), "dense": ("features",), "affine": ("features",)}


def make_spec(request):
    """Return the spec of a request's layers: weight norm as in the tutorial, no dropout as in the other programs."""
    blocks = []
    for kind, *values in request["layers"]:
        if kind == "dense" and blocks and blocks[-1]["kind"] == "conv":
            blocks.append({"kind": "flatten"})
        blocks.append({"kind": kind, "weight_norm": True, **dict(zip(KINDS[kind], values, strict=True))})
    given = (
        {"encoding": request["encoding"], "bits": request["bits"]}
        if "encoding" in request
        else {"mean": 0.5, "std": 0.5}
    )
    neuron = {"threshold": THRESHOLD, "current_decay": 1.0, "voltage_decay": VOLTAGE_DECAY, "tau_grad": 0.1}
    return {
        "name": "bench",
        "time_steps": request["time_steps"],
        "neuron": neuron,
        "input": {"shape": input_shape(request["layers"]), **given},
        "blocks": blocks,
    }


class Program:
    """A network with the weights of the request's file."""

    bootstrap = True

    def __init__(self, request):
        self.network = build_network(NetworkSpec.model_validate(make_spec(request)), seed=0)
        self.parameters, self.train = self.network.parameters, self.network.train
        weights, (gain, offset) = load_weights(request)
        blocks = synaptic(self.network)
        with torch.no_grad():
            first = self.network.blocks[0]
            if isinstance(first, InputBlock):
                first.weight.fill_(gain)
                first.bias.fill_(offset)
            for weight, block in zip(weights or [], blocks, strict=bool(weights)):
                block.synapse.weight = weight

    def logits(self, images, mode):
        return self.network(images, Mode(mode))

    def inference(self):
        return IntegerNetwork(self.network)

    def stepper(self, images):
        stream = IntegerNetwork(self.network).stream()
        if not self.network.spec.input.is_events:
            return lambda: stream.step(images)
        events = cycle(torch.rand(EVENT_STEPS, *images.shape) < images / 2)  # spikes, more often for bright pixels
        return lambda: stream.step(next(events))

    def optimizer(self):
        return Trainer(self.network, some_images(10), TrainingSpec(validation=1)).optimizer

    def samplers(self):
        return [module for module in self.network.modules() if isinstance(module, RateSampler)]

    def forget_samples(self):
        for sampler in self.samplers():
            sampler.clear()

    def work(self, name, images):
        if name == "fit":
            for _ in range(5):
                self.logits(images, "sample")
            samplers = self.samplers()
            return lambda: [sampler.fit() for sampler in samplers], len(samplers)
        return {"epoch": epoch, "epoch_steps": epoch_steps}[name]()


def synaptic(network):
    """Return the blocks that have weights."""
    return [block for block in network.blocks if isinstance(block, SpikingBlock | AffineBlock)]


def some_images(n):
    """Return `n` training images: digits of the sample, repeated."""
    split = load_dataset(SAMPLE_NAME).train
    chosen = torch.arange(n) % len(split)
    return Split(split.images[chosen], split.labels[chosen])


def epoch_trainer():
    """Return a trainer of mnist-dense with `RECIPE`, on 60,000 images as in MNIST, after SAMPLE and FIT."""
    from specs import load_spec

    trainer = Trainer(build_network(load_spec("mnist-dense"), seed=0), some_images(60_000), RECIPE)
    with torch.no_grad():
        for images in islice(trainer.training.images.split(trainer.recipe.batch_size), 10):
            trainer.network(images, Mode.SAMPLE)
        trainer.network(images, Mode.FIT)
    return trainer


def epoch():
    """Return a call that runs an epoch with augmentation and scoring, and without SAMPLE, as 9 of 10 epochs are."""
    trainer = epoch_trainer()
    first = [trainer.run_epoch()]

    def run():
        trainer.reports = first[:]
        trainer.run_epoch()

    return run, 1


def epoch_steps():
    """Return a call that runs the training steps of an epoch, all on one prepared batch."""
    trainer = epoch_trainer()
    size = trainer.recipe.batch_size
    images, labels = trainer.training.images[:size].float() / 255, trainer.training.labels[:size]
    trainer.network.train()

    def run():
        for _ in range(trainer.n_batches):
            loss = F.cross_entropy(trainer.network(images, Mode.ANN), labels)
            trainer.optimizer.zero_grad()
            loss.backward()
            trainer.optimizer.step()

    return run, 1


def train(request):
    """Train the network of a request briefly, write its quantised weights to `path`, and return its mean rates."""
    network = build_network(NetworkSpec.model_validate(make_spec(request)), seed=0)
    recipe = TrainingSpec(epochs=8, batch_size=100, validation=200, learning_rate=3e-3, sample_period=2)
    fit(network, load_dataset(SAMPLE_NAME).train, recipe)
    save_weights(network, request["path"])
    images, _ = load_images(request)
    with torch.no_grad():
        _, trace = network.eval().run(images, Mode.SNN)
    return {"rates": [round(float(rate.mean()), 3) for rate in trace.rates[:-1]]}


def save_weights(network, path):
    """Write the weights on the grid of the hardware, and the gain and offset of the input."""
    first = network.blocks[0]
    assert isinstance(first, InputBlock)
    with torch.no_grad():
        weights = {f"weight{i}": block.quantized_weight().numpy() for i, block in enumerate(synaptic(network))}
        gain, offset = (torch.round(x * 32) / 32 for x in (first.weight, first.bias))  # the grid of 2/64
        np.savez(path, gain=gain.item(), offset=offset.item(), **weights)


if __name__ == "__main__":
    serve(Program, train=train, version=version("snnzoo"), kernel=describe())
