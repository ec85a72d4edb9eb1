"""Checks that involve several fields, and the properties of a network spec."""

from typing import Any

import pydantic
import pytest
import yaml

from specs import CubaSpec, Encoding, InputSpec, LayerSpec, NetworkSpec, dump_spec, parse_spec
from specs.layers.input import LogMelSpec
from specs.training import TrainingSpec

READOUT = {"kind": "affine", "features": 2}
FLATTEN = {"kind": "flatten"}
DENSE = {"kind": "dense", "features": 5}
POOL = {"kind": "avg_pool", "kernel": 2}
CONV = {"kind": "conv", "channels": 3, "kernel": 3}


def document(*blocks: dict[str, Any], shape: tuple[int, ...] = (9,), **more: Any) -> dict[str, Any]:
    return {"name": "net", "time_steps": 4, "input": {"shape": list(shape)}, "blocks": list(blocks), **more}


def text(*blocks: dict[str, Any], **more: Any) -> str:
    """Return YAML of a network, with one line for each top-level field and each block."""
    whole = document(*blocks, **more)
    lines = [f"{key}: {yaml.safe_dump(value, default_flow_style=True)}".rstrip("\n.") for key, value in whole.items()]
    at = next(i for i, line in enumerate(lines) if line.startswith("blocks:"))
    blocks_lines = ["blocks:", *(f"  - {yaml.safe_dump(block, default_flow_style=True).strip()}" for block in blocks)]
    return "\n".join([*lines[:at], *blocks_lines, *lines[at + 1 :]]).replace("\n...", "")


def test_a_network_needs_a_block(refusal) -> None:
    assert refusal("name: a\ntime_steps: 4\ninput: {shape: [9]}\nblocks: []\n") == (
        "net.yaml:4: blocks: must have at least one block, the readout: {kind: affine, features: N}"
    )


def test_affine_in_the_middle_is_refused(refusal) -> None:
    assert refusal(text(DENSE, READOUT, READOUT)) == (
        "net.yaml:6: blocks[1].kind: affine is a readout and must be the last block, got block 1 of 3: use dense here"
    )


def test_the_last_block_must_give_logits(refusal) -> None:
    assert refusal(text(DENSE, FLATTEN)) == (
        "net.yaml:6: blocks[1].kind: flatten cannot be the last block, the readout: use affine or average, or "
        "dense, conv or avg_pool to classify by rates"
    )


@pytest.mark.parametrize("block", [DENSE, READOUT], ids=["dense", "affine"])
def test_images_need_a_flatten_before_dense(block: dict[str, Any], refusal) -> None:
    blocks = [block] if block is READOUT else [block, READOUT]
    assert refusal(text(*blocks, shape=(1, 8, 8))) == (
        f"net.yaml:5: blocks[0]: {block['kind']} needs a flat input, got [1, 8, 8]: put a flatten block before it"
    )


@pytest.mark.parametrize("block", [{"kind": "conv", "channels": 1, "kernel": 1}, POOL], ids=["conv", "avg_pool"])
def test_maps_come_from_images(block: dict[str, Any], refusal) -> None:
    message = refusal(text(block, READOUT))
    assert message.startswith(f"net.yaml:5: blocks[0]: {block['kind']} needs an input [channels, height, width]")
    assert message.endswith("[9]")


@pytest.mark.parametrize(
    ("geometry", "reach", "axis", "size"),
    [
        ({"kernel": 9}, 9, "height", 8),
        ({"kernel": [3, 11], "padding": [0, 1]}, 11, "width", 10),
        ({"kernel": 3, "dilation": 4}, 9, "height", 8),
    ],
)
def test_a_conv_that_leaves_nothing_is_refused_with_its_reach(
    geometry: dict[str, Any], reach: int, axis: str, size: int, refusal
) -> None:
    conv = {"kind": "conv", "channels": 4, **geometry}
    assert refusal(text(conv, FLATTEN, READOUT, shape=(1, 8, 8))) == (
        f"net.yaml:5: blocks[0].kernel: covers {reach} pixels along the {axis}, more than the padded input has ({size})"
    )


def test_blocks_that_shrink_to_nothing_are_refused_at_the_block_that_does(refusal) -> None:
    message = refusal(text(POOL, POOL, POOL, POOL, FLATTEN, READOUT, shape=(1, 8, 8)))
    assert message.startswith("net.yaml:8: blocks[3].kernel: covers 2 pixels along the height, more than")


