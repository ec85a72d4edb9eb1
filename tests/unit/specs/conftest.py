from collections.abc import Callable

import pytest

from specs import SpecError, parse_spec


@pytest.fixture
def refusal() -> Callable[[str], str]:
    """The message with which a spec's text, called net.yaml, is refused."""

    def message(text: str) -> str:
        with pytest.raises(SpecError) as caught:
            parse_spec(text, origin="net.yaml")
        return str(caught.value)

    return message
