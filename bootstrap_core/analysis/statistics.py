"""Learning statistics: loss and score of each epoch, such as its accuracy, the best so far, and their JSON file.

The three states are kept apart, because they are three different networks: `training` (in the mode of the schedule),
`testing` (the piecewise-linear ANN) and `snn` (the same weights, running as spikes). Only the last gets deployed.

Source: `slayer.utils.LearningStats` of lava-dl; the accumulators have the same names.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from bootstrap_core.analysis.measures import ACCURACY, DISTANCE, ERROR, Measure
from specs.errors import IntegrityError, SnnZooError
from specs.files.whole_file import write_whole
from specs.outline import few_lines
from specs.words import first_problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "STATES",
    "DistanceStat",
    "DistanceStats",
    "EpochRecord",
    "ErrorStat",
    "ErrorStats",
    "LearningStat",
    "LearningStats",
    "LossStat",
    "Measured",
    "Stat",
    "Stats",
]

STATES = ("training", "testing", "snn")
"""Names of the states of `Stats`, in the order in which they are printed and drawn."""


class Measured(TypedDict, total=False):
    """Mean loss of one state in one epoch, with its accuracy (0 to 1), rms error or distance; None if not evaluated."""

    loss: float | None
    accuracy: float | None
    error: float | None
    distance: float | None


class EpochRecord(TypedDict):
    """Losses and scores of one epoch: one line of a metrics file, one point of the curves. Epochs count from 0."""

    epoch: int
    training: Measured
    testing: Measured
    snn: Measured


class Stat(ABC):
    """Losses and scores of one state: the sums of the open epoch, and one log entry for each closed epoch.

    Attributes:
        measure: what the scores are.
        loss_sum: sum of the losses of the samples of the open epoch.
        num_samples: number of samples of the open epoch.
        loss_log: mean loss of each closed epoch, None where there were no samples.
    """

    measure: ClassVar[Measure]

    def __init__(self) -> None:
        self.loss_log: list[float | None] = []
        self.reset()

    def reset(self) -> None:
        """Drop the sums of the open epoch; the logs stay."""
        self.loss_sum = 0.0
        self.num_samples = 0

    @abstractmethod
    def add_batch(self, loss: float, n: int, counts: Sequence[float]) -> None:
        """Add a batch of `n` samples: its mean loss, and the `counts` that the score needs besides it."""

    @property
    def loss(self) -> float | None:
        """Mean loss of the open epoch so far; None before its first sample."""
        return float(self.loss_sum / self.num_samples) if self.num_samples else None

    @property
    @abstractmethod
    def score(self) -> float | None:
        """Score of the open epoch so far; None before its first sample."""

    @property
    @abstractmethod
    def score_log(self) -> list[float | None]:
        """Score of each closed epoch, None where there were no samples."""

    def update(self) -> None:
        """Close the epoch: log its figures and start the next one at zero."""
        self.log(self.loss, self.score)
        self.reset()

    def log(self, loss: float | None, score: float | None) -> None:
        """Log the loss and the score of one more closed epoch."""
        self.loss_log.append(loss)

    @property
    def min_loss(self) -> float | None:
        """Lowest finite loss of the closed epochs, or None."""
        return min((loss for loss in self.loss_log if loss is not None and math.isfinite(loss)), default=None)

    @property
    def best_score(self) -> float | None:
        """Best score of the closed epochs, or None."""
        known = (score for score in self.score_log if score is not None and not math.isnan(score))
        return max(known, key=self.measure.rank, default=None)

    @property
    def best_epoch(self) -> int | None:
        """First closed epoch, counted from 0, with the best score, or None."""
        best = self.best_score
        return None if best is None else self.score_log.index(best)

    @property
    def improved(self) -> bool:
        """True if the last closed epoch is better than all before: the moment to save a checkpoint."""
        return self.best_epoch is not None and self.best_epoch == len(self.score_log) - 1

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self.loss_log)} epochs: {self}"

    def __str__(self) -> str:
        loss, score = self.loss, self.score
        if not self.num_samples and self.loss_log:
            loss, score = self.loss_log[-1], self.score_log[-1]
        style = ".2%" if self.measure is ACCURACY else ".5f"
        text = f"loss {_text(loss, '9.5f')}{_best(self.min_loss, '.5f')}"
        text += f"   {self.measure.name} {_text(score, f'8{style}')}{_best(self.best_score, style)}"
        return text if self.best_epoch is None else f"{text[:-1]}, epoch {self.best_epoch})"

    def state_dict(self) -> dict[str, Any]:
        """Return the open sums and the logs, as plain numbers and lists."""
        return self.state().model_dump()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned.

        Raises:
            IntegrityError: the state has another format; nothing has changed.
        """
        try:
            self.fill(self.state().model_validate(state))
        except ValidationError as error:
            raise IntegrityError(f"not the state of {type(self).__name__}: {first_problem(error)}") from error

    @abstractmethod
    def state(self) -> "_State":
        """Return the open sums and the logs."""

    def fill(self, state: Any) -> None:
        """Take the open sums and the logs of a state."""
        for name, value in state:
            setattr(self, name, list(value) if isinstance(value, list) else value)


