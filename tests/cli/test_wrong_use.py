"""Wrong uses of commands, and mistakes of new users: the error names the mistake and the remedy."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from spike_trains import INPUTS, STEPS, made_network

from bootstrap_core import load_dataset
from converters import Model, write_model
from converters.cli import console
from converters.file_migration import migrate_file
from specs import dump_spec, load_spec
from specs.errors import SnnZooError
from zoo.cli import main
from zoo.factory import model_file
from zoo.packaged_files import packaged_path
from zoo.sources import resolve_device

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_user_without_a_home_is_told_what_to_set(run, monkeypatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ZOO_CACHE_DIR")
    monkeypatch.setattr(Path, "expanduser", homeless)
    told = " ".join(run("list", code=1).stderr.split())
    assert "Could not determine home directory. Set HOME, or $ZOO_CACHE_DIR to a folder for downloads" in told


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with files of each kind."""
    folder = tmp_path_factory.mktemp("files")
    for name, source in (
        ("ann.onnx", packaged_path("examples", "mnist-relu.onnx")),
        ("classes.pt", packaged_path("examples", "network.pt")),
        ("classes.net", packaged_path("examples", "network.net")),
        ("alone.pt", packaged_path("examples", "network.pt")),
        ("classes.safetensors", model_file("mnist-dense-shallow")),
        ("values.net", GOLDEN / "sigma_delta/network.net"),
        ("norse.nir", GOLDEN / "nir/norse_lif.nir"),
    ):
        shutil.copy(source, folder / name)
    write_model(Model.of(made_network()), folder / "trains.safetensors")
    migrate_file(folder / "alone.pt", folder / "plain.safetensors", to="plain")
    save_file({"fc.weight": torch.ones(2, 2)}, folder / "fc.safetensors")
    np.save(folder / "events.npy", np.zeros((STEPS, INPUTS), np.uint8))
    np.savez(folder / "unlabelled.npz", x=np.zeros((30, 28, 28)))
    np.savez(folder / "pictures.npz", pictures=np.zeros((3, 784)))
    (folder / "empty").mkdir()
    Image.new("L", (28, 28), 200).save(folder / "seven", "PNG")
    (folder / "spec.yaml").write_text(dump_spec(load_spec("mnist-dense")))
    (folder / "old.c").write_text("int main(void) { return 0; }")
    return folder


