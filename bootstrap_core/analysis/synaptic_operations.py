"""Synaptic operations as NeuroBench counts them (J. Yik et al., Nature Communications 16, 1545, 2025).

An operation is *effective* where neither the weight nor its input is 0: an accumulation (AC) if the input is a spike, a
multiplication and accumulation (MAC) if it is anything else. *Dense* counts all of them. Biases, neurons, weights that
read only padding, and the currents of input neurons, which have no synapse, do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Tally
from specs.network import NetworkSpec


@dataclass
class ActivityCounter:
    """Network that counts the nonzero outputs of each neuron while `evaluate` scores it.

    `counts[i]` has the shape of layer i; it counts over all images and, in SNN mode, over all steps.
    """

    network: Network | IntegerNetwork
    counts: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [torch.zeros(shape, dtype=torch.int64) for shape in self.spec.shapes]

    @property
    def spec(self) -> NetworkSpec:
        """Spec of the network."""
        return self.network.spec

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.device

    def tally(
        self,
        images: Tensor,
        mode: Mode | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        """Run the `tally` of the network, and add to `counts`."""
        found: Sequence[Tensor | None]
        if mode is Mode.ANN:
            logits, trace = self.network.run(images, mode)
            tally = Tally((None,) * len(trace.rates), tuple(float(rate.mean()) for rate in trace.rates))
            found = [rate.count_nonzero(0) for rate in trace.rates]
        else:
            logits, tally = self.network.tally(images, mode, time_steps=time_steps, also_after=also_after)
            found = tally.counts
        for total, count in zip(self.counts, found, strict=True):
            if count is not None:
                total += count.reshape(total.shape).cpu()
        return logits, tally


@torch.no_grad()
def effective_operations(network: Network, counts: Sequence[Tensor]) -> list[float]:
    """Return the effective operations of each layer, input first: a nonzero input meets a nonzero weight.

    Args:
        network: network with the weights, which are taken as the hardware holds them.
        counts: number of nonzero outputs of each neuron, by layer; see `ActivityCounter`.
    """
    found = [0.0]
    for i, read in enumerate(network.spec.sources[1:], 1):
        sources = [*read, *([i] if network.spec.blocks[i - 1].own_fan_out else [])]
        synapses = network.block(i).synapses()
        met = (
            float(synapse.sums(counts[source].double(), (weight != 0).double().cpu()).sum())  # exact in float64
            for (synapse, weight), source in zip(synapses, sources, strict=bool(synapses))
        )
        found.append(sum(met))
    return found
