"""Conversions on a few images."""

import pytest


@pytest.fixture
def few_images(monkeypatch) -> None:
    """Calibrate on 400 images instead of 4,096, as that takes most of the time of a conversion."""
    monkeypatch.setattr("converters.ann_to_snn.best_candidate.MOST", 400)
