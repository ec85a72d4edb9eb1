"""Kernels enlarged by zeros, for formats with equal padding on opposite sides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bootstrap_core.functional.convolution import conv2d
from converters.linear.even_padding import evened, notes_on_kernel, unevened
from specs import ConvSpec, UnsupportedError, parse_spec

PADS = st.lists(st.integers(0, 4), min_size=4, max_size=4)
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=200, deadline=None)
@given(kernel=PAIR, stride=PAIR, dilation=PAIR, padding=PADS)
def test_an_enlarged_kernel_computes_the_same_and_comes_back(kernel, stride, dilation, padding) -> None:
    spec = ConvSpec(channels=2, kernel=kernel, stride=stride, dilation=dilation, padding=padding)
    weight = np.arange(1, 1 + 2 * kernel[0] * kernel[1]).reshape(2, 1, *kernel)
    wide, apart, even = evened(weight, spec.dilation, spec.padding)
    assert even == (max(padding[::2]), max(padding[1::2]))
    enlarged = ConvSpec(channels=2, kernel=wide.shape[2:], stride=stride, dilation=apart, padding=even)
    x = torch.randint(-9, 9, (2, 1, 9, 11)).double()
    wanted = conv2d(x, torch.from_numpy(weight).double(), spec)
    assert torch.equal(conv2d(x, torch.from_numpy(wide).double(), enlarged), wanted)
    assert np.array_equal(unevened(wide, spec), weight)


def test_blocks_with_an_enlarged_kernel_are_named() -> None:
    wide = "{kind: conv, channels: 2, kernel: 3, dilation: 2, padding: [0, 1, 2, 1]}"
    even = "{kind: conv, channels: 2, kernel: 3, padding: 1}"
    pool = "{kind: avg_pool, kernel: 2, padding: [0, 0, 1, 0]}"
    blocks = f"[{wide}, {even}, {wide}, {pool}, {{kind: flatten}}, {{kind: affine, features: 2}}]"
    spec = parse_spec(f"{{name: a, time_steps: 4, input: {{shape: [1, 16, 16]}}, blocks: {blocks}}}")
    notes = [list(notes_on_kernel(layer)) for layer in spec.blocks]
    assert [len(found) for found in notes] == [1, 0, 1, 1, 0, 0]
    assert notes[0] == notes[2]
    assert notes[0][0].startswith("the file has a kernel [4, 3] with zeros")
    assert notes[3][0].startswith("the file has a kernel [3, 2] with zeros")


def test_a_weight_where_zeros_should_be_is_no_enlarged_kernel() -> None:
    spec = ConvSpec(channels=1, kernel=2, padding=(0, 0, 1, 1))
    wide, *_ = evened(np.ones((1, 1, 2, 2)), (1, 1), spec.padding)
    assert unevened(wide, spec) is not None
    wide[0, 0, 0, 0] = 1
    assert unevened(wide, spec) is None
    assert unevened(wide[:, :, 1:], spec) is None


def test_a_kernel_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"padding \[0, 0, 1, 1\] differs between opposite sides.*weights"):
        evened(np.ones((1, 1, 4, 4)), (4096, 4096), (0, 0, 1, 1))
