"""The command `convert`: write a model in another format, and turn an ANN in ONNX into a spiking network."""

import shlex
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from converters.cli.console import (
    KnownModels,
    command,
    command_line,
    echo,
    force_option,
    json_option,
    json_text,
    note_missing_library,
    print_table,
    refuse_existing,
    say,
    say_notes,
)
from converters.cli.options import (
    THREADS_HELP,
    DataPlaces,
    Number,
    PathArgument,
    Seed,
    complete_data,
    complete_models,
    data_options,
    limit_option,
    use_threads,
)
from specs.errors import SnnZooError
from specs.files.limits import TIME_STEPS
from specs.words import counted, percent

if TYPE_CHECKING:
    from bootstrap_core.data.splits import Dataset
    from bootstrap_core.training.history import EpochReport
    from converters.ann_to_snn.onnx_conversion import OnnxConversion
    from converters.linear.ann import Ann
    from converters.model import Model
    from specs.fields import Shape


@dataclass(frozen=True)
class _OnnxOptions:
    """Options that only apply to ONNX files."""

    data: str | None
    validation: str | None
    limit: int | None
    raw: bool
    epochs: int | None
    entering: str
    max_pool: str
    seed: int
    threads: int | None
    report: Path | None


_ONNX_OPTIONS = {field.name for field in fields(_OnnxOptions)}


def _hint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for facts that a file may lack; the command takes them as `hints`."""
    for option in reversed(
        (
            click.option("--spec", help="Spec of a lava-dl checkpoint: a YAML file, or the name of a network."),
            click.option(
                "--time-steps",
                type=click.IntRange(1, TIME_STEPS),
                help="Number of time steps T. [default: as in the file, else 16]",
            ),
            click.option(
                "--threshold", type=Number(positive=True), help="Threshold of all neurons in a lava-dl checkpoint."
            ),
            click.option(
                "--input-bits",
                type=click.IntRange(1, 16),
                help="Bits of a pixel of still images, for networks without input neurons. [default: they take events]",
            ),
            click.option(
                "--mean",
                type=Number(several=True),
                help="Mean that the training subtracted from images in 0..1; for ONNX also one for each channel, as in "
                "0.49,0.48,0.45. [default: as in the file, else 0]",
            ),
            click.option(
                "--std",
                type=Number(positive=True, several=True),
                help="Standard deviation that the training divided images by, like --mean. [default: as in the file, "
                "else 1]",
            ),
            click.option("--dt", type=Number(positive=True), help="Length of a time step of a NIR graph, in seconds."),
            click.option(
                "--time-constants",
                type=click.Choice(["euler", "exact"]),
                help="Decays for the time constants tau of a NIR graph. euler: dt / tau, exact: 1 - exp(-dt / tau). "
                "[default: euler]",
            ),
            click.option(
                "--reset",
                type=click.Choice(["auto", "zero", "subtract"]),
                help="ONNX, NIR: reset after a spike. zero: the voltage becomes 0, subtract: it falls by the "
                "threshold, which netx cannot express. auto, for ONNX: zero if a netx file is written, else "
                "the one that scores better. [default: auto for ONNX, zero for NIR]",
            ),
            click.option(
                "--nodes-only",
                is_flag=True,
                default=None,
                help="Read a NIR file of snnzoo from its nodes, for instance after you changed them.",
            ),
        )
    ):
        command = option(command)
    return command


def _onnx_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for ONNX files; the command takes them as `onnx`."""

    @wraps(command)
    def with_onnx(**given: Any) -> Any:
        return command(onnx=_OnnxOptions(**{name: given.pop(name) for name in _ONNX_OPTIONS}), **given)

    for option in reversed(
        (
            click.option(
                "--data",
                shell_complete=complete_data,
                help="ONNX: images to calibrate, tune and score with: a name of zoo data list, such as mnist-sample "
                "(embedded), an .npz with x and, if there are labels, y, or a folder or .tar with a folder of images "
                "for each class.",
            ),
            click.option(
                "--validation",
                shell_complete=complete_data,
                help="ONNX: images that the ANN has not seen, given like --data; they alone decide between forms, and "
                "whether tuning is kept. Test images are used, or all if there are none apart. [default: a fifth of "
                "the training images of --data, at most 2,000]",
            ),
            partial(limit_option, prefix="ONNX: "),
            click.option("--raw", is_flag=True, help="ONNX: the ANN takes pixels in 0..255."),
            click.option(
                "--epochs",
                type=click.IntRange(0),
                help="ONNX: epochs of tuning after the calibration; 0 for none. [default: 2, and up to 8 for networks "
                "that lost much with few time steps]",
            ),
            click.option(
                "--input",
                "entering",
                type=click.Choice(["auto", "spike", "graded"]),
                default="auto",
                help="ONNX: form of the input. spike: spikes of a neuron for each pixel, graded: pixels as small "
                "integers, auto: the one that scores better. [default: auto]",
            ),
            click.option(
                "--max-pool",
                type=click.Choice(["auto", "any", "average", "error"]),
                default="auto",
                help="ONNX: replacement of max pools. any: neurons that spike when any neuron in the window does, "
                "average: average pools, auto: the one that scores better, error: none, so refuse them. "
                "[default: auto]",
            ),
            click.option("--seed", type=Seed, default=0, show_default=True, help="ONNX: seed of all random numbers."),
            click.option("--threads", type=click.IntRange(1), help=f"ONNX: {THREADS_HELP}"),
            click.option("--report", type=PathArgument, help="ONNX: also write a page with all figures, FILE.html."),
        )
    ):
        with_onnx = option(with_onnx)
    return with_onnx


