"""Frames for networks of sigma-delta neurons: integers that change from step to step, and their targets.

- `.npy`: one recording, `[T, *shape]`, or one still frame, `[*shape]`, which is held for all steps.
- `.npz`: many of them as `x`, `[N, T, *shape]` or `[N, *shape]`, and perhaps the targets `y`, `[N, values]`, of the
  values after the last step.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.data.events.recordings import read_arrays
from bootstrap_core.network.inputs import AxesWarning, as_input, count_steps
from specs.errors import DataError, SnnZooError
from specs.files.given_file import check_given_file
from specs.files.limits import EVENT_FILE_BYTES
from specs.files.memory import refuse_beyond_memory
from specs.network import NetworkSpec
from specs.shapes import fit_input

__all__ = ["FRAME_SUFFIXES", "Frames", "read_frames"]

FRAME_SUFFIXES = {".npy", ".npz"}
NUMBER_BYTES = 12
"""Bytes of a pixel while it is checked, in float64 and then in int32."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Frames:
    """Recordings of frames.

    Attributes:
        frames: int32 `[T, N, *shape]`.
        targets: float32 `[N, values]`; None without targets.
        are_still: True if each recording is one frame, held for all steps.
    """

    frames: Tensor
    targets: Tensor | None = None
    are_still: bool = False

    def __len__(self) -> int:
        return self.frames.shape[1]

    def limited(self, n: int | None) -> "Frames":
        """Return the first `n` recordings; all for None."""
        return replace(self, frames=self.frames[:, :n], targets=None if self.targets is None else self.targets[:n])

    def held(self, steps: int) -> "Frames":
        """Return still frames held for `steps` steps, without a copy."""
        return replace(self, frames=self.frames[:1].expand(steps, *self.frames.shape[1:]))


def read_frames(path: Path, spec: NetworkSpec, *, time_steps: int | None = None) -> Frames:
    """Return the frames in a file, as the network of `spec` takes them.

    Args:
        path: `.npy` or `.npz`, see the module.
        spec: spec of a network with `input.encoding: frames`.
        time_steps: steps for which a still frame is held, by default the spec's; of recordings, the number of steps
            that are taken, by default all.

    Raises:
        DataError: the file cannot be read, is too large, has no such arrays, or fewer than `time_steps` steps.
    """
    if check_given_file(path, error=DataError) > EVENT_FILE_BYTES:
        raise DataError(f"{path} has more than the limit of {EVENT_FILE_BYTES:,} bytes")
    several = path.suffix.lower() == ".npz"
    arrays = read_arrays(path.read_bytes(), str(path), zipped=several)
    x = arrays.get("x" if several else "")
    if x is None:
        raise DataError(f"{path} must have frames as an array x; it has {', '.join(arrays)[:200] or 'none'}")
    x = x if several else x[None]
    frames = _timed(x, path, spec, time_steps)
    return replace(frames, targets=_targets(arrays, path, len(frames), spec))


def _timed(x: Array, path: Path, spec: NetworkSpec, time_steps: int | None) -> Frames:
    """Return frames `[N, T, *shape]`, or still ones `[N, *shape]`, with time first."""
    shape = spec.input.shape
    if x.ndim < 2:
        raise DataError(f"{path}: frames must have the shape {list(shape)} in their last axes, not {list(x.shape)}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: frames must be numbers, not {x.dtype}")
    is_still = x.ndim == 1 + len(shape) and fit_input(x.shape[1:], shape)
    refuse_beyond_memory(NUMBER_BYTES * x.size, f"{path} with {x.size:,} numbers")
    try:
        given = torch.from_numpy((x[:, None] if is_still else x).astype(np.float64)).transpose(0, 1)
        with warnings.catch_warnings(action="ignore", category=AxesWarning):  # a file has its axes in one order
            frames = as_input(given, spec).int()
        steps = (time_steps or spec.time_steps) if is_still else count_steps(spec, time_steps, frames)
    except SnnZooError as error:
        raise DataError(f"{path}: {error}") from None
    return Frames(frames, are_still=True).held(steps) if is_still else Frames(frames[:steps])


def _targets(arrays: Mapping[str, Array], path: Path, n: int, spec: NetworkSpec) -> Tensor | None:
    """Return the targets `[N, values]` of a file with `n` recordings; None if it has none."""
    y = arrays.get("y")
    if y is None:
        return None
    if y.dtype.kind not in "biuf" or y.shape[:1] != (n,) or y.size != n * spec.n_classes or not np.isfinite(y).all():
        raise DataError(f"{path}: y must be finite numbers [{n}, {spec.n_classes}], not {y.dtype} {list(y.shape)[:8]}")
    return torch.from_numpy(y.astype(np.float32)).reshape(n, spec.n_classes)
