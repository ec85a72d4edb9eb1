"""Behaviour of all commands: exit codes of errors, common options, notes and warnings, tables."""

import errno
import json
import math
import os
import platform
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

import click

from converters.cli.interrupt import INTERRUPTED, raised_in_command
from converters.cli.usage import Rule, check_rules
from specs.errors import SnnZooError
from specs.files.whole_file import refuse_file_as_folder
from specs.words import printable

if TYPE_CHECKING:
    from torch import Tensor

    from converters.model import Model

TYPED, QUIET, VERBOSE = (f"{__name__}.{what}" for what in ("typed", "quiet", "verbose"))
"""Keys under which a click context stores the typed arguments, `--quiet` and `--verbose`."""
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}
"""Environment variables that a command sets, unless the user has, before it loads torch. Its threads then spin only
briefly while they wait: one that spins uses up its share of a core, and comes late when there is work again."""
SYSTEM_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST}
"""Errors of the operating system that are never a bug of ours."""
NO_LIBRARY = (
    "note: the native library is not installed, so this runs in torch, many times slower and with the same spikes; "
    "to build the library, install a C++ compiler and then snnzoo again"
)
OUT_OF_MEMORY = "out of memory: close other programs, or give less at once, such as a smaller training.batch_size"
BAR_WIDTH, REFRESH_S, ESTIMATE_S = 79, 0.1, 2
"""Width of a progress line, seconds between two of them, and the seconds after which a time is estimated in a file."""
NARROWEST = 12
"""Smallest width to which a table column is folded, in characters."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class KnownModels:
    """Models that a program knows by name, kept as the object of its click context.

    `find` returns the file of a model, or None for an unknown name; `names` returns all names, for completion;
    `golden_images` takes a name or a path and returns the images in the model's card, or None if it has no card.
    """

    find: Callable[[str], Path | None]
    names: Callable[[], list[str]]
    golden_images: Callable[[str], "Tensor | None"]


def known_models() -> KnownModels | None:
    """Return the models that the running program knows, None if it knows none."""
    found = click.get_current_context().obj
    return found if isinstance(found, KnownModels) else None


def _remembered(key: str, *names: str, help: str) -> click.Option:
    """Return a flag that is stored in the click context as `key`; it may stand before or after a subcommand."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        context.meta[key] = value or context.meta.get(key, False)

    return click.Option(names, is_flag=True, expose_value=False, callback=remember, help=help)


def talk_options() -> list[click.Option]:
    """Return the options `-q` and `-v`."""
    return [
        _remembered(QUIET, "-q", "--quiet", help="Print no notes and no progress; warnings and errors stay."),
        _remembered(VERBOSE, "-v", "--verbose", help="At the end, print the versions used and the run time."),
    ]


