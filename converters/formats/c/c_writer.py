"""Write a network as C99: one source file and its header, which compute what the integer engine computes."""

import hashlib
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE, STATE_MAX
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.blocks import SpikingBlock
from bootstrap_core.network.network import Network
from converters.formats.c.c_numbers import (
    Array,
    bias_of,
    border_values,
    conv_numbers,
    delays_of,
    examples_of,
    input_table,
    layer_record,
    most_steps,
    tensor_problems,
    weights_of,
)
from converters.formats.c.c_plan import Plan, Stage, c_costs, plan_of
from converters.formats.refusals import SIGMA_DELTA, problems_by_place, unknown_kinds
from converters.model import Model
from specs.arguments import check_path, check_type
from specs.errors import ConversionError, UnsupportedError
from specs.fields import StrictModel, threshold_mant
from specs.files.whole_file import write_together
from specs.layers.block import (
    AffineSpec,
    AverageSpec,
    AvgPoolSpec,
    ConvSpec,
    DelaySpec,
    DenseSpec,
    FlattenSpec,
    skips_of,
)
from specs.layers.input import Encoding
from specs.layers.layer import Layer
from specs.layers.neuron import CubaSpec, LearnDecays
from specs.network import NetworkSpec, Output
from specs.shapes import pads_of
from specs.words import counted

__all__ = [
    "COptions",
    "c_texts",
    "check_c_name",
    "header_of",
    "self_test_options",
    "spec_problems",
    "without_comments",
    "write_c",
]

KINDS = (DenseSpec, ConvSpec, AvgPoolSpec, FlattenSpec, AffineSpec, AverageSpec)
EXTRAS = ("recurrent", "delays", SIGMA_DELTA)
"""Kinds of blocks that the source can compute, and their extras."""
ENCODINGS = {Encoding.SPIKE, Encoding.GRADED, Encoding.EVENTS, Encoding.FRAMES}
OUTPUTS = {Output.RATE, Output.LAST}
NEURONS = {"cuba", "sigma_delta"}
KNOWN_FIELDS = {
    "schema_version", "name", "description", "time_steps", "input", "blocks", "logit_scale", "training", "kind",
    "shape", "encoding", "bits", "bin_us", "border", "mean", "std", "weight", "bias", "exact_input", "log_mel",
    "neuron", "output",
    "features", "channels", "kernel", "stride", "padding", "dilation", "groups", "gain", "skips", "source",
    "weight_norm", "dropout", "norm", "delay_shift", "threshold", "current_decay", "voltage_decay", "tau_grad",
    "scale_grad", "reset", "learn_decays", "recurrent", "delays", "per", "longest", "learn",
}  # fmt: skip
"""Fields of specs that the source knows; a value in any other field is refused."""
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
FILE_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
DIGEST_DIGITS = 8
"""Hexadecimal digits of the digest by which the source knows its header: a number of 32 bits."""
LIBRARY_HEADERS = frozenset(
    # C
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic "  # noqa: SIM905 - a list would be a hundred lines
    "stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype "
    # POSIX
    "aio cpio devctl dirent dlfcn endian fcntl fmtmsg fnmatch ftw glob grp iconv langinfo libgen libintl monetary "
    "mqueue ndbm netdb nl_types poll pthread pwd regex sched search semaphore spawn strings stropts syslog tar termios "
    "trace ulimit unistd utime utmpx wordexp "
    # further headers that those of glibc, musl, newlib, macOS and Windows include
    "alloca byteswap features features-time64 getopt malloc memory newlib reent stdc-predef stdint-gcc values varargs "
    "availability availabilitymacros availabilityinternal availabilityversions targetconditionals "
    "corecrt crtdefs crtdbg sal vadefs vcruntime vcruntime_string".split()
)
"""Headers of C libraries, in lower case. A file of this name would hide them from all that is compiled beside it."""
WIDTH = 118


