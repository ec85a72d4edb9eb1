"""Write the generated tables of the README files and of ARCHITECTURE.

    python tests/make_readme_tables.py [--print NAME]

A table stands between the lines `<!-- NAME -->` and `<!-- end -->`; `TABLES` has the function for each name. They read
cards, the JSON Schema, and the results that the targets of `make` leave in `tests/benchmarks/results/`. `--print NAME`
prints one table and writes nothing.
"""

import re
import sys
from functools import partial
from pathlib import Path

from readme_tables.common import RESULTS, table_of
from readme_tables.conversions import (
    expectation,
    render_conversion_notes,
    render_conversions,
    render_deep,
    render_messages,
    render_small,
)
from readme_tables.exactness import (
    render_c,
    render_c_events,
    render_engines,
    render_graphs,
    render_neurobench,
    render_site,
)
from readme_tables.hardening import faults_table, render_fuzz, render_kills, render_readers
from readme_tables.models import SHORT, models_table
from readme_tables.programs import others_table, render_benchmark
from readme_tables.spec_reference import spec_reference
from readme_tables.training import render_delays, render_profile, render_values

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "specs", "bootstrap_core", "converters", "zoo", "tests/benchmarks")
DOCUMENTS = [*(ROOT / folder / "README.md" for folder in FOLDERS), ROOT / "ARCHITECTURE.md"]


def demo_output() -> str:
    """Return the output of `zoo demo` when `make docs` ran it."""
    return f"```\n{(RESULTS / 'demo.txt').read_text('utf-8').rstrip()}\n```"


TABLES = {
    "demo": demo_output,
    "others": others_table,
    "models": models_table,
    "models-short": partial(models_table, SHORT),
    "expect": expectation,
    "bench": partial(table_of, "bench", render_benchmark),
    "stream": partial(table_of, "stream", render_benchmark),
    "convert": partial(table_of, "convert", render_conversions),
    "convert-notes": partial(table_of, "convert", render_conversion_notes),
    "graphs": partial(table_of, "graphs", render_graphs),
    "deep": partial(table_of, "deep", render_deep),
    "messages": partial(table_of, "messages", render_messages),
    "small": partial(table_of, "small", render_small),
    "fuzz": partial(table_of, "fuzz", render_fuzz),
    "readers": partial(table_of, "readers", render_readers),
    "kills": partial(table_of, "kills", render_kills),
    "faults": faults_table,
    "delays": partial(table_of, "delays", render_delays),
    "values": partial(table_of, "values", render_values),
    "profile": partial(table_of, "profile", render_profile),
    "engines": partial(table_of, "engines", render_engines),
    "site": partial(table_of, "site", render_site),
    "neurobench": partial(table_of, "neurobench", render_neurobench),
    "c": partial(table_of, "c", render_c),
    "c-events": partial(table_of, "c_events", render_c_events),
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