@pytest.mark.parametrize(("groups", "channels"), [(2, 4), (3, 4)], ids=["not the input's", "not the output's"])
def test_groups_divide_input_and_output_channels(groups: int, channels: int, refusal) -> None:
    conv = {"kind": "conv", "channels": channels, "kernel": 1, "groups": groups}
    message = refusal(text(conv, FLATTEN, READOUT, shape=(3, 8, 8)))
    wanted = f"{groups} groups must divide the 3 input and {channels} output channels"
    assert message == f"net.yaml:5: blocks[0].groups: {wanted}"


def test_groups_that_divide_are_allowed() -> None:
    conv = {"kind": "conv", "channels": 6, "kernel": 1, "groups": 3}
    assert parse_spec(text(conv, FLATTEN, READOUT, shape=(3, 2, 2))).shapes[1] == (6, 2, 2)


# --- events

EVENTS = {"shape": [2, 8, 8], "encoding": "events"}


def test_events_have_one_bit_and_bins_of_ten_milliseconds_unless_the_spec_says_more() -> None:
    spec = parse_spec(text(FLATTEN, READOUT, input=EVENTS)).input
    assert (spec.bits, spec.bin_us, spec.largest, spec.is_graded, spec.has_neurons) == (1, 10_000, 1, False, False)
    spec = parse_spec(text(FLATTEN, READOUT, input=EVENTS | {"bits": 3, "bin_us": 500})).input
    assert (spec.bits, spec.bin_us, spec.largest, spec.is_graded) == (3, 500, 7, True)


@pytest.mark.parametrize("bits", [1, 8])
def test_an_event_counts_as_one_spike(bits: int) -> None:
    assert InputSpec.model_validate(EVENTS | {"bits": bits}).levels == 1


@pytest.mark.parametrize("block", [FLATTEN, POOL, CONV], ids=["flatten", "avg_pool", "conv"])
def test_events_enter_any_block_and_skips_read_them(block: dict[str, Any]) -> None:
    blocks = [block, READOUT] if block is FLATTEN else [block, FLATTEN, READOUT]
    blocks[-1] = {**READOUT, "skips": [{"kind": "dense", "source": 0}]}
    parse_spec(text(*blocks, input=EVENTS))


@pytest.mark.parametrize("field", ["mean", "std", "weight", "bias"])
def test_events_have_no_input_neurons(field: str, refusal) -> None:
    assert f"input.{field}: does not apply to encoding: events" in refusal(
        text(FLATTEN, READOUT, input=EVENTS | {field: 0.5})
    )


@pytest.mark.parametrize("shape", [[40], [1, 40, 1]], ids=str)
def test_a_spectrogram_enters_column_by_column(shape: list[int]) -> None:
    heard = {"shape": shape, "encoding": "events", "bits": 4, "log_mel": {}}
    blocks = [READOUT] if len(shape) == 1 else [FLATTEN, READOUT]
    spec = parse_spec(text(*blocks, input=heard, time_steps=48))
    assert (spec.input.log_mel, spec.input.form) == (LogMelSpec(), "events, 4 bits")
    assert "bin_us" not in spec.input.model_dump()


def test_the_columns_of_a_spectrogram_are_the_time_steps(refusal) -> None:
    heard = {"shape": [40], "encoding": "events", "log_mel": {"frames": 20}}
    assert "time_steps: must be 20, input.log_mel.frames, got 48" in refusal(text(READOUT, input=heard, time_steps=48))
    told = refusal(text(FLATTEN, READOUT, input=heard | {"shape": [1, 40, 20]}, time_steps=20))
    assert "input.log_mel: makes time steps of [1, 40, 1], but input.shape is [1, 40, 20]" in told


@pytest.mark.parametrize(("encoding", "written"), [("events", True), ("spike", False), ("graded", False)])
def test_only_events_write_the_width_of_their_bins(encoding: str, written: bool) -> None:
    spec = InputSpec(shape=(9,), encoding=Encoding(encoding))
    assert ("bin_us" in spec.model_dump()) is written
    assert InputSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_bins_of_images_have_no_effect() -> None:
    assert InputSpec(shape=(9,), bin_us=5).idle == [
        "input.bin_us has no effect with input.encoding=spike: set input.encoding=events"
    ]


# --- recurrence and delays

RECURRENT = {**DENSE, "recurrent": True}


