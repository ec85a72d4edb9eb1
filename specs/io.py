"""Read and write specs and other typed documents as YAML.

Documents that cannot be read or are invalid raise `SpecError`, which names file, line, field, value and bound.
"""

import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from functools import lru_cache, reduce
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from specs.arguments import check_spec, check_type
from specs.errors import SpecError
from specs.fields import PATTERNS, StrictModel
from specs.files.given_file import check_given_file
from specs.files.limits import DOCUMENT_VALUES, SPEC_BYTES, SPEC_DEPTH, SPEC_PROBLEMS
from specs.files.whole_file import write_whole
from specs.layers.block import BlockSpec, SkipSpec
from specs.layers.neuron import NEURON_KINDS
from specs.network import SCHEMA_VERSION, NetworkSpec
from specs.training import FIND_DATA, SPEC_FOLDER
from specs.words import nearest, suggest

HUGE_BYTES = 1 << 30

FieldPath = tuple[str | int, ...]
Typed = TypeVar("Typed", bound=StrictModel)
BLOCKS, SKIPS = (
    {model.model_fields["kind"].default: model for model in get_args(get_args(union)[0])}
    for union in (BlockSpec, SkipSpec)
)
SIZE_KEYS = ("features", "channels")
"""Keys for the number of neurons or of feature maps; each kind of block has at most one of them."""


NO_WORDS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "timestamp")}
"""YAML types other than text that a key without quotes may have: `~`, `yes`, `5`."""


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node. A value that Python lacks, as 2020-13-45, is an error with its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

    def fetch_more_tokens(self) -> None:
        """Read the next tokens. An escape beyond Unicode, as `\\U00110000`, is an error with its line."""
        try:
            super().fetch_more_tokens()
        except (ValueError, OverflowError):
            problem = "an escape that is not a Unicode character"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark()) from None


