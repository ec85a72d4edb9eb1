"""Order the nodes of a NIR graph as a chain with loops; refuse other graphs, with all reasons in one message."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from converters.formats.nir.nir_file import Graph, Node
from converters.formats.nir.nir_neurons import NEURON_TYPES, SILENT_TYPES
from specs.errors import UnsupportedError

LINEAR_TYPES = ("Affine", "Linear", "Conv2d", "Scale", "SumPool2d", "AvgPool2d", "Flatten")

KNOWN = {*LINEAR_TYPES, *NEURON_TYPES, *SILENT_TYPES, "Delay", "Input", "Output"}
REASONS = {
    "Conv1d": "convolutions with one axis are not supported",
    "I": "integrators that neither leak nor fire are not supported",
    "Threshold": "thresholds without a neuron are not supported",
}

LOOP_TYPES = ("Affine", "Linear")
"""Types of nodes that may lead from neurons back to the same neurons."""

Named = tuple[str, Node]
"""Name and node; a node in a subgraph is named `subgraph.node`."""


def chain_of(graph: Graph, *, origin: str) -> tuple[list[Named], Mapping[str, Named]]:
    """Return the nodes from Input to Output in the order of the edges, with subgraphs unfolded, and the loops.

    A loop is a node of `LOOP_TYPES` from neurons back to themselves; the keys are the names of the neurons.

    Raises:
        UnsupportedError: unsupported node types, branches, merges, other cycles or unconnected nodes; lists all of
            them.
    """
    problems: list[str] = []
    loops: dict[str, Named] = {}
    chain = _walk(graph, "", problems, loops)
    for name, node in chain[1:-1]:
        if node.type in SILENT_TYPES and name != chain[-2][0]:
            problems.append(f"{name} ({node.type}): neurons without spikes are supported only as the last node")
    if problems:
        raise UnsupportedError(f"{origin} cannot be read as a snnzoo network: {'; '.join(problems)}")
    return chain, loops


def _walk(graph: Graph, prefix: str, problems: list[str], loops: dict[str, Named]) -> list[Named]:
    """Return the chain of a graph as far as it goes; add what is not a chain to `problems`, and its `loops`."""
    graph = _without_loops(graph, prefix, loops)
    after, before = _neighbours(graph)
    faults = list(_faults(graph, prefix, after, before))
    problems += faults
    start = [name for name, node in graph.nodes.items() if isinstance(node, Node) and node.type == "Input"]
    chain: list[Named] = []
    name, seen = (start[0] if len(start) == 1 else None), set()
    while name is not None and name not in seen:
        seen.add(name)
        node = graph.nodes[name]
        if isinstance(node, Graph):
            chain += _walk(node, f"{prefix}{name}.", problems, loops)[1:-1]
        else:
            chain.append((prefix + name, node))
        following = after[name]
        name = following[0] if len(following) == 1 else None
    if not faults:
        unreached = [prefix + loose for loose in graph.nodes if loose not in seen]
        if unreached or chain[-1][1].type != "Output":
            problems.append(f"no path from Input to Output through {', '.join(sorted(unreached)) or 'the nodes'}")
    else:  # report the faults of subgraphs that the path did not reach, too
        for loose, node in graph.nodes.items():
            if isinstance(node, Graph) and loose not in seen:
                _walk(node, f"{prefix}{loose}.", problems, loops)
    return chain


def _neighbours(graph: Graph) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the nodes after each node, and those before it."""
    after, before = defaultdict(list), defaultdict(list)
    for source, target in dict.fromkeys(graph.edges):
        after[source].append(target)
        before[target].append(source)
    return after, before


def _without_loops(graph: Graph, prefix: str, loops: dict[str, Named]) -> Graph:
    """Return a graph without its loops, and add them to `loops`.

    Further loops of the same neurons stay in the graph, where they are refused as cycles.
    """
    after, before = _neighbours(graph)
    taken = set[str]()
    for name, node in graph.nodes.items():
        around = after[name] + before[name]
        if not (isinstance(node, Node) and node.type in LOOP_TYPES and len(around) == 2 and len(set(around)) == 1):
            continue
        neurons = graph.nodes[around[0]]
        if isinstance(neurons, Node) and neurons.type in NEURON_TYPES and prefix + around[0] not in loops:
            loops[prefix + around[0]] = prefix + name, node
            taken.add(name)
    left = {name: node for name, node in graph.nodes.items() if name not in taken}
    return replace(graph, nodes=left, edges=tuple(edge for edge in graph.edges if not taken & {*edge}))


def _faults(graph: Graph, prefix: str, after: dict[str, list[str]], before: dict[str, list[str]]) -> Iterator[str]:
    """Yield the reasons why a graph is not a chain of supported nodes."""
    for kind in ("Input", "Output"):
        names = [name for name, node in graph.nodes.items() if isinstance(node, Node) and node.type == kind]
        if len(names) != 1:
            place = f"{prefix.rstrip('.')} (NIRGraph): " if prefix else ""
            yield f"{place}expected one {kind} node, got {len(names)}{_listed(names)}"
    looping = _in_cycles(graph, after, before)
    for name, node in graph.nodes.items():
        kind = "NIRGraph" if isinstance(node, Graph) else node.type
        place = f"{prefix}{name} ({kind})"
        if kind not in KNOWN and kind != "NIRGraph":
            yield f"{place}: {REASONS.get(kind, 'this node type is not supported')}"
        if name in looping:
            yield f"{place}: part of a cycle; supported is one {' or '.join(LOOP_TYPES)} from neurons to themselves"
            continue
        if len(after[name]) > 1:
            yield f"{place}: feeds several nodes{_listed(after[name])}"
        if len(before[name]) > 1:
            yield f"{place}: is fed by several nodes{_listed(before[name])}"


def _in_cycles(graph: Graph, after: dict[str, list[str]], before: dict[str, list[str]]) -> set[str]:
    """Return the nodes on cycles or between two cycles.

    They are left after removing nodes without inputs, then without outputs, repeatedly.
    """
    left = set(graph.nodes)
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
