"""Weighted input of spikes in each step: numbers and gradients equal those of the definition."""

import numpy as np
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


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return a convolution without padding, `[T, N, O, H, W]`, written out."""
    side, size = weight.shape[-1], x.shape[-1] - weight.shape[-1] + 1
    z = np.zeros((*x.shape[:2], len(weight), size, size))
    for row in range(size):
        for column in range(size):
            seen = x[:, :, :, row : row + side, column : column + side]
            z[..., row, column] = np.einsum("tncab,ocab->tno", seen, weight)
    return z


def slope_of_delay(grad: np.ndarray, z: np.ndarray, delay: int) -> float:
    """Return the derivative by a delay of a sum of `grad`, times `z` that many steps later: both `[T, ...]`."""
    total = 0.0
    for t in range(len(z)):
        before, after = t - delay - 1, t - delay + 1 if delay else t  # a delay of 0 cannot be shorter
        earlier = z[before] if before >= 0 else 0 * z[0]
        later = z[after] if after >= 0 else 0 * z[0]
        total += float((grad[t] * (earlier - later)).sum()) / (2 if delay else 1)
    return total


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("kind", ["neuron", "synapse", "channel"])
def test_delays_have_the_gradient_of_the_equation(kind: str, bits: int, in_both, drawn_weight) -> None:
    """dL / dd = w sum_t (dL / dz[t]) (s[t - d - 1] - s[t - d + 1]) / 2, in NumPy."""
    generator = torch.Generator().manual_seed(3)
    maps, spec = ((3, 5, 5), ConvSpec(channels=4, kernel=(3, 3))) if kind == "channel" else ((7,), None)
    weight = drawn_weight(4, 3, 3, 3) if spec else drawn_weight(4, 7)
    x = (torch.rand(11, 2, *maps, generator=generator) * (1 << bits) - 0.5 * (bits == 1)).floor().clamp_min(0)
    delay = torch.randint(0, 13, (4, 7) if kind == "synapse" else (4,), generator=generator).float()
    delay.view(-1)[:2] = torch.tensor([0.0, 1.0])
    assert 0 < x.mean() < x.max()

    def run() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        leaves = delay.clone().requires_grad_(), weight.clone().requires_grad_()
        spikes = Spikes.of(x.double()) if bits > 1 else Spikes.of(x).packed()
        z = weigh_delayed(spikes, part_by_delay(Connection(leaves[1], spec), leaves[0]))
        grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(2)).to(z.dtype)
        return z.detach(), grad, *torch.autograd.grad(z, leaves, grad)

    numbers, w = x.double().numpy(), weight.double().numpy()
    undelayed = convolved(numbers, w) if spec else np.einsum("tni,oi->tno", numbers, w)
    for z, grad, of_delay, of_weight in in_both(run):
        g = grad.double().numpy()
        expected = np.zeros(delay.shape)
        for at in np.ndindex(*delay.shape):
            o, *inputs = at
            own = w[o, inputs[0]] * numbers[:, :, inputs[0]] if inputs else undelayed[:, :, o]
            expected[at] = slope_of_delay(g[:, :, o], own, int(delay[at]))
        np.testing.assert_allclose(of_delay, expected, atol=1e-3, rtol=1e-4)
        fixed = weight.clone().requires_grad_()
        spikes = Spikes.of(x.double())
        plain = weigh_delayed(spikes, part_by_delay(Connection(fixed, spec), delay))
        assert torch.equal(plain.detach().to(z.dtype), z)
        torch.testing.assert_close(torch.autograd.grad(plain, fixed, grad.double())[0], of_weight, atol=1e-4, rtol=1e-4)
