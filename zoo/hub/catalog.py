"""Catalogs of models: the package, the cache of pulled models, and any index; search by name."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.files.download import cache_folder
from specs.words import suggest
from zoo.card import REVISION_DIGITS
from zoo.hub.index import INDEX_NAME, IndexedModel, ZooIndex, parse_reference
from zoo.hub.publish import read_index
from zoo.hub.transport import FolderTransport, Transport, fetch_index, is_remote, open_transport
from zoo.model_format import ModelFormat

PACKAGE, CACHE = "package", "cache"
"""Names of the two catalogs that every installation has."""


@dataclass(frozen=True)
class Catalog:
    """An index that was read, and the transport for its files.

    `name` is shown in tables: `PACKAGE`, `CACHE`, or the URL.
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

    @property
    def shown_revision(self) -> str:
        """Revision, with its card if the index has a newer card of it."""
        newest = self.catalog.index.get(self.name, self.model.revision)
        return self.model.revision if newest == self.model else self.model.pin

    def facts(self) -> dict[str, Any]:
        """Return what the index says about this revision, as JSON values."""
        weights = self.model.files[ModelFormat.SAFETENSORS]
        return {
            "name": self.name,
            **self.model.model_dump(mode="json", exclude={"files", "card", "earlier"}),
            "pin": self.model.pin,
            "formats": sorted(self.model.files),
            "bytes": weights.bytes,
            "sha256": weights.sha256,
            "index": self.catalog.name,
        }


def packaged_models() -> Catalog:
    """Return the catalog of the models in the package."""
    with resources.as_file(resources.files("zoo")) as folder:
        return _read_catalog(FolderTransport(Path(folder)), name=PACKAGE)


def model_cache(cache_dir: Path | None = None) -> Path:
    """Return the folder of pulled models, which is an index. `cache_dir` as in `cache_folder`."""
    return cache_folder(cache_dir) / "models"


def cached_models(cache_dir: Path | None = None) -> Catalog:
    """Return the catalog of pulled models; a name without a revision means the revision pulled last.

    Raises `IntegrityError` if the cache's index is damaged; the message says how to repair it.
    """
    folder = model_cache(cache_dir)
    try:
        index = read_index(folder)
    except IntegrityError as error:
        remedy = f"remove {folder / INDEX_NAME}, then pull the models again: their files are kept"
        raise IntegrityError(f"{error}\n{remedy}") from None
    return Catalog(CACHE, FolderTransport(folder), index)


def local_catalogs(cache_dir: Path | None = None) -> list[Catalog]:
    """Return the catalogs on this machine: the package, then the cache."""
    return [packaged_models(), cached_models(cache_dir)]


def open_catalogs(
    urls: Sequence[str] = (),
    *,
    cache_dir: Path | None = None,
    offline: bool = False,
    on_failure: Callable[[TransferError], object] | None = None,
) -> list[Catalog]:
    """Return the catalogs to search; earlier ones take precedence.

    Args:
        urls: URLs of indexes; by default those in $ZOO_INDEX, separated by spaces, then the package, then the cache.
        cache_dir: as in `cache_folder`.
        offline: read the cache instead of each index on another machine.
        on_failure: called with the error of each index that cannot be read; the cache is then read instead.

    Raises:
        TransferError: without `on_failure`, an index cannot be read.
        IntegrityError: an index is damaged.
    """

    def opened(url: str) -> Catalog:
        if offline and is_remote(url):
            return cached_models(cache_dir)
        try:
            return _read_catalog(open_transport(url))
        except TransferError as error:
            if on_failure is None:
                raise
            on_failure(error)
            return cached_models(cache_dir)

    if urls:
        return [opened(url) for url in urls]
    named = [opened(url) for url in os.environ.get("ZOO_INDEX", "").split()]
    return [*named, packaged_models(), cached_models(cache_dir)]


def find_model(reference: str, catalogs: Sequence[Catalog]) -> Found | None:
    """Return the model `NAME`, `NAME@REVISION` or `NAME@REVISION+CARD` from the first catalog that has it, or None."""
    name, revision = parse_reference(reference)
    found = ((catalog, catalog.index.get(name, revision)) for catalog in catalogs)
    return next((Found(name, model, catalog) for catalog, model in found if model), None)


def find_models(references: Sequence[str], catalogs: Sequence[Catalog]) -> list[Found]:
    """Return the models that the references name. Raises `SnnZooError` if one is missing."""
    found = {reference: find_model(reference, catalogs) for reference in references}
    for reference, model in found.items():
        if model is None:
            raise no_model(reference, catalogs)
    return [model for model in found.values() if model]


def no_model(reference: str, catalogs: Sequence[Catalog], *, otherwise: str = "") -> SnnZooError:
    """Return the error for a model that no catalog has; it lists the revisions or names that exist.

    If a name is similar, it is suggested instead; else the text `otherwise` is appended.
    """
    name, revision = parse_reference(reference)
    where = ", ".join(dict.fromkeys(catalog.name for catalog in catalogs))
    if revisions := [found.shown_revision for found in _revisions(name, catalogs)]:
        problem = f"{name} has no revision {revision!r} in {where}"
        if revision is not None and re.fullmatch(rf"[0-9a-fA-F]{{0,{REVISION_DIGITS - 1}}}", revision):
            problem = f"{reference}: a revision needs at least {REVISION_DIGITS} digits, got {len(revision)}"
        return SnnZooError(f"{problem}; there are {', '.join(revisions)}{otherwise}")
    names = _names(catalogs)
    meant = suggest(name, names) or f"; there are {', '.join(names) or 'none'}{otherwise}"
    return SnnZooError(f"no model {name!r} in {where}{meant}")


def search(pattern: str, catalogs: Sequence[Catalog]) -> list[Found]:
    """Return the models that match `pattern`, sorted by name.

    `pattern` is NAME, for each name that matches the revision that `find_model` finds; or NAME@REVISION, for all
    revisions that match. Both parts may contain `*`, `?` and `[...]`.
    """
    pattern, revision = parse_reference(pattern)
    names = [name for name in _names(catalogs) if fnmatchcase(name, pattern)]
    if revision is None:
        return [found for name in names if (found := find_model(name, catalogs))]
    return [
        found
        for name in names
        for found in _revisions(name, catalogs)
        if found.model.is_revision(revision) or fnmatchcase(found.model.revision, revision)
    ]


def _revisions(name: str, catalogs: Sequence[Catalog]) -> list[Found]:
    """Return all revisions of a model, each from the first catalog that has it."""
    found: dict[str, Found] = {}
    for catalog in catalogs:
        for model in catalog.index.models.get(name, ()):
            found.setdefault(model.pin, Found(name, model, catalog))
    return list(found.values())


def _names(catalogs: Sequence[Catalog]) -> list[str]:
    return sorted({name for catalog in catalogs for name in catalog.index.models})


def _read_catalog(transport: Transport, *, name: str = "") -> Catalog:
    if isinstance(transport, FolderTransport):
        place = transport.folder / INDEX_NAME
        if not os.path.exists(place):  # noqa: PTH110 - False for an invalid name
            raise TransferError(f"no index in {transport.folder}: {place} is missing; zoo publish makes one")
    return Catalog(name or transport.url, transport, fetch_index(transport))
