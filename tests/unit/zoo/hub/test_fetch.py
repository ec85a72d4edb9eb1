"""Pulls from folders and from a faulty server on loopback."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from converters import read_model
from specs.errors import IntegrityError, SnnZooError, TransferError
from specs.io import load_spec
from specs.layers.neuron import Reset
from zoo.hub.catalog import cached_models, find_model, find_models, model_cache, open_catalogs, packaged_models, search
from zoo.hub.fetch import pull
from zoo.hub.publish import publish
from zoo.model_format import ModelFormat

ROOT = Path(__file__).parents[4]
ALL = tuple(ModelFormat)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(web, carded):
    """A tiny model in an index on the web server."""
    made = carded()
    publish(made.file, made.card_file, str(web.folder))
    return made


def pull_from(url: str, reference: str = "tiny", *, offline: bool = False, **options) -> list[Path]:
    (found,) = find_models([reference], open_catalogs([url], offline=offline))
    return pull(found, **options)


def path_of(made, suffix: str = ".safetensors") -> str:
    name, _, revision = made.reference.partition("@")
    return f"/{name}/{revision}/{name}{suffix}"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


def test_a_pulled_model_lies_below_its_digest(web, made, cache) -> None:
    (path,) = pull_from(web.url)
    assert path == cache / "models" / made.sha256 / "tiny.safetensors"
    assert path.read_bytes() == made.file.read_bytes()


def test_a_model_that_is_there_is_not_fetched_again(web, made) -> None:
    pull_from(web.url)
    pull_from(web.url)
    assert web.paths().count(path_of(made)) == web.paths().count(path_of(made, ".yaml")) == 1


def test_all_formats_into_a_folder_with_the_card(web, made, tmp_path) -> None:
    paths = pull_from(web.url, formats=ALL, folder=tmp_path / "out")
    assert [path.name for path in paths] == ["tiny.safetensors", "tiny.net", "tiny.nir"]
    assert files(tmp_path / "out") == {*(path.name for path in paths), "tiny.yaml"}
    first = [path.read_bytes() for path in paths]
    assert first[0] == made.file.read_bytes()
    integers = [read_model(path).build().blocks[1].synapse.quantized_weight() for path in paths]
    assert all((weight == integers[0]).all() for weight in integers)
    assert [path.read_bytes() for path in pull_from(web.url, formats=ALL, folder=tmp_path / "out")] == first


def test_a_format_that_the_index_has_is_not_converted(web, made, tmp_path) -> None:
    index = json.loads((web.folder / "index.json").read_text())
    own = b"as the publisher exported it"
    (web.folder / "tiny.net").write_bytes(own)
    files = index["models"]["tiny"][0]["files"]
    files["netx"] = {"path": "tiny.net", "sha256": hashlib.sha256(own).hexdigest(), "bytes": len(own)}
    (web.folder / "index.json").write_text(json.dumps(index))
    (path,) = pull_from(web.url, formats=[ModelFormat.NETX])
    assert path.read_bytes() == own
    assert set(cached_models().index.get("tiny").files) == {"safetensors", "netx"}


@pytest.mark.parametrize("fault", ["half", "reset", "stall"])
def test_a_transfer_that_breaks_off_is_resumed(web, made, monkeypatch, fault: str) -> None:
    if fault == "stall":
        monkeypatch.setattr("specs.files.download.TIMEOUT_S", 0.5)
    web.script[path_of(made)] = [getattr(web, fault)]
    (path,) = pull_from(web.url)
    assert path.read_bytes() == made.file.read_bytes()


def test_other_bytes_are_refused_and_nothing_is_left(web, made, cache) -> None:
    data = made.file.read_bytes()
    (web.folder / path_of(made)[1:]).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"/tiny.safetensors: its sha256 is .*; the index says"):
        pull_from(web.url)
    assert files(cache) == set()


def test_too_much_too_little_and_web_pages_are_refused(web, made, cache) -> None:
    file = web.folder / path_of(made)[1:]
    data = file.read_bytes()
    for other in (data + b"x", data[:-1]):
        file.write_bytes(other)
        with pytest.raises(IntegrityError, match=f"expected {len(data)} bytes, the server announces {len(other)}$"):
            pull_from(web.url)
    web.script[path_of(made)] = [partial(web.give, kind="text/html")]
    with pytest.raises(IntegrityError, match="a web page"):
        pull_from(web.url)
    web.script["/index.json"] = [partial(web.give, kind="text/html")]
    with pytest.raises(IntegrityError, match=r"index.json: the server sends a web page"):
        pull_from(web.url)
    assert files(cache) == set()


def test_of_a_damaged_index_of_the_cache_it_is_told_what_to_do_and_that_helps(web, made) -> None:
    (path,) = pull_from(web.url)
    (index := model_cache() / "index.json").write_text("{damaged")
    with pytest.raises(IntegrityError, match=f"remove {re.escape(str(index))}"):
        cached_models()
    index.unlink()
    before = len(web.paths())
    assert pull_from(web.url) == [path]
    assert cached_models().index.get("tiny") is not None
    assert not any(asked.endswith(".safetensors") for asked in web.paths()[before:])


def test_a_damaged_file_of_the_cache_is_fetched_again(web, made) -> None:
    (path,) = pull_from(web.url)
    path.write_bytes(b"damaged")
    assert pull_from(web.url) == [path]
    assert path.read_bytes() == made.file.read_bytes()


def test_offline_takes_what_was_pulled_and_asks_nobody(web, made) -> None:
    with pytest.raises(SnnZooError, match="no model 'tiny' in cache"):
        pull_from(web.url, offline=True)
    (path,) = pull_from(web.url)
    web.requests.clear()
    assert pull_from(web.url, offline=True) == pull_from(web.url, made.reference, offline=True) == [path]
    assert web.requests == []


def test_a_cache_that_is_full_of_what_is_needed_need_not_be_written(web, made, monkeypatch) -> None:
    (path,) = pull_from(web.url)
    monkeypatch.setattr(Path, "mkdir", None)
    monkeypatch.setattr(Path, "replace", None)
    monkeypatch.setattr("filelock.FileLock", None)
    assert pull_from(web.url) == [path]


def test_a_cache_that_cannot_be_written_is_told(web, made, cache) -> None:
    cache.write_text("a file")
    with pytest.raises(SnnZooError, match=r"cannot (write|read) .*cache"):
        pull_from(web.url)


def test_pinned_revisions(web, made, carded) -> None:
    newer = carded(seed=1)
    publish(newer.file, newer.card_file, str(web.folder))
    for reference, model in (("tiny", newer), (made.reference, made), (newer.reference, newer)):
        assert pull_from(web.url, reference)[0].read_bytes() == model.file.read_bytes()
    with pytest.raises(SnnZooError, match=r"tiny has no revision 'none' in .*; there are "):
        pull_from(web.url, "tiny@none")
    cached = cached_models().index
    assert [f"tiny@{model.revision}" for model in cached.models["tiny"]] == [made.reference, newer.reference]


def test_the_first_index_with_the_name_wins(tmp_path, carded, monkeypatch) -> None:
    models = [carded(seed=seed) for seed in range(3)]
    other = carded("other", seed=3)
    for i, model in enumerate(models):
        publish(model.file, model.card_file, str(tmp_path / f"index{i}"))
    publish(other.file, other.card_file, str(tmp_path / "index1"))
    catalogs = open_catalogs([str(tmp_path / "index0"), str(tmp_path / "index1")])
    assert find_model("tiny", catalogs).catalog is catalogs[0]
    assert find_model(models[1].reference, catalogs).catalog is catalogs[1]
    assert find_model("other", catalogs).catalog is catalogs[1]
    assert find_model(models[2].reference, catalogs) is None
    assert [found.name for found in search("*", catalogs)] == ["other", "tiny"]
    assert [found.name for found in search("t?n[xy]", catalogs)] == ["tiny"]
    assert find_model("mnist-dense", catalogs) is None  # only the given catalogs are searched
    monkeypatch.setenv("ZOO_INDEX", f"{tmp_path}/index2 {tmp_path}/index0")
    catalogs = open_catalogs()
    assert [catalog.name for catalog in catalogs] == [f"{tmp_path}/index2", f"{tmp_path}/index0", "package", "cache"]
    assert find_model("tiny", catalogs).model.revision == models[2].reference.partition("@")[2]


def test_an_index_that_cannot_be_read_is_not_passed_over(tmp_path, web, made) -> None:
    with pytest.raises(TransferError, match=r"none/index.json"):
        open_catalogs([f"{web.url}/none", web.url])


def test_the_cache_takes_the_place_of_an_index_that_cannot_be_read_where_this_is_asked_for(web, made) -> None:
    failures = []
    catalogs = open_catalogs([f"{web.url}/none", web.url], on_failure=failures.append)
    assert [catalog.name for catalog in catalogs] == ["cache", web.url]
    assert [str(failure).partition(": ")[0] for failure in failures] == [f"{web.url}/none/index.json"]
    (web.folder / "index.json").write_text("{damaged")
    with pytest.raises(IntegrityError, match=r"index\.json"):
        open_catalogs([web.url], on_failure=failures.append)


def replace_card(web, text: bytes) -> None:
    """Replace the card of `tiny`, and its digest in the index."""
    index = json.loads((web.folder / "index.json").read_text())
    card = index["models"]["tiny"][0]["card"]
    (web.folder / card["path"]).write_bytes(text)
    card.update(sha256=hashlib.sha256(text).hexdigest(), bytes=len(text))
    (web.folder / "index.json").write_text(json.dumps(index))


def test_a_model_with_a_card_of_a_later_version_is_pulled(web, made) -> None:
    replace_card(web, made.card_file.read_bytes() + b"a_later_field: 1\n")
    assert pull_from(web.url)[0].read_bytes() == made.file.read_bytes()


def test_a_card_of_another_model_is_refused(web, made, carded) -> None:
    other = carded("other")
    replace_card(web, other.card_file.read_bytes())
    with pytest.raises(IntegrityError, match=f"expected the card of {made.reference}, got that of {other.reference}"):
        pull_from(web.url)


def test_a_corrected_card_is_pulled_into_a_cold_and_a_warm_cache(web, made, carded, cache, monkeypatch) -> None:
    def pulled_card(reference: str = "tiny") -> bytes:
        return pull_from(web.url, reference)[0].with_suffix(".yaml").read_bytes()

    before = find_model("tiny", open_catalogs([web.url])).model
    old = pulled_card()
    made = carded(description="the right description")
    publish(made.file, made.card_file, str(web.folder), card_only=True)
    assert pulled_card() == pulled_card(made.reference) == made.card_file.read_bytes() != old
    assert cached_models().index.get("tiny").description == "the right description"
    assert web.paths().count(path_of(made)) == 1
    assert pulled_card(f"tiny@{before.pin}") == old
    monkeypatch.setenv("ZOO_CACHE_DIR", str(cache / "of another user"))
    assert pulled_card() == made.card_file.read_bytes()
    assert pulled_card(f"tiny@{before.pin}") == old
    shown = [found.shown_revision for found in search("tiny@*", open_catalogs([web.url]))]
    assert shown == [before.pin, before.revision]
    with pytest.raises(SnnZooError, match=re.escape(f"there are {before.pin}, {before.revision}")):
        pull_from(web.url, f"tiny@{before.revision}+{'0' * 12}")


def test_an_index_through_fsspec(made, web) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(str(web.folder), "/index", recursive=True)
    (path,) = pull_from("memory://index")
    assert path.read_bytes() == made.file.read_bytes()


# --- Processes


PULL = "import sys; from zoo.cli import main; sys.argv[1:] = {}; main()"


def start(
    *arguments: object, prefix: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> subprocess.Popen:
    program = PULL.format([str(argument) for argument in arguments])
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_download_once(web, made) -> None:
    processes = [start("pull", "tiny", "--from", web.url) for _ in range(4)]
    outputs = {process.communicate() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert outputs == {(f"{model_cache()}/{made.sha256}/tiny.safetensors\n", "")}
    assert web.paths().count(path_of(made)) == web.paths().count(path_of(made, ".yaml")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_pull_is_resumed(web, made, cache) -> None:
    size = made.file.stat().st_size
    killed = []

    def half_then_kill(handler, data: bytes) -> None:
        web.half(handler, data)
        handler.wfile.flush()
        part = cache / "models" / made.sha256 / ".tiny.safetensors.part"
        while not (part.exists() and part.stat().st_size == size // 2):
            time.sleep(0.01)
        process.kill()
        killed.append(process.wait())

    web.script[path_of(made)] = [half_then_kill]
    process = start("pull", "tiny", "--from", web.url)
    process.communicate()
    assert killed == [-9]
    assert "tiny.safetensors" not in files(cache)
    (path,) = pull_from(web.url)
    assert path.read_bytes() == made.file.read_bytes()
    assert [extent for asked, extent in web.requests if asked == path_of(made)] == [None, f"bytes={size // 2}-"]


def no_interface() -> tuple[str, ...]:
    """Return a prefix that runs a command without network: its only interface is a loopback that is down."""
    prefix = ("unshare", "--user", "--map-root-user", "--net")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    return prefix


def test_the_package_s_models_come_without_a_network_in_all_formats(tmp_path) -> None:
    found = [model.name for model in search("*", [packaged_models()])]
    specs = {name: load_spec(name) for name in found}  # netx or NIR cannot hold some of events, or that subtract
    names = [name for name, spec in specs.items() if not spec.input.is_events and spec.resets == {Reset.ZERO}]
    formats = [word for format in ALL for word in ("--format", format)]
    process = start("pull", *names, *formats, "-o", tmp_path / "out", prefix=no_interface())
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    paths = [Path(line) for line in output.splitlines()]
    assert paths == [tmp_path / "out" / f"{n}{s}" for n in names for s in (".safetensors", ".net", ".nir")]
    assert all(path.stat().st_size > 2_000 for path in paths)


@pytest.mark.skipif(sys.platform != "linux", reason="needs network namespaces of Linux")
def test_the_namespace_has_no_network(web) -> None:
    """A connection fails in the namespace, so the test above can fail."""
    process = start("list", "--from", web.url, prefix=no_interface())
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith(f"Error: {web.url}/index.json: ")
