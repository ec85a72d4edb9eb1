"""Products of spikes with int8 weights, exact on every CPU.

oneDNN multiplies them fastest, by a weight packed in the order in which it wants that for an input of a shape: one
packed for another it may pack anew for each product, which takes longer than the product. Not by `torch._int_mm`: where
a CPU has no instruction for int8 it adds pairs of products in 16 bits, which those of int8 with int8 overflow; those of
0 and 1, as uint8, do not.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.fixed_point import EXACT_IN_FLOAT, WEIGHT_INT_MIN

__all__ = [
    "LEAST_PACKED_CHANNELS",
    "PackedConvolution",
    "PackedWeight",
    "can_pack",
    "has_int8_instruction",
    "is_narrow",
]

UNIT = torch.ones(1), torch.zeros(1, dtype=torch.int64)
"""Scale and zero of all weights, which are the integers they are."""
REST: tuple[object, ...] = 1.0, 0, torch.float32, "none", [], ""
"""Of oneDNN's convolution: scale and zero of the results, their type, and what is done with them."""
EXACT_IN_HALF = 256
"""Up to which bfloat16 holds whole numbers: `torch.set_float32_matmul_precision` may let torch multiply so."""
LEAST_PACKED_CHANNELS = 4
"""oneDNN multiplies so many together, so that of fewer following spikes is faster."""
MOST_SHAPES = 4
"""Of inputs, for which a weight is kept packed: whole batches, and what is left over."""


class PackedConvolution:
    """A convolution's weight for many products.

    Args:
        weight: `[O, C / groups, kernel height, kernel width]`, int8.
        stride, padding, dilation: of rows and columns.
        groups: as torch has them.
    """

    def __init__(
        self,
        weight: Tensor,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> None:
        # dilation of a kernel of 1 says nothing, but on images 1 wide oneDNN ends the process over it
        dilation = [d if extent > 1 else 1 for d, extent in zip(dilation, weight.shape[2:], strict=True)]
        self.weight, self.geometry = weight, (list(stride), list(padding), dilation, groups)
        self.packs = can_pack() and is_narrow(weight)
        self.packed = dict[torch.Size, Tensor]()

    def __getstate__(self) -> dict[str, object]:
        """For copies: what is packed has no storage that could be copied, and is packed anew."""
        return {**self.__dict__, "packed": {}}

    def weigh(self, x: Tensor) -> Tensor:
        """The convolution `[R, height, width, O]`: whole numbers, in floats that hold them.

        Args:
            x: `[R, H, W, C]`, spikes of 0 and 1, int8; or other whole numbers, which take longer, large ones more so.
        """
        if self.packs and x.dtype == torch.int8:
            images = x.view(torch.uint8).permute(0, 3, 1, 2)
            return _weigh(images, self._packed_for(images.shape), *self.geometry)
        largest = int(x.abs().max()) if x.numel() else 0
        exact = torch.float32 if largest <= EXACT_IN_HALF and is_narrow(self.weight, largest) else torch.float64
        with torch.autocast("cpu", enabled=False):
            return self._in_floats(x.to(exact), self.weight.to(exact))

    def _packed_for(self, shape: torch.Size) -> Tensor:
        packed = self.packed.get(shape)
        if packed is None:
            if len(self.packed) >= MOST_SHAPES:
                self.packed.clear()
            packed = self.packed[shape] = _pack(self.weight, shape, *self.geometry)
        return packed

    def _in_floats(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x.permute(0, 3, 1, 2), weight, None, *self.geometry).permute(0, 2, 3, 1).contiguous()


class PackedWeight(PackedConvolution):
    """A weight `[O, I]`, int8, for many products: `weigh` takes `[R, I]` and gives `[R, O]`."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight[:, :, None, None])

    def weigh(self, x: Tensor) -> Tensor:
        """`x @ weight.T`; see `PackedConvolution.weigh`."""
        return super().weigh(x[None, None])[0, 0]

    def _in_floats(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight[:, :, 0, 0].t()


@cache
def has_int8_instruction() -> bool:
    """Whether this CPU adds up products of int8 at once (VNNI); others take twice as long."""
    return bool(getattr(torch.cpu, "_is_vnni_supported", lambda: False)())


def is_narrow(weight: Tensor, largest: int = 1) -> bool:
    """Whether float32 holds all sums of the weights, int8, that reach one output of `[O, ...]`.

    Args:
        weight: `[O, ...]`.
        largest: of the inputs.
    """
    return -WEIGHT_INT_MIN * largest * weight[0].numel() <= EXACT_IN_FLOAT


@cache
def can_pack() -> bool:
    """Whether this torch, on this CPU, multiplies packed weights: tried once, as it promises nobody that it does."""
    weight = torch.tensor([[-128, 127], [3, -1]], dtype=torch.int8)
    spikes = torch.tensor([[1, 1], [0, 1], [1, 0]], dtype=torch.uint8)
    kernel, geometry, images = weight[:, :, None, None], ([1, 1], [0, 0], [1, 1], 1), spikes.t()[None, :, None]
    try:
        product = _weigh(images, _pack(kernel, images.shape, *geometry), *geometry)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product[0, 0].long(), spikes.long() @ weight.long().t())


def _pack(weight: Tensor, shape: torch.Size, *geometry: object) -> Tensor:
    """For an input `[R, C, H, W]`."""
    packed: Tensor = torch.ops.onednn.qconv_prepack(weight, UNIT[0], 1.0, 0, *geometry, list(shape))
    return packed


def _weigh(images: Tensor, packed: Tensor, *geometry: object) -> Tensor:
    """`[R, height, width, O]` of uint8 `[R, C, H, W]`, channels last; float32, exact for a weight that `is_narrow`."""
    product: Tensor = torch.ops.onednn.qconv2d_pointwise(images, 1.0, 0, packed, *UNIT, None, *geometry, *REST)
    return product.permute(0, 2, 3, 1).contiguous()
