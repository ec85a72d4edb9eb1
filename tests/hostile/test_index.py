"""Hostile indexes and cards: names that lead out of a folder, wrong sizes, huge numbers, deep nesting.

Hostile servers, also those that redirect to other schemes, are in tests/unit/specs/files/test_download.py.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import valid_files

PATHS = ("../x", "a/../../x", "a/..", "..", ".", "./x", "/etc/passwd", "a//b", "a/", "", "C:/x", "C:\\x", "a\\..\\b")
PATHS += ("~/x", "a/.ssh", "a\0b", "a\nb", "http://x/y", "a?b", "a%2e%2e/b", "a/b/" * 8 + "c", "a" * 300)
NAMES = ("../../x", "a/b", "/x", "..", "", "A", "a b", "a\n", "a\0b", "x" * 65, ".x", "a\\b")


@cache
def valid(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        return getattr(valid_files, kind)(Path(folder))


def index(**changes: object) -> Callable[[Path], object]:
    """Return a function that writes an index with changes in its newest model; `a__b` names field b of field a."""

    def make(path: Path) -> None:
        document = json.loads(valid("index"))
        for name, value in changes.items():
            here: Any = document["models"]["tiny"][-1]
            *places, last = name.split("__")
            for place in places:
                here = here[place]
            here[last] = value
        path.write_text(json.dumps(document))

    return make


def renamed(name: str) -> Callable[[Path], object]:
    """Return a function that writes an index with another name for its model."""

    def make(path: Path) -> None:
        document = json.loads(valid("index"))
        document["models"][name] = document["models"].pop("tiny")
        path.write_text(json.dumps(document))

    return make


def models(text: str) -> bytes:
    return b'{"schema_version": 1, "models": ' + text.encode() + b"}"


def of_a_gibibyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)  # sparse: it takes no space on disk


NEWEST = r"models\.tiny\[1\]"
NO_MATCH = "must be (1 to 64 lower-case letters|a text that matches)"
NESTED = '{"a": ' * 400 + "1" + "}" * 400
INDEX: dict[str, tuple[Any, str]] = {
    **{f"a path {path[:20]!r}": (index(card__path=path), rf"{NEWEST}\.card\.path: {NO_MATCH}") for path in PATHS},
    **{f"a name {name[:20]!r}": (renamed(name), rf"models\..*\.\[key\]'?: {NO_MATCH}") for name in NAMES},
    "a colour for the terminal": (index(description="\x1b[31mred"), rf"{NEWEST}\.description: {NO_MATCH}"),
    "two lines": (index(description="a\nb"), rf"{NEWEST}\.description: {NO_MATCH}"),
    "text from right to left": (index(licence="\u202eevil"), rf"{NEWEST}\.licence: {NO_MATCH}"),
    "a surrogate": (index(data="\ud800"), rf"{NEWEST}\.data: must be text"),
    "more than all": (index(accuracy=1.5), rf"{NEWEST}\.accuracy: .* at most 1 \(got 1\.5\)"),
    "1e308 of all": (index(accuracy=1e308), rf"{NEWEST}\.accuracy: .* at most 1 "),
    "NaN": (index(accuracy=float("nan")), rf"{NEWEST}\.accuracy: .* finite number \(got nan\)"),
    "infinity": (index(accuracy=float("-inf")), rf"{NEWEST}\.accuracy: .* finite number \(got -inf\)"),
    "a revision that leads out": (index(revision="../../x"), r"revision: must be .*, got \.\./\.\./x"),
    "a revision of another file": (index(revision="0" * 12), "revision: must be .*, got 000000000000"),
    "no time steps": (index(time_steps=0), r"time_steps: .* at least 1 \(got 0\)"),
    "1e308 time steps": (index(time_steps=1e308), r"time_steps: .* whole number \(got 1e\+308\)"),
    "no files": (index(files={}), "files: the safetensors file is missing"),
    "a key that there is not": (index(extra=1), "extra: no such key"),
    "a digest that is short": (index(files__safetensors__sha256="0" * 63), rf"safetensors\.sha256: {NO_MATCH}"),
    "a digest of letters": (index(files__safetensors__sha256="Z" * 64), rf"safetensors\.sha256: {NO_MATCH}"),
    "no bytes": (index(files__safetensors__bytes=0), r"safetensors\.bytes: .* at least 1 "),
    "bytes below zero": (index(card__bytes=-1), r"card\.bytes: .* at least 1 "),
    "true bytes": (index(files__safetensors__bytes=True), r"safetensors\.bytes: .* whole number \(got True\)"),
    "bytes in words": (index(files__safetensors__bytes="7"), r"safetensors\.bytes: .* whole number \(got '7'\)"),
    "1e308 bytes": (index(files__safetensors__bytes=1e308), r"safetensors\.bytes: .* whole number \(got 1e\+308\)"),
    "10^400 bytes": (
        index(files__safetensors__bytes=10**400),
        r"safetensors\.bytes: .* below 9223372036854775808 ",
    ),
    "nothing": (b"", "not JSON: Expecting value"),
    "a web page": (b"<!DOCTYPE html><html></html>", "a web page"),
    "cut short": (b'{"schema_version": 1, "models": {}', "not JSON: Expecting ',' delimiter"),
    "no text": (b"\xff\xfe", "not JSON: Expecting value"),
    "models twice": (b'{"schema_version": 1, "models": {}, "models": {}}', "'models' is given twice"),
    "a model twice": (models('{"a": [], "a": []}'), "'a' is given twice"),
    "a list": (b"[]", "a mapping with schema_version and models"),
    "no version": (b'{"models": {}}', "schema_version: is missing"),
    "a later version": (b'{"schema_version": 2, "models": {}}', "schema_version '2' is not supported; this"),
    "no revisions": (models('{"a": []}'), r"models\.a: a model must have at least one revision"),
    "5,000 digits": (b'{"schema_version": ' + b"9" * 5000 + b"}", "not JSON: .*5000 digits"),
    "brackets without end": (b"[" * 100_000, "not JSON: .* while decoding a JSON array"),
    "mappings without end": (b'{"a":' * 100_000, "not JSON: .* while decoding a JSON object"),
    "400 mappings in each other": (models(NESTED), r"models\.a: must be a list"),
    "4 million revisions that are none": (models('{"a": [' + "1," * (1 << 22) + "1]}"), "too long to be a zoo index"),
    "a million names that are none": (
        models("{" + ",".join(f'"/{i}":1' for i in range(1 << 20)) + "}"),
        "too long to be a zoo index; the limit is 262,144 values",
    ),
    "1 GiB": (of_a_gibibyte, "1073741824 bytes, more than the limit of 16777216"),
    "a pipe": (os.mkfifo, "a pipe or a device"),
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
}


def card(old: str, new: str) -> Callable[[Path], object]:
    """Return a function that writes a card with a piece of its text replaced."""

    def make(path: Path) -> None:
        text = valid("card").decode()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))

    return make


CARD: dict[str, tuple[Any, str]] = {
    "aliases that explode": (card("layers:", "a: &a [1]\nb: *a\nlayers:"), "aliases"),
    "a tag that runs a program": (card("licence:", "x: !!python/object/apply:os.system [echo boom]\nlicence:"), "tags"),
    "a key twice": (card("licence:", "name: tiny\nlicence:"), "'name' is given twice"),
    "another name": (card("name: tiny\n", "name: ../../x\n"), f"name: {NO_MATCH}"),
    "2^20000 images": (
        card("test_images: ", f"test_images: 0x{'f' * 5000} #"),
        r"test_images: .*\(got a huge integer\)",
    ),
    "10^400 bytes": (
        card(", bytes: ", f", bytes: 1{'0' * 400}"),
        r"files\.safetensors\.bytes: .* below 9223372036854775808 ",
    ),
    "a loss of 1e309": (card("  loss: ", "  loss: 1.0e+309 #"), r"test\.loss: .* finite number \(got inf\)"),
    "images of 2^70 bytes": (
        card("shape: [1, 1, 2, 3]", f"shape: [1, 1, {1 << 35}, {1 << 35}]"),
        "golden: images of .* must be 1 to 16,777,216 bytes",
    ),
    "images of no bytes": (
        card("shape: [1, 1, 2, 3]", "shape: [1, 0, 2, 3]"),
        r"golden: images of \[1, 0, 2, 3\]: must be 1 to .* bytes, got 0",
    ),
    "labels of other images": (
        card("labels: [7]", "labels: [7, 7]"),
        "labels: must have a row for each of the 1 images, got 2",
    ),
    "spikes of other images": (
        card("shape: [1, 1, 2, 3]", "shape: [2, 1, 2, 3]"),
        "labels: must have a row for each of the 2 images, got 1",
    ),
    "curves of other lengths": (
        card("    learning_rate: [0.5, 0.25]", "    learning_rate: [0.5]"),
        "equal lengths, got .*'learning_rate': 1,",
    ),
    "brackets without end": (b"card_version: " + b"[" * 60_000, "nested too deeply"),
    "a megabyte": (lambda path: path.write_bytes(valid("card") + b"#" * (1 << 20)), "too long to be a card"),
    "a pipe": (os.mkfifo, "a pipe or a device"),
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
}
CASES = {
    f"{target}, {name}": (target, *case)
    for target, table in (("index", INDEX), ("card", CARD))
    for name, case in table.items()
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name: str) -> None:
    check_case(CASES[name])


@pytest.mark.parametrize("target", ["index", "card"])
def test_the_file_itself_is_read(attempt, target: str) -> None:
    assert attempt(target, valid(target)).kind == "read"


def test_an_index_of_a_gibibyte_is_refused_before_it_is_read(attempt) -> None:
    assert attempt("index", of_a_gibibyte).mib < 64


# --- Models that differ from their index


def pulled(attempt, **changes: object):
    """Pull a model from an index with other facts about its file; return the outcome."""

    def make(path: Path) -> None:
        path.write_bytes(valid_files.index(path.parent))
        document = json.loads(path.read_text())
        document["models"]["tiny"][-1]["files"]["safetensors"] |= changes
        path.write_text(json.dumps(document))

    return attempt("index", make, command="pull tiny --from FILE --cache-dir OUT")


def test_a_model_that_is_as_its_index_says_is_pulled(attempt) -> None:
    assert pulled(attempt).kind == "read"


@pytest.mark.parametrize(
    ("n_bytes", "message"), [(7, "more than the limit of 7"), (1 << 20, "the index says"), ((1 << 63) - 1, "the index")]
)
def test_a_model_of_another_size_is_not_pulled(attempt, tmp_path, n_bytes: int, message: str) -> None:
    outcome = pulled(attempt, bytes=n_bytes)
    assert outcome.kind == "refused"
    assert message in outcome.text
    assert outcome.mib < 64
    assert not [path for path in (tmp_path / "hostile" / "out").rglob("*.safetensors") if path.name[0] != "."]


def test_a_model_that_is_a_pipe_is_not_waited_for(attempt) -> None:
    def make(path: Path) -> None:
        path.write_bytes(valid_files.index(path.parent))
        (path.parent / "tiny.safetensors").unlink()
        os.mkfifo(path.parent / "tiny.safetensors")

    outcome = attempt("index", make, command="pull tiny --from FILE --cache-dir OUT")
    assert outcome.kind == "refused"
    assert "a pipe or a device" in outcome.text


# --- Cards that are shown


@pytest.mark.parametrize("option", ["", " --markdown"])
def test_a_card_does_not_steer_the_terminal(attempt, option: str) -> None:
    def make(path: Path) -> None:
        text = valid_files.card(path.parent).decode()
        path.write_text(text.replace("licence: ", 'licence: "\\e[31mred" #', 1))
        (path.parent / "tiny.safetensors").rename(path.with_suffix(".safetensors"))

    outcome = attempt("card", make, command=f"show FOLDER/hostile.safetensors{option}")
    assert outcome.kind == "read"
    assert "[31mred" in outcome.text
    assert "\x1b" not in outcome.text
