"""Write images, recordings and frames as the programs of C sources read them: raw numbers, one after the other."""

from pathlib import Path

import torch

from bootstrap_core.data.frames import Frames
from bootstrap_core.data.splits import Split
from specs.errors import DataError
from specs.files.whole_file import whole_file, write_whole
from specs.network import NetworkSpec
from specs.shapes import fit_input

BATCH = 256


def labels_path(path: Path) -> Path:
    """Return the path of the labels that are written beside inputs."""
    return path.with_suffix(".labels")


def write_inputs(split: Split, spec: NetworkSpec, path: Path, *, labelled: bool = True) -> Path:
    """Write the inputs of a split for a program made with -DPREFIX_STDIN, and their labels beside them.

    Images are bytes in the order channel, row, column; recordings have such a frame for each step. Counts of events of
    more than 8 bits are numbers of 16 bits, in this machine's byte order. Labels are a text file, a number a line; if
    they mean nothing (`labelled=False`), a file of older ones is removed. Files that are there are overwritten.
    """
    frame = tuple(split.images.shape[-3:])
    if split.has_events != spec.input.is_events or not fit_input(frame, spec.input.shape):
        kind = "recordings of events" if spec.input.is_events else "images"
        raise DataError(
            f"{spec.name} takes {kind} of {list(spec.input.shape)}, not uint8 {list(split.images.shape[1:])}"
        )
    number = torch.uint16 if spec.input.is_events and spec.input.bits > 8 else torch.uint8
    with whole_file(path) as file:
        for first in range(0, len(split), BATCH):
            file.write(split.images[first : first + BATCH].to(number).contiguous().numpy().tobytes())
    labels_path(path).unlink(missing_ok=True)
    if labelled:
        write_whole(labels_path(path), "".join(f"{label}\n" for label in split.labels.tolist()).encode())
    return path


def write_frames(given: Frames, spec: NetworkSpec, path: Path) -> Path:
    """Write recordings of frames for a program made with -DPREFIX_STDIN of a network that gives values.

    Pixels have 8 bits with sign, or 16 if the network's have more than 8, in this machine's byte order, in the order
    step, channel, row, column.
    """
    number = torch.int16 if spec.input.bits > 8 else torch.int8
    with whole_file(path) as file:
        for i in range(len(given)):
            file.write(given.inputs(slice(i, i + 1)).to(number).contiguous().numpy().tobytes())
    return path
