"""Where cards lie: in the package, or beside a model file."""

from pathlib import Path

from specs.errors import SnnZooError
from zoo.hub.catalog import find_model, local_catalogs
from zoo.hub.fetch import local_file
from zoo.packaged_files import packaged_names, packaged_path
from zoo.runs.card import Card, FileFacts, is_card, load_card

__all__ = ["card_beside", "card_file", "card_names", "card_of", "card_path", "is_of", "packaged_card"]

FOLDER, SUFFIX = "cards", ".yaml"


def card_names() -> list[str]:
    """Names of the models of which the package has a card, sorted."""
    return packaged_names(FOLDER, SUFFIX)


def card_file(name: str) -> Path:
    """Where the card of a model of the package lies."""
    return packaged_path(FOLDER, f"{name}{SUFFIX}")


def packaged_card(name: str) -> Card:
    """The card of a model of the package. Raises `SnnZooError` if there is none."""
    if name not in card_names():
        raise SnnZooError(f"no card of {name!r} in the package; there are {', '.join(card_names()) or 'none'}")
    return load_card(card_file(name))


def card_of(source: str) -> Card | None:
    """The card of a model, see `card_path`."""
    path = card_path(source)
    return None if path is None else load_card(path)


def is_of(card: Card, path: Path) -> bool:
    """Whether a card knows the bytes of a file; those of a format that it does not tell, it need not."""
    known = [facts for format, facts in card.files.items() if format.suffix == path.suffix]
    return not known or FileFacts.of_file(path) in known


def card_path(source: str) -> Path | None:
    """Where the card of a model is: beside its file; by name or `NAME@REVISION`, of the package or pulled."""
    path = Path(source)
    if path.is_file():
        return card_beside(path)
    if source in card_names():
        return card_file(source)
    found = find_model(source, local_catalogs())
    return None if found is None else local_file(found, None)


def card_beside(path: Path) -> Path | None:
    """The card of a model file that lies beside it under its name, as `model.yaml`; a spec there is no card."""
    card = path.with_suffix(SUFFIX)
    return card if card.is_file() and is_card(card) else None
