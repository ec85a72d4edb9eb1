"""Progress where stderr is no terminal: one estimate, or a line from time to time."""

import pytest

from converters.cli.console import ProgressLine


def test_long_work_says_from_time_to_time_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for every_s, told in ((0.0, ["1 of 3 batches", "2 of 3 batches"]), (60.0, [])):
        line = ProgressLine("epoch 1", "batches", every_s=every_s)
        for done in range(4):
            line(done, 3)
        said = capsys.readouterr().err.splitlines()
        assert [text.partition(", about ")[0] for text in said] == [f"epoch 1: {each}" for each in told]
