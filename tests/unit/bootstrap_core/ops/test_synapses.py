"""Synapses: weighted input, the layout of weights for the native library, and gradients compared with torch's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.functional.convolution import conv2d
from bootstrap_core.ops import precision, synapses
from bootstrap_core.ops.library import LANES
from bootstrap_core.ops.precision import products_in
from bootstrap_core.ops.spikes import Spikes, SteadyInput, pack
from bootstrap_core.ops.synapses import Connection
from specs.fields import Shape
from specs.layers.block import ConvSpec
from specs.training import Precision

CONVOLUTIONS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "kernel 1": ((5, 4, 3), {"channels": 20}),
    "one channel": ((1, 6, 5), {"channels": 7, "kernel": (3, 3)}),
    "padding": ((3, 6, 7), {"channels": 33, "kernel": (3, 3), "padding": (1, 1)}),
    "uneven padding": ((3, 6, 7), {"channels": 5, "kernel": (3, 2), "stride": (2, 2), "padding": (0, 2, 1, 0)}),
    "wide padding": ((2, 3, 4), {"channels": 3, "kernel": (3, 2), "padding": (4, 5)}),
    "stride": ((2, 9, 8), {"channels": 6, "kernel": (3, 2), "stride": (2, 3)}),
    "dilation": ((4, 9, 11), {"channels": 5, "kernel": (3, 2), "dilation": (2, 3), "padding": (1, 0)}),
    "all": ((3, 11, 9), {"channels": 5, "kernel": (5, 3), "stride": (2, 1), "padding": (2, 1), "dilation": (1, 2)}),
    "beyond the edge": ((3, 7, 5), {"channels": 6, "kernel": (3, 2), "padding": (1, 9), "dilation": (1, 13)}),
    "groups": ((4, 6, 5), {"channels": 6, "kernel": (3, 3), "padding": (1, 1), "groups": 2}),
    "uneven groups": ((6, 5, 6), {"channels": 51, "kernel": (2, 3), "stride": (1, 2), "groups": 3}),
    "two for each channel": ((3, 5, 4), {"channels": 6, "kernel": (2, 2), "groups": 3}),
    "uneven padding of groups": ((4, 6, 5), {"channels": 6, "kernel": (3, 3), "padding": (0, 1, 2, 0), "groups": 2}),
    "uneven pool": ((20, 7, 6), {"channels": 20, "kernel": (3, 2), "padding": (0, 1, 2, 0), "groups": 20}),
    "depthwise": ((20, 7, 6), {"channels": 20, "kernel": (3, 2), "stride": (2, 1), "padding": (1, 0), "groups": 20}),
    "dilated depthwise": ((5, 9, 8), {"channels": 5, "kernel": (3, 3), "dilation": (2, 3), "groups": 5}),
    "identity": ((17, 3, 4), {"channels": 17, "groups": 17}),
}
DENSE: dict[str, tuple[Shape, int, bool]] = {
    "dense": ((45,), 33, False),
    "one of each": ((1,), 1, False),
    "two outputs of many": ((130,), 2, False),
    "maps in a row": ((3, 4, 5), 20, True),
    "maps": ((3, 4, 5), 20, False),
}
NAMES = [*CONVOLUTIONS, *DENSE, "identity in a row"]


def make(name: str, drawn_weight: Any) -> tuple[Shape, bool, Connection]:
    """Return the shape of a population, True if it is flattened, and the synapses that read it."""
    if name in CONVOLUTIONS:
        shape, numbers = CONVOLUTIONS[name]
        spec = ConvSpec(**{"kernel": (1, 1), **numbers})
        return shape, False, Connection(drawn_weight(spec.channels, shape[0] // spec.groups, *spec.kernel), spec)
    if name == "identity in a row":
        return (19,), False, Connection(drawn_weight(19, 1, 1, 1), ConvSpec(channels=19, kernel=(1, 1), groups=19))
    of, outputs, flat = DENSE[name]
    return of, flat, Connection(drawn_weight(outputs, torch.Size(of).numel()))


def by_torch(x: Tensor, connection: Connection) -> Tensor:
    """Return torch's product for `[T, N, ...]`, step by step."""
    geometry, weight = connection.geometry, connection.weight
    if geometry is None:
        return torch.stack([step.flatten(1) @ weight.T for step in x])
    if x.dim() == 3:
        return x * weight.flatten()
    return torch.stack([conv2d(step, weight, geometry) for step in x])


def to_record(grad: Tensor) -> Tensor:
    """Convert a gradient `[T, N, O, ...]` to `[N, T, H, W, O]`."""
    maps = grad if grad.dim() == 5 else grad[..., None, None]
    return maps.permute(1, 0, 3, 4, 2).contiguous()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_weighed_is_the_product_of_torch(name: str, drawn_spikes, drawn_weight) -> None:
    shape, flat, connection = make(name, drawn_weight)
    x = drawn_spikes(5, 2, *shape)
    x = x.flatten(2) if flat else x
    expected = by_torch(x, connection)
    for found in (connection.weigh(x), connection.weigh(x.double()).float()):
        assert found.shape[2:] == connection.out_shape(shape)
        assert torch.equal(found, expected)
    assert connection.weigh(x.double()).dtype == torch.float64


