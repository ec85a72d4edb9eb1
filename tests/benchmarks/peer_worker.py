"""Run another program for the benchmarks; `bench.py` starts this file under a Python that has the program.

    python peer_worker.py snntorch|norse|spikingjelly|sinabs|relu|products

All spiking programs run the same network: leaky input neurons, whose constant current is an affine map of the pixel
with two trainable numbers; then layers of synapses without bias and leaky neurons; then a linear readout, whose mean
over time is the logits. Neurons fire above 1.25, keep 0.97 of their voltage per step and are reset to zero. Each
program is used as its documentation recommends for speed. The inputs of all steps of a layer are multiplied in one
product where that is faster:

- snntorch: `Leaky` in a loop over time, with its default arctan surrogate. Its reset comes one step late, before the
  leak; for a reset to zero the spikes are the same.
- norse: `LIFBoxCell` in a loop over time, with its default SuperSpike surrogate. Where there is a C++ compiler its step
  is compiled by `torch.compile`, as its release notes advise; not for measurements of memory, as the compiler itself
  takes some. It multiplies its input by the decay (0.03), so the threshold is 0.03 times ours.
- spikingjelly: `LIFNode` in multi-step mode, arctan surrogate, reset detached; it chooses its CPU code by itself.
- sinabs: `LIF`, `SingleSpike`, `MembraneReset`, one step at a time, which is faster in training than its [N, T] layout.
  For single images the [N, T] layout is used: it is three times as fast.

`relu` is the network of the same shape with ReLU in place of neurons, without time. `products` runs only the synapses,
on T * N inputs of zeros and ones: the least work of any float program.
"""

import math
import shutil
import sys
import warnings
from importlib.metadata import version

import numpy as np
import torch
from torch import nn
from workload import THRESHOLD, VOLTAGE_DECAY, input_shape, load_weights, make_synapses, serve

TOOL = sys.argv[1] if len(sys.argv) > 1 else ""
ABOVE = float(np.nextafter(np.float32(THRESHOLD), np.float32(2)))
"""Threshold for programs that fire at `v >= threshold`: the next float32 above ours."""


class SpikingNetwork(nn.Module):
    """The network for neurons that map `[T, N, ...]` to `[T, N, ...]`; `stepwise` runs one step after another."""

    stepwise = False

    def __init__(self, request):
        super().__init__()
        self.steps = request["time_steps"]
        self.synapses = nn.ModuleList(make_synapses(request["layers"]))
        weights, (gain, offset) = load_weights(request)
        for weight, synapse in zip(weights or [], self.synapses, strict=bool(weights)):
            next(synapse.parameters()).data = weight
        self.gain, self.offset = nn.Parameter(torch.tensor(gain)), nn.Parameter(torch.tensor(offset))
        self.neurons = nn.ModuleList([self.make_neuron() for _ in self.synapses])
        self.prepare(request)

    def logits(self, images, mode):
        current = self.gain * ((images - 0.5) / 0.5) + self.offset
        self.forget()
        if self.stepwise:
            return sum(self.layers(current[None]) for _ in range(self.steps)) / self.steps
        return self.layers(current.expand(self.steps, *current.shape))

    def stepper(self, images):
        current, total, steps = self.gain * ((images - 0.5) / 0.5) + self.offset, 0, 0
        states = [self.rest(neuron) for neuron in self.neurons]

        def step():
            nonlocal total, steps
            z = current
            for i, (neuron, synapse) in enumerate(zip(self.neurons, self.synapses, strict=True)):
                spikes, states[i] = neuron(z, states[i])
                z = synapse(spikes)
            total, steps = total + z, steps + 1
            return total / steps

        return step

    def rest(self, neuron):
        """Return the state of neurons at rest, for programs whose neurons are called with z and state."""

    def layers(self, z):
        """Return the mean of the readout over time, for currents `[T, N, ...]`."""
        for neuron, synapse in zip(self.neurons, self.synapses, strict=True):
            spikes = self.fire(neuron, z)
            z = synapse(spikes.flatten(0, 1))  # [T * N, ...]
            z = z.reshape(*spikes.shape[:2], *z.shape[1:])
        return z.mean(0)

    def prepare(self, request):
        """Prepare the network once, before any work."""

    def forget(self):
        """Reset the neurons before each batch."""


