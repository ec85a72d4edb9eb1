import json
from pathlib import Path

import pytest

import zoo.demo
from converters import read_model
from converters.formats.netx.netx_reader import load_netx

GOLDEN = Path(__file__).parents[1] / "golden/dense"


def test_the_demo_tells_its_story_without_data_or_network(run, tmp_path) -> None:
    result = run("demo", "-o", tmp_path / "demo")
    for name in (
        "mnist-dense.safetensors",
        "mnist-dense.net",
        "mnist-dense.html",
        "mnist-relu.net",
        "report.html",
        "mnist-relu.onnx",
    ):
        assert str(tmp_path / "demo" / name) in result.stdout.replace("\n", "")
        assert (tmp_path / "demo" / name).stat().st_size > 10_000
    assert run("predict", "mnist-dense", tmp_path / "demo/seven.png").stdout.splitlines()[1].split()[1] == "7"
    rows = [line.split() for line in result.stdout.splitlines() if line.endswith("%")]
    accuracies = {" ".join(row[:-2]): float(row[-2]) for row in rows}
    assert accuracies["mnist-dense T=16, integers"] > 98
    assert accuracies["mnist-relu.onnx T=8, integers"] > accuracies["mnist-relu.onnx ANN"] - 1
    assert load_netx(tmp_path / "demo/mnist-relu.net").time_steps == 8
    assert read_model(tmp_path / "demo/mnist-dense.safetensors").spec.name == "mnist-dense"
    for name in ("network.pt", "network.net"):
        assert (tmp_path / "demo" / name).read_bytes() == (GOLDEN / name).read_bytes()
    assert "--force" in run("demo", "-o", tmp_path / "demo", code=1).stderr
    found = json.loads(run("demo", "-o", tmp_path / "demo", "--force", "--json").stdout)
    assert f"{100 * found['mnist-dense']['accuracy']:.2f}" == f"{accuracies['mnist-dense T=16, integers']:.2f}"
    assert [Path(entry["path"]).name for entry in found["outputs"]] == list(zoo.demo.FILES)
    assert found["conversion"]["accuracy"]["tuned"].keys() == {"8", "4", "2"}


@pytest.mark.parametrize("name", zoo.demo.FILES)
def test_files_that_exist_are_not_overwritten_unasked(run, tmp_path, name) -> None:
    (tmp_path / name).write_text("mine")
    assert f"{name} exists" in run("demo", "-o", tmp_path, code=1).stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
