"""Find the card of a model: in the package, in the cache, or beside a model file."""

from pathlib import Path

from specs.errors import SnnZooError
from zoo.card import Card, FileFacts, is_card, load_card
from zoo.factory import model_names, packaged_path
from zoo.hub.catalog import find_model, local_catalogs
from zoo.hub.fetch import local_file

FOLDER, SUFFIX = "cards", ".yaml"


def card_file(name: str) -> Path:
    """Return the path of a packaged model's card."""
    return packaged_path(FOLDER, f"{name}{SUFFIX}")


def packaged_card(name: str) -> Card:
    """Read the card of a packaged model. Raises `SnnZooError` if the package has no such card."""
    if name not in model_names():
        raise SnnZooError(f"no card of {name!r} in the package; there are {', '.join(model_names()) or 'none'}")
    return load_card(card_file(name))


def card_of(source: str) -> Card | None:
    """Read the card of a model, found as by `card_path`; return None without one."""
    path = card_path(source)
    return None if path is None else load_card(path)


def is_of(card: Card, path: Path) -> bool:
    """Return whether a file has the digest and size that the card gives for its format, if it gives any."""
    known = [facts for format, facts in card.files.items() if format.suffix == path.suffix]
    return not known or FileFacts.of_file(path) in known


def card_path(source: str) -> Path | None:
    """Return the path of a model's card, or None.

    Args:
        source: a model file, whose card lies beside it; or `NAME` or `NAME@REVISION` of a packaged or pulled model.
    """
    path = Path(source)
    if path.is_file():
        return card_beside(path)
    if source in model_names():
        return card_file(source)
    found = find_model(source, local_catalogs())
    return None if found is None else local_file(found, None)


def card_beside(path: Path) -> Path | None:
    """Return the path of the card beside a model file, as `model.yaml`; None if that is missing, or is a spec."""
    card = path.with_suffix(SUFFIX)
    return card if card.is_file() and is_card(card) else None
