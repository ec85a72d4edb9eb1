"""Spec files that mean harm, or are no spec at all: a `SpecError` in little time, never anything else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import specs.io
from specs import SpecError, load_spec, parse_spec

ROOT = Path(__file__).parents[2]
TINY = "name: tiny\ntime_steps: 4\ninput: {shape: [9]}\nblocks:\n  - {kind: affine, features: 2}\n"


def test_a_huge_file_is_refused_by_its_size(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(TINY + "#" * (1 << 16))
    with pytest.raises(SpecError, match=r"net\.yaml: too long to be a network spec; the limit is 65536 bytes"):
        load_spec(path)


def test_a_file_of_the_largest_size_is_read(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(TINY + "#" * ((1 << 16) - len(TINY)))
    assert load_spec(path) == parse_spec(TINY)


def test_a_huge_file_is_not_read(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.touch()
    os.truncate(path, 4 << 30)  # sparse: it takes no room on the disk
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


def test_deep_nesting_is_refused_in_little_time() -> None:
    start = time.perf_counter()
    with pytest.raises(SpecError, match="nested too deeply"):
        parse_spec("[" * (1 << 16))
    assert time.perf_counter() - start < 5


def test_the_longest_text_is_refused_in_little_time() -> None:
    start = time.perf_counter()
    with pytest.raises(SpecError):
        parse_spec("a: [" + "{}," * (((1 << 16) - 5) // 3) + "]")
    assert time.perf_counter() - start < 10


def test_a_billion_laughs_are_refused_before_they_are_told() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(SpecError, match=r"spec:2: YAML aliases \(\*a\) are not allowed"):
        parse_spec(laughs)


def test_an_alias_to_itself_is_refused() -> None:
    with pytest.raises(SpecError, match="aliases"):
        parse_spec("a: &a [*a]")


@pytest.mark.parametrize(
    "line",
    [
        "neuron: !!python/object/apply:os.system [echo]",
        "neuron: !!python/name:os.system",
        "neuron: !cuba {threshold: 1}",
        "neuron: =",
        "neuron: !!omap 1",
        "neuron: !!binary \N{LATIN SMALL LETTER E WITH ACUTE}",
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "neuron: 2020-13-45",
        "neuron: {threshold: !!int one}",
        "neuron: {threshold: !!float one}",
        "neuron: {threshold: 0x_}",
        "neuron: {threshold: " + "9" * 5000 + "}",
        "neuron: {threshold: 0x" + "f" * 5000 + "}",
        "neuron: !!bool maybe",
        "neuron: !!timestamp soon",
        "neuron: !!int ''",
        'description: "\\ud800"',
        "schema_version: 0x" + "f" * 5000,
        "schema_version: -0x" + "f" * 5000,
        "blocks[0]: {kind: [a]}",
        "neuron: !!set {a, b}",
        "neuron: !!omap [a: 1]",
        "5: five",
        "~: nothing",
        "yes: no",
        "=: 1",
        "neuron: 2020-01-01",
        "neuron: {threshold: " + "9" * 4000 + "}",
    ],
    ids=lambda line: line[:24],
)
def test_odd_yaml_is_refused_as_a_spec_error(line: str) -> None:
    with pytest.raises(SpecError):
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
    """Each size is bounded, but not their product. The check is arithmetic: it takes no memory."""
    start = time.perf_counter()
    with pytest.raises(
        SpecError,
        match=r"\[0\]: .* has .* weights; at most 2,147,483,648 \(.* GiB\)|shape: has .* neurons; .* GiB",
    ):
        parse_spec(
            f"name: big\ntime_steps: 4\ninput: {{shape: {shape}}}\nblocks:\n"
            f"  - {block}\n  - {{kind: flatten}}\n  - {{kind: affine, features: 2}}\n"
        )
    assert time.perf_counter() - start < 1


def test_the_weights_of_all_layers_count_together() -> None:
    dense = "  - {kind: dense, features: 32768}\n"
    text = "name: big\ntime_steps: 4\ninput: {shape: [32768]}\nblocks:\n" + dense
    assert parse_spec(text + "  - {kind: affine, features: 32768}\n").n_classes == 1 << 15
    with pytest.raises(SpecError, match=r"blocks\[2\]"):
        parse_spec(text + dense + "  - {kind: affine, features: 2}\n")


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
CASES = {
    f"spec, {name}": ("spec", text.encode(), message)
    for name, text, message in [
        ("aliases that explode", LAUGHS, "aliases"),
        ("a tag that runs a program", TINY + "neuron: !!python/object/apply:os.system [echo boom]\n", "tags"),
        (
            "1e12 features",
            TINY.replace("features: 2", "features: 1000000000000"),
            "one float for each alone would take 3,725 GiB",
        ),
        ("1e30 features", TINY.replace("features: 2", "features: 1" + "0" * 30), "more memory than there is"),
        (
            "a network of 8 GiB",
            TINY.replace("[9]", "[16777216]").replace("features: 2", "features: 127"),
            "15.9 GiB of memory",
        ),
        ("an image of 10^12 pixels", TINY.replace("[9]", "[1, 1000000, 1000000]"), "neurons; at most"),
        ("brackets without end", TINY + "x: " + "[" * 60_000, "nested too deeply"),
        ("a megabyte", TINY + "#" * (1 << 20), "too long"),
        ("3,000 blocks", TINY + "  - {kind: flatten}\n" * 3_000, "hostile"),
    ]
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name: str) -> None:
    check_case(CASES[name])
