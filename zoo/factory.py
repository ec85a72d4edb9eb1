"""Trained networks by name, from the package or from the cache of pulled models; files of the package."""

from importlib import resources
from pathlib import Path

from bootstrap_core.network.network import Network
from converters.formats.safetensors_file import read_safetensors
from converters.model import Model
from specs.arguments import check_type
from specs.errors import SnnZooError
from zoo.hub.catalog import find_model, local_catalogs, no_model
from zoo.hub.fetch import local_file
from zoo.model_format import ModelFormat

FOLDER, SUFFIX = "weights", ".safetensors"


def packaged_path(folder: str, name: str) -> Path:
    """Return the path of a file in a folder of `zoo`."""
    with resources.as_file(resources.files("zoo") / folder / name) as path:
        return Path(path)


def create_model(reference: str) -> Network:
    """Return the trained network `NAME` or `NAME@REVISION`, in eval mode, from the package, else from the cache.

    Raises:
        SnnZooError: the model is not on this machine, and the message says how to get it; or `reference` is not a name.

    >>> import torch
    >>> create_model("mnist-dense")(torch.zeros(1, 1, 28, 28)).shape
    torch.Size([1, 10])
    """
    check_type(reference, str, "create_model takes the name of a model", advice="zoo.model_names lists them")
    path = local_model(reference)
    if path is None:
        raise unknown_model(reference)
    return read_safetensors(path).build()


def local_model(reference: str) -> Path | None:
    """Return the checked file of `NAME` or `NAME@REVISION`, in the package, else in the cache; None if missing."""
    if reference in model_names():
        return model_file(reference)
    found = find_model(reference, local_catalogs())
    return None if found is None else local_file(found, ModelFormat.SAFETENSORS)


def unknown_model(reference: str) -> SnnZooError:
    """Return the error for a model that is not on this machine."""
    return no_model(reference, local_catalogs(), otherwise=f"\nIf an index has it: zoo pull {reference}")


def packaged_model(name: str) -> Model:
    """Return the model `name` of the package, with spec and card. Raises `SnnZooError` for an unknown name."""
    if name not in model_names():
        raise SnnZooError(f"no trained model {name!r} in the package; there are {', '.join(model_names()) or 'none'}")
    return read_safetensors(model_file(name))


def model_names() -> list[str]:
    """Return the names of the trained models in the package, sorted."""
    files = (resources.files("zoo") / FOLDER).iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def model_file(name: str) -> Path:
    """Return the path of the weights of a model in the package."""
    return packaged_path(FOLDER, f"{name}{SUFFIX}")
