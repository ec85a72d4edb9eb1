"""Calibration: from spiking layers to a network, with weights, thresholds and scales measured on images.

Inputs are an ANN, its spiking layers and some hundreds of images; the result is a `Model`, and a `Calibration` for each
layer of neurons. Layers are taken in order, each on the spikes that the layers before it really send: its weights are
refitted to them (`refit`) and scaled onto the hardware's grid (`grid_fit`), then it gets the smallest threshold whose
rates come close to the ANN's activations, and perhaps a bias that rounds them. With few time steps, rates are coarse
and saturate; as real spikes are measured, each layer makes up for part of the error of the layers before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.fixed_point import MANT, STATE, STATE_MAX, WEIGHT_STEP
from bootstrap_core.functional.convolution import bordered, padded
from bootstrap_core.functional.quantize import quantize_bias, quantize_weight
from bootstrap_core.network.build import build_network
from bootstrap_core.ops.neurons import NeuronConstants, fire
from bootstrap_core.ops.spike_counts import count
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import weigh
from converters.ann_to_snn.refit import Reading, refit
from converters.ann_to_snn.spiking_layers import SpikingLayer, SpikingSkip
from converters.linear.ann import Ann, run_ann
from converters.linear.grid_fit import fit_to_grid
from converters.linear.image_normalization import AS_THEY_ARE, Normalization
from converters.linear.linear_fold import Conv, Dense, scale_inputs, scale_outputs
from converters.model import Model
from specs.errors import UnsupportedError
from specs.fields import initial_voltage, threshold_mant
from specs.io import name_from, spec_from_document
from specs.layers.block import ConvSpec
from specs.layers.input import Encoding
from specs.layers.neuron import Reset
from specs.words import counted

DECAYS = torch.ones(1, device="cpu"), torch.zeros(1, device="cpu")
"""Current and voltage decay of converted neurons: the current is that of the step, the voltage does not leak."""

PARTS = tuple(torch.linspace(0.05, 1.0, 24).tolist())
"""Thresholds to try for a layer, ascending, relative to its largest activation."""
OFFSETS = (0.0, 0.5)
"""Voltages to try for the bias to add over all steps, relative to the threshold.

With half a threshold, rates are rounded to the nearest number of spikes; without it, to the one below.
"""
SLACK = 0.05
"""Tolerance of the error, relative to the least: the smallest threshold within it is chosen.

