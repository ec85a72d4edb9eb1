"""Rendering of this package's templates: each page is one file, which loads nothing.

Figures must be testable without HTML, so they are frozen dataclasses that a template only formats. Pages must be safe
to share: no request, names escaped, and no script but one on the pages of a site (`pages.py`). So charts are SVG,
spikes are animated by CSS alone, and a checkbox stops them.
"""

import math
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from torch import Tensor

from bootstrap_core.analysis.spike_events import film, signed_events
from bootstrap_core.pictures import film_uri, image_uri, raster_uri
from converters.report.charts import HEIGHT, LEARNERS, WIDTH, accuracy_chart, learning_charts, output_chart
from converters.report.network_figures import Example
from specs.words import percent

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