def test_recurrent_weights_count_and_a_network_with_them_has_no_ann() -> None:
    spec = parse_spec(text(RECURRENT, READOUT))
    assert (spec.has_ann, parse_spec(text(DENSE, READOUT)).has_ann) == (False, True)
    assert spec.blocks[0].n_weights((9,)) == 9 * 5 + 5 * 5
    assert (spec.blocks[0].own_fan_out, spec.blocks[0].extras) == (5, ("recurrent",))


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"epochs": 5}, "snn_epochs: a recurrent network has no ANN, so all epochs must be SNN epochs: set it to 5"),
        ({"epochs": 5, "snn_epochs": 5, "snn_gradient": "tandem"}, "snn_gradient: must be surrogate"),
        ({"epochs": 5, "snn_epochs": 5, "self_distillation": 0.5}, "self_distillation: must be 0"),
    ],
)
def test_a_recipe_of_a_recurrent_network_trains_it_as_snn(training: dict[str, Any], told: str, refusal) -> None:
    assert f"training.{told}" in refusal(text(RECURRENT, READOUT, training=training))
    parse_spec(text(RECURRENT, READOUT, training={"epochs": 5, "snn_epochs": 5}))


# --- outputs


@pytest.mark.parametrize(
    ("output", "readout", "told"),
    [
        ("last", DENSE, "output: last is for an affine readout, got dense: set it to rate"),
        ("spikes", DENSE, "output: spikes needs input.encoding: events, got spike"),
        ("spikes", READOUT, "output: spikes needs a readout with neurons, dense, conv or avg_pool, got affine"),
        ("count", READOUT, "output"),
    ],
)
def test_an_output_fits_the_readout(output: str, readout: dict[str, Any], told: str, refusal) -> None:
    assert told in refusal(text(DENSE, readout, output=output))


@pytest.mark.parametrize(("output", "readout"), [("last", READOUT), ("spikes", DENSE)])
def test_an_output_of_single_steps_trains_as_snn(output: str, readout: dict[str, Any], refusal) -> None:
    events = {"shape": [9], "encoding": "events"}
    spec = parse_spec(text(readout, output=output, input=events))
    assert (spec.has_ann, spec.without_ann) == (False, f"a network with output: {output}")
    assert spec.gives_spikes is (output == "spikes")
    assert parse_spec(dump_spec(spec)) == spec
    told = refusal(text(readout, output=output, input=events, training={"epochs": 5}))
    assert f"training.snn_epochs: a network with output: {output} has no ANN" in told
    parse_spec(text(readout, output=output, input=events, training={"epochs": 5, "snn_epochs": 5}))


def test_the_usual_output_is_not_written() -> None:
    assert "output" not in parse_spec(text(READOUT)).model_dump()


def test_spikes_have_no_logit_scale(refusal) -> None:
    assert "logit_scale: does not apply to output: spikes" in refusal(text(DENSE, output="spikes", logit_scale=2))


def test_only_dense_blocks_have_a_delay_for_each_synapse(refusal) -> None:
    parse_spec(text({**DENSE, "delays": {"per": "synapse"}}, READOUT))
    parse_spec(text({**CONV, "delays": {"longest": 3}}, FLATTEN, READOUT, shape=(2, 8, 8)))
    told = refusal(text({**CONV, "delays": {"per": "synapse"}}, FLATTEN, READOUT, shape=(2, 8, 8)))
    assert "blocks[0].delays: per: synapse is for dense blocks" in told


def test_specs_without_recurrence_and_delays_are_written_as_before() -> None:
    block = parse_spec(text(DENSE, READOUT)).model_dump()["blocks"][0]
    assert not {"recurrent", "delays"} & block.keys()
    timed = {**RECURRENT, "delays": {"per": "synapse", "longest": 4}}
    spec = parse_spec(text(timed, READOUT))
    assert parse_spec(dump_spec(spec)) == spec


@pytest.mark.parametrize("delays", [{}, {"learn": False}, {"learn": True}])
def test_fixed_delays_are_written_as_before_they_could_be_trained(delays: dict[str, Any]) -> None:
    spec = parse_spec(text({**DENSE, "delays": delays}, READOUT))
    written = spec.model_dump(mode="json")["blocks"][0]["delays"]
    assert written == {"per": "neuron", "longest": 62, **({"learn": True} if delays.get("learn") else {})}
    assert parse_spec(dump_spec(spec)) == spec


