"""Tables of converted ONNX files beside SpikingJelly, of a report by `bench_convert.py`."""

from collections.abc import Iterator
from statistics import median

from readme_tables.common import BUSY, Report, bullets, markdown_table, paragraphs, percent

STEPS = ("16", "8", "4")
EACH = f"T = {' / '.join(STEPS)}"
NOT_CONVERTED = "not converted"


def conversions(report: Report) -> str:
    """Return the table, with accuracies in percent, and its notes."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    header = f"file | ANN | untuned, T = 16 | tuned, {EACH} | met | SpikingJelly, {EACH} | `.net` | s"
    rows = (cells(row, report["targets"]) for row in report["rows"])
    return paragraphs(f"{versions}.", markdown_table(header, rows), bullets(notes(report)))


def cells(row: Report, targets: dict[str, dict[str, float]]) -> list[str]:
    """Return the cells of a row."""
    ours, theirs = row["snnzoo"], list(row["spikingjelly"].values())
    peers = [found for found in theirs if "accuracy" in found]
    best = {t: max((found["accuracy"][t] for found in peers), default=None) for t in STEPS}
    spiking = percents(best) if peers else NOT_CONVERTED if theirs else "-"
    if "error" in ours:
        ann = peers[0]["ann"] if peers else None
        return [f"`{row['file']}`", percent(ann), NOT_CONVERTED, "-", "-", spiking, "-", "-"]
    netx = ours["netx"]
    same = "-" if "error" in netx else f"{netx['different']} images differ" if netx["different"] else "same"
    scores = percent(ours["ann"]), percent(ours["untuned"].get("16")), percents(ours["tuned"])
    return [f"`{row['file']}`", *scores, targets_met(ours, targets), spiking, same, f"{ours['seconds']:.0f}"]


def expectation(report: Report) -> str:
    """Return a sentence on the accuracy that conversions lose, in percentage points."""
    rows = report["rows"]
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


def targets_met(found: Report, targets: dict[str, dict[str, float]]) -> str:
    """Return whether a conversion meets the targets: yes, no, or ? if something was not measured."""
    wanted = [(found[stage].get(t), points) for stage, limits in targets.items() for t, points in limits.items()]
    lost = [(100 * (found["ann"] - accuracy), points) for accuracy, points in wanted if accuracy is not None]
    if any(loss > points + 1e-9 for loss, points in lost):
        return "no"
    return "yes" if len(lost) == len(wanted) else "?"


def notes(report: Report) -> Iterator[str]:
    """Yield notes to put below the table."""
    allowed = "; ".join(
        f"{stage}: {', '.join(f'{points:g} at T = {t}' for t, points in targets.items())}"
        for stage, targets in report["targets"].items()
    )
    yield f"met: the SNN loses at most these points of accuracy against the ANN. {allowed[0].upper()}{allowed[1:]}."
    if recipes := list(dict.fromkeys(recipe for row in report["rows"] for recipe in row["spikingjelly"])):
        yield (
            "SpikingJelly: analog input, float weights, reset by subtraction, calibrated on images of the same set, no "
            f"training. For each T the best of its recipes ({', '.join(recipes)}) on the test set. It converts "
            "PyTorch modules, which onnx2torch made from the files where it could."
        )


def conversion_notes(report: Report) -> str:
    """Return the reasons why files were not converted, and the machines on which the others were, as a list."""
    lines, measured = [], dict[str, list[str]]()
    for row in report["rows"]:
        file, ours, theirs = f"`{row['file']}`", row["snnzoo"], row["spikingjelly"].values()
        if "error" in ours:
            lines.append(f"{file}, snnzoo: {ours['error']}")
        elif "error" in ours["netx"]:
            lines.append(f"{file}, `.net`: {ours['netx']['error']}")
        if theirs and all("error" in found for found in theirs):
            lines.append(f"{file}, {next(iter(theirs))['error']}")
        found = row["conditions"]
        busy = f"; other work kept {found['busy_cores']:.1f} cores busy, so it took longer"
        machine = "{cpu}, {cores} cores, {threads} threads; {date}".format(**found)
        measured.setdefault(machine + busy * (found["busy_cores"] > BUSY), []).append(file)
    return bullets([*lines, *(f"{machine}: {', '.join(files)}" for machine, files in measured.items())])
