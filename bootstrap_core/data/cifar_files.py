"""Batches of CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html, "Dataset layout".

Five batches of training images and one of test images are single files, or together in a `.tar.gz`. A batch in bytes is
a sequence of records, the label and then the pixels `[C, H, W]`. A batch of the Python version is a pickle of Python 2:
a dict with `labels`, a list, and `data`, a NumPy array `[N, C * H * W]`.

The batches are pickles. Only a file with the right sha256 is unpickled, and then by an allow-list. The download has no
pickles: it is the archive of plain bytes.
"""

import io
import pickle
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.digests import open_verified
from specs.errors import IntegrityError

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
"""Names of the batches, without .bin; the last one has the test images."""
Arrays = tuple[Tensor, Tensor]
"""Images, uint8 `[N, C, H, W]`, and labels, uint8 `[N]`."""


def read_batches(files: Mapping[Path, str], image_shape: Sequence[int]) -> tuple[Arrays, Arrays]:
    """Return training images and labels, and test images and labels.

    Every file is compared with its digest before anything in it is read.

    Args:
        files: sha256 of each file by its path: of six batches, or of one `.tar.gz` that contains them.
    """
    found = {}
    for path, sha256 in files.items():
        with open_verified(path, sha256) as file:
            for name, data in _batches(path, file):
                read = _from_records if name.endswith(".bin") else _from_pickle
                found[name.removesuffix(".bin")] = read(data, image_shape, f"{path}: {name}")
    if missing := [name for name in BATCHES if name not in found]:
        raise IntegrityError(f"{', '.join(map(str, files))}: no {', '.join(missing)}")
    images, labels = zip(*(found[name] for name in BATCHES), strict=True)
    return (torch.cat(images[:-1]), torch.cat(labels[:-1])), (images[-1], labels[-1])


def _batches(path: Path, file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the batches in a file: of itself, or of those in an archive."""
    if not path.name.endswith(".tar.gz"):
        yield path.name, file.read()
        return
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name.removesuffix(".bin") in BATCHES and (content := archive.extractfile(member)):
                    yield name, content.read()
    except tarfile.TarError as error:
        raise IntegrityError(f"{path} is a damaged archive: {error}") from None


def _from_records(data: bytes, image_shape: Sequence[int], what: str) -> Arrays:
    record = 1 + prod(image_shape)
    if not data or len(data) % record:
        raise IntegrityError(f"{what}: {len(data):,} bytes are not a whole number of records of {record:,} bytes")
    records = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, record).copy())
    return records[:, 1:].reshape(-1, *image_shape), records[:, 0]


def _from_pickle(data: bytes, image_shape: Sequence[int], what: str) -> Arrays:
    try:
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        labels, (_, shape, kind, by_columns, pixels) = batch[b"labels"], batch[b"data"].state
        if kind.arguments[0] != b"u1" or by_columns or shape != (len(labels), prod(image_shape)):
            raise ValueError(f"data must be uint8 [{len(labels)}, {prod(image_shape)}]")
        images = np.frombuffer(pixels, np.uint8).reshape(-1, *image_shape)
        return torch.from_numpy(images.copy()), torch.tensor(labels, dtype=torch.uint8)
    except Exception as error:  # a pickle can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{what}: not a batch of CIFAR-10: {reason}") from None


class _Described:
    """NumPy object as its pickle describes it. NumPy itself is not called: a damaged state could do anything there."""

    def __init__(self, *arguments: object) -> None:
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Unpickler of plain values and of the three names that a pickled array has; it runs no other code."""

    ALLOWED = (("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"))

    def find_class(self, module: str, name: str) -> type[_Described]:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return type(name, (_Described,), {})  # a new class: a pickle may set attributes of what it gets
