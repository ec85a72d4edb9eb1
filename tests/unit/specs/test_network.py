"""Checks that involve several fields, and the properties of a network spec."""

from typing import Any

import pydantic
import pytest
import yaml

from specs import Encoding, InputSpec, LayerSpec, NetworkSpec, dump_spec, parse_spec
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


# --- what does not fit together

IMAGE, PAIR = {"shape": [1, 8, 8]}, {"shape": [2, 8, 8]}
EVENTS = {**PAIR, "encoding": "events"}
GRADED = {"shape": [9], "encoding": "graded"}
HEARD = {"shape": [40], "encoding": "events", "log_mel": {"frames": 20}}
DELAYED = {**CONV, "delays": {"per": "synapse"}}
WIDE = {"kind": "dense", "features": 30_000}
RECURRENT = {**DENSE, "recurrent": True}
MEAN_ONLY = {**DENSE, "norm": "mean_only"}
FIRST = {"kind": "conv", "channels": 2, "kernel": 3}
Block = dict[str, Any]
REFUSED: list[tuple[str, str, list[Block], Block]] = [
    ("6: blocks[1].kind", "affine is a readout and must be the last block", [DENSE, READOUT, READOUT], {}),
    ("6: blocks[1].kind", "flatten cannot be the last block, the readout", [DENSE, FLATTEN], {}),
    ("5: blocks[0]", "dense needs a flat input, got [1, 8, 8]: put a flatten", [DENSE, READOUT], {"input": IMAGE}),
    ("5: blocks[0]", "affine needs a flat input, got [1, 8, 8]: put a flatten", [READOUT], {"input": IMAGE}),
    ("5: blocks[0]", "conv needs an input [channels, height, width]", [CONV, READOUT], {}),
    ("5: blocks[0]", "avg_pool needs an input [channels, height, width]", [POOL, READOUT], {}),
    *(
        ("5: blocks[0].kernel", f"covers {reach}, more than the padded input has ({size})",
         [{**CONV, **geometry}, FLATTEN, READOUT], {"input": IMAGE})
        for geometry, reach, size in (
            ({"kernel": 9}, "9 pixels along the height", 8),
            ({"kernel": [3, 11], "padding": [0, 1]}, "11 pixels along the width", 10),
            ({"kernel": 3, "dilation": 4}, "9 pixels along the height", 8),
        )
    ),
    *(
        ("5: blocks[0].groups", f"{groups} groups must divide the 3 input and 4 output channels",
         [{"kind": "conv", "channels": 4, "kernel": 1, "groups": groups}, FLATTEN, READOUT], {"shape": (3, 8, 8)})
        for groups in (2, 3)
    ),
    *(
        (f"3: input.{field}", "does not apply to encoding: events", [FLATTEN, READOUT],
         {"input": {**EVENTS, field: 0.5}})
        for field in ("mean", "std", "weight", "bias")
    ),
    *(
        (f"3: input.{field}", "does not apply to encoding: graded", [DENSE, READOUT],
         {"input": {**GRADED, field: value}})
        for field, value in (
            ("mean", 0.5), ("std", 0.5), ("weight", 2.0), ("bias", 0.5), ("exact_input", False),
            ("neuron", {"threshold": 2.0}),
        )
    ),
    *(
        ("3: input.shape", "must be [features] or [channels, height, width]", [READOUT], {"input": {"shape": shape}})
        for shape in ([], [2, 3], [1, 2, 3, 4])
    ),
    ("2: time_steps", "must be 20, input.log_mel.frames, got 48", [READOUT], {"input": HEARD, "time_steps": 48}),
    ("3: input.log_mel", "makes time steps of [1, 40, 1], but input.shape is [1, 40, 20]", [FLATTEN, READOUT],
     {"input": {**HEARD, "shape": [1, 40, 20]}, "time_steps": 20}),
    ("output", "last is for an affine readout, got dense: set it to rate", [DENSE, DENSE], {"output": "last"}),
    ("output", "spikes needs input.encoding: events, got spike", [DENSE, DENSE], {"output": "spikes"}),
    ("output", "spikes needs a readout with neurons", [DENSE, READOUT], {"output": "spikes"}),
    ("output", "count", [DENSE, READOUT], {"output": "count"}),
    ("logit_scale", "does not apply to output: spikes", [DENSE], {"output": "spikes", "logit_scale": 2}),
    ("5: blocks[0].delays", "per: synapse is for dense blocks", [DELAYED, FLATTEN, READOUT], {"input": PAIR}),
    ("blocks[1].features", "4 classes must divide the 5 inputs", [DENSE, {"kind": "average", "features": 4}], {}),
    ("blocks[1]", "average needs a flat input", [CONV, {"kind": "average", "features": 2}], {"input": PAIR}),
    ("blocks[0].kind", "average is a readout and must be the last", [{"kind": "average", "features": 3}, READOUT], {}),
    *(
        ("5: blocks[0].kind", "graded input must enter a dense or conv block", blocks,
         {"input": {**IMAGE, "encoding": "graded"}})
        for blocks in ([FLATTEN, READOUT], [POOL, FLATTEN, READOUT])
    ),
    *(
        ("3: input.bits", f"to a mantissa of {mantissa}; the hardware allows at most 131071", [DENSE, READOUT],
         {"input": {**GRADED, "bits": bits}, "neuron": {"threshold": threshold}})
        for bits, threshold, mantissa in ((12, 1.0, 262080), (16, 1 / 16, 262140), (2, 683.0, 131136))
    ),
    *(
        ("5: blocks[0].kernel", f"has weight {weight}, outside the weight grid (1/64, 254/64]",
         [{**POOL, "kernel": kernel, "gain": gain}, FLATTEN, READOUT], {"shape": (1, 16, 16)})
        for kernel, gain, weight in ((8, 1.0, "0.01562"), (2, 16.0, "4"), (2, 15.9, "3.975"), ([16, 4], 1.0, "0.01562"))
    ),
    *(
        ("blocks[0].padding", f"must be smaller than the kernel, which has a {axis} of 2",
         [{**POOL, "padding": padding}, FLATTEN, READOUT], {"input": IMAGE})
        for padding, axis in ((2, "height"), ([1, 2], "width"), ([0, 0, 0, 2], "width"))
    ),
    *(
        ("5: blocks[0].norm", f"{norm} needs a current_decay of at least 1/4096",
         [{**DENSE, "norm": norm, "neuron": {"current_decay": decay}}, READOUT], {})
        for norm, decay in (("mean_only", 0), ("batch", 0), ("mean_only", 0.0001))
    ),
    ("6: blocks[1].norm", "5: blocks[0].norm", [MEAN_ONLY, MEAN_ONLY, READOUT], {"neuron": {"current_decay": 0}}),
    ("6: blocks[1].skips[0].source", "0 is a graded input, which skips cannot read",
     [CONV, {**CONV, "kernel": 1, "skips": [{"source": 0, "kind": "conv", "kernel": 3}]}, FLATTEN, READOUT],
     {"input": {**IMAGE, "encoding": "graded"}}),
    *(
        ("blocks[1].skips", "no such key", [CONV, {**block, "skips": []}, READOUT], {"input": IMAGE})
        for block in (FLATTEN, POOL)
    ),
    ("6: blocks[1]", "at most 2,147,483,648 weights; up to this block it has 2,700,270,000 (10 GiB",
     [WIDE, {**WIDE, "skips": [{"source": 1, "kind": "dense"}, {"source": 1, "kind": "dense"}]}, READOUT], {}),
    *(
        (f"3: input.{place}", told, [FIRST, FLATTEN, READOUT], {"input": {"shape": [2, 6, 7], **entering}})
        for place, told, entering in (
            ("border", "must be one number, or one for each of the 2", {"padding": 1, "border": [0.1, 0.2, 0.3]}),
            ("border", "must be one number from 0 to 1, or one for each", {"padding": 1, "border": 1.5}),
            ("padding", "does not apply to encoding: events", {"padding": 1, "encoding": "events"}),
            ("padding", "needs an input.shape of [channels, height, width]", {"padding": 1, "shape": [10]}),
        )
    ),
    ("5: blocks[0]", "at most 268,435,456 neurons", [FIRST, FLATTEN, READOUT],
     {"input": {"shape": [1, 4096, 4096], "padding": 4096}}),
]  # fmt: skip
"""Networks whose parts do not fit: line and place that the error names, its words, blocks, other fields."""


