"""Measures: the figures by which networks are judged, how reports name them, and which is better."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ACCURACY", "DISTANCE", "ERROR", "Measure"]


@dataclass(frozen=True)
class Measure:
    """Figure by which a network is judged.

    Attributes:
        name: name for people.
        key: name in JSON, and the end of the names of fields.
        rises: True if a higher figure is better.
        style: format of the figure as text.
    """

    name: str
    key: str
    rises: bool
    style: Callable[[float], str]

    def rank(self, score: float) -> float:
        """Return a number that is higher for a better score.

        >>> ERROR.rank(0.1) > ERROR.rank(0.2), ACCURACY.rank(0.1) > ACCURACY.rank(0.2)
        (True, False)
        """
        return score if self.rises else -score

    def text(self, score: float | None) -> str:
        """Return a score as text; None as a dash.

        >>> ACCURACY.text(0.9876), ERROR.text(0.012345), ERROR.text(None)
        ('98.76 %', '0.01235', '-')
        """
        return "-" if score is None else self.style(score)


ACCURACY = Measure("accuracy", "accuracy", True, lambda score: f"{100 * score:.2f} %")
"""Share of the right classes, 0 to 1."""
ERROR = Measure("rms error", "error", False, lambda error: f"{error:#.4g}")
"""Root of the mean square of the differences of values from their targets, in the unit of the targets."""
DISTANCE = Measure("distance", "distance", False, lambda distance: f"{distance:.4g}")
"""Van Rossum distance of a recording's spike trains from the wanted ones, summed over neurons; mean over recordings."""
