"""Random networks: specs that use every option, and weights with which their neurons fire."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from bootstrap_core.network.batch_norm import BatchNorm, MeanOnly, WeightScale
from bootstrap_core.network.blocks import AffineBlock, SpikingBlock
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from bootstrap_core.network.neuron import CubaNeuron
from bootstrap_core.network.sigma_delta import SigmaDeltaBlock
from specs.layers.block import ConvSpec, DenseSpec
from specs.layers.input import Encoding
from specs.network import NetworkSpec

POSITIVE_DECAYS = st.sampled_from([0.1, 0.25, 0.37, 0.5, 1.0])
"""Current decays without 0: a current that never decays soon exceeds the 24 bits of the hardware."""


@st.composite
def neurons(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "threshold": draw(st.floats(0.2, 2.0)),
        "current_decay": draw(POSITIVE_DECAYS),
        "voltage_decay": draw(st.floats(0.0, 1.0)),
        "tau_grad": draw(st.floats(1e-3, 10)),
        "scale_grad": draw(st.floats(1e-3, 10)),
        "reset": draw(st.sampled_from(["zero", "subtract"])),
        "learn_decays": draw(st.sampled_from(["none", "shared", "per_channel"])),
        "start": draw(st.sampled_from([0.0, 0.5]) | st.floats(0.0, 1.0)),
    }


def synapse_options() -> dict[str, SearchStrategy[Any]]:
    return {
        "weight_norm": st.booleans(),
        "bias": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.2]),
        "neuron": st.none() | neurons(),
    }


def hidden_options() -> dict[str, SearchStrategy[Any]]:
    return synapse_options() | {
        "norm": st.sampled_from(["none", "mean_only", "weight_scale", "batch"]),
        "delay_shift": st.sampled_from([None, False, True]),
    }


def pairs(low: int, high: int) -> SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=2, max_size=2)


@st.composite
def convolutions(draw: st.DrawFn, channels: int) -> dict[str, Any]:
    groups = draw(st.sampled_from([n for n in (1, 2) if channels % n == 0]))
    options = {name: draw(strategy) for name, strategy in hidden_options().items()}
    return {
        "kind": "conv",
        "channels": groups * draw(st.integers(1, 3)),
        "kernel": draw(pairs(1, 3)),
        "stride": draw(pairs(1, 2)),
        "padding": draw(pairs(1, 2) | st.lists(st.integers(1, 3), min_size=4, max_size=4)),
        "dilation": draw(pairs(1, 2)),
        "groups": groups,
        **options,
    }


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    kernel = draw(pairs(1, 2))
    return {
        "kind": "avg_pool",
        "kernel": kernel,
        "stride": draw(st.none() | pairs(1, 2)),
        "padding": draw(st.sampled_from([[0, 0], [0, 0, *(side - 1 for side in kernel)]])),
        "gain": draw(st.floats(0.5, 3.0)),
        "neuron": draw(st.none() | neurons()),
        "delay_shift": draw(st.sampled_from([None, False, True])),
    }


@st.composite
def dense_layers(draw: st.DrawFn) -> dict[str, Any]:
    options = {name: draw(strategy) for name, strategy in hidden_options().items()}
    return {"kind": "dense", "features": draw(st.integers(1, 12)), **options}


@st.composite
def time_options(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Draw delays and, for a dense block, recurrent synapses; often neither."""
    per = draw(st.sampled_from(["none", "neuron", *(["synapse"] if kind == "dense" else [])]))
    longest = draw(st.integers(0, 4))
    delays = {"per": per, "longest": longest, "learn": longest > 0 and draw(st.booleans())}
    options: dict[str, Any] = {} if per == "none" else {"delays": delays}
    return options | ({"recurrent": draw(st.booleans())} if kind == "dense" else {})


