"""Write a folder for boards: C source of a network, an Arduino sketch that runs it, and a CMakeLists.txt."""

import re
from pathlib import Path

from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import plan_of
from converters.formats.c.c_writer import COptions, c_texts, render_c
from converters.formats.c.sketch_name import SKETCH, sketch_path
from converters.model import Model
from specs.arguments import check_type
from specs.errors import ConversionError
from specs.files.whole_file import refuse_overwriting, write_together

CMAKE = "CMakeLists.txt"
SKETCH_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
"""Names of sketches that Arduino allows (its sketch specification)."""


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
