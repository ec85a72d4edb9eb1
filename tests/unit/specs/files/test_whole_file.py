import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import specs.files.whole_file as whole_file_module
from specs import SnnZooError
from specs.files.whole_file import remove_leftovers, whole_file, write_together, write_whole

ROOT = Path(__file__).parents[4]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path, monkeypatch) -> None:
    path = write_whole(tmp_path / "a.bin", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(SnnZooError, match=r"cannot write .*a\.bin: No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [1, 2])
def test_files_that_belong_together_are_all_new_or_all_old(tmp_path, monkeypatch, number) -> None:
    paths, fsync, synced = [tmp_path / "a.c", tmp_path / "a.h"], os.fsync, []
    write_together(dict.fromkeys(paths, b"old"))

    def full_disk(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == number:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(SnnZooError, match=rf"cannot write {re.escape(str(paths[number - 1]))}: No space left"):
        write_together(dict.fromkeys(paths, b"new"))
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert sorted(tmp_path.iterdir()) == paths
    write_together(dict.fromkeys(paths, b"new"))
    assert [path.read_bytes() for path in paths] == [b"new", b"new"]


def test_a_folder_in_the_way_is_told_before_anything_is_written(tmp_path) -> None:
    (tmp_path / "a.h").mkdir()
    with pytest.raises(SnnZooError, match=r"cannot write .*a\.h: Is a directory"):
        write_together({tmp_path / "a.h": b"new", tmp_path / "a.c": b"new"})
    assert not (tmp_path / "a.c").exists()


def test_missing_folders_are_made(tmp_path) -> None:
    assert write_whole(tmp_path / "new" / "a.bin", b"x").read_bytes() == b"x"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SnnZooError, match=r"cannot write into .*/file: .*/file is a file, not a folder"):
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


KILLED = """
import os, signal, sys
from specs.files.whole_file import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path) -> Callable[[Path], str]:
    """Return a function that kills a process while it writes a file, and returns the name of the file it leaves."""

    def killed(path: Path) -> str:
        before = set(tmp_path.iterdir())
        assert subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, check=False).returncode == -9
        (left,) = set(tmp_path.iterdir()) - before
        return left.name

    return killed


needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no flock")


@needs_locks
def test_what_killed_processes_left_of_a_file_is_removed_and_nothing_else(tmp_path, killed) -> None:
    path = tmp_path / "a[1].bin"
    left = killed(path)
    kept = {"a[1].bin", ".a[1].bin.old", ".b.bin.0123456789abcdef", ".a1.bin.0123456789abcdef"}
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert {file.name for file in tmp_path.iterdir()} == kept
    assert left not in kept


@needs_locks
def test_the_next_write_removes_what_a_killed_one_left(tmp_path, killed) -> None:
    killed(path := tmp_path / "a.bin")
    write_whole(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_a_write_leaves_another_that_is_going_on_alone(tmp_path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as slow:
        slow.write(b"slow")
        write_whole(path, b"quick")
        remove_leftovers(path)
        assert path.read_bytes() == b"quick"
    assert path.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [path]


def test_without_locks_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    left = tmp_path / ".a.bin.0123456789abcdef"
    left.touch()
    path = write_whole(tmp_path / "a.bin", b"new")
    assert path.read_bytes() == b"new"
    assert {file.name for file in tmp_path.iterdir()} == {path.name, left.name}


def test_a_temporary_file_that_was_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch) -> None:
    """Another process may delete the temporary file between its creation and its lock."""
    lock, taken = whole_file_module._lock, []

    def late(descriptor: int, *, wait: bool) -> bool:
        if wait and not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(whole_file_module, "_lock", late)
    assert write_whole(tmp_path / "a.bin", b"new").read_bytes() == b"new"
    assert len(taken) == 1


def test_files_are_as_readable_as_others(tmp_path) -> None:
    (tmp_path / "other").touch()
    assert write_whole(tmp_path / "a.bin", b"x").stat().st_mode == (tmp_path / "other").stat().st_mode
