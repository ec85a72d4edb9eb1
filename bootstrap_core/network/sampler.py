"""Measured activation of a layer: sampled pairs (weighted input, rate), and the curve fitted to them.

The pairs of all batches are too many, and processes must keep the same ones. Each pair gets a random key from (seed,
number seen), and the smallest keys stay: a uniform, bounded, reproducible sample.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.ops.activation import activate
from specs.errors import IntegrityError, SnnZooError

CAPACITY = 1 << 14
"""Number of pairs in a sample; centres fitted to two such samples differ by a hundredth of the curve's width."""
SURPLUS = 4
"""Multiple of its capacity that a sampler holds before it drops the surplus."""
DEVIATIONS = 6
"""Safety margin of random counts, in standard deviations, so that practically never too few keys are drawn."""
BINS = 5
"""Number of bins of rates, each with one centre of the curve."""
NOVELTY = 0.1
"""Weight of a newly measured centre; the centre of earlier fits has the rest."""


class RateSampler(nn.Module):
    """Sample of pairs (z, a) of a spiking layer, and the piecewise-linear activation `a = f(z)` fitted to it.

    Every pair gets a random key, and the `capacity` pairs with the smallest keys are kept: a uniform sample in bounded
    memory. The fitted curve is in buffers, and so in the state dict:

    - `centers` `[BINS + 2, 2]`: rows (z, a), z ascending; the first and last are extrapolated to a = 0 and the maximum.
    - `slopes` `[BINS + 1]`: slope of each segment between two centres.
    - `n_centers`: number of rows in use; 0 until the first fit.

    Args:
        capacity: largest number of pairs that are kept.
        subtracts: whether the neurons reset by subtraction. Their rates are z plus noise, and those of weakly driven
            neurons are mostly noise. So z and a are then sorted and paired by rank before the fit, and the gradient of
            the curve is its slope. Otherwise both follow lava-dl.

    Attributes:
        group: processes that sample together: each adds its share of a batch, and all keep the sample of the whole.
    """

    centers: Tensor
    slopes: Tensor
    n_centers: Tensor

    def __init__(self, *, seed: int = 0, capacity: int = CAPACITY, subtracts: bool = False) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(BINS + 2, 2, dtype=torch.float64))
        self.register_buffer("slopes", torch.zeros(BINS + 1, dtype=torch.float64))
        self.register_buffer("n_centers", torch.zeros((), dtype=torch.int64))
        self.seed, self.capacity, self.subtracts = seed, capacity, subtracts
        self.group: Group = ALONE
        self.clear()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load the curve; refuse one that is not a function, for which operators could give different rates."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        n, most = int(self.n_centers), len(self.centers)
        if n not in (0, *range(2, most + 1)):
            raise IntegrityError(f"{prefix}n_centers must be 0, or 2 to {most}, got {n}")
        z = self.centers[:n, 0]
        if not bool((z.diff() >= 0).all()):
            raise IntegrityError(f"{prefix}centers must not descend in z, got {z.tolist()}")

    def clear(self) -> None:
        """Drop the pairs; the fitted curve stays."""
        self.n_seen = 0
        self._held = [(torch.zeros(0, 2), torch.zeros(0, dtype=torch.float64))]  # pairs and keys of each batch
        self._n_held = 0
        self._limit = 1.0  # all pairs seen with a smaller key are held

    @property
    def pairs(self) -> Tensor:
        """Sampled pairs, `[n, 2]`, float32 on the CPU, rows (z, a)."""
        return self._smallest()[0]

    @property
    def fitted(self) -> bool:
        """True after the first fit."""
        return bool(self.n_centers > 0)

    def add(self, z: Tensor, a: Tensor) -> None:
        """Add pairs: mean weighted inputs `z` and mean rates `a`, of the same shape."""
        z, a = (x.detach().flatten() for x in (z, a))
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.n_seen))
        counts = self.group.counts(len(z))  # places count the pairs of all ranks, rank after rank
        start, total = sum(counts[: self.group.rank]), sum(counts)
        self.n_seen += total
        enough = self.capacity + DEVIATIONS * self.capacity**0.5
        self._limit = min(self._limit, enough / max(1, self.n_seen))
        places, keys = _keys_below(self._limit, total, generator)
        if len(places):
            self._keep(self._pairs_of_all(places, start, z, a), keys)

    def _pairs_of_all(self, places: Tensor, start: int, z: Tensor, a: Tensor) -> Tensor:
        """Return the pairs at `places`, `[k, 2]` on the CPU; `z` and `a` are those of this rank, from `start` on."""
        ours = (places >= start) & (places < start + len(z))
        at = places[ours] - start
        pairs = torch.zeros(len(places), 2)
        pairs[ours] = torch.stack([x[at.to(x.device)] for x in (z, a)], dim=1).to("cpu", torch.float32)
        self.group.add_up([pairs])
        return pairs

    def _keep(self, pairs: Tensor, keys: Tensor) -> None:
        self._held.append((pairs, keys))
        self._n_held += len(keys)
        if self._n_held >= SURPLUS * self.capacity:  # rarely, since a surplus does no harm
            pairs, keys = self._smallest()
            self._held, self._n_held, self._limit = [(pairs, keys)], len(keys), float(keys.max())

    def _smallest(self) -> tuple[Tensor, Tensor]:
        pairs, keys = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        if len(keys) <= self.capacity:
            return pairs, keys
        keys, order = torch.topk(keys, self.capacity, largest=False, sorted=False)
        return pairs.index_select(0, order), keys

    def fit(self) -> None:
        """Fit the activation to the pairs, by lava-dl's rule with two changes; without pairs nothing changes.

        The maximum rate is the mean of all rates above 0.9 of the largest, but at least 0.8. Between 0.1 and 0.9 of the
        maximum lie bins of equal width, each with a centre: the median z and a of the bin's pairs, with weight 0.1, and
        the mean of the previous fit's centres in the bin, with weight 0.9. If one of the two is missing, the other
        counts alone.

        The changes make the result a function of z for any pairs:

        - A centre whose z is not above that of the centre before is dropped. lava-dl keeps it; its segments then
          overlap, the last one counts, and the curve jumps.
        - A single centre with z <= 0 is joined to (z - a, 0) and not to the origin, and the maximum of a layer without
          spikes is 0.8 and not NaN.
        """
        pairs = self.pairs
        if len(pairs) == 0:
            return
        z, a = pairs.double().T
        if self.subtracts:
            z, a = z.sort().values, a.sort().values
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

    def refit(self) -> None:
        """Fit the activation to the pairs and drop them."""
        self.fit()
        self.clear()

    def _store(self, centers: Tensor, slopes: Tensor) -> None:
        self.centers.zero_()[: len(centers)] = centers
        self.slopes.zero_()[: len(slopes)] = slopes
        self.n_centers.fill_(len(centers))

    @property
    def curve(self) -> tuple[Tensor, Tensor]:
        """Centres and slopes in use, `[K, 2]` and `[K - 1]`. Raises `SnnZooError` before the first fit."""
        n = int(self.n_centers)
        if n == 0:
            raise SnnZooError(
                "ANN mode needs fitted activations, and this network has none yet: train it, or run batches in "
                "Mode.SAMPLE, then one in Mode.FIT"
            )
        return self.centers[:n], self.slopes[: n - 1]

    def forward(self, z: Tensor) -> Tensor:
        """Return the rate `f(z)`, any shape. Raises `SnnZooError` before the first fit."""
        return activate(z, *self.curve, 1.0 if self.subtracts else None)


