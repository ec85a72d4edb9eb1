"""C source computes what the integer engine computes; what it cannot compute is refused."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from c_programs import COMPILER, answers, answers_by_step, as_bytes, compile_c, needs_compiler, run

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.network.blocks import SpikingBlock
from bootstrap_core.network.network import Network
from converters import Model
from converters.chip import from_network
from converters.chip.from_network import form_of_network
from converters.formats.c import c_writer
from converters.formats.c.c_comparison import compare_c, run_self_test
from converters.formats.c.c_numbers import logits_over_time
from converters.formats.c.c_plan import plan_of
from converters.formats.c.c_writer import COptions, check_c_name, write_c
from specs import ConversionError, IntegrityError, NetworkSpec, StateOverflowError, UnsupportedError

LEAKY = {"threshold": 0.8, "current_decay": 0.4, "voltage_decay": 0.2, "learn_decays": "per_channel"}
SUBTRACTING = {"threshold": 0.7, "voltage_decay": 0.03, "reset": "subtract", "start": 0.5}
MAPS = [
    {
        "kind": "conv", "channels": 4, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0, 2, 1], "dilation": [1, 2],
        "groups": 2, "bias": True, "neuron": LEAKY,
    },
    {"kind": "avg_pool", "kernel": 2, "padding": [0, 0, 1, 1], "delay_shift": True},
    {"kind": "conv", "channels": 4, "kernel": 1, "norm": "mean_only", "skips": [{"kind": "identity", "source": 2}]},
    {"kind": "flatten"},
    {"kind": "dense", "features": 24, "norm": "weight_scale", "neuron": SUBTRACTING, "skips": [
        {"kind": "identity", "source": 4}, {"kind": "dense", "source": 1},
    ]},
]  # fmt: skip
SPIKES = {"shape": [2, 7, 6], "mean": 0.4, "std": 0.5, "weight": 1.3, "bias": 0.3}
GRADED = {"shape": [2, 7, 6], "encoding": "graded", "bits": 3}
FLAT = {"shape": [5], "encoding": "graded", "bits": 5}
EVENTS = {"shape": [2, 7, 6], "encoding": "events"}
COUNTS = {**EVENTS, "bits": 2}
SENDING = {"kind": "sigma_delta", "threshold": 0.1}
FRAMES = {"shape": [2, 7, 6], "encoding": "frames", "neuron": {"kind": "sigma_delta", "threshold": 0.1}}
CHANGING = [
    {**MAPS[0], "neuron": SENDING, "delay_shift": True},
    {"kind": "avg_pool", "kernel": 2, "padding": [0, 0, 1, 1], "neuron": {"kind": "sigma_delta"}},
    {"kind": "flatten"},
    {"kind": "dense", "features": 9, "bias": True, "neuron": SENDING},
]
FLAT_EVENTS = {"shape": [5], "encoding": "events"}
LATE = {"kind": "dense", "features": 9, "bias": True, "neuron": LEAKY, "delays": {"longest": 3}}
LATE_BY_WEIGHT = {**LATE, "delays": {"per": "synapse", "longest": 2, "learn": True}}
RECURRENT = {"kind": "dense", "features": 7, "recurrent": True, "neuron": SUBTRACTING}
SHIFTED = {**RECURRENT, "delay_shift": True, "skips": [{"kind": "dense", "source": 0}]}
LATE_MAPS = [{**MAPS[0], "delays": {"longest": 2}}, *MAPS[1:4], LATE_BY_WEIGHT]
AVERAGE = {"kind": "average", "features": 3}
READOUT = {"kind": "affine", "features": 3, "bias": True, "skips": [{"kind": "dense", "source": 3}]}
NETWORK_OF_SKIPS = [
    {"kind": "conv", "channels": 2, "kernel": 3, "padding": 1, "skips": [
        {"kind": "identity", "source": 0},
        {"kind": "conv", "source": 0, "kernel": 3, "padding": 2, "dilation": 2, "groups": 2},
    ]},
]  # fmt: skip
NETWORKS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "spikes": (SPIKES, [*MAPS, READOUT]),
    "graded": (GRADED, [*MAPS, READOUT]),
    "as lava-dl": ({**SPIKES, "exact_input": False, "neuron": LEAKY}, [*MAPS, READOUT]),
    "spiking readout": (SPIKES, [*MAPS, {"kind": "dense", "features": 3, "delay_shift": True}]),
    "maps as readout": (GRADED, [MAPS[0], {"kind": "conv", "channels": 3, "kernel": 2}]),
    "skip from the input": (SPIKES, NETWORK_OF_SKIPS),
    "padded spikes": ({**SPIKES, "shape": [2, 6, 3], "padding": [1, 2, 0, 1], "border": [0.3, 0.7]}, [*MAPS, READOUT]),
    "padded grey": ({"shape": [1, 7, 6], "padding": 1, "border": 0.4}, [*MAPS[3:4], {**READOUT, "skips": []}]),
    "padded integers": ({**GRADED, "shape": [2, 5, 5], "padding": [0, 1, 2, 0], "border": 0.5}, [*MAPS, READOUT]),
    "graded readout": (FLAT, [{"kind": "affine", "features": 4, "bias": True}]),
    "graded dense": (FLAT, [{"kind": "dense", "features": 9}, {**READOUT, "skips": []}]),
    "events": (EVENTS, [*MAPS, READOUT]),
    "counts of events": (COUNTS, [*MAPS, READOUT]),
    "many events": ({**COUNTS, "shape": [2, 3, 2], "bits": 9}, [
        MAPS[3], {**READOUT, "skips": [{"kind": "dense", "source": 0}], "neuron": {"voltage_decay": 1.0}},
    ]),
    "a byte of events": ({**FLAT_EVENTS, "bits": 8}, [LATE, LATE_BY_WEIGHT, SHIFTED, {**READOUT, "skips": []}]),
    "skips from counts": (COUNTS, NETWORK_OF_SKIPS),
    "late events": (EVENTS, [*LATE_MAPS, READOUT]),
    "late counts": (COUNTS, [*LATE_MAPS, READOUT]),
    "late pixels": (GRADED, [*LATE_MAPS, READOUT]),
    "late spikes": (SPIKES, [*LATE_MAPS, READOUT]),
    "pixels late by weight": (FLAT, [LATE_BY_WEIGHT, {**READOUT, "skips": []}]),
    "recurrent": (FLAT_EVENTS, [RECURRENT, SHIFTED, LATE, {**READOUT, "skips": []}]),
    "recurrent pixels": (FLAT, [{**RECURRENT, "delays": {"longest": 2}}, {**RECURRENT, "features": 3}]),
    "recurrent pixels late by weight": (FLAT, [{**RECURRENT, **LATE_BY_WEIGHT}, {**RECURRENT, "features": 3}]),
    "average": (FLAT_EVENTS, [RECURRENT, {"kind": "dense", "features": 6}, AVERAGE]),
    "average of maps": (COUNTS, [*MAPS[:4], AVERAGE]),
    "average of events": ({**COUNTS, "shape": [6]}, [AVERAGE]),
    "average of pixels": ({"shape": [6]}, [AVERAGE]),
    "maps of events as readout": (EVENTS, [MAPS[0], {"kind": "conv", "channels": 3, "kernel": 2}]),
    "frames": (FRAMES, [*CHANGING, {**READOUT, "skips": []}]),
    "few bits of frames": ({**FRAMES, "bits": 7}, [*CHANGING, {"kind": "affine", "features": 2}]),
    "frames of 10 bits": ({**FRAMES, "shape": [7], "bits": 10}, [
        CHANGING[3], {"kind": "dense", "features": 3, "delay_shift": True, "neuron": SENDING},
    ]),
    "maps of messages as values": (FRAMES, CHANGING[:2]),
}  # fmt: skip


OF_MESSAGES = [name for name, (entering, _) in NETWORKS.items() if entering.get("encoding") == "frames"]


def make(entering: dict[str, Any], blocks: list[dict[str, Any]], **fields: Any) -> Network:
    """Return a network with weights of both signs, biases, norms, decays and delays as after training."""
    document = {"name": "tiny", "time_steps": 6, "input": entering, "blocks": blocks, **fields}
    if entering.get("encoding") == "frames":
        document["neuron"] = SENDING
    network = build_network(NetworkSpec.model_validate(document), seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("weight") and tensor.dim() > 1:
                tensor.mul_(1 if network.spec.gives_values else 3).add_(0.05)
            elif name.endswith("bias") or "running_mean" in name or ("decay" in name and len(tensor) > 1):
                tensor.add_(torch.empty_like(tensor).uniform_(-0.1, 0.1, generator=generator))
        for block in network.blocks:
            if isinstance(block, SpikingBlock) and block.learns_delay:
                block.delay.add_(torch.empty_like(block.delay).uniform_(-0.7, 0.7, generator=generator))
    return network


def write(network: Network, folder: Path, **options: Any) -> Path:
    return write_c(Model.of(network), folder / "tiny.c", COptions(**options), overwrite=True)


def bytes_for(network: Network, n: int = 20) -> torch.Tensor:
    """Return images `[N, ...]`, or recordings of events or frames `[N, T, ...]`."""
    entering, generator = network.spec.input, torch.Generator().manual_seed(2)
    if not entering.is_timed:
        return torch.randint(256, (n, *entering.shape), dtype=torch.uint8, generator=generator)
    shape = (n, network.spec.time_steps, *entering.shape)
    if network.spec.gives_values:
        frames = torch.randint(entering.least, 1 + entering.largest, shape, generator=generator)
        return frames.to(torch.int8 if entering.bits <= 8 else torch.int16)
    events = torch.randint(1, 1 + entering.largest, shape, generator=generator)
    events *= torch.rand(shape, generator=generator) < 0.4
    return events.to(torch.uint8 if entering.bits <= 8 else torch.uint16)


def as_given(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Return what the integer engine takes: events and frames with time first."""
    return images.int().transpose(0, 1) if network.spec.input.is_timed else images


