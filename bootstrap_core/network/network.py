"""A network of bootstrap blocks."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bootstrap_core.functional.quantize import straight_through
from bootstrap_core.kernels import have_numba
from bootstrap_core.network.blocks import AffineBlock, Block, Carried, packed
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.network.spikes import InputRates, Spikes
from bootstrap_core.training.schedule import LayerModes
from specs.block import skips_of
from specs.errors import DataError, SnnZooError
from specs.network import NetworkSpec
from specs.shapes import fit_input

if TYPE_CHECKING:
    from bootstrap_core.inference.integer_events import Followed

__all__ = ["Network", "Tally", "Trace", "as_input", "check_earlier", "count_steps"]

UNSCALED = 16.0
"""Images that reach so far were not divided by 255; those that a network of lava-dl takes, normalised, do not."""

FEWEST_FOLLOWED = 2
"""Blocks, the input among them, for which an engine is worth making."""


@dataclass(frozen=True)
class Trace:
    """What every block gave in one run, input first.

    `spikes[i]` is `[T, N, ...]` where block i ran as SNN (for the readout: its weighted input of each step), and None
    where it ran as ANN; `rates[i]` is `[N, ...]`, the mean over time, or the ANN rates.
    """

    spikes: tuple[Tensor | None, ...]
    rates: tuple[Tensor, ...]

    def logits_after(self, steps: Sequence[int]) -> tuple[Tensor, ...]:
        """Those of runs of so many steps, each `[N, classes]`, float32: what the readout gave till then, on average."""
        x = self.spikes[-1]
        if x is None:
            raise SnnZooError("the readout ran as ANN, which has no steps")
        return tuple((x[:t].sum(0, dtype=torch.float64) / t).float().flatten(1) for t in steps)

    def tally(self) -> "Tally":
        """The trace, counted."""
        counts = tuple(None if spikes is None else _count(spikes) for spikes in self.spikes)
        rates = (
            float(rate.mean()) if spikes is None or count is None else float(count.sum()) / max(1, spikes.numel())
            for spikes, count, rate in zip(self.spikes, counts, self.rates, strict=True)
        )
        return Tally(counts, tuple(rates))


@dataclass(frozen=True)
class Tally:
    """A run in numbers, input first.

    `counts[i]` `[...]` has for each neuron of block i how often it gave something else than 0, over all images and
    steps; None where nothing was counted. `rates[i]` is the part of all outputs that were not 0, or as ANN their mean.
    `earlier` has the logits of shorter runs, which this one began with.
    """

    counts: tuple[Tensor | None, ...]
    rates: tuple[float, ...]
    earlier: tuple[Tensor, ...] = ()


def _count(spikes: Tensor) -> Tensor:
    if spikes.stride(0) == 0:  # one step that stands for all
        return spikes[0].count_nonzero(0) * len(spikes)
    return spikes.count_nonzero(dim=(0, 1))


class Network(nn.Module):
    """Bootstrap blocks in a row, with skips. Made by `build_network`; `spec` says what it is.

    Call it with images `[N, C, H, W]` in 0..1 (or uint8, 0..255); it gives logits `[N, classes]`.
    """

    def __init__(self, spec: NetworkSpec, blocks: list[Block]) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(blocks)
        self._sources = [[skip.source for skip in skips_of(layer)] for layer in spec.layers]
        self._last_reader = {source: i for i, sources in enumerate(self._sources) for source in sources}

    def forward(
        self, images: Tensor, mode: Mode | LayerModes | None = None, *, time_steps: int | None = None
    ) -> Tensor:
        """Logits `[N, classes]`: the mean over time of the readout, which for a spiking one is its rates.

        Args:
            images: `[N, ...]` of the spec's input size, in 0..1.
            mode: one mode, or one for each block; by default SNN in eval, ANN in training.
            time_steps: T, by default the spec's.
        """
        modes = self._layer_modes(mode)
        with self._uncast(modes):
            return self._carry(images, modes, count_steps(self.spec, time_steps))

    def tandem(self, images: Tensor) -> Tensor:
        """Logits as of spikes, with the gradient of the ANN where its activations give the rates of these spikes.

        Block by block the spikes run without a gradient, and the ANN beside them on their rates; both drop the same
        inputs. Norms learn from both. `images` as in `forward`. Source: see `specs.training.SnnGradient`.
        """
        rates = as_input(images, self.spec)
        kept: dict[int, Tensor] = {}
        for i, (block, (of_spikes, weighed)) in enumerate(zip(self.blocks, self._rates_of_spikes(rates), strict=True)):
            skipped = [kept[source] for source in self._sources[i]]
            known = {} if weighed is None else {"weighed": weighed}
            ann = block(rates, Mode.ANN, self.spec.time_steps, *skipped, **known)
            rates = straight_through(ann, of_spikes.to(ann.dtype))
            if i in self._last_reader:
                kept[i] = rates
        return rates.flatten(1)

    def _rates_of_spikes(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What the spikes of block after block are on average over time and, where known, what its synapses weigh.

        Without a gradient.
        A block may draw masks of dropout; the generators of torch are left as they were, for who draws them again.
        """
        steps, device = self.spec.time_steps, self.device
        spikes: Carried = images
        kept: dict[int, Carried] = {}
        followed = self._followed(images)
        first = 0 if followed is None else len(followed.rates)
        if followed is not None:
            yield from zip(followed.rates, followed.weighed, strict=True)
            if first < len(self.blocks):
                spikes = followed.spikes(first - 1)
                sources = {source for sources in self._sources[first:] for source in sources if source < first}
                kept = {source: followed.spikes(source) for source in sources}
        for i, block in enumerate(self.blocks[first:], first):
            assert isinstance(block, Block)
            skipped = [kept[source] for source in self._sources[i]]
            forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
            with forked, torch.no_grad(), torch.autocast(device.type, enabled=False):
                spikes = packed(block.carry(spikes, Mode.SNN, steps, *skipped))
                rates: Tensor = _seen_by(Mode.ANN, steps, spikes, True)
            if i in self._last_reader:
                kept[i] = spikes
            yield rates, None

    def _followed(self, images: Tensor) -> "Followed | None":
        """The first blocks' spikes by the engine that follows them, which is faster; None where it cannot.

        It runs on the CPU and needs numba. It drops no inputs, and norms that learn have to see what spikes weigh, so
        such a block and all after it are not for it.
        """
        n_blocks = len(self.blocks)
        if self.training:
            n_blocks = next((i for i, block in enumerate(self.blocks) if not block.same_in_training), n_blocks)
        if n_blocks < FEWEST_FOLLOWED or images.device.type != "cpu" or not len(images) or not have_numba():
            return None
        from bootstrap_core.inference.integer_events import EventEngine

        if not EventEngine.takes(self):
            return None
        return EventEngine(self, n_blocks).follow(images.detach(), self.spec.time_steps, weighed=True)

    def run(
        self, images: Tensor, mode: Mode | LayerModes | None = None, *, time_steps: int | None = None
    ) -> tuple[Tensor, Trace]:
        """Like `forward`, with a `Trace` of what every block gave."""
        modes, steps = self._layer_modes(mode), count_steps(self.spec, time_steps)
        outputs: list[tuple[Tensor, bool]] = []
        x, spiking = as_input(images, self.spec), False
        for i, block in enumerate(self.blocks):
            arriving = [(x, spiking), *(outputs[source] for source in self._sources[i])]
            x, *skipped = (_seen_by(modes[i], steps, *output) for output in arriving)
            with self._uncast(modes):
                x, spiking = block(x, modes[i], steps, *skipped), modes[i].spiking
            # a step that stands for all is shown as all of them
            outputs.append((x.expand(steps, *x.shape[1:]) if spiking else x, spiking))
        logits = (x.sum(0) / len(x) if spiking else x).flatten(1)
        return logits, Trace(
            spikes=tuple(x if spiking else None for x, spiking in outputs),
            rates=tuple(x.mean(0, dtype=torch.float32) if spiking else x for x, spiking in outputs),
        )

    def tally(
        self,
        images: Tensor,
        mode: Mode | LayerModes | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        """Like `run`, with the trace only counted, but for an affine readout's; nearly as fast as `forward`.

        `also_after` are numbers of steps up to T, whose logits are `earlier`; these take as long as `run`.
        """
        modes, steps = self._layer_modes(mode), count_steps(self.spec, time_steps)
        if also_after:
            also_after = check_earlier(steps, also_after)
            logits, trace = self.run(images, modes, time_steps=steps)
            return logits, replace(trace.tally(), earlier=trace.logits_after(also_after))
        counts: list[Tensor | None] = []
        rates: list[float] = []

        def count(block: Block, x: Carried, spiking: bool) -> None:
            found, rate = None, 0.0
            if not spiking:
                floats = packed(x)
                assert isinstance(floats, Tensor)
                rate = floats.mean().item()
            elif not isinstance(block, AffineBlock):
                assert not isinstance(x, InputRates)
                found = _count(x.expand(steps, *x.shape[1:])) if isinstance(x, Tensor) else x.counts()
                rate = float(found.sum()) / max(1, found.numel() * len(images) * steps)
            counts.append(found)
            rates.append(rate)

        with self._uncast(modes):
            logits = self._carry(images, modes, steps, count)
        return logits, Tally(tuple(counts), tuple(rates))

    def _carry(
        self,
        images: Tensor,
        modes: LayerModes,
        steps: int,
        see: Callable[[Block, Carried, bool], object] | None = None,
    ) -> Tensor:
        """Logits, with spikes packed; `see` is shown each block, what it gave, and whether these are spikes."""
        x: Carried = as_input(images, self.spec)
        spiking = False
        kept: dict[int, tuple[Carried, bool]] = {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            arriving = [(x, spiking), *(kept[source] for source in self._sources[i])]
            x, *skipped = (_seen_by(modes[i], steps, *output) for output in arriving)
            x, spiking = block.carry(x, modes[i], steps, *skipped), modes[i].spiking
            if i in self._last_reader:
                x = packed(x)
                kept[i] = x, spiking
            kept = {source: output for source, output in kept.items() if self._last_reader[source] > i}
            if see is not None:
                see(block, x, spiking)
        x = packed(x)
        if isinstance(x, Spikes):
            return (x.totals() / steps).flatten(1)
        return (x.sum(0) / len(x) if spiking else x).flatten(1)

    def _uncast(self, modes: LayerModes) -> AbstractContextManager[object]:
        """Where a block spikes, nothing is rounded, whatever a caller lets torch cast: spikes are exact."""
        device = self.device.type
        if torch.is_autocast_enabled(device) and any(modes[i].spiking for i in range(len(self.blocks))):
            return torch.autocast(device, enabled=False)
        return nullcontext()

    def _layer_modes(self, mode: Mode | LayerModes | None) -> LayerModes:
        if isinstance(mode, LayerModes):
            return mode
        return LayerModes(Mode(mode) if mode else Mode.ANN if self.training else Mode.SNN)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def readout(self) -> Block:
        """The last block: an `AffineBlock`, or a `SpikingBlock` whose rates are the logits."""
        block = self.blocks[-1]
        assert isinstance(block, Block)
        return block

    @property
    def fitted(self) -> bool:
        """Whether every activation has been fitted, so that ANN mode is defined."""
        return all(module.fitted for module in self.modules() if isinstance(module, RateSampler))


def _seen_by(mode: Mode, steps: int, x: Any, spiking: bool) -> Any:
    """What a block in `mode` gets of an output: at the crossover, where spikes meet rates, their mean rate."""
    if mode.spiking or not spiking:
        return x
    x = packed(x)
    return x.totals() / steps if isinstance(x, Spikes) else x.mean(0, dtype=torch.float32)


def count_steps(spec: NetworkSpec, time_steps: int | None) -> int:
    """T of a run: `time_steps`, or by default the spec's. Raises `SnnZooError` unless it is whole, and at least 1."""
    steps = spec.time_steps if time_steps is None else time_steps
    if not (isinstance(steps, Integral) and steps >= 1):
        raise SnnZooError(f"time_steps must be a whole number, at least 1, not {steps!r}")
    return int(steps)


def check_earlier(steps: int, also_after: Sequence[int]) -> list[int]:
    """`also_after`; raises `SnnZooError` unless all are steps of a run of so many."""
    for t in also_after:
        if not (isinstance(t, Integral) and 1 <= t <= steps):
            raise SnnZooError(f"also_after takes whole numbers from 1 to {steps}, the steps of this run, not {t!r}")
    return [int(t) for t in also_after]


def as_input(images: Tensor, spec: NetworkSpec) -> Tensor:
    """Images `[N, ...]` in the input's shape, uint8 scaled to 0..1. Raises `DataError` if they cannot be, and warns of
    floats that were not scaled."""
    shape = spec.input.shape
    wanted = f"{spec.name} takes images as a tensor [N, {', '.join(map(str, shape))}], floats in 0..1 or uint8"
    if not isinstance(images, Tensor):
        raise DataError(f"{wanted}, not a {type(images).__name__}")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise DataError(f"{wanted}, not {images.dtype}")
    if images.dim() == 0 or (len(images) and not fit_input(tuple(images.shape[1:]), shape)):
        single = images.numel() == torch.Size(shape).numel()
        hint = "; one image is a batch of one: images[None]" if single else ""
        raise DataError(f"images of {list(images.shape)} do not fit: {wanted}{hint}")
    x = images.reshape(len(images), *shape)
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not torch.compiler.is_compiling() and x.numel():
        highest = float(x.detach().max())
        if math.isnan(highest):
            raise DataError(f"images have pixels that are no numbers (NaN): {wanted}")
        if highest > UNSCALED:
            warnings.warn(f"images up to {highest:g}: {wanted}, which alone is divided by 255", stacklevel=2)
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
