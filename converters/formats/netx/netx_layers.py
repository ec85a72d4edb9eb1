"""Layers of a netx file, in the integers of the hardware."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bootstrap_core.fixed_point import DECAY_ONE, READOUT_THRESHOLD_MANT
from converters.formats.hdf5.hdf5_node import IntArray
from converters.formats.refusals import problems_by_place
from specs.fields import Padding, Shape
from specs.layers.block import ConvSpec

__all__ = [
    "CUBA_NAMES",
    "INTEGRATOR",
    "SIGMA_DELTA_NAME",
    "ConvGeometry",
    "NetxFile",
    "NetxLayer",
    "NetxNeuron",
]

CUBA_NAMES = ("CUBA", "LOIHI")
"""Names of CUBA neurons in files: the current one, which is written, and the old one."""
SIGMA_DELTA_NAME = "SDNN"
"""Name of sigma-delta neurons in files."""


@dataclass(frozen=True)
class NetxNeuron:
    """Neurons of a layer: threshold in units of 1/64; decays `[1]`, or `[C]` per channel, in units of 1/4096.

    Sigma-delta neurons have no decays. Those of a readout have a `sigma_output`: their sigma, without messages.
    """

    threshold_mant: int
    current_decay: IntArray | None = None
    voltage_decay: IntArray | None = None
    kind: str = CUBA_NAMES[0]
    sigma_output: bool = False

    @property
    def is_sigma_delta(self) -> bool:
        """True for sigma-delta neurons."""
        return self.kind == SIGMA_DELTA_NAME


INTEGRATOR = NetxNeuron(READOUT_THRESHOLD_MANT, np.array([0]), np.array([DECAY_ONE]))
"""Neuron that netx gives to a dense layer without neurons."""


@dataclass(frozen=True)
class ConvGeometry:
    """Geometry of a convolution; each pair is `(height, width)`. Padding in a file is a pair."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, spec: ConvSpec) -> "ConvGeometry":
        """Return the geometry of a conv block."""
        return cls(spec.kernel, spec.stride, spec.padding, spec.dilation, spec.groups)


@dataclass(frozen=True)
class NetxLayer:
    """Layer of a netx file.

    Attributes:
        kind: `input`, `flatten`, `dense` (also a recurrent one), `conv`, `average`, or any other type in the file.
        shape: shape of the output, as in the file.
        weight: dense `[out, in]`, conv `[out, in / groups, kernel height, kernel width]`, input `[1]`; units of 1/64.
        bias: `[out]`, input `[1]`; units of 1/64.
        neuron: None if the file has none.
        geometry: geometry of a conv layer, otherwise None.
        problems: features of the layer that our blocks do not have.
        recurrent: weights of a dense layer from its outputs to itself, `[out, out]`; units of 1/64.
        delay: delays of a dense layer in steps, `[out]` or `[out, in]`.
    """

    kind: str
    shape: Shape
    weight: IntArray | None = None
    bias: IntArray | None = None
    neuron: NetxNeuron | None = None
    geometry: ConvGeometry | None = None
    problems: tuple[str, ...] = ()
    recurrent: IntArray | None = None
    delay: IntArray | None = None


@dataclass(frozen=True)
class NetxFile:
    """Content of a netx file. `time_steps` is None if missing; `spec` (JSON) is None if snnzoo did not write it."""

    layers: tuple[NetxLayer, ...]
    time_steps: int | None
    spec: str | None

    @property
    def is_sigma_delta(self) -> bool:
        """True if frames enter by sigma-delta neurons."""
        first = self.layers[0]
        return first.kind == "input" and first.neuron is not None and first.neuron.is_sigma_delta

    @property
    def synaptic(self) -> list[NetxLayer]:
        """Layers with synapses."""
        return [layer for layer in self.layers if layer.kind in {"dense", "conv"}]

    @property
    def problems(self) -> list[str]:
        """Features that our blocks do not have, each with the layers that have it."""
        return problems_by_place("layer", (self._problems(i, layer) for i, layer in enumerate(self.layers)))

    def _problems(self, index: int, layer: NetxLayer) -> Iterator[str]:
        yield from layer.problems
        if layer.neuron is not None and layer.neuron.is_sigma_delta and not self.is_sigma_delta:
            yield "sigma-delta neurons behind another input"
        if (
            self.is_sigma_delta
            and layer.kind != "flatten"
            and not (layer.neuron is not None and layer.neuron.is_sigma_delta)
        ):
            yield "other neurons in a network of sigma-delta neurons"
