"""Readers of each format: the function that programs call, and the command that users run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Reader = Callable[[Path], Any]


def _reader(name: str, *given: Any, **options: Any) -> Reader:
    """Return a reader `module.function`, which is imported when it is called, so that processes start fast."""
    module, _, function = name.rpartition(".")
    return lambda path: getattr(import_module(module), function)(path, *given, **options)


def _model(**hints: float) -> Reader:
    """Return the reader of models, with hints on what their files do not say."""

    def read(path: Path) -> None:
        from converters.formats.model_files import Hints, read_model

        read_model(path, Hints(**hints)).build()

    return read


def _spec(path: Path) -> None:
    from bootstrap_core.network.build import build_network
    from specs import load_spec

    build_network(load_spec(path), seed=0)


def _image(path: Path) -> None:
    from bootstrap_core.data.image_files import read_pixels

    read_pixels(path, channels=1, height=28, width=28)
    read_pixels(path, channels=3, height=5, width=5)


def _events(*shape: int) -> Reader:
    """Return the reader of events, in bins of this shape."""

    def read(path: Path) -> None:
        from bootstrap_core.data.events.binning import EventBins, bin_events
        from bootstrap_core.data.events.recordings import read_events

        bin_events(read_events(path), EventBins(shape), str(path))

    return read


def _sound(path: Path) -> None:
    from bootstrap_core.data.sound_files import sound_picture
    from specs.layers.input import LogMelSpec

    sound_picture(path, LogMelSpec())


def _frames(path: Path) -> None:
    from valid_files import CHANGES

    from bootstrap_core.data.frames import load_frames, read_frames
    from specs import NetworkSpec

    spec = NetworkSpec.model_validate(CHANGES)
    read_frames(path, spec)
    load_frames(path, spec)


def _index(path: Path) -> None:
    from zoo.hub.catalog import open_catalogs, search
    from zoo.hub.index import dump_index, parse_index

    (catalog,) = open_catalogs([str(path)])
    assert parse_index(dump_index(catalog.index), origin="again") == catalog.index
    search("*", [catalog])


def _card(path: Path) -> None:
    from valid_files import DENSE

    from specs import NetworkSpec
    from zoo.card import dump_card, load_card
    from zoo.card_text import as_markdown
    from zoo.runs.golden import golden_images
    from zoo.runs.training_run import reports_of

    card = load_card(path)
    as_markdown(card, NetworkSpec.model_validate(DENSE))
    dump_card(card)
    golden_images(card.golden)
    reports_of(card.training)


@dataclass(frozen=True)
class Target:
    """Readers of a format: a function, and the arguments of a `zoo` command.

    In `command`, `FILE` stands for the path of the file, `FOLDER` for its folder, and `OUT` for a path in that folder.
    It is empty where no packaged model takes such files.
    """

    suffix: str
    read: Reader
    command: str


TARGETS = {
    "safetensors": Target(".safetensors", _model(), "verify FILE"),
    "state-dict": Target(
        ".pt",
        _reader("converters.file_migration.migrate_file", None, to="plain"),
        "migrate FILE --to plain -o OUT.safetensors",
    ),
    "netx": Target(".net", _model(), "convert FILE -o OUT.safetensors"),
    "nir": Target(".nir", _model(dt=1e-4), "convert FILE --dt 1e-4 -o OUT.safetensors"),
    "torch": Target(
        ".pt", _model(time_steps=4, threshold=1.0), "convert FILE --time-steps 4 --threshold 1 -o OUT.safetensors"
    ),
    "onnx": Target(
        ".onnx", _reader("converters.onnx.import_ann.import_ann"), "convert FILE --epochs 0 -o OUT.safetensors"
    ),
    "spec": Target(".yaml", _spec, "build FILE -o OUT.safetensors"),
    "idx": Target(
        "",
        _reader("bootstrap_core.data.published_files.read_idx"),
        "eval mnist-dense --data mnist --data-dir FOLDER --offline --limit 2",
    ),
    "npz": Target(
        ".npz", _reader("bootstrap_core.data.image_files.load_images"), "eval mnist-dense --data FILE --limit 2"
    ),
    "image": Target(".png", _image, "predict mnist-dense FILE"),
    "bs1": Target(".bs1", _events(1 << 16), "predict nmnist-conv FILE"),
    "bs2": Target(".bs2", _events(2, 256, 256), "predict nmnist-conv FILE"),
    "events": Target(".npz", _events(2, 256, 256), "predict nmnist-conv FILE"),
    "events-npy": Target(".npy", _events(2, 256, 256), "predict nmnist-conv FILE"),
    "sound": Target(".wav", _sound, "predict spoken-digits FILE"),
    "frames": Target(".npz", _frames, ""),
    "index": Target("/index.json", _index, "list --from FILE"),
    "card": Target(".yaml", _card, "publish FOLDER/hostile.safetensors FILE --to OUT"),
}
"""Readers by format. `suffix` is the end of the file's path; readers recognise files by their content."""