class _Dumper(yaml.SafeDumper):
    """YAML dumper whose text `_Loader` reads back unchanged."""


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return a string. JSON escapes a character beyond 16 bits as two surrogates, which are joined here."""
    return loader.construct_scalar(node).encode("utf-16", "surrogatepass").decode("utf-16")


_Loader.add_constructor("tag:yaml.org,2002:str", _text)
for _class in (_Loader, _Dumper):
    # PyYAML follows YAML 1.1, which reads 1e-3 and 1.5e3 as strings.
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
    )


def load_spec(source: str | Path, *, find_data: bool = False) -> NetworkSpec:
    """Read a network spec from a YAML file, or by the name of a spec in the package.

    Args:
        source: path or name; a file comes before a spec of the same name. Data that lie beside the file, and not in
            the current folder, get their absolute path.
        find_data: also report `training.data` that is neither the name of a dataset nor an existing file or folder.

    Raises `SpecError` if the spec cannot be read, or is invalid; lists every problem with its line and field.

    >>> load_spec("mnist-dense").n_classes
    10
    """
    check_type(source, (str, os.PathLike), "load_spec takes the name of a spec or the path of a file", error=SpecError)
    path = Path(source)
    if str(source) in network_names() and not path.is_file():
        return parse_spec((resources.files("specs.networks") / f"{source}.yaml").read_text("utf-8"), origin=str(source))
    is_there = os.path.exists(path)  # noqa: PTH110 - False for a name too long for a file
    if path.suffix not in {".yaml", ".yml", ".json"} and not is_there:
        known = network_names()
        raise SpecError(
            f"no spec {_brief(str(source))}: not a file, and not one of the networks in the package "
            f"({', '.join(known)}){suggest(str(source), known)}"
        )
    return load_document(path, NetworkSpec, context={FIND_DATA: find_data, SPEC_FOLDER: path.parent})


def parse_spec(text: str, *, origin: str = "spec") -> NetworkSpec:
    """Read a network spec from YAML (or JSON) text; `origin` names it in errors. Raises `SpecError`."""
    check_type(text, str, "parse_spec takes text", advice="load_spec reads a file", error=SpecError)
    return parse_document(text, NetworkSpec, origin=origin)


def spec_from_document(document: object, *, origin: str = "spec") -> NetworkSpec:
    """Validate a network spec that `json.loads` returned; `origin` names it in errors. Raises `SpecError`."""
    return document_as(document, NetworkSpec, origin=origin)


def document_as(document: object, model: type[Typed], *, origin: str) -> Typed:
    """Validate a document that `json.loads` returned, and return the model."""
    _refuse_many(document, origin, _name_of(model))
    return _validate(document, model, {}, origin)


def load_document(path: Path, model: type[Typed], *, context: Mapping[str, object] | None = None) -> Typed:
    """Read a document from a YAML (or JSON) file."""
    what = _name_of(model)
    check_given_file(path, error=SpecError, what=f"{what} ")
    try:
        with path.open("rb") as file:
            raw = file.read(SPEC_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot read {what} {path}: {error.strerror or error}") from None
    _refuse_size(raw, str(path), what)
    try:
        return parse_document(raw.decode("utf-8"), model, origin=str(path), context=context)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse_document(text: str, model: type[Typed], *, origin: str, context: Mapping[str, object] | None = None) -> Typed:
    """Read a document from YAML (or JSON) text; `origin` names it in errors. Otherwise like `load_document`."""
    node, document = _parse(text, origin, _name_of(model))
    return _validate(document, model, _lines(node), origin, context)


def parse_value(text: str, *, origin: str) -> Any:
    """Return the value of a piece of YAML, read like a value in a spec. Raises `SpecError`.

    >>> parse_value("1e-3", origin="--set")
    0.001
    """
    return _parse(text, origin, "value")[1]


def line_of(source: str | Path, field: str) -> int | None:
    """Return the line of a field in a file, such as `training.teacher`, or else that of the mapping it belongs to.

    Returns None if `source` is not a file of YAML.
    """
    try:
        lines = _lines(_parse(Path(source).read_text("utf-8"), str(source), "document")[0])
    except (OSError, UnicodeDecodeError, SpecError):
        return None
    path: FieldPath = tuple(field.split("."))
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def dump_spec(spec: NetworkSpec, path: Path | None = None) -> str:
    """Return the spec as YAML text, with defaults written out; also write it to `path` if given."""
    check_spec(spec, "dump_spec")
    return dump_document(spec, path)


def dump_document(document: StrictModel, path: Path | None = None) -> str:
    """Return a document as YAML text, with defaults written out; also write it to `path` if given."""
    tree = document.model_dump(mode="json")
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None)
    if path is not None:
        write_whole(path, text.encode())
    return text


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of network specs, for editors."""
    schema = NetworkSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def network_names() -> list[str]:
    """Return the names of the specs in the package, sorted."""
    files = resources.files("specs.networks").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def name_from(text: str) -> str:
    """Make a valid network name from any text.

    >>> name_from("My Network (2)")
    'my-network-2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "network"


def _name_of(model: type[StrictModel]) -> str:
    """Return the name of a kind of document, for messages.

    >>> _name_of(NetworkSpec)
    'network spec'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", " ", model.__name__).lower()


def _refuse_size(text: str | bytes, origin: str, what: str) -> None:
    if len(text) > SPEC_BYTES:
        raise SpecError(f"{origin}: too long to be a {what}; the limit is {SPEC_BYTES} bytes")


def _refuse_many(document: object, origin: str, what: str) -> None:
    left, within = DOCUMENT_VALUES, [document]
    while within:
        value = within.pop()
        if isinstance(value, dict | list):
            left -= len(value)
            if left < 0:
                raise SpecError(f"{origin}: too long to be a {what}; the limit is {DOCUMENT_VALUES:,} values")
            within.extend(value.values() if isinstance(value, dict) else value)


