"""Load and call the native library; the only place that chooses between native code and the definitions in torch.

The library is built from `native/` when the package is installed, once for each kind of CPU. It uses the headers of
neither Python nor torch: its functions take pointers, sizes and the records below, which `native/library.h` declares
for C++.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, Structure, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

FOUR = 4
"""Inputs that one 8-bit dot-product instruction takes."""
LANES = 16
"""Length of a vector in the library; arrays of channels are padded to a multiple of it."""

Made = TypeVar("Made")

_KINDS = ("", "avx2", "avx512")
_STARTED_IN = os.getpid()


class Neurons(Structure):
    """Constants of a layer's neurons."""

    _fields_ = [
        *((name, c_void_p) for name in ("keep_current", "keep_voltage", "bias", "own")),
        *((name, c_int32) for name in ("threshold", "forgets", "subtract", "shift", "initial_voltage")),
    ]


class Synapse(Structure):
    """Synapses from one population to another."""

    _fields_ = [
        ("kind", c_int32),
        ("groups", c_int32),
        *((name, c_void_p) for name in ("trains", "weight", "taps")),
        *((name, c_int32) for name in ("n_taps", "height", "width", "channels")),
        *((name, c_int32) for name in ("out_height", "out_width", "out_channels")),
        *((name, c_int32 * n) for name, n in (("kernel", 2), ("stride", 2), ("padding", 4), ("dilation", 2))),
    ]


class Layer(Structure):
    """Sizes of a layer's output, and pointers to its arrays."""

    _fields_ = [
        *((name, c_int64) for name in ("images", "steps", "height", "width", "channels")),
        *((name, c_void_p) for name in ("trains", "voltage", "current", "totals", "before", "after")),
    ]


class Backward(Structure):
    """Arguments of the backward pass of a layer's neurons."""

    _fields_ = [
        *((name, c_int64) for name in ("images", "parts", "steps", "places", "channels")),
        *((name, c_void_p) for name in ("voltage", "current", "grad")),
        *((name, c_int64) for name in ("image_stride", "step_stride")),
        *((name, c_void_p) for name in ("out", "bias", "decays", "keep_current", "keep_voltage")),
        *((name, c_float) for name in ("tau", "height")),
        *((name, c_int32) for name in ("threshold", "subtract", "shift", "initial_voltage")),
        *((name, c_int32) for name in ("constant", "grad_in_half", "out_in_half")),
    ]


class WeightGradient(Structure):
    """Arguments of the gradient of a weight that multiplies spikes."""

    _fields_ = [
        *((name, c_int64) for name in ("images", "steps", "pixels", "channels", "places", "taps", "outputs")),
        *((name, c_void_p) for name in ("trains", "grad", "sources", "out")),
        ("parts", c_int64),
        ("in_half", c_int32),
    ]


class SteadyGradient(Structure):
    """Arguments of the gradient that reaches input neurons through the next layer's synapses."""

    _fields_ = [
        *((name, c_int64) for name in ("images", "steps", "pixels", "channels", "places", "taps", "outputs")),
        ("n_currents", c_int64),
        *((name, c_void_p) for name in ("currents", "values")),
        ("background", c_float),
        *((name, c_void_p) for name in ("slopes", "weight", "sources", "grad", "sums")),
        ("in_half", c_int32),
    ]


class Fold(Structure):
    """Arguments of `snn_fold`, which adds the columns of all places of a convolution to the pixels that they see."""

    _fields_ = [
        *((name, c_int64) for name in ("images", "pixels", "channels", "places", "taps")),
        *((name, c_void_p) for name in ("columns", "sources", "out")),
        ("in_half", c_int32),
    ]


class InputScaling(Structure):
    """Scaling from a pixel to its input current."""

    _fields_ = [(name, c_double) for name in ("mean", "std", "weight", "bias", "unit", "lowest", "highest")]


class Curve(Structure):
    """Curve of a fitted activation."""

    _fields_ = [
        *((name, c_void_p) for name in ("z", "a", "slopes")),
        ("n", c_int32),
        *((name, c_float) for name in ("steepness", "floor")),
    ]


class Prepared:
    """Base of frozen dataclasses that cache records for the library; copies and pickles leave the cache behind.

    Cached records point into tensors, and a copy has tensors of its own.
    """

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """Return what `make` returned for a key; it is kept as long as this object, so records may point into it.

        Threads that ask at the same time all get the first result.
        """
        kept: dict[Any, Made] = vars(self).setdefault("_kept", {})
        return kept[key] if key in kept else kept.setdefault(key, make())

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # type: ignore[attr-defined]


