"""Access to the files of an index: in a folder, on a web server, on a hub, or by fsspec."""

import os
import re
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, Protocol
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.files.download import CHUNK_BYTES, BrokenOffError, Progress, append, download, expand_user, persist
from specs.files.given_file import check_given_file
from specs.files.limits import INDEX_BYTES
from zoo.hub.index import INDEX_NAME, ZooIndex, parse_index

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HERE = {"", "file", "memory"}
"""URL schemes of indexes on this machine."""
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, NotImplementedError, ValueError, TypeError)
"""Errors of fsspec's file systems after which another attempt would fail too."""


def no_progress(done: int, total: int | None) -> None:
    """Ignore progress."""


class Transport(Protocol):
    """Access to the files of an index; `url` names it in messages."""

    url: str

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        """Append to `file` the bytes that it lacks of the index's file at `path`.

        Args:
            path: path relative to the index.
            size: size of the whole in bytes; if unknown, `INDEX_BYTES` is the limit.

        Raises:
            TransferError: the index's file is missing, or cannot be read.
            IntegrityError: the index's file is larger than expected.
            SnnZooError: `file` cannot be written.
        """


def is_remote(url: str) -> bool:
    """Return whether an index is on another machine."""
    return _scheme(url) not in HERE


def open_transport(url: str) -> Transport:
    """Return the transport for an index. Raises `SnnZooError` if the URL is invalid, or needs a missing package."""
    if not url:
        raise SnnZooError("the URL of the index is empty; give a folder or a URL")
    try:
        return _open(url)
    except SnnZooError:
        raise
    except Exception as error:  # URLs, hubs and file systems raise many types
        raise SnnZooError(f"{url}: {error}") from error


def fetch_index(transport: Transport) -> ZooIndex:
    """Read the index behind `transport`. Raises as `Transport.fetch`, and `IntegrityError` if it is damaged."""
    raw = BytesIO()
    transport.fetch(INDEX_NAME, raw)
    return parse_index(raw.getvalue(), origin=f"{transport.url}/{INDEX_NAME}")


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _open(url: str) -> Transport:
    scheme, url = _scheme(url), url.removesuffix("/index.json").rstrip("/") or "/"
    match scheme:
        case "":
            return FolderTransport(expand_user(url))
        case "file":
            return FolderTransport(Path(url2pathname(urlsplit(url).path)))
        case "http" | "https":
            return WebTransport(url)
        case "hf":
            return HubTransport(url)
    return FsspecTransport(url)


class FolderTransport:
    """Index in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = str(self.folder)

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        source = self.folder / path
        found, limit = check_given_file(source, error=TransferError), INDEX_BYTES if size is None else size
        if found > limit:
            raise IntegrityError(f"{source}: {found} bytes, more than the limit of {limit}")
        try:
            with source.open("rb") as opened:
                _copy_rest(opened, file, size, str(source), progress)
        except OSError as error:
            raise TransferError(f"cannot read {source}: {error.strerror or error}") from None


class WebTransport:
    """Index on a web server: by https, or by http on this machine.

    Args:
        url: URL of the folder.
        address: http or https address of the folder, if `url` has another scheme.
        headers: headers of each request; an Authorization header is sent to that server only.
    """

    def __init__(self, url: str, *, address: str = "", headers: dict[str, str] | None = None) -> None:
        self.url, self.address, self.headers = url, address or url, headers
        parts = urlsplit(self.address)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise SnnZooError(f"{url}: http does not protect files from changes on their way; use https://")
        if "@" in parts.netloc:
            raise SnnZooError(f"{parts.hostname}: a URL with a password is refused, since messages would show it")
        if re.search(r"[\s\x00-\x1f\x7f]", self.address):
            raise SnnZooError(f"{url}: a URL must not contain spaces or control characters; write a space as %20")
        if parts.query or parts.fragment:
            raise SnnZooError(f"{url}: the URL of an index must not contain ? or #, since file paths are appended")

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        url = f"{self.address}/{quote(path)}"
        download(url, file, size=size, limit=INDEX_BYTES, headers=self.headers, progress=progress)


class HubTransport(WebTransport):
    """Index in a model repository of a Hugging Face hub: `hf://OWNER/REPOSITORY[@REVISION][/FOLDER]`.

    Files are downloaded as from any web server; huggingface_hub only tells the hub's address, which HF_ENDPOINT
    replaces, and the user's token.
    """

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?", url)
        if found is None:
            raise SnnZooError(f"{url}: expected hf://OWNER/REPOSITORY[@REVISION][/FOLDER]")
        try:
            from huggingface_hub import hf_hub_url
            from huggingface_hub.utils import build_hf_headers
        except ImportError:
            raise SnnZooError(f"{url} needs huggingface_hub: pip install huggingface_hub") from None
        self.repository, self.revision, self.folder = found[1], found[2] or "main", found[3] or ""
        address = hf_hub_url(self.repository, "-", subfolder=self.folder or None, revision=self.revision)
        headers = {name: value for name, value in build_hf_headers().items() if name == "authorization"}
        super().__init__(url, address=address.removesuffix("/-"), headers=headers)


class FsspecTransport:
    """Index at any URL that fsspec can read with the packages installed."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise SnnZooError(f"{url} needs fsspec: pip install fsspec") from None
        self.url = url
        self._files, self._root = url_to_fs(url)

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        what = f"{self.url}/{path}"

        def attempt() -> None:
            try:
                with self._files.open(f"{self._root}/{path}", "rb") as opened:
                    _copy_rest(opened, file, size, what, progress)
            except SnnZooError:
                raise
            except FINAL as error:
                raise TransferError(f"{what}: {type(error).__name__}: {error}") from error
            except Exception as error:  # fsspec's file systems raise many types
                raise BrokenOffError(f"{type(error).__name__}: {error}") from error

        persist(attempt, file, what=what)


def _copy_rest(source: IO[bytes], file: BinaryIO, size: int | None, what: str, progress: Progress) -> None:
    source.seek(file.seek(0, os.SEEK_END))
    while chunk := source.read(CHUNK_BYTES):
        progress(append(file, chunk, limit=INDEX_BYTES if size is None else size, what=what), size)
