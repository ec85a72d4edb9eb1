"""Exponential moving average of a network's weights during training.

An accuracy on 5,000 images errs by a third of a point, as much as epochs differ, so the best one is mostly luck. An
average differs little from one epoch to the next, so luck decides less.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.network.batch_norm import NormModule
from bootstrap_core.network.network import Network


class MovingAverage:
    """Copy of a network in training, whose weights are a moving average: it lacks the noise of single steps.

    Parameters and the running statistics of norms are averaged; activations must be fitted to the copy itself.
    Source: Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging.

    Args:
        decay: share of the average that each update keeps, 0 to 1. Update n keeps at most (1 + n) / (10 + n), so that
            the initial weights are soon forgotten.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay, self.n_updates = decay, 0
        self._pairs = list(zip(_averaged(self.network), _averaged(network), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average toward the present weights of the network."""
        self.n_updates += 1
        kept = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        for ours, theirs in self._pairs:
            ours.lerp_(theirs, 1 - kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` continues."""
        return {"network": self.network.state_dict(), "n_updates": self.n_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.n_updates = state["n_updates"]


def _averaged(network: Network) -> Iterator[Tensor]:
    yield from network.parameters()
    for module in network.modules():
        if isinstance(module, NormModule):
            yield from module.buffers()