@st.composite
def skips(draw: st.DrawFn, spec: NetworkSpec, index: int) -> list[dict[str, Any]]:
    """Draw skips to layer `index` from earlier spiking layers, of every kind that fits their shapes."""
    after, found = spec.shapes[index], []
    for source in range(spec.input.encoding == "graded", index):
        before, kinds = spec.shapes[source], []
        if before == after:
            kinds.append({"kind": "identity"})
        if len(after) == 1:
            kinds.append({"kind": "dense"})
        elif len(before) == 3:
            sides = list(zip(before[1:], after[1:], strict=True))
            if all(b >= a for b, a in sides):
                kinds.append({"kind": "conv", "kernel": [b - a + 1 for b, a in sides]})
            if all(b <= 2 * a for b, a in sides):
                ends = [max(0, 2 * a - b - 1) for b, a in sides]
                kinds.append({"kind": "conv", "stride": 2, "padding": [0, 0, *ends]})
        if kinds and draw(st.booleans()):
            found.append({"source": source, **draw(st.sampled_from(kinds))})
    return found


@st.composite
def branches(draw: st.DrawFn, chain: NetworkSpec) -> NetworkSpec:
    """Draw a graph: a chain with further blocks, which read any earlier block and which later blocks read."""
    document, shapes = chain.model_dump(mode="json"), [chain.shapes[0]]
    blocks: list[dict[str, Any]] = []
    places, unread = [0], list[int]()  # where the blocks of the chain are, and the branches that no block reads
    for old, block in enumerate(document["blocks"]):
        own = places[old]
        for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
            source = draw(st.integers(0, len(blocks)))
            flat = len(shapes[source]) == 1
            if not flat and min(shapes[source][1:]) < 3:  # too small for some convolutions
                continue
            branch = draw(dense_layers() if flat else convolutions(shapes[source][0]))
            blocks.append(branch | {"source": source})
            shapes.append(branched_shape(branch, shapes[source]))
            unread.append(len(blocks))
        block["source"] = own
        takes = "skips" in block and not (own == 0 and chain.input.encoding == "graded")
        if takes:
            block["skips"] = [skip | {"source": places[skip["source"]]} for skip in block["skips"]]
        if takes and len(chain.shapes[old + 1]) == 1:  # any branch fits
            block["skips"] += [{"kind": "dense", "source": source} for source in unread]
            if unread and len(shapes[unread[-1]]) == 1 and draw(st.booleans()):
                block["skips"][-1]["source"], block["source"] = own, unread[-1]
            unread.clear()
        blocks.append(block)
        shapes.append(chain.shapes[old + 1])
        places.append(len(blocks))
    if unread:  # only a readout of graded input takes no branch
        return chain
    for i, block in enumerate(blocks, 1):
        if block["source"] == i - 1 and draw(st.booleans()):
            del block["source"]
        if draw(st.booleans()):
            block["name"] = f"block-{i}"
    for part in [part for block in blocks for part in (block, *block.get("skips", ()))]:
        source = part.get("source")
        name = "input" if source == 0 else None if source is None else blocks[source - 1].get("name")
        if name and draw(st.booleans()):
            part["source"] = name
    return NetworkSpec.model_validate(document | {"blocks": blocks})


def branched_shape(block: dict[str, Any], before: tuple[int, ...]) -> tuple[int, ...]:
    kind = DenseSpec if block["kind"] == "dense" else ConvSpec
    return kind.model_validate(block).output_shape(before)


