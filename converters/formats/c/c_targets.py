"""Targets of C source: input files of its programs, a folder for boards, and a module for web pages."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bootstrap_core.data.frames import Frames
from bootstrap_core.data.splits import Split
from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import plan_of
from converters.formats.c.c_writer import COptions, c_texts, render_c
from converters.formats.c.sketch_name import SKETCH, sketch_path
from converters.model import Model
from specs.arguments import check_type
from specs.errors import ConversionError, DataError, UnsupportedError
from specs.files.whole_file import refuse_overwriting, whole_file, write_together, write_whole
from specs.network import NetworkSpec
from specs.shapes import fit_input

BATCH = 256
CMAKE = "CMakeLists.txt"
SKETCH_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
"""Names of sketches that Arduino allows (its sketch specification)."""
COMPILER, LINKER = "clang", "wasm-ld"
COMPILE_S = 240
LIBRARY = """#include <stddef.h>
void *memset(void *, int, size_t);
void *memcpy(void *restrict, const void *restrict, size_t);
"""
"""All that the source needs of string.h; clang has stdint.h itself."""
OPTIONS = ("--target=wasm32", "-ffreestanding", "-nostdlib", "-O2", "-Wl,--no-entry", "-Wl,--strip-all", "-I.")


def labels_path(path: Path) -> Path:
    """Return the path of the labels that are written beside inputs."""
    return path.with_suffix(".labels")


def write_inputs(split: Split, spec: NetworkSpec, path: Path, *, labelled: bool = True) -> Path:
    """Write the inputs of a split for a program made with -DPREFIX_STDIN, and their labels beside them.

    Images are bytes in the order channel, row, column; recordings have such a frame for each step. Counts of events of
    more than 8 bits are numbers of 16 bits, in this machine's byte order. Labels are a text file, a number a line; if
    they mean nothing (`labelled=False`), a file of older ones is removed. Files that are there are overwritten.
    """
    frame = tuple(split.images.shape[-3:])
    if split.has_events != spec.input.is_events or not fit_input(frame, spec.input.shape):
        kind = "recordings of events" if spec.input.is_events else "images"
        raise DataError(
            f"{spec.name} takes {kind} of {list(spec.input.shape)}, not uint8 {list(split.images.shape[1:])}"
        )
    number = torch.uint16 if spec.input.is_events and spec.input.bits > 8 else torch.uint8
    with whole_file(path) as file:
        for first in range(0, len(split), BATCH):
            file.write(split.images[first : first + BATCH].to(number).contiguous().numpy().tobytes())
    labels_path(path).unlink(missing_ok=True)
    if labelled:
        write_whole(labels_path(path), "".join(f"{label}\n" for label in split.labels.tolist()).encode())
    return path


def write_frames(given: Frames, spec: NetworkSpec, path: Path) -> Path:
    """Write recordings of frames for a program made with -DPREFIX_STDIN of a network that gives values.

    Pixels have 8 bits with sign, or 16 if the network's have more than 8, in this machine's byte order, in the order
    step, channel, row, column.
    """
    number = torch.int16 if spec.input.bits > 8 else torch.int8
    with whole_file(path) as file:
        for i in range(len(given)):
            file.write(given.inputs(slice(i, i + 1)).to(number).contiguous().numpy().tobytes())
    return path


def project_files(sketch: Path, options: COptions) -> list[Path]:
    """Return the files of a project: the sketch, `CMakeLists.txt`, and source and header of the network."""
    stem = f"{options.prefix}_network"
    return [sketch, *(sketch.with_name(name) for name in (CMAKE, f"{stem}.c", f"{stem}.h"))]


def check_sketch_name(path: Path) -> None:
    """Raise `ConversionError` unless Arduino can open a sketch of this path: folder and file have the same name."""
    if path.stem != path.absolute().parent.name:
        raise ConversionError(f"{path}: a sketch lies in a folder of its own name: {path.stem}/{path.name}")
    if not SKETCH_NAME.fullmatch(path.stem):
        raise ConversionError(
            f"{path}: the name of a sketch must consist of up to 63 letters, digits and any of _ . -, and not begin "
            "with . or -"
        )


def write_project(model: Model, path: str | Path, options: COptions | None = None, *, overwrite: bool = False) -> Path:
    """Write a folder with C source of a model, an Arduino sketch and a CMakeLists.txt; return the path of the sketch.

    The sketch reads inputs from the serial port, as `zoo data export` writes them, and answers each with a line. CMake
    builds the source as a library, and on the machine itself also its self-test, for ctest.

    Args:
        model, options, overwrite: see `write_c`.
        path: the folder, with a slash at its end, or the sketch, `NAME/NAME.ino`.

    Raises as `write_c` does, and `ConversionError` for a folder that is no name of a sketch.
    """
    advice = "Model.of makes one from a network"
    check_type(model, Model, "write_project takes a Model", advice=advice, error=ConversionError)
    path, options = sketch_path(path), options or COptions()
    if path.suffix != SKETCH:
        raise ConversionError(f"{path}: must be a folder, as in {path}/, or the path of a sketch, NAME/NAME{SKETCH}")
    check_sketch_name(path)
    sketch, cmake, source, header = files = project_files(path, options)
    refuse_overwriting(*files, overwrite=overwrite)
    of_header, of_source = c_texts(model, source.stem, options)
    plan, p = plan_of(form_of_network(model.build())), options.prefix
    names = {"plan": plan, "p": p, "P": p.upper(), "stem": source.stem, "name": path.stem}
    texts = {header: of_header, source: of_source}
    texts |= {cmake: render_c(f"{CMAKE}.jinja", names), sketch: render_c("sketch.ino.jinja", names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_together({file: text.encode("ascii") for file, text in texts.items()})
    return path


@dataclass(frozen=True)
class SpikingLayer:
    """Layer whose spikes can be read from the module: its name, such as `1 dense`, and its number of neurons."""

    name: str
    size: int


@dataclass(frozen=True)
class WasmModule:
    """A network as a WebAssembly module.

    Attributes:
        code: the module. It imports nothing. `browser.c.jinja` says what it exports.
        layers: layers whose spikes it lists, in order.
        units: divisor of the logits after each of the network's T steps, for those of the network.
        index_bytes: bytes of the place of a spike, 2 or 4.
        input_bytes: bytes of an input, 1 or 2.
    """

    code: bytes
    layers: tuple[SpikingLayer, ...]
    units: tuple[int, ...]
    index_bytes: int
    input_bytes: int


def compile_wasm(model: Model) -> WasmModule:
    """Compile a model's C source to WebAssembly, with clang and lld.

    Raises:
        UnsupportedError: the source cannot express the network, or gives values; or clang or lld is missing, or fails.
    """
    if model.spec.gives_values:
        raise UnsupportedError(f"{model.spec.name} gives values, not classes")
    if missing := [name for name in (COMPILER, LINKER) if shutil.which(name) is None]:
        raise UnsupportedError(f"it needs clang and lld: {' and '.join(missing)} not found")
    plan = plan_of(form_of_network(model.build()))
    header, source = c_texts(model, "model", COptions())
    glue = render_c("browser.c.jinja", {"plan": plan, "given_type": f"uint{8 * plan.input_bytes}_t"})
    texts = {"model.h": header, "model.c": source, "browser.c": glue, "string.h": LIBRARY}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text, "ascii")
        try:
            done = subprocess.run(
                [COMPILER, *OPTIONS, "browser.c", "-o", "model.wasm"],
                cwd=folder, capture_output=True, text=True, errors="replace", timeout=COMPILE_S, check=False,
            )  # fmt: skip
        except OSError as error:
            raise UnsupportedError(f"cannot run {COMPILER}: {error.strerror or error}") from None
        except subprocess.TimeoutExpired:
            raise UnsupportedError(f"{COMPILER} takes more than {COMPILE_S} s") from None
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            raise UnsupportedError(f"{COMPILER} cannot compile it for WebAssembly: {said[:200]}")
        code = (folder / "model.wasm").read_bytes()
    return WasmModule(
        code,
        tuple(SpikingLayer(f"{each.index} {model.spec.layers[each.index].kind}", each.size) for each in plan.spiking),
        tuple(plan.unit_after(t) for t in range(1, plan.time_steps + 1)),
        plan.index_bytes,
        plan.input_bytes,
    )
