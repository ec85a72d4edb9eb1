"""Tables of the models in the package, from their cards."""

from collections.abc import Sequence
from statistics import mean, stdev

from readme_tables.common import markdown_table, percent
from specs.summary import summarize
from zoo.card import Card, seed_accuracies
from zoo.factory import model_names, packaged_model
from zoo.model_format import ModelFormat
from zoo.runs.card_files import packaged_card

SHORT = ("model", "layers", "T", "test accuracy", "as ANN", "synops/image", "size")
"""Columns of the table of models in the main README."""
MANY = 2000
"""Number of test images below which it stands beside the accuracy."""


def models_table(columns: Sequence[str] = ()) -> str:
    """Return a row for each packaged model, from its card; of all columns, or of those given."""
    models = [model_cells(packaged_card(name)) for name in model_names()]
    columns = columns or list(models[0])
    return markdown_table(" | ".join(columns), ([cells[column] for column in columns] for cells in models))


def model_cells(card: Card) -> dict[str, str]:
    """Return the cells of a model, by column."""
    training, n, rows = card.training, card.data.test_images, summarize(packaged_model(card.name).spec)
    few = f" of {n:,}" if n < MANY else ""
    return {
        "model": f"`{card.name}`",
        "layers": "-".join("x".join(map(str, row.shape)) for row in rows),
        "T": str(card.time_steps),
        "test accuracy": f"{percent(card.test.accuracy)} %{few}",
        "over seeds": over_seeds(card),
        "as ANN": "-" if card.test.ann is None else f"{percent(card.test.ann)} %",
        "rates": " ".join(f"{layer.rate:.2f}" for layer in card.layers if layer.rate is not None),
        "synops/image": f"{sum(layer.synops for layer in card.layers):,.0f}",
        "parameters": f"{sum(row.parameters for row in rows):,}",
        "size": f"{card.files[ModelFormat.SAFETENSORS].bytes / 1e3:,.0f} kB",
        "chosen": "-" if training.epoch is None else f"epoch {training.epoch + 1} of {training.recipe.epochs}",
    }


def over_seeds(card: Card) -> str:
    """Return mean and standard deviation of the test accuracy over seeds, and the number of seeds."""
    found = [100 * accuracy for accuracy in seed_accuracies(card)]
    return f"{mean(found):.2f} ± {stdev(found):.2f} % of {len(found)}" if len(found) > 1 else "-"
