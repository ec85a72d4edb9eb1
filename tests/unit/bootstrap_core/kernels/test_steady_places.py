"""Convolutions behind input neurons: what they weigh and learn, against the convolution of the spikes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bootstrap_core.kernels.patches import layout
from bootstrap_core.kernels.steady_synapses import InputTables, SteadyConv

THRESHOLD, DECAY = 1.25, torch.tensor([0.03])
GEOMETRIES = {
    "stride": [5, 2, 0, 1] * 2,
    "padding": [3, 1, 1, 1] * 2,
    "dilation": [3, 1, 2, 2, 2, 1, 0, 1],
}


def pictures(kind: str, channels: int) -> torch.Tensor:
    """Mantissas of currents: of a silent background, of one that fires, or of none at all."""
    generator = torch.Generator().manual_seed(0)
    mantissas = torch.randint(-40, 160, (6, channels, 9, 8), generator=generator)
    if kind == "all differ":
        return mantissas.int()
    return torch.where(
        torch.rand(mantissas.shape, generator=generator) < 0.3, mantissas, -20 if kind == "silent" else 90
    ).int()


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("background", ["silent", "fires", "all differ"])
@pytest.mark.parametrize(("channels", "outputs", "steps"), [(1, 16, 5), (3, 5, 40), (2, 48, 3), (1, 20, 1)])
def test_as_the_convolution_of_spikes(geometry: str, background: str, channels: int, outputs: int, steps: int) -> None:
    mantissas, images = pictures(background, channels), pictures(background, channels) / 64
    images = images + 0.001 * torch.arange(len(images)).view(-1, 1, 1, 1) * (
        mantissas > 0
    )  # of one current, not one pixel
    tables = InputTables(mantissas, steps, DECAY, THRESHOLD, True)
    taken = GEOMETRIES[geometry]
    generator = torch.Generator().manual_seed(1)
    integers = torch.randint(-128, 128, (outputs, channels, taken[0], taken[4]), generator=generator).float()
    weight = (integers / 32).requires_grad_()

    def by_step(table: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(table)[tables.indices.long()].movedim(-1, 0).float()  # [T, N, C, H, W]

    spikes = by_step(tables.fired).requires_grad_()
    weighed = F.conv2d(spikes.flatten(0, 1), weight, None, *layout(taken)).unflatten(0, (steps, -1))
    rows = weighed.permute(0, 1, 3, 4, 2).flatten(1, 3)  # [T, R, O]
    synapse = SteadyConv(tables, taken)
    assert torch.equal(synapse.weigh(weight), rows * 32)

    slopes = tables.slopes(0.1, 1.0)
    grad = torch.randn(rows.shape, generator=generator)
    of_spikes, expected = torch.autograd.grad(rows, (spikes, weight), grad)
    worth = (of_spikes * by_step(slopes)).sum(0).double()
    ours, sums = synapse.gradients(grad, weight, images, slopes)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    size = float(worth.abs().sum())
    np.testing.assert_allclose(
        sums, [(worth * images).sum(), worth.sum()], atol=1e-6 * size * max(1, float(images.abs().max()))
    )
    without, nothing = synapse.gradients(grad, weight, images, None)
    assert torch.equal(without, ours)
    assert not nothing.any()
