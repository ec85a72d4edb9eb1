"""Golden images: a few images, with the output of the integer engine from when the card was written."""

import base64
import zlib
from math import prod

import torch
from torch import Tensor

from bootstrap_core.data.splits import Split, time_first
from bootstrap_core.inference.integer_network import IntegerNetwork
from specs.errors import IntegrityError, SnnZooError
from specs.layers.block import has_neurons
from zoo.card import GOLDEN_LETTERS, Golden

EVENT_PART = 1 / 16
"""Part of the numbers in a drawn recording that are events; recordings of N-MNIST have 6 %."""
LOGITS = 2000
"""Largest number of logits in a card, over all golden images."""


def golden_of(exact: IntegerNetwork, split: Split, *, seed: int | None = None) -> Golden:
    """Run the first images of a split, as many as fit into a card, at the network's T.

    With a seed, random images of the same shape are drawn instead, for data that cards must not contain.

    Raises:
        StateOverflowError: a state leaves the hardware's 24 bits on one of them.
        SnnZooError: not even one image fits.
    """
    n = max(1, min(len(split), LOGITS // exact.spec.n_classes))
    source = split.images[:n]
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        least, bound = (1, exact.spec.input.largest + 1) if split.has_events else (0, 256)
        source = torch.randint(least, min(bound, 256), source.shape, dtype=torch.uint8, generator=generator)
        if split.has_events and exact.spec.input.log_mel is None:
            source *= torch.rand(source.shape, generator=generator) < EVENT_PART
    while len(text := _packed(images := source[:n])) > GOLDEN_LETTERS and n > 1:
        n //= 2
    if len(text) > GOLDEN_LETTERS:
        raise SnnZooError(
            f"a test image takes {len(text):,} characters as text, but a card holds at most {GOLDEN_LETTERS:,}"
        )
    logits, spikes = _run(exact, images)
    labels = split.labels[:n] if seed is None else logits.argmax(1)
    return Golden(
        seed=seed,
        images=text,
        shape=tuple(images.shape),
        labels=tuple(labels.tolist()),
        logits=_rows(logits),
        spikes=_rows(spikes),
    )


def _packed(images: Tensor) -> str:
    return base64.b64encode(zlib.compress(images.contiguous().numpy().tobytes(), 9)).decode()


def golden_images(golden: Golden) -> Tensor:
    """Unpack the images, uint8 of `golden.shape`. Raises `IntegrityError` if their text is damaged."""
    size = prod(golden.shape)
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(golden.images, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise IntegrityError(f"golden.images: the text in the card is not base64 of zlib data: {error}") from None
    if len(unpacked) != size:
        raise IntegrityError(f"golden.images: must unpack to {size} bytes, as golden.shape {golden.shape} says")
    return torch.frombuffer(bytearray(unpacked), dtype=torch.uint8).reshape(golden.shape)


def golden_differences(exact: IntegerNetwork, golden: Golden) -> list[str]:
    """Compare the network's output with the card's; return what differs, empty if every bit agrees.

    Raises `IntegrityError` if the images in the card are damaged.
    """
    logits, spikes = _run(exact, golden_images(golden))
    found = []
    for what, ours, theirs in (("logits", _rows(logits), golden.logits), ("spikes", _rows(spikes), golden.spikes)):
        differing = sum(a != b for a, b in zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else len(ours)
        if differing:
            found.append(f"{what} of {differing} of {len(ours)} {exact.spec.input.sample}s differ")
    return found


def _run(exact: IntegerNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits `[N, classes]`, and the number of spikes in each layer that has neurons, `[N, layers]`."""
    logits, trace = exact.run(time_first(images))
    counts = [
        spikes.flatten(2).sum((0, 2), dtype=torch.int64)  # [T, N, ...] -> [N]
        for layer, spikes in zip(exact.spec.layers, trace.spikes, strict=True)
        if spikes is not None and has_neurons(layer)
    ]
    return logits, torch.stack(counts, 1) if counts else torch.zeros(len(images), 0, dtype=torch.int64)


def _rows(table: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())
