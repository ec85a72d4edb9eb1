"""Hostile files, read by the public reader and by the command line, under the limits of tests/fuzz/limited.py.

A module has a table `CASES`: `{name: (target, content, reason)}`. `content` is bytes, or `content(path)` makes a file
or a folder; `reason` is a pattern that the error, without the name of the file, must match. `check_case` runs one.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from limited import BYTES, SECONDS, Outcome, Server
from reader_targets import TARGETS

Content = bytes | Callable[[Path], object]
Case = tuple[str, Content, str]
STEM = "hostile"
"""Of every file's name."""


def without_name(text: str, path: Path) -> str:
    """A message without the file's path and name, nor its folder's, which would match a pattern whatever is wrong.

    >>> without_name("cannot read folder/hostile.npz: a pipe; of hostile", Path("folder/hostile.npz"))
    'cannot read : a pipe; of '
    """
    for name in (str(path), str(path.parent), path.name, STEM):
        text = text.replace(name, "")
    return text


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def attempt(server: Server, tmp_path: Path) -> Callable[..., Outcome]:
    """Read a file, or let `zoo` do it: within the limits, with no traceback, and nothing else opened or begun."""

    def attempt(target: str, content: Content, *, command: str = "", suffix: str | None = None) -> Outcome:
        path = tmp_path / f"{STEM}{TARGETS[target].suffix if suffix is None else suffix}"
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        outcome = server.call(target, path, command=command)
        assert outcome.allowed, outcome
        assert outcome.seconds < SECONDS
        assert outcome.mib < BYTES >> 20
        return outcome

    return attempt


@pytest.fixture(params=["reader", "command"])
def check_case(
    request: pytest.FixtureRequest, attempt: Callable[..., Outcome], tmp_path: Path
) -> Callable[[Case], None]:
    """Whether a case is refused, in few words that name the file and what is wrong."""

    def check_case(case: Case) -> None:
        target, content, reason = case
        outcome = attempt(target, content, command=TARGETS[target].command if request.param == "command" else "")
        assert outcome.kind == "refused", outcome
        told = without_name(outcome.text, tmp_path / f"{STEM}{TARGETS[target].suffix}")
        assert re.search(reason, told), outcome.text
        assert STEM in outcome.text or "tiny" in outcome.text  # the file, or the network that it names
        assert len(outcome.text) < 1200

    return check_case
