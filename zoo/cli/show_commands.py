"""The commands `show` and `verify`, which describe and check a model."""

from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import PathArgument, complete_models
from converters.cli.usage import FileName, Rule


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
