"""The engine that follows spikes, against the one that multiplies matrices."""

import pickle
from math import prod
from typing import Any

import numpy as np
import pytest
import torch

from bootstrap_core import kernels
from bootstrap_core.inference import byte_weight, integer_events, integer_network, integer_stages
from bootstrap_core.inference.integer_events import EventEngine
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.kernels import dense_products, integer_trains, train_sums
from bootstrap_core.kernels.byte_products import has_byte_products
from bootstrap_core.kernels.exact_products import PackedConvolution, PackedWeight, can_pack
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from specs.errors import StateOverflowError
from specs.network import NetworkSpec
from specs.summary import summarize

CONV = {"kind": "conv", "channels": 3, "kernel": 3, "padding": 1}


def make(*blocks: dict[str, Any], shape: list[int], seed: int = 0, **fields: Any) -> Network:
    document = {
        "name": "tiny", "time_steps": 6, "neuron": {"threshold": 0.6, "current_decay": 0.7, "voltage_decay": 0.1},
        "input": {"shape": shape, "weight": 1.3, "bias": 0.1}, "blocks": list(blocks), **fields,
    }  # fmt: skip
    network = build_network(NetworkSpec.model_validate(document), seed=seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("synapse.weight"):
                parameter.uniform_(-0.3, 0.6, generator=torch.Generator().manual_seed(seed))
    return network


def matrices(network: Network) -> IntegerNetwork:
    """The engine of matrix products."""
    exact = IntegerNetwork(network)
    exact.compiled = False
    return exact


def hold_equal(network: Network, images: torch.Tensor, steps: int) -> None:
    engine = EventEngine(network)
    shorter = sorted({1, steps // 2, max(1, steps - 1)})
    done = engine.run(images, steps, also_after=shorter, spikes=True, counts=True)
    assert done is not None
    logits, trace = matrices(network).run(images, time_steps=steps)
    assert torch.equal(done.logits, logits)
    for t, earlier in zip(shorter, done.earlier, strict=True):
        assert torch.equal(earlier, matrices(network).run(images, time_steps=t)[0])
    for spikes, count, wanted in zip(done.spikes, done.counts, trace.spikes, strict=False):
        assert spikes.dtype == wanted.dtype
        assert torch.equal(spikes, wanted)
        assert torch.equal(count, wanted.count_nonzero(dim=(0, 1)))
    assert trace.spikes[-2].any()
    followed = engine.follow(images, steps, weighed=True)
    assert followed is not None
    for block, x, weighed in zip(network.blocks[1:], trace.spikes[:-1], followed.weighed[1:], strict=True):
        if weighed is not None:
            torch.testing.assert_close(weighed, block.synapse(x.double().sum(0)).div(steps).float())
    following = IntegerNetwork(network)
    following.compiled = True
    *rates, last = following.rates(images, time_steps=steps)
    for found, wanted in zip(rates, trace.rates, strict=False):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
    assert torch.equal(last.flatten(1), logits)
    *matrix_rates, matrix_last = matrices(network).rates(images, time_steps=steps)
    assert all(torch.equal(a, b) for a, b in zip(rates, matrix_rates, strict=True))
    assert torch.equal(matrix_last, last)


def test_what_one_synapse_weighs_is_told() -> None:
    skipping = {"kind": "dense", "features": 9, "skips": [{"source": 3, "kind": "identity"}]}
    network = make(
        CONV, {"kind": "flatten"}, {"kind": "dense", "features": 9}, skipping, {"kind": "affine", "features": 2},
        shape=[1, 5, 5],
    )  # fmt: skip
    images = torch.rand(2, 1, 5, 5)
    unasked, followed = (EventEngine(network).follow(images, 6, weighed=weighed) for weighed in (False, True))
    assert unasked is not None and followed is not None  # noqa: PT018
    assert unasked.weighed == [None] * 6
    shapes = [None if weighed is None else weighed.shape for weighed in followed.weighed]
    assert shapes == [None, (2, 3, 5, 5), None, (2, 9), None, None]


DENSE = ({"kind": "dense", "features": 20}, {"kind": "dense", "features": 9}, {"kind": "affine", "features": 4})


@pytest.mark.parametrize("steps", [6, 31, 32, 33, 64, 75])
@pytest.mark.parametrize("shift", [False, True])
def test_words_join_over_time(steps, shift) -> None:
    hold_equal(make(*DENSE, shape=[30], delay_shift=shift), torch.rand(5, 30), steps)


@pytest.mark.parametrize("n_features", [33, 130, 300])
@pytest.mark.parametrize("n_values", [4, 256])
def test_inputs_of_few_trains_are_added_up_once_in_all_blocks_of_columns(n_features, n_values) -> None:
    blocks = [{"kind": "dense", "features": n} for n in (n_features, n_features)]
    images = torch.randint(n_values, (5, 40), generator=torch.Generator().manual_seed(0)) / n_values
    hold_equal(make(*blocks, {"kind": "affine", "features": 4}, shape=[40]), images, 33)


@pytest.fixture
def weighed(monkeypatch) -> list[torch.Size]:
    """Everything that can be multiplied is: the shapes of it, where the spikes of an image are the rows."""
    if not can_pack():
        pytest.skip("this torch packs no weights")
    monkeypatch.setattr(byte_weight, "has_byte_products", lambda: False)
    shapes = []
    for packed in (PackedWeight, PackedConvolution):
        weigh = packed.weigh
        monkeypatch.setattr(packed, "weigh", lambda *x, weigh=weigh: shapes.append(x[1].shape) or weigh(*x))
    monkeypatch.setattr(dense_products, "DENSE_FROM", 0)
    for name, value in {"PRODUCT_SIZE": 40, "LEAST_PRODUCT": 1, "LEAST_RATE": 0}.items():
        monkeypatch.setattr(integer_stages, name, value)
    return shapes


@pytest.fixture
def multiplied(monkeypatch) -> list[tuple[int, ...]]:
    """Everything that can be multiplied in registers is: the shapes of the maps, `[N, H, W * C]`."""
    if not has_byte_products():
        pytest.skip("this CPU has no instruction for it")
    shapes, multiply = [], integer_trains.multiplied_trains
    monkeypatch.setattr(
        integer_trains, "multiplied_trains", lambda x, *others: shapes.append(x.shape) or multiply(x, *others)
    )
    monkeypatch.setattr(byte_weight, "multiplies_tiles", lambda: False)
    monkeypatch.setattr(byte_weight, "LEAST_RATE", 0)
    monkeypatch.setattr(integer_stages, "LEAST_PRODUCT", 1)
    return shapes


@pytest.mark.parametrize("steps", [2, 4, 6, 8])
@pytest.mark.parametrize("n_images", [5, 8, 12])
def test_steps_of_few_images_are_multiplied_side_by_side(steps, n_images, multiplied) -> None:
    hold_equal(make(*DENSE, shape=[30]), torch.rand(n_images, 30), steps)
    assert {n * height * width for n, height, width in multiplied} == {n_images * 20}


@pytest.mark.parametrize("steps", [6, 33])
def test_where_many_neurons_spike_matrices_are_multiplied(steps, weighed) -> None:
    for seed in range(3):
        hold_equal(make(*DENSE, shape=[30], seed=seed), torch.rand(5, 30), steps)
    assert ((6 if steps == 6 else 32), 20) in weighed


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"stride": 2},
        {"stride": [1, 3], "padding": [2, 0]},
        {"dilation": 2},
        {"dilation": [1, 2], "stride": [2, 1], "padding": [0, 2]},
        {"kernel": [1, 4], "stride": [1, 2]},
        {"kernel": [2, 1], "stride": 3, "padding": 0},
        {"groups": 2, "channels": 4},
        {"groups": 4, "channels": 8, "stride": 2},
        {"channels": 150, "stride": 4},
        {"padding": 4},
        {"kernel": [3, 2], "padding": [1, 9], "dilation": [1, 13]},
    ],
)
@pytest.mark.parametrize("how", ["followed", "weighed", "multiplied"])
def test_convolutions_of_every_geometry(geometry, how, request) -> None:
    shapes = request.getfixturevalue(how) if how != "followed" else None
    first = {**CONV, "channels": 4}
    network = make(
        first, {**CONV, **geometry}, {"kind": "flatten"}, {"kind": "affine", "features": 4}, shape=[2, 7, 9]
    )  # fmt: skip
    hold_equal(network, torch.rand(4, 2, 7, 9), 9)
    assert shapes is None or {(9, 7, 9, 4), (4, 7, 18)} & set(shapes)


