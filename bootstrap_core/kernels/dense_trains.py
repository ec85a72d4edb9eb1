"""Dense synapses of trains, on tensors: what they weigh, and the gradient of their weight; compiled by numba.

Importing this imports numba.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.kernels import train_gradients, train_sums
from bootstrap_core.kernels.neuron_run import as_array
from bootstrap_core.kernels.row_sums import in_blocks
from bootstrap_core.kernels.shared_trains import take_words
from bootstrap_core.kernels.subset_sums import LEAST_ITEMS, add_to_words
from bootstrap_core.kernels.threads import split
from bootstrap_core.kernels.transposes import turned

__all__ = ["SpikeTrains", "TableTrains", "Trains", "synaptic_work", "weigh", "weight_grad", "words_of"]

WORDS_OF_LINE = 16
"""Of the cache, which belong to one thread."""
EASE = 8
"""Weights of an input that take as long as a number of `split`'s work."""


class Trains(Protocol):
    """Spikes of `steps` steps, of each input of each image: `shape` is `[N, I]`."""

    steps: int
    shape: tuple[int, int]

    def words(self, steps: slice, bits: Sequence[int]) -> Any:
        """Those of some steps, as words `[N, I]`, uint32: a spike at the t-th of them sets the t-th of the bits."""


class SpikeTrains:
    """Of spikes `[T, N, I]`, int8."""

    def __init__(self, spikes: Tensor) -> None:
        self.spikes = spikes.contiguous().flatten(1).numpy()
        self.steps, self.shape = len(spikes), (spikes.shape[1], spikes.shape[2])

    def words(self, steps: slice, bits: Sequence[int]) -> Any:
        """See `Trains`."""
        words, spikes, shifts = np.zeros(self.shape, np.uint32), self.spikes[steps], np.array(bits, np.uint32)
        split(add_to_words, words.size, spikes, shifts, words.reshape(-1), work=spikes.size, align=WORDS_OF_LINE)
        return words


class TableTrains:
    """Of inputs that have, in `indices` `[N, I]`, their row of `fired` `[K, T]`, int8."""

    def __init__(self, indices: Any, fired: Any) -> None:
        self.indices, self.fired = indices, fired
        self.steps, self.shape = fired.shape[1], indices.shape

    def words(self, steps: slice, bits: Sequence[int]) -> Any:
        """See `Trains`."""
        table, words = words_of(self.fired[:, steps], bits), np.empty(self.shape, np.uint32)
        split(take_words, len(words), table, self.indices, words, work=words.size)
        return words


def words_of(fired: Any, bits: Sequence[int]) -> Any:
    """Trains `[K, T]`, int8, as words `[K]`, see `Trains`."""
    return (fired.astype(np.uint32) << np.array(bits[: fired.shape[1]], np.uint32)).sum(1, dtype=np.uint32)


def synaptic_work(trains: Trains, outputs: int) -> int:
    """Of all synapses, as `split` counts."""
    n_images, inputs = trains.shape
    return n_images * outputs * (trains.steps + inputs // EASE)


def weigh(trains: Trains, columns: Tensor) -> Tensor:
    """The weighted input `[T, N, O]`, whole numbers in float32, for a weight's columns `[I, O]`, int8."""
    outputs = columns.shape[1]
    z = torch.empty(trains.steps, trains.shape[0], outputs, dtype=torch.float32)
    out, blocks, bits = z.numpy(), in_blocks(columns), range(train_sums.WORD_STEPS)
    for first in range(0, trains.steps, len(bits)):
        words, steps = trains.words(slice(first, first + len(bits)), bits), min(len(bits), trains.steps - first)
        work = synaptic_work(trains, outputs)
        split(train_sums.weigh, len(words), words, steps, blocks, first, out, work=work)
    return z


def weight_grad(trains: Trains, grad: Tensor) -> Tensor:
    """Gradient of a weight `[O, I]`, float32, from that of the weighted input, `[T, N, O]`, float32 or bfloat16."""
    (images, inputs), outputs, bits = trains.shape, grad.shape[2], train_gradients.BITS
    lanes, together = train_gradients.LANES, train_gradients.TOGETHER
    groups, blocks, most = -(-images // together), -(-outputs // lanes), together * inputs + 1
    parts = max(1, min(LEAST_ITEMS // blocks, groups))
    out, of_steps = torch.empty(parts, blocks, inputs, lanes, dtype=torch.float32), as_array(grad).reshape(grad.shape)
    words, ends = np.empty((groups, most), np.uint32), np.empty((groups, together + 1), np.int64)
    reached, which = np.empty((groups, inputs), np.int32), np.empty((groups, inputs, together), np.int32)
    for first in range(0, trains.steps, len(bits)):
        some, of_some = trains.words(slice(first, first + len(bits)), bits), of_steps[first : first + len(bits)]
        groups_of = words, ends, reached, which
        split(train_gradients.sort_groups, groups, some, *groups_of, work=some.size)
        work = synaptic_work(trains, outputs)
        rest = of_some, parts, first == 0
        split(train_gradients.add_up, parts * blocks, *groups_of, *rest, out.numpy(), work=work)
    total = out[0] if parts == 1 else out.sum(0)
    return turned(total).view(-1, inputs)[:outputs].contiguous()
