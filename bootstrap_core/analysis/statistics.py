"""Learning statistics: loss and accuracy of each epoch, the best so far, and their JSON file.

The three states are kept apart, because they are three different networks: `training` (in the mode of the schedule),
`testing` (the piecewise-linear ANN) and `snn` (the same weights, running as spikes). Only the last gets deployed.

Source: `slayer.utils.LearningStats` of lava-dl; the accumulators have the same names.
"""

import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PlainSerializer, ValidationError, model_validator

from specs.errors import IntegrityError, SnnZooError
from specs.files.whole_file import write_whole
from specs.outline import few_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STATES", "EpochRecord", "LearningStat", "LearningStats", "Measured", "first_problem"]

STATES = ("training", "testing", "snn")
"""Names of the states of `LearningStats`, in the order in which they are printed and drawn."""


class Measured(TypedDict):
    """Mean loss and accuracy (0 to 1) of one state in one epoch; None where it was not evaluated."""

    loss: float | None
    accuracy: float | None


class EpochRecord(TypedDict):
    """Losses and accuracies of one epoch: one line of a metrics file, one point of the curves. Epochs count from 0."""

    epoch: int
    training: Measured
    testing: Measured
    snn: Measured


class LearningStat:
    """Loss and accuracy of one state: the sums of the open epoch, and one log entry for each closed epoch.

    The best figures are computed from the logs, so they always agree. One name differs from lava-dl on purpose: its
    `best_accuracy` is a flag with the name of a value. Here `max_accuracy` is the value and `improved` the flag.

    Attributes:
        loss_sum: sum of the losses of the samples of the open epoch.
        correct_samples: number of correctly classified samples of the open epoch.
        num_samples: number of samples of the open epoch.
        loss_log: mean loss of each closed epoch, None where there were no samples.
        accuracy_log: accuracy of each closed epoch, from 0 to 1, None where there were no samples.

    Example:
        >>> stat = LearningStat()
        >>> stat.add(loss=0.5, correct=3, n=4)
        >>> stat.loss, stat.accuracy
        (0.5, 0.75)
        >>> stat.update()
        >>> stat.improved, stat.best_epoch, stat.num_samples
        (True, 0, 0)
    """

    def __init__(self) -> None:
        self.loss_log: list[float | None] = []
        self.accuracy_log: list[float | None] = []
        self.reset()

    def reset(self) -> None:
        """Drop the sums of the open epoch; the logs stay."""
        self.loss_sum = 0.0
        self.correct_samples = 0
        self.num_samples = 0

    def add(self, loss: float, correct: int, n: int) -> None:
        """Add a batch of `n` samples to the open epoch.

        Args:
            loss: mean loss of the batch, as `torch.nn.functional.cross_entropy(...).item()` returns it.
            correct: correctly classified samples, 0 to n.
            n: samples in the batch.

        Raises:
            SnnZooError: the counts are impossible.
        """
        if not 0 <= correct <= n:
            raise SnnZooError(f"correct = {correct} of n = {n} samples: counts must satisfy 0 <= correct <= n")
        if n > 0:  # the mean loss of no samples is NaN
            self.loss_sum += loss * n
            self.correct_samples += correct
            self.num_samples += n

    @property
    def loss(self) -> float | None:
        """Mean loss of the open epoch so far; None before its first sample."""
        return float(self.loss_sum / self.num_samples) if self.num_samples else None

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the open epoch so far, 0 to 1; None before its first sample."""
        return float(self.correct_samples / self.num_samples) if self.num_samples else None

    def update(self) -> None:
        """Close the epoch: log its loss and accuracy and start the next one at zero."""
        self.loss_log.append(self.loss)
        self.accuracy_log.append(self.accuracy)
        self.reset()

    @property
    def min_loss(self) -> float | None:
        """Lowest finite loss of the closed epochs, or None."""
        return min((loss for loss in self.loss_log if loss is not None and math.isfinite(loss)), default=None)

    @property
    def max_accuracy(self) -> float | None:
        """Highest accuracy of the closed epochs, 0 to 1, or None."""
        return max((accuracy for accuracy in self.accuracy_log if accuracy is not None), default=None)

    @property
    def best_epoch(self) -> int | None:
        """First closed epoch, counted from 0, that reached `max_accuracy`, or None."""
        best = self.max_accuracy
        return None if best is None else self.accuracy_log.index(best)

    @property
    def improved(self) -> bool:
        """True if the last closed epoch has a higher accuracy than all before: the moment to save a checkpoint."""
        return self.best_epoch is not None and self.best_epoch == len(self.accuracy_log) - 1

    def __repr__(self) -> str:
        return f"LearningStat of {len(self.loss_log)} epochs: {self}"

    def __str__(self) -> str:
        loss, accuracy = self.loss, self.accuracy
        if not self.num_samples and self.loss_log:
            loss, accuracy = self.loss_log[-1], self.accuracy_log[-1]
        text = f"loss {_text(loss, '9.5f')}{_best(self.min_loss, '.5f')}"
        text += f"   accuracy {_text(accuracy, '8.2%')}{_best(self.max_accuracy, '.2%')}"
        return text if self.best_epoch is None else f"{text[:-1]}, epoch {self.best_epoch})"

    def state_dict(self) -> dict[str, Any]:
        """Return the open sums and the logs, as plain numbers and lists."""
        return _StatState.of(self).model_dump()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned.

        Raises:
            IntegrityError: the state has another format; nothing has changed.
        """
        try:
            _StatState.model_validate(state).fill(self)
        except ValidationError as error:
            raise IntegrityError(f"not the state of a LearningStat: {first_problem(error)}") from error


