import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bootstrap_core import load_dataset
from bootstrap_core.tasks.evaluation import ACCURACY
from bootstrap_core.training.trainer import Trainer
from converters import read_model, write_model
from specs.files.given_file import sha256_of
from specs.io import load_spec
from specs.training import TrainingSpec
from zoo.card import load_card
from zoo.card_text import as_markdown
from zoo.runs.card_files import packaged_card
from zoo.runs.training_run import read_metrics
from zoo.sources import override_spec


def test_a_run_leaves_what_the_readme_says(trained) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "spec.yaml", "checkpoint.pt", "metrics.jsonl", "model.safetensors", "curves.png"
    }  # fmt: skip


def test_the_model_is_the_best_epoch_on_validation(trained) -> None:
    reports = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [report["epoch"] for report in reports] == [0, 1]
    best = max(reports, key=lambda report: report["validation_snn_accuracy"])
    assert read_model(trained / "model.safetensors").card["training"]["epoch"] == best["epoch"]


def test_without_validation_the_last_epoch_is_kept(trained, run, tmp_path) -> None:
    done = run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--set", "training.validation=0")
    assert "last epoch, kept for want of validation images" in done.stderr
    assert "validation, SNN" not in done.stdout
    training = read_model(tmp_path / "run" / "model.safetensors").card["training"]
    assert (training["epoch"], training["validation_images"], training["validation_snn_accuracy"]) == (1, 0, None)
    run("train", tmp_path / "run" / "model.safetensors", "-o", tmp_path / "again", "--set", "training.epochs=1")


