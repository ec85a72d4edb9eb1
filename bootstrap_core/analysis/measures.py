"""Measures: the figures by which networks are judged, how reports name them, and which is better."""

from collections.abc import Callable
from dataclasses import dataclass

from specs.words import percent

__all__ = ["ACCURACY", "DISTANCE", "ERROR", "Measure"]


@dataclass(frozen=True)
class Measure:
    """Figure by which a network is judged.

    Attributes:
        name: name in printed texts.
        key: name in JSON, and the end of the names of fields, as in `validation_snn_accuracy`.
        higher_is_better: True if a higher figure is a better one.
        style: format of the figure as text.
    """

    name: str
    key: str
    higher_is_better: bool
    style: Callable[[float], str]

    def rank(self, score: float) -> float:
        """Return a number that is higher for a better score.

        >>> ERROR.rank(0.1) > ERROR.rank(0.2), ACCURACY.rank(0.1) > ACCURACY.rank(0.2)
        (True, False)
        """
        return score if self.higher_is_better else -score

    def text(self, score: float | None) -> str:
        """Return a score as text; None as a dash.

        >>> ACCURACY.text(0.9876), ERROR.text(0.012345), ERROR.text(None)
        ('98.76 %', '0.01235', '-')
        """
        return "-" if score is None else self.style(score)


ACCURACY = Measure("accuracy", "accuracy", higher_is_better=True, style=percent)
"""Share of the examples that get the right class, 0 to 1."""
ERROR = Measure("rms error", "error", higher_is_better=False, style=lambda error: f"{error:#.4g}")
"""Root of the mean square of the differences of values from their targets, in the unit of the targets."""
DISTANCE = Measure("distance", "distance", higher_is_better=False, style=lambda distance: f"{distance:#.4g}")
"""Van Rossum distance of a recording's spike trains from the wanted ones, summed over neurons; mean over recordings."""
