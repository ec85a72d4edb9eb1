"""Recorded figures of lava-dl and Lava, converted to snnzoo's units, layout (time first) and parameter names."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from specs.network import NetworkSpec

FOLDER = Path(__file__).parents[1] / "golden"

DENSE: dict[str, Any] = {
    "name": "dense",
    "time_steps": 16,
    "delay_shift": True,
    "neuron": {"threshold": 1.25, "current_decay": 1.0, "voltage_decay": 0.03},
    "input": {"shape": [49], "weight": 1.1, "bias": 0.2},
    "blocks": [
        {"kind": "dense", "features": 32, "weight_norm": True},
        {"kind": "dense", "features": 24, "weight_norm": True},
        {"kind": "affine", "features": 10, "weight_norm": True},
    ],
}
CONV: dict[str, Any] = {
    "name": "conv",
    "time_steps": 12,
    "delay_shift": True,
    "neuron": {"threshold": 0.75, "current_decay": 1.0, "voltage_decay": 0.05},
    "input": {"shape": [2, 8, 8], "weight": 1.0, "bias": 0.1},
    "blocks": [
        {"kind": "conv", "channels": 6, "kernel": 3, "stride": [2, 1], "padding": [1, 0], "weight_norm": True},
        {"kind": "conv", "channels": 8, "kernel": [2, 3], "groups": 2, "weight_norm": True},
        {"kind": "flatten"},
        {"kind": "dense", "features": 16, "weight_norm": True},
        {"kind": "affine", "features": 5},
    ],
}
HIDDEN = [{**block, "norm": "mean_only"} for block in DENSE["blocks"][:2]]
MEAN_ONLY = {**DENSE, "name": "dense-mean-only", "blocks": [*HIDDEN, DENSE["blocks"][2]]}
SPECS = {"dense": DENSE, "dense_meanonly": MEAN_ONLY, "conv": CONV}


def time_first(array: np.ndarray) -> Tensor:
    """Convert lava-dl's `[N, ..., T]` to `[T, N, ...]`."""
    return torch.from_numpy(np.moveaxis(array, -1, 0).copy())


def our_name(lava_name: str) -> str:
    """Return the name in our state dict of a parameter or buffer of lava-dl."""
    return (
        lava_name.replace("neuron.norm.", "norm.")
        .replace("weight_g", "parametrizations.weight.original0")
        .replace("weight_v", "parametrizations.weight.original1")
    )


@dataclass(frozen=True)
class GoldenNetwork:
    """A network with lava-dl's trained weights and fitted activations, and the outputs of lava-dl and Lava for it."""

    network: Network
    reference: dict[str, np.ndarray]
    simulation: dict[str, np.ndarray]

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.reference["x"])

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.reference["y"])

    @property
    def spiking_blocks(self) -> list[int]:
        """Indices of the blocks with neurons."""
        return [i for i, layer in enumerate(self.network.spec.layers[:-1]) if layer.kind != "flatten"]

    def block_spikes(self, index: int) -> Tensor:
        """Return lava-dl's spikes of a block, `[T, N, ...]`; of the readout, its weighted input."""
        return time_first(self.reference[f"snn/{index}"])

    def block_rates(self, index: int) -> Tensor:
        """Return lava-dl's output of a block in ANN mode, `[N, ...]`."""
        return torch.from_numpy(self.reference[f"ann/{index}"]).squeeze(-1)

    @property
    def snn_logits(self) -> Tensor:
        return torch.from_numpy(self.reference["snn/logits"])

    def gradients(self, mode: Mode) -> dict[str, Tensor]:
        """Return lava-dl's gradients with our names and shapes."""
        prefix = f"{mode.value}_grad/"
        named = {key.removeprefix(prefix): array for key, array in self.reference.items() if key.startswith(prefix)}
        ours = dict(self.network.named_parameters())
        return {
            our_name(name): torch.from_numpy(array).reshape(ours[our_name(name)].shape) for name, array in named.items()
        }

    def simulated_spikes(self, image: int) -> list[Tensor]:
        """Return Lava's spikes of each block with neurons, `[steps, ...]`; the last recorded step never ran."""
        spikes = []
        for k in range(len(self.spiking_blocks)):
            array = self.simulation[f"{image}/spikes/{k}"][..., :-1]
            axes = (3, 2, 1, 0) if array.ndim == 4 else (1, 0)  # [W, H, C, steps] -> [steps, C, H, W]
            spikes.append(torch.from_numpy(array.transpose(axes).copy()))
        return spikes


def _load(name: str, *, exact_input: bool) -> GoldenNetwork:
    reference, simulation = (
        dict(np.load(FOLDER / name / file).items()) for file in ("reference.npz", "lava_simulation.npz")
    )
    spec = {**SPECS[name], "input": {**SPECS[name]["input"], "exact_input": exact_input}}
    network = build_network(NetworkSpec.model_validate(spec))
    state = network.state_dict()
    for key, value in torch.load(FOLDER / name / "network.pt", weights_only=True).items():
        unit = 4096 if key.endswith("_decay") else 1
        state[our_name(key)] = (value / unit).reshape(state[our_name(key)].shape)
    for i in {int(key.split("/")[1]) for key in reference if key.startswith("pwl/")}:
        for field in ("centers", "slopes"):
            values = torch.from_numpy(reference[f"pwl/{i}/{field}"])
            state[f"blocks.{i}.sampler.{field}"][: len(values)] = values
        state[f"blocks.{i}.sampler.n_centers"].fill_(len(reference[f"pwl/{i}/centers"]))
    network.load_state_dict(state)
    return GoldenNetwork(network, reference, simulation)


@pytest.fixture(scope="session")
def load_golden_network() -> Callable[..., GoldenNetwork]:
    """`load_golden_network(name, exact_input=...)` for the names dense, dense_meanonly and conv."""
    return _load


@pytest.fixture(scope="session")
def golden_arrays() -> Callable[[str], dict[str, np.ndarray]]:
    """`golden_arrays("sampler.npz")`: the arrays of a file, by key."""
    return lambda file: dict(np.load(FOLDER / file).items())


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    """`golden_json("schedule.json")`: the values of a file."""
    return lambda file: json.loads((FOLDER / file).read_text("utf-8"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let networks of lava-dl take images that are normalised, as they do there."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:images have values from"))
