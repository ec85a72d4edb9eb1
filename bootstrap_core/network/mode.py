"""Modes in which a block runs."""

from enum import Enum

from specs.errors import SnnZooError

__all__ = ["Mode"]


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
