"""Hostile spec files and files that are not specs: each raises a `SpecError`, in little time."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import specs.io
from specs import SpecError, load_spec, parse_spec
from specs.files.limits import NETWORK_BLOCKS, SPEC_BYTES
from specs.io import spec_from_document

ROOT = Path(__file__).parents[2]
TINY = "name: tiny\ntime_steps: 4\ninput: {shape: [9]}\nblocks:\n  - {kind: affine, features: 2}\n"


def test_a_file_of_the_largest_size_is_read(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(TINY + "#" * ((1 << 16) - len(TINY)))
    assert load_spec(path) == parse_spec(TINY)


def test_a_huge_file_is_not_read(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.touch()
    os.truncate(path, 4 << 30)  # sparse: it takes no space on disk
    program = (
        "import resource, sys\n"
        "from specs import SpecError, load_spec\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try:\n    load_spec(sys.argv[1])\nexcept SpecError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr[-200:]


def test_a_huge_text_is_refused_by_its_size(monkeypatch) -> None:
    monkeypatch.setattr(specs.io, "SPEC_BYTES", len(TINY) - 1)
    with pytest.raises(SpecError, match="the limit is"):
        parse_spec(TINY)


def test_what_is_not_utf_8_is_refused_at_its_byte(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(TINY.encode() + b"description: caf\xe9\n")
    with pytest.raises(SpecError, match=rf"net\.yaml: not UTF-8 text \(byte {len(TINY) + 16}\)"):
        load_spec(path)


@pytest.mark.parametrize("raw", [b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(100), bytes(100)])
def test_a_binary_file_is_refused(raw: bytes, tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(raw)
    with pytest.raises(SpecError, match=r"net\.yaml: not "):
        load_spec(path)


def test_a_folder_is_refused(tmp_path) -> None:
    with pytest.raises(SpecError, match=r"cannot read network spec .*: Is a directory"):
        load_spec(tmp_path)


@pytest.mark.parametrize("name", ["../networks/mnist-dense", "mnist-dense.yaml\0", "a\0b", "/mnist-dense", "__init__"])
def test_a_name_does_not_lead_out_of_the_package(name: str) -> None:
    with pytest.raises(SpecError, match="no spec"):
        load_spec(name)


def test_a_name_too_long_for_a_file_is_refused() -> None:
    with pytest.raises(SpecError, match="no spec"):
        load_spec("a" * 5000)


@pytest.mark.parametrize(
    "text", ["[" * 2000, "a: " + "{a: " * 2000, "- " * 2000, "? " * 2000, TINY + "x: " + "[" * 2000]
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="nested too deeply"):
        parse_spec(text)


@pytest.mark.parametrize("depth", [1, 10, 30])
def test_nesting_that_yaml_can_read_is_refused_as_a_spec(depth: int) -> None:
    with pytest.raises(SpecError, match="neuron"):
        parse_spec(TINY + "neuron: " + "[" * depth + "]" * depth)


def test_the_longest_text_is_refused_in_little_time() -> None:
    start = time.process_time()
    with pytest.raises(SpecError, match="spec:1: a: no such key"):
        parse_spec("a: [" + "{}," * (((1 << 16) - 5) // 3) + "]")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("neuron: !!python/object/apply:os.system [echo]", ":6: YAML tags (!!python/object/apply:os.system) are not"),
        ("neuron: !!python/name:os.system", ":6: YAML tags (!!python/name:os.system) are not allowed"),
        ("neuron: !cuba {threshold: 1}", ":6: YAML tags (!cuba) are not allowed"),
        ("neuron: =", ":6: not YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:value'"),
        ("? [a, b]\n: 1", ":6: a key must be text"),
        ("? {a: b}\n: 1", ":6: a key must be text"),
        ("neuron: 2020-13-45", ":6: not YAML: month must be in 1..12"),
        ("neuron: {threshold: 1" + ":59" * 200 + ".5}", ":6: not YAML: int too large to convert to float"),
        ('description: "\\U00110000"', ":6: not YAML: an escape that is not a Unicode character"),
        ('description: "\\UFFFFFFFF"', ":6: not YAML: an escape that is not a Unicode character"),
        ("neuron: {threshold: 0x_}", ":6: not YAML: invalid literal for int() with base 16: ''"),
        ("neuron: {threshold: " + "9" * 5000 + "}", ":6: not YAML: Exceeds the limit (4300 digits)"),
        (
            "neuron: {threshold: 0x" + "f" * 5000 + "}",
            ":6: neuron.threshold: must be a number (got a huge integer)",
        ),
        ('description: "\\ud800"', ":6: not YAML: 'utf-16"),
        ("schema_version: 0x" + "f" * 5000, ": schema_version a huge integer is not supported (newest: 1)"),
        ("schema_version: -0x" + "f" * 5000, ": schema_version a huge integer is not supported (newest: 1)"),
        ("blocks[0]: {kind: [a]}", ":6: blocks[0]: no such key; did you mean blocks?"),
        ("5: five", ":6: the key '5' is read as int: put it in quotes"),
        ("~: nothing", ":6: the key '~' is read as null: put it in quotes"),
        ("yes: no", ":6: the key 'yes' is read as bool: put it in quotes"),
        ("=: 1", ":6: =: no such key (got 1)"),
        ("neuron: 2020-01-01", ":6: neuron: must be a mapping"),
        ("neuron: {threshold: " + "9" * 4000 + "}", ":6: neuron.threshold: must be a number (got 9999"),
    ],
    ids=lambda text: text[:24],
)
def test_odd_yaml_is_refused_as_a_spec_error(line: str, reason: str) -> None:
    with pytest.raises(SpecError, match=rf"\Aspec{re.escape(reason)}"):
        parse_spec(TINY + line + "\n")


def test_a_message_does_not_repeat_a_long_value() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(TINY.replace("time_steps: 4", f"time_steps: {'a' * 5000}"))
    assert len(str(caught.value)) < 500


def test_a_message_does_not_tell_hundreds_of_problems() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(TINY + "".join(f"key{i}: 1\n" for i in range(200)))
    assert len(str(caught.value).splitlines()) < 100


def test_a_key_cannot_write_to_the_terminal() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(TINY + '"\\e[31mred\\nnet.yaml: fine": 1\n')
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ([1 << 24], "{kind: dense, features: 16777216}"),
        ([1 << 24, 4096, 4096], "{kind: conv, channels: 16777216, kernel: 4096, padding: 4096}"),
    ],
)
def test_a_layer_that_no_machine_holds_is_refused_without_being_made(shape: list[int], block: str) -> None:
    """Each size is within its bound, but not their product; the check computes the product without memory."""
    start = time.process_time()
    with pytest.raises(
        SpecError,
        match=r"\[0\]: .* at most 2,147,483,648 weights; .* \(.* GiB as float32\)|shape: may have .* neurons.* GiB",
    ):
        parse_spec(
            f"name: big\ntime_steps: 4\ninput: {{shape: {shape}}}\nblocks:\n"
            f"  - {block}\n  - {{kind: flatten}}\n  - {{kind: affine, features: 2}}\n"
        )
    assert time.process_time() - start < 1


def test_the_weights_of_all_layers_count_together() -> None:
    dense = "  - {kind: dense, features: 32768}\n"
    text = "name: big\ntime_steps: 4\ninput: {shape: [32768]}\nblocks:\n" + dense
    assert parse_spec(text + "  - {kind: affine, features: 32768}\n").n_classes == 1 << 15
    with pytest.raises(SpecError, match=r"blocks\[2\]"):
        parse_spec(text + dense + "  - {kind: affine, features: 2}\n")


def flattens(n: int) -> str:
    """Return a spec of `n` flattens before the readout, in as few characters as possible."""
    readout = "  - {kind: affine, features: 2}\n"
    return TINY.replace(readout, "- kind: flatten\n" * n + "- {kind: affine, features: 2}\n")


def test_a_network_has_a_limited_number_of_blocks() -> None:
    def document(n: int) -> dict[str, object]:
        blocks = [{"kind": "flatten"}] * (n - 1) + [{"kind": "affine", "features": 2}]
        return {"name": "tiny", "time_steps": 4, "input": {"shape": [9]}, "blocks": blocks}

    assert len(spec_from_document(document(NETWORK_BLOCKS)).blocks) == NETWORK_BLOCKS
    with pytest.raises(SpecError, match=rf"blocks: .* at most {NETWORK_BLOCKS} items.*, not {NETWORK_BLOCKS + 1} "):
        spec_from_document(document(NETWORK_BLOCKS + 1))


def test_thousands_of_blocks_are_read_within_the_limits(attempt) -> None:
    assert attempt("spec", flattens(3_000).encode()).kind == "read"


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
CASES = {
    f"spec, {name}": ("spec", text.encode(), message)
    for name, text, message in [
        ("aliases that explode", LAUGHS, r"YAML aliases \(\*a\) are not allowed"),
        (
            "a tag that runs a program",
            TINY + "neuron: !!python/object/apply:os.system [echo boom]\n",
            r"YAML tags \(!!python.*\) are not",
        ),
        (
            "1e12 features",
            TINY.replace("features: 2", "features: 1000000000000"),
            "a float for each would take 3,725 GiB",
        ),
        ("1e30 features", TINY.replace("features: 2", "features: 1" + "0" * 30), "more memory than any machine has"),
        (
            "a network of 8 GiB",
            TINY.replace("[9]", "[16777216]").replace("features: 2", "features: 127"),
            r"takes about 15\.9 GiB of memory",
        ),
        (
            "an image of 10^12 pixels",
            TINY.replace("[9]", "[1, 1000000, 1000000]"),
            "neurons, got 1,000,000,000,000",
        ),
        ("brackets without end", TINY + "x: " + "[" * 60_000, "nested too deeply"),
        ("a megabyte", TINY + "#" * (1 << 20), f"too long to be a network spec; the limit is {SPEC_BYTES} bytes"),
        # More blocks than allowed take a longer text than allowed, so the length is refused first.
        ("4,097 blocks", flattens(NETWORK_BLOCKS), f"too long to be a network spec; the limit is {SPEC_BYTES} bytes"),
    ]
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name: str) -> None:
    check_case(CASES[name])
