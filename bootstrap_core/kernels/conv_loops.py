"""Convolutions of spikes that follow the spikes, image by image, compiled by numba.

Channels come last, so that the innermost loop runs over memory in order, and places are flat: `P` of the output, `Q` of
the input, `K` taps of the kernel. `reach` says which outputs an input place reaches, and by which taps:
`counts` `[Q]`, `targets` and `taps` `[Q, K]`. Importing this imports numba; see `conv_op`, which calls it.
"""

import numpy as np
from numba import njit

from bootstrap_core.kernels.bits import widened
from bootstrap_core.kernels.event_products import find

__all__ = ["input_grad", "weigh", "weight_grad"]

f32, u32 = np.float32, np.uint32
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_contracted = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_compiled
def weigh(spikes, weight, reach, start, stop, z):
    """`z` `[M, P, O]`, whole numbers, of images `start` to `stop` of `spikes` `[M, Q * C]`, int8.

    `weight` is `[K, C, O]`, of the type of `z`, which must hold the sums.
    """
    counts, targets, taps = reach
    channels, outputs = weight.shape[1:]
    places = np.empty(spikes.shape[1] + 1, np.int64)
    for image in range(start, stop):
        z[image] = 0
        for k in range(find(spikes[image], places)):
            place = u32(places[k]) // u32(channels)
            channel = places[k] - place * channels
            for hit in range(counts[place]):
                total, added = z[image, targets[place, hit]], weight[taps[place, hit], channel]
                for o in range(outputs):
                    total[o] += added[o]


@_compiled
def weight_grad(spikes, grad, reach, start, stop, out):
    """Adds to `out` `[K, C, O]` the weight's gradient from images `start` to `stop`.

    `grad` `[M, P, O]` is that of `z`, float32, or bfloat16 as uint16.
    """
    counts, targets, taps = reach
    channels, outputs = out.shape[1:]
    places = np.empty(spikes.shape[1] + 1, np.int64)
    for image in range(start, stop):
        for k in range(find(spikes[image], places)):
            place = u32(places[k]) // u32(channels)
            channel = places[k] - place * channels
            for hit in range(counts[place]):
                total, added = out[taps[place, hit], channel], grad[image, targets[place, hit]]
                for o in range(outputs):
                    total[o] = f32(total[o] + widened(added[o]))


@_contracted
def _mix(a, b, c, d, p, q, r, s, total):
    """Adds to `total` four rows times a, b, c, d."""
    for k in range(len(total)):
        total[k] += (a * p[k] + b * q[k]) + (c * r[k] + d * s[k])


@_compiled
def _add(total, added):
    for k in range(len(total)):
        total[k] += added[k]


@_compiled
def input_grad(grad, weight, sources, start, stop, out):
    """Gradient of the spikes, `out` `[M, Q, C]` float32, of images `start` to `stop`.

    `sources` `[P, K]` is the input place that an output sees by a tap, or -1; `weight` `[O, K * C]` float32, with rows
    of zeros up to a multiple of 4; `grad` `[M, P, O]` float32, or bfloat16 as uint16.
    """
    channels, outputs = out.shape[2], grad.shape[2]
    given, seen = np.zeros(len(weight), f32), np.empty(weight.shape[1], f32)
    by_tap = seen.reshape(sources.shape[1], channels)
    for image in range(start, stop):
        out[image] = f32(0.0)
        for place in range(len(sources)):
            row = grad[image, place]
            for o in range(outputs):
                given[o] = widened(row[o])
            seen[:] = f32(0.0)
            for o in range(0, len(weight), 4):
                _mix(
                    given[o], given[o + 1], given[o + 2], given[o + 3],
                    weight[o], weight[o + 1], weight[o + 2], weight[o + 3], seen,
                )  # fmt: skip
            for tap in range(sources.shape[1]):
                source = sources[place, tap]
                if source < 0:
                    continue
                if channels == 1:
                    out[image, source, 0] += seen[tap]
                else:
                    _add(out[image, source], by_tap[tap])
