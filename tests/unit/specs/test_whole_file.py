import pytest

from specs import SnnZooError
from specs.whole_file import remove_leftovers, whole_file, write_whole


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path, monkeypatch) -> None:
    path = write_whole(tmp_path / "a.bin", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(SnnZooError, match=r"cannot write .*a\.bin: No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path) -> None:
    assert write_whole(tmp_path / "new" / "a.bin", b"x").read_bytes() == b"x"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SnnZooError, match=r"cannot write .*file/a\.bin"):
        write_whole(tmp_path / "file" / "a.bin", b"")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_any_error_while_it_is_written_keeps_the_old_file(tmp_path, error) -> None:
    path = write_whole(tmp_path / "a.bin", b"old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_of_a_file_is_removed_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "a[1].bin"
    with whole_file(path):
        (temporary,) = tmp_path.iterdir()
        left = temporary.name
    kept = {"a[1].bin", ".a[1].bin.old", ".b.bin.0123456789abcdef", ".a1.bin.0123456789abcdef"}
    for name in {left, *kept}:
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert {file.name for file in tmp_path.iterdir()} == kept
