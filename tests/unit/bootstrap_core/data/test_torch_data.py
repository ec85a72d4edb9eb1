"""Torch's datasets and loaders in place of splits: the same images, scores and training."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.events.binning import EventBins, bin_events
from bootstrap_core.data.splits import Split
from bootstrap_core.data.torch_data import dataset_of, is_torch_data, read_split, split_of
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from bootstrap_core.training.trainer import Trainer, fit
from specs.errors import DataError, IntegrityError, SnnZooError
from specs.network import NetworkSpec
from specs.training import TrainingSpec

DIGITS = load_dataset("mnist-sample").train.take(slice(0, 120))
PIXELS, LABELS = DIGITS[:]
RECIPE = TrainingSpec(epochs=3, snn_epochs=1, batch_size=40, validation=40, ema_decay=0.5, sample_iterations=1)


def make(**entering: Any) -> Network:
    document = {
        "name": "tiny",
        "time_steps": 4,
        "input": {"shape": [1, 28, 28], **entering},
        "blocks": [{"kind": "flatten"}, {"kind": "affine", "features": 10}],
    }
    return build_network(NetworkSpec.model_validate(document), seed=0)


class Floats(Dataset[tuple[Tensor, int]]):
    """Images as floats in 0..1, as ToTensor makes them, with labels as Python's integers."""

    classes = tuple("abcdefghij")

    def __len__(self) -> int:
        return len(DIGITS)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return PIXELS[i].float() / 255, int(LABELS[i])


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Any:
        return map(Floats().__getitem__, range(len(DIGITS)))


def upper_case(examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*examples, strict=True)
    return torch.stack(images), torch.tensor(labels)


@pytest.mark.parametrize(
    "data",
    [
        Floats(),
        Stream(),
        TensorDataset(PIXELS, LABELS),
        TensorDataset(PIXELS[:, 0], torch.nn.functional.one_hot(LABELS)),
        TensorDataset(PIXELS.flatten(1), LABELS),
        TensorDataset(PIXELS.permute(0, 2, 3, 1), LABELS),
        ConcatDataset([Subset(Floats(), range(50)), Subset(Floats(), range(50, 120))]),
        [Floats()[i] for i in range(120)],
        DIGITS,
        DataLoader(Floats(), batch_size=50),
        DataLoader(Floats(), batch_size=50, shuffle=True, drop_last=True),
        DataLoader(Floats(), batch_size=7, collate_fn=upper_case),
        DataLoader(DIGITS, batch_size=50, shuffle=True),  # type: ignore[arg-type]
    ],
)
def test_all_examples_are_read_in_order(data: Any) -> None:
    network = make()
    split = split_of(data, network.spec) if is_torch_data(data) else data
    assert torch.equal(split.images, PIXELS)
    assert torch.equal(split.labels, LABELS)
    assert evaluate(network, data).accuracy == evaluate(network, DIGITS).accuracy


def test_training_is_that_on_a_split_and_continues_from_a_checkpoint(tmp_path) -> None:
    whole, given, again = make(), make(), make()
    expected = fit(whole, DIGITS, RECIPE)
    loader = DataLoader(Floats(), batch_size=16, shuffle=True)
    batches: list[tuple[int, int]] = []
    stats = fit(given, loader, RECIPE, on_batch=lambda done, total: batches.append((done, total)))
    assert stats.snn.score_log == expected.snn.score_log
    assert batches == [(1, 2), (2, 2)] * 3
    path = tmp_path / "state.pt"

    class StoppedError(Exception):
        pass

    def stop(report: Any) -> None:
        if report.epoch == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(again, loader, RECIPE, checkpoint=path, on_epoch=stop)
    again, epochs = make(), list[int]()
    fit(again, loader, RECIPE, checkpoint=path, on_epoch=lambda report: epochs.append(report.epoch))
    assert epochs == [2]
    for network in (given, again):
        assert all(torch.equal(x, whole.state_dict()[name]) for name, x in network.state_dict().items())
    fit(again, loader, RECIPE, checkpoint=path)  # it is done: the best weights are loaded
    with pytest.raises(SnnZooError, match=r"state\.pt: the checkpoint was trained with another recipe .*batch_size"):
        fit(make(), loader, RECIPE.model_copy(update={"batch_size": 20}), checkpoint=path)
    path.write_bytes(b"PK")
    with pytest.raises(IntegrityError, match=r"state\.pt is not a checkpoint of fit"):
        fit(make(), loader, RECIPE, checkpoint=path)


