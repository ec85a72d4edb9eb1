"""Scores of a network: accuracy, loss, rates, synaptic operations, speed."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import mul
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from bootstrap_core.analysis.measures import ACCURACY, Measure
from bootstrap_core.data.datasets import Split, check_split
from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.inputs import count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Tally
from bootstrap_core.ops.heap import keep_freed_memory
from bootstrap_core.progress import Progress, no_progress
from specs.arguments import check_type
from specs.errors import DataError, SnnZooError, StateOverflowError
from specs.fields import Shape
from specs.layers.block import has_neurons, skips_of
from specs.layers.layer import Layer
from specs.network import NetworkSpec
from specs.outline import few_lines

__all__ = [
    "Evaluation",
    "Runnable",
    "Score",
    "accuracy_by_steps",
    "batches",
    "count_synops",
    "evaluate",
    "evaluate_exactly",
    "score_exactly",
]


@runtime_checkable
class Runnable(Protocol):
    """Network that `evaluate` can score: a `Network` or an `IntegerNetwork`."""

    @property
    def spec(self) -> NetworkSpec:
        """Spec of the network."""
        ...

    @property
    def device(self) -> torch.device:
        """Device that the network runs on."""
        ...

    def tally(
        self,
        images: Tensor,
        mode: Mode | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        """Return logits `[N, classes]` and the counted outputs of each layer; see `Network.tally`."""
        ...


class Score(Protocol):
    """Result of `evaluate`, `score_values` or `score_spike_trains`."""

    measure: ClassVar[Measure]

    @property
    def score(self) -> float | None:
        """Figure of the `measure`; None if there are no targets."""
        ...

    @property
    def loss(self) -> float | None:
        """Mean loss; None if there are no targets."""
        ...

    @property
    def counts(self) -> tuple[float, ...]:
        """Counts that the score needs besides the loss; see `Stat.add_batch`."""
        ...

    @property
    def n_samples(self) -> int:
        """Number of images or recordings."""
        ...

    @property
    def mode(self) -> Mode:
        """SNN or ANN."""
        ...

    @property
    def time_steps(self) -> int:
        """T."""
        ...

    @property
    def silent(self) -> int | None:
        """Index of the first block whose neurons never sent anything; None if all did, and in ANN mode."""
        ...


Scored = TypeVar("Scored", bound=Score)


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        mode: SNN or ANN.
        time_steps: T.
        n_images: number of images.
        n_correct: number of images classified correctly.
        loss: mean cross-entropy of the logits times the `logit_scale` of the spec.
        rates: mean rate of each layer with neurons, None for others; input first.
        synops: mean synaptic operations per image in each layer, input first; None in ANN mode.
        seconds: time spent in the network alone.
        correct_after: number of images that shorter runs classify correctly, by their number of steps.
        overflows: number of states that left 24 bits and were changed as on the chip, by block; empty unless the
            network is an `IntegerNetwork` that allows it.
    """

    measure: ClassVar[Measure] = ACCURACY

    mode: Mode
    time_steps: int
    n_images: int
    n_correct: int
    loss: float
    rates: tuple[float | None, ...]
    synops: tuple[float, ...] | None
    seconds: float
    correct_after: dict[int, int] = field(default_factory=dict)
    overflows: dict[int, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        first = f"Evaluation: {self.accuracy:.2%} of {self.n_images:,} images are right, loss {self.loss:.4g}"
        lines = [f"T = {t}: {accuracy:.2%}" for t, accuracy in self.by_steps.items() if t != self.time_steps]
        synops = self.synops or [None] * len(self.rates)
        for i, (rate, n) in enumerate(zip(self.rates, synops, strict=True)):
            found = [] if rate is None else [f"rate {rate:.3g}"]
            found += [f"{n:,.0f} synops per image"] if n else []
            found += [f"{self.overflows[i]:,} states beyond 24 bits"] if i in self.overflows else []
            lines += [f"block {i}: {', '.join(found)}"] if found else []
        return few_lines(f"{first} ({f'SNN, T = {self.time_steps}' if self.mode.spiking else 'ANN'})", lines)

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly, 0 to 1."""
        return self.n_correct / self.n_images

    @property
    def score(self) -> float:
        """The `accuracy`."""
        return self.accuracy

    @property
    def counts(self) -> tuple[float, ...]:
        """Number of images classified correctly."""
        return (self.n_correct,)

    @property
    def n_samples(self) -> int:
        """The `n_images`."""
        return self.n_images

    @property
    def by_steps(self) -> dict[int, float]:
        """Accuracy by number of time steps, shorter runs included, in ascending order."""
        counts = {**self.correct_after, self.time_steps: self.n_correct}
        return {t: counts[t] / self.n_images for t in sorted(counts)}

    @property
    def silent(self) -> int | None:
        """Index of the first block whose neurons never spiked; None if all spiked, and in ANN mode."""
        return next((i for i, rate in enumerate(self.rates) if rate == 0 and self.mode.spiking), None)

    @property
    def images_per_second(self) -> float:
        """Throughput of the network, without loading of images."""
        return self.n_images / self.seconds


def batches(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs (uint8; events time first) and labels, `size` at a time. Raises `SnnZooError` for a size below 1."""
    if size < 1:
        raise SnnZooError(f"batch_size must be at least 1, not {size}")
    for start in range(0, len(split), size):
        some = slice(start, start + size)
        yield split.inputs(some), split.labels[some]


@torch.no_grad()
def evaluate(
    network: Runnable,
    split: Split,
    *,
    mode: Mode = Mode.SNN,
    time_steps: int | None = None,
    also_after: Sequence[int] = (),
    batch_size: int = 250,
    progress: Progress = no_progress,
    group: Group = ALONE,
) -> Evaluation:
    """Score `network` on all images of `split`, in eval mode; afterwards it is in the same mode as before.

    Args:
        network: a `Network`, or an `IntegerNetwork` (SNN only).
        split: images and labels.
        mode: SNN or ANN.
        time_steps: T, by default the spec's; of events, by default all of their steps.
        also_after: numbers of steps below T to score as well: such a run is the beginning of this one, so that it takes
            little extra time.
        batch_size: number of images that run at once; affects only the speed.
        progress: called after each batch with the number of images done and of all images.
        group: processes that score a part each; all return the result for the whole split.

    Raises:
        DataError: `split` is not a `Split`, is empty, or has labels beyond the classes.
        SnnZooError: `network` is not a network, or `mode` not a mode.
    """
    check_type(
        network, Runnable, "evaluate takes a Network or an IntegerNetwork", advice="build_network makes one from a spec"
    )
    mode = Mode(mode)
    if not network.spec.gives_classes:
        what = f"{network.spec.name} gives {network.spec.gives}, not classes"
        raise SnnZooError(f"{what}: zoo eval and zoo predict run it on {network.spec.input.encoding}")
    check_split(split, network.spec.n_classes)
    if len(split) == 0:
        raise DataError("no images to score: the split is empty")
    keep_freed_memory()
    spec = network.spec
    steps = count_steps(spec, time_steps, split.inputs(slice(0, 1)))
    n_correct, correct_after, loss, seconds = 0, [0] * len(also_after), 0.0, 0.0
    rates = torch.zeros(len(spec.layers), dtype=torch.float64)
    synops = torch.zeros(len(spec.layers), dtype=torch.float64)
    part = split.take(group.part(len(split)))
    n_done, overflows = 0, Counter[int](getattr(network, "overflows", None))
    with _evaluating(network):
        for images, labels in batches(part, batch_size):
            images, labels = images.to(network.device), labels.to(network.device)
            start = time.perf_counter()
            logits, tally = network.tally(images, mode, time_steps=time_steps, also_after=also_after)
            n_correct += int((logits.argmax(1) == labels).sum())  # also waits for the device
            seconds += time.perf_counter() - start
            for i, earlier in enumerate(tally.earlier):
                correct_after[i] += int((earlier.argmax(1) == labels).sum())
            loss += float(torch.nn.functional.cross_entropy(logits * spec.logit_scale, labels, reduction="sum"))
            rates += torch.tensor(tally.rates, dtype=torch.float64) * len(labels)
            if mode.spiking:
                synops += torch.tensor(count_synops(spec, tally), dtype=torch.float64)
            n_done += len(labels)
            progress(n_done, len(part))
    n_images, n_layers = len(split), len(spec.layers)
    overflows = Counter[int](getattr(network, "overflows", None)) - overflows
    beyond = [overflows[i] for i in range(n_layers)]
    correct, loss, *sums = group.add([n_correct, loss, *rates.tolist(), *synops.tolist(), *beyond, *correct_after])
    rates, synops, changed, after = torch.tensor(sums, dtype=torch.float64).split([*[n_layers] * 3, len(also_after)])
    return Evaluation(
        mode=mode,
        time_steps=steps,
        n_images=n_images,
        n_correct=int(correct),
        loss=loss / n_images,
        rates=tuple(
            float(rate) / n_images if has_neurons(layer) else None
            for layer, rate in zip(spec.layers, rates, strict=True)
        ),
        synops=tuple((synops / n_images).tolist()) if mode.spiking else None,
        seconds=seconds,
        correct_after=dict(zip(also_after, map(int, after), strict=True)),
        overflows={i: int(n) for i, n in enumerate(changed) if n},
    )


@contextmanager
def _evaluating(network: object) -> Iterator[None]:
    """Put a network, perhaps inside a wrapper, in eval mode, and back in training mode if it was."""
    network = getattr(network, "network", network)
    trained = network if isinstance(network, nn.Module) and network.training else None
    if trained is not None:
        trained.eval()
    try:
        yield
    finally:
        if trained is not None:
            trained.train()


class _Exact:
    """Network that runs in integers; after a state has left the hardware's 24 bits, in floats, which allow it."""

    def __init__(self, network: Network) -> None:
        self.spec, self.device = network.spec, network.device
        self.integers, self.floats = IntegerNetwork(network), network
        self.overflow: str | None = None

    def tally(self, images: Tensor, mode: Mode | None = None, **options: Any) -> tuple[Tensor, Tally]:
        if self.overflow is None:
            try:
                logits, tally = self.integers.tally(images, mode, **options)
                return logits.to(self.device), tally
            except StateOverflowError as error:
                self.overflow = str(error)
        return self.floats.tally(images, mode, **options)


def evaluate_exactly(
    network: Network, split: Split, *, progress: Progress = no_progress, group: Group = ALONE
) -> tuple[Evaluation, str | None]:
    """Score `network` as SNN in integers, as `score_exactly` does; also return the message of an overflow, or None."""
    return score_exactly(
        network, lambda exact: evaluate(exact, split, progress=progress, group=group), group=group, what="images"
    )


def score_exactly(
    network: Network, score: Callable[[Runnable], Scored], *, group: Group, what: str
) -> tuple[Scored, str | None]:
    """Score `network` in integers by `score`; also return the message of a state overflow, or None.

    From the batch in which a state leaves the hardware's 24 bits, inputs are scored in floats. `what` names them.
    """
    exact = _Exact(network)
    with _evaluating(network):
        found = score(exact)
    (n_beyond,) = group.add([int(exact.overflow is not None)])
    elsewhere = f"a state leaves 24 bits on {what} of another process" if n_beyond else None
    return found, exact.overflow or elsewhere


def accuracy_by_steps(
    network: Runnable, split: Split, steps: Iterable[int], *, batch_size: int = 250
) -> dict[int, float | None]:
    """Return the SNN accuracy for each number of time steps, in ascending order.

    It is None for the first T at which a state leaves the hardware's 24 bits, and for all larger T. The longest run
    also scores the shorter ones; if it overflows, they are tried again without it.
    """
    rising = sorted(set(steps))
    for n in range(len(rising), 0, -1):
        *shorter, longest = rising[:n]
        with suppress(StateOverflowError):
            score = evaluate(network, split, time_steps=longest, also_after=shorter, batch_size=batch_size)
            return {t: score.by_steps.get(t) for t in rising}
    return dict.fromkeys(rising)


def count_synops(spec: NetworkSpec, tally: Tally) -> list[float]:
    """Return the synaptic operations of each layer in an SNN run: spikes that arrive, times their fan-out.

    They are summed over all images and steps. Each nonzero pixel of a graded input counts at every step.
    """
    shapes = spec.shapes

    def reached(layer: Layer, source: int, seen: Shape) -> float:
        """Return the operations of `layer` on spikes of block `source`, which it reads in the shape `seen`."""
        arrived = tally.counts[source]
        assert arrived is not None
        return float((arrived.double().reshape(seen) * _fan_out(layer, seen).to(arrived.device)).sum())

    counts = [0.0]
    for i, layer in enumerate(spec.layers[1:], 1):
        count = reached(layer, i - 1, shapes[i - 1])
        for skip in skips_of(layer):
            as_layer, seen = skip.as_layer(shapes[skip.source], shapes[i])
            count += reached(as_layer, skip.source, seen)
        own = tally.counts[i]
        counts.append(count + (layer.own_fan_out * float(own.sum()) if own is not None else 0.0))
    return counts


def _fan_out(layer: Layer, shape: Shape) -> Tensor:
    """Return the number of weights in `layer` that each input of `shape` reaches; broadcasts against `shape`."""
    axes = (torch.tensor(factors, dtype=torch.float64) for factors in layer.fan_out(shape))
    return reduce(mul, (axis.reshape(-1, *[1] * (len(shape) - 1 - i)) for i, axis in enumerate(axes)))
