"""HTML pages, each one file that loads nothing: the report of a conversion, the gallery of a model, a site of models.

The policy of a page of a site allows the one script in it, by its digest, and nothing else, so what stands in an index
cannot run. A model runs as WebAssembly, made of its C source.
"""

import base64
import hashlib
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.training.history import EpochReport
from converters.ann_to_snn.onnx_conversion import OnnxConversion
from converters.formats.c.c_targets import WasmModule
from converters.model import Model
from converters.report.card_rows import card_rows
from converters.report.comparison import ConversionFigures
from converters.report.energy import CAVEAT, COSTS, EnergyEstimate
from converters.report.network_figures import (
    Example,
    NetworkFigures,
    measure_network,
    pick_examples,
    run_examples,
    spread_out,
)
from converters.report.network_graph import draw, graph_of_model
from converters.report.rendering import NOTHING, TIMES, number_text, part_text, render, visible
from specs.errors import DataError
from specs.fields import Shape
from specs.io import dump_spec
from specs.words import counted

N_EXAMPLES, N_MISTAKES = 12, 2
"""Number of images shown, and of mistakes among them; more mistakes only if too few other images are left."""


def conversion_page(
    conversion: OnnxConversion,
    figures: ConversionFigures | None,
    *,
    source: str,
    command: str,
    outputs: Sequence[Mapping[str, str]],
) -> str:
    """Return the HTML report of `convert model.onnx`; `outputs` have `path`, `format` and `sha256` of each file."""
    saturated = {found.block: found.saturated for found in conversion.candidate.calibrations}
    measured = None if figures is None else figures.correlations
    correlations = [NOTHING if r is None else f"{r:.4f}" for r in measured or ()]
    accuracies = [conversion.converted, *([conversion.tuned] if conversion.tuned else [])]
    return render(
        "page.html.jinja",
        conversion=conversion,
        figures=figures,
        source=source,
        command=command,
        accuracy_rows=[
            [steps, part_text(conversion.ann)]
            + ["overflows" if found[steps] is None else part_text(found[steps]) for found in accuracies]
            for steps in conversion.converted
        ],
        nodes=[[node[key] for key in ("name", "op", "became", "reason")] for node in conversion.nodes],
        files=[[output[key] for key in ("path", "format", "sha256")] for output in outputs],
        layer_columns=[
            ("saturated", [part_text(saturated.get(i)) for i in range(len(correlations))]),
            ("correlation", correlations),
        ],
        energy_rows=[
            [one.program, number_text(one.nanojoules), _calculation(one)]
            for one in ([] if figures is None else figures.energy)
        ],
        costs=COSTS,
        caveat=CAVEAT,
    )


def _calculation(estimate: EnergyEstimate) -> str:
    return " + ".join(f"{count:,.0f} {TIMES} {cost.picojoules} pJ" for count, cost in estimate.terms if count)


@dataclass(frozen=True, eq=False)
class GalleryFigures:
    """Figures for the gallery of a model.

    Attributes:
        score: evaluation of the spiking network by the integer engine.
        ann: accuracies as ANN, on the images of `score` and on those of `network.by_steps`; None if the activations
            were never fitted.
        network: figures by time steps, class and layer.
        examples: images, sorted by class.
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


@dataclass(frozen=True)
class Script:
    """Script of a page, and the source expression that lets a content security policy run it alone."""

    text: str
    digest: str

    @classmethod
    def of(cls, name: str) -> "Script":
        from markupsafe import Markup

        text = (resources.files(__package__) / name).read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return cls(Markup(text), f"sha256-{digest}")


def live_facts(
    module: WasmModule,
    model: Model,
    shape: Shape,
    *,
    framing: Mapping[str, Any] | None,
    golden: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what the script of a model's page must know, as JSON values.

    Args:
        model: the network, and the names of its classes.
        shape: shape of an image, or of the frame of a step, `(C, H, W)`.
        framing: how drawings and images of other sizes are framed, the fields of `zoo.prediction.Framing`.
        golden: inputs that can be tried: `images`, base64 of zlib; their `shape`; and whether they are noise.
    """
    spec = model.spec
    return {
        "wasm": base64.b64encode(zlib.compress(module.code, 9)).decode(),
        "shape": shape,
        "is_timed": spec.input.is_timed,
        "bits": spec.input.bits,
        "bin_us": spec.input.bin_us,
        "log_mel": None if spec.input.log_mel is None else spec.input.log_mel.model_dump(mode="json"),
        "framing": framing,
        "golden": golden,
        "classes": [visible(name) for name in model.classes],
        "logit_scale": spec.logit_scale,
        "layers": [asdict(layer) for layer in module.layers],
        **{name: getattr(module, name) for name in ("units", "index_bytes", "input_bytes")},
    }


def model_page(*, live: Mapping[str, Any] | None, **names: Any) -> str:
    """Return the page of a model; without the facts of `live_facts` it does not run. `names` are the template's."""
    script = None if live is None else Script.of("live.js")
    return render("model_page.html.jinja", live=live, script=script, **names)


def models_page(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of models; each row has its name, figures, and the `href` of its page."""
    return render("models_page.html.jinja", title=title, rows=rows, script=Script.of("table.js"))
