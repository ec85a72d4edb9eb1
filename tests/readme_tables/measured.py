"""Tables of what the targets of `make` measure on our own code: exactness, memory, training, conversion."""

import re
from fractions import Fraction
from statistics import mean

from readme_tables.common import BUSY, Report, bullets, dated, markdown_table, named, paragraphs, table_by
from specs.dataset_sources import dataset_title
from specs.words import counted


def engines(report: Report) -> str:
    header = "model | images | T | spikes | values compared | different"
    row = "`{name}` | {images:,} of {data} | {time_steps:,} | {spikes:,} | {places:,} | {different:,}"
    return paragraphs(f"On {report['kernels']}; {dated(report)}.", table_by(header, row, named(report["models"])))


def site(report: Report) -> str:
    busy = f"; other work kept {report['busy_cores']:.1f} of {report['cores']} cores busy, so times are too long"
    intro = f"{report['browser']} on {report['cpu']}; {dated(report)}{busy if report['busy_cores'] > BUSY else ''}."
    header = "model | inputs | different | bytes of the page | first answer, ms | a step, ms"
    row = "`{name}` | {inputs:,} of {data} | {different:,} | {page_bytes:,} | {first_answer_ms:.0f} | {step_ms:.3f}"
    return paragraphs(intro, table_by(header, row, named(report["models"])))


def neurobench(report: Report) -> str:
    rows = [
        {"model": name, "images": found["images"], **one, "differ": "yes" if one["note"] else ""}
        for name, found in report["models"].items()
        for one in found["figures"]
    ]
    notes = dict.fromkeys(f"{one['name']}: {one['note']}" for one in rows if one["note"])
    header = "model | images | figure | NeuroBench | ours | differ"
    row = "`{model}` | {images:,} | {name} | {theirs:,.9g} | {ours:,.9g} | {differ}"
    intro = f"neurobench {report['neurobench']}; {dated(report)}."
    return paragraphs(intro, table_by(header, row, rows), bullets(notes))


def graphs(report: Report) -> str:
    header = "model | side | parameters | error | layers | neurons | weights | different | refused"
    row = "`{name}` | {side} | {parameters:,} | {error:.0e} | {blocks:,} | {neurons:,} | {weights:,} | {different:,} | "
    rows = (
        one | {"reason": operators_refused(one.get("refused") or one.get("failed") or "")}
        for one in named(report["models"])
    )
    programs = ", ".join(f"{name} {report[name]}" for name in ("torchvision", "keras") if name in report)
    intro = f"{programs}, {report['images']} images; {dated(report)}."
    return paragraphs(intro, table_by(header, f"{row}{{reason}}", rows))


def operators_refused(text: str) -> str:
    """Return the operators that a refusal names, with the number of their nodes; any other text as it is.

    >>> operators_refused("2 of its nodes cannot become spiking layers: 2 nodes, such as /a/b (Mul): multiplies")
    '2 Mul'
    """
    found = re.findall(r"(?:(\d+) nodes, such as )?\S+ \((\w+)\): ", text.partition("spiking layers: ")[2])
    return ", ".join(f"{n or 1} {operator}" for n, operator in found) or text.replace("|", "/")


def c(report: Report) -> str:
    """Return the tables of compilers, and of boards in qemu."""
    models = list(named(report["models"]))
    builds, timed = models[0]["builds"], models[0]["c_ms"]
    intro = (
        f"{report['cpu']}; {dated(report)}. By build: images that differ, of those compared. Times are of one image, "
        "with one thread."
    )
    header = " | ".join(["model", *builds, "native, ms", *(f"{build}, ms" for build in timed)])
    compared = [f"{{builds[{build}][different]}} of {{builds[{build}][images]:,}}" for build in builds]
    row = " | ".join(["`{name}`", *compared, "{native_ms:.2f}", *(f"{{c_ms[{build}]:.2f}}" for build in timed)])
    on_boards = (
        "Self-tests in qemu, with the images of the card, compiled with -O2. Flash, RAM and instructions are those of "
        "the Cortex-M4, for the first of these images."
    )
    boards = table_by(
        "model | Cortex-M4 | RISC-V | flash | RAM | instructions to show | a step",
        "`{name}` | {cortex_m4[self_test]} | {riscv64} | {cortex_m4[flash_bytes]:,} | {ram_bytes:,} | "
        "{cortex_m4[instructions_show]:,} | {cortex_m4[instructions_step]:,}",
        (one for one in models if one.get("cortex_m4")),
    )
    return paragraphs(intro, table_by(header, row, models), on_boards, boards)


