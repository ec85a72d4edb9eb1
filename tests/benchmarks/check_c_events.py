"""Compile the C source of networks that have time, run it on random events, and compare with the integer engine.

    python tests/benchmarks/check_c_events.py [MODEL...] [--steps T] [--density P] [--recordings N] [--output FILE]

MODEL is a file of a network of events or frames, such as a `.net`; default: small networks of each kind, with random
weights. The events are random, the same each time. Classes and logits, or values, are compared after every step, in
each build of `check_c.py`: gcc and clang, if they are there, with -O2, -O0 and sanitizers. Times are of one step, with
one thread. Small networks also run their self-test in qemu, where memory is measured and instructions are counted.
Exits with 1 if a single answer differs, or if a layer of a network never spikes.
"""

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from check_c import ARM, BUILDS, QEMU, RISCV64, on_cortex_m4, on_riscv64
from programs import RESULTS, arguments, cpu_model, stamp, write_report
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from c_programs import answers, answers_by_step, compile_c

from bootstrap_core import IntegerNetwork, build_network
from converters import Model, read_model
from converters.chip.from_network import form_of_network
from converters.formats.c.c_numbers import logits_over_time
from converters.formats.c.c_plan import c_costs, plan_of
from converters.formats.c.c_writer import COptions, write_c
from specs import NetworkSpec

LEAKY = {"threshold": 0.5, "current_decay": 0.5, "voltage_decay": 0.1}
CHANGES = {"kind": "sigma_delta", "threshold": 0.1}
SEEN = {"shape": [2, 34, 34], "encoding": "events"}
HEARD = {"shape": [64], "encoding": "events"}
LOOK = [
    {"kind": "conv", "channels": 12, "kernel": 5, "stride": 3, "bias": True},
    {"kind": "conv", "channels": 24, "kernel": 3, "stride": 2, "bias": True},
    {"kind": "flatten"},
    {"kind": "affine", "features": 10, "bias": True},
]
READOUT = {"kind": "affine", "features": 11}
NETWORKS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "convolutions": (SEEN, LOOK),
    "convolutions, 3 bits": ({**SEEN, "bits": 3}, LOOK),
    "recurrent": (HEARD, [{"kind": "dense", "features": 128, "recurrent": True}, READOUT]),
    "delays by neuron": (HEARD, [
        {"kind": "dense", "features": 128, "delays": {}}, {"kind": "dense", "features": 66, "delays": {"longest": 20}},
        {"kind": "average", "features": 11},
    ]),
    "sigma-delta": ({"shape": [2, 34, 34], "encoding": "frames"}, [
        *({**block, "neuron": CHANGES} for block in LOOK[:2]), LOOK[2], {**LOOK[3], "features": 2},
    ]),
    "delays by weight": (HEARD, [
        {"kind": "dense", "features": 64, "delays": {"per": "synapse", "longest": 15}, "recurrent": True}, READOUT,
    ]),
}  # fmt: skip
STEPS = 100


def small(name: str) -> Model:
    """Return one of `NETWORKS`, with weights with which it spikes."""
    entering, blocks = NETWORKS[name]
    neuron = CHANGES if entering["encoding"] == "frames" else LEAKY
    document = {"name": "small", "time_steps": STEPS, "neuron": neuron, "input": entering, "blocks": blocks}
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("weight"):
                tensor.mul_(3).add_(0 if "recurrent" in key else 0.02)
    return Model.of(network)


def events_for(spec: NetworkSpec, n: int, steps: int, density: float) -> Tensor:
    """Return random events, uint8 `[n, steps, ...]`; this part of the places has some. Of frames, it changes."""
    generator, shape = torch.Generator().manual_seed(0), (n, steps, *spec.input.shape)
    if spec.gives_values:
        frames = torch.randint(spec.input.least, 1 + spec.input.largest, shape, dtype=torch.int8, generator=generator)
        last = torch.arange(steps).reshape(1, -1, *[1] * len(spec.input.shape)) * (
            torch.rand(shape, generator=generator) < density
        )
        return frames.gather(1, last.cummax(1).values)
    events = torch.randint(1, 1 + min(255, spec.input.largest), shape, dtype=torch.uint8, generator=generator)
    return events * (torch.rand(shape, generator=generator) < density)


def compare(model: Model, events: Tensor, folder: Path, *, on_boards: bool) -> dict[str, Any]:
    """Compare C with the integer engine on one model; return its row of the report."""
    n, steps = events.shape[:2]
    exact, form = IntegerNetwork(model.build()), form_of_network(model.build())
    plan = plan_of(form)
    before = time.process_time()
    expected = logits_over_time(exact, events.transpose(0, 1), plan).numpy()
    native_us = (time.process_time() - before) / n / steps * 1e6
    _, trace = exact.run(events.transpose(0, 1))
    written, costs = write_c(model, folder / "model.c", COptions(images=events), overwrite=True), c_costs(form)
    row: dict[str, Any] = {
        "recordings": n,
        "steps": steps,
        "answers": expected.size,
        "rates": [float(trace.rates[each.index].mean()) for each in plan.spiking],
        "builds": {},
        "constants_bytes": costs.flash_bytes,
        "ram_bytes": costs.ram_bytes,
        "native_us": native_us,
        "c_us": {},
    }
    for compiler in filter(shutil.which, ("gcc", "clang")):
        for name, flags in BUILDS.items():
            classes, logits = answers_by_step(written, events, steps, *flags, compiler=compiler)
            of_classes = 0 if model.spec.gives_values else (classes != expected.argmax(-1)).sum()
            different = int((logits != expected).any(-1).sum() + of_classes)
            row["builds"][f"{compiler} {name}"] = different
        program = compile_c(written, "-DSNN_STDIN", "-O2", compiler=compiler)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        answers(program, events, str(steps))
        spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        row["c_us"][f"{compiler} -O2"] = spent / n / steps * 1e6
    if on_boards and shutil.which(ARM[0]) and shutil.which(QEMU[0]):
        row["cortex_m4"] = on_cortex_m4(written)
    if on_boards and all(map(shutil.which, RISCV64)):
        row["riscv64"] = on_riscv64(written)
    return row


def main() -> None:
    """Compare each network."""
    parser = arguments(__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="default: small networks of each kind")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of a recording; default: {STEPS}")
    parser.add_argument("--density", type=float, default=0.03, help="part of the places with events; default: 0.03")
    parser.add_argument("--recordings", type=int, default=20, help="default: 20")
    parser.add_argument(
        "--output", type=Path, help="file of results; default: that of small networks, and none for files"
    )
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for given in options.models or NETWORKS:
        model = small(given) if given in NETWORKS else read_model(given)
        events = events_for(model.spec, options.recordings, options.steps, options.density)
        with TemporaryDirectory() as folder:
            row = compare(model, events, Path(folder), on_boards=given in NETWORKS)
        rows[str(given)] = row
        print(f"{given}: {json.dumps(row)}", flush=True)
    output = options.output or (None if options.models else RESULTS / "c_events.json")
    if output is not None:
        report = {**stamp(), "cpu": cpu_model(), "networks": rows}
        write_report(output, report)
    sys.exit(any(map(is_wrong, rows.values())))


def is_wrong(row: dict[str, Any]) -> bool:
    """Return whether an answer of a row differs, a self-test failed, or a layer never spikes."""
    said = {row.get("cortex_m4", {}).get("self_test", "ok"), row.get("riscv64", "ok")}
    return any(row["builds"].values()) or said != {"ok"} or not all(row["rates"])


if __name__ == "__main__":
    main()
