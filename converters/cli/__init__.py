"""The programs `convert` and `migrate`, which import their command when they run, and what all commands share."""

from converters.cli.interrupt import end_on_interrupt


def main_convert() -> None:
    """Run the program `convert`."""
    end_on_interrupt()
    from converters.cli.convert_command import convert

    convert(prog_name="convert")


def main_migrate() -> None:
    """Run the program `migrate`."""
    end_on_interrupt()
    from converters.cli.migrate_command import migrate

    migrate(prog_name="migrate")
