import pytest
import torch
import torch.nn.functional as F

from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.network.synapse import ConvSynapse, DenseSynapse, PoolSynapse
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.weighted_input import weigh
from specs.layers.block import AvgPoolSpec, ConvSpec

CONV = ConvSpec(channels=4, kernel=(2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lead", [(5,), (3, 5)])
def test_dense_synapses_are_a_linear_map_of_the_quantized_weight(lead: tuple[int, ...]) -> None:
    synapse = DenseSynapse(6, 4, normalize=False)
    x = rand(*lead, 6)
    z = synapse(x)
    assert z.shape == (*lead, 4)
    assert torch.equal(z, F.linear(x, quantize_weight(synapse.weight)))


def weighed(synapse: ConvSynapse | PoolSynapse, x: torch.Tensor) -> torch.Tensor:
    """Return the weighted input of rates `[N, C, H, W]` or of spikes `[T, N, C, H, W]`."""
    return synapse(x) if x.dim() == 4 else weigh(Spikes.of(x), synapse.connection())


@pytest.mark.parametrize("lead", [(5,), (3, 5)])
def test_conv_synapses_are_torch_s_conv2d_of_the_quantized_weight(lead: tuple[int, ...]) -> None:
    synapse = ConvSynapse(CONV, 6, normalize=False)
    x = rand(*lead, 6, 8, 9)
    expected = F.conv2d(
        x.reshape(-1, 6, 8, 9),
        quantize_weight(synapse.weight),
        stride=(2, 1),
        padding=(1, 2),
        dilation=(1, 2),
        groups=2,
    )
    assert torch.equal(weighed(synapse, x), expected.reshape(*lead, *expected.shape[1:]))


@pytest.mark.parametrize("lead", [(5,), (3, 5)])
def test_pool_synapses_are_the_convolution_of_the_weight_they_export(lead: tuple[int, ...]) -> None:
    pool = AvgPoolSpec(kernel=(2, 3), stride=(1, 2), padding=(1, 1)).as_conv(3)
    synapse = PoolSynapse(pool, 0.3)
    x = rand(*lead, 3, 6, 7).round()
    expected = F.conv2d(
        x.reshape(-1, 3, 6, 7), synapse.quantized_weight(), stride=(1, 2), padding=(1, 1), groups=3
    ).reshape(*lead, 3, 7, 4)
    torch.testing.assert_close(weighed(synapse, x), expected)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
def test_pool_synapses_are_torch_s_avg_pool2d_times_their_gain(padding: tuple[int, int]) -> None:
    pool = AvgPoolSpec(kernel=(2, 4), padding=padding).as_conv(3)
    x = rand(5, 3, 8, 8)
    expected = 1.25 * F.avg_pool2d(x, (2, 4), (2, 4), padding)
    torch.testing.assert_close(PoolSynapse(pool, 1.25 / 8)(x), expected)


@pytest.mark.parametrize(
    "make", [lambda: DenseSynapse(6, 4, normalize=False), lambda: ConvSynapse(CONV, 6, normalize=False)]
)
def test_the_scale_multiplies_weights_before_they_are_quantized(make) -> None:
    synapse = make()
    assert torch.equal(synapse.quantized_weight(0.125), quantize_weight(synapse.weight * 0.125))
    assert not torch.equal(synapse.quantized_weight(0.125), 0.125 * synapse.quantized_weight())


def test_the_scale_reaches_the_weighted_input() -> None:
    for synapse, x in (
        (DenseSynapse(6, 4, normalize=False), rand(5, 6)),
        (ConvSynapse(CONV, 6, normalize=False), rand(5, 6, 8, 9)),
    ):
        scaled = synapse(x, 4.0)
        with torch.no_grad():
            synapse.weight.mul_(4.0)
        assert torch.equal(scaled, synapse(x))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    "make", [lambda n: DenseSynapse(6, 4, normalize=n), lambda n: ConvSynapse(CONV, 6, normalize=n)]
)
def test_weight_norm_splits_the_weight_into_magnitudes_and_directions(make, normalize: bool) -> None:
    names = {
        False: {"weight"},
        True: {"parametrizations.weight.original0", "parametrizations.weight.original1"},
    }
    synapse = make(normalize)
    assert set(synapse.state_dict()) == names[normalize]
    if normalize:
        magnitude = synapse.parametrizations.weight.original0
        assert magnitude.shape == (4, *[1] * (synapse.weight.dim() - 1))  # one for each output
        torch.testing.assert_close(synapse.weight.flatten(1).norm(dim=1), magnitude.flatten())


@pytest.mark.parametrize(
    "make", [lambda: DenseSynapse(6, 4, normalize=False), lambda: ConvSynapse(CONV, 6, normalize=False)]
)
def test_gradients_pass_straight_through_the_quantizer(make) -> None:
    synapse = make()
    synapse.quantized_weight().sum().backward()
    assert torch.equal(synapse.weight.grad, torch.ones_like(synapse.weight))
