"""Getting models: checked, into the cache, and from there to where the user wants them, in any format."""

import filecmp
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from specs.errors import IntegrityError, SnnZooError, SpecError
from specs.files.download import Progress, fetch_whole
from specs.files.whole_file import whole_file
from zoo.hub.catalog import CACHE, PACKAGE, Found, model_cache
from zoo.hub.index import CARD_SUFFIX, IndexedFile, IndexedModel, ZooIndex
from zoo.hub.publish import update_index
from zoo.hub.transport import FolderTransport, no_progress
from zoo.model_format import ModelFormat
from zoo.runs.card import load_card

__all__ = ["local_file", "pull"]


def pull(
    found: Found,
    *,
    formats: Sequence[ModelFormat] = (ModelFormat.SAFETENSORS,),
    folder: Path | None = None,
    cache_dir: Path | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> list[Path]:
    """Fetch a model; the paths of its files, one a format.

    Size and sha256 of each file are checked each time. Models of the package are taken from there, others come through
    the cache, which processes share. A format that the index does not have is made of the safetensors file.

    Args:
        found: the model.
        formats: that are wanted.
        folder: also write the files, and the card, there; by default they stay where they are.
        cache_dir: as in `cache_folder`.
        force: overwrite files in `folder` that have other bytes.
        progress: is told, of each file, bytes done and in all.

    Raises:
        TransferError: the index does not give the file.
        IntegrityError: it gives another.
        UnsupportedError: the network cannot be in that format.
        SnnZooError: a file cannot be written, or has other bytes and `force` is not given.
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
            target = (folder or _cached(found, ModelFormat.SAFETENSORS, cache_dir).parent) / name
            paths.append(_convert(here[ModelFormat.SAFETENSORS], target, force=force or folder is None))
        else:
            paths.append(_copy(here[format], folder / name, force=force) if folder else here[format])
    if folder:
        _copy(card, folder / f"{found.name}{CARD_SUFFIX}", force=force)
    return paths


def local_file(
    found: Found, format: ModelFormat | None, *, cache_dir: Path | None = None, progress: Progress = no_progress
) -> Path:
    """Where a file of a model lies on this machine, fetched if need be, and checked; for no format, the card.

    Raises:
        TransferError: the index does not give it.
        IntegrityError: it gives another.
    """
    file, transport = _facts(found.model, format), found.catalog.transport
    if found.catalog.name in (PACKAGE, CACHE) and isinstance(transport, FolderTransport):
        path = transport.folder / file.path
        try:
            file.check(path)
        except (OSError, IntegrityError) as error:
            if found.catalog.name == PACKAGE:
                raise
            reference = f"{found.name}@{found.model.revision}"
            raise IntegrityError(
                f"{path} is damaged, or gone; fetch it again: zoo pull {reference} --from INDEX"
            ) from error
        return path
    return fetch_whole(
        _cached(found, format, cache_dir),
        partial(transport.fetch, file.path, size=file.bytes, progress=progress),
        partial(file.check, what=f"{transport.url}/{file.path}"),
    )


def _check_card(path: Path, found: Found) -> None:
    """Raise `IntegrityError` if a card is of another model than the index says; a later snnzoo's cannot be read."""
    try:
        card = load_card(path)
    except SpecError:
        return
    if (card.name, card.revision) != (found.name, found.model.revision):
        raise IntegrityError(
            f"{found.catalog.transport.url}: the card of {found.name}@{found.model.revision} is that of "
            f"{card.name}@{card.revision}"
        )


def _facts(model: IndexedModel, format: ModelFormat | None) -> IndexedFile:
    return model.card if format is None else model.files[format]


def _cached(found: Found, format: ModelFormat | None, cache_dir: Path | None) -> Path:
    return model_cache(cache_dir) / _cached_path(found, format)


def _cached_path(found: Found, format: ModelFormat | None) -> str:
    """Below the digest, so that other bytes have another place; the card beside the model.

    Nothing of it is the index's to choose but the name.
    """
    digest = found.model.files[format or ModelFormat.SAFETENSORS].sha256
    return f"{digest}/{found.name}{CARD_SUFFIX if format is None else format.suffix}"


def _remember(found: Found, cache_dir: Path | None) -> None:
    """Let the cache's own index name what of the model is there."""
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
        raise SnnZooError(f"{target} exists, with other bytes; choose another place, or overwrite it with --force")
    with source.open("rb") as opened, whole_file(target) as file:
        shutil.copyfileobj(opened, file)
    return target
