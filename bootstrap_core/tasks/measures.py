"""Measures: the figures by which networks are judged, how reports name them, and which is better."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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
