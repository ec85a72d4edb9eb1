"""Modules of the user's own in the place of a block, for research."""

from torch import nn

from bootstrap_core.network.base_block import Block, Signals, as_spikes
from bootstrap_core.network.mode import Mode
from specs.errors import SnnZooError
from specs.fields import Shape


class OwnBlock(Block):
    """A torch module that takes and gives spikes `[T, N, ...]`; it has no ANN and no integers.

    Args:
        module: called with the spikes of each block that the replaced block reads.
        index: index of the block; 0 is the input.
        shape: shape of the neurons that the next block reads.
    """

    def __init__(self, module: nn.Module, index: int, shape: Shape) -> None:
        super().__init__()
        self.module, self.shape = module, shape
        self.called = f"block {index} ({type(module).__name__})"

    def forward(self, x: Signals, mode: Mode, time_steps: int, *skipped: Signals) -> Signals:
        read = [as_spikes(each).tensor().float() for each in (x, *skipped)]
        spikes = self.module(*read)
        wanted = [time_steps, read[0].shape[1], *self.shape]
        if list(spikes.shape) != wanted:
            raise SnnZooError(f"{self.called}: must give spikes [T, N, ...], here {wanted}, got {list(spikes.shape)}")
        return as_spikes(spikes)
