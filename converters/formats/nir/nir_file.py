"""Read and write the HDF5 files of NIR as graphs; `nir_layers` and `nir_neurons` interpret the nodes.

Source: `nir.serialization` of nir 1.0.4 to 1.0.8; that package is not used here. Releases up to 1.0.4 reject the field
`v_reset`, and later ones require it to make some nodes. A file for all of them leaves it out, as only our own writer
can.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from converters.formats.hdf5.hdf5_node import Hdf5Node, open_hdf5
from specs.errors import IntegrityError
from specs.files.limits import HDF5_DEPTH, HDF5_OBJECTS

FORMAT_VERSION = "1.0.4"
"""Version in the files that we write: the oldest release of nir that has all fields of our nodes."""

Field = npt.NDArray[Any] | str
"""Value of a node's field: numbers of any shape, or a text."""


@dataclass(frozen=True)
class Node:
    """Node of a graph: its type and fields, under NIR's names."""

    type: str
    fields: Mapping[str, Field]


@dataclass(frozen=True)
class Graph:
    """Graph of nodes by name, edges `(from, to)`, and metadata: texts, arrays, and mappings of them."""

    nodes: Mapping[str, "Node | Graph"]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def graph_bytes(graph: Graph) -> bytes:
    """Return the content of a NIR file; the same graph gives the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("version", data=FORMAT_VERSION, dtype=h5py.string_dtype())
        _write_group(file.create_group("node"), _as_mapping(graph))
    return buffer.getvalue()


def read_graph(path: Path) -> Graph:
    """Read the graph of a NIR file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the file is not a NIR file, is damaged, is too large, or holds numbers that are not finite.
    """
    with open_hdf5(path) as file:
        root = file.child("node")
        if root is None:
            raise IntegrityError(f"{path}: an HDF5 file, but not a NIR file: it has no group 'node'")
        tree = _Tree().read(root)
    graph = _as_node(tree, f"{path}: the graph")
    if not isinstance(graph, Graph):
        raise IntegrityError(f"{path}: expected a NIRGraph, got a single {graph.type} node")
    return graph


def node_digest(node: Node) -> str:
    """Return the sha256 of a node's type and numbers, the same for any precision that they are stored in.

    It leaves out `metadata`, and a `v_reset` of zeros, which later releases of nir add when they save a file again.
    """
    digest = hashlib.sha256(node.type.encode())
    for name, value in sorted(node.fields.items()):
        if name == "v_reset" and not isinstance(value, str) and not np.any(value):
            continue
        digest.update(f"\0{name}\0".encode())
        if isinstance(value, str):
            digest.update(value.encode())
        else:
            digest.update(f"{value.shape}".encode() + value.astype("<f8").tobytes())
    return digest.hexdigest()


def edges_digest(graph: Graph) -> str:
    """Return the sha256 of a graph's edges, the same for any order."""
    return hashlib.sha256(json.dumps(sorted(graph.edges)).encode()).hexdigest()


def _as_mapping(graph: "Graph | Node") -> dict[str, Any]:
    """Return the content of the file's group for a graph or a node."""
    if isinstance(graph, Node):
        return {"type": graph.type, **graph.fields}
    nodes = {name: _as_mapping(node) for name, node in graph.nodes.items()}
    mapping = {"type": "NIRGraph", "nodes": nodes, "edges": np.array(graph.edges, dtype=object)}
    return {**mapping, "metadata": graph.metadata} if graph.metadata else mapping


def _write_group(group: h5py.Group, mapping: Mapping[str, Any]) -> None:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            _write_group(group.create_group(name), value)
        elif isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype == object):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        else:
            array = np.asarray(value)
            group.create_dataset(name, data=array, compression="gzip" if array.ndim else None)


class _Tree:
    """Reader of groups as nested mappings; refuses loops, and files that are too deep or have too many objects."""

    def __init__(self) -> None:
        self.n_objects = 0
        self.seen: set[int | str] = set()

    def read(self, node: Hdf5Node, depth: int = 0) -> dict[str, Any]:
        """Return a group as a mapping of mappings, arrays, and texts as `str`."""
        if depth > HDF5_DEPTH:
            raise IntegrityError(f"{node.where}: nested more than {HDF5_DEPTH} groups deep")
        found: dict[str, Any] = {}
        names = node.names
        self.n_objects += len(names)
        if self.n_objects > HDF5_OBJECTS:
            raise IntegrityError(f"{node.where}: more than {HDF5_OBJECTS} objects in the file")
        for name in names:
            where = f"{node.where}/{name}"
            address = node.address(name)
            if address in self.seen:
                raise IntegrityError(f"{where}: the object has another name in the file, too")
            self.seen.add(address)
            group = node.child(name)
            found[name] = self._value(node, name) if group is None else self.read(group, depth + 1)
        return found

    def _value(self, node: Hdf5Node, name: str) -> Field:
        texts = node.texts(name)
        if texts is not None:
            return texts
        numbers = node.array(name)
        if numbers is None:
            raise IntegrityError(f"{node.where}/{name}: expected numbers, a text or a group")
        return numbers


def _as_node(mapping: Mapping[str, Any], place: str) -> "Node | Graph":
    kind = mapping.get("type")
    if not isinstance(kind, str) or not kind.isprintable():
        raise IntegrityError(f"{place} has no type")
    if kind != "NIRGraph":
        fields = {name: value for name, value in mapping.items() if name not in {"type", "metadata"}}
        _check_fields(fields, f"{place} ({kind})")
        return Node(kind, fields)
    nodes, edges, metadata = mapping.get("nodes"), mapping.get("edges"), mapping.get("metadata", {})
    if not isinstance(nodes, Mapping) or not isinstance(edges, np.ndarray) or not isinstance(metadata, Mapping):
        raise IntegrityError(f"{place} has no nodes or no edges, or its metadata are not a group")
    if edges.size and (edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != object):
        raise IntegrityError(f"{place}: the edges are not pairs of names")
    pairs = tuple((str(source), str(target)) for source, target in edges) if edges.size else ()
    for name in sorted(set(chain(*pairs)) - nodes.keys()):
        raise IntegrityError(f"{place}: an edge refers to the missing node {name!r}")
    return Graph(dict(_named(nodes, place)), pairs, metadata)


def _named(nodes: Mapping[str, Any], place: str) -> Iterator[tuple[str, "Node | Graph"]]:
    for name, node in nodes.items():
        if not isinstance(node, Mapping):
            raise IntegrityError(f"{place}: the entry {name!r} of its nodes is not a group")
        yield name, _as_node(node, f"{place.removesuffix('the graph')}node {name!r}")


def _check_fields(fields: Mapping[str, Any], place: str) -> None:
    for name, value in fields.items():
        is_number = isinstance(value, np.ndarray) and value.dtype.kind != "O"
        if not is_number and not isinstance(value, str):
            raise IntegrityError(f"{place}: {name} must be numbers or a text")
