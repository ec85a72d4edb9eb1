"""Downloads from a faulty server; files that are complete or absent; one download for several processes."""

import errno
import io
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.files.download import ATTEMPTS, download, fetch_whole

DATA = bytes(range(256)) * 4096  # 1 MiB
ROOT = Path(__file__).parents[4]


@pytest.fixture
def url(web) -> str:
    (web.folder / "file").write_bytes(DATA)
    return f"{web.url}/file"


def fetch(url: str, start: bytes = b"", **options) -> bytes:
    file = io.BytesIO(start)
    download(url, file, **options)
    return file.getvalue()


def check(path: Path) -> None:
    if path.read_bytes() != DATA:
        raise IntegrityError(f"{path} is another")


def test_it_fetches_the_file_and_tells_how_far_it_is(url) -> None:
    told = []
    assert fetch(url, size=len(DATA), progress=lambda *far: told.append(far)) == DATA
    assert told == sorted(set(told))
    assert told[-1] == (len(DATA), len(DATA))


def test_it_goes_on_from_what_is_there(web, url) -> None:
    assert fetch(url, DATA[:1000], size=len(DATA)) == DATA
    assert web.requests == [("/file", "bytes=1000-")]


def test_too_much_from_before_is_thrown_away(web, url) -> None:
    assert fetch(url, DATA + b"x", size=len(DATA)) == DATA
    assert web.requests == [("/file", None)]


