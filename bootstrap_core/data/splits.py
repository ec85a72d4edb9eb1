"""Images with their class numbers: splits, datasets of a training and a test split, and random splits."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bootstrap_core.data.events.binning import BinnedRecordings
from bootstrap_core.data.stored_images import StoredImages
from bootstrap_core.pictures import figure, image_uri
from specs.arguments import check_type
from specs.dataset_sources import dataset_title
from specs.errors import DataError
from specs.layers.input import LogMelSpec
from specs.outline import few_lines
from specs.words import counted, sample_word

TEST_PART = 5
"""One of so many inputs is for testing if a file has no test set."""
SHOWN_IMAGES, SHOWN_WIDTH = 20, 56
"""Number of images that a notebook shows of a split, and their width there in pixels."""
CLASSES_SHOWN = 10
"""Largest number of classes in a message."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images or recordings of events with their class numbers.

    Attributes:
        images: uint8 `[N, C, H, W]`, 0 black to 255 white; or the number of events in each time step, uint8
            `[N, T, C, H, W]`. Images larger than memory stay in their file, and recordings are read when they are first
            used; `images[...]` returns a tensor in all cases.
        labels: class numbers, int64 `[N]`.
        n_validation: number of examples at the end that the dataset sets apart for validation.

    Raises `DataError` for other shapes or dtypes, or for NumPy arrays.
    """

    images: Tensor | StoredImages
    labels: Tensor
    n_validation: int = 0

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("labels", self.labels)):
            wanted, advice = f"{name} must be a tensor", "convert with torch.as_tensor"
            check_type(value, (Tensor, StoredImages), wanted, advice=advice, error=DataError)
        found = f"{self.images.dtype} {list(self.images.shape)}"
        if self.images.dtype != torch.uint8 or self.images.ndim not in {4, 5} or len(self.images) != len(self.labels):
            n = len(self.labels)
            raise DataError(f"images must be uint8 [{n}, C, H, W], or events uint8 [{n}, T, C, H, W], not {found}")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DataError(f"labels must be int64 [N], not {self.labels.dtype} {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_events(self) -> bool:
        """True if the inputs differ from step to step: `images` is `[N, T, C, H, W]`."""
        return self.images.ndim == 5

    @property
    def left_out(self) -> str | None:
        """Note for people on events after the last time step; None if there are none. Reads all recordings."""
        array = self.images.array if isinstance(self.images, StoredImages) else None
        return array.left_out if isinstance(array, BinnedRecordings) else None

    def __repr__(self) -> str:
        of = f", labels {int(self.labels.min())} to {int(self.labels.max())}" if len(self) else ""
        what = "recordings" if self.has_events else "images"
        return f"Split of {len(self):,} {what}, uint8 {list(self.images.shape[1:])}{of}"

    def _repr_html_(self) -> str:
        """Return pictures of the first images with their class numbers, for a notebook."""
        return "".join(
            figure(image_uri(image), str(int(label)), width=SHOWN_WIDTH)
            for image, label in zip(*self[:SHOWN_IMAGES], strict=True)
        )

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return an image, uint8 `[C, H, W]`, and its class number, as torch's `DataLoader` expects.

        For a slice, a list or a tensor, return images `[n, C, H, W]` and class numbers `[n]`.

        >>> from bootstrap_core import load_dataset
        >>> images, labels = load_dataset("mnist-sample").test[:3]
        >>> images.shape, labels.shape
        (torch.Size([3, 1, 28, 28]), torch.Size([3]))
        """
        labels = self.labels[index]
        images = self.images[index if labels.ndim else [int(index)]]  # type: ignore[index,arg-type]
        return (images if labels.ndim else images[0]), labels

    def pixels(self, indices: Tensor) -> Tensor:
        """Return images uint8 `[n, C, H, W]` for indices int64 `[n]`; faster than `images[indices]`."""
        images = self.images
        return images.index_select(0, indices) if isinstance(images, Tensor) else images[indices]

    def inputs(self, index: slice | Tensor) -> Tensor:
        """Return inputs as networks take them: images `[n, C, H, W]`, or events time first, `[T, n, C, H, W]`."""
        return time_first(self.images[index])

    def take(self, indices: Tensor | list[int] | slice) -> "Split":
        """Return the images and labels at `indices`, in this order.

        A slice shares memory. Indices copy the images, unless these are stored in a file: then only indices are kept.

        >>> from bootstrap_core import load_dataset
        >>> len(load_dataset("mnist-sample").test.take(slice(0, 10)))
        10
        """
        images = self.images
        return Split(
            images.take(indices) if isinstance(images, StoredImages) else images[indices], self.labels[indices]
        )


