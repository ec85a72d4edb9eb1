"""What a network is: typed specs in YAML. No torch here."""

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
    "UnsupportedError",
    "dump_spec",
    "json_schema",
    "load_spec",
    "network_names",
    "parse_spec",
    "skips_of",
    "summarize",
]
