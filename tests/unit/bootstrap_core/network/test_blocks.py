from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.functional.cuba import cuba
from bootstrap_core.functional.quantize import quantize_bias, quantize_weight
from bootstrap_core.network.base_block import Block
from bootstrap_core.network.blocks import AffineBlock, FlattenBlock, GradedInputBlock, InputBlock, SpikingBlock
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.spikes import Spikes
from specs.network import NetworkSpec

T = 5


def make(*blocks: dict[str, Any], shape: tuple[int, ...] = (6,), **options: Any) -> Network:
    entering = {"shape": shape, **options.pop("input", {})}
    readout = {"kind": "affine", "features": 2}
    if blocks and blocks[-1]["kind"] in ("conv", "avg_pool"):
        blocks = (*blocks, {"kind": "flatten"})
    spec = {"name": "test", "time_steps": T, "input": entering, "blocks": [*blocks, readout], **options}
    return build_network(NetworkSpec.model_validate(spec), seed=0)


def block_of(**options: Any) -> SpikingBlock:
    """Return a dense block from 6 to 4 neurons; `neuron` and `input` set those parts of the spec."""
    outside = {name: options.pop(name) for name in ("neuron", "input", "delay_shift") if name in options}
    block = make({"kind": "dense", "features": 4, **options}, **outside).blocks[1]
    with torch.no_grad():
        block.synapse.weight.copy_(torch.linspace(-1, 2, 24).reshape(4, 6))
    return block


def input_block(**options: Any) -> InputBlock:
    neuron = options.pop("neuron", {})
    delay_shift = options.pop("delay_shift", False)
    return make(input=options, neuron=neuron, delay_shift=delay_shift).blocks[0]


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def fired(block: Block, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
    """Return the spikes of a block, `[T, N, ...]`."""
    given = block(x, mode, T)
    assert isinstance(given, Spikes)
    assert given.steps == T
    return given.tensor()


def fit_line(block: SpikingBlock | InputBlock) -> None:
    """Fit the activation to a = z / 2."""
    block.sampler.add(torch.linspace(0, 2, 500), torch.linspace(0, 1, 500))
    block.sampler.fit()
    block.sampler.clear()


# --- Input


def test_the_input_current_is_the_weighted_standardized_pixel_plus_bias() -> None:
    block = input_block(mean=0.5, std=0.25, weight=1.5, bias=0.25)
    assert block.current(torch.tensor([[0.5, 0.75, 0.25]])).tolist() == [[0.25, 1.75, -1.25]]


def test_an_exact_input_current_is_truncated_to_64ths() -> None:
    pixels = torch.tensor([[0.999, -0.999, 1.999]]) / 64
    assert (64 * input_block().current(pixels)).tolist() == [[0, 0, 1]]


def test_an_inexact_input_rounds_the_pixel_to_32nds_before_it_is_weighted() -> None:
    block = input_block(exact_input=False, weight=0.5)
    assert (64 * block.current(torch.tensor([[0.9, 1.1, 3.1]]) / 64)).tolist() == [[0, 1, 2]]


def test_weight_and_bias_of_the_input_are_on_the_weight_grid() -> None:
    block = input_block(weight=1.1, bias=0.2)
    assert block.current(torch.zeros(1, 1)).item() == 6 / 32
    assert block.current(torch.ones(1, 1)).item() == (35 + 6) / 32


@pytest.mark.parametrize(("exact", "expected"), [(True, [0, 0, 1, 0, 0]), (False, [0, 1, 1, 1, 1])])
def test_only_an_inexact_input_piles_up_in_the_current(exact: bool, expected: list[int]) -> None:
    block = input_block(exact_input=exact, neuron={"current_decay": 0.25, "voltage_decay": 0.0})
    assert fired(block, torch.full((1, 6), 0.5))[:, 0, 0].tolist() == expected


def test_the_input_samples_its_current_and_its_rate() -> None:
    block = input_block(weight=0.7)
    x = torch.linspace(0, 1, 12).reshape(2, 6)
    out = fired(block, x, Mode.SAMPLE)
    assert torch.equal(
        block.sampler.pairs, torch.stack([block.current(x).flatten(), out.mean(0).flatten()], 1).detach()
    )


def test_graded_pixels_are_rounded_and_clamped_integers() -> None:
    block = make({"kind": "dense", "features": 2}, input={"encoding": "graded", "bits": 4}).blocks[0]
    assert isinstance(block, GradedInputBlock)
    x = torch.tensor([[0.0, 0.49, 0.51, 1.0, 1.7, -0.3]]) * torch.tensor([1, 1 / 15, 1 / 15, 1, 1, 1])
    assert block(x, Mode.ANN, T).tolist() == [[0, 0, 1, 15, 15, 0]]


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.ANN])
def test_the_gradient_of_graded_pixels_goes_through_the_rounding(mode: Mode) -> None:
    network = make({"kind": "dense", "features": 9}, input={"encoding": "graded"})
    fit_line(network.blocks[1])
    images = torch.rand(5, 6).requires_grad_()
    network(images, mode).square().sum().backward()
    assert images.grad.abs().max() > 0
    pixels = torch.tensor([[-0.2, 0.3, 0.51, 1.7]], requires_grad=True)
    given = network.blocks[0](pixels, mode, T)
    (given.tensor()[0] if mode is Mode.SNN else given).sum().backward()
    assert pixels.grad.tolist() == [[0.0, 255.0, 255.0, 0.0]]


