"""Measures, the figures by which networks are judged, and the result of scoring a network on examples."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from bootstrap_core.network.mode import Mode
from specs.outline import few_lines
from specs.words import percent


@dataclass(frozen=True)
class Measure:
    """Figure by which a network is judged.

    Attributes:
        key: name in JSON, and the end of the names of fields, as in `validation_snn_accuracy`.
        of_loss: function that returns the figure for a mean loss; None for a share of right answers, 0 to 1, which is
            counted, shown in per cent, and better if it is higher.
    """

    name: str
    key: str
    of_loss: Callable[[float], float] | None = None

    @property
    def is_share(self) -> bool:
        """True for a share of right answers, False for an error or a distance, which follows from the loss."""
        return self.of_loss is None

    def rank(self, score: float, loss: float = 0.0) -> tuple[float, float]:
        """Return a value that is larger for a better score and, between equal scores, for a lower loss.

        >>> ERROR.rank(0.1) > ERROR.rank(0.2), ACCURACY.rank(0.1) > ACCURACY.rank(0.2)
        (True, False)
        >>> ACCURACY.rank(0.9, loss=0.3) > ACCURACY.rank(0.9, loss=0.4) > ACCURACY.rank(0.8, loss=0.1)
        True
        """
        signed = score if self.is_share else -score
        return (-math.inf if math.isnan(score) else signed), (-loss if math.isfinite(loss) else -math.inf)

    def text(self, score: float | None) -> str:
        """Return a score as text; None as a dash.

        >>> ACCURACY.text(0.9876), ERROR.text(0.012345), ERROR.text(None)
        ('98.76 %', '0.01235', '-')
        """
        return percent(score) if self.is_share else "-" if score is None else f"{score:#.4g}"


ACCURACY = Measure("accuracy", "accuracy")
"""Share of the examples that get the right class, 0 to 1."""
ERROR = Measure("rms error", "error", math.sqrt)
"""Root of the mean square of the differences of values from their targets, in the unit of the targets."""
DISTANCE = Measure("distance", "distance", float)
"""Van Rossum distance of a recording's spike trains from the wanted ones, summed over neurons; mean over recordings."""
MEASURES = {measure.key: measure for measure in (ACCURACY, ERROR, DISTANCE)}


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
