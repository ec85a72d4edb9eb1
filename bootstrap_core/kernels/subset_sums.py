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

from bootstrap_core.kernels.bits import CACHE, widen
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.patches import runs_by_place
from bootstrap_core.kernels.registers import INT, WORD, arrays, carried, vector
from bootstrap_core.kernels.teams import in_parts
from bootstrap_core.kernels.threads import split
from bootstrap_core.kernels.transposes import turned

__all__ = [
    "ENTRIES",
    "LANES",
    "LEAST_ITEMS",
    "SUMS",
    "TABLES",
    "add_to_words",
    "bits_of_rows",
    "copy_lanes",
    "is_faster",
    "table_maker",
    "table_reader",
    "weight_grad",
]

LANES = 16
"""Outputs at a time: a line of the cache."""
ROWS_OF_TABLE, TABLES = 5, 4
ROWS = ROWS_OF_TABLE * TABLES
"""Rows of gradients whose sums are looked up at once."""
ENTRIES = 1 << ROWS_OF_TABLE
BYTE, SCALED = 8, 3
"""Bits of a word for each table: which entry, as a multiple of `1 << SCALED`, which spares a shift of the address."""
MANY_TAPS, MOST_WORDS = 256, 8
"""Taps whose sums stay in the first-level cache. Of an output with more, as many times more words are taken before the
next outputs' turn comes, up to so many: the sums come from memory seldom."""

WORDS_AT_ONCE = 2048
"""That stay in the first-level cache while the spikes of all steps pass, in runs that memory is fast with."""

LEAST_IMAGES, LEAST_ROWS, LEAST_TAPS = 3 * ROWS, 256, 64
"""Of fewer, tables are made for too few: products are faster."""
LEAST_ITEMS = 8
"""Into which the work is divided, however many threads there are: so that the sums do not depend on them."""

SUMS = ir.VectorType(ir.FloatType(), LANES)
HALVES = ir.VectorType(ir.IntType(16), LANES)
f32 = np.float32
_compiled = compiler()


