"""Datasets in each layout, type and filter that h5py writes by default are read as h5py reads them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from converters.formats.hdf5.hdf5_node import open_hdf5
from specs.errors import IntegrityError, UnsupportedError

NUMBERS = np.random.default_rng(0).integers(-100, 100, (37, 11))
TEXTS = np.array([["in", "é" * 9], ["", "b"], ["c", "x" * 200]], object)
STORED = {
    "as they are": {},
    "in chunks": {"chunks": (8, 3)},
    "in one chunk": {"chunks": (37, 11)},
    "in a chunk that is larger": {"chunks": (64, 64), "maxshape": (None, None)},
    "gzipped": {"chunks": (8, 3), "compression": "gzip"},
    "shuffled and gzipped": {"chunks": (8, 3), "compression": "gzip", "shuffle": True},
    "with checksums": {"chunks": (8, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
}


def written(path: Path, value: object, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=value, **options)
    return path


@pytest.mark.parametrize("kind", ["<f8", "f4", "f2", ">f4", "i8", "i1", ">i2", "?"])
@pytest.mark.parametrize("stored", STORED)
def test_numbers_are_read(stored, kind, tmp_path) -> None:
    wanted = NUMBERS.astype(kind)
    with open_hdf5(written(tmp_path / "a.h5", wanted, **STORED[stored])) as file:
        found = file.array("a")
    assert np.array_equal(found, wanted)
    assert found.dtype.itemsize == wanted.dtype.itemsize


@pytest.mark.parametrize("length", [None, 200])
@pytest.mark.parametrize("stored", sorted(STORED.keys() - {"with checksums"}))
def test_texts_are_read(stored, length, tmp_path) -> None:
    options = {**STORED[stored], **({"chunks": (2, 1)} if "chunks" in STORED[stored] else {})}
    kind = h5py.string_dtype(length=length)
    value = TEXTS if length is None else np.char.encode(TEXTS.astype(str), "utf-8").astype(kind)
    path = written(tmp_path / "a.h5", value, dtype=kind, **options)
    with open_hdf5(path) as file:
        assert np.array_equal(file.texts("a"), TEXTS)


def test_single_values_are_read(tmp_path) -> None:
    for i, value in enumerate([np.float32(0.5), np.int64(-3), np.bool_(True)]):
        with open_hdf5(written(tmp_path / f"{i}.h5", value)) as file:
            assert file.array("a") == value
            assert file.array("a").shape == ()
    for i, value in enumerate(["abc", b"abc"]):
        with open_hdf5(written(tmp_path / f"{i}.h5", value)) as file:
            assert file.texts("a") == file.text("a") == "abc"


def test_a_file_behind_a_user_block_is_read(tmp_path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["a"], file["b"] = NUMBERS, "text"
        file.create_dataset("c", data=NUMBERS, chunks=(8, 3), compression="gzip")
        file.create_dataset("d", data=TEXTS, dtype=h5py.string_dtype(), chunks=(2, 1))
        file.attrs["e"] = "attribute"
    with open_hdf5(path) as file:
        assert np.array_equal(file.array("a"), NUMBERS)
        assert file.text("b") == "text"
        assert np.array_equal(file.array("c"), NUMBERS)
        assert np.array_equal(file.texts("d"), TEXTS)
        assert file.attribute("e") == "attribute"
        assert file.attribute("f") is None


def test_small_data_in_the_header_is_read(tmp_path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        found = h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((3,)), plan)
        found.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([1.0, 2.0, 3.0]))
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file.array("a").tolist() == [1, 2, 3]


def test_numbers_that_were_never_written_are_zeros_or_refused(tmp_path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (3, 4), "f4")
        file.create_dataset("b", (3, 4), "f4", chunks=(1, 4))[0] = 1
    with open_hdf5(path) as file:
        assert not file.array("a").any()
        with pytest.raises(IntegrityError, match="/b: 1 of 3 chunks are in the file"):
            file.array("b")


@pytest.mark.parametrize("options", [{"libver": "latest"}, {"track_order": True}])
def test_forms_of_newer_versions_are_read_or_named(options, tmp_path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", **options) as file:
        file["few/a"] = NUMBERS
        for i in range(20):
            file[f"many/{i}"] = i
        file.create_dataset("chunks", data=NUMBERS, chunks=(8, 3))
    with open_hdf5(path) as file:
        assert np.array_equal(file.array("few/a"), NUMBERS)
        with pytest.raises(UnsupportedError, match="/many: a group in a form of newer HDF5 versions"):
            file.find("many/3")
        if options == {"libver": "latest"}:
            with pytest.raises(IntegrityError, match=r"/chunks: damaged or unsupported HDF5: .*layout class 4"):
                file.find("chunks")


def test_floats_of_another_form_are_refused(tmp_path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        bfloat16 = h5py.h5t.IEEE_F16LE.copy()
        bfloat16.set_fields(15, 7, 8, 0, 7)
        bfloat16.set_ebias(127)
        h5py.h5d.create(file.id, b"a", bfloat16, h5py.h5s.create_simple((3,)))
    with open_hdf5(tmp_path / "a.h5") as file, pytest.raises(UnsupportedError, match="/a: numbers of 2 bytes in an"):
        file.array("a")