def _keys_below(limit: float, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `n` uniform keys, but only those below `limit`: return their places, ascending, and the keys.

    The distance from one such place to the next is geometrically distributed, so the keys between are never drawn.
    """
    found, last, expected = list[Tensor](), -1.0, limit * n
    while last < n:
        drawn = torch.rand(int(expected + DEVIATIONS * expected**0.5) + 1, dtype=torch.float64, generator=generator)
        gaps = drawn.neg_().log1p_().div_(math.log1p(-limit) if limit < 1 else -math.inf).floor_().add_(1)
        gaps[0] += last
        found.append(gaps.cumsum_(0))
        last, expected = float(gaps[-1]), 0.0
    places = found[0] if len(found) == 1 else torch.cat(found)
    chosen = places[: int(torch.searchsorted(places, n))].long()
    return chosen, limit * torch.rand(len(chosen), dtype=torch.float64, generator=generator)


def mix_seed(seed: int, counter: int) -> int:
    """Combine a seed and a counter into one seed of 32 bits, as torch's CPU generator takes it."""
    return (seed * 0x9E3779B1 + counter) % (1 << 32)


def _median(x: Tensor) -> Tensor:
    """Return the median: for an even count, the mean of the middle two."""
    return torch.quantile(x, 0.5)


def _rising(found: list[Tensor]) -> list[Tensor]:
    """Return the centres without those whose z does not rise, since a curve must be a function."""
    rising: list[Tensor] = []
    for center in found:
        if not rising or center[0] > rising[-1][0]:
            rising.append(center)
    return rising


def _curve(found: list[Tensor], maximum: float) -> tuple[Tensor, Tensor]:
    """Return centres, with both ends extrapolated to rate 0 and `maximum`, and the slope of each segment."""
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
