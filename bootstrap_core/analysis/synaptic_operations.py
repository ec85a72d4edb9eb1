"""Synaptic operations as NeuroBench counts them (J. Yik et al., Nature Communications 16, 1545, 2025).

An operation is *effective* where neither the weight nor its input is 0: an accumulation (AC) if the input is a spike, a
multiplication and accumulation (MAC) if it is anything else. *Dense* counts all of them. Biases, neurons, weights that
read only padding, and the currents of input neurons, which have no synapse, do not count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches
from bootstrap_core.data.splits import Split
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.tasks.classes import Classes


def count_as_ann(network: Network, split: Split) -> list[Tensor]:
    """Return the number of nonzero rates of each neuron as ANN, over all images, by layer, int64."""
    found = [torch.zeros(shape, dtype=torch.int64) for shape in network.spec.shapes]
    for images, _ in batches(split, Classes.batch_size):
        for total, rate in zip(found, network.run(images.to(network.device), Mode.ANN)[1].rates, strict=True):
            total += rate.count_nonzero(0).reshape(total.shape).cpu()
    return found


@torch.no_grad()
def effective_operations(network: Network, counts: Sequence[Tensor]) -> list[float]:
    """Return the effective operations of each layer, input first: a nonzero input meets a nonzero weight.

    Args:
        network: network with the weights, which are taken as the hardware holds them.
        counts: number of nonzero outputs of each neuron, by layer: `Evaluation.counts`, or `count_as_ann`.
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
