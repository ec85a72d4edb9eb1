import gzip
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bootstrap_core import build_network, load_dataset
from bootstrap_core.ops.library import describe
from converters import Model, read_model, write_model
from converters.cli.console import NO_LIBRARY
from specs.dataset_sources import sources
from specs.io import spec_from_document


def test_help_imports_neither_torch_nor_h5py() -> None:
    code = "import sys, zoo.cli; sys.exit(bool({'torch', 'h5py', 'pyfive', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_has_help_with_an_example(run) -> None:
    from zoo.cli.program import zoo

    for name, command in zoo.commands.items():
        for line in [[name], *([name, sub] for sub in getattr(command, "commands", {}))]:
            text = run(*line, "-h").output
            assert (hasattr(command, "commands") and len(line) == 1) or "Example:" in text, line


def test_check_prints_the_layer_table(run, spec_file) -> None:
    lines = run("check", spec_file).stdout.splitlines()
    assert lines[2].split() == ["1", "dense", "16", "12,560", "12,544", "12,544"]
    assert lines[-1].split() == ["total", "12,732", "12,704", "12,704"]


RESIDUAL = """name: residual
time_steps: 4
neuron: {threshold: 0.5}
input: {shape: [1, 28, 28]}
blocks:
  - {kind: conv, channels: 2, kernel: 3, stride: 2, padding: 1}
  - {kind: conv, channels: 2, kernel: 3, padding: 1, skips: [{source: 1, kind: identity}]}
  - {kind: flatten}
  - {kind: affine, features: 10, skips: [{source: 1, kind: dense}]}
training: {data: mnist-sample, epochs: 1, validation: 100, sample_iterations: 2}
"""


def test_a_network_with_skips_from_spec_to_score(run, tmp_path) -> None:
    (tmp_path / "residual.yaml").write_text(RESIDUAL)
    assert "2 conv + 1 " in run("check", tmp_path / "residual.yaml").stdout
    run("build", tmp_path / "residual.yaml", "-o", tmp_path / "a.safetensors")
    names = {name for name in read_model(tmp_path / "a.safetensors").tensors if "skips" in name}
    assert names == {"blocks.2.skips.0.weight", "blocks.4.skips.0.weight"}
    scores = []
    for engine in ("torch", "integer"):
        options = "--data", "mnist-sample", "--engine", engine, "--limit", 40, "--json"
        score = json.loads(run("eval", tmp_path / "a.safetensors", *options).stdout)["results"][0]
        scores.append({name: score[name] for name in ("loss", "rates", "synops")})
    assert scores[0]["loss"] == scores[1]["loss"]
    assert scores[0]["rates"][1:3] == pytest.approx(scores[1]["rates"][1:3])
    assert scores[0]["synops"] == pytest.approx(scores[1]["synops"])
    assert 0 < scores[0]["rates"][2] < 1
    run("convert", tmp_path / "a.safetensors", "-o", tmp_path / "a.nir")
    verified = run("verify", tmp_path / "a.safetensors").stdout
    assert "the spikes of a.nir       ok" in verified
    assert "FAILED" not in verified
    run("build", tmp_path / "residual.yaml", "-o", tmp_path / "b.safetensors", "--seed", 1)
    run("convert", tmp_path / "b.safetensors", "-o", tmp_path / "a.nir", "--force")
    assert "the spikes of a.nir       FAILED" in run("verify", tmp_path / "a.safetensors", code=1).stdout
    (tmp_path / "a.nir").write_bytes((tmp_path / "a.nir").read_bytes()[:2000])
    assert "a.nir/node: damaged" in run("verify", tmp_path / "a.safetensors", code=1).stdout
    error = run("convert", tmp_path / "a.safetensors", "-o", tmp_path / "a.net", code=1).stderr
    assert "blocks 2, 4: skips (a .net is a chain of layers)" in error


def test_check_names_line_field_and_value(run, tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\ntime_steps: 0\ninput: {shape: [4]}\n"
                                       "blocks: [{kind: affine, features: 2}]\n")  # fmt: skip
    error = run("check", tmp_path / "bad.yaml", code=1).stderr
    assert error.startswith("Error: ")
    assert "bad.yaml:2: time_steps" in error
    assert "got 0" in error


