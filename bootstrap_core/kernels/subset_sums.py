"""Gradients of weights behind spikes, by tables of sums, compiled by numba.

The gradient of a weight is the sum of its output's gradients over the rows in which its input spiked. Of each `ROWS`
rows all sums there can be are made once, 32 a table; then every input, whichever of them it spiked in, adds one entry
of each table: a fifth of the additions, and no product (Arlazarov, Dinic, Kronrod, Faradzev 1970, "the four Russians").

Rows are images here, of some place of a convolution's output; a matrix has one place. Importing this imports numba.
"""

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.patches import runs_by_place
from bootstrap_core.kernels.registers import INT, WORD, arrays, carried, vector
from bootstrap_core.kernels.threads import split

__all__ = ["weight_grad"]

LANES = 16
"""Outputs at a time: a line of the cache."""
ROWS_OF_TABLE, TABLES = 5, 4
ROWS = ROWS_OF_TABLE * TABLES
"""Rows of gradients whose sums are looked up at once."""
ENTRIES = 1 << ROWS_OF_TABLE
BYTE, SCALED = 8, 3
"""Bits of a word for each table: which entry, as a multiple of `1 << SCALED`, which spares a shift of the address."""
CACHE = 1 << 17
"""Bytes of gradients that stay in the second-level cache while all outputs take what they need of them."""

LEAST_ITEMS = 8
"""Into which the work is divided, however many threads there are: so that the sums do not depend on them."""

SUMS = ir.VectorType(ir.FloatType(), LANES)
f32 = np.float32
_compiled = compiler()


@_compiled
def _add_spikes(row, bit, words):
    for i in range(len(words)):
        words[i] |= np.uint32(np.uint32(row[i]) << bit)


@_compiled
def _in_words(spikes, start, stop, words):
    """Numbers `start` to `stop` of `words` `[M / ROWS, I]`, uint32, from spikes `[M, I]`, int8: see `BYTE`."""
    words[start:stop] = np.uint32(0)
    for n in range(start, stop):
        for r in range(min(ROWS, len(spikes) - n * ROWS)):
            table, place = divmod(r, ROWS_OF_TABLE)
            _add_spikes(spikes[n * ROWS + r], np.uint32(BYTE * table + SCALED + place), words[n])


@intrinsic
def _make_table(typing_context, rows, first, table, at):
    """At `table[at:]` all sums of the rows `rows[first:]`, `ROWS_OF_TABLE` of `LANES`; both are flat and float32."""

    def generate(context, builder, signature, arguments):
        _, first, _, at = arguments
        rows, table = arrays(context, builder, signature, arguments, 0, 2)
        sums = [ir.Constant(SUMS, None)]
        for k in range(ROWS_OF_TABLE):
            place = vector(builder, SUMS, rows, builder.add(first, WORD(LANES * k)))
            row = builder.load(place, align=4)
            sums += [row, *(builder.fadd(total, row) for total in sums[1:])]
        for entry, total in enumerate(sums):
            builder.store(total, vector(builder, SUMS, table, builder.add(at, WORD(LANES * entry))), align=4)
        return context.get_dummy_value()

    return types.void(rows, INT, table, INT), generate


@intrinsic
def _look_up(typing_context, words, first, n, tables, totals, at):
    """Add to `totals[at:]`, `LANES` for each of the `n` words from `first` on, what `tables` have for it; all flat."""

    def generate(context, builder, signature, arguments):
        _, first, n, _, _, at = arguments
        words, tables, totals = arrays(context, builder, signature, arguments, 0, 3, 4)
        mask = ir.IntType(32)((1 << BYTE) - 1)
        step = ir.IntType(4 * 8 * LANES >> SCALED).as_pointer()  # of an address, for one of a byte of the word

        def add(i, held):
            word = builder.load(builder.gep(words, [builder.add(first, i)]))
            parts = []
            for k in range(TABLES):
                entry = builder.zext(builder.and_(builder.lshr(word, word.type(BYTE * k)), mask), WORD)
                table = builder.bitcast(builder.gep(tables, [WORD(ENTRIES * LANES * k)]), step)
                parts.append(builder.load(builder.bitcast(builder.gep(table, [entry]), SUMS.as_pointer()), align=4))
            place = vector(builder, SUMS, totals, builder.add(at, builder.mul(i, WORD(LANES))))
            pairs = [builder.fadd(*parts[k : k + 2]) for k in range(0, TABLES, 2)]
            builder.store(builder.fadd(builder.load(place, align=4), builder.fadd(*pairs)), place, align=4)
            return held

        carried(builder, [], WORD(0), n, add)
        return context.get_dummy_value()

    return types.void(words, INT, INT, tables, totals, INT), generate


