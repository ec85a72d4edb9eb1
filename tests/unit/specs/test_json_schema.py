"""The JSON Schema for editors accepts the specs that the loader accepts, as far as a schema can express it."""

import re
from importlib import resources
from typing import Any

import pytest
import yaml

from specs import json_schema, network_names

SCHEMA = json_schema()
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
NOTES = {"$schema", "$defs", "title", "description", "default", "discriminator"}
TINY: dict[str, Any] = {
    "name": "tiny",
    "time_steps": 4,
    "input": {"shape": [1, 8, 8]},
    "blocks": [
        {"kind": "conv", "channels": 4, "kernel": [3, 3]},
        {"kind": "flatten"},
        {"kind": "affine", "features": 2},
    ],
}


def problems(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Return the places where `value` violates `schema`; an unknown keyword of JSON Schema raises."""
    found: list[str] = []
    for word, bound in schema.items():
        match word:
            case "$ref":
                found += problems(value, SCHEMA["$defs"][bound.removeprefix("#/$defs/")], path)
            case "type":
                ok = isinstance(value, TYPES[bound]) and (bound == "boolean" or not isinstance(value, bool))
                found += [] if ok else [f"{path}: not {bound}"]
            case "anyOf" | "oneOf":
                hits = sum(not problems(value, choice, path) for choice in bound)
                found += [] if hits == 1 or (word == "anyOf" and hits) else [f"{path}: {hits} of {word}"]
            case "const" | "enum":
                found += [] if value in (bound if word == "enum" else [bound]) else [f"{path}: not {bound}"]
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if isinstance(value, int | float):
                ok = {
                    "minimum": value >= bound,
                    "maximum": value <= bound,
                    "exclusiveMinimum": value > bound,
                    "exclusiveMaximum": value < bound,
                }[word]
                found += [] if ok else [f"{path}: {word} {bound}"]
            case "pattern" if isinstance(value, str):
                found += [] if re.search(bound, value) else [f"{path}: {bound}"]
            case "minItems" | "maxItems" if isinstance(value, list):
                ok = len(value) >= bound if word == "minItems" else len(value) <= bound
                found += [] if ok else [f"{path}: {word} {bound}"]
            case "items" if isinstance(value, list):
                for i, item in enumerate(value):
                    found += problems(item, bound, f"{path}[{i}]")
            case "prefixItems" if isinstance(value, list):
                for i, (item, part) in enumerate(zip(value, bound, strict=False)):
                    found += problems(item, part, f"{path}[{i}]")
            case "properties" if isinstance(value, dict):
                for key in value.keys() & bound.keys():
                    found += problems(value[key], bound[key], f"{path}.{key}")
            case "required" if isinstance(value, dict):
                found += [f"{path}.{key}: missing" for key in bound if key not in value]
            case "additionalProperties" if isinstance(value, dict):
                assert bound is False
                found += [f"{path}.{key}: unknown" for key in value if key not in schema["properties"]]
            case _:
                typed = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "minItems"}
                typed |= {"maxItems", "items", "prefixItems", "properties", "required", "additionalProperties"}
                assert word in NOTES | typed, f"a word that this test does not know: {word}"
    return found


def shipped(name: str) -> str:
    return (resources.files("specs.networks") / f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", network_names())
def test_the_shipped_networks_are_of_the_schema(name: str) -> None:
    assert problems(yaml.safe_load(shipped(name)), SCHEMA) == []


@pytest.mark.parametrize("field", ["kernel", "stride", "padding", "dilation"])
def test_one_number_for_both_axes_is_of_the_schema(field: str) -> None:
    conv = {**TINY["blocks"][0], field: 1}
    assert problems({**TINY, "blocks": [conv, *TINY["blocks"][1:]]}, SCHEMA) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"time_steps": 0}, ".time_steps: minimum 1"),
        ({"time_steps": "4"}, ".time_steps: not integer"),
        ({"name": "A b"}, ".name: "),
        ({"neuron": {"current_decay": 1.2}}, ".neuron: 0 of oneOf"),
        ({"neuron": {"threshold": 0}}, ".neuron: 0 of oneOf"),
        ({"neurons": {}}, ".neurons: unknown"),
        ({"schema_version": 2}, ".schema_version: not 1"),
        ({"input": {"shape": [0]}}, ".input.shape[0]: minimum 1"),
        ({"blocks": [{"kind": "densee", "features": 2}]}, ".blocks[0]: 0 of oneOf"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change: dict[str, Any], where: str) -> None:
    assert [problem for problem in problems({**TINY, **change}, SCHEMA) if problem.startswith(where)]


@pytest.mark.parametrize("kind", ["identity", "dense", "conv"])
def test_skips_are_of_the_schema(kind: str) -> None:
    readout = {**TINY["blocks"][-1], "skips": [{"source": 1, "kind": kind}]}
    assert problems({**TINY, "blocks": [*TINY["blocks"][:-1], readout]}, SCHEMA) == []
    readout["skips"][0]["source"] = -1
    assert problems({**TINY, "blocks": [*TINY["blocks"][:-1], readout]}, SCHEMA)