@dataclass(frozen=True, eq=False)
class COptions:
    """Options of the C source.

    Attributes:
        prefix: beginning of all public names; macros have it in capitals.
        images: pictures for the self-test, uint8 `[N, ...]`, or recordings `[N, T, ...]` of events or frames; by
            default noise, the same each time.

    Raises:
        ConversionError: the prefix is not one for C.
    """

    prefix: str = "snn"
    images: Tensor | None = None

    def __post_init__(self) -> None:
        if not IDENTIFIER.fullmatch(self.prefix):
            raise ConversionError(
                "the prefix of C names (--c-prefix) must be up to 32 letters, digits and _, a letter first, got "
                f"{self.prefix!r}"
            )


def header_of(path: Path) -> Path:
    """Return the path of the header that is written beside a C source."""
    return path.with_suffix(".h")


def check_c_name(path: Path) -> None:
    """Raise `ConversionError` if a C source cannot have this name, which stands in its `#include`."""
    if not FILE_NAME.fullmatch(path.stem):
        raise ConversionError(f"{path}: the name of a C file must consist of letters, digits and any of _ . + -")
    if path.stem[0] == "_" or path.stem.lower() in LIBRARY_HEADERS:
        raise ConversionError(
            f"{path}: its header {path.stem}.h could hide that of the C library, with which nothing would compile: "
            f"choose another name, such as {path.stem.lstrip('_')}_net{path.suffix}"
        )


def write_c(model: Model, path: str | Path, options: COptions = COptions()) -> Path:
    """Write a model as a C99 source file, and its header beside it; the same model gives the same bytes.

    The source needs stdint.h and string.h only, allocates nothing and has no floats. Its spikes and logits are those of
    the integer engine, on images of bytes, events or frames, step by step. States are kept within the chip's 24 bits;
    where one would leave them, the integer engine refuses to go on, and the source counts it in `overflows`.

    Args:
        model: the model; it is not changed.
        path: file to write, `NAME.c`; it and `NAME.h` are overwritten, either both or none.
        options: prefix of names, and pictures of the self-test.

    Raises:
        ConversionError: an argument has the wrong type, or the name of the file is not one for C.
        UnsupportedError: features that the source cannot compute, all of them in one message.
        SnnZooError: tensors that are not finite, or states that leave 24 bits even on a black image.
    """
    check_type(model, Model, "write_c takes a Model", advice="Model.of makes one from a network", error=ConversionError)
    path = check_path(path, "write_c takes the path of a file", error=ConversionError)
    check_type(options, COptions, "options must be a COptions", error=ConversionError)
    check_c_name(path)
    header, source = c_texts(model, path.stem, options)
    write_together({header_of(path): header.encode("ascii"), path: source.encode("ascii")})
    return path


def c_texts(model: Model, stem: str, options: COptions) -> tuple[str, str]:
    """Return the header and the source of a model; see `write_c`. `stem` is their name without suffix."""
    _refuse(spec_problems(model.spec))
    network, plan = model.build(), plan_of(model.spec)
    exact = IntegerNetwork(network)  # refuses tensors that are not finite
    with torch.no_grad():
        _refuse(tensor_problems(network, plan))
        names = _numbers(network, plan) | {"examples": examples_of(exact, plan, options.images)}
    names |= {
        "plan": plan,
        "file": stem,
        "digest": "",
        "p": options.prefix,
        "P": options.prefix.upper(),
        "classes": _class_names(model),
        "guard": re.sub(r"\W", "_", f"{options.prefix}_{stem}_h".upper()),
        "table": _table(plan),
        "costs": c_costs(model.spec),
        "uses": _functions(plan),
        "STATE_MAX": STATE_MAX,
        "given_type": f"{'' if plan.sends_messages else 'u'}int{8 * plan.input_bytes}_t",
        "given": "frame" if plan.sends_messages else "events",
        "several": "frames" if plan.sends_messages else "events",
        "answer_type": "void" if plan.sends_messages else "int32_t",
        "said": "values" if plan.sends_messages else "logits",
        "SAID": f"{options.prefix.upper()}_{'VALUES' if plan.sends_messages else 'CLASSES'}",
        "sum_type": f"int{8 * plan.sum_bytes}_t",
        "amounts": "values" if plan.sends_messages else "counts",
    }
    code = without_comments(_render("network.h.jinja", names))
    names["digest"] = f"0x{hashlib.sha256(code.encode()).hexdigest()[:DIGEST_DIGITS]}"
    return _render("network.h.jinja", names), _render("network.c.jinja", names)


