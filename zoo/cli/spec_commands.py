"""The commands that work with specs: schema, check, build and train."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.cli.console import command, echo, force_option, json_option, json_text, refuse_existing
from converters.cli.options import PathArgument, Seed, complete_data, data_options, run_options, set_option
from specs.dataset_sources import find_user_data, sources
from specs.errors import DataError, SnnZooError, SpecError
from specs.files.given_file import is_text
from zoo.cli.given_model import complete_specs, print_layers, say_doubts

if TYPE_CHECKING:
    from specs.network import NetworkSpec
    from specs.training import TrainingSpec


@command()
def schema() -> None:
    """Print the JSON Schema of a network spec, for editors.

    Example: zoo schema > network.schema.json
    """
    from specs.io import json_schema

    echo(json.dumps(json_schema(), indent=2))


@command()
@click.argument("spec", shell_complete=complete_specs)
@set_option
@json_option
def check(spec: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """Validate SPEC, a YAML file or a name, and print its layers.

    Also checks that zoo train would accept the recipe: its data, teacher and start model must have a known name or
    exist here. Weight bytes are for weights of 8 bits. Synops/step are the synaptic operations of a time step in which
    every input spikes.

    Example: zoo check mnist-dense
    """
    from specs.io import line_of
    from specs.summary import summarize

    network = _load_spec(spec, find_data=not assignments)
    if assignments:
        from zoo.sources import override_spec

        network = override_spec(network, assignments)
    if network.training:
        try:
            _check_recipe(network, network.training)
        except SnnZooError as error:
            line = None if assignments else line_of(spec, str(error).partition(":")[0])
            raise type(error)(str(error) if line is None else f"{spec}:{line}: {error}") from None
    if as_json:
        layers = [asdict(row) for row in summarize(network)]
        about = {"name": network.name, "time_steps": network.time_steps, "gives": network.gives}
        echo(json_text({**about, "layers": layers}))
    else:
        print_layers(network)
    if network.training:
        say_doubts(network, network.training)


def _check_recipe(network: "NetworkSpec", recipe: "TrainingSpec") -> None:
    """Raise the errors that `zoo train` would raise for a recipe; each begins with the field."""
    try:
        find_user_data(recipe.data)
        if network.without_classes:
            from bootstrap_core.data.frames import check_frame_file

            check_frame_file(Path(recipe.data), network)
    except DataError as error:
        raise DataError(f"training.data: {error}") from None
    if source := sources().get(recipe.data):
        recipe.check_images(source.n_train)
    recipe.check_own_teacher(fitted=recipe.snn_epochs < recipe.epochs)  # ANN epochs fit the activations
    if recipe.teacher is not None or recipe.start is not None:
        from zoo.runs.training_run import load_teacher
        from zoo.runs.training_start import load_start

        load_start(network)
        load_teacher(network)


@command()
@click.argument("spec", shell_complete=complete_specs)
@click.option(
    "-o", "--output", required=True, type=PathArgument, help="Model file to write; the suffix names the format."
)
@click.option("--seed", type=Seed, default=0, show_default=True, help="Seed of the fresh weights.")
@force_option
@json_option
def build(spec: str, output: Path, seed: int, force: bool, as_json: bool) -> None:
    """Write a model file of SPEC with fresh weights.

    SPEC is a YAML file or the name of a network.

    Example: zoo build mnist-dense -o fresh.safetensors
    """
    from bootstrap_core.network.build import build_network
    from converters.formats.model_files import check_writable_format, file_entry, write_model
    from converters.model import Model

    check_writable_format(output)
    refuse_existing(output, force)
    model = Model.of(build_network(_load_spec(spec), seed=seed))
    written = write_model(model, output, overwrite=force)
    echo(json_text(file_entry(written)) if as_json else written)


def _load_spec(source: str, *, find_data: bool = False) -> "NetworkSpec":
    """Read a spec as `load_spec` does; the error for another kind of file says what it is."""
    from specs.io import load_spec

    path = Path(source)
    if path.is_file() and not is_text(path):
        from converters.formats.file_kind import USES, kind_of_file

        raise SpecError(f"{path} is not a spec but {USES[kind_of_file(path)]}")
    return load_spec(source, find_data=find_data)


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
