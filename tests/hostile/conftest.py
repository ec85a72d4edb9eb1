"""Fixtures that read hostile files with the public reader and the command line, under the limits of fuzz/limited.py.

A test module has a table `CASES`: `{name: (target, content, reason)}`. `content` is bytes, or a function that writes a
file or a folder to a path; `reason` is a pattern that the error, without the name of the file, must match. `check_case`
runs one case.
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
"""Stem of the name of every file."""


def without_name(text: str, path: Path) -> str:
    """Remove the names of the file and its folder from a message, since they could match a pattern by chance.

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
    """Return a function that reads a hostile file and checks outcome, limits, and that nothing else was opened."""

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
    """Return a function that checks that a case is refused with a short error that names the file and the fault."""

    def check_case(case: Case) -> None:
        target, content, reason = case
        outcome = attempt(target, content, command=TARGETS[target].command if request.param == "command" else "")
        assert outcome.kind == "refused", outcome
        told = without_name(outcome.text, tmp_path / f"{STEM}{TARGETS[target].suffix}")
        assert re.search(reason, told), outcome.text
        assert STEM in outcome.text or "tiny" in outcome.text  # the name of the file, or of its network
        assert len(outcome.text) < 1200

    return check_case
