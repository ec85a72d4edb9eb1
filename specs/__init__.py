"""What a network is: typed specs in YAML. No torch here.

Names load when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specs.block import (
        AffineSpec,
        AvgPoolSpec,
        BlockSpec,
        ConvSkip,
        ConvSpec,
        DenseSkip,
        DenseSpec,
        Encoding,
        FlattenSpec,
        IdentitySkip,
        InputSpec,
        LayerSpec,
        Norm,
        SkipSpec,
        skips_of,
    )
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
    from specs.network import NetworkSpec
    from specs.neuron import CubaSpec, LearnDecays, Reset
    from specs.summary import LayerSummary, summarize
    from specs.training import AugmentSpec, LearningRateSchedule, TrainingSpec

__all__ = [
    "AffineSpec",
    "AugmentSpec",
    "AvgPoolSpec",
    "BlockSpec",
    "ConvSkip",
    "ConvSpec",
    "ConversionError",
    "CubaSpec",
    "DataError",
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

_MODULES = ("errors", "neuron", "block", "training", "network", "summary", "io")
"""Those that have these names, light ones first."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in (import_module(f"specs.{module}") for module in _MODULES):
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