@pytest.mark.parametrize(
    ("recipe", "trains"),
    [
        ({}, False),
        ({"snn_epochs": 2, "snn_gradient": "tandem"}, False),
        ({"snn_epochs": 2}, True),
        ({"crossover_epochs": [1]}, True),
    ],
)
def test_delays_that_a_recipe_does_not_train_are_told(recipe: dict[str, Any], trains: bool) -> None:
    spec = parse_spec(text({**DENSE, "delays": {}}, {**DENSE, "delays": {"learn": True}}, READOUT))
    told = (
        "blocks[1].delays.learn has almost no effect without SNN epochs of surrogate gradients: set training.snn_epochs"
    )
    assert spec.idle(TrainingSpec(**recipe)) == ([] if trains else [told])


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([{**DENSE, "features": 6}, {"kind": "average", "features": 4}], "4 classes must divide the 6 inputs"),
        ([{**CONV}, {"kind": "average", "features": 2}], "average needs a flat input"),
        ([{"kind": "average", "features": 3}, READOUT], "average is a readout and must be the last block"),
    ],
)
def test_an_average_has_equally_many_neurons_for_each_class(blocks: list[dict[str, Any]], told: str, refusal) -> None:
    assert told in refusal(text(*blocks, shape=(2, 8, 8) if blocks[0]["kind"] == "conv" else (9,)))


# --- graded input


@pytest.mark.parametrize("block", [FLATTEN, POOL], ids=["flatten", "avg_pool"])
def test_graded_input_enters_a_synapse(block: dict[str, Any], refusal) -> None:
    blocks = [block, READOUT] if block is FLATTEN else [block, FLATTEN, READOUT]
    message = refusal(text(*blocks, input={"shape": [1, 8, 8], "encoding": "graded"}))
    assert message.startswith(
        f"net.yaml:5: blocks[0].kind: graded input must enter a dense or conv block, got {block['kind']}"
    )


@pytest.mark.parametrize("block", [FLATTEN, POOL], ids=["flatten", "avg_pool"])
def test_spike_input_enters_any_block(block: dict[str, Any]) -> None:
    parse_spec(text(block, FLATTEN, READOUT, input={"shape": [1, 8, 8], "encoding": "spike"}))


@pytest.mark.parametrize("field", [{"mean": 0.5}, {"std": 0.5}], ids=["mean", "std"])
def test_graded_input_takes_no_mean_or_std(field: dict[str, float], refusal) -> None:
    message = refusal(text(DENSE, READOUT, input={"shape": [9], "encoding": "graded", **field}))
    assert message == (
        f"net.yaml:3: input.{next(iter(field))}: does not apply to encoding: graded, which has no input neurons: "
        "remove it (mean and std can be folded into the first weights) (got 0.5)"
    )


@pytest.mark.parametrize(
    "field",
    [{"weight": 2.0}, {"bias": 0.5}, {"exact_input": False}, {"neuron": {"threshold": 2.0}}],
    ids=["weight", "bias", "exact_input", "neuron"],
)
def test_graded_input_refuses_what_only_an_input_neuron_has(field: dict[str, Any], refusal) -> None:
    message = refusal(text(DENSE, READOUT, input={"shape": [9], "encoding": "graded", **field}))
    assert next(iter(field)) in message


@pytest.mark.parametrize(
    ("bits", "threshold"),
    [(11, 1.0), (16, 1 / 32), (8, 131071 / 64 / 255)],
)
def test_a_graded_threshold_may_fill_its_mantissa(bits: int, threshold: float) -> None:
    graded = {"shape": [9], "encoding": "graded", "bits": bits}
    parse_spec(text(DENSE, READOUT, input=graded, neuron={"threshold": threshold}))


@pytest.mark.parametrize(
    ("bits", "threshold", "mantissa"),
    [(12, 1.0, 262080), (16, 1 / 16, 262140), (2, 683.0, 131136)],
)
def test_a_graded_threshold_beyond_its_mantissa_is_refused(bits: int, threshold: float, mantissa: int, refusal) -> None:
    graded = {"shape": [9], "encoding": "graded", "bits": bits}
    assert refusal(text(DENSE, READOUT, input=graded, neuron={"threshold": threshold})) == (
        f"net.yaml:3: input.bits: input of {bits} bits scales the threshold of block 1 to a mantissa of "
        f"{mantissa}; the hardware allows at most 131071: use fewer bits or a lower threshold"
    )


def test_the_mantissa_of_a_graded_threshold_is_the_first_blocks_own(refusal) -> None:
    own = {**DENSE, "neuron": {"threshold": 100.0}}
    graded = {"shape": [9], "encoding": "graded"}
    assert f"mantissa of {64 * 100 * 255};" in refusal(text(own, READOUT, input=graded))
    parse_spec(text(DENSE, own, READOUT, input=graded))


