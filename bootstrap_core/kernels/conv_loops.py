"""Convolutions of spikes that follow the spikes, image by image, compiled by numba.

Inside, channels come last, so that the innermost loop runs over memory in order. Weights are `[taps, C, O]`, where a
tap is a place in the kernel. Importing this imports numba; see `conv_op`, which calls it.
"""

import numpy as np
from numba import njit

__all__ = ["scatter", "weigh", "weight_grad"]

f32, i32 = np.float32, np.int32
_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def _reach(at, padding, tap, dilation, stride, size):
    """Which output the input `at` reaches by a tap along one axis; -1 if none."""
    shifted = at + padding - tap * dilation
    if shifted < 0 or shifted % stride:
        return -1
    place = shifted // stride
    return place if place < size else -1


@_compiled
def weigh(spikes, weight, geometry, start, stop, z):
    """`z` `[M, O, OH, OW]`, float32 multiples of 1, of images `start` to `stop` of `spikes` `[M, C, H, W]`, int8.

    `weight` is int32; `geometry` `[2, 4]`: kernel, stride, padding and dilation of each axis.
    """
    _, channels, height, width = spikes.shape
    _, outputs, rows, columns = z.shape
    local = np.empty((rows, columns, outputs), np.int32)
    for image in range(start, stop):
        local[:] = 0
        for c in range(channels):
            for y in range(height):
                line = spikes[image, c, y]
                for x in range(width):
                    if line[x] == 0:
                        continue
                    for a in range(geometry[0, 0]):
                        row = _reach(y, geometry[0, 2], a, geometry[0, 3], geometry[0, 1], rows)
                        if row < 0:
                            continue
                        for b in range(geometry[1, 0]):
                            column = _reach(x, geometry[1, 2], b, geometry[1, 3], geometry[1, 1], columns)
                            if column < 0:
                                continue
                            total, added = local[row, column], weight[a * geometry[1, 0] + b, c]
                            for o in range(outputs):
                                total[o] = i32(total[o] + added[o])
        for o in range(outputs):
            for row in range(rows):
                for column in range(columns):
                    z[image, o, row, column] = local[row, column, o]


@_compiled
def _channels_last(grad, local):
    outputs, rows, columns = grad.shape
    for o in range(outputs):
        for row in range(rows):
            for column in range(columns):
                local[row, column, o] = grad[o, row, column]


@_compiled
def weight_grad(spikes, grad, geometry, start, stop, out):
    """Adds to `out` `[taps, C, O]` the weight's gradient from images `start` to `stop`; `grad` is that of `z`."""
    _, channels, height, width = spikes.shape
    _, outputs, rows, columns = grad.shape
    local = np.empty((rows, columns, outputs), f32)
    for image in range(start, stop):
        _channels_last(grad[image], local)
        for c in range(channels):
            for y in range(height):
                line = spikes[image, c, y]
                for x in range(width):
                    if line[x] == 0:
                        continue
                    for a in range(geometry[0, 0]):
                        row = _reach(y, geometry[0, 2], a, geometry[0, 3], geometry[0, 1], rows)
                        if row < 0:
                            continue
                        for b in range(geometry[1, 0]):
                            column = _reach(x, geometry[1, 2], b, geometry[1, 3], geometry[1, 1], columns)
                            if column < 0:
                                continue
                            added, total = local[row, column], out[a * geometry[1, 0] + b, c]
                            for o in range(outputs):
                                total[o] = f32(total[o] + added[o])


@_compiled
def scatter(products, geometry, rows, columns, start, stop, out):
    """Adds up, for images `start` to `stop`, what each output position gives to the inputs that its taps saw.

    `products` `[M, OH * OW, taps, C]`, `out` `[M, C, H, W]`, both float32.
    """
    _, channels, height, width = out.shape
    local = np.empty((height, width, channels), f32)
    for image in range(start, stop):
        local[:] = f32(0.0)
        for row in range(rows):
            for a in range(geometry[0, 0]):
                y = row * geometry[0, 1] - geometry[0, 2] + a * geometry[0, 3]
                if y < 0 or y >= height:
                    continue
                for column in range(columns):
                    for b in range(geometry[1, 0]):
                        x = column * geometry[1, 1] - geometry[1, 2] + b * geometry[1, 3]
                        if x < 0 or x >= width:
                            continue
                        if channels == 1:
                            local[y, x, 0] += products[image, row * columns + column, a * geometry[1, 0] + b, 0]
                            continue
                        added = products[image, row * columns + column, a * geometry[1, 0] + b]
                        total = local[y, x]
                        for c in range(channels):
                            total[c] = f32(total[c] + added[c])
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    out[image, c, y, x] = local[y, x, c]
