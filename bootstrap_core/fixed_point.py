"""Grids of the hardware's numbers: each constant and its unit are defined here only.

Source: Loihi's CUBA neuron, as lava-dl (slayer) and Lava (`fixed_pt`) compute it.
"""

MANT = 64
"""Mantissas per float unit: mantissas of weights, biases and thresholds are in units of 1/64."""

STATE = MANT * 64
"""State units per float unit: current and voltage are integers in units of 1/4096."""

DECAY_ONE = 1 << 12
"""Mantissa of a decay of 1, which clears the state at each step; decays are in units of 1/4096."""

WEIGHT_STEP = 2 / MANT
"""Step of the weight grid, 2/64: a weight is a signed 8-bit integer times this step."""

MANT_PER_WEIGHT = round(MANT * WEIGHT_STEP)
STATE_PER_MANT = STATE // MANT
STATE_PER_WEIGHT = STATE_PER_MANT * MANT_PER_WEIGHT
"""State units of a weight step. `MANT_PER_WEIGHT`: mantissas of a weight step. `STATE_PER_MANT`: state units of a
mantissa (bias, threshold, input current)."""

WEIGHT_INT_MIN, WEIGHT_INT_MAX = -128, 127
"""Range of a weight, in steps of `WEIGHT_STEP`."""

BIAS_MANT_MIN, BIAS_MANT_MAX = -(1 << 12), (1 << 12) - 1
"""Range of a 13-bit signed bias mantissa, in units of 1/64."""

STATE_MAX = (1 << 23) - 1
"""Largest magnitude of the hardware's 24-bit current and voltage, in state units.

Lava turns a current of -2^23 into 2^23 and clips a voltage of -2^23 to -2^23 + 1: lava/proc/lif/models.py."""

READOUT_THRESHOLD_MANT = (1 << 18) - 1
"""Threshold mantissa of readout neurons in netx files, too high for them to spike."""

MESSAGE, SIGMA = MANT << 6, MANT << 12
"""Units of sigma-delta neurons per float unit: messages are in units of 1/4096, their states in units of 1/2^18.

Both exponents are those of netx, `spike_exp` and `state_exp` of 6: lava/lib/dl/netx/hdf5.py."""

SIGMA_PER_MESSAGE, SIGMA_PER_MANT = SIGMA // MESSAGE, SIGMA // MANT
"""State units of a message, and of a mantissa (threshold, bias, frame), of sigma-delta neurons."""

EXACT_IN_FLOAT = 1 << 24
"""Bound below which float32 represents every integer, so that sums of floats are exact."""
