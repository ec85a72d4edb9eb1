"""Indexes of models: names, revisions, and the size and sha256 of each file.

An index is a folder, on this machine or on a server, with `index.json` and the files that it names by relative paths.

The cache of pulled models is such a folder too, so one layout has one code. A revision is the first 12 digits of the
sha256 of the model file, so `NAME@REVISION` is safe even from a server that is not trusted.

Weights whose card was corrected have an entry for each card, the newest last. `NAME@REVISION` means the newest,
`NAME@REVISION+CARD` the one whose card's sha256 begins with CARD.
"""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from specs.errors import IntegrityError, SpecError
from specs.fields import Name, StrictModel, TimeSteps
from specs.files.given_file import sha256_of, unique_keys
from specs.io import document_as
from zoo.card import REVISION_DIGITS, Card, Digest, FileFacts, Part, check_revision, revision_of
from zoo.model_format import ModelFormat

INDEX_VERSION: Final = 1
INDEX_NAME = "index.json"
CARD_SUFFIX = ".yaml"

SEGMENT = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
RelativePath = Annotated[
    str,
    Field(pattern=rf"^{SEGMENT}(/{SEGMENT}){{0,7}}$", description="relative to the index; no part begins with a dot"),
]
LINE_LENGTH = 1000
Line = Annotated[
    str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$", max_length=LINE_LENGTH, description="printable text on one line")
]


class IndexedFile(FileFacts):
    """A file of an index: its path, size and sha256."""

    path: RelativePath

    @classmethod
    def of(cls, file: Path, path: str) -> "IndexedFile":
        """Describe `file`, which has the path `path` in the index."""
        return cls(path=path, **dict(FileFacts.of_file(file)))

    def check(self, file: Path, *, what: str = "") -> None:
        """Raise `IntegrityError` unless `file` has this size and digest; `what` names it in the message."""
        what = what or str(file)
        if (size := file.stat().st_size) != self.bytes:
            raise IntegrityError(f"{what}: {size} bytes; the index says {self.bytes}")
        if (found := sha256_of(file)) != self.sha256:
            raise IntegrityError(f"{what}: its sha256 is {found}; the index says {self.sha256}")


def card_revision(card_file: FileFacts) -> str:
    """Return the first digits of a card's sha256, which tell it from other cards of the same weights."""
    return revision_of(card_file.sha256)


class IndexedModel(StrictModel):
    """A revision of a model: its files by format, its card, and the figures that listings show.

    `earlier` has the sha256 of former safetensors files with the same output, whose revisions are names of this one.
    """

    revision: Annotated[str, Field(max_length=64)]
    description: Line
    licence: Line
    time_steps: TimeSteps
    data: Line
    accuracy: Part
    files: dict[Name, IndexedFile]
    card: IndexedFile
    earlier: tuple[Digest, ...] = ()

    @classmethod
    def of(cls, card: Card, files: dict[str, IndexedFile], card_file: IndexedFile) -> "IndexedModel":
        return cls(
            revision=card.revision,
            description=_line(card.description),
            licence=_line(card.licence),
            time_steps=card.time_steps,
            data=_line(card.data.name),
            accuracy=card.test.accuracy,
            files=files,
            card=card_file,
            earlier=card.earlier,
        )

    @model_validator(mode="after")
    def _check(self) -> "IndexedModel":
        check_revision(self.revision, self.files)
        return self

    @property
    def pin(self) -> str:
        """Revision and card, as in `0123456789ab+ba9876543210`."""
        return f"{self.revision}+{card_revision(self.card)}"

    def is_revision(self, said: str) -> bool:
        """Return whether `said` names this revision: at least 12 digits of the model file's sha256, or of `earlier`.

        After a `+` come as many digits of the card's sha256; without them any card will do.
        """
        weights, plus, card = said.lower().partition("+")
        own = (self.files[ModelFormat.SAFETENSORS].sha256, *self.earlier)
        named = [(weights, own), *([(card, (self.card.sha256,))] if plus else [])]
        return all(
            len(digits) >= REVISION_DIGITS and any(one.startswith(digits) for one in found) for digits, found in named
        )


