"""Compile the C source of models, score whole test sets with it, and compare with the integer engine.

    python tests/benchmarks/check_c.py [MODEL...] [--few N] [--whole BUILD...] [--data-dir DIR] [--output FILE]

MODEL is an argument as for `zoo eval`, of a network of images; default: all packaged ones. `check_c_events.py` has
those of events. Each model is compiled by gcc and clang, if they are there: with -O2 for all test images, and with -O0
and with sanitizers for the first N. BUILD, such as "gcc -O2", names other builds for all test images. Times are those
of one image with one thread, of the program and of the native library. With arm-none-eabi-gcc and qemu-system-arm,
models also run their self-test on a Cortex-M4, where memory is measured and instructions are counted; with
riscv64-linux-gnu-gcc and qemu-riscv64, on a RISC-V processor. Exits with 1 if a single answer differs.
"""

import json
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from programs import arguments, cpu_model, stamp, write_report
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from c_programs import answers, compile_c

from bootstrap_core import IntegerNetwork, load_dataset
from converters import Model
from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import c_costs, plan_of
from converters.formats.c.c_writer import COptions, write_c
from specs.io import load_spec
from zoo.cli.given_model import usual_data
from zoo.factory import model_names
from zoo.runs.card_files import card_of
from zoo.runs.golden import golden_images
from zoo.sources import read_source

BUILDS = {
    "-O2": ("-O2",),
    "-O0": ("-O0",),
    "sanitizers": ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}
FASTEST = ("-O3", "-march=native")
EXACT = 1 << 22
"""Bound on logits in integer units below which the rounding of float32 logits does not reach the next integer."""
TIMED = 200
"""Number of images that are timed one by one."""
BOARD = Path(__file__).parent / "cortex_m4"
ARM = ("arm-none-eabi-gcc", "-std=c99", "-O2", "-mcpu=cortex-m4", "-mthumb")
RISCV64 = ("riscv64-linux-gnu-gcc", "qemu-riscv64")
QEMU = ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-icount", "shift=0", "-semihosting-config")


def expected_of(exact: IntegerNetwork, images: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Return classes `[N]` and logits `[N, classes]` of the integer engine, in units of 1/`unit`."""
    logits = torch.cat([exact(part) for part in images.split(250)])
    in_units = (logits.double() * unit).round().long()
    assert in_units.abs().max() < EXACT, "float32 logits do not tell one integer from the next"
    return logits.argmax(1), in_units


def n_different(program: Path, images: Tensor, expected: tuple[Tensor, Tensor]) -> int:
    """Return the number of images whose class or logits differ."""
    classes, logits = map(torch.from_numpy, answers(program, images))
    return int(((classes != expected[0]) | (logits != expected[1]).any(1)).sum())


def milliseconds(program: Path, images: Tensor) -> float:
    """Return the processor time of an image."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    answers(program, images)
    return (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) / len(images) * 1e3


def native_milliseconds(exact: IntegerNetwork, images: Tensor) -> float:
    """Return the processor time of an image in the integer engine, one by one."""
    torch.set_num_threads(1)
    exact(images[:1])
    before = time.process_time()
    for i in range(len(images)):
        exact(images[i : i + 1])
    return (time.process_time() - before) / len(images) * 1e3


def on_cortex_m4(source: Path) -> dict[str, Any]:
    """Run a source's self-test in qemu; return what it says, the sizes of its parts, and its instructions."""
    program, compiled = source.with_suffix(".elf"), source.with_suffix(".o")
    include = f'-DMODEL="{source.name}"'
    board = [
        "--specs=rdimon.specs",
        "-T",
        str(BOARD / "mps2.ld"),
        str(BOARD / "startup.c"),
        str(BOARD / "instructions.c"),
    ]
    subprocess.run([*ARM, "-c", str(source), "-o", str(compiled)], check=True)
    subprocess.run([*ARM, include, f"-I{source.parent}", *board, "-o", str(program)], check=True)
    text, data, _ = (
        subprocess.run(["arm-none-eabi-size", str(compiled)], check=True, capture_output=True, text=True)
        .stdout.splitlines()[1]
        .split()[:3]
    )
    command = [*QEMU, "enable=on,target=native", "-kernel", str(program)]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500).stdout.splitlines()
    show, step = re.findall(r"(\d+) (?:instructions to show|for each)", said[-1])
    return {
        "self_test": said[0],
        "flash_bytes": int(text) + int(data),
        "instructions_show": int(show),
        "instructions_step": int(step),
    }


