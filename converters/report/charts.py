"""Layout of charts: positions of lines, ticks and labels. The templates draw them as SVG."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from bootstrap_core.training.history import EpochReport
from specs.words import percent

WIDTH, HEIGHT = 400.0, 250.0
"""Size of a chart, in SVG units."""
LEFT, RIGHT, TOP, BOTTOM = 54.0, 388.0, 12.0, 206.0
"""Edges of the area between the axes, in SVG units."""


@dataclass(frozen=True)
class Axis:
    """Axis from the values `low` to `high`, at the positions `start` to `end`; `labels` are `(position, text)`."""

    low: float
    high: float
    start: float
    end: float
    label: str
    labels: tuple[tuple[float, str], ...] = ()

    def at(self, value: float) -> float:
        """Return the position of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


@dataclass(frozen=True)
class Line:
    """Line in pieces of points `(x, y)`; `style` is a class of the style sheet, `dotted` marks each point."""

    name: str
    style: str
    pieces: tuple[tuple[tuple[float, float], ...], ...]
    dotted: bool = False


@dataclass(frozen=True)
class LineChart:
    """Line chart; the last line is on top. `title` and `description` state its content in words."""

    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return round numbers, in steps of 1, 2 or 5 times a power of ten, that cover the range from `low` to `high`.

    >>> ticks(0.13, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        low, high = low - 0.5, high + 0.5
    power = 10.0 ** math.floor(math.log10((high - low) / n))
    step = next(power * part for part in (1, 2, 5, 10) if power * part * n >= (high - low) * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def accuracy_chart(by_steps: dict[int, float | None], ann: float | None = None) -> LineChart:
    """Return the chart of accuracy against T, on a logarithmic axis; None makes a gap. The ANN is a horizontal line."""
    known = {t: accuracy for t, accuracy in by_steps.items() if accuracy is not None}
    lowest = min([*known.values(), *([] if ann is None else [ann])], default=0.0)
    y = _vertical("accuracy", _percents(lowest, 1.0))
    longest = max(by_steps)
    marked = {math.log2(t): str(t) for t in by_steps if t == longest or (t & (t - 1) == 0 and 1.3 * t < longest)}
    x = _horizontal("time steps T", 0.0, max(1.0, math.log2(longest)), marked)
    pieces = _pieces(x, y, ((math.log2(t), accuracy) for t, accuracy in by_steps.items()))
    said = "SNN: " + ", ".join(f"{percent(accuracy)} at T={t}" for t, accuracy in known.items())
    lines = [Line("SNN", "snn", pieces, dotted=True)]
    if ann is not None:
        said = f"ANN: {percent(ann)}. {said}"
        lines.insert(0, Line("ANN", "ann", (((LEFT, y.at(ann)), (RIGHT, y.at(ann))),)))
    return LineChart("Accuracy against time steps", f"{said}.", x, y, tuple(lines))


LEARNERS = (
    ("training", "other", "training"),
    ("validation, ANN", "ann", "validation_ann"),
    ("validation, SNN", "snn", "validation_snn"),
)
"""Lines of `learning_charts`: name, class in the style sheet, and prefix of the fields of `EpochReport`."""


def learning_charts(reports: Sequence[EpochReport]) -> tuple[LineChart, LineChart]:
    """Return the charts of accuracy and of loss over the epochs, which count from 1."""
    kept = [report for report in reports if report.best]  # the last one was kept; other programs may mark none
    best = kept[-1] if kept else max(reports, key=lambda report: report.rank)
    last = reports[-1]
    accuracy = _learning_chart(
        reports,
        "accuracy",
        f"Best validation accuracy of the SNN: {percent(best.validation_snn_score)}, in epoch {best.epoch + 1} of "
        f"{len(reports)}. Last epoch: SNN {percent(last.validation_snn_score)}"
        f"{'' if last.validation_ann_score is None else f', ANN {percent(last.validation_ann_score)}'}.",
    )
    known = ((name, getattr(last, f"{field}_loss")) for name, _, field in LEARNERS)
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in known if loss is not None)
    return accuracy, _learning_chart(reports, "loss", f"After the last epoch: {losses}.")


def _learning_chart(reports: Sequence[EpochReport], figure: str, description: str) -> LineChart:
    name = "loss" if figure == "loss" else "score"
    curves = [
        [(report.epoch + 1, _finite(getattr(report, f"{field}_{name}"))) for report in reports]
        for _, _, field in LEARNERS
    ]
    known = [value for curve in curves for _, value in curve if value is not None] or [0.0]
    n_epochs = max(report.epoch for report in reports) + 1
    x = _horizontal("epoch", 1.0, max(2.0, n_epochs), _whole_marks(n_epochs))
    y = _vertical(figure, (_percents if figure == "accuracy" else _numbers)(min(known), max(known)))
    return LineChart(
        f"{figure.capitalize()} over the epochs",
        description,
        x,
        y,
        tuple(
            Line(name, style, _pieces(x, y, curve), dotted=style == "snn")
            for (name, style, _), curve in zip(LEARNERS, curves, strict=True)
        ),
    )


def output_chart(over_time: Tensor, classes: Sequence[str], label: int) -> LineChart:
    """Return the chart of the outputs over time, `[T, classes]`, in which the answer and the label stand out."""
    rows = over_time.tolist()
    answer = int(over_time[-1].argmax())
    y = _vertical("mean output", _numbers(float(over_time.min()), float(over_time.max()), 4))
    x = _horizontal("time step", 1.0, max(2.0, len(rows)), _whole_marks(len(rows)))
    styles = {label: "label"} | {answer: "snn"}
    order = [c for c in range(len(classes)) if c not in styles] + list(styles)
    lines = tuple(
        Line(
            classes[c],
            styles.get(c, "other"),
            _pieces(x, y, ((t, row[c]) for t, row in enumerate(rows, 1))),
            c in styles,
        )
        for c in order
    )
    leaders = [max(range(len(row)), key=row.__getitem__) for row in rows]
    settled = max((t + 1 for t, leader in enumerate(leaders) if leader != answer), default=0) + 1
    said = f"{classes[answer]} leads from step {settled} of {len(rows)} on."
    return LineChart("Output over time", said, x, y, lines)


def _percents(low: float, high: float) -> dict[float, str]:
    """Return the marks of parts, 0..1, with their texts."""
    return {level: f"{100 * level:.4g} %" for level in ticks(low, high) if 0 <= level <= 1}


def _numbers(low: float, high: float, n: int = 5) -> dict[float, str]:
    return {level: f"{level:g}" for level in ticks(low, high, n)}


def _vertical(label: str, marks: Mapping[float, str]) -> Axis:
    """Return an axis from the first mark to the last."""
    return _labelled(Axis(min(marks), max(marks), BOTTOM, TOP, label), marks)


def _horizontal(label: str, low: float, high: float, marks: Mapping[float, str]) -> Axis:
    return _labelled(Axis(low, high, LEFT + 8, RIGHT - 8, label), marks)


def _pieces(
    x: Axis, y: Axis, points: Iterable[tuple[float, float | None]]
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the positions of points, in pieces that end where a value is missing."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((x.at(at), y.at(value)))
    return tuple(tuple(piece) for piece in pieces if piece)


def _whole_marks(n: int) -> dict[float, str]:
    """Return 1 and up to eight more whole numbers up to `n`."""
    return {i: str(i) for i in range(1, n + 1) if i == 1 or i % max(1, -(-n // 8)) == 0}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _labelled(axis: Axis, marks: Mapping[float, str]) -> Axis:
    return replace(axis, labels=tuple((axis.at(value), text) for value, text in marks.items()))