def _not_empty(revisions: tuple[IndexedModel, ...]) -> tuple[IndexedModel, ...]:
    if not revisions:
        raise ValueError("a model must have at least one revision")
    return revisions


class ZooIndex(StrictModel):
    """Models by name, each with its revisions, the newest last."""

    schema_version: Literal[1]
    models: dict[Name, Annotated[tuple[IndexedModel, ...], AfterValidator(_not_empty)]]

    @classmethod
    def empty(cls) -> "ZooIndex":
        return cls(schema_version=INDEX_VERSION, models={})

    def get(self, name: str, revision: str | None = None) -> IndexedModel | None:
        """Return a revision of a model, by default the newest; None if the index lacks it."""
        revisions = self.models.get(name, ())
        return next((model for model in reversed(revisions) if revision is None or model.is_revision(revision)), None)

    def lists(self, file: IndexedFile) -> bool:
        return any(file in (model.card, *model.files.values()) for models in self.models.values() for model in models)

    def adding(self, name: str, model: IndexedModel) -> "ZooIndex":
        """Return the index with `model` as the newest revision of `name`; an entry of the same revision is replaced."""
        others = tuple(other for other in self.models.get(name, ()) if other.revision != model.revision)
        return ZooIndex(schema_version=INDEX_VERSION, models={**self.models, name: (*others, model)})

    def with_files(self, name: str, revision: str, files: dict[str, IndexedFile]) -> "ZooIndex":
        """Return the index with other files by format in all entries of a revision."""
        entries = (
            old.model_copy(update={"files": files}) if old.revision == revision else old for old in self.models[name]
        )
        return ZooIndex(schema_version=INDEX_VERSION, models={**self.models, name: tuple(entries)})

    def correcting(self, name: str, model: IndexedModel) -> "ZooIndex":
        """Return the index with `model`, which has another card, as the newest entry of its revision."""
        entries = [old for old in self.models[name] if old.pin != model.pin]
        last = max(i for i, old in enumerate(entries) if old.revision == model.revision)
        entries.insert(last + 1, model)
        return ZooIndex(schema_version=INDEX_VERSION, models={**self.models, name: tuple(entries)})


def parse_index(raw: bytes, *, origin: str) -> ZooIndex:
    """Read index.json; `origin` names it in messages. Raises `IntegrityError` with every problem found."""
    try:
        document = json.loads(raw, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        what = "a web page, not an index" if raw.lstrip()[:1] == b"<" else f"not JSON: {error}"
        raise IntegrityError(f"{origin}: {what}") from None
    if isinstance(document, dict) and document.get("schema_version", INDEX_VERSION) != INDEX_VERSION:
        raise IntegrityError(
            f"{origin}: schema_version {str(document['schema_version'])[:20]!r} is not supported; "
            f"this snnzoo reads {INDEX_VERSION}"
        )
    try:
        return document_as(document, ZooIndex, origin=origin)
    except SpecError as error:
        raise IntegrityError(str(error)) from None


def dump_index(index: ZooIndex) -> bytes:
    """Return the index as JSON, models sorted by name; equal indexes have equal bytes."""
    document = index.model_dump(mode="json", exclude_defaults=True)  # as versions without `earlier` read it
    document["models"] = dict(sorted(document["models"].items()))
    return (json.dumps(document, indent=1) + "\n").encode()


def parse_reference(reference: str) -> tuple[str, str | None]:
    """Return name and revision of `NAME@REVISION`; the revision of a `NAME` alone is None.

    >>> parse_reference("mnist-dense@0123456789ab")
    ('mnist-dense', '0123456789ab')
    """
    name, at, revision = reference.partition("@")
    return name, revision if at else None


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LINE_LENGTH]