@pytest.mark.parametrize("multiplies", [False, True])
def test_sums_of_every_kind_of_synapses(multiplies, request) -> None:
    weighed = request.getfixturevalue("weighed") if multiplies else None
    conv = {**CONV, "channels": 4}
    skips = [{"source": 1, "kind": "identity"}, {"source": 1, "kind": "conv", "kernel": 3, "padding": 1, "groups": 2}]
    skip = {"source": 2, "kind": "dense"}
    dense = {"kind": "dense", "features": 9}
    network = make(
        conv, {**conv, "skips": skips}, {"kind": "flatten"}, dense, {**dense, "skips": [skip]},
        {"kind": "affine", "features": 4}, shape=[2, 7, 9],
    )  # fmt: skip
    hold_equal(network, torch.rand(4, 2, 7, 9), 9)
    assert weighed is None or {(9, 7, 9, 4), (9, 252)} <= set(weighed)


def test_pools_and_a_spiking_readout() -> None:
    network = make(CONV, {"kind": "avg_pool", "kernel": 2, "gain": 2.0}, CONV, shape=[2, 8, 6])
    hold_equal(network, torch.rand(4, 2, 8, 6), 9)


def test_wide_convolutions_are_added_in_more_than_sixteen_bits() -> None:
    network = make({**CONV, "channels": 14}, {**CONV, "kernel": 5}, CONV, shape=[2, 8, 8], neuron={"threshold": 0.1})
    with torch.no_grad():
        network.blocks[2].synapse.weight.fill_(3.9)  # 350 inputs of 125 steps each
    hold_equal(network, torch.ones(2, 2, 8, 8), 6)


