"""Take a NIR graph apart: its layers of neurons in order, and the linear nodes from one to the other."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

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
MOST_NODES = 100_000
"""Largest number of nodes on all ways together; a few sums in a row have very many ways."""

Named = tuple[str, Node]
"""Name and node; a node in a subgraph is named `subgraph.node`."""


@dataclass(frozen=True)
class Way:
    """Linear nodes, in order, from one of the ends of a graph to another; `source` is the name of the first end."""

    source: str
    nodes: tuple[Named, ...] = ()


@dataclass(frozen=True)
class End:
    """Input, neurons or Output of a graph, with the ways that lead to it; what they bring is added up.

    `loop` is a node of `LOOP_TYPES` from neurons back to themselves.
    """

    name: str
    node: Node
    ways: tuple[Way, ...] = ()
    loop: Named | None = None


def ends_of(graph: Graph, *, origin: str) -> list[End]:
    """Return the ends of a graph, each after those that it reads: the Input, neurons, and the Output.

    Subgraphs are unfolded. A sum before linear nodes is a sum of ways, of which the first has the bias of these nodes.

    Raises:
        UnsupportedError: unsupported node types, cycles other than `End.loop`, or unconnected nodes; lists all of them.
    """
    flat = _Flat(graph)
    if problems := [*flat.problems, *_cycles(flat)] or [*_misplaced(flat)]:
        raise UnsupportedError(f"{origin} cannot be read as a snnzoo network: {'; '.join(problems)}")
    return _ends(flat, origin)


class _Flat:
    """Nodes of a graph and of its subgraphs, whose Input and Output stay as nodes that pass on what they get."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: dict[str, Node] = {}
        self.loops: dict[str, Named] = {}
        self.after, self.before = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        self.problems: list[str] = []
        self.input, self.output = self._add(graph, "")

    def is_end(self, name: str) -> bool:
        """Return whether a node is an end of linear nodes, see `End`."""
        return name in (self.input, self.output) or self.nodes[name].type in {*NEURON_TYPES, *SILENT_TYPES}

    def passes(self, name: str) -> bool:
        """Return whether a node is the Input or Output of a subgraph."""
        return self.nodes[name].type in {"Input", "Output"} and name not in (self.input, self.output)

    def beyond(self, name: str) -> list[str]:
        """Return the nodes that read a node, without the Input or Output of a subgraph between."""
        following = self.after[name]
        while len(following) == 1 and self.passes(following[0]):
            following = self.after[following[0]]
        return following

    def _add(self, graph: Graph, prefix: str) -> tuple[str, str]:
        """Add a graph; return the names of its Input and its Output, empty if there is not one of each."""
        graph = self._without_loops(graph, prefix)
        faces: dict[str, tuple[str, str]] = {}
        for name, node in graph.nodes.items():
            faces[name] = self._add(node, f"{prefix}{name}.") if isinstance(node, Graph) else (prefix + name,) * 2
            if isinstance(node, Node):
                self.nodes[prefix + name] = node
                if node.type not in KNOWN:
                    reason = REASONS.get(node.type, "this node type is not supported")
                    self.problems.append(f"{prefix}{name} ({node.type}): {reason}")
        for source, target in dict.fromkeys(graph.edges):
            first, second = faces[source][1], faces[target][0]
            self.after[first].append(second)
            self.before[second].append(first)
        found = ["", ""]
        for i, kind in enumerate(("Input", "Output")):
            names = [name for name, node in graph.nodes.items() if isinstance(node, Node) and node.type == kind]
            if len(names) == 1:
                found[i] = prefix + names[0]
            else:
                place = f"{prefix.rstrip('.')} (NIRGraph): " if prefix else ""
                self.problems.append(f"{place}expected one {kind} node, got {len(names)}{_listed(names)}")
        return found[0], found[1]

    def _without_loops(self, graph: Graph, prefix: str) -> Graph:
        """Return a graph without its loops, and add them to `loops`.

        Further loops of the same neurons stay in the graph, where they are refused as cycles.
        """
        around: dict[str, list[str]] = defaultdict(list)
        for source, target in dict.fromkeys(graph.edges):
            around[source].append(target)
            around[target].append(source)
        taken = set[str]()
        for name, node in graph.nodes.items():
            own = around[name]
            if not (isinstance(node, Node) and node.type in LOOP_TYPES and len(own) == 2 and own[0] == own[1]):
                continue
            neurons = graph.nodes[own[0]]
            if isinstance(neurons, Node) and neurons.type in NEURON_TYPES and prefix + own[0] not in self.loops:
                self.loops[prefix + own[0]] = prefix + name, node
                taken.add(name)
        left = {name: node for name, node in graph.nodes.items() if name not in taken}
        return replace(graph, nodes=left, edges=tuple(edge for edge in graph.edges if not taken & {*edge}))


