"""Gradients of convolutions from those of their patches, image by image, compiled by numba.

Importing this imports numba; see `convolution_op`, which calls it, and `patches`.
"""

import numpy as np
from numba import njit

from bootstrap_core.kernels.bits import widened

__all__ = ["scatter_places"]

f32 = np.float32
_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def scatter_places(patches, sources, start, stop, out):
    """Adds up patches `[N, C, K * P]` where they came from, `out` `[N, C, H * W]`, for images `start` to `stop`.

    `sources` `[K, P]` is the place that a tap sees for an output, or below 0. `patches` are float32, or bfloat16 as
    uint16; `out` is float32.
    """
    flat = sources.copy().ravel()
    for image in range(start, stop):
        for channel in range(out.shape[1]):
            given, total = patches[image, channel], out[image, channel]
            total[:] = f32(0.0)
            for k in range(len(flat)):
                if flat[k] >= 0:
                    total[flat[k]] += widened(given[k])
