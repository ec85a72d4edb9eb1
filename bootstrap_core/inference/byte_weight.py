"""An int8 weight for products in registers, and where in memory its inputs and outputs lie.

Needs numba.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.inference.trains import Words
from bootstrap_core.kernels.byte_products import BYTES, ROWS, has_byte_products, in_fours
from bootstrap_core.kernels.exact_products import LEAST_PACKED_CHANNELS
from bootstrap_core.kernels.half import multiplies_tiles
from specs.block import ConvSpec
from specs.fields import Shape

__all__ = ["ByteWeight"]

LEAST_RATE, FULL_OUTPUTS = 0.1, 256
"""Of spikes, from which these products are faster than following them; and of one input, from which on they are."""


@dataclass(frozen=True)
class ByteWeight:
    """Of a convolution. Spikes are bytes, channels last, in maps with zeros around them; all distances are in bytes.

    Attributes:
        weight: see `byte_products.in_fours`.
        taps: from the first input of an output to every four of its inputs.
        height: rows of a map, those of zeros too.
        line: from a row to the next.
        corner: from a map's beginning to its first spike.
        down, across: from the first input of an output to that of the one below, and beside it.
        columns, channels: of outputs.
    """

    weight: npt.NDArray[np.int8]
    taps: npt.NDArray[np.int64]
    height: int
    line: int
    corner: int
    down: int
    across: int
    columns: int
    channels: int

    @classmethod
    def of(cls, weight: Tensor, spec: ConvSpec, before: Shape, after: Shape) -> "ByteWeight | None":
        """That of an int8 weight `[channels, C, kh, kw]`; None of groups, and where oneDNN has a better instruction."""
        in_tiles = multiplies_tiles() and before[0] >= LEAST_PACKED_CHANNELS
        if spec.groups > 1 or in_tiles or not has_byte_products():
            return None
        (inputs, height, width), (channels, _, columns) = before, after
        (above, left), (down, across), (dilation, spread) = spec.padding, spec.stride, spec.dilation
        line = (width + 2 * left) * inputs
        rows = weight.permute(0, 2, 3, 1)
        rows = rows.flatten(2)[:, :, None] if spread == 1 else rows  # the columns of a kernel, if nothing lies between
        rows = F.pad(rows, (0, -rows.shape[3] % BYTES))
        y, x, at = np.ogrid[: rows.shape[1], : rows.shape[2], : rows.shape[3] : BYTES]
        return cls(
            weight=in_fours(rows.flatten(1)),
            taps=(y * dilation * line + x * spread * inputs + at).ravel(),
            height=height + 2 * above,
            line=line,
            corner=above * line + left * inputs,
            down=down * line,
            across=across * inputs,
            columns=columns,
            channels=channels,
        )

    @classmethod
    def of_matrix(cls, weight: Tensor) -> "ByteWeight | None":
        """That of an int8 matrix `[outputs, inputs]`, a convolution of maps of one pixel."""
        outputs, inputs = weight.shape
        spec = ConvSpec(channels=outputs, kernel=(1, 1))
        return cls.of(weight[:, :, None, None], spec, (inputs, 1, 1), (outputs, 1, 1))

    def beside(self, n: int) -> "ByteWeight":
        """That of a matrix, for n images as the columns of a map."""
        return replace(self, line=n * self.line, columns=n)

    @property
    def least_rate(self) -> float:
        """Of spikes, from which this is faster than following them."""
        return LEAST_RATE * min(1.0, self.channels / FULL_OUTPUTS)

    def in_maps(self, x: Words, steps: int) -> tuple[Any, ...]:
        """What `multiplied_trains` takes first, for so many steps of trains `[N, H, W, C]`."""
        size, a_map = self.columns * self.channels, self.height * self.line
        spikes = np.zeros(steps * a_map + BYTES, np.uint8)
        z = np.empty(steps * size + self.weight.shape[0] * self.weight.shape[2], np.int32)
        maps = spikes[:-BYTES].reshape(steps, a_map)
        step, column = np.divmod(np.arange(-(-steps * self.columns // ROWS) * ROWS), self.columns)
        reads = np.where(step < steps, step * a_map + column * self.across, 0)
        places = np.where(step < steps, step * size + column * self.channels, steps * size)
        trains = x.reshape(*x.shape[:2], -1)
        apart = self.down, self.corner, self.line
        return trains, self.weight, self.taps, reads, places, *apart, spikes, maps, z, size
