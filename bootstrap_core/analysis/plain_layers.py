"""A network as plain torch layers, stepped through time: what tools that hook `nn.Linear` and `nn.Conv2d` can measure.

It gives the same spikes as the engines, but slowly. Weights are 8-bit integers, so that tools see the memory that the
hardware needs.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import repeat
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrap_core.data.splits import time_first
from bootstrap_core.fixed_point import DECAY_ONE, MANT, WEIGHT_STEP
from bootstrap_core.functional.convolution import conv2d
from bootstrap_core.network.base_block import SynapticBlock, as_spikes
from bootstrap_core.network.blocks import AffineBlock, AverageBlock, FlattenBlock, InputBlock, SpikingBlock
from bootstrap_core.network.inputs import as_input, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, walk
from bootstrap_core.network.synapse import Synapse
from bootstrap_core.ops.neurons import NeuronConstants
from bootstrap_core.ops.spikes import Spikes
from specs.errors import UnsupportedError
from specs.layers.block import ConvSpec


class Dense(nn.Linear):
    """Dense layer whose weight is int8, in steps of 2/64; it sums in the type of its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = _steps(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted input `[N, out]`, in steps of 2/64."""
        return F.linear(x, self.weight.to(x.dtype))


class Conv(nn.Conv2d):
    """Convolution whose weight is int8, in steps of 2/64; it may pad each side differently."""

    def __init__(self, weight: Tensor, geometry: ConvSpec) -> None:
        channels, each = weight.shape[:2]
        groups = geometry.groups
        super().__init__(each * groups, channels, geometry.kernel, groups=groups, bias=False, device="meta")
        self.weight, self.geometry = _steps(weight), geometry

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted input `[N, out, H, W]`, in steps of 2/64."""
        return conv2d(x, self.weight.to(x.dtype), self.geometry)


class Neurons(nn.Module):
    """CUBA neurons, one time step at a time; buffers hold their constants as the hardware does.

    Attributes:
        counts: number of spikes that left each neuron, since the module was made.
    """

    bias: Tensor | None
    current_decay: Tensor
    voltage_decay: Tensor
    threshold: Tensor

    def __init__(self, constants: NeuronConstants) -> None:
        super().__init__()
        self.register_buffer("bias", None if constants.bias is None else _mants(constants.bias))
        self.register_buffer("current_decay", (constants.current_decay * DECAY_ONE).round().short())
        self.register_buffer("voltage_decay", (constants.voltage_decay * DECAY_ONE).round().short())
        self.register_buffer("threshold", torch.tensor(round(constants.threshold * MANT), dtype=torch.int32))
        self._constants = replace(constants, recurrent=None)  # a layer of its own weighs recurrent spikes
        self.counts: Tensor | float = 0.0
        self.reset()

    def reset(self) -> None:
        """Put the neurons at rest, for the next inputs."""
        self._steps: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
        self.fired: Tensor | None = None
        """Spikes of the step before; None in the first step."""

    def forward(self, z: Tensor) -> Tensor:
        """Return the spikes `[N, ...]` that leave in this step, 0 or 1 in float64, for the weighted input."""
        self._z = z
        if self._steps is None:
            constants = replace(
                self._constants,
                bias=None if self.bias is None else self.bias / MANT,
                current_decay=self.current_decay / DECAY_ONE,
                voltage_decay=self.voltage_decay / DECAY_ONE,
                threshold=self.threshold.item() / MANT,
            )
            self._steps = constants.states((self._z for _ in repeat(None)), z.dim())
        before, fired = self.fired, next(self._steps)[2].double()
        self.fired = fired
        leaving = (torch.zeros_like(fired) if before is None else before) if self._constants.shift else fired
        self.counts = self.counts + leaving.sum(0)
        return leaving


class PlainBlock(nn.Module):
    """Block as plain layers: its synapses, those of its skips, its recurrent ones, and its neurons."""

    def __init__(self, block: SynapticBlock) -> None:
        super().__init__()
        weighing = [_layer(synapse, weight) for synapse, weight in block.synapses()]
        self.recurrent = weighing.pop() if isinstance(block, SpikingBlock) and block.recurrent is not None else None
        self.synapses = nn.ModuleList(weighing)
        self.neurons = Neurons(block.constants()) if isinstance(block, SpikingBlock) else None
        bias = None if self.neurons is not None else block.quantized_bias()
        self.register_buffer("bias", None if bias is None else _mants(bias))  # for its memory: `logits_of` adds it

    def forward(self, *read: Tensor) -> Tensor:
        """Return the spikes of this step; of a readout, its weighted input."""
        z = reduce(add, (_weigh(layer, x) for layer, x in zip(self.synapses, read, strict=True)))
        if self.neurons is None:
            return z
        if self.recurrent is not None:
            fired = self.neurons.fired
            z = z + _weigh(self.recurrent, torch.zeros_like(z) if fired is None else fired)
        spikes: Tensor = self.neurons(z)
        return spikes


class PlainNetwork(nn.Module):
    """Network of plain layers. `forward(images)` returns logits `[N, classes]`, as `Network` does.

    Events are `[N, T, ...]`, images first, as loaders give them.

    Raises `UnsupportedError` if the network gives no classes, or has delays.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = [network.eval()]  # in a list, so that its tensors are no parameters of this module
        spec = network.spec
        problems = [spec.without_classes] if spec.without_classes else []
        for i in range(len(network.blocks)):
            if getattr(network.block(i), "delay", None) is not None:
                problems.append(f"{spec.title_of(i)} has delays")
        if problems:
            raise UnsupportedError(f"{spec.name}: {'; '.join(problems)}: plain layers hold networks of classes alone")
        blocks = map(network.block, range(len(network.blocks)))
        self.blocks = nn.ModuleList(self._plain(block) for block in blocks)

    @staticmethod
    def _plain(block: nn.Module) -> nn.Module:
        match block:
            case InputBlock():
                return Neurons(block.constants())
            case SynapticBlock():
                return PlainBlock(block)
            case FlattenBlock():
                return nn.Flatten()
        return nn.Identity()

    @property
    def counts(self) -> dict[int, Tensor]:
        """Number of spikes of each neuron in all runs, by block, of blocks with neurons."""
        found = {}
        for i, block in enumerate(self.blocks):
            neurons = getattr(block, "neurons", block)
            if isinstance(neurons, Neurons):
                found[i] = torch.as_tensor(neurons.counts)
        return found

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Run all time steps from rest and return the logits."""
        (network,) = self._network
        spec, first, readout = network.spec, network.block(0), network.readout
        for module in self.modules():
            if isinstance(module, Neurons):
                module.reset()
        given = as_input(time_first(images), spec)
        steps = count_steps(spec, None, given)
        if isinstance(first, InputBlock):
            entering = first.current(given)[None].expand(steps, *given.shape)
        else:
            entering = as_spikes(first(given, Mode.SNN, steps)).tensor()
        outputs = []
        for step in entering.double():
            *_, output = walk(spec.sources, step, lambda i, read: self.blocks[i](*read))
            outputs.append(output)
        if isinstance(readout, AffineBlock):
            if readout.reads_last:
                return readout.logits_of(outputs[-1], 1)
            return readout.logits_of(reduce(add, outputs), steps)
        spikes = Spikes.of(torch.stack(outputs).float())
        return network.answer(readout(spikes, Mode.SNN, steps) if isinstance(readout, AverageBlock) else spikes)


def _mants(bias: Tensor) -> Tensor:
    return (bias.detach() * MANT).round().short()


def _steps(weight: Tensor) -> nn.Parameter:
    return nn.Parameter((weight.detach() / WEIGHT_STEP).round().to(torch.int8), requires_grad=False)


def _layer(synapse: Synapse, weight: Tensor) -> Dense | Conv:
    if synapse.spec is None:
        return Dense(weight)
    if weight.dim() == 1:  # from each neuron to the one at the same place
        weight = weight.reshape(-1, 1, 1, 1)
    return Conv(weight, synapse.spec)


def _weigh(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the weighted input `[N, ...]` in float units."""
    if isinstance(layer, Conv):
        is_flat = x.dim() == 2
        z: Tensor = layer(x[..., None, None] if is_flat else x)
        z = z.flatten(1) if is_flat else z
    else:
        z = layer(x.flatten(1))
    return z * WEIGHT_STEP
