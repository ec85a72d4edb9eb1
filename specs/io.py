"""Specs in and out of YAML. An error names the file, the line, the field, the value and the bound."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from specs.errors import SpecError
from specs.network import SCHEMA_VERSION, NetworkSpec
from specs.whole_file import write_whole

__all__ = ["dump_spec", "json_schema", "load_spec", "network_names", "parse_spec"]

SIZE_LIMIT = 1 << 20
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From each old schema version, the function that gives the next one's document."""

Path_ = tuple[str | int, ...]


def load_spec(source: str | Path) -> NetworkSpec:
    """Read a network spec from a YAML file, or by the name of one that comes with the package.

    Raises `SpecError` with every problem found, each with its line and field.

    >>> load_spec("mnist-dense").n_classes
    10
    """
    path = Path(source)
    if path.suffix in {".yaml", ".yml", ".json"} or path.exists():
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise SpecError(f"cannot read spec {path}: {error.strerror or error}") from None
        return parse_spec(_decode(raw, str(path)), origin=str(path))
    if str(source) not in network_names():
        known = ", ".join(network_names())
        raise SpecError(f"no spec {str(source)!r}: not a file, and not one of the networks in the package ({known})")
    return parse_spec((resources.files("specs.networks") / f"{source}.yaml").read_text("utf-8"), origin=str(source))


def parse_spec(text: str, *, origin: str = "spec") -> NetworkSpec:
    """A network spec from YAML (or JSON) text; `origin` stands in error messages. Raises `SpecError`."""
    node = _compose(text, origin)
    document = yaml.SafeLoader("").construct_document(node) if node is not None else None
    if not isinstance(document, dict):
        raise SpecError(f"{origin}: a spec is a mapping with name, time_steps, input and blocks")
    document = _upgrade(document, origin)
    try:
        return NetworkSpec.model_validate(document)
    except ValidationError as error:
        lines = _lines(node)
        raise SpecError("\n".join(_describe(problem, lines, origin) for problem in error.errors())) from None


def dump_spec(spec: NetworkSpec, path: Path | None = None) -> str:
    """The spec as YAML text, defaults written out; also written to `path` if given."""
    text: str = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, width=110, default_flow_style=None)
    if path is not None:
        write_whole(path, text.encode())
    return text


def json_schema() -> dict[str, Any]:
    """JSON Schema of a network spec, for editors."""
    schema = NetworkSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def network_names() -> list[str]:
    """Names of the specs in the package, sorted."""
    files = resources.files("specs.networks").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def _decode(raw: bytes, origin: str) -> str:
    if len(raw) > SIZE_LIMIT:
        raise SpecError(f"{origin}: {len(raw)} bytes is no network spec; the limit is {SIZE_LIMIT}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{origin}: not UTF-8 text (byte {error.start})") from None


def _compose(text: str, origin: str) -> yaml.Node | None:
    """The YAML node tree, refusing what YAML allows and a spec must not: duplicate keys, and aliases."""
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):
                raise SpecError(f"{origin}:{token.start_mark.line + 1}: YAML aliases (*{token.value}) are not allowed")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise SpecError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise SpecError(f"{origin}: nested too deeply to be a spec") from None
    _refuse_duplicates(node, origin)
    return node


def _refuse_duplicates(node: yaml.Node | None, origin: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise SpecError(f"{origin}:{key.start_mark.line + 1}: {key.value!r} is given twice")
            seen.add(key.value)
            _refuse_duplicates(value, origin)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(value, origin)


def _lines(node: yaml.Node | None, path: Path_ = ()) -> dict[Path_, int]:
    """Line number of every field path in the document."""
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


def _upgrade(document: dict[str, Any], origin: str) -> dict[str, Any]:
    version = document.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise SpecError(
            f"{origin}: schema_version {version!r} is not known here (newest: {SCHEMA_VERSION}); "
            "update snnzoo to read it"
        )
    while version < SCHEMA_VERSION:
        if version not in UPGRADES:
            raise SpecError(f"{origin}: schema_version {version} has no upgrade path to {SCHEMA_VERSION}")
        document = {**UPGRADES[version](document), "schema_version": version + 1}
        version += 1
    return document


def _describe(problem: Any, lines: dict[Path_, int], origin: str) -> str:
    """`file:line: field: message (got value)` for one of pydantic's problems."""
    context = problem.get("ctx", {})
    # Pydantic puts the union's tag into the path of a block; the document has no such level.
    path: Path_ = tuple(context.get("path", ())) or _without_tags(problem["loc"])
    known = path
    while known and known not in lines:
        known = known[:-1]
    where = f"{origin}:{lines[known]}" if known in lines else origin
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "no such key" + _suggest(path)
    value = problem["input"]
    got = f" (got {value!r})" if isinstance(value, str | int | float | list) and problem["type"] != "missing" else ""
    return f"{where}: {field or 'spec'}: {message}{got}"


def _without_tags(loc: Path_) -> Path_:
    if len(loc) > 2 and loc[0] == "blocks" and isinstance(loc[1], int):
        return (*loc[:2], *loc[3:])
    return loc


def _suggest(path: Path_) -> str:
    """A hint with the nearest known field name anywhere in the schema."""
    import difflib

    known: set[str] = set()
    for model in json_schema()["$defs"].values():
        known |= set(model.get("properties", ()))
    close = difflib.get_close_matches(str(path[-1]), sorted(known | set(NetworkSpec.model_fields)), n=1)
    return f"; did you mean {close[0]}?" if close else ""