def _cycles(flat: _Flat) -> Iterator[str]:
    """Yield the nodes on cycles or between two cycles.

    They are left after removing nodes without inputs, then without outputs, repeatedly.
    """
    left = set(flat.nodes)
    for ways in ((flat.before, flat.after), (flat.after, flat.before)):
        left -= set(_ordered(left, *ways))
    for name in sorted(left):
        kinds = " or ".join(LOOP_TYPES)
        yield f"{name} ({flat.nodes[name].type}): part of a cycle; supported is one {kinds} from neurons to themselves"


def _misplaced(flat: _Flat) -> Iterator[str]:
    """Yield the nodes that are not between Input and Output, and neurons without spikes that others read."""
    reached = _reached(flat.input, flat.after) & _reached(flat.output, flat.before)
    if lost := sorted(name for name in flat.nodes if name not in reached and name != flat.input):
        yield f"no path from Input to Output through {', '.join(lost)}"
    for name, node in flat.nodes.items():
        if node.type in SILENT_TYPES and flat.beyond(name) != [flat.output]:
            yield f"{name} ({node.type}): neurons without spikes are supported only as the last node"


def _reached(start: str, ways: Mapping[str, list[str]]) -> set[str]:
    found, left = {start}, [start]
    while left:
        new = {name for name in ways[left.pop()] if name not in found}
        found |= new
        left += new
    return found


def _ordered(among: set[str], before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Return the nodes in an order in which each comes after those before it; without nodes on or behind a cycle."""
    counts = {name: sum(other in among for other in before[name]) for name in among}
    free = sorted((name for name, count in counts.items() if count == 0), reverse=True)
    found: list[str] = []
    while free:
        found.append(free.pop())
        for other in reversed(after[found[-1]]):
            if other in counts:
                counts[other] -= 1
                free += [other] if counts[other] == 0 else []
    return found


def _ends(flat: _Flat, origin: str) -> list[End]:
    """Return the ends of a graph without cycles, with their ways."""
    ends, n_nodes = list[End](), 0
    ways: dict[str, list[Way]] = {}  # those to each node, which the last node of each way is
    for name in _ordered(set(flat.nodes), flat.before, flat.after):
        node = flat.nodes[name]
        arriving = [way for source in flat.before[name] for way in ways[source]]
        if flat.is_end(name):
            ends.append(End(name, node, tuple(arriving), flat.loops.get(name)))
            ways[name] = [Way(name)]
            continue
        if not flat.passes(name):
            plain = Node(node.type, {key: value for key, value in node.fields.items() if key != "bias"})
            arriving = [Way(way.source, (*way.nodes, (name, plain if i else node))) for i, way in enumerate(arriving)]
        n_nodes += sum(len(way.nodes) for way in arriving)
        if n_nodes > MOST_NODES:
            raise UnsupportedError(
                f"{origin} cannot be read as a snnzoo network: {name} ({node.type}): too many ways lead here; give the "
                "sums before it neurons"
            )
        ways[name] = arriving
    return ends


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(sorted(names))
    return f" ({text})" if text else ""
