"""`convert`, `show` and `verify` on files of every format."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from c_programs import compile_c, needs_compiler
from c_programs import run as run_program
from onnx import TensorProto, helper, numpy_helper

from bootstrap_core.data.datasets import load_dataset
from converters.formats.model_files import read_model
from specs.layers.block import has_neurons
from specs.layers.neuron import Reset
from zoo.runs.card_files import packaged_card
from zoo.runs.golden import golden_images

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of a folder that lava-dl wrote: network.pt and network.net."""
    for name in ("network.pt", "network.net"):
        shutil.copy(GOLDEN / "dense" / name, tmp_path / name)
    return tmp_path


def change_readout(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["layer/3/weight"][...] += 2


def test_a_checkpoint_becomes_a_model_and_a_net_in_one_go(folder, run) -> None:
    outputs = [folder / "x.safetensors", folder / "x.net"]
    result = run("convert", folder / "network.pt", "-o", outputs[0], "-o", outputs[1], "--mean", 0.5, "--json")
    document = json.loads(result.stdout)
    assert [entry["format"] for entry in document["outputs"]] == ["safetensors", "net"]
    assert any("network.net beside it" in note for note in document["notes"])
    assert any("truncates the input's currents to 1/64" in note for note in document["notes"])
    alone = json.loads(run("convert", outputs[0], "-o", folder / "y.safetensors", "--json").stdout)
    exact = json.loads(run("convert", "mnist-dense-shallow", "-o", folder / "z.net", "--json").stdout)
    assert (alone["notes"], exact["notes"]) == ([], [])
    assert run("show", folder / "network.net", "--diff", outputs[1]).stdout == "all layers are the same\n"
    for told in (run("show", outputs[1]).stdout, run("verify", outputs[1]).stdout, " ".join(document["notes"])):
        assert "run each image from rest for 16 steps" in " ".join(told.split())


@needs_compiler
def test_a_model_becomes_c_source_with_the_golden_images_of_its_card(tmp_path, run) -> None:
    source, header = tmp_path / "digits.c", tmp_path / "digits.h"
    told = run("convert", "mnist-dense-shallow", "-o", source, "--c-prefix", "digits", "--json").stdout
    assert [entry["path"] for entry in json.loads(told)["outputs"]] == [str(source), str(header)]
    program = compile_c(source, "-DDIGITS_SELFTEST")
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"ok\n"
    first = golden_images(packaged_card("mnist-dense-shallow").golden)[0]
    numbers = source.read_text().split("pictures[4][DIGITS_INPUTS] = {\n{")[1].split("}")[0]
    assert list(map(int, numbers.split(","))) == first.flatten().tolist()
    source.unlink()
    assert f"{header} exists" in run("convert", "mnist-dense-shallow", "-o", source, code=1).stderr
    assert (
        "--c-prefix" in run("convert", "mnist-dense-shallow", "-o", source, "--c-prefix", "7", "--force", code=1).stderr
    )


@needs_compiler
def test_verify_checks_the_c_source_beside_a_model(tmp_path, run) -> None:
    model, source = tmp_path / "m.safetensors", tmp_path / "m.c"
    run("pull", "mnist-dense-shallow", "-o", tmp_path)
    (tmp_path / "mnist-dense-shallow.safetensors").rename(model)
    assert "cc -O2 -DDIGITS_SELFTEST" in run("convert", model, "-o", source, "--c-prefix", "digits").stderr

    def found(code: int = 0) -> dict[str, bool]:
        done = run("verify", model, "--json", code=code)
        return {check["name"]: check["passed"] for check in json.loads(done.stdout)["checks"] if ".c" in check["name"]}

    assert found() == {"the integers of m.c": True, "the self-test of m.c": True}
    ran = tmp_path / "ran"
    source.write_text(source.read_text().replace("int main(void)\n{", f'int main(void)\n{{ fopen("{ran}", "w");'))
    assert found(1) == {"the integers of m.c": False}  # what a stranger wrote is not run
    assert not ran.exists()
    assert "the code is not what this version of snnzoo writes" in " ".join(run("verify", model, code=1).stdout.split())
    source.write_text("int main(void) { return 1; }")
    assert "not C source of snnzoo" in " ".join(run("verify", model).stdout.split())
    run("verify", model, "--against", source, code=1)
    run("convert", model, "-o", source, "--force")
    source.with_suffix(".h").unlink()
    assert "m.c needs its header m.h, which is missing" in " ".join(run("verify", model, code=1).stdout.split())


@needs_compiler
def test_test_images_are_exported_and_scored_in_c(tmp_path, run) -> None:
    source, raw = tmp_path / "digits.c", tmp_path / "images.raw"
    run("convert", "mnist-dense-shallow", "-o", source)
    options = "mnist-dense-shallow", "--data", "mnist-sample", "--limit", 50
    found = json.loads(run("data", "export", *options, "-o", raw, "--json").stdout)
    assert (found["inputs"], found["bytes"], found["time_steps"]) == (50, 50 * 784, None)
    lines = run_program(compile_c(source, "-DSNN_STDIN"), raw.read_bytes()).stdout.splitlines()
    labels = Path(found["labels"]).read_text().split()
    right = sum(line.split()[0].decode() == label for line, label in zip(lines, labels, strict=True))
    scored = json.loads(run("eval", *options, "--engine", "integer", "--json").stdout)["results"][0]
    assert right / 50 == scored["accuracy"]
    assert f"{raw} exists" in run("data", "export", *options, "-o", raw, code=1).stderr
    raw.unlink()
    assert "images.labels exists" in " ".join(run("data", "export", *options, "-o", raw, code=1).stderr.split())


def test_images_without_labels_are_exported_without_them(tmp_path, run) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((10, 28, 28), np.uint8))
    (tmp_path / "a.labels").write_text("0\n")
    options = "mnist-dense-shallow", "--data", tmp_path / "a.npz", "-o", tmp_path / "a.raw", "--force"
    assert run("data", "export", *options).stdout == f"{tmp_path / 'a.raw'}: 2 images, 784 bytes each\n"
    assert not (tmp_path / "a.labels").exists()