def in_units(logits: torch.Tensor, unit: int) -> Any:
    """Return logits of the integer engine in the units of the source, int64."""
    found = logits.double() * unit
    assert (found - found.round()).abs().max() < 0.1  # float32 rounds
    return found.round().long().numpy()


OF_LAST_STEP = [
    name
    for name, (entering, blocks) in NETWORKS.items()
    if blocks[-1]["kind"] == "affine" and entering.get("encoding") != "frames"
]


@needs_compiler
@pytest.mark.parametrize(
    ("name", "output"),
    [
        *((name, "rate") for name in NETWORKS if name not in OF_MESSAGES),
        *((name, "last") for name in OF_LAST_STEP),
    ],
)
def test_the_source_gives_the_logits_of_the_integer_engine_after_each_step(
    name: str, output: str, tmp_path: Path
) -> None:
    network = make(*NETWORKS[name], output=output)
    images, plan, steps = bytes_for(network), plan_of(form_of_network(network)), network.spec.time_steps
    given, exact = as_given(network, images), IntegerNetwork(network)
    source = write(network, tmp_path)
    classes, logits = answers(compile_c(source, "-DSNN_STDIN"), images)
    assert (logits == in_units(exact(given), plan.unit_after(steps))).all()
    assert (classes == logits.argmax(1)).all()
    assert len({tuple(row) for row in logits}) > 3  # not all alike
    classes_by_step, logits_by_step = answers_by_step(source, images, steps, "-fsanitize=undefined")
    assert (logits_by_step == logits_over_time(exact, given, plan).numpy()).all()
    assert (classes_by_step[-1] == classes).all()
    for t in range(steps):
        assert (logits_by_step[t] == in_units(exact(given, time_steps=t + 1), plan.unit_after(t + 1))).all()


