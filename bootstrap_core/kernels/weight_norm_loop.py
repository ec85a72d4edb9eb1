"""The gradient of weight norm in two passes over each row, compiled by numba. Importing this imports numba."""

import numpy as np

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["gradients"]


@compiler(fastmath={"contract", "reassoc", "nsz"})
def gradients(grad, direction, magnitude, norms, start, stop, of_direction, of_magnitude, team):
    """Of rows `start` to `stop` of `magnitude * direction / norms`, from that of the weight, all `[outputs, inputs]`.

    `magnitude`, `norms` and `of_magnitude` are `[outputs]`.
    """
    if in_parts(team):
        return
    for row in range(start, stop):
        along = np.float32(0.0)
        for j in range(grad.shape[1]):
            along += grad[row, j] * direction[row, j]
        along /= norms[row]
        of_magnitude[row] = along
        scale, share = magnitude[row] / norms[row], along / norms[row]
        for j in range(grad.shape[1]):
            of_direction[row, j] = scale * (grad[row, j] - direction[row, j] * share)
