"""Field types shared by all specs: every bound and unit is written here once."""

import math
import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

__all__ = [
    "VTH_MANT_MAX",
    "Decay",
    "Flag",
    "Integer",
    "Name",
    "Number",
    "Pair",
    "Positive",
    "PositivePair",
    "Shape",
    "StrictModel",
    "Threshold",
    "TimeSteps",
    "is_name",
    "threshold_mant",
]

VTH_MANT_MAX = (1 << 17) - 1
"""Largest threshold mantissa of the hardware: 17 bits, in units of 1/64."""


class StrictModel(BaseModel):
    """Base of all specs: immutable, and a key it does not know is an error; what stands below a field describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _as_pair(value: object) -> object:
    """One number stands for both axes: `3` is `[3, 3]`."""
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError(f"takes one number or two, [height, width]; this has {len(value)}")
        return value
    return (value, value)


Integer = Annotated[int, Strict()]
"""A whole number: neither `true` nor `"1"`."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`: neither `1` nor `"yes"`."""
Number = Annotated[float, Strict()]
"""A number: neither `true` nor `"1"`."""
_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=_NAME)]
TimeSteps = Annotated[Integer, Field(ge=1, le=4096)]
Decay = Annotated[Number, Field(ge=0, le=1)]
Threshold = Annotated[Number, Field(ge=1 / 64, le=VTH_MANT_MAX / 64)]
Positive = Annotated[Integer, Field(ge=1, le=1 << 24)]
_Side = Annotated[Integer, Field(ge=0, le=4096)]
_PositiveSide = Annotated[Integer, Field(ge=1, le=4096)]
Pair = Annotated[tuple[_Side, _Side], BeforeValidator(_as_pair, json_schema_input_type=_Side | tuple[_Side, _Side])]
PositivePair = Annotated[
    tuple[_PositiveSide, _PositiveSide],
    BeforeValidator(_as_pair, json_schema_input_type=_PositiveSide | tuple[_PositiveSide, _PositiveSide]),
]
Shape = tuple[int, ...]
"""`(features,)` or `(channels, height, width)`."""


def is_name(text: str) -> bool:
    """Whether a text is a `Name`."""
    return re.fullmatch(_NAME, text) is not None


def threshold_mant(threshold: float, levels: int = 1) -> int:
    """Threshold as the hardware's mantissa, `trunc(64 threshold levels)`; `levels` is a graded input's largest value.

    >>> threshold_mant(1.25), threshold_mant(0.1)
    (80, 6)
    """
    return math.trunc(64 * threshold * levels)