@needs_compiler
@pytest.mark.parametrize("name", OF_MESSAGES)
def test_the_source_gives_the_values_of_the_integer_engine_after_each_step(name: str, tmp_path: Path) -> None:
    network = make(*NETWORKS[name])
    frames, plan, exact = bytes_for(network), plan_of(form_of_network(network)), IntegerNetwork(network)
    source = write(network, tmp_path)
    _, values = answers_by_step(source, frames, 6, "-fsanitize=undefined")
    assert len({tuple(row) for row in values[-1]}) > 3  # not all alike
    for t in range(6):
        assert (values[t] == in_units(exact(as_given(network, frames), time_steps=t + 1), plan.step_unit)).all()
    assert (values == logits_over_time(exact, as_given(network, frames), plan).numpy()).all()
    done = run(compile_c(source, "-DSNN_STDIN"), as_bytes(frames))
    assert done.returncode == 0
    assert [list(map(int, line.split())) for line in done.stdout.splitlines()] == values[-1].tolist()


@needs_compiler
def test_frames_beyond_their_bits_are_taken_as_the_nearest(tmp_path: Path) -> None:
    network = make(*NETWORKS["few bits of frames"])
    program, frames = compile_c(write(network, tmp_path), "-DSNN_STDIN"), bytes_for(network)
    beyond = torch.where(frames == 63, 123, torch.where(frames == -64, -124, frames)).to(torch.int8)
    assert beyond.unique().tolist() == [-124, *range(-63, 63), 123]
    assert run(program, as_bytes(beyond)).stdout == run(program, as_bytes(frames)).stdout


