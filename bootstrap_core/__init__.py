"""Networks that run: bootstrap blocks in torch, their training, and exact integer inference.

`build_network` makes a `Network` of a spec. It runs in a `Mode`: as SNN, as ANN with fitted activations, or sampling
its neurons. `fit` trains it; `IntegerNetwork` runs it in the integers of the hardware, with the same spikes.

>>> import torch
>>> from bootstrap_core import IntegerNetwork, Mode, build_network
>>> from specs import load_spec
>>> net = build_network(load_spec("mnist-dense-shallow"), seed=0).eval()
>>> images = torch.rand(2, 1, 28, 28)  # [N, C, H, W], 0..1
>>> logits, trace = net.run(images)
>>> logits.shape, trace.spikes[1].shape  # [N, classes]; [T, N, features]
(torch.Size([2, 10]), torch.Size([16, 2, 512]))
>>> torch.equal(IntegerNetwork(net)(images), logits)
True
"""

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.inference.integer_network import IntegerNetwork, Overflow
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.network.network import Network, Trace
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.training.history import EpochReport, LearningStats
from bootstrap_core.training.schedule import Scheduler
from bootstrap_core.training.trainer import Trainer, fit
from specs.dataset_sources import dataset_names

__all__ = [
    "Dataset",
    "EpochReport",
    "Evaluation",
    "IntegerNetwork",
    "LayerModes",
    "LearningStats",
    "Mode",
    "Network",
    "Overflow",
    "Scheduler",
    "Split",
    "Trace",
    "Trainer",
    "build_network",
    "dataset_names",
    "evaluate",
    "fit",
    "load_dataset",
    "load_images",
]


def __dir__() -> list[str]:
    return __all__
