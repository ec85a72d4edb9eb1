"""Synapses between two populations: their weights in the layout of the native library, and their gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.functional.convolution import conv2d, evenly_padded
from bootstrap_core.ops.input_neurons import input_gradients
from bootstrap_core.ops.library import (
    FOUR,
    LANES,
    Fold,
    Prepared,
    SteadyGradient,
    Synapse,
    WeightGradient,
    call,
    pointer,
)
from bootstrap_core.ops.neurons import by_step, map_of
from bootstrap_core.ops.precision import gradient_dtype, multiplies_tiles
from bootstrap_core.ops.spikes import Spikes
from specs.fields import Shape
from specs.layers.block import ConvSpec
from specs.shapes import Axis, axes_of, pads_of

DENSE, CONVOLUTION, DEPTHWISE = range(3)
APART = 32
"""Padding between the rows of a matrix, in numbers: a cache line."""
FOLDED_BYTES = 1 << 22
"""Size of the products that `fold` adds up at a time, so that they stay in the cache."""
LEAST_ITEMS = 8
"""Least number of parts that the work on a weight's gradient is divided into, for any number of threads."""

MANY = 0.5
"""Share of inputs that are not 0 from which a product with all of them is faster, on CPUs without tiles."""


@dataclass(frozen=True)
class Wiring:
    """Shapes of synapses, and what the native library needs of them; see `wiring`."""

    geometry: ConvSpec | None
    weight: Shape
    before: Shape

    @cached_property
    def after(self) -> Shape:
        """Shape of the weighted input."""
        if self.geometry is None:
            return self.weight[:1]
        if len(self.before) == 1:
            return self.before
        axes = zip(axes_of(self.geometry), self.before[1:], strict=True)
        return (self.weight[0], *(axis.output(size) for axis, size in axes))

    @cached_property
    def multiplications(self) -> int:
        """Number of multiplications for one image and step, if spikes were numbers."""
        return prod(self.after[1:]) * prod(self.weight)

    @cached_property
    def kind(self) -> int:
        """Kind of the synapses in the native library."""
        if self.geometry is None:
            return DENSE
        return DEPTHWISE if self.groups == self.weight[0] and self.weight[1] == 1 else CONVOLUTION

    @cached_property
    def groups(self) -> int:
        return 1 if self.geometry is None else self.geometry.groups

    @cached_property
    def layout(self) -> tuple[Tensor, Tensor]:
        """Index of the weight at each byte of its layout, -1 for 0, and taps; see `Synapse`."""
        if self.kind == DEPTHWISE:
            return torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        return _sources_of_weight(self.before) if self.geometry is None else _taps(self.before, self.geometry)

    @cached_property
    def record(self) -> Synapse:
        """Synapses for the native library, without trains and weight."""
        height, width, channels = (1, 1, prod(self.before)) if self.geometry is None else map_of(self.before)
        geometry, taps = self.geometry or ConvSpec(channels=1, kernel=(1, 1)), self.layout[1]
        sizes = taps.shape[-1], height, width, channels, *map_of(self.after)
        axes = geometry.kernel, geometry.stride, pads_of(geometry.padding), geometry.dilation
        return Synapse(self.kind, self.groups, None, None, pointer(taps), *sizes, *axes)

    @cached_property
    def sources(self) -> Tensor:
        """Pixel that each tap of each place sees; dense synapses see one pixel with all channels."""
        if self.geometry is None:
            return torch.zeros(1, 1, dtype=torch.int32)
        return sources_of_places(map_of(self.before)[:2], axes_of(self.geometry))

    @cached_property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Pixels and channels of the source, places, taps and outputs, as `sources` counts them."""
        pixels, channels = (1, prod(self.before)) if self.geometry is None else _flat_map(self.before)
        places, outputs = _flat_map(self.after)
        return pixels, channels, places, self.sources.shape[1], outputs


wiring = lru_cache(maxsize=256)(Wiring)
"""Return the `Wiring` of synapses, which is kept, as each training step has new weights of the same shape."""


def _flat_map(shape: Shape) -> tuple[int, int]:
    height, width, channels = map_of(shape)
    return height * width, channels


@dataclass(frozen=True)
class Connection(Prepared):
    """Synapses from one population to another, with weights on their grid.

    Attributes:
        weight: `[O, I]`, or of a convolution `[O, C / groups, kernel height, kernel width]`.
        geometry: geometry of a convolution; None for dense synapses.
    """

    weight: Tensor
    geometry: ConvSpec | None = None

    def weigh(self, x: Tensor) -> Tensor:
        """Return the weighted input of numbers `[T, N, C]` or `[T, N, C, H, W]`, in plain torch."""
        weight, geometry = self.weight.to(x.dtype), self.geometry
        if geometry is None:
            return F.linear(x.flatten(2), weight)
        maps = x.reshape(-1, *(*x.shape[2:], 1, 1)[:3])
        z = conv2d(maps, weight, geometry)
        return z.reshape(*x.shape[:2], *(z.shape[1:] if x.dim() > 3 else z.shape[1:2]))

    def wiring(self, before: Shape) -> Wiring:
        """Return the shapes of these synapses for a source of shape `before`."""
        return wiring(self.geometry, self.weight.shape, before)

    def out_shape(self, before: Shape) -> Shape:
        """Return the shape of the weighted input, for a source of shape `before`."""
        return self.wiring(before).after

    def laid(self, spikes: Spikes) -> Spikes:
        """Return spikes as words, in the order in which these synapses read them."""
        return (spikes if self.geometry is None else spikes.in_rows()).packed()

    # --- For the native library

    @cached_property
    def is_finite(self) -> bool:
        """True if all weights are finite, so that 8 bits can hold them; otherwise the definition runs."""
        return math.isfinite(float(self.weight.detach().sum()))  # a NaN or an infinity makes the sum one too

    def packed(self, before: Shape) -> Tensor:
        """Return int8 weights as `Synapse` takes them, for a source of shape `before`; cached."""
        return self.once(before, partial(self._pack, before))

    def _pack(self, before: Shape) -> Tensor:
        weight, shapes = self.weight.detach().float().contiguous(), self.wiring(before)
        if shapes.kind == DEPTHWISE:
            return (weight.flatten(1).t() / WEIGHT_STEP).round().to(torch.int8).contiguous()
        source, groups = shapes.layout[0], shapes.groups
        outputs, row = len(weight) // groups, weight[0].numel()
        out = torch.empty(groups, -(-outputs // LANES) * LANES * len(source), dtype=torch.int8)
        for of_group, packed in zip(weight.split(outputs), out, strict=True):
            sizes = outputs, row, source.data_ptr(), len(source), 1 / WEIGHT_STEP
            call("snn_pack_weight", of_group.data_ptr(), *sizes, packed.data_ptr())
        return out

    def record(self, spikes: Spikes) -> Synapse:
        """Return the synapses for the native library; the record points into these spikes' words and into `packed`."""
        before = spikes.map_shape
        record = Synapse.from_buffer_copy(wiring(self.geometry, self.weight.shape, before).record)
        record.trains, record.weight = pointer(spikes.words), self.packed(before).data_ptr()
        return record

    # --- Backward

    def multiplications(self, spikes: Spikes) -> int:
        """Return the number of multiplications over all steps and images, if spikes were numbers."""
        return spikes.steps * spikes.n * self.wiring(spikes.map_shape).multiplications

    def gradient_dtype(self, spikes: Spikes) -> torch.dtype:
        """Return the type of the weighted input's gradient; see `precision`."""
        return gradient_dtype(self.multiplications(spikes))

    def source_gradient(self, grad: Tensor, spikes: Spikes) -> Tensor:
        """Return the gradient of the spikes, `[T, N, ...]`, from that of the weighted input, `[N, T, H, W, O]`."""
        images, steps = grad.shape[:2]
        if self.geometry is not None and self.geometry.groups > 1:
            return self._grouped_gradients(grad, spikes, of_source=True)
        weight = self._as_read(spikes).to(grad.dtype)
        if self.geometry is None:
            product = grad.reshape(images * steps, -1) @ weight
        else:
            sources = self.wiring(spikes.map_shape).sources
            product = fold(grad.flatten(0, 1).flatten(1, 2), weight, sources, prod(spikes.map_shape[1:]))
        lying = map_of(spikes.map_shape)
        return by_step(product.view(images, steps, *(lying if len(spikes.map_shape) > 1 else lying[2:])))

    def _as_read(self, spikes: Spikes) -> Tensor:
        """Return the weight as `[O, taps * channels]`, in the order in which these spikes lie in memory."""
        if self.geometry is None:
            return _in_memory_order(self.weight.detach(), spikes.map_shape)
        return self.weight.detach().permute(0, 2, 3, 1).flatten(1)

    def weight_gradient(self, grad: Tensor, spikes: Spikes) -> Tensor:
        """Return the gradient of the weight from that of the weighted input, `[N, T, H, W, O]`.

        It is the sum of the gradients at the steps in which an input spiked, without multiplications, or a matrix
        product; see `_multiplies`.
        """
        if self.geometry is not None and self.geometry.groups > 1:
            return self._grouped_gradients(grad, spikes, of_source=False)
        assert spikes.words is not None
        if self._multiplies(grad, spikes.words):
            product = (as_columns(spikes) @ grad.flatten(0, -2)).float().t()
            return _in_weight_order(product.contiguous(), spikes.map_shape)
        (images, steps), shapes = grad.shape[:2], self.wiring(spikes.map_shape)
        *_, channels, _, taps, outputs = shapes.sizes
        parts = max(1, min(-(-LEAST_ITEMS // -(-outputs // LANES)), images))
        out = torch.zeros(parts, outputs, taps, channels, dtype=torch.float32)
        record = WeightGradient(
            images, steps, *shapes.sizes,
            spikes.words.data_ptr(), pointer(grad), shapes.sources.data_ptr(), out.data_ptr(),
            parts, grad.dtype == torch.bfloat16,
        )  # fmt: skip
        call("snn_weight_gradient", record)
        total = out[0] if parts == 1 else out.sum(0)
        if self.geometry is None:
            return _in_weight_order(total.flatten(1), spikes.map_shape)
        return total.transpose(1, 2).reshape(self.weight.shape)

    def input_gradients(self, grad: Tensor, spikes: Spikes) -> tuple[Tensor, Tensor]:
        """Return the gradients of the input's weight and bias, if these synapses read its spikes; see `SteadyInput`."""
        steady = spikes.steady
        assert steady is not None
        grouped, background = self.geometry is not None and self.geometry.groups > 1, float(steady.pixels.min())
        if grouped or self._multiplies(grad, steady.pixels != background):
            return input_gradients(self.source_gradient(grad, spikes), steady)
        (images, steps), shapes = grad.shape[:2], self.wiring(spikes.map_shape)
        weight = self._as_read(spikes).float().contiguous()
        sums = torch.zeros(2, dtype=torch.float64)
        record = SteadyGradient(
            images, steps, *shapes.sizes, len(steady.slopes),
            pointer(steady.currents), pointer(steady.pixels), background,
            steady.slopes.data_ptr(), weight.data_ptr(), shapes.sources.data_ptr(), pointer(grad), sums.data_ptr(),
            grad.dtype == torch.bfloat16,
        )  # fmt: skip
        call("snn_steady_gradient", record)
        return steady.gradients(*sums.tolist())

    def _multiplies(self, grad: Tensor, inputs: Tensor) -> bool:
        """Return whether a product with all inputs is faster than going through those that are not 0.

        Only for dense synapses in bfloat16: always on CPUs that multiply tiles of it, otherwise if many are not 0.
        """
        if self.geometry is not None or grad.dtype != torch.bfloat16:
            return False
        return multiplies_tiles() or int(inputs.count_nonzero()) > MANY * inputs.numel()

    def _grouped_gradients(self, grad: Tensor, spikes: Spikes, *, of_source: bool) -> Tensor:
        """Return the gradient of the spikes, or of the weight, of a grouped convolution, computed by torch."""
        assert self.geometry is not None
        maps = grad.float().flatten(0, 1).movedim(-1, 1).contiguous()
        shape = (*spikes.map_shape, 1, 1)[:3]
        x = torch.empty(len(maps), *shape, dtype=torch.float32)
        if not of_source:
            x = spikes.tensor().detach().transpose(0, 1).reshape(len(maps), *shape)
        geometry = self.geometry
        wide, padding = evenly_padded(x, geometry.padding)
        gradients = torch.ops.aten.convolution_backward(
            maps, wide, self.weight.detach(), None, geometry.stride, padding, geometry.dilation, False, (0, 0),
            geometry.groups, (of_source, not of_source, False),
        )  # fmt: skip
        if not of_source:
            of_weight: Tensor = gradients[1]
            return of_weight
        top, left, *_ = pads_of(geometry.padding) if wide is not x else (0, 0)
        found: Tensor = gradients[0][..., top : top + shape[1], left : left + shape[2]]
        return found.reshape(spikes.n, spikes.steps, *spikes.map_shape).transpose(0, 1)


def as_columns(spikes: Spikes) -> Tensor:
    """Return the spikes of each input over all images and steps, `[inputs, N * T]`, bfloat16, in memory order."""
    inputs, columns = prod(spikes.map_shape), spikes.n * spikes.steps
    # rows at a distance of a power of two would evict each other from the cache
    out = torch.empty(inputs, columns + APART, dtype=torch.bfloat16)
    out[:, columns:] = 0  # products may read a little beyond a row, and multiply it by 0
    call("snn_unpack", pointer(spikes.words), spikes.n, spikes.steps, inputs, columns + APART, out.data_ptr())
    return out[:, :columns]


def fold(grad: Tensor, weight: Tensor, sources: Tensor, n_pixels: int) -> Tensor:
    """Return the gradient of the input of a convolution, `[M, pixels, C]`.

    Args:
        grad: gradient of its output, `[M, places, O]`.
    """
    (places, taps), channels = sources.shape, weight.shape[1] // sources.shape[1]
    out = torch.empty(len(grad), n_pixels, channels, dtype=grad.dtype)
    if not len(grad):
        return out
    at_once = max(1, FOLDED_BYTES // (places * weight.shape[1] * grad.element_size()))
    for some, into in zip(grad.split(at_once), out.split(at_once), strict=True):
        columns = some.reshape(len(some) * places, -1) @ weight
        sizes = len(some), n_pixels, channels, places, taps
        record = Fold(*sizes, *map(pointer, (columns, sources, into)), grad.dtype == torch.bfloat16)
        call("snn_fold", record)
    return out


def _in_memory_order(weight: Tensor, shape: Shape) -> Tensor:
    """Return a dense weight `[O, C * H * W]` with its columns in memory order, which is `[O, H * W * C]`."""
    if len(shape) == 1:
        return weight
    return weight.view(-1, *shape).permute(0, 2, 3, 1).flatten(1)


def _in_weight_order(weight: Tensor, shape: Shape) -> Tensor:
    """Invert `_in_memory_order`."""
    if len(shape) == 1:
        return weight
    height, width, channels = map_of(shape)
    return weight.view(-1, height, width, channels).permute(0, 3, 1, 2).flatten(1)


def _sources_of_weight(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return for dense synapses the weight's column of each input in memory order, and taps of 0."""
    columns = _in_memory_order(torch.arange(prod(shape), dtype=torch.int32)[None], shape)[0]
    source = F.pad(columns, (0, -len(columns) % FOUR), value=-1)
    return source, torch.zeros(len(source) // FOUR, dtype=torch.int32)


def _taps(shape: Shape, geometry: ConvSpec) -> tuple[Tensor, Tensor]:
    """Return for a convolution the index of the weight at each byte of a window, and the offset of each four bytes.

    A window is read in runs of contiguous bytes: a whole row of the kernel if neither dilation nor groups part it.
    """
    (down, across), groups = axes_of(geometry), geometry.groups
    channels, _, width = shape
    line = (across.start + width + across.end) * channels
    of_group = channels // groups
    run = across.kernel if across.dilation == 1 and groups == 1 else 1  # columns of a run
    source, taps = list[int](), list[int]()
    for a in range(down.kernel):
        for b in range(0, across.kernel, run):
            places = [(b + k) + across.kernel * (a + down.kernel * c) for k in range(run) for c in range(of_group)]
            places += [-1] * (-len(places) % FOUR)
            source += places
            first = a * down.dilation * line + b * across.dilation * channels
            taps += range(first, first + len(places), FOUR)
    of_groups = torch.tensor(taps, dtype=torch.int32) + of_group * torch.arange(groups, dtype=torch.int32)[:, None]
    return torch.tensor(source, dtype=torch.int32), of_groups.contiguous()


@lru_cache(maxsize=64)
def sources_of_places(size: tuple[int, int], axes: tuple[Axis, Axis]) -> Tensor:
    """Return the pixel that each tap of each place of a convolution sees, `[places, taps]`, int32; -1 for padding."""
    seen = []
    for extent, axis in zip(size, axes, strict=True):
        firsts = torch.arange(axis.output(extent))[:, None] * axis.stride - axis.start
        at = firsts + torch.arange(axis.kernel) * axis.dilation
        seen.append(torch.where((at >= 0) & (at < extent), at, -1))
    rows, columns = seen[0][:, None, :, None], seen[1][None, :, None, :]
    pixels = torch.where((rows >= 0) & (columns >= 0), rows * size[1] + columns, -1)
    return pixels.flatten(2).flatten(0, 1).to(torch.int32).contiguous()