def refusal(line: str, run, folder: Path, monkeypatch, *, code: int) -> str:
    """Run a command in a folder, where it must leave no file; return what it says, on one line."""
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    told = " ".join(run(*line.split(), code=code).stderr.split())
    assert sorted(folder.rglob("*")) == before
    return told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "Commands:"),
        ("completion csh", "'bash', 'zsh', 'fish'"),
        ("build nobody -o a.safetensors --seed 9223372036854775808", "--seed"),
        ("train nobody -o run --seed 9223372036854775808", "--seed"),
        ("card nobody --name Bad", "must have only lower-case letters, digits, '.', '_' and '-', got 'Bad'"),
        ("card nobody -o card.yml", "must be FILE.yaml, got 'card.yml'"),
        ("show nobody --markdown --json", "leave out --markdown, or --json"),
        ("show nobody --markdown --diff other", "leave out --markdown, or --diff"),
        ("show nobody --curves a.png --graph a.svg", "leave out --curves, or --graph"),
        ("show nobody --graph a.svg --diff other", "--graph draws one network, --diff compares two: leave out"),
        ("show nobody --graph a.png", "must be FILE.svg or FILE.html, got 'a.png'"),
        ("verify --against a.yaml", "--against compares one model: give SOURCE, or leave out --against"),
        ("gallery nobody -o a.pdf", "must be FILE.html"),
        ("data export nobody -o a.labels", "--output: must have another suffix than .labels"),
        ("eval nobody --overflow chip --engine torch", "--overflow needs the chip's integers: leave out"),
        ("eval nobody --engine integer --mode ann --device cuda", "or --mode ann and --device cuda"),
        ("eval nobody --mode ann --time-steps 4", "--mode ann runs an ANN, which has no time steps: leave out"),
        ("eval nobody --mode ann --plot a.png", "leave out --plot, or --mode ann"),
        ("eval nobody --neurobench --time-steps 4", "leave out --neurobench, or --time-steps"),
        ("eval nobody --plot a.pdf", "must be FILE.png, got 'a.pdf'"),
        ("eval nobody --time-steps=", "must be whole numbers with commas"),
        ("eval nobody --time-steps 4,,8", "must be whole numbers with commas, as in 4,8,16, got '4,,8'"),
        ("eval nobody --time-steps 0", "must be 1 to 4096, got '0'"),
        ("eval nobody --classes three,three", "occurs twice"),
        ("eval nobody --data-dir none", "does not exist"),
        ("eval values.net", "gives values, not classes: name its frames with --data"),
        ("eval values.net --plot a.png --classes a,b", "gives values, not classes: leave out --plot, --classes"),
        ("eval trains.safetensors --data events.npy --mode ann", "has no ANN: leave out --mode ann"),
        ("predict nobody", "Missing argument 'IMAGE|RECORDING...'"),
        ("predict nobody a.png --animate a.png", "must be FILE.gif, got 'a.png'"),
        ("predict values.net a.npy --classes a,b --invert", "gives values, not classes: leave out --classes, --invert"),
        ("migrate classes.pt --to plain", "no file to write is named, nor --dry-run to look first: give -o or --dry"),
        ("migrate classes.pt --dry-run", "--to"),
        ("migrate classes.pt --to keras --dry-run", "'keras' is not one of"),
        ("migrate classes.pt --to plain --only x --dry-run", "leave out --only, or --to plain"),
        ("migrate classes.pt --to legacy --dim -1 --dry-run", "must be an axis, such as 0 or 1, or none; got '-1'"),
        ("migrate classes.pt --to legacy --dtype int8 --dry-run", "int8"),
        ("convert ann.onnx -o a.net --dt 1", "ann.onnx is an ONNX file: leave out --dt"),
        ("convert ann.onnx --raw --std 1", "--raw means --mean 0 --std 0.00392 (1/255): leave out --raw, or --std"),
        ("convert ann.onnx --mean 0.5,nan,0", "nan is not a finite number, or one for each channel, as in 0.49"),
        ("convert ann.onnx --mean 0.5,,0", "'' is not a finite number"),
        ("convert ann.onnx --limit 200", "give --data, or leave out --limit"),
        ("convert ann.onnx --epochs 3", "--epochs tunes on images of --data: give --data, or leave out --epochs"),
        ("convert ann.onnx --report a.pdf", "must be FILE.html"),
        (
            "convert ann.onnx --data mnist-sample --reset subtract -o a.nir -o a.net",
            "--reset subtract cannot be written as netx: leave out --reset subtract, or -o FILE.net",
        ),
        ("convert classes.safetensors -o a.net --epochs 3 --input spike", "leave out --epochs, --input"),
        ("convert classes.safetensors -o a.net --data-dir .", "leave out --data-dir"),
        ("convert classes.safetensors -o a.net --cache-dir .", "leave out --cache-dir"),
        ("convert classes.safetensors -o a.net --mean 0.7,0.4", "only ONNX files take one for each channel"),
        ("convert classes.pt -o a.nir --report a.html", "leave out --report"),
        ("convert classes.net --reset auto", "classes.net is not an ONNX file: leave out --reset auto"),
        ("convert classes.safetensors -o a.nir -o ./a.nir", "several name the same file"),
        ("convert classes.safetensors -o a.nir --c-prefix x", "give -o FILE.c or -o FILE.ino, or leave out --c-prefix"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(run, files, monkeypatch, line, told) -> None:
    assert told in refusal(line, run, files, monkeypatch, code=2)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("eval mnist-dense --data mnits", "did you mean mnist?"),
        ("gallery mnist-dense -o a.html --data fashion-mnsit", "did you mean fashion-mnist?"),
        ("data pull fashionmnist", "did you mean fashion-mnist?"),
        ("train mnist-dense -o run --data mnist-sampel", "did you mean mnist-sample?"),
        ("train mnist-dense -o run --set epohcs=3", "did you mean training.epochs?"),
        ("train mnist-dense -o run --set epochs=3", "did you mean training.epochs?"),
        ("train mnist-dense -o run --set treshold=3", "did you mean neuron.threshold?"),
        ("train mnist-dense -o run --set training.epohcs=3", "did you mean epochs?"),
        ("train mnist-dense -o run --set trainng.epochs=3", "did you mean training?"),
        ("train mnist-dens -o run", "did you mean mnist-dense?"),
        ("check mnist-dens", "did you mean mnist-dense?"),
        ("show mnist-dens", "did you mean mnist-dense?"),
        ("card mnist-dens", "did you mean mnist-dense?"),
        ("convert mnist-dens -o a.net", "did you mean mnist-dense?"),
        ("convert clases.net -o a.safetensors", "did you mean classes.net?"),
        ("show classes.nett", "did you mean classes.net?"),
        ("show clasess.net", "did you mean classes.net?"),
        ("show nobody", "If an index has it: zoo pull nobody"),
        ("eval mnist-dense --data pictures/mine", "cannot read pictures/mine"),
        ("eval mnist-dense --data pictures.npz", "it has pictures"),
        ("eval mnist-dense --data unlabelled.npz", "unlabelled.npz has no labels"),
        ("eval mnist-dense --data seven", "seven is an image, not a dataset: classify it with zoo predict NAME IMAGE"),
        ("eval mnist-dense --data nmnist-simulated-sample", "has recordings of events; the network takes images"),
        ("eval classes.safetensors --data mnist --offline", "--data-dir"),
        ("eval ann.onnx", "zoo convert ann.onnx --data mnist -o ann.safetensors"),
        ("eval plain.safetensors", "the threshold (--threshold)"),
        ("eval old.c", "old.c is C source, not a model: zoo verify MODEL --against old.c checks it"),
        ("eval values.net --data x.npy --overflow chip", "overflow: must be refuse for sigma-delta networks"),
        ("show seven", "an image, not a model: classify it with zoo predict NAME IMAGE"),
        ("show unlabelled.npz", "give it as --data"),
        ("show empty", "not a model; the folder of a training run would have a model"),
        ("show " + "x" * 300, "File name too long"),
        ("show norse.nir", "zoo convert norse.nir ... -o norse.safetensors"),
        ("check ann.onnx", "is not a spec but an ANN in ONNX"),
        ("verify old.c", "zoo verify MODEL --against old.c checks it"),
        ("predict nowhere/seven.png mnist-dense", "no such file: nowhere/seven.png"),
        ("predict mnist-dense empty", "empty is a folder without .bmp, .gif,"),
        ("card classes.net", "a card describes a .safetensors file"),
        ("card trains.safetensors", "gives spike trains, not classes, and has no card"),
        ("gallery values.net -o a.html", "gives values, not classes, and has no page"),
        ("data export trains.safetensors -o a.raw", "C source cannot express"),
        ("list --from none", "zoo publish makes one"),
        ("train mnist-dense -o run --data mnist-sample", "training.validation: must be below the number of training"),
        ("train mnist-dense -o run --set blocks.7.features=3", "no blocks.7"),
        ("train mnist-dense -o run --set epochs", "key=value"),
        (
            "train mnist-dense -o run --set training.augment=true",
            "training.augment: must be default, null, or a mapping of fields",
        ),
        ("train mnist-demo -o run --data mnist-sample --set training.validation=9 --resume", "nothing to resume"),
        (
            "check mnist-dense --set training.start=mnist-demo",
            "mnist-demo' must have the layers of mnist-dense: it is a",
        ),
        ("check mnist-dense --set training.start=mnist-conv", "must have the layers of mnist-dense: it has"),
        ("check mnist-dense --set training.teacher=mnist-demo", "must be a trained model"),
        ("check mnist-dense --set training.validation=60000", "training images (60,000), got 60,000: lower it"),
        ("eval mnist-dense --data mnist-sample --classes three,7", "must name the network's 10 classes, got 2 names"),
        ("convert mnist-dense.pt -o a.nir", "if you mean the model mnist-dense: zoo convert mnist-dense; zoo pull"),
        ("convert spec.yaml -o a.net", "if it is a spec, zoo build makes a model from it"),
        ("convert fc.safetensors -o a.net", "not a lava-dl checkpoint"),
        ("convert alone.pt -o a.net", "--time-steps"),
        ("convert classes.pt -o a.net --spec mnist-dense", "does not fit the spec of mnist-dense"),
        ("convert classes.pt -o a.net --threshold 0.5", "leave out --threshold"),
        ("convert norse.nir -o a.net", "Give --dt 1e-4 if snnTorch"),
        ("convert values.net -o a.nir", "NIR cannot express sigma-delta neurons"),
        ("convert nobody.safetensors -o a.xyz", "no writer for .xyz"),
        ("convert classes.safetensors -o ./-x.c", "must not begin with -, as a compiler takes it for an option"),
        ("convert classes.safetensors -o ok.c -o a,b.c", "a,b.c: the name of a C file must consist of letters"),
        ("convert classes.safetensors -o math.c -o a,b.c", "math.c: its header math.h could hide"),
        ("convert classes.safetensors -o a.c --c-prefix 9x", "the prefix of C names (--c-prefix) must be"),
    ],
)
def test_a_mistake_is_told_with_its_remedy_before_anything_is_written(run, files, monkeypatch, line, told) -> None:
    error = refusal(line, run, files, monkeypatch, code=1)
    assert error.startswith("Error: ")
    assert told in error