def test_graded_spikes_are_one_step_that_stands_for_all() -> None:
    block = make({"kind": "dense", "features": 2}, input={"encoding": "graded"}).blocks[0]
    x = torch.rand(3, 6)
    spikes = block(x, Mode.SNN, T)
    assert spikes.is_constant
    assert (spikes.shape, spikes.tensor().dtype) == ((T, 3, 6), torch.float64)
    assert torch.equal(spikes.tensor(), block(x, Mode.ANN, T).expand(T, 3, 6))


# --- Flatten


@pytest.mark.parametrize("packed", [False, True])
def test_flatten_keeps_c_order_and_the_axes_before(packed: bool) -> None:
    x = spikes(T, 2, 3, 4, 5)
    flat = FlattenBlock(3)(Spikes.of(x).packed() if packed else Spikes.of(x), Mode.SNN, T)
    assert flat.shape == (T, 2, 60)
    assert torch.equal(flat.tensor(), x.reshape(T, 2, 60))


# --- Spiking blocks


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_block_is_synapses_then_neurons(reset: str) -> None:
    neuron = {"threshold": 1.5, "current_decay": 0.5, "voltage_decay": 0.25, "reset": reset}
    block, x = block_of(bias=True, neuron=neuron), spikes(T, 3, 6)
    with torch.no_grad():
        block.bias.fill_(0.3)
    expected = cuba(
        F.linear(x, quantize_weight(block.synapse.weight)),
        current_decay=torch.tensor([0.5]),
        voltage_decay=torch.tensor([0.25]),
        threshold=1.5,
        bias=torch.full((4,), 19 / 64),
        subtract=reset == "subtract",
    ).spikes
    assert expected.any()
    assert torch.equal(fired(block, x), expected)


def test_the_empty_step_of_a_block_comes_first_and_the_last_one_is_lost() -> None:
    x = spikes(T, 3, 6)
    plain, shifted = (fired(block_of(delay_shift=shift), x) for shift in (False, True))
    assert not shifted[0].any()
    assert torch.equal(shifted[1:], plain[:-1])


def test_rates_are_the_activation_of_the_weighted_input() -> None:
    block, x = block_of(), torch.rand(3, 6)
    fit_line(block)
    assert torch.equal(block(x, Mode.ANN, T), block.sampler(F.linear(x, quantize_weight(block.synapse.weight))))


def test_sampling_records_the_mean_weighted_input_and_the_mean_rate() -> None:
    block, x = block_of(), spikes(T, 3, 6)
    out = fired(block, x, Mode.SAMPLE)
    z = F.linear(x, quantize_weight(block.synapse.weight)).mean(0)
    assert torch.equal(block.sampler.pairs, torch.stack([z.flatten(), out.mean(0).flatten()], 1).detach())


