"""Synapses: dense, convolutional and pooling, with quantised weights that rates and spikes share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bootstrap_core.fixed_point import WEIGHT_INT_MAX, WEIGHT_STEP
from bootstrap_core.functional.convolution import conv2d, padded
from bootstrap_core.ops.products import convolve, linear
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weight_grid import quantize_weight
from specs.fields import Shape
from specs.layers.block import ConvSpec


class Synapse(nn.Module):
    """Base of all synapses. `forward(x, scale)` returns the weighted input of rates, in their dtype.

    `spec` is the geometry of a convolution, or None for dense synapses.
    """

    weight: Tensor
    spec: ConvSpec | None
    is_learned = True
    """True if the weight is trainable, directly or through weight norm."""

    def quantized_weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """Return the weight times `scale` on its grid, of the shape of `weight`."""
        weight = self.weight
        return quantize_weight(weight if isinstance(scale, float) and scale == 1 else weight * scale)

    def connection(self, scale: Tensor | float = 1.0) -> Connection:
        """Return the synapses as operators take them."""
        return Connection(self.quantized_weight(scale), self.spec)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted input of one input `x`, without a batch axis, for other weights of the same shape."""
        assert self.spec is not None
        return conv2d(x[None], weight, self.spec)[0]


class DenseSynapse(Synapse):
    """`z = x W^T`, `[N, inputs]` to `[N, outputs]`; `weight` is `[outputs, inputs]`.

    The last `n_axes` of its input are flattened. `generator` draws the weights; by default torch's global one does.
    """

    spec = None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        normalize: bool,
        n_axes: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_axes = n_axes
        self.weight = _initial_weight((outputs, inputs), generator)
        if normalize:
            weight_norm(self)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return linear(x.flatten(-self.n_axes), self.quantized_weight(scale).to(x.dtype))

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x.flatten(), weight)


class ConvSynapse(Synapse):
    """2-D cross-correlation, `[N, C, H, W]`; `weight` is `[channels, C / groups, kernel height, kernel width]`.

    `generator` draws the weights; by default torch's global one does.
    """

    spec: ConvSpec

    def __init__(
        self, spec: ConvSpec, in_channels: int, *, normalize: bool, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.weight = _initial_weight((spec.channels, in_channels // spec.groups, *spec.kernel), generator)
        if normalize:
            weight_norm(self)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return convolve(x, self.quantized_weight(scale).to(x.dtype), self.spec)


class PoolSynapse(Synapse):
    """Average pool of `[N, C, H, W]` as a grouped convolution with one fixed weight.

    `weight` is `[C, 1, kernel height, kernel width]`, with the same number everywhere; exports write it so.
    """

    spec: ConvSpec
    is_learned = False

    def __init__(self, spec: ConvSpec, weight: float) -> None:
        super().__init__()
        self.spec = spec
        value = quantize_weight(torch.tensor(weight))
        self.register_buffer("weight", value.repeat(spec.channels, 1, *spec.kernel), persistent=False)

    def quantized_weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """Return the weight, `[C, 1, kernel height, kernel width]`."""
        return self.weight

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return the weighted input of rates: the sum under the kernel times the weight."""
        # padding before: avg_pool2d takes at most half the kernel
        total = F.avg_pool2d(padded(x, self.spec.padding), self.spec.kernel, self.spec.stride, divisor_override=1)
        return total * self.weight[0, 0, 0, 0].to(x.dtype)


class IdentitySynapse(Synapse):
    """Synapses from each neuron to the one at the same place, `[N, C]` or `[N, C, H, W]`; `weight` is `[C]`.

    With the initial weight, a rate or an activation is passed on as it is: of spikes, it is the threshold of the
    neurons behind, and of messages 1.
    """

    def __init__(self, shape: Shape, weight: float) -> None:
        super().__init__()
        self.broadcast = (shape[0], *[1] * (len(shape) - 1))
        self.spec = ConvSpec(channels=shape[0], kernel=(1, 1), groups=shape[0])
        self.weight = nn.Parameter(torch.full((shape[0],), min(weight, WEIGHT_INT_MAX * WEIGHT_STEP)))

    def connection(self, scale: Tensor | float = 1.0) -> Connection:
        """Return the synapses as operators take them: a convolution of kernel 1 with a group for each channel."""
        return Connection(self.quantized_weight(scale).reshape(-1, 1, 1, 1), self.spec)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return x * self.quantized_weight(scale).to(x.dtype).reshape(self.broadcast)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight.reshape(self.broadcast)


def _initial_weight(shape: tuple[int, ...], generator: torch.Generator | None) -> nn.Parameter:
    """Draw a weight as `nn.Linear` and `nn.Conv2d` do, which take no generator."""
    return nn.Parameter(nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=generator))
