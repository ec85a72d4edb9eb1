"""Limits on files from strangers, checked before memory is allocated: sizes, counts, depths, free memory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from specs.errors import SnnZooError

# --- specs

SPEC_BYTES = 1 << 16
"""Largest spec file in bytes, or text in characters; PyYAML needs a second or two for it."""
SPEC_DEPTH = 32
"""Largest depth of nested mappings and lists; a spec has about six levels."""
SPEC_PROBLEMS = 20

DOCUMENT_VALUES = 1 << 18
"""Largest number of values in a JSON document: each may be a problem, and all are found before a few are reported."""

# --- shared models

INDEX_BYTES = 1 << 24
"""Largest index.json in bytes; `DOCUMENT_VALUES` is reached first, at about 14,000 revisions."""
CARD_BYTES = 1 << 20
"""Largest card in a model file, in bytes of JSON; a card has some hundreds, or some thousands with many classes."""
CARD_IMAGE_BYTES = 1 << 24

# --- networks from files of any format

TIME_STEPS = 4096
NETWORK_BLOCKS = 4096
NETWORK_WEIGHTS = 1 << 31
"""Largest number of weights in all blocks together: a short spec could ask for more than a machine can hold."""
NETWORK_NEURONS = 1 << 28
"""Largest number of neurons in one block: their states for one image and one step take a gigabyte."""
SPARE_WEIGHTS = 1 << 22
"""Largest number of parameters missing in a model file that is still read, to report the missing tensors by name."""

# --- model files

SAFETENSORS_HEADER_BYTES = 1 << 24
"""Largest header in bytes: names, shapes and metadata. It has room for 100,000 tensors."""
STATE_DICT_DEPTH = 4
TORCH_PICKLE_BYTES = 1 << 24
"""Largest pickle in a checkpoint in bytes, without the data of tensors."""
TORCH_PICKLE_OPERATIONS = 1 << 20
"""Largest number of pickle operations: a tensor takes about 30, and torch runs a million in a second."""
TUPLE_ITEMS = 1 << 16
"""Largest number of items in a tuple of a pickle and in the tuples within it; repeated tuples count each time."""
ZIP_ENTRIES = 200_000

HDF5_DEPTH = 16
HDF5_OBJECTS = 20_000
HDF5_TEXTS = 100_000
"""Largest number of strings in one dataset, and of values in one attribute."""
HDF5_HEADER_BYTES = 1 << 16
HDF5_NAME_BYTES = 1 << 10
HDF5_STRUCTURE_BYTES = 1 << 23
"""Most bytes of a file that are read besides numbers: headers, names, texts, indices of chunks; 4 s of reading."""

ONNX_BYTES = (1 << 31) - 1
"""Largest size in bytes of a protobuf file, which protobuf itself sets; and of all external data together."""
ONNX_ELEMENTS = 1 << 27
"""Largest number of elements in one tensor of a file, and of weights in one layer."""
ONNX_INPUT = 1 << 22
"""Largest number of elements in a batch of images; each element is traced through the graph."""
ONNX_TENSOR = 1 << 24
"""Largest number of elements in one tensor that depends on the images, for the whole batch."""
ONNX_WINDOWS = 1 << 25
"""Largest number of elements in all windows of one convolution or pool together: onnx's evaluator writes them out. The
largest layer of VGG at 224 x 224 pixels has 2.9e7."""
ONNX_NODES = 20_000
ONNX_OUTPUTS = 64

C_SOURCE_BYTES = 1 << 28
"""Largest C source that is compared with a model, in bytes; 60 million weights."""

# --- data

DATASET_FILE_BYTES = 64 << 20
"""Largest idx file in bytes, plain or gzipped; the training images of MNIST have 47 MB."""
DATASET_ARCHIVE_BYTES = 640 << 20
"""Largest archive of a named dataset in bytes; that of EMNIST has 562 MB."""
TAR_ENTRIES = 1 << 18
TAR_HEADER_BYTES = 1 << 16
"""Largest header of a file in a tar beyond its 512 bytes: a long name, for example."""
IMAGE_FILE_BYTES = 1 << 28
IMAGE_PIXELS = 1 << 26
"""Largest number of pixels in an image file: 8192 x 8192."""
SOUND_BYTES = 1 << 24
"""Largest sound file in bytes: three minutes at 44,100 samples per second, mono."""
EVENT_FILE_BYTES = 1 << 26
"""Largest recording of events in bytes, and largest array in it; 13 million events of five bytes."""
IMAGES = 1 << 24
"""Largest number of images in one array; ImageNet has 14 million."""
IMAGE_CLASSES = 1 << 16
CLASS_NAMES_BYTES = 1 << 24
"""Largest array of class names in bytes; NumPy takes four for each character of the longest name."""
CGROUP = Path("/sys/fs/cgroup")


def onnx_constants(n_bytes: int) -> int:
    """Return the largest number of elements that constant folding may make of a file of `n_bytes`, 8 bytes each."""
    return unpacked_bytes(n_bytes) // 8


def onnx_work(n_bytes: int) -> int:
    """Return the largest work of importing a file of `n_bytes`: elements that are read or made, about 15 ns each.

    VGG-16, with 528 MiB of weights, needs 1.3 for each byte; SqueezeNet, with 5 MB, needs 10.
    """
    return (3 << 26) + 4 * n_bytes


def unpacked_bytes(n_bytes: int) -> int:
    """Return the largest number of bytes that a file of `n_bytes` may unpack to.

    Weights and photographs compress by a factor below 10, drawings by perhaps 30, the zeros of zip bombs by 1000.

    >>> unpacked_bytes(1 << 20) >> 20
    288
    """
    return (256 << 20) + 32 * n_bytes


def refuse_beyond_memory(n_bytes: int, what: str) -> None:
    """Raise `SnnZooError` if `n_bytes` of memory are not free; `what` begins the message.

    Call it before allocating: most systems promise memory that they do not have, then kill the process that uses it.
    """
    free = free_memory()
    if free is not None and n_bytes > free:
        raise SnnZooError(f"{what} takes about {_in_units(n_bytes)} of memory; {_in_units(free)} are free")


def free_memory() -> int | None:
    """Return the bytes that this process may still allocate; None if unknown.

    The smallest of three counts: free in the machine, in its container, and below the limit of the process.
    """
    return min(_free_by_each(), default=None)


def _free_by_each() -> Iterator[int]:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        yield 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):
        most, taken = (int((CGROUP / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text("ascii").splitlines())
        yield max(0, most - taken + int(counts.get("inactive_file", 0)))
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
            yield max(0, most - pages * os.sysconf("SC_PAGE_SIZE"))


def _in_units(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / 2**20:,.0f} MiB"
