"""Weight norm in state dicts: the three styles, compared with torch's own modules."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from converters import migrate_state_dict
from converters.weight_norm.migration_plan import Findings, plan_migration
from converters.weight_norm.norm_styles import WHOLE, Style, kept_axis, multiply_out, names_of, split
from specs import ConversionError

LEGACY = {"a.weight_g": torch.tensor([[5.0], [2.0]]), "a.weight_v": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}
PARAMETRIZED = dict(zip(names_of("a.weight", Style.PARAMETRIZED), LEGACY.values(), strict=True))
PLAIN = {"a.weight": torch.tensor([[3.0, 4.0], [0.0, 2.0]])}


def same(found, wanted) -> bool:
    return list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


# --- from each style to each


def test_every_other_tensor_is_the_same_object_in_the_same_place() -> None:
    others = {
        "n": torch.tensor(3),
        "mask": torch.tensor([True]),
        "c": torch.zeros(1, dtype=torch.complex64),
        "f8": torch.zeros(2).to(torch.float8_e4m3fn),
    }
    found = migrate_state_dict({"n": others["n"], **LEGACY, **others}, to="plain")
    assert list(found) == ["n", "a.weight", "mask", "c", "f8"]
    assert all(found[name] is others[name] for name in others)


def test_renamed_tensors_keep_their_places_even_when_apart() -> None:
    state = {"a.weight_v": LEGACY["a.weight_v"], "a.bias": torch.zeros(2), "a.weight_g": LEGACY["a.weight_g"]}
    g, v = PARAMETRIZED
    assert list(migrate_state_dict(state, to="parametrized")) == [v, "a.bias", g]


def test_parameters_become_weights_that_hold_no_graph() -> None:
    state = {name: nn.Parameter(value) for name, value in LEGACY.items()}
    assert not migrate_state_dict(state, to="plain")["a.weight"].requires_grad


@pytest.mark.parametrize("name", ["weight", "weight_hh_l0", "w", "in_proj_weight", "v_v", "my_g"])
def test_the_normed_tensor_may_have_any_name(name) -> None:
    state = {f"{name}_g": torch.ones(3, 1), f"{name}_v": torch.ones(3, 4)}
    assert list(migrate_state_dict(state, to="plain")) == [name]
    assert list(migrate_state_dict(state, to="parametrized")) == list(names_of(name, Style.PARAMETRIZED))


@pytest.mark.parametrize(
    ("g", "v", "axis"),
    [
        ([4, 1], [4, 3], 0),
        ([1, 3], [4, 3], 1),
        ([1, 3, 1, 1], [4, 3, 2, 2], 1),
        ([], [4, 3], WHOLE),
        ([1], [4, 3], WHOLE),
        ([4], [4], 0),
        ([1, 1], [1, 5], 0),
        ([1, 1], [4, 3], None),
        ([4], [4, 3], None),
        ([3, 1], [4, 3], None),
        ([4, 3], [4, 3], None),
        ([1], [], None),
    ],
)
def test_the_axis_is_read_off_the_shapes(g, v, axis) -> None:
    assert kept_axis(torch.zeros(g), torch.zeros(v)) == axis


def test_a_file_of_both_styles_becomes_one() -> None:
    other = dict(zip(names_of("b.weight", Style.PARAMETRIZED), LEGACY.values(), strict=True))
    assert plan_migration({**LEGACY, **other}, to="legacy").found == "mixed"
    found = migrate_state_dict({**LEGACY, **other}, to="legacy")
    assert list(found) == [*LEGACY, *names_of("b.weight", Style.LEGACY)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_wide_weight_comes_back_to_the_bit(dim, dtype) -> None:
    """Its norm is summed as in torch's forward pass; torch.norm_except_dim sums in another order."""
    weight = torch.randn(300, 4096, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert torch.equal(multiply_out(split(weight, dim), dim), weight)


# --- which plain weights get a norm


def network():
    return nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Linear(3, 3))


