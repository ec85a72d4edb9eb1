"""Image files, prepared for networks."""

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from bootstrap_core import Network, build_network, load_dataset
from bootstrap_core.data.image_files import read_pixels
from specs import DataError, SnnZooError
from specs.io import spec_from_document
from zoo import prediction
from zoo.prediction import predict_files

DIGITS = load_dataset("mnist-sample").test


@pytest.fixture(scope="module")
def network() -> Network:
    return zoo.create_model("mnist-dense-shallow")


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes pixels `[H, W]` or `[H, W, C]`, uint8 or uint16, as an image file."""

    def saved(pixels: np.ndarray, name: str = "a.png", **options):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        return tmp_path / name

    return saved


def photo(digit: torch.Tensor, *, margins: tuple[int, int, int, int] = (130, 10, 40, 90)) -> np.ndarray:
    """Return a digit in dark ink on light paper, 6 times as large; margins are left, right, top, bottom."""
    large = Image.fromarray(digit.numpy()).resize((168, 168), Image.Resampling.BICUBIC)
    left, right, top, bottom = margins
    ink = np.pad(np.asarray(large), ((top, bottom), (left, right)))
    return (230 - ink * 0.7).astype(np.uint8)


def test_a_file_of_the_networks_size_is_taken_as_it_is(network, saved) -> None:
    (one,) = predict_files(network, [saved(DIGITS.images[0, 0].numpy())], data="mnist")
    assert torch.equal(one.image, DIGITS.images[0].float() / 255)
    assert one.done == "28x28"


def test_light_edges_are_inverted_unless_told_otherwise(network, saved) -> None:
    digit = DIGITS.images[0, 0].numpy()
    path = saved(255 - digit)
    (one,) = predict_files(network, [path], data="mnist")
    assert torch.allclose(one.image[0], torch.from_numpy(digit) / 255)
    assert one.done == "28x28, inverted"
    (kept,) = predict_files(network, [path], data="mnist", invert=False)
    assert torch.allclose(kept.image, 1 - one.image)
    (forced,) = predict_files(network, [saved(digit, "b.png")], data="mnist", invert=True)
    assert torch.allclose(forced.image, kept.image)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photos_are_read_nearly_as_the_digits_themselves(network, saved, suffix: str) -> None:
    paths = [saved(photo(DIGITS.images[i, 0]), f"{i}.{suffix}") for i in range(40)]
    predictions = predict_files(network, paths, data="mnist")
    right = [p.label == label for p, label in zip(predictions, DIGITS.labels.tolist(), strict=False)]
    assert sum(right) >= 39
    assert predictions[0].done == "308x298, inverted, cut out and centred in 28x28, as in the training data"


def test_a_framed_digit_is_20_pixels_long_with_its_mass_in_the_middle(network, saved) -> None:
    (one,) = predict_files(network, [saved(photo(DIGITS.images[2, 0]))], data="mnist")
    grey = one.image[0]
    rows, columns = ((grey > 0).any(axis).nonzero().flatten() for axis in (1, 0))
    assert max(int(found[-1] - found[0]) + 1 for found in (rows, columns)) == 20
    for axis in (0, 1):
        mass = grey.sum(1 - axis)
        assert abs(float(mass @ torch.arange(28.0) / mass.sum()) - 14) <= 0.5
    assert float((grey - DIGITS.images[2, 0] / 255).abs().mean()) < 0.06


def test_fashion_fills_the_frame_and_its_box_is_in_the_middle(network, saved) -> None:
    pixels = np.full((200, 300), 255, np.uint8)
    pixels[20:120, 200:250] = 40  # 100 high, 50 wide
    (one,) = predict_files(network, [saved(pixels)], data="fashion-mnist")
    rows, columns = ((one.image[0] > 0.5).any(axis).nonzero().flatten() for axis in (1, 0))
    assert (int(rows[0]), int(rows[-1])) == (0, 27)
    assert (int(columns[0]), int(columns[-1])) == (7, 20)


def test_other_data_is_only_resized(network, saved) -> None:
    pixels = np.full((56, 56), 255, np.uint8)
    pixels[:28] = 51
    (one,) = predict_files(network, [saved(pixels)], data="letters")
    assert one.done == "56x56, resized to 28x28"
    assert torch.allclose(one.image[0, [0, 27], 5], torch.tensor([0.2, 1.0]))


@pytest.mark.parametrize("colour", [0, 255])
def test_what_is_transparent_is_paper_on_which_ink_of_either_colour_shows(network, saved, colour: int) -> None:
    ink = DIGITS.images[0, 0].numpy()
    drawn = np.full((28, 28, 4), colour, np.uint8)
    drawn[..., 3] = ink
    (one,) = predict_files(network, [saved(drawn)], data="mnist")
    assert torch.allclose(one.image[0], torch.from_numpy(ink) / 255, atol=1 / 255)


def test_a_camera_held_sideways_is_turned_back(network, saved) -> None:
    upright = photo(DIGITS.images[2, 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: upright after a turn by 90 degrees clockwise
    paths = [saved(upright), saved(np.ascontiguousarray(np.rot90(upright)), "b.png", exif=exif)]
    straight, turned = predict_files(network, paths, data="mnist")
    assert torch.equal(straight.image, turned.image)
    straight, turned = predict_files(network, paths, data="letters")
    assert straight.done == turned.done == "308x298, resized to 28x28"


AFFINE = {"kind": "affine", "features": 3}
DENSE = {"kind": "dense", "features": 5}


@pytest.mark.parametrize(("blocks", "shown"), [([DENSE, DENSE], 2), ([DENSE, AFFINE], 1), ([AFFINE], 0)])
def test_the_last_neurons_that_spike_are_animated(saved, tmp_path, monkeypatch, blocks, shown) -> None:
    network = build_network(
        spec_from_document({"name": "x", "time_steps": 4, "input": {"shape": [9]}, "blocks": blocks}), seed=0
    )
    (seen,) = predict_files(network, [saved(np.full((3, 3), 200, np.uint8))])
    drawn = []
    monkeypatch.setattr(prediction, "animate", lambda spikes, path, *, image: drawn.append(spikes))
    prediction.animate_prediction(network, seen, tmp_path / "a.gif")
    assert torch.equal(drawn[0], network.run(seen.image[None])[1].spikes[shown][:, 0])


def test_16_bits_are_not_cut_off(network, saved) -> None:
    digit = DIGITS.images[0, 0].numpy()
    (one,) = predict_files(network, [saved(digit.astype(np.uint16) * 257)], data="mnist")
    assert torch.allclose(one.image[0], torch.from_numpy(digit) / 255)


@pytest.mark.parametrize("paper", [60, 100, 120, 230])
def test_ink_shows_on_paper_of_any_grey(network, saved, paper: int) -> None:
    ink = (255.0 - photo(DIGITS.images[0, 0])) / 204
    (one,) = predict_files(network, [saved((paper * (1 - ink)).clip(0, 255).astype(np.uint8))], data="mnist")
    assert "inverted" in one.done
    assert one.label == DIGITS.labels[0]


def test_a_frame_in_which_nothing_is_left_is_blank(saved) -> None:
    """This holds also for networks with different scores of a black image."""
    path = saved(photo(DIGITS.images[0, 0]))
    for name in ("mnist-dense-t4", "mnist-conv"):
        (none, ink) = (predict_files(zoo.create_model(name), [path], data="mnist", invert=i)[0] for i in (False, None))
        assert (none.is_blank, ink.is_blank) == (True, False)
        assert not none.image.any()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_page_is_black(network, saved, level: int) -> None:
    (one,) = predict_files(network, [saved(np.full((50, 40), level, np.uint8))], data="mnist")
    assert not one.image.any()
    assert "blank" in one.done


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_white_are_refused(dtype: type, network, tmp_path) -> None:
    Image.fromarray(np.ones((28, 28), dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="floats or 32 bits"):
        predict_files(network, [tmp_path / "a.tiff"])


def test_an_image_with_hardly_any_contrast_is_told_to_be_blank(network, saved) -> None:
    digit = DIGITS.images[0, 0].numpy().astype(np.uint16)
    dark, bright = predict_files(network, [saved(digit * 16, "a.png"), saved(digit * 257, "b.png")], data="mnist")
    assert (dark.is_blank, bright.is_blank) == (True, False)


@pytest.mark.parametrize("shape", [[3, 8, 12], [192]], ids=["maps", "in a row"])
def test_coloured_images_are_read_as_for_training(saved, shape: list[int]) -> None:
    document = {
        "name": "colours", "time_steps": 2, "neuron": {"threshold": 1.0}, "input": {"shape": shape},
        "blocks": [{"kind": "flatten"}, {"kind": "affine", "features": 4}],
    }  # fmt: skip
    document["blocks"] = document["blocks"][len(shape) == 1 :]
    network = build_network(spec_from_document(document, origin="a test"), seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    height, width = shape[1:] or (8, 8)
    path = saved(pixels)
    (one,) = predict_files(network, [path], data="fruit")
    wanted = read_pixels(path, channels=3, height=height, width=width).float() / 255
    assert torch.equal(one.image, wanted)
    assert one.done == f"40x30, resized to {width}x{height}"
    (light,) = predict_files(network, [path], data="fruit", invert=True)
    assert torch.equal(light.image, 1 - wanted)
    (grey,) = predict_files(network, [saved(pixels[:, :, 0])], data="fruit")
    assert grey.done == f"40x30, resized to {width}x{height}, grey, where the network takes colours"


@pytest.mark.parametrize("shape", [[2, 8, 8], [50]])
def test_inputs_that_are_no_images_are_refused(saved, shape: list[int]) -> None:
    document = {"name": "a", "time_steps": 2, "neuron": {"threshold": 1.0}, "input": {"shape": shape}}
    document["blocks"] = [{"kind": "flatten"}, {"kind": "affine", "features": 4}][len(shape) == 1 :]
    network = build_network(spec_from_document(document, origin="a test"), seed=0)
    with pytest.raises(SnnZooError, match=r"is not a grey or three-colour image"):
        predict_files(network, [saved(np.zeros((8, 8), np.uint8))])


def test_the_scale_of_the_spec_calibrates_probabilities(network, saved) -> None:
    path, spec = saved(DIGITS.images[0, 0].numpy()), network.spec
    (plain,) = predict_files(network, [path])
    network.spec = spec.model_copy(update={"logit_scale": 0.5})
    try:
        (soft,) = predict_files(network, [path])
    finally:
        network.spec = spec
    root = torch.tensor(plain.scores).sqrt()
    assert soft.scores == pytest.approx((root / root.sum()).tolist(), rel=1e-4)
