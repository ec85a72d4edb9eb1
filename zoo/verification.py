"""Checking a model: whole, the same in both engines, the same as what lies beside it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bootstrap_core.integer import IntegerNetwork
from bootstrap_core.network import Network
from converters.formats import MODEL_SUFFIXES
from converters.netx.report import differences
from specs.errors import SnnZooError, StateOverflowError
from zoo.sources import layers_of, read_source

__all__ = ["Check", "verify_model"]

N_IMAGES = 8


@dataclass(frozen=True)
class Check:
    """One check, and what was found."""

    name: str
    passed: bool
    found: str


def verify_model(source: str, against: Path | None = None) -> list[Check]:
    """Check the model `source`, a file or a name.

    Args:
        source: the model.
        against: a file that must hold the same integers; by default every model file of the same name beside `source`.

    Raises:
        SnnZooError: `source` cannot be read at all.
    """
    network = read_source(source)[0].build()
    checks = [
        Check(
            "spec and tensors",
            True,
            f"{network.spec.name}, {len(network.blocks)} blocks, T = {network.spec.time_steps}",
        ),
        _check_engines(network),
    ]
    path = Path(source)
    beside = sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix in MODEL_SUFFIXES else []
    others = [against] if against else [other for other in beside if other.suffix in MODEL_SUFFIXES and other != path]
    return checks + [_check_same(source, other) for other in others]


def _check_engines(network: Network) -> Check:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(N_IMAGES, *network.spec.input.shape, generator=generator)
    name = "float and integer engine"
    with torch.no_grad():
        _, expected = network.run(images)
    try:
        _, found = IntegerNetwork(network).run(images)
    except StateOverflowError as error:
        return Check(name, False, str(error))
    n_places = n_differing = 0
    for a, b in zip(expected.spikes, found.spikes, strict=True):
        assert a is not None
        assert b is not None
        n_places, n_differing = n_places + a.numel(), n_differing + int((a != b).sum())
    return Check(name, n_differing == 0, f"{n_differing} of {n_places:,} places differ, on {N_IMAGES} random images")


def _check_same(source: str, other: Path) -> Check:
    name = f"the integers of {other.name}"
    try:
        found = list(differences(layers_of(source), layers_of(str(other))))
    except SnnZooError as error:
        return Check(name, False, str(error))
    return Check(name, not found, "; ".join(f"layer {d.layer} {d.what}: {d.text}" for d in found) or "the same")
