"""Splits: indices, labels, and the validation split."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Dataset, Split, check_split, train_validation_split
from specs.errors import DataError


def make_split(class_sizes: list[int]) -> Split:
    """Return a split whose images contain their own numbers, so that a wrong pairing shows."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(class_sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    numbers = torch.arange(len(labels), dtype=torch.uint8)
    return Split(numbers[:, None, None, None].expand(-1, 1, 28, 28), labels)


def numbers(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_a_split_is_a_dataset_of_torch() -> None:
    split = load_dataset("mnist-sample").train.take(slice(0, 7))
    batches = list(DataLoader(split, batch_size=4))
    assert [len(labels) for _, labels in batches] == [4, 3]
    assert torch.equal(torch.cat([images for images, _ in batches]), split.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)
    assert sum(1 for _ in split) == 7


def test_labels_that_count_from_1_are_explained() -> None:
    split = make_split([3, 4])
    with pytest.raises(DataError, match=r"label 2: the network has 2 classes.* 0 to 1; if the labels count from 1"):
        check_split(replace(split, labels=split.labels + 1), 2)
    with pytest.raises(DataError, match=r"0 to 0$"):
        check_split(split, 1)


@pytest.mark.parametrize("chosen", [slice(2, 5), [5, 0, 2], torch.tensor([5, 0, 2]), torch.arange(7) % 3 == 1, []])
def test_an_index_of_several_returns_matching_images_and_labels(chosen) -> None:
    split = make_split([3, 4])
    images, labels = split[chosen]
    assert torch.equal(images, split.images[chosen])
    assert torch.equal(labels, split.labels[chosen])


def test_validation_split_is_stratified_and_disjoint() -> None:
    split = make_split([40, 20, 60])
    train, validation = train_validation_split(split, n_validation=30, seed=0)
    assert validation.labels.bincount().tolist() == [10, 5, 15]
    assert train.labels.bincount().tolist() == [30, 15, 45]
    assert sorted(numbers(train) + numbers(validation)) == list(range(120))
    for part in (train, validation):
        assert numbers(part) == sorted(numbers(part))
        assert part.labels.tolist() == split.labels[numbers(part)].tolist()


@pytest.mark.parametrize(("n_validation", "expected"), [(1, [1, 0, 0]), (4, [2, 1, 1]), (9, [4, 3, 2])])
def test_validation_shares_round_by_largest_remainder(n_validation: int, expected: list[int]) -> None:
    # Exact shares: 0.4 0.4 0.2; 1.6 1.6 0.8; 3.6 3.6 1.8. Of equal remainders, the lower class is rounded up
    _, validation = train_validation_split(make_split([4, 4, 2]), n_validation=n_validation, seed=0)
    assert validation.labels.bincount(minlength=3).tolist() == expected


def test_validation_split_depends_on_the_seed_alone() -> None:
    split = make_split([50, 50])
    before = torch.get_rng_state()
    first, again, other = (numbers(train_validation_split(split, n_validation=20, seed=s)[1]) for s in (3, 3, 4))
    assert first == again
    assert first != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n_validation", [-1, 0, 10, 11])
def test_validation_split_refuses_to_leave_a_part_empty(n_validation: int) -> None:
    with pytest.raises(DataError, match=f"n_validation = {n_validation} must be from 1 to 9"):
        train_validation_split(make_split([10]), n_validation=n_validation, seed=0)


def test_a_split_holds_recordings_and_gives_them_time_first() -> None:
    events = torch.randint(0, 2, (4, 7, 2, 5, 6), dtype=torch.uint8)
    split = Split(events, torch.tensor([0, 1, 2, 1]))
    assert split.has_events
    assert repr(split) == "Split of 4 recordings, uint8 [7, 2, 5, 6], labels 0 to 2"
    assert torch.equal(split.inputs(torch.tensor([3, 1]))[6, 0], events[3, 6])
    assert split.inputs(slice(1, 3)).shape == (7, 2, 2, 5, 6)
    assert split.take([2]).inputs(slice(None)).shape == (7, 1, 2, 5, 6)


@pytest.mark.parametrize("arrays", [{"images"}, {"labels"}])
def test_split_refuses_arrays_and_tells_what_makes_tensors_of_them(arrays: set[str]) -> None:
    numbers = {"images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "labels": torch.zeros(2, dtype=torch.int64)}
    given = {name: tensor.numpy() if name in arrays else tensor for name, tensor in numbers.items()}
    with pytest.raises(
        DataError, match=f"{arrays.pop()} must be a tensor, not a ndarray: convert with torch.as_tensor"
    ):
        Split(**given)


def test_a_limited_dataset_has_each_class_with_its_share() -> None:
    dataset = Dataset("a", make_split([6]), make_split([40, 20, 60]), ("x", "y", "z"), "here")
    some = dataset.limited(30)
    assert some.test.labels.bincount().tolist() == [10, 5, 15]
    assert some.test.labels.tolist() == dataset.test.labels[numbers(some.test)].tolist()
    assert numbers(some.test) == numbers(dataset.limited(30).test) != list(range(30))
    assert some.train is dataset.train
    assert (some.drawn_from, dataset.limited(120).drawn_from, dataset.limited(None).drawn_from) == (120, None, None)
    assert some.limit_note == "scored on 30 of the 120 test images, each class with its share"
    assert dataset.limited(2).limit_note == "scored on 2 of the 120 test images, of only 2 of the 3 classes"
    assert dataset.limit_note is None
    assert (dataset.tested, some.tested) == ("all 120 test images", "30 of the 120 test images")