@command()
@click.argument("source", type=click.Path(path_type=Path), shell_complete=complete_models)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File to write; the suffix names the format: .safetensors, .net, .hdf5, .nir, .c. May be repeated. Without "
    "it no model is written.",
)
@click.option(
    "--fold",
    is_flag=True,
    help="Multiply weight norm into the weights. Spikes stay the same; the file is for running, not for training.",
)
@click.option("--c-prefix", default="snn", show_default=True, help="C: beginning of all names of the source.")
@_hint_options
@_onnx_options
@data_options
@force_option
@json_option
def convert(
    source: Path,
    outputs: tuple[Path, ...],
    fold: bool,
    c_prefix: str,
    onnx: _OnnxOptions,
    places: DataPlaces,
    force: bool,
    as_json: bool,
    **hints: Any,
) -> None:
    """Write a model in another format, or turn an ANN into an SNN.

    SOURCE is an ANN in ONNX (.onnx), a model of snnzoo (.safetensors), a netx file (.net, .hdf5), a NIR graph (.nir),
    or a lava-dl checkpoint (.pt, or .safetensors from zoo migrate). Its content decides, not its suffix. zoo convert
    also takes the name of a model.

    ONNX: the ANN is checked against the ONNX reference, calibrated and tuned on the images of --data, and scored.
    Without labels the tuning imitates the ANN. Without --data it is calibrated on noise, and neither tuned nor scored.
    Say how the ANN's images were normalised, with --mean and --std, or --raw.

    lava-dl: a checkpoint needs --spec, or beside it the .net that lava-dl exported from it, under the same name. A
    dense network needs only --threshold and --time-steps.

    NIR: a graph contains neither the time step nor the reset. snnTorch's graphs need --dt 1e-4, norse's --dt 1e-6,
    sinabs' --dt 1 --time-constants exact. Add --reset subtract if the neurons subtract the threshold after a spike,
    which is the default of snnTorch and sinabs.

    Example: zoo convert network.pt -o network.safetensors -o network.nir
    """
    from converters.formats.c.c_writer import COptions, self_test_options
    from converters.formats.file_kind import FileKind, kind_of_file
    from converters.formats.model_files import (
        C_SOURCE,
        check_writable_format,
        file_entry,
        files_of,
        format_notes,
        write_model,
    )
    from converters.formats.netx.lava_limits import LavaWarning
    from specs.files.given_file import real_path
    from specs.files.named_data import is_named_data, note_named_data

    for output in outputs:
        check_writable_format(output)
        for file in files_of(output):
            refuse_existing(file, force)
    to_c = any(output.suffix == C_SOURCE for output in outputs)
    if click.get_current_context().get_parameter_source("c_prefix") is ParameterSource.COMMANDLINE and not to_c:
        raise click.UsageError("--c-prefix: no -o FILE.c is given; add one, or leave it out")
    c_options = COptions(c_prefix)
    if len(set(map(real_path, outputs))) < len(outputs):
        raise click.UsageError("several -o name the same file")
    if onnx.report is not None:
        if onnx.report.suffix != ".html":
            raise click.UsageError(f"--report: must be FILE.html, got {onnx.report}")
        refuse_existing(onnx.report, force)
    given = str(source)
    source = _find(source)
    kind = kind_of_file(source)
    if not outputs and onnx.report is None and not as_json:
        say("note: nothing will be written: name a file with -o, as in -o model.safetensors")
    if kind is FileKind.ONNX:
        use_threads(onnx.threads)
        note_missing_library()
        conversion = _convert_onnx(source, outputs, onnx, places, hints)
        model, figures = conversion.model, conversion.report
        if places.classes:
            told = {**model.card_entry("conversion"), "classes": list(places.classes)}
            model = replace(model, card={**model.card, "conversion": told})
    else:
        model = _read(source, hints)  # first, as it says what the file is
        _refuse_onnx_options(source)
        conversion, figures = None, {"notes": model.notes}
        places.check_classes(model.spec.n_classes)
    if places.classes:
        model = replace(model, card={**model.card, "classes": list(places.classes)})
    if fold:
        model = model.folded()
    more = {note: None for output in outputs for note in format_notes(model, output.suffix)}
    model = replace(model, notes=(*model.notes, *more))
    figures["notes"] = [*figures["notes"], *more]
    say_notes(model, said=None if conversion is None else conversion.doubt)
    known = click.get_current_context().obj
    if isinstance(known, KnownModels) and to_c:
        c_options = replace(c_options, images=known.golden_images(given))
    if len(outputs) > 1:  # so that none is written if another cannot be
        _refuse_unwritable(model, {output: f"{output}: " for output in outputs})
    data = model.data or ""
    is_named = onnx.data is not None or is_named_data(source, data)
    with warnings.catch_warnings(action="ignore", category=LavaWarning):  # it is among the notes
        for output in sorted(outputs, key=lambda output: output.suffix != C_SOURCE):  # its self-test may find overflows
            write_model(model, output, overwrite=force, c=c_options)
    for output in outputs if is_named else ():
        note_named_data(output, data)
    written = [file_entry(file) for output in outputs for file in files_of(output)]
    if onnx.report is not None and conversion is not None:
        _write_report(onnx.report, conversion, source.name, written, figures["layers"])
        written.append(file_entry(onnx.report))
    if as_json:
        echo(json_text({"source": given, **figures, "outputs": written}))
        return
    if conversion is not None:
        _print_conversion(conversion, "written" if outputs else "kept")
    for entry in written:
        echo(entry["path"])
    for output in outputs:
        if output.suffix == C_SOURCE:
            say(f"note: its test: {shlex.join(['cc', *self_test_options(output, c_options)])} && ./selftest")


