"""Read models of any format, detected from the content; write them in the format of the suffix."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from bootstrap_core.network.network import Network
from converters.chip.form import ChipForm, problems_by_place
from converters.formats.c.c_targets import check_sketch_name, project_files, write_project
from converters.formats.c.c_writer import COptions, c_problems, check_c_name, header_of, write_c
from converters.formats.c.sketch_name import SKETCH, sketch_path
from converters.formats.file_kind import USES, FileKind, kind_of_file
from converters.formats.lava_checkpoint import read_checkpoint
from converters.formats.netx.lava_limits import how_lava_runs
from converters.formats.netx.netx_model import netx_problems, read_netx, write_netx
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import nir_problems, write_nir
from converters.formats.safetensors_file import describes_itself, read_safetensors, write_safetensors
from converters.linear.even_padding import notes_on_kernel
from converters.model import Model, check_card
from specs.arguments import check_path, check_type
from specs.dataset_sources import classes_as_option, found_data, stored_data
from specs.errors import ConversionError, UnsupportedError
from specs.files.given_file import sha256_of
from specs.layers.neuron import Reset
from specs.network import NetworkSpec
from specs.shapes import pads_of


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Values that a file may not contain, for the readers that need them; None if unknown.

    Attributes:
        spec: spec of a lava-dl checkpoint.
        time_steps: T of a netx file, a NIR graph or a checkpoint.
        threshold: threshold of all neurons of a dense checkpoint.
        input_bits: bits of a pixel of still images, for a network without input neurons, which by default takes events.
        mean, std: normalisation of the training images.
        dt: length of a time step of a NIR graph, in seconds.
        time_constants: conversion of a NIR graph's time constants to decays.
        reset: effect of a spike on the voltage, which a NIR graph does not contain.
        nodes_only: read the nodes of a NIR graph that snnzoo wrote and someone changed, rather than its metadata.
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
        """Return the hints that are not None, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def as_json(self) -> dict[str, Any]:
        """Return the hints that are not None as JSON values, a spec as its name."""
        return {
            name: value.name if isinstance(value, NetworkSpec) else str(value) if isinstance(value, Enum) else value
            for name, value in self.given().items()
        }


