"""Figures of a spiking network on images: accuracy by time steps, confusions, activity of layers, single images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import accuracy_by_steps, batches
from bootstrap_core.data.splits import Dataset, Split, time_first
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.tasks.evaluation import Evaluation
from specs.fields import Shape
from specs.layers.block import has_neurons

TIME_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
N_SCORED = 2000
"""Largest number of test images for accuracy by T and confusions."""
N_WATCHED = 500
"""Largest number of test images on which dead units are counted."""
N_EXAMPLES = 6
"""Number of images in the report of a conversion."""
N_DRAWN = 96
"""Largest number of neurons in a raster."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion matrix: `counts` is int64 `[class, answer]`."""

    counts: Tensor

    @property
    def accuracy(self) -> float:
        """Part of the images with the right answer, 0..1."""
        return float(self.counts.diagonal().sum()) / float(self.counts.sum())

    def most_frequent(self, n: int) -> list[tuple[int, int, int]]:
        """Return up to `n` mistakes `(class, answer, count)`, the most frequent first."""
        wrong = self.counts.clone().fill_diagonal_(0).flatten()
        order = wrong.argsort(descending=True, stable=True)[:n].tolist()
        n_classes = len(self.counts)
        return [(i // n_classes, i % n_classes, int(wrong[i])) for i in order if wrong[i] > 0]


@dataclass(frozen=True)
class LayerActivity:
    """Activity of a layer on the test images.

    Attributes:
        name: index and kind, such as `1 dense`.
        rate: spikes per neuron and time step; None without neurons.
        synops: synaptic operations that arrive in the layer, per image.
        dead: number of neurons that never spike on the watched images; None without neurons.
    """

    name: str
    shape: Shape
    rate: float | None
    synops: float
    dead: int | None

    @property
    def n_units(self) -> int:
        """Number of outputs."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Raster:
    """Spikes of a layer on one image, int8 `[T, neurons]`: some of its `n_neurons` neurons, evenly spaced."""

    layer: str
    spikes: Tensor
    n_neurons: int


@dataclass(frozen=True, eq=False)
class Example:
    """Image with the response of the network.

    Attributes:
        image: uint8 `[C, H, W]`, or the events of each step `[T, C, H, W]`.
        label: index of the true class.
        over_time: mean output up to each step, `[T, classes]`; the last row is the logits.
        rasters: spikes of each layer of neurons.
        spikes: all spikes of the last layer of neurons, `[T, C]` or `[T, C, H, W]`; None without neurons.
    """

    image: Tensor
    label: int
    over_time: Tensor
    rasters: tuple[Raster, ...]
    spikes: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """Logits `[classes]`."""
        return self.over_time[-1]


@dataclass(frozen=True, eq=False)
class NetworkFigures:
    """Figures of a spiking network, for a page.

    Attributes:
        classes: names of the answers.
        by_steps: accuracy for each T on the images of `scored`, 0..1; None where a state leaves 24 bits.
        confusion: confusions on the same images, at the network's own T.
        logits: logits of the same images, `[N, classes]`.
        scored: test images of the three figures above.
        layers: activity of each layer, input first; rates and synops on all test images, dead units on `watched`.
        watched: test images on which dead units are counted.
    """

    classes: tuple[str, ...]
    by_steps: dict[int, float | None]
    confusion: Confusion
    logits: Tensor
    scored: Split
    layers: tuple[LayerActivity, ...]
    watched: Split


def measure_network(exact: IntegerNetwork, dataset: Dataset, score: Evaluation) -> NetworkFigures:
    """Run a network on test images, evenly spaced in the test set; `score` is of all of them at the network's own T."""
    scored, watched = spread_out(dataset.test, N_SCORED), spread_out(dataset.test, N_WATCHED)
    logits = torch.cat([exact(images) for images, _ in batches(scored, BATCH)])
    n_classes = logits.shape[1]
    assert score.synops is not None
    longest = scored.images.shape[1] if scored.has_events else max(TIME_STEPS)
    rows = zip(exact.spec.layers, exact.spec.shapes, score.rates, score.synops, dead_units(exact, watched), strict=True)
    return NetworkFigures(
        classes=dataset.classes if len(dataset.classes) == n_classes else tuple(map(str, range(n_classes))),
        by_steps=accuracy_by_steps(exact, scored, [t for t in TIME_STEPS if t <= longest], batch_size=BATCH),
        confusion=count_confusions(scored.labels, logits.argmax(1), n_classes),
        logits=logits,
        scored=scored,
        layers=tuple(
            LayerActivity(f"{i} {layer.kind}", shape, rate, synops, dead)
            for i, (layer, shape, rate, synops, dead) in enumerate(rows)
        ),
        watched=watched,
    )


def spread_out(split: Split, n: int) -> Split:
    """Return at most `n` images, evenly spaced, as a split may be sorted by class."""
    return split if len(split) <= n else split.take(torch.arange(n) * len(split) // n)


def count_confusions(labels: Tensor, answers: Tensor, n_classes: int) -> Confusion:
    """Count pairs of class and answer, both int64 `[N]`.

    >>> count_confusions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).counts.tolist()
    [[1, 1], [0, 1]]
    """
    return Confusion((labels * n_classes + answers).bincount(minlength=n_classes**2).reshape(n_classes, n_classes))


def dead_units(exact: IntegerNetwork, split: Split) -> list[int | None]:
    """Return for each layer, input first, how many neurons never spike on these images; None without neurons."""
    tallies = [exact.tally(images)[1].counts for images, _ in batches(split, BATCH)]
    return [
        int((~torch.stack([count > 0 for count in counts if count is not None]).any(0)).sum())
        if has_neurons(layer)
        else None
        for layer, counts in zip(exact.spec.layers, zip(*tallies, strict=True), strict=True)
    ]


def pick_examples(
    labels: Tensor, interesting: Tensor, n: int = N_EXAMPLES, *, n_interesting: int | None = None
) -> list[int]:
    """Return the indices of up to `n` images, from as many classes as possible.

    `n_interesting` of them are interesting, by default half; more only if too few others exist.

    >>> pick_examples(torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 1, 0, 1, 0, 0]).bool(), 4)
    [0, 3, 2, 4]
    """
    n_interesting = n // 2 if n_interesting is None else n_interesting
    first, others = (_each_class_in_turn(labels, where.nonzero().flatten()) for where in (interesting, ~interesting))
    return [*first[:n_interesting], *others, *first[n_interesting:]][:n]


def _each_class_in_turn(labels: Tensor, indices: Tensor) -> list[int]:
    seen, turns = Counter[int](), list[tuple[int, int]]()
    for i, label in zip(indices.tolist(), labels[indices].tolist(), strict=True):
        turns.append((seen[label], i))
        seen[label] += 1
    return [i for _, i in sorted(turns)]


@torch.no_grad()
def run_examples(exact: IntegerNetwork, split: Split, indices: Sequence[int]) -> list[Example]:
    """Run the network on some images; return its outputs and spikes step by step."""
    chosen = split.take(list(indices))
    images = chosen.images[:]
    _, trace = exact.run(time_first(images))
    output = trace.spikes[-1]
    assert output is not None
    steps = torch.arange(1, len(output) + 1, dtype=torch.float64)
    over_time = output.flatten(2).double().cumsum(0) / steps[:, None, None]  # [T, N, classes]
    layers = [
        (f"{i} {layer.kind}", spikes)
        for i, (layer, spikes) in enumerate(zip(exact.spec.layers, trace.spikes, strict=True))
        if spikes is not None and has_neurons(layer)
    ]
    return [
        Example(
            image=images[i],
            label=int(chosen.labels[i]),
            over_time=over_time[:, i],
            rasters=tuple(_raster(name, spikes[:, i].flatten(1)) for name, spikes in layers),
            spikes=layers[-1][1][:, i] if layers else None,
        )
        for i in range(len(chosen))
    ]


def _raster(layer: str, spikes: Tensor) -> Raster:
    """Return the raster of a layer, given all its spikes, `[T, neurons]`."""
    n = spikes.shape[1]
    n_drawn = min(n, N_DRAWN)
    return Raster(layer, spikes[:, torch.arange(n_drawn) * n // n_drawn].to(torch.int8), n)