def without_comments(code: str) -> str:
    """Return C code without its comments.

    >>> without_comments("int a; /* an integer */ int b;")
    'int a;  int b;'
    """
    return COMMENT.sub("", code)


def self_test_options(path: Path, options: COptions) -> list[str]:
    """Return the arguments with which a C compiler makes the self-test of a source, the program `selftest`."""
    return ["-O2", f"-D{options.prefix.upper()}_SELFTEST", str(path), "-o", "selftest"]


def _refuse(problems: Iterator[str]) -> None:
    if found := list(problems):
        raise UnsupportedError(f"C source cannot express {'; '.join(found)}")


def spec_problems(spec: NetworkSpec) -> Iterator[str]:
    """Yield what C source cannot express of a network."""
    if spec.input.encoding not in ENCODINGS:
        yield f"input.encoding: {spec.input.encoding}"
    if spec.output not in OUTPUTS:
        yield f"output: {spec.output}"
    yield from unknown_kinds(spec, KINDS, EXTRAS)
    yield from _unknown_fields(spec)
    records = ((layer, spec.neuron_of(layer), *skips_of(layer), *_delays_of(layer)) for layer in spec.layers)
    yield from problems_by_place("block", (chain.from_iterable(map(_unknown_fields, each)) for each in records))
    kinds = {str(neuron.kind) for neuron in map(spec.neuron_of, spec.layers)}
    yield from (f"neuron.kind: {kind}" for kind in sorted(kinds - NEURONS))


def _delays_of(layer: Layer) -> tuple[DelaySpec, ...]:
    delays = getattr(layer, "delays", None)
    return () if delays is None else (delays,)


def _unknown_fields(record: StrictModel) -> Iterator[str]:
    """Yield the fields of a record that are set and not known here, except those that `unknown_kinds` names."""
    known = {*KNOWN_FIELDS, *(record.extras if isinstance(record, Layer) else ())}
    for name, field in type(record).model_fields.items():
        if name not in known and getattr(record, name) != field.get_default(call_default_factory=True):
            yield f"the field {name}"


def _numbers(network: Network, plan: Plan) -> dict[str, Any]:
    """Return all arrays and records of the source."""
    arrays, shapes = list[Array](), list[dict[str, Any]]()
    for stage in plan.stages:
        block = network.block(stage.outputs.index)
        for synapses, (_, weight) in zip(stage.synapses, block.synapses(), strict=True):
            arrays.append(weights_of(synapses, weight))
            if synapses.convolution:
                shapes.append({"name": synapses.shape_name, "numbers": conv_numbers(synapses, stage.outputs)})
        if stage.delays:
            assert isinstance(block, SpikingBlock)
            delay = block.quantized_delay()
            assert delay is not None
            arrays.append(delays_of(stage, delay))
    layers = [layer_record(network, each) for each in plan.neurons]
    arrays += [array for layer in layers for array in layer.arrays if array]
    bias = bias_of(network.readout, "readout") if plan.affine else None
    arrays += [] if bias is None else [bias]
    return {
        "arrays": arrays,
        "bias": bias,
        "shapes": shapes,
        "layers": layers,
        "input_values": [] if plan.is_timed else input_table(network),
        "border_values": border_values(network) if plan.is_padded else [],
        "pads": pads_of(plan.spec.input.padding),
        "most_steps": most_steps(network, plan),
    }


def _functions(plan: Plan) -> set[str]:
    """Return the kinds of work of a network: each has a function in the source."""
    every = [each for stage in plan.stages for each in stage.synapses]
    late = [stage.own for stage in plan.stages if stage.delays_each_weight]
    found = {"conv" for each in every if each.convolution} | ({"dense_late"} if late else set())
    found |= {"identity_flat" if each.flattened else "identity" for each in every if each.identity}
    found |= {
        "add" if plan.has_counts(each.source) else "dense" for each in every if each.is_dense and each not in late
    }
    found |= {"postpone" for stage in plan.stages if stage.delays and not stage.delays_each_weight}
    found |= {"clear" for stage in plan.stages if not (plan.sums_in_readout(stage) or plan.is_driven(stage))}
    found |= {"clear"} if plan.reads_last else set()
    found |= {"flat"} if "identity_flat" in found or (not plan.affine and plan.last.plane > 1) else set()
    return found | ({"add"} if found & {"conv", "dense"} else set())