def test_a_dataset_is_pulled_once_and_found(run, web, monkeypatch) -> None:
    mnist = sources()["mnist"]
    contents = {file: file.encode() for file in mnist.forms[0].sha256}
    for file, data in contents.items():
        (web.folder / f"{file}.gz").write_bytes(gzip.compress(data))
    sha256 = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    monkeypatch.setitem(
        sources(), "mnist", replace(mnist, forms=(replace(mnist.forms[0], mirrors=(web.url,), sha256=sha256),))
    )
    folder = json.loads(run("data", "pull", "mnist", "--json").stdout)["path"]
    assert run("data", "pull", "mnist").stdout == f"{folder}\n"
    assert json.loads(run("data", "list", "--json").stdout)["mnist"] == folder
    assert web.paths() == [f"/{file}.gz" for file in contents]


def test_schema_is_json_schema(run) -> None:
    schema = json.loads(run("schema").stdout)
    assert "time_steps" in schema["properties"]


def test_build_writes_fresh_weights_that_repeat(run, spec_file, tmp_path) -> None:
    run("build", spec_file, "-o", tmp_path / "a.safetensors", "--seed", 5)
    written = json.loads(run("build", spec_file, "-o", tmp_path / "b.safetensors", "--seed", 5, "--json").stdout)
    digest = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert written == {"path": str(tmp_path / "b.safetensors"), "format": "safetensors", "sha256": digest}
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert "exists" in run("build", spec_file, "-o", tmp_path / "a.safetensors", code=1).stderr


def test_eval_scores_both_engines_alike(run, trained) -> None:
    results = {
        engine: json.loads(
            run("eval", trained / "model.safetensors", "--engine", engine, "--time-steps", "2,4,2", "--json").stdout
        )
        for engine in ("torch", "integer")
    }
    drop = {"images_per_second", "overflows"}
    torch_rows, integer_rows = (
        [{key: value for key, value in row.items() if key not in drop} for row in result["results"]]
        for result in results.values()
    )
    assert torch_rows == integer_rows
    assert [row["time_steps"] for row in torch_rows] == [2, 4]
    assert results["torch"]["sample"] is True


def test_predict_classifies_files_and_animates(run, trained, tmp_path) -> None:
    digits = load_dataset("mnist-sample").test
    model = read_model(trained / "model.safetensors").build()
    expected = model(digits.images[:3]).argmax(1).tolist()
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(digits.images[i, 0].numpy()).save(paths[-1])
    result = run("predict", trained / "model.safetensors", *paths, "--animate", tmp_path / "a.gif", "--json")
    assert [p["class"] for p in json.loads(result.stdout)["predictions"]] == expected
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4
    (tmp_path / "a.gif").write_bytes(b"mine")
    again = run("predict", trained / "model.safetensors", *paths, "--animate", tmp_path / "a.gif", code=1)
    assert "a.gif exists" in again.stderr
    assert (tmp_path / "a.gif").read_bytes() == b"mine"


def test_predict_inverts_dark_digits(run, trained, tmp_path) -> None:
    image = load_dataset("mnist-sample").test.images[0, 0].numpy()
    Image.fromarray(image).save(tmp_path / "light.png")
    Image.fromarray(np.uint8(255) - image).save(tmp_path / "dark.png")
    light = json.loads(run("predict", trained / "model.safetensors", tmp_path / "light.png", "--json").stdout)
    dark = json.loads(run("predict", trained / "model.safetensors", tmp_path / "dark.png", "--invert", "--json").stdout)
    assert dark["predictions"][0]["scores"] == pytest.approx(light["predictions"][0]["scores"])


def test_predict_goes_on_to_the_next_image(run, trained, tmp_path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path in paths[1:4:2]:
        Image.fromarray(load_dataset("mnist-sample").test.images[0, 0].numpy()).save(path)
    paths[0].write_bytes(b"no image")
    paths[4].mkdir()
    for options in ([], ["--json"]):
        result = run("predict", trained / "model.safetensors", *paths, *options, code=1)
        assert [str(path) in result.stdout for path in paths] == [False, True, False, True, False]
        told = result.stderr.partition("Error: ")[2]
        assert [str(path) in told for path in paths] == [True, False, True, False, True]


def test_any_command_is_quiet_or_tells_what_it_ran_on(run, trained) -> None:
    command = "eval", trained / "model.safetensors", "--limit", 20
    assert run(*command, "-q").stderr == ""
    noted, told = run(*command).stderr, run(*command, "--verbose").stderr
    assert noted.startswith("note: scored on the embedded sample")
    assert told.startswith(f"{noted}Python")
    assert f"operators: {describe()}" in told
    assert told.endswith(" s\n")


def test_what_computes_tells_that_the_native_library_is_missing(run, trained, tmp_path, monkeypatch) -> None:
    model = trained / "model.safetensors"
    evaluate = ["eval", model, "--limit", 20]
    assert NO_LIBRARY not in run(*evaluate).stderr
    monkeypatch.setattr("bootstrap_core.ops.library.is_installed", lambda: False)
    for command in (evaluate, ["train", trained / "spec.yaml", "-o", tmp_path / "run", "--epochs", 1]):
        assert run(*command).stderr.splitlines().count(NO_LIBRARY) == 1
    assert NO_LIBRARY not in run(*evaluate, "-q").stderr
    assert NO_LIBRARY not in run("convert", model, "-o", tmp_path / "model.net").stderr  # this command computes nothing


def test_what_failed_tells_what_it_ran_on_and_of_several_processes_the_first(run, monkeypatch) -> None:
    assert "Python" in run("verify", "/none", "-v", code=1).stderr
    monkeypatch.setenv("RANK", "1")
    assert "Python" not in run("verify", "/none", "-v", code=1).stderr


def test_warnings_stay_where_it_is_quiet(run, tmp_path) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "blank.png")
    told = run("predict", "mnist-dense", tmp_path / "blank.png", "-q").stderr
    assert told.startswith("warning: ")
    assert told.count("\n") == 1


