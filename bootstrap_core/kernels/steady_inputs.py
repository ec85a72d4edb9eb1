"""Synapses behind input neurons, whose current is the same at each step, compiled by numba.

The spikes of such a neuron depend on its current alone, and few different trains come up: inputs with the same train
are added up once for all its steps. Currents are small integers `[N, I]` here, indices of the tables' rows. Importing
this imports numba; see `steady_synapses`, which calls it.
"""

import numpy as np

from bootstrap_core.kernels.bits import widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.row_sums import TRIPLED, mix_three
from bootstrap_core.kernels.teams import in_parts

__all__ = ["input_sums", "pixel_sums"]

f32, i64 = np.float32, np.int64
_compiled, _inlined = compiler(), compiler(inline="always")
_contracted = compiler(fastmath={"contract", "reassoc", "nsz"})


@_compiled
def _widen(row, out):
    for j in range(len(row)):
        out[j] = widened(row[j])


@_compiled
def _sum_of_rows(rows):
    """Instead of `rows.sum(0)`, which takes longer to compile."""
    total = np.zeros(rows.shape[1], f32)
    for i in range(len(rows)):
        for j in range(len(total)):
            total[j] += f32(rows[i, j])
    return total


@_compiled
def _take_image(grad, image, out):
    """An image's gradients as blocks of columns, `[B, T, TRIPLED]`, flat.

    In `grad`, steps are a power of two apart and push each other out of the cache.
    """
    steps, _, outputs = grad.shape
    for t in range(steps):
        for column in range(0, outputs, TRIPLED):
            at = column * steps + t * TRIPLED
            _widen(grad[t, image, column : min(outputs, column + TRIPLED)], out[at : at + TRIPLED])


@_contracted
def _dot(a, b):
    total = f32(0.0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@_contracted
def _dots(a, b, row):
    """`a @ row` and `b @ row`."""
    of_a, of_b = f32(0.0), f32(0.0)
    for j in range(len(row)):
        number = f32(row[j])
        of_a += a[j] * number
        of_b += b[j] * number
    return of_a, of_b


@_compiled
def _find_currents(currents, place, found):
    """The different numbers of `currents`, in `found`, and the `place` of each there, -1 of others. How many."""
    place[:] = -1
    n = 0
    for i in range(len(currents)):
        if place[currents[i]] < 0:
            place[currents[i]], found[n] = n, currents[i]
            n += 1
    return n


@_inlined
def _mix(grad, image, slopes, found, n, steps, factors, local, mixed):
    """`mixed[k]` is the sum over time of an image's gradients, each times the slope of the k-th of `n` currents found.

    Three currents at a time. `steps` are counted for every three of them anew; `factors` is room for their slopes, and
    `local` for the gradients.
    """
    n_steps, outputs, width = len(grad), grad.shape[2], mixed.shape[1]
    n_threes = (n + 2) // 3
    for k in range(n_threes * 3):
        for t in range(n_steps):
            factors[(k // 3 * n_steps + t) * 3 + k % 3] = slopes[found[k], t] if k < n else f32(0.0)
    _take_image(grad, image, local)
    for column in range(0, outputs, TRIPLED):
        for three in range(n_threes):
            to = three * 3 * width + column
            mix_three(local, column * n_steps, steps, factors, three * n_steps, n_steps, mixed, to, width)


@_contracted
def input_sums(currents, images, common, slopes, weight, grad, start, stop, out, team):
    """Adds to its part's row of `out` `[parts, 2]` the sums of (gradient of a current) * pixel and of the gradient.

    Of images `start` to `stop`.

    `slopes[current, t]` is what a gradient of the spike at step t is worth to the current. Pixels of the value `common`
    have one current: it is taken for all pixels, by the sum of their weights, and then put right for the others.
    `weight` is `[I, O]`, int8, a quarter of the memory that floats would have to come from; `grad` `[T, N, O]` float32,
    or bfloat16 as uint16.
    """
    if in_parts(team):
        return
    (n_currents, n_steps), outputs = slopes.shape, weight.shape[1]
    threes, blocks = (n_currents + 2) // 3, (outputs + TRIPLED - 1) // TRIPLED
    whole, nothing = _sum_of_rows(weight), np.zeros(blocks * TRIPLED, f32)
    place, found = np.empty(n_currents, np.int64), np.empty(n_currents, np.int64)
    steps, factors = np.arange(threes * n_steps) % n_steps, np.empty(threes * n_steps * 3, f32)
    local, mixed = np.zeros(blocks * n_steps * TRIPLED, f32), np.empty((threes * 3, blocks * TRIPLED), f32)
    by_pixel = total = 0.0  # threads write to one cache line at their end alone
    for image in range(start, stop):
        n = _find_currents(currents[image], place, found)
        _mix(grad, image, slopes, found, n, steps, factors, local, mixed)
        of_common = nothing
        for i in range(len(weight)):
            if images[image, i] == common:
                of_common = mixed[place[currents[image, i]]]
                break
        worth = _dot(whole, of_common)
        by_pixel += worth * common
        total += worth
        for i in range(len(weight)):
            pixel = images[image, i]
            if pixel != common:
                worth, as_common = _dots(mixed[place[currents[image, i]]], of_common, weight[i])
                by_pixel += worth * pixel - as_common * common
                total += worth - as_common
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
