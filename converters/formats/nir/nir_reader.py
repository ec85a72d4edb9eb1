"""NIR to models: our own files as they were, other programs' graphs by what their nodes do."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from converters.formats.nir.nir_chain import Named, chain_of
from converters.formats.nir.nir_file import Graph, Node, edges_digest, node_digest, read_graph
from converters.formats.nir.nir_layers import layers_of
from converters.formats.nir.nir_model import model_of
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_writer import METADATA_FORMAT, METADATA_KEY, TENSORS_KEY
from converters.model import Model, check_card
from specs.block import Encoding
from specs.errors import ConversionError, IntegrityError, SpecError
from specs.io import spec_from_document
from specs.neuron import Reset

__all__ = ["read_nir"]

DEFAULT_TIME_STEPS, DEFAULT_INPUT_BITS = 16, 8
TIMED_TYPES = ("CubaLIF", "LIF", "CubaLI", "LI", "Delay")


def read_nir(
    path: Path,
    *,
    dt: float | None = None,
    time_constants: TimeConstants = TimeConstants.EULER,
    reset: Reset | None = None,
    time_steps: int | None = None,
    input_bits: int | None = None,
    nodes_only: bool = False,
) -> Model:
    """Read a NIR file.

    One that `write_nir` wrote gives the model back as it was, or for other `time_steps`. A graph of another program is
    read by what its nodes do: a chain of Affine, Linear, Conv2d, pools, Scale, Flatten, one-step Delay, and CubaLIF,
    LIF or IF neurons. Pools and scalings with no neurons of their own are folded into the weights beside them, exactly.
    Each layer is scaled into the hardware's ranges (see `fit_to_grid`), which leaves spikes as they are. LI or CubaLI
    at the end are the neurons of an affine readout: logits are still the mean of its weighted input;
    `IntegerTrace.readout_voltage` is their membrane. `card["nir"]` says what became of each layer, `notes` what had to
    be assumed.

    If the graph begins with neurons, what it is fed is their current (`spike` encoding); if it begins with weights, an
    image in 0..1, rounded to `input_bits` bits, the same in each step (`graded`).

    Args:
        path: the file.
        dt: seconds of a time step, if the file does not say: 1e-4 for snnTorch. Norse's exporter multiplies its time
            constants by its dt, so its files want `dt**2`, 1e-6. Sinabs counts in steps: 1, with `exact`.
        time_constants: how they become decays: `euler` (snnTorch, norse), `exact` (sinabs).
        reset: what a spike does; NIR cannot say: `zero`, with a note, unless it is told.
        time_steps: T of the model; by default what the file says, or 16.
        input_bits: of an image that goes straight into weights; 1 for spikes. By default 8.
        nodes_only: read also our own files by what their nodes do, for instance after someone changed them. The reset
            and the bits, which nodes do not tell, are then by default those of the spec in the file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: it is no NIR file, or is damaged.
        UnsupportedError: what no network of snnzoo can do, all of it at once.
        ConversionError: dt is needed, or contradicts the file; input_bits is out of range; our own nodes were changed.
    """
    if input_bits is not None and not 1 <= input_bits <= 16:
        raise ConversionError(f"input_bits is 1 to 16, not {input_bits}")
    graph = read_graph(path)
    said = _number(graph.metadata.get("dt"))
    if METADATA_KEY in graph.metadata and not nodes_only:
        if dt is not None and said is not None and abs(dt - said) > 1e-6 * said:
            raise ConversionError(f"{path} was written for time steps of {said:g} s, not --dt {dt:g}: leave it out")
        return _own_model(graph, path, time_steps)
    chain = chain_of(graph, origin=str(path))
    chosen = _time_step(chain, said if dt is None else dt, path)
    layers, notes = layers_of(chain, dt=chosen or 1.0, time_constants=time_constants, origin=str(path))
    told = time_steps or int(_number(graph.metadata.get("time_steps")) or 0)
    own_reset, own_bits = _told_inside(graph)
    steps, does = told or DEFAULT_TIME_STEPS, Reset(reset or own_reset or Reset.ZERO)
    unsaid = [] if reset or own_reset else [f"reset {does} (--reset)"]
    unsaid += [] if told else [f"T = {steps} (--time-steps)"]
    model = model_of(
        layers,
        name=_name(path),
        reset=does,
        time_steps=steps,
        input_bits=input_bits or own_bits or DEFAULT_INPUT_BITS,
        facts={"dt": chosen, "time_constants": str(time_constants), "reset": str(does)},
        notes=[*notes, *_fed(graph)],
        origin=str(path),
    )
    return replace(model, notes=(*model.notes, f"taken, as NIR does not say: {', '.join(unsaid)}")) if unsaid else model


def _told_inside(graph: Graph) -> tuple[Reset | None, int | None]:
    """The reset of all neurons, and the bits of graded input, by the spec in a file of ours."""
    try:
        spec = spec_from_document(json.loads(graph.metadata[METADATA_KEY])["spec"], origin="spec")
    except (SpecError, ValueError, TypeError, KeyError, RecursionError):  # another program's, or damaged
        return None, None
    reset, *others = spec.resets
    return None if others else reset, spec.input.bits if spec.input.encoding is Encoding.GRADED else None


def _fed(graph: Graph) -> list[str]:
    """What a file of ours says that it wants to be fed."""
    feed = graph.metadata.get("feed") if METADATA_KEY in graph.metadata else None
    return [f"the file says what to feed it: {feed}"] if isinstance(feed, str) else []


def _own_model(graph: Graph, path: Path, time_steps: int | None) -> Model:
    try:
        document = json.loads(graph.metadata[METADATA_KEY])
        digests, card, version = document["digests"], document["card"], document["format"]
        spec_document = document["spec"] | ({} if time_steps is None else {"time_steps": time_steps})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(f"{path}: damaged metadata {METADATA_KEY!r}: {error!r}") from None
    if version != METADATA_FORMAT or not isinstance(digests, dict) or not isinstance(card, dict):
        raise IntegrityError(f"{path}: metadata of format {version!r}; this snnzoo reads {METADATA_FORMAT}")
    nodes = {name: node_digest(node) for name, node in graph.nodes.items() if isinstance(node, Node)}
    changed = sorted(name for name in nodes.keys() | digests.keys() if nodes.get(name) != digests.get(name))
    if document.get("edges") not in (None, edges_digest(graph)):  # files of before 0.1 do not tell
        changed.append("what leads where")
    if changed or len(nodes) < len(graph.nodes):
        raise ConversionError(
            f"{path}: nodes changed since snnzoo wrote them: {', '.join(changed)}. The metadata tell of the network "
            "before that: go by the nodes with --nodes-only"
        )
    tensors = graph.metadata.get(TENSORS_KEY)
    if not isinstance(tensors, Mapping) or not all(isinstance(array, np.ndarray) for array in tensors.values()):
        raise IntegrityError(f"{path}: metadata without tensors")
    try:
        spec = spec_from_document(spec_document, origin=f"{path} (spec inside)")
        # torch has no big-endian arrays, nor unsigned ones beyond a byte
        copies = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    except (SpecError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: {error}") from None
    return Model(spec, copies, check_card(card, str(path)), origin=str(path))


def _time_step(chain: list[Named], dt: float | None, path: Path) -> float | None:
    timed = [f"{name} ({node.type})" for name, node in chain if node.type in TIMED_TYPES]
    if dt is None and timed:
        raise ConversionError(
            f"{path} does not say how long a time step is, and {timed[0]} depends on it. Give --dt 1e-4 if snnTorch "
            "wrote it; --dt 1e-6 if norse did, with its own dt of 1e-3; --dt 1 --time-constants exact if sinabs did; "
            "and --reset subtract, if its neurons do"
        )
    if dt is not None and not 0 < dt < float("inf"):
        raise ConversionError(f"--dt is the seconds of a time step, not {dt}")
    return dt


def _name(path: Path) -> str:
    """The file's name as a spec allows it."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("._-")[:64] or "nir"


def _number(value: object) -> float | None:
    """A number of the metadata, if it is one."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        return None
    return float(value.flat[0])
