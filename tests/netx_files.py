"""Small netx files for tests, written as older tools write them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def save(path: Path, *layers: dict[str, Any], **simulation: int) -> Path:
    """Write a netx file; values that are dicts become groups."""
    with h5py.File(path, "w") as file:
        for i, layer in enumerate(layers):
            group = file.create_group(f"layer/{i}")
            for key, value in layer.items():
                if isinstance(value, dict):
                    for name, part in value.items():
                        group[f"{key}/{name}"] = part
                elif key == "type":
                    group[key] = np.array([value.encode()], "S10")
                else:
                    group[key] = value
        for key, value in simulation.items():
            file[f"simulation/{key}"] = value
    return path
