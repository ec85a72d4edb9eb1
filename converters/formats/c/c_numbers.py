"""Integers of a network in the order of its C source, and the answers for its self-test."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.fixed_point import MANT, STATE, STATE_PER_WEIGHT, WEIGHT_STEP
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.base_block import SynapticBlock
from bootstrap_core.network.blocks import GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.neurons import NeuronConstants
from converters.formats.c.c_plan import GREY_LEVELS, Plan, Population, Synapses
from specs.errors import StateOverflowError
from specs.shapes import pads_of

__all__ = [
    "Array",
    "LayerRecord",
    "Picture",
    "border_values",
    "conv_numbers",
    "input_table",
    "integer_logits",
    "layer_record",
    "pictures_of",
    "readout_bias",
    "tensor_problems",
    "weights_of",
]

Ints = npt.NDArray[np.int64]

PICTURES, PICTURE_BYTES = 4, 1 << 16
"""Number of pictures of the self-test, and the bytes that several of them may take together."""


@dataclass(frozen=True)
class Array:
    """Constant array of the source: its name and type in C, its numbers, and a comment."""

    name: str
    type: str
    values: list[int]
    note: str = ""
    is_weights: bool = False


@dataclass(frozen=True)
class LayerRecord:
    """Record of a layer's neurons in C, with the arrays that it points to."""

    name: str
    size: int
    channels: int
    threshold: int
    unit: int
    subtracts: int
    own_decays: int
    arrays: dict[str, Array | None]

    @property
    def pointers(self) -> list[str]:
        """Names of the arrays of decays and of the bias; NULL for one that is not needed."""
        return [array.name if array else "NULL" for array in self.arrays.values()]


def input_table(network: Network) -> list[int]:
    """Return what each value of a pixel, 0 to 255, becomes: a graded integer, or a current in units of 1/4096."""
    return _entering(network, torch.arange(GREY_LEVELS, dtype=torch.float32) / (GREY_LEVELS - 1))


def border_values(network: Network) -> list[int]:
    """Return what the pixels of the padding become in each channel, in the units of `input_table`."""
    entering = network.spec.input
    return _entering(network, torch.tensor(entering.border).expand(entering.shape[0]))


def _entering(network: Network, pixels: Tensor) -> list[int]:
    block = network.block(0)
    if isinstance(block, GradedInputBlock):
        found = block(pixels, Mode.ANN, 1)
        assert isinstance(found, Tensor)
        return _ints(found)
    assert isinstance(block, InputBlock)
    return _ints(block.current(pixels[:, None]).double() * STATE)


def layer_record(network: Network, each: Population) -> LayerRecord:
    """Return the constants of a population of neurons."""
    constants = _constants(network, each)
    keep_current, keep_voltage = constants.keeps
    found = {
        "keep_current": ("uint16_t", keep_current if each.has_current else None),
        "keep_voltage": ("uint16_t", keep_voltage),
        "bias": ("int16_t", None if constants.bias is None else constants.bias * MANT),
    }
    arrays = {
        field: None if x is None else Array(f"{each.name}_{field}", kind, _ints(x))
        for field, (kind, x) in found.items()
    }
    return LayerRecord(
        name=f"{each.name}_layer",
        size=each.size,
        channels=each.channels,
        threshold=round(constants.threshold * STATE),
        unit=STATE_PER_WEIGHT if each.index else 1,
        subtracts=int(constants.subtract),
        own_decays=int(len(constants.voltage_decay) > 1),
        arrays=arrays,
    )


def _constants(network: Network, each: Population) -> NeuronConstants:
    block = network.block(each.index)
    assert isinstance(block, InputBlock | SpikingBlock)
    return block.constants()


def readout_bias(network: Network) -> Array | None:
    """Return the bias of an affine readout, or None if it has none."""
    block = network.readout
    assert isinstance(block, SynapticBlock)
    bias = block.quantized_bias()
    return None if bias is None else Array("readout_bias", "int16_t", _ints(bias * MANT))