def on_riscv64(source: Path) -> str:
    """Run a source's self-test in qemu on a 64-bit RISC-V processor; return what it says."""
    program = source.with_suffix(".riscv64")
    command = [RISCV64[0], "-std=c99", "-O2", "-static", "-DSNN_SELFTEST", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return subprocess.run([RISCV64[1], program], check=False, capture_output=True, text=True).stdout.strip()


def compare(source: str, few: int, whole: list[str], data_dir: Path | None, folder: Path) -> dict[str, Any]:
    """Compare C with the integer engine on one model; return its row of the report."""
    model: Model = read_source(source)[0]
    card = card_of(source)
    written = write_c(
        model, folder / "model.c", COptions(images=None if card is None else golden_images(card.golden)), overwrite=True
    )
    exact = IntegerNetwork(model.build())
    data = load_dataset(usual_data(model), data_dir=data_dir, log_mel=model.spec.input.log_mel)
    compilers = list(filter(shutil.which, ("gcc", "clang")))
    builds = {f"{compiler} {name}": (compiler, flags) for compiler in compilers for name, flags in BUILDS.items()}
    images = data.test.images if builds.keys() & whole else data.test.images[:few]
    form = form_of_network(model.build())
    unit = plan_of(form).unit_after(exact.spec.time_steps)
    expected, costs = expected_of(exact, images, unit), c_costs(form)
    row: dict[str, Any] = {
        "data": data.name,
        "images": len(images),
        "builds": {},
        "accuracy": float((expected[0] == data.test.labels[: len(images)]).float().mean()),
        "constants_bytes": costs.flash_bytes,
        "ram_bytes": costs.ram_bytes,
        "native_ms": native_milliseconds(exact, images[:TIMED]),
        "c_ms": {},
    }
    for build, (compiler, flags) in builds.items():
        n = len(images) if build in whole else min(few, len(images))
        program = compile_c(written, "-DSNN_STDIN", *flags, compiler=compiler)
        different = n_different(program, images[:n], (expected[0][:n], expected[1][:n]))
        row["builds"][build] = {"images": n, "different": different}
        if build.endswith("-O2"):
            row["c_ms"][build] = milliseconds(program, images[:TIMED])
    for compiler in compilers:
        program = compile_c(written, "-DSNN_STDIN", *FASTEST, compiler=compiler)
        row["c_ms"][f"{compiler} {' '.join(FASTEST)}"] = milliseconds(program, images[:TIMED])
    if shutil.which(ARM[0]) and shutil.which(QEMU[0]):
        row["cortex_m4"] = on_cortex_m4(written)
    if all(map(shutil.which, RISCV64)):
        row["riscv64"] = on_riscv64(written)
    return row


def main() -> None:
    """Compare each model."""
    parser = arguments(__doc__, output="c.json")
    parser.add_argument("models", nargs="*", help="default: all packaged models")
    parser.add_argument("--few", type=int, default=300, help="images for other builds; default: 300")
    parser.add_argument("--whole", nargs="*", default=["gcc -O2", "clang -O2"], help="builds that score the whole set")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for name in options.models or [name for name in model_names() if not load_spec(name).input.is_events]:
        with TemporaryDirectory() as folder:
            rows[name] = row = compare(name, options.few, options.whole, options.data_dir, Path(folder))
        print(f"{name}: {json.dumps(row)}", flush=True)
    known = json.loads(options.output.read_text("utf-8"))["models"] if options.output.exists() else {}
    report = {**stamp(), "cpu": cpu_model(), "models": dict(sorted((known | rows).items()))}
    write_report(options.output, report)
    sys.exit(any(map(is_wrong, rows.values())))


def is_wrong(row: dict[str, Any]) -> bool:
    """Return whether an answer of a row differs, or the self-test failed."""
    return (
        any(build["different"] for build in row["builds"].values())
        or row.get("cortex_m4", {}).get("self_test", "ok") != "ok"
    )


if __name__ == "__main__":
    main()
