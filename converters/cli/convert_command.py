"""The command `convert`: any readable format to any writable one, and an ANN in ONNX to a spiking network."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from converters.cli.console import (
    KnownModels,
    command,
    command_line,
    force_option,
    json_option,
    note_missing_library,
    print_table,
    refuse_existing,
    say,
    say_notes,
)
from converters.cli.options import (
    DataPlaces,
    Number,
    PathArgument,
    Seed,
    complete_data,
    complete_models,
    data_options,
    percent,
    use_threads,
)

if TYPE_CHECKING:
    from bootstrap_core.training.trainer import EpochReport
    from converters.ann_to_snn.ann import Ann
    from converters.ann_to_snn.onnx_conversion import OnnxConversion
    from converters.model import Model

__all__ = ["convert"]

EPOCHS = 2


@dataclass(frozen=True)
class _OnnxOptions:
    """Those that only ONNX files have a use for."""

    data: str | None
    raw: bool
    epochs: int
    entering: str
    max_pool: str
    seed: int
    threads: int | None
    report: Path | None


_ONNX_OPTIONS = {field.name for field in fields(_OnnxOptions)}


def _hint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what a file may not; it takes them as `hints`."""
    for option in reversed(
        (
            click.option("--spec", help="Spec of a lava-dl checkpoint: a YAML file, or a name."),
            click.option(
                "--time-steps",
                type=click.IntRange(1, 4096),
                help="T. [default: what the file says; 16 of ONNX, and of NIR that does not]",
            ),
            click.option("--threshold", type=Number(positive=True), help="Of the neurons of a checkpoint."),
            click.option(
                "--input-bits", type=click.IntRange(1, 16), help="Bits of a pixel, without input neurons. [NIR: 8]"
            ),
            click.option(
                "--mean", type=Number(several=True), help="Mean that was subtracted from images, in 0..1, in training."
            ),
            click.option(
                "--std", type=Number(positive=True, several=True), help="Deviation that they were divided by."
            ),
            click.option("--dt", type=Number(positive=True), help="Seconds of a step of a NIR graph."),
            click.option(
                "--time-constants",
                type=click.Choice(["euler", "exact"]),
                help="How a NIR graph's become decays. [default: euler]",
            ),
            click.option(
                "--reset",
                type=click.Choice(["zero", "subtract"]),
                help="What a spike does in a NIR graph. [default: zero]",
            ),
            click.option("--nodes-only", is_flag=True, default=None, help="Believe the nodes of a NIR graph of ours."),
        )
    ):
        command = option(command)
    return command


