"""How a spec runs: bootstrap blocks in torch, their training, and exact integer inference."""

from bootstrap_core.analysis.evaluation import Evaluation, evaluate
from bootstrap_core.analysis.statistics import LearningStats
from bootstrap_core.data.datasets import Dataset, Split, dataset_names, load_dataset
from bootstrap_core.data.image_files import load_images
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Trace
from bootstrap_core.training.schedule import LayerModes, Scheduler
from bootstrap_core.training.trainer import EpochReport, Trainer, fit

__all__ = [
    "Dataset",
    "EpochReport",
    "Evaluation",
    "IntegerNetwork",
    "LayerModes",
    "LearningStats",
    "Mode",
    "Network",
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
