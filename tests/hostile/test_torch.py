"""torch checkpoints that run code, unpack without end, or do not contain a state dict."""

import io
import math
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from valid_files import saved, state_dict, zipped

from converters.formats.lava_checkpoint import read_checkpoint
from specs.errors import UnsupportedError


class Run:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_pickle(pickled: bytes) -> bytes:
    """Return a checkpoint with another pickle."""
    return zipped({**entries(saved(state_dict())), "archive/data.pkl": pickled})


def twice(data: bytes) -> bytes:
    """Return the archive with a second entry of the first entry's name."""
    written = io.BytesIO(data)
    with zipfile.ZipFile(written, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"other")
    return written.getvalue()


def key_of_tuples() -> bytes:
    """Return a pickle of `{t: 1}`, where t is a pair of equal pairs, 60 deep: 2^60 steps to hash."""
    levels = b"".join(bytes([ord("q"), i, ord("h"), i, 0x86]) for i in range(60))
    return b"\x80\x02})" + levels + b"K\x01s."


def with_attributes(**attributes: object) -> bytes:
    """Return a checkpoint whose state dict gets attributes when it is unpickled."""
    pickled = entries(saved(OrderedDict(state_dict())))["archive/data.pkl"]
    return with_pickle(pickled[:-1] + pickle.dumps(attributes, protocol=2)[2:-1] + b"b.")


