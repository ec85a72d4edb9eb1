"""Numbers for tiny ONNX graphs, and what their imports consist of."""

import numpy as np

from converters.onnx.import_ann import OnnxImport


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    """Draw numbers of both signs, around 0.1."""
    return np.random.default_rng(seed).normal(0.1, 0.5, shape).astype(np.float32)


def kinds(found: OnnxImport) -> list[str]:
    """Return the kinds of the nodes, in their order."""
    return [type(node.operation).__name__ for node in found.ann.nodes]


def operations(found: OnnxImport, kind: type) -> list:
    """Return the operations of one kind."""
    return [node.operation for node in found.ann.nodes if isinstance(node.operation, kind)]