def test_a_readout_that_takes_graded_input_has_no_threshold_to_check() -> None:
    parse_spec(text(READOUT, input={"shape": [9], "encoding": "graded", "bits": 16}))


def test_spike_input_leaves_the_threshold_as_it_is() -> None:
    parse_spec(text(DENSE, READOUT, input={"shape": [9], "bits": 16}, neuron={"threshold": 2000.0}))


@pytest.mark.parametrize(("encoding", "bits", "levels"), [("graded", 8, 255), ("graded", 1, 1), ("spike", 8, 1)])
def test_levels_are_the_largest_pixel(encoding: str, bits: int, levels: int) -> None:
    spec = parse_spec(text(READOUT, input={"shape": [9], "encoding": encoding, "bits": bits}))
    assert spec.input.levels == levels


# --- pools


@pytest.mark.parametrize(
    ("kernel", "gain", "weight"),
    [(8, 1.0, "0.01562"), (2, 16.0, "4"), (2, 15.9, "3.975"), ([16, 4], 1.0, "0.01562")],
)
def test_a_pool_weight_off_the_weight_grid_is_refused(kernel: Any, gain: float, weight: str, refusal) -> None:
    pool = {**POOL, "kernel": kernel, "gain": gain}
    message = refusal(text(pool, FLATTEN, READOUT, shape=(1, 16, 16)))
    assert message.startswith("net.yaml:5: blocks[0].kernel: a pool of ")
    assert f"has weight {weight}, outside the weight grid (1/64, 254/64]" in message


@pytest.mark.parametrize(("kernel", "gain"), [(1, 254 / 64), (8, 1.001)], ids=["largest", "smallest"])
def test_a_pool_weight_at_the_end_of_the_grid_is_allowed(kernel: int, gain: float) -> None:
    pool = {**POOL, "kernel": kernel, "gain": gain}
    parse_spec(text(pool, FLATTEN, READOUT, shape=(1, 8, 8)))


def test_a_pool_weight_is_gain_over_area() -> None:
    spec = parse_spec(text({**POOL, "kernel": [2, 4], "gain": 3.0}, FLATTEN, READOUT, shape=(1, 8, 8)))
    assert spec.blocks[0].weight(spec.neuron) == 3 / 8


def test_without_a_gain_the_weight_is_the_smallest_that_fires_the_pools_own_neurons() -> None:
    pools = [POOL, {**POOL, "neuron": {"threshold": 3.0}}]
    spec = parse_spec(text(*pools, FLATTEN, READOUT, shape=(1, 8, 8), neuron={"threshold": 2.0}))
    assert [pool.weight(spec.neuron_of(pool)) for pool in spec.blocks[:2]] == [17 / 32, 25 / 32]


def test_the_default_stride_of_a_pool_is_its_kernel() -> None:
    spec = parse_spec(text({**POOL, "kernel": [2, 4]}, FLATTEN, READOUT, shape=(3, 8, 8)))
    assert spec.shapes[1] == (3, 4, 2)


@pytest.mark.parametrize(("threshold", "kernel"), [(1.0, 2), (1.25, 3)])
def test_a_pool_whose_inputs_all_fire_fires(threshold: float, kernel: int) -> None:
    """A pool with the default gain fires at each step if all its inputs fire, as `AvgPoolSpec` states."""
    import torch

    from bootstrap_core import Mode, build_network

    pool = {**POOL, "kernel": kernel}
    spec = parse_spec(text(pool, FLATTEN, READOUT, shape=(1, 6, 6), neuron={"threshold": threshold}))
    spikes = build_network(spec, seed=0).blocks[1](torch.ones(4, 1, 1, 6, 6), Mode.SNN, 4).tensor()
    assert spikes.mean() == 1


@pytest.mark.parametrize(("padding", "axis"), [(2, "height"), ([1, 2], "width"), ([0, 0, 0, 2], "width")])
def test_a_pool_with_as_much_padding_as_its_kernel_is_refused(padding, axis, refusal) -> None:
    message = refusal(text({**POOL, "padding": padding}, FLATTEN, READOUT, shape=(1, 8, 8)))
    assert f"blocks[0].padding: must be smaller than the kernel, which has a {axis} of 2" in message


# --- norm, delay


