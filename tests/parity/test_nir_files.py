"""NIR files from snnTorch, sinabs and norse: both engines give every spike of their own simulations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bootstrap_core import IntegerNetwork
from converters.formats.nir.nir_reader import read_nir

GOLDEN = Path(__file__).parents[1] / "golden" / "nir"
CASES = sorted(path.stem for path in GOLDEN.glob("*.nir"))


@pytest.mark.parametrize("case", CASES)
def test_a_strangers_network_gives_its_spikes(case: str) -> None:
    recorded = np.load(GOLDEN / f"{case}.npz")
    network = read_nir(GOLDEN / f"{case}.nir", **json.loads(str(recorded["options"]))).build()
    x, wanted = torch.from_numpy(recorded["x"]).float(), torch.from_numpy(recorded["spikes"])
    assert 0 < wanted.float().mean() < 1
    for run in (network.run, IntegerNetwork(network).run):
        assert torch.equal(run(x)[1].spikes[-1].reshape(wanted.shape).to(wanted.dtype), wanted)


def test_there_are_cases_of_every_program() -> None:
    assert {case.split("_")[0] for case in CASES} == {"snntorch", "sinabs", "norse"}
