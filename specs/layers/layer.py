"""Base of the specs of layers: what other code asks of the input and of every kind of block."""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import ClassVar

from specs.fields import Shape, StrictModel
from specs.layers.neuron import NeuronSpec, SigmaDeltaSpec

NOT_FOR_SIGMA_DELTA = ("recurrent", "delays", "norm", "dropout")
"""Fields of blocks that do not apply to sigma-delta neurons, whose messages are changes."""


class Role(Enum):
    """Kind of output of a layer."""

    SPIKES = auto()
    """Spikes of the layer's neurons; of the last block, their rates are the logits."""
    LOGITS = auto()
    """Logits of a readout, which must be the last block."""
    RESHAPED = auto()
    """Input of the layer in another shape; such a layer cannot be the last block."""


class Layer(StrictModel):
    """Base of the input and of all kinds of blocks: shapes, sizes and costs.

    `before` is always the shape of the layer's input.
    """

    role: ClassVar[Role] = Role.SPIKES
    takes_graded_input: ClassVar[bool] = False
    """True if the block may follow graded input."""

    @property
    def has_neurons(self) -> bool:
        """True if the outputs are spikes of the layer's own neurons."""
        return self.role is Role.SPIKES

    def output_shape(self, before: Shape) -> Shape:
        """Return the shape of the outputs. Raises `ShapeError` if the input does not fit."""
        raise NotImplementedError

    def n_weights(self, before: Shape) -> int:
        """Return the number of weights, trainable or not."""
        return 0

    def n_parameters(self, before: Shape) -> int:
        """Return the number of trainable parameters, without the decays of neurons and without skips."""
        return 0

    def n_synops(self, before: Shape) -> int:
        """Return the synaptic operations of a time step if every input spikes; by default, one for each weight."""
        return self.n_weights(before)

    @property
    def own_fan_out(self) -> int:
        """Number of weights that each spike of the layer reaches in the layer itself; 0 unless it is recurrent."""
        return 0

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of features that few formats hold, such as `recurrent`; empty for most blocks."""
        return ()

    def fan_out(self, before: Shape) -> tuple[Sequence[int], ...]:
        """Return the number of weights that each input reaches, as a list of factors for each axis of `before`.

        A list of one number broadcasts.

        >>> from specs.layers.block import ConvSpec
        >>> ConvSpec(channels=8, kernel=3).fan_out((1, 4, 5))
        ([8], [1, 2, 2, 1], [1, 2, 3, 2, 1])
        """
        return ([0],) * len(before)

    def problems(self, neuron: NeuronSpec) -> Iterator[tuple[str, str]]:
        """Yield each field that does not fit the block's neurons, with the rest of an error message."""
        if isinstance(neuron, SigmaDeltaSpec):
            fields = type(self).model_fields
            for name in NOT_FOR_SIGMA_DELTA:
                if name in fields and getattr(self, name) != fields[name].default:
                    yield name, "does not apply to sigma-delta neurons: remove it"
