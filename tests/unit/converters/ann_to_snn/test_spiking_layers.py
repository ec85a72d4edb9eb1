"""An ANN as a list of layers that can spike: with ideal neurons they equal the ANN."""

import pytest
import torch
from ideal_layers import forward, weigh

from converters.ann_to_snn.spiking_layers import MaxPooling, SpikingLayer, activations_first, prepared, spiking_layers
from converters.linear import ann as nets
from converters.linear.ann import Ann, Node, run_ann
from specs import ConvSpec, UnsupportedError

GENERATOR = torch.Generator().manual_seed(0)


def conv(channels: int, inputs: int, kernel: int = 3, **options) -> nets.Conv:
    return nets.Conv(torch.randn(channels, inputs, kernel, kernel, generator=GENERATOR),
                     torch.randn(channels, generator=GENERATOR), **options)  # fmt: skip


def dense(outputs: int, inputs: int) -> nets.Dense:
    return nets.Dense(torch.randn(outputs, inputs, generator=GENERATOR), torch.randn(outputs, generator=GENERATOR))


def chain(shape: tuple[int, ...], *operations: nets.Operation) -> Ann:
    """Return an ANN that is a chain of operations, with shapes."""
    nodes, name, x = [], "input", torch.zeros(1, *shape)
    for i, operation in enumerate(operations):
        x = nets.apply_operation(operation, x)
        nodes.append(Node(f"{type(operation).__name__}{i}", operation, (name,), tuple(x.shape[1:])))
        name = nodes[-1].name
    return Ann(shape, tuple(nodes))


def graph(shape: tuple[int, ...], *nodes: tuple[str, nets.Operation, str]) -> Ann:
    """Return an ANN of nodes `(name, operation, names of its inputs)`, with shapes; `x` is the image."""
    made, outputs = [], {"x": torch.zeros(1, *shape)}
    for name, operation, inputs in nodes:
        outputs[name] = nets.apply_operation(operation, *(outputs[i] for i in inputs.split()))
        made.append(Node(name, operation, tuple(inputs.split()), tuple(outputs[name].shape[1:])))
    return Ann(shape, tuple(made), input_name="x")


AVERAGED = {
    "dense": ((6,), dense(5, 6), nets.Relu(), dense(3, 5)),
    "dense on maps": ((2, 3, 3), nets.Flatten(), dense(5, 18), nets.Relu(), dense(3, 5)),
    "conv": ((2, 6, 6), conv(3, 2, stride=(2, 1), padding=(1, 0)), nets.Relu(), nets.Flatten(), dense(4, 36)),
    "uneven conv": ((2, 6, 7), conv(3, 2, stride=(2, 1), padding=(0, 1, 1, 0)), nets.Relu(), nets.Flatten(),
                    dense(4, 54)),
    "uneven average": ((1, 7, 7), conv(2, 1), nets.Relu(), nets.AvgPool((2, 2), (2, 2), (0, 0, 1, 1)), nets.Flatten(),
                       dense(4, 18)),
    "uneven conv as logits": ((1, 6, 6), conv(2, 1), nets.Relu(), conv(4, 2, stride=(2, 2), padding=(0, 0, 1, 2)),
                              nets.Flatten()),
    "average into conv": ((1, 8, 8), conv(2, 1), nets.Relu(), nets.AvgPool((2, 2), (2, 2)), conv(3, 2), nets.Relu(),
                          nets.Flatten(), dense(4, 3)),
    "average into dense": ((1, 8, 8), conv(2, 1), nets.Relu(), nets.AvgPool((3, 3), (3, 3)), nets.Flatten(),
                           dense(4, 8)),
    "two averages": ((1, 10, 10), conv(2, 1), nets.Relu(), nets.AvgPool((2, 2), (2, 2)), nets.AvgPool((2, 2), (2, 2)),
                     nets.Flatten(), dense(4, 8)),
    "average before its activation": ((1, 8, 8), conv(2, 1), nets.AvgPool((2, 2), (2, 2)), nets.Clip(1.5),
                                      nets.Flatten(), dense(4, 18)),
    "global average as logits": ((1, 6, 6), conv(4, 1), nets.Relu(), nets.AvgPool((4, 4), (4, 4)), nets.Flatten()),
    "conv as logits": ((1, 6, 6), conv(2, 1), nets.Relu(), conv(4, 2), nets.AvgPool((2, 2), (2, 2)), nets.Flatten()),
    "leaky dense": ((6,), dense(5, 6), nets.LeakyRelu(0.3), dense(4, 5), nets.LeakyRelu(0.1), dense(3, 4)),
    "leaky conv": ((1, 8, 8), conv(2, 1), nets.LeakyRelu(0.3), nets.AvgPool((2, 2), (2, 2)), conv(3, 2),
                   nets.PRelu(torch.tensor([0.1, 0.2, 0.5])), nets.Flatten(), dense(4, 3)),
    "leaky into dense": ((1, 6, 6), conv(2, 1), nets.LeakyRelu(0.2), nets.AvgPool((2, 2), (2, 2)), nets.Flatten(),
                         dense(4, 8)),
    "dense after dense": ((6,), dense(5, 6), dense(4, 5), nets.Relu(), dense(3, 4)),
    "leaky into groups": ((1, 8, 8), conv(4, 1), nets.LeakyRelu(0.3), nets.AvgPool((2, 2), (2, 2)),
                          conv(6, 2, groups=2), nets.PRelu(torch.linspace(0.1, 0.6, 6)), nets.Flatten(), dense(4, 6)),
    "leaky, depthwise, pointwise": ((3, 7, 7), conv(4, 3), nets.LeakyRelu(0.3), conv(4, 1, groups=4), conv(5, 4, 1),
                                    nets.LeakyRelu(0.2), nets.Flatten(), dense(4, 45)),
    "depthwise scale": ((2, 5, 5), conv(2, 1, 1, groups=2), conv(3, 2), nets.LeakyRelu(0.1), nets.Flatten(),
                        dense(4, 27)),
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGED)
def test_with_ideal_neurons_the_layers_are_the_ann(name) -> None:
    shape, *operations = AVERAGED[name]
    ann = chain(shape, *operations)
    layers = spiking_layers(ann, MaxPooling.ERROR)
    x = torch.randn(7, *shape, generator=GENERATOR)
    wanted, _ = run_ann(ann, x)
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
    assert [layer.activation is None for layer in layers] == [False] * (len(layers) - 1) + [True]


