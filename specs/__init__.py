"""Specs: typed, immutable descriptions of networks, read from YAML. This package never imports torch.

A `NetworkSpec` has an input, blocks, default neurons and a training recipe. Pydantic checks each field; the network
checks shapes and limits of the hardware. All errors of a spec are reported at once, as a `SpecError`.

>>> from specs import load_spec, summarize
>>> spec = load_spec("mnist-dense-shallow")  # a packaged spec, or the path of a YAML file
>>> spec.shapes
((784,), (512,), (10,))
>>> sum(layer.parameters for layer in summarize(spec))
407562

Names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specs.errors import (
        ConversionError,
        DataError,
        IntegrityError,
        LostProcessError,
        SnnZooError,
        SpecError,
        StateOverflowError,
        TransferError,
        UnsupportedError,
    )
    from specs.io import dump_spec, json_schema, load_spec, network_names, parse_spec
    from specs.layers.block import (
        AffineSpec,
        AverageSpec,
        AvgPoolSpec,
        BlockSpec,
        ConvSkip,
        ConvSpec,
        DelaySpec,
        DelayTarget,
        DenseSkip,
        DenseSpec,
        FlattenSpec,
        IdentitySkip,
        LayerSpec,
        Norm,
        SkipSpec,
        skips_of,
    )
    from specs.layers.input import Encoding, InputSpec
    from specs.layers.neuron import CubaSpec, LearnDecays, Reset, SigmaDeltaSpec
    from specs.network import NetworkSpec
    from specs.summary import LayerSummary, summarize
    from specs.training import AugmentSpec, LearningRateSchedule, TrainingSpec

__all__ = [
    "AffineSpec",
    "AugmentSpec",
    "AverageSpec",
    "AvgPoolSpec",
    "BlockSpec",
    "ConvSkip",
    "ConvSpec",
    "ConversionError",
    "CubaSpec",
    "DataError",
    "DelaySpec",
    "DelayTarget",
    "DenseSkip",
    "DenseSpec",
    "Encoding",
    "FlattenSpec",
    "IdentitySkip",
    "InputSpec",
    "IntegrityError",
    "LayerSpec",
    "LayerSummary",
    "LearnDecays",
    "LearningRateSchedule",
    "LostProcessError",
    "NetworkSpec",
    "Norm",
    "Reset",
    "SigmaDeltaSpec",
    "SkipSpec",
    "SnnZooError",
    "SpecError",
    "StateOverflowError",
    "TrainingSpec",
    "TransferError",
    "UnsupportedError",
    "dump_spec",
    "json_schema",
    "load_spec",
    "network_names",
    "parse_spec",
    "skips_of",
    "summarize",
]

_MODULES = ("errors", "layers.neuron", "layers.input", "layers.block", "training", "network", "summary", "io")
"""Modules with these names, in the order of search: those that import fastest come first."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in (import_module(f"specs.{module}") for module in _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
