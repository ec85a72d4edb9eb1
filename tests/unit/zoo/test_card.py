"""Cards: round trips, refused cards, and cards of before."""

import json

import pytest

from specs import SpecError
from zoo.card import Card, dump_card, load_card, revision_of
from zoo.model_format import ModelFormat


@pytest.fixture
def refusal(card, tmp_path):
    """Return a function that replaces a piece of a card's text and returns the message of the error."""

    def refusal(old: str, new: str) -> str:
        path = tmp_path / "card.yaml"
        text = dump_card(card)
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        with pytest.raises(SpecError) as caught:
            load_card(path)
        return str(caught.value).removeprefix(f"{tmp_path}/")

    return refusal


def test_a_card_reads_back_as_the_same(card, tmp_path) -> None:
    text = dump_card(card, tmp_path / "card.yaml")
    assert (tmp_path / "card.yaml").read_text() == text
    assert load_card(tmp_path / "card.yaml") == card
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_its_first_line_tells_a_card_from_a_spec(card) -> None:
    assert dump_card(card).startswith("card_version: 1\nname: tiny\n")


def test_a_wrong_value_is_told_with_line_and_field(refusal) -> None:
    assert refusal("time_steps: 3\n", "time_steps: 0\n").startswith("card.yaml:7: time_steps: ")


def test_an_unknown_key_is_told_with_the_nearest_known(refusal) -> None:
    assert "licens: no such key; did you mean licence?" in refusal("licence:", "licens:")


def test_a_revision_of_another_file_is_refused(refusal, card) -> None:
    said = refusal(f"revision: {card.revision}", "revision: '000000000000'")
    assert f"revision: must be {card.revision}" in said


def test_a_card_without_safetensors_is_refused(refusal) -> None:
    assert "files: the safetensors file is missing" in refusal("  safetensors: {", "  netx: {")


def test_a_card_has_the_score_of_the_networks_own_t(refusal) -> None:
    assert "test.by_steps: must contain the network's time_steps, 5" in refusal("time_steps: 3\n", "time_steps: 5\n")


def test_a_card_does_not_contradict_itself(refusal, card) -> None:
    told = refusal(f"accuracy: {card.test.accuracy}\n", "accuracy: 0.99\n")
    assert f"test.accuracy: must be {card.test.by_steps[3]}, as by_steps has at T = 3, got 0.99" in told


def test_a_card_with_a_recipe_tells_how_images_were_split(refusal, card) -> None:
    told = refusal(f"training_images: {card.data.training_images}\n", "training_images: null\n")
    assert "data: training_images and validation_* need values if training.recipe has one, else null" in told


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


def test_a_revision_is_the_beginning_of_a_digest() -> None:
    assert revision_of("0123456789abcdef" * 4) == "0123456789ab"


def test_formats_and_their_suffixes() -> None:
    assert {kind: kind.suffix for kind in ModelFormat} == {"safetensors": ".safetensors", "netx": ".net", "nir": ".nir"}
