"""Affine augmentation compared with forward matrices in NumPy and a bilinear loop written from its definition."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bootstrap_core.data import augmentation as augmentation_module
from bootstrap_core.data.augmentation import (
    augment,
    bend,
    draw_affine,
    erase,
    flip,
    inverse_affine,
    scatter_events,
    shift,
    warp_affine,
)
from bootstrap_core.distributed import Group
from specs.errors import DataError, SpecError
from specs.training import AugmentSpec

PLAIN = {"degrees": 0, "translate": 0, "scale": (1, 1), "shear": 0}


def one(angle: float = 0, x: float = 0, y: float = 0, scale: float = 1, shear: float = 0) -> Tensor:
    """Return the inverse matrix `[1, 2, 3]` of one transform."""
    return inverse_affine(
        angle=torch.tensor([angle], dtype=torch.float64),
        translation=torch.tensor([[x, y]], dtype=torch.float64),
        scale=torch.tensor([scale], dtype=torch.float64),
        shear=torch.tensor([shear], dtype=torch.float64),
    )


def forward_matrix(
    angle: float, x: float, y: float, scale: float, shear: float, height: int, width: int
) -> NDArray[np.float64]:
    """Return the matrix that moves a pixel of the input: to the centre, shear, turn, zoom, back and shift."""
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
    image = np.random.default_rng(0).random((5, 8))  # not square, so that swapped axes show
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
    found = augment(image.expand(3, 2, 28, 28), AugmentSpec(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=0)
    assert (found[0] - found[1]).abs().max() > 0.1
    assert (found[1] - found[2]).abs().max() > 0.1


def test_a_seed_determines_the_result() -> None:
    images = torch.rand(4, 1, 28, 28)
    first, again, other = (augment(images, AugmentSpec(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    augment(torch.rand(2, 1, 28, 28, generator=torch.Generator()), AugmentSpec(), torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


def test_draws_fill_their_ranges_and_stay_inside() -> None:
    height, width = 20, 40
    spec = AugmentSpec(degrees=30, translate=0.1, scale=(0.5, 2.0), shear=15)
    inverse = draw_affine(spec, 4096, (height, width), torch.Generator().manual_seed(0)).double()
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
    assert augment(images, AugmentSpec(**PLAIN), generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("one", [{"degrees": 1}, {"translate": 0.1}, {"scale": (1, 1.1)}, {"shear": 1}])
def test_one_parameter_is_enough_to_change_an_image(one: dict) -> None:
    images = torch.rand(16, 1, 28, 28)
    changed = augment(images, AugmentSpec(**PLAIN | one), torch.Generator().manual_seed(0))
    assert (changed - images).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(dtype: torch.dtype) -> None:
    images = torch.rand(3, 2, 8, 12, dtype=dtype)
    found = augment(images, AugmentSpec(), torch.Generator().manual_seed(0))
    assert (found.shape, found.dtype) == (images.shape, dtype)


@pytest.mark.parametrize("shape", [(4, 1, 1, 30), (4, 1, 30, 1)])
def test_numbers_in_a_row_are_no_picture_to_turn(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    for spec in (AugmentSpec(), AugmentSpec(elastic=0.1, shift=2, flip=True, erase=0.5)):
        assert torch.equal(augment(images, spec, torch.Generator().manual_seed(0)), images)


def test_a_shear_that_a_spec_may_say_is_drawn() -> None:
    images = torch.rand(2, 1, 28, 28)
    assert augment(images, AugmentSpec(shear=89.9), torch.Generator().manual_seed(0)).isfinite().all()


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, 28, 28)])
def test_integer_or_unbatched_images_are_refused(images: Tensor) -> None:
    with pytest.raises(DataError, match="float images"):
        augment(images, AugmentSpec(), torch.Generator())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_are_shifted_by_whole_pixels_into_zeros() -> None:
    images = torch.rand(2000, 3, 4, 5) + 1
    found, seen = shift(images, 2, seeded()), set()
    for image, moved in zip(images, found, strict=True):
        padded = F.pad(image, (2, 2, 2, 2))
        windows = {(y, x): padded[:, y : y + 4, x : x + 5] for y in range(5) for x in range(5)}
        seen |= {offset for offset, window in windows.items() if torch.equal(window, moved)}
    assert len(seen) == 25
    assert ((found == 0).flatten(1).all(1)).sum() == 0
    centre = (found == images).flatten(1).all(1).float().mean()
    assert 1 / 25 - 0.02 < centre < 1 / 25 + 0.02


def test_half_of_the_images_are_flipped_left_to_right() -> None:
    images = torch.rand(1000, 2, 3, 4)
    found = flip(images, seeded())
    flipped = (found == images.flip(-1)).flatten(1).all(1)
    assert ((found == images).flatten(1).all(1) ^ flipped).all()
    assert 450 < flipped.sum() < 550


@pytest.mark.parametrize(("height", "width"), [(21, 41), (41, 21)])  # the centre is a pixel
def test_bending_displaces_by_the_amount_asked_along_each_axis(height: int, width: int) -> None:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramps = torch.stack([x, y]).double().expand(4000, 2, height, width)
    moved = (bend(ramps, 0.02, seeded()) - ramps)[:, :, height // 2, width // 2]
    assert moved.std(0).tolist() == pytest.approx([0.02 * width, 0.02 * height], rel=0.05)
    assert moved.mean(0).abs().max() < 0.1
    assert abs(torch.corrcoef(moved.T)[0, 1]) < 0.1


def test_displacements_between_points_are_bicubic() -> None:
    points = torch.randn(3, 2, 5, 5, generator=seeded())
    rows, columns = (augmentation_module._bicubic(size, points) for size in (9, 14))
    torch.testing.assert_close(
        rows @ points @ columns.t(), F.interpolate(points, (9, 14), mode="bicubic", align_corners=True)
    )


def test_bending_is_smooth_and_another_for_each_image() -> None:
    ramp = torch.arange(28.0).expand(2, 1, 28, 28)
    moved = (bend(ramp, 0.02, seeded()) - ramp)[..., 4:-4, 4:-4]
    assert moved.abs().max() > 0.1
    assert moved.diff(dim=-1).abs().max() < moved.abs().max() / 2
    assert (moved[0] - moved[1]).abs().max() > 0.1


def test_a_square_is_erased_wherever_its_centre_falls() -> None:
    found = erase(torch.ones(2000, 2, 20, 10), 0.4, seeded())
    assert torch.equal(found[:, 0], found[:, 1])
    gone = found[:, 0] == 0
    assert gone.any(2).sum(1).max() == gone.any(1).sum(1).max() == 4  # 0.4 of the width, along both axes
    assert torch.equal(gone, gone.any(2)[:, :, None] & gone.any(1)[:, None])
    assert gone.float().mean(0).min() > 0.01  # every pixel is erased sometimes


def test_all_that_is_asked_for_is_done_and_nothing_else() -> None:
    images = torch.rand(64, 1, 28, 28)
    for one, function in (
        ({"shift": 3}, lambda x, g: shift(x, 3, g)),
        ({"flip": True}, flip),
        ({"elastic": 0.05}, lambda x, g: bend(x, 0.05, g)),
        ({"erase": 0.25}, lambda x, g: erase(x, 0.25, g)),
    ):
        assert torch.equal(augment(images, AugmentSpec(**PLAIN | one), seeded()), function(images, seeded()))


@pytest.mark.parametrize("options", [{}, {"shift": 3}, {"flip": True}, {"elastic": 0.05}, {"erase": 0.25}])
def test_processes_that_share_a_batch_make_its_images(options) -> None:
    spec = AugmentSpec(**options)
    images = torch.rand(7, 1, 8, 9, generator=torch.Generator().manual_seed(0))
    whole = augment(images, spec, torch.Generator().manual_seed(1))
    shares = [Group(rank, 3).share(7) for rank in range(3)]
    parts = [augment(images[share.rows], spec, torch.Generator().manual_seed(1), share) for share in shares]
    assert torch.equal(torch.cat(parts), whole)


# --- Events


def recordings(n: int = 6, most: int = 1) -> Tensor:
    """Return recordings, uint8 `[n, 9, 2, 6, 7]`."""
    drawn = torch.rand(n, 9, 2, 6, 7, generator=generator(1)) < 0.3
    return (drawn * torch.randint(1, most + 1, drawn.shape, generator=generator(2))).byte()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_steps_of_a_recording_are_shifted_alike() -> None:
    frames = recordings(40)
    found = augment(frames, AugmentSpec(shift=2), generator())
    assert (found.dtype, found.shape) == (torch.uint8, frames.shape)
    as_images = shift(frames.flatten(1, 2), 2, generator()).view_as(frames)
    assert torch.equal(found, as_images)
    assert not torch.equal(found, frames)


def test_recordings_are_mirrored_along_their_columns() -> None:
    frames = recordings(40)
    found = augment(frames, AugmentSpec(flip=True), generator())
    is_flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(found, frames, strict=True)]
    assert 8 < sum(is_flipped) < 32
    assert all(torch.equal(a, b) for a, b, flipped in zip(found, frames, is_flipped, strict=True) if not flipped)


def test_the_part_that_is_dropped_is_drawn_for_each_recording() -> None:
    frames = torch.full((200, 5, 2, 8, 8), 2, dtype=torch.uint8)
    left = scatter_events(frames, 0.5, 0, generator()).sum((1, 2, 3, 4)) / frames[0].sum()
    assert left.min() > 0.45
    assert left.max() == pytest.approx(1, abs=0.02)
    assert left.mean() == pytest.approx(0.75, abs=0.03)
    assert left.std() == pytest.approx(0.5 / 12**0.5, abs=0.02)


def test_dropping_only_lowers_counts() -> None:
    frames = recordings(most=3)
    found = scatter_events(frames, 0.9, 0, generator())
    assert (found <= frames).all()
    assert 0 < found.sum() < frames.sum()


def test_events_move_in_time_and_nowhere_else() -> None:
    frames = torch.zeros(300, 9, 2, 6, 7, dtype=torch.uint8)
    frames[:, 4, 1, 2, 3] = 1
    moved = scatter_events(frames, 0.0, 2, generator())
    assert moved.sum() == 300
    assert moved[:, :, 1, 2, 3].sum() == 300
    assert moved.sum((0, 2, 3, 4)).tolist()[2:7] == pytest.approx([60] * 5, abs=25)
    at_the_edge = scatter_events(frames.roll(-4, 1), 0.0, 2, generator())  # step 0: two of five offsets leave
    assert at_the_edge.sum() == pytest.approx(180, abs=30)


def test_counts_saturate_where_events_meet() -> None:
    found = scatter_events(torch.ones(3, 9, 1, 2, 2, dtype=torch.uint8), 0.0, 3, generator())
    assert int(found.max()) == 1
    many = scatter_events(recordings(most=3), 0.0, 3, generator())
    assert int(many.max()) == 3


def test_pictures_in_columns_change_as_pictures_do() -> None:
    pictures = torch.randint(16, (6, 1, 12, 10), generator=generator(), dtype=torch.uint8)  # [N, C, bands, T]
    columns = pictures.permute(0, 3, 1, 2)[..., None]
    for fields in ({"translate": 0.2, "erase": 0.3}, {"shift": 2, "degrees": 0, "translate": 0}):
        spec = AugmentSpec(**fields)
        found = augment(columns, spec, generator(1))
        wanted = augment(pictures.float(), spec, generator(1)).round().to(torch.uint8)
        assert found.dtype == torch.uint8
        assert not torch.equal(found, columns)
        assert torch.equal(found[..., 0].permute(0, 2, 3, 1), wanted)


def test_what_does_not_apply_to_events_is_left_out_or_refused() -> None:
    frames = recordings()
    assert torch.equal(augment(frames, AugmentSpec(), generator()), frames)
    AugmentSpec(shift=2, flip=True, drop=0.5, jitter=1).check(events=True)
    for field, value in (("degrees", 3.0), ("scale", (1.0, 1.0)), ("erase", 0.1)):
        with pytest.raises(
            SpecError, match=rf"training\.augment\.{field}: applies to images, not to events: remove it"
        ):
            AugmentSpec(**{field: value}).check(events=True)
    for field, value in (("drop", 0.1), ("jitter", 1)):
        with pytest.raises(SpecError, match=rf"training\.augment\.{field}: applies to events, not to images"):
            AugmentSpec(**{field: value}).check(events=False)
    AugmentSpec(degrees=3.0).check(events=False)
    with pytest.raises(SpecError, match=r"training\.augment: changes no events: set shift, flip, drop or jitter"):
        AugmentSpec().check(events=True)


def test_processes_that_share_a_batch_make_its_recordings() -> None:
    frames, spec = recordings(7, most=3), AugmentSpec(shift=1, flip=True, drop=0.5, jitter=2)
    whole = augment(frames, spec, generator(5))
    parts = []
    for rank in range(3):
        share = Group(rank=rank, size=3).share(7)
        parts.append(augment(frames[share.rows], spec, generator(5), share))
    assert torch.equal(torch.cat(parts), whole)
