"""Errors for networks that a format cannot express: all reasons in one message."""

from collections.abc import Collection, Iterable

from specs.errors import UnsupportedError
from specs.layers.block import kind_of
from specs.layers.layer import Layer
from specs.network import NetworkSpec

__all__ = ["SIGMA_DELTA", "problems_by_place", "refuse_unknown_kinds", "unknown_kinds"]

SIGMA_DELTA = "sigma-delta neurons"


def problems_by_place(noun: str, found: Iterable[Iterable[str]]) -> list[str]:
    """Return each problem once with its places, as in `layers 0, 2: no weights`; `found` has the problems by place."""
    places_with: dict[str, list[str]] = {}
    for i, problems in enumerate(found):
        for problem in dict.fromkeys(problems):
            places_with.setdefault(problem, []).append(str(i))
    return [
        f"{noun}{'s' * (len(places) > 1)} {', '.join(places)}: {problem}" for problem, places in places_with.items()
    ]


def unknown_kinds(spec: NetworkSpec, known: Collection[type[Layer]], extras: Collection[str] = ()) -> list[str]:
    """Return a problem for each kind of block not among `known`, and each of a block's `Layer.extras` not in `extras`.

    A problem has the blocks, the kind or extra, and what to do. `SIGMA_DELTA` is an extra of the whole network.

    >>> from specs import DenseSpec, load_spec
    >>> unknown_kinds(load_spec("mnist-dense-shallow"), [DenseSpec])
    ['block 2: kind affine (only dense; replace the block, or write a .safetensors, which holds every kind)']
    """
    whole = "write a .safetensors, which holds every kind"
    hint = f"only {', '.join(map(kind_of, known))}; replace the block, or {whole}"
    unknown = ([] if type(layer) in known else [f"kind {layer.kind} ({hint})"] for layer in spec.blocks)
    beyond = ([f"{extra} ({whole})" for extra in layer.extras if extra not in extras] for layer in spec.blocks)
    problems = problems_by_place("block", [[], *(a + b for a, b in zip(unknown, beyond, strict=True))])
    return [*([f"{SIGMA_DELTA} ({whole})"] if spec.gives_values and SIGMA_DELTA not in extras else []), *problems]


def refuse_unknown_kinds(
    spec: NetworkSpec, known: Collection[type[Layer]], format_name: str, extras: Collection[str] = ()
) -> None:
    """Raise `UnsupportedError` if a block has a kind or an extra that a format cannot hold; see `unknown_kinds`."""
    problems = unknown_kinds(spec, known, extras)
    if problems:
        raise UnsupportedError(f"{format_name} cannot express {'; '.join(problems)}")