def _onnx_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of ONNX files; it takes them as `onnx`."""

    @wraps(command)
    def with_onnx(**given: Any) -> Any:
        return command(onnx=_OnnxOptions(**{name: given.pop(name) for name in _ONNX_OPTIONS}), **given)

    for option in reversed(
        (
            click.option(
                "--data",
                shell_complete=complete_data,
                help="ONNX: mnist, fashion-mnist, mnist-sample (embedded), an .npz with x (and y), or a folder of "
                "class folders.",
            ),
            click.option("--raw", is_flag=True, help="ONNX: the ANN takes pixels of 0..255."),
            click.option(
                "--epochs", type=click.IntRange(0), default=EPOCHS, show_default=True, help="ONNX: of tuning."
            ),
            click.option(
                "--input",
                "entering",
                type=click.Choice(["auto", "spike", "graded"]),
                default="auto",
                help="ONNX: how images enter. [default: auto, by measure]",
            ),
            click.option(
                "--max-pool",
                type=click.Choice(["auto", "any", "average", "error"]),
                default="auto",
                help="ONNX: what maxima become; error: refuse them. [default: auto, by measure]",
            ),
            click.option("--seed", type=Seed, default=0, show_default=True, help="ONNX: of everything random."),
            click.option("--threads", type=click.IntRange(1), help="ONNX: CPU threads."),
            click.option("--report", type=PathArgument, help="ONNX: write all figures as one HTML page, FILE.html."),
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
    help="Where to write; the suffix names the format: .safetensors, .net, .hdf5, .nir. May be repeated; without it, "
    "nothing is kept.",
)
@click.option("--fold", is_flag=True, help="Multiply weight norm out: the same spikes, for files to be run.")
@_hint_options
@_onnx_options
@data_options
@force_option
@json_option
def convert(
    source: Path,
    outputs: tuple[Path, ...],
    fold: bool,
    onnx: _OnnxOptions,
    places: DataPlaces,
    force: bool,
    as_json: bool,
    **hints: Any,
) -> None:
    """Write a model in other formats; make an SNN of an ANN.

    SOURCE is an ANN in ONNX, a model of snnzoo (.safetensors), a netx file (.net, .hdf5), a NIR graph (.nir), or a
    lava-dl checkpoint (.pt, or as `zoo migrate` wrote it); its content tells which. `zoo convert` also takes
    the name of a model.

    ONNX: the ANN is imported and checked against the ONNX reference, calibrated on images of --data, tuned by
    bootstrap, and scored. --input and --max-pool (neurons that fire when any of a window does, or averages) are chosen
    by measure. --mean and --std are those of its images in 0..1, one for each channel as 0.49,0.48,0.45 where they
    differ; or --raw. --report draws all figures as a page.

    lava-dl: the .net that it exported, beside a checkpoint, saves its --spec.

    NIR keeps neither the time step nor the reset: snnTorch's graphs want --dt 1e-4, norse's --dt 1e-6, sinabs' --dt 1
    --time-constants exact; and --reset subtract, where their neurons do, as snnTorch's and sinabs' do unless told.

    Example: zoo convert network.pt -o network.safetensors -o network.nir
    """
    from converters.formats.file_kind import FileKind, kind_of_file
    from converters.formats.model_files import check_writable_format, file_entry, format_notes, write_model

    for output in outputs:
        check_writable_format(output)
        refuse_existing(output, force)
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise click.UsageError("one file is named by several -o")
    if onnx.report is not None:
        if onnx.report.suffix != ".html":
            raise click.UsageError(f"--report {onnx.report}: it is a page, so the name must end in .html")
        refuse_existing(onnx.report, force)
    given = str(source)
    known = click.get_current_context().obj  # `zoo convert` knows models by name
    if isinstance(known, KnownModels) and not source.exists():
        source = known.find(given) or source
    if kind_of_file(source) is FileKind.ONNX:
        use_threads(onnx.threads)
        note_missing_library()
        conversion = _convert_onnx(source, outputs, onnx, places, hints)
        model, figures = conversion.model, conversion.report
    else:
        _refuse_onnx_options(source)
        model = _read(source, hints)
        conversion, figures = None, {"notes": model.notes}
    if fold:
        model = model.folded()
    more = {note: None for output in outputs for note in format_notes(model.spec, output.suffix)}
    model = replace(model, notes=(*model.notes, *more))
    figures["notes"] = [*figures["notes"], *more]
    say_notes(model, said=None if conversion is None else conversion.doubt)
    written = [file_entry(write_model(model, output)) for output in outputs]
    if onnx.report is not None and conversion is not None:
        _write_report(onnx.report, conversion, source.name, written, figures["layers"])
        written.append(file_entry(onnx.report))
    if as_json:
        click.echo(json.dumps({"source": given, **figures, "outputs": written}))
        return
    if conversion is not None:
        _print_conversion(conversion)
    elif not written:
        say(f"note: {given} was read, and nothing written: name a file with -o, as in -o model.safetensors")
    for entry in written:
        click.echo(entry["path"])


def _write_report(
    path: Path,
    conversion: "OnnxConversion",
    source: str,
    outputs: list[dict[str, str]],
    layers: list[dict[str, Any]],
) -> None:
    """The page; what it measures of each layer joins `layers`."""
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
        raise click.UsageError(f"{source} is no ONNX file: it has no use for {', '.join(useless)}")


def _read(source: Path, hints: dict[str, Any]) -> "Model":
    from converters.formats.model_files import Hints, read_model
    from converters.formats.nir.nir_neurons import TimeConstants
    from specs.io import load_spec
    from specs.neuron import Reset

    for name in ("mean", "std"):
        if isinstance(hints[name], tuple):
            raise click.UsageError(f"--{name}: one for each channel is for ONNX files; {source} takes one")
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
    from converters.formats.model_files import CHAINS, check_writable, option_name
    from specs.block import Encoding
    from specs.errors import UnsupportedError

    mean, std, time_steps = (hints.pop(name) for name in ("mean", "std", "time_steps"))
    useless = [option_name(name) for name, value in hints.items() if value is not None]
    if useless:
        raise click.UsageError(f"an ONNX file has no use for {', '.join(useless)}")
    if onnx.raw and (mean is not None or std is not None):
        raise click.UsageError("--raw is --mean 0 --std 0.00392 (1/255): give one or the other")

    forms = EVERY_FORM
    if onnx.entering != "auto":
        forms = replace(forms, encodings=(Encoding(onnx.entering),))
    if onnx.max_pool != "auto":
        forms = replace(forms, max_pooling=(MaxPooling(onnx.max_pool),))

    def check_branches(ann: "Ann") -> None:
        chains = [str(output) for output in outputs if output.suffix in CHAINS]
        if chains and has_skips(ann, forms.max_pooling):
            raise UnsupportedError(
                f"{source} adds up branches, and cannot become {' or '.join(chains)}: netx holds chains of layers. "
                "Write .safetensors or .nir, which hold skips"
            )

    def check_outputs(model: "Model") -> None:
        for suffix in {output.suffix for output in outputs}:
            check_writable(model, suffix)

    return import_onnx(
        source,
        dataset=partial(places.load, onnx.data) if onnx.data else None,
        mean=mean or 0.0,
        std=1 / 255 if onnx.raw else (std or 1.0),
        time_steps=time_steps or 16,
        epochs=onnx.epochs,
        forms=forms,
        seed=onnx.seed,
        callbacks=ImportCallbacks(
            on_imported=check_branches,
            on_doubt=lambda note: say(f"note: {note}"),
            on_calibrated=check_outputs,
            on_epoch=_say_epoch,
        ),
    )


def _say_epoch(report: "EpochReport") -> None:
    say(
        f"tuning, epoch {report.epoch + 1}, learning rate {report.learning_rate:.2g}: "
        f"SNN {percent(report.validation_snn_accuracy)} of the held-out images, {report.seconds:.0f} s"
    )


def _print_conversion(conversion: "OnnxConversion") -> None:
    from converters.ann_to_snn.best_candidate import has_maxima

    print_table(
        ["node", "op", "became", "reason"],
        [[node["name"], node["op"], node["became"], node["reason"]] for node in conversion.nodes],
        words=True,
    )
    click.echo(f"\nimport: off the ONNX reference by {conversion.imported.max_abs_error:.2g} at most")
    agreement = percent(conversion.candidate.agreement)
    candidate = conversion.candidate
    judged = "images that it was not calibrated on" if candidate.held_out else "all images, as there are few"
    noise = f" of {judged}, untuned" if conversion.dataset else " of images of noise"
    pooling = f"; maxima: {candidate.max_pooling}" if has_maxima(conversion.imported.ann) else ""
    click.echo(f"images: {conversion.normalization}")
    click.echo(f"input: {candidate.input_form}{pooling}; agrees with the ANN in {agreement}{noise}")
    if conversion.ann is not None:
        rows = [["ANN", "", percent(conversion.ann)]]
        for stage, accuracies in (("converted", conversion.converted), ("tuned", conversion.tuned)):
            rows += [[stage, f"T={t}", "overflows" if a is None else percent(a)] for t, a in accuracies.items()]
        click.echo()
        print_table(["", "", "accuracy"], rows)
    click.echo(f"{conversion.seconds:.0f} s")
