"""What a spiking network does on images: accuracy by time steps, confusions, activity of its layers, single images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import Evaluation, accuracy_by_steps, batches
from bootstrap_core.data.datasets import Dataset, Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from specs.block import has_neurons
from specs.fields import Shape

__all__ = [
    "BATCH",
    "Confusion",
    "Example",
    "LayerActivity",
    "NetworkFigures",
    "Raster",
    "class_names",
    "count_confusions",
    "dead_units",
    "measure_network",
    "pick_examples",
    "run_examples",
    "spread_out",
]

TIME_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
N_SCORED = 2000
"""Test images, at most, for accuracy by T and confusions."""
N_WATCHED = 500
"""Test images, at most, for what each layer does."""
N_EXAMPLES = 6
N_DRAWN = 96
"""Neurons of a layer in a raster, at most."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each answer was given: `counts` int64 `[class, answer]`."""

    counts: Tensor

    @property
    def accuracy(self) -> float:
        """Part of the images on the diagonal."""
        return float(self.counts.diagonal().sum()) / float(self.counts.sum())

    def most_frequent(self, n: int) -> list[tuple[int, int, int]]:
        """Up to `n` mistakes `(class, answer, count)`, the most frequent first."""
        wrong = self.counts.clone().fill_diagonal_(0).flatten()
        order = wrong.argsort(descending=True, stable=True)[:n].tolist()
        n_classes = len(self.counts)
        return [(i // n_classes, i % n_classes, int(wrong[i])) for i in order if wrong[i] > 0]


@dataclass(frozen=True)
class LayerActivity:
    """A layer on the test images.

    Attributes:
        name: index and kind, as `1 dense`.
        shape: of its output.
        rate: spikes of a neuron and step; None without neurons.
        synops: synaptic operations of an image that arrive in it.
        dead: neurons that no watched image makes spike; None without neurons.
    """

    name: str
    shape: Shape
    rate: float | None
    synops: float
    dead: int | None

    @property
    def n_units(self) -> int:
        """Outputs of an image."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Raster:
    """Spikes of a layer on one image: int8 `[T, neurons]`, of `n_neurons` some that lie evenly."""

    layer: str
    spikes: Tensor
    n_neurons: int


@dataclass(frozen=True, eq=False)
class Example:
    """An image uint8 `[C, H, W]`, its class, and what the network makes of it.

    `over_time` `[T, classes]` is the mean of the output up to each step; its last row are the logits. `spikes`,
    `[T, C]` or `[T, C, H, W]`, are all those of the last layer of neurons, that of the last raster; None without one.
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
    """What a page shows of a spiking network.

    Attributes:
        classes: names of the answers.
        by_steps: accuracy by T on `n_scored` test images; None where a state leaves 24 bits.
        confusion: at the network's own T, on the same images.
        logits: of the same images, `[n_scored, classes]`.
        scored: those images.
        layers: input first; rates and synops are those of all test images, dead units those of `watched`.
        watched: the images of dead units.
    """

    classes: tuple[str, ...]
    by_steps: dict[int, float | None]
    confusion: Confusion
    logits: Tensor
    scored: Split
    layers: tuple[LayerActivity, ...]
    watched: Split


def measure_network(exact: IntegerNetwork, dataset: Dataset, score: Evaluation) -> NetworkFigures:
    """Run a network on test images that lie evenly in the test set.

    Args:
        exact: the network.
        dataset: its test images are run.
        score: of all test images at the network's own T.
    """
    scored, watched = spread_out(dataset.test, N_SCORED), spread_out(dataset.test, N_WATCHED)
    logits = torch.cat([exact(images) for images, _ in batches(scored, BATCH)])
    assert score.synops is not None
    rows = zip(exact.spec.layers, exact.spec.shapes, score.rates, score.synops, dead_units(exact, watched), strict=True)
    return NetworkFigures(
        classes=class_names(dataset, logits.shape[1]),
        by_steps=accuracy_by_steps(exact, scored, TIME_STEPS, batch_size=BATCH),
        confusion=count_confusions(scored.labels, logits.argmax(1), logits.shape[1]),
        logits=logits,
        scored=scored,
        layers=tuple(
            LayerActivity(f"{i} {layer.kind}", shape, rate, synops, dead)
            for i, (layer, shape, rate, synops, dead) in enumerate(rows)
        ),
        watched=watched,
    )


def spread_out(split: Split, n: int) -> Split:
    """At most `n` images that lie evenly in the split, which may be sorted by class."""
    return split if len(split) <= n else split.take(torch.arange(n) * len(split) // n)


def class_names(dataset: Dataset, n_classes: int) -> tuple[str, ...]:
    """The names of the dataset's classes if it has as many as the network; else numbers."""
    return dataset.classes if len(dataset.classes) == n_classes else tuple(map(str, range(n_classes)))


def count_confusions(labels: Tensor, answers: Tensor, n_classes: int) -> Confusion:
    """Count pairs of class and answer, both int64 `[N]`.

    >>> count_confusions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).counts.tolist()
    [[1, 1], [0, 1]]
    """
    return Confusion((labels * n_classes + answers).bincount(minlength=n_classes**2).reshape(n_classes, n_classes))


def dead_units(exact: IntegerNetwork, split: Split) -> list[int | None]:
    """For each layer, input first, the neurons that never spike on these images; None without neurons."""
    tallies = [exact.tally(images)[1].counts for images, _ in batches(split, BATCH)]
    found: list[int | None] = []
    for layer, counts in zip(exact.spec.layers, zip(*tallies, strict=True), strict=True):
        if has_neurons(layer):
            spiked = torch.stack([count > 0 for count in counts if count is not None]).any(0)
            found.append(int((~spiked).sum()))
        else:
            found.append(None)
    return found


def pick_examples(
    labels: Tensor, interesting: Tensor, n: int = N_EXAMPLES, *, n_interesting: int | None = None
) -> list[int]:
    """Indices of up to `n` images: some of them interesting if there are as many, the others of many classes.

    Args:
        labels: int64 `[N]`.
        interesting: bool `[N]`.
        n: how many.
        n_interesting: how many of them are interesting, by default half; more only if there are no others.

    >>> pick_examples(torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 1, 0, 1, 0, 0]).bool(), 4)
    [0, 3, 2, 4]
    """
    n_interesting = n // 2 if n_interesting is None else n_interesting
    first, others = (_each_class_in_turn(labels, where.nonzero().flatten()) for where in (interesting, ~interesting))
    return [*first[:n_interesting], *others, *first[n_interesting:]][:n]


def _each_class_in_turn(labels: Tensor, indices: Tensor) -> list[int]:
    """The indices, the first ones of each class before the second ones."""
    seen, turns = Counter[int](), list[tuple[int, int]]()
    for i, label in zip(indices.tolist(), labels[indices].tolist(), strict=True):
        turns.append((seen[label], i))
        seen[label] += 1
    return [i for _, i in sorted(turns)]


@torch.no_grad()
def run_examples(exact: IntegerNetwork, split: Split, indices: Sequence[int]) -> list[Example]:
    """What the network makes of some images, step by step."""
    chosen = split.take(list(indices))
    images = chosen.images[:]
    _, trace = exact.run(images)
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
    n = spikes.shape[1]
    drawn = torch.arange(min(n, N_DRAWN)) * n // min(n, N_DRAWN)
    return Raster(layer, spikes[:, drawn].to(torch.int8), n)