def test_one_neuron_goes_to_the_one_in_its_place() -> None:
    """An identity skip of a layer with one feature has a single group."""
    x = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    connection = Connection(torch.full((1, 1, 1, 1), 0.5), ConvSpec(channels=1, kernel=(1, 1), groups=1))
    assert connection.out_shape((1,)) == (1,)
    assert torch.equal(connection.weigh(x), 0.5 * x)


def test_weights_lie_by_group_vector_and_four_of_inputs(native, drawn_weight) -> None:
    """The layout is `[groups, vectors, taps, 16 outputs, 4 inputs]`, padded with zeros."""
    connection = Connection(drawn_weight(18, 6))
    weight, taps = connection.packed((6,)), connection.wiring((6,)).layout[1]
    assert weight.dtype == torch.int8
    assert taps.shape == (2,)
    lying = weight.view(2, 2, LANES, 4).permute(0, 2, 1, 3).reshape(2 * LANES, 8).float() * WEIGHT_STEP
    assert torch.equal(lying[:18, :6], connection.weight)
    assert not lying[18:].any()
    assert not lying[:, 6:].any()


def test_weights_of_maps_in_a_row_lie_as_the_maps_do(native, drawn_weight) -> None:
    connection = Connection(drawn_weight(3, 2 * 2 * 3))
    weight = connection.packed((2, 2, 3))
    lying = weight.view(3, LANES, 4).permute(1, 0, 2).reshape(LANES, 12).float() * WEIGHT_STEP
    expected = connection.weight.view(3, 2, 2, 3).permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(lying[:3], expected)


def test_weights_of_one_channel_each_lie_by_place_and_channel(native, drawn_weight) -> None:
    spec = ConvSpec(channels=5, kernel=(2, 3), groups=5)
    connection = Connection(drawn_weight(5, 1, 2, 3), spec)
    weight = connection.packed((5, 4, 4))
    assert torch.equal(weight.float() * WEIGHT_STEP, connection.weight.flatten(1).T)


def test_packed_weights_are_kept_for_each_shape(native, drawn_weight) -> None:
    connection = Connection(drawn_weight(3, 24))
    assert connection.packed((24,)) is connection.packed((24,))
    assert connection.packed((2, 3, 4)) is not connection.packed((24,))
    assert not torch.equal(connection.packed((2, 3, 4)), connection.packed((24,)))


def test_weights_that_learn_and_lie_in_any_order_are_packed(native, drawn_weight) -> None:
    weight = drawn_weight(20, 7)
    lying = weight.T.contiguous().T.requires_grad_()
    assert torch.equal(Connection(lying).packed((7,)), Connection(weight).packed((7,)))


