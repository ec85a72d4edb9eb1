"""Synapses behind input neurons, whose current is the same at each step, compiled by numba.

The spikes of such a neuron depend on its current alone, and few different trains come up: inputs with the same train
are added up once for all its steps. Currents are small integers `[N, I]` here, indices of the tables' rows. Importing
this imports numba; see `steady_synapses`, which calls it.
"""

import numpy as np

from bootstrap_core.kernels.bits import widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.row_sums import LANES_OF_FLOATS, MOST_FLOATS, mix_rows
from bootstrap_core.kernels.teams import in_parts

__all__ = ["input_sums", "pixel_sums", "see", "unpack_patches"]

f32, i64 = np.float32, np.int64
_compiled = compiler()
_contracted = compiler(fastmath={"contract", "reassoc", "nsz"})


@_compiled
def _widen(row, out):
    for j in range(len(row)):
        out[j] = widened(row[j])


@_compiled
def _copy(row, out):
    """Instead of `out[:] = row`, whose messages for arrays that do not fit take a second to compile."""
    for j in range(len(row)):
        out[j] = row[j]


@_compiled
def _sum_of_rows(rows):
    """Instead of `rows.sum(0)`, for the same reason."""
    total = np.zeros(rows.shape[1], f32)
    for i in range(len(rows)):
        for j in range(len(total)):
            total[j] += f32(rows[i, j])
    return total


@_compiled
def _take_image(grad, image, start, stop, out):
    """Steps of an image side by side: in `grad` they are a power of two apart and push each other out of the cache."""
    for t in range(len(grad)):
        _widen(grad[t, image, start:stop], out[t])


@_contracted
def _dot(a, b):
    total = f32(0.0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@_contracted
def _dot_and_leave(a, rows, i, rest):
    """`a @ rows[i]`, and this row is taken from `rest`."""
    total = f32(0.0)
    for j in range(len(rest)):
        number = f32(rows[i, j])
        total += a[j] * number
        rest[j] -= number
    return total


@_compiled
def _room(outputs):
    """So many numbers, and what fills the last register of them."""
    return (outputs + LANES_OF_FLOATS - 1) // LANES_OF_FLOATS * LANES_OF_FLOATS


@_compiled
def _find_currents(currents, seen, found):
    """The different numbers of `currents`, in `found`; `seen`, all False, is so again. How many."""
    n = 0
    for i in range(len(currents)):
        if not seen[currents[i]]:
            seen[currents[i]] = True
            found[n] = currents[i]
            n += 1
    for k in range(n):
        seen[found[k]] = False
    return n


@_contracted
def _mix(grad, image, slopes, found, local, mixed):
    """`mixed[current]` is the sum over the steps of an image's gradients, each times the slope of the current.

    By columns, so that what they are mixed of stays in the first-level cache, `local`.
    """
    outputs, flat_mixed = grad.shape[2], mixed.reshape(-1)
    for first in range(0, outputs, MOST_FLOATS):
        _take_image(grad, image, first, min(outputs, first + MOST_FLOATS), local)
        width = min(MOST_FLOATS, mixed.shape[1] - first)
        for current in found:
            at = current * mixed.shape[1] + first
            mix_rows(local.reshape(-1), len(grad), slopes, current * len(grad), width, flat_mixed, at)


@_contracted
def input_sums(currents, images, common, slopes, weight, grad, start, stop, out, team):
    """Adds to its part's row of `out` `[parts, 2]` the sums of (gradient of a current) * pixel and of the gradient.

    Of images `start` to `stop`.

    `slopes[current, t]` is what a gradient of the spike at step t is worth to the current. Pixels of the value `common`
    have one current and are taken together: their weights are what those of the others leave of the sum. `weight` is
    `[I, O]`, int8, a quarter of the memory that floats would have to come from; `grad` `[T, N, O]` float32, or bfloat16
    as uint16.
    """
    if in_parts(team):
        return
    n_currents, steps = slopes.shape
    outputs = weight.shape[1]
    whole, rest, flat_slopes = _sum_of_rows(weight), np.empty(outputs, f32), slopes.reshape(-1)
    seen, found = np.zeros(n_currents, np.bool_), np.empty(n_currents, np.int64)
    local, mixed = np.zeros((steps, MOST_FLOATS), f32), np.empty((n_currents, _room(outputs)), f32)
    by_pixel = total = 0.0  # threads write to one cache line at their end alone
    for image in range(start, stop):
        n = _find_currents(currents[image], seen, found)
        _mix(grad, image, flat_slopes, found[:n], local, mixed)
        _copy(whole, rest)
        of_common = i64(-1)
        for i in range(len(weight)):
            current, pixel = i64(currents[image, i]), images[image, i]
            if pixel == common:
                of_common = current
            else:
                worth = _dot_and_leave(mixed[current], weight, i, rest)
                by_pixel += worth * pixel
                total += worth
        if of_common >= 0:
            worth = _dot(rest, mixed[of_common])
            by_pixel += worth * common
            total += worth
    out[team[1], 0] += by_pixel
    out[team[1], 1] += total


@_contracted
def _dot_wide(a, b):
    total = f32(0.0)
    for j in range(len(a)):
        total += widened(a[j]) * b[j]
    return total


@_contracted
def pixel_sums(currents, images, common, slopes, whole, grad, reached, start, stop, out, team):
    """What `input_sums` does, from `grad @ weight.T`, `reached` `[T, N, I]`, float32 or bfloat16 as uint16.

    `whole` is the sum of the weights over the inputs, `[O]`.
    """
    if in_parts(team):
        return
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
    out[team[1], 0] += by_pixel
    out[team[1], 1] += total


@_compiled
def _take_bit(words, bit, out):
    for j in range(len(words)):
        out[j] = (words[j] & bit) != 0


@_compiled
def unpack_patches(words, sources, start, stop, out, team):
    """Spikes in patches, `out` `[T, N, J]`, int8, of images `start` to `stop`.

    Bit t % 8 of `words[t // 8, image, i]` says whether pixel i spikes at step t; `sources` `[J]` is the pixel that each
    number of the patches is, or below 0.
    """
    if in_parts(team):
        return
    local = np.empty(len(sources), np.uint8)
    for image in range(start, stop):
        for t in range(len(out)):
            if t % 8 == 0:
                pixels = words[t // 8, image]
                for j in range(len(sources)):
                    local[j] = pixels[sources[j]] if sources[j] >= 0 else 0
            _take_bit(local, np.uint8(1 << (t % 8)), out[t, image])


@_compiled
def _see_row(current, pixel, spike, slope, out):
    for i in range(len(current)):
        c = np.uintp(current[i])  # not below 0: no wrapping
        out[3 * i] = spike[c]
        out[3 * i + 1] = slope[c]
        out[3 * i + 2] = slope[c] * pixel[i]


@_compiled
def see(currents, pixels, spikes, slopes, first, start, stop, out, team):
    """What a convolution's gradients are made of, in rows, steps by images, from `first` on: `out` `[M, I * 3]`.

    Of each input its spike, its slope, and the slope times the pixel; `spikes` and `slopes` are `[T, currents]`.
    """
    if in_parts(team):
        return
    for row in range(start, stop):
        t, image = divmod(first + row, len(currents))
        _see_row(currents[image], pixels[image], spikes[t], slopes[t], out[row])
