"""Specs written to text and read again are equal."""

import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.io import dump_spec, parse_spec
from specs.layers.block import skips_of
from specs.network import NetworkSpec


@settings(max_examples=60)
@given(data=st.data())
def test_a_spec_dumped_to_yaml_parses_to_itself(data, network_specs) -> None:
    spec = data.draw(network_specs())
    assert parse_spec(dump_spec(spec)) == spec


@settings(max_examples=20)
@given(data=st.data())
def test_the_text_of_a_parsed_spec_is_the_text_it_came_from(data, network_specs) -> None:
    text = dump_spec(data.draw(network_specs()))
    assert dump_spec(parse_spec(text)) == text


@settings(max_examples=20)
@given(data=st.data())
def test_a_spec_survives_json(data, network_specs) -> None:
    spec = data.draw(network_specs())
    assert NetworkSpec.model_validate(json.loads(spec.model_dump_json())) == spec


@settings(max_examples=20)
@given(data=st.data())
def test_defaults_left_out_of_the_text_come_back(data, network_specs) -> None:
    spec = data.draw(network_specs())
    text = yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True) | kinds(spec))
    assert parse_spec(text) == spec


def test_json_with_escaped_characters_beyond_16_bits_is_read_as_json() -> None:
    spec = parse_spec("{name: a, time_steps: 1, input: {shape: [1]}, blocks: [{kind: affine, features: 1}]}")
    spec = spec.model_copy(update={"description": "\N{SNAKE}"})
    assert parse_spec(json.dumps(spec.model_dump(mode="json"))) == spec


def kinds(spec: NetworkSpec) -> dict[str, list[dict[str, object]]]:
    """Return the blocks without default values, but with their kind."""
    blocks = []
    for block in spec.blocks:
        document = {**block.model_dump(mode="json", exclude_defaults=True), "kind": block.kind}
        if skips := skips_of(block):
            document["skips"] = [{**skip.model_dump(exclude_defaults=True), "kind": skip.kind} for skip in skips]
        blocks.append(document)
    return {"blocks": blocks}
