"""Cards: out and in again, what they refuse, and what a digest depends on."""

import hashlib

import pytest

from specs import SpecError, parse_spec
from zoo.model_format import ModelFormat
from zoo.runs.card import Card, dump_card, load_card, revision_of, spec_digest


@pytest.fixture
def refusal(card, tmp_path):
    """What is said of the card's text with a piece of it replaced."""

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
    assert f"revision 000000000000 is not {card.revision}" in said


def test_a_card_without_safetensors_is_refused(refusal) -> None:
    assert "files has no safetensors" in refusal("  safetensors: {", "  netx: {")


def test_a_card_has_the_score_of_the_networks_own_t(refusal) -> None:
    assert "test.by_steps lacks the network's own time_steps, 5" in refusal("time_steps: 3\n", "time_steps: 5\n")


def test_a_card_does_not_contradict_itself(refusal, card) -> None:
    told = refusal(f"accuracy: {card.test.accuracy}\n", "accuracy: 0.99\n")
    assert f"test.accuracy is 0.99, of its own 3 time steps {card.test.by_steps[3]}" in told


def test_a_card_with_a_recipe_tells_how_images_were_split(refusal, card) -> None:
    told = refusal(f"training_images: {card.data.training_images}\n", "training_images: null\n")
    assert "data tells how images were split if, and only if, training.recipe tells a recipe" in told


def test_what_is_no_card_is_told_what_a_card_is(tmp_path) -> None:
    (tmp_path / "card.yaml").write_text("[1, 2]")
    with pytest.raises(SpecError, match=r"a card is a mapping with name, revision, .* and golden"):
        load_card(tmp_path / "card.yaml")
    with pytest.raises(SpecError, match="cannot read card"):
        load_card(tmp_path / "none.yaml")


def test_the_digest_of_a_spec_is_that_of_its_json_without_defaults_but_kinds() -> None:
    """Spelt out, so that no later version changes it unawares."""
    spec = parse_spec(
        "name: a\ntime_steps: 2\nneuron: {voltage_decay: 0.5}\ninput: {shape: [4], mean: 0.5, std: 1.0}\n"
        "blocks: [{kind: dense, features: 3, bias: true}, {kind: affine, features: 2}]\n"
        "training: {epochs: 3, augment: {scale: [0.9, 1.05]}}\n"
    )
    text = (
        '{"blocks":[{"bias":true,"features":3,"kind":"dense"},{"features":2,"kind":"affine"}],'
        '"input":{"kind":"input","mean":0.5,"shape":[4]},"name":"a","neuron":{"kind":"cuba","voltage_decay":0.5},'
        '"time_steps":2,"training":{"augment":{"scale":[0.9,1.05]},"epochs":3}}'
    )
    assert spec_digest(spec) == hashlib.sha256(text.encode()).hexdigest()


def test_a_revision_is_the_beginning_of_a_digest() -> None:
    assert revision_of("0123456789abcdef" * 4) == "0123456789ab"


def test_formats_and_their_suffixes() -> None:
    assert {kind: kind.suffix for kind in ModelFormat} == {"safetensors": ".safetensors", "netx": ".net", "nir": ".nir"}