def test_a_network_needs_a_block(refusal) -> None:
    message = refusal("name: a\ntime_steps: 4\ninput: {shape: [9]}\nblocks: []\n")
    assert message.startswith("net.yaml:4: blocks: must have at least one block, the readout")


@pytest.mark.parametrize(("place", "words", "blocks", "more"), REFUSED)
def test_what_does_not_fit_is_refused_at_its_place(
    place: str, words: str, blocks: list[Block], more: Block, refusal
) -> None:
    message = refusal(text(*blocks, **more))
    assert f"{place}:" in message
    assert words in message


# --- events


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


@pytest.mark.parametrize("shape", [[40], [1, 40, 1]], ids=str)
def test_a_spectrogram_enters_column_by_column(shape: list[int]) -> None:
    heard = {"shape": shape, "encoding": "events", "bits": 4, "log_mel": {}}
    blocks = [READOUT] if len(shape) == 1 else [FLATTEN, READOUT]
    spec = parse_spec(text(*blocks, input=heard, time_steps=48))
    assert (spec.input.log_mel, spec.input.form) == (LogMelSpec(), "events, 4 bits")
    assert "bin_us" not in spec.input.model_dump()


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


# --- graded input


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


# --- pools


def test_without_a_gain_the_weight_is_the_smallest_that_fires_the_pools_own_neurons() -> None:
    pools = [POOL, {**POOL, "neuron": {"threshold": 3.0}}]
    spec = parse_spec(text(*pools, FLATTEN, READOUT, shape=(1, 8, 8), neuron={"threshold": 2.0}))
    assert [pool.weight(spec.neuron_of(pool)) for pool in spec.blocks[:2]] == [17 / 32, 25 / 32]


