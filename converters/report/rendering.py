"""Templates of this package, filled: pages that need no other file, with no script, that fetch nothing."""

import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bootstrap_core.analysis.spike_events import film
from converters.report.charts import HEIGHT, LEARNERS, WIDTH, accuracy_chart, learning_charts, output_chart
from converters.report.network_figures import Example
from converters.report.pictures import film_uri, image_uri, raster_uri

__all__ = ["ScoreRow", "film_steps", "render", "score_rows", "visible"]

MAX_MATRIX = 25
"""Classes, at most, of which the whole confusion matrix is shown."""
MAX_ROWS = 10
"""Classes of an image's scores; of more, those that either program puts first."""
MAX_FRAMES = 64
"""Of the animation of an image's spikes: the page holds each."""
GRAPH_KEY = "Bars: how often weights occur, in units of 1/64; as high as the root of their number. Curves: skips."
NOTHING = "\N{EN DASH}"
BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS = (*range(9), *range(0xB, 0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))
INVISIBLE = dict.fromkeys((*CONTROLS, *BIDI), "\N{REPLACEMENT CHARACTER}")
"""What a name in a file may hold and a page may not: controls, halves of characters, what turns text around."""


def render(template: str, **names: Any) -> str:
    """A template of this package, filled. Every value is escaped, and invisible characters in it are shown.

    Args:
        template: its file name.
        names: what it uses.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda name: (resources.files(__package__) / name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "count": "{:,.0f}".format}
    environment.globals |= {
        "accuracy_chart": accuracy_chart,
        "output_chart": output_chart,
        "learning_charts": learning_charts,
        "learning_key": [(style, name) for name, style, _ in LEARNERS],
        "score_rows": score_rows,
        "film": film,
        "film_steps": film_steps,
        "film_uri": film_uri,
        "graph_key": GRAPH_KEY,
        "image_uri": image_uri,
        "raster_uri": raster_uri,
        "chart_width": WIDTH,
        "chart_height": HEIGHT,
        "max_matrix": MAX_MATRIX,
    }
    return environment.get_template(template).render(**names)


def visible(value: Any) -> Any:
    """Text with its invisible characters replaced; anything else as it is."""
    return value.translate(INVISIBLE) if isinstance(value, str) else value


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one class, and each as a part of the way from its program's lowest to its highest.

    The ANN's are None where there is no ANN.
    """

    label: int
    snn: float
    snn_part: float
    ann: float | None = None
    ann_part: float | None = None


def score_rows(example: Example, ann: Any = None) -> list[ScoreRow]:
    """Scores of an image by class, of at most `MAX_ROWS` classes.

    Args:
        example: what the SNN made of the image.
        ann: the ANN's logits `[classes]`, or None.
    """
    programs = [example.scores.tolist()] + ([] if ann is None else [ann.tolist()])
    n_classes = len(programs[0])
    shown = set(range(n_classes))
    if n_classes > MAX_ROWS:
        n_each = MAX_ROWS // len(programs)
        shown = {c for scores in programs for c in sorted(shown, key=lambda c: -scores[c])[:n_each]}
    parts = [_parts(scores) for scores in programs]
    return [
        ScoreRow(c, *(value for scores, part in zip(programs, parts, strict=True) for value in (scores[c], part[c])))
        for c in sorted(shown)
    ]


def film_steps(example: Example) -> int:
    """Steps of an image that are animated: all if they are not too many, none without neurons."""
    return 0 if example.spikes is None else min(MAX_FRAMES, len(example.spikes))


def _parts(scores: list[float]) -> list[float]:
    low, high = min(scores), max(scores)
    return [round((score - low) / (high - low), 4) if high > low else 0.0 for score in scores]


def _percent(part: float | None) -> str:
    return NOTHING if part is None else f"{100 * part:.2f}\N{NO-BREAK SPACE}%"


def _number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits, never in powers of ten."""
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