@pytest.mark.parametrize("padding", [(0, 0, 1, 1), (2, 0, 0, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("max_pooling", [MaxPooling.ANY, MaxPooling.SUM, MaxPooling.AVERAGE])
def test_any_padding_of_a_maximum(padding, max_pooling) -> None:
    size = ConvSpec(channels=2, kernel=3, stride=2, padding=padding).output_shape((2, 6, 6))
    first, second, last = conv(2, 1), conv(3, 2, 1), dense(4, 3 * size[1] * size[2])
    windows = (3, 3), (2, 2), padding

    def ann(pool: nets.Operation) -> Ann:
        return chain((1, 8, 8), first, nets.Relu(), pool, second, nets.Relu(), nets.Flatten(), last)

    layers = spiking_layers(prepared(ann(nets.MaxPool(*windows)), max_pooling), max_pooling)
    assert any(layer.is_any for layer in layers) == (max_pooling is MaxPooling.ANY)
    replacement = nets.AvgPool(*windows) if max_pooling is MaxPooling.AVERAGE else nets.MaxPool(*windows)
    x = torch.randn(7, 1, 8, 8, generator=GENERATOR)
    wanted, _ = run_ann(ann(replacement), x)
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", ["activation", "maximum"])
def test_maxima_by_any_are_the_maxima_whichever_comes_first(first) -> None:
    pair = [nets.Relu(), nets.MaxPool((2, 2), (2, 2))]
    order = pair if first == "activation" else pair[::-1]
    ann = chain((1, 9, 9), conv(2, 1), *order, conv(3, 2), nets.Relu(), nets.Flatten(), dense(4, 3))
    moved = activations_first(ann)
    x = torch.randn(7, 1, 9, 9, generator=GENERATOR)
    wanted, _ = run_ann(ann, x)
    assert torch.equal(run_ann(moved, x)[0], wanted)
    layers = spiking_layers(moved, MaxPooling.ANY)
    assert [layer.is_any for layer in layers] == [False, True, False, False]
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
    first, second = (1, 2) if first == "activation" else (2, 1)
    assert [layer.target for layer in layers] == [ann.nodes[i].name for i in (first, second, 4, 6)]


def test_a_maximum_moves_behind_others_too_whoever_reads_the_activation() -> None:
    pool = nets.MaxPool((2, 2), (1, 1))
    nodes = (
        *STEM[:1],
        ("m", pool, "c0"),
        ("n", pool, "m"),
        ("r", RELU, "n"),
        ("c1", same(2, 2), "r"),
        ("s", ADD, "c1 r"),
    )
    ann = graph((1, 6, 6), *nodes, *head(32, "s"))
    moved = activations_first(ann)
    assert [(node.name, node.inputs) for node in moved.nodes[1:6]] == [
        ("r", ("c0",)), ("m", ("r",)), ("n", ("m",)), ("c1", ("n",)), ("s", ("c1", "n")),
    ]  # fmt: skip
    x = torch.randn(7, 1, 6, 6, generator=GENERATOR)
    assert torch.equal(run_ann(moved, x)[0], run_ann(ann, x)[0])


def test_maxima_by_average_are_folded_away() -> None:
    ann = chain((1, 9, 9), conv(2, 1), nets.Relu(), nets.MaxPool((2, 2), (2, 2)), nets.Flatten(), dense(4, 18))
    layers = spiking_layers(activations_first(ann), MaxPooling.AVERAGE)
    assert [layer.is_any for layer in layers] == [False, False]
    assert layers[1].before == (2, 7, 7)


def test_what_has_no_spiking_layers_is_refused() -> None:
    maxima = chain((1, 9, 9), conv(2, 1), nets.Relu(), nets.MaxPool((2, 2), (2, 2)), nets.Flatten(), dense(4, 18))
    with pytest.raises(UnsupportedError, match=r"max pooling is refused \('error' was chosen\): MaxPool2"):
        spiking_layers(maxima, MaxPooling.ERROR)


# --- sums of branches

RELU, ADD, MEAN, FLATTEN = nets.Relu(), nets.Add(), nets.AvgPool((2, 2), (2, 2)), nets.Flatten()


def same(channels: int, inputs: int, **options) -> nets.Conv:
    """Return a convolution that keeps the size of feature maps."""
    return conv(channels, inputs, padding=(1, 1), **options)


def half(channels: int, inputs: int, **options) -> nets.Conv:
    return conv(channels, inputs, padding=(1, 1), stride=(2, 2), **options)


def head(inputs: int, before: str) -> tuple[tuple[str, nets.Operation, str], ...]:
    return ("flat", FLATTEN, before), ("logits", dense(3, inputs), "flat")


STEM = (("c0", same(2, 1), "x"), ("r0", RELU, "c0"))
IDENTITY = (("c1", same(2, 2), "r0"), ("r1", RELU, "c1"), ("c2", same(2, 2), "r1"), ("s2", ADD, "c2 r0"),
            ("r2", RELU, "s2"))  # fmt: skip
SUMS = {
    "identity": ((1, 6, 6), [[], [], [(1, "diagonal")], []], *STEM, *IDENTITY, *head(72, "r2")),
    "identity first": ((1, 6, 6), [[], [], [(1, "diagonal")], []], *STEM, *IDENTITY[:3], ("s2", ADD, "r0 c2"),
                       ("r2", RELU, "s2"), *head(72, "r2")),
    "strided projection": (
        (1, 6, 6), [[], [], [(1, "Conv")], []], *STEM, ("c1", half(4, 2), "r0"), ("r1", RELU, "c1"),
        ("c2", same(4, 4), "r1"), ("p", conv(4, 2, 1, stride=(2, 2)), "r0"), ("s2", ADD, "c2 p"), ("r2", RELU, "s2"),
        *head(36, "r2"),
    ),
    "two in a row": (
        (1, 6, 6), [[], [], [(1, "diagonal")], [], [(3, "diagonal")], []], *STEM, *IDENTITY,
        ("c3", same(2, 2), "r2"), ("r3", RELU, "c3"), ("c4", same(2, 2), "r3"), ("s4", ADD, "c4 r2"),
        ("r4", RELU, "s4"), *head(72, "r4"),
    ),
    "nested": (
        (1, 6, 6), [[], [], [(1, "diagonal")], [(1, "diagonal")], []], *STEM, *IDENTITY, ("c3", same(2, 2), "r2"),
        ("s3", ADD, "c3 r0"), ("r3", RELU, "s3"), *head(72, "r3"),
    ),
    "scaled after the sum": (
        (1, 6, 6), [[], [], [(1, "diagonal")], []], *STEM, *IDENTITY[:4], ("n", conv(2, 1, 1, groups=2), "s2"),
        ("r2", RELU, "n"), *head(72, "r2"),
    ),
    "averages on either branch": (
        (1, 8, 8), [[], [], [(1, "Conv")], []], *STEM, ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"),
        ("c2", same(2, 2), "r1"), ("a2", MEAN, "c2"), ("a0", MEAN, "r0"), ("s2", ADD, "a2 a0"), ("r2", RELU, "s2"),
        *head(32, "r2"),
    ),
    "an average and weights after the sum": (
        (1, 6, 6), [[], [], [(1, "Conv")], []], *STEM, ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"),
        ("s1", ADD, "r1 r0"), ("a1", MEAN, "s1"), ("c2", same(3, 2), "a1"), ("r2", RELU, "c2"), *head(27, "r2"),
    ),
    "no activation before a dense layer": (
        (1, 6, 6), [[], [], [(1, "Dense")]], *STEM, ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"),
        ("s1", ADD, "r1 r0"), *head(72, "s1"),
    ),
    "no activation before flattened neurons": (
        (1, 6, 6), [[], [], [(1, "Dense")], []], *STEM, ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"),
        ("s1", ADD, "r1 r0"), ("f", FLATTEN, "s1"), ("d", dense(5, 72), "f"), ("r2", RELU, "d"),
        ("logits", dense(3, 5), "r2"),
    ),
    "logits": ((4,), [[], [(1, "diagonal")]], ("d0", dense(4, 4), "x"), ("r0", RELU, "d0"), ("d1", dense(4, 4), "r0"),
               ("s", ADD, "d1 r0")),
    "logits of maps": ((1, 4, 4), [[], [], [(1, "Dense")]], *STEM, ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"),
                       ("s", ADD, "r1 r0"), ("a", nets.AvgPool((4, 4), (4, 4)), "s"), ("f", FLATTEN, "a")),
    "sum of activations, active": (
        (1, 6, 6), [[], [], [(1, "diagonal")], []], *STEM, ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"),
        ("s1", ADD, "r1 r0"), ("r2", RELU, "s1"), *head(72, "r2"),
    ),
    "flat": ((4,), [[], [], [(1, "diagonal")], []], ("d0", dense(5, 4), "x"), ("r0", RELU, "d0"),
             ("d1", dense(6, 5), "r0"), ("r1", RELU, "d1"), ("d2", dense(5, 6), "r1"), ("s", ADD, "d2 r0"),
             ("r2", RELU, "s"), ("logits", dense(3, 5), "r2")),
    "twice itself": ((4,), [[], [(1, "Dense")], []], ("d0", dense(5, 4), "x"), ("r0", RELU, "d0"),
                     ("s", ADD, "r0 r0"), ("d1", dense(6, 5), "s"), ("r1", RELU, "d1"), ("logits", dense(3, 6), "r1")),
    "from the image": ((1, 6, 6), [[], [(0, "Conv")], []], *STEM, ("c1", same(2, 2), "r0"), ("p", conv(2, 1, 1), "x"),
                       ("s1", ADD, "c1 p"), ("r1", RELU, "s1"), *head(72, "r1")),
    "weights before their activation": (
        (1, 6, 6), [[], [], [(0, "Conv")], [], [(0, "Conv"), (2, "Conv")]], *STEM, ("c1", same(2, 2), "r0"),
        ("r1", RELU, "c1"), ("c2", same(2, 2), "r1"), ("s2", ADD, "c0 c2"), ("r2", RELU, "s2"),
        ("c3", same(2, 2), "r2"), ("r3", RELU, "c3"), ("c4", same(2, 2), "r3"), ("s4", ADD, "s2 c4"),
        ("r4", RELU, "s4"),
    ),
    "leaky": (
        (1, 6, 6), [[], [], [(1, "Conv")], []], ("c0", same(2, 1), "x"), ("r0", nets.LeakyRelu(0.3), "c0"),
        ("c1", same(2, 2), "r0"), ("r1", RELU, "c1"), ("c2", same(2, 2), "r1"), ("s2", ADD, "c2 r0"),
        ("r2", nets.PRelu(torch.tensor([0.1, 0.4])), "s2"), *head(72, "r2"),
    ),
    "leaky and flat": (
        (4,), [[], [], [(1, "Dense")]], ("d0", dense(5, 4), "x"), ("r0", nets.LeakyRelu(0.3), "d0"),
        ("d1", dense(5, 5), "r0"), ("r1", RELU, "d1"), ("s", ADD, "r1 r0"), ("logits", dense(3, 5), "s"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("narrow", [1, 40])
@pytest.mark.parametrize("name", SUMS)
def test_sums_become_skips_that_are_the_ann(name, narrow, monkeypatch) -> None:
    monkeypatch.setattr("converters.ann_to_snn.spiking_layers.NARROW", narrow)
    shape, skips, *nodes = SUMS[name]
    ann = graph(shape, *nodes)
    layers = spiking_layers(activations_first(ann), MaxPooling.ERROR)
    x = torch.randn(7, *shape, generator=GENERATOR)
    wanted, _ = run_ann(ann, x)
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
    kinds = [[(s.source, type(s.linear).__name__ if s.diagonal is None else "diagonal") for s in layer.skips]
             for layer in layers]  # fmt: skip
    if narrow == 1:  # otherwise each unit has several neurons, and identities are not diagonal
        assert kinds == skips


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_units_of_a_narrow_layer_have_several_neurons(slope) -> None:
    activation = nets.LeakyRelu(slope) if slope else nets.Relu()
    ann = chain((4,), dense(30, 4), activation, dense(200, 30), activation, dense(3, 200))
    first, second, _ = spiking_layers(ann, MaxPooling.ERROR)
    each = 6 if slope else 5  # smallest number that gives 128 neurons, equal for both signs
    assert first.after == (30 * each,)
    assert second.after == ((400,) if slope else (200,))
    gains = first.population.drive[0].abs()
    assert float(gains.max() / gains.min()) == pytest.approx(4)
    x = torch.randn(50, 4, generator=GENERATOR)
    z, y = (run_ann(ann, x, keep=True)[1][ann.nodes[i].name].double() for i in (0, 1))
    driven = weigh(first.linear, x.double())
    torch.testing.assert_close(driven.float(), first.weighed(z).float())
    torch.testing.assert_close(driven.clamp_min(0).float(), first.wanted(y).float())


def test_what_ends_in_neurons_has_as_many_logits_as_classes() -> None:
    ann = chain((4,), dense(5, 4), nets.Relu())
    layers = spiking_layers(ann, MaxPooling.ERROR)
    assert [layer.after for layer in layers] == [(130,), (5,)]
    x = torch.randn(7, 4, generator=GENERATOR)
    torch.testing.assert_close(forward(layers, x).float(), run_ann(ann, x)[0], rtol=1e-4, atol=1e-4)


def test_a_maximum_that_others_read_too_stays_before_its_activation() -> None:
    nodes = (*STEM[:1], ("m", nets.MaxPool((2, 2), (2, 2)), "c0"), ("r", RELU, "m"), ("s", ADD, "m r"))
    ann = graph((1, 6, 6), *nodes, *head(18, "s"))
    moved = activations_first(ann)
    assert moved == ann


def test_a_maximum_of_an_activation_may_be_skipped_from() -> None:
    nodes = (*STEM, ("m", nets.MaxPool((2, 2), (2, 2)), "r0"), ("c1", same(2, 2), "m"), ("s", ADD, "c1 m"))
    ann = graph((1, 6, 6), *nodes, ("r1", RELU, "s"), *head(18, "r1"))
    layers = spiking_layers(ann, MaxPooling.ANY)
    assert [[skip.source for skip in layer.skips] for layer in layers] == [[], [], [2], []]
    x = torch.randn(7, 1, 6, 6, generator=GENERATOR)
    torch.testing.assert_close(forward(layers, x).float(), run_ann(ann, x)[0], rtol=1e-4, atol=1e-4)


REFUSED = {
    "padded maximum of a sum": (
        (("c1", same(2, 2), "r0"), ("s", ADD, "c1 r0"), ("m", nets.MaxPool((2, 2), (2, 2), (1, 1)), "s")),
        r"node m \(MaxPool\): max pooling with padding needs an activation just before it, and not a leaky one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_sums_without_spiking_layers_are_refused_by_name(name) -> None:
    nodes, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        spiking_layers(prepared(graph((1, 6, 6), *STEM, *nodes), MaxPooling.ANY), MaxPooling.ANY)


def test_a_maximum_stays_before_an_activation_that_falls() -> None:
    falling = nets.PRelu(torch.tensor([0.25, -0.5]))
    ann = chain((1, 9, 9), conv(2, 1), nets.MaxPool((2, 2), (2, 2)), falling, nets.Flatten(), dense(4, 18))
    assert activations_first(ann) == ann


def test_a_maximum_of_the_image_is_averaged_or_refused() -> None:
    ann = chain((1, 8, 8), nets.MaxPool((2, 2), (2, 2)), nets.Flatten(), dense(5, 16), nets.Relu(), dense(3, 5))
    assert len(spiking_layers(ann, MaxPooling.AVERAGE)) == 2
    with pytest.raises(UnsupportedError, match="max pooling of the image"):
        spiking_layers(ann, MaxPooling.ANY)


def test_a_sum_that_doubles_each_time_is_refused() -> None:
    doubled = [(f"s{i + 1}", ADD, f"s{i} s{i}") for i in range(40)]
    with pytest.raises(UnsupportedError, match=r"node s7 \(Add\): a sum of 128 branches; at most 64"):
        spiking_layers(graph((1, 6, 6), *STEM, ("s0", same(2, 2), "r0"), *doubled), MaxPooling.ANY)


@pytest.mark.parametrize(
    ("shape", "operations"),
    [
        ((3, 160, 160), [conv(2, 3, 160), nets.Flatten()]),
        ((1, 12, 12), [conv(64, 1), nets.Flatten(), nets.Relu(), dense(3, 6400)]),
        ((1, 28, 28), [conv(64, 1), nets.Flatten(), dense(10, 43264)]),
    ],
    ids=["few outputs", "many outputs", "a dense layer behind"],
)
def test_a_convolution_becomes_a_dense_layer_in_the_memory_of_its_weights(shape, operations) -> None:
    ann = chain(shape, *operations)
    with torch.profiler.profile(profile_memory=True) as profile:
        layers = spiking_layers(ann, MaxPooling.ANY)
    largest = max(layer.linear.weight.numel() for layer in layers) * 8
    assert sum(max(0, event.self_cpu_memory_usage) for event in profile.events()) < 4 * largest + (32 << 20)
    x = torch.randn(2, *shape, generator=GENERATOR)
    torch.testing.assert_close(forward(layers, x).float(), run_ann(ann, x)[0], rtol=1e-4, atol=1e-2)


# --- concatenated channels, and linear nodes with neurons of their own


CAT = nets.Concat()


def selecting(inputs: int, *channels: int, **options) -> nets.Conv:
    """Return a convolution that copies channels; -1 stands for zeros."""
    weight = torch.zeros(len(channels), inputs, 1, 1)
    for i, channel in enumerate(channels):
        weight[i, channel] = float(channel >= 0)
    return nets.Conv(weight, torch.zeros(len(channels)), **options)


BRANCHES = (*STEM, ("c1", same(3, 2), "r0"), ("r1", RELU, "c1"), ("c2", same(4, 2), "r0"), ("r2", RELU, "c2"))
GRAPHS = {
    "parallel activations": (*BRANCHES, ("c3", same(3, 4), "r2"), ("r3", RELU, "c3"), ("s", ADD, "r1 r3"),
                             *head(108, "s")),
    "concatenated rectifiers": (*BRANCHES, ("k", CAT, "r1 r2"), ("c3", same(5, 7), "k"), ("r3", RELU, "c3"),
                                *head(180, "r3")),
    "concatenated into dense": (*BRANCHES, ("k", CAT, "r1 r2"), *head(252, "k")),
    "concatenated features": (*BRANCHES, ("f1", FLATTEN, "r1"), ("f2", FLATTEN, "r2"), ("k", CAT, "f1 f2"),
                              ("logits", dense(3, 252), "k")),
    "concatenated, pooled": (*BRANCHES, ("k", CAT, "r1 r2"), ("a", nets.AvgPool((6, 6), (6, 6)), "k"), *head(7, "a")),
    "concatenated, scaled, active": (
        *BRANCHES, ("k", CAT, "r1 r0 r2"), ("n", conv(9, 1, 1, groups=9), "k"), ("r3", RELU, "n"),
        ("c3", conv(3, 9, 1), "r3"), ("k2", CAT, "r3 c3"), ("n2", conv(12, 1, 1, groups=12), "k2"),
        ("r4", nets.PRelu(torch.linspace(0, 0.5, 12)), "n2"), ("c4", same(2, 12), "r4"), ("r5", RELU, "c4"),
        *head(72, "r5"),
    ),
    "concatenated linear": (*STEM, ("c1", same(3, 2), "r0"), ("k", CAT, "c1 r0 x"), ("r1", RELU, "k"),
                            ("c2", same(2, 3, groups=2), "r1"), ("r2", RELU, "c2"), *head(72, "r2")),
    "in groups": (*BRANCHES, ("k", CAT, "r1 r0 r1"), ("c3", same(4, 4, groups=2), "k"), ("r3", RELU, "c3"),
                  *head(144, "r3")),
    "shuffled": (
        *BRANCHES, ("k", CAT, "r2 r0"), ("p", selecting(6, 0, 3, 1, 4, 2, 5), "k"),
        ("left", selecting(6, 0, 1, 2), "p"), ("right", selecting(6, 3, 4, 5), "p"),
        ("d", same(3, 1, groups=3), "right"), ("c3", conv(3, 3, 1), "d"), ("r3", RELU, "c3"), ("k2", CAT, "left r3"),
        ("p2", selecting(6, 0, 2, 4, 1, 3, 5), "k2"), ("d2", half(6, 1, groups=6), "p2"), ("c4", conv(4, 6, 1), "d2"),
        ("r4", RELU, "c4"), *head(36, "r4"),
    ),
    "shuffled, active": (
        *STEM, ("c1", same(4, 2), "r0"), ("p", selecting(4, 3, 0, 2), "c1"), ("n", conv(3, 1, 1, groups=3), "p"),
        ("r1", RELU, "n"), ("p1", selecting(3, 2, 0, 1), "r1"), ("c2", same(2, 3), "p1"), ("r2", RELU, "c2"),
        *head(72, "r2"),
    ),
    "copied channels": (*STEM, ("p", selecting(2, 0, 1, 0, -1), "r0"), ("c1", same(3, 4), "p"), ("r1", RELU, "c1"),
                        *head(108, "r1")),
    "shortcut without weights": (
        *STEM, ("c1", half(4, 2), "r0"), ("r1", RELU, "c1"), ("c2", same(4, 4), "r1"),
        ("p", selecting(2, -1, 0, 1, -1, stride=(2, 2)), "r0"), ("s", ADD, "c2 p"), ("r2", RELU, "s"), *head(36, "r2"),
    ),
    "linear bottlenecks": (
        *STEM, ("e1", conv(8, 2, 1), "r0"), ("r1", nets.Clip(6.0), "e1"), ("d1", same(8, 1, groups=8), "r1"),
        ("r2", nets.Clip(6.0), "d1"), ("p1", conv(3, 8, 1), "r2"), ("e2", conv(12, 3, 1), "p1"),
        ("r3", nets.Clip(6.0), "e2"), ("d2", same(12, 1, groups=12), "r3"), ("r4", nets.Clip(6.0), "d2"),
        ("p2", conv(3, 12, 1), "r4"), ("s", ADD, "p1 p2"), ("e3", conv(9, 3, 1), "s"), ("r5", RELU, "e3"),
        *head(324, "r5"),
    ),
    "bias before padding": (*STEM, ("n", conv(2, 1, 1, groups=2), "r0"), ("c1", same(3, 2), "n"), ("r1", RELU, "c1"),
                            ("s", ADD, "r1 r1"), *head(108, "s")),
    "average before padding": (*STEM, ("a", nets.AvgPool((3, 3), (2, 2)), "r0"), ("c1", same(3, 2), "a"),
                               ("r1", RELU, "c1"), *head(12, "r1")),
    "activations in a row": (*STEM, ("n", nets.Clip(0.5), "r0"), ("m", RELU, "x"), ("k", CAT, "n m"), *head(108, "k")),
    "residual of rectifiers": (*BRANCHES[:-2], ("c2", same(3, 3), "r1"), ("n", conv(3, 1, 1, groups=3), "r1"),
                               ("s", ADD, "c2 n"), *head(108, "s")),
}  # fmt: skip


@pytest.mark.parametrize("most", [0, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_any_graph_of_linear_nodes_and_rectifiers_is_the_ann(name, most, monkeypatch) -> None:
    monkeypatch.setattr("converters.ann_to_snn.spiking_layers.MOST_COPIES", most)
    monkeypatch.setattr("converters.ann_to_snn.spiking_layers.MOST_MORE_WEIGHTS", 1 + most)
    monkeypatch.setattr("converters.ann_to_snn.spiking_layers.NARROW", 1)
    ann = graph((1, 6, 6), *GRAPHS[name])
    layers = spiking_layers(activations_first(ann), MaxPooling.ERROR)
    x = torch.randn(7, 1, 6, 6, generator=GENERATOR)
    wanted, outputs = run_ann(ann, x, keep=True)
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
    for layer in layers[:-1]:
        z = layer.weighed(outputs[layer.weighted].double())
        assert z.shape[1:] == layer.after
        activation = nets.Relu() if layer.population is not None else layer.activation
        assert torch.allclose(layer.wanted(outputs[layer.target]).double(), nets.apply_operation(activation, z),
                              atol=1e-4)  # fmt: skip


def weights_of(layers: list[SpikingLayer]) -> list[int]:
    return [sum(map(torch.numel, [layer.linear.weight, *(s.linear.weight for s in layer.skips)])) for layer in layers]


def test_a_convolution_of_concatenated_channels_has_the_weights_of_each_part() -> None:
    layers = spiking_layers(graph((1, 6, 6), *GRAPHS["concatenated rectifiers"]), MaxPooling.ERROR)
    assert weights_of(layers)[3] == 5 * 7 * 9
    assert layers[3].sources == (3, 2)


def test_a_linear_bottleneck_has_neurons_only_where_folding_is_dearer(monkeypatch) -> None:
    def layers_of(ann: nets.Ann) -> list[SpikingLayer]:
        return spiking_layers(ann, MaxPooling.ERROR)

    bottlenecks = graph((1, 6, 6), *GRAPHS["linear bottlenecks"])
    wide = chain((4, 6, 6), conv(2, 4, 1), conv(3, 2, 1), RELU, FLATTEN, dense(3, 108))
    narrow = chain((4, 6, 6), conv(1, 4, 1), conv(4, 1, 1), RELU, FLATTEN, dense(3, 144))
    assert [layer.target for layer in layers_of(bottlenecks)] == ["r0", "r1", "r2", "r3", "r4", "r5", "logits"]
    assert weights_of(layers_of(narrow)) == [4 * 4, 3 * 144]
    monkeypatch.setattr("converters.ann_to_snn.spiking_layers.MOST_MORE_WEIGHTS", 1)
    layers = layers_of(bottlenecks)
    assert [layer.target for layer in layers] == ["r0", "r1", "r2", "p1", "r3", "r4", "s", "r5", "logits"]
    assert [layer.after[0] for layer in layers if layer.target in "p1 s"] == [6, 6]
    assert weights_of(layers_of(wide)) == [3 * 4, 3 * 108]  # 12 instead of 8 + 6
    assert weights_of(layers_of(narrow)) == [2 * 4, 2 * 4, 3 * 144]  # not 16


def test_maxima_of_concatenated_channels_are_those_of_each_part() -> None:
    pool = nets.MaxPool((3, 3), (2, 2), (1, 1))
    nodes = (*BRANCHES, ("k", CAT, "r1 r2"), ("m", pool, "k"), ("c3", same(3, 7), "m"), ("r3", RELU, "c3"))
    ann = graph((1, 6, 6), *nodes, *head(27, "r3"))
    layers = spiking_layers(ann, MaxPooling.ANY)
    assert [layer.is_any for layer in layers] == [False, False, False, True, True, False, False]
    x = torch.randn(7, 1, 6, 6, generator=GENERATOR)
    torch.testing.assert_close(forward(layers, x).float(), run_ann(ann, x)[0], rtol=1e-4, atol=1e-4)


def test_what_many_layers_read_is_computed_once() -> None:
    nodes = [*STEM, ("c1", same(2, 2), "r0")]
    for i in range(9):
        nodes += [(f"n{i}", conv(2, 1, 1, groups=2), "c1"), (f"a{i}", RELU, f"n{i}"), (f"s{i}", ADD, f"a{i} a{i}")]
    layers = spiking_layers(graph((1, 6, 6), *nodes, ("k", CAT, " ".join(f"s{i}" for i in range(9))), *head(648, "k")),
                            MaxPooling.ERROR)  # fmt: skip
    assert [layer.target for layer in layers] == ["r0", "c1", *(f"a{i}" for i in range(9)), "logits"]


def test_an_activation_of_channels_that_nothing_reads_has_no_layer() -> None:
    nodes = (*STEM, ("c1", same(2, 1), "x"), ("k", CAT, "r0 c1"), ("r1", nets.Clip(1.0), "k"))
    nodes += (("p", selecting(4, 2, 3), "r1"), ("c2", same(2, 2), "p"), ("r2", RELU, "c2"))
    ann = graph((1, 6, 6), *nodes, *head(72, "r2"))
    layers = spiking_layers(ann, MaxPooling.ERROR)
    assert [layer.target for layer in layers] == ["r1", "r2", "logits"]
    x = torch.randn(7, 1, 6, 6, generator=GENERATOR)
    torch.testing.assert_close(forward(layers, x).float(), run_ann(ann, x)[0], rtol=1e-4, atol=1e-4)


MAXIMA = {
    "of a leaky activation": (("l", nets.LeakyRelu(0.3), "c0"), ("m", nets.MaxPool((2, 2), (2, 2)), "l"),
                              *head(18, "m")),
    "of a sum": (("r0", RELU, "c0"), ("s", ADD, "c0 r0"), ("m", nets.MaxPool((3, 2), (1, 2)), "s"),
                 ("c1", same(3, 2), "m"), ("r1", RELU, "c1"), *head(36, "r1")),
    "of the image": (("m", nets.MaxPool((2, 2), (1, 1)), "x"), ("c1", same(3, 1), "m"), ("r1", RELU, "c1"),
                     *head(75, "r1")),
    "of linear parts": (("k", CAT, "c0 x"), ("m", nets.MaxPool((2, 1), (2, 1)), "k"), *head(54, "m")),
}  # fmt: skip


@pytest.mark.parametrize("name", MAXIMA)
def test_maxima_of_what_is_not_rectified_are_sums_of_rectifiers(name) -> None:
    ann = graph((1, 6, 6), STEM[0], *MAXIMA[name])
    ready = prepared(ann, MaxPooling.ANY)
    x = torch.randn(7, 1, 6, 6, generator=GENERATOR)
    wanted, _ = run_ann(ann, x)
    torch.testing.assert_close(run_ann(ready, x)[0], wanted)
    layers = spiking_layers(ready, MaxPooling.ANY)
    torch.testing.assert_close(forward(layers, x).float(), wanted, rtol=1e-4, atol=1e-4)
