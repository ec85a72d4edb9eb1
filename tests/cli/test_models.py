"""`zoo list`, `pull` and `publish`, and references to models in other commands."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo
from converters import read_model
from zoo.card import load_card
from zoo.hub import catalog
from zoo.hub.publish import publish


@pytest.fixture
def index(carded, tmp_path) -> tuple[str, list]:
    """An index in a folder with two revisions of `tiny`, and both revisions."""
    models = [carded(seed=seed) for seed in range(2)]
    for made in models:
        publish(made.file, made.card_file, str(tmp_path / "index"))
    return str(tmp_path / "index"), models


def rows(run, *arguments: object) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(run("list", *arguments, "--json").stdout)["models"]}


def test_list_shows_the_package_s_models(run) -> None:
    assert set(rows(run)) == set(zoo.model_names())
    assert set(rows(run, "mnist-dense*")) == {name for name in zoo.model_names() if name.startswith("mnist-dense")}
    lines = run("list", "mnist-conv").stdout.splitlines()
    assert lines[0].split() == ["name", "revision", "data", "T", "accuracy", "MB", "licence", "index"]
    assert lines[1].split()[0] == "mnist-conv"
    assert lines[1].split()[-1] == "package"


def test_list_from_shows_what_others_published(run, index, web) -> None:
    url, models = index
    shutil.copytree(url, web.folder, dirs_exist_ok=True)
    for place in (url, web.url, f"{web.url}/index.json"):
        (row,) = rows(run, "--from", place).values()
        assert row["sha256"] == models[-1].sha256
        assert row["licence"] == load_card(models[-1].card_file).licence
        assert row["bytes"] == models[-1].file.stat().st_size
        _, line = run("list", "--from", place).stdout.splitlines()
        assert line.split()[-2:] == [row["licence"], row["index"]]


def test_list_shows_a_card_that_was_corrected_beside_the_new_one(run, index, carded) -> None:
    url, models = index
    before = rows(run, "--from", url)["tiny"]
    made = carded(seed=1, licence="MIT")
    run("publish", made.file, made.card_file, "--to", url, "--card-only")
    lines = run("list", "tiny@*", "--from", url).stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines] == [models[0].reference[5:], before["pin"], before["revision"]]
    assert lines[-1].split()[-2] == "MIT"


def test_list_shows_all_revisions_of_a_name(run, index) -> None:
    url, models = index
    run("pull", models[0].reference, "--from", url)

    def listed(pattern: str, *options: str) -> list[tuple[str, bool]]:
        found = json.loads(run("list", pattern, *options, "--json").stdout)["models"]
        return [(f"{row['name']}@{row['revision']}", row["pulled"]) for row in found]

    both = [(models[0].reference, True), (models[1].reference, False)]
    assert listed("tiny@*", "--from", url) == listed("t*@*", "--from", url, "--from", url) == both
    assert listed(f"{models[0].reference[:8]}*", "--from", url) == listed("tiny@*") == both[:1]
    packaged = [name.partition("@")[0] for name, _ in listed("*@*")]
    assert packaged == sorted([*zoo.model_names(), "tiny"])


def test_pulled_revisions_need_no_index(run, index, port: int) -> None:
    url, (older, newer) = index
    run("pull", older.reference, "--from", url)
    dead = f"http://127.0.0.1:{port}"
    pulled = run("pull", older.reference, "--from", dead)
    assert Path(pulled.stdout.strip()).read_bytes() == older.file.read_bytes()
    told = " ".join(pulled.stderr.split())
    assert told.startswith(f"warning: {dead}/index.json: ")
    assert told.endswith("tried 4 times; using the models in the cache instead")
    error = run("pull", newer.reference, "--from", dead, code=1).stderr
    assert f"Error: tiny has no revision '{newer.reference[5:]}' in cache; there are {older.reference[5:]}\n" in error
    for references in (["tiny"], [older.reference, "tiny"]):  # a name alone means the newest, which the cache may lack
        assert run("pull", *references, "--from", dead, code=1).stderr.startswith(f"Error: {dead}/index.json: ")
    assert run("list", "--from", dead, code=1).stderr.startswith(f"Error: {dead}/index.json: ")


def test_an_index_of_the_environment_that_cannot_be_read_is_passed_over(run, index, port: int, monkeypatch) -> None:
    url, (_, newer) = index
    monkeypatch.setenv("ZOO_INDEX", f"http://127.0.0.1:{port} {url}")
    for command in ("list", "pull"):
        done = run(command, "tiny")
        assert newer.sha256[:12] in done.stdout
        assert done.stderr.startswith(f"warning: http://127.0.0.1:{port}/index.json: ")


def test_offline_touches_no_index_beyond_this_machine(run, index, monkeypatch) -> None:
    url, (_, newer) = index
    run("pull", "tiny", "--from", url)
    monkeypatch.setattr(catalog, "open_transport", None)
    assert rows(run, "--offline", "--from", "ftp://127.0.0.1:1/x")["tiny"]["revision"] == newer.reference[5:]


def test_models_of_another_cache_run(run, index, tmp_path, monkeypatch) -> None:
    run("pull", "tiny", "--from", index[0], "--cache-dir", tmp_path / "mine")
    shape = read_model(index[1][0].file).spec.input.shape
    np.savez(tmp_path / "a.npz", x=np.zeros((20, *shape), np.uint8), y=np.arange(20) % 2)
    assert "no model 'tiny'" in run("eval", "tiny", "--data", tmp_path / "a.npz", code=1).stderr
    before = os.environ["ZOO_CACHE_DIR"]
    run("eval", "tiny", "--data", tmp_path / "a.npz", "--cache-dir", tmp_path / "mine")
    assert os.environ["ZOO_CACHE_DIR"] == before


def test_list_says_what_was_pulled(run, index) -> None:
    url, (older, newer) = index
    assert rows(run, "--from", url)["tiny"]["pulled"] is False
    assert "tiny" not in rows(run)
    run("pull", older.reference, "--from", url)
    assert (rows(run)["tiny"]["index"], rows(run)["tiny"]["revision"]) == ("cache", older.reference[5:])
    row = rows(run, "--from", url)["tiny"]
    assert (row["revision"], row["pulled"], row["formats"]) == (newer.reference[5:], False, ["safetensors"])
    assert (row["sha256"], row["bytes"]) == (newer.sha256, newer.file.stat().st_size)
    run("pull", "tiny", "--from", url)
    assert rows(run, "--from", url)["tiny"]["pulled"] is True
    assert run("list", "tiny", "--from", url).stdout.rstrip().endswith(f"{url} (pulled)")


def test_pull_prints_paths_and_nothing_else(run, index, tmp_path) -> None:
    url, (_, newer) = index
    result = run("pull", "tiny", "--from", url, "-o", tmp_path / "out", "--format", "netx", "--format", "safetensors")
    assert result.stdout == f"{tmp_path}/out/tiny.net\n{tmp_path}/out/tiny.safetensors\n"
    assert result.stderr == ""
    assert (tmp_path / "out" / "tiny.safetensors").read_bytes() == newer.file.read_bytes()
    document = json.loads(run("pull", newer.reference, "--from", url, "--json").stdout)
    (model,) = document["models"]
    assert (model["name"], model["revision"], model["index"]) == ("tiny", newer.reference[5:], url)
    assert Path(model["paths"]["safetensors"]).read_bytes() == newer.file.read_bytes()


def test_pull_of_several_fetches_none_if_one_is_unknown(run, index, tmp_path) -> None:
    url, _ = index
    error = run("pull", "tiny", "tinny", "--from", url, code=1).stderr
    assert "did you mean tiny?" in error
    assert "cache" not in {path.name for path in tmp_path.iterdir()}


def test_pull_overwrites_only_with_force(run, index, tmp_path) -> None:
    url, (older, newer) = index
    run("pull", older.reference, "--from", url, "-o", tmp_path)
    assert "--force" in run("pull", newer.reference, "--from", url, "-o", tmp_path, code=1).stderr
    assert (tmp_path / "tiny.safetensors").read_bytes() == older.file.read_bytes()
    run("pull", newer.reference, "--from", url, "-o", tmp_path, "--force")
    assert (tmp_path / "tiny.safetensors").read_bytes() == newer.file.read_bytes()


def test_what_was_pulled_is_known_by_name_and_revision(run, index) -> None:
    url, (older, newer) = index
    for reference in ("tiny", older.reference):
        assert f"zoo pull {reference}" in run("show", reference, code=1).stderr
    for made in (newer, older):
        run("pull", made.reference, "--from", url)
        shown = json.loads(run("show", made.reference, "--json").stdout)
        assert (shown["measured"]["revision"], shown["spec"]["name"]) == (made.reference[5:], "tiny")
    assert json.loads(run("show", "tiny", "--json").stdout)["measured"]["revision"] == older.reference[5:]
    for made in (newer, older):  # now from the cache
        run("pull", made.reference)
        assert json.loads(run("show", "tiny", "--json").stdout)["measured"]["revision"] == made.reference[5:]
    weights = [zoo.create_model(which).state_dict()["blocks.1.synapse.weight"] for which in (newer.reference, "tiny")]
    assert not (weights[0] == weights[1]).all()


def test_the_package_comes_before_the_cache(run, carded, tmp_path) -> None:
    made = carded("mnist-dense")
    publish(made.file, made.card_file, str(tmp_path / "index"))
    told = run("pull", "mnist-dense", "--from", tmp_path / "index").stderr
    assert "note: mnist-dense means the package's" in told
    assert f"name this one as {made.reference}" in " ".join(told.split())
    assert zoo.create_model("mnist-dense").spec.input.shape == (784,)
    assert zoo.create_model(made.reference).spec.input.shape == (4,)
    packaged = rows(run)["mnist-dense"]
    assert zoo.create_model(f"mnist-dense@{packaged['revision']}").spec.input.shape == (784,)


def test_a_damaged_model_of_the_cache_is_not_loaded(run, index, tmp_path) -> None:
    url, _ = index
    (path,) = run("pull", "tiny", "--from", url).stdout.split()
    Path(path).write_bytes(b"damaged")
    for command in (("show", "tiny"), ("pull", "tiny")):
        error = run(*command, code=1).stderr
        assert "is damaged or missing; fetch it again: zoo pull tiny@" in " ".join(error.split())


def test_what_was_pulled_is_pulled_again_without_its_index(run, index, tmp_path) -> None:
    url, (_, made) = index
    run("pull", "tiny", "--from", url)
    shutil.rmtree(url)
    run("pull", made.reference, "-o", tmp_path / "again", "--format", "netx")
    assert (tmp_path / "again/tiny.net").exists()
