"""Downloads that resume where they broke off, are checked, and appear under their name whole or not at all."""

import io
import os
import random
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from specs.errors import IntegrityError, SnnZooError, TransferError

__all__ = [
    "BrokenOffError",
    "Progress",
    "cache_folder",
    "copy_rest",
    "download",
    "expand_user",
    "fetch_whole",
    "persist",
]

TIMEOUT_S = 30.0
"""Seconds without a byte after which a transfer has broken off."""
LOWEST_RATE = 1 << 10
"""Bytes per second; a transfer that stays below it for `RATE_WINDOW_S` of waiting has broken off."""
RATE_WINDOW_S = 60.0
ATTEMPTS = 4
"""Number of attempts in a row, each with less than `CHUNK_BYTES` of new data, after which a transfer fails."""
BACKOFF_S = 0.5
"""Longest pause after the first failure, in seconds; it doubles with each further one."""
CHUNK_BYTES = 1 << 18
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
"""HTTP status codes after which another attempt may succeed."""

Progress = Callable[[int, int | None], object]
"""Function called with the number of bytes received so far, and the total, or None if unknown."""


class BrokenOffError(Exception):
    """A transfer that may succeed when tried again."""


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Return the cache: `cache_dir`, else $ZOO_CACHE_DIR, else snnzoo in $XDG_CACHE_HOME, else ~/.cache/snnzoo."""
    if cache_dir is not None:
        return cache_dir
    if from_environment := os.environ.get("ZOO_CACHE_DIR"):
        return expand_user(from_environment)
    return expand_user(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "snnzoo"


def expand_user(path: str) -> Path:
    """Return a path with its `~` replaced. Raises `SnnZooError` if the user has no home, as in some containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SnnZooError(f"{path}: {error} Set HOME, or $ZOO_CACHE_DIR to a folder for downloads") from None


