"""The valid files from which fuzzing starts."""

import pytest
from reader_targets import TARGETS
from structure import CHANGES
from valid_files import valid_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    folder = tmp_path_factory.mktemp("made")
    valid_files(folder)
    return valid_files(folder)  # a fuzzer that died makes them again


@pytest.mark.parametrize("target", TARGETS)
def test_each_is_read_and_can_be_changed(attempt, files, target: str) -> None:
    assert target in CHANGES
    for content in files[target]:
        outcome = attempt(target, content)
        assert outcome.kind == "read", outcome