# --- properties of a network


def spec_of_all_kinds(**more: Any) -> NetworkSpec:
    conv = {"kind": "conv", "channels": 4, "kernel": 3}
    own = {**DENSE, "neuron": {"threshold": 7.0}, "delay_shift": False}
    return parse_spec(text(conv, POOL, FLATTEN, DENSE, own, READOUT, shape=(1, 8, 8), **more))


def _members(spec: NetworkSpec) -> list[tuple[pydantic.BaseModel | LayerSpec, str]]:
    return [(spec, "time_steps"), (spec.neuron, "threshold"), (spec.input, "shape"), (spec.blocks[0], "kernel")]


@pytest.mark.parametrize("member", range(4), ids=["network", "neuron", "input", "block"])
def test_a_spec_cannot_be_changed(member: int) -> None:
    part, field = _members(spec_of_all_kinds())[member]
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(part, field, getattr(part, field))


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


# --- padding of images


def padded(**entering) -> str:
    """Return a spec with more fields in its input."""
    document = yaml.safe_load(text(FIRST, FLATTEN, READOUT, shape=(2, 6, 7)))
    return yaml.safe_dump({**document, "input": {**document["input"], **entering}})


def test_padding_enlarges_what_the_blocks_take_and_not_what_the_network_takes() -> None:
    spec = parse_spec(padded(padding=[1, 2, 0, 1], border=[0.25, 0.5]))
    assert (spec.input.shape, spec.shapes[:2]) == ((2, 6, 7), ((2, 7, 10), (2, 5, 8)))
    assert parse_spec(dump_spec(spec)) == spec
