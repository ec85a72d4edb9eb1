"""The commands `convert` and `migrate`."""

from converters.cli.convert_command import convert
from converters.cli.migrate_command import migrate

__all__ = ["main_convert", "main_migrate"]


def main_convert() -> None:
    """Run the program `convert`."""
    convert(prog_name="convert")


def main_migrate() -> None:
    """Run the program `migrate`."""
    migrate(prog_name="migrate")
