"""From what a user names to a network: a model file, a model or a spec by name, or a spec file."""

from pathlib import Path
from typing import Any

import torch

from bootstrap_core.network.build import build_network
from converters.formats.file_kind import FileKind, kind_of_file
from converters.formats.model_files import MODEL_SUFFIXES, read_model
from converters.formats.netx.netx_layers import NetxFile
from converters.formats.netx.netx_model import netx_of
from converters.formats.netx.netx_reader import load_netx
from converters.model import Model
from specs.errors import ConversionError, SnnZooError, SpecError, UnsupportedError
from specs.files.given_file import is_text, suggest_file
from specs.io import load_spec, network_names, parse_value, spec_from_document
from specs.network import NetworkSpec
from specs.suggestion import nearest, suggest
from specs.training import TrainingSpec
from zoo.factory import local_model, model_names, unknown_model

__all__ = [
    "TRAINED",
    "is_netx",
    "is_spec",
    "layers_of",
    "model_path",
    "override_spec",
    "read_source",
    "read_start",
    "refuse_folder",
    "resolve_device",
]

SPEC_SUFFIXES = {".yaml", ".yml", ".json"}
TRAINED = "model.safetensors"
"""The model in the folder of a training."""


def read_source(source: str) -> tuple[Model, bool]:
    """The model that `source` names, and whether it is trained.

    Args:
        source: a model file, or a trained model as `NAME` or `NAME@REVISION`, of the package or pulled; or a spec, by
            file or name, which gives fresh weights, of seed 0.
    """
    path = Path(source)
    if _is_model_file(path):
        if not path.exists():
            raise SnnZooError(f"no such file: {path}{suggest_file(path)}")
        return _read(path), True
    if not (path.suffix in SPEC_SUFFIXES or path.is_file()):
        if file := local_model(source):
            return _read(file), True
        if source not in network_names():
            refuse_folder(path)
            hint = suggest_file(path)
            if len(path.parts) > 1 or (hint and not nearest(source, [*model_names(), *network_names()])):
                raise SnnZooError(f"no such file: {path}{hint}")
            raise unknown_model(source)
    return Model.of(build_network(_load_spec(path), seed=0)), False


def model_path(source: str) -> Path:
    """The file of the model that `source` names: a file, or a trained model."""
    path = Path(source)
    return path if _is_model_file(path) else local_model(source) or path


def read_start(source: str) -> tuple[NetworkSpec, Model | None]:
    """What training starts from: a model file, with its spec; or a spec, by file or name, or of a trained model, by
    name, alone."""
    if not _is_model_file(Path(source)):
        if source not in network_names():
            refuse_folder(Path(source))
            if not Path(source).exists() and (file := local_model(source)):
                return _read(file).spec, None
        return _load_spec(Path(source)), None
    model, _ = read_source(source)
    return model.spec, model


def is_spec(source: str) -> bool:
    """Whether training takes `source` for a spec, by file or name, also if a trained model has that name."""
    path = Path(source)
    return source in network_names() or (path.exists() and not _is_model_file(path))


def _is_model_file(path: Path) -> bool:
    """By its suffix, or, as a spec is text, by its content; what is neither is told so by the reader of models."""
    if path.suffix in MODEL_SUFFIXES:
        return True
    return path.suffix not in SPEC_SUFFIXES and path.is_file() and not is_text(path)


def _load_spec(path: Path) -> NetworkSpec:
    """A spec, by file or name; text that is none and does not look like one is told what else it could be."""
    try:
        return load_spec(path)
    except SpecError as error:
        if path.suffix in SPEC_SUFFIXES or not path.is_file():
            raise
        kinds = ", ".join(FileKind)
        raise SpecError(f"{error}\n{path} is text: a spec would be YAML, a model a name or a file ({kinds})") from None


def refuse_folder(path: Path) -> None:
    """Raise `SnnZooError` for a folder; that of a training has a model in it."""
    if path.is_dir():
        inside = path / TRAINED
        if inside.is_file():
            raise SnnZooError(f"{path} is a folder; its model is {inside}")
        raise SnnZooError(f"{path} is a folder, not a model, nor that of a training: there is no {inside.name} in it")


def _read(path: Path) -> Model:
    """A file that says too little about itself must be converted first, where it can be told."""
    try:
        return read_model(path)
    except UnsupportedError:
        raise
    except ConversionError as error:
        raise ConversionError(
            f"{error}\nMake a model of it first, with what it does not say: "
            f"zoo convert {path} ... -o {path.with_suffix('.safetensors').name}"
        ) from None


def is_netx(source: str) -> bool:
    """Whether `source` is a netx file."""
    path = Path(source)
    return path.is_file() and _is_model_file(path) and kind_of_file(path) is FileKind.NETX


def layers_of(source: str) -> NetxFile:
    """The layers of any model as netx holds them: those of a netx file as they are, of others as they are exported."""
    return load_netx(Path(source)) if is_netx(source) else netx_of(read_source(source)[0].build())


TEXTS = {"name", "description", "training.data"}
"""Fields whose values may look like anything."""


def override_spec(spec: NetworkSpec, assignments: tuple[str, ...]) -> NetworkSpec:
    """The spec with fields replaced by `key=value`: dotted paths, values in YAML, those of `TEXTS` as they are.

    Of fewer epochs the SNN ones keep their part, unless they are replaced too.

    >>> spec = override_spec(load_spec("mnist-dense"), ("training.epochs=3", "blocks.0.features=64"))
    >>> spec.training.epochs, spec.shapes[1]
    (3, (64,))
    >>> override_spec(load_spec("mnist-dense-t4"), ("training.epochs=40",)).training.snn_epochs
    2
    """
    if not assignments:
        return spec
    document, keys = spec.model_dump(mode="json"), set[str]()
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise SpecError(f"--set takes key=value, as in training.epochs=5; this is {assignment!r}")
        is_text = key in TEXTS and value[:1] not in ("'", '"')
        _assign(document, key, value if is_text else parse_value(value, origin=f"--set {key}"))
        keys.add(key)
    if "training.epochs" in keys and not {"training.snn_epochs", "training"} & keys and spec.training is not None:
        _share_epochs(document["training"], spec.training)
    return spec_from_document(document, origin="--set")


def _share_epochs(training: dict[str, Any], before: TrainingSpec) -> None:
    """Give the SNN epochs the part of fewer epochs that they had of all."""
    epochs = training["epochs"]
    if isinstance(epochs, int) and epochs < before.epochs:
        training["snn_epochs"] = epochs * before.snn_epochs // before.epochs


def _assign(document: object, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        try:
            child = document[int(part)] if isinstance(document, list) else document[part]  # type: ignore[index]
        except (KeyError, IndexError, ValueError, TypeError):
            hint = suggest(part, document) if isinstance(document, dict) else ""
            raise SpecError(f"--set {key}: the spec has no {'.'.join(parents[: depth + 1])}{hint}") from None
        if child is None and isinstance(document, dict):
            child = document[part] = {}
        document = child
    if isinstance(document, list) and last.isdecimal() and int(last) < len(document):
        document[int(last)] = value
    elif isinstance(document, dict):
        document[last] = value
    else:
        raise SpecError(f"--set {key}: the spec has no {key}")


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one; raises `SnnZooError` for a CUDA that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SnnZooError("no CUDA device here; use --device cpu or auto")
    return device