def bits_of_rows(rows_of_table):
    """The bit that a spike sets in a word, by its row, for tables of so many rows."""
    rows = range(TABLES * rows_of_table)
    return tuple(np.uint32(BYTE * (r // rows_of_table) + SCALED + r % rows_of_table) for r in rows)


BITS = bits_of_rows(ROWS_OF_TABLE)


@_compiled
def _add_spikes(row, bit, words):
    for i in range(len(words)):
        words[i] |= np.uint32(np.uint32(row[i] != 0) << bit)


@_compiled
def _in_words(spikes, start, stop, words, team):
    """Numbers `start` to `stop` of `words` `[M / ROWS, I]`, uint32 and 0, from spikes `[M, I]`, int8: see `BITS`."""
    if in_parts(team):
        return
    for n in range(start, stop):
        for r in range(n * ROWS, min(len(spikes), (n + 1) * ROWS)):
            _add_spikes(spikes[r], BITS[r % ROWS], words[n])


@_compiled
def add_to_words(spikes, bits, start, stop, words, team):
    """Set in `words` `[M]`, `start` to `stop`, the t-th bit for a spike at step t of `spikes` `[T, M]`."""
    if in_parts(team):
        return
    for first in range(start, stop, WORDS_AT_ONCE):
        last = min(stop, first + WORDS_AT_ONCE)
        for t in range(len(spikes)):
            _add_spikes(spikes[t, first:last], bits[t], words[first:last])


def table_maker(n_rows):
    """The intrinsic `make_table(rows, first, table, at)`: at `table[at:]` all sums of so many rows, `rows[first:]`.

    Rows have `LANES` numbers; both arrays are flat and float32.
    """

    @intrinsic
    def make_table(typing_context, rows, first, table, at):
        def generate(context, builder, signature, arguments):
            _, first, _, at = arguments
            rows, table = arrays(context, builder, signature, arguments, 0, 2)
            sums = [ir.Constant(SUMS, None)]
            for k in range(n_rows):
                place = vector(builder, SUMS, rows, builder.add(first, WORD(LANES * k)))
                row = builder.load(place, align=4)
                sums += [row, *(builder.fadd(total, row) for total in sums[1:])]
            for entry, total in enumerate(sums):
                builder.store(total, vector(builder, SUMS, table, builder.add(at, WORD(LANES * entry))), align=4)
            return context.get_dummy_value()

        return types.void(rows, INT, table, INT), generate

    return make_table


def table_reader(*, adds):
    """The intrinsic `look_up(words, first, n, tables, totals, at)`: what `tables` have for each of `n` words.

    It goes to `totals[at:]`, `LANES` for each of the words from `first` on: added, or instead of what is there. All
    arrays are flat.
    """

    @intrinsic
    def look_up(typing_context, words, first, n, tables, totals, at):
        def generate(context, builder, signature, arguments):
            _, first, n, _, _, at = arguments
            words, tables, totals = arrays(context, builder, signature, arguments, 0, 3, 4)
            mask = ir.IntType(32)((1 << BYTE) - 1)
            step = ir.IntType(4 * 8 * LANES >> SCALED).as_pointer()  # of an address, for one of a byte of the word

            def read(i, held):
                word = builder.load(builder.gep(words, [builder.add(first, i)]))
                parts = []
                for k in range(TABLES):
                    entry = builder.zext(builder.and_(builder.lshr(word, word.type(BYTE * k)), mask), WORD)
                    table = builder.bitcast(builder.gep(tables, [WORD(ENTRIES * LANES * k)]), step)
                    parts.append(builder.load(builder.bitcast(builder.gep(table, [entry]), SUMS.as_pointer()), align=4))
                place = vector(builder, SUMS, totals, builder.add(at, builder.mul(i, WORD(LANES))))
                total = builder.fadd(builder.fadd(*parts[:2]), builder.fadd(*parts[2:]))
                builder.store(builder.fadd(builder.load(place, align=4), total) if adds else total, place, align=4)
                return held

            carried(builder, [], WORD(0), n, read)
            return context.get_dummy_value()

        return types.void(words, INT, INT, tables, totals, INT), generate

    return look_up


_make_table, _look_up = table_maker(ROWS_OF_TABLE), table_reader(adds=True)


@intrinsic
def copy_lanes(typing_context, given, first, to, at):
    """`LANES` numbers of `given[first:]`, float32 or bfloat16 as uint16, to `to[at:]`, float32; both are flat."""

    def generate(context, builder, signature, arguments):
        _, first, _, at = arguments
        given, to = arrays(context, builder, signature, arguments, 0, 2)
        kind, align = (HALVES, 2) if signature.args[0].dtype == types.uint16 else (SUMS, 4)
        numbers = builder.load(vector(builder, kind, given, first), align=align)
        builder.store(widen(builder, numbers), vector(builder, SUMS, to, at), align=4)
        return context.get_dummy_value()

    return types.void(given, INT, to, INT), generate


@_compiled
def _take(grad, first, apart, n_rows, width, rows):
    """In `rows` the `width` numbers of `grad`, flat, at `first` and each time `apart`; zeros behind so many rows.

    They are copied because tables made of them where they lie would wait for each row's memory in turn.
    """
    if n_rows < ROWS or width < LANES:
        for j in range(len(rows)):
            rows[j] = f32(0.0)
    for r in range(n_rows):
        if width == LANES:
            copy_lanes(grad, first + r * apart, rows, r * LANES)
        else:
            for j in range(width):
                rows[r * LANES + j] = grad[first + r * apart + j]


@_compiled
def _add_up(words, grad, runs, of_place, parts, start, stop, out, team):
    """Adds the weight's gradient to `out` `[parts, B, K, LANES]`, `start` to `stop` of the first two axes, as one.

    Args:
        words: of `_in_words`, of images `[M, I]`.
        grad: `[M, P, O]`, float32, for `B * LANES` outputs or somewhat fewer.
        runs, of_place: which numbers of an image the places see, see `patches.runs_by_place`.
        parts: of the words, each summed by itself.
    """
    if in_parts(team):
        return
    rows, tables = np.empty(ROWS * LANES, f32), np.empty(TABLES * ENTRIES * LANES, f32)
    n_blocks, taps = out.shape[1:3]
    images, places, outputs = grad.shape
    # gradients of so many words stay in the cache while all outputs take what they need of them
    at_once = max(1, CACHE // (ROWS * places * outputs * 4), min(MOST_WORDS, taps // MANY_TAPS))
    flat, flat_words, inputs, totals = grad.reshape(-1), words.reshape(-1), words.shape[1], out.reshape(-1)
    for part in range(start // n_blocks, (stop - 1) // n_blocks + 1):
        begin, end = len(words) * part // parts, len(words) * (part + 1) // parts
        for some in range(begin, end, at_once):
            for item in range(max(start, part * n_blocks), min(stop, (part + 1) * n_blocks)):
                for n in range(some, min(end, some + at_once)):
                    for place in range(places):
                        output = (item - part * n_blocks) * LANES
                        first = (n * ROWS * places + place) * outputs + output
                        n_rows, width = min(ROWS, images - n * ROWS), min(LANES, outputs - output)
                        _take(flat, first, places * outputs, n_rows, width, rows)
                        for k in range(TABLES):
                            _make_table(rows, k * ROWS_OF_TABLE * LANES, tables, k * ENTRIES * LANES)
                        for r in range(of_place[place], of_place[place + 1]):
                            tap, source, length = runs[r]
                            at = (item * taps + tap) * LANES
                            _look_up(flat_words, n * inputs + source, length, tables, totals, at)


def is_faster(images: int, places: int, taps: int) -> bool:
    """Whether `weight_grad` is, than a product, for so many images, places of each output, and inputs of one."""
    return images >= LEAST_IMAGES and images * places >= LEAST_ROWS and taps >= LEAST_TAPS


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
    words = np.zeros((-(-len(spikes) // ROWS), spikes.shape[1]), np.uint32)
    x, of_rows = spikes.numpy(), grad.contiguous().numpy()
    split(_in_words, len(words), x, words, work=spikes.numel())
    blocks = -(-outputs // LANES)
    parts = max(1, min(LEAST_ITEMS // blocks, len(words)))
    sums = torch.zeros(parts, blocks, taps, LANES, dtype=torch.float32)
    work = grad.numel() * taps // ROWS
    split(_add_up, parts * blocks, words, of_rows, runs, of_place, parts, sums.numpy(), work=work)
    total = sums[0] if parts == 1 else sums.sum(0)
    return turned(total).view(-1, taps)[:outputs].contiguous()
