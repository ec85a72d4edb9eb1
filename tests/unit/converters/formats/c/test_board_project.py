"""Projects for boards: CMake builds them, ctest passes, and the Arduino sketch answers what arrives at its port."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from converters.formats.c.c_targets import write_project
from converters.formats.c.c_writer import COptions
from converters.formats.model_files import write_model
from converters.model import Model
from specs.errors import ConversionError
from specs.network import NetworkSpec
from zoo.factory import packaged_model

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
needs_cpp = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
ARDUINO = """
#include <chrono>
#include <cstdio>
#include <cstdlib>
static unsigned long micros()
{
    return (unsigned long)(std::chrono::steady_clock::now().time_since_epoch().count() / 1000);
}
static struct {
    void begin(long) {}
    void setTimeout(long) {}
    size_t readBytes(char *to, size_t n) {
        const size_t found = fread(to, 1, n, stdin);
        if (found == 0) { exit(0); }
        return found;
    }
    void print(long number) { printf("%ld", number); }
    void print(char letter) { putchar(letter); }
    void println(unsigned long number) { printf("%lu\\n", number); }
} Serial;
#include "NAME.ino"
int main() { setup(); for (;;) { loop(); } }
"""


def run_sketch(sketch: Path, given: bytes, prefix: str = "snn") -> list[list[int]]:
    """Return the numbers of each line that the sketch prints, with a serial port that is standard input."""
    source, program = sketch.parent / "board.cpp", sketch.parent / "board"
    source.write_text(ARDUINO.replace("NAME", sketch.stem))
    network = sketch.parent / "network.o"
    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Werror", "-c", sketch.parent / f"{prefix}_network.c", "-o", network], check=True
    )
    subprocess.run(["c++", "-Wall", "-Werror", source, network, "-o", program], check=True)
    done = subprocess.run([program], input=given, capture_output=True, check=True)
    return [list(map(int, line.split())) for line in done.stdout.splitlines()]


@needs_cmake
def test_cmake_builds_a_project_and_its_test_passes(tmp_path: Path) -> None:
    sketch = write_project(packaged_model("mnist-dense-shallow"), f"{tmp_path}/digits/", COptions(prefix="digits"))
    assert sketch == tmp_path / "digits/digits.ino"
    names = ["CMakeLists.txt", "digits.ino", "digits_network.c", "digits_network.h"]
    assert sorted(file.name for file in sketch.parent.iterdir()) == names
    build = tmp_path / "build"
    for command in (
        ["cmake", "-S", sketch.parent, "-B", build],
        ["cmake", "--build", build],
        ["ctest", "--test-dir", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "1 tests passed" in done.stdout or "100% tests passed" in done.stdout
    firmware = tmp_path / "CMakeLists.txt"
    firmware.write_text(
        "cmake_minimum_required(VERSION 3.10)\nproject(firmware C)\nadd_subdirectory(digits)\n"
        "add_executable(firmware main.c)\ntarget_link_libraries(firmware PRIVATE digits_network)\n"
    )
    (tmp_path / "main.c").write_text('#include "digits_network.h"\nint main(void) { return DIGITS_INPUTS != 784; }\n')
    for command in (["cmake", "-S", tmp_path, "-B", tmp_path / "own"], ["cmake", "--build", tmp_path / "own"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run([tmp_path / "own/firmware"], check=True)


@needs_cpp
def test_a_sketch_of_images_answers_with_their_classes(tmp_path: Path) -> None:
    model, images = packaged_model("mnist-dense-shallow"), load_dataset("mnist-sample").test.images[:5]
    sketch = write_model(model, f"{tmp_path}/board/")
    lines = run_sketch(sketch, images.numpy().tobytes())
    assert [number for number, _ in lines] == IntegerNetwork(model.build())(images).argmax(1).tolist()


@needs_cpp
@pytest.mark.parametrize("neuron", ["cuba", "sigma_delta"])
def test_a_sketch_of_recordings_answers_after_their_last_step(tmp_path: Path, neuron: str) -> None:
    document = {
        "name": "seen",
        "time_steps": 5,
        "neuron": {"kind": neuron},
        "input": {"shape": [6], "encoding": "events" if neuron == "cuba" else "frames"},
        "blocks": [{"kind": "affine", "features": 3}],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    sketch = write_project(Model.of(network), f"{tmp_path}/board/")
    given = torch.randint(0, 2, (5, 1, 6), generator=torch.Generator().manual_seed(0))
    expected = IntegerNetwork(network)(given)
    header = (sketch.parent / "snn_network.h").read_text()
    n_bytes = next(
        n for n in (1, 2, 4) if f"int{8 * n}_t {'events' if neuron == 'cuba' else 'frame'}[SNN_INPUTS]" in header
    )
    numbers = given.numpy().astype(f"<{'u' if neuron == 'cuba' else 'i'}{n_bytes}").tobytes()
    (line,) = run_sketch(sketch, numbers)
    if neuron == "cuba":
        assert line[0] == int(expected.argmax())
    else:
        unit = next(float(text.split()[2]) for text in header.splitlines() if text.startswith("#define SNN_VALUE_UNIT"))
        assert [value / unit for value in line[:3]] == pytest.approx(expected[0].tolist(), abs=1e-6)


def test_folders_that_are_no_names_of_sketches_and_files_that_exist_are_refused(tmp_path: Path) -> None:
    model = packaged_model("mnist-dense-shallow")
    for name, told in (
        ("my board/", "the name of a sketch must consist of"),
        ("-a/", "not begin with"),
        ("a", "must be a folder"),
    ):
        with pytest.raises(ConversionError, match=told):
            write_project(model, f"{tmp_path}/{name}")
    with pytest.raises(ConversionError, match=r"a sketch lies in a folder of its own name: b/b\.ino"):
        write_model(model, tmp_path / "a/b.ino")
    assert list(tmp_path.iterdir()) == []
    write_model(model, f"{tmp_path}/board/")
    with pytest.raises(ConversionError, match=r"CMakeLists\.txt and .* exists"):
        write_model(model, f"{tmp_path}/board/")
    write_model(model, tmp_path / "board/board.ino", overwrite=True)
