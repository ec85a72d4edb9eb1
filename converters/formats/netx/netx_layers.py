"""A network as netx files hold it: layers, in the integers of the hardware."""

from dataclasses import dataclass

import numpy as np

from bootstrap_core.fixed_point import DECAY_ONE, READOUT_THRESHOLD_MANT
from converters.formats.hdf5_node import IntArray
from converters.formats.refusals import problems_by_place
from specs.block import ConvSpec
from specs.fields import Shape

__all__ = ["CUBA_NAMES", "INTEGRATOR", "ConvGeometry", "NetxFile", "NetxLayer", "NetxNeuron"]

CUBA_NAMES = ("CUBA", "LOIHI")
"""What files call CUBA neurons: the newer name, which is written, and the older."""


@dataclass(frozen=True)
class NetxNeuron:
    """Neurons of a layer: threshold in units of 1/64; decays `[1]` or `[C]`, one a channel, in units of 1/4096."""

    threshold_mant: int
    current_decay: IntArray
    voltage_decay: IntArray
    kind: str = CUBA_NAMES[0]


INTEGRATOR = NetxNeuron(READOUT_THRESHOLD_MANT, np.array([0]), np.array([DECAY_ONE]))
"""What netx makes of a dense layer without neurons."""


@dataclass(frozen=True)
class ConvGeometry:
    """Of a convolution, each pair `(height, width)`."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, spec: ConvSpec) -> "ConvGeometry":
        """That of a conv block."""
        return cls(spec.kernel, spec.stride, spec.padding, spec.dilation, spec.groups)


@dataclass(frozen=True)
class NetxLayer:
    """One layer.

    Attributes:
        kind: `input`, `flatten`, `dense`, `conv`, or whatever else the file says.
        shape: of the output, as the file gives it.
        weight: dense `[out, in]`, conv `[out, in / groups, kernel height, kernel width]`, input `[1]`; units of 1/64.
        bias: `[out]`, input `[1]`; units of 1/64.
        neuron: None if the file gives none.
        geometry: of a conv.
        problems: what of this layer no network of CUBA blocks can be.
    """

    kind: str
    shape: Shape
    weight: IntArray | None = None
    bias: IntArray | None = None
    neuron: NetxNeuron | None = None
    geometry: ConvGeometry | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetxFile:
    """A whole file. `time_steps` is None where it does not say, `spec` (JSON) where snnzoo did not write it."""

    layers: tuple[NetxLayer, ...]
    time_steps: int | None
    spec: str | None

    @property
    def synaptic(self) -> list[NetxLayer]:
        """The layers with synapses."""
        return [layer for layer in self.layers if layer.kind in {"dense", "conv"}]

    @property
    def problems(self) -> list[str]:
        """What stands in the way of a network of CUBA blocks, each with its layers."""
        return problems_by_place("layer", (layer.problems for layer in self.layers))
