"""The grids of the hardware: every constant named once, and the way from floats to mantissas and back.

Source: DESIGN of Loihi's CUBA neuron as lava-dl (slayer) and Lava (`fixed_pt`) compute it.
"""

__all__ = [
    "BIAS_MANT_MAX",
    "BIAS_MANT_MIN",
    "DECAY_ONE",
    "EXACT_IN_FLOAT",
    "MANT",
    "MANT_PER_WEIGHT",
    "READOUT_THRESHOLD_MANT",
    "STATE",
    "STATE_MAX",
    "STATE_MIN",
    "STATE_PER_MANT",
    "STATE_PER_WEIGHT",
    "WEIGHT_INT_MAX",
    "WEIGHT_INT_MIN",
    "WEIGHT_STEP",
]

MANT = 64
"""Mantissas of weights, biases and thresholds are in units of 1/64."""

STATE = MANT * 64
"""Current and voltage are integers in units of 1/4096."""

DECAY_ONE = 1 << 12
"""The decay mantissa that forgets everything: 12 bits after the point."""

WEIGHT_STEP = 2 / MANT
"""Weights are multiples of 2/64: signed 8-bit integers, stored doubled."""

MANT_PER_WEIGHT = round(MANT * WEIGHT_STEP)
STATE_PER_MANT = STATE // MANT
STATE_PER_WEIGHT = STATE_PER_MANT * MANT_PER_WEIGHT
"""What a weight of one step, and a mantissa of one (bias, threshold, input current), are in finer units."""

WEIGHT_INT_MIN, WEIGHT_INT_MAX = -128, 127
"""Range of a weight in steps of `WEIGHT_STEP`."""

BIAS_MANT_MIN, BIAS_MANT_MAX = -(1 << 12), (1 << 12) - 1
"""Range of a 13-bit signed bias mantissa, in units of 1/64."""

STATE_MIN, STATE_MAX = -(1 << 23), (1 << 23) - 1
"""Range of the hardware's 24-bit current and voltage."""

READOUT_THRESHOLD_MANT = (1 << 18) - 1
"""Threshold that netx files give to a readout neuron, so that it never fires."""

EXACT_IN_FLOAT = 1 << 24
"""Below it, float32 holds every whole number, so that a sum of floats is the sum of integers."""
