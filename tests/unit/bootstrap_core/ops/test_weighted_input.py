"""Weighted input of spikes in each step: numbers and gradients equal those of the definition."""

import pytest
import torch

from bootstrap_core.ops import precision
from bootstrap_core.ops.library import is_installed
from bootstrap_core.ops.precision import products_in
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import part_by_delay, weigh, weigh_delayed
from specs.layers.block import ConvSpec
from specs.training import Precision

CASES = {
    "dense": ((45,), (33, 45), None),
    "maps in a row": ((3, 4, 5), (20, 60), None),
    "maps": ((3, 4, 5), (20, 60), None),
    "conv": (
        (3, 7, 6), (5, 3, 3, 2),
        ConvSpec(channels=5, kernel=(3, 2), stride=(2, 1), padding=(1, 2, 0, 1), dilation=(1, 2)),
    ),
    "groups": ((4, 6, 5), (34, 2, 3, 3), ConvSpec(channels=34, kernel=(3, 3), padding=(1, 1), groups=2)),
    "pool": ((20, 6, 4), (20, 1, 2, 2), ConvSpec(channels=20, kernel=(2, 2), stride=(2, 2), groups=20)),
    "identity in a row": ((19,), (19, 1, 1, 1), ConvSpec(channels=19, kernel=(1, 1), groups=19)),
}  # fmt: skip


def learn(name, x, weight, in_words=True):
    """Return the weighted input, and the gradients of the spikes and of the weight."""
    _, _, spec = CASES[name]
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    spikes = Spikes.of(leaves[0])
    spikes = spikes.packed() if in_words else spikes
    z = weigh(spikes.flatten() if name == "maps in a row" else spikes, Connection(leaves[1], spec))
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    return z.detach(), torch.autograd.grad(z, leaves, grad)


@pytest.mark.parametrize("steps", [1, 16, 33, 70])
@pytest.mark.parametrize("name", CASES)
def test_words_are_weighed_as_numbers_are(name, steps, in_both, drawn_spikes, drawn_weight, hold_close) -> None:
    shape, size, _ = CASES[name]
    x, weight = drawn_spikes(steps, 3, *shape), drawn_weight(*size)
    (z, found), (expected, wanted) = in_both(lambda: learn(name, x, weight))
    assert z.dtype == torch.float32
    assert torch.equal(z, expected)
    hold_close(found, wanted)
    numbers, others = learn(name, x, weight, in_words=False)
    assert torch.equal(numbers, expected)
    hold_close(others, wanted)


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_bfloat16_lose_little(name, native, drawn_spikes, drawn_weight, hold_close, monkeypatch) -> None:
    shape, size, _ = CASES[name]
    x, weight = drawn_spikes(16, 3, *shape), drawn_weight(*size)
    z, exact = learn(name, x, weight)
    monkeypatch.setattr(precision, "HALF_FROM", 1)
    with products_in(Precision.BFLOAT16):
        again, rounded = learn(name, x, weight)
    assert torch.equal(again, z)
    assert not torch.equal(rounded[1], exact[1])
    hold_close(rounded, exact, 1e-2)


def test_one_step_that_stands_for_all_is_weighed_once(in_both, drawn_weight) -> None:
    one, weight = torch.rand(1, 3, 45), drawn_weight(33, 45)
    for z in in_both(lambda: weigh(Spikes.of(one.expand(9, -1, -1)), Connection(weight))):
        assert torch.equal(z, torch.nn.functional.linear(one, weight))


def test_sums_of_graded_messages_are_exact_in_float64(drawn_weight) -> None:
    """float32 would round these sums."""
    pixels = torch.full((1, 1, 5000), 65535.0, dtype=torch.float64).expand(4, -1, -1)
    z = weigh(Spikes.of(pixels), Connection(torch.full((1, 5000), 127 / 32)))
    assert z.dtype == torch.float64
    assert z.shape == (1, 1, 1)
    assert z.item() * 32 == 65535 * 127 * 5000 > 1 << 24
    several = weigh(Spikes.of(pixels.contiguous()), Connection(torch.full((1, 5000), 127 / 32)))
    assert several.shape == (4, 1, 1)
    assert torch.equal(several, z.expand(4, -1, -1))


def test_sums_of_many_spikes_are_exact(in_both) -> None:
    """The sum of 66,001 inputs is 8.4 million steps of a weight, more than the 32-bit states of a layer allow."""
    x = torch.ones(2, 1, 66_001)
    for z in in_both(lambda: weigh(Spikes.of(x).packed(), Connection(torch.full((1, 66_001), 127 / 32)))):
        assert (z * 32).flatten().tolist() == [127 * 66_001] * 2


