"""State dict files: the state dicts in them, and safetensors written in pieces."""

import json
import subprocess
import sys
import warnings
from argparse import Namespace
from collections import OrderedDict
from pickle import UnpicklingError

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from converters.file_migration import migrate_file
from converters.formats.state_dict_file import DTYPES, open_state_dict, write_safetensors_pieces, write_torch
from converters.weight_norm.migration_plan import TensorSpec
from specs import ConversionError, SnnZooError, UnsupportedError

G, V = torch.tensor([[5.0], [2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
LEGACY = {"a.weight_g": G, "a.weight_v": V, "a.bias": torch.tensor([1.0, -1.0])}
PLAIN = torch.tensor([[3.0, 4.0], [0.0, 2.0]])


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def migrated(path, output, **options):
    """Migrate a file; return the state dict that was written, and the report."""
    report = migrate_file(path, output, **{"to": "plain"} | options)
    if output.suffix == ".safetensors":
        return safetensors.torch.load_file(output), report
    return torch.load(output, weights_only=True), report


def bits(tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


# --- safetensors


def test_every_dtype_passes_to_the_bit(tmp_path) -> None:
    state = {name: torch.arange(6.0).reshape(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    state |= {"scalar": torch.tensor(2.0), "empty": torch.zeros(0, 3)}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    migrate_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="plain")
    migrate_file(tmp_path / "b.safetensors", tmp_path / "c.pt", to="plain")
    migrate_file(tmp_path / "c.pt", tmp_path / "d.safetensors", to="plain")
    for found in (
        safetensors.torch.load_file(tmp_path / "b.safetensors"),
        torch.load(tmp_path / "c.pt", weights_only=True),
        safetensors.torch.load_file(tmp_path / "d.safetensors"),
    ):
        assert found.keys() == state.keys()
        for name, value in state.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            assert bits(found[name]) == bits(value)


def test_the_bytes_are_aligned_and_those_of_the_library(tmp_path) -> None:
    state = {"b": torch.ones(3), "a": torch.ones(3), "half": torch.ones(5).half(), "byte": torch.ones(3).char()}
    specs = [TensorSpec(name, value.dtype, tuple(value.shape)) for name, value in state.items()]
    with write_safetensors_pieces(tmp_path / "a.safetensors", specs, {"format": "pt"}) as write:
        for name, value in state.items():
            for i in reversed(range(len(value))):
                write(name, i, value[i : i + 1])
    data = (tmp_path / "a.safetensors").read_bytes()
    assert data == safetensors.torch.save(state, {"format": "pt"})
    length = int.from_bytes(data[:8], "little")
    for entry in list(json.loads(data[8 : 8 + length]).values())[1:]:
        assert (8 + length + entry["data_offsets"][0]) % DTYPES[entry["dtype"]].itemsize == 0


def test_metadata_stays_but_for_the_spec_of_a_model(tmp_path) -> None:
    metadata = {"author": "someone", "snnzoo": "{}", "z": "ü"}
    safetensors.torch.save_file(LEGACY, tmp_path / "a.safetensors", metadata)
    report = migrate_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="plain")
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert file.metadata() == {"author": "someone", "z": "ü"}
    assert any("'snnzoo'" in note for note in report.notes)
    _, report = migrated(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert "left out, as torch files have no metadata: author, z" in report.notes


def test_what_safetensors_cannot_hold_is_refused_by_name(tmp_path) -> None:
    for value in (torch.zeros(2, dtype=torch.complex128), torch.eye(2).to_sparse()):
        path = saved(tmp_path / "a.pt", {"odd": value})
        with pytest.raises(UnsupportedError, match=r"odd .*write a \.pt"):
            migrate_file(path, tmp_path / "b.safetensors", to="plain")
        assert migrated(path, tmp_path / "b.pt")[0].keys() == {"odd"}
    assert not (tmp_path / "b.safetensors").exists()


def test_a_stride_or_a_conjugate_makes_no_difference(tmp_path) -> None:
    state = {"t": torch.arange(6.0).reshape(2, 3).T, "c": torch.tensor([1 + 2j]).conj(), "e": torch.ones(1).expand(4)}
    found, _ = migrated(saved(tmp_path / "a.pt", state), tmp_path / "b.safetensors")
    assert all(torch.equal(found[name], value.resolve_conj()) for name, value in state.items())


# --- torch


def test_order_versions_and_shared_memory_stay(tmp_path) -> None:
    module = torch.nn.Sequential(
        torch.nn.BatchNorm1d(2), torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))
    )
    state = torch.nn.DataParallel(module).state_dict()
    state["module.tied"] = state["module.0.weight"]
    found, report = migrated(saved(tmp_path / "a.pt", state), tmp_path / "b.pt", to="legacy")
    assert report.stripped_prefix == "module."
    assert list(found)[5:] == ["1.bias", "1.weight_g", "1.weight_v", "tied"]
    assert found._metadata["0"] == {"version": 2}
    assert found["tied"].data_ptr() == found["0.weight"].data_ptr()
    _, report = migrated(tmp_path / "a.pt", tmp_path / "b.safetensors", to="legacy")
    assert "0.weight and tied share memory; each is written separately" in report.notes


def test_the_source_may_be_overwritten(tmp_path) -> None:
    for path in (saved(tmp_path / "a.pt", LEGACY), tmp_path / "a.safetensors"):
        safetensors.torch.save_file(LEGACY, tmp_path / "a.safetensors")
        assert torch.equal(migrated(path, path)[0]["a.weight"], PLAIN)


def test_other_values_stay_in_torch_and_are_named_for_safetensors(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"epoch": 3, **LEGACY, "head._extra_state": {"x": torch.ones(1)}})
    found, _ = migrated(path, tmp_path / "b.pt")
    assert list(found) == ["epoch", "a.weight", "a.bias", "head._extra_state"]
    _, report = migrated(path, tmp_path / "b.safetensors")
    assert report.notes == ["left out, not tensors: epoch, head._extra_state"]


# --- checkpoints


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "net", "network", "weights", "params", "ema", "model.state_dict"]
)
def test_a_state_dict_is_found_inside(tmp_path, key) -> None:
    content = LEGACY
    for part in reversed(key.split(".")):
        content = {"epoch": 3, part: content}
    content["optimizer"] = {"state": {"a.weight_g": {"step": torch.ones(1)}}, "param_groups": []}
    found, report = migrated(saved(tmp_path / "a.pt", content), tmp_path / "b.pt")
    assert report.key == key
    assert torch.equal(found["a.weight"], PLAIN)
    assert "epoch" in report.notes[0]
    assert "optimizer" in report.notes[0]


