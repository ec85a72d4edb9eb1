"""Migration of weight norms: planned from names, dtypes and shapes only, then run.

A plan runs on whole tensors or, for files larger than memory, on a few rows at a time.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import reduce
from math import prod
from operator import getitem
from typing import Any

import torch
from torch import Tensor

from converters.weight_norm.norm_styles import (
    COMPUTED,
    WHOLE,
    Style,
    all_finite,
    find_state_dicts,
    holds_tensors,
    kept_axis,
    magnitude_shape,
    multiply_out,
    names_of,
    parts,
    replace_at,
    split,
    zero_rows,
)
from specs.arguments import check_type
from specs.errors import ConversionError, UnsupportedError
from specs.words import counted

ROUNDINGS = 4
"""Largest difference between two forms of one weight, in eps: norm, quotient and product are each rounded."""

LEGACY_NAME = re.compile(r"(?P<base>(?:.*\.)?[^.]+)_[gv]")
PARAMETRIZED_NAME = re.compile(r"(?P<module>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)")


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"

    @property
    def n_elements(self) -> int:
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_elements * self.dtype.itemsize


@dataclass(frozen=True)
class Step:
    """Step of a migration: tensors of the old state dict, and the tensors made from them.

    Attributes:
        base: Name of the plain weight, or of a tensor without a norm.
        sources: One tensor, or g and v.
        outputs: One tensor, or g and v.
        dim: Axis that the norm keeps, or `WHOLE`; None if the step has no norm.
        twins: Other forms of the same weight, which must agree with `sources` and are dropped.
    """

    base: str
    sources: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dim: int | None = None
    twins: tuple[tuple[TensorSpec, ...], ...] = ()

    @property
    def reads(self) -> list[TensorSpec]:
        """Tensors that `apply` takes, in order."""
        return [*self.sources, *(spec for twin in self.twins for spec in twin)]

    @property
    def pairs(self) -> list[tuple[TensorSpec, TensorSpec]]:
        """Pairs of an old tensor and a new tensor that it goes into."""
        if len(self.sources) == len(self.outputs):
            return list(zip(self.sources, self.outputs, strict=True))
        return [(old, new) for old in self.sources for new in self.outputs]

    @property
    def what(self) -> str:
        """Name of the step: renamed, multiplied out or split."""
        if len(self.sources) == len(self.outputs):
            return "renamed"
        return "multiplied out" if len(self.sources) > len(self.outputs) else "split"

    @property
    def copies(self) -> bool:
        """True if the outputs are the sources, bit by bit."""
        same_number = len(self.sources) == len(self.outputs)
        return same_number and not self.twins and all(old.dtype == new.dtype for old, new in self.pairs)

    @property
    def n_rows(self) -> int:
        """Number of parts that can be computed on their own: elements, or rows that each have a norm, or else 1."""
        v = self.sources[-1]
        return v.n_elements if self.dim is None else v.shape[0] if self.dim == 0 else 1

    def ranges(self, n_bytes: int) -> Iterator[tuple[int, int]]:
        """Return ranges of rows in which each tensor has at most `n_bytes`, or one row if that is larger."""
        largest = max(spec.n_bytes for spec in (*self.reads, *self.outputs))
        size = max(1, n_bytes * self.n_rows // max(1, largest))
        return ((start, min(start + size, self.n_rows)) for start in range(0, self.n_rows, size))

    def place(self, spec: TensorSpec, rows: tuple[int, int]) -> tuple[int, int, tuple[int, ...]]:
        """Return the start, the stop (in elements) and the shape of some rows of a tensor."""
        size = spec.n_elements // self.n_rows
        start, stop = rows
        shape = {None: (stop - start,), 0: (stop - start, *spec.shape[1:])}.get(self.dim, spec.shape)
        return start * size, stop * size, shape

    @torch.no_grad()
    def apply(self, values: Sequence[Tensor], findings: "Findings") -> list[Tensor]:
        """Return the outputs for the tensors in `reads`: whole, or the same rows of each."""
        if self.copies:
            return list(values)
        rest = [value.detach() for value in values]
        sources, rest = rest[: len(self.sources)], rest[len(self.sources) :]
        before = self._weight(sources, findings)
        for twin in self.twins:
            other, rest = rest[: len(twin)], rest[len(twin) :]
            if not self._agree(sources, before, other):
                raise _different(self.sources, twin)
        if len(self.outputs) > len(sources) and self.dim is not None:
            made = list(split(before, self.dim))
            if not all_finite(made[0]) and all_finite(before):
                dtype = _name(before.dtype)
                raise ConversionError(
                    f"{self.base}: the norm is beyond {dtype}; first cast, with --to plain --dtype fp32"
                )
            findings.zero_rows[self.base] += int((made[0] == 0).sum())
        else:
            made = sources if len(self.outputs) == len(sources) else [before]
        made = [value.to(spec.dtype) for value, spec in zip(made, self.outputs, strict=True)]
        findings.compare(self.base, before, multiply_out(made, self.dim))
        return made

    def _weight(self, sources: Sequence[Tensor], findings: "Findings") -> Tensor:
        """Return the plain weight of the sources; refuse rows whose direction is zero and whose magnitude is not."""
        if len(sources) == 1 or self.dim is None:
            return sources[0]
        g, v = sources
        zero = zero_rows(v, self.dim) if v.numel() else torch.zeros((), dtype=torch.bool)
        if bool((zero & (g != 0)).any()):
            raise ConversionError(
                f"{self.sources[1].name}: a row of zeros whose magnitude, in {self.sources[0].name}, is not 0; set the "
                "magnitude to 0 if the weight is zero there"
            )
        findings.zero_rows[self.base] += int(zero.sum())
        return multiply_out(sources, self.dim)

    def _agree(self, sources: Sequence[Tensor], weight: Tensor, other: Sequence[Tensor]) -> bool:
        """Return whether another form has the same weight, up to rounding if the forms differ."""
        if len(sources) == len(other):
            return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(sources, other, strict=True))
        found = multiply_out(other, self.dim)
        limits = [torch.finfo(tensor.dtype) for tensor in (weight, found)]
        rounding = ROUNDINGS * max(limit.eps for limit in limits)
        least = max(limit.smallest_normal for limit in limits)
        return all(
            torch.allclose(a.double(), b.double(), rtol=rounding, atol=rounding * least, equal_nan=True)
            for a, b in zip(parts(weight), parts(found), strict=True)
        )


@dataclass
class Findings:
    """Findings that depend on the values of tensors, collected while a plan runs.

    Attributes:
        max_abs_diff: Largest absolute difference of a weight before and after, where both are finite.
        zero_rows: Number of rows of zeros, by weight.
        not_finite: Message on values that are not finite, by weight.
    """

    max_abs_diff: float = 0.0
    zero_rows: Counter[str] = field(default_factory=Counter)
    not_finite: dict[str, str] = field(default_factory=dict)

    def compare(self, base: str, before: Tensor, after: Tensor) -> None:
        """Record the difference of a weight, or of a part of it, before and after."""
        wide = torch.float64 if torch.float64 in (before.dtype, after.dtype) else torch.float32
        for old, new in zip(parts(before), parts(after), strict=True):
            difference = (old.to(wide) - new.to(wide)).abs()
            if not all_finite(difference):
                where = "" if not all_finite(old.to(wide)) else f" in {_name(new.dtype)}"
                self.not_finite[base] = f"holds values that are not finite{where}"
                difference = difference.nan_to_num(0, 0, 0)
            if difference.numel():
                self.max_abs_diff = max(self.max_abs_diff, float(difference.max()))

    def warnings(self) -> list[str]:
        """Return a line for each weight that needs attention."""
        return [
            *(f"{base}: {counted(n, 'row')} of zeros, with magnitude 0" for base, n in self.zero_rows.items() if n),
            *(f"{base} {what}" for base, what in self.not_finite.items()),
        ]


@dataclass(frozen=True)
class Plan:
    """Steps that turn a state dict into one of another style.

    Attributes:
        found: Style of the weight norms in the state dict; `mixed` for several; `plain` if there are none.
        steps: Steps in order; each tensor is in one of them.
        warnings: Findings that need attention, with the name of the weight.
        notes: Defaults that were chosen.
    """

    found: str
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def outputs(self) -> list[TensorSpec]:
        """All new tensors."""
        return [spec for step in self.steps for spec in step.outputs]

    @property
    def renamed(self) -> list[tuple[TensorSpec, TensorSpec, str]]:
        """Old tensor, new tensor and name of the step, for each tensor whose name changes."""
        return [(old, new, step.what) for step in self.steps for old, new in step.pairs if old.name != new.name]

    def run(self, state: Mapping[str, Tensor], findings: Findings) -> dict[str, Tensor]:
        """Run the plan in memory and return the new state dict.

        A tensor that is only renamed stays the same object, so that tied weights stay tied. `state` may have entries
        that are not in the plan, of any type; they are kept.
        """
        made: dict[str, Tensor] = {}
        place: dict[str, str] = {}
        for step in self.steps:
            values = step.apply([state[spec.name] for spec in step.reads], findings)
            made |= {spec.name: value for spec, value in zip(step.outputs, values, strict=True)}
            for old, new in step.pairs:
                place.setdefault(new.name, old.name)
        read = {spec.name for step in self.steps for spec in step.reads}
        for name in state.keys() - read:
            made[name], place[name] = state[name], name
        order = {name: i for i, name in enumerate(state)}
        return {name: made[name] for name in sorted(place, key=lambda name: order[place[name]])}


def migrate_state_dict(
    state: Mapping[str, Any], *, to: Style | str, only: Sequence[str] | None = None, dim: int | None = 0
) -> dict[str, Any]:
    """Return a state dict with its weight norms in another style; the given one is not changed.

    Args:
        state: Tensors by name; entries that are not weight norms are kept, as the same objects. Of a checkpoint, a
            mapping without tensors of its own, each state dict in it is migrated, except those of optimizers and the
            like, and the entries around them are kept.
        to: `plain`, `legacy` or `parametrized`.
        only: Patterns of plain weights that get a norm. By default, if the state dict has no norm yet, all
            floating-point tensors named `weight` with two axes or more get one; otherwise none does.
        dim: Axis that a new norm keeps; None for one norm over all axes.

    Raises `ConversionError` if half of a weight norm is missing, two forms of a weight differ, or a new name is
    taken; `state` is not a mapping.

    Warns:
        UserWarning: a weight is stored twice, has rows of zeros, or is not finite.

    >>> migrate_state_dict({"weight_g": torch.tensor([[10.0]]), "weight_v": torch.tensor([[3.0, 4.0]])}, to="plain")
    {'weight': tensor([[6., 8.]])}
    """
    check_type(
        state,
        Mapping,
        "migrate_state_dict takes a state dict",
        advice="torch.load or load_file of safetensors reads one",
        error=ConversionError,
    )
    if not holds_tensors(state) and (found := find_state_dicts(state)):
        checkpoint = dict(state)
        for keys in found:
            inner = reduce(getitem, keys, state)
            checkpoint = replace_at(checkpoint, keys, migrate_state_dict(inner, to=to, only=only, dim=dim))
        return checkpoint
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    plan, findings = plan_migration(tensors, to=to, only=only, dim=dim), Findings()
    new = plan.run(state, findings)
    for message in (*plan.warnings, *findings.warnings()):
        warnings.warn(message, stacklevel=2)
    return new


def plan_migration(
    state: Mapping[str, Tensor],
    *,
    to: Style | str,
    only: Sequence[str] | None = None,
    dim: int | None = 0,
    dtype: torch.dtype | None = None,
) -> Plan:
    """Plan `migrate_state_dict`; tensors may be on the meta device. `dtype` is that of all floating-point outputs."""
    if to not in list(Style):
        raise ConversionError(f"unknown style {to!r}; expected {', '.join(Style)}")
    to = Style(to)
    warnings: list[str] = []
    normed = _find_normed(state, warnings)
    chosen = _choose_plain(state, normed, to, only)
    owner = {name: base for base, styles in normed.items() for style in styles for name in names_of(base, style)}
    steps: list[Step] = []
    for base in dict.fromkeys(owner.get(name, name) for name in state):
        if base in normed:
            steps += _migrate_normed(state, base, normed[base], to, dtype, warnings)
        elif base in chosen:
            steps.append(_give_norm(state, base, to, dim, dtype))
        else:
            steps.append(_keep(_spec(state, base), base, dtype))
    _check_names(steps)
    notes = [] if normed or chosen else ["no weight norms are found or added: every tensor stays as it is"]
    if chosen:
        axis = "none" if dim is None else dim
        notes.append(
            f"norm of dim {axis} for {counted(len(chosen), 'plain weight')} (see `only`, `dim`): {_listed(chosen)}"
        )
    styles = sorted({style for found in normed.values() for style in found if style is not Style.PLAIN})
    found = "mixed" if len(styles) > 1 else str(styles[0] if styles else Style.PLAIN)
    return Plan(found, tuple(steps), tuple(warnings), tuple(notes))


def _find_normed(state: Mapping[str, Tensor], warnings: list[str]) -> dict[str, list[Style]]:
    """Return the weights with a weight norm, each with the styles in which it is stored."""
    legacy: dict[str, None] = {}
    parametrized: dict[str, set[str]] = {}
    for name in state:
        if match := PARAMETRIZED_NAME.fullmatch(name):
            parametrized.setdefault(match["module"] + match["name"], set()).add(match["part"])
        elif match := LEGACY_NAME.fullmatch(name):
            legacy[match["base"]] = None
    normed: dict[str, list[Style]] = {}
    for base, found in parametrized.items():
        originals = found & {"original0", "original1"}
        if originals and found != originals:
            raise ConversionError(
                f"{names_of(base, Style.PARAMETRIZED)[0]} has another parametrization beside it "
                f"({_listed(sorted(found - originals))}); remove that one in torch first"
            )
        if originals and _is_pair(state, base, Style.PARAMETRIZED, warnings):
            normed.setdefault(base, []).append(Style.PARAMETRIZED)
    for base in legacy:
        if _is_pair(state, base, Style.LEGACY, warnings):
            normed.setdefault(base, []).append(Style.LEGACY)
    for base, styles in normed.items():
        if base in state:
            styles.append(Style.PLAIN)
    return normed


def _is_pair(state: Mapping[str, Tensor], base: str, style: Style, warnings: list[str]) -> bool:
    """Return whether two tensors are a weight norm; refuse them if their names say so but their shapes do not."""
    names = names_of(base, style)
    is_weight = "weight" in base.rpartition(".")[2]
    here = [name for name in names if name in state]
    if len(here) == 1:
        # torch.nn.utils.spectral_norm stores weight_orig, weight_u and weight_v.
        if style is Style.LEGACY and (not is_weight or f"{base}_orig" in state):
            return False
        missing = names[1 - names.index(here[0])]
        raise ConversionError(f"{here[0]} is a part of a weight norm; the other part, {missing}, is missing")
    g, v = (state[name] for name in names)
    # w_g and w_v of the same shape are gates or projections, not a norm, unless "weight" is in their names.
    alike = style is Style.LEGACY and not is_weight and g.shape == v.shape
    if kept_axis(g, v) is not None and not alike:
        return True
    problem = f"{_spec(state, names[0])} and {_spec(state, names[1])} do not fit together as a weight norm"
    if is_weight:
        raise ConversionError(f"{problem}: the first must be a scalar, or have one side of the second and else 1")
    warnings.append(f"{problem}: left as they are")
    return False


def _choose_plain(
    state: Mapping[str, Tensor], normed: Mapping[str, object], to: Style, only: Sequence[str] | None
) -> list[str]:
    """Return the names of the plain weights that get a norm."""
    if to is Style.PLAIN and only:
        raise ConversionError("`only` chooses plain weights that get a norm; in style plain none does: leave it out")
    if to is Style.PLAIN or (normed and not only):
        return []
    halves = {half for base in normed for style in Style for half in names_of(base, style)}
    possible = [
        name
        for name, tensor in state.items()
        if name not in halves
        and not PARAMETRIZED_NAME.fullmatch(name)
        and tensor.dtype in COMPUTED
        and tensor.layout is torch.strided
        and tensor.ndim >= 2
    ]
    for pattern in only or ():
        if any(fnmatchcase(name, pattern) for name in halves & {*state, *normed}):
            raise ConversionError(f"a weight that matches {pattern!r} already has a norm; leave out --only")
        if not any(fnmatchcase(name, pattern) for name in possible):
            raise ConversionError(f"no plain weight matches {pattern!r}; there are {_listed(possible) or 'none'}")
    return [
        name
        for name in possible
        if (any(fnmatchcase(name, pattern) for pattern in only) if only else name.rpartition(".")[2] == "weight")
    ]


def _migrate_normed(
    state: Mapping[str, Tensor],
    base: str,
    styles: Sequence[Style],
    to: Style,
    dtype: torch.dtype | None,
    warnings: list[str],
) -> list[Step]:
    forms = [
        tuple(_spec(state, name) for name in names_of(base, style))
        for style in sorted(styles, key=lambda style: style is not to)
    ]
    pair = next(form for form in forms if len(form) == 2)
    dim = kept_axis(*(state[spec.name] for spec in pair))
    sources, *twins = forms
    for twin in twins:
        # Compare from the last: a plain weight has the shape of v.
        if any(a.shape != b.shape for a, b in zip(sources[::-1], twin[::-1], strict=False)):
            raise _different(sources, twin)
        warnings.append(f"{base} is stored twice: {_named(sources)} is kept, the equal {_named(twin)} is dropped")
    names = names_of(base, to)
    outputs = tuple(
        replace(spec, name=name, dtype=_cast(spec.dtype, dtype))
        for name, spec in zip(names, pair[-len(names) :], strict=True)
    )
    step = Step(base, sources, outputs, dim, tuple(twins))
    if step.copies:
        return [_keep(old, new.name, dtype) for old, new in step.pairs]
    for spec in step.reads:
        if spec.dtype not in COMPUTED:
            raise ConversionError(f"{spec.name} is {_name(spec.dtype)}: torch has no weight norm of this dtype")
    return [step]


def _give_norm(state: Mapping[str, Tensor], base: str, to: Style, dim: int | None, dtype: torch.dtype | None) -> Step:
    weight = _spec(state, base)
    axis = WHOLE if dim is None else dim
    if dim is not None and not 0 <= dim < len(weight.shape):
        raise ConversionError(f"{weight} has no axis {dim}; expected 0 to {len(weight.shape) - 1}, or none")
    shapes = magnitude_shape(weight.shape, axis), weight.shape
    outputs = tuple(
        TensorSpec(name, _cast(weight.dtype, dtype), shape)
        for name, shape in zip(names_of(base, to), shapes, strict=True)
    )
    return Step(base, (weight,), outputs, axis)


def _keep(spec: TensorSpec, name: str, dtype: torch.dtype | None) -> Step:
    return Step(name, (spec,), (replace(spec, name=name, dtype=_cast(spec.dtype, dtype)),))


def _check_names(steps: Sequence[Step]) -> None:
    origin: dict[str, str] = {}
    for step in steps:
        for spec in step.outputs:
            if spec.name in origin:
                raise ConversionError(
                    f"{_named(step.sources)} and {origin[spec.name]} would both be {spec.name}; rename one of them"
                )
            origin[spec.name] = _named(step.sources)


def _different(sources: Sequence[TensorSpec], twin: Sequence[TensorSpec]) -> ConversionError:
    return ConversionError(f"{_named(sources)} and {_named(twin)} are one weight, but differ; remove the stale one")


def _spec(state: Mapping[str, Tensor], name: str) -> TensorSpec:
    if state[name].is_nested:
        raise UnsupportedError(f"{name} is a nested tensor, which is not supported")
    return TensorSpec(name, state[name].dtype, tuple(state[name].shape))


def _cast(dtype: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and dtype.is_floating_point else dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _named(specs: Iterable[TensorSpec]) -> str:
    return " with ".join(spec.name for spec in specs)


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
