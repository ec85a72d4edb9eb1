import json
import shlex
import shutil

import click.testing
import pytest
from PIL import Image

from zoo.card import dump_card, load_card
from zoo.cli.program import zoo
from zoo.factory import model_file
from zoo.runs.card_files import card_file


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """A folder with the trained tiny model and its card."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copy(trained / "model.safetensors", folder / "tiny.safetensors")
    result = click.testing.CliRunner().invoke(zoo, ["card", str(trained), "-o", str(folder / "tiny.yaml")])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder / 'tiny.yaml'}\n"
    assert "embedded sample" in result.stderr
    assert "T up to 32" in result.stderr
    return folder


def test_a_card_agrees_with_eval_and_the_run(measured, trained, run) -> None:
    card = load_card(measured / "tiny.yaml")
    options = "--engine", "integer", "--time-steps", "4,32", "--json"
    rows = json.loads(run("eval", trained / "model.safetensors", *options).stdout)["results"]
    assert [card.test.by_steps[4], card.test.by_steps[32]] == [row["accuracy"] for row in rows]
    assert (
        card.test.ann
        == json.loads(run("eval", trained / "model.safetensors", "--mode", "ann", "--json").stdout)["results"][0][
            "accuracy"
        ]
    )
    reports = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert card.training.curves.validation_snn_accuracy == tuple(r["validation_snn_accuracy"] for r in reports)
    assert card.training.versions == card.versions
    assert card.commands.train == "zoo train tiny -o run/tiny"


def test_check_passes_on_a_true_card_and_names_what_is_not(measured, run, tmp_path) -> None:
    assert (
        run("card", measured / "tiny.safetensors", "--check").stdout == "tiny: the card agrees with the measurements\n"
    )
    document = json.loads(run("card", measured / "tiny.safetensors", "--json").stdout)
    assert document["test"]["accuracy"] == load_card(measured / "tiny.yaml").test.accuracy
    card = load_card(measured / "tiny.yaml")
    for name in ("tiny.safetensors", "tiny.yaml"):
        shutil.copy(measured / name, tmp_path / name)
    dump_card(
        card.model_copy(update={"description": "else", "data": card.data.model_copy(update={"test_images": 1})}),
        tmp_path / "tiny.yaml",
    )
    result = run("card", tmp_path / "tiny.safetensors", "--check", code=1)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["field", "data.test_images", "description"]
    assert "in 2 fields" in result.stderr
    told = json.loads(run("card", tmp_path / "tiny.safetensors", "--check", "--json", code=1).stdout)
    different = told["differences"]
    assert [row["field"] for row in different] == ["data.test_images", "description"]
    assert different[0]["card"] == "1"
    (tmp_path / "tiny.yaml").unlink()
    assert "tiny has no card to check" in run("card", tmp_path / "tiny.safetensors", "--check", code=1).stderr


def test_the_commands_on_the_card_of_a_pulled_model_run(measured, run, tmp_path, monkeypatch) -> None:
    model, card = measured / "tiny.safetensors", tmp_path / "licensed.yaml"
    refused = run("publish", model, measured / "tiny.yaml", "--to", tmp_path, code=1)
    assert "tiny has no licence" in refused.stderr
    run("card", model, "-o", card, "--licence", "MIT")
    reference = run("publish", model, card, "--to", tmp_path).stdout.strip()
    assert "no model 'tiny'" in run("card", reference, "--check", code=1).stderr
    run("pull", "tiny", "--from", tmp_path)
    for name in ("tiny", reference):
        assert run("card", name, "--check").stdout == "tiny: the card agrees with the measurements\n"
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    run(*shlex.split(load_card(measured / "tiny.yaml").commands.train)[1:], "--epochs", 1, "-q")


def test_a_card_is_not_overwritten_and_anew_keeps_its_curves(measured, run) -> None:
    command = "card", measured / "tiny.safetensors", "-o", measured / "tiny.yaml"
    before = load_card(measured / "tiny.yaml")
    assert "--force" in run(*command, code=1).stderr
    assert before.licence == "NOASSERTION"
    assert "has no licence" in run(*command, "--force").stderr
    assert "has no licence" not in run(*command, "--force", "--licence", "MIT").stderr
    run(*command, "--force")
    after = load_card(measured / "tiny.yaml")
    assert after.training.curves == before.training.curves is not None
    assert after.licence == "MIT"


def test_runs_of_other_seeds_are_told_and_kept(measured, trained, run, tmp_path) -> None:
    run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--seed", "5", "-q")
    command = "card", measured / "tiny.safetensors", "-o", measured / "tiny.yaml", "--force"
    run(*command, "--seed-run", tmp_path / "run")
    (found,) = load_card(measured / "tiny.yaml").training.other_seeds
    score = json.loads(run("eval", tmp_path / "run" / "model.safetensors", "--engine", "integer", "--json").stdout)
    assert (found.seed, found.accuracy) == (5, score["results"][0]["accuracy"])
    run(*command)
    assert load_card(measured / "tiny.yaml").training.other_seeds == (found,)


def test_show_as_json_has_all_of_the_card(run) -> None:
    shown, card = json.loads(run("show", "mnist-dense", "--json").stdout), load_card(card_file("mnist-dense"))
    measured = shown["measured"]
    assert {key: measured[key] for key in ("test", "golden")} == card.model_dump(
        mode="json", include={"test", "golden"}
    )
    assert (measured["parameters"], measured["layers"][1]["shape"]) == (668_674, [512])
    assert shown["card"]["training"]["epoch"] == shown["measured"]["training"]["epoch"]


def test_show_as_markdown_of_what_has_no_card_is_told(run, measured, trained) -> None:
    assert run("show", measured / "tiny.safetensors", "--markdown").stdout.startswith("# tiny\n")
    model = trained / "model.safetensors"
    error = run("show", model, "--markdown", code=1).stderr
    assert f"has no card; this writes one:\nzoo card {model} -o {trained / 'model.yaml'}\n" in error
    assert f"its model is {model}" in run("show", trained, "--markdown", code=1).stderr


def test_show_draws_the_curves_of_a_card(run, measured, tmp_path) -> None:
    run("show", measured / "tiny.safetensors", "--curves", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    card = load_card(measured / "tiny.yaml")
    without = card.model_copy(update={"training": card.training.model_copy(update={"curves": None})})
    shutil.copy(measured / "tiny.safetensors", tmp_path / "b.safetensors")
    dump_card(without, tmp_path / "b.yaml")
    error = run("show", tmp_path / "b.safetensors", "--curves", tmp_path / "b.png", code=1).stderr
    assert "no learning curves" in error


def test_verify_takes_all_models_of_the_package(run, monkeypatch) -> None:
    names = ["mnist-dense", "mnist-dense-shallow"]
    monkeypatch.setattr("zoo.cli.showing.model_names", lambda: names)
    document = json.loads(run("verify", "--json").stdout)
    assert [(one["model"], one["passed"], len(one["checks"])) for one in document["models"]] == [
        (name, True, 4) for name in names
    ]
    assert document["passed"] is True


def test_verify_holds_a_model_to_its_card(run, tmp_path) -> None:
    document = json.loads(run("verify", "mnist-dense-shallow", "--json").stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert checks["bytes, by the card"]["passed"]
    assert checks["golden output, integer engine"]["found"] == "the same on 8 images"
    shutil.copy(model_file("mnist-dense-shallow"), tmp_path / "a.safetensors")
    shutil.copy(card_file("mnist-dense"), tmp_path / "a.yaml")
    failed = run("verify", tmp_path / "a.safetensors", code=1).stdout.splitlines()
    assert sum("FAILED" in line for line in failed) == 2
    digests = [load_card(card_file(name)) for name in ("mnist-dense-shallow", "mnist-dense")]
    file, card = (one.files["safetensors"] for one in digests)
    ours, theirs = (f"{one.sha256[:12]}, {one.bytes:,} bytes" for one in (file, card))
    assert f"{ours}; card: {theirs}" in failed[3]


def test_verify_against_a_card_holds_the_model_to_it(run) -> None:
    true = json.loads(
        run("verify", "mnist-dense-shallow", "--against", card_file("mnist-dense-shallow"), "--json").stdout
    )
    assert [check["passed"] for check in true["checks"]] == [True] * 4
    wrong = run("verify", "mnist-dense-shallow", "--against", card_file("mnist-dense"), "--json", code=1).stdout
    assert [check["passed"] for check in json.loads(wrong)["checks"]] == [True, True, False, False]


def test_a_model_that_was_trained_elsewhere_is_published(measured, run, tmp_path) -> None:
    """Its card has the command of the conversion and the dataset for scoring."""
    run("convert", measured / "tiny.safetensors", "-o", tmp_path / "tiny.net")
    run("convert", tmp_path / "tiny.net", "-o", tmp_path / "old.safetensors", "--time-steps", 5)
    data = load_card(measured / "tiny.yaml").data.name
    named = "--name", "old", "--licence", "MIT", "-o", tmp_path / "old.yaml"
    run("card", tmp_path / "old.safetensors", "--data", data, *named)
    card = load_card(tmp_path / "old.yaml")
    assert card.training.recipe is None
    assert card.commands.train == "zoo convert tiny.net --time-steps=5 -o old.safetensors"
    run("publish", tmp_path / "old.safetensors", tmp_path / "old.yaml", "--to", tmp_path / "zoo")
    run("pull", "old", "--from", tmp_path / "zoo")
    assert run(*shlex.split(card.commands.card)[1:]).stdout == "old: the card agrees with the measurements\n"
    assert f"{100 * card.test.accuracy:.2f} %" in run(*shlex.split(card.commands.eval)[1:]).stdout
    assert card.commands.train in run("show", "old").stdout


def test_cards_are_of_trained_models_and_lie_where_they_are_found(run, spec_file, tmp_path) -> None:
    run("build", spec_file, "-o", tmp_path / "fresh.safetensors")
    error = run("card", tmp_path / "fresh.safetensors", "-o", tmp_path / "fresh.yaml", code=1).stderr
    assert "neither training nor conversion" in error
    assert f"zoo train {tmp_path / 'fresh.safetensors'} -o run" in error
    assert not (tmp_path / "fresh.yaml").exists()


def test_verify_holds_an_exported_file_to_the_golden_output(run, tmp_path) -> None:
    shutil.copy(card_file("mnist-dense-shallow"), tmp_path / "a.yaml")
    run("convert", model_file("mnist-dense-shallow"), "-o", tmp_path / "a.net")
    text = run("verify", tmp_path / "a.net").stdout
    assert "the same on 8 images" in text
    assert "bytes" not in text


def test_eval_draws_accuracy_against_steps(run, trained, tmp_path) -> None:
    options = "--time-steps", "1,4", "--limit", 50, "--plot", tmp_path / "a.png"
    assert str(tmp_path / "a.png") in run("eval", trained / "model.safetensors", *options).stderr
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    assert "--force" in run("eval", trained / "model.safetensors", *options, code=1).stderr