def test_by_default_all_matrices_named_weight_do() -> None:
    state = {**network().state_dict(), "table": torch.ones(2, 2), "codes.weight": torch.ones(2, 2, dtype=torch.int8)}
    plan = plan_migration(state, to="parametrized")
    assert {old.name for old, _, _ in plan.renamed} == {"0.weight", "2.weight"}
    assert plan.notes == ("norm of dim 0 for 2 plain weights (see `only`, `dim`): 0.weight, 2.weight",)


def test_beside_a_norm_none_does() -> None:
    state = {**LEGACY, "b.weight": torch.ones(2, 2)}
    assert "b.weight" in migrate_state_dict(state, to="parametrized")


def test_beside_a_norm_those_chosen_do() -> None:
    state = {**LEGACY, "b.w": torch.ones(2, 2), "c.w": torch.ones(2, 2)}
    found = migrate_state_dict(state, to="legacy", only=["b.*"])
    assert list(found) == [*LEGACY, "b.w_g", "b.w_v", "c.w"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["z*"]}, r"no plain weight matches 'z\*'; there are a\.weight"),
        ({"dim": 2}, r"a\.weight \[2, 2\] has no axis 2; expected 0 to 1"),
        ({"dim": -1}, "has no axis -1"),
        ({"to": "plain", "only": ["a*"]}, "in style plain none does"),
        ({"to": "keras"}, "unknown style 'keras'; expected plain, legacy, parametrized"),
    ],
)
def test_a_choice_that_cannot_be_is_told(options, message) -> None:
    with pytest.raises(ConversionError, match=message):
        migrate_state_dict(PLAIN, **{"to": "legacy"} | options)


# --- what looks like a weight norm


