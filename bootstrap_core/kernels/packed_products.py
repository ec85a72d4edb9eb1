"""Products of spikes with weights that oneDNN keeps in the order in which the CPU multiplies."""

from functools import cache

import torch
from torch import Tensor

from specs.block import ConvSpec

__all__ = ["PackedConvolution", "PackedWeight", "can_pack"]

REST: tuple[object, ...] = 1.0, 0, torch.float32, "none", [], ""
"""Of both operators: scale and zero of the results, their type, and what is done with them."""


class PackedWeight:
    """A weight `[O, I]`, int8, for many products; where this torch cannot pack, as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = _pack(weight) if can_pack() else weight.t()
        self.outputs = len(weight)

    def weigh(self, spikes: Tensor) -> Tensor:
        """`spikes @ weight.T`, whole numbers of any type, of 0 and 1, int8 `[R, I]`."""
        if can_pack():
            return _weigh(spikes, self.packed, self.outputs)
        return torch._int_mm(spikes, self.packed)


class PackedConvolution:
    """A weight `[O, I / groups, kernel height, kernel width]`, int8, for many convolutions; where torch `can_pack`."""

    def __init__(self, weight: Tensor, spec: ConvSpec) -> None:
        self.geometry = list(spec.stride), list(spec.padding), list(spec.dilation), spec.groups
        self.packed = _pack_convolution(weight, *self.geometry)
        self.outputs = len(weight)

    def weigh(self, spikes: Tensor) -> Tensor:
        """The convolution `[R, height, width, O]`, whole numbers, of 0 and 1, int8 `[R, height, width, I]`."""
        return _convolve(spikes, self.packed, self.outputs, *self.geometry)


@cache
def can_pack() -> bool:
    """Whether this torch, on this CPU, multiplies by packed weights: tried once, as it promises nobody that it does."""
    weight = torch.tensor([[-128, 127], [3, -1]], dtype=torch.int8)
    spikes = torch.tensor([[1, 1], [0, 1], [1, 0]], dtype=torch.int8)
    geometry = [1, 1], [0, 0], [1, 1], 1
    try:
        products = (
            _weigh(spikes, _pack(weight), 2),
            _convolve(spikes[:, None, None], _pack_convolution(weight[:, :, None, None], *geometry), 2, *geometry),
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    return all(torch.equal(product.long().flatten(1), spikes.long() @ weight.long().t()) for product in products)


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
    return packed


def _weigh(spikes: Tensor, packed: Tensor, outputs: int) -> Tensor:
    """Float32: exact, as sums are of fewer than 2**17 weights."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        spikes.view(torch.uint8), 1.0, 0, packed, *_units(outputs), None, *REST
    )
    return product


def _pack_convolution(weight: Tensor, *geometry: object) -> Tensor:
    packed: Tensor = torch.ops.onednn.qconv_prepack(weight, torch.ones(len(weight)), 1.0, 0, *geometry)
    return packed


def _convolve(spikes: Tensor, packed: Tensor, outputs: int, *geometry: object) -> Tensor:
    """Float32: exact, as sums are of fewer than 2**17 weights."""
    images = spikes.view(torch.uint8).permute(0, 3, 1, 2)
    product: Tensor = torch.ops.onednn.qconv2d_pointwise(
        images, 1.0, 0, packed, *_units(outputs), None, *geometry, *REST
    )
    return product.permute(0, 2, 3, 1).contiguous()


def _units(outputs: int) -> tuple[Tensor, Tensor]:
    """Scales and zeros of weights that are the integers they are."""
    return torch.ones(outputs), torch.zeros(outputs, dtype=torch.int64)
