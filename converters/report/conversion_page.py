"""HTML report of a conversion."""

from collections.abc import Mapping, Sequence

from converters.ann_to_snn.onnx_conversion import OnnxConversion
from converters.report.comparison import ConversionFigures
from converters.report.energy import CAVEAT, COSTS, EnergyEstimate
from converters.report.rendering import NOTHING, TIMES, number_text, part_text, render


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
