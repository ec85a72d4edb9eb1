"""Bounds of all fields: the bound is valid, and an error one step beyond names file, line, path, bound and value."""

import copy
import re
from typing import Any

import pytest
import yaml

from specs import AvgPoolSpec, ConvSkip, ConvSpec, json_schema, parse_spec

DOCUMENT: dict[str, Any] = {
    "name": "every-field",
    "time_steps": 4,
    "neuron": {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0, "tau_grad": 1.0, "scale_grad": 1.0},
    "input": {
        "shape": [1, 16, 16],
        "bits": 8,
        "bin_us": 10_000,
        "padding": [0, 0],
        "border": 0.5,
        "mean": 0.0,
        "std": 1.0,
        "weight": 1.0,
        "bias": 0.0,
        "log_mel": {
            "sample_rate": 8000,
            "window": 256,
            "hop": 128,
            "bands": 16,
            "frames": 16,
            "low_hz": 60.0,
            "high_hz": 4000.0,
            "range_db": 60.0,
        },
    },
    "blocks": [
        {
            "kind": "conv",
            "channels": 4,
            "kernel": [3, 3],
            "stride": [1, 1],
            "padding": [1, 1],
            "dilation": [1, 1],
            "groups": 1,
            "dropout": 0.1,
        },
        {"kind": "avg_pool", "kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "gain": 1.0},
        {"kind": "flatten"},
        {
            "kind": "dense",
            "features": 5,
            "dropout": 0.1,
            "delays": {"longest": 3},
            "skips": [{"kind": "dense", "source": 1}],
        },
        {"kind": "affine", "features": 2, "dropout": 0.1},
    ],
    "training": {
        "epochs": 8,
        "batch_size": 4,
        "learning_rate": 0.1,
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
        "logit_scale": 1.0,
        "distillation": 0.5,
        "images_per_epoch": 100,
        "mixup": 0.4,
        "augment": {
            "degrees": 1.0,
            "translate": 0.1,
            "scale": [0.9, 1.1],
            "shear": 1.0,
            "shift": 2,
            "elastic": 0.1,
            "erase": 0.1,
            "drop": 0.1,
            "jitter": 1,
        },
        "validation": 4,
        "sample_period": 2,
        "sample_iterations": 2,
        "crossover_epochs": [0],
        "snn_epochs": 1,
        "snn_learning_rate": 0.1,
        "self_distillation": 0.5,
        "spike_tau": 5.0,
        "ema_decay": 0.999,
        "seed": 1,
    },
}
MOST = 1 << 24

AT_LEAST, ABOVE, AT_MOST, BELOW = (f"must be {words}" for words in ("at least", "above", "at most", "below"))
PAIR = "must be one whole number from 1 to", "4096, or [height, width]"
PADDING = "must be one whole number from 0 to", "4096, [height, width], or [top, left, bottom, right]"
OUTSIDE = [
    ("time_steps", 0, AT_LEAST, 1),
    ("time_steps", 4097, AT_MOST, 4096),
    ("neuron.threshold", 0, AT_LEAST, 1 / 64),
    ("neuron.threshold", 0.0156, AT_LEAST, 1 / 64),
    ("neuron.threshold", 2048, AT_MOST, 2047.984375),
    ("neuron.current_decay", -0.1, AT_LEAST, 0),
    ("neuron.current_decay", 1.2, AT_MOST, 1),
    ("neuron.voltage_decay", -0.1, AT_LEAST, 0),
    ("neuron.voltage_decay", 1.2, AT_MOST, 1),
    ("neuron.tau_grad", 0, ABOVE, 0),
    ("neuron.scale_grad", 0, ABOVE, 0),
    ("input.shape[0]", 0, AT_LEAST, 1),
    ("input.shape[2]", MOST + 1, AT_MOST, MOST),
    ("input.bits", 0, AT_LEAST, 1),
    ("input.bits", 17, AT_MOST, 16),
    ("input.border", 1.5, "must be one number from 0 to", "1, or one for each channel"),
    ("input.bin_us", 0, AT_LEAST, 1),
    ("input.std", 0, ABOVE, 0),
    ("blocks[3].delays.longest", -1, AT_LEAST, 0),
    ("blocks[3].delays.longest", 63, AT_MOST, 62),
    ("input.log_mel.sample_rate", 999, AT_LEAST, 1000),
    ("input.log_mel.sample_rate", 192_001, AT_MOST, 192_000),
    ("input.log_mel.window", 15, AT_LEAST, 16),
    ("input.log_mel.window", 16_385, AT_MOST, 16_384),
    ("input.log_mel.hop", 0, AT_LEAST, 1),
    ("input.log_mel.hop", 16_385, AT_MOST, 16_384),
    ("input.log_mel.bands", 1, AT_LEAST, 2),
    ("input.log_mel.bands", 513, AT_MOST, 512),
    ("input.log_mel.frames", 1, AT_LEAST, 2),
    ("input.log_mel.frames", 4097, AT_MOST, 4096),
    ("input.log_mel.low_hz", -1.0, AT_LEAST, 0),
    ("input.log_mel.high_hz", 0.0, ABOVE, 0),
    ("input.log_mel.range_db", 0.0, ABOVE, 0),
    ("input.log_mel.range_db", 201.0, AT_MOST, 200),
    ("blocks[0].channels", 0, AT_LEAST, 1),
    ("blocks[0].channels", MOST + 1, AT_MOST, MOST),
    ("blocks[0].kernel", [0, 1], *PAIR),
    ("blocks[0].kernel", [1, 4097], *PAIR),
    ("blocks[0].stride", [0, 1], *PAIR),
    ("blocks[0].stride", [1, 4097], *PAIR),
    ("blocks[0].padding", [-1, 1], *PADDING),
    ("blocks[0].padding", [1, 4097], *PADDING),
    ("blocks[0].dilation", [0, 1], *PAIR),
    ("blocks[0].dilation", [1, 4097], *PAIR),
    ("blocks[0].groups", 0, AT_LEAST, 1),
    ("blocks[0].dropout", -0.1, AT_LEAST, 0),
    ("blocks[0].dropout", 1, BELOW, 1),
    ("blocks[1].kernel", [1, 0], *PAIR),
    ("blocks[1].stride", [0, 1], *PAIR),
    ("blocks[1].padding", [1, -1], *PADDING),
    ("blocks[1].gain", 0, ABOVE, 0),
    ("blocks[3].features", 0, AT_LEAST, 1),
    ("blocks[3].dropout", 1, BELOW, 1),
    ("blocks[3].skips[0].source", -1, AT_LEAST, 0),
    ("blocks[4].features", 0, AT_LEAST, 1),
    ("blocks[4].features", MOST + 1, AT_MOST, MOST),
    ("blocks[4].dropout", -0.1, AT_LEAST, 0),
    ("training.epochs", 0, AT_LEAST, 1),
    ("training.batch_size", 0, AT_LEAST, 1),
    ("training.learning_rate", 0, ABOVE, 0),
    ("training.weight_decay", -0.1, AT_LEAST, 0),
    ("training.label_smoothing", -0.1, AT_LEAST, 0),
    ("training.label_smoothing", 1, BELOW, 1),
    ("training.logit_scale", 0, ABOVE, 0),
    ("training.distillation", -0.1, AT_LEAST, 0),
    ("training.distillation", 1.1, AT_MOST, 1),
    ("training.self_distillation", -0.1, AT_LEAST, 0),
    ("training.self_distillation", 1.1, AT_MOST, 1),
    ("training.spike_tau", 0, ABOVE, 0),
    ("training.ema_decay", -0.1, AT_LEAST, 0),
    ("training.ema_decay", 1, BELOW, 1),
    ("training.images_per_epoch", 0, AT_LEAST, 1),
    ("training.mixup", -0.1, AT_LEAST, 0),
    ("training.mixup", 101, AT_MOST, 100),
    ("training.augment.degrees", -1, AT_LEAST, 0),
    ("training.augment.degrees", 181, AT_MOST, 180),
    ("training.augment.translate", -0.1, AT_LEAST, 0),
    ("training.augment.translate", 1.1, AT_MOST, 1),
    ("training.augment.scale[0]", 0, ABOVE, 0),
    ("training.augment.scale[1]", 0, ABOVE, 0),
    ("training.augment.shear", -1, AT_LEAST, 0),
    ("training.augment.shear", 90, BELOW, 90),
    ("training.augment.shift", -1, AT_LEAST, 0),
    ("training.augment.shift", 65, AT_MOST, 64),
    ("training.augment.elastic", -0.1, AT_LEAST, 0),
    ("training.augment.elastic", 1.1, AT_MOST, 1),
    ("training.augment.drop", -0.1, AT_LEAST, 0),
    ("training.augment.drop", 1.1, AT_MOST, 1),
    ("training.augment.jitter", -1, AT_LEAST, 0),
    ("training.augment.jitter", 65, AT_MOST, 64),
    ("training.augment.erase", -0.1, AT_LEAST, 0),
    ("training.augment.erase", 1.1, AT_MOST, 1),
    ("training.validation", 0, AT_LEAST, 1),
    ("training.sample_period", 0, AT_LEAST, 1),
    ("training.sample_iterations", 0, AT_LEAST, 1),
    ("training.crossover_epochs[0]", -1, AT_LEAST, 0),
    ("training.snn_epochs", -1, AT_LEAST, 0),
    ("training.snn_learning_rate", 0, ABOVE, 0),
    ("training.seed", -1, AT_LEAST, 0),
]
INSIDE = [
    ("time_steps", 1),
    ("time_steps", 4096),
    ("neuron.threshold", 1 / 64),
    ("neuron.threshold", 2047.984375),
    ("neuron.current_decay", 0),
    ("neuron.current_decay", 1),
    ("neuron.voltage_decay", 0),
    ("neuron.voltage_decay", 1),
    ("neuron.tau_grad", 1e-9),
    ("neuron.scale_grad", 1e-9),
    ("input.shape[0]", 1),
    ("input.bits", 1),
    ("input.bits", 16),
    ("input.bin_us", 1),
    ("input.mean", -3.5),
    ("input.std", 1e-9),
    ("input.log_mel.window", 16_384),
    ("input.log_mel.hop", 1),
    ("input.log_mel.low_hz", 0),
    ("input.log_mel.range_db", 200),
    ("blocks[0].channels", 1),
    ("blocks[0].kernel[0]", 1),
    ("blocks[0].stride[0]", 1),
    ("blocks[0].padding[0]", 0),
    ("blocks[0].dilation[0]", 1),
    ("blocks[0].dropout", 0),
    ("blocks[0].dropout", 0.999),
    ("blocks[1].kernel[0]", 1),
    ("blocks[3].features", 1),
    ("blocks[3].delays.longest", 0),
    ("blocks[3].delays.longest", 62),
    ("blocks[3].skips[0].source", 0),
    ("blocks[4].features", 1),
    ("training.epochs", 1),
    ("training.weight_decay", 0),
    ("training.label_smoothing", 0),
    ("training.distillation", 0),
    ("training.distillation", 1),
    ("training.self_distillation", 0),
    ("training.self_distillation", 1),
    ("training.ema_decay", 0),
    ("training.images_per_epoch", 1),
    ("training.mixup", 0),
    ("training.mixup", 100),
    ("training.augment.degrees", 0),
    ("training.augment.degrees", 180),
    ("training.augment.translate", 0),
    ("training.augment.translate", 1),
    ("training.augment.shear", 0),
    ("training.augment.shear", 89.9),
    ("training.augment.elastic", 0),
    ("training.augment.elastic", 1),
    ("training.augment.drop", 0),
    ("training.augment.drop", 1),
    ("training.augment.jitter", 0),
    ("training.augment.jitter", 64),
    ("training.augment.erase", 0),
    ("training.augment.erase", 1),
    ("training.crossover_epochs[0]", 0),
    ("training.snn_epochs", 0),
    ("training.snn_epochs", 8),
    ("training.seed", 0),
]


def _with(path: str, value: object) -> str:
    """Return YAML text of the document with `value` at `path`, one field per line."""
    document: Any = copy.deepcopy(DOCUMENT)
    *parents, last = (int(part) if part.isdigit() else part for part in re.findall(r"\w+", path))
    parent = document
    for part in parents:
        parent = parent[part]
    assert parent[last] != "marker"  # the path exists
    parent[last] = value
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=False)
    return text


