"""Synapses behind input neurons, whose current is the same at each step, compiled by numba.

The spikes of such a neuron depend on its current alone, and few different trains come up: inputs with the same train
are added up once for all its steps. Currents are small integers `[N, I]` here, indices of the tables' rows. Importing
this imports numba; see `steady_synapses`, which calls it.
"""

import numpy as np
from numba import njit

from bootstrap_core.kernels.bits import widened

__all__ = ["input_sums", "patch_sums", "pixel_sums", "unpack_patches", "weigh", "weight_grad"]

f32, i32 = np.float32, np.int32
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_contracted = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@_compiled
def weigh(currents, train_of, trains, weight, start, stop, z):
    """Weighted input `z` `[T, N, O]`, float32, of images `start` to `stop`, for `weight` `[I, O]`, int8.

    `train_of[current]` is a row of `trains` `[K, T]`, int8; row 0 is silent.
    """
    n_trains, steps = trains.shape
    inputs, outputs = weight.shape
    members = np.empty((n_trains, inputs), np.int64)
    counts = np.empty(n_trains, np.int64)
    total = np.empty(outputs, np.int32)
    for image in range(start, stop):
        counts[:] = 0
        for i in range(inputs):
            k = train_of[currents[image, i]]
            members[k, counts[k]] = i
            counts[k] += 1
        for t in range(steps):
            z[t, image] = f32(0.0)
        for k in range(1, n_trains):
            if counts[k] == 0:
                continue
            total[:] = 0
            for m in range(counts[k]):
                row = weight[members[k, m]]
                for j in range(outputs):
                    total[j] = i32(total[j] + i32(row[j]))
            for t in range(steps):
                if trains[k, t]:
                    sums = z[t, image]
                    for j in range(outputs):
                        sums[j] += f32(total[j])


@_compiled
def _widen(row, out):
    for j in range(len(row)):
        out[j] = widened(row[j])


@_compiled
def _take_image(grad, image, start, stop, out):
    """Steps of an image side by side: in `grad` they are a power of two apart and push each other out of the cache."""
    for t in range(len(grad)):
        _widen(grad[t, image, start:stop], out[t])


@_compiled
def weight_grad(currents, train_of, trains, grad, start, stop, out):
    """Columns `start` to `stop` of the weight's gradient, `out` `[I, O]` float32, from that of `z`.

    `grad` `[T, N, O]` is float32, or bfloat16 as uint16.
    """
    n_trains, steps = trains.shape
    n = stop - start
    local, by_train = np.empty((steps, n), f32), np.empty((n_trains, n), f32)
    columns = np.zeros((len(out), n), f32)  # apart: columns of `out` would share a part of the cache
    for image in range(len(currents)):
        _take_image(grad, image, start, stop, local)
        for k in range(1, n_trains):
            total = by_train[k]
            total[:] = f32(0.0)
            for t in range(steps):
                if trains[k, t]:
                    row = local[t]
                    for j in range(n):
                        total[j] = f32(total[j] + row[j])
        for i in range(currents.shape[1]):
            k = train_of[currents[image, i]]
            if k:
                row, total = by_train[k], columns[i]
                for j in range(n):
                    total[j] = f32(total[j] + row[j])
    out[:, start:stop] = columns


