"""Calibration of layers with skips: every source has its own units, and all share one grid."""

from dataclasses import replace

import pytest
import torch

from bootstrap_core import IntegerNetwork
from bootstrap_core.data.splits import Split
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.best_candidate import EVERY_FORM, SpikingForms, best_candidate, images_wanted
from converters.ann_to_snn.calibrate import InputForm, calibrate
from converters.ann_to_snn.judge import Judge
from converters.ann_to_snn.spiking_layers import MaxPooling, spiking_layers
from converters.linear import ann as nets
from converters.linear.ann import Ann, Node, run_ann
from converters.linear.image_normalization import AS_THEY_ARE, Normalization
from converters.linear.linear_fold import Conv, Dense, scale_inputs
from specs import UnsupportedError, skips_of
from specs.layers.input import Encoding
from specs.layers.neuron import Reset


@pytest.fixture(autouse=True)
def one_neuron_for_each_unit(monkeypatch) -> None:
    monkeypatch.setattr("converters.ann_to_snn.spiking_layers.NARROW", 1)


GENERATOR = torch.Generator().manual_seed(0)
RELU, ADD = nets.Relu(), nets.Add()
T = 32
STD = 0.5


def conv(channels: int, inputs: int, kernel: int = 3, **options) -> nets.Conv:
    spread = 1.5 / (inputs * kernel**2) ** 0.5
    return nets.Conv(
        torch.randn(channels, inputs, kernel, kernel, generator=GENERATOR) * spread,
        torch.randn(channels, generator=GENERATOR) * 0.2,
        padding=(kernel // 2, kernel // 2),
        **options,
    )


def dense(outputs: int, inputs: int) -> nets.Dense:
    weight = torch.randn(outputs, inputs, generator=GENERATOR) * 1.5 / inputs**0.5
    return nets.Dense(weight, torch.randn(outputs, generator=GENERATOR) * 0.2)


def graph(*nodes: tuple[str, nets.Operation, str]) -> Ann:
    """Build an ANN of nodes `(name, operation, names of its inputs)` on images `x` of 1x8x8."""
    made, outputs = [], {"x": torch.zeros(1, 1, 8, 8)}
    for name, operation, inputs in nodes:
        outputs[name] = nets.apply_operation(operation, *(outputs[i] for i in inputs.split()))
        made.append(Node(name, operation, tuple(inputs.split()), tuple(outputs[name].shape[1:])))
    return Ann((1, 8, 8), tuple(made), input_name="x")


STEM = (("c0", conv(4, 1), "x"), ("r0", RELU, "c0"), ("c1", conv(4, 4), "r0"), ("r1", RELU, "c1"))
SUMS = graph(
    *STEM, ("c2", conv(4, 4), "r1"), ("s2", ADD, "c2 r0"), ("r2", RELU, "s2"),
    ("c3", conv(6, 4, stride=(2, 2)), "r2"), ("r3", RELU, "c3"),
    ("c4", conv(6, 6), "r3"), ("p4", conv(6, 4, 1, stride=(2, 2)), "r2"), ("s4", ADD, "c4 p4"), ("r4", RELU, "s4"),
    ("c5", conv(6, 6), "r4"), ("r5", RELU, "c5"), ("s5", ADD, "r5 r4"),
    ("f", nets.Flatten(), "s5"), ("d6", dense(12, 96), "f"), ("r6", RELU, "d6"),
    ("d7", dense(12, 12), "r6"), ("r7", RELU, "d7"), ("d8", dense(12, 12), "r7"), ("s8", ADD, "d8 r6"),
    ("r8", RELU, "s8"), ("logits", dense(5, 12), "r8"),
)  # fmt: skip
FROM_IMAGE = graph(
    ("c0", conv(4, 1, 1), "x"), *STEM[1:3], ("p", conv(4, 1, 1), "x"), ("s", ADD, "c1 p"), ("r1", RELU, "s"),
    ("f", nets.Flatten(), "r1"), ("logits", dense(5, 256), "f"),
)  # fmt: skip
PADDED = graph(*STEM[:2], ("f", nets.Flatten(), "r0"), ("logits", dense(5, 256), "f"))


def in_pixels(linear: Dense | Conv, source: int) -> Dense | Conv:
    return replace(linear, weight=linear.weight / STD) if source == 0 else linear


def read_by(gains: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight without the gains of its input channels."""
    return weight / gains.reshape(-1, *[1] * (weight.dim() - 1))


@pytest.mark.parametrize(
    ("ann", "form", "mean"),  # padding of the image folds exactly only with mean 0
    [
        (SUMS, InputForm(Encoding.GRADED, 4), 0.0),
        (SUMS, InputForm(Encoding.SPIKE), 0.0),
        (FROM_IMAGE, InputForm(Encoding.SPIKE), 0.3),
    ],
    ids=["graded", "spikes", "from the image"],
)
@torch.no_grad()
def test_every_channel_of_a_source_has_its_own_scale_and_the_block_one_factor(
    ann: Ann, form: InputForm, mean: float, monkeypatch
) -> None:
    monkeypatch.setattr(
        "converters.ann_to_snn.calibrate.refit", lambda readings, *rest, **options: [r.linear for r in readings]
    )
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    layers = spiking_layers(ann, MaxPooling.ERROR)
    model, found = calibrate(
        ann, layers, images, name="a", time_steps=T, input_form=form, normalization=Normalization.of(mean, STD)
    )
    scales = {each.block: each.scale for each in found}
    blocks = [i for i, layer in enumerate(model.spec.layers) if i and layer.kind != "flatten"]
    for layer, i, source in zip(layers, blocks, [0, *blocks[:-1]], strict=True):
        gains = scales[i].max() / scales[i] if i in scales else torch.ones(len(layer.linear.weight))
        own = read_by(gains, model.tensors[f"blocks.{i}.synapse.weight"].double())
        one = torch.ones(layer.before[0]).double()
        wanted = scale_inputs(in_pixels(layer.linear, source), scales.get(source, one)).weight
        factor = float((own / wanted).median())
        torch.testing.assert_close(own, factor * wanted)
        for k, (spec, skip) in enumerate(zip(skips_of(model.spec.layers[i]), layer.skips, strict=True)):
            wanted = scale_inputs(in_pixels(skip.linear, spec.source), scales[spec.source]).weight
            if skip.diagonal is not None:
                wanted = wanted.flatten() if wanted.dim() > 2 else wanted.diagonal()
            found_weight = read_by(gains, model.tensors[f"blocks.{i}.skips.{k}.weight"].double())
            torch.testing.assert_close(found_weight, factor * wanted)


@pytest.mark.parametrize(
    ("ann", "form"),
    [(SUMS, InputForm(Encoding.GRADED, 4)), (SUMS, InputForm(Encoding.SPIKE)), (FROM_IMAGE, InputForm(Encoding.SPIKE))],
    ids=["graded", "spikes", "from the image"],
)
@torch.no_grad()
def test_the_network_runs_as_it_was_calibrated_in_both_engines(ann: Ann, form: InputForm) -> None:
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    layers = spiking_layers(ann, MaxPooling.ERROR)
    model, found = calibrate(
        ann, layers, images, name="a", time_steps=T, input_form=form, normalization=Normalization.of(0.0, STD)
    )
    wanted = run_ann(ann, images / STD, keep=True)[1]
    network = model.build()
    logits, trace = network.run(images)
    for each in found:
        goal = images if each.target == "input" else wanted[each.target]
        rates = trace.rates[each.block]
        goal = goal / each.scale.reshape(-1, *[1] * (rates.dim() - 2))
        error = (rates - goal).square().mean().sqrt() / goal.square().mean().sqrt()
        assert float(error) == pytest.approx(each.error, rel=0.25), each  # `each.error` was measured on a sample
    assert torch.corrcoef(torch.stack([logits.flatten(), wanted["logits"].flatten()]))[0, 1] > 0.6
    exact_logits, exact = IntegerNetwork(network).run(images)
    assert torch.equal(exact_logits, logits)
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(trace.spikes, exact.spikes, strict=True))


@pytest.mark.parametrize("form", [InputForm(Encoding.GRADED, 4), InputForm(Encoding.SPIKE)], ids=str)
@torch.no_grad()
def test_channels_that_say_little_fire_as_much_as_others(form: InputForm, monkeypatch) -> None:
    """Two channels are divided by 8, and the weights that read them multiplied by 8: the same ANN."""
    monkeypatch.setattr("converters.ann_to_snn.calibrate.MOST_GAIN", 1000.0)
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ann = graph(*STEM[:2], ("f", nets.Flatten(), "r0"), ("logits", dense(5, 256), "f"))
    small = torch.tensor([1.0, 0.125, 1.0, 0.125])
    (c0, r0, f, logits), by_place = ann.nodes, small.repeat_interleave(64)
    first, last = c0.operation, logits.operation
    assert isinstance(first, nets.Conv)
    assert isinstance(last, nets.Dense)
    first = replace(first, weight=first.weight * small[:, None, None, None], bias=first.bias * small)
    last = replace(last, weight=last.weight / by_place)
    changed = replace(ann, nodes=(replace(c0, operation=first), r0, f, replace(logits, operation=last)))
    (model, before), (same, found) = (
        calibrate(each, spiking_layers(each, MaxPooling.ERROR), images, name="a", time_steps=T, input_form=form)
        for each in (ann, changed)
    )
    rates = [each.build().run(images)[1].rates[1] for each in (model, same)]
    assert float((rates[0] - rates[1]).abs().mean()) < 0.25 / T
    scales = [next(one.scale for one in each if one.block == 1) for each in (before, found)]
    torch.testing.assert_close(scales[1], scales[0] * small, rtol=0.1, atol=0)


def test_sources_are_blocks_and_flattens_count() -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    layers = spiking_layers(SUMS, MaxPooling.ERROR)
    model, _ = calibrate(SUMS, layers, images, name="a", time_steps=4, input_form=InputForm(Encoding.SPIKE))
    skips = {i: [(s.source, s.kind) for s in skips_of(layer)] for i, layer in enumerate(model.spec.layers)}
    assert {i: found for i, found in skips.items() if found} == {
        3: [(1, "identity")], 5: [(3, "conv")], 8: [(5, "dense")], 10: [(8, "identity")],
    }  # fmt: skip
    assert model.spec.layers[7].kind == "flatten"
    assert model.spec.layers[5].skips[0].stride == (2, 2)


def test_a_graded_image_is_not_added_to_spikes() -> None:
    layers, images = spiking_layers(FROM_IMAGE, MaxPooling.ERROR), torch.rand(4, 1, 8, 8)
    with pytest.raises(UnsupportedError, match="r1 adds the image to spikes"):
        calibrate(FROM_IMAGE, layers, images, name="a", time_steps=4, input_form=InputForm(Encoding.GRADED, 4))


@pytest.mark.parametrize("form", [InputForm(Encoding.SPIKE), InputForm(Encoding.GRADED, 3)])
def test_a_layer_that_answers_to_no_image_is_told(form: InputForm) -> None:
    first = dense(6, 64)
    silent = replace(first, bias=torch.full((6,), -100.0))
    ann = graph(("f", nets.Flatten(), "x"), ("d0", silent, "f"), ("r0", RELU, "d0"), ("d1", dense(3, 6), "r0"))
    layers = spiking_layers(ann, MaxPooling.ERROR)
    with pytest.raises(UnsupportedError, match="r0: none of its units is active for any image"):
        calibrate(ann, layers, torch.rand(20, 1, 8, 8), name="x", time_steps=T, input_form=form)


@pytest.mark.parametrize(("size", "wanted"), [(8, 4096), (224, 256)])
def test_of_large_images_few_are_wanted(size: int, wanted: int) -> None:
    shape = (3, size, size)
    ann = Ann(shape, (Node("r", RELU, ("x",), shape),), input_name="x")
    assert images_wanted(ann) == wanted


def test_a_maximum_of_a_sum_is_averaged_where_it_cannot_be_by_any_neuron() -> None:
    ann = graph(
        *STEM, ("s", ADD, "r1 r0"), ("m", nets.MaxPool((2, 2), (2, 2), (1, 1)), "s"), ("f", nets.Flatten(), "m"),
        ("logits", dense(5, 100), "f"),
    )  # fmt: skip
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    judge = Judge(Split((images * 255).to(torch.uint8), torch.arange(12) % 5), AnnAnswers(ann, AS_THEY_ARE))
    options = {"name": "a", "time_steps": 8}
    found = best_candidate(ann, images, judge, **options, forms=SpikingForms(encodings=[Encoding.SPIKE]))
    assert found.max_pooling is MaxPooling.AVERAGE
    with pytest.raises(
        UnsupportedError, match=r"^a: no spiking form works: node m \(MaxPool\): max pooling with padding .*leaky one$"
    ):
        best_candidate(ann, images, judge, **options, forms=SpikingForms(max_pooling=[MaxPooling.ANY]))


@torch.no_grad()
@pytest.mark.parametrize("steps", [4, 16])
def test_rates_come_closer_if_a_spike_subtracts_the_threshold(steps: int) -> None:
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    layers, form = spiking_layers(SUMS, MaxPooling.AVERAGE), InputForm(Encoding.GRADED, 4)
    found = {
        reset: calibrate(SUMS, layers, images, name="a", time_steps=steps, input_form=form, reset=reset)
        for reset in Reset
    }
    (zero, _), (subtract, calibrations) = found[Reset.ZERO], found[Reset.SUBTRACT]
    wanted = run_ann(SUMS, images)[0]
    errors = [float((IntegerNetwork(model.build())(images) - wanted).norm()) for model in (zero, subtract)]
    assert {subtract.spec.neuron_of(layer).reset for layer in subtract.spec.layers[1:]} == {Reset.SUBTRACT}
    assert any(each.offset for each in calibrations)
    assert sum(each.error for each in calibrations) < sum(each.error for each in found[Reset.ZERO][1])
    assert errors[1] < errors[0]


@torch.no_grad()
def test_a_start_of_half_a_threshold_rounds_rates_of_a_steady_input_as_a_bias_does(monkeypatch) -> None:
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    layers, form = spiking_layers(SUMS, MaxPooling.AVERAGE)[:1], InputForm(Encoding.GRADED, 4)

    def first_layer(start: float, *offsets: float):
        monkeypatch.setattr("converters.ann_to_snn.calibrate.OFFSETS", offsets)
        options = {"name": "first", "time_steps": 4, "input_form": form, "reset": Reset.SUBTRACT, "start": start}
        model, (calibration,) = calibrate(SUMS, layers, images, **options)
        return model.spec.neuron_of(model.spec.layers[1]).start, calibration.offset, calibration.error

    start, _ = EVERY_FORM.starts
    (*started, error), (*biased, of_bias), (*_, truncated) = (
        first_layer(*ways) for ways in ((start, 0.0, 0.5), (0.0, 0.0, 0.5), (0.0, 0.0))
    )
    assert (started, biased) == ([0.5, 0.0], [0.0, 0.5])
    assert error == pytest.approx(of_bias, rel=0.02)
    assert error < 0.9 * truncated


@torch.no_grad()
def test_the_smallest_threshold_is_taken_that_errs_as_little(monkeypatch) -> None:
    """The first layer is calibrated alone, so the candidate thresholds are the same for every slack."""
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    layers = spiking_layers(SUMS, MaxPooling.AVERAGE)[:1]

    def first_layer(slack: float):
        monkeypatch.setattr("converters.ann_to_snn.calibrate.SLACK", slack)
        form = InputForm(Encoding.GRADED, 4)
        return calibrate(SUMS, layers, images, name="first", time_steps=T, input_form=form)[1][0]

    least, near, any_at_all = (first_layer(slack) for slack in (0.0, 0.2, 1e9))
    assert any_at_all.threshold < near.threshold < least.threshold
    assert least.error < near.error <= 1.2 * least.error < any_at_all.error


@pytest.mark.parametrize("form", [InputForm(Encoding.GRADED, 8), InputForm(Encoding.SPIKE)])
@torch.no_grad()
def test_an_image_padded_with_its_mean_is_padded_with_that_pixel(form: InputForm) -> None:
    """The same network differs much more from the ANN with a black border."""
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    normal = Normalization.of(0.6, STD)
    layers = spiking_layers(PADDED, MaxPooling.ERROR)
    model, _ = calibrate(PADDED, layers, images, name="a", time_steps=64, input_form=form, normalization=normal)
    assert (model.spec.input.padding, model.spec.blocks[0].padding) == ((1, 1), (0, 0))
    assert model.spec.input.border == (0.6,)
    wanted = run_ann(PADDED, normal(images))[0]
    entering = model.spec.input.model_copy(update={"border": (0.0,)})
    black = replace(model, spec=model.spec.model_copy(update={"input": entering}))

    def error(logits: torch.Tensor) -> float:
        scale = float((logits * wanted).sum() / logits.square().sum())
        return float((scale * logits - wanted).norm() / wanted.norm())

    right, wrong = (error(IntegerNetwork(each.build())(images)) for each in (model, black))
    assert right < 0.6 * wrong