def _line(path: str) -> int:
    return 1 + next(i for i, line in enumerate(_with(path, "marker").splitlines()) if "marker" in line)


def test_the_document_of_these_tests_is_valid() -> None:
    assert parse_spec(yaml.safe_dump(DOCUMENT)).name == "every-field"


def test_every_bounded_field_is_in_the_table() -> None:
    schema = json_schema()
    bounded = {
        name
        for model in [schema, *schema["$defs"].values()]
        for name, field in model.get("properties", {}).items()
        if "imum" in str(field)  # minimum, exclusiveMaximum, ...
    }
    assert bounded == {re.findall(r"[a-z_]+", path)[-1] for path, *_ in OUTSIDE}


@pytest.mark.parametrize(("path", "value", "words", "bound"), OUTSIDE)
def test_a_value_out_of_bounds_is_refused_by_file_line_path_bound_and_value(
    path: str, value: object, words: str, bound: object, refusal
) -> None:
    expected = f"net.yaml:{_line(path)}: {path}: {words} {bound} (got {value})"
    assert expected in refusal(_with(path, value)).splitlines()


@pytest.mark.parametrize(("path", "value"), INSIDE)
def test_a_bound_itself_is_allowed(path: str, value: float) -> None:
    parse_spec(_with(path, value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "path", ["neuron.threshold", "input.mean", "input.weight", "input.bias", "blocks[1].gain", "training.learning_rate"]
)
def test_no_number_may_be_infinite_or_nan(path: str, value: float, refusal) -> None:
    assert refusal(_with(path, value)) == (f"net.yaml:{_line(path)}: {path}: must be a finite number (got {value})")


def test_a_fraction_is_no_integer(refusal) -> None:
    assert refusal(_with("time_steps", 4.5)) == "net.yaml:2: time_steps: must be a whole number (got 4.5)"


@pytest.mark.parametrize(
    ("path", "value"),
    [("time_steps", True), ("neuron.threshold", True), ("blocks[0].kernel", True), ("training.seed", False)],
)
def test_a_bool_is_no_number(path: str, value: bool, refusal) -> None:
    assert f"net.yaml:{_line(path)}: {path}:" in refusal(_with(path, value))


@pytest.mark.parametrize("path", ["time_steps", "input.shape[0]", "blocks[0].kernel", "blocks[3].features"])
def test_a_quoted_number_is_no_integer(path: str, refusal) -> None:
    assert f"net.yaml:{_line(path)}: {path}:" in refusal(_with(path, "1"))


def test_an_exponent_without_a_point_is_a_number() -> None:
    """`1e-3`, which YAML 1.1 reads as a string, is a number."""
    text = _with("training.learning_rate", 0.125).replace("0.125", "1e-3")
    assert parse_spec(text).training.learning_rate == 1e-3


@pytest.mark.parametrize("path", ["neuron.threshold", "input.std", "blocks[3].features"])
def test_a_value_left_out_after_its_key_is_refused(path: str, refusal) -> None:
    assert f"net.yaml:{_line(path)}: {path}:" in refusal(_with(path, None))


@pytest.mark.parametrize("name", ["mnist", "a", "0.9-b_c", "a" * 64])
def test_a_name_is_lower_case_digits_and_some_signs(name: str) -> None:
    assert parse_spec(_with("name", name)).name == name


@pytest.mark.parametrize(
    "name", ["", "Mnist", "a b", "-a", "..", "a/b", "a" * 65, "a\n", "\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_name_that_could_not_be_a_file_name_everywhere_is_refused(name: str, refusal) -> None:
    assert refusal(_with("name", name)).startswith("net.yaml:1: name:")


@pytest.mark.parametrize("block", [0, 1])
def test_one_number_stands_for_both_axes(block: int) -> None:
    spec = parse_spec(_with(f"blocks[{block}].kernel", 2))
    assert spec.blocks[block].kernel == (2, 2)


def test_two_numbers_are_height_and_width() -> None:
    assert parse_spec(_with("blocks[0].kernel", [1, 3])).shapes[1] == (4, 18, 16)


@pytest.mark.parametrize("field", ["kernel", "stride", "padding", "dilation"])
@pytest.mark.parametrize("value", [[1, 1, 1], [1], []])
def test_an_axis_too_many_or_too_few_is_refused(field: str, value: list[int], refusal) -> None:
    """Three numbers may come from a 5-D kernel of lava-dl."""
    text = _with(f"blocks[0].{field}", value)
    line = _line(f"blocks[0].{field}")
    expected = " ".join(PADDING if field == "padding" else PAIR)
    assert refusal(text) == (f"net.yaml:{line}: blocks[0].{field}: {expected} (got {value})")


@pytest.mark.parametrize(
    ("given", "sides"), [(2, (2, 2)), ([1, 2], (1, 2)), ([1, 2, 1, 2], (1, 2)), ([0, 0, 1, 1], (0, 0, 1, 1))]
)
def test_padding_has_four_sides_only_if_opposite_ones_differ(given: Any, sides: tuple[int, ...]) -> None:
    assert ConvSpec(channels=1, kernel=1, padding=given).padding == sides
    assert ConvSkip(source=1, padding=given).padding == sides
    assert AvgPoolSpec(kernel=3, padding=given).padding == sides


@pytest.mark.parametrize("path", ["neuron.reset", "neuron.learn_decays", "input.encoding", "blocks[0].norm"])
def test_an_unknown_option_is_refused_with_those_there_are(path: str, refusal) -> None:
    *parents, last = path.split(".")
    message = refusal(_with(".".join(parents), {**_at(".".join(parents)), last: "other"}))
    assert f"{path}: must be '" in message
    assert message.endswith("(got 'other')")


def _at(path: str) -> dict[str, Any]:
    part: Any = DOCUMENT
    for name in re.findall(r"\w+", path):
        part = part[int(name) if name.isdigit() else name]
    found: dict[str, Any] = part
    return found