def test_fit_mode_fits_clears_and_runs_on_rates() -> None:
    block = block_of()
    block(spikes(T, 50, 6), Mode.SAMPLE, T)
    rates = block(torch.rand(3, 6), Mode.FIT, T)
    assert rates.shape == (3, 4)
    assert block.sampler.fitted
    assert len(block.sampler.pairs) == 0


# --- Bias and norms


def test_the_bias_is_on_its_grid_and_bounded() -> None:
    block = block_of(bias=True)
    with torch.no_grad():
        block.bias.copy_(torch.tensor([0.3, -0.3, 99.0, -99.0]))
    assert (64 * block.quantized_bias()).tolist() == [19, -19, 4095, -4096]


def test_the_bias_counts_current_decay_times_in_ann_mode() -> None:
    block, x = block_of(bias=True, neuron={"current_decay": 0.25}), torch.rand(3, 6)
    with torch.no_grad():
        block.bias.fill_(0.5)
    fit_line(block)
    z = F.linear(x, quantize_weight(block.synapse.weight))
    assert torch.equal(block(x, Mode.ANN, T), block.sampler(z + 0.125))


def test_a_mean_only_norm_leaves_as_a_bias_of_the_mean_over_the_current_decay_on_the_weight_grid() -> None:
    block = block_of(norm="mean_only", neuron={"current_decay": 0.5})
    block.norm.running_mean.copy_(torch.tensor([0.3, -0.3, 0.0, 50.0]))
    assert (64 * block.quantized_bias()).tolist() == [-38, 38, 0, -4096]


def test_spikes_of_a_mean_only_norm_are_those_of_its_bias() -> None:
    normed = block_of(norm="mean_only", neuron={"current_decay": 0.5})
    plain = block_of(bias=True, neuron={"current_decay": 0.5})
    normed.norm.running_mean.copy_(torch.tensor([0.3, -0.3, -1.0, 2.0]))
    with torch.no_grad():
        plain.bias.copy_(normed.quantized_bias())
    x = spikes(T, 8, 6)
    assert torch.equal(fired(normed, x), fired(plain, x))


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.ANN])
def test_norms_follow_the_weighted_input_of_each_channel_in_training(mode: Mode) -> None:
    block = block_of(norm="mean_only").train()
    fit_line(block)
    x = spikes(T, 3, 6) if mode is Mode.SNN else torch.rand(3, 6)
    block(x, mode, T)
    z = F.linear(x, quantize_weight(block.synapse.weight)).reshape(-1, 4)
    torch.testing.assert_close(block.norm.running_mean, 0.1 * z.mean(0).detach())


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.ANN])
def test_what_moves_a_whole_channel_gives_a_mean_only_norm_no_gradient(mode: Mode) -> None:
    x = spikes(T, 3, 6) if mode is Mode.SNN else torch.rand(3, 6)
    x[..., 0] = 1.0  # equal for all images: its weight shifts whole channels
    for norm, alike in (("none", False), ("mean_only", True)):
        block = block_of(norm=norm).train()
        fit_line(block)
        given = block(x, mode, T)
        numbers = given.tensor() if mode is Mode.SNN else given
        (numbers * torch.arange(12.0).reshape(3, 4)).sum().backward()
        gradient = block.synapse.weight.grad
        assert gradient[:, 1:].abs().max() > 0
        assert bool(gradient[:, 0].abs().max() < 1e-5) is alike


def test_a_weight_scale_multiplies_the_weights_before_they_are_quantized() -> None:
    block, x = block_of(norm="weight_scale"), spikes(T, 3, 6)
    block.norm.running_variance.fill_(16.0)
    assert torch.equal(block.quantized_weight(), quantize_weight(block.synapse.weight / 4))
    expected = block_of()
    with torch.no_grad():
        expected.synapse.weight.copy_(block.synapse.weight / 4)
    assert torch.equal(fired(block, x), fired(expected, x))


def test_a_mean_only_norm_survives_a_current_decay_learnt_down_to_zero() -> None:
    block = block_of(norm="mean_only", neuron={"learn_decays": "shared"})
    with torch.no_grad():
        block.neuron.current_decay.fill_(-0.01)
    assert block.quantized_bias().isfinite().all()


# --- Dropout


