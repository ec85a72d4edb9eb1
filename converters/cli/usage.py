"""Wrong use of options: those that exclude or need others, as a table of each command, and files of a wrong suffix."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

UsageError = click.UsageError


@dataclass(frozen=True)
class Rule:
    """An option that excludes others, or needs at least one of others; `why` continues a sentence that it begins.

    Options are written as users type them: `--graph`, `--mode ann`, `-o FILE.c` for a file of this suffix, or SOURCE
    for an argument. Without a value, any value counts, but an option that is 0 needs nothing. The empty option is the
    command itself.
    """

    option: str
    why: str
    excludes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def check(self, context: click.Context) -> None:
        """Raise `click.UsageError` if the options of the running command break this rule."""
        if self.option and not given([self.option], context):
            return
        remedies = [f"leave out {self.option}"] if self.option else []
        if others := given(self.excludes, context):
            remedies.append(" and ".join(others))
        elif self.needs and not given(self.needs, context) and not (self.option and _value(self.option, context) == 0):
            remedies.insert(0, f"give {' or '.join(self.needs)}")
        else:
            return
        raise UsageError(f"{self.option} {self.why}: {', or '.join(remedies)}".lstrip(), context)


def check_rules(rules: Iterable[Rule], context: click.Context | None = None) -> None:
    """Raise `click.UsageError` for the first of `rules` that the options of the running command break."""
    for rule in rules:
        rule.check(context or click.get_current_context())


def leave_out(why: str, options: Iterable[str]) -> None:
    """Raise `click.UsageError` if one of `options` was given to the running command, where it has no meaning."""
    if useless := given(options):
        raise UsageError(f"{why}: leave out {', '.join(useless)}")


def given(options: Iterable[str], context: click.Context | None = None) -> list[str]:
    """Return those of `options`, written as in `Rule`, that a user typed for the running command."""
    context = context or click.get_current_context()
    return [option for option in options if _is_given(option, context)]


def _is_given(option: str, context: click.Context) -> bool:
    if context.get_parameter_source(_parameter(option, context).name or "") is not ParameterSource.COMMANDLINE:
        return False
    wanted, found = option.partition(" ")[2], _value(option, context)
    values = found if isinstance(found, tuple) else (found,)
    if wanted.startswith("FILE"):
        return any(Path(value).suffix == Path(wanted).suffix for value in values)
    return not wanted or wanted in map(str, values)


def _value(option: str, context: click.Context) -> Any:
    return context.params.get(_parameter(option, context).name or "")


def _parameter(option: str, context: click.Context) -> click.Parameter:
    name = option.partition(" ")[0]
    return next(one for one in context.command.params if name in (*one.opts, one.human_readable_name))


class FileName(click.Path):
    """Path of a file as the type of an option, which must have one of the suffixes."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        path: Any = super().convert(value, param, ctx)
        if path.suffix.lower() not in self.suffixes:
            self.fail(f"must be {' or '.join(f'FILE{suffix}' for suffix in self.suffixes)}, got {str(path)!r}", param)
        return path
