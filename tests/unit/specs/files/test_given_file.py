import pytest

from specs.errors import SnnZooError
from specs.files.given_file import HEAD_BYTES, check_given_file, is_text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", True),
        (b"name: a", True),
        ("ü".encode() * HEAD_BYTES, True),
        (b"x" + "ü".encode() * HEAD_BYTES, True),  # the last character is cut in two
        (b"a\0b", False),
        (b"\xff\xd8\xff", False),
    ],
)
def test_text_is_utf8_without_nulls(tmp_path, content, text) -> None:
    (tmp_path / "a").write_bytes(content)
    assert is_text(tmp_path / "a") is text


def test_a_missing_file_is_guessed_from_those_beside_it(tmp_path) -> None:
    (tmp_path / "model.net").touch()
    with pytest.raises(SnnZooError, match=r"modle\.net: No such file or directory; did you mean model\.net\?"):
        check_given_file(tmp_path / "modle.net")
    with pytest.raises(SnnZooError, match=r"No such file or directory$"):
        check_given_file(tmp_path / "other" / "model.net")
