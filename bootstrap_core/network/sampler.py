"""Measuring a layer's activation: sampled pairs (weighted input, rate), and the curve fitted to them."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from bootstrap_core.ops.activation import activate
from bootstrap_core.training.distributed import ALONE, Group
from specs.errors import SnnZooError

__all__ = ["RateSampler", "mix_seed"]

CAPACITY = 1 << 14
"""Pairs, under which the centres of two samples of one network differ by a hundredth of its curve's width."""
SURPLUS = 4
"""How many times its capacity a sampler may hold before it sorts out."""
DEVIATIONS = 6
"""By so many standard deviations more keys than the capacity are below the limit, so that they are not too few."""
BINS = 5
NOVELTY = 0.1
"""Weight of a new fit's centre; the rest is that of the fits before."""


class RateSampler(nn.Module):
    """Samples pairs (z, a) of a spiking layer and fits its activation `a = f(z)`, piecewise linear.

    Of all pairs added it keeps a uniform sample of at most `capacity`, those with the smallest random keys, so memory
    is bounded and samplers of several processes merge. The fitted curve lives in buffers, hence in the state dict:

    - `centers` `[BINS + 2, 2]`: rows (z, a), rising in z; the first and last are extrapolated to a = 0 and the maximum.
    - `slopes` `[BINS + 1]`: of the segments between them.
    - `n_centers`: how many rows are in use; 0 until the first fit.

    Args:
        seed: of the sample; samplers that will merge need different seeds.
        capacity: most pairs kept.

    Attributes:
        group: processes that sample together: each adds its share of a batch, and all keep the sample of the whole.
    """

    centers: Tensor
    slopes: Tensor
    n_centers: Tensor

    def __init__(self, *, seed: int = 0, capacity: int = CAPACITY) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(BINS + 2, 2, dtype=torch.float64))
        self.register_buffer("slopes", torch.zeros(BINS + 1, dtype=torch.float64))
        self.register_buffer("n_centers", torch.zeros((), dtype=torch.int64))
        self.seed, self.capacity = seed, capacity
        self.group: Group = ALONE
        self.clear()

    def clear(self) -> None:
        """Forget the pairs; the fitted curve stays."""
        self.n_seen = 0
        self._held = [(torch.zeros(0, 2), torch.zeros(0, dtype=torch.float64))]  # pairs and keys of each batch
        self._n_held = 0
        self._limit = 1.0  # of all pairs seen, those with smaller keys are here

    @property
    def pairs(self) -> Tensor:
        """The sample, `[n, 2]` float32 on the CPU, rows (z, a)."""
        return self._smallest()[0]

    @property
    def fitted(self) -> bool:
        """Whether there is a curve to run on."""
        return bool(self.n_centers > 0)

    def add(self, z: Tensor, a: Tensor) -> None:
        """Add pairs: mean weighted inputs `z` and mean rates `a`, of one shape."""
        z, a = (x.detach().flatten() for x in (z, a))
        self.add_some(len(z), lambda places: (z[places.to(z.device)], a[places.to(a.device)]))

    def add_some(self, n: int, pairs_at: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        """Add `n` pairs, of which only those that are kept are asked for: `pairs_at(places)` gives their z and a."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.n_seen))
        counts = self.group.counts(n)  # the pairs of all ranks follow each other
        start, total = sum(counts[: self.group.rank]), sum(counts)
        self.n_seen += total
        enough = self.capacity + DEVIATIONS * self.capacity**0.5
        self._limit = min(self._limit, enough / max(1, self.n_seen))
        places, keys = _keys_below(self._limit, total, generator)
        if len(places):
            self._keep(self._pairs_of_all(places, start, n, pairs_at), keys)

    @torch.no_grad()
    def _pairs_of_all(
        self, places: Tensor, start: int, n: int, pairs_at: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Pairs at places of all ranks, `[k, 2]` on the CPU, of which this one has the `n` from `start` on."""
        if self.group.size == 1:
            return torch.stack(pairs_at(places), dim=1).to("cpu", torch.float32)
        pairs = torch.zeros(len(places), 2)
        ours = (places >= start) & (places < start + n)
        if ours.any():
            pairs[ours] = torch.stack(pairs_at(places[ours] - start), dim=1).to("cpu", torch.float32)
        self.group.add_up([pairs])
        return pairs

    def merge(self, other: "RateSampler") -> None:
        """Add the pairs of another sampler, as if this one had seen them too."""
        self._limit = min(self._limit, other._limit)
        self._keep(*other._smallest())
        self.n_seen += other.n_seen

    def _keep(self, pairs: Tensor, keys: Tensor) -> None:
        self._held.append((pairs, keys))
        self._n_held += len(keys)
        if self._n_held >= SURPLUS * self.capacity:  # only now and then: what is too much does no harm before
            pairs, keys = self._smallest()
            self._held, self._n_held, self._limit = [(pairs, keys)], len(keys), float(keys.max())

    def _smallest(self) -> tuple[Tensor, Tensor]:
        """Pairs and keys of the sample."""
        pairs, keys = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        if len(keys) <= self.capacity:
            return pairs, keys
        keys, order = torch.topk(keys, self.capacity, largest=False, sorted=False)
        return pairs.index_select(0, order), keys

    def fit(self) -> None:
        """Fit the activation to the pairs, by lava-dl's rule; without pairs nothing changes.

        The maximum rate is the mean of all rates above 0.9 of the largest, at least 0.8. Bins of equal width lie
        between 0.1 and 0.9 of it; each gives the median z and a of its pairs, weighed 0.1 to 0.9 with the mean of those
        centres of the previous fit that lie in it, or those centres alone if it has no pairs.
        """
        pairs = self.pairs
        if len(pairs) == 0:
            return
        z, a = pairs.double().T
        maximum = max(a[a > 0.9 * a.max()].mean().item(), 0.8) if a.max() > 0 else 0.8
        edges = torch.linspace(0.1 * maximum, 0.9 * maximum, BINS + 1, dtype=torch.float64)
        previous = self.centers[: int(self.n_centers)].cpu().double()

        found = []
        for low, high in pairwise(edges):
            here = (a > low) & (a <= high)
            before = previous[(previous[:, 1] > low) & (previous[:, 1] <= high)]
            if here.any():
                center = torch.stack([_median(z[here]), _median(a[here])])
                found.append(torch.lerp(before.mean(0), center, NOVELTY) if len(before) else center)
            elif len(before):
                found.append(before.mean(0))
        self._store(*_curve(_rising(found), maximum))

    def _store(self, centers: Tensor, slopes: Tensor) -> None:
        self.centers.zero_()[: len(centers)] = centers
        self.slopes.zero_()[: len(slopes)] = slopes
        self.n_centers.fill_(len(centers))

    @property
    def curve(self) -> tuple[Tensor, Tensor]:
        """Those of `centers` and `slopes` that are in use. Raises `SnnZooError` before the first fit."""
        n = int(self.n_centers)
        if n == 0:
            raise SnnZooError(
                "ANN mode has no activations yet, as training fits them: train the network, or run batches in "
                "Mode.SAMPLE, then one in Mode.FIT"
            )
        return self.centers[:n], self.slopes[: n - 1]

    def forward(self, z: Tensor) -> Tensor:
        """Rate `f(z)`, any shape. Raises `SnnZooError` before the first fit."""
        return activate(z, *self.curve)


def _keys_below(limit: float, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of `n` uniform keys, the places of those below `limit`, rising, and these keys; the others are never drawn.

    From one such place to the next it is a number of places that is geometrically distributed.
    """
    found, last, expected = list[Tensor](), -1.0, limit * n
    while last < n:
        drawn = torch.rand(int(expected + DEVIATIONS * expected**0.5) + 1, dtype=torch.float64, generator=generator)
        ways = drawn.neg_().log1p_().div_(math.log1p(-limit) if limit < 1 else -math.inf).floor_().add_(1)
        ways[0] += last
        found.append(ways.cumsum_(0))
        last, expected = float(ways[-1]), 0.0
    places = found[0] if len(found) == 1 else torch.cat(found)
    chosen = places[: int(torch.searchsorted(places, n))].long()
    return chosen, limit * torch.rand(len(chosen), dtype=torch.float64, generator=generator)


def mix_seed(seed: int, counter: int) -> int:
    """One seed for a generator from a seed and a counter; torch's CPU generator takes 32 bits."""
    return (seed * 0x9E3779B1 + counter) % (1 << 32)


def _median(x: Tensor) -> Tensor:
    """Median, the mean of the middle two for an even count."""
    return torch.quantile(x, 0.5)


def _rising(found: list[Tensor]) -> list[Tensor]:
    """Centres without those whose z does not rise: a curve must be a function."""
    rising: list[Tensor] = []
    for center in found:
        if not rising or center[0] > rising[-1][0]:
            rising.append(center)
    return rising


def _curve(found: list[Tensor], maximum: float) -> tuple[Tensor, Tensor]:
    """Centres with both ends extrapolated to rate 0 and `maximum`, and the slope of each segment."""
    if not found:
        found = [torch.full((2,), part * maximum, dtype=torch.float64) for part in (0.1, 0.9)]
    elif len(found) == 1:
        z, a = found[0]
        start = torch.zeros_like(z) if z > 0 else z - a  # a bias can fire a neuron that its input inhibits
        found = [torch.stack([start, torch.zeros_like(a)]), found[0]]
    inner = torch.stack(found)
    z, a = inner.T
    slopes = (a.diff() / z.diff()).abs().clamp_min(1e-6)
    slopes = torch.cat([slopes[:1], slopes, slopes[-1:]])
    first = torch.stack([z[0] - a[0] / slopes[0], torch.zeros_like(a[0])])
    last = torch.stack([z[-1] + (maximum - a[-1]) / slopes[-1], torch.full_like(a[-1], maximum)])
    return torch.cat([first[None], inner, last[None]]), slopes
