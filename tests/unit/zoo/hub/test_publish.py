import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from specs.errors import IntegrityError, SnnZooError
from zoo.card import dump_card, load_card
from zoo.hub.publish import publish, read_index
from zoo.model_format import ModelFormat

ROOT = Path(__file__).parents[4]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_folder_becomes_an_index(carded, tmp_path) -> None:
    made = carded()
    assert publish(made.file, made.card_file, str(tmp_path / "new" / "index")) == made.reference
    index = read_index(tmp_path / "new" / "index")
    model = index.get("tiny")
    card = load_card(made.card_file)
    assert (model.revision, model.accuracy, model.data) == (card.revision, card.test.accuracy, card.data.name)
    for file, original in ((model.files["safetensors"], made.file), (model.card, made.card_file)):
        assert (tmp_path / "new" / "index" / file.path).read_bytes() == original.read_bytes()
        file.check(original)


def test_images_of_ones_own_are_published_if_all_may_see_them(carded, tmp_path) -> None:
    made = carded()
    card = load_card(made.card_file)
    recipe = card.training.recipe.model_copy(update={"data": "/me/photos"})
    for facts in (
        {"training": card.training.model_copy(update={"recipe": recipe})},
        {"data": card.data.model_copy(update={"name": "/me/photos"})},
    ):
        dump_card(card.model_copy(update=facts), made.card_file)
        with pytest.raises(SnnZooError, match="sees the path of its data, /me/photos, and 8 test images"):
            publish(made.file, made.card_file, str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()
    assert publish(made.file, made.card_file, str(tmp_path / "index"), own_data=True) == made.reference


@pytest.mark.parametrize(("field", "what"), [("teacher", "teacher"), ("start", "start model")])
def test_a_model_that_nobody_else_has_is_named_if_all_may_see_its_path(field, what, carded, tmp_path) -> None:
    made = carded()
    card = load_card(made.card_file)
    for source, goes in (
        ("mnist-conv@a7ba9add2ae6", True),
        ("run/model.safetensors", False),
        ("a.safetensors", False),
    ):
        recipe = card.training.recipe.model_copy(update={field: source})
        facts = {"training": card.training.model_copy(update={"recipe": recipe})}
        dump_card(card.model_copy(update=facts), made.card_file)
        if goes:
            publish(made.file, made.card_file, str(tmp_path / "named"))
        else:
            with pytest.raises(SnnZooError, match=f"sees the path of its {what}, {source}"):
                publish(made.file, made.card_file, str(tmp_path / "index"))


def test_publishing_again_brings_back_what_is_missing_or_damaged(carded, tmp_path) -> None:
    made, folder = carded(), tmp_path / "index"
    publish(made.file, made.card_file, str(folder))
    model = read_index(folder).get("tiny")
    (folder / model.files["safetensors"].path).unlink()
    (folder / model.card.path).write_text("damaged")
    publish(made.file, made.card_file, str(folder))
    model.files["safetensors"].check(folder / model.files["safetensors"].path)
    model.card.check(folder / model.card.path)


def test_a_card_may_begin_with_a_comment(carded, tmp_path) -> None:
    made = carded()
    made.card_file.write_text(f"# looked at\n{made.card_file.read_text('utf-8')}", "utf-8")
    assert publish(made.file, made.card_file, str(tmp_path / "index")) == made.reference


def test_publishing_again_changes_nothing(carded, tmp_path) -> None:
    made = carded()
    publish(made.file, made.card_file, str(tmp_path / "index"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")}
    assert publish(made.file, made.card_file, str(tmp_path / "index")) == made.reference
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")} == before


def test_a_card_of_another_file_is_refused(carded, tmp_path) -> None:
    with pytest.raises(IntegrityError, match=r"card.yaml is the card of another file"):
        publish(carded(seed=1).file, carded().card_file, str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_what_is_no_model_is_refused(carded, tmp_path) -> None:
    made = carded()
    made.file.write_bytes(b"no model")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        publish(made.file, made.card_file, str(tmp_path / "index"))


def test_a_revision_never_changes(carded, tmp_path) -> None:
    made = carded()
    publish(made.file, made.card_file, str(tmp_path / "index"))
    before = (tmp_path / "index" / "index.json").read_bytes()
    made = carded(description="another card")
    with pytest.raises(IntegrityError, match=rf"{made.reference} with another .*tiny.yaml; a published revision"):
        publish(made.file, made.card_file, str(tmp_path / "index"))
    assert (tmp_path / "index" / "index.json").read_bytes() == before


def test_other_formats_join_their_safetensors_file(carded, tmp_path) -> None:
    from converters import read_model, write_model
    from zoo.card import FileFacts
    from zoo.hub.index import IndexedFile

    made = carded()
    netx = write_model(read_model(made.file), tmp_path / "tiny.net")
    card = load_card(made.card_file)
    facts = IndexedFile.of(netx, "a")
    known = {**card.files, ModelFormat.NETX: FileFacts(sha256=facts.sha256, bytes=facts.bytes)}
    dump_card(card.model_copy(update={"files": known}), made.card_file)
    index = str(tmp_path / "index")
    with pytest.raises(SnnZooError, match=f"{made.reference} yet: publish its safetensors file first"):
        publish(netx, made.card_file, index)
    publish(made.file, made.card_file, index)
    newer = carded(seed=1)
    publish(newer.file, newer.card_file, index)
    publish(netx, made.card_file, index)
    found = read_index(tmp_path / "index")
    assert set(found.get("tiny", made.reference[5:]).files) == {"safetensors", "netx"}
    assert found.get("tiny").revision == newer.reference[5:]


def test_a_format_that_no_card_knows_is_left_to_pull(carded, tmp_path) -> None:
    from converters import read_model, write_model

    made = carded()
    netx = write_model(read_model(made.file), tmp_path / "tiny.net")
    with pytest.raises(IntegrityError, match=r"publish its \.safetensors file: zoo pull --format converts it"):
        publish(netx, made.card_file, str(tmp_path / "index"))


def test_a_folder_that_cannot_be_written_is_told(carded, tmp_path) -> None:
    (tmp_path / "file").touch()
    made = carded()
    with pytest.raises(SnnZooError, match=r"cannot (read|write) .*file"):
        publish(made.file, made.card_file, str(tmp_path / "file" / "index"))


def test_other_indexes_cannot_be_published_to(carded) -> None:
    made = carded()
    with pytest.raises(SnnZooError, match="use a folder or hf://"):
        publish(made.file, made.card_file, "https://example.org/models")


def test_several_publish_at_once_and_nothing_is_lost(carded, tmp_path) -> None:
    models = [carded(f"tiny{i}") for i in range(6)]
    threads = [threading.Thread(target=publish, args=(m.file, m.card_file, str(tmp_path / "index"))) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_index(tmp_path / "index").models) == {f"tiny{i}" for i in range(6)}


KILLED = """
import os, signal, sys
from pathlib import Path
steps = int(sys.argv[1])
replace = Path.replace
def counted(self, target):
    global steps
    if steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    steps -= 1
    return replace(self, target)
Path.replace = counted
from zoo.hub import publish
from zoo.model_format import ModelFormat
publish._check_card = lambda *_: (ModelFormat.SAFETENSORS, None)  # without loading torch
publish.model_readme = lambda *_: "page"
publish.publish(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("renames", [0, 1, 2])  # the index is the third file, before its pages
def test_killed_between_any_two_files_it_leaves_the_old_index(carded, tmp_path, renames: int) -> None:
    old, new = carded("old"), carded("new")
    index = tmp_path / "index"
    publish(old.file, old.card_file, str(index))
    command = [sys.executable, "-c", KILLED, str(renames), new.file, new.card_file, index]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert set(read_index(index).models) == {"old"}
    publish(new.file, new.card_file, str(index))
    assert set(read_index(index).models) == {"old", "new"}


# --- Cards corrected later


def corrected(made, **facts: object) -> Path:
    """Return a copy of a model's card with other facts."""
    path = made.file.with_name(f"corrected-{len(list(made.file.parent.iterdir()))}.yaml")
    dump_card(load_card(made.card_file).model_copy(update=facts), path)
    return path


def test_a_corrected_card_takes_the_place_of_the_published_one_which_stays(carded, tmp_path) -> None:
    made, newer, index = carded(), carded(seed=1), tmp_path / "index"
    for model in (made, newer):
        publish(model.file, model.card_file, str(index))
    old = read_index(index).get("tiny", made.reference[5:])
    card = corrected(made, description="the right description", licence="MIT")
    assert publish(made.file, card, str(index), card_only=True) == made.reference
    found = read_index(index)
    entry = found.get("tiny", made.reference[5:])
    assert (entry.description, entry.licence, entry.files) == ("the right description", "MIT", old.files)
    assert (index / entry.card.path).read_bytes() == card.read_bytes()
    assert found.get("tiny", old.pin) == old
    assert (index / old.card.path).read_bytes() == made.card_file.read_bytes()
    assert found.get("tiny").revision == newer.reference[5:]  # a name alone still means the newest weights
    assert "the right description" in (index / "tiny" / entry.revision / "README.md").read_text("utf-8")
    before = {path: path.stat().st_mtime_ns for path in index.rglob("*")}
    publish(made.file, card, str(index), card_only=True)
    assert {path: path.stat().st_mtime_ns for path in index.rglob("*")} == before


def test_a_card_may_be_corrected_twice_and_back(carded, tmp_path) -> None:
    made, index = carded(), tmp_path / "index"
    publish(made.file, made.card_file, str(index))
    second = corrected(made, description="second")
    for card in (second, made.card_file):
        publish(made.file, card, str(index), card_only=True)
    entries = read_index(index).models["tiny"]
    assert [(index / entry.card.path).read_bytes() for entry in entries] == [
        second.read_bytes(),
        made.card_file.read_bytes(),
    ]


def test_a_format_joins_all_entries_of_its_weights(carded, tmp_path) -> None:
    from converters import read_model, write_model
    from zoo.card import FileFacts

    made, index = carded(), tmp_path / "index"
    publish(made.file, made.card_file, str(index))
    netx = write_model(read_model(made.file), tmp_path / "tiny.net")
    card = corrected(made, files={**load_card(made.card_file).files, ModelFormat.NETX: FileFacts.of_file(netx)})
    publish(made.file, card, str(index), card_only=True)
    publish(netx, card, str(index))
    old, new = read_index(index).models["tiny"]
    assert set(old.files) == set(new.files) == {"safetensors", "netx"}
    assert (index / old.card.path).read_bytes() == made.card_file.read_bytes()
    assert (index / new.card.path).read_bytes() == card.read_bytes()


def test_only_the_card_of_published_weights_is_corrected(carded, tmp_path) -> None:
    made, other, index = carded(), carded(seed=1), tmp_path / "index"
    with pytest.raises(SnnZooError, match=rf"no {made.reference}, whose card could be corrected"):
        publish(made.file, made.card_file, str(index), card_only=True)
    publish(made.file, made.card_file, str(index))
    with pytest.raises(IntegrityError, match="is the card of another file"):
        publish(other.file, corrected(made, description="x"), str(index), card_only=True)
    with pytest.raises(IntegrityError, match="with --card-only"):
        publish(made.file, corrected(made, description="x"), str(index))
    assert len(read_index(index).models["tiny"]) == 1


@pytest.mark.parametrize("line", ["licence: ''", "licence: NOASSERTION", ""])
def test_a_card_without_a_licence_is_refused(line: str, carded, tmp_path) -> None:
    made = carded()
    text = made.card_file.read_text("utf-8")
    made.card_file.write_text(re.sub(r"(?m)^licence: .*\n", f"{line}\n", text), "utf-8")
    with pytest.raises(SnnZooError, match=r"card\.yaml: tiny has no licence.*licence: Apache-2\.0"):
        publish(made.file, made.card_file, str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()


# --- A hub


class Hub:
    """A server with the part of a hub's API that commits and downloads use."""

    def __init__(self, folder: Path) -> None:
        self.commits: list[dict] = []
        self.conflict = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

            def answer(self, document: object, code: int = 200) -> None:
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if found := re.match("/owner/repo/resolve/([^/]+)/(.+)", self.path):
                    at, path = found.groups()
                    file = (folder if at == "main" else folder.with_name(at)) / path  # a commit's files, or the newest
                    self.answer(file.read_bytes() if file.is_file() else {}, 200 if file.is_file() else 404)
                else:
                    siblings = [{"rfilename": str(p.relative_to(folder))} for p in folder.rglob("*") if p.is_file()]
                    self.answer({"id": "owner/repo", "sha": str(len(hub.commits)) * 40, "siblings": siblings})

            def do_POST(self) -> None:
                lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
                if self.path == "/api/validate-yaml":
                    self.answer({"errors": [], "warnings": []})
                elif self.path.endswith("/preupload/main"):
                    wanted = json.loads(lines[0])["files"]
                    files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]
                    self.answer({"files": files})
                elif hub.conflict:
                    self.answer({"error": "A commit has happened since"}, 412)
                else:
                    header, *operations = [json.loads(line) for line in lines]
                    hub.commits.append(header["value"] | {"files": [o["value"]["path"] for o in operations]})
                    for operation in operations:
                        file = folder / operation["value"]["path"]
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(base64.b64decode(operation["value"]["content"]))
                    shutil.copytree(folder, folder.with_name(f"commit{len(hub.commits)}"))
                    self.answer({"commitUrl": "http://127.0.0.1/owner/repo/commit/1", "commitOid": "1" * 40})

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01}).start()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub for other processes: huggingface_hub reads its endpoint only when it is imported."""
    pytest.importorskip("huggingface_hub")
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    yield hub
    hub.httpd.shutdown()
    hub.httpd.server_close()


def zoo(*arguments: object) -> subprocess.CompletedProcess:
    program = f"import sys; from zoo.cli import main; sys.argv[1:] = {[str(a) for a in arguments]}; main()"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True)


def test_publish_to_a_hub_and_pull_from_it(carded, tmp_path, hub) -> None:
    made, newer = carded(), carded(seed=1)
    for model in (made, newer):
        done = zoo("publish", model.file, model.card_file, "--to", "hf://owner/repo/models")
        assert (done.stdout, done.returncode) == (f"{model.reference}\n", 0), done.stderr
    first, second = hub.commits
    assert first["parentCommit"] == "0" * 40
    assert second["parentCommit"] == "1" * 40
    assert all(file.startswith("models/") for file in first["files"])
    assert len(read_index(tmp_path / "hub" / "models").models["tiny"]) == 2
    done = zoo("pull", made.reference, "--from", "hf://owner/repo/models")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == made.file.read_bytes()
    hub.conflict = True
    shutil.rmtree(tmp_path / "hub" / "models")
    done = zoo("publish", made.file, made.card_file, "--to", "hf://owner/repo/models")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: hf://owner/repo/models: ")


def test_a_card_is_corrected_on_a_hub_and_its_users_get_it(carded, tmp_path, hub, monkeypatch) -> None:
    made, index = carded(), "hf://owner/repo"
    assert zoo("publish", made.file, made.card_file, "--to", index).returncode == 0
    (before,) = json.loads(zoo("list", "--from", index, "--json").stdout)["models"]

    def card_of(reference: str, user: str, source: str = index) -> str:
        monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / user))
        done = zoo("pull", reference, "--from", source)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip()).with_suffix(".yaml").read_text("utf-8")

    old = made.card_file.read_text("utf-8")
    assert card_of("tiny", "warm") == old
    card = corrected(made, description="the right description")
    done = zoo("publish", made.file, card, "--to", index, "--card-only")
    assert (done.stdout, done.returncode) == (f"{made.reference}\n", 0), done.stderr
    new = card.read_text("utf-8")
    assert card_of("tiny", "warm") == card_of("tiny", "cold") == card_of(made.reference, "warm") == new
    assert card_of(f"tiny@{before['pin']}", "warm") == card_of(f"tiny@{before['pin']}", "colder") == old
    assert card_of("tiny", "warm", f"{index}@commit1") == old
    page = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert "the right description" in page
    assert "README.md" in hub.commits[-1]["files"]
    (tmp_path / "hub" / "README.md").write_text("of the owner's own")
    assert zoo("publish", made.file, made.card_file, "--to", index, "--card-only").returncode == 0
    assert (tmp_path / "hub" / "README.md").read_text("utf-8") == "of the owner's own"
