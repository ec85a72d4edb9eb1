"""Gallery of a model: a page that shows its answers and spikes on test images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.training.history import EpochReport
from converters.model import Model
from converters.report.card_rows import card_rows
from converters.report.network_figures import (
    Example,
    NetworkFigures,
    measure_network,
    pick_examples,
    run_examples,
    spread_out,
)
from converters.report.network_graph import draw, graph_of_model
from converters.report.rendering import part_text, render
from specs.errors import DataError
from specs.io import dump_spec
from specs.words import counted

N_EXAMPLES, N_MISTAKES = 12, 2
"""Number of images shown, and of mistakes among them; more mistakes only if too few other images are left."""


@dataclass(frozen=True, eq=False)
class GalleryFigures:
    """Figures for the gallery of a model.

    Attributes:
        dataset: dataset of the test images.
        score: evaluation of the spiking network by the integer engine.
        ann: accuracies as ANN, on the images of `score` and on those of `network.by_steps`; None if the activations
            were never fitted.
        network: figures by time steps, class and layer.
        examples: images, sorted by class.
        seconds: duration of the measurement.
    """

    dataset: Dataset
    score: Evaluation
    ann: tuple[float, float] | None
    network: NetworkFigures
    examples: list[Example]
    seconds: float


def measure_gallery(model: Model, dataset: Dataset, *, limit: int) -> GalleryFigures:
    """Run a model on at most `limit` test images, evenly spaced in the test set; return the figures of its gallery.

    Raises:
        DataError: the dataset has no labels, or more classes than the model.
        StateOverflowError: a state leaves the hardware's 24 bits within the model's own time steps.
    """
    if dataset.classes == (UNLABELLED,):
        raise DataError(f"a gallery scores answers, which needs labels; {dataset.source} has no labels")
    if len(dataset.classes) > model.spec.n_classes:
        raise DataError(
            f"{dataset.name} has {counted(len(dataset.classes), 'class')}, the model has only {model.spec.n_classes}"
        )
    start = time.perf_counter()
    network = model.build()
    exact = IntegerNetwork(network)
    tested = replace(dataset, test=spread_out(dataset.test, limit))
    score = evaluate(exact, tested.test)
    figures = measure_network(exact, tested, score)
    wrong = figures.logits.argmax(1) != figures.scored.labels

    def as_ann(images: Split) -> float:
        return evaluate(network, images, mode=Mode.ANN).accuracy

    picked = pick_examples(figures.scored.labels, wrong, N_EXAMPLES, n_interesting=N_MISTAKES)
    return GalleryFigures(
        dataset=dataset,
        score=score,
        ann=(as_ann(tested.test), as_ann(figures.scored)) if network.fitted else None,
        network=figures,
        examples=run_examples(exact, figures.scored, sorted(picked, key=lambda i: int(figures.scored.labels[i]))),
        seconds=time.perf_counter() - start,
    )


def gallery_page(
    model: Model, figures: GalleryFigures, *, source: str, command: str, reports: Sequence[EpochReport] = ()
) -> str:
    """Return the gallery of a model, an HTML page; `source` and `command` are shown as typed."""
    return render(
        "gallery.html.jinja",
        model=model,
        figures=figures,
        card_rows=[(f"{topic}: {key}", value) for topic, key, value in card_rows(model.card)],
        drawing=draw(graph_of_model(model)),
        spec_text=dump_spec(model.spec),
        source=source,
        command=command,
        reports=reports,
        report_rows=[
            (f"{report.epoch + 1}{' *' if report.best else ''}", *map(part_text, scores))
            for report in reports
            for scores in [(report.training_score, report.validation_ann_score, report.validation_snn_score)]
        ],
    )
