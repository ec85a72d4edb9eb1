"""Run models in their pages in headless Chromium, and compare with the integer engine; the pages have no network.

    python tests/benchmarks/check_site.py [MODEL...] [--inputs N] [--data-dir DIR] [--output FILE]

MODEL is a packaged model; default: all that run in their pages. `zoo site` makes the pages, with clang and lld. Each
page is opened twice, from the folder and from a web server on this machine, and answers N test inputs each time; where
a test set is smaller, training inputs follow. Times: from the request of the page to the first answer, and of a step.
Exits with 1 if a class or a logit differs, a state overflows, a page requests anything else, or the browser's console
says anything.
"""

import json
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from programs import arguments, conditions, write_report

sys.path.insert(0, str(Path(__file__).parents[1]))

from chromium import Chromium, find_chromium
from live_pages import READY, answers_in_page, answers_of_engine, served

from bootstrap_core.data.data_places import DataPlaces
from converters import Model
from zoo.cli.given_model import load_data
from zoo.factory import packaged_model
from zoo.site import make_site

TIMES = """(() => {
    const runs = performance.getEntriesByName("snnzoo-run"), sum = values => values.reduce((a, b) => a + b, 0);
    const [ready] = performance.getEntriesByName("snnzoo-ready");
    return {
        first_answer_ms: ready.startTime + runs[0].duration,
        step_ms: sum(runs.map(run => run.duration)) / sum(runs.map(run => run.detail)),
    };
})()"""


def inputs_of(model: Model, n: int, data_dir: Path | None) -> tuple[str, torch.Tensor]:
    """Return the data's name and `n` inputs: test inputs, then training inputs."""
    data = load_data(model, None, DataPlaces(data_dir))
    inputs = data.test.images[: min(n, len(data.test))]
    return data.name, inputs if len(inputs) == n else torch.cat([inputs, data.train.images[: n - len(inputs)]])


def compare(browser: Chromium, pages: list[str], name: str, n: int, data_dir: Path | None) -> dict[str, Any]:
    """Compare the pages of a model with the integer engine; return its row of the report."""
    model = packaged_model(name)
    data, inputs = inputs_of(model, n, data_dir)
    expected = answers_of_engine(model, inputs)
    row: dict[str, Any] = {"data": data, "inputs": len(inputs), "different": 0, "said": []}
    for page in pages:
        browser.open(page, prefers_reduced_motion="reduce")
        browser.wait(READY)
        found = answers_in_page(browser, model, inputs)
        row["different"] += sum(ours != theirs for ours, theirs in zip(found, expected, strict=True))
        others = {url for url in browser.requested if not url.startswith("data:")} - {page}
        row["said"] += [*browser.said, *(f"requested {url}" for url in sorted(others))]
        row |= browser.run(TIMES)
    return row


def main() -> None:
    """Compare each model."""
    parser = arguments(__doc__, output="site.json")
    parser.add_argument("models", nargs="*", help="default: all that run in their pages")
    parser.add_argument("--inputs", type=int, default=200, help="inputs for each page; default: 200")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("Error: needs Chromium: set $CHROMIUM, or put it on the path")
    rows: dict[str, Any] = {}
    found = conditions(1)
    with TemporaryDirectory() as name, served(Path(name)) as url:
        folder, browser = Path(name), Chromium(program)
        runs = {made["name"] for made in make_site(folder, say=partial(print, file=sys.stderr)) if made["runs"]}
        for model in options.models or sorted(runs):
            if model not in runs:
                sys.exit(f"Error: {model} does not run in its page: see above")
            path = folder / "models" / f"{model}.html"
            pages = [path.as_uri(), f"{url}/models/{model}.html"]
            row = compare(browser, pages, model, options.inputs, options.data_dir)
            rows[model] = {**row, "page_bytes": path.stat().st_size}
            print(
                f"{model}: {row['inputs']} inputs of {row['data']}, from a folder and from a server: "
                f"{row['different']} different; first answer after {row['first_answer_ms']:.0f} ms, "
                f"a step takes {row['step_ms']:.3f} ms",
                *row["said"],
                sep="\n  ",
                flush=True,
            )
        version = browser.send("Browser.getVersion")["product"]
        browser.close()
    known = json.loads(options.output.read_text("utf-8"))["models"] if options.output.exists() else {}
    report = {**found, "browser": version, "models": dict(sorted((known | rows).items()))}
    write_report(options.output, report)
    sys.exit(any(row["different"] or row["said"] for row in rows.values()))


if __name__ == "__main__":
    main()
