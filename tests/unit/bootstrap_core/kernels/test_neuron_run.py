"""Neurons over time, whatever their number: registers and blocks that they do not fill change nothing."""

import pytest
import torch

from bootstrap_core.kernels.neuron_loops import BLOCK
from bootstrap_core.kernels.neuron_run import ALIGN, NeuronRun
from bootstrap_core.kernels.neuron_steps import LANES

STEPS, ALL = 5, 2 * BLOCK


def run(z: torch.Tensor, keep_current: float, dtype: torch.dtype, is_whole: bool) -> list[torch.Tensor]:
    """Spikes, states, and gradients of the weighted input, both decays and the bias, of neurons of one channel each."""
    n, channels = len(z), torch.arange(ALL) % 3
    decays = torch.tensor([1 - keep_current]), torch.tensor([0.125])
    bias = (channels[:n] - 1) / 8
    neurons = NeuronRun(z.T.reshape(STEPS, 1, n), 128, *decays, bias, 1.25, True, reach=1000 if is_whole else torch.inf)
    assert neurons.is_whole == is_whole
    spikes = torch.empty(STEPS, 1, n, dtype=torch.int8)
    states = torch.empty(2, STEPS, 1, n)
    neurons.forward(spikes, *states)
    grad, out = (z.T.cos().reshape(STEPS, 1, n).to(dtype), torch.empty(STEPS, 1, n, dtype=dtype))
    sums = neurons.backward(grad, 0.1, 1.0, out, decays=True, bias=True)
    return [x.reshape(-1, n) for x in (spikes, *states, out, sums)]


@pytest.mark.parametrize("n", [1, LANES - 1, LANES, LANES + 1, ALIGN + 3, BLOCK - 1, BLOCK + 1, BLOCK + LANES + 7])
@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep_current", [0.0, 0.75])
def test_any_number_of_neurons(n: int, is_whole: bool, dtype: torch.dtype, keep_current: float) -> None:
    z = torch.randint(-40, 60, (ALL, STEPS), generator=torch.Generator().manual_seed(0)).float()
    of_all = run(z, keep_current, dtype, is_whole)
    assert 0.05 < of_all[0].float().mean() < 0.95
    for some, expected in zip(run(z[:n], keep_current, dtype, is_whole), of_all, strict=True):
        assert torch.equal(some, expected[:, :n])