def snntorch_network():
    import snntorch

    class Network(SpikingNetwork):
        def make_neuron(self):
            return snntorch.Leaky(beta=1 - VOLTAGE_DECAY, threshold=THRESHOLD, reset_mechanism="zero")

        def rest(self, neuron):
            return neuron.reset_mem()

        def fire(self, neuron, z):
            spikes, voltage = [], self.rest(neuron)
            for step in z:
                spike, voltage = neuron(step, voltage)
                spikes.append(spike)
            return torch.stack(spikes)

    return Network


def norse_network():
    import norse.torch as norse
    from norse.torch.functional.lif_box import lif_box_feed_forward_step

    torch._dynamo.config.recompile_limit = 64  # one for each shape, with and without state and gradients
    decay, step = torch.tensor(VOLTAGE_DECAY), torch.compile(lif_box_feed_forward_step, dynamic=False)

    class Network(SpikingNetwork):
        def make_neuron(self):
            return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=decay, v_th=THRESHOLD * decay), dt=1.0)

        def prepare(self, request):
            if shutil.which("c++") and "batches" not in request:
                for neuron in self.neurons:
                    neuron.activation = step

        def fire(self, neuron, z):
            spikes, state = [], None
            for step in z:
                spike, state = neuron(step, state)
                spikes.append(spike)
            return torch.stack(spikes)

    return Network


def spikingjelly_network():
    from spikingjelly.activation_based import functional, neuron, surrogate

    class Network(SpikingNetwork):
        def make_neuron(self):
            return neuron.LIFNode(
                tau=1 / VOLTAGE_DECAY,
                decay_input=False,
                v_threshold=ABOVE,
                v_reset=0.0,
                surrogate_function=surrogate.ATan(),
                detach_reset=True,
                step_mode="m",
            )

        def fire(self, neuron, z):
            return neuron(z)

        def forget(self):
            functional.reset_net(self)

    return Network


def sinabs_network():
    import sinabs.activation as activation
    from sinabs.layers import LIF

    class Network(SpikingNetwork):
        def prepare(self, request):
            self.stepwise = request["work"] != "one"
            for neuron in self.neurons:
                neuron.requires_grad_(False)  # the time constant: other programs do not train theirs

        def make_neuron(self):
            return LIF(
                tau_mem=-1 / math.log(1 - VOLTAGE_DECAY),
                spike_threshold=torch.tensor(ABOVE),
                spike_fn=activation.SingleSpike,
                reset_fn=activation.MembraneReset(),
                norm_input=False,
            )

        def fire(self, neuron, z):
            return neuron(z.transpose(0, 1)).transpose(0, 1)  # [1, N, ...] as its [N, 1, ...]

        def forget(self):
            for neuron in self.neurons:
                neuron.reset_states()

    return Network


class ReluNetwork(nn.Sequential):
    """A ReLU network of the same shape."""

    def __init__(self, request):
        *hidden, readout = make_synapses(request["layers"])
        super().__init__(*(module for synapse in hidden for module in (synapse, nn.ReLU())), readout)

    def logits(self, images, mode):
        return self(images)


class Products(nn.Module):
    """The matrix products or convolutions of T steps alone; each layer has its own random input."""

    def __init__(self, request):
        super().__init__()
        self.synapses, x = make_synapses(request["layers"]), torch.zeros(1, *input_shape(request["layers"]))
        self.inputs = []
        for synapse in self.synapses:
            self.inputs.append((torch.rand(request["time_steps"] * request["batch"], *x.shape[1:]) < 0.25).float())
            x = synapse(x)

    def inference(self):
        return lambda images: [synapse(x) for synapse, x in zip(self.synapses, self.inputs, strict=True)][-1]

    def work(self, name, images):
        """Return a call that runs the products of a training step: forward, gradients of weights and of inputs."""
        inputs = [x.requires_grad_() for x in self.inputs]
        with torch.no_grad():
            grads = [torch.rand_like(synapse(x)) for synapse, x in zip(self.synapses, inputs, strict=True)]

        def step():
            for synapse, x, grad in zip(self.synapses, inputs, grads, strict=True):
                torch.autograd.grad(synapse(x), [x, *synapse.parameters()], grad)

        return step, 1


def main():
    warnings.simplefilter("ignore")
    if TOOL in ("relu", "products"):
        serve({"relu": ReluNetwork, "products": Products}[TOOL])
    else:
        makers = {
            "snntorch": snntorch_network,
            "norse": norse_network,
            "spikingjelly": spikingjelly_network,
            "sinabs": sinabs_network,
        }
        serve(makers[TOOL](), version=version(TOOL))


if __name__ == "__main__":
    main()