def test_a_key_may_hold_a_dot(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"my.model": LEGACY, "b": {"w": torch.ones(1)}})
    assert list(migrated(path, tmp_path / "b.pt", key="my.model")[0]) == ["a.weight", "a.bias"]


@pytest.mark.parametrize("name", ["optimized_model", "optimal", "schedule_net", "string_model"])
def test_a_model_may_be_called_like_what_is_none(name, tmp_path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(1)}}}
    others = {"optimizer": optimizer, "optim_state_dict": optimizer, "lr_schedulers": [], "rng": {"x": torch.ones(1)}}
    found, _ = migrated(saved(tmp_path / "a.pt", {name: LEGACY, **others}), tmp_path / "b.pt")
    assert list(found) == ["a.weight", "a.bias"]


def test_two_state_dicts_under_one_dotted_key_are_two(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"m.n": {"a": torch.ones(1)}, "m": {"n": {"b": torch.ones(1)}}})
    with pytest.raises(ConversionError, match=r"several state dicts: m\.n, m\.n"):
        migrate_file(path, None, to="plain")


def test_views_of_conjugates_are_written_and_nested_tensors_refused(tmp_path) -> None:
    imaginary = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    path = saved(tmp_path / "a.pt", {"w": imaginary})
    assert migrated(path, tmp_path / "b.safetensors")[0]["w"].tolist() == [-2, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype in torch, which warns once
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(
        SnnZooError, match=r"w is a nested tensor|nested_tensor"
    ):  # newer versions of torch refuse to load it
        migrate_file(saved(tmp_path / "n.pt", {"w": nested}), None, to="plain")


def test_a_wrapper_is_kept_when_asked(tmp_path) -> None:
    other = {"w_g": torch.ones(1), "w_v": torch.ones(1)}
    content = {"epoch": 3, "nets": {"generator": LEGACY, "other": other}, "args": Namespace(lr=0.1)}
    path = saved(tmp_path / "a.pt", content)
    report = migrate_file(path, tmp_path / "b.pt", to="plain", key="nets.generator", keep_wrapper=True)
    found = torch.load(tmp_path / "b.pt", weights_only=False)
    assert (found["epoch"], found["args"]) == (3, Namespace(lr=0.1))
    assert torch.equal(found["nets"]["generator"]["a.weight"], PLAIN)
    assert found["nets"]["other"] == other
    assert report.notes == ["kept as before: epoch, args, other (beside nets.generator)"]
    with pytest.raises(UnsupportedError, match=r"cannot hold the entries around a state dict; write a \.pt"):
        migrate_file(path, tmp_path / "b.safetensors", to="plain", key="nets.generator", keep_wrapper=True)


NUMBERS = [np.float64(0.5), np.float32(-2), np.int64(7), np.bool_(True), np.uint8(200), np.complex64(1j), np.float16(3)]


def test_options_and_numpy_numbers_beside_a_state_dict_are_read(tmp_path) -> None:
    options = Namespace(lr=np.float64(1e-3), layers=[1, 2])
    path = saved(tmp_path / "a.pt", {"model": LEGACY, "args": options, "numbers": NUMBERS})
    with open_state_dict(path) as opened:
        found = opened.checkpoint
    assert found["args"] == options
    assert [(type(x), x) for x in found["numbers"]] == [(type(x), x) for x in NUMBERS]
    assert list(migrated(path, tmp_path / "b.pt")[0]) == ["a.weight", "a.bias"]


def test_numbers_of_numpy_1_are_read(tmp_path) -> None:
    content = {"model": LEGACY, "lr": np.float64(0.5)}
    path = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    with open_state_dict(path) as opened:
        assert opened.checkpoint["lr"] == 0.5


def test_options_that_cannot_be_written_again_are_refused(tmp_path) -> None:
    hostile = Namespace(__reduce_ex__=3)  # as a file can set it
    with pytest.raises(SnnZooError, match=r"cannot write .*b\.pt"):
        write_torch(tmp_path / "b.pt", LEGACY, None, wrap=lambda state: {"model": state, "args": hostile})
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize("value", [np.array([1.0]), np.datetime64(1, "s"), np.str_("a"), np.void(b"ab")])
def test_other_numpy_values_are_refused(value, tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"model": LEGACY, "value": value})
    with pytest.raises(SnnZooError, match=r"a\.pt"):
        migrate_file(path, None, to="plain")


