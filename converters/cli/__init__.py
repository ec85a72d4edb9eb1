"""The commands `convert` and `migrate`."""

from converters.cli.convert_command import convert
from converters.cli.migrate_command import migrate

__all__ = ["main_convert", "main_migrate"]


def main_convert() -> None:
    """Run `convert` as a program of its own."""
    convert(prog_name="convert")


def main_migrate() -> None:
    """Run `migrate` as a program of its own."""
    migrate(prog_name="migrate")
