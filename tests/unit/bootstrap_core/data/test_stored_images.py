"""Images that stay in their file."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.splits import Split
from bootstrap_core.data.stored_images import StoredArray, StoredImages, stored_array
from specs.errors import DataError

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture
def _all_stored(monkeypatch) -> None:
    monkeypatch.setattr("bootstrap_core.data.image_arrays.STORED_FROM", 0)


def opened(path: Path, name: str = "x") -> StoredArray | None:
    with zipfile.ZipFile(path) as archive:
        return stored_array(path, archive, archive.getinfo(f"{name}.npy"))


@pytest.mark.usefixtures("_all_stored")
@pytest.mark.parametrize(
    "x", [PIXELS, PIXELS[..., 0], PIXELS.reshape(20, -1), PIXELS / 255, (PIXELS / 255).astype(np.float32)]
)
def test_stored_images_are_the_same_as_loaded_ones(x, tmp_path, monkeypatch) -> None:
    np.savez(tmp_path / "a.npz", x=x, y=LABELS)
    stored = load_images(tmp_path / "a.npz")
    monkeypatch.setattr("bootstrap_core.data.image_arrays.STORED_FROM", 1 << 28)
    loaded = load_images(tmp_path / "a.npz")
    for ours, theirs in ((stored.train, loaded.train), (stored.test, loaded.test)):
        assert isinstance(ours.images, StoredImages)
        assert isinstance(theirs.images, torch.Tensor)
        assert ours.images.shape == theirs.images.shape
        assert torch.equal(ours.images[:], theirs.images)
        assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.usefixtures("_all_stored")
def test_stored_images_are_taken_as_tensors_are(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:3], y_test=LABELS[:3])
    split = load_images(tmp_path / "a.npz").train
    tensors = Split(split.images[:], split.labels)
    assert torch.equal(tensors.images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    for chosen in (slice(3, 9), [7, 2, 3, 2], torch.tensor([19, 0]), torch.arange(20) % 3 == 1, slice(0, 0)):
        ours, theirs = split.take(chosen), tensors.take(chosen)
        assert torch.equal(ours.images[:], theirs.images)
        assert all(map(torch.equal, split[chosen], tensors[chosen]))
        assert torch.equal(split.images[chosen], theirs.images)
        assert torch.equal(ours.take(slice(1, 3)).images[:], theirs.images[1:3])
        assert len(ours) == len(ours.images) == len(theirs)


@pytest.mark.parametrize(
    "x", [np.asfortranarray(PIXELS), PIXELS.astype(">f4"), PIXELS.astype(np.int16), np.uint8(3)],
    ids=["Fortran order", "byte order", "type", "no axes"],
)  # fmt: skip
def test_what_cannot_be_read_in_place_is_left_to_be_loaded(x, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=x)
    assert opened(tmp_path / "a.npz") is None


def test_an_array_that_is_longer_than_its_header_says_is_not_read_in_place(tmp_path) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes() + b"more")
    with pytest.raises(DataError, match=r"x\.npy is not a plain array: shape .* but 1,932 bytes"):
        opened(tmp_path / "a.npz")


@pytest.mark.usefixtures("_all_stored")
def test_a_damaged_array_is_told(tmp_path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=PIXELS, y=LABELS)
    place = path.read_bytes().index(PIXELS.tobytes())
    with path.open("r+b") as file:
        file.seek(place + 100)
        file.write(bytes([PIXELS.reshape(-1)[100] ^ 1]))
    with pytest.raises(DataError, match=r"Bad CRC-32 for file 'x\.npy'"):
        load_images(path)


def test_a_file_cut_short_while_it_is_used_is_told_and_another_in_its_place_does_no_harm(tmp_path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=PIXELS)
    array = opened(path)
    np.savez(tmp_path / "b.npz", x=0 * PIXELS)
    (tmp_path / "b.npz").replace(path)
    assert (array.read(torch.arange(20)) == PIXELS).all()
    other = opened(path)
    os.truncate(path, 700)
    assert (other.read(torch.tensor([0])) == 0).all()
    with pytest.raises(DataError, match=r"a\.npz: cut short"):
        other.read(torch.tensor([19]))


MEMORY = """
import sys
from pathlib import Path
import torch
from bootstrap_core.data.splits import train_validation_split
from bootstrap_core.data.image_files import load_images

def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) >> 10

before = held()
split, _ = train_validation_split(load_images(Path(sys.argv[1])).train, n_validation=100, seed=0)
for indices in torch.randperm(len(split)).split(64):
    split.images[indices].float()
print(len(split), held() - before, flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_an_epoch_holds_a_batch_and_not_the_file(launch, tmp_path) -> None:
    """The file has 300 MiB."""
    shape = (2400, 1, 400, 328)
    np.savez(tmp_path / "small.npz", y=np.arange(shape[0]) % 10)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, zipfile.ZipFile(tmp_path / "small.npz") as small:
        archive.writestr("y.npy", small.read("y.npy"))
        with archive.open("x.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(shape[0]):
                member.write(bytes(shape[2] * shape[3]))
    (tmp_path / "epoch.py").write_text(MEMORY)
    (printed,) = launch(tmp_path / "epoch.py", tmp_path / "a.npz", size=1).wait(0)
    n, mib = map(int, printed.split())
    assert n == 1820
    assert mib < 120
