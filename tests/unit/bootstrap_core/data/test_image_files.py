"""A user's own images as datasets."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from valid_files import tar

from bootstrap_core.data import image_files
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.stored_images import StoredImages
from specs.errors import DataError, SnnZooError
from specs.layers.input import LogMelSpec


def test_other_files_are_told(tmp_path) -> None:
    (tmp_path / "a.npz").write_bytes(b"text")
    with pytest.raises(DataError, match=r"is not a dataset: expected an \.npz"):
        load_images(tmp_path / "a.npz")
    with pytest.raises(DataError, match="cannot read"):
        load_images(tmp_path / "none.npz")


def folder(path: Path) -> Path:
    for name, shade in (("dark", 10), ("light", 240)):
        (path / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8 + i, 6), shade + i).save(path / name / f"{i}.png")
    return path


def test_a_folder_of_class_folders(tmp_path) -> None:
    dataset = load_images(folder(tmp_path / "own"))
    assert dataset.classes == ("dark", "light")
    assert dataset.train.images.shape == (8, 1, 6, 8)
    for split in (dataset.train, dataset.test):
        assert torch.equal(split.labels, (split.images.float().mean((1, 2, 3)) > 128).long())


@pytest.mark.parametrize(
    ("suffix", "taken", "reason"),
    [
        (".png", {"log_mel": LogMelSpec()}, "has images; the network takes WAV files"),
        (".png", {"events": EventBins()}, "has images; the network takes recordings of events"),
        (".wav", {"events": EventBins()}, "has WAV files; the network takes recordings of events"),
        (
            ".wav",
            {"shape": (1, 40, 47)},
            r"has WAV files, which become pictures \[1, 40, 48\]; the network takes images",
        ),
        (".bin", {"log_mel": LogMelSpec()}, "has recordings of events; the network takes WAV files"),
        (".bin", {"shape": (2, 34, 34)}, "has recordings of events; the network takes images"),
    ],
)
def test_files_that_the_network_does_not_take_are_refused(tmp_path, suffix, taken, reason) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"0{suffix}").write_bytes(b"")
    with pytest.raises(DataError, match=reason):
        load_images(tmp_path, **taken)


def test_classes_are_those_of_train_also_where_test_has_not_all_of_them(tmp_path) -> None:
    folder(tmp_path / "own" / "train")
    folder(tmp_path / "own" / "test")
    shutil.rmtree(tmp_path / "own" / "test" / "dark")
    dataset = load_images(tmp_path / "own")
    assert dataset.test.labels.tolist() == [1] * 5
    (tmp_path / "own" / "test" / "light").rename(tmp_path / "own" / "test" / "bright")
    with pytest.raises(DataError, match=r"has classes that are missing in .*train: bright"):
        load_images(tmp_path / "own")


def packed(path: Path, files: dict[str, Path]) -> Path:
    path.write_bytes(tar({name: file.read_bytes() for name, file in files.items()}))
    return path


def in_folder(path: Path, before: str = "") -> dict[str, Path]:
    return {f"{before}{file.relative_to(path).as_posix()}": file for file in path.rglob("*.png")}


@pytest.mark.parametrize("before", ["", "./", "outer/inner/"])
def test_a_tar_is_read_like_the_folder_that_is_in_it(before, tmp_path) -> None:
    folder(tmp_path / "own" / "train")
    folder(tmp_path / "own" / "test")
    for path in (tmp_path / "own", tmp_path / "own" / "train"):
        files = (
            in_folder(path, before) | {f"{before}notes.txt": path / "dark" / "0.png"} if path.name == "train" else {}
        )
        made = packed(tmp_path / f"{path.name}.tar", files or in_folder(path, before))
        of_folder, of_tar = load_images(path, shape=(3, 4, 4)), load_images(made, shape=(3, 4, 4))
        assert (of_tar.classes, of_tar.is_drawn) == (of_folder.classes, of_folder.is_drawn)
        for ours, theirs in ((of_tar.train, of_folder.train), (of_tar.test, of_folder.test)):
            assert torch.equal(ours.images[:], theirs.images[:])
            assert torch.equal(ours.labels, theirs.labels)


def test_a_large_tar_is_decoded_as_it_is_used(tmp_path, monkeypatch) -> None:
    files = in_folder(patterns(tmp_path / "own"))
    expected = load_images(tmp_path / "own").train.images
    monkeypatch.setattr("bootstrap_core.data.image_files.STORED_FROM", 0)
    images = load_images(packed(tmp_path / "a.tar", files)).train.images
    assert isinstance(images, StoredImages)
    assert torch.equal(images[:], expected)


def test_a_tar_without_class_folders_is_refused(tmp_path, monkeypatch) -> None:
    picture = folder(tmp_path / "own") / "dark" / "0.png"
    for files in ({}, {"0.png": picture}, {".hidden/0.png": picture}, {"a/0.txt": picture}):
        with pytest.raises(
            DataError,
            match=r"a\.tar must contain class folders with .* recordings of events in each; it has none",
        ):
            load_images(packed(tmp_path / "a.tar", {"text": picture} | files))
    with pytest.raises(DataError, match=r"a\.tar has one class, a"):
        load_images(packed(tmp_path / "a.tar", {"a/0.png": picture}))
    monkeypatch.setattr("bootstrap_core.data.class_folders.IMAGE_FILE_BYTES", 10)
    with pytest.raises(DataError, match=r"a\.tar: a/0\.png has .* more than the limit of 10"):
        load_images(packed(tmp_path / "a.tar", {"a/0.png": picture, "b/0.png": picture}))


def test_a_damaged_image_in_a_tar_is_named(tmp_path) -> None:
    files = in_folder(folder(tmp_path / "own"))
    files["light/2.png"].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read .*a\.tar: light/2\.png as an image"):
        load_images(packed(tmp_path / "a.tar", files))


def patterns(path: Path) -> Path:
    """Write twelve different images of different sizes, one of them in colour."""
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (6 + i % 2, 8, 3), dtype=np.uint8)
        (path / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB" if i == 4 else "L").save(path / f"{i % 3}" / f"{i}.png")
    return path


def test_a_large_folder_is_decoded_as_it_is_used_with_the_same_images_in_the_same_order(tmp_path, monkeypatch) -> None:
    path, kinds = patterns(tmp_path / "own"), []
    for stored_from in (1 << 28, 0):
        monkeypatch.setattr("bootstrap_core.data.image_files.STORED_FROM", stored_from)
        kinds.append(load_images(path, seed=3))
    loaded, stored = kinds
    for ours, theirs in ((stored.train, loaded.train), (stored.test, loaded.test)):
        assert isinstance(ours.images, StoredImages)
        assert isinstance(theirs.images, torch.Tensor)
        assert ours.images.shape == theirs.images.shape
        assert torch.equal(ours.images[:], theirs.images)
        assert torch.equal(ours.images[[1, 0]], theirs.images[[1, 0]])
        assert torch.equal(ours.labels, theirs.labels)
    assert stored.classes == loaded.classes == ("0", "1", "2")


def test_a_large_folder_is_refused_at_once_by_its_heads_and_later_by_a_body(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bootstrap_core.data.image_files.STORED_FROM", 0)
    path = patterns(tmp_path / "own")
    body = path / "1" / "7.png"
    body.write_bytes(body.read_bytes()[:60])
    train = load_images(path).train
    with pytest.raises(DataError, match=r"7\.png as an image"):
        train.images[:]
    body.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"7\.png as an image"):
        load_images(path)


def test_a_batch_that_does_not_fit_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bootstrap_core.data.image_files.STORED_FROM", 0)
    images = load_images(patterns(tmp_path / "own")).train.images
    monkeypatch.setattr("specs.files.memory.free_memory", lambda: 2 * 3 * 6 * 8)
    assert len(images[:3]) == 3
    with pytest.raises(SnnZooError, match=r"4 images of 6 x 8 pixels in .*own takes about 0 MiB of memory"):
        images[:4]


INK = np.repeat(np.linspace(0, 255, 6, dtype=np.uint8)[:, None], 5, 1)


def transparent(colour: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.dstack([np.broadcast_to(np.uint8(colour), (6, 5, 3)), INK]))


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (Image.fromarray(INK.astype(np.uint16) * 257), INK),
        (transparent((0, 0, 0)), 255 - INK),
        (transparent((255, 255, 255)), INK),
        (transparent((255, 220, 0)), (INK * (205 / 255)).astype(np.uint8)),
    ],
)
def test_files_of_16_bits_and_transparent_ones_show_what_is_on_them(image, shown, tmp_path) -> None:
    image.save(tmp_path / "a.png")
    found = image_files.read_pixels(tmp_path / "a.png", channels=1, height=6, width=5)
    assert (found[0].int() - torch.from_numpy(shown).int()).abs().max() <= 1


def test_a_number_of_16_bits_may_be_transparent(tmp_path) -> None:
    deep = INK.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png", transparency=int(deep[2, 0]))
    found = image_files.read_pixels(tmp_path / "a.png", channels=1, height=6, width=5)
    assert found[0, :, 0].tolist() == [255 if i == 2 else shade for i, shade in enumerate(INK[:, 0].tolist())]


def test_portable_grey_maps_of_16_bits_are_read(tmp_path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 5 6 65535 " + (INK.astype(">u2") * 257).tobytes())
    found = image_files.read_pixels(tmp_path / "a.pgm", channels=1, height=6, width=5)
    assert torch.equal(found[0], torch.from_numpy(INK))


def test_a_folder_of_photos_held_sideways_is_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: upright after a turn by 90 degrees clockwise
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.ascontiguousarray(np.rot90(INK))).save(tmp_path / name / f"{i}.png", exif=exif)
    assert torch.equal(load_images(tmp_path).train.images[0, 0], torch.from_numpy(INK))


def test_floats_in_a_folder_are_refused_as_nothing_says_what_is_white(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(INK.astype(np.float32)).save(tmp_path / name / "0.tiff")
    with pytest.raises(DataError, match="of floats or 32 bits"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (None, (3, 9, 12)),
        ((1, 7, 8), (1, 7, 8)),
        ((324,), (3, 9, 12)),
        ((784,), (1, 28, 28)),
        ((3072,), (3, 32, 32)),
        ((50,), (3, 9, 12)),
    ],
)
def test_files_are_made_what_takes_them(tmp_path, shape, size) -> None:
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((9, 12, 3), 10 * i, np.uint8)).save(tmp_path / "own" / name / f"{i}.png")
    assert load_images(tmp_path / "own", shape=shape).train.images.shape[1:] == size
