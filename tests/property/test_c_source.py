"""Random networks: their C source gives the answers of the integer engine, after every step.

Compiles 1,000 networks with SNNZOO_THOROUGH=1, and sanitizers; otherwise 40.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from c_programs import answers_by_step, needs_compiler
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bootstrap_core import IntegerNetwork
from converters import Model
from converters.chip.from_network import form_of_network
from converters.formats.c.c_numbers import logits_over_time
from converters.formats.c.c_plan import plan_of
from converters.formats.c.c_writer import write_c
from specs import StateOverflowError

THOROUGH = os.environ.get("SNNZOO_THOROUGH") == "1"
N_NETWORKS = dict.fromkeys(("spike", "graded", "events", "frames"), 250 if THOROUGH else 10)
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all") if THOROUGH else ()


@needs_compiler
@pytest.mark.parametrize("encoding", N_NETWORKS)
@torch.no_grad()
def test_random_networks_give_the_same_answers_in_c(
    encoding: str,
    network_specs: Callable,
    sigma_delta_networks: Callable,
    make_trained: Callable,
    draw_inputs: Callable,
    tmp_path: Path,
) -> None:
    answering: list[bool] = []
    specs = (
        sigma_delta_networks()
        if encoding == "frames"
        else st.booleans().flatmap(lambda timed: network_specs(encoding=encoding, timed=timed))
    )

    @settings(max_examples=N_NETWORKS[encoding])
    @given(spec=specs, seed=st.integers(0, 2**16))
    def check(spec, seed: int) -> None:
        network = make_trained(spec, seed)
        for name, decay in network.named_buffers():  # drawn as if trained, but the spec says that they are not
            if name.endswith("_decay"):
                decay.fill_(getattr(spec.neuron_of(spec.layers[int(name.split(".")[1])]), name.split(".")[-1]))
        if spec.input.is_timed:
            of_type = torch.uint8 if spec.input.is_events else torch.int8
            inputs = draw_inputs(spec, seed).to(of_type).transpose(0, 1)  # recordings first
        else:
            shape = (5, *spec.input.shape)
            inputs = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        exact = IntegerNetwork(network)
        try:
            given = inputs.transpose(0, 1) if spec.input.is_timed else inputs
            expected = logits_over_time(exact, given, plan_of(form_of_network(network)))
        except StateOverflowError:
            reject()
        source = write_c(Model.of(network), tmp_path / "net.c", overwrite=True)
        classes, logits = answers_by_step(source, inputs, spec.time_steps, *FLAGS)
        assert (logits == expected.numpy()).all()
        assert spec.gives_values or (classes == expected.double().argmax(-1).numpy()).all()
        answering.append(bool(logits.any()))

    check()
    assert sum(answering) > len(answering) / 2
    assert len(answering) >= 0.8 * N_NETWORKS[encoding]
