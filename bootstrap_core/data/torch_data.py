"""Splits made of torch's datasets and loaders: of any `Dataset` or `DataLoader` of images or events, and labels."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from bootstrap_core.data.events.binning import BinnedRecordings, EventBins
from bootstrap_core.data.events.recordings import Events, as_events
from bootstrap_core.data.image_arrays import as_bytes, as_counts, as_images, class_numbers
from bootstrap_core.data.splits import Dataset, Split, draw_test
from bootstrap_core.data.timed_datasets import recorded_split
from specs.dataset_sources import all_class_names
from specs.errors import DataError
from specs.fields import Shape
from specs.files.limits import refuse_beyond_memory
from specs.network import NetworkSpec

TorchData = torch.utils.data.Dataset[Any] | DataLoader[Any]
BATCH = 256
"""Number of examples that are read at once of a dataset without a loader."""
READ_TWICE = 32
"""Number of examples that are read twice, to find out whether they change."""
WANTED = "a dataset gives pairs of an image, or the frames of a recording, and its class number"


def is_torch_data(given: object) -> bool:
    """Return whether `given` is a torch `Dataset` or `DataLoader`, or anything that has examples by their number."""
    if isinstance(given, DataLoader | torch.utils.data.Dataset):
        return True
    has_examples = hasattr(given, "__getitem__") and hasattr(given, "__len__")
    return has_examples and not isinstance(given, Split | Tensor | np.ndarray | str | bytes | tuple | Mapping)


def split_of(data: Any, spec: NetworkSpec) -> Split:
    """Return all examples of torch's `data` for the network of `spec`; see `read_split`.

    A network of events also takes recordings with class numbers. A recording is a structured array with the fields x,
    y, p and t (microseconds); one of neurons has no y. Datasets of tonic give such pairs if they have no transforms:
    `fit(network, tonic.datasets.SHD("folder"), ...)`, with `input.shape: [700]`. Recordings become frames by
    `input.bin_us`, `input.bits` and `time_steps`.
    """
    bins = EventBins.of(spec)
    if bins is not None and _has_recordings(data):
        return _recordings_of(data, bins)
    return read_split(data, shape=spec.input.shape, events=bins and replace(bins, time_steps=None))


def _has_recordings(data: Any) -> bool:
    if isinstance(data, DataLoader | IterableDataset) or not len(data):
        return False
    first = data[0]
    is_pair = isinstance(first, list | tuple) and len(first) == 2
    return is_pair and isinstance(first[0], np.ndarray) and first[0].dtype.names is not None


def _recordings_of(data: Any, bins: EventBins) -> Split:
    """Return the recordings of a dataset, each read once."""
    name, labels = type(data).__name__, list[Any]()

    def read() -> Iterator[tuple[str, Events]]:
        for i in range(len(data)):
            where = f"{name}, example {i}"
            recording, label = data[i]
            labels.append(label)
            yield where, as_events(recording, where)

    recordings = BinnedRecordings(name, len(data), read, bins)
    recordings.read(torch.arange(0))  # reads all, and so their labels
    return recorded_split(recordings, class_numbers(name, np.asarray(labels)).tolist())


def dataset_of(data: Any, shape: Shape) -> Dataset:
    """Return torch's `data` as images for training, and a fifth of them, drawn at random, for testing."""
    name = type(getattr(data, "dataset", data)).__name__
    split = read_split(data, shape=shape)
    train, test = map(split.take, draw_test(len(split), seed=0, source=name))
    known = getattr(getattr(data, "dataset", data), "classes", None)
    names = all_class_names(known, max(len(known or ()), int(split.labels.max()) + 1))
    return Dataset(name, train, test, names, name, is_drawn=True)


def read_split(data: Any, *, shape: Shape | None = None, events: EventBins | None = None) -> Split:
    """Read all examples of a torch `Dataset` or `DataLoader` once, and keep them as bytes.

    Of a loader, its workers and its function that makes batches are used; if it shuffles, the examples are read in
    the order of its dataset, as the seed of a recipe draws from them.

    Args:
        data: examples `(image, label)`. Images are floats in 0..1 or uint8, in the layouts of `load_images`; labels
            are class numbers, or one-hot.
        events: bins of a network of events, whose examples are counts `[T, C, H, W]`.

    Raises:
        DataError: the examples are no such pairs, or none, or images out of 0..1, as if they were normalised.
    """
    loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=BATCH)
    if isinstance(loader.sampler, RandomSampler):
        loader = DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
        )
    where, images, labels = type(loader.dataset).__name__, list[Tensor](), list[Tensor]()
    for x, y in _batches(loader, where):
        own = as_bytes(where, as_images(where, shape, x)) if events is None else as_counts(where, events, x)
        if not images and not isinstance(loader.dataset, IterableDataset):
            n_bytes = own[:1].numel() * len(loader.dataset)  # type: ignore[arg-type]
            refuse_beyond_memory(n_bytes, f"{where} of {len(loader.dataset):,} examples")  # type: ignore[arg-type]
            _warn_of_changes(loader, where, x)
        images.append(own)
        labels.append(class_numbers(where, y.numpy()))
    if not images:
        raise DataError(f"{where} has no examples")
    return Split(torch.cat(images), torch.cat(labels))


def _batches(loader: DataLoader[Any], where: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels. Raises `DataError` if torch cannot put examples together, or they are no pairs."""
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (TypeError, RuntimeError) as error:
            if "numpy.void" in str(error):  # torch has no type for a structured array
                raise DataError(f"{where}: pass a dataset of recordings itself, not a DataLoader of it") from None
            if "default_collate" not in str(error) and "stack expects" not in str(error):
                raise
            what = str(error).strip().splitlines()[-1][:200]
            raise DataError(
                f"{where}: examples cannot become a batch ({what}): {WANTED}, all images as tensors of one size: add "
                "a transform such as ToTensor, or Resize"
            ) from None
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            keys = f" with {', '.join(map(str, batch))[:100]}" if isinstance(batch, Mapping) else ""
            raise DataError(
                f"{where}: {WANTED}, not a {type(batch).__name__}{keys}: pass a DataLoader whose collate_fn returns "
                "(images, labels)"
            )
        x, y = map(torch.as_tensor, batch)
        yield x.detach().cpu(), y.detach().cpu()


def _warn_of_changes(loader: DataLoader[Any], where: str, first: Tensor) -> None:
    """Warn if the first examples differ when they are read again."""
    if loader.batch_size is None or not isinstance(loader.sampler, SequentialSampler):
        return
    some = [loader.dataset[i] for i in range(min(READ_TWICE, len(first)))]
    if not torch.equal(torch.as_tensor(loader.collate_fn(some)[0]), first[: len(some)]):
        warnings.warn(
            f"{where} gives other images each time, and each is read only once here: leave out random transforms, and "
            "set training.augment instead",
            stacklevel=2,
        )
