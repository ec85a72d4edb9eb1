from math import prod

import pytest

from specs import AffineSpec, AverageSpec, AvgPoolSpec, ConvSpec, CubaSpec, DenseSpec, FlattenSpec
from specs.layers.block import BLOCK_KINDS
from specs.layers.layer import Layer

MAPS, FLAT = (4, 9, 8), (6,)
LAYERS = [
    (DenseSpec(features=5), FLAT),
    (AffineSpec(features=3), FLAT),
    (AverageSpec(features=3), FLAT),
    (FlattenSpec(), MAPS),
    (ConvSpec(channels=6, kernel=(3, 2), stride=(2, 1), padding=(1, 1), groups=2), MAPS),
    (ConvSpec(channels=8, kernel=3, dilation=2), MAPS),
    (AvgPoolSpec(kernel=(2, 3), padding=(1, 0)), MAPS),
]


def test_every_kind_is_tested_here() -> None:
    assert {type(layer) for layer, _ in LAYERS} == set(BLOCK_KINDS)


@pytest.mark.parametrize(("layer", "before"), LAYERS)
def test_operations_are_the_sum_of_the_fan_out(layer: Layer, before: tuple[int, ...]) -> None:
    factors = layer.fan_out(before)
    assert len(factors) == len(before)
    sums = [sum(axis) * (side if len(axis) == 1 else 1) for axis, side in zip(factors, before, strict=True)]
    assert layer.n_synops(before) == prod(sums)
    assert all(len(axis) in {1, side} for axis, side in zip(factors, before, strict=True))


def test_problems_depend_on_the_neuron() -> None:
    assert list(AvgPoolSpec(kernel=2).problems(CubaSpec())) == []
    assert [field for field, _ in AvgPoolSpec(kernel=2, gain=0.01).problems(CubaSpec())] == ["kernel"]
    normed = DenseSpec.model_validate({"features": 2, "norm": "mean_only"})
    assert list(normed.problems(CubaSpec())) == []
    assert [field for field, _ in normed.problems(CubaSpec(current_decay=0))] == ["norm"]
