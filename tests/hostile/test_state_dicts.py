"""Files that are not state dicts, and hostile state dicts."""

import io
import pickle

import pytest
import safetensors.torch
import torch

from converters.file_migration import migrate_file
from converters.formats.export_advice import EXPORT_ADVICE
from specs import ConversionError, IntegrityError, UnsupportedError

G = torch.tensor([[5.0], [2.0]])
LEGACY = {"a.weight_g": G, "a.weight_v": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def pickled(content) -> bytes:
    data = io.BytesIO()
    torch.save(content, data)
    return data.getvalue()


def scripted() -> bytes:
    data = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), data)
    return data.getvalue()


SAFE = safetensors.torch.save(LEGACY)
HOSTILE = {
    "bomb.pt": (lambda: pickled({"a": Bomb()}), ConversionError, r"holds Python objects \(print\)"),
    "bare.pt": (lambda: pickle.dumps({"a": Bomb()}, protocol=2), ConversionError, r"holds Python objects \(print\)"),
    "huge.pt": (
        lambda: b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x7f\x85R.",
        IntegrityError,
        "not a file of torch",
    ),
    "cut.pt": (lambda: pickled(LEGACY)[:-30], IntegrityError, "damaged"),
    "text.pt": (lambda: b"hello, world\n", IntegrityError, "is text, not a model"),
    "empty.pt": (lambda: b"", IntegrityError, "is empty"),
    "page.bin": (lambda: b"\n<!DOCTYPE html><html>", IntegrityError, "is a web page"),
    "lfs.pth": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", IntegrityError, "git lfs pull"),
    "name.pt": (lambda: pickled({"a\nb": G}), IntegrityError, r"'a\\nb' is not a valid tensor name"),
    "number.pt": (lambda: pickled({1: G}), IntegrityError, "1 is not a valid tensor name"),
    "meta.pt": (lambda: pickled({"a": G.to("meta")}), IntegrityError, "a was saved from the meta device"),
    "name.safetensors": (lambda: safetensors.torch.save({"a\x1b[2J": G}), IntegrityError, "is not a valid tensor name"),
    "empty.safetensors": (lambda: b"", IntegrityError, "is empty"),
    "text.safetensors": (lambda: b"hello, world\n", IntegrityError, "not a safetensors file"),
    "cut.safetensors": (lambda: SAFE[:-1], IntegrityError, "damaged"),
    "long.safetensors": (lambda: SAFE + b"x", IntegrityError, "damaged"),
    "header.safetensors": (lambda: b"\xff" * 8 + SAFE[8:], IntegrityError, "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_state_dict_is_told_in_a_line(tmp_path, capfd, name) -> None:
    make, kind, message = HOSTILE[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(kind, match=message) as error:
        migrate_file(tmp_path / name, tmp_path / "out.pt", to="plain")
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value).removesuffix(f"\n{EXPORT_ADVICE}")
    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_pickled_module_is_told(tmp_path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(UnsupportedError, match=r"Linear; save only the tensors .*model\.state_dict\(\)"):
        migrate_file(tmp_path / "a.pt", tmp_path / "out.pt", to="plain")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_told(tmp_path) -> None:
    (tmp_path / "a.pt").write_bytes(scripted())
    with pytest.raises(ConversionError, match="is TorchScript"):
        migrate_file(tmp_path / "a.pt", None, to="plain")