@pytest.mark.parametrize("norm", ["mean_only", "batch"])
def test_norms_of_the_mean_need_a_current_decay(norm: str, refusal) -> None:
    dense = {**DENSE, "norm": norm, "neuron": {"current_decay": 0}}
    assert refusal(text(dense, READOUT)).startswith(
        f"net.yaml:5: blocks[0].norm: {norm} needs a current_decay of at least 1/4096"
    )


def test_mean_only_looks_at_the_networks_neuron_too(refusal) -> None:
    dense = {**DENSE, "norm": "mean_only"}
    assert "blocks[0].norm" in refusal(text(dense, READOUT, neuron={"current_decay": 0}))


@pytest.mark.parametrize("norm", ["none", "weight_scale"])
def test_other_norms_do_without_a_current_decay(norm: str) -> None:
    parse_spec(text({**DENSE, "norm": norm}, READOUT, neuron={"current_decay": 0}))


def test_mean_only_needs_a_current_decay_above_0_on_the_grid(refusal) -> None:
    dense = {**DENSE, "norm": "mean_only", "neuron": {"current_decay": 0.0001}}
    assert "blocks[0].norm" in refusal(text(dense, READOUT))


def test_every_problem_between_blocks_is_told(refusal) -> None:
    dense = {**DENSE, "norm": "mean_only", "neuron": {"current_decay": 0}}
    message = refusal(text(dense, dense, READOUT))
    assert "blocks[0].norm" in message
    assert "blocks[1].norm" in message


# --- properties of a network


def spec_of_all_kinds(**more: Any) -> NetworkSpec:
    conv = {"kind": "conv", "channels": 4, "kernel": 3}
    own = {**DENSE, "neuron": {"threshold": 7.0}, "delay_shift": False}
    return parse_spec(text(conv, POOL, FLATTEN, DENSE, own, READOUT, shape=(1, 8, 8), **more))


def test_layers_are_the_input_and_the_blocks() -> None:
    spec = spec_of_all_kinds()
    assert [layer.kind for layer in spec.layers] == [
        "input", "conv", "avg_pool", "flatten", "dense", "dense", "affine",
    ]  # fmt: skip


def test_shapes_are_one_a_layer() -> None:
    assert spec_of_all_kinds().shapes == ((1, 8, 8), (4, 6, 6), (4, 3, 3), (36,), (5,), (5,), (2,))


def test_classes_are_the_features_of_the_readout() -> None:
    assert spec_of_all_kinds().n_classes == 2


def test_a_layer_has_its_own_neuron_or_the_networks() -> None:
    spec = spec_of_all_kinds(neuron={"threshold": 3.0})
    assert [spec.neuron_of(layer).threshold for layer in spec.layers] == [3, 3, 3, 3, 3, 7, 3]


def test_a_scale_of_the_logits_is_written_unless_it_is_one() -> None:
    assert "logit_scale" not in spec_of_all_kinds().model_dump(mode="json")
    assert "logit_scale" not in spec_of_all_kinds().model_dump_json()
    spec = spec_of_all_kinds(logit_scale=0.25)
    assert NetworkSpec.model_validate_json(spec.model_dump_json(exclude={"training"})).logit_scale == 0.25
    assert parse_spec(dump_spec(spec)).logit_scale == 0.25


def test_a_block_has_its_own_delay_shift_or_the_networks() -> None:
    spec = spec_of_all_kinds(delay_shift=True)
    assert [spec.delay_shift_of(layer) for layer in spec.layers] == [True, True, True, False, True, False, False]


def test_a_block_may_shift_where_the_network_does_not() -> None:
    spec = parse_spec(text({**DENSE, "delay_shift": True}, READOUT))
    assert [spec.delay_shift_of(layer) for layer in spec.layers] == [False, True, False]


def test_defaults_are_those_of_the_docs() -> None:
    spec = parse_spec(text(READOUT))
    assert spec.neuron == CubaSpec(threshold=1.0, current_decay=1.0, voltage_decay=0.0, reset="zero")
    assert (spec.delay_shift, spec.training, spec.input.encoding, spec.input.exact_input) == (
        False,
        None,
        "spike",
        True,
    )


def test_a_synapse_is_plain_unless_told_otherwise() -> None:
    plain = {"weight_norm": False, "bias": False, "dropout": 0.0, "neuron": None, "skips": []}
    hidden = {**plain, "norm": "none", "delay_shift": None}
    geometry = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    conv = {"kind": "conv", "channels": 4, "kernel": [3, 3]}
    blocks = parse_spec(text(conv, FLATTEN, DENSE, READOUT, shape=(1, 8, 8))).model_dump(mode="json")["blocks"]
    assert blocks == [{**conv, **geometry, **hidden}, FLATTEN, {**DENSE, **hidden}, {**READOUT, **plain}]


