import io

import pytest

from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.files.limits import INDEX_BYTES
from zoo.hub.transport import HubTransport, WebTransport, is_remote, open_transport


def fetch(url: str, start: bytes = b"", size: int | None = None) -> bytes:
    file = io.BytesIO(start)
    open_transport(url).fetch("models/a.bin", file, size)
    return file.getvalue()


@pytest.fixture
def folder(web):
    (web.folder / "models").mkdir()
    (web.folder / "models" / "a.bin").write_bytes(b"0123456789")
    return web.folder


@pytest.mark.parametrize(
    "form", ["{folder}", "{folder}/", "file://{folder}", "{web}", "{web}/index.json", "memory://{folder}"]
)
@pytest.mark.parametrize("start", [b"", b"0123"])
def test_each_way_gives_what_is_missing(web, folder, form: str, start: bytes) -> None:
    url = form.format(folder=folder, web=web.url)
    if form.startswith("memory"):
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").pipe(f"{url}/models/a.bin", b"0123456789")
    assert fetch(url, start) == b"0123456789"
    assert fetch(url, start, 10) == b"0123456789"
    with pytest.raises(IntegrityError, match=r"more than the limit of 9|expected 9"):
        fetch(url, start, 9)


def test_a_model_may_be_larger_than_an_index(web, folder) -> None:
    size = INDEX_BYTES + (1 << 20)
    with (folder / "models" / "a.bin").open("wb") as file:
        file.truncate(size)
    assert len(fetch(web.url, size=size)) == size
    with pytest.raises(IntegrityError, match=f"{size} bytes, more than the limit of {INDEX_BYTES}"):
        fetch(web.url)


@pytest.mark.parametrize("form", ["{folder}/none", "{web}/none", "memory://none"])
def test_what_is_not_there_is_named(web, folder, form: str) -> None:
    if "memory" in form:
        pytest.importorskip("fsspec")
    with pytest.raises(TransferError, match=r"none/models/a.bin"):
        fetch(form.format(folder=folder, web=web.url))


def test_http_is_for_this_machine_only() -> None:
    for host in ("localhost:8", "127.0.0.1", "[::1]:80"):
        assert isinstance(open_transport(f"http://{host}/x"), WebTransport)
    for host in ("example.org", "127.0.0.1.example.org", "localhost@example.org", "10.0.0.1"):
        with pytest.raises(SnnZooError, match="use https"):
            open_transport(f"http://{host}/x")


@pytest.mark.parametrize("url", ["https://example.org/x", "hf://owner/repo", "FTP://example.org/x", "s3://bucket/x"])
@pytest.mark.parametrize("here", ["models", "/srv/models", "file:///srv/models", "memory://x"])
def test_an_index_beyond_this_machine_is_known_by_its_url(url: str, here: str) -> None:
    assert (is_remote(url), is_remote(here)) == (True, False)


@pytest.mark.parametrize(
    "url",
    ["hf://owner/repo.git", "hf://a--b/c", "ftp://127.0.0.1:1/x", "zip://x::/none.zip", "https://[bad", "~none/x"],
)
def test_a_url_that_leads_nowhere_is_named(url: str) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("huggingface_hub")
    with pytest.raises(SnnZooError) as caught:
        open_transport(url)
    assert str(caught.value).startswith(f"{url}: ")


@pytest.mark.parametrize(
    ("fault", "attempts", "message"),
    [(ConnectionResetError("gone"), 4, "ConnectionResetError: gone; tried 4 times"), (PermissionError("no"), 1, "no$")],
)
def test_through_fsspec_what_may_pass_is_tried_again(monkeypatch, fault, attempts: int, message: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr("specs.files.download.BACKOFF_S", 0.0)
    memory, asked = fsspec.filesystem("memory"), []

    def fail(path: str, mode: str) -> None:
        asked.append(path)
        raise fault

    monkeypatch.setattr(type(memory), "open", lambda self, *args: fail(*args))
    with pytest.raises(TransferError, match=message):
        fetch("memory://x")
    assert len(asked) == attempts


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.org/x?a=b", r"must not contain \? or #"),
        ("https://example.org/x#a", r"must not contain \? or #"),
        ("https://me:secret@example.org/x", "^example.org: a URL with a password"),
        ("https://example.org/my models", "must not contain spaces or control characters; write a space as %20"),
        ("nosuch://x", "nosuch://x: Protocol not known"),
        *(
            (url, "hf://OWNER/REPOSITORY")
            for url in ("hf://", "hf://owner", "hf://owner/", "hf://a/b?c", "hf://a/b@c/d e")
        ),
    ],
)
def test_a_url_that_cannot_be_of_an_index_is_refused(url: str, message: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SnnZooError, match=message) as caught:
        open_transport(url)
    assert "secret" not in str(caught.value)


def test_a_folder_s_name_is_absolute(tmp_path, monkeypatch) -> None:
    """An absolute name cannot be mistaken for `package` or `cache`."""
    monkeypatch.chdir(tmp_path)
    assert open_transport("package").url == str(tmp_path / "package")


def test_a_hub_url_leads_to_its_files() -> None:
    pytest.importorskip("huggingface_hub")
    transport = open_transport("hf://owner/repo@v1/models/index.json")
    assert isinstance(transport, HubTransport)
    assert transport.address.endswith("/owner/repo/resolve/v1/models")
    assert open_transport("hf://owner/repo").address.endswith("/owner/repo/resolve/main")
