"""Mistakes of new users: the error names the mistake and the remedy."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from converters.cli import console
from converters.cli.convert_command import convert
from converters.formats.file_kind import FileKind, kind_of_file
from specs.errors import SnnZooError
from zoo.cli import main
from zoo.cli.program import zoo
from zoo.packaged_files import packaged_path
from zoo.sources import resolve_device


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["show", "eval", "check", "train -o run", "verify", "card", "gallery -o a.html"])
def test_a_name_too_long_for_a_file_is_told(command, run, here) -> None:
    assert "File name too long" in run(*command.split(), "x" * 300, code=1).stderr


def test_a_user_without_a_home_is_told_what_to_set(run, monkeypatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ZOO_CACHE_DIR")
    monkeypatch.setattr(Path, "expanduser", homeless)
    told = " ".join(run("list", code=1).stderr.split())
    assert "Could not determine home directory. Set HOME, or $ZOO_CACHE_DIR to a folder for downloads" in told


def test_a_name_that_no_card_may_have_is_told_before_measuring(run) -> None:
    assert "got 'Bad Name'" in run("card", "mnist-conv", "--name", "Bad Name", code=2).stderr


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("eval mnist-dense --data mnits", "mnist"),
        ("gallery mnist-dense -o a.html --data fashion-mnsit", "fashion-mnist"),
        ("data pull fashionmnist", "fashion-mnist"),
        ("train mnist-dense -o run --data mnist-sampel", "mnist-sample"),
        ("train mnist-dense -o run --set epohcs=3", "training.epochs"),
        ("train mnist-dense -o run --set epochs=3", "training.epochs"),
        ("train mnist-dense -o run --set treshold=3", "neuron.threshold"),
        ("train mnist-dense -o run --set training.epohcs=3", "epochs"),
        ("train mnist-dense -o run --set trainng.epochs=3", "training"),
        ("train mnist-dens -o run", "mnist-dense"),
        ("check mnist-dens", "mnist-dense"),
        ("show mnist-dens", "mnist-dense"),
        ("card mnist-dens", "mnist-dense"),
        ("convert mnist-dens -o a.net", "mnist-dense"),
        ("convert relu.nte -o a.safetensors", "relu.net"),
        ("show relu.nett", "relu.net"),
        ("show rleu.net", "relu.net"),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(run, here, line, meant) -> None:
    (here / "relu.net").touch()
    error = run(*line.split(), code=1).stderr
    assert f"did you mean {meant}?" in error.splitlines()[0]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("mnits", "did you mean mnist?"),
        ("nowhere/a.npz", "No such file"),
        ("a.npy", "a NumPy array, not a dataset: save images as x in an .npz"),
        (
            "a.txt",
            "a.txt is not a dataset: expected an .npz, a folder or a .tar of class folders, or a name (cifar-10, ",
        ),
    ],
)
def test_data_of_a_spec_that_is_nowhere_is_a_mistake_in_its_line(run, here, spec_file, data, told) -> None:
    np.save(here / "a.npy", np.zeros(3))
    (here / "a.txt").write_text("3,1,4")
    spec_file.write_text(spec_file.read_text().replace("mnist-sample", data))
    error = run("check", spec_file, code=1).stderr
    assert error.startswith(f"Error: {spec_file}:9: training.data: ")
    assert told in error
    run("build", spec_file, "-o", "a.safetensors")


@pytest.mark.parametrize("data", ["mnist", "a.npz", "pictures"])
def test_data_of_a_spec_that_is_here_is_none(run, here, spec_file, data) -> None:
    np.savez(here / "a.npz", x=np.zeros((3, 28, 28)))
    (here / "pictures").mkdir()
    spec_file.write_text(spec_file.read_text().replace("mnist-sample", data))
    run("check", spec_file)


@pytest.mark.parametrize("command", ["eval mnist-dense", "train mnist-dense -o run"])
def test_images_without_labels_neither_train_nor_score(run, here, command) -> None:
    np.savez(here / "a.npz", x=np.zeros((30, 28, 28)))
    assert "a.npz has no labels" in run(*command.split(), "--data", "a.npz", code=1).stderr


def test_a_missing_path_is_no_dataset(run, here) -> None:
    assert "cannot read pictures/mine" in run("eval", "mnist-dense", "--data", "pictures/mine", code=1).stderr


@pytest.mark.parametrize("command", ["show", "eval", "verify", "train -o run", "gallery -o a.html", "predict a.png"])
def test_who_takes_a_network_says_what_makes_one_of_an_ann(run, here, command) -> None:
    (here / "relu.onnx").write_bytes(packaged_path("examples", "mnist-relu.onnx").read_bytes())
    name, *options = command.split()
    error = run(name, "relu.onnx", *options, code=1).stderr
    assert "is an ANN in ONNX; " in error
    assert "zoo convert relu.onnx --data mnist -o relu.safetensors" in error


@pytest.mark.parametrize("command", ["check {}", "build {} -o a.safetensors", "card {}"])
def test_who_takes_one_kind_of_file_says_what_another_is(run, here, command) -> None:
    for name, word in (("mnist-relu.onnx", "an ANN in ONNX"), ("network.net", "a netx file"), ("network.pt", "torch")):
        (here / name).write_bytes(packaged_path("examples", name).read_bytes())
        error = run(*command.format(name).split(), code=1).stderr
        assert word in error
        assert "zoo convert" in error


@pytest.mark.parametrize(
    ("program", "name"), [(zoo, "mnist-dense.pt"), (zoo, "mnist-dense.net"), (convert, "mnist-dense")]
)
def test_a_file_that_may_mean_a_model_is_told_what_takes_models(program, name) -> None:
    command = [*(["convert"] if program is zoo else []), name, "-o", "a.nir"]
    told = CliRunner().invoke(program, command).stderr
    assert f"no such file: {name}; if you mean the model mnist-dense: zoo convert mnist-dense; zoo pull" in told


@pytest.mark.parametrize("place", ["seven.png", "pictures/seven"])
def test_an_image_is_no_dataset(run, here, place) -> None:
    (here / "pictures").mkdir()
    Image.new("L", (28, 28), 200).save(here / place, "PNG")
    error = run("eval", "mnist-dense", "--data", place, code=1).stderr
    assert f"{place} is an image, not a dataset: classify it with zoo predict NAME IMAGE" in error


def test_a_migrated_state_dict_converts_as_the_checkpoint_does(run, here) -> None:
    (here / "network.pt").write_bytes(packaged_path("examples", "network.pt").read_bytes())
    run("migrate", "network.pt", "--to", "plain", "-o", "plain.safetensors")
    for name in ("network.pt", "plain.safetensors"):
        run("convert", name, "-o", f"{name}.net", "--threshold", 1.25, "--time-steps", 16)
    run("verify", "network.pt.net", "--against", "plain.safetensors.net")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("card {}", "is a state dict, not a snnzoo model"),
        ("eval {}", "the threshold (--threshold)"),
        ("convert {} -o a.net", "the threshold (--threshold)"),
        ("convert {} -o a.net --dt 1", "leave out --dt"),
    ],
)
def test_a_migrated_state_dict_says_what_it_is_or_lacks(run, here, command, said) -> None:
    (here / "network.pt").write_bytes(packaged_path("examples", "network.pt").read_bytes())
    run("migrate", "network.pt", "--to", "plain", "-o", "plain.safetensors")
    assert said in run(*command.format("plain.safetensors").split(), code=1).stderr


def test_what_is_converted_without_images_has_no_use_for_where_they_are(run, here, trained) -> None:
    for option in ("--data-dir", "--cache-dir"):
        told = run("convert", trained / "model.safetensors", "-o", "a.net", option, ".", code=2).stderr
        assert f"leave out {option}" in " ".join(told.split())


def test_any_other_state_dict_is_sent_to_migrate(run, here) -> None:
    save_file({"fc.weight": torch.ones(2, 2)}, here / "fc.safetensors")
    error = run("convert", "fc.safetensors", "-o", "a.net", code=1).stderr
    assert "not a lava-dl checkpoint" in error
    assert "migrate" in error


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("command", ["show", "eval", "verify", "check"])
def test_an_image_is_told_to_be_one(run, here, command, format) -> None:
    Image.new("L", (28, 28), 200).save(here / "seven", format)
    error = run(command, "seven", code=1).stderr
    assert "an image, not a model: classify it with zoo predict NAME IMAGE" in error


def test_arrays_are_data(run, here) -> None:
    np.savez(here / "a.npz", x=np.zeros((3, 28, 28)))
    assert "give it as --data" in run("show", "a.npz", code=1).stderr


def test_text_of_any_suffix_is_read_as_a_spec(run, here, spec_file) -> None:
    (here / "spec.txt").write_text(spec_file.read_text() + "\n# Grösse: 16\n")
    assert run("check", "spec.txt").stdout == run("check", spec_file).stdout
    assert "fresh weights" in run("eval", "spec.txt", "--limit", 5).stderr
    (here / "words.txt").write_text("hello")
    for command in ("show words.txt", "verify words.txt", "train words.txt -o run"):
        error = run(*command.split(), code=1).stderr
        assert "a network spec must be a mapping" in error
        assert "words.txt is a text file: expected a spec in YAML, or a model, by name or file (.safetensors, " in error


def test_a_folder_tells_the_model_in_it(run, here, trained) -> None:
    assert f"its model is {trained / 'model.safetensors'}" in run("show", trained, code=1).stderr
    for command in ("train . -o run", "show .", "card ."):
        assert "not a model; the folder of a training run would have a model" in run(*command.split(), code=1).stderr


def test_a_folder_stands_for_the_images_in_it(run, here) -> None:
    (here / "pictures").mkdir()
    assert "pictures is a folder without .bmp, .gif," in run("predict", "mnist-dense", "pictures", code=1).stderr
    for name in ("b.png", "a.PNG", ".hidden.png", "c.txt"):
        Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(here / "pictures" / name, format="png")
    rows = json.loads(run("predict", "mnist-dense", "pictures", "--json").stdout)["predictions"]
    assert [Path(row["image"]).name for row in rows] == ["a.PNG", "b.png"]


@pytest.mark.parametrize(
    "command", ["train mnist-dense --data mnist-sample", "demo", "pull mnist-dense", "build mnist-dense"]
)
def test_a_file_is_no_folder_to_write_into(run, here, command) -> None:
    (here / "a").touch()
    place = "a/b.net" if command.startswith("build") else "a"
    error = run(*command.split(), "-o", place, code=1).stderr
    assert error == "Error: cannot write into a: a is a file, not a folder; choose another place\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, a folder that root cannot write")
def test_a_place_that_cannot_be_written_is_told_before_the_work(run, monkeypatch) -> None:
    monkeypatch.setattr(
        "converters.formats.model_files.read_model", lambda *_: pytest.fail("read before the place was tried")
    )
    error = run("convert", "mnist-dense", "-o", "/proc/a/b.net", code=1).stderr
    assert error.startswith("Error: cannot write /proc/a/b.net: ")


def test_a_file_is_written_once(run, here) -> None:
    error = run("convert", "mnist-dense", "-o", "a.net", "-o", "./a.net", code=2).stderr
    assert "several -o name the same file" in error
    assert not (here / "a.net").exists()


def test_ctrl_c_ends_any_command_with_its_own_code(run, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.formats.model_files.read_model", interrupt)
    assert run("convert", "mnist-dense", "-o", "a.net", code=130).stderr == "Stopped\n"


def test_an_animation_of_another_format_is_refused_at_once(run, here) -> None:
    error = run("predict", "nobody", "nothing.png", "--animate", "a.png", code=2).stderr
    assert "--animate: must be FILE.gif, got 'a.png'" in error


def test_too_many_images_to_validate_say_how_to_take_fewer(run, here) -> None:
    error = run("train", "mnist-dense", "-o", "run", "--data", "mnist-sample", code=1).stderr
    assert (
        "training.validation: must be below the number of training images (2,000), got 5,000: lower it, "
        "for example with --set training.validation=500" in error
    )


def test_a_spec_is_built_rather_than_converted(run, spec_file) -> None:
    assert "if it is a spec, zoo build makes a model from it" in run("convert", spec_file, "-o", "a.net", code=1).stderr


def test_what_was_mistyped_is_nothing_to_pull(run) -> None:
    assert "zoo pull" not in run("show", "mnist-dens", code=1).stderr
    assert "If an index has it: zoo pull nobody" in run("show", "nobody", code=1).stderr


def test_where_data_lies_is_said_as_options_say_it(run) -> None:
    error = run("card", "mnist-dense", "--offline", code=1).stderr
    assert "--data-dir" in error
    assert "mnist-sample" in error


def test_a_folder_does_not_hide_the_model_of_its_name(run, here) -> None:
    (here / "mnist-dense-shallow").mkdir()
    result = run("eval", "mnist-dense-shallow", "--data", "mnist-sample", "--limit", 20)
    assert "fresh weights" not in result.stderr


@pytest.mark.parametrize(("there", "auto"), [(False, "cpu"), (True, "cuda")])
def test_a_device_is_one_that_is_there(monkeypatch, there, auto) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert (resolve_device("auto"), resolve_device("cpu")) == (auto, "cpu")
    if there:
        assert resolve_device("cuda") == "cuda"
    else:
        with pytest.raises(SnnZooError, match="no CUDA device here; use --device cpu or auto"):
            resolve_device("cuda")


def test_threads_are_as_many_as_are_asked_for(run, monkeypatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    run("eval", "mnist-dense", "--data", "mnist-sample", "--limit", 5, "--threads", 2)
    assert 2 in asked


def test_another_distribution_of_our_names_is_told(monkeypatch, capsys) -> None:
    monkeypatch.setattr("specs.__file__", "/elsewhere/specs/__init__.py")
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "the package 'specs' belongs to another distribution (/elsewhere/specs/__init__.py)" in told


def test_a_nir_graph_without_its_time_step_says_what_to_type(run, here, golden_nir) -> None:
    assert kind_of_file(golden_nir) is FileKind.NIR
    for command in (["show", golden_nir], ["convert", golden_nir, "-o", "a.safetensors"]):
        error = run(*command, code=1).stderr
        assert "Give --dt 1e-4 if snnTorch" in error
        assert "--dt 1 --time-constants exact" in error
    assert f"zoo convert {golden_nir} ... -o norse_lif.safetensors" in run("show", golden_nir, code=1).stderr
    run("convert", golden_nir, "--dt", "1e-6", "-o", "a.safetensors")
    assert "leave out --dt" in run("convert", "a.safetensors", "--dt", 1, "-o", "b.net", code=1).stderr


def test_a_missing_file_in_the_place_of_a_model_is_no_model_to_pull(run) -> None:
    error = run("predict", "nowhere/seven.png", "mnist-dense", code=1).stderr
    assert error == "Error: no such file: nowhere/seven.png\n"


def test_a_file_of_nearly_that_name_does_not_hide_the_model_that_was_meant(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-dense.html").write_text("a page")
    assert "did you mean mnist-dense?" in run("eval", "mnist-dens", code=1).stderr


def test_arrays_of_no_use_are_named(run, tmp_path) -> None:
    np.savez(tmp_path / "mine.npz", pictures=np.zeros((3, 784)), targets=np.zeros(3))
    assert "it has pictures, targets" in run("eval", "mnist-dense", "--data", tmp_path / "mine.npz", code=1).stderr


def test_a_data_folder_that_is_not_there_is_wrong_use(run, tmp_path) -> None:
    assert "does not exist" in run("eval", "mnist-dense", "--data-dir", tmp_path / "none", code=2).stderr


def test_outputs_that_are_not_the_classes_are_doubted(run, tmp_path) -> None:
    text = "name: mine\ntime_steps: 4\ninput: {shape: [784]}\nblocks: [{kind: dense, features: 128}]\n"
    (tmp_path / "mine.yaml").write_text(f"{text}training: {{data: mnist-sample, epochs: 1, validation: 500}}\n")
    assert "128 outputs: the last block, the readout, needs features: 10" in run("check", tmp_path / "mine.yaml").stderr
    assert "128 outputs" in run("train", tmp_path / "mine.yaml", "-o", tmp_path / "run").stderr


def test_fields_that_do_nothing_are_told(run, tmp_path) -> None:
    text = "name: mine\ntime_steps: 4\ninput: {shape: [784], bits: 3}\nblocks: [{kind: affine, features: 10}]\n"
    recipe = "{data: mnist-sample, epochs: 1, validation: 500, self_distillation: 0.5}"
    (tmp_path / "mine.yaml").write_text(f"{text}training: {recipe}\n")
    said = (
        "warning: input.bits has no effect with input.encoding=spike: set input.encoding=graded\n"
        "warning: training.self_distillation has no effect without SNN epochs: set training.snn_epochs\n"
    )
    assert run("check", tmp_path / "mine.yaml").stderr == said
    assert said in run("train", tmp_path / "mine.yaml", "-o", tmp_path / "run", "-q").stderr
    assert run("check", "mnist-dense").stderr == ""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("mnist-sample, ", "mnist, validation: 60000, ", ":9: training.validation: must be below"),
        ("epochs: 2", "epochs: 2, teacher: mnist-dens", ":9: training.teacher: no model"),
        ("epochs: 2", "epochs: 2, snn_epochs: 2, self_distillation: 0.5", ":9: training.self_distillation: "),
        ("epochs: 2", "epochs: 2, crossover_epochs: [1, 0]", ":9: .*crossover_epochs: must be in ascending order"),
        ("epochs: 2", "epochs: 2, crossover_epochs: [2]", r":9: .*crossover_epochs: must be below .* \(2\)"),
        ("epochs: 2", "epochs: 9, crossover_epochs: [1, 2, 3, 4]", ":9: .*crossover_epochs: .* at most 3 epochs"),
        ("mnist-sample", "no/such", ":9: training.data: "),
    ],
)
def test_check_gives_the_line_of_an_error_in_the_recipe(old, new, reason, spec_file, run) -> None:
    text = spec_file.read_text().replace("validation: 500, ", "" if "validation" in new else "validation: 500, ")
    spec_file.write_text(text.replace(old, new))
    assert re.search(re.escape(f"Error: {spec_file}") + reason, run("check", spec_file, code=1).stderr)


def test_check_takes_the_same_changes_as_train(spec_file, run) -> None:
    assert "28" in run("check", spec_file, "--set", "blocks.0.features=28").stdout.splitlines()[2]
    changes = ("--set", "training.data=mnist", "--set", "training.validation=60000")
    error = run("check", spec_file, *changes, code=1).stderr
    assert error.startswith("Error: training.validation: must be below the number of training images (60,000), got")
    assert "training.data" in run("check", spec_file, "--set", "training.data=no/such", code=1).stderr


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50), lambda: bytes(1 << 60)])
def test_memory_that_runs_out_is_an_error_and_other_bugs_are_not(allocate) -> None:
    result = CliRunner().invoke(console.command("hungry")(allocate))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: out of memory: close other programs")
    bug = CliRunner().invoke(console.command("buggy")(lambda: torch.ones(2) @ torch.ones(3)))
    assert isinstance(bug.exception, RuntimeError)
