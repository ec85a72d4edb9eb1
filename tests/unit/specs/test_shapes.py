"""Shape arithmetic compared with torch, and fan-out compared with counted connections."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from specs import AvgPoolSpec, ConvSpec
from specs.shapes import Axis, ShapeError

axis = st.fixed_dictionaries(
    {
        "kernel": st.integers(1, 5),
        "stride": st.integers(1, 4),
        "start": st.integers(0, 4),
        "end": st.integers(0, 4),
        "dilation": st.integers(1, 3),
    }
)
size = st.integers(1, 12)


@settings(max_examples=200)
@given(height=axis, width=axis, image=st.tuples(size, size), groups=st.integers(1, 3))
def test_a_conv_has_the_shape_of_torchs_or_neither_exists(height, width, image, groups) -> None:
    geometry = {key: (height[key], width[key]) for key in ("kernel", "stride", "dilation")}
    padding = height["start"], width["start"], height["end"], width["end"]
    conv = ConvSpec(channels=2 * groups, groups=groups, padding=padding, **geometry)
    x = torch.zeros(1, 3 * groups, *image)
    weight = torch.zeros(2 * groups, 3, *conv.kernel)
    around = F.pad(x, (width["start"], width["end"], height["start"], height["end"]))
    try:
        expected = F.conv2d(around, weight, None, conv.stride, 0, conv.dilation, groups).shape[1:]
    except RuntimeError:
        with pytest.raises(ShapeError, match="more than the padded input has"):
            conv.output_shape(tuple(x.shape[1:]))
    else:
        assert conv.output_shape(tuple(x.shape[1:])) == tuple(expected)


@settings(max_examples=200)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    part=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    image=st.tuples(size, size),
)
def test_a_pool_has_the_shape_of_torchs_or_neither_exists(kernel, stride, part, image) -> None:
    padding = tuple(min(wanted, k // 2) for wanted, k in zip(part, kernel, strict=True))  # torch's limit
    pool = AvgPoolSpec(kernel=kernel, stride=stride, padding=padding)
    x = torch.zeros(1, 3, *image)
    try:
        expected = F.avg_pool2d(x, kernel, stride, padding).shape[1:]
    except RuntimeError:
        with pytest.raises(ShapeError, match="more than the padded input has"):
            pool.output_shape(tuple(x.shape[1:]))
    else:
        assert pool.output_shape(tuple(x.shape[1:])) == tuple(expected)


@settings(max_examples=200)
@given(size=size, axis=axis)
def test_fanout_is_the_number_of_outputs_that_an_input_changes(size, axis) -> None:
    outputs = Axis(**axis).output(size)
    if outputs < 1:
        assert Axis(**axis).fanout(size) == [0] * size
        return
    one_hot = torch.eye(size)[:, None]  # [N, 1, L]: one input position lit in each row
    kernel = torch.ones(1, 1, axis["kernel"])
    around = F.pad(one_hot, (axis["start"], axis["end"]))
    lit = F.conv1d(around, kernel, None, axis["stride"], 0, axis["dilation"])
    assert lit.shape[-1] == outputs
    assert Axis(**axis).fanout(size) == lit.sum((1, 2)).int().tolist()


def test_a_shape_error_names_the_field_to_blame() -> None:
    with pytest.raises(ShapeError) as caught:
        ConvSpec(channels=4, kernel=1, groups=3).output_shape((3, 2, 2))
    assert caught.value.field == "groups"
