"""A network whose weights are an exponential moving average of those that another one has in training."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.network.batch_norm import MeanOnly, WeightScale
from bootstrap_core.network.network import Network

__all__ = ["MovingAverage"]


class MovingAverage:
    """A copy of a network in training, that follows it: calmer than the network itself, whose every step adds noise.

    Parameters and the running statistics of norms are averaged; activations must be fitted to the copy itself.
    Source: Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging.

    Args:
        network: in training.
        decay: part of the average that each update keeps, 0 to 1; of the first updates less, (1 + n) / (10 + n) of the
            n-th, so that the weights it began with are forgotten.

    Attributes:
        network: the copy, in eval mode.
        n_updates: how many there were.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay, self.n_updates = decay, 0
        self._pairs = list(zip(_averaged(self.network), _averaged(network), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network by one step."""
        self.n_updates += 1
        kept = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        for ours, theirs in self._pairs:
            ours.lerp_(theirs, 1 - kept)

    def state_dict(self) -> dict[str, Any]:
        """All that a later `load_state_dict` needs to go on following."""
        return {"network": self.network.state_dict(), "n_updates": self.n_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.n_updates = state["n_updates"]


def _averaged(network: Network) -> Iterator[Tensor]:
    yield from network.parameters()
    for module in network.modules():
        if isinstance(module, MeanOnly | WeightScale):
            yield from module.buffers()
