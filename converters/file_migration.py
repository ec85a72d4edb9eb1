"""Migrate the weight norms of a state dict file to another style."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.formats.state_dict_file import (
    METADATA_KEY,
    TORCH_SUFFIXES,
    Read,
    StateDictFile,
    Write,
    open_state_dict,
    write_safetensors_pieces,
    write_torch,
)
from converters.weight_norm.migration_plan import Findings, Plan, plan_migration
from converters.weight_norm.norm_styles import Style, replace_at
from specs.errors import ConversionError, UnsupportedError

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to names."""

PIECE_BYTES = 8 * 2**20
"""Most bytes of a tensor in memory at a time."""


@dataclass(frozen=True)
class MigrationReport:
    """Result of a migration.

    Attributes:
        plan: Old and new names, shapes and dtypes.
        max_abs_diff: Largest absolute difference of a weight before and after.
        key: Path of the state dict in a checkpoint; empty if the file holds nothing else.
        notes: Defaults that were chosen, and entries that were left out.
        warnings: Findings that need attention, such as rows of zeros.
    """

    plan: Plan
    max_abs_diff: float
    stripped_prefix: str
    key: str
    notes: list[str]
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "from": self.plan.found,
            "tensors": len(self.plan.outputs),
            "renamed": [[old.name, new.name] for old, new, _ in self.plan.renamed],
            "max_abs_diff": self.max_abs_diff,
            "key": self.key,
            "stripped_prefix": self.stripped_prefix,
            "notes": self.notes,
            "warnings": self.warnings,
        }