def test_no_image_is_weighed_and_has_no_gradient() -> None:
    weight = torch.ones(4, 3, 2, 2, requires_grad=True)
    spikes = Spikes.of(torch.zeros(5, 0, 3, 4, 4)).packed()
    z = weigh(spikes, Connection(weight, ConvSpec(channels=4, kernel=(2, 2))))
    assert z.shape == (5, 0, 4, 3, 3)
    z.sum().backward()
    assert not weight.grad.any()


def test_masked_spikes_have_the_gradients_of_those_that_are_kept(
    in_both, drawn_spikes, drawn_weight, hold_close
) -> None:
    x, weight, kept = drawn_spikes(9, 3, 45), drawn_weight(33, 45), drawn_spikes(3, 45, rate=0.5) != 0

    def run():
        leaf, learnt = x.clone().requires_grad_(), weight.clone().requires_grad_()
        z = weigh(Spikes.of(leaf).packed().masked(kept), Connection(learnt))
        return z.detach(), torch.autograd.grad(z.square().sum(), (leaf, learnt))

    (z, found), (expected, wanted) = in_both(run)
    assert torch.equal(z, (x * kept) @ weight.T)
    assert torch.equal(z, expected)
    hold_close(found, wanted)
    assert not found[0][:, ~kept].any()


@pytest.mark.parametrize("changed", ["weight", "words"])
def test_what_was_changed_in_place_since_has_no_gradient(changed, drawn_spikes, drawn_weight) -> None:
    if changed == "words" and not is_installed():
        pytest.skip("the definition does not keep words")
    weight = drawn_weight(33, 45).requires_grad_()
    spikes = Spikes.of(drawn_spikes(9, 3, 45).requires_grad_()).packed()
    z = weigh(spikes, Connection(weight))
    with torch.no_grad():
        (weight if changed == "weight" else spikes.words).mul_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_only_gradients_that_are_wanted_are_made(drawn_spikes, drawn_weight) -> None:
    x, weight = drawn_spikes(9, 3, 45), drawn_weight(33, 45)
    assert not weigh(Spikes.of(x).packed(), Connection(weight)).requires_grad
    learnt, leaf = weight.clone().requires_grad_(), x.clone().requires_grad_()
    weigh(Spikes.of(x).packed(), Connection(learnt)).sum().backward()
    assert torch.equal(learnt.grad, x.sum((0, 1)).expand(33, -1))
    weigh(Spikes.of(leaf).packed(), Connection(weight)).sum().backward()
    torch.testing.assert_close(leaf.grad, weight.sum(0).expand(9, 3, -1))


@pytest.mark.parametrize("shape", [(5,), (5, 7)])
def test_delayed_synapses_weigh_what_came_some_steps_before(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(11, 2, 7, generator=generator) < 0.4).float()
    weight = torch.randint(-9, 9, (5, 7), generator=generator) / 32
    delay = torch.randint(0, 13, shape, generator=generator).float()
    late = delay.expand(5, 7) if len(shape) == 2 else delay[:, None].expand(5, 7)
    expected = torch.zeros(11, 2, 5)
    for t in range(11):
        for o in range(5):
            for i in range(7):
                before = t - int(late[o, i])
                expected[t, :, o] += weight[o, i] * x[before, :, i] if before >= 0 else 0
    for spikes in (Spikes.of(x), Spikes.of(x).packed(), Spikes.of(x.double())):
        assert torch.equal(weigh_delayed(spikes, part_by_delay(Connection(weight), delay)).float(), expected)


def test_a_channel_of_a_convolution_is_late_as_a_whole() -> None:
    x = (torch.rand(6, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    connection = Connection(torch.randint(-9, 9, (4, 3, 3, 3)) / 32, ConvSpec(channels=4, kernel=(3, 3)))
    z = connection.weigh(x)
    late = weigh_delayed(Spikes.of(x).packed(), part_by_delay(connection, torch.tensor([0.0, 1.0, 5.0, 9.0])))
    assert torch.equal(late[:, :, 0], z[:, :, 0])
    assert torch.equal(late[1:, :, 1], z[:-1, :, 1])
    assert torch.equal(late[5:, :, 2], z[:1, :, 2])
    assert not late[:5, :, 2].any()
    assert not late[:, :, 3].any()


def test_a_steady_input_is_late_too() -> None:
    pixels = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    z = weigh_delayed(
        Spikes.of(pixels.expand(4, 1, 2)), part_by_delay(Connection(torch.ones(2, 2)), torch.tensor([0.0, 2.0]))
    )
    assert z[:, 0].tolist() == [[4, 0], [4, 0], [4, 4], [4, 4]]
