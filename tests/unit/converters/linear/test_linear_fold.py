import pytest
import torch

from bootstrap_core.functional.convolution import conv2d
from converters.linear.linear_fold import Conv, Dense, fold_conv, fold_dense, follow, n_weights_folded, pool
from specs import UnsupportedError

SHAPE = (2, 9, 10)


def run(conv: Conv, x: torch.Tensor) -> torch.Tensor:
    return conv2d(x, conv.weight, conv, conv.bias)


def conv(seed, channels=2, outputs=4, kernel=(3, 2), groups=1, bias=True, **geometry) -> Conv:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels // groups, *kernel, generator=generator).double()
    return Conv(weight, torch.randn(outputs, generator=generator).double() * bias, groups=groups, **geometry)


def depthwise(seed, channels, **options) -> Conv:
    return conv(seed, channels, channels, groups=channels, **options)


PAIRS = [
    (depthwise(1, 2, stride=(2, 1)), conv(2, stride=(1, 2))),
    (depthwise(1, 2, kernel=(2, 3), dilation=(1, 2), padding=(1, 1)), conv(2, groups=2, dilation=(2, 1))),
    (conv(3, groups=2, stride=(1, 2), padding=(2, 0)), depthwise(4, 4, kernel=(2, 2), stride=(2, 2))),
    (depthwise(1, 2, padding=(0, 2, 1, 0), bias=False, kernel=(4, 3)), conv(2, stride=(2, 1), padding=(0, 1, 0, 0))),
    (conv(3, stride=(2, 1), padding=(0, 0, 1, 1)), depthwise(4, 4, kernel=(2, 2), stride=(2, 2))),
    (conv(3, dilation=(1, 2)), depthwise(4, 4, kernel=(1, 1))),
    (depthwise(1, 2, kernel=(1, 1), bias=False), conv(2, padding=(1, 1), dilation=(2, 2))),
    (pool(torch.tensor([0.25, 0.5]), (3, 2), (3, 2), (0, 0)), conv(5, padding=(1, 1), kernel=(2, 3))),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_convolution_does_what_two_do(first, second) -> None:
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    both, expected = fold_conv(first, second, SHAPE), run(second, run(first, x))
    assert run(both, x).shape == expected.shape
    assert torch.allclose(run(both, x), expected)


def test_a_kernel_of_one_place_keeps_the_others_dilation() -> None:
    both = fold_conv(depthwise(1, 2, kernel=(1, 1)), conv(2, dilation=(2, 2)), SHAPE)
    assert (both.kernel, both.dilation) == ((3, 2), (2, 2))


def test_padding_after_a_pool_that_leaves_inputs_out_is_refused() -> None:
    """Windows of two leave out the last of nine inputs; a folded kernel with padding would read it."""
    halves = pool(torch.ones(2), (2, 2), (2, 2), (0, 0))
    with pytest.raises(UnsupportedError, match=r"windows of 2 over 9.*padding by 1"):
        fold_conv(halves, conv(2, padding=(1, 1)), SHAPE)
    fold_conv(halves, conv(2, padding=(0, 1)), SHAPE)  # 10 is a multiple of 2
    fold_conv(halves, conv(2, padding=(1, 0, 0, 0)), SHAPE)  # the last input is at the other end


def test_padding_after_a_bias_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="a layer with bias into one with padding"):
        fold_conv(depthwise(1, 2, kernel=(1, 1)), conv(2, padding=(1, 0)), SHAPE)


@pytest.mark.parametrize(("before", "groups"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_two_full_convolutions_become_one_in_their_common_groups(before, groups) -> None:
    first = conv(1, kernel=(1, 1), groups=before, bias=False, stride=(2, 1))
    second = conv(2, channels=4, groups=groups, padding=(1, 0))
    x = torch.randn(3, *SHAPE).double()
    both = fold_conv(first, second, SHAPE)
    assert torch.allclose(run(both, x), run(second, run(first, x)))
    assert both.groups == min(before, groups)
    assert n_weights_folded(first, second) == both.weight.numel()


@pytest.mark.parametrize(
    "first",
    [
        pool(torch.tensor([0.25, 0.5]), (2, 3), (2, 3), (0, 0)),
        pool(torch.tensor([1.0, 1.0]), (3, 2), (2, 1), (1, 1)),
        depthwise(1, 2, dilation=(2, 1)),
    ],
)
def test_a_dense_layer_folds_with_the_pool_before_it(first) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *SHAPE, generator=generator).double()
    middle = run(first, x).flatten(1)
    dense = Dense(torch.randn(5, middle.shape[1], generator=generator).double(), torch.ones(5).double())
    whole = fold_dense(first, dense, SHAPE)
    expected = middle @ dense.weight.T + dense.bias
    assert torch.allclose(x.flatten(1) @ whole.weight.T + whole.bias, expected)


def test_scaling_of_inputs_and_outputs_goes_into_dense_weights() -> None:
    scale_in, scale_out = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([3.0, 5.0]).double()
    dense, x = Dense(torch.randn(2, 3).double(), torch.randn(2).double()), torch.randn(3).double()
    both = follow(follow(scale_in, dense), scale_out)
    assert torch.allclose(both.weight @ x + both.bias, (dense.weight @ (x * scale_in) + dense.bias) * scale_out)


def test_windows_over_windows_that_take_for_ever_are_refused() -> None:
    first, second = (pool(torch.ones(1), (side, side), (1, 1), (0, 0)) for side in (1000, 1001))
    with pytest.raises(UnsupportedError, match="too large"):
        fold_conv(first, second, (1, 2000, 2000))


def test_a_huge_window_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="too large"):
        pool(torch.ones(4096), (4096, 4096), (1, 1), (0, 0))
