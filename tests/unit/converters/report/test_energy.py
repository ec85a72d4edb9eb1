import pytest

from converters.report.energy import estimate_energy
from specs.network import NetworkSpec


def spec(encoding: str) -> NetworkSpec:
    entering = {"shape": [4], "encoding": encoding}
    blocks = [{"kind": "dense", "features": 3}, {"kind": "affine", "features": 2}]
    return NetworkSpec.model_validate({
        "name": "e", "time_steps": 4, "neuron": {"threshold": 1.0}, "input": entering, "blocks": blocks,
    })  # fmt: skip


def test_a_synop_of_a_spike_adds_and_a_mac_multiplies_too() -> None:
    found = {e.program: e.nanojoules for e in estimate_energy(spec("spike"), [0, 1000, 500], 2000)}
    assert list(found) == [
        "ANN, 32-bit floats", "SNN, 32-bit floats", "ANN, were it in 8 bits", "SNN, 8-bit weights", "SNN, Loihi",
    ]  # fmt: skip
    assert list(found.values()) == pytest.approx([2 * (0.9 + 3.7), 1.5 * 0.9, 2 * (0.1 + 0.2), 1.5 * 0.1, 1.5 * 23.6])
    skipping = {e.program: e.nanojoules for e in estimate_energy(spec("spike"), [0, 1000, 500], 2000, 600)}
    assert skipping.items() > found.items()
    assert skipping["ANN, 32-bit floats, zeros skipped"] == pytest.approx(0.6 * (0.9 + 3.7))
    assert skipping["ANN, were it in 8 bits, zeros skipped"] == pytest.approx(0.6 * (0.1 + 0.2))


def test_graded_pixels_are_multiplied_in_the_first_layer_with_weights() -> None:
    found = [e.nanojoules for e in estimate_energy(spec("graded"), [0, 1000, 500])]
    assert found == pytest.approx([1.5 * 0.9 + 3.7, 1.5 * 0.1 + 0.2, 1.5 * 23.6])
