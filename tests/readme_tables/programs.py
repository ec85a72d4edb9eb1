"""Tables that compare snnzoo with other programs: time, memory, formats."""

from collections.abc import Iterator

from readme_tables.common import BUSY, Report, bullets, dated, markdown_table, number, paragraphs, read_results

PROGRAMS = ("snnzoo", "lava-dl", "snntorch", "norse", "spikingjelly", "sinabs")
COLUMNS = ("work", *PROGRAMS, "reference", "vs lava-dl", "vs best peer", "target", "met")


def benchmark(report: Report) -> str:
    """Return the table of a report by `bench.py` or `bench_stream.py`."""
    table = markdown_table(" | ".join(COLUMNS), map(cells, report["rows"]))
    return paragraphs(machine(report), table, bullets(notes(report)))


def machine(report: Report) -> str:
    """Return a line with the machine and the versions of a report."""
    under = report["under"]
    alike = len(set(under.values())) == 1
    versions = [f"{name} {v}" + ("" if alike else f" ({under[name]})") for name, v in report["versions"].items()]
    return (
        f"{report['cpu']}, {report['cores']} cores, {report['threads']} threads; snnzoo on {report['kernel']}; "
        f"{dated(report)}. {', '.join(versions)}" + (f"; all under {under['snnzoo']}." if alike else ".")
    )


def cells(row: Report) -> list[str]:
    """Return the cells of a row. Targets bound seconds, theirs over ours (at least), ours over the reference."""
    values, unit = row["wall"], row["unit"]
    ours, peers = values["snnzoo"], [values[name] for name in PROGRAMS[2:] if name in values]
    scale, unit = (1e3, "ms") if unit == "s" and ours < 1 else (1.0, unit)
    found, reference = {"seconds": ours}, "-"
    if "lava-dl" in values:
        found["lava-dl"] = values["lava-dl"] / ours
    if peers:
        found["peer"] = min(peers) / ours
    if "reference" in values:
        found["reference"] = ours / values["reference"]
        reference = f"{row['reference']} {number(values['reference'] * scale)}: {found['reference']:.2f}x"
    texts = {
        "lava-dl": "{:g}x lava-dl",
        "peer": "{:g}x best peer",
        "reference": "at most {:g}x " + str(row["reference"]),
        "seconds": "at most {:g} s",
    }
    known = {key: bound for key, bound in row["target"].items() if key in found}
    kept = all(found[k] <= bound if k in ("reference", "seconds") else found[k] >= bound for k, bound in known.items())
    return [
        f"{row['what']}, {unit}",
        *(number(values[name] * scale) if name in values else "-" for name in PROGRAMS),
        reference,
        *(times(found[key]) if key in found else "-" for key in ("lava-dl", "peer")),
        ", ".join(texts[key].format(bound) for key, bound in row["target"].items()) or "-",
        "no" if not kept else "yes" if known == row["target"] else "?",
    ]


def times(ratio: float) -> str:
    """Return a ratio as `12.3x`; below 10 as `3.99x`, so that rounding does not make it meet a target."""
    return f"{ratio:.{1 if ratio >= 10 else 2}f}x"


def notes(report: Report) -> Iterator[str]:
    """Yield notes to put below the table."""
    yield from report.get("notes", [])
    older: dict[str, list[str]] = {}
    for row in report["rows"]:
        if dated(report | row) != dated(report):
            older.setdefault(dated(report | row), []).append(row["what"])
    for when, rows in older.items():
        yield f"measured {when}: {', '.join(rows)}"
    for network, programs in report.get("agreement", {}).items():
        if programs:
            parts = ", ".join(f"{name} {part}" for name, part in programs.items())
            yield f"digits of the batch with the same class as in snnzoo, {network} network: {parts}"
    for network, rates in report.get("rates", {}).items():
        yield f"mean spike rates of the {network} network, from input to last block: {', '.join(map(str, rates))}"
    if report["busy_cores"] > BUSY:
        yield f"other work kept {report['busy_cores']:.1f} of {report['cores']} cores busy, so times are too long"


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


def others(report: Report) -> str:
    """Return a table that compares the programs of the field, with figures of `bench.py` and `bench_convert.py`."""
    converted = files_converted(read_results("convert"))
    measured = {row["what"]: row["wall"] for row in report["rows"]}
    walls = [measured[what] for what in MEASURED.values()]
    rows = (
        (name, *facts, *(number(1e3 * wall[name]) if name in wall else "-" for wall in walls), converted.get(name, "-"))
        for name, facts in OTHERS.items()
    )
    header = " | ".join(["", "arithmetic", "formats", "networks in", *MEASURED, "ONNX files converted"])
    note = (
        "Times: network 784-512-512-10, T = 16, batch 256 (one image: 1), medians of `make bench`. ONNX files: `make "
        "bench-convert`. [All measurements](tests/benchmarks/README.md)."
    )
    return paragraphs(markdown_table(header, rows), note)


def files_converted(report: Report) -> dict[str, str]:
    """Return for each program the number of ONNX files that it converted."""
    ours = sum("error" not in row["snnzoo"] for row in report["rows"])
    tried = [row["spikingjelly"].values() for row in report["rows"] if row["spikingjelly"]]
    theirs = sum(any("accuracy" in found for found in recipes) for recipes in tried)
    read = sum(not all(found.get("error", "").startswith("onnx2torch") for found in recipes) for recipes in tried)
    return {
        "snnzoo": f"{ours} of {len(report['rows'])}",
        "spikingjelly": f"{theirs} of {len(tried)} (onnx2torch reads {read})",
    }
