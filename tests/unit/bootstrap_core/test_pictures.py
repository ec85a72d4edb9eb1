import io
from base64 import b64decode

import numpy as np
import pytest
import torch
from PIL import Image

from bootstrap_core.pictures import image_uri, png, raster_uri


def decoded(uri: str) -> np.ndarray:
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(b64decode(data))))


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (1, 1)])
def test_a_png_holds_its_pixels(shape) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels.numpy())


def test_images_are_grey_or_coloured() -> None:
    grey, colours = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3), torch.arange(18, dtype=torch.uint8)
    assert np.array_equal(decoded(image_uri(grey)), grey[0].numpy())
    assert decoded(image_uri(colours.reshape(3, 2, 3))).tolist()[1][0] == [3, 9, 15]
    assert decoded(image_uri(torch.arange(9, dtype=torch.uint8).reshape(1, 1, 9))).tolist()[1] == [3, 4, 5]


def test_a_raster_runs_to_the_right() -> None:
    spikes = torch.zeros(4, 2, dtype=torch.int8)  # [T, neurons]
    spikes[3, 0] = 1
    assert decoded(raster_uri(spikes)).tolist() == [[255, 255, 255, 0], [255] * 4]
