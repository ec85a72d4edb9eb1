"""Plots of training curves, accuracy by time steps, spike rasters and fitted activations.

Each function returns a matplotlib `Figure`, to show or to change; `save_png` writes it. Figures do not use pyplot, so
drawing needs no display and leaves no global state. matplotlib comes with `pip install matplotlib` and is imported by
the first plot. Functions raise `SnnZooError` if there is nothing to draw, or matplotlib is missing.
"""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bootstrap_core.tasks.evaluation import ACCURACY, MEASURES
from specs.errors import SnnZooError
from specs.files.whole_file import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct for any colour vision. The SNN also differs by its marker and its dashes.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#E69F00", "#007A58", "#8A8F98"
_STATE_STYLES: dict[str, dict[str, Any]] = {
    "training": {"label": "training", "color": _GREY, "linewidth": 1.5, "marker": ".", "markersize": 5},
    "testing": {"label": "held out, ANN", "color": _BLUE, "linewidth": 1.8, "marker": ".", "markersize": 6},
    "snn": {
        "label": "held out, SNN",
        "color": _ORANGE,
        "linewidth": 1.8,
        "linestyle": (0, (4, 1.5)),
        "marker": "D",
        "markersize": 5,
        "markeredgecolor": "white",
    },
}


def draw_curves(
    stats_or_records: Any, *, kept: int | None = None, figsize: tuple[float, float] = (9.0, 3.6)
) -> "Figure":
    """Draw loss (log scale) and accuracy (per cent) over the epochs; a star marks an epoch of the SNN.

    A score that follows from the loss, such as an rms error, is drawn alone (log scale). A straight line bridges epochs
    in which a state was not evaluated.

    Args:
        stats_or_records: `LearningStats`, or their `records()`.
        kept: epoch to mark, counted as in the records; by default the best one as SNN, even if its states overflow the
            hardware.
    """
    records = list(stats_or_records.records() if hasattr(stats_or_records, "records") else stats_or_records)
    found = {key for record in records for key in record.get("snn") or {}}
    measure = next((measure for key, measure in MEASURES.items() if key in found), ACCURACY)
    keys = ("loss", measure.key) if measure.is_share else (measure.key,)
    curves = {key: {state: _measured(records, state, key) for state in _STATE_STYLES} for key in keys}
    if not any(curve for states in curves.values() for curve in states.values()):
        raise SnnZooError("no curve to draw: no epoch with samples has been closed (LearningStats.update() closes one)")

    figure = _new_figure(figsize)
    for axes, (key, states) in zip(figure.subplots(1, len(keys), squeeze=False)[0], curves.items(), strict=True):
        is_share = key == measure.key and measure.is_share
        for state, style in _STATE_STYLES.items():
            if states[state]:
                points = [(epoch, _shown(value, is_share)) for epoch, value in states[state]]
                axes.plot(*zip(*points, strict=True), **style)
        if not is_share and all(not value <= 0 for curve in states.values() for _, value in curve):
            _log_scale(axes)
        starred = [(epoch, score) for epoch, score in states["snn"] if kept in {None, epoch - 1}]
        if key == measure.key and starred:
            losses = dict(_measured(records, "snn", "loss"))
            epoch, best = max(starred, key=lambda point: measure.rank(point[1], losses.get(point[0], 0.0)))
            text = f"{best:.2%}" if is_share else measure.text(best)
            label = f"best SNN {text}, epoch {epoch}"
            style = {"color": _STATE_STYLES["snn"]["color"], "markeredgecolor": "black", "markeredgewidth": 0.7}
            axes.plot([epoch], [_shown(best, is_share)], "*", markersize=13, label=label, zorder=3, **style)
        name = "mean loss" if key == "loss" else f"{measure.name} (%)" if is_share else measure.name
        _dress(axes, key.capitalize(), "epoch", name)
        _count_in_whole_numbers(axes.xaxis)
        axes.set_xlim(min(0.5, axes.get_xlim()[0]), max(1.5, axes.get_xlim()[1]))
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    return figure


def _shown(value: float, is_share: bool) -> float:
    """Return a figure as it is drawn: shares in per cent; what is not finite leaves a gap."""
    if is_share:
        return 100 * value
    return value if math.isfinite(value) else math.nan


