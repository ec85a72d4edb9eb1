"""Exact integer inference: the arithmetic of the hardware, with its limits checked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE_MAX
from bootstrap_core.functional.cuba import StateLimits
from bootstrap_core.inference.stream import Stream
from bootstrap_core.network.base_block import Signals
from bootstrap_core.network.build import build_network
from bootstrap_core.network.inputs import as_input, check_dense, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Tally, Trace, check_network, probabilities_of, rates_of, walk
from bootstrap_core.network.states import check_states
from bootstrap_core.ops.spikes import Spikes
from specs.errors import SnnZooError
from specs.network import NetworkSpec
from specs.outline import outline


class Overflow(Enum):
    """Treatment of states that leave the hardware's 24 bits."""

    REFUSE = "refuse"
    """Raise `StateOverflowError`."""

    CHIP = "chip"
    """Continue as the chip does: currents wrap around, voltages are clipped; both are counted."""


@dataclass(frozen=True, repr=False)
class IntegerTrace(Trace):
    """A `Trace` with the voltage of the readout's neurons before reset, `[T, N, ...]` in state units of 1/4096.

    The neurons of an exported affine readout never spike; their voltage is read from the chip as its output. It is None
    for a readout without neurons. Of a sigma-delta network, it is sigma, in units of 1/2^18.
    """

    readout_voltage: Tensor | None