def _parse(text: str, origin: str, what: str) -> tuple[yaml.Node | None, Any]:
    """Return the YAML node tree, which has the line numbers, and the document itself."""
    _refuse_size(text, origin, what)
    if "\t" in text and _is_json(text):
        text = text.replace("\t", " ")  # JSON has tabs only between tokens, where YAML forbids them
    try:
        _refuse_tokens(text, origin)
        node = yaml.compose(text, Loader=_Loader)
        _refuse_keys(node, origin)
        return node, None if node is None else _Loader("").construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise SpecError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_tokens(text: str, origin: str) -> None:
    """Refuse what YAML allows and a spec must not: aliases, tags, deep nesting."""
    depth = 0
    for token in yaml.scan(text, Loader=_Loader):
        where = f"{origin}:{token.start_mark.line + 1}"
        match token:
            case yaml.AliasToken():
                raise SpecError(f"{where}: YAML aliases (*{token.value}) are not allowed")
            case yaml.TagToken():
                raise SpecError(f"{where}: YAML tags ({''.join(filter(None, token.value))}) are not allowed")
            case (
                yaml.BlockMappingStartToken()
                | yaml.BlockSequenceStartToken()
                | yaml.FlowMappingStartToken()
                | yaml.FlowSequenceStartToken()
            ):
                depth += 1
            case yaml.BlockEndToken() | yaml.FlowMappingEndToken() | yaml.FlowSequenceEndToken():
                depth -= 1
        if depth > SPEC_DEPTH:
            raise SpecError(f"{where}: nested too deeply; the limit is {SPEC_DEPTH} levels")


