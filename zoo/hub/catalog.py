"""What there is: the models of the package, those pulled before, and those of any index; found by name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from io import BytesIO
from pathlib import Path

from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.files.download import cache_folder
from specs.suggestion import suggest
from zoo.hub.index import INDEX_NAME, IndexedModel, ZooIndex, parse_index, parse_reference
from zoo.hub.publish import read_index
from zoo.hub.transport import FolderTransport, Transport, is_remote, open_transport

__all__ = [
    "CACHE",
    "PACKAGE",
    "Catalog",
    "Found",
    "cached_models",
    "find_model",
    "find_models",
    "local_catalogs",
    "model_cache",
    "no_model",
    "open_catalogs",
    "packaged_models",
    "search",
]

PACKAGE, CACHE = "package", "cache"
"""Names of the catalogs that are no index of the user's."""


@dataclass(frozen=True)
class Catalog:
    """An index that was read, and the way to its files.

    `name` is what tables show: `PACKAGE`, `CACHE`, or its URL.
    """

    name: str
    transport: Transport
    index: ZooIndex


@dataclass(frozen=True)
class Found:
    """A revision of a model, and the catalog that has it."""

    name: str
    model: IndexedModel
    catalog: Catalog


def packaged_models() -> Catalog:
    """The models that come with the package."""
    with resources.as_file(resources.files("zoo")) as folder:
        return _read_catalog(FolderTransport(Path(folder)), name=PACKAGE)


def model_cache(cache_dir: Path | None = None) -> Path:
    """The folder of pulled models: an index whose files lie below their digests. `cache_dir` as in `cache_folder`."""
    return cache_folder(cache_dir) / "models"


def cached_models(cache_dir: Path | None = None) -> Catalog:
    """The models that were pulled before; the revision pulled last stands for the name.

    Raises:
        IntegrityError: the cache's index is damaged; says what to do.
    """
    folder = model_cache(cache_dir)
    try:
        index = read_index(folder)
    except IntegrityError as error:
        remedy = f"remove {folder / INDEX_NAME}: the models are still there, and are named again when they are pulled"
        raise IntegrityError(f"{error}\n{remedy}") from None
    return Catalog(CACHE, FolderTransport(folder), index)


def local_catalogs(cache_dir: Path | None = None) -> list[Catalog]:
    """What is on this machine: the package, then the cache."""
    return [packaged_models(), cached_models(cache_dir)]


def open_catalogs(urls: Sequence[str] = (), *, cache_dir: Path | None = None, offline: bool = False) -> list[Catalog]:
    """The indexes to search, first the one that goes before the others.

    Args:
        urls: of indexes; by default those in $ZOO_INDEX, with spaces between them, then the package, and at last what
            was pulled before.
        cache_dir: as in `cache_folder`.
        offline: instead of each index beyond this machine, take what was pulled before.

    Raises:
        TransferError: an index cannot be read; none is passed over, as another would take its place.
        IntegrityError: it is no index.
    """
    if urls:
        return [_open_catalog(url, cache_dir, offline) for url in urls]
    try:
        catalogs = [_open_catalog(url, cache_dir, offline) for url in os.environ.get("ZOO_INDEX", "").split()]
    except TransferError as error:
        raise TransferError(
            f"{error}\nZOO_INDEX names this index; --offline does without those on other machines"
        ) from None
    return [*catalogs, packaged_models(), cached_models(cache_dir)]


def find_model(reference: str, catalogs: Sequence[Catalog]) -> Found | None:
    """The model that `NAME` or `NAME@REVISION` means: in the first catalog that has it, of that revision if said."""
    name, revision = parse_reference(reference)
    found = ((catalog, catalog.index.get(name, revision)) for catalog in catalogs)
    return next((Found(name, model, catalog) for catalog, model in found if model), None)


def find_models(references: Sequence[str], catalogs: Sequence[Catalog]) -> list[Found]:
    """The models that the references mean. Raises `SnnZooError` unless all are there."""
    found = {reference: find_model(reference, catalogs) for reference in references}
    for reference, model in found.items():
        if model is None:
            raise no_model(reference, catalogs)
    return [model for model in found.values() if model]


def no_model(reference: str, catalogs: Sequence[Catalog], *, otherwise: str = "") -> SnnZooError:
    """The error for a model that is in none of the catalogs: what revisions there are, or what name was meant.

    `otherwise` follows, unless a name is near.
    """
    name, revision = parse_reference(reference)
    where = ", ".join(dict.fromkeys(catalog.name for catalog in catalogs))
    revisions = [model.revision for catalog in catalogs for model in catalog.index.models.get(name, ())]
    if revisions:
        return SnnZooError(
            f"{name} has no revision {revision!r} in {where}; there are {', '.join(revisions)}{otherwise}"
        )
    names = _names(catalogs)
    meant = suggest(name, names) or f"; there are {', '.join(names) or 'none'}{otherwise}"
    return SnnZooError(f"no model {name!r} in {where}{meant}")


def search(pattern: str, catalogs: Sequence[Catalog]) -> list[Found]:
    """The models whose names match `pattern`, with `*`, `?` and `[...]`, perhaps `@REVISION`; each once, as
    `find_model` finds it."""
    pattern, at, revision = pattern.partition("@")
    names = [name for name in _names(catalogs) if fnmatchcase(name, pattern)]
    return [found for name in names if (found := find_model(f"{name}{at}{revision}", catalogs))]


def _names(catalogs: Sequence[Catalog]) -> list[str]:
    return sorted({name for catalog in catalogs for name in catalog.index.models})


def _open_catalog(url: str, cache_dir: Path | None, offline: bool) -> Catalog:
    return cached_models(cache_dir) if offline and is_remote(url) else _read_catalog(open_transport(url))


def _read_catalog(transport: Transport, *, name: str = "") -> Catalog:
    if isinstance(transport, FolderTransport):
        place = transport.folder / INDEX_NAME
        if not os.path.exists(place):  # noqa: PTH110 - False for a name that cannot be
            raise TransferError(f"no index in {transport.folder}: there is no {place}; zoo publish makes one")
    raw = BytesIO()
    transport.fetch(INDEX_NAME, raw)
    return Catalog(
        name or transport.url, transport, parse_index(raw.getvalue(), origin=f"{transport.url}/{INDEX_NAME}")
    )