class LearningStat(Stat):
    """Loss and accuracy of one state: the sums of the open epoch, and one log entry for each closed epoch.

    The best figures are computed from the logs, so they always agree. One name differs from lava-dl on purpose: its
    `best_accuracy` is a flag with the name of a value. Here `max_accuracy` is the value and `improved` the flag.

    Attributes:
        loss_sum, num_samples, loss_log: see `Stat`.
        correct_samples: number of correctly classified samples of the open epoch.
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

    measure = ACCURACY

    def __init__(self) -> None:
        self.accuracy_log: list[float | None] = []
        super().__init__()

    def reset(self) -> None:
        """Drop the sums of the open epoch; the logs stay."""
        super().reset()
        self.correct_samples = 0

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

    def add_batch(self, loss: float, n: int, counts: Sequence[float]) -> None:
        """Add a batch of `n` samples; `counts` is the number of right classes."""
        self.add(loss, round(counts[0]), n)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the open epoch so far, 0 to 1; None before its first sample."""
        return float(self.correct_samples / self.num_samples) if self.num_samples else None

    @property
    def score(self) -> float | None:
        """The `accuracy`."""
        return self.accuracy

    @property
    def score_log(self) -> list[float | None]:
        """The `accuracy_log`."""
        return self.accuracy_log

    @property
    def max_accuracy(self) -> float | None:
        """Highest accuracy of the closed epochs, 0 to 1, or None."""
        return self.best_score

    def log(self, loss: float | None, score: float | None) -> None:
        """Log the loss and the accuracy of one more closed epoch."""
        super().log(loss, score)
        self.accuracy_log.append(score)

    def state(self) -> "_StatState":
        """Return the open sums and the logs."""
        return _StatState(
            loss_sum=float(self.loss_sum),
            correct_samples=int(self.correct_samples),
            num_samples=int(self.num_samples),
            loss_log=list(self.loss_log),
            accuracy_log=list(self.accuracy_log),
        )


class LossStat(Stat):
    """Losses of one state of a network whose score follows from the loss."""

    def add(self, loss: float, n: int) -> None:
        """Add a batch of `n` samples with its mean loss to the open epoch."""
        if n > 0:
            self.loss_sum += loss * n
            self.num_samples += n

    def add_batch(self, loss: float, n: int, counts: Sequence[float]) -> None:
        """See `Stat`; the score counts nothing besides the loss."""
        self.add(loss, n)

    def state(self) -> "_LossState":
        """Return the open sums and the log."""
        return _LossState(
            loss_sum=float(self.loss_sum), num_samples=int(self.num_samples), loss_log=list(self.loss_log)
        )


class ErrorStat(LossStat):
    """Loss and rms error of one state of a network that gives values; the loss is the square of the error.

    Example:
        >>> stat = ErrorStat()
        >>> stat.add(loss=0.25, n=4)
        >>> stat.error
        0.5
    """

    measure = ERROR

    @property
    def error(self) -> float | None:
        """Root of the mean squared error of the open epoch so far; None before its first sample."""
        return _root(self.loss)

    @property
    def error_log(self) -> list[float | None]:
        """Root of the mean squared error of each closed epoch, None where there were no samples."""
        return [_root(loss) for loss in self.loss_log]

    @property
    def score(self) -> float | None:
        """The `error`."""
        return self.error

    @property
    def score_log(self) -> list[float | None]:
        """The `error_log`."""
        return self.error_log

    @property
    def min_error(self) -> float | None:
        """Lowest rms error of the closed epochs, or None."""
        return self.best_score


class DistanceStat(LossStat):
    """Mean distance of one state of a network that gives spike trains; it is the loss, too."""

    measure = DISTANCE

    @property
    def score(self) -> float | None:
        """The loss."""
        return self.loss

    @property
    def score_log(self) -> list[float | None]:
        """The `loss_log`."""
        return self.loss_log


