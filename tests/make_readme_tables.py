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

from readme_tables import conversions, measured, programs
from readme_tables.common import RESULTS, read_results
from readme_tables.models import SHORT, models_table
from readme_tables.spec_reference import spec_reference

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "specs", "bootstrap_core", "converters", "zoo", "tests/benchmarks")
DOCUMENTS = [*(ROOT / folder / "README.md" for folder in FOLDERS), ROOT / "ARCHITECTURE.md"]

RENDERED = {
    "others": ("bench", programs.others),
    "expect": ("convert", conversions.expectation),
    "bench": ("bench", programs.benchmark),
    "stream": ("stream", programs.benchmark),
    "convert": ("convert", conversions.conversions),
    "convert-notes": ("convert", conversions.conversion_notes),
    "graphs": ("graphs", measured.graphs),
    "deep": ("deep", measured.deep),
    "messages": ("messages", measured.messages),
    "small": ("small", measured.small),
    "fuzz": ("fuzz", measured.fuzz),
    "readers": ("readers", measured.readers),
    "kills": ("kills", measured.kills),
    "delays": ("delays", measured.delays),
    "values": ("values", measured.values),
    "profile": ("profile", measured.profile),
    "engines": ("engines", measured.engines),
    "site": ("site", measured.site),
    "neurobench": ("neurobench", measured.neurobench),
    "c": ("c", measured.c),
    "c-events": ("c_events", measured.c_events),
}
"""Name of the file of results and function of the tables that are made of one."""
TABLES = {
    "demo": lambda: f"```\n{(RESULTS / 'demo.txt').read_text('utf-8').rstrip()}\n```",
    "models": models_table,
    "models-short": partial(models_table, SHORT),
    "spec": spec_reference,
    **{name: lambda file=file, table=table: table(read_results(file)) for name, (file, table) in RENDERED.items()},
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
