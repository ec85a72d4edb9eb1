"""Read or import a model, write it in other formats, and print what became of it: the work of `convert`."""

import shlex
import warnings
from dataclasses import fields, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.training.history import EpochReport
from converters.ann_to_snn.best_candidate import EVERY_FORM, has_maxima, has_skips
from converters.ann_to_snn.messages import MessageConversion, import_messages
from converters.ann_to_snn.onnx_conversion import ImportCallbacks, OnnxConversion, import_onnx
from converters.ann_to_snn.spiking_layers import MaxPooling
from converters.chip.from_network import form_of_network
from converters.cli import console
from converters.cli.console import echo, print_table, refuse_existing, say
from converters.cli.options import use_threads
from converters.cli.usage import Rule, UsageError, check_rules, leave_out
from converters.formats.c.c_writer import COptions, self_test_options
from converters.formats.c.sketch_name import SKETCH
from converters.formats.file_kind import FileKind, kind_of_file
from converters.formats.model_files import (
    C_SOURCE,
    C_SOURCES,
    CHAINS,
    PROBLEMS,
    Hints,
    check_writable_format,
    file_entry,
    files_of,
    format_notes,
    problems_in,
    read_model,
    write_model,
)
from converters.formats.netx.lava_limits import LavaWarning
from converters.formats.nir.nir_neurons import TimeConstants
from converters.linear.ann import Ann
from converters.model import Model
from converters.report.comparison import measure_conversion
from converters.report.pages import conversion_page
from specs.dataset_sources import found_data
from specs.errors import SnnZooError, UnsupportedError
from specs.fields import is_name
from specs.files.named_data import is_named_data, note_named_data
from specs.files.whole_file import write_whole
from specs.io import load_spec
from specs.layers.input import Encoding
from specs.layers.neuron import Reset
from specs.words import counted, percent

RULES_OF_ONNX = (
    Rule("--raw", "means --mean 0 --std 0.00392 (1/255)", excludes=("--mean", "--std")),
    Rule("--limit", "scores images of --data", needs=("--data",)),
    Rule("--epochs", "tunes on images of --data", needs=("--data",)),
    Rule("--validation", "judges what is made with --data", needs=("--data",)),
    Rule("--replace-activations", "tunes the ANN on images of --data", needs=("--data",)),
    Rule(
        "--neuron sigma-delta",
        "makes a network that is not tuned, and whose steps are its layers",
        excludes=("--epochs", "--time-steps", "--input", "--max-pool", "--reset", "--report", "--replace-activations"),
    ),
    Rule("--reset subtract", "cannot be written as netx", excludes=("-o FILE.net", "-o FILE.hdf5")),
)
ONLY_FOR_ONNX = (
    "--data", "--validation", "--data-dir", "--cache-dir", "--limit", "--raw", "--epochs", "--input", "--max-pool",
    "--neuron", "--replace-activations", "--seed", "--threads", "--report",
)  # fmt: skip
NOT_FOR_ONNX = ("--spec", "--threshold", "--input-bits", "--dt", "--time-constants", "--nodes-only")


