"""Write a network as C99: one source file and its header, which compute what the integer engine computes."""

import hashlib
import re
import textwrap
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from bootstrap_core.fixed_point import STATE_MAX
from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.chip.form import CUBA, SIGMA_DELTA, ChipForm, ChipLayer, form_problems
from converters.chip.from_network import form_of_network
from converters.formats.c.c_numbers import (
    Array,
    bias_of,
    conv_numbers,
    delays_of,
    examples_of,
    layer_record,
    most_steps,
    number_problems,
    weights_of,
)
from converters.formats.c.c_plan import Plan, Stage, c_costs, plan_of
from converters.model import Model
from specs.arguments import check_path, check_type
from specs.errors import ConversionError, UnsupportedError
from specs.files.whole_file import refuse_overwriting, write_together
from specs.layers.input import Encoding
from specs.network import Output
from specs.shapes import pads_of
from specs.words import counted

KINDS = ("dense", "conv", "avg_pool", "flatten", "affine", "average")
FEATURES = ("recurrent", "delays", SIGMA_DELTA)
"""Kinds of layers that the source can compute, and their features."""
ENCODINGS = {Encoding.SPIKE, Encoding.GRADED, Encoding.EVENTS, Encoding.FRAMES}
OUTPUTS = {Output.RATE, Output.LAST}
NEURONS = {CUBA, SIGMA_DELTA}
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

    Raises `ConversionError` if the prefix is not one for C.
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
    if path.stem[0] == "-":
        raise ConversionError(
            f"{path}: the name of a C file must not begin with -, as a compiler takes it for an option"
        )
    if path.stem[0] == "_" or path.stem.lower() in LIBRARY_HEADERS:
        raise ConversionError(
            f"{path}: its header {path.stem}.h could hide that of the C library, with which nothing would compile: "
            f"choose another name, such as {path.stem.lstrip('_')}_net{path.suffix}"
        )


def write_c(model: Model, path: str | Path, options: COptions = COptions(), *, overwrite: bool = False) -> Path:
    """Write a model as a C99 source file, and its header beside it; the same model gives the same bytes.

    The source needs stdint.h and string.h only, allocates nothing and has no floats. Its spikes and logits are those of
    the integer engine, on images of bytes, events or frames, step by step. States are kept within the chip's 24 bits;
    where one would leave them, the integer engine refuses to go on, and the source counts it in `overflows`.

    Args:
        model: the model; it is not changed.
        path: file to write, `NAME.c`; it and `NAME.h` are written, either both or none.
        options: prefix of names, and pictures of the self-test.
        overwrite: whether files that exist are replaced.

    Raises:
        ConversionError: an argument has the wrong type, the name of the file is not one for C, or one of the files
            exists and `overwrite` is false.
        UnsupportedError: features that the source cannot compute, all of them in one message.
        SnnZooError: tensors that are not finite, or states that leave 24 bits even on a black image.
    """
    check_type(model, Model, "write_c takes a Model", advice="Model.of makes one from a network", error=ConversionError)
    path = check_path(path, "write_c takes the path of a file", error=ConversionError)
    check_type(options, COptions, "options must be a COptions", error=ConversionError)
    check_c_name(path)
    refuse_overwriting(path, header_of(path), overwrite=overwrite)
    header, source = c_texts(model, path.stem, options)
    write_together({header_of(path): header.encode("ascii"), path: source.encode("ascii")})
    return path