def time_first(images: Tensor) -> Tensor:
    """Return stored events `[n, T, C, H, W]` as networks take them, `[T, n, C, H, W]`; images are unchanged."""
    return images.transpose(0, 1) if images.dim() == 5 else images


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images of a named dataset.

    Attributes:
        source: where the data came from, for people.
        is_sample: True for a small part of the real dataset; results on it must say so.
        is_drawn: True if the test images were drawn at random from all images.
        drawn_from: number of test images before `limited` drew some of them; None if `test` has all.
        log_mel: how recordings became these images; None for images.
        in_cards: False if cards must not contain these images.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    is_sample: bool = False
    is_drawn: bool = False
    drawn_from: int | None = None
    log_mel: LogMelSpec | None = None
    credit: str | None = None
    in_cards: bool = True
    test_places: ClassVar[str] = "folders train and test, or arrays x_train and x_test"
    """Forms of data that have test inputs of their own, for people."""

    @property
    def card(self) -> dict[str, Any]:
        """Facts about the data for model files: names of the classes, and the shape of the images."""
        return {"classes": list(self.classes), "image_shape": list(self.test.images.shape[-3:])}

    @property
    def title(self) -> str:
        """Name of the dataset for people."""
        return dataset_title(self.name)

    @property
    def has_names(self) -> bool:
        """True if the classes have names, and not just their numbers."""
        return self.classes != tuple(map(str, range(len(self.classes))))

    def limited(self, n_test: int | None) -> "Dataset":
        """Return the dataset with at most `n_test` test images, each class with its share; None keeps all.

        The same images are drawn each time.

        >>> from bootstrap_core import load_dataset
        >>> load_dataset("mnist-sample").limited(50).test.labels.bincount().tolist()
        [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
        """
        if n_test is None or n_test >= len(self.test):
            return self
        test = self.test.take(_stratified(self.test, n_test, seed=0))
        return replace(self, test=test, drawn_from=len(self.test))

    @property
    def sample(self) -> str:
        """Word for an example: `image`, `sound` or `recording`."""
        return sample_word(is_sound=self.log_mel is not None, is_timed=self.test.has_events)

    @property
    def tested(self) -> str:
        """Number of test images for people: all 120 test images, or 30 of the 120 test images."""
        n, of_all = len(self.test), self.drawn_from
        return f"all {n:,} test {self.sample}s" if of_all is None else f"{n:,} of the {of_all:,} test {self.sample}s"

    def with_classes(self, classes: Sequence[str]) -> "Dataset":
        """Number the classes as in `classes`, by name; data that have only numbers get the names.

        Raises `DataError` for numbers beyond the classes, and for names that are not in `classes`: their order is
        unknown, and accuracies would mean nothing.
        """
        if not self.has_names:
            for split in (self.train, self.test):
                check_split(split, len(classes))
            return replace(self, classes=tuple(classes))
        numbers = {name: number for number, name in enumerate(classes)}
        if strange := [name for name in self.classes if name not in numbers]:
            raise DataError(
                f"{self.name} has classes that the network does not have ({listed(strange)}); the network's are "
                f"{listed(classes)}: name the classes of {self.name} in the network's order, as in --classes a,b,c"
            )
        of_own = torch.tensor([numbers[name] for name in self.classes])
        train, test = (replace(split, labels=of_own[split.labels]) for split in (self.train, self.test))
        return replace(self, train=train, test=test, classes=tuple(classes))

    @property
    def limit_note(self) -> str | None:
        """Note for people that scores are of some of the test images; None if `test` has all."""
        if self.drawn_from is None:
            return None
        tested, known = len(self.test.labels.unique()), len(self.classes)
        which = "each class with its share" if tested == known else f"of only {tested} of the {known} classes"
        return f"scored on {self.tested}, {which}"

    def __repr__(self) -> str:
        lines = [f"{len(self.classes)} classes: {reprlib.repr(self.classes)}", f"train: {self.train}"]
        return few_lines(f"Dataset {self.name!r}", [*lines, f"test: {self.test}"])


