"""Where cards lie: in the package, or beside a model file."""

from pathlib import Path

from specs.errors import SnnZooError
from zoo.card import Card, is_card, load_card
from zoo.catalog import find_model, local_catalogs
from zoo.fetch import local_file
from zoo.packaged_files import packaged_names, packaged_path

__all__ = ["card_beside", "card_file", "card_names", "card_of", "packaged_card"]

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
    """The card of a model: beside its file; by name or `NAME@REVISION`, of the package or pulled; None without."""
    path = Path(source)
    if path.is_file():
        beside = card_beside(path)
        return None if beside is None else load_card(beside)
    if source in card_names():
        return packaged_card(source)
    found = find_model(source, local_catalogs())
    return None if found is None else load_card(local_file(found, None))


def card_beside(path: Path) -> Path | None:
    """The card of a model file that lies beside it under its name, as `model.yaml`; a spec there is no card."""
    card = path.with_suffix(SUFFIX)
    return card if card.is_file() and is_card(card) else None