Neurons with a lower threshold fire sooner. With few time steps, every layer loses some before its first spikes.
"""
HIGH, MOST_GAIN = 0.999, 8.0
"""Quantile of the activations that is made equal for all channels of a layer, and the largest factor on weights."""
N_SAMPLED = 1 << 14
"""Largest number of activations on which thresholds are tried, drawn from all neurons and images."""
TAU_GRAD = 0.005
"""Width of the surrogate gradient, which makes it half a threshold. Much wider or narrower ones train worse."""
STATE_FLOATS, MARGIN = (STATE_MAX + 1) / STATE, 0.35
"""Largest voltage of the hardware in float units, and the part that calibration may use; the rest is for tuning."""


@dataclass(frozen=True)
class InputForm:
    """Form of the input: spikes of input neurons, or pixels as integers of `bits` bits sent to the first synapse."""

    encoding: Encoding
    bits: int = 8

    def __str__(self) -> str:
        return f"graded, {counted(self.bits, 'bit')}" if self.encoding is Encoding.GRADED else "spikes"

    @property
    def levels(self) -> int:
        """Largest value of the input: 1 for spikes."""
        return 2**self.bits - 1 if self.encoding is Encoding.GRADED else 1


@dataclass(frozen=True)
class Calibration:
    """Calibration of one layer of neurons.

    Attributes:
        block: index of the block in the network.
        target: node of the ANN whose activations the rates stand for.
        scale: `[C]`, activation that a rate of 1 stands for, for each channel.
        threshold: threshold in units of an input of 1.
        error: root mean square of the difference between rates and activations, relative to that of the activations;
            channels are brought to one size first.
        saturated: part of the activations that are above the scale, 0..1.
        offset: voltage that the bias adds over all steps so that rates are rounded and not truncated, relative to the
            threshold.
        shrink: factor on the weights, at most 1, so that voltages stay in the hardware's range.
    """

    block: int
    target: str
    scale: Tensor
    threshold: float
    error: float
    saturated: float
    offset: float = 0.0
    shrink: float = 1.0


class _Synapses(NamedTuple):
    """Synapses of a layer that is being calibrated.

    Attributes:
        linear: weights and bias, for inputs in units of the ANN.
        spikes: the input.
        scale: `[C]`, activation that an input of 1 stands for, for each channel.
        document: spec of a skip; empty for the layer's own synapses.
    """

    linear: Dense | Conv
    spikes: Spikes
    scale: Tensor
    document: Mapping[str, Any] = MappingProxyType({})

    @property
    def is_identity(self) -> bool:
        return self.document.get("kind") == "identity"

    @property
    def weight(self) -> Tensor:
        """Weight for spikes: the weight for activations, times their scale."""
        return scale_inputs(self.linear, self.scale).weight

    @property
    def means(self) -> Tensor:
        """Activations that the spikes stand for, `[N, ...]`."""
        mean = count(self.spikes).double() / self.spikes.steps
        return mean * _over_places(self.scale.repeat_interleave(mean.shape[1] // len(self.scale)), mean)


def calibrate(
    ann: Ann,
    layers: Sequence[SpikingLayer],
    images: Tensor,
    *,
    name: str,
    time_steps: int,
    input_form: InputForm,
    normalization: Normalization = AS_THEY_ARE,
    balanced: bool = True,
    reset: Reset = Reset.ZERO,
    start: float = 0.0,
) -> tuple[Model, list[Calibration]]:
    """Make a spiking network of the layers; return it with the calibrations of its layers of neurons, in order.

    Args:
        ann: ANN that the layers were made from.
        layers: spiking layers, the readout last.
        images: `[N, *shape]` in 0..1, some hundreds.
        name: name of the network.
        time_steps: T.
        input_form: form of the input.
        normalization: normalization of the images that the ANN takes; folded into the first layer.
        balanced: True to raise channels that are weakly active on these images; False if the images are noise.
        reset: reset of the voltage after a spike.
        start: voltage before the first step, relative to the threshold; if it is not 0, no bias rounds the rates.

    Raises:
        UnsupportedError: a layer does not fit the hardware's ranges or this form of input, or is active for no image.
    """
    calibrator = _Calibrator(ann, images, time_steps, input_form, normalization, balanced, reset, start)
    return calibrator.network(layers, name)


def shrink_for(reach: float) -> float:
    """Return the factor on weights, at most 1, with which the hardware can hold a voltage that now reaches `reach`."""
    return min(1.0, STATE_FLOATS * MARGIN / max(reach, 1e-9))


class _Calibrator:
    """Images, and outputs of the ANN on them, with the steps of a calibration."""

    def __init__(
        self,
        ann: Ann,
        images: Tensor,
        time_steps: int,
        form: InputForm,
        normalization: Normalization,
        balanced: bool,
        reset: Reset,
        start: float,
    ) -> None:
        self.images, self.time_steps, self.form = images, time_steps, form
        self.balanced, self.reset = balanced, reset
        self.start, self.offsets = start, (0.0,) if start else OFFSETS
        # this height makes the gradient of a rate 1 / threshold, as for a neuron that loses none of its input
        self.surrogate = {"tau_grad": TAU_GRAD, "scale_grad": 4000 * TAU_GRAD / (time_steps + 1)}
        self.normalization = ann.normalization.after(normalization)
        self.generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            _, self.outputs = run_ann(ann, normalization(images), keep=True)

    @torch.no_grad()
    def network(self, layers: Sequence[SpikingLayer], name: str) -> tuple[Model, list[Calibration]]:
        """Calibrate all layers; see `calibrate`."""
        document: dict[str, Any] = {
            "name": name_from(name),
            "time_steps": self.time_steps,
            "neuron": self._neuron(1.0),
            "input": {"shape": list(layers[0].before), "encoding": self.form.encoding.value},
            "blocks": [],
        }
        if border := self._border(layers):
            first = layers[0].linear
            assert isinstance(first, Conv)
            document["input"] |= {"padding": list(first.padding), "border": border}
            layers = [replace(layers[0], linear=replace(first, padding=(0, 0))), *layers[1:]]
        if self.form.encoding is Encoding.GRADED:
            _check_readers_of_image(layers)
        spikes, scale, found = self._enter(document["input"], layers[0])
        tensors: dict[str, Tensor] = {}
        last_reader = {source: i for i, layer in enumerate(layers) for source in layer.sources}
        kept: dict[int, tuple[int, Spikes, Tensor]] = {}  # layer -> its block, spikes and scale, up to its last reader
        for i, layer in enumerate(layers):
            kept[i] = len(document["blocks"]), spikes, scale
            block, spikes, scale = kept[layer.source]
            skips = [self._skip(layer, skip, *kept[skip.source]) for skip in layer.skips]
            kept = {source: output for source, output in kept.items() if last_reader.get(source, 0) > i}
            is_graded = layer.source == 0 and self.form.encoding is Encoding.GRADED
            linear = layer.linear if layer.source else self._normalized(layer.linear, layer.before[0])
            entry = {} if block == len(document["blocks"]) else {"source": block}
            if layer.flattens:
                if is_graded:
                    document["input"]["shape"] = [prod(layer.before)]
                else:
                    document["blocks"].append({"kind": "flatten", **entry})
                    entry = {}
                spikes = spikes.flatten()
            if layer.is_any:
                made, spikes = self._any(layer, spikes)
            else:
                index = len(document["blocks"]) + 1
                synapses = [_Synapses(linear, spikes, scale), *skips]
                levels = self.form.levels if layer.source == 0 else 1
                made, weights, spikes, scale = self._calibrated(layer, synapses, levels, index, found)
                tensors |= {f"blocks.{index}.{key}": value.float() for key, value in weights.items()}
            document["blocks"].append(made | entry)
        spec = spec_from_document(document, origin=name)
        state = build_network(spec, seed=0).state_dict()
        return Model(spec, state | tensors), found

    def _border(self, layers: Sequence[SpikingLayer]) -> list[float]:
        """Return the pixel of each channel with which the ANN pads its images; empty if they are to be black.

        An ANN pads normalised images with zeros, which are pixels of the mean. A skip from the image has no padding.
        """
        first = layers[0].linear
        if not isinstance(first, Conv) or not any(first.padding) or not any(self.normalization.mean):
            return []
        mean, _ = self.normalization.each(layers[0].before[0])
        reads_image = any(0 in layer.sources for layer in layers[1:])
        return [] if reads_image or mean.min() < 0 or mean.max() > 1 else mean.tolist()

    def _enter(self, entering: dict[str, Any], first: SpikingLayer) -> tuple[Spikes, Tensor, list[Calibration]]:
        """Return the input of the first synapse, its scale in pixels of 0..1, and its calibration.

        Only input neurons have a calibration. The form of the input is added to `entering`, the spec of the input.
        """
        pixels = self.images.reshape(len(self.images), *first.before)
        pixels = bordered(pixels, entering.get("padding", ()), entering.get("border", ()))
        if self.form.encoding is Encoding.GRADED:
            entering["bits"] = self.form.bits
            levels = torch.round(pixels.double() * self.form.levels)
            return Spikes.of(levels.expand(self.time_steps, *levels.shape)), torch.ones(pixels.shape[1]).double(), []
        current = torch.trunc(pixels.double() * MANT) / MANT
        z = current.float().expand(self.time_steps, *current.shape)
        chosen = self._choose(z, None, pixels, 1.0, 1, block=0, target="input")
        entering["neuron"] = self._neuron(chosen.threshold)
        return self._fire(z, None, threshold_mant(chosen.threshold)), chosen.scale, [chosen]

    def _skip(self, layer: SpikingLayer, skip: SpikingSkip, block: int, spikes: Spikes, scale: Tensor) -> _Synapses:
        """Return the synapses of a skip from `block`, whose output is `spikes`."""
        linear = skip.linear
        if skip.source == 0:
            linear = self._normalized(linear, skip.before[0])
        return _Synapses(linear, spikes, scale, skip.document(block))

    def _normalized(self, linear: Dense | Conv, channels: int) -> Dense | Conv:
        """Return a layer for pixels in 0..1, given one for normalised pixels; exact except near padding."""
        mean, std = self.normalization.each(channels)
        scaled = scale_inputs(linear, 1 / std)
        return replace(scaled, bias=scaled.bias - scale_inputs(scaled, mean).weight.flatten(1).sum(1))

    def _calibrated(
        self,
        layer: SpikingLayer,
        synapses: Sequence[_Synapses],
        levels: int,
        index: int,
        found: list[Calibration],
    ) -> tuple[dict[str, Any], dict[str, Tensor], Spikes, Tensor]:
        """Calibrate a layer; return its block, tensors, spikes and scale. Its own synapses come first, then skips.

        The readout's spikes are never used: they are its weighted input.
        """
        if levels == 1:  # graded pixels have no error to make up for
            synapses = self._refitted(layer, synapses)
        wanted, gains = layer.wanted(self.outputs[layer.target]), None
        if layer.activation is not None:
            if not wanted.any():
                raise UnsupportedError(
                    f"node {layer.target}: none of its units is active for any image; check that these are images that "
                    "the ANN takes, with its normalization"
                )
            gains = self._gains(wanted)
            synapses = [each._replace(linear=scale_outputs(each.linear, gains)) for each in synapses]
            wanted = wanted * _over_places(gains, wanted)
        linear, scale = synapses[0].linear, synapses[0].scale
        largest = None if layer.activation is None else float(wanted.max().clamp_min(1e-6))
        fit = fit_to_grid(
            torch.cat([each.weight.flatten() for each in synapses]),
            sum((each.linear.bias for each in synapses[1:]), linear.bias),
            largest,
            levels=levels,
        )
        block = layer.document([each.document for each in synapses[1:]])
        assert fit.bias is not None

        def driven(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            """Return weighted input and bias after quantisation, in units of the input's levels."""
            return _weighted_input(synapses, quantize_weight(weight.float())), quantize_bias(bias.float() * levels)

        z, quantized = driven(fit.weight, fit.bias)
        shrink = shrink_for(self._reach(z, quantized))
        weight, bias, factor = fit.weight * shrink, fit.bias * shrink, fit.factor * shrink
        if shrink < 1:
            z, quantized = driven(weight, bias)
        tensors = _named(synapses, weight)
        if gains is None:
            return block, {"bias": bias, **tensors}, Spikes.of(z), scale
        z = z.expand(self.time_steps, *z.shape[1:])
        chosen = self._choose(z, quantized, wanted, factor, levels, block=index, target=layer.target)
        chosen = replace(chosen, scale=chosen.scale / gains, shrink=shrink)
        found.append(chosen)
        block["neuron"] = self._neuron(chosen.threshold)
        mant = threshold_mant(chosen.threshold, levels)
        raised = bias + chosen.offset * chosen.threshold / self.time_steps
        spikes = self._fire(z, quantize_bias(raised.float() * levels), mant)
        return block, {"bias": raised, **tensors}, spikes, chosen.scale

    def _neuron(self, threshold: float) -> dict[str, Any]:
        """Return the spec of a layer's neurons."""
        return {
            "threshold": threshold, "current_decay": float(DECAYS[0]), "voltage_decay": float(DECAYS[1]),
            "reset": self.reset.value, "start": self.start, **self.surrogate,
        }  # fmt: skip

    def _fire(self, z: Tensor, bias: Tensor | None, mant: int) -> Spikes:
        """Return the spikes of neurons with threshold `mant / 64`; `z` is `[T, N, C, ...]`."""
        constants = NeuronConstants(
            *DECAYS,
            mant / MANT,
            subtract=self.reset is Reset.SUBTRACT,
            bias=bias,
            initial_voltage=initial_voltage(self.start, mant) / STATE,
        )
        return fire(z, constants, len(z))

    def _refitted(self, layer: SpikingLayer, synapses: Sequence[_Synapses]) -> list[_Synapses]:
        """Return the synapses with weights refitted to make up for the error of the layers before."""
        neurons = layer.activation is not None
        wanted = layer.weighed(self.outputs[layer.weighted].double())
        readings = [Reading(each.linear, each.means, each.is_identity) for each in synapses]
        maps = refit(readings, wanted, rectified=neurons, generator=self.generator)
        return [each._replace(linear=linear) for each, linear in zip(synapses, maps, strict=True)]

    def _gains(self, wanted: Tensor) -> Tensor:
        """Return a factor for the weights of each channel, `[C]`, that makes one threshold right for all channels.

        Silent channels get the largest factor, which makes the weights that read them small: the images say nothing
        about these weights, so they should not decide how the next layer is scaled onto its grid.
        """
        if not self.balanced:
            return torch.ones(wanted.shape[1]).double()
        of_channel = wanted.transpose(0, 1).flatten(1).double()  # [C, N * P]
        high = of_channel.kthvalue(max(1, int(HIGH * of_channel.shape[1])), dim=1).values
        return (high.max() / high.clamp_min(1e-12)).clamp(1.0, MOST_GAIN)

    def _reach(self, z: Tensor, bias: Tensor) -> float:
        """Return the largest magnitude of a voltage: of an inhibited neuron after T steps, of others after one step."""
        total = self.time_steps * (z.mean(0) + _over_places(bias, z[0]))
        low, high = z.aminmax()
        return max(float(-total.min()), float(-low), float(high))

    def _choose(
        self, z: Tensor, bias: Tensor | None, wanted: Tensor, factor: float, levels: int, *, block: int, target: str
    ) -> Calibration:
        """Choose the smallest threshold, and its scale, whose rates come close to `wanted` on a sample.

        Args:
            z: weighted input, `[T, N, C, ...]`, in units of the input's levels.
            bias: `[C]`, in the same units, or None.
            wanted: activations, `[N, C, ...]`, in units of the ANN.
            factor: weighted input that stands for an activation of 1, in units of an input of 1.
            levels: largest value of the input.
            block, target: see `Calibration`.
        """
        n = wanted.numel()
        picked = torch.randint(n, (min(n, N_SAMPLED),), generator=self.generator)
        sampled, goal = z.flatten(1)[:, picked], wanted.flatten()[picked].double()
        if bias is not None:
            sampled = sampled + _over_places(bias, wanted).expand(wanted.shape).flatten()[picked]
        largest = float(goal.max()) * factor
        tried = list[Calibration]()
        offsets = self.offsets if bias is not None else (0.0,)
        for part, offset in product(PARTS, offsets):
            mant = max(int(MANT * part * largest * levels), levels)
            raised = sampled + round(offset * mant / self.time_steps) / MANT
            rates = count(self._fire(raised[:, None], None, mant))[0].double() / self.time_steps
            scale = goal @ rates / (rates @ rates).clamp_min(1e-12)
            error = float((goal - scale * rates).square().mean().sqrt() / goal.square().mean().sqrt().clamp_min(1e-12))
            threshold = (mant + (0.5 if levels > 1 else 0)) / MANT / levels
            saturated = float((goal > scale).double().mean())
            tried.append(Calibration(block, target, scale.expand(wanted.shape[1]), threshold, error, saturated, offset))
        enough = (1 + SLACK) * min(calibration.error for calibration in tried)
        return next(calibration for calibration in tried if calibration.error <= enough)

    def _any(self, layer: SpikingLayer, spikes: Spikes) -> tuple[dict[str, Any], Spikes]:
        """Return the block of an `any` pool, and its spikes."""
        linear = layer.linear
        assert isinstance(linear, Conv)
        one = 1 + WEIGHT_STEP  # neurons spike above their threshold, not at it
        block = {
            "kind": "avg_pool", "kernel": list(linear.kernel), "stride": list(linear.stride),
            "padding": list(linear.padding), "gain": one * prod(linear.kernel),
            "neuron": {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 1.0, **self.surrogate},
        }  # fmt: skip
        fired = F.max_pool2d(padded(spikes.tensor().flatten(0, 1), linear.padding), linear.kernel, linear.stride)
        return block, Spikes.of(fired.reshape(*spikes.shape[:2], *fired.shape[1:])).packed()


