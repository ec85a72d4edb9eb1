"""NIR: damaged and hostile files."""

import h5py
import numpy as np
import pytest
from nir_graphs import (
    CONV,
    DT,
    IMAGE,
    affine,
    chain,
    conv,
    network,
    neuron,
    node,
)

from converters import Model
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import IntegrityError, SnnZooError

NOT_FINITE = "holds values that are not finite"
WINDOW = "expected one or two numbers from {} to 4096"
DAMAGED = {
    "a missing field": ((affine(6, 8), node("IF", r=1.0)), r"1\.IF \(IF\): the field v_threshold is missing"),
    "no weights": ((node("Linear"), neuron()), r"2\.Linear \(Linear\): the field weight is missing"),
    "a text for weights": (
        (node("Linear", weight="none"), neuron()),
        r"2\.Linear \(Linear\): the field weight is missing",
    ),
    "parameters of another shape": (
        (affine(6, 8), neuron("IF", 5, v_threshold=[1, 2, 3, 4, 5])),
        r"1\.IF \(IF\): r of shape \[5\] does not fit a signal of shape \[6\]",
    ),
    "a bias of another shape": (
        (node("Affine", weight=np.ones((6, 8)), bias=np.ones(5)), neuron()),
        r"2\.Affine \(Affine\): a bias of shape \[5\] does not fit 6 channels",
    ),
    "weights beyond all range": (
        (node("Linear", weight=np.full((6, 8), 1e300)), neuron()),
        r"weights or biases are too large relative to the threshold of 1: .*4e-300",
    ),
    "a threshold beyond all range": (
        (affine(6, 8), neuron(v_threshold=1e300)),
        r"weights are too small relative to the threshold of 1e\+300",
    ),
}
DAMAGED_IMAGES = {
    "a pool of millions": (
        (node("SumPool2d", kernel_size=4096, stride=1, padding=4096), neuron()),
        "a window of 4096x4096 over 2 channels is too large",
    ),
    "a stride of 0": ((conv(3, 2, stride=0), neuron()), rf"stride is \[0\]; {WINDOW.format(1)}"),
    "half a stride": ((conv(3, 2, stride=0.5), neuron()), r"stride holds \[0\.5\], not whole numbers"),
    "three strides": ((conv(3, 2, stride=(1, 1, 1)), neuron()), rf"stride is \[1, 1, 1\]; {WINDOW.format(1)}"),
    "negative padding": ((conv(3, 2, padding=-1), neuron()), rf"padding is \[-1\]; {WINDOW.format(0)}"),
    "unknown padding": ((conv(3, 2, padding="reflect"), neuron()), "padding 'reflect'"),
    "huge padding": ((conv(3, 2, padding=10**9), neuron()), rf"padding is \[1000000000\]; {WINDOW.format(0)}"),
    "a kernel that does not fit": (
        (conv(3, 2, (9, 9)), neuron()),
        r"a kernel of \[9, 9\] does not fit into a signal of shape \[2, 8, 8\]",
    ),
    "other channels": ((conv(3, 3), neuron()), r"weights of shape \[3, 3, 3, 3\] in 1 groups do not fit 2 channels"),
    "groups that do not divide": (
        (conv(3, 2, groups=2), neuron()),
        r"weights of shape \[3, 1, 3, 3\] in 2 groups do not fit 2 channels",
    ),
    "no groups": (
        (node("Conv2d", weight=np.ones((3, 2, 3, 3)), bias=np.zeros(3), stride=1, padding=0, groups=0), neuron()),
        r"weights of shape \[3, 2, 3, 3\] in 0 groups",
    ),
}


@pytest.mark.parametrize("case", DAMAGED | DAMAGED_IMAGES)
def test_damaged_nodes_are_expected_failures(case, tmp_path) -> None:
    (nodes, reason), shape = (DAMAGED | DAMAGED_IMAGES)[case], IMAGE if case in DAMAGED_IMAGES else (8,)
    with pytest.raises(SnnZooError, match=rf"a\.nir.*{reason}"):
        read_nir(chain(*nodes, shape=shape, path=tmp_path / "a.nir"), dt=DT)


@pytest.mark.parametrize("shape", [(), (0,), (-3,), (2, 3), (1 << 40,), (4096, 4096, 4096), (1, 2, 3, 4, 5), (1.5,)])
def test_absurd_shapes_are_refused(shape, tmp_path) -> None:
    with pytest.raises(SnnZooError, match=r"a\.nir.*in \(Input\)"):
        read_nir(chain(affine(6, 8), neuron(), shape=shape, path=tmp_path / "a.nir"))


def edited(tmp_path, edit):
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replace(name, value):
    def edit(file):
        del file[name]
        if value is not None:
            file[name] = value

    return edit


HOSTILE = {
    "no node": (replace("node", None), "no group 'node'"),
    "a number for the node": (replace("node", 1), "no group 'node'"),
    "no type": (replace("node/type", None), "has no type"),
    "one node": (replace("node/type", "LIF"), "got a single LIF node|must be numbers or a text"),
    "no nodes": (replace("node/nodes", None), "has no nodes"),
    "no edges": (replace("node/edges", None), "has no nodes or no edges"),
    "metadata that are no JSON": (replace("node/metadata/snnzoo", "{"), "damaged metadata"),
    "metadata that are a number": (replace("node/metadata/snnzoo", 3), "damaged metadata"),
    "no tensors": (replace("node/metadata/snnzoo_tensors", None), "the metadata contain no tensors"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_told_in_one_message(case, tmp_path) -> None:
    edit, message = HOSTILE[case]
    with pytest.raises(IntegrityError, match=message):
        read_nir(edited(tmp_path, edit))


def test_files_that_are_no_hdf5_or_are_cut_short_are_told(tmp_path) -> None:
    with pytest.raises(SnnZooError, match=r"none\.nir"):
        read_nir(tmp_path / "none.nir")
    with pytest.raises(SnnZooError, match="cannot read"):
        read_nir(tmp_path)
    data = write_nir(Model.of(network(CONV)), tmp_path / "a.nir").read_bytes()
    for end in (0, 7, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "b.nir").write_bytes(data[:end])
        with pytest.raises(IntegrityError, match=r"b\.nir"):
            read_nir(tmp_path / "b.nir")
