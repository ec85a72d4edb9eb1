"""What several commands share: options, and the way figures are printed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bootstrap_core.datasets import Dataset

__all__ = ["PathArgument", "data_options", "percent", "run_options", "say_sample", "use_threads"]

F = TypeVar("F", bound=Callable[..., Any])
PathArgument = click.Path(path_type=Path)


def data_options(command: F) -> F:
    """Give a command `--data-dir` and `--offline`."""
    command = click.option("--offline", is_flag=True, help="Never download.")(command)
    return click.option("--data-dir", type=PathArgument, envvar="ZOO_DATA_DIR", show_envvar=True,
                        help="Folder with the datasets' idx files.")(command)  # fmt: skip


def run_options(command: F) -> F:
    """Give a command `--device` and `--threads`."""
    command = click.option("--threads", type=click.IntRange(1), help="CPU threads.")(command)
    return click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="cpu", show_default=True)(
        command
    )


def say_sample(dataset: "Dataset") -> None:
    """Say so on stderr if figures are of the embedded sample."""
    if dataset.is_sample:
        click.echo(f"note: scored on {dataset.source}", err=True)


def percent(part: float | None) -> str:
    """0.9876 as `98.76 %`; a dash for None."""
    return "-" if part is None else f"{100 * part:.2f} %"


def use_threads(threads: int | None) -> None:
    """Tell torch how many CPU threads to use."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