def _check_readers_of_image(layers: Sequence[SpikingLayer]) -> None:
    """Raise `UnsupportedError` if not all layers that read the image can read it as graded pixels."""
    for layer in (layer for layer in layers if 0 in layer.sources):
        if layer.skips:
            raise UnsupportedError(
                f"node {layer.target} adds the image to spikes: needs spikes as input, as graded pixels have other "
                "units"
            )
        if layer.flattens != layers[0].flattens:
            raise UnsupportedError(
                f"nodes {layers[0].target} and {layer.target} read the image, one of them flattened: needs spikes as "
                "input"
            )


def _weights(synapses: Sequence[_Synapses], weight: Tensor) -> list[Tensor]:
    """Split a flat weight into the weights of all synapses, each in its shape."""
    shapes = [each.linear.weight.shape for each in synapses]
    parts = weight.split([shape.numel() for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _named(synapses: Sequence[_Synapses], weight: Tensor) -> dict[str, Tensor]:
    """Return the weights under their names in the block, given a flat weight."""
    own, *others = _weights(synapses, weight)
    tensors = {"synapse.weight": own}
    for k, (skip, each) in enumerate(zip(synapses[1:], others, strict=True)):
        tensors[f"skips.{k}.weight"] = _diagonal(each) if skip.is_identity else each
    return tensors


def _diagonal(weight: Tensor) -> Tensor:
    """Return the weights of an identity skip, `[C]`, from those of its dense layer or depthwise convolution."""
    return weight.diagonal() if weight.dim() == 2 else weight.flatten()


def _over_places(factors: Tensor, x: Tensor) -> Tensor:
    """Reshape factors `[C]` to be multiplied with `x`, `[N, C, ...]`."""
    return factors.reshape(-1, *[1] * (x.dim() - 2))


def _weighted_input(synapses: Sequence[_Synapses], weight: Tensor) -> Tensor:
    """Return the weighted input of each step, `[T or 1, N, ...]`, of all synapses together; `weight` is flat."""
    each_weight = zip(synapses, _weights(synapses, weight), strict=True)
    first, *others = (weigh(each.spikes, Connection(part, _as_spec(each.linear))) for each, part in each_weight)
    return sum(others, first)


def _as_spec(linear: Dense | Conv) -> ConvSpec | None:
    """Return the geometry of a convolution; None for a dense map."""
    if isinstance(linear, Dense):
        return None
    return ConvSpec(channels=len(linear.weight), groups=linear.groups, **linear.geometry)