class Command(click.Command):
    """Command with a table of rules about its options; an expected error is `Error: ...` and exit code 1."""

    def __init__(self, *arguments: Any, rules: Sequence[Rule] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += talk_options()
        self.rules = rules

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, check the rules about them, and store them as typed."""
        ctx.meta[TYPED] = tuple(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # as for completion
            check_rules(self.rules, ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        start = time.perf_counter()
        try:
            with raised_in_command():
                return super().invoke(ctx)
        except SnnZooError as error:
            raise click.ClickException(_wrapped(str(error), after="Error: ")) from error
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc] # final for subclasses
            raise
        except KeyboardInterrupt:
            echo("Stopped", err=True)
            raise SystemExit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in SYSTEM_ERRORS:
                raise
            does = "write" if error.errno in {errno.ENOSPC, errno.EROFS} else "use"
            what = printable(str(error.filename or "the output"))
            raise click.ClickException(f"cannot {does} {what}: {error.strerror}") from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise click.ClickException(_wrapped(f"{OUT_OF_MEMORY} ({_first_line(error)})", after="Error: ")) from error
        finally:
            if is_verbose() and _is_first_process():
                echo("\n".join([*describe_platform(), f"{time.perf_counter() - start:.1f} s"]), err=True)


command = partial(click.command, cls=Command, context_settings=CONTEXT_SETTINGS)
"""Decorator that makes a `Command`."""
wrap_text = partial(click.wrap_text, width=80)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory has run out: torch raises a RuntimeError on CPUs, and a subclass of it on GPUs."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("allocate memory", "out of memory"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text to stdout, or to stderr if `err`, as `printable` returns it; `nl` ends the line."""
    click.echo(printable(str(text)), err=err, nl=nl)


def echo_over(text: str) -> None:
    """Print a text of our own to stderr over the last line of the terminal, which is not ended."""
    click.echo(f"\r{text}", err=True, nl=False)


def json_text(value: object) -> str:
    """Return a value as JSON text; numbers that are not finite, which JSON lacks, become null.

    >>> json_text({"loss": float("nan")})
    '{"loss": null}'
    """
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command_line() -> str:
    """Return the running command, as typed."""
    context = click.get_current_context()
    return shlex.join([*context.command_path.split(), *context.meta[TYPED]])


def json_option(command: F) -> F:
    """Add the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(command)


def force_option(command: F) -> F:
    """Add the option `--force`."""
    return click.option("--force", is_flag=True, help="Overwrite existing files.")(command)


def refuse_existing(path: Path, force: bool, *, otherwise: str = "") -> None:
    """Raise `SnnZooError` if `path` cannot be written, or exists and `force` is false.

    `otherwise` is a further remedy for the message, such as `resume with --resume, `.
    """
    try:
        refuse_file_as_folder(path.parent)
        exists = path.exists()
        with TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise SnnZooError(f"cannot write {path}: {error.strerror or error}") from None
    if exists and not force:
        raise SnnZooError(f"{path} exists: choose another path, {otherwise}or overwrite it with --force")


def describe_platform() -> list[str]:
    """Return lines about Python and, if it is loaded, about torch and the native library."""
    if "torch" not in sys.modules:
        return [f"Python {platform.python_version()}"]
    import torch

    from bootstrap_core.ops.library import describe

    return [
        f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"operators: {describe()}",
    ]


def is_quiet() -> bool:
    """Return whether to print no notes: `--quiet` was given, or another of several processes prints them."""
    return _is_remembered(QUIET) or not _is_first_process()


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def is_verbose() -> bool:
    """Return whether `--verbose` was given."""
    return _is_remembered(VERBOSE)


def _is_remembered(key: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def shows_progress() -> bool:
    """Return whether to show progress bars: stderr is a terminal, and `--quiet` was not given."""
    return sys.stderr.isatty() and not is_quiet()


def say(text: str) -> None:
    """Print a note to stderr, unless `--quiet` was given; on a terminal, wrap it between words."""
    if not is_quiet():
        echo(_wrapped(text), err=True)


def warn(*texts: str) -> None:
    """Print each text as a warning to stderr, even with `--quiet`; on a terminal, wrap it between words."""
    for text in texts:
        echo(_wrapped(f"warning: {text}"), err=True)


def _wrapped(text: str, *, after: str = "") -> str:
    """Wrap text for stderr between words if that is a terminal; `after` is text that is printed before it.

    Each line of the text is wrapped alone, so that a command on its own line can be copied.
    """
    text = printable(text)
    if not sys.stderr.isatty():
        return text
    fill = partial(textwrap.fill, width=shutil.get_terminal_size().columns, break_long_words=False)
    return "\n".join(fill(line, break_on_hyphens=False) for line in f"{after}{text}".split("\n")).removeprefix(after)


def note_missing_library(device: str = "cpu") -> None:
    """Print a note if the command computes on a CPU without the native library, which is slow."""
    from bootstrap_core.ops import library

    if device == "cpu" and not library.is_installed():
        say(NO_LIBRARY)


def say_notes(model: "Model", *, said: str | None = None) -> None:
    """Print the notes of a model's reader, except the note `said` before, and a warning if the chip cannot run it."""
    for note in model.notes:
        if note != said:
            say(f"note: {note}")
    say_overflow(model.overflow)


def say_overflow(overflow: str | None) -> None:
    """Print a warning with `overflow`, the message about a state that leaves the chip's 24 bits; nothing for None."""
    if overflow is not None:
        warn(f"the chip cannot run this network: {overflow}")


@contextmanager
def byte_bar(label: str) -> Iterator[Callable[[int, int | None], object]]:
    """Show a progress bar on stderr if that is a terminal; yield the function to call with bytes done and in all."""
    if not shows_progress():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=printable(label), file=sys.stderr) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.length = total or done
            if done < bar.pos:  # another file begins, or the same file begins again
                bar.pos = 0
            bar.update(done - bar.pos)

        yield progress
        progress(1, 1)


class ProgressLine:
    """Progress with an estimate of the time left; call it with the numbers of things done and of all.

    On a terminal it is the last line, which disappears at the end. Elsewhere the estimate is printed once, if the work
    takes long, or with `every_s` each time so many seconds have passed. Time counts from the first call, since finding
    the files, for example, is no part of the work.
    """

    def __init__(self, label: str, unit: str, *, every_s: float | None = None) -> None:
        self.every_s = every_s
        self.label, self.unit, self.shows, self.has_said = label, unit, shows_progress(), is_quiet()
        self.done_before: int | None = None  # things done at `start`; None before the work begins
        self.start = self.shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show how far the work is; 0 done begins it, and after the last thing the object is ready for further work."""
        now = time.perf_counter()
        if done == total:
            if self.shows and self.done_before is not None and self.shown > self.start:
                echo_over(" " * BAR_WIDTH + "\r")
            self.done_before = None
            return
        if self.done_before is None or done <= self.done_before:
            self.start = self.shown = now
            self.done_before = done
            return
        rate = (done - self.done_before) / (now - self.start)
        left = (total - done) / rate
        if self.shows and now - self.shown >= REFRESH_S:
            filled = "#" * (20 * done // total)
            line = f"{self.label}  [{filled:<20}] {done:,}/{total:,}  {rate:.0f} {self.unit}/s  {left:.0f} s left"
            echo_over(line[:BAR_WIDTH].ljust(BAR_WIDTH))
            self.shown = now
        elif self.every_s is not None:
            if not (self.shows or self.has_said) and now - self.shown >= self.every_s:
                say(f"{self.label}: {done:,} of {total:,} {self.unit}, about {left:.0f} s left")
                self.shown = now
        elif not self.has_said and now - self.start >= ESTIMATE_S:
            say(f"{self.label}: {total:,} {self.unit}, about {left:.0f} s left")
            self.has_said = True


def print_table(header: list[str], rows: list[list[str]], *, words: bool = False) -> None:
    """Print a table to stdout. The first column aligns left; the others align right, or left if they are `words`.

    On a terminal, or with $COLUMNS set, the cells of the widest columns are folded over several lines until the table
    fits. The first column, which has names, is folded last. In a file or a pipe each row is one line.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
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
            echo("  ".join([first, *others]).rstrip())


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table of rows that have the same columns."""
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def _folded(cell: str, width: int) -> list[str]:
    """Fold a cell into lines; long names break after dots, dashes, underscores and slashes."""
    if len(cell) <= width:
        return [cell]
    wrapper = textwrap.TextWrapper(width)
    wrapper.wordsep_re = re.compile(r"(\s+)|(?<=[./_-])")
    return wrapper.wrap(cell)
