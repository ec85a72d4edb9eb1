import pytest
import torch

from bootstrap_core.functional.dropout import dropout_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_a_part_is_dropped_and_the_rest_scaled_so_that_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    mask = dropout_mask((400, 1001), p, CPU)
    assert mask.dtype == torch.float32
    assert mask.shape == (400, 1001)
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    assert float((mask == 0).float().mean()) == pytest.approx(p, abs=5e-3)
    rows, columns = (mask.mean(axis) * (1 - p) for axis in (1, 0))
    spread = (p * (1 - p)) ** 0.5  # standard deviation of an independent input
    assert rows.std().item() == pytest.approx(spread / 1001**0.5, rel=0.15)
    assert columns.std().item() == pytest.approx(spread / 400**0.5, rel=0.15)


def test_torch_s_generator_is_its_seed() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append([dropout_mask((7, 9), 0.5, CPU) for _ in range(2)])
    assert torch.equal(torch.stack(masks[0]), torch.stack(masks[1]))
    assert not torch.equal(masks[0][0], masks[2][0])
    assert not torch.equal(masks[0][0], masks[0][1])


def test_what_is_compiled_drops_as_torch_does() -> None:
    torch.manual_seed(0)
    run = torch.compile(lambda x: x * dropout_mask(x.shape, 0.5, x.device), fullgraph=True, backend="aot_eager")
    assert set(run(torch.ones(50)).tolist()) == {0.0, 2.0}
