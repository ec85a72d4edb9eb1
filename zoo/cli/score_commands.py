"""The commands `eval` and `predict`, which run a model."""

from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import (
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


class _Steps(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """Numbers of time steps with commas, each once, as the type of an option."""

    name = "T[,T...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """See `click.ParamType`."""
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
    from zoo.cli.predicting import predict_with

    predict_with(source, **options)
