"""Batch norms that the hardware can represent: as a bias, as a power of two in the weights, or folded into both.

The chip can only subtract a fixed mean, so a mean-only norm subtracts the running mean in training too, with the
gradient of subtracting the batch's. lava-dl's gradient treats the mean as a constant: the optimiser raises a channel,
the norm lowers it again, and networks train badly.

A full batch norm normalises by the batch while it trains as ANN, as torch does. Spikes, exports and SNN epochs have the
running mean and deviation in weights and biases. Skips stay outside, so a residual stream keeps its scale.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrap_core.distributed import ALONE, Group
from specs.layers.block import Norm

MOMENTUM = 0.1
"""Weight of a batch in the running statistics."""
SPREAD = 0.5
"""Initial standard deviation of a channel's weighted input, in units of threshold times current decay."""
MAX_SHIFT = 3
"""Largest exponent of a weight scale, which is 2**-3 to 2**3."""
EPSILON = 1e-5
"""Number added to a variance, as in torch's batch norm."""
LEAST_GAIN = 1e-3
"""Least gain; with a gain of 0, scaled weights would be 0 whatever the weights are."""


class MeanOnly(nn.Module):
    """Norm that subtracts the running mean of each channel's weighted input, by way of the neuron's bias.

    Training, too, subtracts the running mean and not the mean of the batch, so that ANN, SNN and hardware compute the
    same. Gradients, however, are those of subtracting the mean of the batch: a shift of a whole channel has no lasting
    effect, since the running mean follows it.

    Attributes:
        group: processes that train together; the mean is that of their whole batch.
    """

    running_mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.group: Group = ALONE

    def mean(self) -> Tensor:
        """Return the mean weighted input of each channel, `[C]`."""
        return self.running_mean

    def update(self, z: Tensor, channel_axis: int) -> None:
        """Move the running mean toward the mean of `z` over all axes but the channel's."""
        self.running_mean.lerp_(self._mean(z.detach(), channel_axis).flatten().to(self.running_mean.dtype), MOMENTUM)

    def centre_gradient(self, z: Tensor, channel_axis: int) -> None:
        """Subtract from the gradient of `z` its mean over all axes but the channel's, in the next backward pass."""
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient - self._mean(gradient, channel_axis))

    def _mean(self, values: Tensor, channel_axis: int) -> Tensor:
        """Return the mean of each channel over the whole batch, with as many axes as `values`."""
        axes = [axis for axis in range(values.dim()) if axis != channel_axis]
        return self.group.mean(values.mean(axes, keepdim=True), values.numel() // values.shape[channel_axis])


class WeightScale(nn.Module):
    """Norm that divides the weights by `2**ceil(log2(deviation))`, from 2**-3 to 2**3, before they are quantised.

    A layer has one scale. `deviation` comes from the running variance of the weighted input, with unscaled weights.

    Attributes:
        group: processes that train together; the variance is that of their whole batch.
    """

    running_variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_variance", torch.ones(()))
        self.group: Group = ALONE

    def scale(self) -> Tensor:
        """Return the power of two that multiplies the weights."""
        shift = torch.ceil(0.5 * torch.log2(self.running_variance.clamp_min(1e-12))).clamp_(-MAX_SHIFT, MAX_SHIFT)
        return torch.exp2(-shift)

    def update(self, z: Tensor, channel_axis: int) -> None:
        """Move the running variance toward that of `z`, converted to unscaled weights.

        A batch of a single number has no variance and changes nothing.
        """
        z, n = z.detach().float(), sum(self.group.counts(z.numel()))
        if n < 2:
            return
        variance = z.var() if self.group.size == 1 else _variance(z, n, self.group)
        self.running_variance.lerp_(variance / self.scale().square(), MOMENTUM)


class BatchNorm(nn.Module):
    """Batch norm of each channel, as `nn.BatchNorm2d`, of the weighted input of a block's own synapses, without skips.

    In training as ANN, `normalize` takes mean and variance of the batch. Everywhere else the running ones are folded
    into the numbers that the hardware holds: weights are multiplied by `scale`, and the bias is lowered by `mean`. SNN
    epochs put this module in eval mode: they train with the folded norm, since spikes have no other.

    Attributes:
        gain: `[C]`, trainable; deviation of the result, in units of an input of 1.
        group: processes that train together. Running statistics are those of their whole batch; each process
            normalises by its own part.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((channels,), gain))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))
        self.group: Group = ALONE

    def scale(self) -> Tensor:
        """Return the factor on the weights of each channel, `[C]`."""
        return self._gain() / (self.running_variance + EPSILON).sqrt()

    def mean(self) -> Tensor:
        """Return the mean weighted input of each channel, `[C]`, with scaled weights."""
        return self.running_mean * self.scale()

    def normalize(self, z: Tensor, levels: int) -> Tensor:
        """Return the normalised weighted input, and move the running statistics toward those of the batch.

        A channel with a single number has no variance: it is normalised by the running statistics.

        Args:
            z: `[N, C, ...]`, with weights that were multiplied by `scale`. The result does not depend on their scale.
            levels: largest value of the input.
        """
        if z.numel() == z.shape[1]:
            return z - (self.mean() * levels).to(z.dtype).reshape(z.shape)
        unit = self.scale().detach() * levels  # z of a weighted input of 1 with unscaled weights
        mean, variance = torch.zeros_like(unit), torch.ones_like(unit)
        epsilon = EPSILON * float(unit.square().mean())  # torch takes one number for all channels
        normed = F.batch_norm(z, mean, variance, self._gain() * levels, training=True, momentum=1.0, eps=epsilon)
        n = z.numel() // len(unit)
        with torch.no_grad():
            square = self.group.mean(variance + mean.square(), n)
            mean = self.group.mean(mean, n)
            self.running_mean.lerp_(mean / unit, MOMENTUM)
            self.running_variance.lerp_((square - mean.square()) / unit.square(), MOMENTUM)
        return normed

    def _gain(self) -> Tensor:
        return self.gain.clamp_min(LEAST_GAIN)


def _variance(z: Tensor, n: int, group: Group) -> Tensor:
    """Return the variance of the `n` numbers of all processes in the group; `z` has those of this one."""
    mean, square = group.mean(torch.stack([z.mean(dtype=torch.float64), z.double().square().mean()]), z.numel())
    variance: Tensor = (square - mean.square()) * n / (n - 1)
    return variance.float()


NormModule = MeanOnly | WeightScale | BatchNorm


def build_norm(norm: Norm, channels: int, *, gain: float) -> NormModule | None:
    """Return the module of a norm, or None for `Norm.NONE`; `gain` is the initial one of `Norm.BATCH`."""
    match norm:
        case Norm.MEAN_ONLY:
            return MeanOnly(channels)
        case Norm.WEIGHT_SCALE:
            return WeightScale()
        case Norm.BATCH:
            return BatchNorm(channels, gain)
        case Norm.NONE:
            return None
