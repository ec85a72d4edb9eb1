"""Cards: round trips, refused cards, and cards of before."""

import json

import pytest

from specs import SpecError
from zoo.card import Card, dump_card, load_card


@pytest.mark.parametrize(
    ("key", "new", "message"),
    [
        ("time_steps", "0", r"card\.yaml:7: time_steps: "),
        ("time_steps", "5", r"test\.by_steps: must contain the network's time_steps, 5"),
        ("licence", "MIT\nlicens: MIT", r"licens: no such key; did you mean licence\?"),
        ("revision", "'000000000000'", "revision: must be [0-9a-f]{12}"),
        ("  safetensors", None, "files: the safetensors file is missing"),
        ("  accuracy", "0.99", r"test\.accuracy: must be .*, as by_steps has at T = 3, got 0\.99"),
        (
            "  training_images",
            "null",
            r"data: training_images and validation_\* need values if training\.recipe has one",
        ),
    ],
)
def test_a_wrong_value_is_told_with_its_field(card, tmp_path, key: str, new: str | None, message: str) -> None:
    path, text = tmp_path / "card.yaml", dump_card(card)
    (line,) = (line for line in text.splitlines() if line.startswith(f"{key}: "))
    path.write_text(text.replace(line, line.replace("safetensors", "netx") if new is None else f"{key}: {new}"))
    with pytest.raises(SpecError, match=message):
        load_card(path)


def test_a_card_reads_back_as_the_same(card, tmp_path) -> None:
    text = dump_card(card, tmp_path / "card.yaml")
    assert (tmp_path / "card.yaml").read_text() == text
    assert load_card(tmp_path / "card.yaml") == card
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_its_first_line_tells_a_card_from_a_spec(card) -> None:
    assert dump_card(card).startswith("card_version: 1\nname: tiny\n")


def test_what_is_no_card_is_told_what_a_card_is(tmp_path) -> None:
    (tmp_path / "card.yaml").write_text("[1, 2]")
    with pytest.raises(SpecError, match=r"a card must be a mapping with name, revision, .* and golden"):
        load_card(tmp_path / "card.yaml")
    with pytest.raises(SpecError, match="cannot read card"):
        load_card(tmp_path / "none.yaml")


def test_a_card_of_before_is_read_without_what_follows_from_the_spec(card, tmp_path) -> None:
    before = card.model_dump(mode="json") | {"spec_sha256": "0" * 64, "parameters": 7, "weight_bytes": 7, "energy": {}}
    before["layers"] = [{"kind": "dense", "shape": [1], "parameters": 1, **layer} for layer in before["layers"]]
    before["operations"]["snn"]["dense"] = 7
    (tmp_path / "card.yaml").write_text(json.dumps(before))
    assert load_card(tmp_path / "card.yaml") == card
