import struct
import subprocess
import sys

import pytest
import torch

from bootstrap_core.analysis import plots
from bootstrap_core.tasks.evaluation import ERROR
from bootstrap_core.training.history import LearningStats
from specs.errors import SnnZooError

pytest.importorskip("matplotlib")


def png_size(path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    return width, height


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return x and y of every labelled line, by label."""
    return {
        line.get_label(): (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def some_stats() -> LearningStats:
    stats = LearningStats()
    for epoch, correct in enumerate((5, 9, 8)):
        stats.training.add(loss=0.5 / (epoch + 1), correct=9, n=10)
        stats.testing.add(loss=1.0 / (epoch + 1), correct=correct, n=10)
        if epoch != 1:
            stats.snn.add(loss=2.0 / (epoch + 1), correct=correct - 1, n=10)
        stats.update()
    return stats


def test_curves_show_each_state_at_its_own_epochs() -> None:
    loss_axes, accuracy_axes = plots.draw_curves(some_stats()).axes
    loss, accuracy = lines(loss_axes), lines(accuracy_axes)
    assert loss["training"] == ([1, 2, 3], [0.5, 0.25, 0.5 / 3])
    assert loss["held out, ANN"] == ([1, 2, 3], [1.0, 0.5, 1.0 / 3])
    assert loss["held out, SNN"] == ([1, 3], [2.0, 2.0 / 3])
    assert accuracy["held out, ANN"] == ([1, 2, 3], [50, 90, 80])
    assert accuracy["held out, SNN"] == ([1, 3], [40, 70])
    assert accuracy["best SNN 70.00%, epoch 3"] == ([3], [70])
    assert (loss_axes.get_yscale(), accuracy_axes.get_yscale()) == ("log", "linear")
    assert (loss_axes.get_ylabel(), accuracy_axes.get_ylabel()) == ("mean loss", "accuracy (%)")


def test_titles_are_no_formulas(tmp_path) -> None:
    plots.save_png(plots.draw_raster(torch.ones(8, 5), title="cost $5_{ and $6"), tmp_path / "a.png")


def test_errors_are_drawn_once_with_the_lowest_marked() -> None:
    stats = LearningStats(ERROR)
    for training, snn in ((1.0, 0.25), (0.04, 0.16), (0.01, 0.36)):
        stats.training.add(training, 0, 2)
        stats.snn.add(snn, 0, 2)
        stats.update()
    (axes,) = plots.draw_curves(stats).axes
    drawn = lines(axes)
    assert list(drawn["training"][1]) == pytest.approx([1.0, 0.2, 0.1])
    assert [list(points) for points in drawn["best SNN 0.4000, epoch 2"]] == [[2], [0.4]]
    assert (axes.get_ylabel(), axes.get_yscale()) == ("rms error", "log")
    kept = lines(plots.draw_curves(stats.records(), kept=2).axes[0])
    assert "best SNN 0.6000, epoch 3" in kept


def test_curves_of_nothing_are_refused() -> None:
    stats = LearningStats()
    stats.update()
    with pytest.raises(SnnZooError, match="no curve to draw"):
        plots.draw_curves(stats)


def marks(figure) -> list[tuple[float, float]]:
    """Return time step and neuron of every mark of a raster."""
    (collection,) = figure.axes[0].collections
    return [(float(segment[0, 0]), float(segment[:, 1].mean().round(6))) for segment in collection.get_segments()]


def test_a_raster_marks_time_to_the_right_and_neurons_upwards() -> None:
    spikes = torch.zeros(5, 3)
    spikes[4, 1] = spikes[0, 2] = 1
    figure = plots.draw_raster(spikes, title="readout")
    assert marks(figure) == [(0, 2), (4, 1)]
    assert figure.axes[0].get_title(loc="left") == "readout, 0.133 spikes per neuron and step"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("time step", "neuron")
    assert len(figure.axes) == 1  # no colour bar: all payloads are equal


def test_plots_write_png_of_the_size_of_the_figure(tmp_path) -> None:
    z, centers = torch.linspace(0, 1, 5), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert png_size(plots.save_png(plots.draw_curves(some_stats()), tmp_path / "curves.png")) == (1350, 540)
    for figure, size in (
        (plots.draw_raster(torch.ones(16, 2, 3), index=1, title="x"), (750, 600)),
        (plots.draw_activation(z, z, centers, title="x"), (840, 600)),
    ):
        assert png_size(plots.save_png(figure, str(tmp_path / "some.png"))) == size
    assert len(list(tmp_path.iterdir())) == 2


def test_without_matplotlib_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SnnZooError, match=r"needs matplotlib: pip install matplotlib"):
        plots.draw_raster(torch.ones(2, 2))


def test_matplotlib_is_loaded_late_and_pyplot_never(tmp_path) -> None:
    code = (
        "import sys, torch; from bootstrap_core.analysis import plots, spike_events;"
        "assert 'matplotlib' not in sys.modules and 'PIL' not in sys.modules;"
        "plots.save_png(plots.draw_raster(torch.ones(2, 2)), sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)