def weighed_alone(x: Tensor, mode: Mode, *, training: bool = True, dropout: float) -> Tensor:
    """Return the input after dropout: the weighted input of neurons with one input of weight 1 each."""
    block = make({"kind": "dense", "features": 6, "dropout": dropout}).blocks[1].train(training)
    with torch.no_grad():
        block.synapse.weight.copy_(torch.eye(6))
    return block.weigh(Spikes.of(x).packed() if mode.spiking else x)


def test_dropout_takes_one_mask_for_all_steps_and_scales_survivors_up() -> None:
    torch.manual_seed(0)
    dropped = weighed_alone(torch.ones(T, 50, 6), Mode.SNN, dropout=0.25)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_dropout_reaches_the_weighted_input_of_block_and_readout() -> None:
    network = make({"kind": "dense", "features": 4, "dropout": 0.5}).train()
    readout = build_network(
        network.spec.model_copy(update={"blocks": (network.spec.blocks[-1].model_copy(update={"dropout": 0.5}),)}),
        seed=0,
    ).readout.train()
    torch.manual_seed(0)
    assert bool((readout(torch.ones(40, 6), Mode.ANN, T).std(dim=0) > 0).all())
    block = network.blocks[1]
    block(torch.ones(T, 40, 6), Mode.SAMPLE, T)
    assert len(block.sampler.pairs[:, 0].unique()) > 4


# --- Pooling


def pool_network(**options: Any) -> Network:
    return make({"kind": "avg_pool", "kernel": 2, **options}, shape=(3, 4, 4), neuron={"threshold": 1.5})


def test_a_pool_is_a_grouped_convolution_of_its_weight() -> None:
    pool, x = pool_network(gain=1.3).blocks[1], spikes(T, 2, 3, 4, 4)
    z = F.conv2d(x.flatten(0, 1), pool.quantized_weight(), stride=2, groups=3).reshape(T, 2, 3, 2, 2)
    expected = cuba(z, current_decay=torch.ones(1), voltage_decay=torch.zeros(1), threshold=1.5).spikes
    assert expected.any()
    assert torch.equal(fired(pool, x), expected)


def test_the_drive_of_a_pool_is_the_average_times_its_gain() -> None:
    pool, x = pool_network(gain=2.0).blocks[1], torch.rand(2, 3, 4, 4)
    fit_line(pool)
    torch.testing.assert_close(pool(x, Mode.ANN, T), pool.sampler(2 * F.avg_pool2d(x, 2)))


def test_without_a_gain_four_weights_of_a_pool_just_pass_the_threshold_of_its_neurons() -> None:
    assert pool_network().blocks[1].quantized_weight().unique().tolist() == [13 / 32]
    assert pool_network(kernel=[1, 4]).blocks[1].quantized_weight().unique().tolist() == [13 / 32]
    own = pool_network(neuron={"threshold": 0.5}).blocks[1]
    assert own.quantized_weight().unique().tolist() == [5 / 32]


# --- Graded blocks


def graded_block(**options: Any) -> SpikingBlock:
    return block_of(
        input={"encoding": "graded", "bits": 4}, neuron={"threshold": 1.25, "current_decay": 0.5}, **options
    )


def test_a_block_of_graded_input_has_its_threshold_and_bias_in_units_of_the_levels() -> None:
    block = graded_block(bias=True)
    with torch.no_grad():
        block.bias.fill_(0.3)
    assert block.neuron.threshold_mant == 64 * 15 * 1.25
    assert (64 * block.quantized_bias()).tolist() == [288] * 4  # 64 * 15 * 0.3


def test_the_drive_of_graded_input_is_in_units_of_an_input_of_one() -> None:
    block, pixels = graded_block(bias=True), torch.randint(0, 16, (3, 6)).float()
    with torch.no_grad():
        block.bias.fill_(0.3)
    fit_line(block)
    z = F.linear(pixels / 15, quantize_weight(block.synapse.weight))
    torch.testing.assert_close(block(pixels, Mode.ANN, T), block.sampler(z + 0.5 * 0.3))