def _class_names(model: Model) -> list[str]:
    """Return the names of the classes as lines of a comment; none if they are numbers."""
    names = model.classes
    if names == tuple(map(str, range(len(names)))):
        return []
    plain = (re.sub(r"[^A-Za-z0-9 _.,()+-]", "?", name) for name in names)
    return textwrap.wrap(f"Classes, from 0: {', '.join(plain)}.", WIDTH - 3, subsequent_indent="    ")


def _table(plan: Plan) -> list[str]:
    """Return the table of layers, for a comment."""
    spec = plan.spec
    stages = {stage.outputs.index: stage for stage in plan.stages}
    of_neurons = ("threshold", "sends") if plan.sends_messages else ("threshold", "decays", "reset")
    rows = [("layer", "shape", "weights", *of_neurons, "reads")]
    for i, (layer, shape) in enumerate(zip(spec.layers, spec.shapes, strict=True)):
        stage = stages.get(i)
        n_weights = f"{sum(each.n_weights for each in stage.synapses):,}" if stage else ""
        reads = _reading_words(stage) if stage else _input_words(plan)
        if i and not stage:
            averages = isinstance(layer, AverageSpec)
            reads = f"spikes of {plan.group} neurons to a class" if averages else "the same in another order"
        rows.append(
            (
                f"{i} {layer.kind}",
                "x".join(map(str, shape)),
                n_weights,
                *(_neuron_words(plan, i) or [""] * len(of_neurons)),
                reads,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [part for line in lines for part in textwrap.wrap(line, WIDTH - 3, subsequent_indent=" " * 8)]


def _reading_words(stage: Stage) -> str:
    """Return what a stage reads, as a cell of the table."""
    own = stage.own.words
    if stage.delays:
        own += f", 0 to {stage.delays.longest} steps late by {'weight' if stage.delays_each_weight else 'channel'}"
    return " + ".join([own, *(each.words for each in stage.others)])


def _input_words(plan: Plan) -> str:
    if plan.sends_messages:
        return f"frames, integers of {counted(plan.spec.input.bits, 'bit')} with sign"
    if plan.is_events:
        return f"events, {plan.most_events} at most" if plan.counts_events else "events"
    return f"pixels as integers of {counted(plan.spec.input.bits, 'bit')}" if plan.is_graded else "pixels as currents"


def _neuron_words(plan: Plan, index: int) -> tuple[str, ...]:
    """Return threshold, decays of current and voltage, and reset of a layer's neurons, as cells of the table.

    Of sigma-delta neurons, threshold and what they send; nothing for a layer without neurons.
    """
    spec, layer = plan.spec, plan.spec.layers[index]
    if not layer.has_neurons:
        return ()
    neuron, late = spec.neuron_of(layer), ", a step late" if spec.delay_shift_of(layer) else ""
    threshold = threshold_mant(neuron.threshold, spec.input.levels if index == 1 else 1)
    if not isinstance(neuron, CubaSpec):
        return f"{threshold}", f"changes{late}"
    decays = f"{round(DECAY_ONE * neuron.current_decay)} {round(DECAY_ONE * neuron.voltage_decay)}"
    return (
        f"{threshold}",
        "trained" if neuron.learn_decays is not LearnDecays.NONE else decays,
        f"{neuron.reset}{late}",
    )


def _render(template: str, names: dict[str, Any]) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda name: (resources.files(__package__) / name).read_text("utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["numbers"] = _braced
    return environment.get_template(template).render(names)


def _braced(numbers: list[int]) -> str:
    """Return numbers in braces, as indented lines with equally many in each but the last, or as one line."""
    texts = list(map(str, numbers))
    n = (WIDTH - 4) // (max(map(len, texts)) + 2)
    if len(texts) <= n // 2:
        return f"{{{', '.join(texts)}}}"
    lines = (", ".join(texts[i : i + n]) for i in range(0, len(texts), n))
    return "{\n    " + ",\n    ".join(lines) + "\n}"
