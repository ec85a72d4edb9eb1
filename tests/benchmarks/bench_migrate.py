"""Measure time and memory of `migrate` on a safetensors file of 4 GiB.

    python tests/benchmarks/bench_migrate.py [--gib N] [--folder DIR]

Prints the wall time and the peak memory (ru_maxrss) of each command, beside the size of the largest tensor.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 2**20
LARGEST = 32768, 4096
"""Shape of the largest tensor, 512 MiB in float32."""


def make(path: Path, gib: int) -> None:
    """Write a legacy state dict of one large linear layer and smaller ones, piece by piece."""
    import torch

    from converters.formats.state_dict_file import write_safetensors_pieces
    from converters.weight_norm.migration_plan import TensorSpec

    shapes = [LARGEST, *[(4096, 4096)] * (16 * gib - 8)]
    specs = [
        TensorSpec(f"layers.{i}.{name}", torch.float32, shape)
        for i, (rows, columns) in enumerate(shapes)
        for name, shape in (("weight_g", (rows, 1)), ("weight_v", (rows, columns)), ("bias", (rows,)))
    ]
    torch.manual_seed(0)
    with write_safetensors_pieces(path, specs, {}) as write:
        for spec in specs:
            for start in range(0, spec.n_elements, MIB):
                write(spec.name, start, torch.rand(min(MIB, spec.n_elements - start)) + 0.1)


def run(*command: str | Path) -> tuple[float, float]:
    """Run a Python child process; return its seconds and its peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if process.returncode or status:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Measure `migrate`. A child process makes the file: ru_maxrss of later children starts at that of this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=4)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make, arguments.gib)
        return
    migrate = "from converters.cli import main_migrate; main_migrate()"
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        legacy, plain, other = (Path(folder) / f"{name}.safetensors" for name in ("legacy", "plain", "other"))
        run(__file__, "--make", legacy, "--gib", str(arguments.gib))
        print(f"{legacy.stat().st_size / 2**30:.2f} GiB; largest tensor {LARGEST[0] * LARGEST[1] * 4 / MIB:.0f} MiB")
        print(f"import torch alone: {run('-c', 'import torch')[1]:.0f} MiB")
        for source, output, style in (
            (legacy, other, "parametrized"),
            (legacy, plain, "plain"),
            (plain, other, "legacy"),
        ):
            seconds, peak = run("-c", migrate, source, "--to", style, "-o", output, "--force")
            print(f"{source.stem} -> {style}: {seconds:.1f} s, peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
