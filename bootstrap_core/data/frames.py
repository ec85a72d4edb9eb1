"""Recordings that networks of values and of spike trains learn from: frames, or events in frames, with targets.

- `.npy`: one recording, `[T, *shape]`, or one still frame, `[*shape]`, which is held for all steps.
- `.npz`: many of them as `x`, `[N, T, *shape]` or `[N, *shape]`, and perhaps their targets `y`: the values after the
  last step, `[N, values]`, or spike trains, `[N, T, neurons]`. Or `x_train`, `y_train`, `x_test` and `y_test`.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import read_file
from bootstrap_core.data.events.recordings import read_arrays
from bootstrap_core.data.splits import draw_test
from bootstrap_core.network.inputs import AxesWarning, as_input, count_steps
from specs.arguments import check_type
from specs.errors import DataError, SnnZooError
from specs.files.limits import EVENT_FILE_BYTES, refuse_beyond_memory
from specs.layers.input import LogMelSpec
from specs.network import NetworkSpec
from specs.shapes import fit_input

FRAME_SUFFIXES = {".npy", ".npz"}
NUMBER_BYTES = 12
"""Bytes of a pixel while it is checked, in float64 and then in int32."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Frames:
    """Recordings of frames, or of events in frames.

    Attributes:
        frames: int32 `[T, N, *shape]`.
        targets: values, float32 `[N, values]`, or spike trains, float32 `[N, T, neurons]`; None without targets.
        are_still: True if each recording is one frame, held for all steps.
    """

    frames: Tensor
    targets: Tensor | None = None
    are_still: bool = False

    def __len__(self) -> int:
        return self.frames.shape[1]

    def limited(self, n: int | None) -> "Frames":
        """Return `n` recordings in their order, drawn at random, the same ones each time; None keeps all."""
        if n is None or n >= len(self):
            return self
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:n]
        return self.take(drawn.sort().values)

    def take(self, indices: Tensor | slice) -> "Frames":
        targets = None if self.targets is None else self.targets[indices]
        return replace(self, frames=self.inputs(indices), targets=targets)

    def inputs(self, indices: Tensor | slice) -> Tensor:
        """Return the frames of the recordings at `indices`, as networks take them, int32 `[T, n, *shape]`."""
        if self.are_still:
            return self.frames[:1, indices].expand(len(self.frames), *[-1] * (self.frames.dim() - 1))
        return self.frames[:, indices]

    @property
    def last(self) -> "Frames":
        """The last frame of each recording, as recordings of one step."""
        return replace(self, frames=self.frames[-1:])

    def cut(self, steps: int) -> "Frames":
        """Return the first `steps` steps of each recording, and of targets that are spike trains."""
        targets = self.targets if self.targets is None or self.targets.dim() == 2 else self.targets[:, :steps]
        return replace(self, frames=self.frames[:steps], targets=targets)

    def held(self, steps: int) -> "Frames":
        """Return still frames held for `steps` steps, without a copy."""
        return replace(self, frames=self.frames[:1].expand(steps, *self.frames.shape[1:]))


@dataclass(frozen=True, eq=False)
class FrameDataset:
    """Training and test recordings of frames, with targets.

    Attributes:
        is_drawn: True if the test recordings were drawn at random from all.
    """

    name: str
    train: Frames
    test: Frames
    is_drawn: bool
    source: ClassVar[str] = ""
    is_sample: ClassVar[bool] = False
    drawn_from: ClassVar[int | None] = None
    log_mel: ClassVar[LogMelSpec | None] = None
    limit_note: ClassVar[str | None] = None
    sample: ClassVar[str] = "recording"
    test_places: ClassVar[str] = "arrays x_train, y_train, x_test and y_test"

    @property
    def card(self) -> dict[str, Any]:
        """Facts about the data for model files: none."""
        return {}


def check_kind(given: object, spec: NetworkSpec) -> Frames:
    """Return `given`. Raises `DataError` unless they are `Frames`, perhaps without targets."""
    wanted, advice = f"{_learner(spec)} Frames", "read_frames reads a file of them"
    check_type(given, Frames, wanted, advice=advice, error=DataError)
    assert isinstance(given, Frames)
    return given


def check_frames(given: object, spec: NetworkSpec) -> None:
    """Raise `DataError` unless `given` are `Frames` with targets for a network that gives values or spike trains."""
    given = check_kind(given, spec)
    targets, shape = given.targets, target_shape(spec, len(given), len(given.frames))
    if targets is None:
        raise DataError(f"{_learner(spec)} Frames: these need targets, float32 {list(shape)}")
    if targets.shape != shape or targets.dtype != torch.float32 or not _fit(targets, spec):
        found = f"{targets.dtype} {list(targets.shape)}"
        raise DataError(f"targets must be {_allowed(spec)}, float32 {list(shape)}, not {found}")
    with warnings.catch_warnings(action="ignore", category=AxesWarning):  # `Frames` have time first
        as_input(given.frames, spec)


def check_frame_file(path: Path, spec: NetworkSpec) -> None:
    """Raise `DataError` unless the name of a file ends in .npz, as only such files hold targets."""
    if path.suffix.lower() != ".npz":
        what = f"an .npz of {spec.input.encoding} x and targets y"
        raise DataError(f"{_learner(spec)} {what}, not from {path}")


