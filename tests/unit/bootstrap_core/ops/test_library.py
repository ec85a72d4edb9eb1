"""The native library: when it runs, which file is loaded, and equal results of all files."""

import ctypes
import ctypes.util
import os
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core import ops
from bootstrap_core.ops import library
from bootstrap_core.ops.activation import activate
from bootstrap_core.ops.input_neurons import InputCurrent, input_spikes
from bootstrap_core.ops.library import (
    LANES,
    Layer,
    Neurons,
    call,
    describe,
    is_installed,
    n_threads,
    runs_native,
    without_native,
)
from bootstrap_core.ops.neurons import NeuronConstants, fire
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.ops.spiking_layer import Operands, spiking_layer
from bootstrap_core.ops.synapses import Connection
from bootstrap_core.ops.weighted_input import weigh
from specs.layers.block import ConvSpec

FOLDER = Path(ops.__file__).parent
KINDS = {
    path.name: kind for kind, path in enumerate(FOLDER / f"libsnnzoo{dash}.so" for dash in ("", "-avx2", "-avx512"))
}
DENSE, CONV, POOL = (
    None,
    ConvSpec(channels=20, kernel=(3, 2), stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)),
    ConvSpec(channels=3, kernel=(2, 2), stride=(2, 2), groups=3),
)


def run_all(drawn_spikes: Callable[..., Tensor], drawn_weight: Callable[..., Tensor]) -> dict[str, list[Tensor]]:
    """Run each operator; return its results, which must be equal, and its gradients, which must be close."""
    neurons = NeuronConstants(
        torch.tensor([0.5]), torch.tensor([0.125]), 1.25, tau_grad=0.1, shift=True, bias=torch.zeros(1)
    )
    exact, close = list[Tensor](), list[Tensor]()

    def take(x: Tensor, *leaves: Tensor) -> None:
        grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
        exact.append(x.detach())
        close.extend(torch.autograd.grad(x, leaves, grad, retain_graph=True))  # spikes are differentiated twice

    weights = {
        (3 * 7 * 6,): (drawn_weight(70, 126), DENSE),
        (3, 7, 6): (drawn_weight(20, 3, 3, 2), CONV),
        (3, 8, 6): (drawn_weight(3, 1, 2, 2), POOL),
    }
    for shape, (weight, spec) in weights.items():
        for steps in (16, 40):
            leaf, learnt = drawn_spikes(steps, 3, *shape).requires_grad_(), weight.clone().requires_grad_()
            spikes, connection = Spikes.of(leaf).packed(), Connection(learnt, spec)
            take(spiking_layer([spikes], Operands((connection,), neurons)).spikes.tensor(), leaf, learnt)
            take(weigh(spikes, connection), leaf, learnt)
    z = torch.randn(40, 3, 33, generator=torch.Generator().manual_seed(4)).requires_grad_()
    take(fire(z, neurons, 40).tensor(), z)
    own = torch.randn(33, 33, generator=torch.Generator().manual_seed(8)).mul(16).round().div(32)
    exact.append(fire(z.detach(), replace(neurons, recurrent=own), 40).tensor())
    numbers = torch.tensor([1.5], requires_grad=True), torch.tensor([0.25], requires_grad=True)
    images = torch.rand(3, 50, generator=torch.Generator().manual_seed(5))
    inputs = NeuronConstants(torch.ones(1), torch.tensor([0.125]), 1.25, tau_grad=0.1)
    spikes = input_spikes(images, InputCurrent(*numbers, 0.1, 0.5), inputs, 40)
    take(spikes.tensor(), *numbers)
    fired = spiking_layer([spikes], Operands((Connection(drawn_weight(33, 50)),), neurons)).spikes.tensor()
    take(fired, *numbers)
    centers = torch.tensor([[0.0, 0.0], [0.5, 0.25], [1.0, 1.0]])
    rates = activate(z, centers, torch.tensor([0.5, 1.5]))
    close += [rates.detach(), *torch.autograd.grad(rates.sum(), z)]
    return {"exact": exact, "close": close}