def _refuse_unwritable(model: "Model", outputs: dict[Path, str]) -> None:
    """Raise `UnsupportedError` with what the files cannot hold of a model; the value of each precedes its problems."""
    from converters.chip.from_network import form_of_network
    from converters.formats.model_files import PROBLEMS, problems_in
    from specs.errors import UnsupportedError

    if not any(output.suffix in PROBLEMS for output in outputs):
        return
    form = form_of_network(model.build())
    if problems := [place + one for output, place in outputs.items() for one in problems_in(form, output.suffix)]:
        raise UnsupportedError("\n".join(problems))


def _find(source: Path) -> Path:
    """Return the file of the model that has this name; any other path as it is.

    Raises `SnnZooError` for a missing file that may mean a model.
    """
    from specs.fields import is_name

    if source.exists():
        return source
    name, known = source.stem, click.get_current_context().obj  # `zoo convert` finds models by name, `convert` does not
    if isinstance(known, KnownModels):
        if found := known.find(str(source)):
            return found
        is_meant = source.name == str(source) and name in known.names()
    else:
        is_meant = is_name(str(source)) and not source.suffix
    if is_meant:
        raise SnnZooError(
            f"no such file: {source}; if you mean the model {name}: zoo convert {name}; zoo pull {name} copies it here"
        )
    return source


