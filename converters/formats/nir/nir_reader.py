"""Read NIR files: those of snnzoo as the model that was written, those of other programs by their nodes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.formats.nir.nir_file import Graph, Node, edges_digest, node_digest, read_graph
from converters.formats.nir.nir_graph import End, ends_of
from converters.formats.nir.nir_layers import layers_of
from converters.formats.nir.nir_model import model_of
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_writer import METADATA_FORMAT, METADATA_KEY, TENSORS_KEY
from converters.model import Model, check_card
from specs.arguments import check_path
from specs.errors import ConversionError, IntegrityError, SpecError
from specs.io import name_from, spec_from_document
from specs.layers.input import Encoding
from specs.layers.neuron import Reset

DEFAULT_TIME_STEPS = 16
TIMED_TYPES = ("CubaLIF", "LIF", "CubaLI", "LI", "Delay")


def read_nir(
    path: str | Path,
    *,
    dt: float | None = None,
    time_constants: TimeConstants = TimeConstants.EULER,
    reset: Reset | None = None,
    time_steps: int | None = None,
    input_bits: int | None = None,
    nodes_only: bool = False,
) -> Model:
    """Read a NIR file.

    A file of `write_nir` returns the model that was written, with other `time_steps` if given. A graph of another
    program is read from its nodes: Affine, Linear, Conv2d, pools, Scale, Flatten, Delay, and CubaLIF, LIF or IF neurons
    in any graph without cycles, except that an Affine or Linear may lead from neurons back to themselves (`recurrent`).
    Pools and scalings without neurons are folded into the weights beside them, exactly. Each layer is scaled to the
    hardware's ranges (see `fit_to_grid`), which does not change spikes. LI or CubaLI at the end become the neurons of
    an affine readout: logits are still the mean of its weighted input; `IntegerTrace.readout_voltage` is their membrane
    voltage.
    `card["nir"]` describes the conversion of each layer, `notes` list the assumptions.

    If the graph begins with neurons, its input is their current (`spike` encoding). If it begins with weights, spikes
    that differ from step to step enter it (`events`); with `input_bits`, an image in 0..1, rounded to so many bits, the
    same in each step (`graded`).

    Args:
        path: the file.
        dt: length of a time step in seconds, if the file does not contain it: 1e-4 for snnTorch. Norse's exporter
            multiplies its time constants by its dt, so its files need `dt**2`, 1e-6. Sinabs counts in steps: 1, with
            `exact`.
        time_constants: conversion to decays: `euler` (snnTorch, norse), `exact` (sinabs).
        reset: effect of a spike on the voltage, which NIR cannot express; by default `zero`, with a note.
        time_steps: T of the model; by default from the file, or 16.
        input_bits: bits of a still image that enters weights directly; by default spikes enter, step by step.
        nodes_only: read files of snnzoo from their nodes, too, for instance after someone changed them. By default,
            reset, first voltages and form of the input, which nodes do not contain, then come from the spec in the
            file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the file is not a NIR file, or is damaged.
        UnsupportedError: features that snnzoo does not have; the message lists all of them.
        ConversionError: dt is missing or contradicts the file, input_bits is out of range, a file of snnzoo contains
            what is given or its nodes were changed, or `path` is not a path.
    """
    path = check_path(path, "read_nir takes the path of a file", error=ConversionError)
    if input_bits is not None and not 1 <= input_bits <= 16:
        raise ConversionError(f"input_bits must be from 1 to 16, got {input_bits}")
    graph = read_graph(path)
    said = _number(graph.metadata.get("dt"))
    if METADATA_KEY in graph.metadata and not nodes_only:
        if dt is not None and said is not None and abs(dt - said) > 1e-6 * said:
            raise ConversionError(f"{path} was written for time steps of {said:g} s, not {dt:g} s: leave out --dt")
        facts = {
            "--reset": reset,
            "--input-bits": input_bits,
            "--time-constants": time_constants if time_constants is not TimeConstants.EULER else None,
        }
        if useless := [option for option, fact in facts.items() if fact is not None]:
            raise ConversionError(
                f"{path}: leave out {' and '.join(useless)}: a file of snnzoo contains the value; --nodes-only reads "
                "the nodes, with the value that is given"
            )
        return _own_model(graph, path, time_steps)
    ends = ends_of(graph, origin=str(path))
    chosen = _time_step(ends, said if dt is None else dt, path)
    shape, layers, notes = layers_of(ends, dt=chosen or 1.0, time_constants=time_constants, origin=str(path))
    told = time_steps or int(_number(graph.metadata.get("time_steps")) or 0)
    own_reset, own_start, own_input = _told_inside(graph)
    graded = {"encoding": Encoding.GRADED, "bits": input_bits}
    steps, does = told or DEFAULT_TIME_STEPS, Reset(reset or own_reset or Reset.ZERO)
    unsaid = [] if reset or own_reset else [f"reset {does} (--reset)"]
    unsaid += [] if told else [f"T = {steps} (--time-steps)"]
    unsaid += [] if own_start is not None else ["voltages that start at 0, since neuron.start differs between layers"]
    model = model_of(
        shape,
        layers,
        name=name_from(path.stem),
        reset=does,
        start=own_start or 0.0,
        time_steps=steps,
        entering=graded if input_bits else own_input or {"encoding": Encoding.EVENTS},
        facts={"dt": chosen, "time_constants": str(time_constants), "reset": str(does)},
        notes=[*notes, *_fed(graph)],
        origin=str(path),
    )
    return replace(model, notes=(*model.notes, f"assumed, not in the file: {', '.join(unsaid)}")) if unsaid else model


def _told_inside(graph: Graph) -> tuple[Reset | None, float | None, dict[str, Any] | None]:
    """Return reset and start of all neurons, and encoding and bits of the input, from the spec in a file of snnzoo.

    What is not there is None, as is the input if it has neurons; without a spec, voltages start at 0.
    """
    try:
        spec = spec_from_document(json.loads(graph.metadata[METADATA_KEY])["spec"], origin="spec")
    except (SpecError, ValueError, TypeError, KeyError, RecursionError):  # written by another program, or damaged
        return None, 0.0, None
    (reset, *other_resets), (start, *other_starts) = spec.resets, spec.starts
    entering = None if spec.input.has_neurons else spec.input.model_dump(include={"encoding", "bits"})
    return None if other_resets else reset, None if other_starts else start, entering


def _fed(graph: Graph) -> list[str]:
    """Return a note on the input that a file of snnzoo describes."""
    feed = graph.metadata.get("feed") if METADATA_KEY in graph.metadata else None
    return [f"input, as the file describes it: {feed}"] if isinstance(feed, str) else []


def _own_model(graph: Graph, path: Path, time_steps: int | None) -> Model:
    """Return the model in the metadata of a file of snnzoo; refuse it if the nodes were changed."""
    try:
        document = json.loads(graph.metadata[METADATA_KEY])
        digests, card, version = document["digests"], document["card"], document["format"]
        spec_document = document["spec"] | ({} if time_steps is None else {"time_steps": time_steps})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(f"{path}: damaged metadata {METADATA_KEY!r}: {error!r}") from None
    if version != METADATA_FORMAT or not isinstance(digests, dict) or not isinstance(card, dict):
        raise IntegrityError(f"{path}: metadata of format {version!r}; expected {METADATA_FORMAT}, undamaged")
    nodes = {name: node_digest(node) for name, node in graph.nodes.items() if isinstance(node, Node)}
    changed = sorted(name for name in nodes.keys() | digests.keys() if nodes.get(name) != digests.get(name))
    if document.get("edges") not in (None, edges_digest(graph)):  # files from before 0.1 have no digest of edges
        changed.append("the edges")
    if changed or len(nodes) < len(graph.nodes):
        raise ConversionError(
            f"{path}: the graph was changed since snnzoo wrote it: {', '.join(changed)}. The metadata describe the "
            "network before the change; read the nodes instead with --nodes-only"
        )
    tensors = graph.metadata.get(TENSORS_KEY)
    if not isinstance(tensors, Mapping) or not all(isinstance(array, np.ndarray) for array in tensors.values()):
        raise IntegrityError(f"{path}: the metadata contain no tensors")
    try:
        spec = spec_from_document(spec_document, origin=f"{path} (spec inside)")
        # TypeError: torch lacks this dtype, such as big-endian or wide unsigned integers
        copies = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    except (SpecError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: {error}") from None
    return Model(spec, copies, check_card(card, str(path)), origin=str(path))


def _time_step(ends: list[End], dt: float | None, path: Path) -> float | None:
    nodes = (each for end in ends for each in (*(n for way in end.ways for n in way.nodes), (end.name, end.node)))
    timed = [f"{name} ({node.type})" for name, node in nodes if node.type in TIMED_TYPES]
    if dt is None and timed:
        raise ConversionError(
            f"{path} does not contain the length of a time step, which {timed[0]} needs. Give --dt 1e-4 if snnTorch "
            "wrote it; --dt 1e-6 if norse did, with its dt of 1e-3; --dt 1 --time-constants exact if sinabs did. Add "
            "--reset subtract if a spike subtracts the threshold"
        )
    if dt is not None and not 0 < dt < float("inf"):
        raise ConversionError(f"--dt must be a finite number of seconds above 0, got {dt}")
    return dt


def _number(value: object) -> float | None:
    """Return a value of the metadata as a number; None if it is not a single number."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        return None
    return float(value.flat[0])
