"""Affine augmentation against matrices composed forwards in NumPy and a bilinear loop written from its definition."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bootstrap_core.augment import RandomAffine, inverse_affine, warp_affine
from specs.errors import DataError, SpecError


def one(angle: float = 0, x: float = 0, y: float = 0, scale: float = 1, shear: float = 0) -> Tensor:
    """The inverse matrix [1, 2, 3] of one transform."""
    return inverse_affine(
        angle=torch.tensor([angle], dtype=torch.float64),
        translation=torch.tensor([[x, y]], dtype=torch.float64),
        scale=torch.tensor([scale], dtype=torch.float64),
        shear=torch.tensor([shear], dtype=torch.float64),
    )


def forward_matrix(
    angle: float, x: float, y: float, scale: float, shear: float, height: int, width: int
) -> NDArray[np.float64]:
    """Where an input pixel goes, step by step in pixel indices: to the centre, shear, turn, zoom, back, shift."""
    a, k, cx, cy = math.radians(angle), math.radians(shear), (width - 1) / 2, (height - 1) / 2
    to_centre = np.array([[1, 0, -cx], [0, 1, -cy], [0, 0, 1]])
    shearing = np.array([[1, -math.tan(k), 0], [0, 1, 0], [0, 0, 1]])
    turn = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    zoom = np.diag([scale, scale, 1])
    back_and_shift = np.array([[1, 0, cx + x], [0, 1, cy + y], [0, 0, 1]])
    forward: NDArray[np.float64] = back_and_shift @ zoom @ turn @ shearing @ to_centre
    return forward


def warp_by_loop(image: NDArray[np.float64], forward: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = image.shape
    inverse = np.linalg.inv(forward)
    output = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y, _ = inverse @ [column, row, 1]
            for i in range(height):
                for j in range(width):
                    output[row, column] += image[i, j] * max(0, 1 - abs(x - j)) * max(0, 1 - abs(y - i))
    return output


@pytest.mark.parametrize(
    ("angle", "x", "y", "scale", "shear"),
    [
        (30, 0, 0, 1, 0),
        (-75, 0, 0, 1, 0),
        (0, 1.25, -0.5, 1, 0),
        (0, 0, 0, 1.3, 0),
        (0, 0, 0, 1, 20),
        (25, -1.5, 0.75, 0.8, -15),
    ],
)
def test_warp_is_the_forward_transform(angle: float, x: float, y: float, scale: float, shear: float) -> None:
    image = np.random.default_rng(0).random((5, 8))  # not square, so that an exchanged axis shows
    expected = warp_by_loop(image, forward_matrix(angle, x, y, scale, shear, 5, 8))
    found = warp_affine(torch.from_numpy(image)[None, None], one(angle, x, y, scale, shear))
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-9)


def test_positive_angle_turns_clockwise() -> None:
    image = torch.rand(1, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(warp_affine(image, one(angle=90)), image.rot90(-1, dims=(2, 3)))


def test_positive_shift_moves_right_and_down_and_fills_with_zeros() -> None:
    image = torch.rand(1, 1, 4, 5, dtype=torch.float64) + 1
    expected = torch.zeros_like(image)
    expected[..., 1:, 2:] = image[..., :-1, :-2]
    torch.testing.assert_close(warp_affine(image, one(x=2, y=1)), expected)


def test_positive_shear_moves_the_top_right() -> None:
    image = torch.zeros(1, 1, 3, 5, dtype=torch.float64)
    image[..., 2] = 1  # a vertical bar
    expected = torch.zeros_like(image)
    expected[0, 0, [0, 1, 2], [3, 2, 1]] = 1
    torch.testing.assert_close(warp_affine(image, one(shear=45)), expected)


def test_each_image_and_not_each_channel_has_its_own_transform() -> None:
    image = torch.rand(1, 1, 28, 28)
    found = RandomAffine()(image.expand(3, 2, 28, 28), torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=0)
    assert (found[0] - found[1]).abs().max() > 0.1
    assert (found[1] - found[2]).abs().max() > 0.1


def test_a_seed_determines_the_result() -> None:
    images = torch.rand(4, 1, 28, 28)
    augment = RandomAffine()
    first, again, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    RandomAffine()(torch.rand(2, 1, 28, 28, generator=torch.Generator()), torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


def test_draws_fill_their_ranges_and_stay_inside() -> None:
    height, width = 20, 40
    augment = RandomAffine(degrees=30, translate=0.1, scale=(0.5, 2.0), shear=15)
    inverse = augment.draw(4096, height, width, torch.Generator().manual_seed(0)).double()
    forward = torch.linalg.inv(inverse[:, :, :2])  # scale * R @ K
    x, y = -(forward @ inverse[:, :, 2:]).squeeze(-1).T
    angle = torch.rad2deg(torch.atan2(forward[:, 1, 0], forward[:, 0, 0]))
    scale = forward.det().sqrt()
    shear = torch.rad2deg(torch.atan(-(forward[:, :, 0] * forward[:, :, 1]).sum(1) / scale**2))
    for name, values, low, high in (
        ("angle", angle, -30, 30),
        ("x", x, -4, 4),
        ("y", y, -2, 2),
        ("scale", scale, 0.5, 2),
        ("shear", shear, -15, 15),
    ):
        margin, rounding = (high - low) / 100, (high - low) / 1e4
        assert low - rounding <= values.min() < low + margin, name
        assert high - margin < values.max() <= high + rounding, name
        assert abs(values.mean() - (low + high) / 2) < 3 * margin, name
    drawn = torch.stack([angle, x, y, scale, shear])
    assert (torch.corrcoef(drawn) - torch.eye(5)).abs().max() < 0.1  # independent


def test_all_zero_is_the_identity_and_draws_nothing() -> None:
    images = torch.rand(2, 1, 28, 28)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    augment = RandomAffine(degrees=0, translate=0, scale=(1, 1), shear=0)
    assert augment.is_identity
    assert torch.equal(augment(images, generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    "augment",
    [
        RandomAffine(degrees=1, translate=0, scale=(1, 1), shear=0),
        RandomAffine(degrees=0, translate=0.1, scale=(1, 1), shear=0),
        RandomAffine(degrees=0, translate=0, scale=(1, 1.1), shear=0),
        RandomAffine(degrees=0, translate=0, scale=(1, 1), shear=1),
    ],
)
def test_one_parameter_is_enough_to_change_an_image(augment: RandomAffine) -> None:
    images = torch.rand(16, 1, 28, 28)
    assert not augment.is_identity
    assert (augment(images, torch.Generator().manual_seed(0)) - images).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(dtype: torch.dtype) -> None:
    images = torch.rand(3, 2, 8, 12, dtype=dtype)
    found = RandomAffine()(images, torch.Generator().manual_seed(0))
    assert (found.shape, found.dtype) == (images.shape, dtype)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("degrees", -1.0),
        ("degrees", math.nan),
        ("translate", 1.5),
        ("shear", 90.0),
        ("scale", (0.0, 1.0)),
        ("scale", (1.1, 0.9)),
        ("scale", (1.0, math.inf)),
    ],
)
def test_a_parameter_outside_its_range_names_itself(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=rf"{name} = \(?{value if isinstance(value, float) else ''}"):
        RandomAffine(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, 28, 28)])
def test_integer_or_unbatched_images_are_refused(images: Tensor) -> None:
    with pytest.raises(DataError, match="float images"):
        RandomAffine()(images, torch.Generator())
