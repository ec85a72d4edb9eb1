"""Publish models to an index in a folder or on a hub: files first, index.json last; existing files never change."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from specs.dataset_sources import dataset_names
from specs.errors import IntegrityError, SnnZooError, SpecError, TransferError
from specs.files.whole_file import copy_whole, write_whole
from specs.network import NetworkSpec
from zoo.card import NO_LICENCE, Card, is_card, load_card
from zoo.hub.index import CARD_SUFFIX, INDEX_NAME, IndexedFile, IndexedModel, ZooIndex, card_revision, dump_index
from zoo.hub.readme import README_NAME, index_readme, is_ours, model_readme
from zoo.hub.transport import FolderTransport, HubTransport, fetch_index, open_transport
from zoo.model_format import ModelFormat

Change = Callable[[ZooIndex], ZooIndex]
Files = Sequence[tuple[IndexedFile, Path]]
Pages = Callable[[ZooIndex], dict[str, str]]


def publish(file: Path, card_file: Path, url: str, *, own_data: bool = False, card_only: bool = False) -> str:
    """Add a model file and its card to an index, and a README.md beside them; return `NAME@REVISION`.

    Files of the index never change. A README.md may, as no index lists it; the user's own stays as it is.

    Args:
        file: model file. The safetensors file of a revision must be published first.
        url: a folder, or `hf://`.
        own_data: allow everyone to see the path of the user's own training data, and the images in the card.
        card_only: put the card in the place of the published one, which stays in the index as an earlier card.

    Raises:
        SpecError: the card cannot be read.
        IntegrityError: the card belongs to another file, or the index has other bytes for this revision.
        SnnZooError: the card has no licence, the index cannot be written, or would show the user's own data without
            `own_data`; with `card_only`, the index lacks the model.
    """
    try:
        card = load_card(card_file)
    except SpecError:
        if is_card(card_file):
            raise
        raise SpecError(
            f"{card_file} is not a card; this writes one:\nzoo card {file} -o {file.with_suffix(CARD_SUFFIX)}"
        ) from None
    if card.licence.strip() in {"", NO_LICENCE}:
        raise SnnZooError(
            f"{card_file}: {card.name} has no licence, and without one nobody may use it: write the one of your choice "
            "into the card by its SPDX name, as in licence: Apache-2.0"
        )
    format, spec = _check_card(file, card_file, card)
    if not own_data:
        _check_no_own_data(card)
    folder = f"{card.name}/{card.revision}"
    facts = IndexedFile.of(file, f"{folder}/{card.name}{format.suffix}")
    card_facts = IndexedFile.of(card_file, f"{folder}/{card.name}{CARD_SUFFIX}")
    if card_only:
        place = f"{folder}/{card_revision(card_facts)}/{card.name}{CARD_SUFFIX}"
        card_facts = card_facts.model_copy(update={"path": place})
    sources = [(card_facts, card_file)] if card_only else [(facts, file), (card_facts, card_file)]

    def change(index: ZooIndex) -> ZooIndex:
        if card_only:
            return _correcting(index, card, facts, card_facts, url)
        return _adding(index, card, format, facts, card_facts, url)

    def pages(index: ZooIndex) -> dict[str, str]:
        if format is not ModelFormat.SAFETENSORS:
            return {}
        path = card_facts.path
        found = {f"{folder}/{README_NAME}": model_readme(card, spec, path.removeprefix(f"{folder}/"))}
        if len(index.models) > 1:
            found[README_NAME] = index_readme(index)
        elif index.models[card.name][-1].revision == card.revision:
            found[README_NAME] = model_readme(card, spec, path)  # Hugging Face reads that of the repository alone
        return found

    match transport := open_transport(url):
        case FolderTransport():
            update_index(transport.folder, change, sources, pages)
        case HubTransport():
            action = "Correct the card of" if card_only else "Add"
            _update_hub(transport, change, sources, pages, f"{action} {card.name}@{card.revision}")
        case _:
            raise SnnZooError(f"{url}: cannot publish there; use a folder or hf://")
    return f"{card.name}@{card.revision}"


def read_index(folder: Path) -> ZooIndex:
    """Return the index in a folder; an empty one if the folder has none. Raises `IntegrityError` if it is damaged."""
    path = folder / INDEX_NAME
    try:
        path.stat()
    except FileNotFoundError:
        return ZooIndex.empty()
    except OSError as error:
        raise SnnZooError(f"cannot read {path}: {error.strerror or error}") from None
    return fetch_index(FolderTransport(folder))


def update_index(folder: Path, change: Change, files: Files = (), pages: Pages = lambda index: {}) -> None:
    """Copy `files` to their paths in a folder, then change its index; one process at a time.

    `pages` gives the texts of the index's pages by path; they are written last, in the place of older ones.

    Raises:
        IntegrityError: a file does not have the size and sha256 of its entry.
        SnnZooError: the folder cannot be written. Errors of `change` are passed on.
    """
    from filelock import FileLock

    changed = change(index := read_index(folder))
    if changed == index and all(_is_there(folder, facts) for facts, _ in _listed(changed, files)):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{INDEX_NAME}.lock"):
            changed = change(read_index(folder))
            for facts, source in _listed(changed, files):
                facts.check(source)
                copy_whole(source, folder / facts.path)
                facts.check(folder / facts.path)
            write_whole(folder / INDEX_NAME, dump_index(changed))
            for path, page in pages(changed).items():
                place = folder / path
                if not place.exists() or is_ours(place.read_bytes()):
                    write_whole(place, page.encode())
    except OSError as error:
        raise SnnZooError(f"cannot write the index in {folder}: {error.strerror or error}") from error


def _listed(index: ZooIndex, files: Files) -> list[tuple[IndexedFile, Path]]:
    """Return the files that the index lists; it has an older card of the same content at another path."""
    return [(facts, source) for facts, source in files if index.lists(facts)]


def _is_there(folder: Path, facts: IndexedFile) -> bool:
    try:
        facts.check(folder / facts.path)
    except (OSError, IntegrityError):
        return False
    return True


def _update_hub(transport: HubTransport, change: Change, files: Files, pages: Pages, message: str) -> None:
    """Commit all files at once; the hub refuses it if the index has changed since it was read."""
    from huggingface_hub import CommitOperationAdd, HfApi

    prefix = f"{transport.folder}/" if transport.folder else ""
    api = HfApi()
    try:
        repository = api.model_info(transport.repository, revision=transport.revision)
        there = {file.rfilename for file in repository.siblings or ()}
        index = fetch_index(transport) if f"{prefix}{INDEX_NAME}" in there else ZooIndex.empty()
        if (changed := change(index)) == index:
            return
        contents = {INDEX_NAME: dump_index(changed)}
        for facts, source in _listed(changed, files):
            facts.check(source)
            contents[facts.path] = source.read_bytes()
        for path, page in pages(changed).items():
            if f"{prefix}{path}" in there:
                transport.fetch(path, before := BytesIO())
                if not is_ours(before.getvalue()):
                    continue
            contents[path] = page.encode()
        api.create_commit(
            transport.repository,
            [CommitOperationAdd(f"{prefix}{path}", content) for path, content in contents.items()],
            commit_message=message,
            revision=transport.revision,
            parent_commit=repository.sha,
        )
    except SnnZooError:
        raise
    except Exception as error:  # huggingface_hub and its http library raise many types
        raise TransferError(f"{transport.url}: {type(error).__name__}: {error}") from error


def _check_card(file: Path, card_file: Path, card: Card) -> tuple[ModelFormat, NetworkSpec]:
    """Return format and spec of `file`. Raises `IntegrityError` unless it is a model and the card has its sha256."""
    from converters.formats.model_files import read_model

    spec = read_model(file).spec
    found = IndexedFile.of(file, file.name)
    known = {facts.sha256: format for format, facts in card.files.items() if facts.bytes == found.bytes}
    if (format := known.get(found.sha256)) is None:
        own = ModelFormat.SAFETENSORS
        remedy = (
            "measure a card of this file with zoo card"
            if file.suffix == own.suffix
            else f"publish its {own.suffix} file: zoo pull --format converts it to the other formats"
        )
        raise IntegrityError(
            f"{card_file} is the card of another file: it lacks the sha256 of {file}, {found.sha256}; {remedy}"
        )
    return format, spec


def _check_no_own_data(card: Card) -> None:
    recipe = card.training.recipe
    models = {} if recipe is None else {"teacher": recipe.teacher, "start model": recipe.start}
    for what, model in models.items():
        if model is not None and _is_path(model):
            raise SnnZooError(
                f"everyone who pulls {card.name} sees the path of its {what}, {model}, which nobody else can train "
                "from; allow this with --own-data"
            )
    for data in (card.data.name, card.data.name if recipe is None else recipe.data):
        if data not in dataset_names():
            raise SnnZooError(
                f"everyone who pulls {card.name} sees the path of its data, {data}, and {card.golden.shape[0]} test "
                f"images of {card.data.name}, which are in the card for zoo verify; allow this with --own-data"
            )


def _is_path(model: str) -> bool:
    """Return whether a model is named by a path, not as `NAME` or `NAME@REVISION`."""
    from converters.formats.model_files import MODEL_SUFFIXES

    return len(Path(model).parts) > 1 or Path(model).suffix in MODEL_SUFFIXES


def _adding(
    index: ZooIndex, card: Card, format: ModelFormat, file: IndexedFile, card_file: IndexedFile, url: str
) -> ZooIndex:
    known = index.get(card.name, card.revision)
    if known is None:
        if format is not ModelFormat.SAFETENSORS:
            raise SnnZooError(f"{url} has no {card.name}@{card.revision} yet: publish its safetensors file first")
        return index.adding(card.name, IndexedModel.of(card, {format.value: file}, card_file))
    for ours, theirs in ((file, known.files.get(format)), (card_file, known.card)):
        if theirs is not None and ours.sha256 != theirs.sha256:
            raise IntegrityError(
                f"{url} has {card.name}@{card.revision} with another {theirs.path}; a published revision cannot change"
                f"{': put a corrected card in its place with --card-only' if ours is card_file else ''}"
            )
    if format in known.files:
        return index
    return index.with_files(card.name, card.revision, {**known.files, format.value: file})


def _correcting(index: ZooIndex, card: Card, file: IndexedFile, card_file: IndexedFile, url: str) -> ZooIndex:
    known = index.get(card.name, card.revision)
    if known is None:
        raise SnnZooError(
            f"{url} has no {card.name}@{card.revision}, whose card could be corrected: publish the model without "
            "--card-only"
        )
    if file.sha256 != (own := known.files[ModelFormat.SAFETENSORS].sha256):
        raise IntegrityError(
            f"{url} has {card.name}@{card.revision} with the sha256 {own}, not {file.sha256}: give the safetensors "
            "file that was published"
        )
    if card_file.sha256 == known.card.sha256:
        return index
    return index.correcting(card.name, IndexedModel.of(card, known.files, card_file))
