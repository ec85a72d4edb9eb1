"""The command `train`."""

from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import PathArgument, Seed, complete_data, data_options, run_options, set_option
from zoo.cli.given_model import complete_specs


@command()
@click.argument("spec", shell_complete=complete_specs)
@click.option("-o", "--output", "folder", required=True, type=PathArgument, help="Folder of the run.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Number of epochs, ANN and SNN together; if less than in the recipe, SNN epochs keep their share. Same as "
    "--set training.epochs=N.",
)
@click.option("--seed", type=Seed, help="Seed of the training. Same as --set training.seed=N.")
@click.option("--data", shell_complete=complete_data, help="Dataset to train on. Same as --set training.data=NAME.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Number type of matrix products; auto: bfloat16 where the CPU is faster with it. Same as --set "
    "training.precision=NAME.",
)
@set_option
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in the folder.")
@click.option(
    "--timeout",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="With several processes: seconds to wait for a process that does not answer.",
)
@data_options
@run_options
@force_option
@json_option
def train(spec: str, **options: Any) -> None:
    """Train a network by bootstrap training.

    SPEC is a YAML file, or the name of a network or model: it is trained from fresh weights, or from the model that its
    recipe names as training.start. SPEC can also be a model file: its training continues, with the recipe in it.

    The folder gets model.safetensors, checkpoint.pt, metrics.jsonl and curves.png. The model comes from the epoch with
    the best SNN accuracy on validation images, which are cut from the training set. At the end it is scored on the test
    set. After Ctrl-C, the same command with --resume continues.

    A network that gives values, such as a sigma-delta network, learns the targets y of frames x in an .npz (--data);
    its score is the rms error. One with output: spikes learns the spike trains y of events x; its score is their
    distance.

    Epochs count from 1 in printed text, and from 0 in JSON, metrics.jsonl, cards and recipes.

    Several processes, on one host or more, can train together: start them with torchrun or accelerate launch.

    Example: zoo train mnist-dense -o run --epochs 5

    Example: torchrun --nproc-per-node 2 -m zoo train mnist-dense -o run
    """
    from zoo.cli.training import train_from

    train_from(spec, **options)
