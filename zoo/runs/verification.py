"""Check a model: readable, equal in both engines, and equal to its card and to the files beside it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bootstrap_core.fixed_point import MANT
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.network import Network, Trace
from converters.chip.form import ChipForm
from converters.formats.c.c_comparison import compare_c, run_self_test
from converters.formats.file_kind import FileKind, kind_of_file
from converters.formats.model_files import C_SOURCE, MODEL_SUFFIXES, Hints, read_model
from converters.formats.netx.lava_limits import how_lava_runs, limit_problems
from converters.formats.netx.netx_model import netx_of
from converters.formats.netx.netx_report import differences
from converters.model import Model
from specs.errors import IntegrityError, SnnZooError, StateOverflowError, UnsupportedError
from specs.files.given_file import suggest_file
from specs.network import NetworkSpec
from zoo.card import Card, FileFacts, is_card, load_card, revision_of
from zoo.runs.card_files import card_of
from zoo.runs.golden import golden_differences
from zoo.sources import is_netx, layers_of, model_path, read_source

N_IMAGES = 8


@dataclass(frozen=True)
class Check:
    """Result of one check; `found` says what was found, or why the check was skipped."""

    name: str
    passed: bool
    found: str
    skipped: bool = False


def verify_model(source: str, against: Path | None = None) -> list[Check]:
    """Check the model `source`, also against its card if it has one.

    Args:
        source: a model file, or the name of a model.
        against: a file that must have the same integers, or a card to check against; by default the model's card (see
            `card_of`), and every model file or C source of the same name beside `source`. C source that is as snnzoo
            writes it is also compiled, if there is a compiler, and its self-test run.

    Raises `SnnZooError` if `source` cannot be read, or the file `against` does not exist.
    """
    model = read_source(source)[0]
    network, card = model.build(), card_of(source)
    if against is not None and not against.exists():
        raise SnnZooError(f"no such file: {against}{suggest_file(against)}")
    if against is not None and is_card(against):
        card, against = load_card(against), None
    checks = [
        Check(
            "spec and tensors",
            True,
            f"{network.spec.name}, {len(network.blocks)} blocks, T = {network.spec.time_steps}",
        ),
        _check_engines(network),
        *([_check_in_lava(source, network.spec)] if is_netx(source) else []),
        *([] if card is None else _check_card(card, model_path(source), network)),
    ]
    path = Path(source)
    beside = (
        sorted(other for other in path.parent.iterdir() if other.stem == path.stem)
        if path.suffix in MODEL_SUFFIXES
        else []
    )
    with_integers = MODEL_SUFFIXES - {str(FileKind.ONNX)} | {C_SOURCE}  # an ANN has no integers
    others = [against] if against else [other for other in beside if other.suffix in with_integers and other != path]
    asked = against is not None
    for other in others:
        name = f"the integers of {other.name}"
        try:
            is_c = other.suffix == C_SOURCE
            checks += _check_c(model, other) if is_c else _check_same(source, other, network.spec)
        except IntegrityError as error:
            checks.append(Check(name, False, _first_line(error)))
        except SnnZooError as error:  # a file that was not asked for is skipped
            checks.append(Check(name, not asked, f"not compared: {_first_line(error)}", skipped=not asked))
    return checks


def _check_engines(network: Network) -> Check:
    name, inputs = "float and integer engine", _random_inputs(network.spec)
    with torch.no_grad():
        _, expected = network.run(inputs)
    try:
        _, found = IntegerNetwork(network).run(inputs)
    except StateOverflowError as error:
        return Check(name, False, str(error))
    return _compare_spikes(name, network.spec, expected, found)


def _check_in_lava(source: str, spec: NetworkSpec) -> Check:
    """Check a netx file against the limits of Lava; `found` also says how to run it there."""
    problems = limit_problems(layers_of(source))
    runs = "; ".join(how_lava_runs(spec)) or f"the same integers; run it with reset_interval={spec.time_steps}"
    return Check("limits of Lava", not problems, "; ".join(problems) or runs)


def _random_inputs(spec: NetworkSpec) -> Tensor:
    entering, generator = spec.input, torch.Generator().manual_seed(0)
    if entering.is_timed:
        size = (spec.time_steps, N_IMAGES, *entering.shape)
        low, high = entering.least, entering.largest
        if not entering.is_events:  # frames from -1 to 1, as larger ones may leave 24 bits
            low, high = max(low, -MANT), min(high, MANT)
        return torch.randint(low, high + 1, size, generator=generator)
    return torch.rand(N_IMAGES, *entering.shape, generator=generator)


def _compare_spikes(name: str, spec: NetworkSpec, expected: Trace, found: Trace) -> Check:
    n_outputs = n_differing = 0
    for a, b in zip(expected.spikes, found.spikes, strict=True):
        assert a is not None
        assert b is not None
        n_outputs, n_differing = n_outputs + a.numel(), n_differing + int((a != b).sum())
    outcome = f"{n_differing} of {n_outputs:,} outputs differ, on {N_IMAGES} random {spec.input.sample}s"
    return Check(name, n_differing == 0, outcome)


def _check_card(card: Card, path: Path, network: Network) -> list[Check]:
    """Check the bytes of a file, if the card has their digest, and its output on the golden images."""
    checks = []
    wanted = [file for kind, file in card.files.items() if kind.suffix == path.suffix]
    if wanted:
        facts = FileFacts.of_file(path)
        found = f"revision {card.revision}"
        if facts not in wanted:
            found = f"{_bytes(facts)}; card: {_bytes(wanted[0])}"
        checks.append(Check("bytes, by the card", facts in wanted, found))
    try:
        differing = golden_differences(IntegerNetwork(network), card.golden)
    except SnnZooError as error:
        differing = [_first_line(error)]
    drawn = "" if card.golden.seed is None else "random "
    found = "; ".join(differing) or f"the same on {len(card.golden.labels)} {drawn}{card.input.sample}s"
    return [*checks, Check("golden output, integer engine", not differing, found)]


def _bytes(facts: FileFacts) -> str:
    return f"{revision_of(facts.sha256)}, {facts.bytes:,} bytes"


def _check_same(source: str, other: Path, spec: NetworkSpec) -> list[Check]:
    """Compare the integers of two models; their spikes if netx, whose layers are compared, cannot express one."""
    try:
        ours, theirs = layers_of(source), _layers_beside(other, spec)
    except UnsupportedError:
        return [_check_same_spikes(source, other, spec)]
    found = [f"{d.place} {d.what}: {d.text}".strip() for d in differences(ours, theirs)]
    return [Check(f"the integers of {other.name}", not found, "; ".join(found) or "the same")]


def _check_c(model: Model, source: Path) -> list[Check]:
    """Compare the integers and the code of C source with those of the model; run its self-test if they are the same."""
    compared = compare_c(model, source)
    found = "; ".join(compared.differences)
    what = found or "the same, and the code is as snnzoo writes it"
    checks = [Check(f"the integers of {source.name}", not found, what)]
    if not found:
        name = f"the self-test of {source.name}"
        try:
            checks.append(Check(name, *run_self_test(compared, source.stem)))
        except UnsupportedError as error:
            checks.append(Check(name, True, f"not run: {_first_line(error)}", skipped=True))
    return checks


def _check_same_spikes(source: str, other: Path, spec: NetworkSpec) -> Check:
    name = f"the spikes of {other.name}"
    ours, theirs = read_source(source)[0].build(), _network_beside(other, spec)
    if ours.spec.shapes != theirs.spec.shapes:
        return Check(name, False, "the layers have other shapes")
    inputs, steps = _random_inputs(ours.spec), ours.spec.time_steps
    traces = [IntegerNetwork(network).run(inputs, time_steps=steps)[1] for network in (ours, theirs)]
    return _compare_spikes(name, spec, *traces)


def _layers_beside(other: Path, spec: NetworkSpec) -> ChipForm:
    return netx_of(_network_beside(other, spec)) if kind_of_file(other) is FileKind.TORCH else layers_of(str(other))


def _network_beside(other: Path, spec: NetworkSpec) -> Network:
    """Read and build the network of a file; a checkpoint, which has no spec, gets the spec of the checked model."""
    model = read_model(other, Hints(spec=spec)) if kind_of_file(other) is FileKind.TORCH else read_source(str(other))[0]
    return model.build()


def _first_line(error: SnnZooError) -> str:
    return str(error).partition("\n")[0]