def c_events(report: Report) -> str:
    first = next(iter(report["networks"].values()))
    rows = (
        one | {"compared": one["answers"] * len(one["builds"]), "different": sum(one["builds"].values())}
        for one in named(report["networks"])
    )
    intro = (
        f"{report['cpu']}; {dated(report)}. {first['recordings']} recordings of {first['steps']} steps, builds: "
        f"{', '.join(first['builds'])}. Different: answers after a step in which a class or a logit differs, in all "
        "builds together. Times are of one step, with one thread; flash, RAM and instructions are those of the "
        "Cortex-M4, compiled with -O2."
    )
    header = "network | logits compared | different | native, us"
    row = "{name} | {compared:,} | {different} | {native_us:.1f}"
    for build in first["c_us"]:
        header, row = f"{header} | {build}, us", f"{row} | {{c_us[{build}]:.1f}}"
    header += " | Cortex-M4 | RISC-V | flash | RAM | instructions a step"
    row += " | {cortex_m4[self_test]} | {riscv64} | {cortex_m4[flash_bytes]:,} | {ram_bytes:,}"
    return paragraphs(intro, table_by(header, f"{row} | {{cortex_m4[instructions_step]:,}}", rows))


def fuzz(report: Report) -> str:
    rows = []
    for name, n_cases in report["cases"].items():
        found = report["formats"].get(name, {})
        runs = [f"{found[engine]['executions']:,}" if engine in found else "-" for engine in ("bytes", "structure")]
        ends = [f"{sum(run[end] for run in found.values()):,}" for end in ("read", "refused", "failed")]
        rows.append((name, n_cases, *runs, *ends, max((run.get("date", "-") for run in found.values()), default="-")))
    header = "format | cases tried | bytes changed | structure changed | read | refused | failed | last run"
    return markdown_table(header, rows)


def readers(report: Report) -> str:
    rows = (
        one | {"reason": "" if one["outcome"] == "read" else f"{one['outcome']}: {one['text']}"}
        for one in report["rows"]
    )
    row = "{format} | {file_mib:g} | {peak_mib} | {seconds:.2f} | {reason}"
    return paragraphs(f"{report['date']}.", table_by("format | file, MiB | peak, MiB | CPU s |", row, rows))


def kills(report: Report) -> str:
    header = "command | tries | killed | resumed | temporaries | lost | date"
    row = "{name} | {tries} | {killed} | {resumed} | {temporaries} | {lost} | {date}"
    return table_by(header, row, named(report))


def machines(report: Report) -> str:
    """Return the machines on which the rows of a report were measured, as a list."""
    made = {
        f"{found['cpu']}, {counted(found['threads'], 'thread')}; {found['date']}, commit {found['commit']}"
        for found in (row["conditions"] for row in report["rows"])
    }
    return bullets(sorted(made))


def deep(report: Report) -> str:
    header = "file | data | test images | T | ANN | untuned | tuned | CPU, s | memory, GiB"
    row = (
        "`{file}` | {title} | {images:,} | {time_steps} | {ann:percent} | {untuned:percent} | {tuned:percent} | "
        "{cpu_s:.0f} | {memory_gib:.1f}"
    )
    rows = (one | {"title": dataset_title(one["data"])} for one in report["rows"])
    return paragraphs(table_by(header, row, rows), machines(report))


