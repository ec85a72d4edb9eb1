"""Ways to the files of an index: a folder, a web server, a hub, or whatever fsspec reaches."""

import os
import re
from pathlib import Path
from typing import IO, BinaryIO, Protocol
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.files.download import BrokenOffError, Progress, copy_rest, download, expand_user, persist
from specs.files.given_file import check_given_file
from specs.files.limits import INDEX_BYTES

__all__ = [
    "FolderTransport",
    "FsspecTransport",
    "HubTransport",
    "Transport",
    "WebTransport",
    "is_remote",
    "no_progress",
    "open_transport",
]

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HERE = {"", "file", "memory"}
"""Schemes of what lies on this machine."""
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, NotImplementedError, ValueError, TypeError)
"""Errors of file systems behind fsspec that another attempt would end in too."""


def no_progress(done: int, total: int | None) -> None:
    """Progress that nobody watches."""


class Transport(Protocol):
    """Where an index lies; `url` is how messages name it."""

    url: str

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        """Append to `file` what it lacks of the file at `path`, which has `size` bytes, or those of an index at most.

        Raises:
            TransferError: it is not there, or cannot be read.
            IntegrityError: it is larger.
            SnnZooError: `file` cannot be written.
        """


def is_remote(url: str) -> bool:
    """Whether an index is beyond this machine."""
    return _scheme(url) not in HERE


def open_transport(url: str) -> Transport:
    """The way to an index. Raises `SnnZooError` for a URL that cannot be, or needs what is not installed."""
    if not url:
        raise SnnZooError("an index has a folder or a URL; this is empty")
    try:
        return _open(url)
    except SnnZooError:
        raise
    except Exception as error:  # of URLs, hubs and file systems, each with errors of its own
        raise SnnZooError(f"{url}: {error}") from error


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
    """An index in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = str(self.folder)

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        """As `Transport.fetch`."""
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
    """An index on a web server: https, or http on this machine.

    Args:
        url: of the folder.
        address: at which it really is, if `url` only names it.
        headers: of each request; an Authorization among them goes to that server only.
    """

    def __init__(self, url: str, *, address: str = "", headers: dict[str, str] | None = None) -> None:
        self.url, self.address, self.headers = url, address or url, headers
        parts = urlsplit(self.address)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise SnnZooError(f"{url}: what comes by http may have been changed on its way; use https://")
        if "@" in parts.netloc:
            raise SnnZooError(f"{parts.hostname}: a URL with a password would be shown, so none is taken")
        if re.search(r"[\s\x00-\x1f\x7f]", self.address):
            raise SnnZooError(f"{url}: a URL has no spaces; write %20")
        if parts.query or parts.fragment:
            raise SnnZooError(f"{url}: files lie below the URL of an index, so it has neither ? nor #")

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        """As `Transport.fetch`."""
        url = f"{self.address}/{quote(path)}"
        download(url, file, size=size, limit=INDEX_BYTES, headers=self.headers, progress=progress)


class HubTransport(WebTransport):
    """An index in a model repository of a hub: `hf://OWNER/REPOSITORY[@REVISION][/FOLDER]`.

    Files come as from any web server; huggingface_hub knows its address, which HF_ENDPOINT replaces, and the user's
    token.
    """

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?", url)
        if found is None:
            raise SnnZooError(f"{url}: a hub's index is hf://OWNER/REPOSITORY[@REVISION][/FOLDER]")
        try:
            from huggingface_hub import hf_hub_url
            from huggingface_hub.utils import build_hf_headers
        except ImportError:
            raise SnnZooError(f"{url} needs huggingface_hub: pip install 'snnzoo[hub]'") from None
        self.repository, self.revision, self.folder = found[1], found[2] or "main", found[3] or ""
        address = hf_hub_url(self.repository, "-", subfolder=self.folder or None, revision=self.revision)
        headers = {name: value for name, value in build_hf_headers().items() if name == "authorization"}
        super().__init__(url, address=address.removesuffix("/-"), headers=headers)


class FsspecTransport:
    """An index at any URL that fsspec, with what it finds installed, can read."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise SnnZooError(f"{url} needs fsspec: pip install 'snnzoo[hub]'") from None
        self.url = url
        self._files, self._root = url_to_fs(url)

    def fetch(self, path: str, file: BinaryIO, size: int | None = None, progress: Progress = no_progress) -> None:
        """As `Transport.fetch`."""
        what = f"{self.url}/{path}"

        def attempt() -> None:
            try:
                with self._files.open(f"{self._root}/{path}", "rb") as opened:
                    _copy_rest(opened, file, size, what, progress)
            except SnnZooError:
                raise
            except FINAL as error:
                raise TransferError(f"{what}: {type(error).__name__}: {error}") from error
            except Exception as error:  # each file system behind fsspec has errors of its own
                raise BrokenOffError(f"{type(error).__name__}: {error}") from error

        persist(attempt, file, what=what)


def _copy_rest(source: IO[bytes], file: BinaryIO, size: int | None, what: str, progress: Progress) -> None:
    source.seek(file.seek(0, os.SEEK_END))
    copy_rest(source.read, file, limit=INDEX_BYTES if size is None else size, total=size, what=what, progress=progress)