@needs_compiler
@pytest.mark.parametrize(("weight", "bits", "overflows"), [(3.9, 8, True), (0.1, 13, True), (0.1, 12, False)])
def test_messages_and_frames_beyond_24_bits_are_counted(
    weight: float, bits: int, overflows: bool, tmp_path: Path
) -> None:
    network = make({"shape": [5000], "encoding": "frames", "bits": bits}, [{"kind": "affine", "features": 1}])
    with torch.no_grad():
        network.block(1).synapse.weight.fill_(weight)
    frames = torch.zeros(1, 6, 5000, dtype=torch.int8 if bits <= 8 else torch.int16)
    frames[0, 0] = 127 if bits == 8 else 0
    frames[0, 0, 0] = network.spec.input.largest
    done = run(compile_c(write(network, tmp_path), "-DSNN_STDIN", "-fsanitize=undefined"), as_bytes(frames))
    assert done.returncode == overflows
    assert (b"states left 24 bits" in done.stderr) == overflows
    if overflows:
        with pytest.raises(StateOverflowError):
            IntegerNetwork(network)(as_given(network, frames))
    else:
        IntegerNetwork(network)(as_given(network, frames))


@needs_compiler
@pytest.mark.parametrize("name", ["events", "counts of events", "recurrent", "late counts", *OF_MESSAGES])
def test_the_self_test_of_events_passes_with_recordings_and_with_noise(name: str, tmp_path: Path) -> None:
    network = make(*NETWORKS[name])
    for images in (None, bytes_for(network, 3)):
        source = write(network, tmp_path, images=images)
        assert run(compile_c(source, "-DSNN_SELFTEST")).stdout == b"ok\n"
        assert f"compares {3 if images is not None else 4} recordings " in source.read_text()


@needs_compiler
def test_a_recording_may_have_any_number_of_steps(tmp_path: Path) -> None:
    network = make(*NETWORKS["recurrent"])
    recordings, exact = bytes_for(network, 4), IntegerNetwork(network)
    program = compile_c(write(network, tmp_path), "-DSNN_STDIN")
    _, logits = answers(program, recordings.reshape(2, 12, 5), "12")
    given, plan = recordings.reshape(2, 12, 5).transpose(0, 1), plan_of(form_of_network(network))
    assert (logits == logits_over_time(exact, given, plan)[-1].numpy()).all()
    for wrong in ("0", "two", "3x", "1000000000000"):
        done = run(program, b"", wrong)
        assert (done.returncode, done.stderr.split(b" [STEPS], ")[-1]) == (2, b"1 to 484103\n")
    done = run(program, bytes(5 * 6 + 5 * 2 + 3))
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert done.stderr == b"the last recording has 2 of 6 steps, and 3 counts\n"