def test_objects_are_allowed_only_while_a_file_is_read(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"model": LEGACY, "args": Namespace(lr=0.1)})
    migrate_file(path, None, to="plain")
    with pytest.raises(UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(path, weights_only=True)


def test_several_state_dicts_need_a_key(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"model": {"g": LEGACY, "d": {"w": torch.ones(1)}}, "step": torch.tensor(1)})
    with pytest.raises(ConversionError, match=r"several state dicts: model\.g, model\.d; choose one with --key"):
        migrate_file(path, None, to="plain")
    found, report = migrated(path, tmp_path / "b.pt", key="model.g")
    assert torch.equal(found["a.weight"], PLAIN)
    assert report.notes == ["left out: step, d (beside model.g)"]


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"model": LEGACY}, "modell", "has no entry 'modell'; found model"),
        ({"model": LEGACY, "epoch": 1}, "epoch.x", "has no entry 'epoch.x'; found int"),
        ({"model": LEGACY}, "model.a.weight_g", "has no entry 'model.a.weight_g'"),
        ({"model": LEGACY, "epoch": 1}, "epoch", "no state dict at 'epoch': .*, got int"),
        ({"epoch": 1}, None, "holds no state dict"),
        (torch.ones(3), None, "holds no state dict: .*, got Tensor"),
        ([LEGACY], None, "holds no state dict: .*, got list"),
        ({}, None, "holds no state dict"),
    ],
)
def test_no_state_dict_is_told(tmp_path, content, key, message) -> None:
    with pytest.raises(ConversionError, match=message):
        migrate_file(saved(tmp_path / "a.pt", content), None, to="plain", key=key)


