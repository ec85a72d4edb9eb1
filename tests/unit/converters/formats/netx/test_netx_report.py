"""Layer tables and differences of netx networks."""

from dataclasses import replace

import numpy as np
import pytest

from converters.chip.form import INTEGRATOR, ChipForm, ChipLayer, ChipNeurons, ChipSynapses
from converters.formats.netx.netx_report import LAYER_COLUMNS, describe_layer, differences, layer_row, neuron_rows
from specs.shapes import Window

NEURON = ChipNeurons(80, np.array([4096]), np.array([1024]))
DENSE = ChipLayer("dense", (2,), (ChipSynapses(0, np.array([[-4, 0, 6], [8, 0, 10]])),), np.array([1, -7]), NEURON)
KERNELS = ChipSynapses(0, np.zeros((2, 1, 2, 2), np.int64), Window((2, 2), (2, 1), (0, 0), (1, 1), 1))
CONV = ChipLayer("conv", (2, 3, 3), (KERNELS,), None, NEURON)
READOUT = replace(DENSE, neurons=replace(NEURON, threshold_mant=262143))


def network(*layers: ChipLayer, time_steps: int = 4) -> ChipForm:
    return ChipForm(layers, time_steps)


def told(a: ChipForm, b: ChipForm) -> list[tuple[int | None, str]]:
    return [(d.layer, d.what) for d in differences(a, b)]


def test_a_row_has_the_shape_the_levels_the_threshold_and_the_decays() -> None:
    row = dict(zip(LAYER_COLUMNS, layer_row(3, DENSE), strict=True))
    assert row == {
        "layer": "3 dense", "shape": "2", "kernel": "", "weights": "6", "range": "-4..10", "levels": "5",
        "histogram": "▆ █  ▆▆▆", "bias": "-7..1",
    }  # fmt: skip


def test_a_row_of_a_convolution_names_what_is_not_the_default() -> None:
    assert layer_row(0, CONV)[2] == "2x2 s2x1"
    grouped = Window((3, 1), (1, 1), (1, 0), (2, 2), 4)
    assert layer_row(0, CONV.with_own(window=grouped))[2] == "3x1 p1x0 d2x2 g4"


def test_layers_of_equal_neurons_share_a_line() -> None:
    learnt = replace(DENSE, neurons=replace(NEURON, voltage_decay=np.array([5, 3])))
    assert neuron_rows(network(DENSE, learnt, ChipLayer("flatten", (2, 1, 1)), DENSE)) == [
        ["0, 3", "CUBA", "80 = 1.25", "4096 = 1", "1024 = 0.25"],
        ["1", "CUBA", "80 = 1.25", "4096 = 1", "3..5, for each channel"],
    ]


def test_described_layers_count_levels_zeros_and_bins() -> None:
    facts = describe_layer(DENSE)
    assert facts["weight"] == {
        "shape": [2, 3], "n": 6, "min": -4, "max": 10, "zeros": 2, "levels": 5, "histogram": [1, 0, 2, 0, 0, 1, 1, 1]
    }  # fmt: skip
    assert facts["neuron"]["threshold"] == 1.25
    assert facts["neuron"]["voltage_decay"] == [0.25]


def test_a_histogram_has_at_most_sixteen_bins_and_loses_nothing() -> None:
    weight = 2 * np.arange(-128, 128).reshape(2, -1)
    histogram = describe_layer(replace(DENSE.with_own(weight=weight), bias=None))["weight"]["histogram"]
    assert histogram == [16] * 16


CHANGES = {
    "weight": DENSE.with_own(weight=DENSE.weight + np.array([[0, 0, 2], [0, 0, 0]])),
    "bias": replace(DENSE, bias=np.array([1, -6])),
    "threshold": replace(DENSE, neurons=replace(NEURON, threshold_mant=81)),
    "iDecay": replace(DENSE, neurons=replace(NEURON, current_decay=np.array([4095]))),
    "vDecay": replace(DENSE, neurons=replace(NEURON, voltage_decay=np.array([1024, 1025]))),
    "type": CONV,
    "shape": replace(DENSE, shape=(3,)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_difference_is_told_with_its_layer(what) -> None:
    assert told(network(CONV, DENSE), network(CONV, CHANGES[what])) == [(1, what)]


def test_numbers_that_differ_are_counted_and_the_largest_told() -> None:
    (found,) = differences(network(DENSE), network(CHANGES["weight"]))
    assert (found.n, found.n_differing, found.largest) == (6, 1, 2)
    assert found.text == "1 of 6 differ (16.7 %), by up to 2"


def test_geometry_time_steps_and_missing_layers() -> None:
    other = CONV.with_own(window=Window((2, 2), (1, 1), (0, 0), (1, 1), 1))
    assert told(network(CONV), network(other)) == [(0, "geometry")]
    assert told(network(CONV), network(CONV, time_steps=5)) == [(None, "time steps")]
    assert told(network(CONV), network(CONV, DENSE)) == [(1, "layer")]
    assert told(network(replace(DENSE, bias=None)), network(DENSE)) == [(0, "bias")]


def test_readouts_that_never_fire_are_alike_however_they_say_it() -> None:
    silent = replace(DENSE, neurons=INTEGRATOR)
    assert told(network(replace(DENSE, neurons=None)), network(silent)) == []
    assert told(network(READOUT), network(replace(READOUT, neurons=replace(NEURON, threshold_mant=131071)))) == []
    assert told(network(READOUT), network(DENSE)) == [(0, "threshold")]


def test_old_shapes_are_alike() -> None:
    old = ChipLayer("flatten", (1, 1, 18))
    assert told(network(old), network(ChipLayer("flatten", (18, 1, 1)))) == []
    assert told(network(replace(DENSE, shape=(2, 1, 1))), network(DENSE)) == []
