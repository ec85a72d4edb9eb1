"""Write the README's tables from what was measured: `python tests/make_readme_tables.py`.

`models` comes from the cards inside the packaged weights, `lava-dl` from the last `make bench`. `--print NAME` only
prints one.
"""

import json
import re
import sys
from pathlib import Path

from specs import summarize
from zoo.factory import model_names, packaged_model

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BENCHMARK = ROOT / "tests" / "benchmarks" / "results" / "lava_dl.json"


def models_table() -> str:
    """One row for each packaged model."""
    rows = [
        "| model | layers | T | SNN test accuracy | ANN test accuracy | synops/image | parameters | chosen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in model_names():
        model = packaged_model(name)
        training, snn, ann = model.card["training"], model.card["test"]["snn"], model.card["test"]["ann"]
        shapes = "-".join("x".join(map(str, shape)) for shape in model.spec.shapes)
        parameters = sum(row.parameters for row in summarize(model.spec))
        cells = [
            f"`{name}`",
            shapes,
            str(snn["time_steps"]),
            f"{100 * snn['accuracy']:.2f} %",
            f"{100 * ann['accuracy']:.2f} %",
            f"{snn['synops']:,.0f}",
            f"{parameters:,}",
            f"epoch {training['epoch'] + 1} of {training['epochs']}, seed {training['seed']}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def benchmark_table() -> str:
    """Medians beside lava-dl's, by CPU time, which a busy machine disturbs least."""
    report = json.loads(BENCHMARK.read_text("utf-8"))
    rows = ["| CPU seconds for the whole of MNIST | snnzoo | lava-dl | ratio |", "|---|---|---|---|"]
    for row in report["rows"]:
        seconds = row["cpu_seconds"]
        rows.append(f"| {row['what']} | {seconds['snnzoo']:.1f} | {seconds['lava_dl']:.1f} | {seconds['ratio']:.2f} |")
    return "\n".join([*rows, "", *(f"- {note}" for note in report["notes"])])


TABLES = {"models": models_table, "lava-dl": benchmark_table}


def render(text: str) -> str:
    """The README with fresh tables between its markers."""
    for name, table in TABLES.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    if sys.argv[1:2] == ["--print"]:
        print(TABLES[sys.argv[2]]())
        sys.exit()
    README.write_text(render(README.read_text("utf-8")), "utf-8")
