"""Products of spikes with int8 weights are those of whole numbers, whatever instructions the CPU has."""

import os
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.kernels import exact_products
from bootstrap_core.kernels.exact_products import PackedConvolution, PackedWeight

CONVOLUTIONS = [
    {}, {"stride": (2, 1), "padding": (1, 2)}, {"dilation": (2, 1), "padding": (2, 0)}, {"groups": 4}, {"groups": 12}
]  # fmt: skip


def weights(*shape: int) -> Tensor:
    """Of the whole range, with rows of its ends."""
    weight = torch.randint(-128, 128, shape, dtype=torch.int8)
    weight[0], weight[1] = -128, 127
    return weight


def spikes(*shape: int) -> Tensor:
    some = (torch.rand(shape) < 0.5).to(torch.int8)
    some[0] = 1
    return some


def hold_exact() -> None:
    """What each of the products gives is what int64, or float64, gives."""
    for outputs, inputs, rows in [(37, 3000, 29), (512, 512, 1024), (10, 7, 1), (2, 1, 3), (5, 6, 0)]:
        weight, x = weights(outputs, inputs), spikes(max(rows, 1), inputs)[:rows]
        assert torch.equal(PackedWeight(weight).weigh(x).long(), x.long() @ weight.long().T)
    for geometry in CONVOLUTIONS:
        weight, x = weights(24, 12 // geometry.get("groups", 1), 3, 3), spikes(5, 9, 8, 12)
        expected = F.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), **geometry)
        ours = PackedConvolution(weight, **geometry).weigh(x)
        assert ours.is_contiguous()
        assert torch.equal(ours.permute(0, 3, 1, 2).double(), expected)


def test_dilation_of_a_kernel_of_one_does_not_end_the_process() -> None:
    geometry = {"stride": (2, 2), "padding": (1, 1), "dilation": (2, 2)}
    weight, x = weights(8, 1, 3, 1), spikes(400, 196, 1, 1)
    expected = F.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), **geometry)
    assert torch.equal(PackedConvolution(weight, **geometry).weigh(x).permute(0, 3, 1, 2).double(), expected)


@pytest.mark.parametrize("packs", [True, False])
def test_spikes_are_weighed_exactly(packs: bool, monkeypatch) -> None:
    if not packs:
        monkeypatch.setattr(exact_products, "can_pack", lambda: False)
    elif not exact_products.can_pack():
        pytest.skip("this torch packs no weights")
    hold_exact()


def test_a_weight_is_packed_for_each_shape_but_not_kept_for_many() -> None:
    weight = PackedWeight(weights(64, 96))
    for rows in (1, 300, 2, 1, 77, 5, 40, 300, 3):
        x = spikes(rows, 96)
        assert torch.equal(weight.weigh(x).long(), x.long() @ weight.weight[:, :, 0, 0].long().T)
        assert len(weight.packed) <= exact_products.MOST_SHAPES


def test_a_weight_that_is_packed_can_be_copied() -> None:
    packed, x = PackedWeight(weights(7, 40)), spikes(3, 40)
    product = packed.weigh(x)
    assert torch.equal(deepcopy(packed).weigh(x), product)


@pytest.mark.parametrize("largest", [0, 15, 255, 1 << 12])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_other_whole_numbers_are_weighed_exactly(largest, precision) -> None:
    weight, x = weights(9, 700), torch.randint(0, largest + 1, (6, 700), dtype=torch.int32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(PackedWeight(weight).weigh(x).long(), x.long() @ weight.long().T)
    finally:
        torch.set_float32_matmul_precision(before)


def test_sums_that_float32_would_round_are_exact() -> None:
    weight, x = torch.full((1, 132_501), 127, dtype=torch.int8), torch.ones(2, 132_501, dtype=torch.int8)
    assert PackedWeight(weight).weigh(x).tolist() == [[127 * 132_501]] * 2


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_cpus_without_the_newest_instructions_are_exact(instructions: str) -> None:
    """oneDNN is told to do without, which changes nothing where the CPU has none of them anyway."""
    run = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


if __name__ == "__main__":
    hold_exact()
