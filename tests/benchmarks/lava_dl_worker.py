"""Run lava-dl for the benchmarks, under a Python that has it: bootstrap blocks as in its tutorial.

Time is the last axis; ANN mode has one time step. Each block delays its spikes by one step, so outputs differ a little
from those of the other programs; the work is the same.
"""

import warnings
from importlib.metadata import version

import torch
from workload import THRESHOLD, VOLTAGE_DECAY, load_weights, make_synapses, serve

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


def make_blocks(layers, blocks, gain, offset):
    """Yield the input block, the layers, and a flatten where a dense layer follows a convolution."""
    yield blocks.Input(NEURON, weight=gain, bias=offset)
    before, sizes = None, [next(s.parameters()).shape[1] for s in make_synapses(layers)]
    for (kind, features, *options), inputs in zip(layers, sizes, strict=True):
        if kind == "conv":
            kernel, stride = options
            yield blocks.Conv(NEURON, inputs, features, kernel, stride=stride, **SYNAPSE)
        else:
            if before == "conv":
                yield blocks.Flatten()
            block = blocks.Dense if kind == "dense" else blocks.Affine
            yield block(NEURON, inputs, features, **SYNAPSE)
        before = kind


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(Program, version=version("lava-dl"))
