import json

import pytest

from specs.errors import IntegrityError
from zoo.card import load_card
from zoo.hub.index import IndexedFile, IndexedModel, ZooIndex, dump_index, parse_index, parse_reference


@pytest.fixture
def document(carded) -> dict:
    """An index with one model, as parsed JSON."""
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
    assert both.get("tiny", sha256) == both.get("tiny", sha256[:20]) == second
    assert both.get("tiny", "1" * 11) is both.get("tiny", "1" * 13 + "2") is None
    assert both.get("tiny", first.files["safetensors"].sha256.upper()) == first
    assert both.adding("tiny", first).get("tiny") == first
    assert [m.revision for m in both.adding("tiny", first).models["tiny"]] == [second.revision, first.revision]


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