def migrate_file(
    source: Path,
    output: Path | None,
    *,
    to: Style | str,
    only: Sequence[str] | None = None,
    dim: int | None = 0,
    dtype: torch.dtype | None = None,
    key: str | None = None,
    strip_prefix: str = "",
    keep_wrapper: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> MigrationReport:
    """Migrate a state dict file to another style of weight norm; without `output`, only report the changes.

    From safetensors to safetensors, memory holds 8 MiB of a tensor before and after; if a norm does not keep axis 0, it
    holds the whole weight before and after.

    Args:
        source: State dict or checkpoint of torch, or safetensors file.
        output: File to write: .safetensors, .pt, .pth or .bin.
        to, only, dim: See `migrate_state_dict`.
        dtype: Dtype of the new floating-point tensors, cast at the end; None keeps each as it is.
        key: Path of the state dict in a checkpoint, with dots between keys.
        strip_prefix: Prefix to remove from names; `module.` and `_orig_mod.` are always removed.
        keep_wrapper: Write the whole checkpoint, with the new state dict in the place of the old one.
        progress: Called with the number of bytes done, and the total.

    Raises:
        ConversionError: see `migrate_state_dict`; or the file has no state dict, or several.
        IntegrityError: the file is damaged, or not a state dict file.
        UnsupportedError: the output format cannot hold a tensor.
    """
    if output is not None:
        if output.suffix not in (".safetensors", *TORCH_SUFFIXES):
            raise UnsupportedError(f"{output}: a state dict is written as .safetensors or {', '.join(TORCH_SUFFIXES)}")
        if keep_wrapper and output.suffix == ".safetensors":
            raise UnsupportedError(f"{output}: safetensors cannot hold the entries around a state dict; write a .pt")
    with open_state_dict(source, key=key) as opened:
        names, stripped = _strip(opened.state, strip_prefix)
        state = {new: opened.state[old] for new, old in names.items()}
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        plan, findings = plan_migration(tensors, to=to, only=only, dim=dim, dtype=dtype), Findings()
        notes = [*plan.notes, *_left_out(opened, keep_wrapper)]
        if dtype is not None or (output is not None and output.suffix == ".safetensors"):
            _check_dense(tensors)

        def read(name: str, start: int, stop: int) -> Tensor:
            return opened.read(names[name], start, stop)

        run = partial(_run_in_pieces, plan, read, findings=findings, progress=progress)
        if output is None:
            run(write=None)
        elif output.suffix == ".safetensors":
            notes += _left_out_of_safetensors(state)
            metadata = {name: text for name, text in opened.metadata.items() if name != METADATA_KEY}
            with write_safetensors_pieces(output, plan.outputs, metadata or {"format": "pt"}) as write:
                run(write=write)
        else:
            if lost := opened.metadata.keys() - {"format", METADATA_KEY}:
                notes.append(f"left out, as torch files have no metadata: {', '.join(sorted(lost))}")
            on_disk = {name for name, value in tensors.items() if value.is_meta}
            state |= {name: opened.whole(names[name]) for name in on_disk}
            wrap = partial(replace_at, opened.checkpoint, opened.keys if keep_wrapper else ())
            write_torch(output, plan.run(state, findings), _stripped_modules(opened.modules, stripped), wrap=wrap)
    warnings = [*plan.warnings, *findings.warnings()]
    return MigrationReport(plan, findings.max_abs_diff, stripped, opened.key, notes, warnings)


def _run_in_pieces(
    plan: Plan, read: Read, *, write: Write | None, findings: Findings, progress: Callable[[int, int], object]
) -> None:
    """Run a plan on a few rows at a time; without `write`, only the steps that compute something."""
    steps = [step for step in plan.steps if write or not step.copies]
    done, total = 0, sum(spec.n_bytes for step in steps for spec in step.sources)
    for step in steps:
        for rows in step.ranges(PIECE_BYTES):
            values = []
            for spec in step.reads:
                start, stop, shape = step.place(spec, rows)
                values.append(read(spec.name, start, stop).reshape(shape))
            for spec, value in zip(step.outputs, step.apply(values, findings), strict=True):
                if write:
                    write(spec.name, step.place(spec, rows)[0], value)
            done += sum(value.nbytes for value in values[: len(step.sources)])
            progress(done, total)


def _check_dense(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided:
            raise UnsupportedError(f"{name} is sparse ({tensor.layout}); write a .pt without --dtype, or make it dense")


def _strip(state: Mapping[str, Any], wanted: str) -> tuple[dict[str, str], str]:
    """Return the names without prefixes, each with the name in the file, and the prefix that was removed."""
    names, stripped = _unwrap({name: name for name in state})
    prefix = f"{wanted.removesuffix('.')}."
    if not wanted or f".{prefix}" in f".{stripped}":
        return names, stripped
    shorter = {name.removeprefix(prefix): old for name, old in names.items()}
    if shorter.keys() == names.keys():
        raise ConversionError(f"no tensor name begins with {prefix!r}; the first name is {next(iter(names), 'none')}")
    if len(shorter) < len(names):
        lost = next(old for name, old in names.items() if shorter[name.removeprefix(prefix)] != old)
        raise ConversionError(f"{lost} and {shorter[lost.removeprefix(prefix)]} are the same without {prefix!r}")
    names, more = _unwrap(shorter)
    return names, stripped + prefix + more


def _unwrap(names: dict[str, str]) -> tuple[dict[str, str], str]:
    stripped = ""
    while names and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in names)), "")):
        names = {name.removeprefix(prefix): old for name, old in names.items()}
        stripped += prefix
    return names, stripped


def _stripped_modules(modules: Mapping[str, Any] | None, stripped: str) -> Mapping[str, Any] | None:
    """Return the versions of modules by their names without the prefix."""
    if modules is None or not stripped:
        return modules
    return {
        f"{name}.".removeprefix(stripped).removesuffix("."): entry
        for name, entry in modules.items()
        if f"{name}.".startswith(stripped)
    }


def _left_out(opened: StateDictFile, keep_wrapper: bool) -> list[str]:
    """Return notes on entries that are left out of any output, or kept as they are."""
    what = "kept as before" if keep_wrapper else "left out"
    notes = [f"{what}: {', '.join(opened.others)} (beside {opened.key})"] if opened.others else []
    if METADATA_KEY in opened.metadata:
        notes.append(f"left out: the metadata {METADATA_KEY!r}, with a spec that the new names do not match")
    return notes


def _left_out_of_safetensors(state: Mapping[str, Any]) -> list[str]:
    """Return notes on what safetensors cannot hold: entries that are not tensors, and shared memory."""
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    notes = [f"left out, not tensors: {', '.join(others)}"] if others else []
    same: dict[tuple[int, int], list[str]] = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.is_meta and value.numel():
            same.setdefault((value.data_ptr(), value.nbytes), []).append(name)
    return notes + [
        f"{' and '.join(names)} share memory; each is written separately" for names in same.values() if len(names) > 1
    ]
