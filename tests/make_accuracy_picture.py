"""Plot accuracy against T from the cards of the packaged models: `python tests/make_accuracy_picture.py`."""

from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from bootstrap_core.analysis.plots import save_png
from zoo.factory import model_names
from zoo.runs.card_files import packaged_card

PICTURE = Path(__file__).parent / "pictures" / "accuracy.png"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Colours that colour-blind people can distinguish (source: Okabe and Ito, "Color Universal Design", 2008)."""
LINES = "-", "--"
"""Styles of lines, of which the second is used when all colours are taken."""
LEAST_IMAGES = 1000
"""Number of test images below which a model is left out: one image would be more than 0.1 %."""


def main() -> None:
    """Write the picture."""
    figure = Figure(figsize=(8.2, 4.0), layout="constrained")
    axes = figure.subplots()
    all_steps: set[int] = set()
    cards = [
        card
        for card in map(packaged_card, model_names())
        if card.data.test_images >= LEAST_IMAGES and not card.input.is_events  # whose T is time of the recording
    ]
    for card, (line, colour) in zip(cards, product(LINES, COLOURS), strict=False):
        errors = {t: 100 - 100 * accuracy for t, accuracy in card.test.by_steps.items() if accuracy is not None}
        axes.plot(
            list(errors),
            list(errors.values()),
            color=colour,
            linestyle=line,
            marker=".",
            label=f"{card.name}, T = {card.time_steps}",
        )
        axes.plot(card.time_steps, errors[card.time_steps], color=colour, marker="o", markersize=9)
        all_steps |= errors.keys()
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(all_steps), [str(t) for t in sorted(all_steps)])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("time steps T; a large dot where the network was trained")
    axes.set_ylabel("errors (% of the test images)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    print(save_png(figure, PICTURE))


if __name__ == "__main__":
    main()
