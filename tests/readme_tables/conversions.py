"""Tables of converted ONNX files."""

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from readme_tables.common import BUSY, bullets, markdown_table, paragraphs, percent, read_results
from specs.dataset_sources import dataset_title
from specs.words import counted

STEPS = ("16", "8", "4")
EACH = f"T = {' / '.join(STEPS)}"
NOT_CONVERTED = "not converted"


def render_conversions(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_convert.py`, with accuracies in percent, and its notes."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    header = f"file | ANN | untuned, T = 16 | tuned, {EACH} | met | SpikingJelly, {EACH} | `.net` | s"
    rows = (conversion_cells(row, report["targets"]) for row in report["rows"])
    return paragraphs(f"{versions}.", markdown_table(header, rows), bullets(conversion_notes(report)))


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


def expectation() -> str:
    """Return a sentence on the accuracy that conversions lose, in percentage points."""
    rows = read_results("convert")["rows"]
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


def render_conversion_notes(report: dict[str, Any]) -> str:
    """Return the reasons why files were not converted, and the machines on which the others were, as a list."""
    return bullets(conversion_details(report))


def conversion_details(report: dict[str, Any]) -> Iterator[str]:
    """Yield the reasons why files were not converted, and the machines on which the others were."""
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


def render_deep(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_deep.py`."""
    rows = []
    for row in report["rows"]:
        cells = [f"`{row['file']}`", dataset_title(row["data"]), f"{row['images']:,}", row["time_steps"]]
        cells += [percent(row[stage]) for stage in ("ann", "untuned", "tuned")]
        rows.append((*cells, f"{row['cpu_s']:.0f}", f"{row['memory_gib']:.1f}"))
    table = markdown_table("file | data | test images | T | ANN | untuned | tuned | CPU, s | memory, GiB", rows)
    return paragraphs(table, machines(report))


def render_messages(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_deep.py --messages`."""
    rows = []
    for row in report["rows"]:
        accuracies = [percent(row[name]) for name in ("ann", "messages")]
        counts = [f"{row[name]:,.0f}" for name in ("messages_per_frame", "synops_per_frame", "ann_multiplications")]
        rows.append((f"`{row['file']}`", *accuracies, *counts, f"{row['cpu_s']:.0f}"))
    header = "file | ANN | messages | messages/frame | synops/frame | multiplications of the ANN | CPU, s"
    return paragraphs(markdown_table(header, rows), machines(report))


def render_small(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_small.py`."""
    rows = []
    for row in report["rows"]:
        runs = row["runs"]
        gains = [100 * (run["final"] - run["untuned"]) for run in runs]
        means = [percent(mean(run[stage] for run in runs)) for stage in ("untuned", "final")]
        counts = [sum(run["kept"] for run in runs), sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)]
        cells = [f"`{row['file']}`", row["time_steps"], row["images"], len(runs), *means, *counts]
        rows.append((*cells, f"{min(gains):.2f}", f"{row['cpu_s']:.0f}"))
    header = "file | T | images | conversions | untuned | final | kept | helped | harmed | worst | CPU, s"
    return paragraphs(markdown_table(header, rows), machines(report))


def machines(report: dict[str, Any]) -> str:
    """Return the machines on which the rows of a report were measured, as a list."""
    made = {
        f"{found['cpu']}, {counted(found['threads'], 'thread')}; {found['date']}, commit {found['commit']}"
        for found in (row["conditions"] for row in report["rows"])
    }
    return bullets(sorted(made))
