"""The number type of products in training."""

import threading
from pathlib import Path

import pytest
import torch

from bootstrap_core.ops import precision
from bootstrap_core.ops.precision import HALF_FROM, gradient_dtype, link_dtype, product_dtype, products_in
from specs.training import Precision


@pytest.mark.parametrize(
    ("tiles", "vectors", "intel", "faster"),
    [(True, True, True, True), (False, True, True, False), (False, True, False, True), (False, False, False, False)],
)
def test_bfloat16_is_multiplied_where_that_is_faster(monkeypatch, tiles, vectors, intel, faster) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors, raising=False)
    monkeypatch.setattr(precision, "_is_intel", lambda: intel)
    assert precision.multiplies_half.__wrapped__() is faster


@pytest.mark.parametrize(("text", "intel"), [("vendor_id : GenuineIntel", True), ("vendor_id : AuthenticAMD", False)])
def test_intel_is_told_by_the_system(monkeypatch, text, intel) -> None:
    monkeypatch.setattr(precision.platform, "processor", lambda: "x86_64")
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: text)
    assert precision._is_intel() is intel


@pytest.mark.parametrize(
    ("given", "device", "half"),
    [
        (Precision.FLOAT32, "cpu", (False, False)),
        (Precision.FLOAT32, "cuda", (False, False)),
        (Precision.BFLOAT16, "cpu", (True, True)),
        (Precision.AUTO, "cpu", (False, True)),
        (Precision.AUTO, "cuda", (True, True)),
    ],
)
def test_auto_is_bfloat16_where_the_machine_is_faster(given, device, half, monkeypatch) -> None:
    for faster, expected in zip((False, True), half, strict=True):
        monkeypatch.setattr(precision, "multiplies_half", lambda faster=faster: faster)
        assert product_dtype(given, device) == (torch.bfloat16 if expected else torch.float32)


def test_products_are_rounded_from_so_many_multiplications_on() -> None:
    assert HALF_FROM == 1 << 24
    with products_in(Precision.BFLOAT16):
        assert gradient_dtype(HALF_FROM - 1) == torch.float32
        assert gradient_dtype(HALF_FROM) == torch.bfloat16
    with products_in(Precision.FLOAT32):
        assert gradient_dtype(1 << 40) == torch.float32


def test_the_choice_ends_with_its_block_also_after_an_error() -> None:
    with products_in(Precision.BFLOAT16):
        with products_in(Precision.FLOAT32):
            assert gradient_dtype(HALF_FROM) == torch.float32
        assert gradient_dtype(HALF_FROM) == torch.bfloat16
    with pytest.raises(ValueError, match="inside"), products_in(Precision.BFLOAT16):
        raise ValueError("inside")
    assert gradient_dtype(HALF_FROM) == torch.float32


@pytest.mark.parametrize("faster", [False, True])
def test_without_a_choice_and_in_other_threads_it_is_auto(faster, monkeypatch) -> None:
    monkeypatch.setattr(precision, "multiplies_half", lambda: faster)
    found = []
    with products_in(Precision.FLOAT32 if faster else Precision.BFLOAT16):
        thread = threading.Thread(target=lambda: found.append(gradient_dtype(HALF_FROM)))
        thread.start()
        thread.join()
    assert found == [torch.bfloat16 if faster else torch.float32]


@pytest.mark.parametrize(("change", "dtype"), [(0, torch.bfloat16), (1, torch.float32)])
def test_gradients_go_back_in_the_type_of_products_of_so_many_outputs(change, dtype, monkeypatch) -> None:
    monkeypatch.setattr(precision, "HALF_FROM", precision.LEAST_OUTPUTS * 12 + change)
    with products_in(Precision.BFLOAT16):
        assert link_dtype(torch.zeros(3, 4)) == dtype
        assert link_dtype(None) == torch.float32
    assert link_dtype(torch.zeros(3, 4)) == torch.float32
