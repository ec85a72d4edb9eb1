"""Downloads that resume where they broke off, are checked, and appear under their name whole or not at all."""

import os
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from specs.errors import IntegrityError, SnnZooError, TransferError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0
"""Seconds without a byte after which an attempt has broken off."""
LOWEST_RATE = 1 << 10
"""Bytes of the file per second; an attempt that stays below it for `RATE_WINDOW_S` of waiting has broken off."""
RATE_WINDOW_S = 60.0
ATTEMPTS = 4
"""Number of attempts in a row without new data after which a transfer fails. It also fails if all its attempts together
take longer than `ATTEMPTS * RATE_WINDOW_S` and the time that its bytes need at `LOWEST_RATE`."""
BACKOFF_S = 0.5
"""Longest pause after the first failure, in seconds; it doubles with each further one."""
CHUNK_BYTES = 1 << 18
REDIRECTIONS = 10
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
"""HTTP status codes after which another attempt may succeed."""

Progress = Callable[[int, int | None], object]
"""Function called with the number of bytes received so far, and the total, or None if unknown."""


VERSION = re.compile(r'"[!#-~]{1,200}"|\w{3}, [\w :]{1,40}GMT', re.ASCII)
"""A strong ETag, or a date as in Last-Modified."""


class BrokenOffError(Exception):
    """A transfer that may succeed when tried again."""


