"""Exported `.net` files against those that lava-dl wrote from the same weights."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from converters import write_netx

FOLDER = Path(__file__).parents[1] / "golden"


def datasets(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize("name", ["dense", "dense_meanonly", "conv"])
def test_every_dataset_has_lava_dls_name_type_shape_and_values(name, load_golden_network, tmp_path) -> None:
    ours = datasets(write_netx(load_golden_network(name, exact_input=False).network, tmp_path / "network.net"))
    theirs = datasets(FOLDER / name / "network.net")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert type(ours[key]) is type(value), key
        assert getattr(ours[key], "dtype", None) == getattr(value, "dtype", None), key
        assert np.array_equal(ours[key], value), key
