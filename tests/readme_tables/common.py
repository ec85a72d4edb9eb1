"""Results of benchmarks, the parts of a table in Markdown, and its numbers."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
"""Folder of the files that the targets of `make` write."""
BUSY = 0.2
"""Number of cores busy with other work, above which a table mentions it."""


def read_results(name: str) -> Any:
    """Return the content of a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def table_of(name: str, render: Callable[[Any], str]) -> str:
    """Return the table that `render` makes of a file of results, if it is there."""
    return render(read_results(name)) if (RESULTS / f"{name}.json").exists() else "Not measured yet."


def markdown_table(header: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a table; `header` has the titles of the columns, with `|` between them, `rows` have a cell for each."""
    lines = [f"| {header} |", "|---" * (1 + header.count("|")) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, cells))} |" for cells in rows)])


def bullets(notes: Iterable[str]) -> str:
    """Return notes as a list."""
    return "\n".join(f"- {note}" for note in notes)


def paragraphs(*parts: str) -> str:
    """Return texts and tables one below the other; empty ones are left out."""
    return "\n\n".join(filter(None, parts))


def dated(report: dict[str, Any]) -> str:
    """Return date and commit of a report."""
    return report["date"] + (f", commit {report['commit']}" if report.get("commit") else "")


def number(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def percent(part: float | None) -> str:
    """Return a fraction of 1 in percent."""
    return "-" if part is None else f"{100 * part:.2f}"
