"""A user's own images, from the ANN to the name of a class."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from bootstrap_core import load_dataset
from converters.formats.model_files import read_model, write_model
from converters.formats.safetensors_file import read_safetensors

FRUIT = {"cherry": (200, 30, 40), "lemon": (230, 220, 60), "plum": (90, 30, 140)}
MEAN, STD = (0.7, 0.4, 0.3), (0.2, 0.3, 0.2)


@pytest.fixture
def fruit(tmp_path):
    """A folder with one folder per class: images in shades of a colour, 10 by 9 pixels."""
    generator = np.random.default_rng(0)
    for name, colour in FRUIT.items():
        (tmp_path / "fruit" / name).mkdir(parents=True)
        for i in range(40):
            pixels = np.clip(colour + generator.normal(0, 25, (9, 10, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "fruit" / name / f"{i}.png")
    return tmp_path / "fruit"


@pytest.fixture
def ann(tmp_path):
    """A handmade classifier of normalised images: the distance of the mean colour from that of each fruit."""
    wanted = (np.array(list(FRUIT.values())) / 255 - MEAN) / STD
    nodes = "c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w, b)"
    weights = {
        "k": np.concatenate([np.eye(3), -np.eye(3)]).reshape(6, 3, 1, 1) * np.eye(3)[1] * np.eye(3)[1][:, None],
        "w": np.concatenate([wanted.T, -wanted.T]),
        "b": -np.square(wanted).sum(1) / 2,
    }
    graph = onnx.parser.parse_graph(f"fruit (float[n, 3, 9, 10] x) => (float[n, 3] y) {{ {nodes} }}")
    graph.initializer.extend(numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items())
    path = tmp_path / "fruit.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_ann_of_coloured_images_becomes_a_network_that_names_them(run, fruit, ann, tmp_path) -> None:
    out, numbers = tmp_path / "fruit.safetensors", [",".join(map(str, values)) for values in (MEAN, STD)]
    options = ["--data", fruit, "--mean", numbers[0], "--std", numbers[1], "--epochs", 1]
    found = json.loads(run("convert", ann, *options, "-o", out, "--json").stdout)
    assert found["accuracy"]["ann"] == 1.0
    assert found["accuracy"]["converted"]["16"] > 0.9
    images = [next(iter(sorted((fruit / name).iterdir()))) for name in FRUIT]
    told = json.loads(run("predict", out, *images, "--json").stdout)["predictions"]
    assert [row["name"] for row in told] == list(FRUIT)
    assert [row["class"] for row in told] == [0, 1, 2]
    run("predict", out, images[0], "--animate", tmp_path / "cherry.gif")
    card = run("card", out).stdout.replace("\n   ", "")
    assert f"--mean={numbers[0]} --std={numbers[1]}" in card

    refused = run("convert", ann, *options[:2], "--mean", "0.5,0.5", "-o", out, "--force", code=1).stderr
    assert "got 2 means for images of [3, 9, 10]" in refused
    bytes_ = ["--mean", "178.5,102,76.5", "--std", "51,76.5,51"]
    told = run("convert", ann, *options[:2], *bytes_, "-o", out, "--force", code=1).stderr
    assert "if it is a mean of images in 0..255, give 0.7,0.4,0.3" in " ".join(told.split())


def test_files_of_other_sizes_and_kinds_are_made_what_the_network_takes(run, fruit, ann, tmp_path) -> None:
    out = tmp_path / "fruit.safetensors"
    options = ["--mean", "0.7,0.4,0.3", "--std", "0.2,0.3,0.2", "--epochs", 0, "--input", "spike", "--json"]
    first = fruit / "cherry" / "0.png"
    with Image.open(first) as image:
        large = image.resize((40, 18))
    large.save(first)
    assert json.loads(run("convert", ann, "--data", fruit, *options, "-o", out).stdout)["accuracy"]["ann"] == 1.0
    large.convert("L").save(first)
    assert json.loads(run("convert", ann, "--data", fruit, *options, "-o", out, "--force").stdout)["samples"] == 24
    assert json.loads(run("eval", out, "--engine", "integer", "--json").stdout)["results"][0]["images"] == 24
    assert "40x18, resized to 10x9" in run("predict", out, first).stderr


@pytest.fixture
def digits(tmp_path):
    """Threes and sevens in folders named after them."""
    split = load_dataset("mnist-sample").test
    for label in (3, 7):
        (tmp_path / "mine" / str(label)).mkdir(parents=True)
        for i, image in enumerate(split.images[split.labels == label][:20, 0].numpy()):
            Image.fromarray(image).save(tmp_path / "mine" / str(label) / f"{i}.png")
    return tmp_path / "mine"


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_other_words_in_as_many_classes_are_refused_and_scored_in_the_order_given(run, tmp_path) -> None:
    split = load_dataset("mnist-sample").test
    for label, word in enumerate(WORDS):
        (tmp_path / "words" / word).mkdir(parents=True)
        for i, image in enumerate(split.images[split.labels == label][:10, 0].numpy()):
            Image.fromarray(image).save(tmp_path / "words" / word / f"{i}.png")
    command = ["mnist-dense-shallow", "--data", tmp_path / "words"]
    assert "has classes that the network does not have (eight, five" in run("eval", *command, code=1).stderr
    right = json.loads(run("eval", *command, "--classes", ",".join(WORDS), "--json").stdout)
    assert right["results"][0]["accuracy"] > 0.8
    wrong = run("eval", *command, "--classes", ",".join(sorted(WORDS)))
    assert "or the data may number the classes in another order" in " ".join(wrong.stderr.split())
    page = ["-o", tmp_path / "a.html", "--json", "--classes", ", ".join(WORDS)]
    assert json.loads(run("gallery", *command, *page).stdout)["accuracy"] > 0.8


def test_an_ann_with_classes_in_another_order_is_converted_with_them(run, fruit, ann, tmp_path) -> None:
    out = tmp_path / "fruit.safetensors"
    for old, new in (("cherry", "z, cherry"), ("lemon", "a-lemon")):
        (fruit / old).rename(fruit / new)
    options = ["--data", fruit, "--mean", "0.7,0.4,0.3", "--std", "0.2,0.3,0.2", "--epochs", 0, "--input", "spike"]
    names = ["--classes", '"z, cherry",a-lemon,plum']
    wrong = run("convert", ann, *options, "-o", out)
    assert f"training images: 0.0 %; with {shlex.join(names)}: 100.0 %" in " ".join(wrong.stderr.split())
    found = json.loads(run("convert", ann, *options, *names, "-o", out, "--force", "--json").stdout)
    assert found["accuracy"]["ann"] == 1.0
    assert json.loads(run("eval", out, "--json").stdout)["results"][0]["accuracy"] > 0.9
    assert shlex.quote("=".join(names)) in " ".join(run("card", out).stdout.split())
    image = fruit / "z, cherry" / "0.png"
    assert json.loads(run("predict", out, image, "--json").stdout)["predictions"][0]["name"] == "z, cherry"
    named = ["--classes", "Kirsche,Zitrone,Pflaume"]
    assert json.loads(run("predict", out, image, *named, "--json").stdout)["predictions"][0]["name"] == "Kirsche"
    run("convert", out, *named, "-o", tmp_path / "other.safetensors")
    assert read_safetensors(tmp_path / "other.safetensors").classes == ("Kirsche", "Zitrone", "Pflaume")
    refused = run("convert", ann, *options, "--classes", "a,b", "-o", out, "--force", code=1).stderr
    assert "must name the network's 3 classes, got 2 names" in refused


def test_numbers_of_classes_get_the_names_given(run, fruit, ann, tmp_path) -> None:
    x = np.stack([np.array(Image.open(path)) for name in FRUIT for path in sorted((fruit / name).iterdir())])
    y = np.arange(len(x)) * 3 // len(x)
    np.savez(tmp_path / "named.npz", images=x, labels=y, classes=np.array([*FRUIT]))
    np.savez(tmp_path / "plain.npz", images=x, labels=y)
    options = ["--mean", "0.7,0.4,0.3", "--std", "0.2,0.3,0.2", "--epochs", 0, "--input", "spike"]
    for name, more in (("named", []), ("plain", ["--classes", ",".join(FRUIT)])):
        out = tmp_path / f"{name}.safetensors"
        run("convert", ann, "--data", tmp_path / f"{name}.npz", *options, *more, "-o", out)
        assert read_safetensors(out).classes == tuple(FRUIT)
        assert json.loads(run("eval", out, "--data", fruit, "--json").stdout)["results"][0]["accuracy"] > 0.9
    np.savez(tmp_path / "one.npz", images=x, labels=y + 1)
    told = run("eval", tmp_path / "named.safetensors", "--data", tmp_path / "one.npz", code=1).stderr
    assert "one.npz has no label 0" in " ".join(told.split())
    assert "label 3: the network has 3 classes, so labels must be from 0 to 2; if the labels" in " ".join(told.split())


def test_a_run_keeps_the_order_of_its_classes(run, spec_file, digits, tmp_path) -> None:
    names = ["--classes", "7,3,0,1,2,4,5,6,8,9"]
    command = ["train", spec_file, "-o", tmp_path / "run", "--data", digits, "--set", "training.validation=4"]
    run(*command, *names, "--epochs", 1)
    other = run(*command, "--classes", "3,7,0,1,2,4,5,6,8,9", "--epochs", 2, "--resume", code=1).stderr
    assert "has the classes 7, 3, 0" in " ".join(other.split())
    run(*command, "--epochs", 2, "--resume")
    assert read_safetensors(tmp_path / "run/model.safetensors").classes[:2] == ("7", "3")


@pytest.fixture
def trained_on_digits(run, spec_file, tmp_path, monkeypatch) -> None:
    """Train a network in the folder `run` on data beside this folder."""
    monkeypatch.chdir(tmp_path)
    digits = load_dataset("mnist-sample").train
    np.savez("digits.npz", x=digits.images.numpy(), y=digits.labels.numpy())
    run("train", spec_file, "-o", "run", "--epochs", 1, "--data", "digits.npz")


@pytest.mark.parametrize("command", ["eval", "card", "gallery -o page.html"])
@pytest.mark.usefixtures("trained_on_digits")
def test_data_that_moved_is_told_with_what_names_it_anew(run, tmp_path, command: str) -> None:
    Path("digits.npz").rename("others.npz")
    name, *options = command.split()
    told = " ".join(run(name, "run/model.safetensors", *options, code=1).stderr.split())
    assert f"tiny was made with '{tmp_path}/digits.npz', which is missing: name the data with --data" in told
    run(name, "run/model.safetensors", *options, "--data", "others.npz")


@pytest.mark.parametrize("command", ["eval", "card", "gallery -o page.html", "train -o on"])
@pytest.mark.usefixtures("trained_on_digits")
def test_data_that_the_user_named_for_a_model_are_found_again(run, tmp_path, monkeypatch, command: str) -> None:
    name, *options = command.split()
    run(name, "run/model.safetensors", *options)
    run("convert", "run/model.safetensors", "-o", "elsewhere/tiny.nir")
    monkeypatch.chdir(tmp_path / "run")
    assert json.loads(run("eval", "model.safetensors", "--json").stdout)["results"][0]["images"] == 400
    assert json.loads(run("eval", "../elsewhere/tiny.nir", "--json").stdout)["results"][0]["images"] == 400


def test_data_that_the_user_named_for_a_conversion_are_found_again(run, fruit, ann, tmp_path) -> None:
    out = tmp_path / "out/fruit.safetensors"
    run("convert", ann, "--data", fruit, "--mean", "0.7,0.4,0.3", "--std", "0.2,0.3,0.2", "--epochs", 0, "-o", out)
    assert json.loads(run("eval", out, "--json").stdout)["results"][0]["images"] == 24


@pytest.mark.parametrize("elsewhere", ["moved", "changed", "another user"])
@pytest.mark.usefixtures("trained_on_digits")
def test_a_model_from_elsewhere_opens_no_data(run, tmp_path, monkeypatch, elsewhere: str) -> None:
    folder = "run"
    if elsewhere == "moved":
        folder = "copy"
        shutil.copytree("run", folder)
    elif elsewhere == "changed":
        model = read_model("run/model.safetensors")
        other = replace(model, spec=model.spec.model_copy(update={"name": "other"}))
        write_model(other, "run/model.safetensors", overwrite=True)
    else:
        monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "other"))
    run("convert", f"{folder}/model.safetensors", "-o", "elsewhere/tiny.nir")  # does not make it the user's own
    for source in (f"{folder}/model.safetensors", "elsewhere/tiny.nir"):
        told = " ".join(run("eval", source, code=1).stderr.split())
        assert f"which is not in its folder and is only opened if you name it: --data {tmp_path}/digits.npz" in told


@pytest.mark.usefixtures("trained_on_digits")
def test_other_data_than_the_user_named_stay_closed(run, tmp_path) -> None:
    Path("digits.npz").rename("secret.npz")
    shutil.copy("secret.npz", "digits.npz")
    model = read_model("run/model.safetensors")
    write_model(model.with_data(lambda name: f"{tmp_path}/secret.npz"), "run/model.safetensors", overwrite=True)
    assert "is only opened if you name it" in " ".join(run("eval", "run/model.safetensors", code=1).stderr.split())


@pytest.mark.parametrize("command", ["eval", "card", "gallery -o page.html", "train -o on"])
@pytest.mark.usefixtures("trained_on_digits")
def test_data_outside_the_folder_of_a_model_are_opened_only_if_the_user_names_them(
    run, tmp_path, monkeypatch, command: str
) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "other"))
    (tmp_path / "run/link.npz").symlink_to(tmp_path / "digits.npz")
    linked = read_model(tmp_path / "run/model.safetensors").with_data(lambda name: "link.npz")
    write_model(linked, tmp_path / "run/linked.safetensors")
    name, *options = command.split()
    for model, data in (("model", "digits.npz"), ("linked", "run/link.npz")):
        told = " ".join(run(name, f"run/{model}.safetensors", *options, code=1).stderr.split())
        assert f"which is not in its folder and is only opened if you name it: --data {tmp_path}/{data}" in told
    run(name, "run/model.safetensors", *options, "--data", "digits.npz")


def test_data_in_the_folder_of_a_model_move_with_it_and_are_found_from_everywhere(
    run, spec_file, tmp_path, monkeypatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    digits = load_dataset("mnist-sample").train
    np.savez("digits.npz", x=digits.images.numpy(), y=digits.labels.numpy())
    run("train", spec_file, "-o", "run", "--epochs", 1, "--data", "digits.npz")
    assert read_model("run/model.safetensors").data == str(tmp_path / "project/digits.npz")
    run("convert", "run/model.safetensors", "-o", "tiny.safetensors")
    assert read_safetensors(Path("tiny.safetensors")).data == "digits.npz"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").rename("moved")
    assert json.loads(run("eval", "moved/tiny.safetensors", "--json").stdout)["results"][0]["images"] == 400
    run("convert", "moved/tiny.safetensors", "-o", "tiny.nir")
    assert read_model("tiny.nir").data == str(tmp_path / "moved/digits.npz")
    command = ["train", spec_file, "-o", "moved/run", "--epochs", 2, "--resume"]
    run(*command, "--data", "moved/digits.npz")


@pytest.mark.usefixtures("trained_on_digits")
def test_a_recipe_cannot_name_other_data_than_the_card(run) -> None:
    model = read_model("run/model.safetensors")
    write_model(replace(model, card={"training": {"data": "mnist-sample"}}), "run/model.safetensors", overwrite=True)
    told = run("train", "run/model.safetensors", "-o", "on", "--epochs", 1, code=1).stderr
    assert "is only opened if you name it" in " ".join(told.split())
