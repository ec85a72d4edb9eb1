"""Reading HDF5 files of strangers: only what lies in the file, of a size that a network may have."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from specs.errors import IntegrityError, SnnZooError

__all__ = ["Hdf5Node", "IntArray", "open_hdf5"]

SIZE_LIMIT = 1 << 28
"""Numbers of one dataset: beyond it, a short file asks for more memory than any network of this kind takes."""
EXACT_IN_FLOAT = 2.0**53

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hdf5Node:
    """A group of a file; `where` stands in error messages. Names may be paths, `neuron/type`."""

    group: h5py.Group
    where: str

    def find(self, name: str) -> Any:
        """The h5py group or dataset, or None. Raises `IntegrityError` for a link, which could lead out of the file."""
        here: Any = self.group
        for part in name.split("/"):
            if not isinstance(here, h5py.Group) or part not in here:
                return None
            if not isinstance(here.get(part, getlink=True), h5py.HardLink):
                raise IntegrityError(f"{self.where}/{name}: a link to elsewhere; links are not followed")
            here = here[part]
        return here

    def child(self, name: str) -> "Hdf5Node | None":
        """A group, or None."""
        found = self.find(name)
        return Hdf5Node(found, f"{self.where}/{name}") if isinstance(found, h5py.Group) else None

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """The numbers of a dataset, all finite, or None."""
        found = self.find(name)
        if not isinstance(found, h5py.Dataset):
            return None
        where = f"{self.where}/{name}"
        if found.external or found.is_virtual:
            raise IntegrityError(f"{where}: keeps its numbers outside the file; they are not read")
        if found.dtype.kind not in "iufb":
            raise IntegrityError(f"{where}: holds {found.dtype}, not numbers")
        if found.size is None or found.size > SIZE_LIMIT:
            raise IntegrityError(f"{where}: {found.size} numbers; at most {SIZE_LIMIT} are read")
        value = np.asarray(found[()])
        if not bool(np.isfinite(value).all()):
            raise IntegrityError(f"{where}: holds values that are not finite")
        return value

    def integers(self, name: str) -> IntArray | None:
        """Whole numbers, in one dimension, or None. Raises `IntegrityError` for fractions."""
        value = self.array(name)
        if value is None:
            return None
        if not bool(((np.trunc(value) == value) & (np.abs(value.astype(np.float64)) < EXACT_IN_FLOAT)).all()):
            raise IntegrityError(f"{self.where}/{name}: holds {value.ravel()[:4]}..., not whole numbers")
        return value.astype(np.int64).ravel()

    def integer(self, name: str) -> int | None:
        """One whole number, or None."""
        value = self.integers(name)
        if value is not None and value.size != 1:
            raise IntegrityError(f"{self.where}/{name}: holds {value.size} numbers, not one")
        return None if value is None else int(value[0])

    def text(self, name: str) -> str:
        """A string, or the first of several; empty if there is none."""
        found = self.find(name)
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "SO" or found.size != 1:
            return ""
        value = np.asarray(found[()]).flat[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Node]:
    """The root of a file; errors of the system and of damage, in the block too, become ours.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: it is not HDF5, or is damaged.
    """
    try:
        with path.open("rb"):  # h5py tells a missing file and a damaged one in the same words
            pass
    except (OSError, ValueError) as error:
        raise SnnZooError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        with h5py.File(path, "r") as file:
            yield Hdf5Node(file, str(path))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise IntegrityError(f"{path}: not an HDF5 file, or a damaged one: {error}") from None