def test_images_of_large_layers_are_weighed_some_at_once() -> None:
    network = make({"kind": "dense", "features": 1300}, {"kind": "dense", "features": 200}, shape=[30])
    hold_equal(network, torch.rand(2 * train_sums.AT_ONCE + 3, 30, generator=torch.Generator().manual_seed(0)), 5)


def test_wide_dense_layers_are_added_in_more_than_sixteen_bits() -> None:
    network = make({"kind": "dense", "features": 3}, {"kind": "affine", "features": 2}, shape=[340])
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(3.9)
    hold_equal(network, torch.ones(3, 340), 6)


def test_neurons_that_forget_their_current_and_neurons_that_do_not() -> None:
    for decay in (1.0, 0.5):
        neuron = {"threshold": 0.6, "current_decay": decay, "voltage_decay": 0.1}
        hold_equal(make(*DENSE, shape=[30], neuron=neuron), torch.rand(4, 30), 9)


def test_graded_input_of_every_kind_of_first_block() -> None:
    graded = {"encoding": "graded", "bits": 5}
    hold_equal(make(*DENSE, shape=[30], input={"shape": [30], **graded}), torch.rand(4, 30), 9)
    blocks = [CONV, {"kind": "flatten"}, {"kind": "affine", "features": 4}]
    hold_equal(make(*blocks, shape=[2, 6, 6], input={"shape": [2, 6, 6], **graded}), torch.rand(4, 2, 6, 6), 9)


def test_a_readout_straight_on_graded_input_is_left_to_the_matrices() -> None:
    network = make(DENSE[-1], shape=[30], input={"shape": [30], "encoding": "graded", "bits": 3})
    assert not EventEngine.takes(network)
    images = torch.rand(4, 30)
    assert torch.equal(IntegerNetwork(network)(images), network(images))


def test_input_currents_are_those_of_the_block_to_the_last_bit() -> None:
    """The kernel does its own arithmetic, in the same order."""
    entering = {"shape": [2000], "mean": 0.1307, "std": 0.3081, "weight": 1.7, "bias": -0.35}
    network = make(*DENSE, shape=[2000], input=entering)
    images = torch.cat([torch.rand(40, 2000), torch.arange(2000).repeat(1, 1) % 256 / 255, 40 * torch.randn(9, 2000)])
    with torch.no_grad():
        stage = integer_events._entry(network)[2][0]
    assert isinstance(stage, integer_stages.Table)
    state = stage.rest(len(images))
    stage.tables = {0: np.arange(8192, dtype=np.uint32)}
    mants = stage.advance(images.numpy(), 32, state).astype(np.int64) - 4096
    assert torch.equal(torch.from_numpy(mants), (network.blocks[0].current(images) * 64).long())