def messages(report: Report) -> str:
    header = "file | ANN | messages | messages/frame | synops/frame | multiplications of the ANN | CPU, s"
    row = (
        "`{file}` | {ann:percent} | {messages:percent} | {messages_per_frame:,.0f} | {synops_per_frame:,.0f} | "
        "{ann_multiplications:,.0f} | {cpu_s:.0f}"
    )
    return paragraphs(table_by(header, row, report["rows"]), machines(report))


def small(report: Report) -> str:
    rows = []
    for one in report["rows"]:
        gains = [100 * (run["final"] - run["untuned"]) for run in one["runs"]]
        counts = {"helped": sum(gain > 0 for gain in gains), "harmed": sum(gain < 0 for gain in gains)}
        means = {stage: mean(run[stage] for run in one["runs"]) for stage in ("untuned", "final")}
        kept = sum(run["kept"] for run in one["runs"])
        rows.append({**one, **counts, **means, "n": len(gains), "kept": kept, "worst": min(gains)})
    header = "file | T | images | conversions | untuned | final | kept | helped | harmed | worst | CPU, s"
    row = (
        "`{file}` | {time_steps} | {images} | {n} | {untuned:percent} | {final:percent} | {kept} | {helped} | {harmed} "
        "| {worst:.2f} | {cpu_s:.0f}"
    )
    return paragraphs(table_by(header, row, rows), machines(report))


def delays(report: Report) -> str:
    found = report["accuracies"]
    first = next(iter(found.values()))
    intro = (
        f"{report['classes']} classes, {report['channels']} channels, delays up to {report['longest']} steps; mean of "
        f"{counted(len(next(iter(first.values()))), 'seed')}, lowest to highest; {dated(report)}."
    )
    rows = (
        (n, *(f"{mean(row):.1%} ({min(row):.1%} to {max(row):.1%})" for row in of_kinds.values()))
        for n, of_kinds in found.items()
    )
    return paragraphs(intro, markdown_table(" | ".join(["neurons", *(f"delays: {kind}" for kind in first)]), rows))


def values(report: Report) -> str:
    intro = (
        f"The slopes have a standard deviation of {report['deviation']:.2f}, and the ANN has an error of "
        f"{report['ann']:.4f} and {report['macs']:,} MACs; the first run took {report['seconds']:.0f} s; "
        f"{dated(report)}."
    )
    rows = (
        one | {"threshold": Fraction(one["threshold"]), "said": ", ".join(f"{each:.2f}" for each in one["messages"])}
        for one in report["rows"]
    )
    header = "threshold | rms error, not tuned | tuned | messages per neuron and step | synops per step"
    return paragraphs(
        intro, table_by(header, "{threshold} | {untuned:.4f} | {tuned:.4f} | {said} | {synops:,.0f}", rows)
    )


def profile(report: Report, least: float = 0.05) -> str:
    """Return a table for each network; parts below `least` have no row."""
    intro = (
        f"{report['cpu']}, {report['threads']} threads, {report['kernel']}; batch {report['batch']}, T = 16; "
        f"{dated(report)}."
    )
    tables = []
    for network, works in report["networks"].items():
        wholes = [(work["parts"], sum(work["parts"].values())) for work in works.values()]
        shares = [{name: s / whole for name, s in parts.items() if s >= least * whole} for parts, whole in wholes]
        titles = [f"{what}, {1e3 * work['seconds']:.1f} ms" for what, work in works.items()]
        names = dict.fromkeys(name for share in shares for name in share)
        rows = [(name, *(f"{share[name]:.0%}" if name in share else "-" for share in shares)) for name in names]
        rest = ("all else", *(f"{1 - sum(share.values()):.0%}" for share in shares))
        tables.append(markdown_table(" | ".join([network, *titles]), [*rows, rest]))
    return paragraphs(intro, *tables)