@dataclass
class _Source:
    """File on a server, as the attempts of a transfer have seen it.

    `version` is its ETag or date in the last answer; empty if the server gives none. `has_changed` tells whether it was
    another file in a later answer than in the one before.
    """

    url: str
    headers: Mapping[str, str]
    version: str = ""
    has_changed: bool = False

    def rest_from(self, start: int) -> dict[str, str]:
        """Return the headers of a request of the bytes from `start` on; of all, if the file has changed."""
        headers = {"User-Agent": "snnzoo", "Accept-Encoding": "identity", **self.headers}
        if start:
            headers["Range"] = f"bytes={start}-"
            headers |= {"If-Range": self.version} if self.version else {}
        return headers

    def is_changed(self, response: "httpx.Response", start: int) -> bool:
        """Return whether an answer is of another file than that of which `start` bytes were received.

        Raises `TransferError` if it is the second such answer.
        """
        told = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
        version, before = next(filter(VERSION.fullmatch, told), ""), self.version
        self.version = version
        if not start or not before or version == before:
            return False
        if self.has_changed:
            raise TransferError(
                f"{self.url}: the file changed on the server twice during the transfer; try again later"
            )
        self.has_changed = True
        return True


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
        fetch: called with a file open for appending; appends the missing bytes.
        check: called with a path; raises `IntegrityError` if the file is not as expected.

    Raises `SnnZooError` if the file cannot be written. Errors of `fetch` and `check` are passed on.
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
    not support ranges, and once if the file changes on the server. An Authorization header is sent to the host of `url`
    only.

    Args:
        url: `http://` or `https://`; redirections are followed within the same scheme and to https.
        file: open for appending, or in memory.
        limit: largest size in bytes if `size` is None; None for any.

    Raises:
        TransferError: the server refuses, is too slow, the transfer broke off `ATTEMPTS` times in a row, or the file
            changed on the server twice.
        IntegrityError: the server sends something else: a web page, or a file of another size.
        SnnZooError: the file cannot be written; it is then emptied.
    """
    source = _Source(url, headers or {})
    persist(lambda: _receive(source, file, size, limit, progress), file, what=url)


def persist(attempt: Callable[[], object], file: BinaryIO, *, what: str) -> None:
    """Call `attempt`, which appends to `file`; repeat it after each `BrokenOffError`, with growing pauses.

    Raises `TransferError` if `ATTEMPTS` attempts in a row brought nothing new, or all took too long for what they
    brought; the message begins with `what`.
    """
    began, start = time.monotonic(), file.seek(0, os.SEEK_END)
    furthest, failures = start, 0
    for tries in count(1):
        try:
            attempt()
            return
        except BrokenOffError as error:
            end = file.seek(0, os.SEEK_END)
            failures = 1 if end > furthest else failures + 1
            furthest = max(furthest, end)
            gained, taken_s = furthest - start, time.monotonic() - began
            if failures >= ATTEMPTS:
                raise TransferError(f"{what}: {error}; tried {tries} times") from None
            if taken_s > ATTEMPTS * RATE_WINDOW_S + gained / LOWEST_RATE:
                raise TransferError(f"{what}: {error}; given up after {gained} bytes in {taken_s:.0f} s") from None
            time.sleep(BACKOFF_S * 2 ** (failures - 1) * random.uniform(0.5, 1))


def append(file: BinaryIO, chunk: bytes, *, limit: int | None, what: str) -> int:
    """Append a chunk to `file` and return its new size.

    Raises `IntegrityError` beyond `limit`, and `SnnZooError` if the file cannot be written; it is then emptied.
    """
    size = file.seek(0, os.SEEK_END) + len(chunk)
    if limit is not None and size > limit:
        file.truncate(0)
        raise IntegrityError(f"{what}: more than the limit of {limit} bytes")
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        file.truncate(0)
        raise SnnZooError(f"cannot write {file.name}: {error.strerror or error}") from error
    return size


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


class _Patience:
    """Deadline of an attempt, which each byte of the file extends.

    httpx limits the time of each read, but a server may send for ever what is not the file.
    """

    def __init__(self) -> None:
        self.began, self.received = time.monotonic(), 0
        self.deadline = self.began + RATE_WINDOW_S

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Limit the reads of each connection that httpcore opens; it calls this with its events."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = info["return_value"]
            stream.read = partial(self._read, stream.read)

    def _read(self, read: Callable[..., bytes], max_bytes: int, timeout: float) -> bytes:
        import httpx

        if (left_s := self.left_s) <= 0:
            raise httpx.ReadTimeout("")
        return read(max_bytes, timeout=min(left_s, timeout))


def _receive(source: _Source, file: BinaryIO, size: int | None, limit: int | None, progress: Progress) -> None:
    """Request the bytes that `file` lacks and append them. Raises `BrokenOffError` if another attempt may help."""
    import httpx

    url, start = source.url, file.seek(0, os.SEEK_END)
    if size is not None and start > size:
        start = file.truncate(0)
    if start == size:
        return
    patience = _Patience()
    try:
        with _client() as client, closing(_request(client, source, start, patience)) as response:
            first, total = _extent(url, response, size, limit)
            is_changed = source.is_changed(response, start)
            if is_changed or first != start:  # the server does not support ranges, or sends another one
                file.truncate(0)
            if is_changed and first:
                raise BrokenOffError("the file changed on the server")
            if first not in (start, 0):
                raise BrokenOffError(f"expected bytes from {start} on, the server sends bytes from {first} on")
            done = first
            for chunk in response.iter_raw():
                left_s = patience.left_s + len(chunk) / LOWEST_RATE
                done = append(file, chunk, limit=limit if size is None else size, what=url)
                progress(done, total)
                patience.received += len(chunk)
                patience.deadline = time.monotonic() + min(left_s, RATE_WINDOW_S)
            if total is not None and done < total:
                raise BrokenOffError(f"the server sent {done} of {total} bytes")
    except httpx.TimeoutException:
        slow = f"too slow: {patience.received} bytes in {time.monotonic() - patience.began:.0f} s"
        raise BrokenOffError(slow if patience.left_s <= 0 else f"no byte for {TIMEOUT_S:g} s") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise TransferError(f"{url}: {error}") from None
    except httpx.HTTPError as error:
        raise BrokenOffError(_reason(error)) from None


def _client() -> "httpx.Client":
    """Return a client that uses the proxies of the environment, and the certificates that the system trusts."""
    import ssl

    import httpx

    try:
        return httpx.Client(timeout=TIMEOUT_S, verify=ssl.create_default_context())
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # httpx[socks] is missing, or the URL is invalid
        raise TransferError(f"the proxy of the environment cannot be used: {error}") from None


def _request(client: "httpx.Client", source: _Source, start: int, patience: _Patience) -> "httpx.Response":
    """Return the answer to a request, its body unread; follow redirections within the same scheme and to https.

    httpx follows them too, but to any scheme, and would read the bodies of redirections, which may be endless.
    """
    url = source.url
    request = client.build_request("GET", url, headers=source.rest_from(start), extensions={"trace": patience.trace})
    for _ in range(REDIRECTIONS + 1):
        response = client.send(request, stream=True)
        if response.next_request is None:
            _check_status(url, response.status_code, start)
            return response
        response.close()
        if response.next_request.url.scheme not in (request.url.scheme, "https"):
            raise TransferError(f"{url}: a redirection to {response.next_request.url} is not followed")
        request = response.next_request
    raise TransferError(f"{url}: more than {REDIRECTIONS} redirections")


def _check_status(url: str, code: int, start: int) -> None:
    """Raise an error unless the request succeeded. The server's own words are not shown: they may be anything."""
    import httpx

    if httpx.codes.is_success(code):
        return
    told = f"HTTP Error {code}: {httpx.codes.get_reason_phrase(code) or 'unknown'}"
    if code in TRANSIENT:
        raise BrokenOffError(told)
    if code == 416 and start:  # the file on the server ends before `start`
        raise IntegrityError(f"{url}: the file is shorter than the {start} bytes fetched before")
    raise TransferError(f"{url}: {told}")


def _extent(url: str, response: "httpx.Response", size: int | None, limit: int | None) -> tuple[int, int | None]:
    """Return the position of the first byte sent, and the size of the whole in bytes, or None if unknown.

    Raises `IntegrityError` if the answer is not the file.
    """
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html":
        raise IntegrityError(f"{url}: the server sends a web page, not the file")
    first, total = "0", response.headers.get("Content-Length", "")
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
        if found is None:
            raise BrokenOffError("the server does not say which range it sends")
        first, total = found.groups()
    announced = int(total) if re.fullmatch(r"\d{1,18}", total) else None
    if size is not None and announced not in (size, None):
        raise IntegrityError(f"{url}: expected {size} bytes, the server announces {announced}")
    if size is None and limit is not None and announced is not None and announced > limit:
        raise IntegrityError(f"{url}: {announced} bytes, more than the limit of {limit}")
    return int(first), announced if size is None else size


def _reason(error: BaseException) -> str:
    """Return the message of the system's error that caused `error`; if there is none, that of `error` or its type."""
    inner: BaseException | None = error
    while inner:
        if isinstance(inner, OSError) and inner.errno:
            return str(inner)
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__
