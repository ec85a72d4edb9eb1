"""Blocks that read other blocks than the one before: by index or by name."""

from typing import Any

import pytest
import yaml

from specs import NetworkSpec, dump_spec, parse_spec
from specs.summary import summarize

CONV = {"kind": "conv", "channels": 4, "kernel": 3, "padding": 1}
NARROW, WIDE = {**CONV, "channels": 2, "name": "narrow"}, {**CONV, "channels": 3, "name": "wide", "source": "stem"}
JOINED = {**CONV, "source": "narrow", "skips": [{"kind": "conv", "source": "wide", "kernel": 3, "padding": 1}]}
STEM = {**CONV, "name": "stem"}
END = {"kind": "flatten"}, {"kind": "affine", "features": 2}
BRANCHES = STEM, NARROW, WIDE, JOINED, *END


def text(*blocks: dict[str, Any], **entering: Any) -> str:
    """Return YAML of a network of maps, whose block `i` is on line `i + 5`."""
    of_input = yaml.safe_dump({"shape": [1, 8, 8], **entering}, default_flow_style=True)
    head = f"name: net\ntime_steps: 4\ninput: {of_input}blocks:\n"
    return head + "".join(f"- {yaml.safe_dump(block, default_flow_style=True, width=999)}" for block in blocks)


def network(*blocks: dict[str, Any], **entering: Any) -> NetworkSpec:
    return parse_spec(text(*blocks, **entering))


def test_a_block_reads_its_source_and_its_skips_by_name_or_index() -> None:
    wanted = ((), (0,), (1,), (1,), (2, 3), (4,), (5,))
    assert network(*BRANCHES).sources == wanted
    numbered = [{**WIDE, "source": 1}, {**JOINED, "source": 2, "skips": [{**JOINED["skips"][0], "source": 3}]}]
    assert network(STEM, NARROW, *numbered, *END).sources == wanted


def test_shapes_and_costs_are_those_of_what_a_block_reads() -> None:
    spec = network(*BRANCHES)
    assert spec.shapes[1:5] == ((4, 8, 8), (2, 8, 8), (3, 8, 8), (4, 8, 8))
    assert [row.parameters for row in summarize(spec)[1:5]] == [9 * 4, 9 * 4 * 2, 9 * 4 * 3, 9 * (2 + 3) * 4]


def test_any_kind_of_block_has_a_source_and_a_name() -> None:
    pool = {"kind": "avg_pool", "kernel": 8, "source": "stem", "name": "small"}
    flat, skip = {"kind": "flatten", "source": "stem", "name": "flat"}, {"kind": "dense", "source": "small"}
    spec = network(STEM, pool, flat, {**END[1], "source": "flat", "skips": [skip], "name": "out"})
    assert spec.sources == ((), (0,), (1,), (1,), (3, 2))
    averaged = {"kind": "average", "features": 2, "source": 2, "name": "mean"}
    assert network(STEM, {"kind": "flatten", "source": "stem"}, averaged).sources[-1] == (2,)


def test_names_and_sources_survive_a_dump_and_are_left_out_where_there_are_none() -> None:
    spec = network(*BRANCHES)
    assert parse_spec(dump_spec(spec)) == spec
    blocks = yaml.safe_load(dump_spec(spec))["blocks"]
    assert [(block.get("name"), block.get("source")) for block in blocks[1:4]] == [
        ("narrow", None), ("wide", "stem"), (None, "narrow"),
    ]  # fmt: skip
    assert {"name", "source"} & blocks[4].keys() == set()
    entering = network(STEM, {**CONV, "source": 0, "skips": [{"kind": "identity", "source": 1}]}, *END)
    assert yaml.safe_load(dump_spec(entering))["blocks"][1]["source"] == 0


@pytest.mark.parametrize("source", ["input", 0])
def test_several_blocks_read_the_input(source: str | int) -> None:
    spec = network(STEM, {**CONV, "source": source, "skips": [{"kind": "identity", "source": "stem"}]}, *END)
    assert spec.sources[2] == (0, 1)


def test_levels_are_those_of_every_block_that_reads_graded_input() -> None:
    second = {**CONV, "source": "input", "name": "second"}
    joined = {**CONV, "skips": [{"kind": "conv", "source": "stem"}]}
    assert network(STEM, second, joined, *END, encoding="graded", bits=4).levels == (1, 15, 15, 1, 1, 1)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {**WIDE, "source": "stm"},
            ".source: no earlier block is called stm; did you mean stem?; earlier names: inp",
        ),
        ({**WIDE, "source": "wide"}, ".source: no earlier block is called wide; earlier names: input, stem, narrow"),
        ({**WIDE, "source": 3}, ".source: must be the index of an earlier block, 0 (the input) to 2; 3 is the block"),
        ({**WIDE, "source": -1}, ".source: must be at least 0 (got -1)"),
        ({**WIDE, "source": True}, ".source: must be the index of an earlier block, or its name"),
        ({**WIDE, "name": "narrow"}, ".name: must be a name of this block alone, got narrow, which blocks[1] has"),
        ({**WIDE, "name": "input"}, ".name: must be a name of this block alone, got input, which the input has"),
        ({**WIDE, "name": "A b"}, ".name: must be 1 to 64 lower-case letters"),
        ({**WIDE, "skips": [{"kind": "conv", "source": "joined"}]}, ".skips[0].source: no earlier block is called joi"),
        ({**WIDE, "skips": [{"kind": "identity", "source": "stem"}]}, ".skips[0]: output of the skip from source stem"),
        (
            {"kind": "dense", "features": 3, "source": "stem", "name": "wide"},
            ": dense needs a flat input, got [4, 8",
        ),
    ],
)
def test_a_wrong_source_or_name_is_refused_by_its_path(block: dict[str, Any], message: str, refusal) -> None:
    told = refusal(text(STEM, NARROW, block, JOINED, *END)).replace("'", "")
    assert f"net.yaml:7: blocks[2]{message}" in told


def test_a_block_that_no_other_reads_is_refused(refusal) -> None:
    assert refusal(text(STEM, NARROW, WIDE, {**CONV, "source": "wide"}, *END)) == (
        "net.yaml:6: blocks[1]: no block reads block 2 narrow: name it as a source or a skip of a later block, or "
        "remove it"
    )


def test_graded_input_and_spikes_do_not_add_up(refusal) -> None:
    skip = {"kind": "identity", "source": "stem"}
    told = refusal(text(STEM, {**CONV, "source": 0, "skips": [skip]}, *END, encoding="graded"))
    assert "net.yaml:6: blocks[1].skips[0].source: a block that reads graded input cannot read spikes as well" in told


def test_graded_input_enters_only_synapses(refusal) -> None:
    pool = {"kind": "avg_pool", "kernel": 1, "source": 0, "name": "pool"}
    joined = {**CONV, "skips": [{"kind": "conv", "source": "stem"}]}
    assert "net.yaml:6: blocks[1].kind: graded input must enter" in refusal(
        text(STEM, pool, joined, *END, encoding="graded")
    )