def _members(spec: NetworkSpec) -> list[tuple[pydantic.BaseModel | LayerSpec, str]]:
    return [(spec, "time_steps"), (spec.neuron, "threshold"), (spec.input, "shape"), (spec.blocks[0], "kernel")]


@pytest.mark.parametrize("member", range(4), ids=["network", "neuron", "input", "block"])
def test_a_spec_cannot_be_changed(member: int) -> None:
    part, field = _members(spec_of_all_kinds())[member]
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(part, field, getattr(part, field))


def test_a_spec_is_hashable_all_through() -> None:
    """A hashable spec has no list or dict that could be changed in place."""
    assert hash(spec_of_all_kinds(training={"augment": "default"})) == hash(
        spec_of_all_kinds(training={"augment": "default"})
    )


# --- input shapes


@pytest.mark.parametrize("shape", [[], [2, 3], [1, 2, 3, 4]])
def test_an_input_has_one_axis_or_three(shape: list[int], refusal) -> None:
    assert refusal(text(READOUT, input={"shape": shape})) == (
        f"net.yaml:3: input.shape: must be [features] or [channels, height, width] (got {shape})"
    )


def test_an_input_of_size_0_is_one_problem(refusal) -> None:
    assert refusal(text(READOUT, input={"shape": [0]})).count("\n") == 0


@pytest.mark.parametrize(("field", "value"), [("mean", 0.5), ("std", 0.5), ("shape", [2, 3])])
def test_a_problem_within_the_input_names_its_own_line(field: str, value: Any, refusal) -> None:
    fields = {"encoding": "graded", "bits": 8, "shape": [9]}
    lines = [f"  {key}: {item}" for key, item in {**fields, field: value}.items()]
    line = 4 + next(i for i, item in enumerate(lines) if item.startswith(f"  {field}:"))
    whole = "\n".join(["name: a", "time_steps: 4", "input:", *lines, "blocks:", "  - {kind: affine, features: 2}"])
    assert f"net.yaml:{line}: input.{field}:" in refusal(whole)


# --- skips

CONV = {"kind": "conv", "channels": 4, "kernel": 3, "padding": 1}


def skipping(*skips: dict[str, Any], **more: Any) -> str:
    """Return YAML of feature maps 1x8x8, 4x8x8, and 4x8x8 with the skips, which is on line 6."""
    return text(CONV, {**CONV, "skips": list(skips)}, FLATTEN, READOUT, shape=(1, 8, 8), **more)


@pytest.mark.parametrize(
    "skip",
    [
        {"source": 1, "kind": "identity"},
        {"source": 0, "kind": "conv"},
        {"source": 1, "kind": "conv", "kernel": 5, "padding": 2, "groups": 2},
        {"source": 0, "kind": "conv", "kernel": [3, 1], "padding": [1, 0]},
    ],
)
def test_a_skip_that_fits_is_taken(skip: dict[str, Any]) -> None:
    spec = parse_spec(skipping(skip))
    assert spec.blocks[1].skips[0].source == skip["source"]
    assert spec.blocks[1].skips[0].kind == skip["kind"]


def test_a_conv_skip_is_a_projection_unless_told_otherwise() -> None:
    skip = parse_spec(skipping({"source": 0, "kind": "conv"})).blocks[1].skips[0]
    assert skip.model_dump() == {
        "source": 0, "kind": "conv", "kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1),
        "groups": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        (
            {"source": 2, "kind": "identity"},
            ".source: must be the index of an earlier block, 0 (the input) to 1; 2 is the block itself "
            "(the first of blocks has index 1)",
        ),
        (
            {"source": 3, "kind": "identity"},
            ".source: must be the index of an earlier block, 0 (the input) to 1; 3 is not an earlier block "
            "(the first of blocks has index 1)",
        ),
        (
            {"source": 0, "kind": "identity"},
            ": output of the skip from source 0 is [1, 8, 8], but this block has [4, 8, 8]",
        ),
        (
            {"source": 1, "kind": "conv", "stride": 2},
            ": output of the skip from source 1 is [4, 4, 4], but this block has [4, 8, 8]",
        ),
        ({"source": 1, "kind": "dense"}, ": output of the skip from source 1 is [4], but this block has [4, 8, 8]"),
        ({"source": 0, "kind": "conv", "groups": 2}, ".groups: 2 groups must divide the 1 input and 4 output channels"),
        (
            {"source": 1, "kind": "conv", "kernel": 9},
            ".kernel: covers 9 pixels along the height, more than the padded input has (8)",
        ),
        ({"source": 1, "kind": "dens"}, ".kind: must be one of identity, dense, conv; did you mean dense? (got dens)"),
        ({"source": 1, "kind": "identity", "stride": 2}, ".stride: no such key (got 2)"),
        ({"kind": "identity"}, ".source: is missing"),
    ],
)
def test_a_skip_that_does_not_fit_is_refused_by_its_own_path(skip: dict[str, Any], message: str, refusal) -> None:
    line = 7 if message.startswith(".stride") else 6  # errors of a key name the line of the key
    assert refusal(skipping(skip)).replace("'", "") == f"net.yaml:{line}: blocks[1].skips[0]{message}"


