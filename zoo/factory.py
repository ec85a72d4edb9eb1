"""Trained networks by name: those whose weights come with the package."""

from importlib import resources
from pathlib import Path

from bootstrap_core.network import Network
from converters.model import Model
from converters.safetensors_file import read_safetensors
from specs.errors import SnnZooError

__all__ = ["create_model", "model_file", "model_names", "packaged_model"]

SUFFIX = ".safetensors"


def create_model(name: str) -> Network:
    """The trained network `name`, in eval mode.

    Raises:
        SnnZooError: no such model; names those there are.

    >>> import torch
    >>> create_model("mnist-dense")(torch.zeros(1, 1, 28, 28)).shape
    torch.Size([1, 10])
    """
    return packaged_model(name).build()


def packaged_model(name: str) -> Model:
    """The model `name` with its spec and card. Raises `SnnZooError` if the package has none of that name."""
    if name not in model_names():
        raise SnnZooError(f"no trained model {name!r} in the package; there are {', '.join(model_names()) or 'none'}")
    return read_safetensors(model_file(name))


def model_file(name: str) -> Path:
    """Where the weights of a model of the package lie."""
    with resources.as_file(resources.files("zoo") / "weights" / f"{name}{SUFFIX}") as path:
        return Path(path)


def model_names() -> list[str]:
    """Names of the trained models in the package, sorted."""
    folder = resources.files("zoo") / "weights"
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.iterdir() if file.name.endswith(SUFFIX))
