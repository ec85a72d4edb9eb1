from converters import read_model
from converters.netx.load import load_netx


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
    assert run("predict", "mnist-dense", tmp_path / "demo/seven.png").stdout.split()[-3] == "7"
    rows = [line.split() for line in result.stdout.splitlines() if line.endswith("%")]
    accuracies = {" ".join(row[:-2]): float(row[-2]) for row in rows}
    assert accuracies["mnist-dense T=16, integers"] > 98
    assert accuracies["mnist-relu.onnx T=8, integers"] > accuracies["mnist-relu.onnx as the ANN it is"] - 1
    assert load_netx(tmp_path / "demo/mnist-relu.net").time_steps == 8
    assert read_model(tmp_path / "demo/mnist-dense.safetensors").spec.name == "mnist-dense"
    assert "--force" in run("demo", "-o", tmp_path / "demo", code=1).stderr
