"""Models and specs as users name them: a model file, a model or a spec by name, or a spec file."""

from pathlib import Path
from typing import Any

import torch

from bootstrap_core.network.build import build_network
from converters.chip.form import ChipForm
from converters.formats.file_kind import FileKind, kind_of_file
from converters.formats.model_files import C_SOURCE, MODEL_SUFFIXES, read_model
from converters.formats.netx.netx_model import netx_of
from converters.formats.netx.netx_reader import load_netx
from converters.model import Model
from specs.errors import ConversionError, SnnZooError, SpecError, UnsupportedError
from specs.files.given_file import is_text, suggest_file
from specs.io import load_spec, network_names, parse_value, spec_from_document
from specs.network import NetworkSpec
from specs.training import TrainingSpec
from specs.words import nearest, suggest
from zoo.factory import local_model, model_names, unknown_model

SPEC_SUFFIXES = {".yaml", ".yml", ".json"}
TRAINED = "model.safetensors"
"""Name of the model file in the folder of a training run."""


def read_source(source: str) -> tuple[Model, bool]:
    """Read the model that `source` names; return it, and whether it is trained.

    Args:
        source: a model file; a trained model of the package or the cache, as `NAME` or `NAME@REVISION`; or a spec, by
            file or name, which gets fresh weights of seed 0.
    """
    path = Path(source)
    if path.suffix == C_SOURCE:
        raise SnnZooError(f"{path} is C source, not a model: zoo verify MODEL --against {path} checks it")
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
    """Return the file of the model that `source` names: a path, or a trained model."""
    path = Path(source)
    return path if _is_model_file(path) else local_model(source) or path


def read_start(source: str) -> tuple[NetworkSpec, Model | None]:
    """Return the spec that training starts from, and the model if training continues one.

    Args:
        source: a model file, which is continued; or a spec, by file or name, or by the name of a trained model, whose
            weights are left out.
    """
    if not _is_model_file(Path(source)):
        if source not in network_names():
            refuse_folder(Path(source))
            if not Path(source).exists() and (file := local_model(source)):
                return _read(file).spec, None
        return _load_spec(Path(source)), None
    model, _ = read_source(source)
    return model.spec, model


def is_spec(source: str) -> bool:
    """Return whether training reads `source` as a spec, by file or name, even if a trained model has that name."""
    path = Path(source)
    return source in network_names() or (path.exists() and not _is_model_file(path))


def _is_model_file(path: Path) -> bool:
    """Return whether a path is a model file: by its suffix, else by its content, which for a spec would be text.

    A file that is neither counts as a model file, so that the reader of models explains the problem.
    """
    if path.suffix in MODEL_SUFFIXES:
        return True
    return path.suffix not in SPEC_SUFFIXES and path.is_file() and not is_text(path)


def _load_spec(path: Path) -> NetworkSpec:
    """Load a spec by file or name; the error for a text file without a spec's suffix says what else is accepted."""
    try:
        return load_spec(path)
    except SpecError as error:
        if path.suffix in SPEC_SUFFIXES or not path.is_file():
            raise
        kinds = ", ".join(FileKind)
        raise SpecError(
            f"{error}\n{path} is a text file: expected a spec in YAML, or a model, by name or file ({kinds})"
        ) from None


def refuse_folder(path: Path) -> None:
    """Raise `SnnZooError` for a folder; the message names the model in the folder of a training run."""
    if path.is_dir():
        inside = path / TRAINED
        if inside.is_file():
            raise SnnZooError(f"{path} is a folder; its model is {inside}")
        raise SnnZooError(f"{path} is a folder, not a model; the folder of a training run would have a {inside.name}")


def _read(path: Path) -> Model:
    """Read a model file; the error for a file that lacks information says to convert it first."""
    try:
        return read_model(path)
    except UnsupportedError:
        raise
    except ConversionError as error:
        output = path.with_suffix(FileKind.SAFETENSORS)
        output = output if output != path else path.with_stem(f"{path.stem}-model")
        raise ConversionError(
            f"{error}\nConvert it first, with options for the missing information: "
            f"zoo convert {path} ... -o {output.name}"
        ) from None


def is_netx(source: str) -> bool:
    """Return whether `source` is a netx file."""
    path = Path(source)
    return path.is_file() and _is_model_file(path) and kind_of_file(path) is FileKind.NETX


def layers_of(source: str) -> ChipForm:
    """Return the netx layers of any model: of a netx file as they are, of other models as they are exported."""
    return load_netx(Path(source)) if is_netx(source) else netx_of(read_source(source)[0].build())


TEXTS = {"name", "description", "training.data"}
"""Fields of free text, whose values are YAML only if they begin with a quote."""


def override_spec(spec: NetworkSpec, assignments: tuple[str, ...]) -> NetworkSpec:
    """Return the spec with fields replaced by `key=value`: keys are dotted paths, values are YAML.

    Values of `TEXTS` are taken as they are. Fewer `training.epochs` also reduce `training.snn_epochs` in proportion,
    unless that is replaced too.

    Raises `SpecError` if an assignment or the new spec is invalid.

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
            raise SpecError(f"--set takes key=value, as in training.epochs=5; got {assignment!r}")
        is_text = key in TEXTS and value[:1] not in ("'", '"')
        _assign(document, key, value if is_text else parse_value(value, origin=f"--set {key}"))
        keys.add(key)
    if "training.epochs" in keys and not {"training.snn_epochs", "training"} & keys and spec.training is not None:
        _share_epochs(document["training"], spec.training)
    return spec_from_document(document, origin="--set")


def _share_epochs(training: dict[str, Any], before: TrainingSpec) -> None:
    """Reduce the SNN epochs in proportion if there are fewer epochs than before."""
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
    """Return the device to use; `auto` means CUDA if available. Raises `SnnZooError` if `cuda` is not available."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SnnZooError("no CUDA device here; use --device cpu or auto")
    return device
