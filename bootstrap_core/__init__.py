"""How a spec runs: bootstrap blocks in torch, their training, and exact integer inference."""

from bootstrap_core.build import build_network
from bootstrap_core.datasets import Dataset, Split, dataset_names, load_dataset
from bootstrap_core.evaluation import Evaluation, evaluate
from bootstrap_core.image_files import load_images
from bootstrap_core.integer import IntegerNetwork
from bootstrap_core.mode import Mode
from bootstrap_core.network import Network, Trace
from bootstrap_core.schedule import LayerModes, Scheduler
from bootstrap_core.stats import LearningStats
from bootstrap_core.training import EpochReport, Trainer, fit

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
