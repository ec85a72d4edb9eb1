"""Results of benchmarks, the parts of a table in Markdown, and its numbers."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Formatter
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
"""Folder of the files that the targets of `make` write."""
BUSY = 0.2
"""Number of cores busy with other work, above which a table mentions it."""
Report = dict[str, Any]


def read_results(name: str) -> Any:
    """Return the content of a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def markdown_table(header: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a table; `header` has the titles of the columns, with `|` between them, `rows` have a cell for each."""
    lines = [f"| {header} |", "|---" * (1 + header.count("|")) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, cells))} |" for cells in rows)])


class _Cells(Formatter):
    """Format the fields of a row: `{a[b]:,}` as usual, `{a:percent}` in percent, and `-` for what is not there."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str | int]:
        try:
            return super().get_field(field_name, args, kwargs)
        except KeyError:
            return None, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            return "-"
        return percent(value) if format_spec == "percent" else super().format_field(value, format_spec)


def table_by(header: str, row: str, rows: Iterable[Report]) -> str:
    """Return a table; `row` has the formats of a row's cells, with `|` between them."""
    return markdown_table(header, ([_Cells().format(row, **each)] for each in rows))


def named(rows: dict[str, Report]) -> Iterator[Report]:
    """Yield rows that are kept by name, each with its name."""
    return ({"name": name, **row} for name, row in rows.items())


def bullets(notes: Iterable[str]) -> str:
    """Return notes as a list."""
    return "\n".join(f"- {note}" for note in notes)


def paragraphs(*parts: str) -> str:
    """Return texts and tables one below the other; empty ones are left out."""
    return "\n\n".join(filter(None, parts))


def dated(report: Report) -> str:
    """Return date and commit of a report."""
    return report["date"] + (f", commit {report['commit']}" if report.get("commit") else "")


def number(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def percent(part: float | None) -> str:
    """Return a fraction of 1 in percent."""
    return "-" if part is None else f"{100 * part:.2f}"