def load_frames(path: Path, spec: NetworkSpec) -> FrameDataset:
    """Read training and test recordings from an `.npz`; without a test set, a fifth of them is drawn for testing.

    Args:
        path: `.npz` with x and y, or x_train, y_train, x_test and y_test; see the module.
    """
    check_frame_file(path, spec)
    arrays = _read(path)
    is_drawn = "x_train" not in arrays
    parts = {part: _frames_of(arrays, path, spec, None, part) for part in ([""] if is_drawn else ["_train", "_test"])}
    for part, frames in parts.items():
        if frames.targets is None:
            raise DataError(f"{path} must have the targets of x{part} as an array y{part}")
    first, *others = parts.values()
    if others:
        return FrameDataset(str(path), first, others[0], is_drawn)
    training, test = draw_test(len(first), seed=0, source=str(path))
    return FrameDataset(str(path), first.take(training), first.take(test), is_drawn)


def read_frames(path: Path, spec: NetworkSpec, *, time_steps: int | None = None) -> Frames:
    """Return the frames in a file, as the network of `spec` takes them; of a training and a test set, those for tests.

    Args:
        time_steps: steps for which a still frame is held, by default the spec's; of recordings, the number of steps
            that are taken, by default all.
    """
    arrays = _read(path)
    is_divided = bool({"x_train", "x_test"} & arrays.keys())
    return _frames_of(arrays, path, spec, time_steps, "_test" if is_divided else "")


def _read(path: Path) -> Mapping[str, Array]:
    """Read the arrays of an `.npz` by their names, or of an `.npy` as x."""
    several = path.suffix.lower() == ".npz"
    arrays = read_arrays(read_file(path, EVENT_FILE_BYTES), str(path), zipped=several)
    return arrays if several else {"x": arrays[""][None]}


def _frames_of(arrays: Mapping[str, Array], path: Path, spec: NetworkSpec, time_steps: int | None, part: str) -> Frames:
    """Return the frames and targets of `x` and `y`, or with `part`, such as `_test`, at their end."""
    x = arrays.get(f"x{part}")
    what = spec.input.encoding
    if x is None:
        found = ", ".join(arrays)[:200] or "none"
        raise DataError(f"{path} must have {what} as an array x{part}; it has {found}")
    if part and "x" in arrays:
        raise DataError(f"{path} has {what} as x and as x{part}: it must have either x, or x_train and x_test")
    frames = _timed(x, path, spec)
    targets = _targets(arrays.get(f"y{part}"), f"{path}: y{part}", frames, spec)
    if frames.are_still:
        return replace(frames.held(time_steps or spec.time_steps), targets=targets)
    try:
        return replace(frames, targets=targets).cut(count_steps(spec, time_steps, frames.frames))
    except SnnZooError as error:
        raise DataError(f"{path}: {error}") from None


def _timed(x: Array, path: Path, spec: NetworkSpec) -> Frames:
    """Return frames `[N, T, *shape]`, or still ones `[N, *shape]`, with time first."""
    shape, what = spec.input.shape, spec.input.encoding
    if x.ndim < 2:
        raise DataError(f"{path}: {what} must have the shape {list(shape)} in their last axes, not {list(x.shape)}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: {what} must be numbers, not {x.dtype}")
    is_still = not spec.input.is_events and x.ndim == 1 + len(shape) and fit_input(x.shape[1:], shape)
    refuse_beyond_memory(NUMBER_BYTES * x.size, f"{path} with {x.size:,} numbers")
    try:
        given = torch.from_numpy((x[:, None] if is_still else x).astype(np.float64)).transpose(0, 1)
        with warnings.catch_warnings(action="ignore", category=AxesWarning):  # a file has its axes in one order
            return Frames(as_input(given, spec).int(), are_still=is_still)
    except SnnZooError as error:
        order = f"; in the file, recordings come first: x [N, T, {', '.join(map(str, shape))}]"
        raise DataError(f"{path}: {error}{order if given.shape[2:] != shape else ''}") from None


def target_shape(spec: NetworkSpec, n: int, steps: int) -> tuple[int, ...]:
    """Return the shape of the targets of `n` recordings of T = `steps`; see `Frames`."""
    return (n, steps, spec.n_classes) if spec.gives_spikes else (n, spec.n_classes)


def _allowed(spec: NetworkSpec) -> str:
    return "0 and 1" if spec.gives_spikes else "finite numbers"


def _fit(targets: Tensor, spec: NetworkSpec) -> bool:
    fitting = (targets == 0) | (targets == 1) if spec.gives_spikes else targets.isfinite()
    return bool(fitting.all())


def _learner(spec: NetworkSpec) -> str:
    """Return the beginning of a message on what a network learns from."""
    return f"{spec.name} gives {spec.gives} and learns from"


def _targets(y: Array | None, what: str, frames: Frames, spec: NetworkSpec) -> Tensor | None:
    """Return the targets of recordings, see `Frames`; None if there are none."""
    if y is None:
        return None
    shape = target_shape(spec, len(frames), len(frames.frames))
    axes = len(shape) - 1  # [N] or [N, T]; the values or neurons behind them may have any shape
    fits = y.dtype.kind in "biuf" and y.shape[:axes] == shape[:axes] and y.size == math.prod(shape)
    if not fits:
        raise DataError(f"{what} must be {_allowed(spec)} {list(shape)}, not {y.dtype} {list(y.shape)[:8]}")
    with np.errstate(over="ignore"):
        numbers = torch.from_numpy(y.astype(np.float32))
    if not _fit(numbers, spec):
        raise DataError(f"{what} must be {_allowed(spec)}; it has values from {numbers.min():g} to {numbers.max():g}")
    return numbers.reshape(shape)
