"""A network of bootstrap blocks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from bootstrap_core.functional.dropout import same_masks_again
from bootstrap_core.functional.quantize import straight_through
from bootstrap_core.network.base_block import Block, Signals
from bootstrap_core.network.blocks import OwnBlock
from bootstrap_core.network.inputs import as_input, check_earlier, count_steps
from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.ops.spike_counts import count
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.pictures import figure, raster_uri
from specs.arguments import check_type
from specs.dataset_sources import all_class_names, check_class_names, known_classes
from specs.errors import DataError, SnnZooError
from specs.network import NetworkSpec, Output
from specs.outline import MOST_LINES, few_lines, outline
from specs.words import counted

Passed = TypeVar("Passed")
SHOWN_NEURONS, SHOWN_WIDTH, LEAST_HEIGHT = 256, 128, 40
"""Number of neurons of a block in a notebook's picture; its width there in pixels, and its least height."""


def walk(
    sources: Sequence[Sequence[int]], given: Passed, run: Callable[[int, list[Passed]], Passed]
) -> Iterator[Passed]:
    """Run blocks in order and yield their outputs; an output is kept only as long as a later block reads it.

    Args:
        sources: indices of the blocks that each block reads; a block that reads none takes `given`.
        run: called with the index of a block and the outputs that it reads.

    >>> list(walk([[], [0], [0, 1]], 1, lambda i, read: sum(read) + i))
    [1, 2, 5]
    """
    last_reader = {source: i for i, read in enumerate(sources) for source in read}
    kept: dict[int, Passed] = {}
    for i, read in enumerate(sources):
        x = run(i, [kept[source] for source in read] or [given])
        kept = {source: output for source, output in (kept | {i: x}).items() if last_reader.get(source, i) > i}
        yield x