def fetch_whole(target: Path, fetch: Callable[[BinaryIO], object], check: Callable[[Path], object]) -> Path:
    """Return `target`, after fetching it if it is missing or fails its check.

    A file that passes its check is only read, so its folder may be read-only. If several processes need the file, one
    fetches it and the others wait. A transfer that a killed or failed process began is completed; if the whole then
    fails its check, it is fetched once more from the start.

    Args:
        target: path of the file; missing folders are made.
        fetch: called with a file open for appending; appends the missing bytes.
        check: called with a path; raises `IntegrityError` if the file is not as expected.

    Raises:
        SnnZooError: the file cannot be written. Errors of `fetch` and `check` are passed on.
    """
    if _is_in_order(target, check):
        return target
    from filelock import FileLock

    part, lock = (target.with_name(f".{target.name}.{suffix}") for suffix in ("part", "lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not _is_in_order(target, check):
                _fetch_checked(part, fetch, check)
                part.replace(target)
            with suppress(OSError):  # processes that wait for the lock then find the target
                lock.unlink()
    except OSError as error:
        raise SnnZooError(
            f"cannot write {target}: {error.strerror or error}; choose another folder with --cache-dir or ZOO_CACHE_DIR"
        ) from error
    return target


def download(
    url: str,
    file: BinaryIO,
    *,
    size: int | None = None,
    limit: int | None = None,
    headers: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Append to `file` the bytes of `url` that it lacks.

    A transfer that breaks off, stalls or trickles is resumed after growing pauses; from the start if the server does
    not support ranges. An Authorization header is sent to the host of `url` only.

    Args:
        url: `http://` or `https://`; redirections are followed within the same scheme and to https.
        file: open for appending, or in memory.
        size: size of the whole in bytes, if known.
        limit: largest size in bytes if `size` is None; None for any.
        headers: headers of the requests.
        progress: called after each chunk.

    Raises:
        TransferError: the server refuses, or the transfer broke off `ATTEMPTS` times in a row.
        IntegrityError: the server sends something else: a web page, or a file of another size.
        SnnZooError: the file cannot be written; it is then emptied.
    """
    persist(lambda: _receive(url, file, size, limit, headers or {}, progress), file, what=url)


def persist(attempt: Callable[[], object], file: BinaryIO, *, what: str) -> None:
    """Call `attempt`, which appends to `file`; repeat it after each `BrokenOffError`, with growing pauses.

    Raises:
        TransferError: it broke off `ATTEMPTS` times in a row; the message begins with `what`.
    """
    furthest, failures = file.seek(0, os.SEEK_END), 0
    while True:
        try:
            attempt()
            return
        except BrokenOffError as error:
            end = file.seek(0, os.SEEK_END)
            failures = 1 if end >= furthest + CHUNK_BYTES else failures + 1
            furthest = max(furthest, end)
            if failures >= ATTEMPTS:
                raise TransferError(f"{what}: {error}; tried {ATTEMPTS} times") from None
            time.sleep(BACKOFF_S * 2 ** (failures - 1) * random.uniform(0.5, 1))


def copy_rest(
    read: Callable[[int], bytes],
    file: BinaryIO,
    *,
    limit: int | None,
    total: int | None,
    what: str,
    progress: Progress = lambda done, total: None,
) -> int:
    """Append the rest of a source to `file`; return the size of the file in bytes.

    Args:
        read: called with a number of bytes; returns at most that many, and none at the end.
        file: open for appending.
        limit: largest size of the file in bytes; None for any.
        total: expected size of the file in bytes, for `progress`.
        what: name of the source in messages.
        progress: called after each chunk.

    Raises:
        IntegrityError: the file would exceed `limit`; it is emptied, since its bytes are not the expected ones.
        SnnZooError: the file cannot be written; it is emptied, to free the disk.
    """
    done = file.seek(0, os.SEEK_END)
    while chunk := read(CHUNK_BYTES):
        done += len(chunk)
        if limit is not None and done > limit:
            file.truncate(0)
            raise IntegrityError(f"{what}: more than the limit of {limit} bytes")
        _write(file, chunk)
        progress(done, total)
    return done


def _write(file: BinaryIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        file.truncate(0)
        raise SnnZooError(f"cannot write {file.name}: {error.strerror or error}") from error


def _is_in_order(path: Path, check: Callable[[Path], object]) -> bool:
    try:
        if not path.is_file():
            return False
        check(path)
    except (OSError, IntegrityError):
        return False
    return True


def _fetch_checked(part: Path, fetch: Callable[[BinaryIO], object], check: Callable[[Path], object]) -> None:
    """Complete `part` and check it; if it was begun before and fails the check, fetch it once more from the start."""
    for resumed in (part.exists(), False):
        try:
            with part.open("a+b", buffering=0) as file:
                fetch(file)
                os.fsync(file.fileno())
            check(part)
            return
        except IntegrityError:
            part.unlink()
            if not resumed:
                raise
        except SnnZooError:
            if part.stat().st_size == 0:
                part.unlink()
            raise


def _receive(
    url: str, file: BinaryIO, size: int | None, limit: int | None, headers: Mapping[str, str], progress: Progress
) -> None:
    """Request the bytes that `file` lacks and append them. Raises `BrokenOffError` if another attempt may help."""
    start = file.seek(0, os.SEEK_END)
    if size is not None and start > size:
        start = file.truncate(0)
    if start == size:
        return
    with _request(url, headers, start) as response:
        if response.headers.get_content_type() == "text/html":
            raise IntegrityError(f"{url}: the server sends a web page, not the file")
        first, announced = _extent(response)
        if first != start:  # the server does not support ranges, or sends another one
            file.truncate(0)
        if first not in (start, 0):
            raise BrokenOffError(f"expected bytes from {start} on, the server sends bytes from {first} on")
        if None not in (size, announced) and size != announced:
            raise IntegrityError(f"{url}: expected {size} bytes, the server announces {announced}")
        total, limit = (announced, limit) if size is None else (size, size)
        if limit is not None and announced is not None and announced > limit:
            raise IntegrityError(f"{url}: {announced} bytes, more than the limit of {limit}")
        try:
            # read1 returns the bytes that have arrived; read waits for a whole chunk and loses them on a break
            done = copy_rest(response.read1, file, limit=limit, total=total, what=url, progress=progress)
        except (OSError, ValueError, HTTPException) as error:
            raise BrokenOffError(_reason(error)) from None
    if total is not None and done < total:
        raise BrokenOffError(f"the server sent {done} of {total} bytes")


def _request(url: str, headers: Mapping[str, str], start: int) -> HTTPResponse:
    headers = {"User-Agent": "snnzoo", "Accept-Encoding": "identity", **headers}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer: HTTPResponse = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in TRANSIENT:
                raise BrokenOffError(str(error)) from None
            if error.code == 416 and start:  # the file on the server ends before `start`
                raise IntegrityError(f"{url}: the file is shorter than the {start} bytes fetched before") from None
            raise TransferError(f"{url}: {error}") from None
    except (ValueError, InvalidURL) as error:
        raise TransferError(f"{url}: {error}") from None
    except (OSError, HTTPException) as error:
        raise BrokenOffError(_reason(error)) from None
    return answer


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Return the position of the first byte sent, and the size of the whole in bytes, or None if not announced."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
        if found is None:
            raise BrokenOffError("the server does not say which range it sends")
        first, total = found.groups()
        return int(first), None if total == "*" else int(total)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _reason(error: Exception) -> str:
    """Return the message of an error; of a URLError, that of the error in it; the type's name if it is empty."""
    inner = getattr(error, "reason", error)
    return str(inner) or type(inner).__name__


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone, not for files, ftp or data; it uses the environment's proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _PacedHTTPHandler(),
        _PacedHTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _SafeRedirect(),
    ):
        opener.add_handler(handler)
    return opener


class _Paced(io.RawIOBase):
    """Stream from a server, headers and file, that fails when it stays slower than `LOWEST_RATE`."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self._received, self._waited = raw, 0, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        """Read like any raw stream. Raises `TimeoutError` if the server is too slow."""
        start = time.monotonic()
        n_bytes = self._raw.readinto(buffer)
        self._waited += time.monotonic() - start
        self._received += n_bytes or 0
        if self._waited >= RATE_WINDOW_S:
            if self._received < LOWEST_RATE * self._waited:
                raise TimeoutError(f"too slow: the server sent {self._received} bytes in {self._waited:.0f} s")
            self._received, self._waited = 0, 0.0
        return n_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _PacedHandler(urllib.request.AbstractHTTPHandler):
    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> HTTPResponse:
        """Send a request over a new connection and return the answer."""

        def connection(host: str, **options: Any) -> HTTPConnection:
            made: HTTPConnection = http_class(host, **options)
            made.response_class = _PacedResponse
            return made

        return super().do_open(connection, req, **options)  # type: ignore[arg-type]


class _PacedHTTPHandler(_PacedHandler, urllib.request.HTTPHandler):
    pass


class _PacedHTTPSHandler(_PacedHandler, urllib.request.HTTPSHandler):
    pass


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    """Redirections within the same scheme or to https, without secrets for other hosts."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request for the new address."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in (old.scheme, "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"redirection to {newurl} is not followed", headers, fp)  # type: ignore[arg-type]
        request = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if request is not None and new.netloc != old.netloc:
            request.remove_header("Authorization")
        return request