class LearningStats:
    """Losses and accuracies of a bootstrap run, in its three states.

    Attributes:
        training: the batches that the optimiser saw, in the mode of the schedule.
        testing: evaluation in ANN mode.
        snn: evaluation in SNN mode; its logs hold None for epochs without one.

    Example:
        >>> stats = LearningStats()
        >>> stats.training.add(loss=0.25, correct=7, n=8)
        >>> stats.update()
        >>> print(stats)
        training  loss   0.25000 (best 0.25000)   accuracy   87.50% (best 87.50%, epoch 0)
        testing   loss         -   accuracy        -
        snn       loss         -   accuracy        -
    """

    def __init__(self) -> None:
        self.training = LearningStat()
        self.testing = LearningStat()
        self.snn = LearningStat()

    def update(self) -> None:
        """Close the epoch of all three states, so that their logs stay in step."""
        for name in STATES:
            getattr(self, name).update()

    def __repr__(self) -> str:
        return few_lines(f"LearningStats of {len(self.training.loss_log)} epochs", str(self).splitlines())

    def __str__(self) -> str:
        return "\n".join(f"{name:8}  {getattr(self, name)}" for name in STATES)

    def records(self) -> list[EpochRecord]:
        """Return a record for each closed epoch, in order; `records()[-1]` is the line for a metrics file."""
        columns = [
            zip(stat.loss_log, stat.accuracy_log, strict=True) for stat in (self.training, self.testing, self.snn)
        ]
        return [
            EpochRecord(epoch=epoch, training=_measured(training), testing=_measured(testing), snn=_measured(snn))
            for epoch, (training, testing, snn) in enumerate(zip_longest(*columns))
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return all three states as plain numbers and lists, for a checkpoint."""
        return self._state().model_dump()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned.

        Raises:
            IntegrityError: the state has another format; nothing has changed.
        """
        try:
            self._fill(_StatsState.model_validate(state))
        except ValidationError as error:
            raise IntegrityError(f"not the state of LearningStats: {first_problem(error)}") from error

    def save(self, path: str | Path) -> Path:
        """Write all three states as JSON and return the path; the file appears whole or not at all."""
        return write_whole(path, (self._state().model_dump_json(indent=1) + "\n").encode())

    def load(self, path: str | Path) -> None:
        """Load the states that `save` wrote.

        Raises:
            IntegrityError: the file has another format; nothing has changed.
            SnnZooError: the file cannot be read.
        """
        try:
            self._fill(_StatsState.model_validate_json(Path(path).read_bytes()))
        except ValidationError as error:
            raise IntegrityError(f"{path} is not a learning statistics file: {first_problem(error)}") from error
        except OSError as error:
            raise SnnZooError(f"cannot read learning statistics {path}: {error.strerror}") from error

    def plot(self, path: str | Path | None = None, figsize: tuple[float, float] = (9.0, 3.6)) -> "Figure":
        """Draw the curves of all closed epochs; with a `path`, also write them as PNG.

        Args:
            path: path of the PNG; None to draw only.
            figsize: width and height in inches.

        Raises:
            SnnZooError: no epoch is closed, or matplotlib is not installed.
        """
        from bootstrap_core.analysis.plots import draw_curves, save_png

        figure = draw_curves(self, figsize=figsize)
        if path is not None:
            save_png(figure, path)
        return figure

    def _state(self) -> "_StatsState":
        return _StatsState(**{name: _StatState.of(getattr(self, name)) for name in STATES})

    def _fill(self, state: "_StatsState") -> None:
        for name in STATES:
            getattr(state, name).fill(getattr(self, name))


# JSON has no NaN or infinity, and a diverged epoch must still be recorded: such a loss is written as "nan" or "inf".
_Loss = Annotated[
    float, PlainSerializer(lambda loss: loss if math.isfinite(loss) else str(loss), float | str, when_used="json")
]
_Accuracy = Annotated[float, Field(ge=0, le=1)]


class _StatState(BaseModel):
    """JSON form of a `LearningStat`."""

    model_config = ConfigDict(extra="forbid")
    loss_sum: _Loss
    correct_samples: NonNegativeInt
    num_samples: NonNegativeInt
    loss_log: list[_Loss | None]
    accuracy_log: list[_Accuracy | None]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.correct_samples > self.num_samples:
            raise ValueError(f"{self.correct_samples} correct of {self.num_samples} samples")
        if len(self.loss_log) != len(self.accuracy_log):
            raise ValueError(f"{len(self.loss_log)} losses but {len(self.accuracy_log)} accuracies")
        return self

    @classmethod
    def of(cls, stat: LearningStat) -> Self:
        return cls(
            loss_sum=float(stat.loss_sum),
            correct_samples=int(stat.correct_samples),
            num_samples=int(stat.num_samples),
            loss_log=list(stat.loss_log),
            accuracy_log=list(stat.accuracy_log),
        )

    def fill(self, stat: LearningStat) -> None:
        stat.loss_sum, stat.correct_samples, stat.num_samples = self.loss_sum, self.correct_samples, self.num_samples
        stat.loss_log, stat.accuracy_log = list(self.loss_log), list(self.accuracy_log)


class _StatsState(BaseModel):
    """JSON form of `LearningStats`."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[1] = 1
    training: _StatState
    testing: _StatState
    snn: _StatState


def _measured(entry: tuple[float | None, float | None] | None) -> Measured:
    loss, accuracy = entry or (None, None)
    return Measured(loss=loss, accuracy=accuracy)


def _text(value: float | None, spec: str) -> str:
    width = int(spec.split(".")[0])
    return f"{'-':>{width}}" if value is None else f"{value:{spec}}"


def _best(value: float | None, spec: str) -> str:
    return "" if value is None else f" (best {value:{spec}})"


def first_problem(error: ValidationError) -> str:
    """Return field and message of the first problem, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