class IntegerNetwork:
    """Exact integer inference on the CPU, with the same spikes as the float network and Lava's `fixed_pt` simulation.

    Weights are 8-bit integers, laid out for inference once. States are checked against the hardware's 24 bits. It is a
    snapshot: training the network further does not change it.

    Args:
        network: the float network.
        overflow: what happens where a state leaves 24 bits: `Overflow.REFUSE` raises an error, `Overflow.CHIP`
            continues as the chip does and counts these states.

    Attributes:
        overflows: number of states that left 24 bits and were changed, by block, of all runs so far.

    Raises `SnnZooError` if `network` is not a `Network`, or its tensors are not finite.

    >>> from bootstrap_core import build_network
    >>> from specs import load_spec
    >>> net = build_network(load_spec("mnist-dense"), seed=0)
    >>> images = torch.rand(2, 1, 28, 28)
    >>> torch.equal(IntegerNetwork(net)(images), net(images))
    True
    """

    device = torch.device("cpu")

    def __init__(self, network: Network, *, overflow: Overflow = Overflow.REFUSE) -> None:
        check_network(network, "IntegerNetwork")
        self._overflow = Overflow(overflow)
        if network.spec.gives_values and self._overflow is Overflow.CHIP:
            raise SnnZooError(
                "overflow: must be refuse for sigma-delta networks, got chip: Lava does not define their states beyond "
                "24 bits"
            )
        self.overflows: Counter[int] = Counter()
        self._network = deepcopy(network).to(self.device).eval().requires_grad_(False)
        self.spec: NetworkSpec = network.spec
        for name, tensor in self._network.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise SnnZooError(f"{name} holds values that are not finite, which integers cannot represent")
        with torch.no_grad():
            for i in range(len(self._network.blocks)):
                self._network.block(i).freeze()

    def __repr__(self) -> str:
        return outline("IntegerNetwork", self.spec)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the spec and the tensors only, since torch cannot pickle modules with a weight norm."""
        return _rebuild, (self.spec, self._network.state_dict(), self._overflow, self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._network.classes

    def probabilities(self, images: Tensor, *, time_steps: int | None = None) -> Tensor:
        """Return the probability of each class, `[N, classes]`; see `Network.probabilities`. Raises as `run` does."""
        return probabilities_of(self.spec, self(images, time_steps=time_steps))

    def __call__(self, images: Tensor, *, time_steps: int | None = None) -> Tensor:
        """Return what the network gives, float32, with the arguments of `Network.forward`.

        Raises as `run` does.
        """
        last: Signals = images
        for read, output in self._outputs(images, time_steps):
            read.clear()  # frees outputs that no later block reads
            last = output
        return self._network.answer(last)

    def run(
        self, images: Tensor, mode: Mode | None = None, *, time_steps: int | None = None
    ) -> tuple[Tensor, IntegerTrace]:
        """Return what `__call__` returns, and the output of each block at each step.

        Raises `StateOverflowError` if a current or voltage leaves the hardware's 24 bits, and `overflow` is
        `REFUSE`; the message names block and step.
        """
        spikes, rates = list[Tensor](), list[Tensor]()
        outputs = self._outputs(images, time_steps, mode)
        with torch.no_grad():
            for i, (read, output) in enumerate(outputs):
                shown = self._network.shown(i, read, output)
                spikes.append(_as_integers(shown, output))
                is_mean = not self.spec.gives_values
                rates.append(spikes[-1].mean(0, dtype=torch.float32) if is_mean else rates_of(output).float())
            trace = IntegerTrace(
                spikes=tuple(spikes),
                rates=tuple(rates),
                readout_voltage=self._voltage(read),
                values=self._network.values(spikes[-1], output),
            )
        return self._network.answer(output), trace

    def stream(self) -> Stream:
        """Return this network as a stream, whose `step` takes one time step of the input at a time.

        >>> from bootstrap_core import build_network
        >>> from specs import load_spec
        >>> exact, image = IntegerNetwork(build_network(load_spec("mnist-dense"), seed=0)), torch.rand(1, 1, 28, 28)
        >>> stream = exact.stream()
        >>> logits = [stream.step(image) for _ in range(3)]
        >>> torch.equal(logits[2], exact(image, time_steps=3))
        True
        """
        return Stream(self._network, self.overflows if self._overflow is Overflow.CHIP else None)

    def rates(self, images: Tensor, *, time_steps: int | None = None) -> tuple[Tensor, ...]:
        """Return the mean output of each block over time, float32 `[N, ...]`; of an affine readout, the logits.

        Faster than `run`, which keeps the output of each step.
        """
        outputs = (output for _, output in self._outputs(images, time_steps))
        return tuple(rates_of(x).float() for x in outputs)

    def tally(
        self,
        images: Tensor,
        mode: Mode | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        """Run like `__call__` and count spikes; see `Network.tally`."""
        outputs, steps = self._outputs(images, time_steps, mode), count_steps(self.spec, time_steps, images)
        with torch.no_grad():
            return self._network.tally_of(outputs, steps, also_after)

    @torch.no_grad()
    def _outputs(
        self, images: Tensor, time_steps: int | None, mode: Mode | None = None
    ) -> Iterator[tuple[list[Signals], Signals]]:
        """Yield the inputs and the output of each block, after a check of its states."""
        if mode not in (None, Mode.SNN):
            raise SnnZooError(f"the integer engine runs only Mode.SNN, not {mode}")
        check_dense(images, self.spec)
        inputs, read = as_input(images.cpu() if isinstance(images, Tensor) else images, self.spec), list[Signals]()
        steps = count_steps(self.spec, time_steps, inputs)

        def run(i: int, arriving: list[Signals]) -> Signals:
            read[:] = arriving
            output, reached = self._network.block(i).run_checked(arriving, steps)
            return output if reached <= STATE_MAX else self._beyond(i, arriving, output, steps)

        given: Signals = inputs
        for output in walk(self.spec.sources, given, run):
            yield list(read), output

    def _beyond(self, i: int, arriving: list[Signals], output: Signals, steps: int) -> Signals:
        """Return the output of a block whose states left 24 bits, as on the chip; or raise `StateOverflowError`."""
        block = self._network.block(i)
        if self._overflow is Overflow.REFUSE:
            for step, (states, _) in enumerate(block.states_of_run(arriving, steps)):
                check_states(self.spec.title_of(i), step, states, block.remedy)
        limits = StateLimits()
        fired = Spikes.of(torch.stack([x.float() for _, x in block.states_of_run(arriving, steps, limits)]))
        self.overflows[i] += limits.n
        if not isinstance(output, Spikes):
            return output  # logits do not depend on the readout's states
        return fired.delayed() if block.delay_shift else fired

    def _voltage(self, read: list[Signals]) -> Tensor | None:
        """Return the voltage of the readout's neurons, `[T, N, ...]`, int32 in state units; None without neurons."""
        readout, steps = self._network.readout, next(x.steps for x in read if isinstance(x, Spikes))
        run = readout.states_of_run(read, steps, StateLimits())
        found = [states[readout.potential].int() for states, _ in run]
        return torch.stack(found) if found else None


def _rebuild(
    spec: NetworkSpec, tensors: dict[str, Tensor], overflow: Overflow, classes: tuple[str, ...]
) -> IntegerNetwork:
    """Build the engine anew from a spec and the tensors of its network."""
    network = build_network(spec, seed=0)
    network.load_state_dict(tensors)
    network.classes = classes
    return IntegerNetwork(network, overflow=overflow)


def _as_integers(shown: Tensor, output: Signals) -> Tensor:
    """Return spikes as int8 and graded messages as int32; the output of a readout without spikes stays as it is."""
    if not isinstance(output, Spikes):
        return shown
    steps = shown[:1] if output.is_constant else shown  # a step that stands for all steps is converted once
    return steps.to(torch.int32 if shown.dtype == torch.float64 else torch.int8).expand(shown.shape)
