"""The command `convert`: write a model in another format, and turn an ANN in ONNX into a spiking network."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import (
    THREADS_HELP,
    Number,
    Seed,
    complete_data,
    complete_models,
    data_options,
    limit_option,
)
from converters.cli.usage import FileName, Rule
from converters.formats.c.sketch_name import sketch_path
from specs.files.limits import TIME_STEPS


def _each_once(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[Path, ...]:
    from specs.files.given_file import real_path

    outputs = tuple(map(sketch_path, given))
    if len(set(map(real_path, outputs))) < len(outputs):
        raise click.BadParameter("several name the same file")
    return outputs


@command(rules=[Rule("--c-prefix", "begins the names in C source", needs=("-o FILE.c", "-o FILE.ino"))])
@click.argument("source", type=click.Path(path_type=Path), shell_complete=complete_models)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(),
    callback=_each_once,
    help="File to write; the suffix names the format: .safetensors, .net, .hdf5, .nir, .c. FOLDER/, with the slash, is "
    "a project for boards: C source, an Arduino sketch and a CMakeLists.txt. May be repeated. Without it no model is "
    "written.",
)
@click.option(
    "--fold",
    is_flag=True,
    help="Multiply weight norm into the weights and round them to their 8 bits: a .safetensors file becomes about a "
    "quarter as large. Spikes stay the same; training can go on from the rounded weights.",
)
@click.option("--c-prefix", default="snn", show_default=True, help="C: beginning of all names of the source.")
@click.option("--spec", help="Spec of a lava-dl checkpoint: a YAML file, or the name of a network.")
@click.option(
    "--time-steps",
    type=click.IntRange(1, TIME_STEPS),
    help="Number of time steps T. [default: as in the file, else 16]",
)
@click.option("--threshold", type=Number(positive=True), help="Threshold of all neurons in a lava-dl checkpoint.")
@click.option(
    "--input-bits",
    type=click.IntRange(1, 16),
    help="Bits of a pixel of still images, for networks without input neurons. [default: they take events]",
)
@click.option(
    "--mean",
    type=Number(several=True),
    help="Mean that the training subtracted from images in 0..1; for ONNX also one for each channel, as in "
    "0.49,0.48,0.45. [default: as in the file, else 0]",
)
@click.option(
    "--std",
    type=Number(positive=True, several=True),
    help="Standard deviation that the training divided images by, like --mean. [default: as in the file, else 1]",
)
@click.option("--dt", type=Number(positive=True), help="Length of a time step of a NIR graph, in seconds.")
@click.option(
    "--time-constants",
    type=click.Choice(["euler", "exact"]),
    help="Decays for the time constants tau of a NIR graph. euler: dt / tau, exact: 1 - exp(-dt / tau). "
    "[default: euler]",
)
@click.option(
    "--reset",
    type=click.Choice(["auto", "zero", "subtract"]),
    help="ONNX, NIR: reset after a spike. zero: the voltage becomes 0, subtract: it falls by the "
    "threshold, which netx cannot express. auto, for ONNX: zero if a netx file is written, else "
    "the one that scores better. [default: auto for ONNX, zero for NIR]",
)
@click.option(
    "--nodes-only",
    is_flag=True,
    default=None,
    help="Read a NIR file of snnzoo from its nodes, for instance after you changed them.",
)
@click.option(
    "--data",
    shell_complete=complete_data,
    help="ONNX: images to calibrate, tune and score with: a name of zoo data list, such as mnist-sample "
    "(embedded), an .npz with x and, if there are labels, y, or a folder or .tar with a folder of images "
    "for each class.",
)
@click.option(
    "--validation",
    shell_complete=complete_data,
    help="ONNX: images that the ANN has not seen, given like --data; they alone decide between forms, and whether "
    "tuning is kept. Test images are used, or all if there are none apart. [default: a fifth of the training images of "
    "--data, at most 2,000]",
)
@partial(limit_option, prefix="ONNX: ")
@click.option("--raw", is_flag=True, help="ONNX: the ANN takes pixels in 0..255.")
@click.option(
    "--epochs",
    type=click.IntRange(0),
    help="ONNX: epochs of tuning after the calibration; 0 for none. [default: 2, and up to 8 for networks "
    "that lost much with few time steps]",
)
@click.option(
    "--input",
    "entering",
    type=click.Choice(["auto", "spike", "graded"]),
    default="auto",
    help="ONNX: form of the input. spike: spikes of a neuron for each pixel, graded: pixels as small "
    "integers, auto: the one that scores better. [default: auto]",
)
@click.option(
    "--max-pool",
    type=click.Choice(["auto", "any", "sum", "average", "error"]),
    default="auto",
    help="ONNX: replacement of max pools. any: neurons that spike when any neuron in the window does, "
    "sum: neurons for how much the maximum rises from one place of the window to the next (branches, so not for netx), "
    "average: average pools, auto: the one that scores better, error: none, so refuse them. [default: auto]",
)
@click.option(
    "--replace-activations",
    type=click.Choice(["relu"]),
    help="ONNX: put ReLU in the place of activations close to it (GELU, SiLU, HardSwish, ELU, SELU, CELU, Softplus, "
    "Mish), and tune the ANN to its own former answers; needs --data. [default: they are refused]",
)
@click.option(
    "--neuron",
    "neurons",
    type=click.Choice(["spike", "sigma-delta"]),
    default="spike",
    show_default=True,
    help="ONNX: neurons. spike: neurons that spike, sigma-delta: neurons that send changes of their activation "
    "(messages); the network may have classes or values.",
)
@click.option("--seed", type=Seed, default=0, show_default=True, help="ONNX: seed of all random numbers.")
@click.option("--threads", type=click.IntRange(1), help=f"ONNX: {THREADS_HELP}")
@click.option("--report", type=FileName(".html"), help="ONNX: also write a page with all figures, FILE.html.")
@data_options
@force_option
@json_option
def convert(**given: Any) -> None:
    """Write a model in another format, or turn an ANN into an SNN.

    SOURCE is an ANN in ONNX (.onnx), a model of snnzoo (.safetensors), a netx file (.net, .hdf5), a NIR graph (.nir),
    or a lava-dl checkpoint (.pt, or .safetensors from zoo migrate). Its content decides, not its suffix. zoo convert
    also takes the name of a model.

    ONNX: the ANN is checked against the ONNX reference, calibrated and tuned on the images of --data, and scored.
    Without labels the tuning imitates the ANN. Without --data it is calibrated on noise, and neither tuned nor scored.
    Say how the ANN's images were normalised, with --mean and --std, or --raw.

    lava-dl: a checkpoint needs --spec, or beside it the .net that lava-dl exported from it, under the same name. A
    dense network needs only --threshold and --time-steps.

    NIR: a graph contains neither the time step nor the reset. snnTorch's graphs need --dt 1e-4, norse's --dt 1e-6,
    sinabs' --dt 1 --time-constants exact. Add --reset subtract if the neurons subtract the threshold after a spike,
    which is the default of snnTorch and sinabs.

    Example: zoo convert network.pt -o network.safetensors -o network.nir
    """
    from converters.cli.conversion import convert_source

    convert_source(**given)
