"""Every format except safetensors refuses a kind of block that it does not know."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest

from bootstrap_core import build_network
from bootstrap_core.network.blocks import BUILDERS
from converters import write_model
from converters.chip.form import form_problems
from converters.chip.from_network import form_of_network
from converters.formats.lava_checkpoint import read_checkpoint
from specs import DenseSpec, NetworkSpec, UnsupportedError, load_spec


class GateSpec(DenseSpec):
    kind: Literal["gate"] = "gate"  # type: ignore[assignment]


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> NetworkSpec:
    """Return a network whose blocks 1 and 2 are of a kind that no format knows."""
    monkeypatch.setitem(BUILDERS, GateSpec, BUILDERS[DenseSpec])
    spec = load_spec("mnist-dense")
    blocks = (GateSpec(features=512), GateSpec(features=512), spec.blocks[-1])
    return spec.model_copy(update={"blocks": blocks})


@pytest.mark.parametrize("suffix", [".net", ".nir", ".c"])
def test_a_kind_is_named_once_with_all_its_blocks(suffix: str, spec: NetworkSpec, tmp_path: Path) -> None:
    told = r"cannot express blocks 1, 2: kind gate \(only dense, conv, .*; replace the block, or write a .safetensors"
    with pytest.raises(UnsupportedError, match=told):
        write_model(build_network(spec, seed=0), tmp_path / f"net{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_lava_dl_refuses_it(spec: NetworkSpec) -> None:
    path = files("zoo.examples") / "network.pt"
    with pytest.raises(UnsupportedError, match="a lava-dl checkpoint cannot express blocks 1, 2: kind gate"):
        read_checkpoint(Path(str(path)), spec=spec)


@pytest.mark.parametrize("extra", [{"recurrent": True}, {"delays": {}}], ids=["recurrent", "delays"])
def test_an_extra_that_a_format_cannot_hold_is_refused_by_name(extra: dict[str, Any]) -> None:
    spec = load_spec("mnist-dense-shallow")
    block = spec.blocks[0].model_validate(spec.blocks[0].model_dump(mode="json") | extra)
    spec = spec.model_copy(update={"blocks": (block, *spec.blocks[1:])})
    form = form_of_network(build_network(spec, seed=0))
    (problem,) = form_problems(form, ["dense", "affine"])
    assert problem == f"block 1: {next(iter(extra))} (write a .safetensors, which holds every kind)"
    assert form_problems(form, ["dense", "affine"], ("recurrent", "delays")) == []
