"""Definitions of the neuron, its gradient, the activation and the grids: pure functions in plain torch."""

from bootstrap_core.functional.cuba import CubaOutput, cuba, cuba_forward, exponential_surrogate
from bootstrap_core.functional.piecewise import piecewise
from bootstrap_core.functional.quantize import (
    quantize_bias,
    quantize_decay,
    quantize_delay,
    quantize_weight,
    truncate_current,
)

__all__ = [
    "CubaOutput",
    "cuba",
    "cuba_forward",
    "exponential_surrogate",
    "piecewise",
    "quantize_bias",
    "quantize_decay",
    "quantize_delay",
    "quantize_weight",
    "truncate_current",
]
