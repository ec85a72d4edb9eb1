"""The commands that describe, check and run one model: show, verify, eval, predict, card and gallery."""

from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import (
    THREADS_HELP,
    PathArgument,
    classes_option,
    complete_data,
    complete_models,
    data_options,
    limit_option,
    run_options,
)
from converters.cli.usage import FileName, Rule
from specs.files.limits import TIME_STEPS


@command(
    rules=(
        Rule("--graph", "draws one network, --diff compares two", excludes=("--diff",)),
        Rule("--markdown", "prints a card, --graph and --diff show layers", excludes=("--diff", "--graph")),
        Rule("--curves", "draws from a card, --graph and --diff show layers", excludes=("--diff", "--graph")),
        Rule("--markdown", "and --json print the same in two forms", excludes=("--json",)),
    )
)
@click.argument("source", shell_complete=complete_models)
@click.option(
    "--diff",
    "other",
    shell_complete=complete_models,
    help="Second model: print the differences of its layers, in integers of the chip.",
)
@click.option("--graph", type=FileName(".svg", ".html"), help="Draw the network into FILE.svg or FILE.html.")
@click.option("--markdown", is_flag=True, help="Print the card as Markdown.")
@click.option("--curves", type=FileName(".png"), help="Draw the learning curves of the card into FILE.png.")
@force_option
@json_option
def show(source: str, **options: Any) -> None:
    """Show a model or a spec: layers, scores and training.

    SOURCE is a model file, a spec, or the name of a model or spec. The scores come from the model's card, which lies
    beside a file as model.yaml. A netx file is shown as the integers in it, also if its neurons are unknown to snnzoo.
    A drawing shows the integers of any network, and histograms of its weights.

    Example: zoo show mnist-dense --graph network.svg
    """
    from zoo.cli.showing import show_source

    show_source(source, **options)


@command(rules=[Rule("--against", "compares one model", needs=("SOURCE",))])
@click.argument("source", shell_complete=complete_models, required=False)
@click.option(
    "--against",
    type=PathArgument,
    help="File or card to compare with. [default: the card of SOURCE, and the files of its name beside it]",
)
@json_option
def verify(**options: Any) -> None:
    """Check a model, or all models of the package.

    Both engines must give the same spikes. Bytes, and output on the golden images, must agree with the card, to
    the last bit. Other model files of the same name beside SOURCE must hold the same integers, such as network.pt
    beside network.net, or model.net beside model.safetensors. So must C source, whose self-test is compiled and run if
    there is a C compiler ($CC, cc, gcc or clang) and the code is as snnzoo writes it. A netx file must hold only what
    Lava runs with the same integers. The exit code is 1 if a check fails.

    Example: zoo verify mnist-dense
    """
    from zoo.cli.showing import verify_models

    verify_models(**options)


class _Steps(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """Numbers of time steps with commas, each once, as the type of an option."""

    name = "T[,T...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            steps = [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"must be whole numbers with commas, as in 4,8,16, got {value!r}", param, ctx)
        if not all(1 <= t <= TIME_STEPS for t in steps):
            self.fail(f"must be 1 to {TIME_STEPS}, got {value!r}", param, ctx)
        return list(dict.fromkeys(steps))


@command(
    "eval",
    rules=(
        Rule("--overflow", "needs the chip's integers", excludes=("--engine torch", "--mode ann", "--device cuda")),
        Rule("--engine integer", "runs spikes on the CPU", excludes=("--mode ann", "--device cuda")),
        Rule("--mode ann", "runs an ANN, which has no time steps", excludes=("--time-steps",)),
        Rule(
            "--neurobench",
            "measures spikes at the network's T, on the CPU",
            excludes=("--mode ann", "--time-steps", "--overflow chip", "--device cuda"),
        ),
        Rule("--plot", "draws the accuracy of the SNN", excludes=("--mode ann",)),
    ),
)
@click.argument("source", shell_complete=complete_models)
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Dataset, .npz file, or folder with a folder of images for each class, named like the class; a model of "
    "values or spike trains takes .npz or .npy. [default: the dataset that the model was trained on]",
)
@click.option(
    "--engine",
    type=click.Choice(["torch", "integer"]),
    default="torch",
    show_default=True,
    help="torch: floats. integer: the chip's integers, with the same spikes and mostly faster; an error if a state "
    "leaves the chip's 24 bits.",
)
@click.option(
    "--overflow",
    type=click.Choice(["refuse", "chip"]),
    help="Where a state leaves the chip's 24 bits: stop with an error, or go on as the chip does and count such states "
    "(currents wrap around, voltages are clipped; not for models of values). Means --engine integer. [default: refuse]",
)
@click.option(
    "--mode",
    type=click.Choice(["snn", "ann"]),
    default="snn",
    show_default=True,
    help="snn: spikes over time. ann: the fitted activations, without time.",
)
@click.option("--time-steps", type=_Steps(), help="Numbers of time steps to score. [default: as in the spec]")
@limit_option
@click.option(
    "--plot", type=FileName(".png"), help="Also draw accuracy by number of time steps, and as ANN, into FILE.png."
)
@click.option(
    "--neurobench",
    is_flag=True,
    help="Also run NeuroBench's harness: footprint, sparsity and operations as it counts them, beside ours. Needs the "
    "extra neurobench.",
)
@data_options
@run_options
@force_option
@json_option
def evaluate_model(source: str, **options: Any) -> None:
    """Score a model on test images.

    Prints accuracy and speed, and for each layer the rate (spikes per neuron and time step) and the synops (synaptic
    operations) per image. SOURCE is a model file or the name of a model.

    For a model of values, such as a sigma-delta network, it prints errors, messages and synops, for a model of spike
    trains distances, rates and synops. --data is then an .npz with inputs x and, if they are known, targets y.

    Example: zoo eval mnist-dense --data mnist-sample --time-steps 1,4,16
    """
    from zoo.cli.scoring import score_source

    score_source(source, **options)