@_contracted
def _dot(a, b):
    total = f32(0.0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@_contracted
def _dot_and_leave(a, b, rest):
    """`a @ b`, and `b` is taken from `rest`."""
    total = f32(0.0)
    for j in range(len(a)):
        total += a[j] * b[j]
        rest[j] -= b[j]
    return total


@_contracted
def _mix(rows, factors, n, total):
    """Sum of the rows times factors, four at a time; both are padded with zeros."""
    total[:] = f32(0.0)
    for t in range(0, n, 4):
        a, b, c, d = rows[t], rows[t + 1], rows[t + 2], rows[t + 3]
        p, q, r, s = factors[t], factors[t + 1], factors[t + 2], factors[t + 3]
        for j in range(len(total)):
            total[j] += (p * a[j] + q * b[j]) + (r * c[j] + s * d[j])


@_compiled
def input_sums(currents, images, common, slopes, weight, grad, start, stop, out):
    """Adds to `out` `[2]` the sums of (gradient of a current) * pixel and of the gradient, of images `start` to `stop`.

    `slopes[current, t]` is what a gradient of the spike at step t is worth to the current. Pixels of the value `common`
    have one current and are taken together: their weights are what those of the others leave of the sum. `weight` is
    `[I, O]`, `grad` `[T, N, O]` float32, or bfloat16 as uint16.
    """
    n_currents, steps = slopes.shape
    outputs = weight.shape[1]
    whole, rest = weight.sum(0), np.empty(outputs, f32)
    seen, mixed = np.full(n_currents, -1, np.int64), np.empty((n_currents, outputs), f32)
    local, padded = np.zeros((steps + 3, outputs), f32), np.zeros(steps + 3, f32)
    by_pixel = total = 0.0  # threads write to one cache line at their end alone
    for image in range(start, stop):
        _take_image(grad, image, 0, outputs, local)
        rest[:] = whole
        of_common = -1
        for i in range(len(weight)):
            current, pixel = currents[image, i], images[image, i]
            if pixel == common:
                of_common = current
                continue
            if seen[current] != image:
                seen[current] = image
                padded[:steps] = slopes[current]
                _mix(local, padded, steps, mixed[current])
            worth = _dot_and_leave(mixed[current], weight[i], rest)
            by_pixel += worth * pixel
            total += worth
        if of_common >= 0:
            padded[:steps] = slopes[of_common]
            _mix(local, padded, steps, mixed[of_common])
            seen[of_common] = image
            worth = _dot(mixed[of_common], rest)
            by_pixel += worth * common
            total += worth
    out[0] += by_pixel
    out[1] += total


@_contracted
def _dot_wide(a, b):
    total = f32(0.0)
    for j in range(len(a)):
        total += widened(a[j]) * b[j]
    return total


@_contracted
def pixel_sums(currents, images, common, slopes, whole, grad, reached, start, stop, out):
    """What `input_sums` does, from `grad @ weight.T`, `reached` `[T, N, I]`, float32 or bfloat16 as uint16.

    `whole` is the sum of the weights over the inputs, `[O]`.
    """
    n_inputs = currents.shape[1]
    places = np.empty(n_inputs, np.int64)
    by_pixel = total = 0.0
    for image in range(start, stop):
        current, pixel = currents[image], images[image]
        n, of_common = 0, -1
        for i in range(n_inputs):
            if pixel[i] == common:
                of_common = current[i]
            else:
                places[n] = i
                n += 1
        for t in range(len(grad)):
            row, rest = reached[t, image], _dot_wide(grad[t, image], whole)
            of_pixel, of_all = f32(0.0), f32(0.0)
            for k in range(n):
                i = places[k]
                arrived = widened(row[i])
                rest -= arrived
                worth = f32(arrived * slopes[current[i], t])
                of_pixel += f32(worth * pixel[i])
                of_all += worth
            if of_common >= 0:
                worth = f32(rest * slopes[of_common, t])
                of_pixel += f32(worth * common)
                of_all += worth
            by_pixel += of_pixel
            total += of_all
    out[0] += by_pixel
    out[1] += total


PLACES = 8
"""Patches at a time: their steps, side by side, fit the first-level cache."""


@_contracted
def _worth(taps, j, slopes, usual):
    """Sum over the steps of column j of `taps` `[T, J]`, times either row of slopes."""
    a, b = f32(0.0), f32(0.0)
    for t in range(len(taps)):
        a += taps[t, j] * slopes[t]
        b += taps[t, j] * usual[t]
    return a, b


@_contracted
def _sum(a):
    total = f32(0.0)
    for j in range(len(a)):
        total += a[j]
    return total


@_compiled
def _take_bit(words, bit, one, out):
    zero = out.dtype.type(0)
    for j in range(len(words)):
        out[j] = one if words[j] & bit else zero


@_compiled
def unpack_patches(words, sources, start, stop, one, out):
    """Spikes in patches, `out` `[T, N, J]`, of images `start` to `stop`: `one`, or 0.

    Bit t % 8 of `words[t // 8, image, i]` says whether pixel i spikes at step t; `sources` `[J]` is the pixel that each
    number of the patches is, or below 0.
    """
    local = np.empty(len(sources), np.uint8)
    for image in range(start, stop):
        for t in range(len(out)):
            if t % 8 == 0:
                pixels = words[t // 8, image]
                for j in range(len(sources)):
                    local[j] = pixels[sources[j]] if sources[j] >= 0 else 0
            _take_bit(local, np.uint8(1 << (t % 8)), one, out[t, image])


@_compiled
def patch_sums(currents, images, common, usual, sources, slopes, grad, start, stop, out):
    """What `input_sums` does, of images `start` to `stop` `[N, Q]`, from the gradient of patches of their spikes.

    `sources` `[P, K]` is the pixel that a place sees by a tap, or below 0; `grad` `[T, N * P * K]` is float32, or
    bfloat16 as uint16. All taps are taken for pixels of the value `common`, of the current
    `usual`, then the others mended.
    """
    steps, taps, n_places = len(grad), sources.shape[1], len(sources)
    local = np.empty((steps, PLACES * taps), f32)
    by_pixel = total = 0.0
    for image in range(start, stop):
        for first in range(0, n_places, PLACES):
            n = min(PLACES, n_places - first)
            whole = 0.0
            for t in range(steps):
                at = (image * n_places + first) * taps
                _widen(grad[t, at : at + n * taps], local[t])
                whole += slopes[usual, t] * _sum(local[t, : n * taps])
            by_pixel += whole * common
            total += whole
            for place in range(n):
                for tap in range(taps):
                    source = sources[first + place, tap]
                    if source >= 0 and images[image, source] == common:
                        continue
                    current = currents[image, source] if source >= 0 else usual
                    worth, as_usual = _worth(local, place * taps + tap, slopes[current], slopes[usual])
                    by_pixel -= as_usual * common
                    total -= as_usual
                    if source >= 0:
                        by_pixel += worth * images[image, source]
                        total += worth
    out[0] += by_pixel
    out[1] += total
