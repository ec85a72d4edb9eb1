"""Every format except safetensors refuses a kind of block that it does not know."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest

from bootstrap_core import build_network
from converters.formats.lava_checkpoint import read_checkpoint
from converters.formats.netx.netx_model import netx_of
from converters.formats.nir.nir_writer import write_nir
from converters.formats.refusals import unknown_kinds
from converters.model import Model
from specs import AffineSpec, DenseSpec, NetworkSpec, UnsupportedError, load_spec


class GateSpec(DenseSpec):
    kind: Literal["gate"] = "gate"  # type: ignore[assignment]


KNOWN = "(only dense, conv, avg_pool, flatten, affine; replace the block, or write a .safetensors, which holds every"


@pytest.fixture
def spec() -> NetworkSpec:
    """Return a network whose blocks 1 and 2 are of a kind that no format knows."""
    spec = load_spec("mnist-dense")
    blocks = (GateSpec(features=512), GateSpec(features=512), spec.blocks[-1])
    return spec.model_copy(update={"blocks": blocks})


def test_a_kind_is_named_once_with_all_its_blocks(spec: NetworkSpec) -> None:
    (problem,) = unknown_kinds(spec, [DenseSpec, AffineSpec])
    assert problem.startswith("blocks 1, 2: kind gate (only dense, affine; replace the block")
    assert unknown_kinds(spec, [GateSpec, AffineSpec]) == []


def test_netx_refuses_it(spec: NetworkSpec) -> None:
    network = build_network(load_spec("mnist-dense"), seed=0)
    network.spec = spec
    with pytest.raises(UnsupportedError) as caught:
        netx_of(network)
    assert str(caught.value).startswith(
        f"netx cannot express blocks 1, 2: kind gate {KNOWN.replace('affine', 'affine, average')}"
    )


def test_nir_refuses_it(spec: NetworkSpec, tmp_path: Path) -> None:
    tensors = build_network(load_spec("mnist-dense"), seed=0).state_dict()
    with pytest.raises(UnsupportedError) as caught:
        write_nir(Model(spec, tensors), tmp_path / "net.nir")
    assert str(caught.value).startswith(f"NIR cannot express blocks 1, 2: kind gate {KNOWN}")
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
    (problem,) = unknown_kinds(spec, [DenseSpec, AffineSpec])
    assert problem == f"block 1: {next(iter(extra))} (write a .safetensors, which holds every kind)"
    assert unknown_kinds(spec, [DenseSpec, AffineSpec], ("recurrent", "delays")) == []