def c_texts(model: Model, stem: str, options: COptions) -> tuple[str, str]:
    """Return the header and the source of a model; see `write_c`. `stem` is their name without suffix."""
    network = model.build()
    exact = IntegerNetwork(network)  # refuses tensors that are not finite
    form = form_of_network(network)
    if problems := c_problems(form):
        raise UnsupportedError(problems[0])
    plan = plan_of(form)
    names = _numbers(plan) | {
        "examples": examples_of(exact, plan, options.images),
        "plan": plan,
        "file": stem,
        "digest": "",
        "p": options.prefix,
        "P": options.prefix.upper(),
        "classes": _class_names(model),
        "guard": re.sub(r"\W", "_", f"{options.prefix}_{stem}_h".upper()),
        "table": _table(plan),
        "costs": c_costs(form),
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
    code = without_comments(render_c("network.h.jinja", names))
    names["digest"] = f"0x{hashlib.sha256(code.encode()).hexdigest()[:DIGEST_DIGITS]}"
    return render_c("network.h.jinja", names), render_c("network.c.jinja", names)


def without_comments(code: str) -> str:
    """Return C code without its comments.

    >>> without_comments("int a; /* an integer */ int b;")
    'int a;  int b;'
    """
    return COMMENT.sub("", code)


def self_test_options(path: Path, options: COptions) -> list[str]:
    """Return the arguments with which a C compiler makes the self-test of a source, the program `selftest`."""
    return ["-O2", f"-D{options.prefix.upper()}_SELFTEST", str(path), "-o", "selftest"]


def c_problems(form: ChipForm, *, numbers: bool = True) -> list[str]:
    """Return what C source cannot express of a network; with `numbers`, also weights whose sums could leave 32 bits."""
    found, entering = list[str](), form.input
    if entering is not None and entering.encoding not in ENCODINGS:
        found.append(f"input.encoding: {entering.encoding}")
    if form.output not in OUTPUTS:
        found.append(f"output: {form.output}")
    found += form_problems(form, KINDS, FEATURES)
    kinds = {layer.neurons.kind for layer in form.layers if layer.neurons is not None}
    found += (f"neuron.kind: {kind}" for kind in sorted(kinds - NEURONS))
    if numbers and not found:
        found += number_problems(plan_of(form))
    return [f"C source cannot express {'; '.join(found)}"] if found else []


def _numbers(plan: Plan) -> dict[str, Any]:
    arrays, shapes = list[Array](), list[dict[str, Any]]()
    for stage in plan.stages:
        for synapses in stage.synapses:
            arrays.append(weights_of(synapses))
            if synapses.edge.window:
                shapes.append({"name": synapses.shape_name, "numbers": conv_numbers(synapses, stage.outputs)})
        if stage.is_late:
            arrays.append(delays_of(stage))
    layers = [layer_record(plan, each) for each in plan.neurons]
    arrays += [array for layer in layers for array in layer.arrays if array]
    bias = bias_of(plan.affine.layer, "readout") if plan.affine else None
    arrays += [] if bias is None else [bias]
    return {
        "arrays": arrays,
        "bias": bias,
        "shapes": shapes,
        "layers": layers,
        "input_values": plan.form.pixels,
        "border_values": plan.form.border,
        "pads": pads_of(plan.entering.padding),
        "most_steps": most_steps(plan),
    }


def _functions(plan: Plan) -> set[str]:
    """Return the kinds of work of a network: each has a function in the source."""
    every = [each for stage in plan.stages for each in stage.synapses]
    late = [stage.own for stage in plan.stages if stage.delays_each_weight]
    found = {"conv" for each in every if each.edge.window} | ({"dense_late"} if late else set())
    found |= {"identity_flat" if each.flattened else "identity" for each in every if each.edge.is_identity}
    found |= {
        "add" if plan.has_counts(each.source) else "dense" for each in every if each.is_dense and each not in late
    }
    found |= {"postpone" for stage in plan.stages if stage.is_late and not stage.delays_each_weight}
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
    stages = {stage.outputs.index: stage for stage in plan.stages}
    of_neurons = ("threshold", "sends") if plan.sends_messages else ("threshold", "decays", "reset")
    rows = [("layer", "shape", "weights", *of_neurons, "reads")]
    for i, layer in enumerate(plan.form.layers):
        stage = stages.get(i)
        n_weights = f"{sum(each.n_weights for each in stage.synapses):,}" if stage else ""
        reads = _reading_words(stage) if stage else _input_words(plan)
        if i and not stage:
            averages = layer.kind == "average"
            reads = f"spikes of {plan.group} neurons to a class" if averages else "the same in another order"
        neurons = _neuron_words(layer) or [""] * len(of_neurons)
        rows.append((f"{i} {layer.kind}", "x".join(map(str, layer.shape)), n_weights, *neurons, reads))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [part for line in lines for part in textwrap.wrap(line, WIDTH - 3, subsequent_indent=" " * 8)]


def _reading_words(stage: Stage) -> str:
    own = stage.own.words
    if stage.is_late:
        own += f", 0 to {stage.rows - 1} steps late by {'weight' if stage.delays_each_weight else 'channel'}"
    return " + ".join([own, *(each.words for each in stage.synapses[1:])])


def _input_words(plan: Plan) -> str:
    bits = counted(plan.entering.bits, "bit")
    if plan.sends_messages:
        return f"frames, integers of {bits} with sign"
    if plan.entering.is_events:
        return f"events, {plan.entering.largest} at most" if plan.counts_events else "events"
    return f"pixels as integers of {bits}" if plan.is_graded else "pixels as currents"


def _neuron_words(layer: ChipLayer) -> tuple[str, ...]:
    """Return threshold, decays of current and voltage, and reset of a layer's neurons, as cells of the table.

    A voltage that does not start at 0 stands beside the reset.

    Of sigma-delta neurons, threshold and what they send; nothing for a layer without neurons that spike.
    """
    neurons, late = layer.neurons, ", a step late" if layer.shift else ""
    if neurons is None or layer.kind == "affine":
        return ()
    if neurons.current_decay is None or neurons.voltage_decay is None:
        return f"{neurons.threshold_mant}", f"changes{late}"
    decays = "trained" if neurons.trained else f"{neurons.current_decay[0]} {neurons.voltage_decay[0]}"
    start = f", starts at {neurons.initial_voltage}" if neurons.initial_voltage else ""
    return f"{neurons.threshold_mant}", decays, f"{'subtract' if neurons.subtracts else 'zero'}{start}{late}"


def render_c(template: str, names: dict[str, Any]) -> str:
    """Fill a template of this folder."""
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
