"""Files of recordings of event cameras.

Formats of five bytes for each event have no header, so the suffix selects the format:

- `.bin` of N-MNIST and `.bs2` of SLAYER: 40 bits, big endian: x in 8, y in 8, polarity in 1, microseconds in 23. With
  y = 240 they are a mark of the clock, not an event: it adds 8,192 microseconds to all later times, as in N-Caltech101.
- `.bs1` of SLAYER: the number of a neuron in 16 bits in place of x and y.
- `.npz` and `.npy`: arrays x, y, p and t, or one structured array with these fields, as in tonic.

Sources: Orchard et al. 2015, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades, with its
reader in MATLAB; slayerPytorch, `spikeFileIO.py`.
"""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Union

import numpy as np
import numpy.typing as npt

from bootstrap_core.data.class_folders import ExampleFile, read_file
from bootstrap_core.data.stored_images import read_header
from specs.arguments import check_type
from specs.errors import DataError, IntegrityError
from specs.files.given_archives import open_zip
from specs.files.limits import EVENT_FILE_BYTES

EVENT_BYTES = 5
TIME_MARK, TIME_MARK_US = 240, 1 << 13
"""Value of y that marks a step of the clock, and the step in microseconds."""
LAST_US = 1 << 53
"""Largest time in microseconds; floats hold whole numbers up to it."""
NAMES = {
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity", "polarities"),
    "t": ("t", "ts", "time", "timestamp", "timestamps"),
}
"""Names, in lower case, that arrays and fields have in files."""
UNITS = {"x": "columns", "y": "rows", "p": "polarities 0 and 1, or -1 and 1", "t": "microseconds"}
Arrays = Mapping[str, npt.NDArray[Any]]
Recording = Union["Events", str, os.PathLike[str], Mapping[str, npt.ArrayLike], npt.NDArray[Any]]
"""Recording in any of the forms that `as_events` takes."""


class Events(NamedTuple):
    """Events of a recording in the order of their times, int64 `[n]` each.

    Attributes:
        x: columns, from 0 at the left.
        y: rows, from 0 at the top.
        p: polarities: 1 for ON, 0 for OFF.
        t: times in microseconds from the start of the recording.
    """

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    p: npt.NDArray[np.int64]
    t: npt.NDArray[np.int64]

    @classmethod
    def of(cls, arrays: Arrays, where: str) -> "Events":
        """Return the events in arrays of numbers, `[n]` each, checked and sorted by time; equal times stay in order.

        Without `y` all events are in row 0, without `p` all are ON. Raises `DataError` for other numbers than whole
        ones from 0 on; polarities may also be -1 and 1.
        """
        x, t = (_whole(arrays[name], name, where) for name in ("x", "t"))
        y = _whole(arrays["y"], "y", where) if "y" in arrays else np.zeros_like(x)
        p = _whole(arrays["p"], "p", where) if "p" in arrays else np.ones_like(x)
        if len({len(x), len(y), len(p), len(t)}) > 1:
            raise DataError(f"{where}: x, y, p and t have {len(x):,}, {len(y):,}, {len(p):,} and {len(t):,} values")
        for name, array in (("x", x), ("y", y), ("t", t)):
            if array.min(initial=0) < 0:
                place = int((array < 0).argmax())
                raise DataError(f"{where}: {name} of event {place:,} is {array[place]}: {UNITS[name]} count from 0")
        if (signed := p == -1).any():
            p = np.where(signed, 0, p + (p == 0) * 2)  # 0 beside -1 is an error, found below
        if ((p < 0) | (p > 1)).any():
            raise DataError(f"{where}: p must be {UNITS['p']}")
        order = slice(None) if (t[1:] >= t[:-1]).all() else t.argsort(kind="stable")
        return cls(x[order], y[order], p[order], t[order])

    def __len__(self) -> int:
        return len(self.t)


def read_events(file: ExampleFile) -> Events:
    """Return the events of a recording, sorted by time; the suffix says the format.

    Raises `DataError`, with the file and the place in it, if the file cannot be read, is cut short, too large, of
    another format, or has no events.
    """
    data = read_file(file, EVENT_FILE_BYTES)
    suffix = PurePosixPath(file.name).suffix.lower()
    read = _READERS.get(suffix)
    if read is None:
        raise DataError(f"{file} is not a recording: the suffix must be one of {', '.join(_READERS)}")
    events = read(data, str(file))
    if not len(events):
        raise DataError(f"{file} has no events")
    return events


