"""The sigma-delta neuron, step by step, against values worked out by hand."""

import torch

from bootstrap_core.functional.sigma_delta import Activation, SigmaDeltaStates, sigma_delta


def run(z: list[float], kind: Activation = Activation.RELU, **options) -> dict[str, list[int]]:
    steps = sigma_delta((torch.tensor([[x]]) for x in z), kind, **options)
    kept = [[int(x) for x in step] for step in steps]
    return dict(zip(SigmaDeltaStates._fields, map(list, zip(*kept, strict=True)), strict=True))


def test_sigma_adds_up_and_only_changes_are_sent() -> None:
    found = run([64.0, 0.0, 32.0, -200.0])
    assert found["sigma"] == [4096, 4096, 6144, -6656]
    assert found["activation"] == [4096, 4096, 6144, 0]
    assert found["message"] == [64, 0, 32, -96]


def test_a_change_below_the_threshold_waits_in_the_residue() -> None:
    found = run([30.0, 30.0, 30.0, 30.0], threshold=4000)
    assert found["change"] == [1920, 3840, 5760, 1920]
    assert found["message"] == [0, 0, 90, 0]


def test_a_change_that_equals_the_threshold_is_sent() -> None:
    assert run([64.0], threshold=4096)["message"] == [64]
    assert run([64.0], threshold=4097)["message"] == [0]


def test_a_message_is_rounded_down_and_its_rest_is_lost() -> None:
    up = run([1.5, 0.0], threshold=64)  # 96 states
    assert (up["message"], up["change"]) == ([1, 0], [96, 0])
    down = run([10.0, -1.5], threshold=64)
    assert down["message"] == [10, -2]


def test_the_bias_acts_in_the_first_step_and_belongs_to_each_channel() -> None:
    bias = torch.tensor([640.0, -640.0]).reshape(2, 1, 1)
    steps = list(sigma_delta([torch.zeros(1, 2, 1, 3)] * 2, bias=bias))
    assert steps[0].message[0, :, 0].tolist() == [[10.0] * 3, [0.0] * 3]
    assert not steps[1].message.any()


def test_frames_are_activations_and_may_be_negative() -> None:
    found = run([-4096.0, -4096.0, 8192.0], Activation.FRAME)
    assert found["activation"] == found["sigma"] == [-4096, -4096, 8192]
    assert found["message"] == [-64, 0, 192]


def test_states_beyond_what_float32_holds_are_exact() -> None:
    def total(dtype: torch.dtype) -> int:
        z = [torch.tensor([[x]], dtype=dtype) for x in (float(1 << 18), 1 / 64)]
        return int([step.sigma for step in sigma_delta(z)][-1])

    assert total(torch.float64) == total(torch.float32) == (1 << 24) + 1
    assert float(torch.tensor((1 << 24) + 1.0)) != (1 << 24) + 1
