"""What readers accept of a stranger's file: bounds on sizes, numbers and depths, checked before memory is taken."""

__all__ = [
    "CARD_IMAGE_BYTES",
    "DATASET_FILE_BYTES",
    "DOCUMENT_VALUES",
    "HDF5_DEPTH",
    "HDF5_OBJECTS",
    "HDF5_TEXTS",
    "IMAGE_CLASSES",
    "IMAGE_PIXELS",
    "INDEX_BYTES",
    "NETWORK_BLOCKS",
    "NETWORK_NEURONS",
    "NETWORK_WEIGHTS",
    "ONNX_BYTES",
    "ONNX_ELEMENTS",
    "ONNX_INPUT",
    "ONNX_NODES",
    "SAFETENSORS_HEADER_BYTES",
    "SPARE_WEIGHTS",
    "SPEC_BYTES",
    "SPEC_DEPTH",
    "SPEC_PROBLEMS",
    "STATE_DICT_DEPTH",
    "TORCH_PICKLE_BYTES",
    "TORCH_PICKLE_OPERATIONS",
    "TUPLE_ITEMS",
    "ZIP_ENTRIES",
    "unpacked_bytes",
]

# --- specs

SPEC_BYTES = 1 << 16
"""Of a spec file, or characters of a text; PyYAML takes a second or two for so many."""
SPEC_DEPTH = 32
"""Mappings and lists within each other; a spec has half a dozen."""
SPEC_PROBLEMS = 20
"""Problems of one spec that are told."""

DOCUMENT_VALUES = 1 << 18
"""Of a document as JSON: each may be a problem, and all are found before a few are told."""

# --- models that are shared

INDEX_BYTES = 1 << 24
"""Of index.json; its values, not its bytes, bound it to some 14,000 revisions."""
CARD_IMAGE_BYTES = 1 << 24
"""Of the golden images of a card, unpacked."""

# --- networks, whatever file they come from

NETWORK_BLOCKS = 4096
NETWORK_WEIGHTS = 1 << 31
"""Of all blocks: beyond it, no machine holds what a short text asks for."""
NETWORK_NEURONS = 1 << 28
"""Of one block: its states of one image and one step take a gigabyte."""
SPARE_WEIGHTS = 1 << 22
"""By so many the spec of a model file may want more numbers than the file holds, to be told what is missing by name."""

# --- model files

SAFETENSORS_HEADER_BYTES = 1 << 24
"""Names, shapes and metadata; those of 100,000 tensors fit."""
STATE_DICT_DEPTH = 4
"""Of keys within keys of a checkpoint."""
TORCH_PICKLE_BYTES = 1 << 24
"""Of the pickle in a checkpoint, without its tensors."""
TORCH_PICKLE_OPERATIONS = 1 << 20
"""A tensor takes some 30 of them; torch does a million in a second."""
TUPLE_ITEMS = 1 << 16
"""Items of a tuple in a pickle and of those within it, each as often as it is there."""
ZIP_ENTRIES = 200_000

HDF5_DEPTH = 16
HDF5_OBJECTS = 20_000
"""Groups and datasets of a file."""
HDF5_TEXTS = 100_000
"""Strings of one dataset."""

ONNX_BYTES = (1 << 31) - 1
"""Of a protobuf file, by protobuf itself; of all external data together, by us."""
ONNX_ELEMENTS = 1 << 27
"""Numbers of one tensor, and of all that nodes make of constants."""
ONNX_INPUT = 1 << 22
"""Numbers of a batch of images; each is followed through the graph."""
ONNX_NODES = 20_000

# --- data

DATASET_FILE_BYTES = 64 << 20
"""Of an idx file, plain or gzipped; the largest, the training images of MNIST, has 47 MB."""
IMAGE_PIXELS = 1 << 26
"""Of an image file, 8192 by 8192."""
IMAGE_CLASSES = 1 << 16


def unpacked_bytes(n_bytes: int) -> int:
    """The most bytes that a file of `n_bytes` may unpack to.

    Weights and photographs shrink by less than 10, drawings by perhaps 30, and zeros, which bombs are made of, by 1000.

    >>> unpacked_bytes(1 << 20) >> 20
    288
    """
    return (256 << 20) + 32 * n_bytes