@pytest.mark.parametrize("n_images", [0, 1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_split_between_threads(n_images, threads) -> None:
    network, images = make(*DENSE, shape=[30]), torch.rand(n_images, 30)
    following, before = IntegerNetwork(network), torch.get_num_threads()
    following.compiled = True
    torch.set_num_threads(threads)
    try:
        assert torch.equal(following(images), matrices(network)(images))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("block", [1, 3])
def test_a_state_that_leaves_24_bits_is_told_as_by_the_matrices(block) -> None:
    """A hidden neuron that its input only holds down, and a readout that does not leak."""
    neuron = {"threshold": 0.6, "current_decay": 0.0, "voltage_decay": 0.0}
    blocks = [dict(layer) for layer in DENSE]
    blocks[block - 1]["neuron"] = neuron
    network = make(*blocks, shape=[30])
    with torch.no_grad():
        network.blocks[block].synapse.weight.fill_(-3.0)
    images = torch.ones(2, 30)
    with pytest.raises(StateOverflowError) as told:
        IntegerNetwork(network)(images, time_steps=60)
    with pytest.raises(StateOverflowError) as wanted:
        matrices(network)(images, time_steps=60)
    assert str(told.value) == str(wanted.value)
    assert f"block {block}" in str(told.value)


def test_a_readout_whose_input_could_leave_24_bits_but_does_not() -> None:
    """What reaches it in all is too much; but it leaks, so that its state never holds it all."""
    network = make(*DENSE, shape=[30], neuron={"threshold": 0.2, "current_decay": 1.0, "voltage_decay": 1.0})
    with torch.no_grad():
        network.blocks[3].synapse.weight.fill_(3.9)
    images = torch.ones(2, 30)
    hold_equal(network, images, 70)
    assert 2**23 <= network(images, time_steps=70).max() * 70 * 4096 < 2**24


def test_a_current_that_no_pixel_gives_leaves_24_bits() -> None:
    """Long runs are followed all the same; only with pixels outside 0..1 it is left to the matrices."""
    neuron = {"threshold": 0.6, "current_decay": 1.0, "voltage_decay": 0.0}
    entering = {"shape": [30], "mean": 0.4, "weight": -1.1, "bias": 0.3, "neuron": neuron}
    network = make(*DENSE, shape=[30], input=entering)
    images = torch.cat([torch.rand(4, 30), torch.zeros(1, 30), torch.ones(1, 30)])
    for steps in (16, 100, 16, 33):
        hold_equal(network, images, steps)
    engine = EventEngine(network)
    assert engine.run(1.01 * images, 16) is not None
    assert engine.run(images, 64) is not None
    assert engine.run(1.01 * images, 16) is None
    assert torch.equal(IntegerNetwork(network)(-images, time_steps=64), matrices(network)(-images, time_steps=64))


def test_a_readout_whose_total_floats_would_round() -> None:
    """Inputs that no power of two divides, over more steps than 24 bits hold the sum of."""
    network = make(*DENSE, shape=[30], neuron={"threshold": 0.2, "current_decay": 1.0, "voltage_decay": 1.0})
    with torch.no_grad():
        network.blocks[3].synapse.weight.fill_(3.9)
    images = torch.rand(5, 30)
    assert EventEngine(network).run(images, 333) is not None
    hold_equal(network, images, 333)
    assert matrices(network)(images, time_steps=333).max() * 333 * 4096 > 2**24


def test_without_numba_the_matrices_run(monkeypatch) -> None:
    monkeypatch.setattr(integer_network, "have_numba", lambda: False)
    network, images = make(*DENSE, shape=[30]), torch.rand(5, 30)
    exact = IntegerNetwork(network)
    assert exact._events is None
    assert torch.equal(exact(images), network(images))
    _, tally = exact.tally(images)
    monkeypatch.undo()
    following = IntegerNetwork(network)
    following.compiled = True
    _, counted = following.tally(images)
    assert all(a is None or torch.equal(a, b) for a, b in zip(counted.counts, tally.counts, strict=True))
    assert counted.rates[:-1] == pytest.approx(tally.rates[:-1])


@pytest.mark.parametrize("compiled", [None, True, False])
@pytest.mark.parametrize("worthwhile", [True, False])
def test_spikes_are_followed_where_it_is_worthwhile_or_said(worthwhile, compiled, monkeypatch) -> None:
    asked, ran = list[tuple[int, set[str]]](), list[int]()
    monkeypatch.setattr(
        integer_network, "engine_is_worthwhile", lambda n, kernels: asked.append((n, kernels)) or worthwhile
    )
    network, images = make(*DENSE, shape=[30]), torch.rand(5, 30)
    exact = IntegerNetwork(network)
    exact.compiled = compiled
    run = exact._events.run
    monkeypatch.setattr(exact._events, "run", lambda *args, **options: ran.append(1) or run(*args, **options))
    for logits in (exact(images), exact.run(images)[0], exact.tally(images)[0]):
        assert torch.equal(logits, network(images))
    assert len(ran) == (3 if compiled or (compiled is None and worthwhile) else 0)
    work = sum(row.synops + integer_network.OF_A_NEURON * prod(row.shape) for row in summarize(network.spec))
    assert asked == ([] if compiled is not None else 3 * [(5 * 6 * work, {"dense_trains"})])


def test_few_images_do_not_wait_for_a_compiler(monkeypatch) -> None:
    compiles = True
    monkeypatch.setattr(kernels, "will_compile", lambda names: compiles)
    monkeypatch.setattr(kernels._Patience, "left", 10)
    assert [kernels.engine_is_worthwhile(n, {"conv_trains"}) for n in (4, 4, 4, 1)] == [False, False, True, True]
    monkeypatch.setattr(kernels._Patience, "left", 10)
    compiles = False
    assert kernels.engine_is_worthwhile(1, {"conv_trains"})


def test_an_engine_waits_for_the_kernels_of_its_layers() -> None:
    conv = {"kind": "conv", "channels": 2, "kernel": 3}
    ends = {"kind": "flatten"}, {"kind": "affine", "features": 3}
    shape = [1, 6, 6]
    assert EventEngine(make(*ends, shape=shape)).kernels == set()
    assert EventEngine(make(conv, conv, *ends, shape=shape)).kernels == {"conv_trains"}
    dense = {"kind": "dense", "features": 3}
    assert EventEngine(make(conv, conv, ends[0], dense, ends[1], shape=shape)).kernels == {
        "conv_trains",
        "dense_trains",
    }
    integer_trains.dense_trains.signatures or IntegerNetwork(make(*DENSE, shape=[30]))(torch.rand(5, 30))
    assert not kernels.will_compile({"dense_trains"})


@pytest.mark.parametrize("entering", [{}, {"encoding": "graded", "bits": 3}, {"exact_input": False}])
def test_training_on_does_not_change_a_snapshot(entering: dict[str, Any]) -> None:
    network, images = make(*DENSE, shape=[30], input={"shape": [30], **entering}), torch.rand(5, 30)
    exact = IntegerNetwork(network)
    before = exact(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    assert torch.equal(exact(images), before)
    assert not torch.equal(IntegerNetwork(network)(images), before)


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("entering", [{}, {"encoding": "graded", "bits": 3}, {"exact_input": False}])
def test_an_engine_goes_to_other_processes_also_after_it_has_run(
    entering: dict[str, Any], events: bool, monkeypatch
) -> None:
    monkeypatch.setattr(integer_network, "have_numba", lambda: events)
    conv = {"kind": "conv", "channels": 4, "kernel": 3, "weight_norm": True}
    skipped = {**conv, "padding": 1, "skips": [{"source": 1, "kind": "identity"}]}
    blocks = [conv, skipped, {"kind": "flatten"}, {"kind": "affine", "features": 3}]
    network, images = make(*blocks, shape=[1, 6, 6], input={"shape": [1, 6, 6], **entering}), torch.rand(5, 1, 6, 6)
    exact = IntegerNetwork(network)
    before = exact(images)
    assert torch.equal(pickle.loads(pickle.dumps(exact))(images), before)


ANY = {"kind": "avg_pool", "neuron": {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 1.0}}


@pytest.mark.parametrize(
    "window",
    [
        {"kernel": 2, "gain": 4.2},
        {"kernel": 3, "stride": 2, "padding": 1, "gain": 9.3},
        {"kernel": [3, 1], "stride": [1, 2], "gain": 3.2},
        {"kernel": 2, "stride": 3, "padding": 1, "gain": 4.2},
        {"kernel": 2, "gain": 4.2, "delay_shift": True},
    ],
)
def test_pools_that_fire_for_any_spike(window: dict[str, Any]) -> None:
    network = make(CONV, {**ANY, **window}, {**CONV, "kernel": 1, "padding": 0}, shape=[2, 8, 7])
    assert isinstance(EventEngine(network)._stages[2], integer_stages.AnyPool)
    hold_equal(network, torch.rand(9, 2, 8, 7, generator=torch.Generator().manual_seed(1)), 40)


@pytest.mark.parametrize("changed", [{"voltage_decay": 0.9}, {"current_decay": 0.9}, {"threshold": 1.1}])
def test_pools_whose_neurons_remember_or_want_more_are_none_of_these(changed: dict[str, float]) -> None:
    pool = {**ANY, "kernel": 2, "gain": 4.2, "neuron": {**ANY["neuron"], **changed}}
    network = make(CONV, pool, CONV, shape=[2, 8, 7])
    assert not any(isinstance(stage, integer_stages.AnyPool) for stage in EventEngine(network)._stages)
    hold_equal(network, torch.rand(9, 2, 8, 7), 40)
