"""Write the generated tables of the README files and of ARCHITECTURE.

    python tests/make_readme_tables.py [--print NAME]

A table stands between the lines `<!-- NAME -->` and `<!-- end -->`; `TABLES` has the function for each name. They read
cards, the JSON Schema, and the results that the targets of `make` leave in `tests/benchmarks/results/`. `--print NAME`
prints one table and writes nothing.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from spec_reference import spec_reference

from specs.dataset_sources import dataset_title
from specs.words import counted
from zoo.model_format import ModelFormat
from zoo.runs.card import Card, seed_accuracies
from zoo.runs.card_files import card_names, packaged_card

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "specs", "bootstrap_core", "converters", "zoo", "tests/benchmarks")
DOCUMENTS = [*(ROOT / folder / "README.md" for folder in FOLDERS), ROOT / "ARCHITECTURE.md"]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
BENCHMARK, ACCURACY = RESULTS / "bench.json", RESULTS / "accuracy.json"
CONVERSIONS = RESULTS / "convert.json"
FUZZ = RESULTS / "fuzz.json"
READERS = RESULTS / "readers.json"
NOT_MEASURED = "Not measured yet."
BUSY = 0.2
"""Number of cores busy with other work, above which a table mentions it."""


SHORT = ("model", "layers", "T", "test accuracy", "as ANN", "synops/image", "size")
"""Columns of the table of models in the main README."""


MANY = 1000
"""Number of test images below which it is told beside the accuracy."""


def models_table(columns: Sequence[str] = ()) -> str:
    """Return a row for each packaged model, from its card; of all columns, or of those given."""
    models = [model_cells(packaged_card(name)) for name in card_names()]
    columns = columns or list(models[0])
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    rows += [f"| {' | '.join(cells[column] for column in columns)} |" for cells in models]
    return "\n".join(rows)


def model_cells(card: Card) -> dict[str, str]:
    """Return the cells of a model, by column."""
    training, n = card.training, card.data.test_images
    few = f" of {n}" if n < MANY else ""
    return {
        "model": f"`{card.name}`",
        "layers": "-".join("x".join(map(str, layer.shape)) for layer in card.layers),
        "T": str(card.time_steps),
        "test accuracy": f"{percent(card.test.accuracy)} %{few}",
        "over seeds": over_seeds(card),
        "as ANN": "-" if card.test.ann is None else f"{percent(card.test.ann)} %",
        "rates": " ".join(f"{layer.rate:.2f}" for layer in card.layers if layer.rate is not None),
        "synops/image": f"{sum(layer.synops for layer in card.layers):,.0f}",
        "parameters": f"{card.parameters:,}",
        "size": f"{card.files[ModelFormat.SAFETENSORS].bytes / 1e6:.1f} MB",
        "chosen": "-" if training.epoch is None else f"epoch {training.epoch + 1} of {training.recipe.epochs}",
    }


def over_seeds(card: Card) -> str:
    """Return mean and standard deviation of the test accuracy over seeds, and the number of seeds."""
    found = [100 * accuracy for accuracy in seed_accuracies(card)]
    return f"{mean(found):.2f} ± {stdev(found):.2f} % of {len(found)}" if len(found) > 1 else "-"


def benchmark_table(path: Path) -> str:
    """Return the table of a benchmark, with ratios to lava-dl and to the fastest other program."""
    return render_benchmark(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


PROGRAMS = ("snnzoo", "lava-dl", "snntorch", "norse", "spikingjelly", "sinabs")
COLUMNS = ("work", *PROGRAMS, "reference", "vs lava-dl", "vs best peer", "target", "met")


def render_benchmark(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench.py` or `bench_accuracy.py`."""
    lines = [machine(report), "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in report["rows"]]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(report))])


def machine(report: dict[str, Any]) -> str:
    """Return a line with the machine and the versions of a report."""
    under = report["under"]
    alike = len(set(under.values())) == 1
    versions = [f"{name} {v}" + ("" if alike else f" ({under[name]})") for name, v in report["versions"].items()]
    return (
        f"{report['cpu']}, {report['cores']} cores, {report['threads']} threads; snnzoo on {report['kernel']}; "
        f"{dated(report)}. {', '.join(versions)}" + (f"; all under {under['snnzoo']}." if alike else ".")
    )


def dated(report: dict[str, Any]) -> str:
    """Return date and commit of a report."""
    return report["date"] + (f", commit {report['commit']}" if report.get("commit") else "")


def ratios(row: dict[str, Any], clock: str = "wall") -> dict[str, float]:
    """Return the values that targets bound: "lava-dl", "peer" (theirs over ours), "reference" (inverse), "seconds"."""
    values = row[clock]
    ours = values["snnzoo"]
    peers = [values[name] for name in PROGRAMS[2:] if name in values]
    found = {"seconds": ours}
    if "lava-dl" in values:
        found["lava-dl"] = values["lava-dl"] / ours
    if peers:
        found["peer"] = min(peers) / ours
    if "reference" in values:
        found["reference"] = ours / values["reference"]
    return found


def met(row: dict[str, Any]) -> str:
    """Return whether a row meets its target: yes, no, or ? if a program did not take part or did not finish."""
    found = ratios(row)
    kept = [
        found[key] <= bound if key in ("reference", "seconds") else found[key] >= bound
        for key, bound in row["target"].items()
        if key in found and key not in row.get("unfinished", [])
    ]
    if not all(kept):
        return "no"
    return "yes" if len(kept) == len(row["target"]) else "?"


def cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of a row."""
    values, found, unit, scale = row["wall"], ratios(row), row["unit"], 1.0
    if unit == "s" and values["snnzoo"] < 1:
        unit, scale = "ms", 1e3
    reference = "-"
    if "reference" in values:
        reference = f"{row['reference']} {number(values['reference'] * scale)}: {found['reference']:.2f}x"
    texts = {
        "lava-dl": "{:g}x lava-dl",
        "peer": "{:g}x best peer",
        "reference": "at most {:g}x " + str(row["reference"]),
        "seconds": "at most {:g} s",
    }
    over = dict.fromkeys(row.get("unfinished", []), "> ")
    return [
        f"{row['what']}, {unit}",
        *(over.get(name, "") + number(values[name] * scale) if name in values else "-" for name in PROGRAMS),
        reference,
        *(over.get(key, "") + times(found[key]) if key in found else "-" for key in ("lava-dl", "peer")),
        ", ".join(texts[key].format(bound) for key, bound in row["target"].items()) or "-",
        met(row),
    ]


def times(ratio: float) -> str:
    """Return a ratio as `12.3x`; below 10 as `3.99x`, so that rounding does not make it meet a target."""
    return f"{ratio:.{1 if ratio >= 10 else 2}f}x"


def number(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def notes(report: dict[str, Any]) -> Iterator[str]:
    """Yield notes to put below the table."""
    yield from report.get("notes", [])
    older: dict[str, list[str]] = {}
    for row in report["rows"]:
        if dated(report | row) != dated(report):
            older.setdefault(dated(report | row), []).append(row["what"])
    for when, rows in older.items():
        yield f"measured {when}: {', '.join(rows)}"
    yield from notebook_notes(report)
    for network, programs in report.get("agreement", {}).items():
        if programs:
            parts = ", ".join(f"{name} {part}" for name, part in programs.items())
            yield f"digits of the batch with the same class as in snnzoo, {network} network: {parts}"
    for network, rates in report.get("rates", {}).items():
        yield f"mean spike rates of the {network} network, from input to last block: {', '.join(map(str, rates))}"
    first = [(row["what"], row["first_call"]["snnzoo"]) for row in report["rows"] if "first_call" in row]
    slow = [f"{what} {seconds:.2g} s" for what, seconds in first if seconds > 0.1 and "epoch" not in what]
    if slow:
        yield f"first call in a process, which also loads code: {', '.join(slow)}"
    if report["busy_cores"] > BUSY:
        compared = []
        for row in report["rows"]:
            found = ratios(row, "cpu") if "cpu" in row else {}
            names = {"lava-dl": "lava-dl", "peer": "best peer", "reference": row["reference"]}
            parts = [f"{found[key]:.2g}x {names[key]}" for key in row["target"] if key in names and key in found]
            compared += [f"{row['what']} {', '.join(parts)}"] if parts else []
        yield (
            f"other work kept {report['busy_cores']:.1f} of {report['cores']} cores busy, so wall times are too long; "
            f"ratios of CPU times: {'; '.join(compared)}"
        )


NOTEBOOK = {10: 0.9846, 20: 0.9895}
"""Accuracy as SNN on the test images after some epochs, counted from 0, in the output of lava-dl's tutorial notebook,
`tutorials/lava/lib/dl/bootstrap/mnist/train.ipynb`, as it was published."""


def notebook_notes(report: dict[str, Any]) -> Iterator[str]:
    """Yield a note if lava-dl's tutorial was published with better figures than it reached here."""
    epochs = report.get("epochs", {}).get("lava-dl", {}).get("epochs", [])
    if len(epochs) > max(NOTEBOOK):
        published = " and ".join(f"{accuracy:.2%} in epoch {epoch}" for epoch, accuracy in NOTEBOOK.items())
        wall = epochs[max(NOTEBOOK)]["wall"]
        ratio = wall / report["rows"][0]["wall"]["snnzoo"]
        yield (
            f"the notebook was published with {published} (epochs from 0, test images), which it did not reach here; "
            f"with the {wall:.0f} s that these epochs took, the ratio would be {ratio:.1f}x. Our recipe has larger "
            "batches and learning rates"
        )


def conversion_table() -> str:
    """Return the accuracy of each ONNX file as ANN, as our SNN, and as SpikingJelly's."""
    return render_conversions(json.loads(CONVERSIONS.read_text("utf-8"))) if CONVERSIONS.exists() else NOT_MEASURED


def conversion_conditions() -> str:
    """Return the reasons why files were not converted, and the machines on which the others were."""
    if not CONVERSIONS.exists():
        return NOT_MEASURED
    return "\n".join(f"- {note}" for note in conversion_details(json.loads(CONVERSIONS.read_text("utf-8"))))


STEPS = ("16", "8", "4")
EACH = f"T = {' / '.join(STEPS)}"
CONVERSION_COLUMNS = ("file", "ANN", "untuned, T = 16", f"tuned, {EACH}", "met", f"SpikingJelly, {EACH}", "`.net`", "s")


def render_conversions(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_convert.py`, with accuracies in percent, and its notes."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [f"{versions}.", "", f"| {' | '.join(CONVERSION_COLUMNS)} |", "|---" * len(CONVERSION_COLUMNS) + "|"]
    lines += [f"| {' | '.join(conversion_cells(row, report['targets']))} |" for row in report["rows"]]
    return "\n".join([*lines, "", *(f"- {note}" for note in conversion_notes(report))])


def conversion_cells(row: dict[str, Any], targets: dict[str, dict[str, float]]) -> list[str]:
    """Return the cells of a row."""
    ours, theirs = row["snnzoo"], list(row["spikingjelly"].values())
    peers = [found for found in theirs if "accuracy" in found]
    best = {t: max((found["accuracy"][t] for found in peers), default=None) for t in STEPS}
    spiking = percents(best) if peers else NOT_CONVERTED if theirs else "-"
    if "error" in ours:
        ann = peers[0]["ann"] if peers else None
        return [f"`{row['file']}`", percent(ann), NOT_CONVERTED, "-", "-", spiking, "-", "-"]
    netx = ours["netx"]
    return [
        f"`{row['file']}`",
        percent(ours["ann"]),
        percent(ours["untuned"].get("16")),
        percents(ours["tuned"]),
        targets_met(ours, targets),
        spiking,
        "-" if "error" in netx else "same" if netx["different"] == 0 else f"{netx['different']} images differ",
        f"{ours['seconds']:.0f}",
    ]


NOT_CONVERTED = "not converted"


def expectation() -> str:
    """Return a sentence on the accuracy that conversions lose, in percentage points."""
    rows = json.loads(CONVERSIONS.read_text("utf-8"))["rows"]
    converted = [row["snnzoo"] for row in rows if "error" not in row["snnzoo"]]
    lost = {t: [100 * (found["ann"] - found["tuned"][t]) for found in converted] for t in STEPS}
    losses = "; ".join(f"T = {t}: {median(points):.2f} and {max(points):.2f}" for t, points in lost.items())
    return (
        f"**Accuracy of converted networks.** Of {len(rows)} MNIST classifiers in ONNX that others published, "
        f"{len(converted)} were converted. Percentage points lost against the ANN, median and worst: {losses} "
        "(negative: gained). [Each file](converters/README.md#accuracy-of-converted-networks)."
    )


def percents(accuracies: dict[str, float | None]) -> str:
    """Return the accuracies for each T, in percent."""
    return " / ".join(percent(accuracies.get(t)) for t in STEPS) if accuracies else "-"


def percent(part: float | None) -> str:
    """Return a fraction of 1 in percent."""
    return "-" if part is None else f"{100 * part:.2f}"


def targets_met(found: dict[str, Any], targets: dict[str, dict[str, float]]) -> str:
    """Return whether a conversion meets the targets: yes, no, or ? if something was not measured."""
    wanted = [(found[stage].get(t), points) for stage, limits in targets.items() for t, points in limits.items()]
    lost = [(100 * (found["ann"] - accuracy), points) for accuracy, points in wanted if accuracy is not None]
    if any(loss > points + 1e-9 for loss, points in lost):
        return "no"
    return "yes" if len(lost) == len(wanted) else "?"


def conversion_notes(report: dict[str, Any]) -> Iterator[str]:
    """Yield notes to put below the table."""
    limits = {
        stage: ", ".join(f"{points:g} at T = {t}" for t, points in targets.items())
        for stage, targets in report["targets"].items()
    }
    allowed = "; ".join(f"{stage}: {limit}" for stage, limit in limits.items())
    yield f"met: the SNN loses at most these points of accuracy against the ANN. {allowed[0].upper()}{allowed[1:]}."
    recipes = list(dict.fromkeys(recipe for row in report["rows"] for recipe in row["spikingjelly"]))
    if recipes:
        yield (
            "SpikingJelly: analog input, float weights, reset by subtraction, calibrated on images of the same set, no "
            f"training. For each T the best of its recipes ({', '.join(recipes)}) on the test set. It converts "
            "PyTorch modules, which onnx2torch made from the files where it could."
        )


def conversion_details(report: dict[str, Any]) -> Iterator[str]:
    """Return the reasons why files were not converted, and the machines on which the others were."""
    for row in report["rows"]:
        errors = [found["error"] for found in row["spikingjelly"].values() if "error" in found]
        if "error" in row["snnzoo"]:
            yield f"`{row['file']}`, snnzoo: {row['snnzoo']['error']}"
        elif "error" in row["snnzoo"]["netx"]:
            yield f"`{row['file']}`, `.net`: {row['snnzoo']['netx']['error']}"
        if errors and len(errors) == len(row["spikingjelly"]):
            yield f"`{row['file']}`, {errors[0]}"
    measured: dict[str, list[str]] = {}
    for row in report["rows"]:
        measured.setdefault(described(row["conditions"]), []).append(f"`{row['file']}`")
    for conditions, files in measured.items():
        yield f"{conditions}: {', '.join(files)}"


def described(conditions: dict[str, Any]) -> str:
    """Return the machine, the date and the other load of a measurement."""
    text = "{cpu}, {cores} cores, {threads} threads; {date}".format(**conditions)
    if conditions["busy_cores"] > BUSY:
        text += f"; other work kept {conditions['busy_cores']:.1f} cores busy, so it took longer"
    return text


def fuzz_table() -> str:
    """Return a row for each format: hostile files in the tests, files changed at random, and the results of reading."""
    if not FUZZ.exists():
        return NOT_MEASURED
    return render_fuzz(json.loads(FUZZ.read_text("utf-8")))


def render_fuzz(report: dict[str, Any]) -> str:
    """Return the table of a report by `fuzz.py`."""
    lines = [
        "| format | cases tried | bytes changed | structure changed | read | refused | failed | last run |",
        "|---" * 8 + "|",
    ]
    for name, n_cases in report["cases"].items():
        found = report["formats"].get(name, {})
        runs = [f"{found[engine]['executions']:,}" if engine in found else "-" for engine in ("bytes", "structure")]
        ends = [f"{sum(run[end] for run in found.values()):,}" for end in ("read", "refused", "failed")]
        last = max((run.get("date", "-") for run in found.values()), default="-")
        lines.append(f"| {' | '.join([name, str(n_cases), *runs, *ends, last])} |")
    return "\n".join(lines)


def readers_table() -> str:
    """Return the peak memory of each reader, without that of Python and torch, for each size of a file."""
    if not READERS.exists():
        return NOT_MEASURED
    report = json.loads(READERS.read_text("utf-8"))
    return f"{report['date']}.\n\n{render_readers(report['rows'])}"


def render_readers(rows: list[dict[str, Any]]) -> str:
    """Return the table of a report by `bench_readers.py`."""
    lines = ["| format | file, MiB | peak, MiB | CPU s | |", "|---" * 5 + "|"]
    for row in rows:
        reason = "" if row["outcome"] == "read" else f"{row['outcome']}: {row['text']}"
        lines.append(f"| {row['format']} | {row['file_mib']:g} | {row['peak_mib']} | {row['seconds']:.2f} | {reason} |")
    return "\n".join(lines)


DEMO = RESULTS / "demo.txt"


def demo_output() -> str:
    """Return the output of `zoo demo` when `make docs` ran it."""
    return f"```\n{DEMO.read_text('utf-8').rstrip()}\n```"


OTHERS = {
    "snnzoo": (
        "8-bit weights, integer states, reset to zero or by subtraction",
        "netx, NIR, ONNX, lava-dl's state dicts; writes C",
        "YAML, Python",
    ),
    "lava-dl": ("8-bit weights, reset to zero, in floats", "netx; its own state dicts", "Python up to 3.10; archived"),
    "spikingjelly": ("float weights; 8 bits by `lava_exchange`", "NIR, lava-dl; from PyTorch modules", "Python"),
    "sinabs": ("float weights; 8 bits for its own chips", "NIR; from PyTorch modules", "Python"),
    "snntorch": ("float weights", "NIR", "Python"),
    "norse": ("float weights", "NIR", "Python"),
    "NIR": ("a format, runs nothing", "NIR", "Python"),
    "snn_toolbox": ("float weights", "from Keras, PyTorch and Caffe; to simulators and Loihi 1", "configuration files"),
}
"""Arithmetic, formats and the way to write a network of each program, from its documentation."""
MEASURED = {
    "inference, ms": "784-512-512-10: exact inference",
    "training step, ms": "784-512-512-10: SNN training step",
    "one image, ms": "one image, from call to class",
}


def others_table() -> str:
    """Return a table that compares the programs of the field; figures are from the benchmarks."""
    report = json.loads(BENCHMARK.read_text("utf-8"))
    rows = {row["what"]: row["wall"] for row in report["rows"]}
    converted = files_converted(json.loads(CONVERSIONS.read_text("utf-8")))
    header = ["", "arithmetic", "formats", "networks in", *MEASURED, "ONNX files converted"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, facts in OTHERS.items():
        times = [number(1e3 * rows[what][name]) if name in rows[what] else "-" for what in MEASURED.values()]
        lines.append(f"| {' | '.join([name, *facts, *times, converted.get(name, '-')])} |")
    notes = (
        "Times: network 784-512-512-10, T = 16, batch 256 (one image: 1), medians of `make bench`. ONNX files: `make "
        "bench-convert`."
    )
    return "\n".join([*lines, "", notes])


def files_converted(report: dict[str, Any]) -> dict[str, str]:
    """Return for each program the number of ONNX files that it converted."""
    rows = report["rows"]
    ours = sum("error" not in row["snnzoo"] for row in rows)
    tried = [row["spikingjelly"].values() for row in rows if row["spikingjelly"]]
    theirs = sum(any("accuracy" in found for found in recipes) for recipes in tried)
    read = sum(not all(found.get("error", "").startswith("onnx2torch") for found in recipes) for recipes in tried)
    return {
        "snnzoo": f"{ours} of {len(rows)}",
        "spikingjelly": f"{theirs} of {len(tried)} (onnx2torch reads {read})",
    }


UNIT = "tests/unit"
FAULTS = (
    (
        "export removes weight norm from the live network, so the next `load_state_dict` fails",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_export_leaves_the_network_as_it_was",
    ),
    (
        "the readout is exported with the weights from before `load_state_dict` (see `zoo verify network.net`)",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_the_readout_is_exported_with_its_loaded_weights",
    ),
    (
        "the fitted activation is not in the state dict, so ANN mode is undefined after a reload",
        f"{UNIT}/bootstrap_core/network/test_network.py::test_a_network_without_its_own_fit_gets_it_from_the_state_dict",
    ),
    (
        "shapes are unknown before the first forward, so export before it fails",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_a_fresh_network_exports_before_any_forward",
    ),
    (
        "`delay_shift` is documented as false and runs as true; here it is a field of the spec, false by default",
        f"{UNIT}/bootstrap_core/network/test_network.py::test_no_step_is_empty_unless_told",
    ),
    (
        "in hybrid training the spiking layers run for a single time step",
        f"{UNIT}/bootstrap_core/network/test_network.py::"
        "test_blocks_before_the_crossover_run_all_steps_and_their_mean_rate_enters_the_next",
    ),
    (
        "the sampler grows without bound and draws from a global random generator",
        f"{UNIT}/bootstrap_core/network/test_sampler.py::test_memory_is_bounded_by_the_capacity",
    ),
    ("`count_log` raises", f"{UNIT}/bootstrap_core/network/test_network.py::test_the_rates_of_all_blocks_are_counted"),
    (
        "the threshold that keeps a readout from spiking is `1 << 18 - 1`, which is 131072 instead of 262143",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_the_readout_never_fires",
    ),
    (
        "biases are truncated, without rounding or a range check",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_biases_are_rounded_to_mantissas",
    ),
    (
        "netx has no pooling; here an average pool is exported as an equal grouped convolution",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_an_average_pool_becomes_a_grouped_convolution_of_equal_weights",
    ),
)
"""Faults of lava-dl 0.6.0, each with the test that fails if snnzoo has it."""


def faults_table() -> str:
    """Return the table of faults, with links for `converters/README.md`."""
    rows = [f"| {fault} | [`{test.partition('::')[2]}`](../{test.partition('::')[0]}) |" for fault, test in FAULTS]
    return "\n".join(["| in lava-dl | test |", "|---|---|", *rows])


def cluster_table() -> str:
    """Return the table of training with one process and with two."""
    path = RESULTS / "cluster.json"
    return render_cluster(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_cluster(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_cluster.py`."""
    alone, parted = report["seconds"]["1"], report["largest_difference"]
    lines = [
        f"{report['cpu']}, {report['cores']} cores, one thread for each process; {dated(report)}. "
        f"`{report['network']}` without dropout on {report['dataset']}, {report['epochs']} epochs "
        f"of {report['images']:,} images, the last as SNN. "
        f"The loss of the last batch ({report['batches']}) is {report['losses']['1'][-1]:.4f}.",
        "",
        f"| processes | ANN epoch, s | SNN epoch, s | {' | '.join(differences(parted))} |",
        "|---|---|---|---|---|---|",
    ]
    for n, seconds in report["seconds"].items():
        cells = [f"{seconds[mode]:.2f} ({alone[mode] / seconds[mode]:.2f}x)" for mode in ("ann", "snn")]
        cells += ["-"] * len(parted) if n == "1" else [f"{part:.1e}" for part in parted.values()]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    if report["busy_cores"] > BUSY:
        note = f"other work kept {report['busy_cores']:.1f} of {report['cores']} cores busy: the times are unreliable"
        lines += ["", f"- {note}"]
    return "\n".join(lines)


def differences(parted: dict[str, float]) -> list[str]:
    """Return the headers of the columns with the largest difference of losses after some batches."""
    return [f"loss difference, {n} batch{'es' if n != '1' else ''}" for n in parted]


def estimate_table() -> str:
    """Return the table of a report by `estimate_cluster.py`."""
    report = json.loads((RESULTS / "estimate.json").read_text("utf-8"))
    assumed, price = report["assumed"], report["assumed"]["dollars_per_hour"]
    lines = [
        f"ResNet-50 as a spec: {report['products'] / 1e9:.2f} billion multiplications per image and time step, "
        f"{report['parameters'] / 1e6:.1f} million parameters. {assumed['epochs']} epochs of {assumed['images']:,} "
        f"images, {assumed['images'] * assumed['image_bytes'] / 1e9:.0f} GB as uint8.",
        "",
        f"| T | {assumed['gpu']} | images on each | hours | of it communication | at {price:g} $ an hour |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = [
            row["time_steps"],
            row["gpus"],
            row["batch"],
            f"{row['hours']:.1f}",
            f"{100 * row['meeting_part']:.1f} %",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['dollars']} $ |")
    lines += [
        "",
        f"- Assumed: {assumed['products_per_second'] / 1e12:g} tera multiplications per second, of which "
        f"{assumed['part_of_peak']:.0%} are reached; three times the multiplications of a forward pass; "
        f"{assumed['bytes_per_second'] / 1e12:g} TB/s of memory bandwidth, {assumed['neuron_bytes']:g} bytes moved and "
        f"{assumed['kept_bytes']:g} stored for each neuron and step, {assumed['memory_bytes'] / 1e9:g} GB for them; "
        f"{assumed['network_bytes_per_second'] / 1e9:g} GB/s between hosts.",
        "- No network of this size has been converted. Dozens of layers lose accuracy; whether two epochs recover it "
        "is unknown.",
    ]
    return "\n".join(lines)


def delays_table() -> str:
    """Return the table of trained and fixed delays."""
    path = RESULTS / "delays.json"
    return render_delays(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_delays(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_delays.py`."""
    found = report["accuracies"]
    kinds = list(next(iter(found.values())))
    n_seeds = len(next(iter(found.values()))[kinds[0]])
    return "\n".join([
        f"{report['classes']} classes, {report['channels']} channels, delays up to {report['longest']} steps; mean of "
        f"{counted(n_seeds, 'seed')}, lowest to highest; {dated(report)}.",
        "",
        f"| neurons | {' | '.join(f'delays: {kind}' for kind in kinds)} |",
        "|---|" + "---|" * len(kinds),
        *(
            f"| {n} | {' | '.join(f'{mean(row):.1%} ({min(row):.1%} to {max(row):.1%})' for row in rows.values())} |"
            for n, rows in found.items()
        ),
    ])  # fmt: skip


def values_table() -> str:
    """Return the table of a network of values, for thresholds of its messages."""
    path = RESULTS / "values.json"
    return render_values(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_values(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_values.py`."""
    return "\n".join([
        f"The slopes have a standard deviation of {report['deviation']:.2f}, and the ANN has an error of "
        f"{report['ann']:.4f} and {report['macs']:,} MACs; the first run took {report['seconds']:.0f} s; "
        f"{dated(report)}.",
        "",
        "| threshold | rms error, not tuned | tuned | messages per neuron and step | synops per step |",
        "|---|---|---|---|---|",
        *(
            f"| {Fraction(row['threshold'])} | {row['untuned']:.4f} | "
            f"{'-' if row['tuned'] is None else format(row['tuned'], '.4f')} | "
            f"{', '.join(f'{each:.2f}' for each in row['messages'])} | {row['synops']:,.0f} |"
            for row in report["rows"]
        ),
    ])  # fmt: skip


def kills_table() -> str:
    """Return the table of commands that were ended by `kill -9`."""
    path = RESULTS / "kills.json"
    return render_kills(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_kills(report: dict[str, dict[str, Any]]) -> str:
    """Return the table of a report by `check_kills.py`."""
    columns = ("tries", "killed", "resumed", "temporaries", "lost", "date")
    lines = [f"| command | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name, counts in report.items():
        lines.append(f"| {name} | {' | '.join(str(counts.get(key, '-')) for key in columns)} |")
    return "\n".join(lines)


def deep_table() -> str:
    """Return the accuracy of deep networks that were converted with default options."""
    path = RESULTS / "deep.json"
    return render_deep(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_deep(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_deep.py`."""
    columns = "file", "data", "test images", "T", "ANN", "untuned", "tuned", "CPU, s", "memory, GiB"
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in report["rows"]:
        cells = [f"`{row['file']}`", dataset_title(row["data"]), f"{row['images']:,}", str(row["time_steps"])]
        cells += [percent(row[stage]) for stage in ("ann", "untuned", "tuned")]
        cells += [f"{row['cpu_s']:.0f}", f"{row['memory_gib']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    made = {
        f"- {found['cpu']}, {counted(found['threads'], 'thread')}; {found['date']}, commit {found['commit']}"
        for found in (row["conditions"] for row in report["rows"])
    }
    lines += ["", *sorted(made)]
    return "\n".join(lines)


def camera_table() -> str:
    """Return the comparison of the simulated event camera with N-MNIST's."""
    path = RESULTS / "camera.json"
    return render_camera(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_camera(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_camera.py`."""
    rows = {
        "events per recording, mean and standard deviation": "{events:,.0f} and {deviation:,.0f}",
        "ON events": "{on:.1%}",
        "events in the first, second and third 100 ms": "{saccades[0]:.0%}, {saccades[1]:.0%}, {saccades[2]:.0%}",
        "pixels with events": "{pixels:,.0f}",
    }
    lines = [f"On the first {report['images']:,} training images:", "", "| | simulated | real |", "|---|---|---|"]
    for name, form in rows.items():
        lines.append(f"| {name} | {form.format(**report['simulated'])} | {form.format(**report['real'])} |")
    lines += [
        "",
        f"The numbers of events of single images correlate by {report['correlation']:.2f}; of the events, "
        f"{report['profile_distance']:.0%} come in another step of 10 ms. An image takes",
        f"{report['cpu_ms_per_image']:.1f} ms of CPU.",
    ]
    return "\n".join(lines).replace("%", " %")


def engines_table() -> str:
    """Return the comparison of both engines on whole test sets."""
    path = RESULTS / "engines.json"
    return render_engines(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_engines(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_engines.py`."""
    lines = [
        f"On {report['kernels']}; {dated(report)}.",
        "",
        "| model | images | T | spikes | values compared | different |",
        "|---" * 6 + "|",
    ]
    for name, row in report["models"].items():
        numbers = (f"{row[key]:,}" for key in ("time_steps", "spikes", "places", "different"))
        lines.append(f"| `{name}` | {row['images']:,} of {row['data']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def c_table() -> str:
    """Return what C source was compared, and how fast and how large it is."""
    path = RESULTS / "c.json"
    return render_c(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_c(report: dict[str, Any]) -> str:
    """Return the tables of a report by `check_c.py`."""
    first = next(iter(report["models"].values()))
    builds, timed = list(first["builds"]), list(first["c_ms"])
    lines = [
        f"{report['cpu']}; {dated(report)}. By build: images that differ, of those compared. Times are of one image, "
        "with one thread.",
        "",
        f"| model | {' | '.join(builds)} | native, ms | {' | '.join(f'{name}, ms' for name in timed)} |",
        "|---" * (2 + len(builds) + len(timed)) + "|",
    ]
    for name, row in report["models"].items():
        cells = [f"{row['builds'][build]['different']} of {row['builds'][build]['images']:,}" for build in builds]
        cells += [
            f"{milliseconds:.2f}" for milliseconds in (row["native_ms"], *(row["c_ms"][build] for build in timed))
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    on_board = {name: row["cortex_m4"] for name, row in report["models"].items() if "cortex_m4" in row}
    if on_board:
        lines += [
            "",
            "Self-tests in qemu, with the images of the card, compiled with -O2. Flash, RAM and instructions are those "
            "of the Cortex-M4, for the first of these images.",
            "",
            "| model | Cortex-M4 | RISC-V | flash | RAM | instructions to show | a step |",
            "|---" * 7 + "|",
        ]
    for name, row in on_board.items():
        sizes = f"{row['flash_bytes']:,} | {report['models'][name]['ram_bytes']:,}"
        counts = f"{row['instructions_show']:,} | {row['instructions_step']:,}"
        said = f"{row['self_test']} | {report['models'][name].get('riscv64', '-')}"
        lines.append(f"| `{name}` | {said} | {sizes} | {counts} |")
    return "\n".join(lines)


def c_events_table() -> str:
    """Return what C source of networks that have time was compared, and how fast and how large it is."""
    path = RESULTS / "c_events.json"
    return render_c_events(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_c_events(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_c_events.py`."""
    rows = report["networks"]
    first = next(iter(rows.values()))
    builds, timed = ", ".join(first["builds"]), list(first["c_us"])
    lines = [
        f"{report['cpu']}; {dated(report)}. {first['recordings']} recordings of {first['steps']} steps, builds: "
        f"{builds}. Different: answers after a step in which a class or a logit differs, in all builds together. Times "
        "are of one step, with one thread; flash, RAM and instructions are those of the Cortex-M4, compiled with -O2.",
        "",
        f"| network | logits compared | different | native, us | {' | '.join(f'{name}, us' for name in timed)} | "
        "Cortex-M4 | RISC-V | flash | RAM | instructions a step |",
        "|---" * (9 + len(timed)) + "|",
    ]
    for name, row in rows.items():
        board = row.get("cortex_m4", {})
        compared = f"{row['answers'] * len(row['builds']):,} | {sum(row['builds'].values())}"
        times = " | ".join(f"{us:.1f}" for us in (row["native_us"], *(row["c_us"][build] for build in timed)))
        measured = [f"{board[key]:,}" if board else "-" for key in ("flash_bytes", "instructions_step")]
        boards = f"{board.get('self_test', '-')} | {row.get('riscv64', '-')}"
        lines.append(
            f"| {name} | {compared} | {times} | {boards} | {measured[0]} | {row['ram_bytes']:,} | {measured[1]} |"
        )
    return "\n".join(lines)


SMALL = 0.05
"""Fraction of the time below which an operator does not get its own row."""


def profile_table() -> str:
    """Return the share of each operator in the time of a step."""
    path = RESULTS / "profile.json"
    return render_profile(json.loads(path.read_text("utf-8"))) if path.exists() else NOT_MEASURED


def render_profile(report: dict[str, Any]) -> str:
    """Return a table for each network of a report by `profile_steps.py`."""
    lines = [
        f"{report['cpu']}, {report['threads']} threads, {report['kernel']}; batch {report['batch']}, T = 16; "
        f"{dated(report)}."
    ]
    for network, works in report["networks"].items():
        wholes = [sum(work["parts"].values()) for work in works.values()]
        shares = [
            {name: seconds / whole for name, seconds in work["parts"].items() if seconds >= SMALL * whole}
            for work, whole in zip(works.values(), wholes, strict=True)
        ]
        titles = [f"{what}, {1e3 * work['seconds']:.1f} ms" for what, work in works.items()]
        lines += ["", f"| {network} | {' | '.join(titles)} |", "|---" * (1 + len(works)) + "|"]
        names = dict.fromkeys(name for share in shares for name in share)
        for name in names:
            lines.append(f"| {name} | {' | '.join(f'{s[name]:.0%}' if name in s else '-' for s in shares)} |")
        rest = [f"{1 - sum(share.values()):.0%}" for share in shares]
        lines.append(f"| all else | {' | '.join(rest)} |")
    return "\n".join(lines)


TABLES = {
    "demo": demo_output,
    "others": others_table,
    "models": models_table,
    "models-short": partial(models_table, SHORT),
    "expect": expectation,
    "bench": partial(benchmark_table, BENCHMARK),
    "stream": partial(benchmark_table, RESULTS / "stream.json"),
    "accuracy": partial(benchmark_table, ACCURACY),
    "convert": conversion_table,
    "convert-notes": conversion_conditions,
    "fuzz": fuzz_table,
    "readers": readers_table,
    "faults": faults_table,
    "cluster": cluster_table,
    "delays": delays_table,
    "values": values_table,
    "estimate": estimate_table,
    "kills": kills_table,
    "engines": engines_table,
    "c": c_table,
    "c-events": c_events_table,
    "camera": camera_table,
    "deep": deep_table,
    "profile": profile_table,
    "spec": spec_reference,
}


def render(text: str) -> str:
    """Return a document with all tables between its markers written anew."""
    for name, table in TABLES.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    if sys.argv[1:2] == ["--print"]:
        print(TABLES[sys.argv[2]]())
        sys.exit()
    for path in DOCUMENTS:
        path.write_text(render(path.read_text("utf-8")), "utf-8")
