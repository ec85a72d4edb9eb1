"""The program `zoo`. It imports its commands when it runs: that takes a moment, in which Ctrl-C must end it cleanly."""

from converters.cli.interrupt import end_on_interrupt

TYPE_CHECKING = False  # as in typing, whose import takes 10 ms
if TYPE_CHECKING:
    from zoo.cli.program import zoo

__all__ = ["main", "zoo"]


def __getattr__(name: str) -> object:
    if name == "zoo":
        from zoo.cli.program import zoo

        return zoo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the program `zoo`."""
    end_on_interrupt()
    from converters.cli.console import echo
    from specs.errors import SnnZooError
    from zoo.cli.program import zoo

    try:
        _check_clash()
    except SnnZooError as error:
        echo(f"Error: {error}", err=True)
        raise SystemExit(1) from None
    zoo(prog_name="zoo")


def _check_clash() -> None:
    """Raise `SnnZooError` if another distribution is installed under one of our import names."""
    from pathlib import Path

    import converters
    import specs
    from specs.errors import SnnZooError

    ours = Path(__file__).parents[2]
    for package in (converters, specs):
        if package.__file__ is None or Path(package.__file__).parents[1] != ours:
            raise SnnZooError(
                f"the package {package.__name__!r} belongs to another distribution ({package.__file__}): "
                "install snnzoo in a separate environment"
            )
