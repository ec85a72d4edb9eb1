"""Read HDF5 files from untrusted sources: only data in the file itself, and no more than a network can need."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from specs.errors import IntegrityError, SnnZooError
from specs.files.given_file import check_given_file
from specs.files.limits import HDF5_TEXTS, refuse_beyond_memory, unpacked_bytes

if TYPE_CHECKING:
    from converters.formats.hdf5.hdf5_file import BoundedFile

EXACT_IN_FLOAT = 2.0**53
COPIES = 8
"""Memory that reading a dataset takes, in sizes of the dataset: raw, 64-bit integers, weights (make bench-readers)."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hdf5Node:
    """Group of an HDF5 file. Names may be paths, such as `neuron/type`.

    Attributes:
        group: the group, by pyfive.
        where: path of the file and of the group, for error messages.
        budget: bytes that the arrays of the whole file may still take when unpacked.
        file: the open file, which counts the bytes that are read.
    """

    group: Mapping[str, Any]
    where: str
    budget: "Budget"
    file: "BoundedFile"

    @property
    def names(self) -> list[str]:
        """Names in the group, sorted. Raises `IntegrityError` for a name that is not printable text."""
        names = list(self.group)
        if not all(name.isprintable() for name in names):
            raise IntegrityError(f"{self.where}: holds a name that is not printable text")
        return sorted(names)

    def attribute(self, name: str) -> str | None:
        """Return an attribute that is a text; None if it is missing or not a text."""
        with _placed(f"{self.where}: attribute {name}"), warnings.catch_warnings(action="ignore"):
            value = self.group.attrs.get(name)  # type: ignore[attr-defined]
            return _printable(value.decode()) if isinstance(value, bytes) else None

    def find(self, name: str) -> Any:
        """Return pyfive's group or dataset, or None. Raises `IntegrityError` for a link, which could leave the file."""
        here: Any = self.group
        where = self.where
        for part in name.split("/"):
            where = f"{where}/{part}"
            if not isinstance(here, Mapping) or part not in _links(here):
                return None
            if isinstance(_links(here)[part], str):
                raise IntegrityError(f"{where}: is a link; links are not followed")
            with _placed(where):
                here = here.get_lazy_view(part)  # type: ignore[attr-defined]
        return here

    def address(self, name: str) -> int | str:
        """Return the address in the file of what a name of this group refers to."""
        return _links(self.group)[name]

    def child(self, name: str) -> "Hdf5Node | None":
        found = self.find(name)
        return replace(self, group=found, where=f"{self.where}/{name}") if isinstance(found, Mapping) else None

    def _dataset(self, name: str) -> Any:
        from pyfive import Dataset

        found = self.find(name)
        return found if isinstance(found, Dataset) else None

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """Return the numbers of a dataset, or None. Raises `IntegrityError` unless all are finite numbers."""
        from converters.formats.hdf5.hdf5_file import read_numbers, stored_bytes

        if (found := self._dataset(name)) is None:
            return None
        with _placed(f"{self.where}/{name}"):
            if found.dtype.kind not in "iufb":
                raise IntegrityError(f"holds {found.dtype}, not numbers")
            self.budget.take(stored_bytes(found))
            value = read_numbers(found, self.file)
            if not bool(np.isfinite(value).all()):
                raise IntegrityError("holds values that are not finite")
        return value

    def integers(self, name: str) -> IntArray | None:
        """Return whole numbers, flattened, or None. Raises `IntegrityError` for fractions and beyond 2^53."""
        value = self.array(name)
        if value is None:
            return None
        if not bool((np.trunc(value) == value).all()):
            raise IntegrityError(f"{self.where}/{name}: holds {value.ravel()[:4]}..., not whole numbers")
        if not bool((np.abs(value.astype(np.float64)) < EXACT_IN_FLOAT).all()):
            raise IntegrityError(f"{self.where}/{name}: holds {value.ravel()[:4]}..., beyond 2^53")
        return value.astype(np.int64).ravel()

    def integer(self, name: str) -> int | None:
        """Return a single whole number, or None. Raises `IntegrityError` for several."""
        value = self.integers(name)
        if value is not None and value.size != 1:
            raise IntegrityError(f"{self.where}/{name}: holds {value.size} numbers, not one")
        return None if value is None else int(value[0])

    def texts(self, name: str) -> str | npt.NDArray[Any] | None:
        """Return a string or an array of strings; None if there is no such dataset of strings."""
        from pyfive import check_string_dtype

        from converters.formats.hdf5.hdf5_file import read_texts, stored_bytes

        if (found := self._dataset(name)) is None:
            return None
        with _placed(f"{self.where}/{name}"):
            if check_string_dtype(found.dtype) is None:
                return None
            if found.size > HDF5_TEXTS:
                raise IntegrityError(f"holds {found.size:,} texts; at most {HDF5_TEXTS:,} are read")
            self.budget.take(stored_bytes(found))
            texts = read_texts(found, self.file)
        return texts if texts.ndim else str(texts[()])

    def text(self, name: str) -> str:
        """Return a string, or the only string of an array; empty if there is none."""
        texts = self.texts(name)
        if isinstance(texts, np.ndarray):
            texts = str(texts.flat[0]) if texts.size == 1 else ""
        with _placed(f"{self.where}/{name}"):
            return _printable(texts or "")


@dataclass
class Budget:
    """Number of bytes that the arrays of a file may still take."""

    left: int

    def take(self, n_bytes: int) -> None:
        if n_bytes > self.left:
            raise IntegrityError(f"{n_bytes:,} bytes; at most {self.left:,} are read from a file of this size")
        refuse_beyond_memory(COPIES * n_bytes, "reading it")
        self.left -= n_bytes


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Node]:
    """Open a file and yield its root group."""
    budget = Budget(unpacked_bytes(check_given_file(path)))
    from converters.formats.hdf5.hdf5_file import BoundedFile, BoundedRoot

    with path.open("rb") as raw:
        file = BoundedFile(raw)
        with _placed(str(path)):
            root = BoundedRoot(file)
        yield Hdf5Node(root, str(path), budget, file)


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Put the place before the message of an error. Any exception of pyfive is an `IntegrityError`."""
    try:
        yield
    except SnnZooError as error:
        raise type(error)(f"{where}: {error}") from None
    except Exception as error:
        raise IntegrityError(f"{where}: damaged or unsupported HDF5: {error!r:.200}") from None


def _links(group: Any) -> dict[str, int | str]:
    """Return the addresses of a group's members by name; for a soft link, the path that it leads to."""
    links: dict[str, int | str] = group._links
    return links


def _printable(text: str) -> str:
    if not text.isprintable():
        raise IntegrityError("not a printable text")
    return text