def _root(loss: float | None) -> float | None:
    return None if loss is None else math.sqrt(loss)


Kind = TypeVar("Kind", bound=Stat)


class Stats(Generic[Kind]):
    """Losses and scores of a training run, in its three states.

    Attributes:
        training: the batches that the optimiser saw, in the mode of the schedule.
        testing: evaluation in ANN mode.
        snn: evaluation in SNN mode; its logs hold None for epochs without one.
    """

    def __init__(self, kind: type[Kind], form: "type[_StatsState[Any]]") -> None:
        self._form = form
        self.training = kind()
        self.testing = kind()
        self.snn = kind()

    @property
    def states(self) -> dict[str, Kind]:
        """The three states by their names, in the order of `STATES`."""
        return {"training": self.training, "testing": self.testing, "snn": self.snn}

    def update(self) -> None:
        """Close the epoch of all three states, so that their logs stay in step."""
        for stat in self.states.values():
            stat.update()

    def __repr__(self) -> str:
        return few_lines(f"{type(self).__name__} of {len(self.training.loss_log)} epochs", str(self).splitlines())

    def __str__(self) -> str:
        return "\n".join(f"{name:8}  {stat}" for name, stat in self.states.items())

    def records(self) -> list[EpochRecord]:
        """Return a record for each closed epoch, in order; `records()[-1]` is the line for a metrics file."""
        key = self.training.measure.key
        columns = [zip(stat.loss_log, stat.score_log, strict=True) for stat in self.states.values()]
        return [
            EpochRecord(epoch=epoch, **dict(zip(STATES, (_measured(key, entry) for entry in entries), strict=True)))  # type: ignore[typeddict-item]
            for epoch, entries in enumerate(zip_longest(*columns))
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
            self._fill(self._state().model_validate(state))
        except ValidationError as error:
            raise IntegrityError(f"not the state of {type(self).__name__}: {first_problem(error)}") from error

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
            self._fill(self._state().model_validate_json(Path(path).read_bytes()))
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

    def _state(self) -> "_StatsState[Any]":
        return self._form(**{name: stat.state() for name, stat in self.states.items()})

    def _fill(self, state: "_StatsState[Any]") -> None:
        for name, stat in self.states.items():
            stat.fill(getattr(state, name))


class LearningStats(Stats[LearningStat]):
    """Losses and accuracies of a bootstrap run, in its three states; see `Stats`.

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
        super().__init__(LearningStat, _StatsState[_StatState])


class ErrorStats(Stats[ErrorStat]):
    """Losses and rms errors of the training of a network that gives values, in its three states; see `Stats`."""

    def __init__(self) -> None:
        super().__init__(ErrorStat, _StatsState[_LossState])


class DistanceStats(Stats[DistanceStat]):
    """Distances of the training of a network that gives spike trains, in its three states; see `Stats`."""

    def __init__(self) -> None:
        super().__init__(DistanceStat, _StatsState[_LossState])


# JSON has no NaN or infinity, and a diverged epoch must still be recorded: such a loss is written as "nan" or "inf".
_Loss = Annotated[
    float, PlainSerializer(lambda loss: loss if math.isfinite(loss) else str(loss), float | str, when_used="json")
]
_Accuracy = Annotated[float, Field(ge=0, le=1)]


def _not_negative(loss: float) -> float:
    if loss < 0:
        raise ValueError("a sum of squares must not be below 0")
    return loss


_Square = Annotated[_Loss, AfterValidator(_not_negative)]


class _State(BaseModel):
    """Base of the JSON forms of statistics."""

    model_config = ConfigDict(extra="forbid")


class _StatState(_State):
    """JSON form of a `LearningStat`."""

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


class _LossState(_State):
    """JSON form of a `LossStat`."""

    loss_sum: _Square
    num_samples: NonNegativeInt
    loss_log: list[_Square | None]


_Form = TypeVar("_Form", bound=_State)


class _StatsState(BaseModel, Generic[_Form]):
    """JSON form of `Stats`."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[1] = 1
    training: _Form
    testing: _Form
    snn: _Form


def _measured(key: str, entry: tuple[float | None, float | None] | None) -> Measured:
    loss, score = entry or (None, None)
    return {"loss": loss, key: score}  # type: ignore[misc]


def _text(value: float | None, spec: str) -> str:
    width = int(spec.split(".")[0])
    return f"{'-':>{width}}" if value is None else f"{value:{spec}}"


def _best(value: float | None, spec: str) -> str:
    return "" if value is None else f" (best {value:{spec}})"
