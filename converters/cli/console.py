"""What all commands share: errors as exit codes, options, tables."""

import errno
import os
import platform
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

import click

from specs.errors import SnnZooError
from specs.files.whole_file import refuse_file_as_folder

if TYPE_CHECKING:
    from converters.model import Model

__all__ = [
    "CONTEXT_SETTINGS",
    "INTERRUPTED",
    "Command",
    "KnownModels",
    "byte_bar",
    "command",
    "command_line",
    "describe_platform",
    "force_option",
    "is_quiet",
    "is_verbose",
    "json_option",
    "note_missing_library",
    "print_table",
    "refuse_existing",
    "say",
    "say_notes",
    "say_overflow",
    "shows_progress",
    "talk_options",
    "warn",
]

TYPED, QUIET, VERBOSE = (f"{__name__}.{what}" for what in ("typed", "quiet", "verbose"))
"""What a context remembers of its command."""
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
ENVIRONMENT = {"GOMP_SPINCOUNT": "30000"}
"""Of a command, unless the user says otherwise, and before torch is loaded: its threads must not spin for long while
they wait, since other programs may want the same cores."""
OF_THE_SYSTEM = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors that are no bug, whichever file has them."""
NO_LIBRARY = (
    "note: the native library is not installed, so this runs on torch alone, many times slower; spikes are the "
    "same (reinstall snnzoo where a C++ compiler is on the path)"
)
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of shells."""
NARROWEST = 12
"""Of columns that are folded."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class KnownModels:
    """What a program knows by name, as the object of its context: `find` gives a model's file, or None."""

    find: Callable[[str], Path | None]
    names: Callable[[], list[str]]


def _remembered(key: str, *names: str, help: str) -> click.Option:
    """A flag that a context remembers as `key`, wherever it stands on the command line."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        context.meta[key] = value or context.meta.get(key, False)

    return click.Option(names, is_flag=True, expose_value=False, callback=remember, help=help)


def talk_options() -> list[click.Option]:
    """`-q` and `-v`."""
    return [
        _remembered(QUIET, "-q", "--quiet", help="No notes and no progress; warnings and errors stay."),
        _remembered(VERBOSE, "-v", "--verbose", help="At the end, what it ran on and how long it took."),
    ]


class Command(click.Command):
    """A command that fails with `Error: what, where, what to do` and code 1; a bug keeps its traceback."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += talk_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and remember what was typed."""
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        start = time.perf_counter()
        try:
            return super().invoke(ctx)
        except SnnZooError as error:
            raise click.ClickException(_parted(str(error), after="Error: ")) from error
        except KeyboardInterrupt:
            click.echo("Stopped", err=True)
            raise SystemExit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in OF_THE_SYSTEM:
                raise
            does = "write" if error.errno in {errno.ENOSPC, errno.EROFS} else "use"
            raise click.ClickException(f"cannot {does} {error.filename or 'the output'}: {error.strerror}") from error
        finally:
            if is_verbose() and os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
                click.echo("\n".join([*describe_platform(), f"{time.perf_counter() - start:.1f} s"]), err=True)


command = partial(click.command, cls=Command, context_settings=CONTEXT_SETTINGS)
"""Decorator that makes a `Command`."""


def command_line() -> str:
    """The command that runs, as typed."""
    context = click.get_current_context()
    return shlex.join([*context.command_path.split(), *context.meta[TYPED]])


