import json

import pytest

from specs.errors import IntegrityError
from zoo.card import load_card
from zoo.index import IndexedFile, IndexedModel, ZooIndex, dump_index, parse_index, parse_reference


@pytest.fixture
def document(carded) -> dict:
    """An index with one model, as `json.loads` gives it."""
    made = carded()
    model = IndexedModel.of(
        load_card(made.card_file),
        {"safetensors": IndexedFile.of(made.file, "tiny/1/tiny.safetensors")},
        IndexedFile.of(made.card_file, "tiny/1/tiny.yaml"),
    )
    return json.loads(dump_index(ZooIndex.empty().adding("tiny", model)))


def parse(document: object) -> ZooIndex:
    return parse_index(json.dumps(document).encode(), origin="here/index.json")


def test_an_index_comes_back_as_it_was_with_the_same_bytes(document) -> None:
    index = parse(document)
    assert json.loads(dump_index(index)) == document
    assert dump_index(parse_index(dump_index(index), origin="")) == dump_index(index)


def test_the_newest_revision_stands_for_the_name(document) -> None:
    index = parse(document)
    first = index.get("tiny")
    sha256 = "1" * 64
    second = first.model_copy(
        update={
            "revision": "1" * 12,
            "files": {"safetensors": first.files["safetensors"].model_copy(update={"sha256": sha256})},
        }
    )
    both = index.adding("tiny", second)
    assert both.get("tiny") == second
    assert both.get("tiny", first.revision) == first
    assert both.get("tiny", "other") is both.get("none") is None
    assert both.adding("tiny", first).get("tiny") == first
    assert [m.revision for m in both.adding("tiny", first).models["tiny"]] == [second.revision, first.revision]


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "a/../../x", "a/..", "..", ".", "./x", "/etc/passwd", "a//b", "a/", "", "C:/x", "C:\\x", "a\\..\\b"),
        *("~/x", "a/.ssh", "a\x00b", "a\nb", "http://x/y", "a?b", "a%2e%2e/b", "a/b/" * 8 + "c", "a" * 300),
    ],
)
def test_a_path_that_could_leave_the_index_is_refused(document, path: str) -> None:
    document["models"]["tiny"][0]["card"]["path"] = path
    with pytest.raises(IntegrityError, match=r"here/index.json: models.tiny\[0\].card.path"):
        parse(document)


@pytest.mark.parametrize("name", ["../../x", "a/b", "/x", "..", "", "A", "a b", "a\n", "x" * 65, ".x", "a\\b"])
def test_a_name_that_could_leave_the_cache_is_refused(document, name: str) -> None:
    document["models"][name] = document["models"].pop("tiny")
    with pytest.raises(IntegrityError, match=r"here/index\.json: '?models"):
        parse(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("description", "\x1b[31mred"),
        ("description", "a\nb"),
        ("licence", "\u202eevil"),
        ("accuracy", 1.5),
        ("revision", "../../x"),
        ("revision", "0" * 12),
        ("time_steps", 0),
        ("files", {}),
        ("extra", 1),
    ],
)
def test_a_field_that_lies_is_named(document, place: str, value: object) -> None:
    document["models"]["tiny"][0][place] = value
    with pytest.raises(IntegrityError, match=r"here/index\.json: '?models"):
        parse(document)


@pytest.mark.parametrize(
    ("field", "value"), [("sha256", "0" * 63), ("sha256", "Z" * 64), ("bytes", 0), ("bytes", True), ("bytes", "7")]
)
def test_a_file_without_true_facts_is_refused(document, field: str, value: object) -> None:
    document["models"]["tiny"][0]["files"]["safetensors"][field] = value
    with pytest.raises(IntegrityError, match=rf"safetensors.{field}"):
        parse(document)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no JSON"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"[" * 100_000, "no JSON"),
        (b'{"schema_version": 1, "models": {}', "no JSON"),
        (b'{"schema_version": 1, "models": {}, "models": {}}', "'models' is given twice"),
        (b"[]", "a mapping with schema_version and models"),
        (b'{"models": {}}', "schema_version: Field required"),
        (b'{"schema_version": 2, "models": {}}', "schema_version '2'; this snnzoo reads 1"),
        (b'{"schema_version": 1, "models": {"a": []}}', "models.a"),
        (b'{"schema_version": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_what_is_no_index_is_told_in_a_line(raw: bytes, words: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_index(raw, origin="here/index.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("here/index.json: ")
    assert len(str(caught.value)) < 300


def test_a_file_is_checked_by_size_and_digest(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    file = IndexedFile.of(tmp_path / "a", "a")
    file.check(tmp_path / "a")
    for other, words in ((b"abd", "its sha256 is"), (b"abcd", "4 bytes; the index says 3")):
        (tmp_path / "b").write_bytes(other)
        with pytest.raises(IntegrityError, match=f"there: {words}"):
            file.check(tmp_path / "b", what="there")


def test_what_a_card_says_is_one_printable_line_in_the_index(carded) -> None:
    made = carded(description="two\nlines \x1b[31m", licence="x" * 2000)
    model = IndexedModel.of(load_card(made.card_file), parse_files(made), IndexedFile.of(made.card_file, "c"))
    assert (model.description, len(model.licence)) == ("two lines [31m", 1000)


def parse_files(made) -> dict:
    return {"safetensors": IndexedFile.of(made.file, "a/b")}


def test_references() -> None:
    assert parse_reference("a") == ("a", None)
    assert parse_reference("a@b") == ("a", "b")
    assert parse_reference("a@") == ("a", "")
