from collections.abc import Callable

import pytest

from specs import SpecError, parse_spec


@pytest.fixture
def refusal() -> Callable[[str], str]:
    """Return a function that parses a spec named net.yaml and returns the message of its error."""

    def message(text: str) -> str:
        with pytest.raises(SpecError) as caught:
            parse_spec(text, origin="net.yaml")
        return str(caught.value)

    return message
