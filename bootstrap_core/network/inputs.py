"""Inputs of a network: still images `[N, ...]`, or events or frames `[T, N, ...]`, which differ from step to step.

Recordings have different lengths, so T of a run is that of its events, and `time_steps` only cuts. A shape that could
be read two ways is refused with both readings, as a wrong guess would give no error.
"""

import math
import warnings
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from bootstrap_core.functional.convolution import bordered
from specs.arguments import check_type
from specs.errors import DataError, SnnZooError
from specs.layers.input import Encoding, InputSpec
from specs.network import NetworkSpec
from specs.shapes import fit_input

UNSCALED = 16.0
"""Pixel value above which images are taken as not divided by 255; normalised ones stay below it."""
BELOW_BLACK, NEAR_ZERO = -0.1, 0.1
"""Images with a pixel below the first seem normalised, and those with one above 1 whose mean is within the second of 0:
resizing may leave 0..1 by less."""


class AxesWarning(UserWarning):
    """An input fits, but may have its axes in another order."""


def count_steps(spec: NetworkSpec, time_steps: int | None, inputs: Tensor | None = None) -> int:
    """Return T of a run: `time_steps`, or the spec's; for events and frames, by default all steps of `inputs`.

    Raises `SnnZooError` unless it is an integer of at least 1, and of events or frames not more than there are.
    """
    events = inputs if spec.input.is_timed and isinstance(inputs, Tensor) and inputs.dim() and len(inputs) else None
    steps = time_steps if time_steps is not None else spec.time_steps if events is None else len(events)
    if not (isinstance(steps, Integral) and steps >= 1):
        raise SnnZooError(f"time_steps must be a whole number, at least 1, not {steps!r}")
    if events is not None and steps > len(events):
        raise SnnZooError(
            f"time_steps must be at most {len(events)}, the steps of these {spec.input.encoding}, not {steps}"
        )
    return int(steps)