def test_a_checkpoint_within_itself_ends(tmp_path) -> None:
    content = {"model": LEGACY}
    content["again"] = content
    assert migrate_file(saved(tmp_path / "a.pt", content), None, to="plain").key == "model"


# --- prefixes


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_wrappers_go_by_themselves(tmp_path, prefix) -> None:
    path = saved(tmp_path / "a.pt", {prefix + name: value for name, value in LEGACY.items()})
    found, report = migrated(path, tmp_path / "b.pt")
    assert list(found) == ["a.weight", "a.bias"]
    assert report.stripped_prefix == prefix


def test_a_wrapper_on_some_names_is_a_name(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"module.w": torch.ones(1), "w": torch.ones(1)})
    assert list(migrated(path, tmp_path / "b.pt")[0]) == ["module.w", "w"]


@pytest.mark.parametrize("wanted", ["model", "model."])
def test_a_prefix_goes_when_asked(tmp_path, wanted) -> None:
    state = {"module.model._orig_mod." + name: value for name, value in LEGACY.items()}
    found, report = migrated(saved(tmp_path / "a.pt", state), tmp_path / "b.pt", strip_prefix=wanted)
    assert list(found) == ["a.weight", "a.bias"]
    assert report.stripped_prefix == "module.model._orig_mod."


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module."])
def test_a_prefix_that_ends_a_wrapper_is_none_yet(wrapper, tmp_path) -> None:
    ending = wrapper[-4:-1]
    path = saved(tmp_path / "a.pt", {f"{wrapper}{ending}.{name}": value for name, value in LEGACY.items()})
    assert list(migrated(path, tmp_path / "b.pt", strip_prefix=ending)[0]) == ["a.weight", "a.bias"]


def test_a_prefix_that_is_not_there_or_hides_a_name_is_told(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"net.w": torch.ones(1), "w": torch.ones(1)})
    with pytest.raises(ConversionError, match=r"no tensor name begins with 'model\.'; the first name is net\.w"):
        migrate_file(path, None, to="plain", strip_prefix="model")
    with pytest.raises(ConversionError, match=r"net\.w and w are the same without 'net\.'"):
        migrate_file(path, None, to="plain", strip_prefix="net")


# --- casts


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_cast_shows_its_rounding(tmp_path, suffix) -> None:
    state = {"w_g": torch.tensor([[1.0 + 2**-12]]), "w_v": torch.tensor([[1.0, 0.0]]), "n": torch.tensor(1)}
    path = saved(tmp_path / "a.pt", state)
    for to in ("plain", "legacy"):
        found, report = migrated(path, tmp_path / f"b{suffix}", to=to, dtype=torch.float16)
        assert report.max_abs_diff == 2**-12
        assert {value.dtype for value in found.values()} == {torch.float16, torch.int64}


def test_a_cast_that_overflows_is_told(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"mask": torch.tensor([-1e9])})
    _, report = migrated(path, tmp_path / "b.pt", dtype=torch.float16)
    assert report.warnings == ["mask holds values that are not finite in float16"]