@needs_compiler
@pytest.mark.parametrize(("name", "most"), [("events", 1), ("counts of events", 3)])
def test_more_events_than_fit_count_as_the_most(name: str, most: int, tmp_path: Path) -> None:
    network = make(*NETWORKS[name])
    program, recordings = compile_c(write(network, tmp_path), "-DSNN_STDIN"), bytes_for(network)
    expected = answers(program, recordings)[1]
    assert (answers(program, recordings + 200 * (recordings == most).byte())[1] == expected).all()


@needs_compiler
def test_a_stream_stops_where_logits_could_leave_32_bits(tmp_path: Path) -> None:
    network = make(*NETWORKS["recurrent"])
    source = write(network, tmp_path)
    header = source.with_suffix(".h")
    header.write_text(re.sub("MOST_STEPS [0-9]+", "MOST_STEPS 8", header.read_text()))
    main = tmp_path / "main.c"
    main.write_text('#include "tiny.c"\n#include <stdio.h>\nint main(void) { static snn_state s; uint8_t x[5] = {0}; '
                    "snn_init(&s); for (int t = 0; t < 10; ++t) { snn_step(&s, x); } "
                    'printf("%d %d", (int)s.steps, (int)s.overflows); }\n')  # fmt: skip
    assert run(compile_c(main)).stdout == b"8 2"


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_the_size_of_the_state_is_known_beforehand(name: str, tmp_path: Path) -> None:
    network = make(*NETWORKS[name])
    source = write(network, tmp_path)
    size = tmp_path / "size.c"
    size.write_text('#include "tiny.h"\n#include <stdio.h>\nint main(void) { printf("%d", (int)sizeof(snn_state)); }\n')
    assert int(run(compile_c(size)).stdout) == plan_of(form_of_network(network)).state_bytes
    assert f"State: {plan_of(form_of_network(network)).state_bytes:,} bytes" in source.read_text()


@needs_compiler
def test_the_self_test_finds_a_changed_weight(tmp_path: Path) -> None:
    network = make(*NETWORKS["spikes"])
    source = write(network, tmp_path, images=bytes_for(network, 3))
    done = run(compile_c(source, "-DSNN_SELFTEST"))
    assert (done.returncode, done.stdout) == (0, b"ok\n")
    assert "compares 3 pictures " in source.read_text()
    head, weights = source.read_text().split("block6_weights[72] = {\n    ")
    source.write_text(f"{head}block6_weights[72] = {{\n    1{weights}")  # -7 would become 1-7
    done = run(compile_c(source, "-DSNN_SELFTEST"))
    assert done.returncode == 1
    assert re.match(rb"picture 0, class 0: -?\d+, expected -?\d+; 0 overflows\n", done.stdout)


@needs_compiler
def test_states_beyond_24_bits_are_counted(tmp_path: Path) -> None:
    entering = {"shape": [40], "encoding": "graded", "bits": 10}
    network = make(entering, [{"kind": "dense", "features": 2}, {"kind": "affine", "features": 2}], time_steps=2)
    with torch.no_grad():
        network.block(1).synapse.weight.fill_(3.9)
    images = torch.full((1, 40), 255, dtype=torch.uint8)
    with pytest.raises(StateOverflowError):
        IntegerNetwork(network)(images)
    done = run(compile_c(write(network, tmp_path), "-DSNN_STDIN", "-fsanitize=undefined"), images.numpy().tobytes())
    assert done.returncode == 1
    assert done.stderr.startswith(b"4 states left 24 bits")  # currents of 2 neurons in 2 steps


