"""Counting of events in bins of time: how many of each polarity each pixel has in each time step."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from tempfile import SpooledTemporaryFile
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import ExampleFile
from bootstrap_core.data.events.recordings import Events, Recording, as_events, read_events
from bootstrap_core.data.stored_images import STORED_FROM
from bootstrap_core.progress import Progress, current_progress
from specs.errors import DataError
from specs.fields import Shape
from specs.files.limits import refuse_beyond_memory
from specs.network import NetworkSpec

MOST_BINS = 4096
"""Largest number of bins; a spec has no more time steps."""
MOST_BITS = 8
COUNT = np.dtype([("cell", "<u4"), ("count", "u1")])
"""Index in `[T, C, H, W]` of a pixel that has events in a time step, and their number."""


@dataclass(frozen=True)
class EventBins:
    """Bins of a recording: frames with the number of events of each polarity and pixel in each time step.

    Attributes:
        shape: `(2, H, W)` with OFF as channel 0 and ON as channel 1; `(1, H, W)` with both in one; `(features,)` for
            recordings of neurons, which have no rows.
        time_steps: number of bins; None takes as many as the recording needs.
        bits: number of bits of a count, at most 8; a larger number of events counts as `2**bits - 1`.

    Raises `DataError` for other values.
    """

    shape: Shape = (2, 34, 34)
    time_steps: int | None = 30
    bin_us: int = 10_000
    bits: int = 1

    def __post_init__(self) -> None:
        if len(self.shape) not in {1, 3} or (len(self.shape) == 3 and self.shape[0] not in {1, 2}):
            raise DataError(f"events need an input of shape [2, H, W], [1, H, W] or [features], not {list(self.shape)}")
        if not 1 <= self.bits <= MOST_BITS:
            raise DataError(f"bits: must be from 1 to {MOST_BITS}, got {self.bits}")
        if self.bin_us < 1:
            raise DataError(f"bin_us: must be at least 1, got {self.bin_us}")
        if self.time_steps is not None and not 1 <= self.time_steps <= MOST_BINS:
            raise DataError(f"time_steps: must be from 1 to {MOST_BINS}, got {self.time_steps}")

    @classmethod
    def of(cls, spec: NetworkSpec, shape: Shape | None = None) -> "EventBins | None":
        """Return the bins that a network takes; None for a network of images.

        Args:
            shape: shape of a frame, if the network's input is flat; by default that of the input.
        """
        entering = spec.input
        if not entering.is_events:
            return None
        return cls(shape or entering.shape, spec.time_steps, entering.bin_us, min(entering.bits, MOST_BITS))

    @property
    def frame(self) -> tuple[int, int, int]:
        """Shape `(C, H, W)` of the frame of a time step."""
        channels, height, width = self.shape if len(self.shape) == 3 else (1, 1, *self.shape)
        return channels, height, width

    def n_steps(self, events: Events) -> int:
        """Return T: `time_steps`, or as many as the recording needs."""
        return self.time_steps or int(events.t.max(initial=0)) // self.bin_us + 1

    def counts(self, events: Events, where: str) -> tuple[npt.NDArray[np.void], int]:
        """Return the counts of a recording by rising cell, and its number of events after the last bin."""
        channels, height, width = self.frame
        for name, array, size in (("x", events.x, width), ("y", events.y, height)):
            if array.max(initial=0) >= size:
                place = int((array >= size).argmax())
                raise DataError(
                    f"{where}: {name} of event {place:,} is {array[place]}, outside the sensor of {height} rows and "
                    f"{width} columns: input.shape must be that of the camera"
                )
        step = events.t // self.bin_us
        n_steps = self.n_steps(events)
        if n_steps > MOST_BINS:
            raise DataError(f"{where}: {n_steps:,} bins of {self.bin_us:,} us, at most {MOST_BINS:,}: make them wider")
        if n_steps * prod(self.frame) > 1 << 32:
            raise DataError(f"{where}: {n_steps:,} frames of {list(self.frame)} have more than 2^32 pixels")
        kept = step < n_steps
        if len(events) and events.t[0] > n_steps * self.bin_us + events.t[-1] - events.t[0]:
            raise DataError(
                f"{where}: the first event comes at {int(events.t[0]):,} us, after the last of {n_steps} "
                f"bins of {self.bin_us:,} us: times must count from the start of the recording"
            )
        channel = events.p if channels == 2 else 0
        cells = (((step * channels + channel) * height + events.y) * width + events.x)[kept]
        cells, counts = np.unique(cells, return_counts=True)
        found = np.empty(len(cells), COUNT)
        found["cell"], found["count"] = cells, counts.clip(max=2**self.bits - 1)
        return found, int((~kept).sum())


def bin_events(recording: Recording, bins: EventBins = EventBins(), where: str = "recording") -> tuple[Tensor, int]:
    """Return the frames of a recording, uint8 `[T, C, H, W]`, and the number of events after the last of them.

    A recording is `Events`, arrays x, y, p and t by their names (a dict, or what `np.load` returns of an `.npz`), a
    structured array, or the path of a file. Row and column are y and x of the events. Without `bins.time_steps`, T is
    such that no event is left out. Errors are those of `as_events` and `EventBins.counts`.

    >>> recording = {"x": [3, 3], "y": [0, 0], "p": [1, 1], "t": [9, 25]}
    >>> frames, n_after = bin_events(recording, EventBins((2, 4, 4), time_steps=2, bin_us=10))
    >>> frames.shape, frames.nonzero().tolist(), n_after
    (torch.Size([2, 2, 4, 4]), [[0, 1, 0, 3]], 1)
    """
    events = as_events(recording, where)
    counts, n_after = bins.counts(events, where)
    n_steps = bins.n_steps(events)
    refuse_beyond_memory(n_steps * prod(bins.frame), f"{where}: {n_steps} frames of {list(bins.frame)}")
    frames = np.zeros((n_steps, *bins.frame), np.uint8)
    frames.reshape(-1)[counts["cell"]] = counts["count"]
    return torch.from_numpy(frames), n_after


@dataclass(frozen=True, eq=False)
class BinnedRecordings:
    """Recordings as an array `[N, T, C, H, W]` of counts.

    All recordings are read when rows are first asked for. Of each only the counts above 0 are kept, in memory or,
    beyond `STORED_FROM` bytes, in a temporary file that ends with the process. Frames are made for the rows asked for.

    Args:
        progress: function that is called with the number of recordings read and of all; by default that of the
            `file_progress` in which this is made.
    """

    place: str
    n_recordings: int
    read_all: Callable[[], Iterable[tuple[str, Events]]]
    bins: EventBins
    progress: Progress = field(default_factory=current_progress)
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)  # noqa: RUF009 - immutable

    def __post_init__(self) -> None:
        if self.bins.time_steps is None:
            raise DataError(f"{self.place}: a dataset needs bins.time_steps, as all its recordings have the same T")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(N, T, C, H, W)`."""
        assert self.bins.time_steps is not None  # checked when the recordings were made
        return (self.n_recordings, self.bins.time_steps, *self.bins.frame)

    def read(self, rows: Tensor) -> npt.NDArray[np.uint8]:
        """Return the frames of some recordings, uint8 `[n, T, C, H, W]`. Errors are those of reading and binning."""
        shape = (len(rows), prod(self.shape[1:]))
        refuse_beyond_memory(prod(shape), f"{self.place}: {len(rows):,} recordings")
        flat = np.zeros(shape, np.uint8)
        file, ends, _, _ = self._kept
        for place, row in enumerate(rows.tolist()):
            start, end = map(int, ends[row : row + 2])
            file.seek(start * COUNT.itemsize)
            counts = np.frombuffer(file.read((end - start) * COUNT.itemsize), COUNT)
            flat[place, counts["cell"]] = counts["count"]
        return flat.reshape(len(rows), *self.shape[1:])

    @cached_property
    def left_out(self) -> str | None:
        """Note for people on events after the last bin; None if there are none. Reads all recordings."""
        _, _, late, n_kept = self._kept
        n_events, n_longer = int(late.sum()), int((late > 0).sum())
        if not n_events:
            return None
        end = self.shape[1] * self.bins.bin_us / 1000
        return (
            f"{n_longer:,} of {self.n_recordings:,} recordings go on after {end:,.0f} ms, the last time step: their "
            f"last {n_events:,} events ({n_events / (n_events + n_kept):.2%} of all) are left out"
        )

    @cached_property
    def _kept(self) -> tuple[IO[bytes], npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Counts of all recordings in a file, where each begins, numbers of events after the last bin, of others."""
        file: IO[bytes] = SpooledTemporaryFile(max_size=STORED_FROM)  # noqa: SIM115 - open as long as this is in use
        weakref.finalize(self, file.close)
        ends, after, n_events = [0], [], 0
        self.progress(0, self.n_recordings)  # the estimate is from here, not from when this was made
        for where, events in self.read_all():
            counts, n_after = self.bins.counts(events, where)
            file.write(counts.tobytes())
            ends.append(ends[-1] + len(counts))
            after.append(n_after)
            n_events += len(events) - n_after
            self.progress(len(after), self.n_recordings)
        return file, np.array(ends), np.array(after), n_events


def recorded_files(place: str, files: Sequence[ExampleFile], bins: EventBins) -> BinnedRecordings:
    """Return the recordings in files, which are read when they are first used; `place` is for errors."""
    return BinnedRecordings(place, len(files), lambda: ((str(file), read_events(file)) for file in files), bins)
