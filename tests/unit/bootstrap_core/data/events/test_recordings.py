"""Recordings of event cameras: every format, its events, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from event_files import bs2
from valid_files import npy, npz, tar, words

from bootstrap_core.data.events import recordings
from bootstrap_core.data.events.recordings import Events, read_events
from specs.errors import DataError
from specs.files.given_tar import tar_members

X, Y, P, T = (np.array(values) for values in ([3, 0, 33, 7], [1, 33, 0, 2], [1, 0, 1, 0], [5, 70_000, 70_000, 300_001]))
FIELDS = {"x": X, "y": Y, "p": P, "t": T}


def structured(**types: str) -> np.ndarray:
    found = np.zeros(4, list(types.items()))
    for name, values in zip(types, (X, Y, P, T), strict=True):
        found[name] = values
    return found


def saved(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def check(events: Events) -> None:
    for found, wanted in zip(events, (X, Y, P, T), strict=True):
        assert found.dtype == np.int64
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("suffix", ["bin", "bs2", "BIN"])
def test_forty_bits(suffix: str, tmp_path: Path) -> None:
    data = words(*zip(*map(np.ndarray.tolist, (X, Y, P, T)), strict=True))
    check(read_events(saved(tmp_path, f"a.{suffix}", data)))
    assert bs2(Events(X, Y, P, T)) == data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npz", npz(**FIELDS)),
        ("a.npz", npz(**{name.upper(): values.astype(np.float32) for name, values in FIELDS.items()})),
        ("a.npz", npz(x=X, y=Y, polarity=2 * P - 1, timestamp=T, extra=np.zeros((3, 3)))),
        ("a.npz", npz(events=structured(x="<i2", y="<i2", p="?", t="<i8"))),
        ("a.npy", npy(structured(x="<i2", y="<i2", p="?", t="<i8"))),  # tonic
        ("a.npy", npy(structured(x=">u2", y=">u2", pol="i1", ts=">u8"))),
    ],
)
def test_arrays_of_every_name_and_type(name: str, data: bytes, tmp_path: Path) -> None:
    check(read_events(saved(tmp_path, name, data)))
    (tmp_path / "a.tar").write_bytes(tar({f"one/{name}": data}))
    (member,) = tar_members(tmp_path / "a.tar")
    check(read_events(member))


def test_neurons_have_one_row(tmp_path: Path) -> None:
    data = b"".join((x << 24 | p << 23 | t).to_bytes(5, "big") for x, p, t in ((300, 1, 7), (2, 0, 1_999_000)))
    events = read_events(saved(tmp_path, "a.bs1", data))
    assert [values.tolist() for values in events] == [[300, 2], [0, 0], [1, 0], [7, 1_999_000]]
    check_npz = read_events(saved(tmp_path, "a.npz", npz(x=np.array([300, 2]), t=np.array([7, 9]))))
    assert [values.tolist() for values in check_npz] == [[300, 2], [0, 0], [1, 1], [7, 9]]


def test_marks_of_the_clock_move_what_follows(tmp_path: Path) -> None:
    data = words((1, 1, 1, 10), (0, 240, 0, 0), (2, 2, 0, 20), (0, 240, 0, 0), (3, 3, 1, 30))
    events = read_events(saved(tmp_path, "a.bin", data))
    assert (events.t.tolist(), events.x.tolist()) == ([10, 20 + 8192, 30 + 2 * 8192], [1, 2, 3])


def test_events_are_sorted_by_time_and_keep_their_order_within_it(tmp_path: Path) -> None:
    events = read_events(saved(tmp_path, "a.bs2", words((5, 0, 1, 9), (6, 0, 1, 3), (7, 0, 0, 9), (8, 0, 1, 3))))
    assert (events.t.tolist(), events.x.tolist()) == ([3, 3, 9, 9], [6, 8, 5, 7])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.bin", b"", "has no events"),
        ("a.bs2", b"1234567", "7 bytes are not a whole number of events of 5 bytes"),
        ("a.txt", b"12345", r"not a recording: the suffix must be one of \.bin, \.bs1, \.bs2, \.npz, \.npy"),
        ("a.npz", b"PK\3\4", "not an .npz of arrays: .* damaged zip archive"),
        (
            "a.npz",
            npz(a=X, b=Y),
            "must have the events of a recording as arrays or fields x, y, p and t .*; it has 'a', 'b'",
        ),
        ("a.npz", npz(x=X, y=Y, t=X, sign=X), "may be missing; it has 'x', 'y', 't', 'sign'"),
        ("a.npy", npy(np.zeros((4, 4), int)), "must have the events of a recording as arrays or fields x, y, p and t"),
        ("a.npy", npy(X)[:-1], "but 159 bytes"),
        ("a.npz", npz(x=X, y=Y, p=P, t=T[:2]), "x, y, p and t have 4, 4, 4 and 2 values"),
        ("a.npz", npz(**FIELDS | {"x": X - 1}), "x of event 1 is -1: columns count from 0"),
        ("a.npz", npz(**FIELDS | {"t": T / 1e6}), "t must be whole numbers, microseconds"),
        ("a.npz", npz(**FIELDS | {"t": T * np.nan}), "t must be whole numbers"),
        ("a.npz", npz(**FIELDS | {"t": np.full(4, 1 << 63, np.uint64)}), "t must be at most 9,007,199,254,740,992"),
        ("a.npz", npz(**FIELDS | {"p": P * 2}), "p must be polarities 0 and 1, or -1 and 1"),
        ("a.npz", npz(**FIELDS | {"p": P - 1 + (X == 3)}), "p must be polarities 0 and 1, or -1 and 1"),
        ("a.npz", npz(**FIELDS | {"y": Y[:, None]}), r"y has dtype int64 and shape \[4, 1\], not numbers \[n\]"),
        ("a.npz", npz(**FIELDS | {"y": np.array(["a"] * 4)}), "y has dtype <U1"),
    ],
)
def test_other_files_are_refused(name: str, data: bytes, reason: str, tmp_path: Path) -> None:
    path = saved(tmp_path, name, data)
    with pytest.raises(DataError, match=reason) as told:
        read_events(path)
    assert str(path) in str(told.value)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    class Run:
        def __reduce__(self):
            return (tmp_path / "ran").write_text, ("boom",)

    data = io.BytesIO()
    np.save(data, np.array([Run()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is not a plain array"):
        read_events(saved(tmp_path, "a.npy", data.getvalue()))
    assert not (tmp_path / "ran").exists()


def test_sizes_are_bounded_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "EVENT_FILE_BYTES", 1000)
    with pytest.raises(DataError, match="1,005 bytes, more than the limit of 1,000"):
        read_events(saved(tmp_path, "a.bin", bytes(1005)))
    with pytest.raises(DataError, match="is not a plain array"):
        read_events(saved(tmp_path, "a.npz", npz(compressed=True, x=np.zeros(5000, np.uint8))))