_SIGNATURES: dict[str, list[Any]] = {
    "snn_layer": [POINTER(Layer), POINTER(Neurons), POINTER(Synapse), c_int64],
    "snn_neurons": [POINTER(Layer), POINTER(Neurons), c_void_p, c_int],
    "snn_weigh": [POINTER(Layer), POINTER(Synapse), c_int64, c_float, c_void_p],
    "snn_neurons_backward": [POINTER(Backward)],
    "snn_weight_gradient": [POINTER(WeightGradient)],
    "snn_steady_gradient": [POINTER(SteadyGradient)],
    "snn_input_gradient": [*[c_void_p] * 4, *[c_int64] * 3, c_int, c_void_p],
    "snn_input_currents": [c_void_p, c_int64, POINTER(InputScaling), c_void_p, c_void_p],
    "snn_piecewise": [c_void_p, c_int64, POINTER(Curve), c_void_p, c_void_p],
    "snn_pack_weight": [c_void_p, c_int64, c_int64, c_void_p, c_int64, c_float, c_void_p],
    "snn_unpack": [c_void_p, *[c_int64] * 4, c_void_p],
    "snn_fold": [POINTER(Fold)],
    "snn_quantize_weight": [c_void_p, c_int64, c_float, c_float, c_float, c_void_p],
    "snn_look_up": [c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p],
    "snn_count": [c_void_p, c_int64, c_int64, c_void_p],
}
"""Parameters of each function; the last one, the number of threads, is left out."""


class _Switch:
    """State of `without_native`."""

    on = True


@cache
def _library() -> ctypes.CDLL | None:
    """Load the best library for this CPU; return None if the package was installed without one."""
    folder = Path(__file__).parent
    try:
        library = ctypes.CDLL(str(folder / "libsnnzoo.so"))
        best = library.snn_best_kind()
    except (OSError, AttributeError):
        return None
    for kind in range(best, 0, -1):
        with suppress(OSError):
            library = ctypes.CDLL(str(folder / f"libsnnzoo-{_KINDS[kind]}.so"))
            break
    for name, parameters in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [*parameters, c_int], c_int64
    library.snn_set_parallel_region.argtypes = [c_void_p]
    library.snn_set_parallel_region(_parallel_region())
    return library


def _parallel_region() -> int | None:
    """Return the address of `GOMP_parallel` in torch's own OpenMP, so that the library runs on torch's threads.

    The OpenMP libraries of GNU, LLVM and Intel all have this function.
    """
    for path in Path(torch.__file__).parent.glob("lib/libtorch_cpu.*"):
        with suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, c_void_p).value
    return None


def is_installed() -> bool:
    """Return whether the native library was built for this machine."""
    return _library() is not None


def describe() -> str:
    """Describe in words how operators run on this machine: by the native library and its kind, or by torch alone."""
    library = _library()
    if library is None:
        return "torch alone (the native library is not installed)"
    if not _Switch.on:
        return "torch alone (the native library is switched off)"
    kind = _KINDS[library.snn_kind()]
    return f"native library ({kind})" if kind else "native library"


@contextmanager
def without_native() -> Iterator[None]:
    """Run all operators by their definitions in torch, in all threads of this process; spikes stay the same."""
    before, _Switch.on = _Switch.on, False
    try:
        yield
    finally:
        _Switch.on = before


def runs_native(*tensors: Tensor) -> bool:
    """Return whether native functions take these tensors: on the CPU, in eager mode, with the library built."""
    for x in tensors:
        if not x.is_cpu:
            return False
    return _Switch.on and not torch.compiler.is_compiling() and _library() is not None


def n_threads() -> int:
    """Return the number of threads: torch's; in a forked process 1, since a fork does not copy threads."""
    return torch.get_num_threads() if os.getpid() == _STARTED_IN else 1


def pointer(x: Tensor | None) -> int | None:
    """Return the address of a contiguous tensor's data; None for None."""
    if x is None:
        return None
    assert x.is_contiguous()
    return x.data_ptr()


def pad_lanes(x: Tensor, n: int) -> Tensor:
    """Return one value for each of `n` channels, padded with zeros to a multiple of `LANES`; `x` is `[n]` or `[1]`."""
    out = x.new_zeros(-(-n // LANES) * LANES)
    out[:n] = x
    return out


def call(name: str, *arguments: Any) -> int:
    """Call a function of the library with torch's threads; structures among the arguments are passed by reference.

    Raises `MemoryError` if a thread gets no memory.
    """
    result: int = getattr(_library(), name)(*arguments, n_threads())
    if result < 0:
        raise MemoryError(f"{name} ran out of memory")
    return result
