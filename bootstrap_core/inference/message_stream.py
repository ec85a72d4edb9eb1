"""Streaming of sigma-delta networks: exact inference one frame at a time, with states that are kept between them."""

from itertools import repeat
from threading import Lock

import torch
from torch import Tensor

from bootstrap_core.fixed_point import MESSAGE
from bootstrap_core.functional.sigma_delta import SigmaDeltaStates
from bootstrap_core.inference.overflow import check_messages
from bootstrap_core.inference.stream import check_whole
from bootstrap_core.network.base_block import Block, Signals
from bootstrap_core.network.inputs import as_step
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.sigma_delta import MessageBlock, ValueBlock
from bootstrap_core.ops.spikes import Spikes

__all__ = ["MessageStream"]


class MessageStream:
    """Sigma-delta network that takes one frame at a time. `IntegerNetwork.stream` makes it.

    Args:
        network: the network.

    Attributes:
        steps: number of steps since the start.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._lock = Lock()  # torch lets other threads run
        self.reset()

    def reset(self) -> None:
        """Start again from rest."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self._is_whole = True  # no step stopped half way
        self._layers = [_MessageLayer(self._network.block(i), i) for i in range(len(self._network.blocks))]
        self._n: int | None = None
        self._sent: Tensor | float = 0.0  # by a readout without values, summed over the steps

    @torch.no_grad()
    def step(self, frames: Tensor) -> Tensor:
        """Advance one step; return the values after it, `[N, values]`, float32. Steps of threads run one after another.

        Args:
            frames: `[N, ...]`, integers.

        Raises:
            DataError: the frames do not fit the network, or have another N than before.
            StateOverflowError: a state leaves the hardware's 24 bits.
            SnnZooError: an earlier step raised such an error, and the stream was not reset.
        """
        with self._lock:
            return self._step(frames)

    def _step(self, frames: Tensor) -> Tensor:
        check_whole(self._is_whole)
        x: Signals = as_step(frames, self._network.spec, self._n)
        self._n = x.shape[1]
        self._is_whole = False
        for layer in self._layers:
            x = layer.run(x, self.steps)
        self._is_whole = True
        self.steps += 1
        if isinstance(x, Spikes):
            self._sent = self._sent + x.tensor()[0]
            x = (self._sent / MESSAGE).float()
        return x.flatten(1)


class _MessageLayer:
    """Block with the states of its neurons, and the messages that leave in the next step."""

    def __init__(self, block: Block, index: int) -> None:
        self.block, self.index = block, index
        self.drive = torch.empty(0)  # of the present step
        self.delayed_messages: Tensor | None = None
        drives = (self.drive for _ in repeat(None))  # each is read when its step runs
        self.states = block.states(drives) if isinstance(block, MessageBlock) else iter(())

    def run(self, arriving: Signals, step: int) -> Signals:
        """Return what leaves the block in this step: messages, or the values of a readout."""
        block = self.block
        if not isinstance(block, MessageBlock):
            return block(arriving, Mode.SNN, 1)
        (self.drive,) = block.drive(arriving)
        state: SigmaDeltaStates = next(self.states)
        check_messages(self.index, step, state)
        if isinstance(block, ValueBlock):
            return block.value(state)
        leaving = state.message[None]
        if block.delay_shift:
            if self.delayed_messages is None:
                self.delayed_messages = torch.zeros_like(leaving)
            leaving, self.delayed_messages = self.delayed_messages, leaving
        return Spikes.of(leaving, unit=1 / MESSAGE)
