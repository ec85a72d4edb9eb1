"""Specs from and to YAML: files, names, errors with lines and hints, upgrades."""

import json

import pytest
import yaml

from specs import NetworkSpec, SnnZooError, SpecError, dump_spec, load_spec, network_names, parse_spec
from specs.io import parse_value, spec_from_document

TINY = """\
name: tiny
time_steps: 4
input: {shape: [9]}
blocks:
  - kind: dense
    features: 5
  - {kind: affine, features: 2}
"""
EVERYTHING = """\
name: everything
description: "caf\u00e9, \u2192 and a: colon"
time_steps: 7
delay_shift: true
neuron: {threshold: 1.3, current_decay: 0.1, voltage_decay: 1.0e-5, reset: subtract, learn_decays: per_channel}
input: {shape: [2, 8, 8], encoding: spike, mean: 0.5, std: 0.25, weight: 2, bias: -1, exact_input: false}
blocks:
  - {kind: conv, channels: 4, kernel: [3, 2], stride: 2, padding: [1, 0], dilation: [1, 2], groups: 2, bias: true}
  - {kind: avg_pool, kernel: 2, stride: 1, padding: 1, gain: 1.5, delay_shift: false, neuron: {threshold: 2}}
  - {kind: flatten}
  - {kind: dense, features: 5, norm: weight_scale, dropout: 0.1, weight_norm: true}
  - {kind: affine, features: 2, bias: true}
training: {epochs: 3, augment: {scale: [0.5, 2]}, crossover_epochs: [1, 2], snn_epochs: 1, learning_rate: 1.0e-16}
"""


# --- valid specs


def test_an_unknown_name_lists_those_known() -> None:
    with pytest.raises(SpecError, match="no spec 'mnist-dens'") as caught:
        load_spec("mnist-dens")
    assert ", ".join(network_names()) in str(caught.value)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", "", ".txt"])
def test_a_file_loads_whatever_its_suffix(suffix: str, tmp_path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_text(TINY)
    assert load_spec(path) == load_spec(str(path)) == parse_spec(TINY)


def test_a_file_goes_before_a_network_of_the_package(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-dense").write_text(TINY)
    assert load_spec("mnist-dense").name == "tiny"


def test_a_problem_in_a_file_begins_with_its_path(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(TINY.replace("features: 5", "features: 0"))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value).startswith(f"{path}:6: blocks[0].features:")


# --- refused specs and their errors


def test_a_misspelt_key_is_refused_with_the_nearest_one(refusal) -> None:
    assert refusal(TINY.replace("    features: 5", "    features: 5\n    wieght_norm: true")) == (
        "net.yaml:7: blocks[0].wieght_norm: no such key; did you mean weight_norm? (got True)"
    )


def test_a_missing_key_is_named_at_the_mapping_that_lacks_it(refusal) -> None:
    assert refusal(TINY.replace("    features: 5\n", "")) == "net.yaml:5: blocks[0].features: is missing"


def test_every_problem_of_a_field_is_told_each_on_its_line(refusal) -> None:
    broken = TINY.replace("time_steps: 4", "time_steps: 0").replace("features: 5", "features: 0")
    assert [line.split(" ")[:2] for line in refusal(broken).splitlines()] == [
        ["net.yaml:2:", "time_steps:"],
        ["net.yaml:6:", "blocks[0].features:"],
    ]


def test_a_misspelt_kind_is_refused_with_the_nearest_one(refusal) -> None:
    message = refusal(TINY.replace("kind: dense", "kind: densee"))
    assert message.startswith("net.yaml:5: blocks[0].kind:")
    assert "did you mean dense?" in message


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        (TINY + "name: other\n", "name", 8),
        (TINY.replace("    features: 5", "    features: 5\n    features: 5"), "features", 7),
        (TINY.replace("{shape: [9]}", "{shape: [9], shape: [9]}"), "shape", 3),
    ],
    ids=["top", "block", "flow"],
)
def test_a_key_given_twice_is_refused_at_the_second(text: str, key: str, line: int, refusal) -> None:
    assert refusal(text) == f"net.yaml:{line}: {key!r} is given twice"


