"""Tables of training: several processes, delays, values, and the parts of a step."""

from fractions import Fraction
from statistics import mean
from typing import Any

from readme_tables.common import BUSY, bullets, dated, markdown_table, paragraphs
from specs.words import counted

__all__ = ["render_cluster", "render_delays", "render_estimate", "render_profile", "render_values"]


def render_cluster(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_cluster.py`."""
    alone, parted = report["seconds"]["1"], report["largest_difference"]
    rows = []
    for n, seconds in report["seconds"].items():
        cells = [f"{seconds[mode]:.2f} ({alone[mode] / seconds[mode]:.2f}x)" for mode in ("ann", "snn")]
        rows.append((n, *cells, *("-" if n == "1" else f"{part:.1e}" for part in parted.values())))
    table = markdown_table(f"processes | ANN epoch, s | SNN epoch, s | {' | '.join(differences(parted))}", rows)
    intro = (
        f"{report['cpu']}, {report['cores']} cores, one thread for each process; {dated(report)}. "
        f"`{report['network']}` without dropout on {report['dataset']}, {report['epochs']} epochs "
        f"of {report['images']:,} images, the last as SNN. "
        f"The loss of the last batch ({report['batches']}) is {report['losses']['1'][-1]:.4f}."
    )
    busy = f"other work kept {report['busy_cores']:.1f} of {report['cores']} cores busy: the times are unreliable"
    return paragraphs(intro, table, bullets([busy] if report["busy_cores"] > BUSY else []))


def differences(parted: dict[str, float]) -> list[str]:
    """Return the headers of the columns with the largest difference of losses after some batches."""
    return [f"loss difference, {n} batch{'es' if n != '1' else ''}" for n in parted]


def render_estimate(report: dict[str, Any]) -> str:
    """Return the table of a report by `estimate_cluster.py`."""
    assumed, price = report["assumed"], report["assumed"]["dollars_per_hour"]
    intro = (
        f"ResNet-50 as a spec: {report['products'] / 1e9:.2f} billion multiplications per image and time step, "
        f"{report['parameters'] / 1e6:.1f} million parameters. {assumed['epochs']} epochs of {assumed['images']:,} "
        f"images, {assumed['images'] * assumed['image_bytes'] / 1e9:.0f} GB as uint8."
    )
    rows = []
    for row in report["rows"]:
        cells = [row["time_steps"], row["gpus"], row["batch"], f"{row['hours']:.1f}"]
        rows.append((*cells, f"{100 * row['meeting_part']:.1f} %", f"{row['dollars']} $"))
    header = f"T | {assumed['gpu']} | images on each | hours | of it communication | at {price:g} $ an hour"
    notes = (
        f"Assumed: {assumed['products_per_second'] / 1e12:g} tera multiplications per second, of which "
        f"{assumed['part_of_peak']:.0%} are reached; three times the multiplications of a forward pass; "
        f"{assumed['bytes_per_second'] / 1e12:g} TB/s of memory bandwidth, {assumed['neuron_bytes']:g} bytes moved and "
        f"{assumed['kept_bytes']:g} stored for each neuron and step, {assumed['memory_bytes'] / 1e9:g} GB for them; "
        f"{assumed['network_bytes_per_second'] / 1e9:g} GB/s between hosts.",
        "No network of this size has been converted. Dozens of layers lose accuracy; whether two epochs recover it "
        "is unknown.",
    )
    return paragraphs(intro, markdown_table(header, rows), bullets(notes))


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
