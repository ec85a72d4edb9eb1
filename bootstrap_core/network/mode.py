"""Modes in which a block runs, and the modes of all blocks of a network."""

from dataclasses import dataclass
from enum import Enum

from specs.errors import SnnZooError


class Mode(Enum):
    """The four modes of bootstrap training."""

    SAMPLE = "sample"
    """Run as SNN and record pairs (mean weighted input, mean output rate)."""

    FIT = "fit"
    """Fit the activation to the recorded pairs, then run as ANN."""

    ANN = "ann"
    """Run on rates through the fitted activation; no time axis."""

    SNN = "snn"
    """Run T steps of spikes."""

    @classmethod
    def _missing_(cls, value: object) -> "Mode":
        """Return the mode of a name in upper or lower case. Raises `SnnZooError` for other values."""
        for mode in cls:
            if isinstance(value, str) and value.lower() == mode.value:
                return mode
        raise SnnZooError(f"mode must be one of {', '.join(mode.value for mode in cls)}, got {value!r}")

    @property
    def spiking(self) -> bool:
        """True if tensors have a time axis in this mode."""
        return self in (Mode.SAMPLE, Mode.SNN)


@dataclass(frozen=True)
class LayerModes:
    """Mode of each block: SNN for the first `crossover` blocks, `base` for the rest; a SAMPLE `base` applies to all.

    >>> modes = LayerModes(Mode.ANN, crossover=2)
    >>> [modes[i].name for i in range(4)]
    ['SNN', 'SNN', 'ANN', 'ANN']
    """

    base: Mode
    crossover: int = 0

    def __getitem__(self, block: int) -> Mode:
        if self.base is Mode.SAMPLE or block >= self.crossover:
            return self.base
        return Mode.SNN