def draw_accuracy(by_steps: Mapping[int, float], *, ann: float | None = None, title: str = "") -> "Figure":
    """Draw the SNN accuracy (per cent) against time steps T (log scale), and the ANN accuracy as a horizontal line.

    Args:
        by_steps: SNN accuracy, 0 to 1, by T.
        ann: ANN accuracy, 0 to 1; None draws no line.
    """
    if not by_steps:
        raise SnnZooError("no accuracy to draw: score at least one number of time steps")
    steps = sorted(by_steps)
    figure = _new_figure((5.6, 3.6))
    axes = figure.subplots()
    if ann is not None:
        label = f"ANN {ann:.2%}"
        axes.axhline(100 * ann, **{**_STATE_STYLES["testing"], "marker": "", "label": label})
    style = {**_STATE_STYLES["snn"], "linestyle": "-", "label": "SNN"}
    axes.plot(steps, [100 * by_steps[t] for t in steps], **style)
    for t in steps:
        axes.annotate(
            f"{by_steps[t]:.2%}",
            (t, 100 * by_steps[t]),
            (0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(t) for t in steps])
    _dress(axes, title or "Accuracy against time steps", "time steps T", "accuracy (%)")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def draw_raster(spikes: torch.Tensor, *, index: int = 0, title: str = "") -> "Figure":
    """Draw the spikes of one sample as marks, time to the right, neurons upwards; colours show graded payloads.

    Args:
        spikes: `[T, C]`, one sample; or `[T, N, C]` or `[T, N, C, H, W]`, a batch. Neurons of maps are numbered in
            row-major order.
        title: title of the figure; the mean rate, in spikes per neuron and step, is added to it.
    """
    if spikes.ndim not in (2, 3, 5) or 0 in spikes.shape:
        raise SnnZooError(
            f"spikes {list(spikes.shape)}: a raster takes a non-empty [T, C], [T, N, C] or [T, N, C, H, W]"
        )
    n_samples = 1 if spikes.ndim == 2 else spikes.shape[1]
    if not 0 <= index < n_samples:
        raise SnnZooError(f"sample index = {index} must be from 0 to {n_samples - 1} for spikes {list(spikes.shape)}")
    sample = spikes if spikes.ndim == 2 else spikes[:, index]
    sample = sample.detach().cpu().flatten(1)  # [T, C, ...] -> [T, neurons]
    time_steps, n_neurons = sample.shape
    steps, neurons = sample.nonzero(as_tuple=True)
    payload = sample[steps, neurons].double()
    graded = len(payload) > 0 and bool((payload != payload[0]).any())

    inches = max(5.0, min(10.0, 3.0 + 0.12 * time_steps))
    figure = _new_figure((inches, 4.0))
    axes = figure.subplots()
    width = max(0.5, min(6.0, 0.35 * (inches - 1) * 72 / time_steps))  # points, a third of a step
    half = max(0.42, n_neurons / 400)  # neurons; a mark stays visible where a neuron is less than a pixel
    bottom, top = neurons.numpy() - half, neurons.numpy() + half
    marks = axes.vlines(steps.numpy(), bottom, top, linewidth=width, color=None if graded else "black")
    if graded:
        marks.set(array=payload.numpy(), cmap="viridis")
        figure.colorbar(marks, ax=axes, label="payload", pad=0.02)
    axes.set_xlim(-0.6, time_steps - 0.4)
    axes.set_ylim(-0.8, n_neurons - 0.2)
    for axis in (axes.xaxis, axes.yaxis):
        _count_in_whole_numbers(axis)
    rate = len(steps) / sample.numel()
    _dress(
        axes, f"{title}{', ' if title else ''}{rate:.3f} spikes per neuron and step", "time step", "neuron", grid=False
    )
    return figure


def draw_activation(z: torch.Tensor, a: torch.Tensor, centers: torch.Tensor, *, title: str = "") -> "Figure":
    """Draw the sampled points of a layer and the piecewise-linear activation fitted to them.

    The curve is zero up to the first centre, linear between centres, and constant from the last one on.

    Args:
        z: sampled mean weighted inputs, any shape.
        a: sampled mean output rates, in spikes per step, of the same shape.
        centers: `[K, 2]`, (z, a) of each centre, z ascending.
    """
    if z.shape != a.shape:
        raise SnnZooError(f"z {list(z.shape)} and a {list(a.shape)} must have the same shape: they are pairs")
    if centers.ndim != 2 or centers.shape[1] != 2 or len(centers) < 2:
        raise SnnZooError(f"centers {list(centers.shape)} must be [K, 2], K >= 2: (z, a) of each centre")
    points = torch.stack((z.flatten(), a.flatten())).detach().cpu().double()
    nodes = centers.T.detach().cpu().double()  # [2, K]
    # the horizontal ends reach over all samples, and a little beyond the centres
    margin = 0.05 * (nodes[0, -1] - nodes[0, 0])
    left = min(points[0].min() if z.numel() else nodes[0, 0], nodes[0, 0] - margin)
    right = max(points[0].max() if z.numel() else nodes[0, -1], nodes[0, -1] + margin)
    before = torch.stack((torch.stack((left, nodes[0, 0])), nodes.new_zeros(2)))
    after = torch.stack((right, nodes[1, -1])).unsqueeze(1)
    curve = torch.cat((before, nodes, after), dim=1)  # [2, K + 3]

    figure = _new_figure((5.6, 4.0))
    axes = figure.subplots()
    opacity = max(0.05, min(0.6, 300 / max(1, z.numel())))
    axes.scatter(
        points[0].numpy(),
        points[1].numpy(),
        s=9,
        color=_GREY,
        alpha=opacity,
        linewidths=0,
        label=f"{z.numel():,} samples",
    )
    axes.plot(*curve.numpy(), color=_BLUE, linewidth=2.0, label="fitted activation")
    axes.plot(*nodes.numpy(), "o", color=_ORANGE, markeredgecolor="white", markersize=7, label="centres", zorder=3)
    for handle in axes.legend(frameon=False, fontsize=9, loc="upper left").legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    _dress(axes, title or "Activation", "mean weighted input z", "mean rate a (spikes per step)")
    return figure


def save_png(figure: "Figure", path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure as PNG and return the path; the file appears whole or not at all."""
    if Path(path).suffix.lower() != ".png":
        raise SnnZooError(f"cannot draw to {path}: pictures are PNG, so the name must end in .png")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return write_whole(path, buffer.getvalue())


def _measured(records: Iterable[Mapping[str, Any]], state: str, key: str) -> list[tuple[int, float]]:
    """Return (epoch, value) for each epoch in which the state was evaluated; epochs count from 1."""
    cells = [(record["epoch"] + 1, (record.get(state) or {}).get(key)) for record in records]
    return [(epoch, value) for epoch, value in cells if value is not None]


def _new_figure(figsize: tuple[float, float]) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SnnZooError("drawing needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=figsize, layout="constrained")


def _count_in_whole_numbers(axis: "Axis") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _log_scale(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few_decades = high / low < 300
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _dress(axes: "Axes", title: str, x_label: str, y_label: str, *, grid: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