def as_events(given: Recording, where: str) -> Events:
    """Return a recording as `Events`: the path of a file, arrays by name, an `.npz`, or an array of records.

    Names are those that `read_events` takes. Raises `DataError` as it does.
    """
    if isinstance(given, Events):
        return given
    if isinstance(given, str | os.PathLike):
        return read_events(Path(given))
    if isinstance(given, np.ndarray):
        given = {"": given}
    wanted = f"{where} must be Events, the path of a file, arrays by their names, or a structured array"
    check_type(given, Mapping, wanted, error=DataError)
    return _of_fields({str(name): np.asarray(array) for name, array in given.items()}, where)


def _words(data: bytes, where: str) -> tuple[npt.NDArray[np.uint8], Arrays]:
    """Return the bytes of each event `[n, 5]`, and its polarity and time."""
    if len(data) % EVENT_BYTES:
        raise DataError(f"{where}: {len(data):,} bytes are not a whole number of events of {EVENT_BYTES} bytes")
    words = np.frombuffer(data, np.uint8).reshape(-1, EVENT_BYTES)
    high, middle, low = words[:, 2:].T.astype(np.int64)
    return words, {"p": high >> 7, "t": (high & 127) << 16 | middle << 8 | low}


def _read_2d(data: bytes, where: str) -> Events:
    words, arrays = _words(data, where)
    x, y = words[:, :2].T.astype(np.int64)
    is_mark = y == TIME_MARK
    t = arrays["t"] + TIME_MARK_US * is_mark.cumsum()
    return Events.of({name: array[~is_mark] for name, array in {**arrays, "x": x, "y": y, "t": t}.items()}, where)


def _read_1d(data: bytes, where: str) -> Events:
    words, arrays = _words(data, where)
    high, low = words[:, :2].T.astype(np.int64)
    return Events.of({**arrays, "x": high << 8 | low}, where)


def read_arrays(data: bytes, where: str, *, zipped: bool) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an `.npz` by name, or that of an `.npy` with an empty name. Raises `DataError`."""
    if not zipped:
        return {"": _array(io.BytesIO(data), len(data), where)}
    arrays = {}
    try:
        with open_zip(where, data) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    name = entry.filename.removesuffix(".npy")
                    arrays[name] = _array(stream, entry.file_size, f"{where}: {name[:40]!r}")
    except IntegrityError as error:
        raise DataError(f"{where} is not an .npz of arrays: {error}") from None
    return arrays


def _array(stream: IO[bytes], n_bytes: int, where: str) -> npt.NDArray[Any]:
    """Return an array of numbers, or of records of numbers; its header is checked before memory is allocated."""
    start = stream.tell()
    header = read_header(stream, n_bytes, where)
    if header.dtype.hasobject or n_bytes > EVENT_FILE_BYTES:
        raise DataError(f"{where} is not a plain array: it has objects, or more than {EVENT_FILE_BYTES:,} bytes")
    stream.seek(start)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _of_fields(arrays: Arrays, where: str) -> Events:
    """Return the events of arrays by their names in a file, or of the only array, if it has fields."""
    if len(arrays) == 1:
        (only,) = arrays.values()
        arrays = {name: only[name] for name in only.dtype.names} if only.dtype.names else arrays
    own = {name.lower(): array for name, array in arrays.items()}
    found = {name: own[given] for name, names in NAMES.items() for given in reversed(names) if given in own}
    if found.keys() not in ({"x", "t"}, {"x", "p", "t"}, {"x", "y", "p", "t"}):
        has = ", ".join(repr(name) if name else "an array without fields" for name in own)[:200] or "none"
        wanted = (
            "the events of a recording as arrays or fields x, y, p and t in microseconds; y, or y and p, may be missing"
        )
        raise DataError(f"{where} must have {wanted}; it has {has}")
    return Events.of(found, where)


def _whole(array: npt.NDArray[Any], name: str, where: str) -> npt.NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: {name} has dtype {array.dtype} and shape {list(array.shape)[:8]}, not numbers [n]")
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array % 1 == 0)).all():
        raise DataError(f"{where}: {name} must be whole numbers, {UNITS[name]}")
    if len(array) and not -LAST_US <= array.min() <= array.max() <= LAST_US:
        raise DataError(f"{where}: {name} must be at most {LAST_US:,}")
    return array.astype(np.int64)


_READERS: dict[str, Callable[[bytes, str], Events]] = {
    ".bin": _read_2d,
    ".bs1": _read_1d,
    ".bs2": _read_2d,
    ".npz": lambda data, where: _of_fields(read_arrays(data, where, zipped=True), where),
    ".npy": lambda data, where: _of_fields(read_arrays(data, where, zipped=False), where),
}