def test_graded_sampling_records_drives_in_units_of_an_input_of_one() -> None:
    block = graded_block()
    block(torch.full((1, 1, 6), 15.0).double().expand(T, 1, 6), Mode.SAMPLE, T)
    expected = quantize_weight(block.synapse.weight).sum(1).detach()
    torch.testing.assert_close(block.sampler.pairs[:, 0], expected)


def test_a_weight_scale_of_graded_input_is_that_of_an_input_of_one() -> None:
    graded = graded_block(norm="weight_scale").train()
    plain = block_of(norm="weight_scale").train()
    pixels = torch.randint(0, 16, (30, 6)).float()
    for block, x in ((graded, pixels), (plain, pixels / 15)):
        fit_line(block)
        block(x, Mode.ANN, T)
    torch.testing.assert_close(graded.norm.running_variance, plain.norm.running_variance)


# --- Readout


def readout(**options: Any) -> AffineBlock:
    entering = {"shape": [6], **options.pop("input", {})}
    blocks = [{"kind": "affine", "features": 2, **options}]
    spec = {"name": "test", "time_steps": T, "input": entering, "blocks": blocks}
    return build_network(NetworkSpec.model_validate(spec), seed=0).readout


@pytest.mark.parametrize("lead", [(3,), (T, 3)])
def test_the_readout_is_a_weighted_input_plus_bias_without_spikes(lead: tuple[int, ...]) -> None:
    block, x = readout(bias=True), torch.rand(*lead, 6)
    with torch.no_grad():
        block.bias.copy_(torch.tensor([0.3, -0.7]))
    expected = F.linear(x, quantize_weight(block.synapse.weight)) + quantize_bias(torch.tensor([0.3, -0.7]))
    if len(lead) == 1:
        assert torch.equal(block(x, Mode.ANN, T), expected)
    else:
        assert torch.equal(block.over_time(Spikes.of(x)), expected)
        torch.testing.assert_close(block(x, Mode.SNN, T), expected.mean(0))


def test_the_readout_of_graded_input_is_in_units_of_an_input_of_one() -> None:
    block = readout(bias=True, input={"encoding": "graded", "bits": 4})
    with torch.no_grad():
        block.bias.fill_(0.3)
    x = torch.full((1, 1, 6), 15.0).double().expand(T, 1, 6)
    expected = quantize_weight(block.synapse.weight).sum(1) + 0.3
    for z in (block(x, Mode.SNN, T), block.over_time(Spikes.of(x))[0]):
        assert z.dtype == torch.float32
        torch.testing.assert_close(z[0], expected)


def test_a_batch_norm_is_folded_into_the_blocks_own_weights_and_its_bias() -> None:
    block = block_of(norm="batch", bias=True, neuron={"threshold": 2.0})
    with torch.no_grad():
        block.norm.running_mean.copy_(torch.tensor([0.5, -0.5, 0.0, 1.0]))
        block.norm.running_variance.copy_(torch.tensor([1.0, 4.0, 0.25, 1.0]))
        block.bias.fill_(0.25)
    scale = block.norm.scale()
    torch.testing.assert_close(scale, torch.tensor([1.0, 0.5, 2.0, 1.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(block.quantized_weight(), block.synapse.weight * scale[:, None], rtol=0, atol=1 / 64)
    assert block.quantized_bias().tolist() == [-0.25, 0.5, 0.25, -0.75]


def test_a_batch_norm_leaves_skips_as_they_are() -> None:
    skips = [{"source": 0, "kind": "identity"}]
    block = make({"kind": "dense", "features": 6, "norm": "batch", "skips": skips}, neuron={"threshold": 3.0}).blocks[1]
    (_, own), (_, skipped) = block.synapses()
    assert not torch.equal(own, block.synapse.quantized_weight())
    assert skipped.tolist() == [3.0] * 6, "a skip passes a rate of 1 as the threshold"


def test_a_batch_norm_takes_the_batch_in_training_only_while_it_learns() -> None:
    block = block_of(norm="batch").train()
    rates = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
    of_batch = block.weigh(rates)
    torch.testing.assert_close(of_batch.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    block.norm.eval()
    before = block.norm.running_mean.clone()
    folded = block.weigh(rates)
    assert folded.mean(0).abs().max() > 0.1
    assert torch.equal(block.norm.running_mean, before)
