"""A small task of spike trains: events, and the spikes of another network on them, which can be learnt."""

from typing import Any

import torch

from bootstrap_core.data.frames import Frames
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from specs.network import NetworkSpec

STEPS, INPUTS, TRAINS = 20, 12, 2


def made_network(seed: int = 0, **training: Any) -> Network:
    """Return a network of two layers, of which the second gives the trains."""
    document = {
        "name": "trains",
        "time_steps": STEPS,
        "neuron": {"threshold": 1.0, "current_decay": 0.4, "voltage_decay": 0.1, "tau_grad": 0.02},
        "input": {"shape": [INPUTS], "encoding": "events"},
        "output": "spikes",
        "blocks": [{"kind": "dense", "features": 24}, {"kind": "dense", "features": TRAINS}],
        "training": {"epochs": 8, "snn_epochs": 8, "batch_size": 10, "snn_learning_rate": 0.003, "validation": 40}
        | {"initialize": True}
        | training,
    }
    return build_network(NetworkSpec.model_validate(document), seed=seed)


@torch.no_grad()
def made_recordings(n: int = 200) -> Frames:
    """Return events of seed 0, and as targets the spikes that a network with other weights gives."""
    generator = torch.Generator().manual_seed(0)
    events = (torch.rand(STEPS, n, INPUTS, generator=generator) < 0.3).int()
    teacher = made_network(seed=1)
    for parameter in teacher.parameters():
        parameter.uniform_(-0.2, 0.4, generator=generator)
    return Frames(events, teacher(events).transpose(0, 1).contiguous())