def nested_decay(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype in torch
        decay = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    path.write_bytes(saved({**state_dict(), "blocks.1.neuron.current_decay": decay}))


def tensors_that_claim(n: int) -> bytes:
    """Return a checkpoint with a tensor of `n` elements that stores one number."""
    return saved(OrderedDict(state_dict(), extra=torch.ones(1).expand(n)))


def legacy(content: object) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def sparse(path: Path) -> None:
    path.write_bytes(legacy(state_dict()))
    os.truncate(path, 100 << 30)


BOMB = zipped({"archive/data.pkl": bytes(300 << 20), "archive/version": b"3"}, zipfile.ZIP_DEFLATED)
LONG = b"\x80\x02" + b"]" * (2 << 20) + b"."

CASES = {
    name: ("torch", content, message)
    for name, content, message in [
        ("os.system", saved({"a": Run(os.system, "echo boom")}), r"holds Python objects \(posix\.system\)"),
        ("eval, in the old format", legacy({"a": Run(eval, "print('boom')")}), r"holds Python objects \(eval\)"),
        ("a bare pickle", pickle.dumps(Run(print, "boom"), protocol=2), r"holds Python objects \(print\)"),
        ("exec deep inside", saved({"model": {"a": [1, {"b": Run(exec, "boom")}]}}), r"holds Python objects \(exec\)"),
        (
            "a module",
            saved(torch.nn.Linear(2, 2)),
            r"is a pickled torch module \(torch\..*Linear; save only the tensors .*model\.state_dict",
        ),
        (
            "memory by the terabyte",
            b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x7f\x85R.",
            "allocates memory",
        ),
        (
            "memory by the terabyte, in a zip",
            with_pickle(b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x7f\x85R."),
            "allocates memory",
        ),
        ("a key that takes for ever", with_pickle(key_of_tuples()), "nested tuples"),
        ("a key that takes for ever, in the old format", key_of_tuples(), "nested tuples"),
        ("two million lists", LONG, "more than 1,048,576 operations"),
        ("a bomb", BOMB, "bytes that unpack to 314,5"),
        (
            "compressed tensors",
            zipped(entries(saved(state_dict())), zipfile.ZIP_DEFLATED),
            "is compressed, unlike in files of torch.save",
        ),
        ("one name twice", twice(saved(state_dict())), "two entries with the same name"),
        ("tensors of 4 TiB", tensors_that_claim(1 << 40), "claim 4,398,"),
        (
            "sparse",
            saved({**state_dict(), "a": torch.sparse_coo_tensor([[0]], [1.0], (1 << 40,), check_invariants=True)}),
            "claim 4,398,046,511,308 bytes, too many for the size of the file",
        ),
        (
            "a sparse decay",
            saved(
                {
                    **state_dict(),
                    "blocks.1.neuron.current_decay": torch.sparse_coo_tensor([[0]], [1.0], (4,), check_invariants=True),
                }
            ),
            r"block 1: neuron\.current_decay is not a dense tensor of real numbers",
        ),
        (
            "numbers of 8 bits that torch cannot tell",
            saved(
                {
                    **state_dict(),
                    "blocks.1.synapse.weight_g": torch.full((4, 1, 1, 1, 1), math.nan).to(torch.float8_e4m3fn),
                }
            ),
            r"block 1: synapse\.weight_g holds values that are not finite",
        ),
        (
            "decays of other channels",
            saved(
                {
                    **state_dict(),
                    "blocks.1.neuron.current_decay": torch.ones(3),
                    "blocks.1.neuron.voltage_decay": torch.ones(5),
                }
            ),
            "current_decay has 3 values, expected 1 or 4",
        ),
        (
            "a weight that is a number",
            saved(
                {
                    "blocks.1.synapse.weight": torch.tensor(1.0),
                    "blocks.1.neuron.current_decay": torch.ones(1),
                    "blocks.1.neuron.voltage_decay": torch.ones(1),
                }
            ),
            r"the weight has shape \[\]",
        ),
        ("sides without numbers", saved({**state_dict(), "a": torch.ones(1 << 40, 0)}), "claim 4,398,"),
        ("a method that is a number", with_attributes(items=5), "an attribute 'items' instead of its method"),
        ("versions that are a number", with_attributes(_metadata=5), r"its modules \(_metadata\) are not a mapping: 5"),
        ("nested tensors", nested_decay, r"blocks\.1\.neuron\.current_decay is a nested tensor|nested_tensor"),
        ("no tensors", saved({"epoch": 3}), "holds no state dict: .*, got dict"),
        ("a name of two lines", saved({"a\nb": torch.ones(1)}), r"'a\\nb' is not a valid tensor name"),
        ("a name that is a number", saved({1: torch.ones(1)}), "1 is not a valid tensor name"),
        ("tensors without values", saved({"a": torch.ones(1, device="meta")}), "a was saved from the meta device"),
        ("a list", saved([torch.ones(1)]), "holds no state dict: .*, got list"),
        ("cut short", saved(state_dict())[:-40], "a damaged zip archive, perhaps cut short"),
        (
            "NaN",
            saved({**state_dict(), "blocks.1.synapse.weight_g": torch.full((4, 1, 1, 1, 1), math.nan)}),
            r"block 1: synapse\.weight_g holds values that are not finite",
        ),
        (
            "decays of 1e9",
            saved({**state_dict(), "blocks.1.neuron.voltage_decay": torch.tensor([1e9])}),
            r"voltage_decay: .* at most 1 \(got 244140\.625\)",
        ),
        (
            "decays of NaN",
            saved({**state_dict(), "blocks.1.neuron.voltage_decay": torch.tensor([math.nan])}),
            r"block 1: neuron\.voltage_decay holds values that are not finite",
        ),
        (
            "a magnitude beyond float32",
            saved(
                {**state_dict(), "blocks.1.synapse.weight_g": torch.full((4, 1, 1, 1, 1), 1e300, dtype=torch.float64)}
            ),
            r"block 1: synapse\.weight_g holds values beyond the range of float32",
        ),
        (
            "a direction of zeros",
            saved({**state_dict(), "blocks.1.synapse.weight_v": torch.zeros(4, 6, 1, 1, 1)}),
            r"block 1: synapse\.weight_v has a channel of zeros",
        ),
        (
            "complex weights",
            saved({**state_dict(), "blocks.1.synapse.weight_v": torch.ones(4, 6, 1, 1, 1, dtype=torch.complex64)}),
            r"block 1: synapse\.weight_v is not a dense tensor of real numbers",
        ),
        (
            "weights without numbers",
            saved({**state_dict(), "blocks.1.synapse.weight_v": torch.ones(4, 0, 1, 1, 1)}),
            r"block 1: the weight has shape \[4, 0, 1, 1, 1\]",
        ),
        (
            "a decay without numbers",
            saved({**state_dict(), "blocks.1.neuron.current_decay": torch.ones(0)}),
            r"block 1: neuron\.current_decay is missing or empty",
        ),
        # found by fuzzing
        (
            "a bias without numbers",
            saved({**state_dict(), "blocks.0.bias": torch.ones(0)}),
            r"bias has shape \[0\], expected",
        ),
        (
            "weights and weight norm",
            saved({**state_dict(), "blocks.1.synapse.weight": torch.ones(4, 6)}),
            r"blocks\.1\.synapse\.weight belongs to no block of the spec",
        ),
        ("100 GiB of nothing", sparse, r"takes about 100\.0 GiB of memory"),
        ("a pipe", os.mkfifo, "a pipe or a device"),
    ]
}


CASES = {f"{case[0]}, {name}": case for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name) -> None:
    check_case(CASES[name])


def test_nothing_is_executed(attempt, tmp_path) -> None:
    """The command in the pickle would create a file, and the file does not exist."""
    attempt("torch", saved({"a": Run(os.system, f"touch {tmp_path}/boom")}))
    assert not (tmp_path / "boom").exists()


def test_weights_of_whole_numbers_are_read_as_they_are(attempt, tmp_path) -> None:
    weight = torch.arange(24, dtype=torch.int8).reshape(4, 6, 1, 1, 1)
    assert attempt("torch", saved({**state_dict(), "blocks.1.synapse.weight_v": weight})).kind == "read"
    tensors = read_checkpoint(tmp_path / "hostile.pt", time_steps=4, threshold=1.0).tensors
    found = tensors["blocks.1.synapse.parametrizations.weight.original1"]
    assert torch.equal(found, weight.float().reshape(found.shape))


@pytest.mark.parametrize("content", [saved(state_dict()), legacy(state_dict())], ids=["zip", "legacy"])
def test_the_file_itself_is_read(attempt, content) -> None:
    assert attempt("torch", content).kind == "read"


@pytest.mark.parametrize("name", [b"os\nsys\xe2\x80\xaetem", b"torch\nTen\xe2\x81\xa6sor", b"m\xe2\x80\xaeod\nx"])
def test_names_in_an_error_are_printable(name: bytes, tmp_path: Path) -> None:
    for content in (with_pickle(b"\x80\x02c" + name + b"\n)\x81."), b"\x80\x02c" + name + b"\n)\x81."):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(UnsupportedError, match="holds Python objects") as error:
            read_checkpoint(tmp_path / "a.pt")
        assert str(error.value).replace("\n", "").isprintable()