@needs_compiler
def test_pictures_of_the_self_test_do_not_overflow(tmp_path: Path) -> None:
    network = make({"shape": [40], "encoding": "graded", "bits": 10}, [{"kind": "dense", "features": 2}])
    with torch.no_grad():
        network.block(1).synapse.weight.fill_(3.9)
    source = write(network, tmp_path, images=torch.full((2, 40), 255, dtype=torch.uint8))
    assert "compares 1 picture " in source.read_text()  # a black one
    assert run(compile_c(source, "-DSNN_SELFTEST")).stdout == b"ok\n"


@needs_compiler
def test_an_image_that_is_cut_short_is_told(tmp_path: Path) -> None:
    network = make(*NETWORKS["graded readout"])
    done = run(compile_c(write(network, tmp_path), "-DSNN_STDIN"), bytes(8))
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert done.stderr == b"the last image has 3 of 5 bytes\n"


@needs_compiler
def test_a_program_of_images_takes_no_argument(tmp_path: Path) -> None:
    done = run(compile_c(write(make(*NETWORKS["graded readout"]), tmp_path), "-DSNN_STDIN"), bytes(5), "images.raw")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.endswith(b"with images of 5 bytes on its standard input\n")


@needs_compiler
def test_two_networks_fit_into_one_program(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_c(Model.of(make(*NETWORKS["spikes"])), tmp_path / f"{name}.c", COptions(prefix=name))
    both = tmp_path / "both.c"
    both.write_text('#include "one.h"\n#include "two.h"\nint main(void) { static one_state a; static two_state b; '
                    "one_init(&a); two_init(&b); return TWO_CLASSES - ONE_CLASSES; }\n")  # fmt: skip
    done = run(compile_c(both, str(tmp_path / "one.c"), str(tmp_path / "two.c")))
    assert done.returncode == 0


def test_the_source_has_a_table_of_layers_and_neither_floats_nor_allocation(tmp_path: Path) -> None:
    text = write(make(*NETWORKS["spikes"]), tmp_path).read_text()
    table = {line[3:9]: re.split(r"  +", line[3:]) for line in text.replace("\n *         ", " ").splitlines()[2:10]}
    assert table["0 inpu"] == ["0 input", "2x7x6", "64", "4096 0", "zero", "pixels as currents"]
    assert table["2 avg_"] == ["2 avg_pool", "4x2x3", "16", "64", "4096 0", "zero, a step late",
                               "conv 2x2 of block1, stride 2x2, padding 0 0 1 1, 4 groups"]  # fmt: skip
    assert table["5 dens"] == ["5 dense", "24", "2,520", "44", "4096 123", "subtract, starts at 1408",
                               "dense of block3 + identity of block3 + dense of block1"]  # fmt: skip
    assert not re.search(r"\b(float|double|malloc|free|>>)\b", text)
    assert set(re.findall(r"#include (\S+)", text)) == {'"tiny.h"', "<string.h>", "<stdio.h>"}
    assert max(map(len, text.splitlines())) <= 120


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = Model.of(make(*NETWORKS["graded"]))
    written = [write_c(model, tmp_path / str(i) / "a.c") for i in range(2)]
    for suffix in (".c", ".h"):
        assert len({path.with_suffix(suffix).read_bytes() for path in written}) == 1


def test_names_of_classes_cannot_end_the_comment(tmp_path: Path) -> None:
    model = Model.of(make(*NETWORKS["spikes"]), {"classes": ["*/ int", "a\\", "zwei \N{GREEK SMALL LETTER ALPHA}"]})
    write_c(model, tmp_path / "a.c")
    assert "Classes, from 0: ?? int, a?, zwei ?." in (tmp_path / "a.h").read_text()


@pytest.mark.parametrize("name", ["stdint", "String", "features", "time", "_ansi"])
def test_names_of_headers_of_the_c_library_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=rf"{name}\.h could hide .* choose .* {name.lstrip('_')}_net\.c"):
        write_c(Model.of(make(*NETWORKS["spikes"])), tmp_path / f"{name}.c")
    assert not list(tmp_path.iterdir())


