"""The C source of a network, compiled to WebAssembly, so that the same integers run in a browser."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import plan_of
from converters.formats.c.c_writer import COptions, c_texts, render_c
from converters.model import Model
from specs.errors import UnsupportedError

COMPILER, LINKER = "clang", "wasm-ld"
COMPILE_S = 240
LIBRARY = """#include <stddef.h>
void *memset(void *, int, size_t);
void *memcpy(void *restrict, const void *restrict, size_t);
"""
"""All that the source needs of string.h; clang has stdint.h itself."""
OPTIONS = ("--target=wasm32", "-ffreestanding", "-nostdlib", "-O2", "-Wl,--no-entry", "-Wl,--strip-all", "-I.")


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