@pytest.mark.parametrize("data", ["mnits", "nowhere/a.npz", "a.npy"])
def test_data_of_a_spec_that_is_nowhere_is_a_mistake_in_its_line(run, here, spec_file, data) -> None:
    np.save(here / "a.npy", np.zeros(3))
    spec_file.write_text(spec_file.read_text().replace("mnist-sample", data))
    assert run("check", spec_file, code=1).stderr.startswith(f"Error: {spec_file}:9: training.data: ")
    run("build", spec_file, "-o", "a.safetensors")


def test_data_beside_a_spec_are_found_from_any_folder(run, tmp_path, spec_file, monkeypatch) -> None:
    split = load_dataset("mnist-sample").train
    np.savez(tmp_path / "mine.npz", x=split.images.numpy(), y=split.labels.numpy())
    spec_file.write_text(spec_file.read_text().replace("mnist-sample", "mine.npz"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run("check", "../tiny.yaml")
    run("train", "../tiny.yaml", "-o", "run", "--epochs", 1, "-q")
    assert load_spec("run/spec.yaml").training.data == str(tmp_path / "mine.npz")


def test_a_migrated_state_dict_converts_as_the_checkpoint_does(run, here) -> None:
    (here / "network.pt").write_bytes(packaged_path("examples", "network.pt").read_bytes())
    run("migrate", "network.pt", "--to", "plain", "-o", "plain.safetensors")
    for name in ("network.pt", "plain.safetensors"):
        run("convert", name, "-o", f"{name}.net", "--threshold", 1.25, "--time-steps", 16)
    run("verify", "network.pt.net", "--against", "plain.safetensors.net")


def test_text_of_any_suffix_is_read_as_a_spec(run, here, spec_file) -> None:
    (here / "spec.txt").write_text(spec_file.read_text() + "\n# Grösse: 16\n")
    assert run("check", "spec.txt").stdout == run("check", spec_file).stdout
    assert "fresh weights" in run("eval", "spec.txt", "--limit", 5).stderr
    (here / "words.txt").write_text("hello")
    for command in ("show words.txt", "verify words.txt", "train words.txt -o run"):
        error = run(*command.split(), code=1).stderr
        assert "a network spec must be a mapping" in error
        assert "words.txt is a text file: expected a spec in YAML, or a model, by name or file (.safetensors, " in error


def test_a_folder_stands_for_the_images_in_it(run, here) -> None:
    (here / "pictures").mkdir()
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
        "converters.cli.conversion.read_model", lambda *_: pytest.fail("read before the place was tried")
    )
    error = run("convert", "mnist-dense", "-o", "/proc/a/b.net", code=1).stderr
    assert error.startswith("Error: cannot write /proc/a/b.net: ")


def test_ctrl_c_ends_any_command_with_its_own_code(run, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.cli.conversion.read_model", interrupt)
    assert run("convert", "mnist-dense", "-o", "a.net", code=130).stderr == "Stopped\n"


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


def test_another_distribution_of_our_names_is_told(monkeypatch, capsys) -> None:
    monkeypatch.setattr("specs.__file__", "/elsewhere/specs/__init__.py")
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "the package 'specs' belongs to another distribution (/elsewhere/specs/__init__.py)" in told


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