@needs_compiler
@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc"])
def test_no_name_hides_a_header_that_the_source_needs(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    source = write(make(*NETWORKS["spikes"]), tmp_path)
    command = [compiler, "-M", "-DSNN_SELFTEST", str(source)]
    needed = map(Path, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    names = {path.stem for path in needed if path.suffix == ".h" and path.parent.name in {"include", "newlib"}}
    assert {"stdint", "stdio", "string"} <= names
    for name in names:
        with pytest.raises(ConversionError):
            check_c_name(tmp_path / f"{name}.c")


@needs_compiler
def test_a_header_of_another_network_does_not_compile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write(make(*NETWORKS["spikes"]), tmp_path)
    header, old = source.with_suffix(".h"), source.with_suffix(".h").read_bytes()
    source = write(make(*NETWORKS["graded"]), tmp_path)
    new = header.read_bytes()
    compile_c(source, "-DSNN_SELFTEST")
    for other in (old, b""):
        header.write_bytes(other)
        with pytest.raises(subprocess.CalledProcessError):
            compile_c(source, "-DSNN_SELFTEST")
        told = capfd.readouterr().err
        assert "tiny.h was not written with tiny.c" in told
        assert told.count("error:") == 1
    header.write_bytes(new.replace(b" */", b", by me */"))
    assert run(compile_c(source, "-DSNN_SELFTEST")).stdout == b"ok\n"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"prefix": "two_3"}])
def test_a_source_is_that_of_its_model(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    network = make(*NETWORKS[name])
    given = {"images": bytes_for(network, 3).to(torch.int32)} if options else {}
    source = write(network, tmp_path, **given, **options)
    for file in (source, source.with_suffix(".h")):  # line ends and comments do not count
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n").replace(b"/* ", b"/* mine: "))
    compared = compare_c(Model.of(network), source)
    assert compared.differences == []
    assert compared.options.prefix == options.get("prefix", "snn")


def changed(source: Path, pattern: str, by: str) -> None:
    text, n = re.subn(pattern, by, source.read_text(), count=1)
    assert n == 1
    source.write_text(text)


@pytest.mark.parametrize(
    ("suffix", "pattern", "by", "found"),
    [
        (".c", r"(block6_weights\[72\] = \{\n    )-?\d+", r"\g<1>99", ["block6_weights: 1 of 72 integers differ"]),
        (".c", r"(block6_weights\[72\] = \{\n    )", r"\g<1>2, ", ["block6_weights: 73 integers instead of 72"]),
        (".c", r"(answers\[4\].* = \{\n\{)-?\d+", r"\g<1>123456", ["answers: 1 of 12 integers differ"]),
        (".h", r"(TIME_STEPS) 6", r"\1 7", ["SNN_TIME_STEPS: 1 of 1 integer differ"]),
        (".c", r"v > l->threshold", "v >= l->threshold", ["the integers are the same, but the code is not"]),
        (".c", r"\Z", "int extra;\n", ["the integers are the same, but the code is not"]),
    ],
)  # fmt: skip
def test_what_differs_from_the_model_is_named(
    suffix: str, pattern: str, by: str, found: list[str], tmp_path: Path
) -> None:
    network = make(*NETWORKS["spikes"])
    changed(write(network, tmp_path).with_suffix(suffix), pattern, by)
    differences = compare_c(Model.of(network), tmp_path / "tiny.c").differences
    assert len(differences) == len(found)
    for difference, start in zip(differences, found, strict=True):
        assert difference.startswith(start)


def test_what_is_not_a_source_of_snnzoo_is_not_compared(tmp_path: Path) -> None:
    model = Model.of(make(*NETWORKS["spikes"]))
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    with pytest.raises(UnsupportedError, match="not C source of snnzoo"):
        compare_c(model, tmp_path / "a.c")
    write_c(model, tmp_path / "b.c")
    (tmp_path / "b.h").unlink()
    with pytest.raises(IntegrityError, match=r"b\.c needs its header b\.h, which is missing"):
        compare_c(model, tmp_path / "b.c")
    (tmp_path / "c.c").write_text("/* nothing */")
    with pytest.raises(IntegrityError, match=r"c\.c is empty"):
        compare_c(model, tmp_path / "c.c")


@needs_compiler
def test_the_self_test_runs_with_a_compiler_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(*NETWORKS["spikes"])
    compared = compare_c(Model.of(network), write(network, tmp_path))
    monkeypatch.setenv("CC", f"{COMPILER} -std=c99")
    assert run_self_test(compared, "tiny") == (True, f"ok, compiled with {COMPILER}")
    monkeypatch.setenv("CC", f"{COMPILER} -Dleak=main")
    passed, found = run_self_test(compared, "tiny")
    assert not passed
    assert "exit code 1" in found
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UnsupportedError, match="cannot run no-such-compiler"):
        run_self_test(compared, "tiny")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="no C compiler: install one of"):
        run_self_test(compared, "tiny")