@pytest.mark.parametrize("fault", ["half", "reset", "stall"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("n_bytes", [len(DATA), 1000])
def test_a_transfer_that_breaks_off_is_resumed(web, url, monkeypatch, fault: str, known: bool, n_bytes: int) -> None:
    if fault == "stall":
        monkeypatch.setattr("specs.files.download.TIMEOUT_S", 0.5)
    (web.folder / "file").write_bytes(data := DATA[:n_bytes])
    web.script["/file"] = [getattr(web, fault)]
    assert fetch(url, size=n_bytes if known else None) == data
    (_, first), (_, second) = web.requests
    assert first is None
    if fault != "reset":  # a reset may lose bytes that were sent
        assert second == f"bytes={n_bytes // 2}-"


def trickle(web, where: str, handler, data: bytes) -> None:
    """Send the second half of the file, a header, or the size of a chunk byte by byte, for seconds."""
    rest = b"x" * 100
    if where == "body":
        web.half(handler, data)
        rest = data[len(data) // 2 :][:100]
    else:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        if where == "chunks":
            handler.wfile.write(b"Transfer-Encoding: chunked\r\n\r\n7;")
    for byte in rest:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("where", ["body", "headers", "chunks"])
def test_a_transfer_that_trickles_is_broken_off_and_resumed(web, url, monkeypatch, where: str) -> None:
    monkeypatch.setattr("specs.files.download.RATE_WINDOW_S", 0.3)
    web.script["/file"] = [partial(trickle, web, where)]
    data = (web.folder / "file").read_bytes()
    start = time.monotonic()
    assert fetch(url) == data
    assert time.monotonic() - start < 4
    (_, first), (_, second) = web.requests
    assert first is None
    assert (second is not None) == (where == "body")


def test_a_server_that_only_trickles_is_given_up_with_the_reason(web, url, monkeypatch) -> None:
    monkeypatch.setattr("specs.files.download.RATE_WINDOW_S", 0.2)
    web.script["/file"] = [partial(trickle, web, "headers")] * ATTEMPTS
    told = rf"/file: too slow: 0 bytes in 0 s; tried {ATTEMPTS} times"
    with pytest.raises(TransferError, match=told):
        fetch(url)


def endless(start: bytes, part: bytes, handler, data: bytes) -> None:
    """Send `start`, then `part` again and again, at 500 times a second."""
    handler.wfile.write(start)
    for _ in range(10_000):
        handler.wfile.write(part)
        time.sleep(0.002)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n"),
    "answers to continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n"),
    "headers": (OK, b"a: b\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_server_that_never_ends_is_given_up(web, url, monkeypatch, what: str) -> None:
    monkeypatch.setattr("specs.files.download.RATE_WINDOW_S", 0.3)
    web.script["/file"] = [partial(endless, *ENDLESS[what])] * 99
    start = time.monotonic()
    with pytest.raises(TransferError, match=rf"too slow: \d+ bytes in \d s; (tried {ATTEMPTS} times|given up after)"):
        fetch(url, limit=1 << 24)
    assert time.monotonic() - start < 10


def test_the_body_of_a_redirection_is_not_read(web, url) -> None:
    web.script["/moved"] = [partial(endless, b"HTTP/1.1 302 Found\r\nLocation: /file\r\n\r\n", b"x" * 1000)]
    start = time.monotonic()
    assert fetch(f"{web.url}/moved") == DATA
    assert time.monotonic() - start < 5


def test_attempts_that_bring_too_little_for_their_time_are_given_up(web, url, monkeypatch) -> None:
    monkeypatch.setattr("specs.files.download.RATE_WINDOW_S", 0.1)
    monkeypatch.setattr("specs.files.download.BACKOFF_S", 0.02)
    web.script["/file"] = [partial(web.give, sent=1)] * 999
    with pytest.raises(TransferError, match=r"given up after \d+ bytes in \d s"):
        fetch(url, size=len(DATA))


def test_slow_but_not_too_slow_a_transfer_goes_on(web, url, monkeypatch) -> None:
    monkeypatch.setattr("specs.files.download.RATE_WINDOW_S", 0.1)
    monkeypatch.setattr("specs.files.download.LOWEST_RATE", 20)

    def slow(handler, data: bytes) -> None:
        web.give(handler, data, sent=0)
        for start in range(0, len(data), 100):
            handler.wfile.write(data[start : start + 100])
            handler.wfile.flush()
            time.sleep(0.05)

    (web.folder / "file").write_bytes(DATA[:1000])
    web.script["/file"] = [slow]
    assert fetch(url) == DATA[:1000]
    assert len(web.requests) == 1


def test_a_server_that_ignores_the_range_sends_it_all_again(web, url) -> None:
    web.script["/file"] = [web.half, partial(web.give, ranges=False)]
    assert fetch(url, size=len(DATA)) == DATA
    assert web.requests[1] == ("/file", f"bytes={len(DATA) // 2}-")


def test_a_server_that_sends_another_range_is_not_believed(web, url) -> None:
    def other_range(handler, data: bytes) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 7-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[7:])

    web.script["/file"] = [other_range]
    assert fetch(url, DATA[:1000], size=len(DATA)) == DATA
    assert web.requests == [("/file", "bytes=1000-"), ("/file", None)]


OTHER = DATA[::-1]


def version(handler, data: bytes, *, named: dict[str, str], obeys: bool, sent: int | None = None) -> None:
    """Send a file with headers that name its version, from the start if If-Range names another (if it `obeys`)."""
    start, wanted = handler.headers["Range"], handler.headers["If-Range"]
    first = int(start[6:-1]) if start and not (obeys and wanted not in (None, *named.values())) else 0
    handler.send_response(206 if first else 200)
    if first:
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
    for name, value in {"Content-Length": str(len(data) - first), **named}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data[first : len(data) if sent is None else sent])


VERSIONS = [
    [{"ETag": f'"{name}"'} for name in "abc"],
    [{"ETag": 'W/"weak"', "Last-Modified": f"Mon, 01 Jan 2024 00:00:0{i} GMT"} for i in range(3)],
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.parametrize("names", VERSIONS)
def test_a_file_that_changes_during_the_transfer_is_fetched_again(web, url, names, obeys: bool, known: bool) -> None:
    def changed(handler, _: bytes) -> None:
        version(handler, OTHER, named=names[1], obeys=obeys)

    web.script["/file"] = [partial(version, named=names[0], obeys=obeys, sent=1000), changed, changed]
    assert fetch(url, size=len(DATA) if known else None) == OTHER
    assert web.headers[1]["if-range"] == names[0].get("Last-Modified", names[0]["ETag"])
    assert len(web.requests) == (2 if obeys else 3)


def test_a_file_that_changes_again_is_told(web, url) -> None:
    web.script["/file"] = [partial(version, named=named, obeys=True, sent=1000) for named in VERSIONS[0]]
    with pytest.raises(TransferError, match="/file: the file changed on the server twice"):
        fetch(url, size=len(DATA))
    assert len(web.requests) == 3


def test_a_file_that_stays_is_resumed_by_its_version(web, url) -> None:
    stays = [partial(version, named=VERSIONS[0][0], obeys=True, sent=sent) for sent in (1000, 5000, None)]
    web.script["/file"] = stays
    assert fetch(url, size=len(DATA)) == DATA
    assert [asked for _, asked in web.requests] == [None, "bytes=1000-", "bytes=5000-"]


@pytest.mark.parametrize(
    "named", [{"ETag": '"\xff\x7f"'}, {"ETag": '"' + "a" * 999 + '"'}, {"Last-Modified": "\x1b[2J"}]
)
def test_a_version_that_is_none_is_not_sent_back(web, url, named) -> None:
    web.script["/file"] = [partial(version, named=named, obeys=True, sent=1000)]
    assert fetch(url, size=len(DATA)) == DATA
    assert "if-range" not in web.headers[1]


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(web, url, code: int) -> None:
    web.script["/file"] = [web.status(code)] * (ATTEMPTS - 1)
    assert fetch(url, size=len(DATA)) == DATA


def test_it_gives_up_after_some_tries_that_bring_nothing(web, url) -> None:
    web.script["/file"] = [web.status(503)] * 9
    with pytest.raises(TransferError, match=rf"/file: HTTP Error 503.*tried {ATTEMPTS} times"):
        fetch(url)
    assert len(web.requests) == ATTEMPTS


def test_every_try_is_counted_in_the_message(web, url) -> None:
    web.script["/file"] = [partial(web.give, sent=1000)] * 3 + [web.status(503)] * 9
    with pytest.raises(TransferError, match=r"HTTP Error 503.*; tried 6 times"):
        fetch(url, size=len(DATA))
    assert len(web.requests) == 6


@pytest.mark.parametrize("n_bytes", [100_000, 400_000])
def test_tries_that_bring_something_are_not_counted(web, url, n_bytes: int) -> None:
    web.script["/file"] = [partial(web.give, sent=n_bytes)] * (len(DATA) // n_bytes)
    web.script["/file"][1:1] = [web.status(503)] * (ATTEMPTS - 2)
    assert fetch(url, size=len(DATA)) == DATA
    assert len(web.requests) > ATTEMPTS


RUDE = [
    b"HTTP/1.1 404 \x1b]0;mine\x07\x9b31m\r\n\r\n",
    b"HTTP/1.1 404 \x9b31m\xe2\x80\xae\r\n\r\n",
    b"HTTP/1.1 799 \x9b31m\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: gopher://\x1b[31m/\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: gopher://a/\x9b31m\xe2\x80\xae\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://a:\x9b31m/\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\x1b[31m: a\r\n\r\n",
    b"HTTP/1.1 206 OK\r\nContent-Range: \x9b31m\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x9b31m\r\n\r\n",
    b"\x1b[31m\r\n\r\n",
]


@pytest.mark.parametrize("answer", RUDE)
def test_the_server_s_words_do_not_reach_the_terminal(web, url, answer: bytes) -> None:
    web.script["/file"] = [lambda handler, data: handler.wfile.write(answer)] * ATTEMPTS
    with pytest.raises(TransferError) as caught:
        fetch(url)
    assert str(caught.value).startswith(f"{url}: ")
    assert str(caught.value).isprintable()


def test_a_missing_file_is_not_asked_for_again(web) -> None:
    with pytest.raises(TransferError, match="/none: HTTP Error 404"):
        fetch(f"{web.url}/none")
    assert len(web.requests) == 1


@pytest.mark.parametrize("difference", [-1, 1])
def test_another_length_than_expected_is_refused_before_it_is_read(web, url, difference: int) -> None:
    with pytest.raises(IntegrityError, match=f"expected .* bytes, the server announces {len(DATA)}$"):
        fetch(url, size=len(DATA) + difference)
    assert len(web.requests) == 1


def test_a_server_that_lies_about_the_length_gets_no_more_room(web, url) -> None:
    web.script["/file"] = [partial(web.give, length=-1)]
    with pytest.raises(IntegrityError, match="more than the limit of 1000 bytes"):
        fetch(url, size=1000)
    web.script["/file"] = [partial(web.give, ranges=False, length=len(DATA) + 5)] * ATTEMPTS
    with pytest.raises(TransferError, match=rf"received {len(DATA)} bytes, expected {len(DATA) + 5}\)"):
        fetch(url)


def test_a_limit_holds_where_the_size_is_not_known(web, url) -> None:
    with pytest.raises(IntegrityError, match="more than the limit of 1000"):
        fetch(url, limit=1000)
    web.script["/file"] = [partial(web.give, length=-1)]
    with pytest.raises(IntegrityError, match="more than the limit of 1000"):
        fetch(url, limit=1000)


def test_a_web_page_is_no_file(web, url) -> None:
    web.script["/file"] = [partial(web.give, kind="text/html; charset=utf-8")]
    with pytest.raises(IntegrityError, match="sends a web page"):
        fetch(url)


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/file", "data:,file", "gopher://a/file"])
def test_redirection_to_another_scheme_is_not_followed(web, url, target: str) -> None:
    web.script["/file"] = [web.status(302, Location=target)]
    with pytest.raises(TransferError, match=r"/file: (a redirection to .* is not followed|For absolute URLs)"):
        fetch(url)
    assert len(web.requests) == 1


def test_redirection_from_https_to_http_is_not_followed(monkeypatch) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://example.org/file"})

    client = partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("specs.files.download._client", client)
    with pytest.raises(TransferError, match=r"redirection to http://example\.org/file is not followed"):
        fetch("https://example.org/file")
    assert asked == ["https://example.org/file"]


def test_redirections_end(web) -> None:
    web.script["/round"] = [web.status(302, Location="/round")] * 99
    with pytest.raises(TransferError, match="/round: more than 10 redirections"):
        fetch(f"{web.url}/round")
    assert len(web.requests) == 11


def test_redirection_within_the_scheme_is_followed_and_goes_on_where_it_was(web, url) -> None:
    web.script["/moved"] = [web.status(302, Location="/file")]
    assert fetch(f"{web.url}/moved", DATA[:10], size=len(DATA)) == DATA
    assert web.requests == [("/moved", "bytes=10-"), ("/file", "bytes=10-")]


def test_a_secret_goes_to_no_other_host(web, url) -> None:
    web.script["/moved"] = [web.status(302, Location=url.replace("127.0.0.1", "localhost"))]
    web.script["/near"] = [web.status(302, Location="/file")]
    for path, kept in (("moved", False), ("near", True)):
        web.headers.clear()
        fetch(f"{web.url}/{path}", headers={"authorization": "Bearer me"})
        assert ["authorization" in headers for headers in web.headers] == [True, kept]


def test_a_connection_that_fails_is_told_with_the_system_s_reason(port: int) -> None:
    with pytest.raises(TransferError, match=rf"Connection refused; tried {ATTEMPTS} times$"):
        fetch(f"http://127.0.0.1:{port}/file")


@pytest.mark.parametrize("bad", ["no-scheme", "file:///etc/hostname", "http://", "http://[", "http://127.0.0.1:1"])
def test_a_url_that_cannot_be_is_named(bad: str) -> None:
    with pytest.raises(TransferError) as caught:
        fetch(bad)
    assert str(caught.value).startswith(f"{bad}: ")


def test_a_proxy_of_the_environment_is_used(web, monkeypatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", web.url)
    web.script["http://example.org/file"] = [lambda handler, data: web.give(handler, DATA)]
    assert fetch("http://example.org/file", size=len(DATA)) == DATA


class Full(io.BytesIO):
    """A file on a disk with space for 100 bytes."""

    name = "full"

    def write(self, data) -> int:
        if self.tell() > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:100])


def test_a_full_disk_is_told_at_once_and_gets_its_room_back(web, url) -> None:
    file = Full()
    with pytest.raises(SnnZooError, match="cannot write full: No space left on device"):
        download(url, file, size=len(DATA))
    assert (file.getvalue(), len(web.requests)) == (b"", 1)


# --- Files that are complete or absent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_fetched_file_is_alone_in_its_folder(tmp_path, web, url) -> None:
    target = tmp_path / "new" / "target"
    assert fetch_whole(target, partial(download, url), check) == target
    assert target.read_bytes() == DATA
    assert names(target.parent) == ["target"]
    fetch_whole(target, partial(download, url), check)
    assert len(web.requests) == 1


def test_what_broke_off_is_kept_and_resumed(tmp_path, web, url) -> None:
    web.script["/file"] = [web.half, *[web.status(503)] * ATTEMPTS]
    with pytest.raises(TransferError):
        fetch_whole(tmp_path / "f" / "target", partial(download, url), check)
    assert names(tmp_path / "f") == [".target.lock", ".target.part"]
    web.script.clear()
    web.requests.clear()
    fetch_whole(tmp_path / "f" / "target", partial(download, url), check)
    assert names(tmp_path / "f") == ["target"]
    assert web.requests == [("/file", f"bytes={len(DATA) // 2}-")]


def test_resumed_bytes_of_another_file_cost_one_more_fetch(tmp_path, web, url) -> None:
    (tmp_path / ".target.part").write_bytes(b"other")
    fetch_whole(tmp_path / "target", partial(download, url), check)
    assert (tmp_path / "target").read_bytes() == DATA
    assert web.requests == [("/file", "bytes=5-"), ("/file", None)]


def test_other_bytes_are_refused_and_not_kept(tmp_path, web, url) -> None:
    (web.folder / "file").write_bytes(DATA[::-1])
    with pytest.raises(IntegrityError, match="another"):
        fetch_whole(tmp_path / "f" / "target", partial(download, url), check)
    assert names(tmp_path / "f") == [".target.lock"]
    assert len(web.requests) == 1


def test_many_that_want_a_file_fetch_it_once(tmp_path, web, url) -> None:
    threads = [
        threading.Thread(target=fetch_whole, args=(tmp_path / "f" / "target", partial(download, url), check))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(web.requests) == 1
    assert names(tmp_path / "f") == ["target"]


KILLED = """
import os, signal, sys
from pathlib import Path
from specs.files.download import download, fetch_whole
def die(done, total):
    if done > total // 3:
        os.kill(os.getpid(), signal.SIGKILL)
fetch_whole(Path(sys.argv[2]), lambda file: download(sys.argv[1], file, progress=die), lambda path: None)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_leaves_what_the_next_goes_on_with(tmp_path, web, url) -> None:
    target = tmp_path / "f" / "target"
    done = subprocess.run([sys.executable, "-c", KILLED, url, target], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert not target.exists()
    left = (tmp_path / "f" / ".target.part").stat().st_size
    assert 0 < left < len(DATA)
    fetch_whole(target, partial(download, url), check)
    assert target.read_bytes() == DATA
    assert web.requests[1:] == [("/file", f"bytes={left}-")]
