"""Publish models to an index in a folder or on a hub: files first, index.json last; existing files never change.

A README.md of each model and of the index has the front matter that Hugging Face reads. Source of its keys:
https://huggingface.co/docs/hub/model-cards, and `model-index` as in huggingface_hub's `EvalResult`.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from specs.dataset_sources import dataset_names, dataset_title
from specs.errors import IntegrityError, SnnZooError, SpecError, TransferError
from specs.files.whole_file import copy_whole, write_whole
from specs.network import NetworkSpec
from specs.words import counted, percent
from zoo.card import NO_LICENCE, Card, is_card, load_card
from zoo.hub.index import CARD_SUFFIX, INDEX_NAME, IndexedFile, IndexedModel, ZooIndex, card_revision, dump_index
from zoo.hub.transport import FolderTransport, HubTransport, fetch_index, open_transport
from zoo.model_format import ModelFormat

README_NAME = "README.md"
WRITTEN = "<!-- Written by zoo publish, which leaves a README.md without this line as it is. -->"
TAGS = ["snnzoo", "spiking-neural-network", "loihi"]
HUB_LICENCES = frozenset({
    "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gpl-2.0", "gpl-3.0", "isc",
    "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "ofl-1.1", "osl-3.0", "postgresql", "unlicense", "wtfpl",
    "zlib",
})  # fmt: skip
"""Licences that Hugging Face knows, as it writes them; every other one is `other`, with its name beside it."""
TASKS = {
    "image-classification": "Image Classification",
    "audio-classification": "Audio Classification",
    "video-classification": "Video Classification",
    "other": "Classification of events",
}
"""Tasks of Hugging Face and their names; recordings of an event camera are its videos."""
Change = Callable[[ZooIndex], ZooIndex]
Files = Sequence[tuple[IndexedFile, Path]]
Pages = Callable[[ZooIndex], dict[str, str]]


def model_readme(card: Card, spec: NetworkSpec, card_path: str) -> str:
    """Return the README.md of a model: front matter, the card for people, labels and a test vector.

    Args:
        card_path: path of the card from the folder of the README.md.
    """
    from zoo.card_text import as_markdown  # imports torch

    name, weights = f"{card.name}@{card.revision}", card.files[ModelFormat.SAFETENSORS]
    classes = ", ".join(f"{i} `{label}`" for i, label in enumerate(card.data.classes))
    parts = [
        WRITTEN,
        as_markdown(card, spec),
        f"## Use\n\n```\npip install snnzoo\nzoo pull {name} --from INDEX\nzoo verify {name}\n```\n",
        f"INDEX is the folder or URL with the `index.json` that lists this model. `{card.name}.safetensors` has the "
        f"sha256 `{weights.sha256}`.\n",
        f"## Labels\n\nClasses by the index of their logit: {classes}.\n",
        _test_vector(card, card_path),
    ]
    return _page(_front_matter(card), parts)


def index_readme(index: ZooIndex) -> str:
    """Return the README.md of an index of several models: a table with a link to the page of each."""
    from zoo.card_text import table

    newest = {name: models[-1] for name, models in sorted(index.models.items())}
    licences = {model.licence for model in newest.values()}
    front = {
        **(_licence_keys(*licences) if len(licences) == 1 else {"license": "other", "license_name": "of-each-model"}),
        "library_name": "snnzoo",
        "tags": TAGS,
        **_dataset_keys(*(model.data for model in newest.values())),
    }
    rows = [
        (
            f"[{name}]({PurePosixPath(model.files[ModelFormat.SAFETENSORS].path).parent}/{README_NAME})",
            model.description.replace("|", "\\|"),
            model.data,
            str(model.time_steps),
            percent(model.accuracy),
            f"{model.files[ModelFormat.SAFETENSORS].bytes / 1e6:.2f}",
            model.licence,
        )
        for name, model in newest.items()
    ]
    header = ("model", "description", "data", "T", "accuracy", "MB", "licence")
    use = (
        "`zoo list --from INDEX` lists them, `zoo pull NAME --from INDEX` fetches one; INDEX is this folder or its URL."
    )
    return _page(front, [WRITTEN, "# Spiking neural networks\n", table(header, rows), f"\n{use}\n"])


def is_ours(page: bytes) -> bool:
    """Return whether `zoo publish` wrote a README.md, and so may write it again."""
    return WRITTEN.encode() in page


def _page(front: dict[str, Any], parts: list[str]) -> str:
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{text}---\n\n" + "\n".join(parts)


def _front_matter(card: Card) -> dict[str, Any]:
    entering, data = card.input, card.data
    task = "image-classification"
    if entering.log_mel is not None:
        task = "audio-classification"
    elif entering.is_events:
        task = "video-classification" if len(entering.shape) == 3 else "other"
    reached = {card.time_steps: card.test.accuracy, **card.test.by_steps}
    metrics = [
        {"type": "accuracy", "value": accuracy, "name": f"Accuracy, T = {steps}"}
        for steps, accuracy in reached.items()
        if accuracy is not None
    ]
    result = {
        "task": {"type": task, "name": TASKS[task]},
        "dataset": {"type": _dataset_id(data.name), "name": dataset_title(data.name), "split": "test"},
        "metrics": metrics,
    }
    return {
        **_licence_keys(card.licence),
        "library_name": "snnzoo",
        "tags": TAGS,
        **_dataset_keys(data.name),
        "pipeline_tag": task,
        "model-index": [{"name": card.name, "results": [result]}],
    }


def _licence_keys(licence: str) -> dict[str, str]:
    known = licence.lower().removesuffix("-only").removesuffix("-or-later")
    return {"license": known} if known in HUB_LICENCES else {"license": "other", "license_name": licence}


def _dataset_keys(*names: str) -> dict[str, list[str]]:
    """Return the datasets that others have; a path of the user's own says nothing to them."""
    known = sorted(set(names) & set(dataset_names()))
    return {"datasets": known} if known else {}


def _dataset_id(name: str) -> str:
    return name if name in dataset_names() else Path(name).name


def _test_vector(card: Card, card_path: str) -> str:
    """Return the first golden input's expected output, and code that reads the input."""
    golden, sample = card.golden, card.input.sample
    spikes = ", ".join(f"{n:,}" for n in golden.spikes[0])
    logits = ", ".join(f"{logit:g}" for logit in golden.logits[0])
    layers = counted(len(golden.spikes[0]), "layer")
    code = f"""
import base64, zlib
from pathlib import Path
import numpy as np, yaml

golden = yaml.safe_load(Path("{card_path}").read_text())["golden"]
inputs = np.frombuffer(zlib.decompress(base64.b64decode(golden["images"])), np.uint8).reshape(golden["shape"])
""".strip()
    axes = "[N, T, C, H, W]" if len(golden.shape) == 5 else "[N, C, H, W]"
    return f"""## Test vector

The card, `{card_path}`, has {counted(golden.shape[0], sample)} as bytes {axes}, and what the network
gives for each. The first, of class `{card.data.classes[golden.labels[0]]}`, gives at T = {card.time_steps}:

- spikes of the {layers} with neurons, in their order: {spikes}
- logits: {logits}

```python
{code}
```
"""


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
