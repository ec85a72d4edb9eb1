"""The commands `convert` and `migrate`."""

from converters.cli.convert import convert

__all__ = ["main_convert"]


def main_convert() -> None:
    """Run `convert` as a program of its own."""
    convert(prog_name="convert")
