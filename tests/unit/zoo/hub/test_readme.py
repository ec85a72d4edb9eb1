"""README.md of published models, as Hugging Face reads it."""

import re

import numpy as np
import pytest
import yaml

from specs.io import load_spec
from zoo.card import dump_card, load_card
from zoo.factory import model_names
from zoo.hub.index import ZooIndex
from zoo.hub.publish import publish
from zoo.hub.readme import is_ours, model_readme
from zoo.runs.card_files import packaged_card


def front_matter(page: str) -> dict:
    return yaml.safe_load(re.match("---\\n(.*?)\\n---\\n", page, re.DOTALL)[1])


@pytest.mark.parametrize("name", model_names())
def test_huggingface_hub_reads_every_packaged_card(name: str) -> None:
    cards = pytest.importorskip("huggingface_hub").ModelCard
    card = packaged_card(name)
    found = cards(model_readme(card, load_spec(name), "card.yaml"), ignore_metadata_errors=False).data
    assert (found.license, found.library_name, found.datasets) == (card.licence.lower(), "snnzoo", [card.data.name])
    assert found.model_name == name
    first = found.eval_results[0]
    assert (first.metric_type, first.metric_value, first.dataset_type) == (
        "accuracy",
        card.test.accuracy,
        card.data.name,
    )
    assert first.task_type == found.pipeline_tag
    steps = [result.metric_name for result in found.eval_results]
    assert len(steps) == sum(accuracy is not None for accuracy in card.test.by_steps.values())
    assert steps[0].endswith(f"T = {card.time_steps}")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("mnist-dense", "image-classification"),
        ("nmnist-conv", "video-classification"),
        ("spoken-digits", "audio-classification"),
    ],
)
def test_the_task_follows_from_what_enters(name: str, task: str) -> None:
    assert front_matter(model_readme(packaged_card(name), load_spec(name), "card.yaml"))["pipeline_tag"] == task


def test_a_licence_that_the_hub_does_not_know_is_named(carded, tmp_path) -> None:
    found = []
    for licence in ("GPL-3.0-only", "My own: see LICENCE"):
        made = carded(licence=licence)
        publish(made.file, made.card_file, str(tmp_path / licence[:3]))
        front = front_matter((tmp_path / licence[:3] / "README.md").read_text("utf-8"))
        found.append((front["license"], front.get("license_name")))
    assert found == [("gpl-3.0", None), ("other", "My own: see LICENCE")]


def test_a_path_of_ones_own_is_no_dataset_of_the_hub(carded, tmp_path) -> None:
    made = carded()
    card = load_card(made.card_file)
    dump_card(card.model_copy(update={"data": card.data.model_copy(update={"name": "/me/photos"})}), made.card_file)
    publish(made.file, made.card_file, str(tmp_path), own_data=True)
    front = front_matter((tmp_path / "README.md").read_text("utf-8"))
    assert "datasets" not in front
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "photos"


def test_the_page_has_labels_digest_and_a_test_vector_that_its_code_reads(carded, tmp_path, monkeypatch) -> None:
    made, index = carded(), tmp_path / "index"
    publish(made.file, made.card_file, str(index))
    card = load_card(made.card_file)
    golden = card.golden.model_copy(update={"spikes": ((123456789, 2),) * len(card.golden.labels)})
    for published in (card, card.model_copy(update={"golden": golden})):
        dump_card(published, made.card_file)
        publish(made.file, made.card_file, str(index), card_only=published is not card)
        for folder in (index, index / made.reference.replace("@", "/")):
            page = (folder / "README.md").read_text("utf-8")
            assert made.sha256 in page
            assert all(f"{i} `{label}`" in page for i, label in enumerate(card.data.classes))
            assert ", ".join(f"{n:,}" for n in published.golden.spikes[0]) in page
            monkeypatch.chdir(folder)
            exec(re.search("```python\\n(.*?)```", page, re.DOTALL)[1], found := {})
            assert found["inputs"].shape == card.golden.shape
            assert found["inputs"].dtype == np.uint8
            assert found["golden"]["spikes"] == [list(row) for row in published.golden.spikes]


def test_an_index_of_several_models_lists_them(carded, tmp_path) -> None:
    publish((first := carded()).file, first.card_file, str(tmp_path / "index"))
    page = tmp_path / "index" / "README.md"
    assert front_matter(page.read_text("utf-8"))["model-index"][0]["name"] == "tiny"
    other = carded("other", description="a | b", licence="MIT")
    publish(other.file, other.card_file, str(tmp_path / "index"))
    text = page.read_text("utf-8")
    links = re.findall(r"\[\w+\]\((.+?)\)", text)
    assert len(links) == 2
    assert all((tmp_path / "index" / link).is_file() for link in links)
    assert "a \\| b" in text
    assert front_matter(text)["license_name"] == "of-each-model"


def test_a_readme_of_the_user_s_own_stays(carded, tmp_path) -> None:
    (tmp_path / "README.md").write_text("my own")
    made = carded()
    publish(made.file, made.card_file, str(tmp_path))
    assert (tmp_path / "README.md").read_text() == "my own"
    assert is_ours((tmp_path / made.reference.replace("@", "/") / "README.md").read_bytes())
    assert ZooIndex.model_validate_json((tmp_path / "index.json").read_bytes()).get("tiny")
