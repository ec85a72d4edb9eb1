"""Tables of training: delays, values, and the parts of a step."""

from fractions import Fraction
from statistics import mean
from typing import Any

from readme_tables.common import dated, markdown_table, paragraphs
from specs.words import counted


def render_delays(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_delays.py`."""
    found = report["accuracies"]
    kinds = list(next(iter(found.values())))
    n_seeds = len(next(iter(found.values()))[kinds[0]])
    intro = (
        f"{report['classes']} classes, {report['channels']} channels, delays up to {report['longest']} steps; mean of "
        f"{counted(n_seeds, 'seed')}, lowest to highest; {dated(report)}."
    )
    rows = (
        (n, *(f"{mean(row):.1%} ({min(row):.1%} to {max(row):.1%})" for row in of_kinds.values()))
        for n, of_kinds in found.items()
    )
    return paragraphs(intro, markdown_table(f"neurons | {' | '.join(f'delays: {kind}' for kind in kinds)}", rows))


def render_values(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_values.py`."""
    intro = (
        f"The slopes have a standard deviation of {report['deviation']:.2f}, and the ANN has an error of "
        f"{report['ann']:.4f} and {report['macs']:,} MACs; the first run took {report['seconds']:.0f} s; "
        f"{dated(report)}."
    )
    rows = []
    for row in report["rows"]:
        tuned = "-" if row["tuned"] is None else f"{row['tuned']:.4f}"
        messages = ", ".join(f"{each:.2f}" for each in row["messages"])
        rows.append((Fraction(row["threshold"]), f"{row['untuned']:.4f}", tuned, messages, f"{row['synops']:,.0f}"))
    header = "threshold | rms error, not tuned | tuned | messages per neuron and step | synops per step"
    return paragraphs(intro, markdown_table(header, rows))


SMALL = 0.05
"""Fraction of the time below which an operator does not get its own row."""


def render_profile(report: dict[str, Any]) -> str:
    """Return a table for each network of a report by `profile_steps.py`."""
    intro = (
        f"{report['cpu']}, {report['threads']} threads, {report['kernel']}; batch {report['batch']}, T = 16; "
        f"{dated(report)}."
    )
    tables = []
    for network, works in report["networks"].items():
        wholes = [sum(work["parts"].values()) for work in works.values()]
        shares = [
            {name: seconds / whole for name, seconds in work["parts"].items() if seconds >= SMALL * whole}
            for work, whole in zip(works.values(), wholes, strict=True)
        ]
        titles = [f"{what}, {1e3 * work['seconds']:.1f} ms" for what, work in works.items()]
        names = dict.fromkeys(name for share in shares for name in share)
        rows = [(name, *(f"{share[name]:.0%}" if name in share else "-" for share in shares)) for name in names]
        rest = ("all else", *(f"{1 - sum(share.values()):.0%}" for share in shares))
        tables.append(markdown_table(" | ".join([network, *titles]), [*rows, rest]))
    return paragraphs(intro, *tables)