def test_scores_come_before_a_plot_that_cannot_be_drawn(run, trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = run("eval", trained / "model.safetensors", "--limit", 20, "--plot", tmp_path / "a.png", code=1)
    assert "accuracy" in done.stdout
    assert "matplotlib" in done.stderr


def test_eval_asks_for_the_data_that_a_model_does_not_tell(run, tmp_path) -> None:
    run("convert", "mnist-dense-shallow", "-o", tmp_path / "a.net")
    untold = read_model(tmp_path / "a.net")
    write_model(replace(untold, spec=untold.spec.model_copy(update={"training": None})), tmp_path / "b.safetensors")
    assert "--data" in run("eval", tmp_path / "b.safetensors", code=1).stderr
    run("eval", tmp_path / "b.safetensors", "--data", "mnist-sample", "--limit", 10)


def test_eval_runs_no_more_steps_than_are_asked_for(run, tmp_path) -> None:
    """A voltage without decay stays within 24 bits for one step, but not for the network's 16 steps."""
    layers = [{"kind": "dense", "features": 4}, {"kind": "affine", "features": 10}]
    spec = {"name": "low", "time_steps": 16, "neuron": {"threshold": 1.0, "voltage_decay": 0.0}, "blocks": layers}
    network = build_network(spec_from_document({**spec, "input": {"shape": [784], "encoding": "graded", "bits": 7}}))
    with torch.no_grad():
        network.blocks[1].synapse.weight.fill_(-1 / 32)
    write_model(Model.of(network), tmp_path / "low.safetensors")
    command = "eval", tmp_path / "low.safetensors", "--data", "mnist-sample", "--engine", "integer", "--limit", 20
    run(*command, "--time-steps", 1)
    result = run(*command, "--time-steps", "1,16", code=1)
    assert "T = 16: " in result.stderr
    assert "24 bits" in result.stderr
    assert "SNN, T=1, integer" in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_in_a_line() -> None:
    code = "from zoo.cli import main; import sys; sys.argv[1:] = ['check', 'mnist-dense']; main()"
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: cannot write")
    assert "Traceback" not in result.stderr


def test_predict_runs_for_other_numbers_of_steps(tmp_path, run) -> None:
    Image.fromarray(load_dataset("mnist-sample").test.images[0, 0].numpy()).save(tmp_path / "a.png")

    def scores(*options: object) -> list[float]:
        found = run("predict", "mnist-dense", tmp_path / "a.png", "--json", *options)
        return json.loads(found.stdout)["predictions"][0]["scores"]

    assert scores() == scores("--time-steps", 16) != scores("--time-steps", 2)


def test_neurobench_is_named_if_it_is_missing(run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "neurobench.benchmarks", None)
    told = run("eval", "nobody", "--neurobench", code=1).stderr
    assert "pip install 'snnzoo[neurobench]'" in told


def test_eval_prints_the_figures_of_neurobench_beside_ours(run) -> None:
    pytest.importorskip("neurobench")
    command = "eval", "mnist-dense", "--data", "mnist-sample", "--limit", 20, "--engine", "integer", "--neurobench"
    document = json.loads(run(*command, "--json").stdout)
    figures = {one["name"]: one for one in document["neurobench"]["figures"]}
    assert figures["effective ACs"]["theirs"] == figures["effective ACs"]["ours"] > 0
    done = run(*command)
    assert any(line.split()[:2] == ["effective", "ACs"] for line in done.stdout.splitlines())
    assert figures["footprint, bytes"]["note"] in " ".join(done.stderr.split())