def _refuse_keys(node: yaml.Node | None, origin: str) -> None:
    """Refuse keys that are not text, or are given twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{origin}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{where}: a key must be text, got a list or a mapping")
            if key.tag in NO_WORDS:
                kind = key.tag.rpartition(":")[2]
                raise SpecError(f"{where}: the key {_brief(key.value)} is read as {kind}: put it in quotes")
            if key.value in seen:
                raise SpecError(f"{where}: {_brief(key.value)} is given twice")
            seen.add(key.value)
            _refuse_keys(value, origin)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_keys(value, origin)


def _lines(node: yaml.Node | None, path: FieldPath = ()) -> dict[FieldPath, int]:
    """Return the line number of every field path in the document."""
    if node is None:
        return {}
    lines = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines |= _lines(value, (*path, key.value)) | {(*path, key.value): key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines |= _lines(value, (*path, i))
    return lines


def _validate(
    document: object,
    model: type[Typed],
    lines: dict[FieldPath, int],
    origin: str,
    context: Mapping[str, object] | None = None,
) -> Typed:
    if not isinstance(document, dict):
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        keys = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise SpecError(f"{origin}: a {_name_of(model)} must be a mapping with {keys}")
    version = document.get("schema_version", SCHEMA_VERSION)
    if model is NetworkSpec and (type(version) is not int or version != SCHEMA_VERSION):
        raise SpecError(
            f"{origin}: schema_version {_brief(version)} is not supported (newest: {SCHEMA_VERSION}); "
            "update snnzoo to read it"
        )
    try:
        return super(StrictModel, model).model_validate(document, context=context)
    except ValidationError as error:
        raise spec_error(error, model, origin=origin, lines=lines) from None


def spec_error(
    error: ValidationError,
    model: type[StrictModel],
    *,
    origin: str,
    lines: Mapping[FieldPath, int] = MappingProxyType({}),
) -> SpecError:
    """Return the error for a document that is not a `model`; `lines` are those of its fields in the file `origin`."""
    problems = [_describe(problem, model, lines, origin) for problem in error.errors()[:SPEC_PROBLEMS]]
    if error.error_count() > SPEC_PROBLEMS:
        problems.append(f"{origin}: and {error.error_count() - SPEC_PROBLEMS} more")
    return SpecError("\n".join(problems))


PLAIN = {
    "Field required": "is missing",
    "Input should be": "must be",
    "greater than or equal to": "at least",
    "greater than": "above",
    "less than or equal to": "at most",
    "less than": "below",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid tuple": "a list",
    "a valid dictionary": "a mapping",
}


def _describe(problem: Any, model: type[StrictModel], lines: Mapping[FieldPath, int], origin: str) -> str:
    """Return one of Pydantic's problems as `file:line: field: message (got value)`."""
    path, value = _without_kind(problem["loc"]), problem["input"]
    message = problem["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
    if problem["type"] != "value_error":  # those are ours
        message = reduce(lambda text, words: text.replace(*words), PLAIN.items(), message)
    match problem["type"]:
        case "extra_forbidden":
            message = f"no such key{_suggest_size(problem['loc']) or _suggest_key(path, model)}"
        case "missing":
            value = None
        case "string_pattern_mismatch":
            pattern = problem["ctx"]["pattern"]
            message = f"must be {PATTERNS.get(pattern, f'a text that matches {pattern}')}"
        case "less_than_equal" if isinstance(value, int) and 4 * value > HUGE_BYTES:
            message = f"{message}; a float for each would take {_gibibytes(4 * value)}"
        case "union_tag_not_found" | "union_tag_invalid":
            kinds = list(NEURON_KINDS if path[-1] == "neuron" else SKIPS if "skips" in path else BLOCKS)
            path, value = (*path, "kind"), value.get("kind")
            message = f"must be one of {', '.join(kinds)}{suggest(value, kinds)}"
    known = path
    while known and known not in lines:
        known = known[:-1]
    where = f"{origin}:{lines[known]}" if known in lines else origin
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if len(field) > 100 or not field.isprintable():
        field = _brief(field)
    got = f" (got {_brief(value)})" if isinstance(value, str | int | float | list) else ""
    return f"{where}: {field or _name_of(model)}: {message}{got}"


def _without_kind(loc: FieldPath) -> FieldPath:
    """Remove kinds of blocks, skips and neurons from a path of Pydantic; the document does not have these levels."""
    if "neuron" in loc[:-1] and loc[(at := loc.index("neuron") + 1)] in NEURON_KINDS:
        loc = (*loc[:at], *loc[at + 1 :])
    if len(loc) > 2 and loc[0] == "blocks" and loc[2] in BLOCKS:
        loc = (*loc[:2], *loc[3:])
    if len(loc) > 4 and loc[2] == "skips" and loc[4] in SKIPS:
        loc = (*loc[:4], *loc[5:])
    return loc


def _suggest_size(loc: FieldPath) -> str:
    """Return a hint with the block's own size key, if the path has the size key of another kind of block."""
    if len(loc) != 4 or loc[0] != "blocks" or loc[3] not in SIZE_KEYS:
        return ""
    return "".join(f"; did you mean {key}?" for key in SIZE_KEYS if key in BLOCKS[str(loc[2])].model_fields)


def _suggest_key(path: FieldPath, model: type[StrictModel]) -> str:
    """Return a hint with the nearest key; with its full path if it belongs elsewhere, as in `training.epochs`."""
    parent, places = path[:-1], list(_places(model))
    # the last of equal names wins: a sibling, or the shallowest
    places.sort(key=lambda place: (place[:-1] == parent, -len(place)))
    known = {name: (*parent, name) for name in _field_names(model)}
    if all(isinstance(part, str) for part in parent):
        known |= {str(place[-1]): place for place in places}
    place = known.get(nearest(path[-1], known) or "", path)
    hint = place[-1:] if place[:-1] == parent else place
    return "" if place == path else f"; did you mean {'.'.join(map(str, hint))}?"


def _places(model: type[StrictModel]) -> Iterator[FieldPath]:
    """Yield the path of every key of a document, except those within lists."""
    for name, field in model.model_fields.items():
        yield (name,)
        for kind in _models_in(field.annotation):
            yield from ((name, *place) for place in _places(kind))


def _models_in(annotation: Any) -> Iterator[type[StrictModel]]:
    """Yield the models of a field's type, such as each kind of neuron; those in lists are left out."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        yield annotation
    elif get_origin(annotation) is not tuple:
        for part in get_args(annotation):
            yield from _models_in(part)


@lru_cache
def _field_names(model: type[StrictModel]) -> list[str]:
    schema = model.model_json_schema()
    return sorted({name for part in [schema, *schema.get("$defs", {}).values()] for name in part.get("properties", ())})


def _gibibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.0f} GiB" if n_bytes < 1 << 100 else "more memory than any machine has"


def _brief(value: object) -> str:
    """Return `repr(value)`, shortened if it is long."""
    short = reprlib.Repr()
    short.maxstring = 80
    try:
        return short.repr(value)
    except ValueError:  # an integer with more digits than Python converts to text
        return "a huge integer"