def test_a_checkpoint_with_a_wrong_checksum_is_refused(run, trained, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    data = bytearray(path.read_bytes())
    data[largest.header_offset + largest.file_size // 2] ^= 3  # a weight
    path.write_bytes(data)
    told = run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--resume", code=1).stderr
    assert "is not a checkpoint of snnzoo: the checksum of " in told


def test_a_recurrent_network_trains_and_scores_without_an_ann(run, tmp_path) -> None:
    recurrent = "{kind: dense, features: 8, recurrent: true}, {kind: affine, features: 10}"
    recipe = "{data: mnist-sample, epochs: 1, snn_epochs: 1, images_per_epoch: 100, batch_size: 50, validation: 100}"
    spec = f"name: fed-back\ntime_steps: 3\ninput: {{shape: [784]}}\nblocks: [{recurrent}]\ntraining: {recipe}\n"
    (tmp_path / "spec.yaml").write_text(spec)
    told = run("train", tmp_path / "spec.yaml", "-o", tmp_path / "run")
    assert "test, SNN, T=3" in told.stdout
    assert "test, ANN" not in told.stdout
    (report,) = read_metrics(tmp_path / "run")
    assert (report.validation_ann_loss, report.validation_ann_score) == (None, None)
    assert set(read_model(tmp_path / "run" / "model.safetensors").card["test"]) == {"snn"}
    assert run("eval", tmp_path / "run" / "model.safetensors", "--data", "mnist-sample", "--limit", "50").stdout
    longer = ("--epochs", 2, "--set", "training.snn_epochs=2")
    assert "epoch 2/2" in run("train", tmp_path / "spec.yaml", "-o", tmp_path / "run", "--resume", *longer).stderr


def test_the_same_seed_gives_the_same_bytes(trained, run, tmp_path) -> None:
    run("train", trained / "spec.yaml", "-o", tmp_path / "again", "-q")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_what_a_killed_run_left_half_written_is_removed(trained, run, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    left = tmp_path / "run/.checkpoint.pt.0123456789abcdef"
    left.touch()
    run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--epochs", 1, "-q")
    assert not left.exists()


def test_an_interrupted_run_resumes_to_the_same_bytes(trained, run, tmp_path, monkeypatch) -> None:
    original = Trainer.run_epoch

    def interrupted(self, *arguments):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", interrupted)
        result = run("train", trained / "spec.yaml", "-o", tmp_path / "run", code=130)
    assert "--resume" in result.stderr
    read_model(tmp_path / "run/model.safetensors").build()
    run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--resume", "-q")
    for name in ("model.safetensors", "metrics.jsonl"):
        ours, theirs = (folder / name for folder in (tmp_path / "run", trained))
        if name == "metrics.jsonl":  # except for seconds, which differ
            ours, theirs = ([{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
                            for path in (ours, theirs))  # fmt: skip
            assert ours == theirs
        else:
            assert ours.read_bytes() == theirs.read_bytes()


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_an_interrupted_run_leaves_nothing_of_the_run_that_it_overwrites(trained, run, tmp_path, monkeypatch) -> None:
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(Trainer, "run_epoch", interrupted)
    run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--force", "-q", code=130)
    assert read_model(tmp_path / "run/model.safetensors").card["training"]["epoch"] is None
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"spec.yaml", "checkpoint.pt", "model.safetensors"}


def test_a_second_run_in_one_folder_is_refused_until_the_first_has_ended_or_was_killed(
    spec_file, run, tmp_path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "zoo", "train", spec_file, "-o", folder, "-q", "--epochs", "100000"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE) as first:
        try:
            while not (folder / "metrics.jsonl").exists():
                assert first.poll() is None, first.stderr.read()
                time.sleep(0.05)
            for option in ("--force", "--resume"):
                told = run("train", spec_file, "-o", folder, "-q", option, "--epochs", 100000, code=1).stderr
                assert f"another zoo train is running in {folder}: " in " ".join(told.split())
        finally:
            first.kill()
    n_epochs = len(read_metrics(folder))
    run("train", spec_file, "-o", folder, "-q", "--resume", "--epochs", n_epochs + 1)
    assert len(read_metrics(folder)) == n_epochs + 1
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("makes_folder", [True, False])
def test_a_run_that_cannot_begin_leaves_the_folders_as_they_were(run, tmp_path, makes_folder) -> None:
    if makes_folder:
        (tmp_path / "run").mkdir()
    run("train", "mnist-dense", "-o", tmp_path / "run", "--data", tmp_path / "missing.npz", code=1)
    assert list(tmp_path.glob("run/*")) == []
    assert (tmp_path / "run").exists() is makes_folder


@pytest.mark.parametrize("name", ["spec.yaml", "checkpoint.pt", "metrics.jsonl", "model.safetensors", "curves.png"])
def test_files_that_exist_are_not_overwritten_unasked(spec_file, run, tmp_path, name) -> None:
    theirs = tmp_path / "run" / name
    theirs.parent.mkdir()
    theirs.write_text("mine")
    assert f"{name} exists" in run("train", spec_file, "-o", theirs.parent, "-q", code=1).stderr
    assert theirs.read_text() == "mine"


def test_a_model_file_is_trained_on(trained, run, tmp_path) -> None:
    model = trained / "model.safetensors"
    still = ("--epochs", 1, "--set", "training.learning_rate=1e-12", "--set", "training.initialize=true")
    run("train", model, "-o", tmp_path / "on", *still, "-q")
    changes = "--set training.learning_rate=1e-12 --set training.initialize=true --set training.epochs=1"
    before, after = (read_model(path) for path in (model, tmp_path / "on/model.safetensors"))
    assert (after.spec.training.epochs, after.spec.training.initialize) == (1, True)  # only new weights
    start = after.card["training"]["start_revision"]
    assert sha256_of(model).startswith(start)
    card = run("card", tmp_path / "on").stdout
    told = f"zoo train START.safetensors -o run/tiny {changes} # START is the file whose sha256 begins {start}"
    assert told in " ".join(card.split())
    for name, tensor in before.tensors.items():
        if name.endswith(("weight", "bias", "original0", "original1")):
            assert (tensor - after.tensors[name]).abs().max() < 1e-6, name
    result = run("train", model, "-o", tmp_path / "other", "--set", "blocks.0.features=7", code=1)
    assert ", expected [" in result.stderr


def test_that_training_on_made_it_worse_is_told(trained, run, tmp_path) -> None:
    command = "train", trained / "model.safetensors", "-o", tmp_path / "on", "--epochs", 1, "--force"
    before = max(report.validation_snn_score for report in read_metrics(trained))
    worse = run(*command, "--set", "training.learning_rate=0.5").stderr
    assert f"before training: SNN accuracy {ACCURACY.text(before)} on the validation images" in worse
    assert f"accuracy of {ACCURACY.text(before)} on the validation images, better than every epoch" in worse
    assert "better than every epoch" not in run(*command, "--set", "training.learning_rate=1e-12", "-q").stderr


def test_texts_are_taken_as_they_are(run, spec_file, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    split = load_dataset("mnist-sample").train
    np.savez("a #2: it's.npz", x=split.images[:1000, 0].numpy(), y=split.labels[:1000].numpy())
    texts = ("--data", "a #2: it's.npz", "--set", "description=Run #3: 2")
    run("train", spec_file, "-o", "run", *texts, "--epochs", 1, "-q")
    spec = load_spec("run/spec.yaml")
    assert (spec.training.data, spec.description) == (f"{tmp_path}/a #2: it's.npz", "Run #3: 2")
    quoted = override_spec(spec, ['description="2026"', "name=2026"])
    assert (quoted.description, quoted.name) == ("2026", "2026")


@pytest.mark.parametrize(
    ("part", "told"), [("x", "images of [1, 1, 28, 27] do not fit"), ("y", "label 10: the network has 10 classes")]
)
def test_test_images_that_do_not_fit_are_told_before_training(part, told, run, spec_file, tmp_path) -> None:
    split = load_dataset("mnist-sample").train
    x, y = split.images[:600, 0].numpy(), split.labels[:600].numpy()
    x_test, y_test = (x[:9, :, 1:], y[:9]) if part == "x" else (x[:9], y[:9] + 10 - y[:9].min())
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    result = run("train", spec_file, "-o", tmp_path / "run", "--data", tmp_path / "a.npz", code=1)
    assert told in result.stderr
    assert not (tmp_path / "run/checkpoint.pt").exists()


@pytest.mark.parametrize("recipe", ["null", "{data: mnist-sample}"])
def test_a_whole_recipe_may_be_set_after_one_of_its_fields(recipe) -> None:
    spec = override_spec(load_spec("mnist-conv"), ["training.epochs=1", f"training={recipe}"])
    assert spec.training == (None if recipe == "null" else TrainingSpec(data="mnist-sample"))


def test_a_run_is_resumed_with_the_model_that_it_began_with_alone(trained, run, tmp_path) -> None:
    model = trained / "model.safetensors"
    run("train", model, "-o", tmp_path / "on", "--epochs", 1, "-q")
    other = run("train", tmp_path / "on/model.safetensors", "-o", tmp_path / "on", "--resume", "--epochs", 2, code=1)
    assert f"started from {sha256_of(model)[:12]}" in other.stderr
    again = run("train", model, "-o", tmp_path / "on", "--resume", "--epochs", 2)
    assert "up to epoch 1 the learning rate was planned for 1 epoch: a run of 2 epochs without a break" in again.stderr


def test_validation_images_that_a_model_has_learnt_from_are_told(trained, run, spec_file, tmp_path) -> None:
    def warned(start: Path, *options: str | int) -> str:
        return run("train", start, "-o", tmp_path / "on", "--epochs", 1, "-q", "--force", *options).stderr

    model, before = trained / "model.safetensors", load_spec(trained / "spec.yaml").training
    assert f"training.seed={before.seed} to keep" in warned(model, "--seed", before.seed + 1)
    more = warned(model, "--set", f"training.validation={before.validation + 1}")
    assert f"training.validation={before.validation} or less" in more
    assert "has learnt" not in warned(model)
    run("build", spec_file, "-o", tmp_path / "fresh.safetensors")
    assert "has learnt" not in warned(tmp_path / "fresh.safetensors", "--seed", before.seed + 1)


def test_a_model_that_tells_no_data_is_trained_on_what_is_named_alone(trained, run, tmp_path) -> None:
    model = read_model(trained / "model.safetensors")
    untold = replace(model, spec=model.spec.model_copy(update={"training": None}), card={})
    write_model(untold, tmp_path / "untold.safetensors")
    command = "train", tmp_path / "untold.safetensors", "-o", tmp_path / "on", "--epochs", 1
    assert "has no recipe" in run(*command, code=1).stderr
    assert "name data, as in --data mnist" in run(*command, "--set", "training={validation: 500}", code=1).stderr
    for named in (
        ("--data", "mnist-sample", "--set", "training.validation=500"),
        ("--set", "training={data: mnist-sample, validation: 500}"),
    ):
        run(*command, *named, "-q", "--force")
        assert read_model(tmp_path / "on/model.safetensors").card["training"]["data"] == "mnist-sample"


def test_another_teacher_than_the_card_s_is_told(run, tmp_path) -> None:
    card = packaged_card("mnist-dense-t4")
    teacher = card.training.recipe.teacher
    short = "--data", "mnist-sample", "--set", "training.validation=1900", "--epochs", 1, "-q"

    def told(*options: object) -> str:
        return " ".join(
            run("train", "mnist-dense-t4", "-o", tmp_path / "run", "--force", *short, *options).stderr.split()
        )

    assert f"was taught by {teacher}@{card.training.teacher_revision}, but {teacher} is now revision " in told()
    assert "was taught by" not in told("--set", "training.teacher=mnist-dense")


def test_a_run_goes_on_with_its_own_teacher_alone(trained, run, spec_file, tmp_path) -> None:
    shutil.copy(trained / "model.safetensors", teacher := tmp_path / "teacher.safetensors")
    taught = "--set", f"training.teacher={teacher}", "--set", "training.distillation=0.5", "-q"
    run("train", spec_file, "-o", tmp_path / "run", "--epochs", 1, *taught)
    run("build", spec_file, "-o", teacher, "--force")
    write_model(replace(read_model(trained / "model.safetensors"), card={}), teacher, overwrite=True)
    again = run("train", spec_file, "-o", tmp_path / "run", "--resume", "--epochs", 2, *taught, code=1)
    assert "was taught by" in again.stderr
    assert "restore the old revision, or train anew with --force" in " ".join(again.stderr.split())


def test_a_recipe_starts_from_the_model_that_it_names(trained, run, spec_file, tmp_path) -> None:
    source = trained / "model.safetensors"
    started = "--set", f"training.start={source}", "--set", "training.learning_rate=1e-9"
    result = run("train", spec_file, "-o", tmp_path / "run", "--epochs", 1, *started)
    before, after = read_model(source), read_model(tmp_path / "run/model.safetensors")
    facts = after.card["training"]
    assert sha256_of(source).startswith(facts["start_revision"])
    assert facts["start_changes"] == []
    for name in (name for name in before.tensors if "weight" in name):
        torch.testing.assert_close(after.tensors[name], before.tensors[name], rtol=1e-4, atol=1e-5)
    assert "before training: SNN accuracy" in result.stderr
    run("card", tmp_path / "run", "--licence", "MIT", "-o", tmp_path / "card.yaml")
    card = load_card(tmp_path / "card.yaml")
    assert card.commands.train == "zoo train tiny -o run/tiny"
    assert f"start {source}@{facts['start_revision']}" in as_markdown(card, after.spec)


def test_a_model_file_that_is_continued_is_the_start_itself(trained, run, spec_file, tmp_path) -> None:
    """The start of its recipe may be gone by then."""
    shutil.copy(trained / "model.safetensors", start := tmp_path / "start.safetensors")
    run("train", spec_file, "-o", tmp_path / "run", "--epochs", 1, "--set", f"training.start={start}", "-q")
    start.unlink()
    made = tmp_path / "run/model.safetensors"
    run("train", made, "-o", tmp_path / "on", "--epochs", 1, "-q")
    after = read_model(tmp_path / "on/model.safetensors")
    assert after.spec.training.start is None
    assert sha256_of(made).startswith(after.card["training"]["start_revision"])
    named = run("train", made, "-o", tmp_path / "no", "--set", "training.start=mnist-dense", code=1)
    assert "the training starts from the model file itself" in named.stderr


def test_a_start_may_have_its_weight_norms_multiplied_out(trained, run, spec_file, tmp_path) -> None:
    run("convert", trained / "model.safetensors", "-o", tmp_path / "folded.safetensors", "--fold")
    started = "--set", f"training.start={tmp_path}/folded.safetensors", "--set", "training.initialize=true"
    told = run("check", spec_file, *started).stderr
    assert "training.initialize has no effect with training.start" in told
    run("train", spec_file, "-o", tmp_path / "run", "--epochs", 1, "--set", "training.learning_rate=1e-9", *started)
    folded, after = (read_model(tmp_path / name) for name in ("folded.safetensors", "run/model.safetensors"))
    images = load_dataset("mnist-sample").test.images[:50].float() / 255
    torch.testing.assert_close(after.build()(images), folded.build()(images))


def test_a_trained_model_teaches(trained, run, tmp_path) -> None:
    taught = ("--set", "training.distillation=1.0", "--set", f"training.teacher={trained}/model.safetensors")
    run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--epochs", 1, *taught, "-q")
    report = json.loads((tmp_path / "run/metrics.jsonl").read_text())
    assert report["validation_snn_accuracy"] > 0.5  # learnt from the teacher alone: the loss ignores labels
    facts = read_model(tmp_path / "run/model.safetensors").card["training"]
    assert sha256_of(trained / "model.safetensors").startswith(facts["teacher_revision"])


def test_resume_refuses_another_spec_and_says_what_of_it(trained, run) -> None:
    changes = "--set", "neuron.threshold=2.0", "--set", "training.learning_rate=0.5", "--set", "training.epochs=9"
    result = run("train", trained / "spec.yaml", "-o", trained, "--resume", *changes, code=1)
    assert "has another spec (differs in: neuron.threshold, training.learning_rate)" in " ".join(result.stderr.split())


def test_resume_refuses_fewer_epochs_than_are_done_and_leaves_the_run(trained, run, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    result = run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--resume", "--epochs", 1, code=1)
    assert "has 2 epochs, more than the 1 of the recipe" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("bits", [10, 1])
def test_a_network_that_24_bits_do_not_hold_is_told(run, tmp_path, bits) -> None:
    (tmp_path / "loud.yaml").write_text(
        f"{{name: loud, time_steps: 16, input: {{shape: [784], encoding: graded, bits: {bits}}}, blocks: "
        "[{kind: dense, features: 16}, {kind: affine, features: 10}], "
        "training: {data: mnist-sample, epochs: 1, validation: 500}}"
    )
    warning, model = "warning: the chip cannot run this network", tmp_path / "run/model.safetensors"
    told = run("train", tmp_path / "loud.yaml", "-o", tmp_path / "run").stderr
    warned = warning in told
    (report,) = read_metrics(tmp_path / "run")
    assert (report.overflow is not None) == (" *!  " in told) == ("\n!: a state leaves" in told) == warned
    card = read_model(model).card["test"]["snn"]
    assert warned == ("24 bits" in card.get("overflow", "")) == (bits == 10)
    assert (warning in run("convert", model, "-o", tmp_path / "loud.net").stderr) == warned
    said = run("eval", model, "--data", "mnist-sample", "--limit", "50").stderr
    assert (warning in said, "computes the same spikes" in said) == (warned, not warned)
    scored = run("eval", model, "--limit", 50, "--overflow", "refuse", "--json", code=int(warned))
    assert ("24 bits" in scored.stderr) == warned
    scored = run("eval", model, "--limit", 50, "--overflow", "chip", "--time-steps", "1,16", "--json")
    results = json.loads(scored.stdout)["results"]
    assert results[0]["overflows"] == {}
    assert bool(results[1]["overflows"]) == warned
    assert all(n > 0 for n in results[1]["overflows"].values())
    image = tmp_path / "white.png"
    Image.new("L", (28, 28), 255).save(image)
    predicted = run("predict", model, image, "--overflow", "chip", "--json")
    assert bool(json.loads(predicted.stdout)["overflows"]) == warned
    assert ("changed as on the chip" in run("predict", model, image, "--overflow", "chip").stderr) == warned
    assert ("24 bits" in run("predict", model, image, "--overflow", "refuse", code=int(warned)).stderr) == warned


def test_the_name_of_a_pulled_model_is_trained_afresh_by_its_recipe(trained, run, tmp_path) -> None:
    run("card", trained, "-o", tmp_path / "tiny.yaml", "--licence", "MIT")
    run("publish", trained / "model.safetensors", tmp_path / "tiny.yaml", "--to", tmp_path / "index")
    assert "no spec 'tiny'" in run("train", "tiny", "-o", tmp_path / "run", code=1).stderr
    run("pull", "tiny", "--from", tmp_path / "index")
    run("train", "tiny", "-o", tmp_path / "run", "-q")
    assert (tmp_path / "run/model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def put(*path: str, value: object):
    """Return a function that sets a field of a checkpoint, or removes it if the value is `...`."""

    def change(state) -> None:
        *parents, last = path
        for part in parents:
            state = state[part]
        if value is ...:
            del state[last]
        else:
            state[last] = value

    return change


WRONG = (None, 5, -1, "x", [1], {"a": 1}, torch.zeros(3), math.nan, 2**70, ...)
FIELDS = ("spec", "epoch", "recipe", "network", "optimizer")
CHANGES = {
    **{f"{field}, {str(value)[:9]}": put(field, value=value) for field in FIELDS for value in WRONG},
    **{f"{name}, 5": put(name, value=5) for name in ("start_revision", "start_changes", "teacher_revision")},
    **{f"data files, {value}": put("data_files", value=value) for value in (5, "x", torch.zeros(3))},
    "an average": put("average", value={"network": {}, "n_updates": 1}),
    "an ANN": put("as_ann", value={"a": torch.ones(1)}),
    "a shape": put("network", "blocks.1.bias", value=torch.zeros(3)),
    "a dtype": put("network", "blocks.1.bias", value=torch.zeros(16, dtype=torch.complex64)),
    "no numbers": put("network", "blocks.1.bias", value=torch.zeros(16).to_sparse()),
    "an unknown tensor": put("network", "other", value=torch.zeros(3)),
    "a parameter": put("optimizer", "state", 99, value={"step": torch.ones(())}),
    "a moment": put("optimizer", "state", 0, "exp_avg", value=torch.zeros(3)),
    "no moment": put("optimizer", "state", 0, "exp_avg", value=...),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_with_another_field_is_refused(name, trained, run, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    try:
        CHANGES[name](state)
    except KeyError:
        pytest.skip("this recipe has no such field")
    torch.save(state, checkpoint)
    before = checkpoint.read_bytes()
    result = run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--resume", "--epochs", 3, code=1)
    told = " ".join(result.stderr.split())
    assert re.search(r"checkpoint.pt (is not a checkpoint of snnzoo: |needs the figures of its [\d,]+ epochs)", told)
    assert checkpoint.read_bytes() == before


def test_a_resumed_run_needs_the_figures_of_its_epochs(trained, run, tmp_path) -> None:
    metrics = tmp_path / "run/metrics.jsonl"
    shutil.copytree(trained, metrics.parent)
    command = ("train", trained / "spec.yaml", "-o", metrics.parent, "--resume", "-q", "--epochs", 3)
    first, second = metrics.read_text().splitlines(keepends=True)
    for text, problem in ((first, "metrics.jsonl has 1: restore"), (second + first, "in order"), ("{}\n", ":1: ")):
        metrics.write_text(text)
        assert problem in " ".join(run(*command, code=1).stderr.split())
    metrics.unlink()
    assert "metrics.jsonl has 0: restore" in " ".join(run(*command, code=1).stderr.split())
    metrics.write_text(first + second + "of an epoch whose checkpoint was not written")
    run(*command)
    assert [first, second] == metrics.read_text().splitlines(keepends=True)[:2]
    assert len(read_metrics(metrics.parent)) == 3


@pytest.fixture(params=["folder", "tar", "npz"])
def own_data(request, tmp_path) -> Path:
    """Images of three classes as class folders, as a tar of them, or as arrays; the run may change them."""
    folder = tmp_path / "own"
    for label in range(30):
        (folder / f"class{label % 3}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(label).integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(pixels).save(folder / f"class{label % 3}/{label}.bmp")
    if request.param == "folder":
        return folder
    return packed(folder, tmp_path / f"own.{request.param}")


def packed(folder: Path, path: Path) -> Path:
    """Write the images of class folders into a tar or an .npz."""
    files = sorted(folder.rglob("*.bmp"))
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder))
    else:
        labels = [int(file.parent.name[-1]) for file in files]
        np.savez(path, x=np.stack([np.asarray(Image.open(file)) for file in files]), y=np.array(labels))
    return path


def test_a_run_does_not_resume_on_other_files(spec_file, run, own_data, tmp_path) -> None:
    command = ["train", spec_file, "-o", tmp_path / "run", "-q", "--set", "training.validation=6", "--set"]
    command += ["blocks.1.features=3", "--data"]
    run(*command, own_data, "--epochs", 1)
    own_data.touch()
    run(*command, own_data, "--epochs", 2, "--resume")
    first, second = tmp_path / "own/class0/0.bmp", tmp_path / "own/class0/3.bmp"
    swapped = first.read_bytes(), second.read_bytes()
    second.write_bytes(swapped[0])
    first.write_bytes(swapped[1])
    if own_data.is_file():
        packed(tmp_path / "own", own_data)
    else:
        (tmp_path / "own/class1/1.bmp").rename(tmp_path / "own/class1/new.bmp")
    told = " ".join(run(*command, own_data, "--epochs", 3, "--resume", code=1).stderr.split())
    assert f"run/checkpoint.pt was trained on other files than {own_data} has now: " in told
    if own_data.suffix == ".npz":
        assert "own.npz has changed; restore them" in told
    else:
        assert "class0/0.bmp has changed, class0/3.bmp has changed" in told
    if own_data.is_dir():
        assert "class1/1.bmp is missing, and 1 other file; restore them" in told


def test_a_checkpoint_does_not_grow_with_the_epochs(spec_file, run, tmp_path) -> None:
    sizes = set()
    for n_epochs in (1, 2, 12):
        run("train", spec_file, "-o", tmp_path / "run", "-q", "--resume" if sizes else "--force", "--epochs", n_epochs)
        sizes.add((tmp_path / "run/checkpoint.pt").stat().st_size)
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
        (lambda path: path.symlink_to(path.name), "nothing to resume|Too many levels"),
    ],
    ids=["folder", "pipe", "device", "loop"],
)
def test_a_checkpoint_that_is_not_a_file_is_refused(make, reason, trained, run, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run/checkpoint.pt").unlink()
    make(tmp_path / "run/checkpoint.pt")
    result = run("train", trained / "spec.yaml", "-o", tmp_path / "run", "--resume", "--epochs", 3, code=1)
    assert re.search(reason, result.stderr)
