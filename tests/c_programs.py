"""Compile C sources of networks, and run them on images."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler: cc, gcc or clang")
WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")

Ints = npt.NDArray[np.int64]


def compile_c(source: Path, *flags: str, compiler: str | None = None) -> Path:
    """Return the program that a compiler makes of a C source; a warning is an error."""
    program = source.with_suffix(".program")
    command = [compiler or COMPILER or "cc", *WARNINGS, *flags, str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def run(program: Path, given: bytes = b"", *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program with standard input."""
    return subprocess.run([program, *arguments], input=given, capture_output=True, check=False)


def as_bytes(images: torch.Tensor) -> bytes:
    """Return images `[N, ...]` or recordings `[N, T, ...]` as a program reads them."""
    return images.contiguous().numpy().tobytes()


def answers(program: Path, images: torch.Tensor, *arguments: str) -> tuple[Ints, Ints]:
    """Return classes `[N]` and logits `[N, classes]` of images or recordings, from a program made with -DSNN_STDIN.

    Raises `AssertionError` if the program failed, counted an overflow, or has another number of answers.
    """
    rows = _rows(run(program, as_bytes(images), *arguments))
    assert len(rows) == len(images)
    return rows[:, 0], rows[:, 1:]


BY_STEP = """
#include "{name}"
#include <stdio.h>

#ifdef SNN_VALUES
#define SNN_CLASSES SNN_VALUES
static int32_t snn_logits(const snn_state *state, int32_t values[SNN_VALUES])
{{
    snn_values(state, values);
    return 0;
}}
#endif

static snn_state state;
static {type} inputs[SNN_INPUTS];

int main(void)
{{
    int32_t logits[SNN_CLASSES];
    for (;;) {{
        for (int t = 0; t < {steps}; ++t) {{
#ifdef SNN_MOST_STEPS
            if (fread(inputs, sizeof *inputs, SNN_INPUTS, stdin) != SNN_INPUTS) {{
                return 0;
            }}
            if (t == 0) {{
                snn_init(&state);
            }}
            snn_step(&state, inputs);
#else
            if (t == 0) {{
                if (fread(inputs, sizeof *inputs, SNN_INPUTS, stdin) != SNN_INPUTS) {{
                    return 0;
                }}
                snn_show(&state, inputs);
            }}
            snn_step(&state);
#endif
            printf("%ld", (long)snn_logits(&state, logits));
            for (int c = 0; c < SNN_CLASSES; ++c) {{
                printf(" %ld", (long)logits[c]);
            }}
            putchar('\\n');
            if (state.overflows) {{
                return 1;
            }}
        }}
    }}
}}
"""
"""Program that prints class and logits after each step, of each image or recording; for values, 0 as the class."""


def answers_by_step(
    source: Path, inputs: torch.Tensor, steps: int, *flags: str, compiler: str | None = None
) -> tuple[Ints, Ints]:
    """Return classes `[T, N]` and logits `[T, N, classes]` after each of `steps` steps, from the source of a network.

    `inputs` are images `[N, ...]`, or recordings `[N, T, ...]`, in the type that the source takes. Values are logits of
    class 0.
    """
    main = source.with_name("by_step.c")
    of_type = str(inputs.dtype).removeprefix("torch.")
    main.write_text(BY_STEP.format(name=source.name, type=f"{of_type}_t", steps=steps))
    rows = _rows(run(compile_c(main, *flags, compiler=compiler), as_bytes(inputs)))
    table = rows.reshape(len(inputs), steps, -1).swapaxes(0, 1)
    return table[..., 0], table[..., 1:]


def _rows(done: subprocess.CompletedProcess[bytes]) -> Ints:
    assert done.returncode == 0, done.stderr.decode()
    return np.array([list(map(int, line.split())) for line in done.stdout.splitlines()], np.int64)
