"""The only shape arithmetic: convolution, pooling, flattening, and how far each input reaches."""

import math
from collections.abc import Iterator

from specs.block import (
    AffineSpec,
    AvgPoolSpec,
    ConvSkip,
    ConvSpec,
    DenseSkip,
    DenseSpec,
    FlattenSpec,
    IdentitySkip,
    LayerSpec,
    SkipSpec,
)
from specs.fields import Shape

__all__ = [
    "ShapeError",
    "axis_connections",
    "axis_fanout",
    "axis_output",
    "fit_input",
    "n_weights",
    "output_shape",
    "pool_as_conv",
    "skip_as_layer",
    "skip_shape",
]


class ShapeError(ValueError):
    """A block that cannot take its input shape. `field` is the block's field to blame, or the empty string."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def fit_input(images: Shape, shape: Shape) -> bool:
    """Whether images of one shape enter an input of another: of the same axes, or either has all numbers in a row.

    >>> fit_input((3, 32, 32), (3072,)), fit_input((28, 28), (1, 28, 28)), fit_input((3, 20, 24), (3, 24, 20))
    (True, True, False)
    """
    ours, theirs = (tuple(side for side in each if side > 1) for each in (images, shape))
    return ours == theirs or (math.prod(ours) == math.prod(theirs) and min(len(ours), len(theirs)) < 2)


def axis_output(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Positions a kernel takes along one axis, `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`.

    >>> axis_output(28, kernel=3, stride=2, padding=1, dilation=1)
    14
    """
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def axis_fanout(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> list[int]:
    """For each input position along one axis, how many output positions read it.

    >>> axis_fanout(4, kernel=3, stride=1, padding=0, dilation=1)
    [1, 2, 2, 1]
    """
    fanout = [0] * size
    for positions in _positions_read(size, kernel, stride, padding, dilation):
        for position in positions:
            fanout[position] += 1
    return fanout


def axis_connections(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The sum of `axis_fanout`, without making it.

    >>> axis_connections(4, kernel=3, stride=1, padding=0, dilation=1)
    6
    """
    return sum(map(len, _positions_read(size, kernel, stride, padding, dilation)))


def _positions_read(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Iterator[range]:
    """For each tap of the kernel, the input positions it reads; what lies in the padding is left out."""
    n_outputs = axis_output(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    for tap in range(kernel):
        first = tap * dilation - padding  # of output 0; below 0 in the padding
        start = first if first >= 0 else first % stride
        yield range(start, min(size, first + n_outputs * stride), stride)


def pool_as_conv(pool: AvgPoolSpec, channels: int) -> ConvSpec:
    """The grouped convolution that a pool over `channels` maps is."""
    return ConvSpec(
        channels=channels,
        kernel=pool.kernel,
        stride=pool.stride or pool.kernel,
        padding=pool.padding,
        groups=channels,
        neuron=pool.neuron,
        delay_shift=pool.delay_shift,
    )


def skip_as_layer(skip: SkipSpec, before: Shape, after: Shape) -> tuple[ConvSpec | DenseSpec, Shape]:
    """The layer that a skip from `before` to `after` is, and its input's shape as that layer sees it.

    >>> conv, seen = skip_as_layer(IdentitySkip(source=1), (7,), (7,))
    >>> conv.groups, seen
    (7, (7, 1, 1))
    """
    match skip:
        case DenseSkip():
            return DenseSpec(features=after[0]), (math.prod(before),)
        case ConvSkip():
            return ConvSpec(channels=after[0], **skip.model_dump(exclude={"kind", "source"})), before
        case IdentitySkip():
            return ConvSpec(channels=before[0], kernel=(1, 1), groups=before[0]), (*before, 1, 1)[:3]


def skip_shape(skip: SkipSpec, before: Shape, after: Shape) -> Shape:
    """Shape of what a skip adds to a block of shape `after`, from a source of shape `before`; raises `ShapeError`."""
    return before if isinstance(skip, IdentitySkip) else output_shape(*skip_as_layer(skip, before, after))


def _conv_shape(conv: ConvSpec, shape: Shape) -> Shape:
    channels, *size = shape
    if channels % conv.groups or conv.channels % conv.groups:
        raise ShapeError(
            "groups", f"{conv.groups} groups must divide {channels} input and {conv.channels} output channels"
        )
    outputs = []
    for axis in range(2):
        kernel, padding, dilation = conv.kernel[axis], conv.padding[axis], conv.dilation[axis]
        n = axis_output(size[axis], kernel=kernel, stride=conv.stride[axis], padding=padding, dilation=dilation)
        if n < 1:
            reach = dilation * (kernel - 1) + 1
            raise ShapeError(
                "kernel",
                f"reaches {reach} along {('height', 'width')[axis]}, where the padded input has "
                f"{size[axis] + 2 * padding}: nothing is left",
            )
        outputs.append(n)
    return (conv.channels, *outputs)


def output_shape(layer: LayerSpec, shape: Shape) -> Shape:
    """Shape that `layer` gives for inputs of `shape`; raises `ShapeError`.

    >>> output_shape(ConvSpec(channels=8, kernel=3, stride=2), (1, 28, 28))
    (8, 13, 13)
    """
    match layer:
        case DenseSpec() | AffineSpec():
            if len(shape) != 1:
                raise ShapeError("", f"{layer.kind} needs a flat input, gets {list(shape)}: put a flatten before it")
            return (layer.features,)
        case ConvSpec() | AvgPoolSpec():
            if len(shape) != 3:
                raise ShapeError("", f"{layer.kind} needs [channels, height, width], and gets {list(shape)}")
            return _conv_shape(layer if isinstance(layer, ConvSpec) else pool_as_conv(layer, shape[0]), shape)
        case FlattenSpec():
            return (math.prod(shape),)
        case _:
            return layer.shape


def n_weights(layer: LayerSpec, before: Shape, after: Shape) -> int:
    """Weights between the shapes `before` and `after` a layer.

    >>> n_weights(ConvSpec(channels=8, kernel=3, groups=2), (4, 28, 28), (8, 26, 26))
    144
    """
    match layer:
        case DenseSpec() | AffineSpec():
            return before[0] * after[0]
        case ConvSpec():
            return math.prod(layer.kernel) * after[0] * (before[0] // layer.groups)
        case AvgPoolSpec():
            return math.prod(layer.kernel) * after[0]
        case _:
            return 0
