"""Estimated energy of one image: counted operations, times the published cost of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from specs.network import NetworkSpec

HOROWITZ = "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, 45 nm, 0.9 V"
DAVIES = "M. Davies et al., Loihi: a neuromorphic manycore processor with on-chip learning, IEEE Micro 38(1), 2018"

CAVEAT = (
    "An estimate of operations alone: no memory, no leakage, no traffic between cores, no neuron updates, and not "
    "measured on hardware. Memory often costs more than arithmetic. The ANN's operations count whether or not an input "
    "is 0, unless zeros are skipped; those of the SNN where something arrives. The figure of Loihi is of a whole "
    "synaptic operation of its first generation, memory included, and so cannot be compared with the lines above it."
)


@dataclass(frozen=True)
class EnergyCost:
    """Energy of one operation, and where it was published."""

    operation: str
    picojoules: float
    source: str


FLOAT_ADD = EnergyCost("32-bit float add", 0.9, HOROWITZ)
FLOAT_MULTIPLY = EnergyCost("32-bit float multiply", 3.7, HOROWITZ)
INTEGER_ADD = EnergyCost("32-bit integer add", 0.1, HOROWITZ)
BYTE_MULTIPLY = EnergyCost("8-bit integer multiply", 0.2, HOROWITZ)
LOIHI_SYNOP = EnergyCost("synaptic operation of Loihi, at the least", 23.6, DAVIES)
COSTS = (FLOAT_ADD, FLOAT_MULTIPLY, INTEGER_ADD, BYTE_MULTIPLY, LOIHI_SYNOP)


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy of one image in one kind of arithmetic; `terms` are counts of operations and their costs."""

    program: str
    terms: tuple[tuple[float, EnergyCost], ...]

    @property
    def nanojoules(self) -> float:
        return sum(count * cost.picojoules for count, cost in self.terms) / 1000


def estimate_energy(
    spec: NetworkSpec, synops: Sequence[float], macs: int | None = None, effective_macs: float | None = None
) -> list[EnergyEstimate]:
    """Return estimates for the SNN in floats, with 8-bit weights and on Loihi, and for the ANN if `macs` is given.

    A synop adds a weight. A synop of a graded pixel, and a MAC of the ANN, multiplies first.

    Args:
        synops: synops of one image for each layer, input first.
        effective_macs: those of `macs` in which no factor is 0.
    """
    adds = sum(synops)
    multiplies = synops[1] if spec.input.is_graded else 0
    anns = [(n, how) for n, how in ((macs, ""), (effective_macs, ", zeros skipped")) if n is not None]
    return [
        *(EnergyEstimate(f"ANN, 32-bit floats{how}", ((n, FLOAT_ADD), (n, FLOAT_MULTIPLY))) for n, how in anns),
        EnergyEstimate("SNN, 32-bit floats", ((adds, FLOAT_ADD), (multiplies, FLOAT_MULTIPLY))),
        *(EnergyEstimate(f"ANN, were it in 8 bits{how}", ((n, INTEGER_ADD), (n, BYTE_MULTIPLY))) for n, how in anns),
        EnergyEstimate("SNN, 8-bit weights", ((adds, INTEGER_ADD), (multiplies, BYTE_MULTIPLY))),
        EnergyEstimate("SNN, Loihi", ((adds, LOIHI_SYNOP),)),
    ]
