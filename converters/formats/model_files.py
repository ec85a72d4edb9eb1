"""Models in files of every format: read by what the file is, written by its suffix."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from converters.formats.file_kind import USES, FileKind, kind_of_file
from converters.formats.lava_checkpoint import read_checkpoint
from converters.formats.netx.netx_model import read_netx, write_netx
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from converters.formats.safetensors_file import describes_itself, read_safetensors, write_safetensors
from converters.model import Model
from specs.block import Encoding
from specs.errors import ConversionError, UnsupportedError
from specs.files.file_digest import sha256_of
from specs.network import NetworkSpec
from specs.neuron import Reset

__all__ = [
    "CHAINS",
    "MODEL_SUFFIXES",
    "Hints",
    "check_writable",
    "check_writable_format",
    "file_entry",
    "format_notes",
    "option_name",
    "read_model",
    "write_model",
]


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a file may not say, for the readers that have a use for it; None where the caller does not say either.

    Attributes:
        spec: of a lava-dl checkpoint.
        time_steps: T; of a netx file, a NIR graph or a checkpoint.
        threshold: of all neurons of a dense checkpoint.
        input_bits: bits of a pixel, of a network without input neurons.
        mean, std: of the images in training, where the file does not say.
        dt: seconds of a time step of a NIR graph.
        time_constants: how those of a NIR graph become decays.
        reset: what a spike does in a NIR graph, which cannot say it.
        nodes_only: read a NIR graph of our own by its nodes, which someone changed.
    """

    spec: NetworkSpec | None = None
    time_steps: int | None = None
    threshold: float | None = None
    input_bits: int | None = None
    mean: float | None = None
    std: float | None = None
    dt: float | None = None
    time_constants: TimeConstants | None = None
    reset: Reset | None = None
    nodes_only: bool | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values, a spec by its name."""
        return {
            name: value.name if isinstance(value, NetworkSpec) else str(value) if isinstance(value, Enum) else value
            for name, value in self.given().items()
        }


def option_name(hint: str) -> str:
    """How the command line calls a hint.

    >>> option_name("time_steps")
    '--time-steps'
    """
    return f"--{hint.replace('_', '-')}"


READERS: dict[FileKind, Callable[..., Model]] = {
    FileKind.SAFETENSORS: read_safetensors,
    FileKind.NETX: read_netx,
    FileKind.NIR: read_nir,
    FileKind.TORCH: read_checkpoint,
}
"""Each takes the path, and as keywords those hints that it has a use for."""


def _write_netx(model: Model, path: Path) -> Path:
    return write_netx(model.build(), path)


WRITERS: dict[str, Callable[[Model, Path], Path]] = {
    ".safetensors": write_safetensors,
    ".net": _write_netx,
    ".hdf5": _write_netx,
    ".nir": write_nir,
}

CHAINS = {suffix for suffix, write in WRITERS.items() if write is _write_netx}
"""Suffixes of formats that hold no skips."""

MODEL_SUFFIXES = {*FileKind, *WRITERS, ".pth", ".h5"}
"""Suffixes by which a name is taken for a model file."""


def read_model(path: str | Path, hints: Hints = Hints()) -> Model:
    """Read a model, whatever the format; the content tells it, not the suffix.

    Raises:
        UnsupportedError: no reader for such a file, or it holds what no network of ours can be.
        ConversionError: a hint that this kind of file has no use for, or one that is missing.
        IntegrityError: the file is damaged, or no model; says what it is.
    """
    path = Path(path)
    kind = kind_of_file(path)
    if kind not in READERS:
        raise UnsupportedError(
            f"{path} is {USES[kind]}:\n"
            f"zoo convert {path}{' --data mnist' if kind is FileKind.ONNX else ''} "
            f"-o {path.with_suffix(FileKind.SAFETENSORS).name}"
        )
    reader, given = READERS[kind], hints.given()
    if kind is FileKind.SAFETENSORS and not describes_itself(path):
        reader = read_checkpoint
    if useless := given.keys() - signature(reader).parameters.keys():
        raise ConversionError(
            f"{path}: a {kind} file has no use for {' and '.join(map(option_name, sorted(useless)))}, or says that "
            "itself: leave it out"
        )
    model = reader(path, **given)
    if reader is not read_safetensors and not model.card.keys() & {"training", "conversion"}:
        model = replace(model, card={**model.card, "conversion": {"source": path.name, **hints.as_json()}})
    if path.suffix in set(FileKind) - {kind}:
        model = replace(model, notes=(f"by its content this is a {kind} file, and read as such", *model.notes))
    return model


def write_model(model: Model, path: str | Path) -> Path:
    """Write a model to a file whose suffix names its format; overwrites.

    Raises:
        UnsupportedError: no writer for that suffix, or a network that the format cannot express.
    """
    path = Path(path)
    check_writable_format(path)
    return WRITERS[path.suffix](model, path)


def check_writable_format(path: Path) -> None:
    """Raise `UnsupportedError` unless there is a writer for the suffix; for use before long work."""
    if path.suffix not in WRITERS:
        raise UnsupportedError(f"cannot write {path}: no writer for {path.suffix or 'a file with no suffix'} "
                               f"(known: {', '.join(WRITERS)})")  # fmt: skip


def file_entry(path: Path) -> dict[str, str]:
    """What JSON and pages say of a file that was written: path, format, sha256."""
    return {"path": str(path), "format": path.suffix[1:], "sha256": sha256_of(path)}


def format_notes(spec: NetworkSpec, suffix: str) -> list[str]:
    """What a file of this suffix makes of a network that is not quite the network's own."""
    truncates = suffix in CHAINS and spec.input.encoding is Encoding.SPIKE and not spec.input.exact_input
    if not truncates:
        return []
    return [
        "input.exact_input is false, as in lava-dl: the chip truncates the currents of the input to 1/64, and may "
        "spike otherwise"
    ]


def check_writable(model: Model, suffix: str) -> None:
    """Raise what `write_model` would for such a model; for use before long work that changes its tensors alone."""
    with TemporaryDirectory() as folder:
        write_model(model, Path(folder) / f"tried{suffix}")
