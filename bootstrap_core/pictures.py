"""Images as PNG, embedded in pages and notebooks as `data:` URIs."""

import struct
import zlib
from base64 import b64encode
from html import escape
from math import isqrt

from torch import Tensor

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2
"""Colour types of PNG."""


def png(pixels: Tensor) -> bytes:
    """Return a PNG file of uint8 `[H, W]` (grey) or `[H, W, 3]` (RGB). Source: W3C, Portable Network Graphics."""
    height, width = pixels.shape[:2]
    rows = pixels.contiguous().reshape(height, -1).numpy()
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, RGB if pixels.dim() == 3 else GREY, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def image_uri(image: Tensor) -> str:
    """Return the URI of an image, uint8 `[C, H, W]`: RGB for three channels, otherwise the first channel in grey.

    A single row is shown as a square if its number of pixels is a square.
    """
    if image.shape[0] == 3:
        return _uri(image.permute(1, 2, 0))  # [H, W, 3]
    grey = image[0]
    side = isqrt(grey.numel())
    return _uri(grey.reshape(side, side) if len(grey) == 1 and side * side == grey.numel() else grey)


def raster_uri(spikes: Tensor) -> str:
    """Return the URI of spikes, `[T, neurons]`: time to the right, one row for each neuron, spikes in black."""
    return _uri(255 * (spikes.t() == 0).byte())


def film_uri(frames: Tensor) -> str:
    """Return the URI of RGB frames `[T, H, W, 3]`, side by side; the page shows one after another."""
    return _uri(frames.transpose(0, 1).flatten(1, 2))  # [H, T * W, 3]


def figure(uri: str, caption: str, *, width: int, height: int | None = None) -> str:
    """Return HTML of a picture with a caption below it, for a notebook.

    Its width and height are in pixels of the screen; by default the height keeps the picture's proportions.
    """
    size = f"width: {width}px" + ("" if height is None else f"; height: {height}px")
    return (
        '<figure style="display: inline-block; margin: 4px; vertical-align: top">'
        f'<img src="{uri}" style="{size}; image-rendering: pixelated; border: 1px solid #ccc">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _uri(pixels: Tensor) -> str:
    return f"data:image/png;base64,{b64encode(png(pixels)).decode()}"
