"""A NIR graph as a row of nodes; what is no row is refused, all of it at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from converters.formats.nir.nir_file import Graph, Node
from converters.formats.nir.nir_neurons import NEURON_TYPES, SILENT_TYPES
from specs.errors import UnsupportedError

__all__ = ["LINEAR_TYPES", "Named", "chain_of"]

LINEAR_TYPES = ("Affine", "Linear", "Conv2d", "Scale", "SumPool2d", "AvgPool2d", "Flatten")

KNOWN = {*LINEAR_TYPES, *NEURON_TYPES, *SILENT_TYPES, "Delay", "Input", "Output"}
REASONS = {
    "Conv1d": "convolutions here have two axes",
    "I": "an integrator that never leaks nor fires",
    "Threshold": "a threshold without a neuron",
}

Named = tuple[str, Node]
"""A node with its name; one in a subgraph is `subgraph.node`."""


def chain_of(graph: Graph, *, origin: str) -> list[Named]:
    """The nodes from Input to Output in the order of the edges, subgraphs unfolded.

    Raises:
        UnsupportedError: node types that snnzoo does not have, branches, merges, cycles, loose ends: all of them.
    """
    problems: list[str] = []
    chain = _walk(graph, "", problems)
    for name, node in chain[1:-1]:
        if node.type in SILENT_TYPES and name != chain[-2][0]:
            problems.append(f"{name} ({node.type}): a neuron without spikes is read as the last node only")
    if problems:
        raise UnsupportedError(f"{origin} is no network of snnzoo: {'; '.join(problems)}")
    return chain


def _walk(graph: Graph, prefix: str, problems: list[str]) -> list[Named]:
    after, before = defaultdict(list), defaultdict(list)
    for source, target in dict.fromkeys(graph.edges):
        after[source].append(target)
        before[target].append(source)
    faults = list(_faults(graph, prefix, after, before))
    problems += faults
    start = [name for name, node in graph.nodes.items() if isinstance(node, Node) and node.type == "Input"]
    chain: list[Named] = []
    name, seen = (start[0] if len(start) == 1 else None), set()
    while name is not None and name not in seen:
        seen.add(name)
        node = graph.nodes[name]
        if isinstance(node, Graph):
            chain += _walk(node, f"{prefix}{name}.", problems)[1:-1]
        else:
            chain.append((prefix + name, node))
        following = after[name]
        name = following[0] if len(following) == 1 else None
    if not faults:
        unreached = [prefix + loose for loose in graph.nodes if loose not in seen]
        if unreached or chain[-1][1].type != "Output":
            problems.append(f"no path from Input to Output through {', '.join(sorted(unreached)) or 'the nodes'}")
    else:  # subgraphs that the path did not reach have faults of their own
        for loose, node in graph.nodes.items():
            if isinstance(node, Graph) and loose not in seen:
                _walk(node, f"{prefix}{loose}.", problems)
    return chain


def _faults(graph: Graph, prefix: str, after: dict[str, list[str]], before: dict[str, list[str]]) -> Iterator[str]:
    for kind in ("Input", "Output"):
        names = [name for name, node in graph.nodes.items() if isinstance(node, Node) and node.type == kind]
        if len(names) != 1:
            place = f"{prefix.rstrip('.')} (NIRGraph): " if prefix else ""
            yield f"{place}{len(names)} {kind} nodes, where one is needed{_listed(names)}"
    looping = _in_cycles(graph, after)
    for name, node in graph.nodes.items():
        kind = "NIRGraph" if isinstance(node, Graph) else node.type
        place = f"{prefix}{name} ({kind})"
        if kind not in KNOWN and kind != "NIRGraph":
            yield f"{place}: {REASONS.get(kind, 'a node type that snnzoo does not have')}"
        if name in looping:
            yield f"{place}: part of a cycle; networks here are not recurrent"
            continue
        if len(after[name]) > 1:
            yield f"{place}: branches{_listed(after[name])}"
        if len(before[name]) > 1:
            yield f"{place}: merges{_listed(before[name])}"


def _in_cycles(graph: Graph, after: dict[str, list[str]]) -> set[str]:
    """Nodes that lie on a cycle: what is left when nodes without a way in, and then without one out, are taken away."""
    left = set(graph.nodes)
    before = defaultdict(list)
    for source, targets in after.items():
        for target in targets:
            before[target].append(source)
    for ways in (before, after):
        opposite = after if ways is before else before
        counts = {name: sum(other in left for other in ways[name]) for name in left}
        free = [name for name, count in counts.items() if count == 0]
        while free:
            name = free.pop()
            left.discard(name)
            for other in opposite[name]:
                if other in left:
                    counts[other] -= 1
                    free += [other] if counts[other] == 0 else []
    return left


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(sorted(names))
    return f" ({text})" if text else ""