def test_show_prints_the_integers_of_a_netx_file(folder, run) -> None:
    table = run("show", folder / "network.net").stdout
    assert "80 = 1.25" in table
    assert "123 = 0.03003" in table
    facts = json.loads(run("show", folder / "network.net", "--json").stdout)
    assert facts["time_steps"] == 16
    assert facts["layers"][1]["weight"]["shape"] == [32, 49]
    assert facts["layers"][1]["neuron"]["vDecay"] == [123]


def test_a_stale_readout_is_visible_at_once(folder, run) -> None:
    """lava-dl exports its readout with the weights from before load_state_dict."""
    stale = folder / "stale.net"
    shutil.copy(folder / "network.net", stale)
    change_readout(stale)
    assert (
        "3 dense  weight  240 of 240 differ (100.0 %), by up to 2"
        in run("show", folder / "network.net", "--diff", stale).stdout
    )
    differences = json.loads(run("show", folder / "network.net", "--diff", stale, "--json").stdout)
    assert differences["same"] is False
    assert differences["differences"][0]["layer"] == 3


def test_verify_compares_a_net_with_the_checkpoint_beside_it(folder, run) -> None:
    assert "integers of network.pt" in run("verify", folder / "network.net").stdout
    change_readout(folder / "network.net")
    for name in ("network.net", "network.pt"):
        failed = run("verify", folder / name, code=1).stdout
        assert "FAILED" in failed
        assert "layer 3 weight: 240 of 240 differ" in failed
    checks = json.loads(run("verify", folder / "network.pt", "--json", code=1).stdout)
    assert (checks["passed"], [check["passed"] for check in checks["checks"]]) == (False, [True, True, False])


def test_verify_against_a_file_of_another_name(folder, run) -> None:
    (folder / "network.pt").rename(folder / "old.pt")
    run("verify", folder / "network.net", "--against", GOLDEN / "dense" / "network.pt")
    run("verify", folder / "network.net", "--against", GOLDEN / "conv" / "network.pt", code=1)
    missing = run("verify", folder / "network.net", "--against", folder / "networt.net", code=1).stderr
    assert "no such file" in missing
    assert "did you mean" in missing


def test_verify_compares_files_of_the_very_name(folder, run) -> None:
    for name in ("network.v2.net", "m1.net"):
        shutil.copy(GOLDEN / "conv" / "network.net", folder / name)
    for name in ("m[1].net", "m[1].pt"):
        shutil.copy(folder / f"network{Path(name).suffix}", folder / name)
    assert "v2" not in run("verify", folder / "network.net").stdout
    told = run("verify", folder / "m[1].net").stdout
    assert "integers of m[1].pt" in told
    assert "m1.net" not in told


@pytest.mark.parametrize("text", ["{", "[" * 3000])
def test_show_json_of_a_spec_that_is_no_json_is_told(folder, run, text) -> None:
    with h5py.File(folder / "network.net", "r+") as file:
        file.attrs["snnzoo_spec"] = text
    assert "network.net: the spec in it is not JSON" in run("show", folder / "network.net", "--json", code=1).stderr


