"""Result of scoring a network on examples, whatever its task."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from bootstrap_core.network.mode import Mode
from bootstrap_core.tasks.measures import Measure
from specs.outline import few_lines


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        measure: what the score is: accuracy, rms error or distance.
        n_images: number of images or recordings.
        score: figure of the `measure`; None without targets.
        loss: mean loss: of classes the cross-entropy of the logits times the `logit_scale` of the spec, of values the
            squared error, of spike trains the distance; None without targets.
        rates: mean output of each layer with neurons, None for others; input first. Of values, messages per neuron and
            step; None for an ANN.
        synops: mean synaptic operations in each layer, input first: per image for classes, else per recording and step;
            None in ANN mode.
        seconds: time spent in the network alone.
        n_correct: number of images classified correctly; None unless the network gives classes.
        by_steps: score by number of time steps, shorter runs included, in ascending order.
        overflows: number of states that left 24 bits and were changed as on the chip, by block; empty unless the
            network is an `IntegerNetwork` that allows it.
        figures: further figures of the task by their names in JSON, such as `mean_error`; None without targets.
        outputs: outputs of the network, an example in each row; of several processes, those of the own part.
        counts: number of nonzero outputs of each neuron as SNN over all steps of these outputs, int64, by layer; 0
            where nothing was counted.
    """

    measure: Measure
    mode: Mode
    time_steps: int
    n_images: int
    score: float | None
    loss: float | None
    rates: tuple[float | None, ...]
    synops: tuple[float, ...] | None
    seconds: float
    n_correct: int | None = None
    by_steps: dict[int, float | None] = field(default_factory=dict)
    overflows: dict[int, int] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)
    outputs: Tensor = field(default_factory=lambda: Tensor(0), compare=False)
    counts: tuple[Tensor, ...] = field(default=(), compare=False, repr=False)

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        first = f"Evaluation of {self.n_images:,} inputs: {self.measure.name} {self.measure.text(self.score)}{loss}"
        lines = [f"T = {t}: {self.measure.text(score)}" for t, score in self.by_steps.items() if t != self.time_steps]
        synops = self.synops or [None] * len(self.rates)
        for i, (rate, n) in enumerate(zip(self.rates, synops, strict=True)):
            found = [] if rate is None else [f"rate {rate:.3g}"]
            found += [f"{n:,.0f} synops"] if n else []
            found += [f"{self.overflows[i]:,} states beyond 24 bits"] if i in self.overflows else []
            lines += [f"block {i}: {', '.join(found)}"] if found else []
        return few_lines(f"{first} ({f'SNN, T = {self.time_steps}' if self.mode.spiking else 'ANN'})", lines)

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly, 0 to 1; only of a network that gives classes."""
        assert self.n_correct is not None, f"the network is scored by {self.measure.name}: use score"
        return self.n_correct / self.n_images

    @property
    def silent(self) -> int | None:
        """Index of the first block whose neurons never sent anything; None if all did, and in ANN mode."""
        return next((i for i, rate in enumerate(self.rates) if rate == 0 and self.mode.spiking), None)

    @property
    def images_per_second(self) -> float:
        """Throughput of the network, without loading of images."""
        return self.n_images / self.seconds
