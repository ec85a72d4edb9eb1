"""Random torch modules with weight norm, migrated between the three styles and compared with torch's own modules.

Runs 10,000 cases with SNNZOO_THOROUGH=1, otherwise some hundreds.
"""

import copy
import os
import warnings
from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from converters import migrate_state_dict
from converters.weight_norm.norm_styles import Style, kept_axis, multiply_out, names_of, split

N_CASES = 10_000 if os.environ.get("SNNZOO_THOROUGH") == "1" else 300
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass
class Layer:
    """A module, the name of its weight with norm, the axis of the norm, and an input."""

    module: nn.Module
    name: str
    dim: int | None
    inputs: Tensor

    def outputs(self) -> Tensor:
        found = self.module(self.inputs)
        return found[0] if isinstance(found, tuple) else found


@st.composite
def layers(draw: st.DrawFn, dtype: torch.dtype) -> Layer:
    n_in, n_out = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["linear", "embedding", "rnn", "conv", "transposed"]))
    name = "weight"
    if kind == "linear":
        module, inputs = nn.Linear(n_in, n_out, bias=draw(st.booleans())), torch.randn(3, n_in)
    elif kind == "embedding":
        module, inputs = nn.Embedding(n_in, n_out), torch.arange(n_in)
    elif kind == "rnn":
        module, inputs = draw(st.sampled_from([nn.LSTM, nn.GRU]))(n_in, n_out), torch.randn(2, 1, n_in)
        name = draw(st.sampled_from(["weight_hh_l0", "weight_ih_l0"]))
    else:
        rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        family = {"conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d)}.get(
            kind, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        )
        kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
        module = family[rank - 1](groups * n_in, groups * n_out, kernel, groups=groups)
        inputs = torch.randn(2, groups * n_in, *[3] * rank)
    module = module.to(dtype)
    weight = getattr(module, name)
    dim = draw(st.sampled_from([0, 0, 1, None] if kind == "transposed" else [0, 0, 0, None, weight.ndim - 1]))
    return Layer(module, name, dim, inputs.to(dtype) if inputs.is_floating_point() else inputs)


def styled(layer: Layer, style: Style) -> Layer:
    """Return a copy of a plain layer with its weight in a style, made by torch."""
    module = copy.deepcopy(layer.module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.nn.utils.weight_norm is deprecated
        if style is Style.LEGACY:
            nn.utils.weight_norm(module, layer.name, dim=layer.dim)
        elif style is Style.PARAMETRIZED:
            nn.utils.parametrizations.weight_norm(module, layer.name, dim=layer.dim)
    return Layer(module, layer.name, layer.dim, layer.inputs)


@torch.no_grad()
def trained(layer: Layer, style: Style, seed: int) -> None:
    """Change g so that it differs from |v|, as training does."""
    if style is not Style.PLAIN:
        generator = torch.Generator().manual_seed(seed)
        g = dict(layer.module.named_parameters())[names_of(layer.name, style)[0]]
        g.mul_(torch.empty(g.shape).uniform_(-2, 2, generator=generator).to(g.dtype))


@torch.no_grad()
def weight_of(layer: Layer) -> Tensor:
    for hook in layer.module._forward_pre_hooks.values():
        hook(layer.module, None)
    return getattr(layer.module, layer.name).detach()


def dim_by_shape(layer: Layer) -> int | None:
    """Return the axis that the shapes in a file imply; the first one if several fit."""
    g, v = (styled(layer, Style.LEGACY).module.state_dict()[name] for name in names_of(layer.name, Style.LEGACY))
    return kept_axis(g, v)


@torch.no_grad()
def check(old: Layer, new: Layer, *, roundings: int) -> None:
    """Check that two layers compute the same: exactly, or up to some roundings of each weight."""
    eps = torch.finfo(weight_of(old).dtype).eps
    # The relative bound applies to normal numbers; subnormal ones have steps of fixed size.
    least = torch.finfo(weight_of(old).dtype).smallest_normal * eps
    wanted, found = weight_of(old), weight_of(new)
    if not roundings:
        assert torch.equal(wanted, found)
        if not (isinstance(old.module, nn.RNNBase)):  # an RNN keeps using the weights it was built with
            assert torch.equal(old.outputs(), new.outputs())
    else:
        torch.testing.assert_close(found.double(), wanted.double(), rtol=roundings * eps, atol=roundings * least)


@settings(max_examples=N_CASES)
@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    here=st.sampled_from(list(Style)),
    there=st.sampled_from(list(Style)),
    path=st.sampled_from(["", "0", "decoder.blocks.3.conv"]),
    seed=st.integers(0, 2**31),
)
def test_any_module_in_any_style_and_back(data, dtype, here, there, path, seed) -> None:
    torch.manual_seed(seed)
    plain = data.draw(layers(dtype))
    old, new = styled(plain, here), styled(plain, there)
    trained(old, here, seed)
    prefix = f"{path}." if path else ""
    state = {prefix + name: value for name, value in old.module.state_dict().items()}
    before = {name: value.clone() for name, value in state.items()}

    def options(source: Style, target: Style) -> dict[str, object]:
        gets_norm = source is Style.PLAIN and target is not Style.PLAIN
        return {"only": [f"*{plain.name}"], "dim": plain.dim} if gets_norm else {}

    moved = migrate_state_dict(state, to=there, **options(here, there))
    new.module.load_state_dict({name.removeprefix(prefix): value for name, value in moved.items()}, strict=True)
    # Where several axes fit the shapes, the sum over the first may run in another order than the module's.
    loose = 1 if dim_by_shape(plain) == (-1 if plain.dim is None else plain.dim) else 4
    renamed = Style.PLAIN not in (here, there) or here is there
    check(old, new, roundings=0 if renamed or (there is Style.PLAIN and loose == 1) else loose)

    back = migrate_state_dict(moved, to=here, **options(there, here))
    again = styled(plain, here)
    again.module.load_state_dict({name.removeprefix(prefix): value for name, value in back.items()}, strict=True)
    if renamed:
        assert list(back) == list(state)
        assert all(torch.equal(back[name], state[name]) for name in state)
    check(new, again, roundings=0 if renamed else loose)
    assert all(torch.equal(state[name], before[name]) for name in state)


@settings(max_examples=N_CASES // 5)
@given(
    shape=st.lists(st.integers(1, 70), min_size=2, max_size=3),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1.0, 1e-3, 1e-7, 1e-30]),
    data=st.data(),
)
def test_a_weight_split_and_multiplied_out_is_itself_within_one_rounding(shape, dtype, seed, scale, data) -> None:
    dim = data.draw(st.sampled_from([-1, *range(len(shape))]))
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    weight[data.draw(st.integers(0, shape[0] - 1))] = 0
    weight = weight.to(dtype)
    g, v = split(weight, dim)
    limits = torch.finfo(dtype)
    torch.testing.assert_close(
        multiply_out((g, v), dim).double(),
        weight.double(),
        rtol=limits.eps,
        atol=limits.smallest_normal * limits.eps,
    )