@pytest.mark.parametrize("text", ["", "# only words\n", "tiny", "[1, 2]", "4"])
def test_what_is_no_mapping_is_told_what_a_spec_is(text: str, refusal) -> None:
    assert refusal(text) == "net.yaml: a network spec must be a mapping with name, time_steps, input and blocks"


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: a: b", 1), ("name: a\n\ttime_steps: 1", 2), ("name: [a", 1), (TINY + "---\n" + TINY, 8)],
    ids=["colon", "tab", "unclosed", "two documents"],
)
def test_what_is_not_yaml_is_refused_at_its_line(text: str, line: int, refusal) -> None:
    assert refusal(text).startswith(f"net.yaml:{line}: not YAML: ")


# --- documents and values


def test_a_problem_in_a_document_has_no_line() -> None:
    document = {**yaml.safe_load(TINY), "time_steps": 0}
    with pytest.raises(SpecError, match=r"^inside: time_steps: .* \(got 0\)$"):
        spec_from_document(document, origin="inside")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("3", 3), ("[1, 2]", [1, 2]), ("{}", {}), ("zero", "zero"), ("", None)]
)
def test_a_value_is_read_as_in_a_spec(text: str, value: object) -> None:
    assert parse_value(text, origin="--set") == value


@pytest.mark.parametrize("text", ["[1", "*a", "!!python/name:os.system", "a: 1\na: 2"])
def test_a_value_that_a_spec_could_not_hold_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--set x:"):
        parse_value(text, origin="--set x")


# --- schema versions


def test_json_may_have_tabs_and_numbers_as_json_has_them() -> None:
    document = yaml.safe_load(dump_spec(load_spec("mnist-dense-shallow")))
    document["training"]["learning_rate"] = 0.0041
    text = json.dumps(document, indent="\t", separators=(",", ":\t")).replace("0.0041", "4.1E-3")
    assert parse_spec(text).training.learning_rate == 0.0041
    with pytest.raises(SpecError, match="not YAML"):
        parse_spec('{\n\t"name": tiny}')


@pytest.mark.parametrize("version", ["0", "2", "999", "1.5", "one", "null"])
def test_a_schema_version_from_the_future_asks_for_an_update(version: str, refusal) -> None:
    message = refusal(TINY + f"schema_version: {version}\n")
    assert message.startswith("net.yaml: schema_version ")
    assert message.endswith("is not supported (newest: 1); update snnzoo to read it")


def test_a_schema_version_is_no_bool(refusal) -> None:
    assert "schema_version" in refusal(TINY + "schema_version: true\n")


# --- dumps


@pytest.mark.parametrize("name", network_names())
def test_a_shipped_network_reads_back_as_the_same(name: str) -> None:
    assert parse_spec(dump_spec(load_spec(name))) == load_spec(name)


def test_a_dump_writes_defaults_out() -> None:
    """A later version with other defaults then reads the same network."""
    written = yaml.safe_load(dump_spec(parse_spec(TINY)))
    assert set(written) == set(NetworkSpec.model_fields) - {"logit_scale", "output"}
    assert written["neuron"]["threshold"] == 1.0


def test_a_name_that_looks_like_a_number_reads_back_as_a_name() -> None:
    spec = parse_spec(TINY.replace("tiny", "'1e3'"))
    assert parse_spec(dump_spec(spec)).name == "1e3"


def test_a_dump_to_a_file_is_the_text(tmp_path) -> None:
    path = tmp_path / "net.yaml"
    assert dump_spec(parse_spec(EVERYTHING), path) == path.read_text("utf-8")
    assert load_spec(path) == parse_spec(EVERYTHING)


def test_a_dump_that_cannot_be_written_is_an_error_of_ours(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SnnZooError, match="cannot write"):
        dump_spec(parse_spec(TINY), tmp_path / "file" / "net.yaml")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("epochs", "training.epochs"),
        ("treshold", "neuron.threshold"),
        ("time_step", "time_steps"),
        ("std", "input.std"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_the_right_one(refusal, key, place) -> None:
    assert f"{key}: no such key; did you mean {place}?" in refusal(TINY + f"{key}: 1\n")


def test_a_document_of_more_values_than_any_has_is_refused_before_it_is_looked_at(monkeypatch) -> None:
    document = load_spec("mnist-dense").model_dump(mode="json")
    n_values = count(document)
    monkeypatch.setattr("specs.io.DOCUMENT_VALUES", n_values)
    assert spec_from_document(document) == load_spec("mnist-dense")
    with pytest.raises(SpecError, match=f"here: too long to be a network spec; the limit is {n_values} values"):
        spec_from_document({**document, "x": 1}, origin="here")


def count(value: object) -> int:
    """Return the number of values in a document, at any depth."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(inside) + sum(map(count, inside))
