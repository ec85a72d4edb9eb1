"""HTML report of a conversion."""

from collections.abc import Mapping, Sequence

from converters.ann_to_snn.onnx_conversion import OnnxConversion
from converters.report.comparison import ConversionFigures
from converters.report.energy import CAVEAT, COSTS
from converters.report.rendering import render


def conversion_page(
    conversion: OnnxConversion,
    figures: ConversionFigures | None,
    *,
    source: str,
    command: str,
    outputs: Sequence[Mapping[str, str]],
) -> str:
    """Return the HTML report of `convert model.onnx`.

    Args:
        conversion: result of the conversion.
        figures: comparison of ANN and SNN; None without data.
        source: name of the ONNX file.
        command: command line, as typed.
        outputs: files written: `path`, `format` and `sha256` of each.
    """
    saturated = {found.block: found.saturated for found in conversion.candidate.calibrations}
    return render(
        "page.html.jinja",
        conversion=conversion,
        figures=figures,
        source=source,
        command=command,
        outputs=outputs,
        saturated=saturated,
        costs=COSTS,
        caveat=CAVEAT,
    )
