"""Patches of images, and gradients of convolutions from those of their patches, image by image, compiled by numba.

Importing this imports numba; see `conv_op` and `convolution_op`, which call it, and `patches`.
"""

import numpy as np

from bootstrap_core.kernels.bits import narrowed, widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["gather", "gather_places", "scatter", "scatter_places"]

f32 = np.float32
_compiled = compiler()


@_compiled
def _times(spikes, one, out):
    for k in range(len(spikes)):
        out[k] = spikes[k] * one


@_compiled
def gather(images, runs, start, stop, one, out, team):
    """Patches `[M, P * K * C]` of spikes `[M, H * W * C]`, int8, with `one` for each; images `start` to `stop`.

    `runs` as of `patches.runs_of`; float32, or bfloat16 as uint16.
    """
    if in_parts(team):
        return
    for image in range(start, stop):
        given, seen = images[image], out[image]
        seen[:] = 0
        for r in range(len(runs)):
            at, to, n = runs[r]
            _times(given[to : to + n], one, seen[at : at + n])


@_compiled
def scatter(patches, runs, start, stop, out, team):
    """Adds up patches `[M, P * K * C]` where they came from, `out` `[M, H * W * C]`: `gather` turned round."""
    if in_parts(team):
        return
    total = np.empty(out.shape[1], f32)
    for image in range(start, stop):
        total[:] = f32(0.0)
        given = patches[image]
        for r in range(len(runs)):
            at, to, n = np.uintp(runs[r, 0]), np.uintp(runs[r, 1]), np.uintp(runs[r, 2])  # not below 0: no wrapping
            for k in range(n):
                total[to + k] += widened(given[at + k])
        for k in range(len(total)):
            out[image, k] = narrowed(total[k], out)


@_compiled
def scatter_places(patches, sources, start, stop, out, team):
    """The same with channels and taps first: `[N, C, K * P]` to `out` `[N, C, H * W]`, float32.

    `sources` `[K, P]` is the place that a tap sees for an output, or below 0.
    """
    if in_parts(team):
        return
    flat = sources.copy().ravel()
    for image in range(start, stop):
        for channel in range(out.shape[1]):
            given, total = patches[image, channel], out[image, channel]
            total[:] = f32(0.0)
            for k in range(len(flat)):
                if flat[k] >= 0:
                    total[flat[k]] += widened(given[k])


@_compiled
def gather_places(images, sources, start, stop, out, team):
    """Patches `[N, C, K * P]` of images `[N, C, H * W]`: `scatter_places` turned round; images `start` to `stop`."""
    if in_parts(team):
        return
    flat = sources.copy().ravel()
    for image in range(start, stop):
        for channel in range(out.shape[1]):
            given, seen = images[image, channel], out[image, channel]
            for k in range(len(flat)):
                seen[k] = given[flat[k]] if flat[k] >= 0 else f32(0.0)
