"""Treatment of states that leave the hardware's 24 bits."""

from enum import Enum


class Overflow(Enum):
    """Treatment of states that leave the hardware's 24 bits."""

    REFUSE = "refuse"
    """Raise `StateOverflowError`."""

    CHIP = "chip"
    """Continue as the chip does: currents wrap around, voltages are clipped; both are counted."""
