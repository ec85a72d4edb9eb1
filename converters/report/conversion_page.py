"""The report of a conversion, from its figures to a page."""

from collections.abc import Mapping, Sequence

from converters.ann_to_snn.onnx_conversion import OnnxConversion
from converters.report.comparison import ConversionFigures
from converters.report.energy import CAVEAT, COSTS
from converters.report.rendering import render

__all__ = ["conversion_page"]


def conversion_page(
    conversion: OnnxConversion,
    figures: ConversionFigures | None,
    *,
    source: str,
    command: str,
    outputs: Sequence[Mapping[str, str]],
) -> str:
    """The report of `convert model.onnx`.

    Args:
        conversion: what was converted.
        figures: of both programs; None without data.
        source: the file.
        command: as typed.
        outputs: files written: path, format, sha256.
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
