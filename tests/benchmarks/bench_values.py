"""Train the network of values in bootstrap_core/README.md, and tune it as SNN for thresholds of its messages.

    python tests/benchmarks/bench_values.py

Spec and data are those of the README; each threshold is one run of its commands. All errors are of the test
recordings, of the epoch that is best on the validation recordings. Writes `results/values.json`.
"""

import re
import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from programs import RESULTS, stamp, write_report

from bootstrap_core import Evaluation, IntegerNetwork, build_network, evaluate, fit
from bootstrap_core.data.frames import load_frames
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from specs import parse_spec
from specs.network import NetworkSpec

README = RESULTS.parents[2] / "bootstrap_core" / "README.md"
THRESHOLDS = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
EPOCHS = 12
TUNING = {"epochs": EPOCHS, "snn_epochs": EPOCHS, "snn_gradient": "tandem", "snn_learning_rate": 0.003}


def main() -> None:
    text = README.read_text("utf-8")
    blocks = re.findall(r"^```(yaml|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (spec,) = (parse_spec(block) for language, block in blocks if language == "yaml")
    (code,) = (block for language, block in blocks if language == "python" and "def bars" in block)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, chdir(folder):
        exec(compile(code, str(README), "exec"), {})
        data = load_frames(Path("bars.npz"), spec)
    start = time.perf_counter()
    network = build_network(spec, seed=0)
    fit(network, data.train)
    seconds = time.perf_counter() - start

    def test(trained: Network) -> Evaluation:
        return evaluate(IntegerNetwork(trained), data.test)

    def row(threshold: float, untuned: Evaluation, tuned: Evaluation | None) -> dict[str, object]:
        last = tuned or untuned
        messages = [each for each in last.rates[1:] if each is not None]
        errors = {"untuned": untuned.score, "tuned": tuned and tuned.score}
        return {"threshold": threshold, **errors, "messages": messages, "synops": sum(last.synops)}

    rows = [row(0.0, test(network), None)]
    for threshold in THRESHOLDS:
        document = spec.model_dump(mode="json")
        document["neuron"]["threshold"] = threshold
        document["training"] |= TUNING
        tuned = build_network(NetworkSpec.model_validate(document), seed=0)
        tuned.load_state_dict(network.state_dict())
        before = test(tuned)
        fit(tuned, data.train)
        rows.append(row(threshold, before, test(tuned)))
    macs = sum(block.n_synops(before) for block, before in zip(spec.blocks, spec.shapes, strict=False))
    deviation = float(data.train.targets.std())
    ann = evaluate(network, data.test.last, mode=Mode.ANN).score
    report = {**stamp(), "ann": ann, "deviation": deviation, "macs": macs, "seconds": seconds}
    write_report(RESULTS / "values.json", {**report, "rows": rows})


if __name__ == "__main__":
    main()
