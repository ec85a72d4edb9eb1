"""Hostile safetensors files: models and state dicts."""

import json
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from valid_files import SPEC, model, safetensors_of, safetensors_parts, safetensors_state

from converters.formats.model_files import read_model, write_model
from converters.formats.safetensors_file import METADATA_KEY

MODEL = model(SPEC)
TEXT = json.dumps({"format": 1, "spec": SPEC, "card": {}})


def file(text: str = TEXT, **changes: torch.Tensor) -> bytes:
    tensors = {name: tensor.contiguous() for name, tensor in MODEL.tensors.items()}
    return safetensors.torch.save(tensors | changes, {METADATA_KEY: text})


def with_header(change) -> bytes:
    """Return the model file with a changed header."""
    header, tensors = safetensors_parts(file())
    return safetensors_of(change(header) or header, tensors)


def first(header: dict) -> dict:
    return header[min(name for name in header if name.endswith("weight"))]


def sparse(header_bytes: int, n_bytes: int, content: bytes = b""):
    """Return a function that writes a sparse file of `n_bytes`, which takes no space on disk."""

    def write(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", header_bytes) + content)
        os.truncate(path, n_bytes)

    return write


def duplicated(header: dict) -> str:
    name = next(name for name in header if name != "__metadata__")
    return f"{json.dumps(header)[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}"


def spec_with(**changes: object) -> str:
    return json.dumps({"format": 1, "spec": {**SPEC, **changes}, "card": {}})


def huge_tensor() -> str:
    entry = {"dtype": "F32", "shape": [25 << 30], "data_offsets": [0, 100 << 30]}
    return json.dumps({"__metadata__": {METADATA_KEY: TEXT}, "blocks.1.synapse.weight": entry})


BIG = [
    {"kind": "dense", "features": 1 << 15},
    {"kind": "dense", "features": 1 << 15},
    {"kind": "affine", "features": 2},
]

DELAYED = {
    **SPEC,
    "blocks": [{"kind": "flatten"}, {"kind": "dense", "features": 3, "delays": {"longest": 2}}, SPEC["blocks"][-1]],
}


def delayed(*delays: float) -> bytes:
    """Return a model file with these fixed delays."""
    tensors = model(DELAYED).tensors | {"blocks.2.delay": torch.tensor(delays)}
    return safetensors.torch.save(tensors, {METADATA_KEY: json.dumps({"format": 1, "spec": DELAYED, "card": {}})})


def packed(name: str = "blocks.4.synapse.weight", **changes: torch.Tensor | None) -> bytes:
    """Return a file with a weight in 8 bits; `values` and `scale` replace it and its steps, None leaves steps out."""
    like = torch.ones(MODEL.tensors[name].shape, dtype=torch.int8)
    scale = changes.get("scale", torch.tensor([1 / 32]))
    return file(
        TEXT.replace('"format": 1', '"format": 2'),
        **{name: changes.get("values", like)},
        **({} if scale is None else {f"{name}_scale": scale}),
    )


def unpacked(content: bytes, tmp_path: Path) -> torch.Tensor:
    (tmp_path / "packed.safetensors").write_bytes(content)
    return read_model(tmp_path / "packed.safetensors").tensors["blocks.4.synapse.weight"]


HEADERS = {
    "a tensor larger than the file": safetensors_of(huge_tensor(), bytes(64)),
    "overlapping": with_header(
        lambda h: [e.update(data_offsets=[0, 4 * math.prod(e["shape"])]) for e in h.values() if "dtype" in e] and None
    ),
    "a gap": with_header(lambda h: h.pop(min(name for name in h if name != "__metadata__")) and None),
    **{
        f"{what} {value}": with_header(lambda h, what=what, value=value: first(h).update({what: value}))
        for what, values in {
            "data_offsets": ([1 << 40, (1 << 40) + 4], [1 << 70, 1 << 70], [8, 0], [-8, 0], 8),
            "shape": ([1 << 60], [1 << 62, 1 << 62], [True]),
            "dtype": ("F77",),
        }.items()
        for value in values
    },
    "an entry that is none": with_header(lambda h: h.update(a=[1, 2])),
    "metadata that are no Unicode": with_header(lambda h: h.update(__metadata__={METADATA_KEY: "\ud800"})),
    "metadata that are numbers": with_header(lambda h: h.update(__metadata__={METADATA_KEY: 1})),
    "NaN in the header": safetensors_of('{"a": NaN}', b""),
    "brackets without end": safetensors_of("[" * 100_000, b""),
    "a number of 5,000 digits": safetensors_of('{"a":' + "9" * 5000 + "}", b""),
    "a header in Latin-1": struct.pack("<Q", 4) + b'{"\xe9"',
    "a list for a header": safetensors_of("[]", b""),
    "sides without numbers that wrap": safetensors_of(
        f'{{"a": {{"dtype": "F32", "shape": [{1 << 62}, {1 << 62}, 0], "data_offsets": [0, 0]}}}}', b""
    ),
}
"""Files that the library of safetensors refuses."""

CASES = {
    **{name: (content, "Error while deserializing header: ") for name, content in HEADERS.items()},
    **{
        f"delays {delays}": (delayed(*delays), r"blocks\.2\.delay must hold whole time steps from 0 to 2, got")
        for delays in ((-1.0, 2.0, 0.0), (0.0, 2e8, 0.0), (0.0, 1.5, 0.0), (0.0, 0.0, 3.0))
    },
    "a curve whose z descends": (
        file(
            **{
                "blocks.1.sampler.n_centers": torch.tensor(3),
                "blocks.1.sampler.centers": torch.arange(14.0).flip(0).view(7, 2).double(),
            }
        ),
        r"blocks\.1\.sampler\.centers must not descend in z",
    ),
    **{
        f"8 bits, steps {what}": (
            packed(scale=scale),
            r"blocks\.4\.synapse\.weight is int8 and needs blocks\.4\.synapse\.weight_scale, float32 \[1 or 5\]",
        )
        for what, scale in {
            "missing": None,
            "too few": torch.ones(4),
            "too many axes": torch.ones(5, 1),
            "none": torch.ones(0),
            "a scalar": torch.ones(()),
            "float64": torch.ones(1, dtype=torch.float64),
            "int8": torch.ones(1, dtype=torch.int8),
        }.items()
    },
    **{
        f"8 bits, a step of {step}": (
            packed(scale=torch.tensor([step])),
            "must hold steps of weights, finite numbers above",
        )
        for step in (math.nan, math.inf, -math.inf, 0.0, -0.0, -1 / 32)
    },
    "8 bits, a step of a channel that is none": (
        packed(scale=torch.tensor([1.0, 1.0, math.nan, 1.0, 1.0])),
        "must hold steps of weights",
    ),
    "8 bits, weights that overflow": (
        packed(scale=torch.tensor([3e38]), values=torch.full((5, 8), 127, dtype=torch.int8)),
        r"blocks\.4\.synapse\.weight holds values that are not finite",
    ),
    "8 bits, a bias": (packed("blocks.1.bias"), r"tensor blocks\.1\.bias is int8; only weights may be"),
    "8 bits, a curve": (
        file(**{"blocks.1.sampler.n_centers": torch.tensor(0, dtype=torch.int8)}),
        r"tensor blocks\.1\.sampler\.n_centers is int8; only weights may be",
    ),
    "8 bits, a weight of another shape": (
        packed(values=torch.ones(5, 7, dtype=torch.int8)),
        r"blocks\.4\.synapse\.weight has shape \[5, 7\], expected \[5, 8\]",
    ),
    "8 bits, a weight of no shape": (packed(values=torch.ones((), dtype=torch.int8)), "is int8; only weights may be"),
    "8 bits, no numbers": (
        packed(values=torch.ones(0, 8, dtype=torch.int8), scale=torch.ones(0)),
        r"blocks\.4\.synapse\.weight has shape \[0, 8\]",
    ),
    "8 bits, steps of no weight": (
        file(**{"blocks.4.synapse.weight_scale": torch.ones(1)}),
        r"blocks\.4\.synapse\.weight_scale belongs to no block",
    ),
    "a header of 100 GiB": (struct.pack("<Q", 100 << 30) + b"{}", "a header of 107,374,182,400 bytes"),
    "a header of 100 GiB that is there": (sparse(100 << 30, 101 << 30, b"{"), "a header of 107,374,182,400 bytes"),
    "a header of 17 MiB": (sparse(17 << 20, 18 << 20, b"{"), "at most 16,777,216"),
    "a length below zero": (b"\xff" * 8 + b"{}", "a header of 18,446,744,073,709,551,615 bytes"),
    "a tensor of 100 GiB that is there": (
        sparse(len(huge_tensor()), 8 + len(huge_tensor()) + (100 << 30), huge_tensor().encode()),
        r"takes about 100\.0 GiB of memory",
    ),
    "a shape of 65 axes": (with_header(lambda h: first(h).update(shape=[1] * 65)), "has 65 axes; torch has"),
    "a name twice": (with_header(duplicated), "is given twice"),
    "a name of control characters": (
        safetensors.torch.save({"a\x1b[2J": torch.ones(1)}, {METADATA_KEY: TEXT}),
        "is not a valid tensor name",
    ),
    "NaN among the weights": (
        file(**{"blocks.1.bias": torch.tensor([math.nan, 0.0])}),
        r"blocks\.1\.bias holds values that are not finite",
    ),
    "a bias beyond float32": (
        file(**{"blocks.1.bias": torch.tensor([0.0, 1e300], dtype=torch.float64)}),
        r"blocks\.1\.bias holds values beyond the range of float32",
    ),
    "infinity among the weights": (
        file(**{"blocks.1.bias": torch.tensor([0.0, math.inf])}),
        r"blocks\.1\.bias holds values that are not finite",
    ),
    "a shape that is not the spec's": (
        file(**{"blocks.1.bias": torch.zeros(3)}),
        r"blocks\.1\.bias has shape \[3\], expected \[2\]",
    ),
    "a tensor that is no block's": (file(extra=torch.zeros(3)), "extra belongs to no block"),
    "complex weights": (
        file(**{"blocks.1.bias": torch.zeros(2, dtype=torch.complex64)}),
        r"blocks\.1\.bias is complex",
    ),
    "a spec of 4 GiB of weights": (file(spec_with(input={"shape": [1 << 15]}, blocks=BIG[1:])), "has 1,073,"),
    "a spec larger than any": (
        file(spec_with(input={"shape": [1 << 24]}, blocks=BIG)),
        "up to this block it has 549,755,813,888",
    ),
    "a spec of 2 million sides": (file(spec_with(input={"shape": ["a"] * (1 << 21)})), "too long to be a network spec"),
    "100,000 blocks": (file(spec_with(blocks=[{"kind": "flatten"}] * 100_000)), "blocks: .* at most 4096 items"),
    "no spec": (file(json.dumps({"format": 1})), "metadata has no spec"),
    "a spec that is no JSON": (file("{"), "metadata is not JSON: Expecting property name"),
    "a spec of brackets": (file("[" * 100_000), "metadata is not JSON: .* while decoding a JSON array"),
    "a format to come": (file(json.dumps({"format": 9, "spec": SPEC})), "format 9"),
    "a card that is a list": (file(json.dumps({"format": 1, "spec": SPEC, "card": [1]})), "is not a mapping"),
    "training that is a text": (
        file(json.dumps({"format": 1, "spec": SPEC, "card": {"training": "x"}})),
        "is not a mapping",
    ),
    "no model": (safetensors.torch.save({"a": torch.ones(1)}), "not a lava-dl checkpoint"),
    "state dict, a name twice": (
        safetensors_of(
            duplicated(safetensors_parts(safetensors_state())[0]), safetensors_parts(safetensors_state())[1]
        ),
        "is given twice",
    ),
    "state dict, a header of 100 GiB": (
        struct.pack("<Q", 100 << 30)[:5] + b"\0\0\0{}",
        "a header of 107,374,182,400 bytes",
    ),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "sides without numbers": (
        safetensors_of('{"a": {"dtype": "F32", "shape": [1099511627776, 0], "data_offsets": [0, 0]}}', b""),
        r"tensor 'a' has sides \[1099511627776, 0\], too many for the size of the file",
    ),
    "a card of 15 MB": (
        file(json.dumps({"format": 1, "spec": SPEC, "card": {"training": {"data": "a" * 15_000_000}}})),
        "the card has 15,000,026 bytes; the limit is 1,048,576",
    ),
    **{
        f"a card with {number}": (
            file(f'{{"format": 1, "spec": {json.dumps(SPEC)}, "card": {{"test": {number}}}}}'),
            "the card holds a number that is not finite",
        )
        for number in ("NaN", "-Infinity", "1e999")
    },
    "a pipe": (os.mkfifo, "a pipe or a device"),
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
}


TARGETS = {name: "state-dict" if name.startswith("state dict") else "safetensors" for name in CASES}
CASES = {f"{TARGETS[name]}, {name}": (TARGETS[name], *case) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name) -> None:
    check_case(CASES[name])


def test_the_file_itself_is_read(attempt) -> None:
    assert attempt("safetensors", file()).kind == "read"
    assert attempt("safetensors", delayed(0.0, 2.0, 1.0)).kind == "read"


def test_weights_in_8_bits_are_read_with_one_step_or_one_for_each_channel(attempt, tmp_path) -> None:
    assert attempt("safetensors", packed()).kind == "read"
    assert torch.equal(unpacked(packed(), tmp_path), torch.full((5, 8), 1 / 32))
    steps = torch.arange(1.0, 6.0)
    assert torch.equal(unpacked(packed(scale=steps), tmp_path), steps[:, None].expand(5, 8))


def test_a_text_of_the_card_cannot_steer_the_terminal(attempt) -> None:
    content = file(
        json.dumps({"format": 1, "spec": SPEC, "card": {"note": "\x1b[2Jred", "a\x07": {"b\x1b": 1, "epoch": 3}}})
    )
    outcome = attempt("safetensors", content, command="show FILE")
    assert outcome.kind == "read"
    assert "red" in outcome.text
    assert "\x1b" not in outcome.text
    assert "\x07" not in outcome.text


def test_every_truncation_of_the_header(attempt, tmp_path) -> None:
    """It runs in this process: reading a header starts nothing."""
    from converters.formats.state_dict_file import read_header
    from specs import IntegrityError

    content, path = file(), tmp_path / "cut.safetensors"
    length = int(np.frombuffer(content[:8], "<u8")[0])
    for end in range(0, length + 8, 37):
        path.write_bytes(content[:end])
        with pytest.raises(IntegrityError, match=r"cut\.safetensors: not a safetensors file"):
            read_header(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("suffix", [".safetensors", ".nir"])
def test_numbers_of_few_bits_are_read_as_float32_and_written_in_any_format(dtype, suffix, tmp_path) -> None:
    narrow = {name: value.to(dtype) for name, value in MODEL.tensors.items() if value.dtype == torch.float32}
    (tmp_path / "narrow.safetensors").write_bytes(file(**narrow))
    read = read_model(tmp_path / "narrow.safetensors")
    assert all(torch.equal(read.tensors[name], value.float()) for name, value in narrow.items())
    write_model(read, tmp_path / f"again{suffix}")


def test_the_longest_card_is_shown_in_time(attempt) -> None:
    card = {"training": {"note": "a" * 1_048_000}}
    content = file(json.dumps({"format": 1, "spec": SPEC, "card": card}))
    assert attempt("safetensors", content, command="show FILE").kind == "read"
