"""Bins: which event counts in which frame, and datasets of recordings."""

import numpy as np
import pytest
import torch

from bootstrap_core.data import stored_images
from bootstrap_core.data.events import binning
from bootstrap_core.data.events.binning import BinnedRecordings, EventBins, bin_events
from bootstrap_core.data.events.recordings import Events
from specs.errors import DataError
from specs.network import NetworkSpec


def events(*rows: tuple[int, int, int, int]) -> Events:
    """Return events (x, y, p, t)."""
    x, y, p, t = np.array(rows).T
    return Events.of({"x": x, "y": y, "p": p, "t": t}, "")


SOME = events((1, 0, 1, 0), (1, 0, 1, 99), (1, 0, 1, 50), (2, 3, 0, 100), (0, 2, 1, 250), (0, 2, 0, 301))


def test_channel_row_and_column_are_polarity_y_and_x() -> None:
    frames, n_after = bin_events(SOME, EventBins((2, 4, 3), time_steps=3, bin_us=100, bits=2))
    assert frames.dtype == torch.uint8
    assert n_after == 1
    wanted = torch.zeros(3, 2, 4, 3, dtype=torch.uint8)
    wanted[0, 1, 0, 1], wanted[1, 0, 3, 2], wanted[2, 1, 2, 0] = 3, 1, 1
    assert torch.equal(frames, wanted)


@pytest.mark.parametrize(("bits", "most"), [(1, 1), (2, 3), (3, 5), (8, 5)])
def test_counts_saturate(bits: int, most: int) -> None:
    frames, _ = bin_events(events(*[(0, 0, 1, 7)] * 5), EventBins((2, 1, 1), 1, 10, bits))
    assert int(frames[0, 1]) == most


def test_the_recording_decides_t_if_it_is_not_fixed() -> None:
    frames, n_after = bin_events(SOME, EventBins((2, 4, 3), time_steps=None, bin_us=100))
    assert (len(frames), n_after) == (4, 0)


def test_one_channel_takes_both_polarities_and_features_have_no_rows() -> None:
    frames, _ = bin_events(events((2, 0, 1, 3), (2, 0, 0, 4)), EventBins((1, 1, 3), 1, 10, 2))
    assert frames.tolist() == [[[[0, 0, 2]]]]
    frames, _ = bin_events(events((2, 0, 1, 3)), EventBins((3,), 1, 10))
    assert frames.shape == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("recording", "bins", "reason"),
    [
        (events((0, 0, 0, 0), (3, 0, 0, 1)), {}, "x of event 1 is 3, outside the sensor of 4 rows and 3 columns"),
        (events((0, 4, 0, 0)), {}, "y of event 0 is 4, outside the sensor"),
        (events((0, 0, 0, 1000)), {}, "the first event comes at 1,000 us, after the last of 3 bins of 100 us"),
        (events((0, 0, 0, 500_000)), {"time_steps": None}, "5,001 bins of 100 us, at most 4,096: make them wider"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(recording: Events, bins: dict[str, int], reason: str) -> None:
    with pytest.raises(DataError, match=f"here: {reason}"):
        bin_events(recording, EventBins(**{"shape": (2, 4, 3), "time_steps": 3, "bin_us": 100, **bins}), "here")


@pytest.mark.parametrize(
    "wrong", [{"shape": (3, 4, 4)}, {"shape": (4, 4)}, {"bits": 9}, {"bits": 0}, {"bin_us": 0}, {"time_steps": 0}]
)
def test_bins_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError):
        EventBins(**wrong)


@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_are_the_frames_of_the_recordings(in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binning, "STORED_FROM", 1 << 20 if in_memory else 1)
    rng, bins = np.random.default_rng(0), EventBins((2, 5, 6), 4, 100, bits=3)
    every = [events(*rng.integers(0, (6, 5, 2, 450), (rng.integers(1, 200), 4)).tolist()) for _ in range(7)]
    n_read = []

    def read_all():
        for i, recording in enumerate(every):
            n_read.append(i)
            yield f"recording {i}", recording

    recordings = BinnedRecordings("here", 7, read_all, bins)
    images = stored_images.StoredImages(recordings, torch.from_numpy, torch.arange(7), torch.Size(recordings.shape[1:]))
    assert (images.shape, images.ndim, n_read) == ((7, 4, 2, 5, 6), 5, [])
    for rows in ([3], [6, 0, 3, 3]):
        assert torch.equal(images[rows], torch.stack([bin_events(every[row], bins)[0] for row in rows]))
    assert torch.equal(images.take([5, 2])[1:], bin_events(every[2], bins)[0][None])
    assert n_read == list(range(7))
    late = [bin_events(recording, bins)[1] for recording in every]
    total = sum(map(len, every))
    assert recordings.left_out == (
        f"{sum(n > 0 for n in late)} of 7 recordings go on after 0 ms, the last time step: their last {sum(late)} "
        f"events ({sum(late) / total:.2%} of all) are left out"
    )


def test_bins_are_those_of_the_spec() -> None:
    spec = {"name": "x", "time_steps": 7, "blocks": [{"kind": "flatten"}, {"kind": "affine", "features": 3}]}
    of_events = {"shape": [2, 4, 6], "encoding": "events", "bits": 3, "bin_us": 500}
    bins = EventBins.of(NetworkSpec.model_validate({**spec, "input": of_events}))
    assert bins == EventBins((2, 4, 6), time_steps=7, bin_us=500, bits=3)
    flat = NetworkSpec.model_validate({**spec, "input": {**of_events, "shape": [48], "bits": 12}})
    assert EventBins.of(flat) == EventBins((48,), time_steps=7, bin_us=500, bits=8)
    assert EventBins.of(flat, (2, 4, 6)) == EventBins((2, 4, 6), time_steps=7, bin_us=500, bits=8)
    assert EventBins.of(NetworkSpec.model_validate({**spec, "input": {"shape": [48]}})) is None


def test_a_dataset_needs_one_t() -> None:
    with pytest.raises(DataError, match=r"here: a dataset needs bins\.time_steps"):
        BinnedRecordings("here", 1, list, EventBins(time_steps=None))


def test_recordings_of_any_form_give_the_same_frames(tmp_path) -> None:
    bins = EventBins((2, 4, 3), time_steps=3, bin_us=100, bits=2)
    expected, _ = bin_events(SOME, bins)
    arrays = SOME._asdict()
    records = np.zeros(len(SOME), [("t", "u8"), ("x", "u2"), ("y", "u2"), ("polarity", "?")])
    for name, field in zip("xypt", ("x", "y", "polarity", "t"), strict=True):
        records[field] = arrays[name]
    np.savez(tmp_path / "some.npz", **arrays)
    np.save(tmp_path / "some.npy", records)
    lists = {"X": arrays["x"].tolist(), "y": arrays["y"], "p": torch.tensor(arrays["p"]), "timestamps": arrays["t"]}
    for given in (
        arrays,
        lists,
        records,
        tmp_path / "some.npz",
        str(tmp_path / "some.npy"),
        np.load(tmp_path / "some.npz"),
    ):
        assert torch.equal(bin_events(given, bins)[0], expected)
    with pytest.raises(DataError, match=r"recording must have the events .* x, y, p and t .*; it has 'x', 'y'"):
        bin_events({"x": [1], "y": [2]}, bins)
    with pytest.raises(DataError, match=r"recording must be Events, the path of a file, arrays .*, not a list"):
        bin_events([1, 2], bins)  # type: ignore[arg-type]