def hold_same(
    found: dict[str, list[Tensor]], expected: dict[str, list[Tensor]], hold_close: Callable[..., None]
) -> None:
    assert len(found["exact"]) == len(expected["exact"]) > 10
    assert all(torch.equal(a, b) for a, b in zip(found["exact"], expected["exact"], strict=True))
    hold_close(found["close"], expected["close"], 1e-4)


def test_without_native_the_definitions_run_until_its_block_ends() -> None:
    x = torch.zeros(1)
    assert runs_native(x) == runs_native() == is_installed()
    with without_native():
        assert not runs_native(x)
        assert describe().startswith("torch alone")
        with without_native():
            assert not runs_native(x)
        assert not runs_native(x)
        assert fire(torch.ones(2, 1, 1), NeuronConstants(torch.ones(1), torch.ones(1), 1.0), 2).words is None
    assert runs_native(x) == is_installed()
    with pytest.raises(ValueError, match="inside"), without_native():
        raise ValueError("inside")
    assert runs_native(x) == is_installed()


def test_tensors_elsewhere_and_compilers_have_the_definitions(monkeypatch) -> None:
    x = torch.zeros(1)
    assert not runs_native(x, torch.zeros(1, device="meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not runs_native(x)


def test_a_missing_library_changes_no_result(drawn_spikes, drawn_weight, hold_close, monkeypatch) -> None:
    expected = run_all(drawn_spikes, drawn_weight)
    monkeypatch.setattr(library, "_library", lambda: None)
    hold_same(run_all(drawn_spikes, drawn_weight), expected, hold_close)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder in which the loader looks for libraries."""
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    return tmp_path


def test_without_a_file_there_is_no_library(folder) -> None:
    assert library._library.__wrapped__() is None


def test_a_file_that_is_not_a_library_is_none(folder) -> None:
    (folder / "libsnnzoo.so").write_bytes(b"no library")
    assert library._library.__wrapped__() is None


def test_a_library_of_somebody_else_is_none(folder) -> None:
    name = ctypes.util.find_library("m")
    if name is None or sys.platform != "linux":
        pytest.skip("needs libm of Linux as a foreign library")
    place = next((path for root in ("/lib", "/usr/lib") for path in Path(root).rglob(name)), None)
    if place is None:
        pytest.skip("needs libm of Linux as a foreign library")
    shutil.copy(place, folder / "libsnnzoo.so")
    assert library._library.__wrapped__() is None


def best_kind() -> int:
    """Return the best kind of library for this CPU."""
    best: int = ctypes.CDLL(str(FOLDER / "libsnnzoo.so")).snn_best_kind()
    return best


@pytest.mark.parametrize("name", KINDS)
def test_each_library_that_this_cpu_runs_gives_the_same(
    name, native, folder, drawn_spikes, drawn_weight, hold_close, monkeypatch
) -> None:
    """The best library in the folder for this CPU is loaded, and returns the same results as the others."""
    if not (FOLDER / name).exists():
        pytest.skip("not built on this kind of machine")
    if KINDS[name] > best_kind():
        pytest.skip("this CPU does not run it")
    for each in {"libsnnzoo.so", name}:
        shutil.copy(FOLDER / each, folder / each)
    loaded = library._library.__wrapped__()
    if name != "libsnnzoo.so":
        assert loaded._name == str(folder / name)
        assert loaded.snn_kind() == KINDS[name]
    expected = run_all(drawn_spikes, drawn_weight)
    monkeypatch.setattr(library, "_library", lambda: loaded)
    kind = library._KINDS[loaded.snn_kind()]
    assert describe() == (f"native library ({kind})" if kind else "native library")
    hold_same(run_all(drawn_spikes, drawn_weight), expected, hold_close)


def test_a_library_that_is_broken_is_passed_over_for_the_next(native, folder) -> None:
    if best_kind() == 0:
        pytest.skip("this CPU has no better kind")
    shutil.copy(FOLDER / "libsnnzoo.so", folder / "libsnnzoo.so")
    for name in KINDS:
        if name != "libsnnzoo.so":
            (folder / name).write_bytes(b"")
    assert library._library.__wrapped__()._name == str(folder / "libsnnzoo.so")


def test_without_openmp_one_thread_does_all(
    native, folder, drawn_spikes, drawn_weight, hold_close, with_threads, monkeypatch
) -> None:
    expected = run_all(drawn_spikes, drawn_weight)
    for path in FOLDER.glob("libsnnzoo*.so"):
        shutil.copy(path, folder / path.name)
    monkeypatch.setattr(library, "_parallel_region", lambda: None)
    loaded = library._library.__wrapped__()
    monkeypatch.setattr(library, "_library", lambda: loaded)
    with_threads(3)
    hold_same(run_all(drawn_spikes, drawn_weight), expected, hold_close)


def test_threads_are_torch_s_but_one_after_a_fork(monkeypatch, with_threads) -> None:
    with_threads(3)
    assert n_threads() == 3
    monkeypatch.setattr(library, "_STARTED_IN", os.getpid() + 1)
    assert n_threads() == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_thread_without_memory_is_an_error(threads, native, with_threads) -> None:
    """Neurons that need a petabyte raise a MemoryError."""
    with_threads(threads)
    with pytest.raises(MemoryError, match="snn_neurons"):
        call("snn_neurons", Layer(2, 1, 1, 1 << 44, LANES), Neurons(), None, True)


C_TYPES = {
    "int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "float": ctypes.c_float, "double": ctypes.c_double,
    "SynapseKind": ctypes.c_int32,
}  # fmt: skip


def fields_of(text: str, struct: str) -> list[tuple[str, Any]]:
    """Return the fields of a struct in a C++ header as `ctypes` fields."""
    body = re.search(rf"struct {struct} {{(.*?)\n}};", text, re.DOTALL)[1]
    body = "\n".join(line.split("//")[0] for line in body.splitlines() if "(" not in line.split("//")[0])
    fields = []
    for declaration in filter(None, (part.strip() for part in body.split(";"))):
        kind, names = re.fullmatch(r"(?:const )?(\w+)\s*(.+)", declaration, re.DOTALL).groups()
        for name in (name.strip() for name in names.split(",")):
            of = C_TYPES.get(kind)
            if name.startswith("*") or names.startswith("*"):
                of = ctypes.c_void_p
            elif array := re.fullmatch(r"(\w+)\[(\d)\]", name):
                name, of = array[1], of * int(array[2])
            fields.append((name.strip("* "), of))
    return fields


@pytest.mark.parametrize(
    ("header", "struct"),
    [
        ("neurons.h", "Neurons"), ("synapses.h", "Synapse"), ("library.h", "Layer"), ("library.h", "Backward"),
        ("library.h", "WeightGradient"), ("library.h", "SteadyGradient"), ("library.h", "InputScaling"),
        ("library.h", "Curve"), ("library.h", "Fold"),
    ],
)  # fmt: skip
def test_records_have_the_fields_of_the_headers(header: str, struct: str) -> None:
    found = fields_of((FOLDER / "native" / header).read_text(), struct)
    assert found == list(getattr(library, struct)._fields_)


def test_functions_have_the_parameters_of_the_header() -> None:
    text = re.sub(r"//.*", "", (FOLDER / "native" / "library.h").read_text())
    declared = {name: len(given.split(",")) for name, given in re.findall(r"int64_t (snn_\w+)\(([^)]*)\)", text)}
    assert declared == {name: len(parameters) + 1 for name, parameters in library._SIGNATURES.items()}


def test_threads_that_prepare_at_once_get_the_same_arrays(monkeypatch) -> None:
    """Records point into arrays, so an array that another thread's replaces would be freed."""
    connection, barrier = Connection(torch.ones(3, 8)), Barrier(2, timeout=30)
    pack = Connection._pack
    monkeypatch.setattr(Connection, "_pack", lambda self, before: (barrier.wait(), pack(self, before))[1])
    with ThreadPoolExecutor(2) as pool:
        first, second = (found.result() for found in [pool.submit(connection.packed, (8,)) for _ in range(2)])
    assert first is second is connection.packed((8,))