def option_name(hint: str) -> str:
    """Return the command-line option for a hint.

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
"""Readers by kind of file; each takes the path, and the hints that it needs as keywords."""


def _write_netx(model: Model, path: Path, *, overwrite: bool) -> Path:
    return write_netx(model.build(), path, overwrite=overwrite)


C_SOURCE = ".c"
C_SOURCES = {C_SOURCE, SKETCH}
"""Suffixes of C source, alone and in a project for boards, which are written and never read."""

WRITERS: dict[str, Callable[..., Path]] = {
    ".safetensors": write_safetensors,
    ".net": _write_netx,
    ".hdf5": _write_netx,
    ".nir": write_nir,
    C_SOURCE: write_c,
    SKETCH: write_project,
}

PROBLEMS: dict[str, Callable[[ChipForm], list[str]]] = {
    ".net": netx_problems,
    ".hdf5": netx_problems,
    ".nir": nir_problems,
    C_SOURCE: c_problems,
    SKETCH: c_problems,
}
"""Functions that return what a format cannot hold of a network; `.safetensors` holds every one."""

CHAINS = {suffix for suffix, write in WRITERS.items() if write is _write_netx}
"""Suffixes of formats that hold only chains of layers."""
NAMES_LENGTH = 200
"""Largest number of characters of the option `--classes` that a note repeats."""

MODEL_SUFFIXES = {*FileKind, *WRITERS, ".pth", ".h5"} - C_SOURCES
"""Suffixes that mark a name as that of a model file; C source is none, as nothing reads it back."""


def read_model(path: str | Path, hints: Hints = Hints()) -> Model:
    """Read a model of any format, detected from the content rather than the suffix.

    A relative path of its data is one from the file's folder, and becomes absolute if there is something.

    Raises:
        UnsupportedError: no reader for this kind of file, or a network that snnzoo cannot represent.
        ConversionError: a hint is missing, or is not used for this kind of file; an argument has the wrong type.
        IntegrityError: the file is damaged or not a model; the message says what it is.
    """
    path = check_path(path, "read_model takes the path of a file", error=ConversionError)
    check_type(hints, Hints, "hints must be a Hints", advice="Hints(time_steps=4) makes one", error=ConversionError)
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
            f"{path}: leave out {' and '.join(map(option_name, sorted(useless)))}: a {kind} file does not need it, or "
            "contains the value"
        )
    model = reader(path, **given)
    if reader is not read_safetensors and not model.card.keys() & {"training", "conversion"}:
        model = replace(model, card={**model.card, "conversion": {"source": path.name, **hints.as_json()}})
    if path.suffix in set(FileKind) - {kind}:
        model = replace(model, notes=(f"the content is that of a {kind} file, so it was read as one", *model.notes))
    return replace(model.with_data(partial(found_data, folder=path.parent)), origin=str(path))


def write_model(
    model: Model | Network, path: str | Path, *, overwrite: bool = False, c: COptions | None = None
) -> Path:
    """Write a model, or a network without a card, to a file in the format of its suffix.

    The path of data in the file's folder is written relative to it, so that both can be moved together.

    Args:
        model: the model; it is not changed.
        path: file to write; for C source, `NAME.c`, also its header `NAME.h`. A text that ends with a slash, `FOLDER/`,
            writes C source with an Arduino sketch and a CMakeLists.txt; see `write_project`.
        overwrite: whether a file that exists is replaced.
        c: options of C source; without effect for other formats.

    Raises:
        ConversionError: an argument has the wrong type, or a file exists and `overwrite` is false.
        UnsupportedError: no writer for the suffix, or a network that the format cannot express.
        IntegrityError: a card that the file cannot hold; see `check_card`.
    """
    check_path(path, "write_model takes the path of a file", error=ConversionError)
    path = sketch_path(path)
    check_writable_format(path)
    if isinstance(model, Network):
        model = Model.of(model)
    advice = "pass its .model" if isinstance(getattr(model, "model", None), Model) else ""
    check_type(model, Model, "write_model takes a Model or a Network", advice=advice, error=ConversionError)
    check_card(dict(model.card), f"cannot write {path}")
    write = (
        partial(WRITERS[path.suffix], options=c) if c is not None and path.suffix in C_SOURCES else WRITERS[path.suffix]
    )
    return write(model.with_data(partial(stored_data, folder=path.parent)), path, overwrite=overwrite)


def files_of(path: Path, c: COptions) -> list[Path]:
    """Return the files that `write_model` writes for a path: for C source, its header, too, or the whole project."""
    if path.suffix == SKETCH:
        return project_files(path, c)
    return [path, header_of(path)] if path.suffix == C_SOURCE else [path]


def check_writable_format(*paths: Path) -> None:
    """Raise `UnsupportedError` if there is no writer for one of the suffixes; call it before long work.

    Raises `ConversionError` for names that C source cannot have.
    """
    for path in paths:
        if path.suffix not in WRITERS:
            raise UnsupportedError(f"cannot write {path}: no writer for {path.suffix or 'a file with no suffix'} "
                                   f"(known: {', '.join(WRITERS)}, and FOLDER/ for boards)")  # fmt: skip
        if path.suffix == C_SOURCE:
            check_c_name(path)
        if path.suffix == SKETCH:
            check_sketch_name(path)


def file_entry(path: Path) -> dict[str, str]:
    """Return path, format and sha256 of a written file, for JSON and pages."""
    return {"path": str(path), "format": path.suffix[1:], "sha256": sha256_of(path)}


def format_notes(model: Model, suffix: str) -> list[str]:
    """Return notes on how a model in a file of this suffix differs from the model itself."""
    spec = model.spec
    notes = how_lava_runs(spec) if suffix in CHAINS else []
    if suffix in CHAINS and not spec.without_classes and model.classes != tuple(map(str, range(spec.n_classes))):
        option = classes_as_option(model.classes)
        given = option if len(option) <= NAMES_LENGTH else "--classes"
        notes.append(f"a {suffix} file holds no names of classes: where you use it, give them with {given}")
    if suffix in {FileKind.SAFETENSORS, *C_SOURCES}:
        return notes
    notes += problems_by_place("block", map(notes_on_kernel, spec.layers))
    if any(spec.input.padding):
        pads, border = list(pads_of(spec.input.padding)), ", ".join(f"{level:.4g}" for level in spec.input.border)
        notes.append(
            f"snnzoo pads the images for this file by {pads} (top, left, bottom, right) with pixels of {border}, where "
            "1 is white; in another program, pad them yourself"
        )
    return notes


def problems_in(form: ChipForm, suffix: str) -> list[str]:
    """Return what the format of a suffix cannot hold of a network, as `write_model` would refuse it."""
    return PROBLEMS[suffix](form) if suffix in PROBLEMS else []