@pytest.mark.parametrize("prefix", ["", "7", "a b", "_a", "a" * 33, "snn\n"])
def test_prefixes_that_are_no_names_are_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"prefix of C names \(--c-prefix\) must be"):
        write(make(*NETWORKS["graded readout"]), tmp_path, prefix=prefix)
    assert not list(tmp_path.iterdir())


@needs_compiler
def test_decays_are_those_of_the_tensors_where_the_spec_has_others(tmp_path: Path) -> None:
    network = make(*NETWORKS["graded"])
    with torch.no_grad():
        network.block(3).neuron.current_decay.fill_(0.5)
    images, plan = bytes_for(network), plan_of(form_of_network(network))
    source = write(network, tmp_path)
    _, logits = answers(compile_c(source, "-DSNN_STDIN"), images)
    assert (logits == in_units(IntegerNetwork(network)(as_given(network, images)), plan.unit_after(6))).all()
    assert " 2048 " in source.read_text().partition("*/")[0]  # in the table of layers


def test_sums_that_could_leave_32_bits_are_refused(tmp_path: Path) -> None:
    entering = {"shape": [600], "encoding": "graded", "bits": 16}
    network = make(
        entering, [{"kind": "dense", "features": 2, "neuron": {"threshold": 0.02}}, {**READOUT, "skips": []}]
    )
    with torch.no_grad():
        network.block(1).synapse.weight.fill_(3.9)
    with pytest.raises(UnsupportedError, match=r"block 1: sums of up to 4,915,125,000, which leave 32 bits"):
        write(network, tmp_path)


def test_time_steps_after_which_logits_could_leave_32_bits_are_refused(tmp_path: Path) -> None:
    entering = {"shape": [600], "encoding": "events", "bits": 14}
    network = make(entering, [{**READOUT, "skips": []}], time_steps=6)
    with torch.no_grad():
        network.block(1).synapse.weight.fill_(3.9)
    with pytest.raises(UnsupportedError, match="time_steps: 6, as logits could leave 32 bits after 0 "):
        write(network, tmp_path)


def test_what_the_source_does_not_know_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    unknown = {"norm", "reset", "longest"}
    monkeypatch.setattr(from_network, "KNOWN_FIELDS", from_network.KNOWN_FIELDS - unknown)
    monkeypatch.setattr(c_writer, "ENCODINGS", ())
    monkeypatch.setattr(c_writer, "KINDS", c_writer.KINDS[1:])
    monkeypatch.setattr(c_writer, "FEATURES", ("delays",))
    with pytest.raises(UnsupportedError) as refused:
        write(make(*NETWORKS["spikes"]), tmp_path)
    told = str(refused.value)
    assert told.startswith("C source cannot express input.encoding: spike; block 5: kind dense")
    assert "blocks 3, 5: the field norm; block 5: the field reset" in told
    with pytest.raises(UnsupportedError, match=r"blocks 1, 2: recurrent \(.*; block 3: the field longest"):
        write(make(*NETWORKS["recurrent"]), tmp_path)