def listed(names: Sequence[str]) -> str:
    """Return the first names with commas, and the number of the others."""
    more = f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else ""
    return ", ".join(names[:CLASSES_SHOWN]) + more


def check_split(split: object, n_classes: int) -> None:
    """Raise `DataError` unless `split` is a `Split` and its labels are from 0 to `n_classes` - 1."""
    advice = "pass its train or its test" if isinstance(split, Dataset) else ""
    check_type(
        split,
        Split,
        "images and labels must be a Split, or a torch Dataset or DataLoader",
        advice=advice,
        error=DataError,
    )
    assert isinstance(split, Split)
    least, most = map(int, split.labels.aminmax()) if len(split) else (0, 0)
    if least < 0 or most >= n_classes:
        wrong = most if 0 <= least < n_classes else least
        raise DataError(
            f"label {wrong}: the network has {counted(n_classes, 'class')}, so labels must be from 0 to "
            f"{n_classes - 1}{hint_from_one(least, most, n_classes)}"
        )


def hint_from_one(least: int, most: int, n_classes: int) -> str:
    """Return the end of a message on labels beyond the classes: advice if they seem to count from 1."""
    return "; if the labels count from 1, subtract 1" if least == 1 and most == n_classes else ""


def draw_test(n: int, *, seed: int, source: str) -> tuple[Tensor, Tensor]:
    """Draw a fifth of `n` inputs for testing; return the indices of the others, for training, and of these.

    Raises `DataError`, which names `source`, if there are fewer than two.
    """
    if n < 2:
        raise DataError(f"{source}: needs at least 2 inputs, one for training and one for testing, got {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    n_test = max(1, n // TEST_PART)
    return order[n_test:], order[:n_test]


def train_validation_split(split: Split, *, n_validation: int, seed: int) -> tuple[Split, Split]:
    """Set aside `n_validation` images; return (train, validation), each in the original order.

    If the dataset itself sets apart as many, these are taken; otherwise they are drawn.

    Stratified: each class contributes its share of `n_validation`, rounded so that the total is exact (largest
    remainders). The choice within a class depends on `seed` alone. Raises `DataError` unless
    0 < n_validation < len(split).

    >>> from bootstrap_core import load_dataset
    >>> train, validation = train_validation_split(load_dataset("mnist-sample").train, n_validation=200, seed=0)
    >>> len(train), validation.labels.bincount().unique().tolist()
    (1800, [20])
    """
    if not 0 < n_validation < len(split):
        raise DataError(
            f"n_validation = {n_validation} must be from 1 to {len(split) - 1}, as there are {len(split)} images"
        )
    if n_validation == split.n_validation:
        return split.take(slice(0, len(split) - n_validation)), split.take(slice(len(split) - n_validation, None))
    is_validation = _stratified(split, n_validation, seed=seed)
    return split.take(~is_validation), split.take(is_validation)


def _stratified(split: Split, n: int, *, seed: int) -> Tensor:
    """Draw `n` images, each class with its share; return a mask, bool `[N]`. See `train_validation_split`."""
    class_sizes = split.labels.bincount()
    whole, remainders = (n * class_sizes) // len(split), (n * class_sizes) % len(split)
    by_remainder = remainders.argsort(descending=True, stable=True)
    whole[by_remainder[: n - int(whole.sum())]] += 1

    generator = torch.Generator().manual_seed(seed)
    is_taken = torch.zeros(len(split), dtype=torch.bool)
    for label, n_taken in enumerate(whole.tolist()):
        members = (split.labels == label).nonzero().flatten()
        is_taken[members[torch.randperm(len(members), generator=generator)[:n_taken]]] = True
    return is_taken
