from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from zoo.cli.program import zoo


@pytest.fixture
def run() -> Callable[..., click.testing.Result]:
    """Return a function that runs a `zoo` command line; a traceback fails the test."""

    def run(*arguments: object, code: int = 0) -> click.testing.Result:
        result = click.testing.CliRunner().invoke(zoo, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(autouse=True)
def no_width(monkeypatch) -> None:
    """Print tables as into a pipe: pytest-xdist sets a terminal width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def with_library(monkeypatch) -> None:
    """Print messages as with an installed native library."""
    monkeypatch.setattr("bootstrap_core.ops.library.is_installed", lambda: True)


@pytest.fixture
def golden_nir() -> Path:
    """A NIR graph from norse, which does not name its time step."""
    return Path(__file__).parents[1] / "golden/nir/norse_lif.nir"


TINY = """
name: tiny
time_steps: 4
neuron: {threshold: 1.0, voltage_decay: 0.03, tau_grad: 0.1}
input: {shape: [784], mean: 0.5, std: 0.5}
blocks:
  - {kind: dense, features: 16, weight_norm: true}
  - {kind: affine, features: 10, weight_norm: true}
training: {data: mnist-sample, epochs: 2, batch_size: 100, validation: 500, learning_rate: 0.01, sample_iterations: 3}
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained, tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    result = click.testing.CliRunner().invoke(
        zoo, ["train", str(folder / "tiny.yaml"), "-o", str(folder / "run"), "--json"]
    )
    assert result.exit_code == 0, result.output
    return folder / "run"
