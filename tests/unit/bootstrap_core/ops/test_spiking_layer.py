"""Layers of synapses and neurons: spikes equal those of the definition, and gradients are close."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.functional.cuba import CubaState
from bootstrap_core.ops import precision
from bootstrap_core.ops.input_neurons import InputCurrent, input_spikes
from bootstrap_core.ops.library import is_installed, without_native
from bootstrap_core.ops.neurons import MOST_REACHED, NeuronConstants
from bootstrap_core.ops.precision import products_in
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import Fired, Operands, one_step_of_layer, spiking_layer
from bootstrap_core.ops.synapses import Connection
from specs.fields import Shape
from specs.layers.block import ConvSpec
from specs.training import Precision

IDENTITY = ConvSpec(channels=6, kernel=(1, 1), groups=6)
SAME = ConvSpec(channels=6, kernel=(3, 3), padding=(1, 1))
# for each source of a layer: shape, True if it is flattened, size of the weight, and geometry
LAYERS: dict[str, list[tuple[Shape, bool, Shape, ConvSpec | None]]] = {
    "dense": [((45,), False, (70, 45), None)],
    "one neuron": [((1,), False, (1, 1), None)],
    "maps in a row": [((3, 4, 5), True, (20, 60), None)],
    "maps to a row": [((3, 4, 5), False, (20, 60), None)],
    "two dense": [((45,), False, (33, 45), None), ((3, 4, 5), True, (33, 60), None)],
    "skip in a row": [((6,), False, (6, 6), None), ((6,), False, (6, 1, 1, 1), IDENTITY)],
    "conv": [((3, 6, 5), False, (20, 3, 3, 3), ConvSpec(channels=20, kernel=(3, 3), padding=(1, 1)))],
    "uneven padding": [
        ((3, 6, 5), False, (20, 3, 3, 3), ConvSpec(channels=20, kernel=(3, 3), stride=(2, 2), padding=(0, 0, 1, 2)))
    ],
    "kernel of rows": [((1, 7, 5), False, (3, 1, 1, 4), ConvSpec(channels=3, kernel=(1, 4), padding=(0, 2)))],
    "stride": [((2, 9, 8), False, (6, 2, 3, 2), ConvSpec(channels=6, kernel=(3, 2), stride=(2, 3)))],
    "dilation": [
        ((4, 9, 11), False, (5, 4, 3, 2), ConvSpec(channels=5, kernel=(3, 2), dilation=(2, 3), padding=(1, 0)))
    ],
    "beyond the edge": [
        ((3, 7, 5), False, (6, 3, 3, 2), ConvSpec(channels=6, kernel=(3, 2), padding=(1, 9), dilation=(1, 13)))
    ],
    "groups": [((4, 6, 5), False, (34, 2, 3, 3), ConvSpec(channels=34, kernel=(3, 3), padding=(1, 1), groups=2))],
    "many channels": [((9, 3, 3), False, (150, 9, 2, 2), ConvSpec(channels=150, kernel=(2, 2)))],
    "pool": [((20, 6, 4), False, (20, 1, 2, 2), ConvSpec(channels=20, kernel=(2, 2), stride=(2, 2), groups=20))],
    "wide pool": [
        ((3, 7, 8), False, (3, 1, 3, 3), ConvSpec(channels=3, kernel=(3, 3), stride=(2, 2), padding=(1, 1), groups=3))
    ],
    "uneven pool": [
        ((3, 7, 8), False, (3, 1, 3, 2), ConvSpec(channels=3, kernel=(3, 2), padding=(0, 1, 1, 0), groups=3))
    ],
    "skips": [
        ((6, 5, 4), False, (6, 6, 3, 3), SAME),
        ((6, 5, 4), False, (6, 1, 1, 1), IDENTITY),
        ((2, 5, 4), False, (6, 2, 3, 3), SAME),
        ((6, 5, 4), False, (6, 3, 3, 3), SAME.model_copy(update={"groups": 2})),
    ],
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "leaky": {"current_decay": torch.tensor([0.5])},
    "subtract": {"subtract": True, "voltage_decay": torch.tensor([0.25])},
    "shift": {"shift": True},
    "biased": {"bias": True},
    "one decay": {"current_decay": torch.tensor([0.625]), "learns": True},
    "decays": {
        "current_decay": torch.tensor([0.375]),
        "learns": True,
        "channels": True,
        "bias": True,
        "subtract": True,
    },
}

RECURRENT: dict[str, dict[str, Any]] = {
    f"recurrent, {name}": {"recurrent": True, **given} for name, given in KINDS.items()
}


def make_neurons(kind: str, channels: int) -> NeuronConstants:
    given = dict((KINDS | RECURRENT)[kind])
    learns, of_channels, biased = (given.pop(name, False) for name in ("learns", "channels", "bias"))
    if given.pop("recurrent", False):
        whole = torch.randint(-128, 128, (channels, channels), generator=torch.Generator().manual_seed(3))
        given["recurrent"] = (whole / 32).requires_grad_()
    decays = {"current_decay": torch.ones(1), "voltage_decay": torch.tensor([128 / 4096])}
    for name in decays:
        decay = given.pop(name, decays[name])
        decay = torch.linspace(0, 1, channels).mul(4096).round().div(4096) if of_channels else decay
        decays[name] = decay.clone().requires_grad_(learns)
    bias = torch.linspace(-20, 30, channels).round().div(64).requires_grad_() if biased else None
    return NeuronConstants(**decays, threshold=2.5, tau_grad=0.1, bias=bias, **given)


def learn(
    name: str, x: Sequence[Tensor], weights: Sequence[Tensor], kind: str = "plain", in_words: bool = True
) -> tuple[Fired, list[Tensor]]:
    """Run a layer; return its output, and the gradients of its sources, weights and neurons."""
    operands, leaves = list[Connection](), list[Tensor]()
    sources = list[Spikes]()
    for (_, flat, _, spec), given, weight in zip(LAYERS[name], x, weights, strict=True):
        leaves += [given.clone().requires_grad_(), weight.clone().requires_grad_()]
        operands.append(Connection(leaves[-1], spec))
        spikes = Spikes.of(leaves[-2])
        spikes = spikes.packed() if in_words else spikes
        sources.append(spikes.flatten() if flat else spikes)
    neurons = make_neurons(kind, operands[0].out_shape(sources[0].map_shape)[0])
    leaves += [each for each in neurons.tensors if each is not None and each.requires_grad]
    fired = spiking_layer(sources, Operands(tuple(operands), neurons), weighed=True)
    grad = torch.randn(fired.spikes.shape, generator=torch.Generator().manual_seed(7))
    return fired, list(torch.autograd.grad(fired.spikes.tensor(), leaves, grad))


@pytest.fixture
def drawn(drawn_spikes, drawn_weight) -> Callable[..., tuple[list[Tensor], list[Tensor]]]:
    """Return a function that draws spikes and weights of a layer."""

    def draw(name: str, steps: int, images: int = 3, rate: float = 0.3) -> tuple[list[Tensor], list[Tensor]]:
        layer = enumerate(LAYERS[name])
        pairs = [
            (drawn_spikes(steps, images, *shape, rate=rate, seed=i), drawn_weight(*size, seed=i) / 2)
            for i, (shape, _, size, _) in layer
        ]
        x, weights = zip(*pairs, strict=True)
        return list(x), [(weight * 32).round() / 32 for weight in weights]

    return draw


def hold_equal(found: Fired, expected: Fired) -> None:
    assert found.spikes.shape == expected.spikes.shape
    assert torch.equal(found.spikes.tensor(), expected.spikes.tensor())
    assert found.spikes.reached.bit_length() == expected.spikes.reached.bit_length()
    assert found.weighed is not None
    assert expected.weighed is not None
    assert found.weighed.shape == expected.weighed.shape
    torch.testing.assert_close(found.weighed, expected.weighed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 16, 32, 33, 70])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_the_definition(name: str, steps: int, drawn, in_both, hold_close) -> None:
    x, weights = drawn(name, steps)
    (fired, gradients), (expected, wanted) = in_both(lambda: learn(name, x, weights))
    assert (fired.spikes.words is not None) == is_installed()
    assert expected.spikes.words is None
    hold_equal(fired, expected)
    hold_close(gradients, wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_the_table_of_layers_fires_and_rests(name: str, drawn) -> None:
    fired, gradients = learn(name, *drawn(name, 16))
    rate = float(fired.spikes.tensor().detach().mean())
    assert 0.02 < rate < 0.98 or name == "one neuron"
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 9, 40])
@pytest.mark.parametrize("name", ["dense", "conv", "skips"])
def test_neurons_of_every_kind_equal_the_definition(name, steps, kind, drawn, in_both, hold_close) -> None:
    x, weights = drawn(name, steps)
    (fired, gradients), (expected, wanted) = in_both(lambda: learn(name, x, weights, kind))
    hold_equal(fired, expected)
    hold_close(gradients, wanted, 2e-5)


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("steps", [1, 9, 40])
@pytest.mark.parametrize("name", ["dense", "one neuron", "two dense"])
def test_recurrent_neurons_equal_the_definition(name, steps, kind, drawn, in_both, hold_close) -> None:
    x, weights = drawn(name, steps)
    (fired, gradients), (expected, wanted) = in_both(lambda: learn(name, x, weights, kind))
    assert (fired.spikes.words is not None) == is_installed()
    hold_equal(fired, expected)
    hold_close(gradients, wanted, 2e-5)


def test_recurrent_weights_move_spikes_and_have_a_gradient(drawn) -> None:
    x, weights = drawn("dense", 40)
    (fired, gradients), (without, _) = (learn("dense", x, weights, kind) for kind in ("recurrent, shift", "shift"))
    assert gradients[-1].any()
    assert not torch.equal(fired.spikes.tensor(), without.spikes.tensor())


def eighth(weight: Tensor) -> Tensor:
    """Return weights on their grid that keep the states within 24 bits."""
    return (weight * 4).round() / 32


@pytest.mark.parametrize(
    "kind", ["plain", "leaky", "subtract", "shift", "biased", "recurrent, shift", "recurrent, leaky"]
)
@pytest.mark.parametrize("name", ["dense", "two dense", "conv", "pool", "skips"])
@torch.no_grad()
def test_steps_one_at_a_time_are_one_run(name: str, kind: str, native: None, drawn) -> None:
    if kind in RECURRENT and "dense" not in name:
        pytest.skip("recurrent layers are dense")
    x, weights = drawn(name, 40)
    geometries = [spec for *_, spec in LAYERS[name]]
    operands = tuple(Connection(eighth(weight), spec) for weight, spec in zip(weights, geometries, strict=True))
    neurons = make_neurons(kind, len(weights[0]))
    neurons = replace(neurons, recurrent=None if neurons.recurrent is None else eighth(neurons.recurrent))
    flat = [flattened for _, flattened, _, _ in LAYERS[name]]

    def sources(steps: slice) -> list[Spikes]:
        given = [Spikes.of(each[steps]).packed() for each in x]
        return [spikes.flatten() if flattened else spikes for spikes, flattened in zip(given, flat, strict=True)]

    whole = spiking_layer(sources(slice(None)), Operands(operands, neurons), weighed=True)
    bound = sources(slice(0, 1))
    step = one_step_of_layer(bound, Operands(operands, neurons), weighed=True)
    assert step is not None
    for t, expected in enumerate(whole.spikes.tensor()):
        for held, now in zip(bound, sources(slice(t, t + 1)), strict=True):
            assert held.words is not None
            held.words.copy_(now.words)
        assert step.advance()
        assert torch.equal(step.spikes.tensor()[0], expected)
    assert whole.weighed is not None
    assert step.run.totals is not None
    totals = step.run.totals.movedim(-1, 1).reshape(whole.weighed.shape) / 32
    torch.testing.assert_close(totals, whole.weighed)

    z = sum(each.weigh(given.tensor()) for each, given in zip(operands, sources(slice(None)), strict=True))
    kept, start = step.state(), 0 * step.state().current
    states = neurons.states(z, z.dim() - 1, start=CubaState(start, start, start))
    current, voltage, fired = [tuple(each.clone() for each in state) for state in states][-1]
    assert torch.equal(
        voltage - voltage * fired if not neurons.subtract else voltage - 2.5 * 4096 * fired, kept.voltage
    )
    assert torch.equal(current, kept.current) or (neurons.forgets and neurons.recurrent is None)
    assert not (neurons.shift or neurons.recurrent is not None) or torch.equal(fired.double(), kept.spikes)


@torch.no_grad()
def test_a_step_beyond_24_bits_leaves_the_states_as_they_were(native: None) -> None:
    spikes = Spikes.of(torch.ones(1, 2, 3)).packed()
    neurons = NeuronConstants(torch.zeros(1), torch.ones(1), 10000.0)
    step = one_step_of_layer([spikes], Operands((Connection(torch.full((5, 3), 3.0)),), neurons))
    assert step is not None
    n = next(t for t in range(1000) if not step.advance())
    assert n == (2**23 - 1) // (9 * 4096)
    assert not step.advance()
    assert step.state().current.unique().tolist() == [9 * 4096 * n]


def test_what_the_library_does_not_run_has_no_single_steps(native: None) -> None:
    words, neurons = Spikes.of(torch.ones(1, 2, 3)).packed(), NeuronConstants(torch.ones(1), torch.ones(1), 1.0)
    operands = Operands((Connection(torch.ones(5, 3)),), neurons)
    assert one_step_of_layer([words], operands) is not None
    assert one_step_of_layer([Spikes.of(torch.ones(1, 2, 3))], operands) is None
    assert one_step_of_layer([words], Operands((Connection(torch.full((5, 3), torch.nan)),), neurons)) is None
    own = torch.full((5, 5), torch.inf)
    assert one_step_of_layer([words], Operands(operands.connections, replace(neurons, recurrent=own))) is None
    with without_native():
        assert one_step_of_layer([words], operands) is None


@pytest.mark.parametrize("name", ["dense", "maps in a row", "conv"])
def test_sources_may_be_numbers_of_any_layout(name: str, drawn, hold_close) -> None:
    x, weights = drawn(name, 9)
    fired, gradients = learn(name, x, weights)
    last = [each.movedim(0, -1).contiguous().movedim(-1, 0) for each in x]
    for given in (x, last):
        again, same = learn(name, given, weights, in_words=False)
        hold_equal(again, fired)
        hold_close(same, gradients)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "one neuron"])
def test_gradients_in_bfloat16_lose_little(name: str, native, drawn, hold_close, monkeypatch) -> None:
    x, weights = drawn(name, 16)
    fired, exact = learn(name, x, weights, "biased")
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    with products_in(Precision.BFLOAT16):
        again, rounded = learn(name, x, weights, "biased")
    hold_equal(again, fired)
    assert not all(torch.equal(a, b) for a, b in zip(rounded, exact, strict=True))
    hold_close(rounded, exact, 1e-2)


@pytest.mark.parametrize("name", ["dense", "conv", "groups", "skips"])
def test_threads_change_no_spike_and_next_to_no_gradient(name, drawn, with_threads, hold_close) -> None:
    x, weights = drawn(name, 33, images=7)
    results = []
    for n in (1, 2, 3):
        with_threads(n)
        results.append(learn(name, x, weights, "decays"))
    for fired, gradients in results[1:]:
        hold_equal(fired, results[0][0])
        hold_close(gradients, results[0][1], 2e-5)


@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("name", ["dense", "conv", "maps in a row", "skips"])
def test_no_image_and_one_have_spikes_and_gradients(name, images, drawn, in_both, hold_close) -> None:
    x, weights = drawn(name, 5, images)
    (fired, gradients), (expected, wanted) = in_both(lambda: learn(name, x, weights, "biased"))
    assert fired.spikes.n == images
    hold_equal(fired, expected)
    hold_close(gradients, wanted)
    assert images or not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", ["dense", "conv", "pool"])
def test_silent_images_give_weights_no_gradient_but_the_bias(name: str, drawn) -> None:
    x, weights = drawn(name, 5, rate=0.0)
    fired, (of_x, of_weight, of_bias) = learn(name, x, weights, "biased")
    assert not of_weight.any()
    assert of_x.any()
    assert of_bias.any()
    assert fired.weighed is not None
    assert not fired.weighed.any()


def test_what_synapses_weigh_is_told_only_if_asked(drawn_spikes, drawn_weight) -> None:
    x, connection = drawn_spikes(9, 2, 45), Connection(drawn_weight(33, 45))
    operands = Operands((connection,), make_neurons("plain", 33))
    assert spiking_layer([Spikes.of(x)], operands).weighed is None
    weighed = spiking_layer([Spikes.of(x)], operands, weighed=True).weighed
    torch.testing.assert_close(weighed, x.sum(0) @ connection.weight.T)


def test_operands_that_are_kept_give_the_same_again(drawn_spikes, drawn_weight) -> None:
    connection = Connection(drawn_weight(33, 45))
    operands = Operands((connection,), make_neurons("decays", 33))
    for steps in (5, 40, 5):
        x = drawn_spikes(steps, 2, 45, seed=steps)
        found = spiking_layer([Spikes.of(x)], operands).spikes.tensor()
        fresh = Operands((Connection(connection.weight),), make_neurons("decays", 33))
        assert torch.equal(found, spiking_layer([Spikes.of(x)], fresh).spikes.tensor())


@pytest.mark.parametrize("inputs", [65_535, 65_536])
def test_as_many_inputs_as_32_bits_take_and_more(inputs: int, in_both) -> None:
    """All inputs have the largest weight: their sums are 2^30 - 2^14 and 2^30 in state units."""
    operands = Operands(
        (Connection(torch.full((2, inputs), -4.0)),), NeuronConstants(torch.ones(1), torch.ones(1), 1.0)
    )
    spikes = Spikes.of(torch.ones(1, 1, inputs))
    found, expected = in_both(lambda: spiking_layer([spikes], operands).spikes)
    assert (found.words is not None) == (is_installed() and inputs < 65_536)
    assert expected.reached == inputs * 128 * 128
    assert found.reached.bit_length() == expected.reached.bit_length()
    assert not found.tensor().any()


@pytest.mark.parametrize(("sign", "steps", "leaves"), [(1, 16, False), (1, 17, True), (-1, 15, False), (-1, 16, True)])
def test_the_states_tell_whether_they_left_24_bits(sign: int, steps: int, leaves: bool, in_both) -> None:
    """32 inputs of -4 and a current without decay: after 16 steps it is -2^23, the first that does not fit."""
    weight = torch.full((1, 32), 4.0 * sign) if sign < 0 else torch.full((1, 32), 127 / 32)
    operands = Operands((Connection(weight),), NeuronConstants(torch.zeros(1), torch.ones(1), 1e5))
    for found in in_both(lambda: spiking_layer([Spikes.of(torch.ones(steps, 1, 32))], operands)):
        reached = steps * 32 * (128 if sign < 0 else 127) * 128
        assert (found.spikes.reached >= 1 << 23) == leaves
        assert found.spikes.reached.bit_length() == reached.bit_length()


@pytest.mark.parametrize("subtract", [False, True])
def test_states_that_32_bits_might_not_hold_are_left_to_the_definition(subtract, in_both, hold_close) -> None:
    never = torch.zeros(1)
    neurons = NeuronConstants(never, never, 150_000.0, subtract=subtract, tau_grad=0.01)
    x = torch.ones(40, 2, 700)
    x[:, 1, :500] = 0

    def run() -> tuple[Fired, Any]:
        leaf, weight = x.clone().requires_grad_(), torch.full((3, 700), 127 / 32)
        weight[1], weight[2] = -4.0, 0.0
        weight.requires_grad_()
        fired = spiking_layer([Spikes.of(leaf).packed()], Operands((Connection(weight),), neurons), weighed=True)
        return fired, torch.autograd.grad(fired.spikes.tensor().sum(), (leaf, weight))

    (fired, gradients), (expected, wanted) = in_both(run)
    assert fired.spikes.words is None
    assert fired.spikes.reached == expected.spikes.reached >= MOST_REACHED
    assert 0 < expected.spikes.tensor().sum() < 40
    hold_equal(fired, expected)
    hold_close(gradients, wanted)


@pytest.mark.parametrize("changed", ["weight", "words"])
def test_what_was_changed_in_place_since_has_no_gradient(changed, drawn_spikes, drawn_weight) -> None:
    if changed == "words" and not is_installed():
        pytest.skip("the definition does not keep words")
    weight, spikes = drawn_weight(33, 45).requires_grad_(), Spikes.of(drawn_spikes(9, 3, 45).requires_grad_()).packed()
    fired = spiking_layer([spikes], Operands((Connection(weight),), make_neurons("plain", 33)))
    with torch.no_grad():
        (weight if changed == "weight" else spikes.words).mul_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        fired.spikes.tensor().sum().backward()


def test_only_gradients_that_are_wanted_are_made(drawn_spikes, drawn_weight) -> None:
    x, weight = drawn_spikes(9, 3, 45), drawn_weight(33, 45)
    neurons = make_neurons("plain", 33)
    plain = spiking_layer([Spikes.of(x)], Operands((Connection(weight),), neurons))
    assert not plain.spikes.tensor().requires_grad
    learnt = weight.clone().requires_grad_()
    with torch.no_grad():
        fired = spiking_layer([Spikes.of(x)], Operands((Connection(learnt),), neurons))
    assert not fired.spikes.tensor().requires_grad
    leaf = x.clone().requires_grad_()
    spiking_layer([Spikes.of(leaf)], Operands((Connection(learnt.detach()),), neurons)).spikes.tensor().sum().backward()
    assert leaf.grad.any()
    assert learnt.grad is None


STEADY: dict[str, tuple[Shape, bool, Shape, ConvSpec | None]] = {
    "dense": ((40,), False, (33, 40), None),
    "maps in a row": ((2, 4, 5), True, (33, 40), None),
    "maps to a row": ((2, 4, 5), False, (33, 40), None),
    "conv": ((2, 6, 5), False, (7, 2, 3, 3), ConvSpec(channels=7, kernel=(3, 3), padding=(1, 1))),
    "pool": ((2, 6, 4), False, (2, 1, 2, 2), ConvSpec(channels=2, kernel=(2, 2), stride=(2, 2), groups=2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("steps", [1, 9, 40])
@pytest.mark.parametrize("name", STEADY)
def test_input_neurons_learn_through_the_layer(
    name, steps, shift, dtype, in_both, drawn_weight, hold_close, monkeypatch
) -> None:
    """Their gradients are computed from their currents, without gradients of their spikes."""
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    shape, flat, size, spec = STEADY[name]
    images = torch.rand(5, *shape).sub(0.4).clamp_min(0)
    weight = drawn_weight(*size)

    def run() -> tuple[Fired, list[Tensor]]:
        numbers = torch.tensor([1.5], requires_grad=True), torch.tensor([0.25], requires_grad=True)
        learnt = weight.clone().requires_grad_()
        inputs = NeuronConstants(torch.ones(1), torch.tensor([128 / 4096]), 0.75, tau_grad=0.1, shift=shift)
        spikes = input_spikes(images, InputCurrent(*numbers, 0.1, 0.5), inputs, steps)
        sources = [spikes.flatten() if flat else spikes]
        neurons = make_neurons("plain", len(weight))
        fired = spiking_layer(sources, Operands((Connection(learnt, spec),), neurons), weighed=True)
        grad = torch.randn(fired.spikes.shape, generator=torch.Generator().manual_seed(7))
        return fired, list(torch.autograd.grad(fired.spikes.tensor(), (*numbers, learnt), grad))

    half = dtype == torch.bfloat16
    with products_in(Precision.BFLOAT16 if half else Precision.FLOAT32):
        (fired, gradients), (expected, wanted) = in_both(run)
    hold_equal(fired, expected)
    both = [[torch.cat(each[:2]), each[2]] for each in (gradients, wanted)]
    hold_close(*both, 1e-2 if half else 1e-4)


FLAT_IDENTITY = """
import torch
from bootstrap_core.ops.library import without_native
from bootstrap_core.ops.neurons import NeuronConstants
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import Operands, spiking_layer
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import weigh
from specs.layers.block import ConvSpec

