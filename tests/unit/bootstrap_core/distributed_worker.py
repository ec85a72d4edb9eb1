"""Run the work of each process of `test_distributed.py`; `launch` passes the folder for its results."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.frames import Frames
from bootstrap_core.data.splits import Split
from bootstrap_core.distributed import Group, join_group
from bootstrap_core.network.batch_norm import MeanOnly, WeightScale
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.sampler import RateSampler
from bootstrap_core.training.trainer import Trainer
from specs.network import NetworkSpec
from specs.training import SnnGradient, TrainingSpec

AUGMENT = {"flip": True, "elastic": 0.05, "erase": 0.2}
RECIPES: dict[str, dict[str, Any]] = {
    "ann": {"augment": AUGMENT, "mixup": 0.4},  # SAMPLE, FIT, and training as ANN
    "snn": {"crossover_epochs": (0,), "snn_epochs": 1, "batch_size": 89},  # the last batch has a single image
    "tandem": {"snn_epochs": 1, "snn_gradient": "tandem", "snn_learning_rate": 0.003, "ema_decay": 0.8},
    "dropout": {"precision": "bfloat16"},
}


def network(*, dropout: float = 0.0, capacity: int = 1000) -> Network:
    spec = {
        "name": "tiny",
        "time_steps": 4,
        "neuron": {"threshold": 1.0, "voltage_decay": 0.1, "tau_grad": 0.1},
        "input": {"shape": [1, 28, 28]},
        "blocks": [
            {"kind": "conv", "channels": 2, "kernel": 5, "stride": 4, "norm": "weight_scale"},
            {"kind": "flatten"},
            {"kind": "dense", "features": 12, "weight_norm": True, "norm": "mean_only", "dropout": dropout},
            {"kind": "affine", "features": 10},
        ],
    }
    made = build_network(NetworkSpec.model_validate(spec), seed=0)
    for module in made.modules():
        if isinstance(module, RateSampler):
            module.capacity = capacity
    return made


def digits() -> Split:
    return load_dataset("mnist-sample").train.take(slice(0, 200))


def train(group: Group, name: str) -> dict[str, Any]:
    """Train for two epochs; return the losses of all batches and the final state."""
    options = {"epochs": 2, "batch_size": 35, "validation": 21, "sample_iterations": 2, "initialize": True}
    options |= {"learning_rate": 0.003, "logit_scale": 3.0, "precision": "float32"}
    made = network(dropout=0.5 if name == "dropout" else 0.0)
    trainer = Trainer(made, digits(), TrainingSpec(**{**options, **RECIPES[name]}), group=group)
    batches: list[tuple[float, int, int]] = []
    add = trainer.stats.training.add

    def spy(loss: float, correct: int, n: int) -> None:
        batches.append((loss, correct, n))
        add(loss, correct, n)

    trainer.stats.training.add = spy
    masks: list[Tensor] = []
    if name == "dropout":
        block = made.blocks[3]
        mask = block._mask
        block._mask = lambda *given: masks.append(mask(*given)) or masks[-1]
    reports = [plain(trainer.run_epoch()) for _ in range(2)]
    state = {name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()}
    return {"batches": batches, "state": state, "reports": reports, "mask": masks[0] if masks else None}


def values(group: Group) -> dict[str, Any]:
    """Train a network of values for two epochs, the second as SNN; return the final state and the reports."""
    spec = {
        "name": "steer",
        "time_steps": 3,
        "neuron": {"kind": "sigma_delta", "threshold": 0.05},
        "input": {"shape": [6], "encoding": "frames"},
        "blocks": [{"kind": "dense", "features": 8, "bias": True}, {"kind": "affine", "features": 2}],
    }
    recipe = TrainingSpec(
        epochs=2, batch_size=17, validation=13, learning_rate=0.01, snn_epochs=1, snn_gradient=SnnGradient.TANDEM
    )
    frames = torch.randint(-64, 65, (3, 48, 6), generator=torch.Generator().manual_seed(0))
    targets = torch.stack([frames[-1, :, 0], frames[-1, :, 1].abs()], 1) / 64
    trainer = Trainer(
        build_network(NetworkSpec.model_validate(spec), seed=0), Frames(frames.int(), targets), recipe, group=group
    )
    reports = [plain(trainer.run_epoch()) for _ in range(2)]
    score = evaluate(trainer.network, trainer.validation.take(slice(0, 1)), group=group)
    return {"state": trainer.network.state_dict(), "reports": reports, "score": plain(score)}


def plain(figures: object) -> dict[str, Any]:
    """Return the fields that a file of tensors and plain values can hold, and that are the same in each run."""
    left_out = {"counts", "measure", "mode", "outputs", "seconds"}
    return {name: value for name, value in vars(figures).items() if name not in left_out}


def sample(group: Group) -> dict[str, Any]:
    """Fill a sampler beyond its capacity from shares of batches."""
    sampler = RateSampler(capacity=100)
    sampler.group = group
    generator = torch.Generator().manual_seed(0)
    found = []
    for n in (5, 9, 11):
        z, a = torch.rand(2, n, 15, generator=generator)
        rows = group.share(n).rows
        sampler.add(z[rows], a[rows])
        found.append(sampler.pairs.clone())
    sampler.fit()
    return {"pairs": found, "n_seen": sampler.n_seen, "centers": sampler.centers}


def norms(group: Group) -> dict[str, Any]:
    """Update norms from shares of batches."""
    mean, scale = MeanOnly(3), WeightScale()
    mean.group = scale.group = group
    z = 3 * torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)) + 1
    rows = group.share(7).rows
    mean.update(z[rows], channel_axis=1)
    scale.update(z[rows], channel_axis=1)
    return {"mean": mean.running_mean, "variance": scale.running_variance}


def collectives(group: Group) -> dict[str, Any]:
    """Return the results of sums and broadcasts, in which rank r contributes r + 1."""
    small, large = torch.full((3,), group.rank + 1.0), torch.full((2, 5), group.rank + 1.0).T
    group.add_up([small, large])
    sent = torch.full((2, 2), group.rank + 1).T
    group.broadcast([sent])
    data = group.broadcast_bytes(b"of the first" if group.leads else b"")
    added = group.add([group.rank + 1, 0.5])
    return {
        "sums": [small, large],
        "sent": sent,
        "bytes": data,
        "added": added,
        "counts": group.counts(group.rank),
    }


def main(folder: Path) -> None:
    with join_group(timeout_s=120) as group:
        found = {name: train(group, name) for name in RECIPES}
        found |= {
            "values": values(group),
            "sampler": sample(group),
            "norms": norms(group),
            "collectives": collectives(group),
        }
        trained = network()
        trained.load_state_dict(found["snn"]["state"])
        scores = [evaluate(trained, digits().take(slice(0, n)), mode=Mode.SNN, group=group) for n in (1, 99)]
        found["scores"] = [plain(score) for score in scores]
    torch.save(found, folder / f"{group.size}-{group.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
