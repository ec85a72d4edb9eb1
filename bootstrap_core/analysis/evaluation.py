"""Scores of a network: accuracy, loss, rates, synaptic operations, speed."""

import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from itertools import chain
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from bootstrap_core.data.splits import Split
from bootstrap_core.data.torch_data import TorchData
from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.inputs import AxesWarning, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Tally
from bootstrap_core.ops.heap import keep_freed_memory
from bootstrap_core.progress import Progress, no_progress
from bootstrap_core.tasks import task_of
from bootstrap_core.tasks.classes import Classes
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.tasks.task import Examples, Task
from specs.arguments import check_type
from specs.errors import DataError, SnnZooError, StateOverflowError
from specs.fields import Shape
from specs.layers.block import has_neurons, synapses_of
from specs.layers.layer import Layer
from specs.network import NetworkSpec


def batches(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs (uint8; events time first) and labels, `size` at a time. Raises `SnnZooError` for a size below 1."""
    for start in range(0, len(split), _checked(size)):
        some = slice(start, start + size)
        yield split.inputs(some), split.labels[some]


def _checked(size: int) -> int:
    if size < 1:
        raise SnnZooError(f"batch_size must be at least 1, not {size}")
    return size


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


Runnable = Network | IntegerNetwork | _Exact


@torch.no_grad()
def evaluate(
    network: Runnable,
    examples: Examples | TorchData,
    *,
    mode: Mode = Mode.SNN,
    time_steps: int | None = None,
    also_after: Sequence[int] = (),
    batch_size: int | None = None,
    task: Task | None = None,
    progress: Progress = no_progress,
    group: Group = ALONE,
) -> Evaluation:
    """Score `network` on all `examples`, in eval mode; afterwards it is in the same mode as before.

    Args:
        network: a `Network`, or an `IntegerNetwork` (SNN only).
        examples: a `Split` of images and labels, or a torch `Dataset` or `DataLoader` of them; for a network that gives
            values or spike trains, `Frames`, perhaps with targets.
        time_steps: T, by default the spec's; of events and frames, by default all of their steps.
        also_after: numbers of steps below T to score as well: such a run is the beginning of this one, so that it takes
            little extra time.
        batch_size: number of examples that run at once; affects only the speed.
        task: what the network is judged by, by default the task of its spec.
        group: processes that score a part each; all return the result for all examples, but the outputs of their part.

    Raises `DataError` if the examples are not what the network is scored on, there are none, or they have labels
    beyond the classes.
    """
    kinds, advice = (Network, IntegerNetwork, _Exact), "build_network makes one from a spec"
    check_type(network, kinds, "evaluate takes a Network or an IntegerNetwork", advice=advice)
    mode, spec = Mode(mode), network.spec
    task = task_of(spec) if task is None else task
    given: Examples = task.examples_of(examples)
    task.check_scored(given)
    if len(given) == 0:
        raise DataError(f"no {task.examples} to score")
    keep_freed_memory()
    n, n_layers = len(given), len(spec.layers)
    size = task.batch_size if batch_size is None else _checked(batch_size)
    steps = count_steps(spec, time_steps, given.inputs(slice(0, 1)))
    part = task.in_mode(given.take(group.part(n)), mode)
    outputs: list[list[Tensor]] = [[] for _ in (*also_after, steps)]
    seconds, n_done, overflows = 0.0, 0, Counter[int](getattr(network, "overflows", None))
    rates, counts = torch.zeros(n_layers, dtype=torch.float64), [torch.zeros(s, dtype=torch.int64) for s in spec.shapes]
    with _evaluating(network), warnings.catch_warnings(action="ignore", category=AxesWarning):  # time comes first
        for start in range(0, len(part), size):
            inputs = part.inputs(slice(start, start + size)).to(network.device)
            begin = time.perf_counter()
            found, tally = network.tally(inputs, mode, time_steps=time_steps, also_after=also_after)
            found = found.cpu()  # also waits for the device
            seconds += time.perf_counter() - begin
            n_now = min(size, len(part) - start)
            for kept, output in zip(outputs, (*tally.earlier, found), strict=True):
                kept.append(task.by_example(output.cpu()))
            rates += torch.tensor(tally.rates, dtype=torch.float64) * n_now
            for total, count in zip(counts, tally.counts, strict=True):
                if count is not None:
                    total += count.reshape(total.shape).cpu()
            n_done += n_now
            progress(n_done, len(part))
    sums, has_targets, own = list[list[float]](), True, torch.zeros(0)
    for t, kept in zip((*also_after, steps), outputs, strict=True):
        own = torch.cat(kept) if kept else own
        targets = task.targets(part, t)
        has_targets = targets is not None
        sums.append(task.sums(own, own if targets is None else targets) if kept else [0.0] * task.n_sums)
    overflows = Counter[int](getattr(network, "overflows", None)) - overflows
    changed = [overflows[i] for i in range(n_layers)]
    synops = count_synops(spec, counts) if mode.spiking else [0.0] * n_layers
    added = group.add([*rates.tolist(), *synops, *changed, *chain.from_iterable(sums)])
    rates, operations, beyond, counted = torch.tensor(added, dtype=torch.float64).tensor_split(
        [n_layers, 2 * n_layers, 3 * n_layers]
    )
    *earlier, figures = (
        task.figures(some.tolist(), n, has_targets=has_targets) for some in counted.chunk(len(also_after) + 1)
    )
    by_steps = {**{t: some.score for t, some in zip(also_after, earlier, strict=True)}, steps: figures.score}
    return Evaluation(
        measure=task.measure,
        mode=mode,
        time_steps=steps,
        n_images=n,
        score=figures.score,
        loss=figures.loss,
        rates=tuple(
            float(rate) / n if has_neurons(layer) and (mode.spiking or task.rates_as_ann) else None
            for layer, rate in zip(spec.layers, rates, strict=True)
        ),
        synops=tuple((operations / n / (steps if task.per_step else 1)).tolist()) if mode.spiking else None,
        seconds=seconds,
        n_correct=figures.n_correct,
        by_steps={t: by_steps[t] for t in sorted(by_steps)},
        overflows={i: int(n) for i, n in enumerate(beyond) if n},
        figures=dict(figures.others),
        outputs=own,
        counts=tuple(counts),
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


def evaluate_exactly(
    network: Network,
    examples: Examples,
    *,
    task: Task | None = None,
    progress: Progress = no_progress,
    group: Group = ALONE,
) -> tuple[Evaluation, str | None]:
    """Score `network` as SNN in integers; also return the message of a state overflow, or None.

    A network with a module of the user's own has no integers, and is scored in floats.

    From the batch in which a state leaves the hardware's 24 bits, inputs are scored in floats. Arguments are those of
    `evaluate`.
    """
    if network.own:
        return evaluate(network, examples, task=task, progress=progress, group=group), None
    exact = _Exact(network)
    with _evaluating(network):
        found = evaluate(exact, examples, task=task, progress=progress, group=group)
    (n_beyond,) = group.add([int(exact.overflow is not None)])
    elsewhere = f"a state leaves 24 bits on {task_of(network.spec).examples} of another process" if n_beyond else None
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


def count_synops(spec: NetworkSpec, counts: Sequence[Tensor]) -> list[float]:
    """Return the synaptic operations of each layer in an SNN run: spikes that arrive, times their fan-out.

    They are summed over all images and steps. Each nonzero pixel of a graded input counts at every step.

    Args:
        counts: nonzero outputs of each neuron, by layer; see `Evaluation.counts`.
    """
    shapes, found = spec.shapes, [0.0]
    for i, (layer, sources) in enumerate(zip(spec.blocks, spec.sources[1:], strict=True), 1):
        count = layer.own_fan_out * float(counts[i].sum()) if layer.own_fan_out else 0.0
        synapses = synapses_of(layer, [shapes[source] for source in sources], shapes[i])
        for source, (each, seen) in zip(sources, synapses, strict=True):
            arrived = counts[source].double().reshape(seen)
            count += float((arrived * _fan_out(each, seen).to(arrived.device)).sum())
        found.append(count)
    return found


def _fan_out(layer: Layer, shape: Shape) -> Tensor:
    """Return the number of weights in `layer` that each input of `shape` reaches; broadcasts against `shape`."""
    axes = (torch.tensor(factors, dtype=torch.float64) for factors in layer.fan_out(shape))
    return reduce(mul, (axis.reshape(-1, *[1] * (len(shape) - 1 - i)) for i, axis in enumerate(axes)))


def count_as_ann(network: Network, split: Split) -> list[Tensor]:
    """Return the number of nonzero rates of each neuron as ANN, over all images, by layer, int64."""
    found = [torch.zeros(shape, dtype=torch.int64) for shape in network.spec.shapes]
    for images, _ in batches(split, Classes.batch_size):
        for total, rate in zip(found, network.run(images.to(network.device), Mode.ANN)[1].rates, strict=True):
            total += rate.count_nonzero(0).reshape(total.shape).cpu()
    return found


@torch.no_grad()
def effective_operations(network: Network, counts: Sequence[Tensor]) -> list[float]:
    """Return the effective operations of each layer, input first: a nonzero input meets a nonzero weight.

    Args:
        network: network with the weights, which are taken as the hardware holds them.
        counts: number of nonzero outputs of each neuron, by layer: `Evaluation.counts`, or `count_as_ann`.
    """
    found = [0.0]
    for i, read in enumerate(network.spec.sources[1:], 1):
        sources = [*read, *([i] if network.spec.blocks[i - 1].own_fan_out else [])]
        synapses = network.block(i).synapses()
        met = (
            float(synapse.sums(counts[source].double(), (weight != 0).double().cpu()).sum())  # exact in float64
            for (synapse, weight), source in zip(synapses, sources, strict=bool(synapses))
        )
        found.append(sum(met))
    return found