@pytest.mark.parametrize("name", [*LEGACY, *PARAMETRIZED])
def test_half_a_norm_is_refused_by_name(name) -> None:
    whole = LEGACY if name in LEGACY else PARAMETRIZED
    missing = next(other for other in whole if other != name)
    with pytest.raises(ConversionError, match=f"{name} is a part of a weight norm.* {missing}, is missing"):
        migrate_state_dict({name: whole[name]}, to="plain")


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    state = {"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.ones(2, 2)}
    with pytest.raises(ConversionError, match=r"a\.weight_g \[3, 1\] and a\.weight_v \[2, 2\] do not fit"):
        migrate_state_dict(state, to="plain")


@pytest.mark.parametrize("shape", [[4], [4, 1], [4, 4]])
def test_gates_g_and_v_are_no_norm(shape) -> None:
    state = {"cell.w_g": torch.ones(shape), "cell.w_v": torch.ones(shape)}
    with pytest.warns(UserWarning, match=r"cell\.w_g .* and cell\.w_v .* do not fit together .*: left as they are"):
        found = migrate_state_dict(state, to="plain")
    assert same(found, state)


def test_a_projection_named_v_is_no_norm() -> None:
    state = {"attention.w_v": torch.ones(2, 2), "attention.proj_g": torch.ones(2)}
    assert same(migrate_state_dict(state, to="plain"), state)


@pytest.mark.parametrize("parametrized", [False, True])
def test_a_spectral_norm_is_left_alone(parametrized) -> None:
    home = nn.utils.parametrizations if parametrized else nn.utils
    state = home.spectral_norm(nn.Linear(3, 4)).state_dict()
    assert same(migrate_state_dict({**LEGACY, **state}, to="parametrized"), {**PARAMETRIZED, **state})


def test_a_norm_below_another_parametrization_is_refused_by_name() -> None:
    module = nn.utils.parametrizations.spectral_norm(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    with pytest.raises(ConversionError, match=r"parametrizations\.weight\.original0 has another.*1\._u, 1\._v"):
        migrate_state_dict(module.state_dict(), to="plain")


def test_dtypes_without_a_norm_are_renamed_and_not_computed() -> None:
    state = {name: value.to(torch.float8_e5m2) for name, value in LEGACY.items()}
    found = migrate_state_dict(state, to="parametrized")
    assert [found[name] is value for name, value in zip(PARAMETRIZED, state.values(), strict=True)] == [True, True]
    with pytest.raises(ConversionError, match=r"a\.weight_g is float8_e5m2"):
        migrate_state_dict(state, to="plain")


def test_magnitude_and_direction_may_differ_in_dtype() -> None:
    state = {**LEGACY, "a.weight_v": LEGACY["a.weight_v"].half()}
    assert same(migrate_state_dict(state, to="plain"), {"a.weight": PLAIN["a.weight"].half()})


# --- the same weight twice


@pytest.mark.parametrize("to", list(Style))
def test_a_weight_in_all_three_styles_is_kept_once(to) -> None:
    with pytest.warns(UserWarning, match=r"a\.weight is stored twice: .* is kept, the equal .* is dropped"):
        found = migrate_state_dict({**LEGACY, **PARAMETRIZED, **PLAIN}, to=to)
    assert same(found, {"plain": PLAIN, "legacy": LEGACY, "parametrized": PARAMETRIZED}[to])


@pytest.mark.parametrize("to", list(Style))
@pytest.mark.parametrize(
    ("other", "change"),
    [
        (PARAMETRIZED, torch.Tensor.neg),
        (PARAMETRIZED, torch.Tensor.double),
        (PARAMETRIZED, lambda tensor: tensor[:1]),
        (PLAIN, torch.Tensor.neg),
        (PLAIN, lambda tensor: tensor[:1]),
    ],
)
def test_a_weight_twice_with_a_difference_is_refused_by_both_names(to, other, change) -> None:
    state = {**LEGACY, **{name: change(value) for name, value in other.items()}}
    with pytest.raises(ConversionError) as error:
        migrate_state_dict(state, to=to)
    assert "are one weight, but differ" in str(error.value)
    assert all(name in str(error.value) for name in state)


def test_a_plain_twin_may_be_one_rounding_off() -> None:
    plain = PLAIN["a.weight"] * (1 + torch.finfo(torch.float32).eps)
    assert not torch.equal(plain, PLAIN["a.weight"])
    with pytest.warns(UserWarning, match="twice"):
        found = migrate_state_dict({**LEGACY, "a.weight": plain}, to="legacy")
    assert same(found, LEGACY)


def test_a_name_that_is_taken_is_refused() -> None:
    state = {"w": torch.ones(2, 2), "w_g": torch.ones(3)}
    with pytest.raises(ConversionError, match=r"w_g and w would both be w_g|w and w_g would both be w_g"):
        migrate_state_dict(state, to="legacy", only=["w"])


# --- zeros, infinities, empty tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_a_zero_row_gets_ones_and_a_magnitude_of_zero(dim, dtype) -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=dtype)
    weight = {0: weight, 1: weight.T.contiguous(), None: weight * 0}[dim]
    with pytest.warns(UserWarning, match="weight: 1 row of zeros, with magnitude 0"):
        found = migrate_state_dict({"weight": weight}, to="legacy", dim=dim)
    g, v = found["weight_g"], found["weight_v"]
    assert g.reshape(-1)[-1] == 0
    assert int((v == 1).sum()) == (4 if dim is None else 2)
    assert torch.equal(torch._weight_norm(v, g, WHOLE if dim is None else dim), weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_row_whose_squares_vanish_keeps_its_values(dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    weight = torch.tensor([[tiny, -3 * tiny], [3.0, 4.0]], dtype=dtype)
    g, v = split(weight, 0)
    torch.testing.assert_close(torch._weight_norm(v, g, 0), weight, rtol=torch.finfo(dtype).eps, atol=0)


def test_a_direction_of_zeros_with_no_magnitude_is_zero() -> None:
    state = {"weight_g": torch.tensor([[0.0], [2.0]]), "weight_v": torch.tensor([[0.0, 0.0], [3.0, 0.0]])}
    with pytest.warns(UserWarning, match="weight: 1 row of zeros"):
        found = migrate_state_dict(state, to="plain")
    assert same(found, {"weight": torch.tensor([[0.0, 0.0], [2.0, 0.0]])})


def test_a_direction_of_zeros_with_a_magnitude_is_refused_by_name() -> None:
    with pytest.raises(ConversionError, match=r"weight_v: a row of zeros whose magnitude, in weight_g, is not 0"):
        migrate_state_dict({"weight_g": torch.ones(1, 1), "weight_v": torch.zeros(1, 2)}, to="plain")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("to", ["plain", "legacy"])
def test_values_that_are_not_finite_are_told_and_pass(value, to) -> None:
    weight = torch.tensor([[value, 1.0], [3.0, 4.0]])
    state = {"weight": weight} if to == "legacy" else {"weight_g": torch.ones(2, 1), "weight_v": weight}
    with pytest.warns(UserWarning, match="weight holds values that are not finite"):
        found = migrate_state_dict(state, to=to)
    assert torch.isfinite(next(reversed(found.values()))[1]).all()


def test_a_norm_beyond_the_dtype_is_refused() -> None:
    with pytest.raises(ConversionError, match="weight: the norm is beyond float16; first cast"):
        migrate_state_dict({"weight": torch.full((1, 4), 6e4, dtype=torch.float16)}, to="legacy")


def test_an_empty_weight_passes() -> None:
    """It runs in a separate process, since torch's kernel divides by zero."""
    program = (
        "import torch, warnings; from converters import migrate_state_dict as migrate\n"
        "warnings.simplefilter('ignore')\n"
        "for shape in ((0, 3), (3, 0)):\n"
        "    normed = migrate({'weight': torch.zeros(shape)}, to='legacy')\n"
        "    print(tuple(normed['weight_g'].shape), tuple(migrate(normed, to='plain')['weight'].shape))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["(0, 1) (0, 3)", "(3, 1) (3, 0)"], done.stderr


# --- in pieces


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("to", list(Style))
@pytest.mark.parametrize("n_bytes", [1, 1000, 10**9])
def test_rows_at_a_time_give_the_bits_of_the_whole(to, dtype, n_bytes) -> None:
    weight = torch.randn(37, 50, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = {"weight_g": torch.rand(37, 1, 1).to(dtype), "weight_v": weight}
    state = {"weight": weight} if to is not Style.PLAIN else whole
    plan = plan_migration(state, to=to)
    wanted = plan.run(state, Findings())
    found = {spec.name: torch.zeros(spec.n_elements, dtype=spec.dtype) for spec in plan.outputs}
    for step in plan.steps:
        for rows in step.ranges(n_bytes):
            values = []
            for spec in step.reads:
                start, stop, shape = step.place(spec, rows)
                values.append(state[spec.name].reshape(-1)[start:stop].reshape(shape))
            for spec, value in zip(step.outputs, step.apply(values, Findings()), strict=True):
                start, stop, _ = step.place(spec, rows)
                found[spec.name][start:stop] = value.reshape(-1)
    assert all(torch.equal(found[name], wanted[name].reshape(-1)) for name in wanted)


def test_a_plan_needs_no_values() -> None:
    module = nn.utils.parametrizations.weight_norm(copy.deepcopy(network())[0])
    state = {name: tensor.to("meta") for name, tensor in module.state_dict().items()}
    plan = plan_migration(state, to="plain", dtype=torch.float16)
    assert [(spec.name, spec.dtype, spec.shape) for spec in plan.outputs] == [
        ("bias", torch.float16, (3,)),
        ("weight", torch.float16, (3, 2, 2)),
    ]


# --- checkpoints


def test_state_dicts_in_a_checkpoint_are_migrated_where_they_are() -> None:
    legacy = {"w_g": torch.full((1, 1), 10.0), "w_v": torch.tensor([[3.0, 4.0]])}
    optimizer = {"state": dict(legacy)}
    checkpoint = {"epoch": 3, "nets": {"generator": legacy, "critic": dict(legacy)}, "optimizer": optimizer}
    found = migrate_state_dict(checkpoint, to="plain")
    assert list(found) == ["epoch", "nets", "optimizer"]
    assert [net["w"].tolist() for net in found["nets"].values()] == [[[6, 8]]] * 2
    assert found["optimizer"] is optimizer
    assert list(checkpoint["nets"]["generator"]) == ["w_g", "w_v"]


def test_a_mapping_beside_tensors_is_kept_as_it_is() -> None:
    inner = {"w_g": torch.ones(1, 1), "w_v": torch.ones(1, 2)}
    assert migrate_state_dict({"a": torch.ones(2), "extra": inner}, to="plain")["extra"] is inner
