"""Frames in files: one recording, a still frame, or many with targets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bootstrap_core.data.frames import Frames, load_frames, read_frames
from specs.errors import DataError
from specs.network import NetworkSpec

SPEC = NetworkSpec.model_validate(
    {
        "name": "steer",
        "time_steps": 4,
        "neuron": {"kind": "sigma_delta"},
        "input": {"shape": [2, 3, 3], "encoding": "frames"},
        "blocks": [{"kind": "flatten"}, {"kind": "affine", "features": 2}],
    }
)
X = np.random.default_rng(0).integers(-128, 128, (3, 5, 2, 3, 3))


def saved(path: Path, array: np.ndarray | None = None, **arrays: np.ndarray) -> Path:
    np.save(path, array) if array is not None else np.savez(path, **arrays)
    return path


def test_an_npy_is_one_recording_or_a_still_frame(tmp_path) -> None:
    found = read_frames(saved(tmp_path / "a.npy", X[0]), SPEC)
    assert found.frames.dtype == torch.int32
    assert np.array_equal(found.frames.numpy(), X[0][:, None])
    assert (len(found), found.targets) == (1, None)
    still = read_frames(saved(tmp_path / "b.npy", X[0, 0].astype(np.float32)), SPEC)
    assert np.array_equal(still.frames.numpy(), np.broadcast_to(X[0, 0], (4, 1, 2, 3, 3)))
    assert len(read_frames(tmp_path / "b.npy", SPEC, time_steps=7).frames) == 7
    assert len(read_frames(tmp_path / "a.npy", SPEC, time_steps=2).frames) == 2


def test_an_npz_has_many_and_their_targets(tmp_path) -> None:
    y = np.arange(6.0).reshape(3, 2)
    found = read_frames(saved(tmp_path / "a.npz", x=X, y=y), SPEC)
    assert np.array_equal(found.frames.numpy(), X.swapaxes(0, 1))
    assert torch.equal(found.targets, torch.from_numpy(y).float())
    two = found.limited(2)
    drawn = (two.targets[:, 0] / 2).int().tolist()
    assert drawn in ([0, 1], [0, 2], [1, 2])
    assert torch.equal(two.frames, found.frames[:, drawn])
    assert torch.equal(found.limited(2).targets, two.targets)
    assert found.limited(None) is found.limited(3) is found
    still = read_frames(saved(tmp_path / "b.npz", x=X[:, 0]), SPEC)
    assert still.frames.shape == (4, 3, 2, 3, 3)
    assert isinstance(still, Frames)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": X}, "must have frames as an array x; it has images"),
        ({"x": X * 2}, "a.npz: frames with values down to -256: .*raise input.bits"),
        ({"x": X / 2}, "frames with values that are not whole numbers"),
        ({"x": X[..., :2]}, r"frames of \[5, 3, 2, 3, 2\] do not fit"),
        ({"x": X.astype(complex)}, "frames must be numbers, not complex128"),
        ({"x": X, "y": np.ones((3, 1))}, r"y must be finite numbers \[3, 2\], not float64 \[3, 1\]"),
        ({"x": X, "y": np.full((3, 2), np.nan)}, r"y must be finite numbers"),
        ({"x": X, "y": np.ones((2, 3))}, r"y must be finite numbers \[3, 2\]"),
        ({"x": np.float64(1.0)}, r"a.npz: frames must have the shape \[2, 3, 3\] in their last axes, not \[\]"),
        ({"x": np.zeros(3)}, r"in their last axes, not \[3\]"),
        ({"x": X, "y": np.float64(1.0)}, r"y must be finite numbers \[3, 2\], not float64 \[\]"),
        ({"x": np.array([Path()], dtype=object)}, "is not a plain array"),
    ],
)
def test_other_arrays_are_refused(arrays, told: str, tmp_path) -> None:
    with pytest.raises(DataError, match=told):
        read_frames(saved(tmp_path / "a.npz", **arrays), SPEC)


def test_more_steps_than_there_are_are_refused(tmp_path) -> None:
    path = saved(tmp_path / "a.npy", X[0])
    with pytest.raises(DataError, match=r"a\.npy: time_steps must be at most 5, the steps of these frames, not 6"):
        read_frames(path, SPEC, time_steps=6)


def test_still_frames_are_held_for_any_number_of_steps(tmp_path) -> None:
    still = read_frames(saved(tmp_path / "a.npz", x=X[:, 0]), SPEC)
    assert still.are_still
    assert torch.equal(still.held(9).frames, still.frames[:1].expand(9, -1, -1, -1, -1))
    assert not read_frames(saved(tmp_path / "b.npz", x=X), SPEC).are_still


def test_what_is_no_array_is_refused(tmp_path) -> None:
    (tmp_path / "a.npy").write_bytes(b"hello there")
    with pytest.raises(DataError, match=r"a.npy is not a plain array"):
        read_frames(tmp_path / "a.npy", SPEC)
    with pytest.raises(DataError, match="No such file"):
        read_frames(tmp_path / "b.npy", SPEC)


def test_a_fifth_of_the_recordings_is_drawn_for_tests(tmp_path) -> None:
    x, y = np.concatenate([X] * 4), np.arange(24.0).reshape(12, 2)
    path = saved(tmp_path / "a.npz", x=x, y=y)
    data, again = load_frames(path, SPEC), load_frames(path, SPEC)
    assert (len(data.train), len(data.test), data.is_drawn, data.name) == (10, 2, True, str(path))
    assert torch.equal(data.test.targets, again.test.targets)
    for part in (data.train, data.test):
        for i, target in enumerate(part.targets[:, 0].tolist()):
            assert np.array_equal(part.frames[:, i].numpy(), x[int(target) // 2])
    assert torch.cat([data.train.targets, data.test.targets]).sum() == y.sum()


def test_a_file_may_have_a_test_set_of_its_own(tmp_path) -> None:
    y = np.ones((3, 2))
    path = saved(tmp_path / "a.npz", x_train=X, y_train=y, x_test=X[1:, 0], y_test=y[1:] * 2)
    data = load_frames(path, SPEC)
    assert (data.is_drawn, len(data.train), len(data.test)) == (False, 3, 2)
    assert data.test.frames.shape == (4, 2, 2, 3, 3)
    assert torch.equal(read_frames(path, SPEC).targets, data.test.targets)


@pytest.mark.parametrize(
    ("name", "arrays", "told"),
    [
        ("a.npz", {"x": X}, "a.npz must have the targets of x as an array y"),
        ("a.npz", {"x_train": X, "y_train": np.ones((3, 2))}, "must have frames as an array x_test; it has x_t"),
        ("a.npz", {"x_train": X, "y_train": np.ones(3)}, "a.npz: y_train must be finite numbers"),
        ("a.npz", {"x": X, "y": np.full((3, 2), 1e300)}, "y must be finite numbers"),
        ("a.npz", {"x": X[:1], "y": np.ones((1, 2))}, "at least 2 inputs"),
        ("a.npy", {"array": X[0]}, "steer? gives values and learns from an .npz"),
    ],
)  # fmt: skip
def test_files_without_targets_are_not_learnt_from(name: str, arrays, told: str, tmp_path) -> None:
    with pytest.raises(DataError, match=told):
        load_frames(saved(tmp_path / name, **arrays), SPEC)