x = (torch.rand(9, 2, 3, 4, 5) < 0.5).float()
spikes = Spikes.of(x).packed().flatten()
dense = Connection(torch.randint(-50, 50, (60, 60)) / 32)
weight = torch.linspace(-3, 3, 60).mul(32).round().div(32).view(60, 1, 1, 1)
identity = Connection(weight, ConvSpec(channels=60, kernel=(1, 1), groups=60))
operands = Operands((dense, identity), NeuronConstants(torch.ones(1), torch.zeros(1), 0.5))
with without_native():
    expected = spiking_layer([spikes, spikes], operands).spikes.tensor(), weigh(spikes, identity)
found = spiking_layer([spikes, spikes], operands).spikes.tensor(), weigh(spikes, identity)
assert all(torch.equal(a, b) for a, b in zip(found, expected))
assert torch.equal(expected[1], x.flatten(2) * identity.weight.flatten())
"""  # fmt: skip


def test_maps_in_a_row_skip_to_the_neurons_in_their_place() -> None:
    """It runs in a separate process, since a read beyond the memory would end it."""
    done = subprocess.run([sys.executable, "-c", FLAT_IDENTITY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_results_are_float32_whatever_the_default(drawn, hold_close) -> None:
    x, weights = drawn("conv", 9)
    fired, gradients = learn("conv", x, weights, "decays")
    torch.set_default_dtype(torch.float64)
    try:
        spikes = Spikes.of(x[0].requires_grad_()).packed()
        leaves = x[0], weights[0].requires_grad_()
        neurons = make_neurons("decays", 20)
        neurons = replace(
            neurons,
            current_decay=neurons.current_decay.detach().float().requires_grad_(),
            voltage_decay=neurons.voltage_decay.detach().float().requires_grad_(),
            bias=neurons.bias.detach().float().requires_grad_(),
        )
        again = spiking_layer([spikes], Operands((Connection(leaves[1], LAYERS["conv"][0][3]),), neurons), weighed=True)
        grad = torch.randn(fired.spikes.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float32)
        tensors = (*leaves, *(each for each in neurons.tensors if each is not None))
        same = torch.autograd.grad(again.spikes.tensor(), tensors, grad)
    finally:
        torch.set_default_dtype(torch.float32)
    hold_equal(again, fired)
    hold_close(same, gradients)