@dataclass(frozen=True)
class Trace:
    """Outputs of all blocks in one run, input first.

    `spikes[i]` is `[T, N, ...]` where block i ran as SNN (for a readout without spikes: the logits of each step alone),
    and None where it ran as ANN; `rates[i]` is `[N, ...]`, the mean over time, or the ANN rates.

    In a sigma-delta network, `spikes[i]` are messages, integers in units of 1/4096, or for an affine readout its values
    after each step; `rates[i]` are the activations at the end. `values` `[T, N, ...]` is the output of the network
    after each step; None if the output is a mean over the steps so far.
    """

    spikes: tuple[Tensor | None, ...]
    rates: tuple[Tensor, ...]
    values: Tensor | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        lines = [
            f"block {i}: {f'as ANN {list(a.shape)}' if s is None else f'as SNN {list(s.shape)}'}, "
            f"mean {float(a.detach().mean()):.3g}"
            for i, (s, a) in enumerate(zip(self.spikes, self.rates, strict=True))
        ]
        return few_lines(f"{type(self).__name__} of {len(self.rates[0])} images", lines)

    def _repr_html_(self) -> str:
        """Return pictures of the first image's spikes, for a notebook: a row for each neuron, time to the right."""
        rows = [
            (i, x[:, 0].detach().cpu().flatten(1)[:, :SHOWN_NEURONS])
            for i, x in enumerate(self.spikes[:MOST_LINES])
            if x is not None and x.shape[1]
        ]
        return "".join(
            figure(raster_uri(x), f"block {i}", width=SHOWN_WIDTH, height=max(LEAST_HEIGHT, x.shape[1]))
            for i, x in rows
        )

    def logits_after(self, steps: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the logits `[N, classes]` of shorter runs: the mean output of the readout over the first steps."""
        if self.values is not None:
            return tuple(self.values[t - 1].flatten(1) for t in steps)
        x = self.spikes[-1]
        if x is None:
            raise SnnZooError("the readout ran as ANN, which has no time steps: run it in Mode.SNN")
        return tuple((x[:t].sum(0, dtype=torch.float64) / t).float().flatten(1) for t in steps)


@dataclass(frozen=True)
class Tally:
    """Counts of one run, input first.

    `counts[i]` has the number of nonzero outputs of each neuron of block i, over all images and steps; None where
    nothing was counted. `rates[i]` is the share of nonzero outputs, or for a block that ran as ANN the mean output.
    `earlier` has the logits after the first steps of the run, for each number of steps that was asked for.
    """

    counts: tuple[Tensor | None, ...]
    rates: tuple[float, ...]
    earlier: tuple[Tensor, ...] = ()

    def __repr__(self) -> str:
        lines = [
            f"block {i}: mean {rate:.3g}" + ("" if x is None else f", {int(x.sum()):,} nonzero outputs")
            for i, (x, rate) in enumerate(zip(self.counts, self.rates, strict=True))
        ]
        return few_lines("Tally", lines)


class Network(nn.Module):
    """Bootstrap blocks, each of which reads earlier ones. Made by `build_network` from `spec`.

    Call it with images `[N, C, H, W]` in 0..1 (or uint8, 0..255), or if the spec says `input.encoding: events` or
    `frames`, with events or frames `[T, N, C, H, W]`. It returns logits `[N, classes]`; a network of sigma-delta
    neurons returns the values after the last step, `[N, values]`, and one with `output: spikes` the spikes of the
    readout, `[T, N, ...]`.
    """

    def __init__(self, spec: NetworkSpec, blocks: list[Block]) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(blocks)
        self._sources = spec.sources
        recipe = spec.training
        self._classes = all_class_names(recipe and known_classes(recipe.data), spec.n_classes)

    def __repr__(self) -> str:
        return outline(type(self).__name__, self.spec)

    def forward(
        self, images: Tensor, mode: Mode | LayerModes | None = None, *, time_steps: int | None = None
    ) -> Tensor:
        """Return logits `[N, classes]`, values `[N, values]` or spikes `[T, N, ...]`, as the spec's output says.

        Logits are the mean output of the readout over time, for a spiking readout its rates; with `output: last`, the
        output in the last step.

        Args:
            images: `[N, ...]` of the spec's input size, in 0..1; of events or frames `[T, N, ...]`, integers.
            mode: one mode, or one for each block; by default SNN in eval, ANN in training.
            time_steps: T, by default the spec's; of events or frames, the number of first steps to run, by default all.
        """
        last: Signals = images
        for read, output in self.outputs(images, mode, time_steps=time_steps):
            read.clear()  # frees outputs that no later block reads
            last = output
        return self.answer(last)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: numbers, unless the data of the recipe, or a model file, have names.

        Another list of as many names may be assigned; files that `write_model` writes hold them.
        """
        return self._classes

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        if len(names) != self.spec.n_classes:
            given, wanted = counted(len(names), "name"), counted(self.spec.n_classes, "class")
            raise DataError(f"classes: {given} for the {wanted} of {self.spec.name}: give one name for each class")
        self._classes = check_class_names(names, "classes")

    def probabilities(self, images: Tensor, *, time_steps: int | None = None) -> Tensor:
        """Return the probability of each class, `[N, classes]`: the softmax of the logits times the `logit_scale`.

        These are the scores of `zoo predict`. The network runs as SNN; arguments are those of `forward`.
        """
        return probabilities_of(self.spec, self(images, Mode.SNN, time_steps=time_steps))

    def outputs(
        self, images: Tensor, mode: Mode | LayerModes | None = None, *, time_steps: int | None = None
    ) -> Iterator[tuple[list[Signals], Signals]]:
        """Run blocks in order; yield the inputs of each block, that of its own synapses first, and its output.

        Arguments are those of `forward`.
        """
        modes, given = self._layer_modes(mode), as_input(images, self.spec)
        if any(modes[i] is not Mode.SNN for i in range(len(self.blocks))):
            self._check_ann()
        steps = count_steps(self.spec, time_steps, given)
        read: list[Signals] = []
        uncast = self._uncast(modes)

        def run(i: int, arriving: list[Signals]) -> Signals:
            read[:] = [_seen_by(modes[i], x) for x in arriving]
            x, *skipped = read
            with uncast:
                return self.block(i)(x, modes[i], steps, *skipped)

        first: Signals = given
        for output in walk(self._sources, first, run):
            yield list(read), output

    def tandem(self, images: Tensor) -> Tensor:
        """Return the logits of the SNN, with the gradient of the ANN taken at the rates of these spikes.

        Each block runs on spikes, without a gradient, and then as ANN on the rates of these spikes, with the same
        dropout mask; norms learn from both. `images` as in `forward`. Source: see `specs.training.SnnGradient`.
        """
        self._check_ann()
        images, device = as_input(images, self.spec), self.device.type
        steps = count_steps(self.spec, None, images)

        def run(i: int, arriving: list[tuple[Signals, Tensor]]) -> tuple[Signals, Tensor]:
            block, ((spikes, rates), *skipped) = self.block(i), arriving
            with same_masks_again(), torch.no_grad(), torch.autocast(device, enabled=False):
                spikes = block(spikes, Mode.SNN, steps, *(x for x, _ in skipped))
            ann = block(rates, Mode.ANN, steps, *(x for _, x in skipped))
            assert isinstance(ann, Tensor)
            of_spikes = _seen_by(Mode.ANN, spikes)
            assert isinstance(of_spikes, Tensor)
            return spikes, straight_through(ann, of_spikes.to(ann.dtype))

        given: tuple[Signals, Tensor] = images, images
        _, rates = deque(walk(self._sources, given, run), maxlen=1).pop()
        return rates.flatten(1)

    def run(
        self, images: Tensor, mode: Mode | LayerModes | None = None, *, time_steps: int | None = None
    ) -> tuple[Tensor, Trace]:
        """Run like `forward`; also return the outputs of all blocks."""
        modes = self._layer_modes(mode)
        spikes, rates = list[Tensor | None](), list[Tensor]()
        for i, (read, output) in enumerate(self.outputs(images, modes, time_steps=time_steps)):
            shown = self.shown(i, read, output) if modes[i].spiking else None
            spikes.append(shown)
            mean = rates_of(output) if shown is None or self.spec.gives_values else shown.mean(0, dtype=torch.float32)
            rates.append(mean)
        return self.answer(output), Trace(tuple(spikes), tuple(rates), values=self.values(spikes[-1], output))

    def values(self, shown: Tensor | None, output: Signals) -> Tensor | None:
        """Return the output after each step, float32 `[T, N, ...]`; None if it is a mean over steps, or as ANN."""
        if shown is None or not (self.spec.gives_values or self.spec.output is Output.LAST):
            return None
        unit = output.unit if isinstance(output, Spikes) else None
        return shown if unit is None else (shown.double().cumsum(0) * unit).float()

    def shown(self, i: int, read: list[Signals], output: Signals) -> Tensor:
        """Return the output of block i at each step, `[T, N, ...]`; see `Block.over_time`."""
        if isinstance(output, Spikes):
            return output.tensor()
        return self.block(i).over_time(*(x for x in read if isinstance(x, Spikes)))

    def tally(
        self,
        images: Tensor,
        mode: Mode | LayerModes | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        """Run like `forward` and count the outputs of every block that are not 0.

        `also_after` are numbers of steps up to T, whose logits are `earlier`.
        """
        outputs = self.outputs(images, mode, time_steps=time_steps)
        return self.tally_of(outputs, count_steps(self.spec, time_steps, images), also_after)

    def tally_of(
        self, outputs: Iterable[tuple[list[Signals], Signals]], steps: int, also_after: Sequence[int]
    ) -> tuple[Tensor, Tally]:
        """Return logits and tally of a run of T steps, whose blocks' inputs and outputs are `outputs`."""
        also_after = check_earlier(steps, also_after)
        counts: list[Tensor | None] = []
        rates: list[float] = []
        last: tuple[list[Signals], Signals]
        for last in outputs:
            output = last[1]
            if isinstance(output, Spikes):
                found = _count(output)
                counts.append(found)
                rates.append(float(found.sum()) / max(1, output.steps * output.n * found.numel()))
            else:
                counts.append(None)
                rates.append(float(output.detach().mean()))
        earlier = tuple(self.logits_after(t, *last) for t in also_after)
        return self.answer(last[1]), Tally(tuple(counts), tuple(rates), earlier)

    def logits_after(self, steps: int, read: list[Signals], output: Signals) -> Tensor:
        """Return the logits after the first steps, from the readout's inputs and output in a longer run."""
        if isinstance(output, Spikes):
            return self.answer(output.first(steps))
        first = [x.first(steps) for x in read if isinstance(x, Spikes)]
        if len(first) != len(read):
            raise SnnZooError("the readout ran as ANN, which has no time steps: run it in Mode.SNN")
        return self.answer(self.readout(first[0], Mode.SNN, steps, *first[1:]))

    def answer(self, output: Signals) -> Tensor:
        """Return what the network gives for an output of the readout.

        That is logits or values `[N, ...]`, float32 where the readout spikes; with `output: spikes`, `[T, N, ...]`.
        """
        if not isinstance(output, Spikes):
            return output.flatten(1)
        return output.tensor().float() if self.spec.gives_spikes else rates_of(output).flatten(1).float()

    def replace(self, i: int, module: nn.Module) -> None:
        """Put a torch module of your own in the place of block i, which is neither the input nor the readout.

        It is called with the spikes that the block reads, `[T, N, ...]`, and gives spikes of the block's shape. The
        network then trains and is scored as SNN; files and the integer engine refuse it.

        Raises `SnnZooError` if `i` is no hidden block, or `module` no module.
        """
        check_type(module, nn.Module, "replace takes a torch module", advice="a subclass of torch.nn.Module")
        if not 0 < i < len(self.blocks) - 1:
            raise SnnZooError(
                f"replace: must be a block between input and readout, 1 to {len(self.blocks) - 2}, got {i}"
            )
        self.blocks[i] = OwnBlock(module, i, self.spec.shapes[i])

    @property
    def own(self) -> str | None:
        """The first block that is a module of the user's own, by index and name; None without one."""
        return next((block.called for block in self.blocks if isinstance(block, OwnBlock)), None)

    @property
    def without_ann(self) -> str | None:
        """Kind of a network that has no ANN, for messages; None if it has one."""
        return f"a network with {self.own}" if self.own else self.spec.without_ann

    def _check_ann(self) -> None:
        if what := self.without_ann:
            raise SnnZooError(f"{what} runs only in Mode.SNN: it has no ANN")

    def _uncast(self, modes: LayerModes) -> AbstractContextManager[object]:
        """Return a context that switches autocast off if a block spikes, since spikes are exact."""
        device = self.device.type
        if torch.is_autocast_enabled(device) and any(modes[i].spiking for i in range(len(self.blocks))):
            return torch.autocast(device, enabled=False)
        return nullcontext()

    def _layer_modes(self, mode: Mode | LayerModes | None) -> LayerModes:
        if isinstance(mode, LayerModes):
            return mode
        return LayerModes(Mode(mode) if mode else Mode.ANN if self.training else Mode.SNN)

    def block(self, i: int) -> Block:
        """Return block i; 0 is the input, -1 the readout."""
        block = self.blocks[i]
        assert isinstance(block, Block)
        return block

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert all tensors, as `to` and `float` do; refuse types that would round the weights."""
        dtype = fn(torch.empty(0)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise SnnZooError(
                f"weights cannot be {str(dtype).removeprefix('torch.')}, which would round them: a network is float32 "
                "or float64; training.precision: bfloat16 makes training faster, IntegerNetwork inference"
            )
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Device of the weights; the CPU for a network without any."""
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

    @property
    def readout(self) -> Block:
        """Last block: an affine readout, or a block of neurons whose rates are the logits."""
        return self.block(-1)

    @property
    def fitted(self) -> bool:
        """True if every activation has been fitted, so that ANN mode is defined."""
        return self.without_ann is None and all(
            module.fitted for module in self.modules() if isinstance(module, RateSampler)
        )


def _seen_by(mode: Mode, x: Signals) -> Signals:
    """Return an output as a block in `mode` reads it: spikes become their mean rate where an ANN block follows."""
    return rates_of(x) if isinstance(x, Spikes) and not mode.spiking else x


def rates_of(x: Signals) -> Tensor:
    """Return the mean of spikes over time, float32, or the activation that messages add up to; rates stay as they are.

    Activations that go on to an ANN block are float64, see `MessageBlock`.
    """
    if not isinstance(x, Spikes):
        return x
    return (count(x) / x.steps).float() if x.unit is None else count(x) * x.unit


def _count(spikes: Spikes) -> Tensor:
    """Return the number of nonzero outputs of each neuron, over all images and steps, int64."""
    if spikes.values is None:
        return count(spikes).sum(0, dtype=torch.float64).long()
    if spikes.is_constant:
        return spikes.tensor()[0].count_nonzero(0) * spikes.steps
    return spikes.tensor().count_nonzero(dim=(0, 1))


def probabilities_of(spec: NetworkSpec, logits: Tensor) -> Tensor:
    """Return the probabilities of classes for logits; see `Network.probabilities`. Raises `SnnZooError` for values."""
    if what := spec.without_classes:
        raise SnnZooError(f"{what}, and so no probabilities: call the network itself")
    return (spec.logit_scale * logits).softmax(1)


def check_network(
    value: object, function: str, error: type[SnnZooError] = SnnZooError, *, takes_own: bool = False
) -> None:
    """Raise `error` unless the argument of a function is a `Network`, and has only our blocks or `takes_own`."""
    advice = "build_network makes one from a spec, zoo.create_model from the name of a model, .build() from a Model"
    check_type(value, Network, f"{function} takes a Network", advice=advice, error=error)
    if isinstance(value, Network) and value.own and not takes_own:
        raise error(
            f"{function}: {value.own} is a module of your own, which has no integers: it trains and is scored only"
        )
