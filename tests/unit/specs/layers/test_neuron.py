"""Kinds of neurons in a spec: CUBA by default; sigma-delta neurons, and what they do not go together with."""

import pytest

from specs import CubaSpec, NetworkSpec, Reset, SigmaDeltaSpec, SpecError, dump_spec, parse_spec, summarize
from specs.training import TrainingSpec

STEER = """name: steer
time_steps: 9
neuron: {kind: sigma_delta, threshold: 0.1}
input: {shape: [3, 9, 9], encoding: frames, neuron: {kind: sigma_delta}}
blocks:
  - {kind: conv, channels: 4, kernel: 3, stride: 2, bias: true}
  - {kind: avg_pool, kernel: 2}
  - {kind: flatten}
  - {kind: dense, features: 5, neuron: {kind: sigma_delta, threshold: 0.5}}
  - {kind: affine, features: 2}
"""


def test_a_neuron_without_a_kind_is_cuba() -> None:
    spec = parse_spec("{name: a, time_steps: 1, neuron: {threshold: 2.0}, input: {shape: [2]}, "
                      "blocks: [{kind: affine, features: 1, neuron: {kind: cuba}}]}")  # fmt: skip
    assert spec.neuron == CubaSpec(threshold=2.0)
    assert spec.neuron_of(spec.blocks[0]) == CubaSpec()
    assert not spec.gives_values


def test_voltages_start_at_0_unless_the_spec_says_otherwise() -> None:
    spec = parse_spec("{name: a, time_steps: 1, neuron: {start: 0.5}, input: {shape: [2]}, "
                      "blocks: [{kind: dense, features: 1, neuron: {start: 0.0}}]}")  # fmt: skip
    assert spec.starts == {0.0, 0.5}
    assert parse_spec(dump_spec(spec)) == spec
    document = spec.model_dump(mode="json")
    assert document["neuron"]["start"] == 0.5
    assert "start" not in document["blocks"][0]["neuron"]  # files of networks without one stay as they were


def test_sigma_delta_neurons_have_thresholds_from_0_and_give_values() -> None:
    spec = parse_spec(STEER)
    neurons = [spec.neuron_of(spec.layers[i]) for i in (0, 1, 2, 4, 5)]
    assert all(isinstance(neuron, SigmaDeltaSpec) for neuron in neurons)
    assert [neuron.threshold for neuron in neurons] == [0, 0.1, 0.1, 0.5, 0.1]
    assert spec.gives_values
    assert (spec.n_classes, spec.has_ann, spec.resets) == (2, True, set())
    assert (spec.input.least, spec.input.largest, spec.input.form) == (-128, 127, "frames, 8 bits")
    assert parse_spec(dump_spec(spec)) == spec
    assert NetworkSpec.model_validate_json(spec.model_dump_json()) == spec


def test_sigma_delta_neurons_have_no_parameters() -> None:
    assert [row.parameters for row in summarize(parse_spec(STEER))] == [0, 112, 0, 0, 80, 10]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("features: 5,", "features: 5, recurrent: true,", "9: blocks[3].recurrent: does not apply to sigma"),
        ("features: 5,", "features: 5, delays: {},", "9: blocks[3].delays: does not apply to sigma"),
        ("features: 5,", "features: 5, norm: batch,", "9: blocks[3].norm: does not apply to sigma"),
        ("features: 5,", "features: 5, dropout: 0.1,", "9: blocks[3].dropout: does not apply to sigma"),
        ("kind: affine", "kind: average", "10: blocks[4].kind: sigma-delta neurons have no rates to average"),
        ("encoding: frames, neuron: {kind: sigma_delta}", "encoding: events", "4: input.encoding: must be frames"),
        ("encoding: frames", "encoding: frames, mean: 0.5", "4: input.mean: does not apply to encoding: frames"),
        ("encoding: frames", "encoding: frames, padding: 1", "4: input.padding: does not apply to encoding: frames"),
        ("encoding: frames", "encoding: frames, log_mel: {}", "4: input.log_mel: makes images, which encoding: frames"),
        ("{kind: sigma_delta, threshold: 0.1}", "{}", "4: input.encoding: frames are for sigma-delta neurons"),
        ("threshold: 0.1}", "threshold: 0.1, reset: zero}", "3: neuron.reset: no such key"),
        ("threshold: 0.5", "threshold: -0.5", "9: blocks[3].neuron.threshold: must be at least 0 (got -0.5)"),
        ("{kind: sigma_delta, threshold: 0.5}", "{}", "9: blocks[3].neuron.kind: must be sigma_delta, as all neurons"),
        ("sigma_delta, threshold: 0.5", "sigma_delt", "9: blocks[3].neuron.kind: must be one of cuba, sigma_delta"),
        ("threshold: 0.5", "treshold: 0.5", "9: blocks[3].neuron.treshold: no such key; did you mean threshold?"),
        ("time_steps: 9", "time_steps: 9\nlogit_scale: 2.0", "3: logit_scale: does not apply to sigma"),
        ("time_steps: 9", "time_steps: 9\ntraining: {mixup: 0.2}", "training.mixup: does not apply to a network that"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_at_its_line(before: str, after: str, told: str) -> None:
    assert before in STEER
    with pytest.raises(SpecError) as error:
        parse_spec(STEER.replace(before, after))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"logit_scale": 2.0}, "logit_scale"),
        ({"teacher": "mnist-dense"}, "teacher"),
        ({"augment": "default"}, "augment"),
        ({"initialize": True}, "initialize"),
        ({"crossover_epochs": [1]}, "crossover_epochs"),
        ({"sample_period": 3}, "sample_period"),
        ({"precision": "bfloat16"}, "precision"),
        ({"snn_epochs": 2}, "snn_gradient"),
        ({"snn_epochs": 2, "snn_gradient": "tandem", "self_distillation": 0.5}, "self_distillation"),
    ],
)
def test_recipes_that_need_classes_or_spikes_are_refused(fields: dict[str, object], problem: str) -> None:
    spec = parse_spec(STEER)
    found = spec.recipe_problem(TrainingSpec.model_validate(fields))
    assert found is not None
    assert found[0] == problem


def test_recipes_of_values_are_taken() -> None:
    fields = {"snn_epochs": 2, "snn_gradient": "tandem", "ema_decay": 0.9, "weight_decay": 0.1, "images_per_epoch": 9}
    assert parse_spec(STEER).recipe_problem(TrainingSpec.model_validate(fields)) is None


def test_a_pool_of_sigma_delta_neurons_is_a_mean_unless_it_has_a_gain() -> None:
    spec = parse_spec(STEER)
    pool = spec.blocks[1]
    assert pool.weight(spec.neuron_of(pool)) == 0.25
    assert pool.weight(CubaSpec(threshold=4.0)) == 66 / 64
    again = parse_spec(STEER.replace("avg_pool, kernel: 2", "avg_pool, kernel: 2, gain: 2.0")).blocks[1]
    assert again.weight(SigmaDeltaSpec(kind="sigma_delta")) == 0.5


def test_resets_are_those_of_cuba_neurons() -> None:
    spec = parse_spec("{name: a, time_steps: 1, input: {shape: [2]}, blocks: [{kind: affine, features: 1}]}")
    assert spec.resets == {Reset.ZERO}