@command()
@click.argument("source", shell_complete=complete_models)
@click.argument("images", nargs=-1, required=True, type=PathArgument, metavar="IMAGE|RECORDING...")
@click.option(
    "--invert/--no-invert",
    default=None,
    help="Invert brightness, or do not. [default: invert if the object is darker than the background, for models of "
    "MNIST and Fashion-MNIST]",
)
@click.option(
    "--time-steps", type=click.IntRange(1, TIME_STEPS), help="Number of time steps. [default: as in the spec]"
)
@click.option(
    "--overflow",
    type=click.Choice(["refuse", "chip"]),
    help="Run in the chip's integers. Where a state leaves their 24 bits: stop with an error, or go on as the chip "
    "does and count such states. [default: run in floats, without these limits]",
)
@click.option(
    "--animate", type=FileName(".gif"), help="Also write the output spikes for the first image as a GIF, FILE.gif."
)
@classes_option
@force_option
@json_option
def predict(source: str, **options: Any) -> None:
    """Classify images of any size, sounds, or events.

    Prints the two likeliest classes of each file; --json has the scores of all classes. A folder stands for the files
    in it. Models of sounds take WAV files of 16 bits; models of events .bin, .bs1, .bs2, .npz and .npy. Images are made
    grey or coloured, and resized, as the network needs. For models of MNIST and Fashion-MNIST the object is also cut
    out, made light on dark, and centred as in these datasets. stderr says what was done to each file.

    Models of values, such as sigma-delta networks, and models of spike trains take .npy and .npz. They print values
    after the last step, or the steps in which each neuron spikes, instead of classes.

    Example: zoo predict mnist-dense seven.png --animate seven.gif
    """
    from zoo.cli.scoring import predict_with

    predict_with(source, **options)


def _check_name(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    from specs.fields import is_name

    if name is not None and not is_name(name):
        raise click.BadParameter(f"must have only lower-case letters, digits, '.', '_' and '-', got {name!r}")
    return name


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", type=FileName(".yaml"), help="Card to write, FILE.yaml. [default: print it]")
@click.option("--check", is_flag=True, help="Compare the existing card with the measurements; write nothing.")
@click.option(
    "--data", shell_complete=complete_data, help="Dataset to measure on. [default: the one the model was trained on]"
)
@click.option(
    "--run",
    type=PathArgument,
    help="Folder of the training run, for its learning curves. [default: SOURCE, if that is a folder]",
)
@click.option(
    "--seed-run",
    "seed_runs",
    type=PathArgument,
    multiple=True,
    help="Folder of a run with another seed, whose score the card gets. May be repeated.",
)
@click.option("--name", callback=_check_name, help="Name of the model. [default: the name in its spec]")
@click.option(
    "--licence", help="Licence of the weights, by its SPDX name, as in Apache-2.0. [default: as on the old card]"
)
@data_options
@click.option("--threads", type=click.IntRange(1), help=THREADS_HELP)
@force_option
@json_option
def card(source: str, **options: Any) -> None:
    """Measure a trained model and write its card.

    SOURCE is the folder of a training run, a .safetensors file, or the name of a model. The model runs on all test
    images of the dataset that it was trained on.

    A new card keeps the licence of the old one, and its learning curves and other seeds if both describe the same file.
    The description comes from the spec: set it with zoo train SPEC -o run --set description=TEXT.

    Example: zoo card run -o run/model.yaml --licence Apache-2.0
    """
    from zoo.cli.measuring import make_card

    make_card(source, **options)


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", required=True, type=FileName(".html", ".htm"), help="Page to write, FILE.html.")
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Dataset to run on. [default: the one the model was trained on, or mnist-sample if mnist is missing]",
)
@click.option(
    "--limit", type=click.IntRange(1), default=2000, show_default=True, help="Number of test images to use, at most."
)
@data_options
@click.option("--threads", type=click.IntRange(1), help=THREADS_HELP)
@force_option
@json_option
def gallery(source: str, **options: Any) -> None:
    """Write a page that shows a model at work.

    The page is one HTML file that loads nothing else. It shows images with their spikes, accuracy by number of time
    steps, layers, confusions, learning curves, a drawing of the network, and its spec. Learning curves come from the
    model's card, or from the metrics.jsonl of zoo train beside the model.

    Example: zoo gallery mnist-dense -o page.html
    """
    from zoo.cli.measuring import make_page

    make_page(source, **options)
