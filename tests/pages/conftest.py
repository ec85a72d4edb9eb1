"""The browser that all tests of pages share."""

from collections.abc import Iterator

import pytest
from chromium import NAMES, Chromium, find_chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip(f"needs Chromium: set $CHROMIUM, or have one of {', '.join(NAMES)} on the path")
    chromium = Chromium(program)
    yield chromium
    chromium.close()
