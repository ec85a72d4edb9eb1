"""Readers of each format: the function that programs call, and the command that users run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _model(path: Path) -> None:
    from converters.formats.model_files import read_model

    read_model(path).build()


def _checkpoint(path: Path) -> None:
    from converters.formats.model_files import Hints, read_model

    read_model(path, Hints(time_steps=4, threshold=1.0)).build()


def _nir(path: Path) -> None:
    from converters.formats.model_files import Hints, read_model

    read_model(path, Hints(dt=1e-4)).build()


def _state_dict(path: Path) -> None:
    from converters.file_migration import migrate_file

    migrate_file(path, None, to="plain")


def _onnx(path: Path) -> None:
    from converters.onnx.import_ann import import_ann

    import_ann(path)


def _spec(path: Path) -> None:
    from bootstrap_core.network.build import build_network
    from specs import load_spec

    build_network(load_spec(path), seed=0)


def _idx(path: Path) -> None:
    from bootstrap_core.data.published_files import read_idx

    read_idx(path)


def _images(path: Path) -> None:
    from bootstrap_core.data.image_files import load_images

    load_images(path)


def _image(path: Path) -> None:
    from bootstrap_core.data.image_files import read_pixels

    read_pixels(path, channels=1, height=28, width=28)
    read_pixels(path, channels=3, height=5, width=5)


def _bin(path: Path, shape: tuple[int, ...]) -> None:
    from bootstrap_core.data.events.binning import EventBins, bin_events
    from bootstrap_core.data.events.recordings import read_events

    bin_events(read_events(path), EventBins(shape), str(path))


def _neurons(path: Path) -> None:
    _bin(path, (1 << 16,))


def _events(path: Path) -> None:
    _bin(path, (2, 256, 256))


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
    read: Callable[[Path], None]
    command: str


TARGETS = {
    "safetensors": Target(".safetensors", _model, "verify FILE"),
    "state-dict": Target(".pt", _state_dict, "migrate FILE --to plain -o OUT.safetensors"),
    "netx": Target(".net", _model, "convert FILE -o OUT.safetensors"),
    "nir": Target(".nir", _nir, "convert FILE --dt 1e-4 -o OUT.safetensors"),
    "torch": Target(".pt", _checkpoint, "convert FILE --time-steps 4 --threshold 1 -o OUT.safetensors"),
    "onnx": Target(".onnx", _onnx, "convert FILE --epochs 0 -o OUT.safetensors"),
    "spec": Target(".yaml", _spec, "build FILE -o OUT.safetensors"),
    "idx": Target("", _idx, "eval mnist-dense --data mnist --data-dir FOLDER --offline --limit 2"),
    "npz": Target(".npz", _images, "eval mnist-dense --data FILE --limit 2"),
    "image": Target(".png", _image, "predict mnist-dense FILE"),
    "bs1": Target(".bs1", _neurons, "predict nmnist-conv FILE"),
    "bs2": Target(".bs2", _events, "predict nmnist-conv FILE"),
    "events": Target(".npz", _events, "predict nmnist-conv FILE"),
    "events-npy": Target(".npy", _events, "predict nmnist-conv FILE"),
    "sound": Target(".wav", _sound, "predict spoken-digits FILE"),
    "frames": Target(".npz", _frames, ""),
    "index": Target("/index.json", _index, "list --from FILE"),
    "card": Target(".yaml", _card, "publish FOLDER/hostile.safetensors FILE --to OUT"),
}
"""Readers by format. `suffix` is the end of the file's path; readers recognise files by their content."""
