"""Builds the native library: the same sources once for each kind of CPU. Everything else is in pyproject.toml.

The library is optional: without a compiler the package installs all the same, and runs on torch alone.
"""

import platform
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = "bootstrap_core/ops/native"
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fwrapv",
    "-fopenmp-simd",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
]
KINDS = {
    "x86_64": {
        "": ["-march=x86-64"],
        "-avx2": ["-mavx2", "-mfma", "-mbmi2", "-mpopcnt"],
        "-avx512": ["-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"],
    },
    "arm64": {"": ["-march=armv8.2-a+dotprod"]},
    "aarch64": {"": ["-march=armv8-a"]},
}
"""Flags of each library on each kind of machine; `ops/library.py` loads the best that the CPU runs."""

SLOWER = (
    "the native library could not be built, since a C++ compiler is missing or failed: training and inference will run "
    "on torch alone, many times slower, with the same spikes"
)


class LibraryDistribution(Distribution):
    """Has a library, but no module that one version of Python alone could load."""

    def has_ext_modules(self) -> bool:
        return True


class BuildLibrary(build_ext):
    """Builds plain shared libraries, each in a folder of its own."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name a library without Python's version, as it does not depend on it."""
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Export nothing by name: this is not a Python module."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Build one library; a failure is a warning, not an error."""
        temporary = self.build_temp
        self.build_temp = str(Path(temporary) / ext.name)
        try:
            super().build_extension(ext)
        except Exception as error:
            self.warn(f"{SLOWER} ({error})")
        finally:
            self.build_temp = temporary


class AnyPythonWheel(bdist_wheel):
    """Wheels for one kind of machine and all versions of Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def libraries() -> list[Extension]:
    """Return the libraries to build on this kind of machine, one for each kind of CPU."""
    sources = sorted(str(path) for path in Path(FOLDER).glob("*.cpp"))
    headers = sorted(str(path) for path in Path(FOLDER).glob("*.h"))
    return [
        Extension(
            f"bootstrap_core.ops.libsnnzoo{kind}",
            sources,
            depends=headers,
            extra_compile_args=[*FLAGS, *flags],
            language="c++",
            optional=True,
        )
        for kind, flags in KINDS.get(platform.machine(), {"": []}).items()
    ]


setup(
    distclass=LibraryDistribution,
    ext_modules=libraries(),
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
)