def _write_report(
    path: Path,
    conversion: "OnnxConversion",
    source: str,
    outputs: list[dict[str, str]],
    layers: list[dict[str, Any]],
) -> None:
    """Write the page of a conversion, and add its measurements of each layer to `layers`."""
    from converters.report.comparison import measure_conversion
    from converters.report.conversion_page import conversion_page
    from specs.files.whole_file import write_whole

    measured = measure_conversion(conversion)
    if measured is not None:
        for layer, more in zip(layers, measured.layers_as_json(), strict=True):
            layer.update(more)
    page = conversion_page(conversion, measured, source=source, command=command_line(), outputs=outputs)
    write_whole(path, page.encode())


def _refuse_onnx_options(source: Path) -> None:
    context = click.get_current_context()
    names = {*_ONNX_OPTIONS, "data_dir", "cache_dir"}
    given = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    useless = [option.opts[0] for option in context.command.params if option.name in given]
    if useless:
        raise click.UsageError(f"{source} is not an ONNX file: leave out {', '.join(useless)}")


def _read(source: Path, hints: dict[str, Any]) -> "Model":
    from converters.formats.model_files import Hints, read_model
    from converters.formats.nir.nir_neurons import TimeConstants
    from specs.io import load_spec
    from specs.layers.neuron import Reset

    for name in ("mean", "std"):
        if isinstance(hints[name], tuple):
            raise click.UsageError(f"--{name}: must be one number; only ONNX files take one for each channel")
    if hints["reset"] == "auto":
        raise click.UsageError("--reset auto: only for ONNX files; a NIR graph needs zero or subtract")
    for name, kind in (("time_constants", TimeConstants), ("reset", Reset), ("spec", load_spec)):
        if hints[name] is not None:
            hints[name] = kind(hints[name])
    return read_model(source, Hints(**hints))