@_compiled
def _copy(numbers, rows, at):
    for j in range(len(numbers)):
        rows[at + j] = numbers[j]


@_compiled
def _take(grad, first, place, output, rows):
    """Gradients of `LANES` outputs at a place, of `ROWS` images, zeros behind the last image and the last output."""
    rows[:] = f32(0.0)
    stop = min(grad.shape[2], output + LANES)
    for image in range(first, min(len(grad), first + ROWS)):
        _copy(grad[image, place, output:stop], rows, (image - first) * LANES)


@_compiled
def _add_up(words, grad, runs, of_place, parts, start, stop, out):
    """The weight's gradient `out` `[parts, B, K, LANES]`, float32: `start` to `stop` of the first two axes, as one.

    Args:
        words: of `_in_words`, of images `[M, I]`.
        grad: `[M, P, O]`, float32, for `B * LANES` outputs or somewhat fewer.
        runs, of_place: which numbers of an image the places see, see `patches.runs_by_place`.
        parts: of the words, each summed by itself.
    """
    n_blocks, taps = out.shape[1:3]
    places = grad.shape[1]
    at_once = max(1, CACHE // (ROWS * places * grad.shape[2] * 4))
    rows, tables = np.zeros(ROWS * LANES, f32), np.empty(TABLES * ENTRIES * LANES, f32)
    flat_words, inputs, totals = words.reshape(-1), words.shape[1], out.reshape(-1)
    totals[start * taps * LANES : stop * taps * LANES] = f32(0.0)
    for part in range(start // n_blocks, (stop - 1) // n_blocks + 1):
        first, last = len(words) * part // parts, len(words) * (part + 1) // parts
        for some in range(first, last, at_once):
            for item in range(max(start, part * n_blocks), min(stop, (part + 1) * n_blocks)):
                for n in range(some, min(last, some + at_once)):
                    for place in range(places):
                        _take(grad, n * ROWS, place, (item - part * n_blocks) * LANES, rows)
                        for k in range(TABLES):
                            _make_table(rows, k * ROWS_OF_TABLE * LANES, tables, k * ENTRIES * LANES)
                        for r in range(of_place[place], of_place[place + 1]):
                            tap, source, length = runs[r]
                            at = (item * taps + tap) * LANES
                            _look_up(flat_words, n * inputs + source, length, tables, totals, at)


def weight_grad(spikes: Tensor, grad: Tensor, size: tuple[int, ...], geometry: tuple[int, ...]) -> Tensor:
    """Gradient of a weight `[O, K * C]`, float32, in the order of `patches`.

    Args:
        spikes: `[M, H * W * C]`, int8, for images `[H, W, C]` of `size`.
        grad: of the weighted input, `[M, P, O]`, float32.
        geometry: see `patches`.
    """
    height, width, channels = size
    runs, of_place = runs_by_place((height, width, channels), geometry)
    outputs, taps = grad.shape[2], geometry[0] * geometry[4] * channels
    words = np.empty((-(-len(spikes) // ROWS), spikes.shape[1]), np.uint32)
    x, rows = spikes.numpy(), grad.contiguous().numpy()
    split(lambda start, stop: _in_words(x, start, stop, words), len(words), work=spikes.numel())
    blocks = -(-outputs // LANES)
    parts = max(1, min(LEAST_ITEMS // blocks, len(words)))
    sums = torch.empty(parts, blocks, taps, LANES)
    out = sums.numpy()
    split(
        lambda start, stop: _add_up(words, rows, runs, of_place, parts, start, stop, out),
        parts * blocks,
        work=grad.numel(),
    )
    return sums.sum(0).transpose(1, 2).reshape(-1, taps)[:outputs].contiguous()
