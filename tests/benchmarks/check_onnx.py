"""Import each ONNX file of a folder and score its ANN on the MNIST test set.

    python tests/benchmarks/check_onnx.py --folder FOLDER --data DIR [--json]

Prints a row for each file: the largest difference from onnx's evaluator on random and on real images, as a share of the
largest logit; the accuracy of the ANN on all 10,000 images; the accuracy that the table in the folder's README.md
states; the outcome. That table also names the preprocessing of each file, `x/255` or `(x/255-.1307)/.3081`; the default
is `x/255`. Exits with 1 if an imported file differs by more than 1e-4, or its accuracy by more than 0.02 points, a few
images near a decision boundary (0.1 points where the import leaves out the rounding of a quantised model).
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from programs import arguments
from torch import Tensor

from bootstrap_core.data.datasets import load_dataset
from converters.linear.ann import run_ann
from converters.onnx.import_ann import TOLERANCE, import_ann
from converters.onnx.reference_check import largest_errors
from specs import SnnZooError

BATCH, REAL_IMAGES = 500, 32
NORMALISED = "(x/255-.1307)/.3081"


@dataclass(frozen=True)
class Row:
    """Row of the output; accuracies in percent."""

    file: str
    outcome: str
    random_error: float | None = None
    real_error: float | None = None
    accuracy: float | None = None
    said: float | None = None
    exact: bool = True

    @property
    def good(self) -> bool:
        """True if errors and accuracy are within the tolerances."""
        errors = [error for error in (self.random_error, self.real_error) if error is not None]
        off = 0.0 if self.accuracy is None or self.said is None else abs(self.accuracy - self.said)
        return all(error < TOLERANCE for error in errors) and off <= (0.021 if self.exact else 0.1)


def said_of(folder: Path) -> dict[str, dict[str, str]]:
    """Read the table in the folder's README.md: cells by file and column."""
    readme = folder / "README.md"
    lines = readme.read_text("utf-8").splitlines() if readme.is_file() else []
    table = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(table[0], row, strict=False)) for row in table[2:]}


def normalisation(said: dict[str, str]) -> tuple[float, float]:
    """Return mean and std of the images that an ANN was trained on, from its row of the README's table."""
    return (0.1307, 0.3081) if said.get("preprocessing") == NORMALISED else (0.0, 1.0)


@torch.no_grad()
def score(path: Path, said: dict[str, str], images: Tensor, labels: Tensor) -> Row:
    """Import a file, run it on all images, and return its row."""
    told = float(said["accuracy %"]) if "accuracy %" in said else None
    try:
        found = import_ann(path)
    except SnnZooError as error:
        return Row(path.name, f"{type(error).__name__}: {str(error).removeprefix(f'{path}: ')}", said=told)
    mean, std = normalisation(said)
    images = (images - mean) / std
    images = images.reshape(len(images), *found.ann.shape)
    error, largest = largest_errors(found.ann, found.reference, images[:REAL_IMAGES])
    right = sum(
        int((run_ann(found.ann, images[i : i + BATCH])[0].argmax(1) == labels[i : i + BATCH]).sum())
        for i in range(0, len(images), BATCH)
    )
    exact = not any("rounding" in note for note in found.notes)
    kinds = ", ".join(dict.fromkeys(type(node.operation).__name__ for node in found.ann.nodes))
    outcome = f"{len(found.nodes)} nodes -> {len(found.ann.nodes)}: {kinds}"
    accuracy = round(100 * right / len(images), 2)
    return Row(path.name, outcome, found.relative_error, error / largest, accuracy, told, exact)


def main() -> int:
    """Print a row for each file."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder with .onnx files, optionally a README.md")
    parser.add_argument("--data", type=Path, help="folder with MNIST; default: as `zoo` finds it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    test = load_dataset("mnist", data_dir=options.data).test
    said = said_of(options.folder)
    rows = []
    for path in sorted(options.folder.glob("*.onnx")):
        row = score(path, said.get(path.name, {}), test.images.float() / 255, test.labels)
        rows.append(row)
        if not options.json:
            figures = [f"{e:8.1e}" if e is not None else " " * 8 for e in (row.random_error, row.real_error)]
            scores = [f"{a:6.2f}" if a is not None else " " * 6 for a in (row.accuracy, row.said)]
            print(f"{row.file:32} {' '.join(figures)} {' '.join(scores)} {'' if row.good else 'NO '} {row.outcome}")
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    if not rows:
        print(f"Error: no .onnx file in {options.folder}", file=sys.stderr)
    return int(not rows or not all(row.good for row in rows))


if __name__ == "__main__":
    sys.exit(main())
