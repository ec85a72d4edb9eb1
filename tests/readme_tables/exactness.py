"""Tables of comparisons that must find no difference."""

import re
from typing import Any

from readme_tables.common import BUSY, bullets, dated, markdown_table, paragraphs


def render_engines(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_engines.py`."""
    keys = ("time_steps", "spikes", "places", "different")
    rows = (
        (f"`{name}`", f"{row['images']:,} of {row['data']}", *(f"{row[key]:,}" for key in keys))
        for name, row in report["models"].items()
    )
    table = markdown_table("model | images | T | spikes | values compared | different", rows)
    return paragraphs(f"On {report['kernels']}; {dated(report)}.", table)


def render_site(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_site.py`."""
    rows = (
        (
            f"`{name}`", f"{row['inputs']:,} of {row['data']}", f"{row['different']:,}", f"{row['page_bytes']:,}",
            f"{row['first_answer_ms']:.0f}", f"{row['step_ms']:.3f}",
        )
        for name, row in report["models"].items()
    )  # fmt: skip
    table = markdown_table("model | inputs | different | bytes of the page | first answer, ms | a step, ms", rows)
    busy = f"other work kept {report['busy_cores']:.1f} of {report['cores']} cores busy, so times are too long"
    text = f"{report['browser']} on {report['cpu']}; {dated(report)}"
    return paragraphs(f"{text}{f'; {busy}' if report['busy_cores'] > BUSY else ''}.", table)


def render_neurobench(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_neurobench.py`, and why figures differ."""
    rows, notes = [], dict[str, None]()
    for name, row in report["models"].items():
        for one in row["figures"]:
            theirs, ours = (f"{one[key]:,.9g}" for key in ("theirs", "ours"))
            rows.append((f"`{name}`", f"{row['images']:,}", one["name"], theirs, ours, "yes" if one["note"] else ""))
            if one["note"]:
                notes[f"{one['name']}: {one['note']}"] = None
    header = "model | images | figure | NeuroBench | ours | differ"
    intro = f"neurobench {report['neurobench']}; {dated(report)}."
    return paragraphs(intro, markdown_table(header, rows), bullets(notes))


def render_graphs(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_graphs.py`."""
    rows = []
    for name, row in report["models"].items():
        numbers = [f"{row[key]:,}" if key in row else "-" for key in ("blocks", "neurons", "weights", "different")]
        reason = row.get("refused") or row.get("failed") or ""
        error = f"{row['error']:.0e}" if "error" in row else "-"
        rows.append((f"`{name}`", row["side"], f"{row['parameters']:,}", error, *numbers, operators_refused(reason)))
    header = "model | side | parameters | error | layers | neurons | weights | different | refused"
    programs = ", ".join(f"{name} {report[name]}" for name in ("torchvision", "keras") if name in report)
    intro = f"{programs}, {report['images']} images; {dated(report)}."
    return paragraphs(intro, markdown_table(header, rows))


def operators_refused(text: str) -> str:
    """Return the operators that a refusal names, with the number of their nodes; any other text as it is.

    >>> operators_refused("2 of its nodes cannot become spiking layers: 2 nodes, such as /a/b (Mul): multiplies")
    '2 Mul'
    """
    found = re.findall(r"(?:(\d+) nodes, such as )?\S+ \((\w+)\): ", text.partition("spiking layers: ")[2])
    return ", ".join(f"{n or 1} {operator}" for n, operator in found) or text.replace("|", "/")


def render_c(report: dict[str, Any]) -> str:
    """Return the tables of a report by `check_c.py`."""
    models = report["models"]
    first = next(iter(models.values()))
    builds, timed = list(first["builds"]), list(first["c_ms"])
    header = " | ".join(["model", *builds, "native, ms", *(f"{name}, ms" for name in timed)])
    rows = []
    for name, row in models.items():
        cells = [f"{row['builds'][build]['different']} of {row['builds'][build]['images']:,}" for build in builds]
        cells += [f"{ms:.2f}" for ms in (row["native_ms"], *(row["c_ms"][build] for build in timed))]
        rows.append((f"`{name}`", *cells))
    intro = (
        f"{report['cpu']}; {dated(report)}. By build: images that differ, of those compared. Times are of one image, "
        "with one thread."
    )
    return paragraphs(intro, markdown_table(header, rows), *boards(models))


def boards(models: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return text and table of the models that ran on boards in qemu; nothing if none did."""
    rows = []
    for name, row in models.items():
        if board := row.get("cortex_m4"):
            self_tests = board["self_test"], row.get("riscv64", "-")
            numbers = board["flash_bytes"], row["ram_bytes"], board["instructions_show"], board["instructions_step"]
            rows.append((f"`{name}`", *self_tests, *(f"{number:,}" for number in numbers)))
    intro = (
        "Self-tests in qemu, with the images of the card, compiled with -O2. Flash, RAM and instructions are those of "
        "the Cortex-M4, for the first of these images."
    )
    header = "model | Cortex-M4 | RISC-V | flash | RAM | instructions to show | a step"
    return (intro, markdown_table(header, rows)) if rows else ()


def render_c_events(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_c_events.py`."""
    first = next(iter(report["networks"].values()))
    timed = list(first["c_us"])
    rows = []
    for name, row in report["networks"].items():
        board = row.get("cortex_m4", {})
        flash, instructions = (f"{board[key]:,}" if board else "-" for key in ("flash_bytes", "instructions_step"))
        compared = f"{row['answers'] * len(row['builds']):,}", sum(row["builds"].values())
        times = (f"{us:.1f}" for us in (row["native_us"], *(row["c_us"][build] for build in timed)))
        self_tests = board.get("self_test", "-"), row.get("riscv64", "-")
        rows.append((name, *compared, *times, *self_tests, flash, f"{row['ram_bytes']:,}", instructions))
    header = (
        f"network | logits compared | different | native, us | {' | '.join(f'{name}, us' for name in timed)} | "
        "Cortex-M4 | RISC-V | flash | RAM | instructions a step"
    )
    intro = (
        f"{report['cpu']}; {dated(report)}. {first['recordings']} recordings of {first['steps']} steps, builds: "
        f"{', '.join(first['builds'])}. Different: answers after a step in which a class or a logit differs, in all "
        "builds together. Times are of one step, with one thread; flash, RAM and instructions are those of the "
        "Cortex-M4, compiled with -O2."
    )
    return paragraphs(intro, markdown_table(header, rows))