BY_SUMS_AND_BY_PRODUCTS = pytest.mark.parametrize(
    ("dtype", "tiles"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)


@BY_SUMS_AND_BY_PRODUCTS
@pytest.mark.parametrize("steps", [1, 7, 16, 35])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_torch(
    name, steps, dtype, tiles, native, drawn_spikes, drawn_weight, hold_close, monkeypatch
) -> None:
    monkeypatch.setattr(synapses, "multiplies_tiles", lambda: tiles)
    shape, flat, connection = make(name, drawn_weight)
    x = drawn_spikes(steps, 3, *shape).requires_grad_()
    learnt = Connection(connection.weight.clone().requires_grad_(), connection.geometry)
    z = by_torch(x.flatten(2) if flat else x, learnt)
    grad = torch.randn(z.shape).to(dtype)
    of_x, of_weight = torch.autograd.grad(z, (x, learnt.weight), grad.float())
    spikes = Spikes.of(x).packed()
    spikes = spikes.flatten() if flat else spikes
    found = connection.source_gradient(to_record(grad), spikes)
    assert found.dtype in {dtype, torch.float32}
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2  # bfloat16 rounds products
    hold_close([found.float().view_as(x)], [of_x], tolerance)
    hold_close([connection.weight_gradient(to_record(grad), spikes)], [of_weight], tolerance)


@pytest.mark.parametrize(
    ("geometry", "dtype", "tiles", "part", "expected"),
    [
        (None, torch.bfloat16, False, 0.4, False),
        (None, torch.bfloat16, False, 0.6, True),
        (None, torch.bfloat16, True, 0.0, True),
        (None, torch.float32, True, 1.0, False),
        (ConvSpec(channels=4, kernel=(1, 1)), torch.bfloat16, True, 1.0, False),
    ],
)
def test_products_are_taken_where_they_are_faster(geometry, dtype, tiles, part, expected, monkeypatch) -> None:
    monkeypatch.setattr(synapses, "multiplies_tiles", lambda: tiles)
    connection, inputs = Connection(torch.zeros(4, 10), geometry), torch.arange(10) < 10 * part
    assert connection._multiplies(torch.zeros(1, dtype=dtype), inputs) is expected


@pytest.mark.parametrize("rate", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("name", ["dense", "padding", "maps in a row"])
def test_few_spikes_and_many_have_the_same_gradient(name, rate, native, drawn_spikes, drawn_weight, hold_close) -> None:
    shape, _, connection = make(name, drawn_weight)
    x = drawn_spikes(35, 4, *shape, rate=rate)
    learnt = Connection(connection.weight.clone().requires_grad_(), connection.geometry)
    z = by_torch(x.flatten(2) if name == "maps in a row" else x, learnt)
    grad = torch.randn(z.shape)
    z.backward(grad)
    found = connection.weight_gradient(to_record(grad), Spikes.of(x).packed())
    hold_close([found], [learnt.weight.grad])
    assert bool(found.any()) == (rate > 0)


@pytest.mark.parametrize("name", ["dense", "all", "groups", "depthwise"])
def test_the_gradient_hardly_depends_on_the_threads(
    name, native, drawn_spikes, drawn_weight, with_threads, hold_close
) -> None:
    shape, _, connection = make(name, drawn_weight)
    spikes = Spikes.of(drawn_spikes(35, 19, *shape)).packed()
    grad = to_record(torch.randn(35, 19, *connection.out_shape(shape)))
    found = []
    for n in (1, 2, 3):
        with_threads(n)
        found.append(connection.weight_gradient(grad, spikes))
    hold_close(found[1:], [found[0]] * 2)


def test_multiplications_are_those_of_all_steps_and_places() -> None:
    x = torch.zeros(7, 2, 3, 6, 5)
    spec = ConvSpec(channels=4, kernel=(3, 2), stride=(2, 1))
    assert Connection(torch.zeros(4, 3, 3, 2), spec).multiplications(Spikes.of(x)) == 7 * 2 * (2 * 4) * 4 * 3 * 6
    assert Connection(torch.zeros(11, 90)).multiplications(Spikes.of(x).flatten()) == 7 * 2 * 11 * 90


@pytest.mark.parametrize(("least", "dtype"), [(7 * 2 * 11 * 30, torch.bfloat16), (7 * 2 * 11 * 30 + 1, torch.float32)])
def test_large_products_take_the_type_that_is_allowed(least: int, dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setattr(precision, "HALF_FROM", least)
    connection, spikes = Connection(torch.zeros(11, 30)), Spikes.of(torch.zeros(7, 2, 30))
    with products_in(Precision.BFLOAT16):
        assert connection.gradient_dtype(spikes) == dtype
    assert connection.gradient_dtype(spikes) == torch.float32


@BY_SUMS_AND_BY_PRODUCTS
@pytest.mark.parametrize("background", [0.25, None])
@pytest.mark.parametrize("steps", [1, 35])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_input_neurons_are_sums_over_their_pixels(
    name, steps, background, dtype, tiles, native, drawn_weight, hold_close, monkeypatch
) -> None:
    """Pixels are mostly background, or all different; the layout is that of `SteadyInput`."""
    monkeypatch.setattr(synapses, "multiplies_tiles", lambda: tiles)
    shape, flat, connection = make(name, drawn_weight)
    n = 4
    levels = torch.randint(20, (n, *shape))
    if background is not None:
        levels = torch.where(torch.rand(n, *shape) < 0.7, torch.tensor(0), levels)
    pixels, slopes = levels / 20 + (background or 0.0), torch.rand(20, steps)

    def lying(x: Tensor) -> Tensor:
        return (x if x.dim() == 2 else x.movedim(1, -1)).flatten(1).contiguous()

    one = torch.ones(1)
    steady = SteadyInput(lying(levels).int(), lying(pixels), slopes, one, one, 0.5, 0.25)
    x = torch.zeros(steps, n, *shape, dtype=torch.float64, requires_grad=True)
    double = Connection(connection.weight.double(), connection.geometry)
    z = by_torch(x.flatten(2) if flat else x, double)
    grad = torch.randn(z.shape).to(dtype)
    (of_x,) = torch.autograd.grad(z, x, grad.double())
    of_current = (of_x * slopes[levels].movedim(-1, 0)).sum(0)
    expected = torch.cat(steady.gradients(float((of_current * pixels).sum()), float(of_current.sum())))
    spikes = Spikes(steps, shape, words=pack(x.detach()), is_flat=flat, steady=steady)
    found = torch.cat(connection.input_gradients(to_record(grad), spikes))
    size = float(of_current.abs().sum()) / 0.25
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < (1e-6 if dtype == torch.float32 else 1e-3) * size
