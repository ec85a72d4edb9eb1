"""Rendering of this package's templates and charts: each page is one file, which loads nothing.

Figures must be testable without HTML, so they are frozen dataclasses that a template only formats. Pages must be safe
to share: no request, names escaped, and no script but one on the pages of a site (`pages.py`). So charts are SVG,
spikes are animated by CSS alone, and a checkbox stops them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from torch import Tensor

from bootstrap_core.analysis.spike_events import film, signed_events
from bootstrap_core.pictures import film_uri, image_uri, raster_uri
from bootstrap_core.training.history import EpochReport
from converters.report.network_figures import Example
from specs.words import percent

WIDTH, HEIGHT = 400.0, 250.0
"""Size of a chart, in SVG units."""
LEFT, RIGHT, TOP, BOTTOM = 54.0, 388.0, 12.0, 206.0
"""Edges of the area between the axes, in SVG units."""
LARGE, DIGITS = 1000, 6
"""Magnitude from which numbers that are not whole are rounded to whole ones, and the digits of smaller ones."""
TEXT_LENGTH = 1000
"""Largest number of characters of a fact."""
MAX_MATRIX = 25
"""Largest number of classes for which the confusion matrix is shown."""
MAX_ROWS = 10
"""Largest number of classes in an image's scores; with more, those with the highest scores are shown."""
MAX_FRAMES = 64
"""Largest number of frames in the animation of an image's spikes; the page holds all of them."""
GRAPH_KEY = "Bars: histogram of the weights, in units of 1/64; heights are square roots of counts. Curves: branches."
NOTHING, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS = (*range(9), *range(0xB, 0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))
INVISIBLE = dict.fromkeys((*CONTROLS, *BIDI), "\N{REPLACEMENT CHARACTER}")
"""Characters that a page replaces: controls, lone surrogates, and those that change the direction of text."""


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


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return topic, key and value of each fact of a card, as text; epochs count from 1, and empty facts are left out.

    >>> card_rows({"training": {"epoch": 4, "epochs": 9}, "test": {"snn": {"accuracy": 0.5, "synops": 52388.35}}})
    [('training', 'epoch', '5 (of 9)'), ('training', 'epochs', '9'), ('test', 'snn', 'accuracy 0.5, synops 52,388')]
    """
    return [
        (_words(topic), _words(key), _text(key, value, facts))
        for topic, facts in card.items()
        for key, value in (facts.items() if isinstance(facts, Mapping) else [("", facts)])
        if not _is_empty(value)
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Sized) and not len(value))


def _text(key: str, value: Any, facts: Mapping[str, Any]) -> str:
    if key == "epoch" and isinstance(value, int) and "epochs" in facts:
        return f"{value + 1} (of {facts['epochs']})"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(name)} {_number(fact)}" for name, fact in value.items() if not _is_empty(fact))
    text = ", ".join(map(_number, value)) if isinstance(value, list) else _number(value)
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}..."


def _number(value: Any) -> str:
    """Return a value as text; numbers that are not whole are rounded."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.{DIGITS}g}"


def render(template: str, **names: Any) -> str:
    """Fill a template of this package. Values are escaped, and invisible characters in them replaced."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda name: (resources.files(__package__) / name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": part_text, "number": number_text, "count": "{:,.0f}".format}
    environment.globals |= {
        "accuracy_chart": accuracy_chart,
        "output_chart": output_chart,
        "learning_charts": learning_charts,
        "learning_key": [(style, name) for name, style, _ in LEARNERS],
        "score_rows": score_rows,
        "step_rows": step_rows,
        "graph_rows": graph_rows,
        "film": film,
        "film_steps": film_steps,
        "film_uri": film_uri,
        "graph_key": GRAPH_KEY,
        "image_uri": image_uri,
        "raster_uri": raster_uri,
        "signed_events": signed_events,
        "chart_width": WIDTH,
        "chart_height": HEIGHT,
        "max_frames": MAX_FRAMES,
        "max_matrix": MAX_MATRIX,
    }
    return environment.get_template(template).render(**names)


def visible(value: Any) -> Any:
    """Replace the invisible characters of a text; return any other value as it is."""
    return value.translate(INVISIBLE) if isinstance(value, str) else value


def score_rows(example: Example, ann: Tensor | None = None) -> list[tuple[int, list[tuple[str, float, float]]]]:
    """Return each class with its scores, for at most `MAX_ROWS` classes.

    A score is the program (`ann` or `snn`), its logit, and where that lies between the lowest and the highest logit of
    the program, 0..1.

    Args:
        example: image with the SNN's response.
        ann: the ANN's logits `[classes]`, or None.
    """
    programs = ({} if ann is None else {"ann": ann.tolist()}) | {"snn": example.scores.tolist()}
    shown = set(range(len(programs["snn"])))
    if len(shown) > MAX_ROWS:
        n_each = MAX_ROWS // len(programs)
        shown = {c for scores in programs.values() for c in sorted(shown, key=lambda c: -scores[c])[:n_each]}

    def part(scores: list[float], score: float) -> float:
        low, high = min(scores), max(scores)
        return round((score - low) / (high - low), 4) if high > low else 0.0

    return [
        (c, [(program, scores[c], part(scores, scores[c])) for program, scores in programs.items()])
        for c in sorted(shown)
    ]


def step_rows(by_steps: Mapping[int, float | None], ann: float | None) -> list[list[str]]:
    """Return T, accuracy, and the difference from the ANN, if there is one."""
    rows = []
    for t, accuracy in by_steps.items():
        difference = NOTHING if None in (accuracy, ann) else f"{100 * (accuracy - ann):+.2f}"  # type: ignore[operator]
        row = [str(t), "a state exceeds 24 bits" if accuracy is None else part_text(accuracy), difference]
        rows.append(row[: 2 if ann is None else 3])
    return rows


def graph_rows(layers: Iterable[Any]) -> list[tuple[str, str, str]]:
    """Return name, shape and facts of each layer of a drawing."""
    return [(layer.name, TIMES.join(map(str, layer.shape)), "; ".join(layer.facts)) for layer in layers]


def film_steps(example: Example) -> int:
    """Return the number of steps to animate: at most `MAX_FRAMES`, and 0 without neurons."""
    return 0 if example.spikes is None else min(MAX_FRAMES, len(example.spikes))


def part_text(part: float | None) -> str:
    """Return a part, 0..1, in percent that do not leave their number; a dash for None."""
    return NOTHING if part is None else percent(part).replace(" ", "\N{NO-BREAK SPACE}")


def number_text(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` significant digits, without powers of ten."""
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
