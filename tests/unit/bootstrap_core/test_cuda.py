"""Networks on a GPU: the spikes of the CPU, close gradients, and a training from SAMPLE to SNN."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.training.initialization import initialize
from bootstrap_core.training.trainer import fit
from specs import load_spec
from specs.dataset_sources import SAMPLE_NAME
from specs.training import TrainingSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

NAMES = ["mnist-dense", "mnist-dense-norm", "mnist-conv", "fashion-mnist-conv"]
DIGITS = load_dataset(SAMPLE_NAME).train
IMAGES, LABELS = DIGITS.images[:12].float() / 255, DIGITS.labels[:12]


@pytest.fixture(params=NAMES)
def networks(request) -> tuple[Network, Network]:
    """Return a network that spikes, and its copy on the GPU."""
    network = build_network(load_spec(request.param), seed=0)
    initialize(network, IMAGES)
    network.eval()
    return network, deepcopy(network).to("cuda")


def test_spikes_are_those_of_the_cpu(networks) -> None:
    (logits, trace), (theirs, their_trace) = (network.run(IMAGES.to(network.device), Mode.SNN) for network in networks)
    assert trace.spikes[-2].any()
    assert torch.equal(theirs.cpu(), logits)
    for spikes, others in zip(trace.spikes, their_trace.spikes, strict=True):
        assert torch.equal(others.cpu(), spikes)


def test_gradients_are_those_of_the_cpu(networks) -> None:
    for network in networks:
        logits = network(IMAGES.to(network.device), Mode.SNN)
        F.cross_entropy(logits, LABELS.to(network.device)).backward()
    ours, theirs = (dict(network.named_parameters()) for network in networks)
    for name, parameter in ours.items():
        if parameter.grad is not None:
            error = (theirs[name].grad.cpu() - parameter.grad).abs().max()
            assert error <= 1e-3 * parameter.grad.abs().max(), name


def test_a_training_goes_through() -> None:
    network = build_network(load_spec("mnist-dense"), seed=0).to("cuda")
    recipe = TrainingSpec(epochs=3, snn_epochs=1, batch_size=100, validation=200, initialize=True)
    reports = []
    fit(network, DIGITS, recipe, on_epoch=reports.append)
    assert reports[-1].validation_snn_score > 0.5
