"""Publish models to an index in a folder or on a hub: files first, index.json last; existing files never change."""

from collections.abc import Callable, Sequence
from pathlib import Path

from specs.dataset_sources import dataset_names
from specs.errors import IntegrityError, SnnZooError, SpecError, TransferError
from specs.files.whole_file import copy_whole, write_whole
from zoo.card import Card, is_card, load_card
from zoo.hub.index import CARD_SUFFIX, INDEX_NAME, IndexedFile, IndexedModel, ZooIndex, dump_index
from zoo.hub.transport import FolderTransport, HubTransport, fetch_index, open_transport
from zoo.model_format import ModelFormat

Change = Callable[[ZooIndex], ZooIndex]


def publish(file: Path, card_file: Path, url: str, *, own_data: bool = False) -> str:
    """Add a model file and its card to an index; return `NAME@REVISION`. Entries that exist stay as they are.

    Args:
        file: model file. The safetensors file of a revision must be published first.
        card_file: card of the model.
        url: a folder, or `hf://`.
        own_data: allow everyone to see the path of the user's own training data, and the images in the card.

    Raises:
        SpecError: the card cannot be read.
        IntegrityError: the card belongs to another file, or the index has other bytes for this revision.
        SnnZooError: the index cannot be written, or would show the user's own data without `own_data`.
    """
    try:
        card = load_card(card_file)
    except SpecError:
        if is_card(card_file):
            raise
        raise SpecError(
            f"{card_file} is not a card; this writes one:\nzoo card {file} -o {file.with_suffix(CARD_SUFFIX)}"
        ) from None
    format = _check_card(file, card_file, card)
    if not own_data:
        _check_no_own_data(card)
    place = f"{card.name}/{card.revision}/{card.name}"
    facts = IndexedFile.of(file, f"{place}{format.suffix}")
    card_facts = IndexedFile.of(card_file, f"{place}{CARD_SUFFIX}")
    sources = [(facts, file), (card_facts, card_file)]

    def change(index: ZooIndex) -> ZooIndex:
        return _adding(index, card, format, facts, card_facts, url)

    match transport := open_transport(url):
        case FolderTransport():
            update_index(transport.folder, change, sources)
        case HubTransport():
            _update_hub(transport, change, sources, f"Add {card.name}@{card.revision}")
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


def update_index(folder: Path, change: Change, files: Sequence[tuple[IndexedFile, Path]] = ()) -> None:
    """Copy `files` to their paths in a folder, then change its index; one process at a time.

    Raises:
        IntegrityError: a file does not have the size and sha256 of its entry.
        SnnZooError: the folder cannot be written. Errors of `change` are passed on.
    """
    from filelock import FileLock

    if change(index := read_index(folder)) == index and all(_is_there(folder, facts) for facts, _ in files):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{INDEX_NAME}.lock"):
            changed = change(read_index(folder))
            for facts, source in files:
                facts.check(source)
                copy_whole(source, folder / facts.path)
                facts.check(folder / facts.path)
            write_whole(folder / INDEX_NAME, dump_index(changed))
    except OSError as error:
        raise SnnZooError(f"cannot write the index in {folder}: {error.strerror or error}") from error


def _is_there(folder: Path, facts: IndexedFile) -> bool:
    try:
        facts.check(folder / facts.path)
    except (OSError, IntegrityError):
        return False
    return True


def _update_hub(
    transport: HubTransport, change: Change, files: Sequence[tuple[IndexedFile, Path]], message: str
) -> None:
    """Commit all files at once; the hub refuses it if the index has changed since it was read."""
    from huggingface_hub import CommitOperationAdd, HfApi

    prefix = f"{transport.folder}/" if transport.folder else ""
    api = HfApi()
    try:
        repository = api.model_info(transport.repository, revision=transport.revision)
        is_new = all(file.rfilename != f"{prefix}{INDEX_NAME}" for file in repository.siblings or ())
        index = ZooIndex.empty() if is_new else fetch_index(transport)
        if (changed := change(index)) == index:
            return
        for facts, source in files:
            facts.check(source)
        contents = {**{facts.path: source.read_bytes() for facts, source in files}, INDEX_NAME: dump_index(changed)}
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


def _check_card(file: Path, card_file: Path, card: Card) -> ModelFormat:
    """Return the format of `file`. Raises `IntegrityError` unless it is a model and the card has its sha256."""
    from converters.formats.model_files import read_model

    read_model(file)
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
    return format


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
        if theirs is not None and ours != theirs:
            raise IntegrityError(
                f"{url} has {card.name}@{card.revision} with another {theirs.path}; a published revision cannot change"
            )
    if format in known.files:
        return index
    return index.changing(card.name, known.model_copy(update={"files": {**known.files, format.value: file}}))