@st.composite
def specs(
    draw: st.DrawFn,
    *,
    flat: bool | None = None,
    encoding: str | None = None,
    skipping: bool | None = None,
    timed: bool = False,
) -> NetworkSpec:
    flat = draw(st.booleans()) if flat is None else flat
    encoding = (
        draw(st.sampled_from([Encoding.SPIKE, Encoding.GRADED, Encoding.EVENTS])) if encoding is None else encoding
    )
    channels = draw(st.integers(1, 2))
    shape = (
        [draw(st.integers(2, 20))] if flat else [channels, *draw(pairs(11, 13))]
    )  # large enough for every conv and pool below
    blocks: list[dict[str, Any]] = []
    if not flat:
        blocks.append(draw(convolutions(channels)))
        extra = draw(st.sampled_from(["", "pool", "conv", "conv pool"]))
        if "conv" in extra:
            blocks.append(draw(convolutions(blocks[-1]["channels"])))
        if "pool" in extra:
            blocks.append(draw(pools()))
        blocks.append({"kind": "flatten"})
    blocks += draw(st.lists(dense_layers(), min_size=1 if flat else 0, max_size=2))
    kind = draw(st.sampled_from(["affine", "dense", *(["average"] if timed else [])]))
    options = synapse_options() if kind == "affine" else hidden_options()
    readout = {name: draw(strategy) for name, strategy in options.items()}
    features = draw(st.integers(1, 5))
    if kind == "average":
        blocks.append({"kind": "dense", "features": features * draw(st.integers(1, 3)), **readout})
        readout = {}
    blocks.append({"kind": kind, "features": features, **readout})
    for block in blocks:
        if timed and block["kind"] in {"dense", "conv"}:
            block |= draw(time_options(block["kind"]))
    entering = (
        {"encoding": encoding, "bits": draw(st.integers(1, 4))}
        if encoding != "spike"
        else {
            "mean": draw(st.floats(-0.5, 0.5)),
            "std": draw(st.floats(0.5, 2.0)),
            "weight": draw(st.floats(1.0, 3.0)),
            "bias": draw(st.floats(0.0, 1.5)),
            "exact_input": draw(st.booleans()),
            "neuron": draw(st.none() | neurons()),
        }
    )
    if not flat and encoding != "events" and draw(st.booleans()):
        entering |= {"padding": draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)), "border": 0.3}
    chain = NetworkSpec.model_validate(
        {
            "name": draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)),
            "description": draw(st.text(max_size=20)),
            "time_steps": draw(st.integers(3, 8)),
            "neuron": draw(neurons()),
            "delay_shift": draw(st.booleans()),
            "input": {"shape": shape, **entering},
            "blocks": blocks,
            "output": draw(st.sampled_from(["rate", "last"])) if timed and kind == "affine" else "rate",
        }
    )
    if not (draw(st.booleans()) if skipping is None else skipping):
        return chain
    spec = with_skips(draw, chain)
    return draw(branches(spec)) if draw(st.booleans()) else spec


@st.composite
def sigma_delta_specs(draw: st.DrawFn, *, skipping: bool | None = None) -> NetworkSpec:
    """Draw a network of sigma-delta neurons, flat or of maps, with each readout; perhaps with skips."""

    def neuron() -> dict[str, Any]:
        return {"kind": "sigma_delta", "threshold": draw(st.sampled_from([0.0, 1 / 64, 0.2]) | st.floats(0.0, 1.0))}

    def own() -> dict[str, Any]:
        shifted = draw(st.sampled_from([None, False, True]))
        return {"neuron": draw(st.sampled_from([None, neuron()])), "delay_shift": shifted}

    flat, channels = draw(st.booleans()), draw(st.integers(1, 2))
    blocks: list[dict[str, Any]] = []
    if not flat:
        geometry = ("channels", "kernel", "stride", "padding", "dilation", "groups")
        conv = draw(convolutions(channels))
        blocks.append({"kind": "conv", **{name: conv[name] for name in geometry}, "bias": draw(st.booleans()), **own()})
        blocks += [{"kind": "avg_pool", "kernel": draw(pairs(1, 2)), **own()}] if draw(st.booleans()) else []
        blocks += [] if draw(st.booleans()) else [{"kind": "conv", "channels": 2, "kernel": 1, **own()}]
        blocks.append({"kind": "flatten"})
    for _ in range(draw(st.integers(1, 2))):
        options = {"bias": draw(st.booleans()), "weight_norm": draw(st.booleans())}
        blocks.append({"kind": "dense", "features": draw(st.integers(1, 9)), **options, **own()})
    values = {"kind": "affine", "features": draw(st.integers(1, 3)), "bias": draw(st.booleans())}
    blocks += [values] if draw(st.booleans()) else []
    shape = [draw(st.integers(2, 20))] if flat else [channels, *draw(pairs(7, 9))]
    chain = NetworkSpec.model_validate(
        {
            "name": "changes",
            "time_steps": draw(st.integers(5, 9)),
            "neuron": neuron(),
            "delay_shift": draw(st.booleans()),
            "input": {"shape": shape, "encoding": "frames", "bits": draw(st.integers(5, 8)), "neuron": neuron()},
            "blocks": blocks,
        }
    )
    return with_skips(draw, chain) if (draw(st.booleans()) if skipping is None else skipping) else chain


def with_skips(draw: st.DrawFn, chain: NetworkSpec) -> NetworkSpec:
    document = chain.model_dump(mode="json")
    for i, block in enumerate(document["blocks"], 1):
        if "skips" in block:
            block["skips"] = draw(skips(chain, i))
    return NetworkSpec.model_validate(document)


