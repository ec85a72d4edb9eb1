"""Refit of the readout, so that the network's class probabilities come closer to the ANN's.

Inputs are a calibrated network, images, and the ANN as teacher. The readout's weights and bias are fitted to the rates
that it really reads, by the Kullback-Leibler divergence from the ANN's answers. The result is the network, changed in
place; whether that is kept, its judge decides (`judge`). Calibration minimises squared errors of the logits, but what
matters is the class that they choose.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.blocks import AffineBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.synapse import DenseSynapse
from bootstrap_core.training.trainer import Teacher
from converters.ann_to_snn.calibrate import shrink_for
from converters.ann_to_snn.judge import BATCH, batched_logits, logit_scale
from specs.errors import StateOverflowError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties to try on a change of the weights, relative to the mean square of the weights."""
ITERATIONS = 100
FEWEST = 100
"""Least number of images for a fit."""
SCALES, BISECTIONS = (1e-3, 1e3), 24
"""Range of the scale of the logits, and number of bisections to find it: to one part in a million."""
MOST_PRODUCTS = 1 << 30
"""Largest number of products in one step of a fit; a large readout is fitted on fewer images."""


@torch.no_grad()
def refit_readout(network: Network, images: Tensor, teacher: Teacher) -> bool:
    """Fit the readout to the teacher's answers; return whether it changed.

    The penalty on a change of the weights is chosen on the half of the images that was not fitted to. The readout stays
    as it is if it spikes, has no bias, has skips, or reads pixels, if a state leaves 24 bits, or if there are fewer
    than 100 images.

    Args:
        network: its readout is changed in place.
        images: `[N, ...]`, uint8.
        teacher: the ANN.
    """
    readout = network.readout
    if not isinstance(readout, AffineBlock) or readout.bias is None or len(readout.skips) or readout.levels != 1:
        return False
    assert isinstance(readout.synapse, DenseSynapse)
    weight, bias = readout.synapse.weight, readout.bias
    images = images[: MOST_PRODUCTS // weight.numel()]
    if len(images) < FEWEST:
        return False
    try:
        rates = _rates(IntegerNetwork(network), images)
    except StateOverflowError:
        return False
    wanted = batched_logits(teacher, images)
    scale = logit_scale(F.linear(rates, weight, bias), wanted)
    wanted = wanted.log_softmax(1)
    fit = _Fit(scale * weight.detach(), scale * bias.detach())
    half = len(images) // 2
    fitted, judged = (rates[:half], wanted[:half]), (rates[half:], wanted[half:])
    best = min(STRENGTHS, key=lambda strength: float(fit.distances(fit.solve(*fitted, strength), *judged).mean()))
    new_weight, new_bias = (x / scale for x in fit.solve(rates, wanted, best))
    reach = network.spec.time_steps * float(F.linear(rates, new_weight, new_bias).abs().max())
    # the old weights fill their grid, so the new ones must not be larger
    shrink = min(shrink_for(reach), float(weight.abs().max() / new_weight.abs().max()))
    weight.copy_(new_weight * shrink)
    bias.copy_(new_bias * shrink)
    return True


@torch.no_grad()
def calibrate_logits(network: Network, images: Tensor, teacher: Teacher) -> None:
    """Set `logit_scale` in the network's spec so that its probabilities are as sharp as the teacher's.

    The Kullback-Leibler divergence of the probabilities from the teacher's is least, over the images, where the mean
    logit is the same under both; this is found by bisection.

    Args:
        network: its spec is replaced; weights and spikes stay.
        images: `[N, ...]`, uint8.
        teacher: the ANN.
    """
    ours = batched_logits(lambda part: network(part, Mode.SNN), images).double()
    theirs = batched_logits(teacher, images).double().softmax(1)
    low, high = SCALES
    for _ in range(BISECTIONS):
        scale = (low * high) ** 0.5
        too_sharp = (((scale * ours).softmax(1) - theirs) * ours).sum() > 0
        low, high = (low, scale) if too_sharp else (scale, high)
    network.spec = network.spec.model_copy(update={"logit_scale": float(f"{scale:.4g}")})


def _rates(exact: IntegerNetwork, images: Tensor) -> Tensor:
    """Return the mean over time of what the readout reads, `[N, inputs]`."""
    return torch.cat([exact.rates(part)[-2].flatten(1) for part in images.split(BATCH)])


class _Fit:
    """Softmax regression with a penalty on the change from its initial weights."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.start = weight, bias
        self.size = weight.square().mean().clamp_min(1e-12)

    def distances(self, layer: tuple[Tensor, Tensor], rates: Tensor, wanted: Tensor) -> Tensor:
        """Return the Kullback-Leibler divergence from the wanted answer to each image, `[N]`."""
        found = F.linear(rates, *layer).log_softmax(1)
        return F.kl_div(found, wanted, log_target=True, reduction="none").sum(1)

    @torch.enable_grad()
    def solve(self, rates: Tensor, wanted: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """Return the weights and bias with the least mean divergence plus penalty."""
        layer = weight, bias = tuple(x.clone().requires_grad_() for x in self.start)
        optimizer = torch.optim.LBFGS(layer, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            penalty = strength * (weight - self.start[0]).square().mean() / self.size
            total = self.distances((weight, bias), rates, wanted).mean() + penalty
            total.backward()
            return total

        optimizer.step(loss)
        return weight.detach(), bias.detach()
