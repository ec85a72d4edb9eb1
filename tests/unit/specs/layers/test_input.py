"""Input of a network, and the pictures of sounds."""

import pytest

from specs import InputSpec, SpecError
from specs.layers.input import LogMelSpec

FLAT = (6,)


def test_recordings_become_images_of_the_inputs_shape() -> None:
    picture = {"bands": 12, "frames": 10}
    for shape in ((1, 12, 10), (120,)):
        InputSpec.model_validate({"shape": shape, "log_mel": picture})
    with pytest.raises(SpecError, match=r"makes images of \[1, 12, 10\], but input.shape is \[1, 10, 12\]"):
        InputSpec.model_validate({"shape": (1, 10, 12), "log_mel": picture})


def test_only_a_network_of_sounds_tells_how_they_become_images() -> None:
    assert "log_mel" not in InputSpec(shape=FLAT).model_dump()
    heard = InputSpec(shape=(1, 40, 48), log_mel=LogMelSpec())
    assert InputSpec.model_validate_json(heard.model_dump_json()) == heard


@pytest.mark.parametrize("rates", [{"sample_rate": 4000}, {"low_hz": 4000.0}, {"high_hz": 4001}])
def test_bands_end_between_their_start_and_half_the_rate(rates: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=r"high_hz: must be above low_hz .* and at most half the sample_rate"):
        LogMelSpec.model_validate(rates)