def test_a_neighbour_that_says_too_little_is_judged_by_the_models_spec(folder, run) -> None:
    (folder / "network.net").unlink()
    run("convert", folder / "network.pt", "-o", folder / "network.safetensors", "--time-steps", 9, "--threshold", 1.25)
    assert "the same" in run("verify", folder / "network.safetensors").stdout
    shutil.copy(GOLDEN / "nir" / "snntorch_dense.nir", folder / "graph.nir")
    run("convert", folder / "graph.nir", "-o", folder / "graph.safetensors", "--dt", 1e-4)
    told = run("verify", folder / "graph.safetensors").stdout
    assert [line.split()[4] for line in told.splitlines() if "not compared" in line] == ["skipped"]


@pytest.fixture
def ann(tmp_path) -> Path:
    """An ANN that reads ten pixels."""
    path = tmp_path / "net.onnx"
    weight = np.zeros((10, 784), np.float32)
    weight[np.arange(10), np.arange(10) * 40 + 300] = 1.0
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_ann_in_onnx_becomes_a_spiking_network(ann, tmp_path, run) -> None:
    path = ann
    out = tmp_path / "net.safetensors"
    found = json.loads(
        run("convert", path, "--data", "mnist-sample", "--epochs", 0, "--input", "spike", "-o", out, "--json").stdout
    )
    assert found["accuracy"]["ann"] == pytest.approx(found["accuracy"]["converted"]["16"], abs=0.1)
    assert found["outputs"][0]["path"] == str(out)
    assert "affine" in run("show", out).stdout
    assert "no data: calibrated on noise" in run("convert", path, "-o", tmp_path / "b.net").stderr


def test_images_for_validation_judge_and_are_in_the_command_of_the_card(ann, tmp_path, run) -> None:
    images = load_dataset("mnist-sample").test
    np.savez(tmp_path / "own.npz", x=images.images[:50].numpy(), y=images.labels[:50].numpy())
    given = ("--validation", tmp_path / "own.npz")
    assert "--validation judges what is made with --data" in run("convert", ann, *given, code=2).stderr
    options = "--data", "mnist-sample", "--epochs", 0, "--input", "spike", "--time-steps", 2
    same = run("convert", ann, *options, "--validation", "mnist-sample", code=1).stderr
    assert "must have other images than --data" in same
    found = run("convert", ann, *options, *given, "-o", tmp_path / "net.safetensors")
    assert f"judged by 50 images of {tmp_path / 'own.npz'}" in found.stdout
    told = run("card", tmp_path / "net.safetensors").stdout.replace("\n   ", "")
    assert f"--validation={tmp_path / 'own.npz'}" in told


@pytest.mark.parametrize(
    ("reset", "outputs"), [("zero", [".net"]), ("subtract", []), ("subtract", [".nir"]), (None, [".net", ".nir"])]
)
def test_neurons_of_an_ann_reset_as_told_and_as_the_files_can_hold(ann, tmp_path, run, reset, outputs) -> None:
    options = [] if reset is None else ["--reset", reset]
    names = [part for suffix in (".safetensors", *outputs) for part in ("-o", tmp_path / f"net{suffix}")]
    found = run("convert", ann, "--data", "mnist-sample", "--epochs", 0, "--input", "spike", *options, *names, "--json")
    assert json.loads(found.stdout)["reset"] == (reset or "zero")
    assert ("start: 0.5" in found.stderr) == (outputs == [])
    assert f"--reset={reset or 'zero'} " in run("card", tmp_path / "net.safetensors").stdout.replace("\n   ", "")


def test_a_format_refuses_a_residual_network_before_it_is_tuned(tmp_path, run, monkeypatch) -> None:
    nodes = [
        ("Conv", ["x", "w"], ["c"]), ("Relu", ["c"], ["r"]), ("Conv", ["r", "v"], ["d"]), ("Add", ["d", "r"], ["s"]),
        ("Relu", ["s"], ["t"]), ("Flatten", ["t"], ["f"]), ("Gemm", ["f", "u"], ["y"]),
    ]  # fmt: skip
    weights = {"w": np.full((2, 1, 4, 4), 0.1), "v": np.full((2, 2, 1, 1), 0.2), "u": np.eye(98, 10)}
    graph = helper.make_graph(
        [
            helper.make_node(op, reads, gives, **({"strides": [4, 4]} if reads[1:] == ["w"] else {}))
            for op, reads, gives in nodes
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 10])],
        [numpy_helper.from_array(weight.astype(np.float32), name) for name, weight in weights.items()],
    )
    path = tmp_path / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    monkeypatch.setattr(
        "converters.ann_to_snn.onnx_conversion.best_candidate", lambda *args, **options: pytest.fail("calibrates")
    )
    command = ["convert", path, "--data", "mnist-sample", "--input", "spike", "-o", tmp_path / "a.safetensors"]
    refused = run(*command, "-o", tmp_path / "a.net", code=1).stderr
    assert "sum.onnx has branches that are added, and netx cannot express them" in refused
    assert not (tmp_path / "a.safetensors").exists()