def weights_of(synapses: Synapses, weight: Tensor) -> Array:
    """Return the weights of synapses, in steps of 2/64, in the order in which the source reads them.

    Dense: a row of outputs for each input, in the order of the source population. Convolution: `[input channel, kernel
    height, kernel width, output channels of the group]`. Identity: one for each channel.
    """
    steps: Ints = np.array(_ints(weight / WEIGHT_STEP)).reshape(weight.shape)
    source, spec = synapses.source, synapses.convolution
    if synapses.identity:
        note = "weight of each channel"
    elif spec is None:
        maps = steps.reshape(-1, source.channels, source.height, source.width)
        steps, note = maps.transpose(2, 3, 1, 0), f"{source.size} inputs x {len(maps)} outputs"
    else:
        grouped = steps.reshape(spec.groups, -1, *steps.shape[1:])  # [groups, outputs, inputs, height, width]
        steps = grouped.transpose(0, 2, 3, 4, 1)
        note = f"{source.channels} channels x {spec.kernel[0]}x{spec.kernel[1]} x {grouped.shape[1]} outputs"
    return Array(synapses.name, "int8_t", steps.reshape(-1).tolist(), f"{note}, in 2/64", is_weights=True)


def conv_numbers(synapses: Synapses, outputs: Population) -> list[int]:
    """Return the numbers of the record `conv_shape` of the source."""
    source, spec = synapses.source, synapses.convolution
    assert spec is not None
    top, left, *_ = pads_of(spec.padding)
    sizes = (source.channels, source.height, source.width, outputs.channels, outputs.height, outputs.width)
    return [*sizes, *spec.kernel, *spec.stride, top, left, *spec.dilation, spec.groups]


def tensor_problems(network: Network, plan: Plan) -> Iterator[str]:
    """Yield the blocks whose current the plan does not store, but that have one; then those with too large sums.

    Those are weighted inputs, or logits, that could leave 32 bits for some image.
    """
    for each in plan.spiking:
        decay = _constants(network, each).current_decay
        if not each.has_current and (found := float(decay.min())) != 1:
            yield f"block {each.index}: a current decay in the tensors, {found:g}, other than in the spec"
    for stage in plan.stages:
        i = stage.outputs.index
        weights = [weight.double().abs() / WEIGHT_STEP for _, weight in network.block(i).synapses()]
        of_channels = torch.stack([weight.reshape(len(weight), -1).sum(1) for weight in weights]).sum(0)
        most = int(of_channels.max()) * (plan.spec.input.levels if i == 1 else 1)
        if stage.is_affine:
            most = plan.spec.time_steps * (2 * most + (1 << 12))
        if most >= 1 << 31:
            yield f"block {i}: sums of up to {most:,}, which leave 32 bits (use fewer bits or time steps)"


@dataclass(frozen=True)
class Picture:
    """Picture of the self-test: its pixels, and the logits that the source must give."""

    pixels: list[int]
    logits: list[int]


def pictures_of(exact: IntegerNetwork, plan: Plan, images: Tensor | None) -> list[Picture]:
    """Return the pictures of the self-test: the first of `images`, or noise if they are None or do not fit.

    Those on which a state leaves 24 bits are left out; if none is left, a black one is taken.

    Raises:
        StateOverflowError: a state leaves 24 bits even then.
    """
    size = plan.n_pixels
    n = max(1, min(PICTURES, PICTURE_BYTES // size))
    if images is None or images[0].numel() != size:
        noise = torch.randint(256, (n, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        images = noise >> torch.arange(n, dtype=torch.uint8)[:, None]  # each half as bright as the one before
    shape = (-1, 1, *plan.spec.input.shape)
    found = []
    for pixels in images[:n].reshape(shape):
        with suppress(StateOverflowError):
            found.append(_picture(exact, plan, pixels))
    return found or [_picture(exact, plan, torch.zeros(shape[1:], dtype=torch.uint8))]


def _picture(exact: IntegerNetwork, plan: Plan, pixels: Tensor) -> Picture:
    logits = integer_logits(exact, pixels, plan)
    return Picture(pixels.flatten().tolist(), logits.flatten().tolist())


def integer_logits(exact: IntegerNetwork, images: Tensor, plan: Plan) -> Tensor:
    """Return the logits of images as the source computes them, int64 `[N, classes]`, in units of 1/`logit_unit`.

    Raises:
        StateOverflowError: a state leaves the hardware's 24 bits.
    """
    _, trace = exact.run(images)
    outputs = trace.spikes[-1]
    assert outputs is not None
    of_step = plan.logit_unit // plan.spec.time_steps
    return (outputs.double() * of_step).round().long().sum(0).flatten(1)  # [T, N, ...] -> [N, classes]


def _ints(x: Tensor) -> list[int]:
    return x.double().round().long().flatten().tolist()  # type: ignore[no-any-return]