def _convert_onnx(
    source: Path,
    outputs: tuple[Path, ...],
    onnx: _OnnxOptions,
    places: DataPlaces,
    hints: dict[str, Any],
) -> "OnnxConversion":
    from converters.ann_to_snn.best_candidate import EVERY_FORM, has_skips
    from converters.ann_to_snn.onnx_conversion import ImportCallbacks, import_onnx
    from converters.ann_to_snn.spiking_layers import MaxPooling
    from converters.formats.model_files import CHAINS, option_name
    from specs.dataset_sources import found_data
    from specs.errors import UnsupportedError
    from specs.layers.input import Encoding
    from specs.layers.neuron import Reset

    mean, std, time_steps, reset = (hints.pop(name) for name in ("mean", "std", "time_steps", "reset"))
    useless = [option_name(name) for name, value in hints.items() if value is not None]
    if useless:
        raise click.UsageError(f"{source} is an ONNX file: leave out {', '.join(useless)}")
    if onnx.raw and (mean is not None or std is not None):
        raise click.UsageError("--raw means --mean 0 --std 0.00392 (1/255): give either --raw, or --mean and --std")
    if onnx.limit is not None and onnx.data is None:
        raise click.UsageError("--limit: without --data nothing is scored; give --data, or leave out --limit")
    if onnx.epochs and onnx.data is None:
        raise click.UsageError("--epochs: without --data nothing is tuned; give --data, or leave out --epochs")
    if onnx.validation and onnx.data is None:
        raise click.UsageError("--validation: without --data nothing is tuned; give --data, or leave out --validation")

    forms = EVERY_FORM
    if onnx.entering != "auto":
        forms = replace(forms, encodings=(Encoding(onnx.entering),))
    if onnx.max_pool != "auto":
        forms = replace(forms, max_pooling=(MaxPooling(onnx.max_pool),))
    chains = [str(output) for output in outputs if output.suffix in CHAINS]
    if reset in {None, "auto"}:
        forms = replace(forms, resets=(Reset.ZERO,)) if chains else forms
    else:
        forms = replace(forms, resets=(Reset(reset),))
    if chains and forms.resets != (Reset.ZERO,):
        left_out = " and ".join(chains)
        raise click.UsageError(f"--reset {reset}: netx cannot express it; use zero, or leave out {left_out}")

    def check_ann(ann: "Ann") -> None:
        places.check_classes(prod(ann.nodes[-1].shape))
        if chains and has_skips(ann, forms.max_pooling):
            raise UnsupportedError(
                f"{source} has branches that are added, and netx cannot express them: write .safetensors, .nir or "
                f".c instead of {' and '.join(chains)}"
            )

    return import_onnx(
        source,
        dataset=partial(_load, places, found_data(onnx.data), onnx.limit) if onnx.data else None,
        validation=partial(_load, places, found_data(onnx.validation), None) if onnx.validation else None,
        mean=mean or 0.0,
        std=1 / 255 if onnx.raw else (std or 1.0),
        time_steps=time_steps or 16,
        epochs=onnx.epochs,
        forms=forms,
        seed=onnx.seed,
        callbacks=ImportCallbacks(
            on_step=say,
            on_imported=check_ann,
            on_doubt=lambda note: say(f"note: {note}"),
            on_calibrated=lambda model: _refuse_unwritable(model, dict.fromkeys(outputs, "")),
            on_epoch=_say_epoch,
        ),
    )


def _load(places: DataPlaces, name: str, limit: int | None, shape: "Shape") -> "Dataset":
    return places.load(name, shape, labelled=False).limited(limit)


def _say_epoch(report: "EpochReport") -> None:
    say(
        f"tuning, epoch {report.epoch + 1}, learning rate {report.learning_rate:.2g}: "
        f"SNN {percent(report.training_score)} on the training images, {report.seconds:.0f} s"
    )


def _print_conversion(conversion: "OnnxConversion", mark: str) -> None:
    from converters.ann_to_snn.best_candidate import has_maxima

    print_table(
        ["node", "op", "became", "reason"],
        [[node["name"], node["op"], node["became"], node["reason"]] for node in conversion.nodes],
        words=True,
    )
    echo(f"\nimport: differs from the ONNX reference by at most {conversion.imported.max_abs_error:.2g}")
    candidate = conversion.candidate
    pooling = f"; max pools: {candidate.max_pooling}" if has_maxima(conversion.imported.ann) else ""
    echo(f"images: {conversion.normalization}")
    echo(f"input: {candidate.input_form}{pooling}; reset: {candidate.reset}; judged by {conversion.judged_by}")
    if conversion.ann is not None:
        rows = [["ANN", "", percent(conversion.ann), ""]]
        steps = conversion.spec.time_steps
        for stage, accuracies in (("converted", conversion.converted), ("tuned", conversion.tuned)):
            rows += [
                [
                    stage,
                    f"T={t}" if t == steps else f"its first {t}",
                    "overflows" if a is None else percent(a),
                    mark if (stage, t) == (conversion.written, steps) else "",
                ]
                for t, a in accuracies.items()
            ]
        echo()
        n_images = 0 if conversion.score is None else conversion.score.n_images
        print_table(["", "", f"accuracy on {counted(n_images, 'test image')}", ""], rows)
    echo(f"took {conversion.seconds:.0f} s")
