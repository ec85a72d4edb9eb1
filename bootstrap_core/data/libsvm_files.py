"""Text files of libsvm, as USPS is published: https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets."""

import bz2
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.digests import open_verified
from specs.errors import IntegrityError


def read_libsvm(path: Path, sha256: str, image_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return images, uint8 `[N, *image_shape]`, and labels, uint8 `[N]`, of a `.bz2` of lines `7 1:-1 2:0.5 ...`.

    Classes and pixels count from 1 in the file. A pixel from -1 to 1 becomes 0 to 255; one that is not there is 0.
    """
    with open_verified(path, sha256) as file:
        try:
            lines = bz2.decompress(file.read()).decode("ascii").splitlines()
            values = np.zeros((len(lines), prod(image_shape)))
            labels = np.empty(len(lines), np.uint8)
            for row, line in enumerate(lines):
                label, *pixels = line.split()
                labels[row] = int(label) - 1
                for place, value in (pixel.split(":") for pixel in pixels):
                    values[row, int(place) - 1] = float(value)
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise IntegrityError(f"{path}: not a .bz2 of libsvm lines: {error}") from None
    images = np.round((values.clip(-1, 1) + 1) * (255 / 2)).astype(np.uint8)
    return torch.from_numpy(images.reshape(-1, *image_shape)), torch.from_numpy(labels)
