"""Tables of `specs/README.md`: all fields of a spec, from the JSON Schema that `zoo schema` prints."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from readme_tables.common import markdown_table, paragraphs
from specs import json_schema
from specs.layers.block import BLOCK_KINDS, kind_of

Schema = Mapping[str, Any]

TITLES = {
    "NetworkSpec": "The network",
    "InputSpec": "`input`",
    "LogMelSpec": "`log_mel`, of `input`",
    "CubaSpec": "`neuron`",
    "SigmaDeltaSpec": "`kind: sigma_delta`, of `neuron`",
    "DelaySpec": "`delays`, of `kind: dense` and `kind: conv`",
    **{model.__name__: f"`kind: {kind_of(model)}`, of `blocks`" for model in BLOCK_KINDS},
    "IdentitySkip": "`kind: identity`, of `skips`",
    "DenseSkip": "`kind: dense`, of `skips`",
    "ConvSkip": "`kind: conv`, of `skips`",
    "TrainingSpec": "`training`",
    "AugmentSpec": "`augment`",
}
"""Headings of the models, in the order of the reference."""
NO_BOUND = 1 << 24
"""Bounds from here on only limit memory and are not shown."""


def spec_reference() -> str:
    """Return a heading and a table for each of `TITLES`."""
    whole = json_schema()
    models = {"NetworkSpec": whole, **whole["$defs"]}
    return paragraphs(*(_section(title, models[name], models) for name, title in TITLES.items()))


def _section(title: str, model: Schema, models: Schema) -> str:
    meaning, *_example = model["description"].split("\n\n>>>")
    required = model.get("required", ())
    fields = {name: field for name, field in model["properties"].items() if name != "kind"}
    rows = []
    for name in sorted(fields, key=lambda name: name not in required):
        field = fields[name]
        default = "" if name in required else f"`{_value(field['default'])}`"
        words = field["description"].replace("\n", " ").replace("|", "\\|")
        rows.append((f"`{name}`", _takes(field, models), default, words))
    table = markdown_table("field | takes | default | meaning", rows) if fields else ""
    return paragraphs(f"## {title}", meaning, table)


def _value(default: Any) -> str:
    """Return a default as YAML; `{}` for a model, which stands for the defaults of its fields."""
    if isinstance(default, dict):
        return "{}"
    return default if isinstance(default, str) and default else json.dumps(default)


def _takes(part: Schema, models: Schema) -> str:
    match part:
        case {"$ref": ref}:
            model = models[_name(ref)]
            return " or ".join(f"`{value}`" for value in model["enum"]) if "enum" in model else _link(ref)
        case {"anyOf": [one, {"prefixItems": [like_it, _]}]} if one == like_it:
            return f"{_takes(one, models)}, or two"
        case {"anyOf": [one, {"prefixItems": [like_it, _]}, {"prefixItems": [*four]}]} if [one] * 5 == [like_it, *four]:
            return f"{_takes(one, models)}, or two or four"
        case {"anyOf": choices}:
            return " or ".join(_takes(choice, models) for choice in choices if choice.get("type") != "null")
        case {"oneOf": choices}:
            return " or ".join(_takes(choice, models) for choice in choices)
        case {"const": value}:
            return f"`{value}`"
        case {"prefixItems": parts}:
            return f"[{', '.join(_takes(each, models) for each in parts)}]"
        case {"items": {"oneOf": kinds}}:
            return f"list of {', '.join(_link(kind['$ref']) for kind in kinds)}"
        case {"items": each}:
            return f"list of {_takes(each, models)}"
        case {"type": "boolean"}:
            return "`true` or `false`"
        case _:
            return " ".join([{"string": "text"}.get(part["type"], part["type"]), *_bounds(part)])


def _name(ref: str) -> str:
    return ref.removeprefix("#/$defs/")


def _link(ref: str) -> str:
    """Return a link to the section of a model."""
    title = TITLES[_name(ref)].replace("`", "")
    anchor = re.sub(r"[^a-z_ ]", "", title).replace(" ", "-")
    return f"[{title.removeprefix('kind: ').split(',')[0]}](#{anchor})"


def _bounds(part: Schema) -> Iterator[str]:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    for key, word in words.items():
        if key in part and part[key] < NO_BOUND:
            yield f"{word} {part[key]:g}"