def draw_weight(block: SpikingBlock | AffineBlock, generator: torch.Generator) -> None:
    """Draw weights of both signs, mostly positive, so that a few spikes reach the threshold."""
    synapse, threshold = block.synapse, block.neuron.spec.threshold
    if hasattr(synapse, "parametrizations"):
        magnitude, direction = synapse.parametrizations.weight.original0, synapse.parametrizations.weight.original1
        magnitude.copy_(2 * threshold * torch.empty_like(magnitude).uniform_(1, 3, generator=generator))
        direction.uniform_(-0.4, 1, generator=generator)
    elif isinstance(synapse.weight, torch.nn.Parameter):
        spread = 4 * threshold / math.sqrt(synapse.weight[0].numel())
        synapse.weight.uniform_(-0.4 * spread, spread, generator=generator)
    if getattr(block, "recurrent", None) is not None:
        spread = 2 * threshold / math.sqrt(len(block.recurrent.weight))
        block.recurrent.weight.uniform_(-spread, spread, generator=generator)
    for skip in block.skips:
        spread = threshold / math.sqrt(skip.weight[0].numel())
        skip.weight.uniform_(-spread, spread, generator=generator)


def inputs_of(spec: NetworkSpec, seed: int, n: int = 3) -> Tensor:
    """Return random images `[n, ...]`, or events `[T, n, ...]`, of which a third of the places have some; or frames."""
    generator = torch.Generator().manual_seed(seed)
    if not spec.input.is_timed:
        return torch.rand(n, *spec.input.shape, generator=generator)
    shape = spec.time_steps, n, *spec.input.shape
    if not spec.input.is_events:
        return torch.randint(spec.input.least, 1 + spec.input.largest, shape, generator=generator)
    events = torch.randint(1, 1 + spec.input.largest, shape, generator=generator)
    return events * (torch.rand(shape, generator=generator) < 1 / 3)


@torch.no_grad()
def trained(spec: NetworkSpec, seed: int) -> Network:
    """Return a network that fires, and whose tensors differ from their initial values as after training."""
    network = build_network(spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for block in network.blocks:
        if isinstance(block, SpikingBlock | AffineBlock):
            draw_weight(block, generator)
        if isinstance(block, SigmaDeltaBlock) and isinstance(block.synapse.weight, torch.nn.Parameter):
            block.synapse.weight.mul_(3)
        if getattr(block, "bias", None) is not None:
            block.bias.add_(torch.empty_like(block.bias).uniform_(-0.3, 0.5, generator=generator))
        for module in block.modules():
            if isinstance(module, MeanOnly):
                module.running_mean.uniform_(-0.3, 0.2, generator=generator)
            if isinstance(module, BatchNorm):
                module.running_mean.uniform_(-0.3, 0.2, generator=generator)
                module.running_variance.uniform_(0.2, 2.0, generator=generator)
            if isinstance(module, WeightScale):
                module.running_variance.fill_(4.0 ** int(torch.randint(-1, 2, (), generator=generator)))
            if isinstance(module, CubaNeuron):
                for decay in (module.current_decay, module.voltage_decay):
                    decay.add_(torch.empty_like(decay).uniform_(-0.05, 0.05, generator=generator)).clamp_(0.05, 1)
    return network


@pytest.fixture(scope="session")
def network_specs() -> Callable[..., SearchStrategy[NetworkSpec]]:
    """`network_specs(flat=..., encoding=..., skipping=...)`: a strategy; omitted arguments are drawn.

    With `timed=True`, blocks may have recurrent synapses and delays, and the readout may average.
    """
    return specs


@pytest.fixture(scope="session")
def sigma_delta_networks() -> Callable[..., SearchStrategy[NetworkSpec]]:
    """`sigma_delta_networks(skipping=...)`: a strategy of networks of sigma-delta neurons."""
    return sigma_delta_specs


@pytest.fixture(scope="session")
def draw_inputs() -> Callable[..., Tensor]:
    """`draw_inputs(spec, seed, n=3)`: images or events for a network of this spec."""
    return inputs_of


@pytest.fixture(scope="session")
def make_trained() -> Callable[[NetworkSpec, int], Network]:
    """`make_trained(spec, seed)`: a network that fires."""
    return trained