def check_earlier(steps: int, also_after: Sequence[int]) -> list[int]:
    """Return `also_after` as a list; raises `SnnZooError` unless all lie in 1 to `steps`."""
    for t in also_after:
        if not (isinstance(t, Integral) and 1 <= t <= steps):
            raise SnnZooError(f"also_after takes whole numbers from 1 to {steps}, the steps of this run, not {t!r}")
    return [int(t) for t in also_after]


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor holds each of its values in memory: it is not sparse, nested, quantized or on meta."""
    return not (tensor.is_nested or tensor.is_quantized or tensor.is_meta) and tensor.layout is torch.strided


def check_dense(inputs: object, spec: NetworkSpec) -> None:
    """Raise `DataError` for a tensor that does not hold each of its values."""
    if isinstance(inputs, Tensor) and not is_dense(inputs):
        raise DataError(
            f"{spec.name} takes a dense tensor that holds its values; this one is sparse, nested, quantized or on meta"
        )


def as_input(images: Tensor, spec: NetworkSpec) -> Tensor:
    """Return images `[N, ...]` in the input's shape, uint8 scaled to 0..1, with the input's padding around them.

    Events and frames `[T, N, ...]` are returned as they are.

    Raises `DataError` if they do not fit; warns of floats that seem not to be divided by 255, or to be normalised.
    """
    check_dense(images, spec)
    if spec.input.is_timed:
        return _as_timed(images, spec)
    shape = spec.input.shape
    wanted = f"{spec.name} takes images as a tensor [N, {', '.join(map(str, shape))}], floats in 0..1 or uint8"
    check_type(images, Tensor, wanted, error=DataError)
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise DataError(f"{wanted}, not {images.dtype}")
    if images.dim() == 0 or (len(images) and not fit_input(tuple(images.shape[1:]), shape)):
        single = images.numel() == torch.Size(shape).numel()
        hint = "; one image is a batch of one: images[None]" if single else ""
        raise DataError(f"images of {list(images.shape)} do not fit: {wanted}{hint}")
    if images.dim() == len(shape) + 2:
        raise DataError(
            f"{list(images.shape)} could be {len(images)} images, or {len(images)} time steps of one input: {wanted}; "
            "for images, leave out the axis of size 1; inputs that differ from step to step need input.encoding: events"
        )
    x = images.reshape(len(images), *shape)
    if x.dtype == torch.uint8:
        return bordered(x.float() / 255, spec.input.padding, spec.input.border)
    if not torch.compiler.is_compiling() and x.numel():
        lowest, highest = (float(bound) for bound in torch.aminmax(x.detach()))
        if math.isnan(highest):
            raise DataError(f"images have pixels that are NaN: {wanted}")
        if highest > UNSCALED:
            warnings.warn(f"images have values up to {highest:g}: {wanted}; only uint8 is divided by 255", stacklevel=2)
        elif lowest < BELOW_BLACK or (highest > 1 and abs(float(x.detach().mean())) < NEAR_ZERO):
            warnings.warn(
                f"images have values from {lowest:.3g} to {highest:.3g}, as if they had been normalised: {wanted}; "
                + _normalisation_of(spec),
                stacklevel=2,
            )
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return bordered(x, spec.input.padding, spec.input.border)


def _normalisation_of(spec: NetworkSpec) -> str:
    """Say what a network does to its images."""
    mean, std = spec.input.mean, spec.input.std
    if (mean, std) == (0, 1):
        return "this network does not normalise them: give it such images only if it was trained on such"
    return f"the network normalises them, by its input.mean {mean:.4g} and input.std {std:.4g}"


def as_step(inputs: Tensor, spec: NetworkSpec, n: int | None) -> Tensor:
    """Return the input of one step of a stream, on the CPU and without a gradient, as blocks take it.

    Args:
        inputs: image, events or frame of this step, `[N, ...]`.
        n: N of the steps before; None in the first step.

    Returns:
        The image `[N, ...]`, or the events or frame `[1, N, ...]`.

    Raises `DataError` if the input does not fit the network, or N is not `n`.
    """
    shape, what, is_timed = spec.input.shape, spec.input.encoding, spec.input.is_timed
    check_dense(inputs, spec)
    if isinstance(inputs, Tensor):
        if is_timed and not (inputs.dim() and fit_input(tuple(inputs.shape[1:]), shape)):
            wanted = f"a step of {spec.name} takes {what} as a tensor [N, {', '.join(map(str, shape))}]"
            hint = f"; of one recording, its step is {what}[None]" if fit_input(tuple(inputs.shape), shape) else ""
            raise DataError(f"{what} of {list(inputs.shape)} do not fit: {wanted}{hint}")
        inputs = (inputs[None] if is_timed else inputs).detach().cpu()
    given = as_input(inputs, spec)
    found = given.shape[1 if is_timed else 0]
    if n not in {None, found}:
        raise DataError(f"a stream of {n} inputs got {found}: keep their number, or call reset()")
    return given


def _as_timed(given: Tensor, spec: NetworkSpec) -> Tensor:
    """Return events or frames `[T, N, *shape]`, in their type. Raises `DataError` for other shapes and values."""
    entering = spec.input
    shape, least, largest, what = entering.shape, entering.least, entering.largest, entering.encoding
    wanted = (
        f"{spec.name} takes {what} as a tensor [T, N, {', '.join(map(str, shape))}], time first, integers in "
        f"{least}..{largest}{', in units of 1/64' if what is Encoding.FRAMES else ''}"
    )
    check_type(given, Tensor, wanted, error=DataError)
    of_step = tuple(given.shape[2:])
    if len(of_step) not in {1, 3} or not fit_input(of_step, shape) or not len(given):
        raise DataError(f"{what} of {list(given.shape)} do not fit: {wanted}{_readings(given, entering)}")
    if given.is_complex():
        raise DataError(f"{wanted}, not {given.dtype}")
    if not torch.compiler.is_compiling() and given.numel():
        low, high = (float(bound) for bound in torch.aminmax(given.detach()))
        if not (low >= least and high <= largest) or (
            given.is_floating_point() and bool((given != given.detach().round()).any())
        ):
            if low < least < 0:
                found = f"down to {low:g}"
            elif low >= least and high > largest:
                found = f"up to {high:g}"
            else:
                raise DataError(f"{what} with values that are not whole numbers from {least} on: {wanted}")
            raise DataError(f"{what} with values {found}: {wanted}; clamp them, or raise input.bits")
    steps = spec.time_steps
    if given.shape[1] == steps != len(given) > 1:
        taken = f"{list(given.shape)} is taken as {len(given)} time steps of {steps} recordings"
        warnings.warn(
            f"{taken}; if it has recordings first, as datasets have, pass {what}.transpose(0, 1)",
            AxesWarning,
            stacklevel=3,
        )
    return given.reshape(*given.shape[:2], *shape)


def _readings(given: Tensor, entering: InputSpec) -> str:
    """Return the end of a message on events or frames that lack an axis: what they may be, and what to do."""
    if not fit_input(tuple(given.shape[1:]), entering.shape):
        return ""
    n, what = len(given), entering.encoding
    still = (
        f"{n} still frames (hold each for T steps: frames.expand(T, *frames.shape))"
        if what is Encoding.FRAMES
        else f"{n} still images, which this network does not take"
    )
    return f"; they could be {n} time steps of one recording (add its axis: {what}[:, None]), or {still}"
