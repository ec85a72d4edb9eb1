"""Whatever curve a state dict holds: it is refused, or the native function and the definition give the same rates."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bootstrap_core.network.sampler import BINS, RateSampler
from bootstrap_core.ops.library import without_native
from specs.errors import IntegrityError

WIDE = st.floats(-4, 4, width=32) | st.sampled_from([0.0, 0.5, 1.0])
"""Numbers of which some are often equal."""


@given(st.lists(WIDE, min_size=2, max_size=BINS + 2), st.booleans(), st.booleans(), st.integers(0, 2**16))
def test_it_is_refused_or_has_one_answer(z: list[float], ascends: bool, subtracts: bool, seed: int) -> None:
    z = sorted(z) if ascends else z
    generator, n = torch.Generator().manual_seed(seed), len(z)
    sampler = RateSampler(subtracts=subtracts)
    state = sampler.state_dict() | {"n_centers": torch.tensor(n)}
    state["centers"][:n] = torch.stack([torch.tensor(z), torch.rand(n, generator=generator)], 1)
    state["slopes"][: n - 1] = torch.rand(n - 1, generator=generator)
    try:
        sampler.load_state_dict(state)
    except IntegrityError:
        assert z != sorted(z)
        return
    assert z == sorted(z)
    places = torch.cat([torch.tensor(z), torch.linspace(-5, 5, 101)])
    found = rates_and_gradients(sampler, places)
    with without_native():
        expected = rates_and_gradients(sampler, places)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def rates_and_gradients(sampler: RateSampler, places: Tensor) -> tuple[Tensor, Tensor]:
    leaf = places.clone().requires_grad_()
    rates = sampler(leaf)
    return rates, *torch.autograd.grad(rates.sum(), leaf)