# --- names of files


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_told(tmp_path) -> None:
    with pytest.raises(SnnZooError, match=r"cannot read .*none\.pt: No such file"):
        migrate_file(tmp_path / "none.pt", None, to="plain")
    with pytest.raises(SnnZooError, match="cannot read"):
        migrate_file(tmp_path, None, to="plain")
    with pytest.raises(
        UnsupportedError, match=r"a\.onnx: a state dict is written as \.safetensors or \.pt, \.pth, \.bin"
    ):
        migrate_file(saved(tmp_path / "a.pt", LEGACY), tmp_path / "a.onnx", to="plain")


# --- all or nothing


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_refusal_halfway_leaves_the_old_file(tmp_path, suffix) -> None:
    path = saved(tmp_path / "a.pt", OrderedDict(first=torch.ones(9), w_g=torch.ones(1, 1), w_v=torch.zeros(1, 2)))
    output = tmp_path / f"out{suffix}"
    output.write_text("old")
    with pytest.raises(ConversionError, match="row of zeros"):
        migrate_file(path, output, to="plain")
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", output.name]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.ones(100_000)})
    outputs = [str(tmp_path / f"b{suffix}") for suffix in (".pt", ".safetensors")]
    program = (
        "import resource, sys, pathlib\nfrom converters.file_migration import migrate_file\n"
        "from specs import SnnZooError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for output in sys.argv[2:]:\n"
        "    try: migrate_file(pathlib.Path(sys.argv[1]), pathlib.Path(output), to='plain')\n"
        "    except SnnZooError as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(path), *outputs]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.startswith(f"cannot write {output}") for line, output in zip(told, outputs, strict=True)] == [True] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_memory_stays_small_however_large_the_file(tmp_path) -> None:
    """Migrating 160 MiB, with a tensor of 128 MiB, takes at most 60 MiB more than migrating a few bytes."""
    peaks = []
    for rows in (8, 32768):
        specs = [
            TensorSpec("a.weight_g", torch.float32, (rows, 1)),
            TensorSpec("a.weight_v", torch.float32, (rows, 1024)),
            TensorSpec("b", torch.float32, (rows * 256,)),
        ]
        source = tmp_path / "a.safetensors"
        with write_safetensors_pieces(source, specs, {}) as write:
            for spec in specs:
                for start in range(0, spec.n_elements, 2**20):
                    write(spec.name, start, torch.ones(min(2**20, spec.n_elements - start)))
        program = (
            "import resource, sys, pathlib\nfrom converters.file_migration import migrate_file\n"
            "migrate_file(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), to='plain')\n"
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        command = [sys.executable, "-c", program, str(source), str(tmp_path / "b.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 60


# --- pickled modules


class Stranger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(2, 1)


@pytest.fixture
def stranger(monkeypatch):
    """Return a module whose class a pickle places in `__main__`, as one of a script that was run."""
    monkeypatch.setattr(Stranger, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Stranger", Stranger, raising=False)
    return Stranger()


def refusal(path) -> str:
    with pytest.raises(UnsupportedError) as error, open_state_dict(path):
        pass
    return str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_modules_are_told_with_the_way_to_onnx(tmp_path, stranger, zipped) -> None:
    options = {"_use_new_zipfile_serialization": zipped}
    told = refusal(saved(tmp_path / "a.pt", torch.nn.Sequential(torch.nn.Linear(2, 1)), **options))
    assert "a pickled torch module (torch.nn.modules.container.Sequential;" in told
    assert "SCRIPT" not in told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a source in a test cannot be found
        path = saved(tmp_path / "b.pt", stranger, **options)
    told = refusal(path)
    assert "(__main__.Stranger;" in told
    assert 'python -c "from SCRIPT import *; import sys, torch; ' in told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path / "c.pt", torch.nn.Sequential(stranger), **options)
    assert "from SCRIPT import *" in refusal(path)


def test_checkpoints_with_objects_are_no_pickled_modules(tmp_path, stranger) -> None:
    told = refusal(saved(tmp_path / "a.pt", {"epoch": 1, "model": stranger}))
    assert "holds Python objects (__main__.Stranger), not only tensors" in told
