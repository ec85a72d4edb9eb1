"""Fetch models: check them, cache them, and copy or convert them to where the user wants them."""

import filecmp
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from specs.errors import IntegrityError, SnnZooError, SpecError
from specs.files.download import Progress, fetch_whole
from specs.files.whole_file import copy_whole
from zoo.card import load_card
from zoo.hub.catalog import CACHE, PACKAGE, Found, model_cache
from zoo.hub.index import CARD_SUFFIX, IndexedFile, ZooIndex
from zoo.hub.publish import update_index
from zoo.hub.transport import FolderTransport, no_progress
from zoo.model_format import ModelFormat


def pull(
    found: Found,
    *,
    formats: Sequence[ModelFormat] = (ModelFormat.SAFETENSORS,),
    folder: Path | None = None,
    cache_dir: Path | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> list[Path]:
    """Fetch a model; return the paths of its files, one for each format.

    Size and sha256 of each file are checked at every call. Models of the package are read from there, others go through
    the cache, which several processes may use at once. A format that the index lacks is converted from the safetensors
    file.

    Args:
        folder: folder that gets copies of the files and of the card; by default files stay in the package or the cache.
        cache_dir: as in `cache_folder`.
        force: overwrite files in `folder` that differ.

    Raises:
        TransferError: a file cannot be fetched.
        IntegrityError: a file is not the one that the index describes.
        UnsupportedError: a format cannot express the network.
        SnnZooError: a file cannot be written, or exists and differs without `force`.
    """
    offered = [format for format in dict.fromkeys((ModelFormat.SAFETENSORS, *formats)) if format in found.model.files]
    here = {format: local_file(found, format, cache_dir=cache_dir, progress=progress) for format in offered}
    card = local_file(found, None, cache_dir=cache_dir, progress=progress)
    if found.catalog.name != PACKAGE:
        _check_card(card, found)
        _remember(found, cache_dir)
    paths = []
    for format in dict.fromkeys(formats):
        name = f"{found.name}{format.suffix}"
        if format not in here:
            target = (folder or (model_cache(cache_dir) / _cached_path(found, None)).parent) / name
            paths.append(_convert(here[ModelFormat.SAFETENSORS], target, force=force or folder is None))
        else:
            paths.append(_copy(here[format], folder / name, force=force) if folder else here[format])
    if folder:
        _copy(card, folder / f"{found.name}{CARD_SUFFIX}", force=force)
    return paths


def local_file(
    found: Found, format: ModelFormat | None, *, cache_dir: Path | None = None, progress: Progress = no_progress
) -> Path:
    """Return the path of a model's file on this machine, fetched if needed, and checked; of the card without a format.

    Raises:
        TransferError: the file cannot be fetched.
        IntegrityError: the file is not the one that the index describes.
    """
    transport = found.catalog.transport
    file = found.model.card if format is None else found.model.files[format]
    if found.catalog.name in (PACKAGE, CACHE) and isinstance(transport, FolderTransport):
        path = transport.folder / file.path
        try:
            file.check(path)
        except (OSError, IntegrityError) as error:
            if found.catalog.name == PACKAGE:
                raise
            reference = f"{found.name}@{found.model.revision}"
            raise IntegrityError(
                f"{path} is damaged or missing; fetch it again: zoo pull {reference} --from INDEX"
            ) from error
        return path
    return fetch_whole(
        model_cache(cache_dir) / _cached_path(found, format),
        partial(transport.fetch, file.path, size=file.bytes, progress=progress),
        partial(file.check, what=f"{transport.url}/{file.path}"),
    )


def _check_card(path: Path, found: Found) -> None:
    """Raise `IntegrityError` if a card belongs to another model or revision.

    A card that cannot be read passes: a later snnzoo may have written it.
    """
    try:
        card = load_card(path)
    except SpecError:
        return
    if (card.name, card.revision) != (found.name, found.model.revision):
        raise IntegrityError(
            f"{found.catalog.transport.url}: expected the card of {found.name}@{found.model.revision}, got that of "
            f"{card.name}@{card.revision}"
        )


def _cached_path(found: Found, format: ModelFormat | None) -> str:
    """Return the path of a file in the cache, relative to it; for no format, that of the card, beside the safetensors.

    The folder is named by the file's sha256, so that different files have different paths. An index cannot choose where
    files are written: only the model's name comes from it.
    """
    digest = found.model.files[format or ModelFormat.SAFETENSORS].sha256
    return f"{digest}/{found.name}{CARD_SUFFIX if format is None else format.suffix}"


def _remember(found: Found, cache_dir: Path | None) -> None:
    """Add the model to the cache's index, with those of its files that are in the cache."""
    folder = model_cache(cache_dir)

    def moved(file: IndexedFile, format: ModelFormat | None) -> IndexedFile:
        return file.model_copy(update={"path": _cached_path(found, format)})

    files = {format: moved(found.model.files[format], format) for format in ModelFormat if format in found.model.files}
    here = {format.value: file for format, file in files.items() if (folder / file.path).exists()}
    model = found.model.model_copy(update={"files": here, "card": moved(found.model.card, None)})

    def change(index: ZooIndex) -> ZooIndex:
        return index if index.get(found.name) == model else index.adding(found.name, model)

    update_index(folder, change)


def _convert(source: Path, target: Path, *, force: bool) -> Path:
    from converters.formats.model_files import read_model, write_model

    with TemporaryDirectory() as folder:
        return _copy(write_model(read_model(source), Path(folder) / target.name), target, force=force)


def _copy(source: Path, target: Path, *, force: bool) -> Path:
    try:
        exists = target.exists()
        if exists and filecmp.cmp(source, target, shallow=False):
            return target
    except OSError as error:
        raise SnnZooError(f"cannot write {target}: {error.strerror or error}") from None
    if exists and not force:
        raise SnnZooError(f"{target} exists with other content; choose another place, or overwrite it with --force")
    return copy_whole(source, target)
