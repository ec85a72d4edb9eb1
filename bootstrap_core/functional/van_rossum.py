"""Van Rossum distance between spike trains.

Each train is filtered with a decaying exponential, `f[t] = exp(-1 / tau) f[t - 1] + s[t]`, and the distance is
`sum_t (f[t] - g[t])^2 / tau`, t in time steps. If trains go on long
enough after it, a missing spike costs nearly 1/2. A shifted one costs from 0 to nearly 1, for shifts much longer than
tau.

Source: van Rossum 2001, A Novel Spike Distance, Neural Computation 13(4), equation 2.2.
"""

import torch
from torch import Tensor


def van_rossum_distance(spikes: Tensor, others: Tensor, tau: float) -> Tensor:
    """Return the distance between the trains at the same place of both tensors, `[N, ...]`; differentiable.

    Args:
        spikes, others: spike trains `[T, N, ...]`, 0 and 1.
        tau: time constant of the filter, in time steps.

    >>> wanted = torch.zeros(100, 1)
    >>> early, late = wanted.clone(), wanted.clone()
    >>> wanted[10], early[9], late[40] = 1, 1, 1
    >>> [round(float(van_rossum_distance(x, wanted, tau=10)), 2) for x in (wanted, early, late)]
    [0.0, 0.1, 1.05]
    """
    difference = spikes - others
    lag = torch.arange(len(difference), dtype=difference.dtype, device=difference.device)
    filters = torch.exp((lag - lag[:, None]) / tau).tril()  # [T, T]: to step t, from step s <= t
    filtered = torch.tensordot(filters, difference, dims=1)
    distance: Tensor = filtered.square().sum(0) / tau
    return distance
