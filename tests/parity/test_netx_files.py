"""Exported `.net` files against lava-dl's files of the same weights, and lava-dl's files read and run."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from bootstrap_core.inference.integer_network import IntegerNetwork
from converters import Model, read_model, write_netx
from converters.formats.netx.lava_limits import LavaWarning

FOLDER = Path(__file__).parents[1] / "golden"


def datasets(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize("name", ["dense", "dense_meanonly", "conv"])
def test_every_dataset_has_lava_dls_name_type_shape_and_values(name, load_golden_network, tmp_path) -> None:
    with pytest.warns(LavaWarning, match="exact_input is false"):
        ours = datasets(write_netx(load_golden_network(name, exact_input=False).network, tmp_path / "network.net"))
    theirs = datasets(FOLDER / name / "network.net")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert type(ours[key]) is type(value), key
        assert getattr(ours[key], "dtype", None) == getattr(value, "dtype", None), key
        assert np.array_equal(ours[key], value), key


@pytest.mark.parametrize("name", ["dense", "dense_meanonly", "conv"])
def test_files_of_lava_dl_run_as_lava_ran_them(name, load_golden_network) -> None:
    golden = load_golden_network(name, exact_input=True)
    model = read_model(FOLDER / name / "network.net")
    # Lava ran without reset: each layer ran from the first step on, one step behind the previous layer.
    lagging = model.spec.model_copy(update={"delay_shift": True})
    network = IntegerNetwork(Model(lagging, model.tensors).build())
    for image in range(3):
        simulated = golden.simulated_spikes(image)
        _, trace = network.run(golden.images[image : image + 1], time_steps=len(simulated[0]) + 1)
        for i, expected in zip(golden.spiking_blocks, simulated, strict=True):
            assert expected.any()
            assert torch.equal(trace.spikes[i][1:, 0], expected), f"block {i}"