def test_events_are_counts_with_recordings_first() -> None:
    counts = torch.randint(0, 3, (9, 6, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 3
    document = {
        "name": "seen",
        "time_steps": 4,
        "input": {"shape": [2, 4, 4], "encoding": "events"},
        "blocks": [{"kind": "flatten"}, {"kind": "affine", "features": 3}],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    for dtype in (torch.int16, torch.float32):
        split = split_of(TensorDataset(counts.to(dtype), labels), network.spec)
        assert torch.equal(split.images, counts.clamp(max=1).to(torch.uint8))
    score = evaluate(network, TensorDataset(counts, labels))
    assert score.time_steps == 6
    fit(network, DataLoader(TensorDataset(counts, labels)), TrainingSpec(epochs=1, validation=3, batch_size=3))


def test_a_conversion_draws_its_test_images_and_takes_the_names() -> None:
    found = dataset_of(DataLoader(Floats(), batch_size=50), (1, 28, 28))
    assert (len(found.train), len(found.test), found.classes, found.is_drawn) == (96, 24, Floats.classes, True)
    assert dataset_of(TensorDataset(PIXELS, LABELS), (784,)).classes == tuple("0123456789")


class Dicts(Floats):
    def __getitem__(self, i: int) -> Any:
        return {"image": PIXELS[i], "label": int(LABELS[i])}


class Objects(Floats):
    def __getitem__(self, i: int) -> Any:
        return object(), 1


class Sizes(Floats):
    def __getitem__(self, i: int) -> Any:
        return PIXELS[i, :, i:], 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            TensorDataset(PIXELS / 255 * 2 - 1, LABELS),
            "must be from 0 to 1, got -1: give the images before mean and std",
        ),
        (TensorDataset(PIXELS.float(), LABELS), "must be from 0 to 1, got 255: divide by 255, or convert to uint8"),
        (TensorDataset(PIXELS.int(), LABELS), "images are int32; convert them to uint8"),
        (TensorDataset(PIXELS, LABELS + 0.5), r"label 0\.5|label \d\.5: labels must be class numbers"),
        (TensorDataset(PIXELS), r"TensorDataset: a dataset gives pairs of an image, .*, not a list"),
        (Dicts(), "not a dict with image, label: pass a DataLoader whose collate_fn returns"),
        (Objects(), "examples cannot become a batch .*object.*: add a transform such as ToTensor"),
        (Sizes(), "examples cannot become a batch .*all images as tensors of one size"),
        ([], "list has no examples"),
    ],
)
def test_other_data_are_refused(data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        Trainer(make(), data, RECIPE)


def test_what_is_no_data_is_told() -> None:
    for given in (PIXELS, np.zeros(3), (PIXELS, LABELS), "mnist", {"x": PIXELS}):
        with pytest.raises(DataError, match="must be a Split, or a torch Dataset or DataLoader, not a"):
            fit(make(), given, RECIPE)  # type: ignore[arg-type]


def test_random_transforms_are_warned_of() -> None:
    class Noisy(Floats):
        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return torch.rand(1, 28, 28), int(LABELS[i])

    with pytest.warns(UserWarning, match=r"Noisy gives other images each time.*training\.augment"):
        assert isinstance(read_split(Noisy()), Split)


def neurons(**entering: Any) -> Network:
    document = {
        "name": "neurons",
        "time_steps": 5,
        "input": {"shape": [700], "encoding": "events", "bin_us": 200_000, "bits": 2, **entering},
        "blocks": [{"kind": "flatten"}, {"kind": "affine", "features": 20}],
    }
    return build_network(NetworkSpec.model_validate(document), seed=0)


class Recordings(Dataset[tuple[Any, Any]]):
    """Recordings of neurons with the fields that tonic gives those of SHD."""

    fields = np.dtype([("t", int), ("x", int), ("p", int)])

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(i)
        events = np.zeros(30, self.fields)
        events["t"], events["x"], events["p"] = np.sort(rng.integers(0, 1_100_000, 30)), rng.integers(0, 700, 30), 1
        return events, np.int64(i % 20)


def test_recordings_become_frames_by_the_bins_of_the_network() -> None:
    network, data = neurons(), Recordings()
    split = split_of(data, network.spec)
    bins = EventBins.of(network.spec)
    assert bins is not None
    assert split.labels.tolist() == [i % 20 for i in range(40)]
    assert torch.equal(split.images[:], torch.stack([bin_events(data[i][0], bins)[0] for i in range(40)]))
    assert evaluate(network, data).accuracy == evaluate(network, split).accuracy
    with pytest.raises(DataError, match=r"Recordings, example 0: x of event \d+ is \d+, outside the sensor"):
        split_of(data, neurons(shape=[100]).spec)


def test_recordings_with_names_or_in_a_loader_are_refused() -> None:
    class Named(Recordings):
        def __getitem__(self, i: int) -> tuple[Any, Any]:
            return super().__getitem__(i)[0], "ant"

    spec = neurons().spec
    with pytest.raises(DataError, match="Named: label 'ant': labels must be class numbers"):
        split_of(Named(), spec)
    with pytest.raises(DataError, match="Recordings: pass a dataset of recordings itself, not a DataLoader of it"):
        split_of(DataLoader(Recordings(), batch_size=4), spec)


def write_shd(file: Path) -> None:
    """Write a file of the layout of Spiking Heidelberg Digits."""
    rng = np.random.default_rng(0)
    with h5py.File(file, "w") as whole:
        for name, kind, values in (
            ("times", np.float16, [np.sort(rng.random(30)) for _ in range(40)]),
            ("units", np.uint16, [rng.integers(0, 700, 30) for _ in range(40)]),
        ):
            rows = whole.create_dataset(f"spikes/{name}", (40,), h5py.vlen_dtype(np.dtype(kind)))
            for i, row in enumerate(values):
                rows[i] = row.astype(kind)
        whole["labels"] = np.arange(40, dtype=np.uint16) % 20
        whole["extra/speaker"] = np.zeros(40, np.uint16)
        whole["extra/keys"] = [f"digit {i}" for i in range(20)]


def test_a_file_of_shd_is_read_by_tonic(tmp_path: Path) -> None:
    tonic = pytest.importorskip("tonic")
    (tmp_path / "SHD").mkdir()
    write_shd(tmp_path / "SHD" / "shd_train.h5")
    (tmp_path / "SHD" / "shd_train.h5.zip").touch()  # tonic looks for the archive, but does not open it
    data, network = tonic.datasets.SHD(str(tmp_path), train=True), neurons()
    split = split_of(data, network.spec)
    with h5py.File(tmp_path / "SHD" / "shd_train.h5") as file:
        for i, label in enumerate(file["labels"]):
            recording = {"t": (file["spikes/times"][i].astype(float) * 1e6).astype(int), "x": file["spikes/units"][i]}
            assert torch.equal(split.images[i : i + 1][0], bin_events(recording, EventBins((700,), 5, 200_000, 2))[0])
            assert split.labels[i] == label
    fit(network, data, RECIPE.model_copy(update={"validation": 10, "epochs": 1, "snn_epochs": 0}))
    assert evaluate(network, data).accuracy == evaluate(network, split).accuracy


def test_files_of_dvs_gesture_are_read_by_tonic(tmp_path: Path) -> None:
    tonic = pytest.importorskip("tonic")
    folder = tmp_path / "DVSGesture" / "ibmGestureTest" / "user24_led"
    folder.mkdir(parents=True)
    rng, recordings = np.random.default_rng(0), {}
    for label in range(100):  # tonic wants a hundred files or more
        recordings[label] = np.column_stack([*rng.integers(0, (128, 128, 2), (9, 3)).T, np.arange(9) * 20])
        np.save(folder / f"{label}.npy", recordings[label].astype(float))
    (tmp_path / "DVSGesture" / "ibmGestureTest.tar.gz").touch()
    data = tonic.datasets.DVSGesture(str(tmp_path), train=False)
    network = neurons(shape=[2, 128, 128], bin_us=40_000)
    for (x, y, p, ms), label in zip((recordings[i].T for i in data.targets), data.targets, strict=True):
        data_bins = EventBins((2, 128, 128), 5, 40_000, 2)
        frames = bin_events({"x": x, "y": y, "p": p, "t": ms * 1000}, data_bins)[0]
        row = data.targets.index(label)
        split = split_of(torch.utils.data.Subset(data, [row]), network.spec)
        assert torch.equal(split.images[:][0], frames)
        assert split.labels.tolist() == [label]
    np.save(folder / "0.npy", np.full((1, 4), 200.0))
    with pytest.raises(DataError, match=r"DVSGesture, example \d+: [xy] of event 0 is 200, outside the sensor"):
        split_of(data, network.spec)