def test_a_conversion_may_be_looked_at_alone(ann, folder, run, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    found = run("convert", ann, "--time-steps", 4, "--json")
    assert (json.loads(found.stdout)["outputs"], json.loads(found.stdout)["time_steps"]) == ([], 4)
    assert found.stderr.startswith("note: nothing will be written: name a file with -o")
    assert "nothing will be written: name a file with -o" in run("convert", folder / "network.pt").stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("reset", list(Reset))
def test_what_a_bare_nir_graph_does_not_say_is_what_it_is_told(golden_nir, tmp_path, run, reset) -> None:
    out = tmp_path / "a.safetensors"
    said = run("convert", golden_nir, "--dt", "1e-6", "-o", out).stderr
    assert "assumed, not in the file: reset zero (--reset), T = 16 (--time-steps)" in said
    command = "convert", golden_nir, "--dt", "1e-6", "--reset", reset, "--input-bits", 4, "--time-steps", 7, "-o", out
    assert "not in the file" not in run(*command, "--force").stderr
    spec = read_model(out).spec
    assert {spec.neuron_of(layer).reset for layer in spec.layers if has_neurons(layer)} == {reset}
    assert (spec.input.bits, spec.time_steps) == (4, 7)


def test_a_conversion_is_scored_on_some_test_images_and_says_so(ann, tmp_path, run) -> None:
    out = tmp_path / "x.safetensors"
    command = "convert", ann, "--data", "mnist-sample", "--epochs", 0, "--limit", 200, "-o", out
    found = json.loads(run(*command, "--json").stdout)
    note = "scored on 200 of the 1,000 test images, each class with its share"
    assert found["samples"] == 200
    assert note in found["notes"]
    done = run(*command, "--force")
    assert "accuracy on 200 test images" in done.stdout
    assert note in done.stderr
    scored = run("eval", out, "--data", "mnist-sample", "--engine", "integer", "--limit", 200, "--json").stdout
    assert json.loads(scored)["results"][0]["accuracy"] == found["accuracy"]["converted"]["16"]


def test_a_conversion_is_reported_as_a_page(ann, tmp_path, run) -> None:
    out, page = tmp_path / "x.net", tmp_path / "pages" / "x.html"
    command = ["convert", ann, "--data", "mnist-sample", "--epochs", 0, "-o", out, "--report", page]
    found = json.loads(run(*command, "--json").stdout)
    assert [(entry["path"], entry["format"]) for entry in found["outputs"]] == [(str(out), "net"), (str(page), "html")]
    assert found["outputs"][1]["sha256"] == hashlib.sha256(page.read_bytes()).hexdigest()
    assert found.keys() >= {"nodes", "import_max_abs_error", "samples", "seconds"}
    assert found["layers"][0].keys() >= {"block", "rate", "saturated", "synops", "correlation", "dead"}
    html = page.read_text("utf-8")
    assert found["outputs"][0]["sha256"] in html
    assert f"zoo convert {ann} --data mnist-sample --epochs 0 -o {out} --report {page} --json" in html
    assert f"{100 * found['accuracy']['converted']['8']:.2f}" in html

    out.unlink()
    refused = run(*command, code=1).stderr
    assert f"{page} exists" in refused
    assert not out.exists()
    out.write_bytes(b"mine")
    assert f"{out} exists" in run(*command[:-2], code=1).stderr
    assert out.read_bytes() == b"mine"
    assert run(*command, "--force").stdout.splitlines()[-2:] == [str(out), str(page)]


def test_of_several_outputs_none_is_written_if_one_cannot_be(run, tmp_path) -> None:
    files = [tmp_path / f"m.{suffix}" for suffix in ("safetensors", "c", "net", "nir")]
    outputs = [part for file in files for part in ("-o", file)]
    spec = tmp_path / "m.yaml"
    spec.write_text(
        "name: m\ntime_steps: 4\nneuron: {reset: subtract}\ninput: {shape: [4], encoding: events}\n"
        "blocks: [{kind: dense, features: 3, delays: {per: synapse}}, {kind: affine, features: 2}]\n"
    )
    run("build", spec, "-o", tmp_path / "a.safetensors")
    told = run("convert", tmp_path / "a.safetensors", *outputs, code=1).stderr
    assert f"{files[2]}: netx cannot express" in told
    assert f"{files[3]}: NIR cannot express" in told
    assert {path.name for path in tmp_path.iterdir()} == {"m.yaml", "a.safetensors"}
