"""Batch norms that the hardware can hold: a bias, or a power of two in the weights."""

import torch
from torch import Tensor, nn

from bootstrap_core.training.distributed import ALONE, Group
from specs.block import Norm

__all__ = ["MeanOnly", "WeightScale", "build_norm"]

MOMENTUM = 0.1
MAX_SHIFT = 3
"""A weight scale is at most 2**3 either way."""


class MeanOnly(nn.Module):
    """Subtracts the running mean of each channel's weighted input; it leaves through the bias of the neuron.

    The running mean, not the batch's, is subtracted in training too, so ANN, SNN and hardware see one network. The
    gradient is that of subtracting the batch's: what moves a whole channel is taken back by the running mean, so it
    counts for nothing.

    Attributes:
        group: processes that train together; the mean is of the whole batch.
    """

    running_mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.group: Group = ALONE

    def update(self, z: Tensor, channel_axis: int) -> None:
        """Move the running mean toward the mean of `z` over all axes but the channel's."""
        self.running_mean.lerp_(self._mean(z.detach(), channel_axis).flatten().to(self.running_mean.dtype), MOMENTUM)

    def centre_gradient(self, z: Tensor, channel_axis: int) -> None:
        """Have the gradient at `z` lose its mean over all axes but the channel's, in the backward pass to come."""
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient - self._mean(gradient, channel_axis))

    def _mean(self, values: Tensor, channel_axis: int) -> Tensor:
        """Of the whole batch, for each channel; as many axes as `values` has."""
        axes = [axis for axis in range(values.dim()) if axis != channel_axis]
        return self.group.mean(values.mean(axes, keepdim=True), values.numel() // values.shape[channel_axis])


class WeightScale(nn.Module):
    """Divides the weights by `2**ceil(log2(deviation))`, at most 2**3 either way, before they are quantised.

    One scale for the layer, from the running variance of the weighted input of the unscaled weights.

    Attributes:
        group: processes that train together; the variance is of the whole batch.
    """

    running_variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_variance", torch.ones(()))
        self.group: Group = ALONE

    def scale(self) -> Tensor:
        """The power of two that multiplies the weights."""
        shift = torch.ceil(0.5 * torch.log2(self.running_variance.clamp_min(1e-12))).clamp_(-MAX_SHIFT, MAX_SHIFT)
        return torch.exp2(-shift)

    def update(self, z: Tensor, channel_axis: int) -> None:
        """Move the running variance toward that of `z`, measured in the scale of the unscaled weights.

        A batch of one number has none, and moves nothing.
        """
        z, n = z.detach().float(), sum(self.group.counts(z.numel()))
        if n < 2:
            return
        variance = z.var() if self.group.size == 1 else _variance(z, n, self.group)
        self.running_variance.lerp_(variance / self.scale().square(), MOMENTUM)


def _variance(z: Tensor, n: int, group: Group) -> Tensor:
    """Variance of the n numbers that all processes of the group have."""
    mean, square = group.mean(torch.stack([z.mean(dtype=torch.float64), z.double().square().mean()]), z.numel())
    variance: Tensor = (square - mean.square()) * n / (n - 1)
    return variance.float()


def build_norm(norm: Norm, channels: int) -> MeanOnly | WeightScale | None:
    """The module of a norm, or None."""
    match norm:
        case Norm.MEAN_ONLY:
            return MeanOnly(channels)
        case Norm.WEIGHT_SCALE:
            return WeightScale()
        case Norm.NONE:
            return None