def convert_source(
    source: Path,
    outputs: tuple[Path, ...],
    *,
    fold: bool,
    c_prefix: str,
    report: Path | None,
    threads: int | None,
    places: DataPlaces,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run the command; the arguments are its options, `given` those of one kind of source."""
    check_writable_format(*outputs)
    c_options, named = COptions(c_prefix), str(source)
    for file in (*(file for output in outputs for file in files_of(output, c_options)), *([report] if report else [])):
        refuse_existing(file, force)
    source = _find(source)
    kind = kind_of_file(source)
    if not outputs and report is None:
        say("note: nothing will be written: name a file with -o, as in -o model.safetensors")
    if kind is FileKind.ONNX:
        use_threads(threads)
        console.note_missing_library()
        conversion = _convert_onnx(source, outputs, places, **given)
        model, figures = conversion.model, conversion.report
        if places.classes:
            told = {**model.card_entry("conversion"), "classes": list(places.classes)}
            model = replace(model, card={**model.card, "conversion": told})
    else:
        model = _read(source, given)  # first, as it says what the file is
        leave_out(f"{source} is not an ONNX file", ONLY_FOR_ONNX)
        conversion, figures = None, {"notes": model.notes}
        places.check_classes(model.spec.n_classes)
    if places.classes:
        model = replace(model, card={**model.card, "classes": list(places.classes)})
    if fold:
        model = model.folded()
    more = {note: None for output in outputs for note in format_notes(model, output.suffix)}
    model = replace(model, notes=(*model.notes, *more))
    figures["notes"] = [*figures["notes"], *more]
    console.say_notes(model, said=getattr(conversion, "doubt", None))
    if any(output.suffix in C_SOURCES for output in outputs) and (known := console.known_models()):
        c_options = replace(c_options, images=known.golden_images(named))
    if len(outputs) > 1:  # so that none is written if another cannot be
        _refuse_unwritable(model, {output: f"{output}: " for output in outputs})
    data = model.data or ""
    is_named = given["data"] is not None or is_named_data(source, data)
    with warnings.catch_warnings(action="ignore", category=LavaWarning):  # it is among the notes
        for output in sorted(
            outputs, key=lambda output: output.suffix not in C_SOURCES
        ):  # its self-test may find overflows
            write_model(model, output, overwrite=force, c=c_options)
    for output in outputs if is_named else ():
        note_named_data(output, data)
    written = [file_entry(file) for output in outputs for file in files_of(output, c_options)]
    if report is not None and isinstance(conversion, OnnxConversion):
        _write_report(report, conversion, source.name, written, figures["layers"])
        written.append(file_entry(report))
    if as_json:
        echo(console.json_text({"source": named, **figures, "outputs": written}))
        return
    if isinstance(conversion, MessageConversion):
        _print_messages(conversion)
    elif conversion is not None:
        _print_conversion(conversion, "written" if outputs else "kept")
    for entry in written:
        echo(entry["path"])
    for output in outputs:
        if output.suffix == C_SOURCE:
            say(f"note: its test: {shlex.join(['cc', *self_test_options(output, c_options)])} && ./selftest")
        if output.suffix == SKETCH:
            here = shlex.quote(str(output.parent))
            build = f"cmake -S {here} -B {here}/build && cmake --build {here}/build && ctest --test-dir {here}/build"
            say(f"note: its test: {build}")


def _refuse_unwritable(model: Model, outputs: dict[Path, str]) -> None:
    """Raise `UnsupportedError` with what the files cannot hold of a model; the value of each precedes its problems."""
    if not any(output.suffix in PROBLEMS for output in outputs):
        return
    form = form_of_network(model.build())
    if problems := [place + one for output, place in outputs.items() for one in problems_in(form, output.suffix)]:
        raise UnsupportedError("\n".join(problems))


def _find(source: Path) -> Path:
    """Return the file of the model that has this name; any other path as it is.

    Raises `SnnZooError` for a missing file that may mean a model.
    """
    if source.exists():
        return source
    name, known = source.stem, console.known_models()  # `zoo convert` finds models by name, `convert` does not
    if known is not None:
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
    path: Path, conversion: OnnxConversion, source: str, outputs: list[dict[str, str]], layers: list[dict[str, Any]]
) -> None:
    """Write the page of a conversion, and add its measurements of each layer to `layers`."""
    measured = measure_conversion(conversion)
    if measured is not None:
        for layer, more in zip(layers, measured.layers_as_json(), strict=True):
            layer.update(more)
    page = conversion_page(conversion, measured, source=source, command=console.command_line(), outputs=outputs)
    write_whole(path, page.encode())


def _read(source: Path, given: dict[str, Any]) -> Model:
    hints = {field.name: given[field.name] for field in fields(Hints)}
    for name in ("mean", "std"):
        if isinstance(hints[name], tuple):
            raise UsageError(f"--{name}: must be one number; only ONNX files take one for each channel")
    leave_out(f"{source} is not an ONNX file", ["--reset auto"])
    for name, kind in (("time_constants", TimeConstants), ("reset", Reset), ("spec", load_spec)):
        if hints[name] is not None:
            hints[name] = kind(hints[name])
    return read_model(source, Hints(**hints))


def _convert_onnx(
    source: Path,
    outputs: tuple[Path, ...],
    places: DataPlaces,
    *,
    data: str | None,
    validation: str | None,
    limit: int | None,
    raw: bool,
    epochs: int | None,
    entering: str,
    max_pool: str,
    replace_activations: str | None,
    seed: int,
    mean: float | tuple[float, ...] | None,
    std: float | tuple[float, ...] | None,
    time_steps: int | None,
    reset: str | None,
    neurons: str,
    **others: Any,
) -> OnnxConversion | MessageConversion:
    leave_out(f"{source} is an ONNX file", NOT_FOR_ONNX)
    check_rules(RULES_OF_ONNX)
    load = partial(places.load, found_data(data), labelled=False) if data else None
    shared: dict[str, Any] = {
        "dataset": None if load is None else lambda shape: load(shape).limited(limit),
        "validation": partial(places.load, found_data(validation), labelled=False) if validation else None,
        "mean": mean or 0.0,
        "std": 1 / 255 if raw else (std or 1.0),
        "seed": seed,
    }

    def refuse_unwritable(model: Model) -> None:
        _refuse_unwritable(model, dict.fromkeys(outputs, ""))

    if neurons == "sigma-delta":
        return import_messages(source, **shared, on_scaled=refuse_unwritable, on_step=say)
    forms = EVERY_FORM
    if entering != "auto":
        forms = replace(forms, encodings=(Encoding(entering),))
    if max_pool != "auto":
        forms = replace(forms, max_pooling=(MaxPooling(max_pool),))
    chains = [str(output) for output in outputs if output.suffix in CHAINS]
    if reset not in {None, "auto"}:
        forms = replace(forms, resets=(Reset(reset),))
    elif chains:
        forms = replace(forms, resets=(Reset.ZERO,))
    if any(output.suffix == ".nir" for output in outputs):
        forms = replace(forms, starts=(0.0,))

    def check_ann(ann: Ann) -> None:
        places.check_classes(prod(ann.nodes[-1].shape))
        if chains and has_skips(ann, forms.max_pooling):
            raise UnsupportedError(
                f"{source} has branches that are added, and netx cannot express them: write .safetensors, .nir or "
                f".c instead of {' and '.join(chains)}"
            )

    def say_epoch(report: EpochReport) -> None:
        say(
            f"tuning, epoch {report.epoch + 1}, learning rate {report.learning_rate:.2g}: "
            f"SNN {percent(report.training_score)} on the training images, {report.seconds:.0f} s"
        )

    return import_onnx(
        source,
        **shared,
        time_steps=time_steps or 16,
        epochs=epochs,
        forms=forms,
        replace_activations=replace_activations,
        callbacks=ImportCallbacks(
            on_step=say,
            on_imported=check_ann,
            on_doubt=lambda note: say(f"note: {note}"),
            on_calibrated=refuse_unwritable,
            on_epoch=say_epoch,
        ),
    )


def _print_messages(conversion: MessageConversion) -> None:
    score, n = conversion.score, conversion.multiplications
    echo(f"import: differs from the ONNX reference by at most {conversion.imported.max_abs_error:.2g}")
    if score is not None:
        accuracies = ["" if a is None else percent(a) for a in (conversion.ann, score.accuracy)]
        sent = [f"{score.error:.3f}", f"{sum(score.messages):,.0f}", f"{sum(score.synops):,.0f} synops"]
        rows = [["ANN", accuracies[0], "", "", f"{n:,} multiplications"], ["messages", accuracies[1], *sent]]
        print_table(["", "accuracy", "error / std", "messages/frame", "operations/frame"], rows)
    echo(f"took {conversion.seconds:.0f} s")


def _print_conversion(conversion: OnnxConversion, mark: str) -> None:
    print_table(
        ["node", "op", "became", "reason"],
        [[node["name"], node["op"], node["became"], node["reason"]] for node in conversion.nodes],
        words=True,
    )
    echo(f"\nimport: differs from the ONNX reference by at most {conversion.imported.max_abs_error:.2g}")
    candidate = conversion.candidate
    pooling = f"; max pools: {candidate.max_pooling}" if has_maxima(conversion.imported.ann) else ""
    echo(f"images: {conversion.normalization}")
    start = max(conversion.spec.starts)
    reset = f"{candidate.reset}, start: {start:g} of the threshold" if start else f"{candidate.reset}"
    echo(f"input: {candidate.input_form}{pooling}; reset: {reset}; judged by {conversion.judged_by}")
    if conversion.ann is not None:
        rows = [["ANN", "", percent(conversion.ann), ""]]
        if (replaced := conversion.replacement) is not None:
            rows.append(["ANN with ReLU", "untuned", percent(replaced.untuned), "" if replaced.kept else "kept"])
            rows.append(["ANN with ReLU", "tuned", percent(replaced.tuned), "kept" if replaced.kept else "undone"])
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
