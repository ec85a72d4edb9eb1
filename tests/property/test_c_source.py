"""Random networks: their C source gives the answers of the integer engine.

Compiles 1,000 networks with SNNZOO_THOROUGH=1, and sanitizers; otherwise 20.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from c_programs import answers, compile_c, needs_compiler
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bootstrap_core import IntegerNetwork
from converters import Model
from converters.formats.c.c_numbers import integer_logits
from converters.formats.c.c_plan import plan_of
from converters.formats.c.c_writer import write_c
from specs import StateOverflowError

THOROUGH = os.environ.get("SNNZOO_THOROUGH") == "1"
N_NETWORKS = 1000 if THOROUGH else 20
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all") if THOROUGH else ()


@needs_compiler
@torch.no_grad()
def test_random_networks_give_the_same_answers_in_c(
    network_specs: Callable, make_trained: Callable, tmp_path: Path
) -> None:
    answering: list[bool] = []

    @settings(max_examples=N_NETWORKS)
    @given(
        spec=st.sampled_from(["spike", "graded"]).flatmap(lambda x: network_specs(encoding=x)),
        seed=st.integers(0, 2**16),
    )
    def check(spec, seed: int) -> None:
        network = make_trained(spec, seed)
        for name, decay in network.named_buffers():  # drawn as if trained, but the spec says that they are not
            if name.endswith("_decay"):
                decay.fill_(getattr(spec.neuron_of(spec.layers[int(name.split(".")[1])]), name.split(".")[-1]))
        shape = (5, *spec.input.shape)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        exact = IntegerNetwork(network)
        try:
            expected = integer_logits(exact, images, plan_of(spec))
        except StateOverflowError:
            reject()
        source = write_c(Model.of(network), tmp_path / "net.c")
        classes, logits = answers(compile_c(source, "-DSNN_STDIN", *FLAGS), images)
        assert (logits == expected.numpy()).all()
        assert (classes == exact(images).argmax(1).numpy()).all()
        answering.append(bool(logits.any()))

    check()
    assert sum(answering) > 0.7 * len(answering)
    assert len(answering) >= 0.8 * N_NETWORKS
