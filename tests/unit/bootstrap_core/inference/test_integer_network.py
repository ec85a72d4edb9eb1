"""Integer inference. tests/property compares it with the float engine on all kinds of networks."""

import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from bootstrap_core.inference.integer_network import IntegerNetwork, Overflow
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.library import is_installed, without_native
from specs import load_spec
from specs.errors import SnnZooError, StateOverflowError
from specs.network import NetworkSpec

T = 5


def make(*blocks: dict[str, Any], **options: Any) -> Network:
    spec: dict[str, Any] = {"name": "test", "time_steps": T, "input": {"shape": [1], "weight": 2.0}, **options}
    network = build_network(NetworkSpec.model_validate(spec | {"blocks": blocks}), seed=0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("synapse.weight"):
                parameter.fill_(1.0)
    return network


DENSE = {"kind": "dense", "features": 1}
AFFINE = {"kind": "affine", "features": 1}
GRADED = {"shape": [1], "encoding": "graded", "bits": 12}


@pytest.fixture(params=[False, True], ids=["defined", "native"])
def native(request) -> Iterator[bool]:
    """Run a test with the definitions, then with the native library."""
    if request.param and not is_installed():
        pytest.skip("needs the native library")
    with nullcontext() if request.param else without_native():
        yield request.param


def test_the_readout_voltage_integrates_the_weighted_input_with_its_decays_and_never_fires() -> None:
    neuron = {"threshold": 0.5, "current_decay": 0.5, "voltage_decay": 0.75}
    network = make({**AFFINE, "neuron": neuron}, neuron={"threshold": 0.5})
    _, trace = IntegerNetwork(network).run(torch.ones(1, 1))
    u = v = 0
    expected = []
    for _ in range(T):
        u = u // 2 + 4096
        v = v // 4 + u
        expected.append(v)
    assert trace.readout_voltage.flatten().tolist() == expected


def test_the_bias_of_the_readout_is_in_its_voltage_and_its_logits() -> None:
    network = make({**AFFINE, "bias": True}, neuron={"voltage_decay": 1.0})
    with torch.no_grad():
        network.readout.bias.fill_(0.25)
    logits, trace = IntegerNetwork(network).run(torch.ones(1, 1))
    assert logits.item() == 1.25
    assert trace.readout_voltage.flatten().tolist() == [4096 + 1024] * T


def test_time_steps_overrule_those_of_the_spec() -> None:
    _, trace = IntegerNetwork(make(DENSE, AFFINE)).run(torch.ones(1, 1), time_steps=3)
    assert [len(spikes) for spikes in (*trace.spikes, trace.readout_voltage)] == [3] * 4


@pytest.mark.parametrize("mode", [Mode.ANN, Mode.SAMPLE, Mode.FIT])
def test_other_modes_than_snn_are_refused(mode: Mode) -> None:
    with pytest.raises(SnnZooError, match=rf"runs only Mode\.SNN, not {mode}"):
        IntegerNetwork(make(AFFINE)).run(torch.ones(1, 1), mode)


@pytest.mark.parametrize(
    "name", ["blocks.0.weight", "blocks.1.synapse.weight", "blocks.1.bias", "blocks.2.synapse.weight"]
)
def test_training_further_does_not_change_the_snapshot(name: str) -> None:
    network = make({**DENSE, "bias": True}, AFFINE)
    integer, images = IntegerNetwork(network), torch.ones(1, 1)
    before = integer(images)
    with torch.no_grad():
        network.get_parameter(name).fill_(-1.0)
    assert torch.equal(integer(images), before)
    assert not torch.equal(network(images), before)


ONE_ROW_OR_COLUMN = {
    "one input": [{"kind": "dense", "features": 4}, AFFINE],
    "one output": [{"kind": "dense", "features": 1}, {"kind": "affine", "features": 3}],
    "one tap": [{"kind": "conv", "channels": 3, "kernel": 1}, {"kind": "flatten"}, AFFINE],
}


@pytest.mark.parametrize("name", ONE_ROW_OR_COLUMN)
@pytest.mark.parametrize("encoding", ["spike", "graded"])
def test_products_of_one_row_or_column_are_right(name: str, encoding: str) -> None:
    """Matrices of one row or column have ambiguous strides, which torch's integer product misreads."""
    shape = [1, 1, 1] if name == "one tap" else [1]
    network = make(
        *ONE_ROW_OR_COLUMN[name],
        input={"shape": shape, "encoding": encoding, **({"weight": 2.0} if encoding == "spike" else {})},
        neuron={"threshold": 0.25},
    )
    with torch.no_grad():
        network.blocks[1].synapse.weight.uniform_(-0.5, 1.5, generator=torch.Generator().manual_seed(0))
    for n in (1, 5):
        images = torch.linspace(0.2, 1, n).reshape(n, *shape)
        logits, trace = IntegerNetwork(network).run(images)
        assert trace.spikes[1].any()
        assert torch.equal(network.run(images)[1].spikes[1], trace.spikes[1].float())
        assert torch.equal(logits, network(images))


# --- Graded input


def test_graded_pixels_are_integers_at_every_step() -> None:
    network = make(AFFINE, input={**GRADED, "bits": 4})
    logits, trace = IntegerNetwork(network).run(torch.tensor([[0.2]]))
    assert trace.spikes[0].flatten().tolist() == [3] * T
    assert trace.spikes[0].dtype == torch.int32
    assert logits.item() == pytest.approx(0.2)


def test_pixels_of_many_bits_are_weighted_exactly() -> None:
    network = make(
        {"kind": "dense", "features": 7},
        AFFINE,
        input={**GRADED, "shape": [9]},
        neuron={"threshold": 0.25, "voltage_decay": 0.5},
    )
    with torch.no_grad():
        network.blocks[1].synapse.weight.uniform_(-0.07, 0.13, generator=torch.Generator().manual_seed(0))
    images = torch.rand(20, 9, generator=torch.Generator().manual_seed(0))
    logits, trace = IntegerNetwork(network).run(images)
    assert 0 < trace.rates[1].mean() < 1
    assert trace.spikes[0].max() > 1 << 11
    assert torch.equal(network.run(images)[1].spikes[1], trace.spikes[1].float())
    assert torch.equal(logits, network(images))


def test_large_sums_that_cancel_are_exact(native: bool) -> None:
    neuron = {"threshold": 1 / 64, "current_decay": 1.0, "voltage_decay": 1.0}
    network = make(DENSE, AFFINE, input={**GRADED, "shape": [16384]}, neuron=neuron)
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(125 / 32).mul_(torch.tensor([1, -1]).repeat(8192))
    pixels = torch.full((2, 16384), 4000)  # 8192 of them times 125 exceed 2**31 steps of a weight
    pixels[0, 0] = pixels[1, 1] = 4040
    _, trace = IntegerNetwork(network).run(pixels / 4095)
    assert trace.spikes[1].flatten().tolist() == [1, 0] * T


def test_sums_of_more_than_32_bits_leave_24() -> None:
    network = make(DENSE, AFFINE, input={"shape": [16], "encoding": "graded", "bits": 16}, neuron={"threshold": 1 / 64})
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(2.0)
    with pytest.raises(StateOverflowError, match=rf"reaches {16 * 32768 * 2 * 4096} at step 0"):
        IntegerNetwork(network).run(torch.full((1, 16), 32768 / 65535))


def test_of_many_images_the_worst_is_told() -> None:
    exact = integer_neuron({"current_decay": 1.0, "voltage_decay": 1.0})
    with pytest.raises(StateOverflowError, match=rf"reaches {4095 * 4096} at step 0"):
        exact.run(torch.tensor([[3000 / 4095], [1.0]]))


# --- The 24 bits of the hardware


def integer_neuron(neuron: dict[str, Any]) -> IntegerNetwork:
    """Return a neuron of weight 1 on a 12-bit pixel: in state units its current is 4096 times the pixel."""
    return IntegerNetwork(make(DENSE, AFFINE, input=GRADED, neuron={"threshold": 0.5, **neuron}))


def pixel(value: int) -> torch.Tensor:
    return torch.full((1, 1), value / 4095)


@pytest.mark.parametrize(("sign", "name"), [(1, None), (-1, "stem")])
def test_a_current_that_leaves_24_bits_names_state_block_value_and_step(sign: int, name: str | None) -> None:
    network = make(
        {**DENSE, "name": name},
        AFFINE,
        input=GRADED,
        neuron={"threshold": 0.5, "current_decay": 0.0, "voltage_decay": 1.0},
    )
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(sign)
    # 1000 x 4096 at step 0, 2000 x 4096 at step 1, 3000 x 4096 > 2**23 at step 2
    with pytest.raises(StateOverflowError) as caught:
        IntegerNetwork(network).run(pixel(1000))
    message = str(caught.value)
    block = "block 1 (stem)" if name else "block 1"
    assert message.startswith(f"the current of {block} reaches {sign * 3000 * 4096} at step 2;")
    assert "-8388607 to 8388607 (24 bits)" in message


def test_an_overflow_tells_the_worst_value_of_either_sign() -> None:
    network = make({**DENSE, "features": 2}, AFFINE, input=GRADED, neuron={"threshold": 0.5, "current_decay": 0.0})
    with torch.no_grad():
        network.blocks[1].synapse.weight.copy_(torch.tensor([[-3.0], [0.5]]))
    with pytest.raises(StateOverflowError, match=rf"reaches {-3 * 1000 * 4096} at step 0"):
        IntegerNetwork(network).run(pixel(1000))


def test_a_voltage_that_leaves_24_bits_names_state_block_and_step() -> None:
    network = make(DENSE, AFFINE, input=GRADED, neuron={"threshold": 0.5, "current_decay": 1.0, "voltage_decay": 0.0})
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(-1)
    with pytest.raises(StateOverflowError, match=r"the voltage of block 1 reaches -12288000 at step 2;"):
        IntegerNetwork(network).run(pixel(1000))


def test_states_up_to_24_bits_are_held() -> None:
    neuron = {"current_decay": 1.0, "voltage_decay": 1.0}
    integer_neuron(neuron).run(pixel(2047))
    with pytest.raises(StateOverflowError, match="reaches 8388608 at step 0"):
        integer_neuron(neuron).run(pixel(2048))


def test_states_down_to_24_bits_are_held(native: bool) -> None:
    neuron = {"threshold": 0.5, "current_decay": 1.0, "voltage_decay": 1.0}
    network = make(DENSE, AFFINE, input=GRADED, neuron=neuron)
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(-1)
    integers = IntegerNetwork(network)
    integers.run(pixel(2047))
    with pytest.raises(StateOverflowError, match="of block 1 reaches -8388608 at step 0"):
        integers.run(pixel(2048))  # -2^23, which Lava wraps to 2^23 as a current and clips as a voltage


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    network = make(DENSE, AFFINE)
    with torch.no_grad():
        network.blocks[1].synapse.weight[0, 0] = value
    with pytest.raises(SnnZooError, match=r"blocks\.1\.synapse\.weight holds values that are not finite"):
        IntegerNetwork(network)


@pytest.mark.parametrize("graded", [False, True])
def test_a_network_with_a_weight_that_is_no_number_gives_no_number(graded: bool) -> None:
    blocks = [{"kind": "dense", "features": 20}, {"kind": "dense", "features": 20}, {"kind": "affine", "features": 3}]
    entry = {"shape": [9], "encoding": "graded"} if graded else {"shape": [9]}
    network = build_network(
        NetworkSpec.model_validate({"name": "test", "time_steps": 4, "input": entry, "blocks": blocks})
    )
    with torch.no_grad():
        network.blocks[3].synapse.weight[0, 0] = float("nan")
    assert network(torch.rand(2, 9)).isnan().any()


def test_the_network_goes_on_as_it_was() -> None:
    """Copies of a module share the class that holds its weight norm."""
    network = build_network(load_spec("mnist-dense-t4"), seed=0)
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    logits, names = network(images), set(network.state_dict())
    pickle.loads(pickle.dumps(IntegerNetwork(network)))
    assert torch.equal(network(images), logits)
    assert set(network.state_dict()) == names


def test_states_that_leave_24_bits_go_on_as_on_the_chip_where_that_is_wanted() -> None:
    spec = {
        "name": "loud",
        "time_steps": 30,
        "neuron": {"threshold": 1500.0, "current_decay": 0.0},
        "input": {"shape": [40], "encoding": "events"},
        "blocks": [{"kind": "dense", "features": 5}, {"kind": "affine", "features": 2}],
    }
    network = build_network(NetworkSpec.model_validate(spec), seed=0)
    with torch.no_grad():
        network.block(1).synapse.weight.fill_(4.0)
    events = torch.ones(30, 1, 40)
    with pytest.raises(StateOverflowError):
        IntegerNetwork(network)(events)
    exact = IntegerNetwork(network, overflow=Overflow.CHIP)
    _, trace = exact.run(events)
    assert exact.overflows[1] > 0
    assert not torch.equal(trace.spikes[1], network.run(events)[1].spikes[1].char())
    assert torch.equal(pickle.loads(pickle.dumps(exact))(events), exact(events))
    quiet = IntegerNetwork(network, overflow=Overflow.CHIP)
    assert torch.equal(quiet(events[:3]), network(events[:3]))
    assert not +quiet.overflows
