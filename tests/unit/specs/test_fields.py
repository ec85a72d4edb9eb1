"""Bounds of all fields: the bound is valid, and an error one step beyond names file, line, path, bound and value."""

import copy
import re
from typing import Any

import pytest
import yaml

from specs import AvgPoolSpec, ConvSkip, ConvSpec, NetworkSpec, SpecError, TrainingSpec, json_schema, parse_spec

DOCUMENT: dict[str, Any] = {
    "name": "every-field",
    "time_steps": 4,
    "neuron": {
        "threshold": 1.0,
        "current_decay": 1.0,
        "voltage_decay": 0.0,
        "tau_grad": 1.0,
        "scale_grad": 1.0,
        "start": 0.0,
    },
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
NEEDS_OTHERS = ("input.log_mel.bands", "input.log_mel.frames", "input.log_mel.sample_rate")
"""Fields whose bounds are allowed only if other fields fit them."""

AT_LEAST, ABOVE, AT_MOST, BELOW = (f"must be {words}" for words in ("at least", "above", "at most", "below"))
PAIR = "must be one whole number from 1 to 4096, or [height, width]"
PADDING = "must be one whole number from 0 to 4096, [height, width], or [top, left, bottom, right]"
WHOLE: list[tuple[str, int, int | None]] = [
    ("time_steps", 1, 4096),
    ("input.shape[0]", 1, None),
    ("input.bits", 1, 16),
    ("input.bin_us", 1, None),
    ("input.log_mel.sample_rate", 1000, 192_000),
    ("input.log_mel.window", 16, 16_384),
    ("input.log_mel.hop", 1, 16_384),
    ("input.log_mel.bands", 2, 512),
    ("input.log_mel.frames", 2, 4096),
    ("blocks[0].channels", 1, MOST),
    ("blocks[0].groups", 1, None),
    ("blocks[3].features", 1, MOST),
    ("blocks[3].delays.longest", 0, 62),
    ("blocks[3].skips[0].source", 0, None),
    ("blocks[4].features", 1, MOST),
    ("training.epochs", 1, None),
    ("training.batch_size", 1, None),
    ("training.images_per_epoch", 1, None),
    ("training.augment.shift", 0, 64),
    ("training.augment.jitter", 0, 64),
    ("training.validation", 0, None),
    ("training.sample_period", 1, None),
    ("training.sample_iterations", 1, None),
    ("training.crossover_epochs[0]", 0, None),
    ("training.snn_epochs", 0, None),
    ("training.seed", 0, None),
]
"""Smallest and largest value of fields that take whole numbers."""
REAL: list[tuple[str, float, float | None]] = [
    ("neuron.threshold", 1 / 64, 2047.984375),
    ("neuron.current_decay", 0, 1),
    ("neuron.voltage_decay", 0, 1),
    ("neuron.start", 0, 1),
    ("input.log_mel.low_hz", 0, None),
    ("blocks[0].dropout", 0, None),
    ("training.weight_decay", 0, None),
    ("training.label_smoothing", 0, None),
    ("training.distillation", 0, 1),
    ("training.self_distillation", 0, 1),
    ("training.ema_decay", 0, None),
    ("training.mixup", 0, 100),
    ("training.augment.degrees", 0, 180),
    ("training.augment.translate", 0, 1),
    ("training.augment.shear", 0, None),
    ("training.augment.elastic", 0, 1),
    ("training.augment.drop", 0, 1),
    ("training.augment.erase", 0, 1),
]
"""Smallest and largest value of other fields."""
OPEN = [
    ("input.log_mel.range_db", 0, ABOVE),
    ("input.log_mel.high_hz", 0, ABOVE),
    ("input.std", 0, ABOVE),
    ("neuron.tau_grad", 0, ABOVE),
    ("neuron.scale_grad", 0, ABOVE),
    ("blocks[1].gain", 0, ABOVE),
    *((f"training.{name}", 0, ABOVE) for name in ("learning_rate", "logit_scale", "spike_tau", "snn_learning_rate")),
    *((f"training.augment.scale[{i}]", 0, ABOVE) for i in (0, 1)),
    *((f"blocks[{i}].dropout", 1, BELOW) for i in (0, 3, 4)),
    ("training.label_smoothing", 1, BELOW),
    ("training.ema_decay", 1, BELOW),
    ("training.augment.shear", 90, BELOW),
]
"""Bounds that are themselves refused."""
OUTSIDE = [
    *((path, least - step, f"{AT_LEAST} {least}")
      for table, step in ((WHOLE, 1), (REAL, 0.001)) for path, least, _ in table),
    *((path, most + step, f"{AT_MOST} {most}")
      for table, step in ((WHOLE, 1), (REAL, 0.1)) for path, _, most in table if most is not None),
    *((path, bound, f"{words} {bound}") for path, bound, words in OPEN),
    ("input.shape[2]", MOST + 1, f"{AT_MOST} {MOST}"),
    ("input.log_mel.range_db", 201.0, f"{AT_MOST} 200"),
    ("input.border", 1.5, "must be one number from 0 to 1, or one for each channel"),
    *((f"blocks[0].{name}", value, PAIR)
      for name in ("kernel", "stride", "dilation") for value in ([0, 1], [1, 4097])),
    *((f"blocks[1].{name}", [1, 0], PAIR) for name in ("kernel", "stride")),
    *((f"blocks[{i}].padding", value, PADDING) for i in (0, 1) for value in ([-1, 1], [1, 4097])),
]  # fmt: skip
INSIDE = [
    *((path, least) for path, least, _ in (*WHOLE, *REAL) if path not in NEEDS_OTHERS),
    *((path, most) for path, _, most in (*WHOLE, *REAL) if most not in (None, MOST) and path not in NEEDS_OTHERS),
    ("input.mean", -3.5),
    ("training.snn_epochs", 8),
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


@pytest.mark.parametrize(("path", "value", "words"), OUTSIDE)
def test_a_value_out_of_bounds_is_refused_by_file_line_path_bound_and_value(
    path: str, value: object, words: str, refusal
) -> None:
    expected = f"net.yaml:{_line(path)}: {path}: {words} (got {value})"
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
    expected = PADDING if field == "padding" else PAIR
    assert refusal(text) == (f"net.yaml:{line}: blocks[0].{field}: {expected} (got {value})")


@pytest.mark.parametrize(
    ("given", "sides"), [(2, (2, 2)), ([1, 2], (1, 2)), ([1, 2, 1, 2], (1, 2)), ([0, 0, 1, 1], (0, 0, 1, 1))]
)
def test_padding_has_four_sides_only_if_opposite_ones_differ(given: Any, sides: tuple[int, ...]) -> None:
    assert ConvSpec(channels=1, kernel=1, padding=given).padding == sides
    assert ConvSkip(source=1, padding=given).padding == sides
    assert AvgPoolSpec(kernel=3, padding=given).padding == sides


def test_specs_made_in_python_get_the_messages_of_files() -> None:
    blocks = [{"kind": "dense", "features": 5, "wieght_norm": True}, {"kind": "afine", "features": 2}]
    network = {"name": "tiny", "time_steps": 0, "input": {"shape": [9]}, "blocks": blocks, "epochs": 3}
    told = [
        "NetworkSpec: time_steps: must be at least 1 (got 0)",
        "NetworkSpec: blocks[0].wieght_norm: no such key; did you mean weight_norm? (got True)",
        "NetworkSpec: blocks[1].kind: must be one of dense, conv, avg_pool, flatten, affine, average; did you mean "
        "affine? (got 'afine')",
        "NetworkSpec: epochs: no such key; did you mean training.epochs? (got 3)",
    ]
    for make in (NetworkSpec.model_validate, lambda fields: NetworkSpec(**fields)):
        with pytest.raises(SpecError) as caught:
            make(network)
        assert str(caught.value).splitlines() == told
    with pytest.raises(SpecError, match=re.escape("TrainingSpec: epohcs: no such key; did you mean epochs? (got 3)")):
        TrainingSpec(epohcs=3)  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"TrainingSpec: augment\.shfit: no such key; did you mean shift\?"):
        TrainingSpec.model_validate({"augment": {"shfit": 2}})
