"""A migration of weight norms: planned from names, dtypes and shapes alone, then run.

A plan runs on whole tensors or, for files larger than memory, on a few rows at a time.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod

import torch
from torch import Tensor

from converters.weight_norm.norm_styles import (
    COMPUTED,
    WHOLE,
    Style,
    all_finite,
    kept_axis,
    magnitude_shape,
    multiply_out,
    names_of,
    parts,
    split,
    zero_rows,
)
from specs.errors import ConversionError, UnsupportedError

__all__ = ["Findings", "Plan", "Step", "TensorSpec", "migrate_state_dict", "plan_migration"]

ROUNDINGS = 4
"""Forms of one weight differ by at most this many eps: the norm, the quotient and the product are each rounded."""

LEGACY_NAME = re.compile(r"(?P<base>(?:.*\.)?[^.]+)_[gv]")
PARAMETRIZED_NAME = re.compile(r"(?P<module>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor but for its values."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Size of the values."""
        return self.n_elements * self.dtype.itemsize


@dataclass(frozen=True)
class Step:
    """Tensors of the old state dict, and what becomes of them.

    Attributes:
        base: Name of the plain weight, or of any other tensor.
        sources: One tensor, or g and v.
        outputs: One tensor, or g and v.
        dim: Axis that the norm keeps, or `WHOLE`; None if the step does not look at one.
        twins: The same weight in other forms, which must agree with `sources` and are dropped.
    """

    base: str
    sources: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dim: int | None = None
    twins: tuple[tuple[TensorSpec, ...], ...] = ()

    @property
    def reads(self) -> list[TensorSpec]:
        """What `apply` takes, in order."""
        return [*self.sources, *(spec for twin in self.twins for spec in twin)]

    @property
    def pairs(self) -> list[tuple[TensorSpec, TensorSpec]]:
        """Which old tensor goes into which new one."""
        if len(self.sources) == len(self.outputs):
            return list(zip(self.sources, self.outputs, strict=True))
        return [(old, new) for old in self.sources for new in self.outputs]

    @property
    def what(self) -> str:
        """What happens, in a word or two."""
        if len(self.sources) == len(self.outputs):
            return "renamed"
        return "multiplied out" if len(self.sources) > len(self.outputs) else "split"

    @property
    def copies(self) -> bool:
        """Whether the outputs are the sources, bit by bit."""
        same_number = len(self.sources) == len(self.outputs)
        return same_number and not self.twins and all(old.dtype == new.dtype for old, new in self.pairs)

    @property
    def n_rows(self) -> int:
        """In how many parts it may be done: elements; rows, if each has a norm of its own; or one."""
        v = self.sources[-1]
        return v.n_elements if self.dim is None else v.shape[0] if self.dim == 0 else 1

    def ranges(self, n_bytes: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows in which no tensor has more than `n_bytes`, if a row has not."""
        largest = max(spec.n_bytes for spec in (*self.reads, *self.outputs))
        size = max(1, n_bytes * self.n_rows // max(1, largest))
        return ((start, min(start + size, self.n_rows)) for start in range(0, self.n_rows, size))

    def place(self, spec: TensorSpec, rows: tuple[int, int]) -> tuple[int, int, tuple[int, ...]]:
        """First and last element, and shape, of some rows of a tensor."""
        size = spec.n_elements // self.n_rows
        start, stop = rows
        shape = {None: (stop - start,), 0: (stop - start, *spec.shape[1:])}.get(self.dim, spec.shape)
        return start * size, stop * size, shape

    @torch.no_grad()
    def apply(self, values: Sequence[Tensor], findings: "Findings") -> list[Tensor]:
        """The outputs, of all that is read: whole, or the same rows of each.

        Raises:
            ConversionError: no such weight exists, or its twin is another.
        """
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
                raise ConversionError(f"{self.base}: its norm is beyond {dtype}; cast first, --to plain --dtype fp32")
            findings.zero_rows[self.base] += int((made[0] == 0).sum())
        else:
            made = sources if len(self.outputs) == len(sources) else [before]
        made = [value.to(spec.dtype) for value, spec in zip(made, self.outputs, strict=True)]
        findings.compare(self.base, before, multiply_out(made, self.dim))
        return made

    def _weight(self, sources: Sequence[Tensor], findings: "Findings") -> Tensor:
        if len(sources) == 1 or self.dim is None:
            return sources[0]
        g, v = sources
        zero = zero_rows(v, self.dim) if v.numel() else torch.zeros((), dtype=torch.bool)
        if bool((zero & (g != 0)).any()):
            raise ConversionError(
                f"{self.sources[1].name}: a direction of zeros whose magnitude, in {self.sources[0].name}, is not 0; "
                "set the magnitude to 0 if the weight is zero there"
            )
        findings.zero_rows[self.base] += int(zero.sum())
        return multiply_out(sources, self.dim)

    def _agree(self, sources: Sequence[Tensor], weight: Tensor, other: Sequence[Tensor]) -> bool:
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
    """What only the values tell, gathered while a plan runs.

    Attributes:
        max_abs_diff: Largest difference of a weight before and after, where both are finite.
    """

    max_abs_diff: float = 0.0
    zero_rows: Counter[str] = field(default_factory=Counter)
    not_finite: dict[str, str] = field(default_factory=dict)

    def compare(self, base: str, before: Tensor, after: Tensor) -> None:
        """Take in a weight, or a part of it, before and after."""
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
        """A line for each weight that deserves a look."""
        return [
            *(f"{base}: {n} rows are zero and stay so, by a magnitude of 0" for base, n in self.zero_rows.items() if n),
            *(f"{base} {what}" for base, what in self.not_finite.items()),
        ]


@dataclass(frozen=True)
class Plan:
    """How a state dict becomes one of another style.

    Attributes:
        found: The style of the weight norms in it; `mixed`; or `plain` if there are none.
        steps: Each tensor is in one.
        warnings: What might surprise, by name.
        notes: What was chosen, as nobody said.
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
        """Old tensor, new one, and what happens, of all whose name changes."""
        return [(old, new, step.what) for step in self.steps for old, new in step.pairs if old.name != new.name]

    def run(self, state: Mapping[str, Tensor], findings: Findings) -> dict[str, Tensor]:
        """Run it in memory. What is only renamed stays the same object, so that tied weights stay tied.

        `state` may hold more than was planned with, anything at all; that is taken over.
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
    state: Mapping[str, Tensor], *, to: Style | str, only: Sequence[str] | None = None, dim: int | None = 0
) -> dict[str, Tensor]:
    """A state dict with its weight norms in another style; the given one stays as it is.

    Args:
        state: Names and tensors; what is no weight norm is taken over, the same objects.
        to: `plain`, `legacy` or `parametrized`.
        only: Patterns of plain weights that get a norm. By default none does if there is a norm already; if there is
            none, every floating tensor named `weight` of two axes or more does.
        dim: Axis that a new norm keeps; None for one norm over all axes.

    Raises:
        ConversionError: half a weight norm; two forms of a weight that differ; a name that is taken.

    Warns:
        UserWarning: a weight is there twice, has zero rows, or is not finite.

    >>> migrate_state_dict({"weight_g": torch.tensor([[10.0]]), "weight_v": torch.tensor([[3.0, 4.0]])}, to="plain")
    {'weight': tensor([[6., 8.]])}
    """
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
    """Plan `migrate_state_dict`, of tensors that may be on the meta device; `dtype` is for all floating outputs.

    Raises:
        ConversionError: as there, as far as names, dtypes and shapes tell.
    """
    if to not in list(Style):
        raise ConversionError(f"no style {to!r}; there are {', '.join(Style)}")
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
    notes = [] if normed or chosen else ["no weight norm, and none to give: every tensor stays as it is"]
    if chosen:
        axis = "none" if dim is None else dim
        notes.append(f"{len(chosen)} plain weights get a norm of dim {axis} (`only`, `dim` choose): {_listed(chosen)}")
    styles = sorted({style for found in normed.values() for style in found if style is not Style.PLAIN})
    found = "mixed" if len(styles) > 1 else str(styles[0] if styles else Style.PLAIN)
    return Plan(found, tuple(steps), tuple(warnings), tuple(notes))


def _find_normed(state: Mapping[str, Tensor], warnings: list[str]) -> dict[str, list[Style]]:
    """The weight-normed weights, each with the styles that it is there in."""
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
                f"({_listed(sorted(found - originals))}); take that one away in torch first"
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
    """Whether two tensors are a weight norm; refuses those whose names say so and whose shapes do not."""
    names = names_of(base, style)
    is_weight = "weight" in base.rpartition(".")[2]
    here = [name for name in names if name in state]
    if len(here) == 1:
        # torch.nn.utils.spectral_norm keeps weight_orig, weight_u and weight_v.
        if style is Style.LEGACY and (not is_weight or f"{base}_orig" in state):
            return False
        missing = names[1 - names.index(here[0])]
        raise ConversionError(f"{here[0]} is half a weight norm: {missing} is missing; is the file complete?")
    g, v = (state[name] for name in names)
    # Two tensors of one shape, w_g and w_v, are gates or projections rather than a norm, unless they say weight.
    alike = style is Style.LEGACY and not is_weight and g.shape == v.shape
    if kept_axis(g, v) is not None and not alike:
        return True
    problem = f"{_spec(state, names[0])} and {_spec(state, names[1])} do not fit each other as a weight norm"
    if is_weight:
        raise ConversionError(f"{problem}: the first is a scalar, or has one axis of the second and 1 for the others")
    warnings.append(f"{problem}: left as they are")
    return False


def _choose_plain(
    state: Mapping[str, Tensor], normed: Mapping[str, object], to: Style, only: Sequence[str] | None
) -> list[str]:
    """The plain weights that get a norm."""
    if to is Style.PLAIN and only:
        raise ConversionError("`only` chooses plain weights that get a norm; to plain, none does")
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
            raise ConversionError(f"what is like {pattern!r} has a norm already, or is half of one; leave out --only")
        if not any(fnmatchcase(name, pattern) for name in possible):
            raise ConversionError(f"no plain weight is like {pattern!r}; there are {_listed(possible) or 'none'}")
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
        # From behind: a plain weight has the shape of v.
        if any(a.shape != b.shape for a, b in zip(sources[::-1], twin[::-1], strict=False)):
            raise _different(sources, twin)
        warnings.append(f"{base} is there twice: {_named(sources)} stays, its equal {_named(twin)} is dropped")
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
            raise ConversionError(f"{spec.name} is {_name(spec.dtype)}: torch has no weight norm of that")
    return [step]


def _give_norm(state: Mapping[str, Tensor], base: str, to: Style, dim: int | None, dtype: torch.dtype | None) -> Step:
    weight = _spec(state, base)
    axis = WHOLE if dim is None else dim
    if dim is not None and not 0 <= dim < len(weight.shape):
        raise ConversionError(f"{weight} has no axis {dim}; take one from 0 to {len(weight.shape) - 1}, or none")
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
        raise UnsupportedError(f"{name} is nested, of tensors of several shapes")
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
