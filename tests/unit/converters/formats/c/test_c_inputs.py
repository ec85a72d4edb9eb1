"""Inputs of C programs: raw numbers in the order channel, row, column, with labels beside them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bootstrap_core.data.splits import Split
from converters.formats.c.c_targets import labels_path, write_inputs
from specs import DataError, NetworkSpec


def taking(entering: dict[str, Any]) -> NetworkSpec:
    blocks = [{"kind": "flatten"}, {"kind": "affine", "features": 3}][len(entering["shape"]) == 1 :]
    return NetworkSpec.model_validate({"name": "tiny", "time_steps": 2, "input": entering, "blocks": blocks})


@pytest.mark.parametrize("shape", [[2, 3, 4], [24]])
def test_images_are_bytes_one_after_the_other(shape: list[int], tmp_path: Path) -> None:
    images = torch.arange(300 * 24).remainder(251).byte().reshape(300, 2, 3, 4)
    labels = torch.arange(300) % 3
    path = write_inputs(Split(images, labels), taking({"shape": shape}), tmp_path / "a.raw")
    assert path.read_bytes() == bytes(images.flatten().tolist())
    assert labels_path(path).read_text() == "0\n1\n2\n" * 100


@pytest.mark.parametrize(("bits", "width"), [(8, 1), (9, 2)])
def test_counts_of_many_bits_are_numbers_of_16_bits(bits: int, width: int, tmp_path: Path) -> None:
    recordings = torch.randint(256, (2, 5, 1, 2, 3)).byte()
    spec = taking({"shape": [1, 2, 3], "encoding": "events", "bits": bits})
    data = write_inputs(Split(recordings, torch.tensor([2, 0])), spec, tmp_path / "a.raw").read_bytes()
    found = torch.frombuffer(bytearray(data), dtype={1: torch.uint8, 2: torch.uint16}[width])
    assert found.tolist() == recordings.flatten().tolist()


@pytest.mark.parametrize("entering", [{"shape": [2, 4, 3]}, {"shape": [2, 3, 4], "encoding": "events"}])
def test_inputs_of_another_kind_are_refused(entering: dict[str, Any], tmp_path: Path) -> None:
    split = Split(torch.zeros(1, 2, 3, 4, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(DataError, match=r"tiny takes .*\[2, ., .\], not uint8 \[2, 3, 4\]"):
        write_inputs(split, taking(entering), tmp_path / "a.raw")
    assert not list(tmp_path.iterdir())