def test_every_skip_that_does_not_fit_is_told(refusal) -> None:
    bad = {"source": 7, "kind": "identity"}
    message = refusal(skipping({"source": 1, "kind": "identity"}, bad, dict(bad)))
    assert [line.split(": ")[1] for line in message.splitlines()] == [
        "blocks[1].skips[1].source", "blocks[1].skips[2].source",
    ]  # fmt: skip


def test_graded_input_is_no_source(refusal) -> None:
    entering = {"shape": [1, 8, 8], "encoding": "graded"}
    assert refusal(skipping({"source": 0, "kind": "conv"}, input=entering)) == (
        "net.yaml:6: blocks[1].skips[0].source: 0 is a graded input, which skips cannot read: skip from a "
        "block with neurons"
    )


@pytest.mark.parametrize("kind", ["flatten", "avg_pool"])
def test_only_blocks_with_synapses_of_their_own_have_skips(kind: str, refusal) -> None:
    block = {**{"flatten": FLATTEN, "avg_pool": POOL}[kind], "skips": []}
    assert "blocks[1].skips: no such key" in refusal(text(CONV, block, READOUT, shape=(1, 8, 8)))


def test_weights_of_skips_count_in_the_largest_network(refusal) -> None:
    wide = {"kind": "dense", "features": 30_000}
    blocks = [wide, {**wide, "skips": [{"source": 1, "kind": "dense"}, {"source": 1, "kind": "dense"}]}]
    assert refusal(text(*blocks, READOUT)) == (
        "net.yaml:6: blocks[1]: the network may have at most 2,147,483,648 weights; up to this block it has "
        "2,700,270,000 (10 GiB as float32)"
    )


# --- padding of images

FIRST = {"kind": "conv", "channels": 2, "kernel": 3}


def padded(**entering) -> str:
    """Return a spec with more fields in its input."""
    document = yaml.safe_load(text(FIRST, FLATTEN, READOUT, shape=(2, 6, 7)))
    return yaml.safe_dump({**document, "input": {**document["input"], **entering}})


def test_padding_enlarges_what_the_blocks_take_and_not_what_the_network_takes() -> None:
    spec = parse_spec(padded(padding=[1, 2, 0, 1], border=[0.25, 0.5]))
    assert (spec.input.shape, spec.shapes[:2]) == ((2, 6, 7), ((2, 7, 10), (2, 5, 8)))
    assert parse_spec(dump_spec(spec)) == spec


def test_a_spec_without_padding_is_written_as_before() -> None:
    assert {"padding", "border", "log_mel"} & yaml.safe_load(dump_spec(parse_spec(padded())))["input"].keys() == set()


@pytest.mark.parametrize(
    ("entering", "told"),
    [
        ({"padding": 1, "border": [0.1, 0.2, 0.3]}, "input.border: must be one number, or one for each of the 2 chan"),
        (
            {"padding": 1, "border": 1.5},
            "input.border: must be one number from 0 to 1, or one for each channel (got 1.5)",
        ),
        ({"padding": 1, "encoding": "events"}, "input.padding: does not apply to encoding: events"),
        ({"padding": 1, "shape": [10]}, "input.padding: needs an input.shape of [channels, height, width]"),
        ({"padding": 4096, "shape": [1, 4096, 4096]}, "neurons"),
    ],
)
def test_padding_that_fits_no_image_is_refused(entering, told, refusal) -> None:
    assert told in refusal(padded(**entering))