def json_option(command: F) -> F:
    """Give a command `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")(command)


def force_option(command: F) -> F:
    """Give a command `--force`."""
    return click.option("--force", is_flag=True, help="Overwrite files that exist.")(command)


def refuse_existing(path: Path, force: bool, *, otherwise: str = "") -> None:
    """Raise unless `path` may be written; `otherwise` is what else can be done."""
    try:
        refuse_file_as_folder(path.parent)
        exists = path.exists()
        with TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise SnnZooError(f"cannot write {path}: {error.strerror or error}") from None
    if exists and not force:
        raise SnnZooError(f"{path} exists; choose another place, {otherwise}or overwrite it with --force")


def describe_platform() -> list[str]:
    """Return the versions that this process runs on; if torch is loaded, also how operators run."""
    if "torch" not in sys.modules:
        return [f"Python {platform.python_version()}"]
    import torch

    from bootstrap_core.ops.library import describe

    return [
        f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"operators: {describe()}",
    ]


def is_quiet() -> bool:
    """Whether the command was asked for no notes."""
    return _is_remembered(QUIET)


def is_verbose() -> bool:
    """Whether the command was asked what it runs on."""
    return _is_remembered(VERBOSE)


def _is_remembered(key: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def shows_progress() -> bool:
    """Whether somebody looks at stderr, and wants to see how far the command is."""
    return sys.stderr.isatty() and not is_quiet()


def say(text: str) -> None:
    """A line of talk to stderr, but for `--quiet`; on a terminal as many, parted between words, as it takes."""
    if not is_quiet():
        click.echo(_parted(text), err=True)


def warn(text: str) -> None:
    """A warning to stderr, as `say`, always."""
    click.echo(_parted(f"warning: {text}"), err=True)


def _parted(text: str, *, after: str = "") -> str:
    """What goes to stderr `after` other text; on a terminal, lines that it is too narrow for part between words.

    So a command that someone copies stays whole if it has a line of its own.
    """
    if not sys.stderr.isatty():
        return text
    fill = partial(textwrap.fill, width=shutil.get_terminal_size().columns, break_long_words=False)
    return "\n".join(fill(line, break_on_hyphens=False) for line in f"{after}{text}".split("\n")).removeprefix(after)


def note_missing_library(device: str = "cpu") -> None:
    """Say so if what follows runs on a CPU without the native library, and so takes longer than it could."""
    from bootstrap_core.ops import library

    if device == "cpu" and not library.is_installed():
        say(NO_LIBRARY)


def say_notes(model: "Model", *, said: str | None = None) -> None:
    """What a reader had to assume, but what was said; and that the chip cannot run the model, if it is known."""
    for note in model.notes:
        if note != said:
            say(f"note: {note}")
    say_overflow(model.overflow)


def say_overflow(overflow: str | None) -> None:
    """That a state leaves the chip's 24 bits, and how, if one does."""
    if overflow is not None:
        warn(f"not for the chip as it is: {overflow}")


@contextmanager
def byte_bar(label: str) -> Iterator[Callable[[int, int | None], object]]:
    """A progress bar on stderr if that is a terminal; gives the function to call with bytes done and all bytes."""
    if not shows_progress():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.length = total or done
            if done < bar.pos:  # another file, or the same from the start
                bar.pos = 0
            bar.update(done - bar.pos)

        yield progress
        progress(1, 1)


def print_table(header: list[str], rows: list[list[str]], *, words: bool = False) -> None:
    """Columns to stdout: the first to the left; the others to the right, or to the left if they are words.

    On a terminal, or where $COLUMNS says how wide it is, cells of the widest columns go over several lines until all
    fits, the first, which has names, only if others do not suffice; in a file or a pipe a row is a line.
    """
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    screen = shutil.get_terminal_size(fallback=(0, 0)).columns
    while screen and sum(widths) + 2 * (len(widths) - 1) > screen and max(widths) > NARROWEST:
        spared = int(max(widths[1:], default=0) > NARROWEST)
        widths[widths.index(max(widths[spared:]), spared)] -= 1
    for row in (header, *rows):
        for line in zip_longest(*map(_folded, row, widths), fillvalue=""):
            first, *others = (
                cell.ljust(width) if i == 0 or words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            click.echo("  ".join([first, *others]).rstrip())


def _folded(cell: str, width: int) -> list[str]:
    """The lines of a cell; long names part after their dots, dashes and slashes."""
    if len(cell) <= width:
        return [cell]
    wrapper = textwrap.TextWrapper(width)
    wrapper.wordsep_re = re.compile(r"(\s+)|(?<=[./_-])")
    return wrapper.wrap(cell)
