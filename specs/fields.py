"""Field types that all specs share: each bound and unit is defined here, once."""

import math
import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from specs.files.limits import TIME_STEPS

VTH_MANT_MAX = (1 << 17) - 1
"""Largest threshold mantissa of the hardware: 17 bits, in units of 1/64."""

MAX_DELAY = 62
"""Longest delay of a synapse on the hardware, in time steps."""

SIDE_MAX = 4096
"""Largest kernel, stride, dilation or padding along an axis, in pixels."""


class StrictModel(BaseModel):
    """Base of all specs: immutable; an unknown key is an error. The string below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def __init__(self, /, **fields: Any) -> None:
        """Make a spec of its fields. Raises `SpecError`, with the messages that a file gets."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _spec_error(error, type(self)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # Pydantic need not call it for specs in specs

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Make a spec of a mapping. Raises `SpecError`, with the messages that a file gets."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _spec_error(error, cls) from None


def without_defaults(document: dict[str, Any], spec: BaseModel, *names: str) -> dict[str, Any]:
    """Return the dump of a spec without those of its fields `names` that have their default.

    These are fields that are newer than the format: files of specs that do not use them stay as they were.
    """
    fields = type(spec).model_fields
    unused = {name for name in fields.keys() & names if getattr(spec, name) == fields[name].default}
    return {name: value for name, value in document.items() if name not in unused}


def _spec_error(error: ValidationError, model: type[StrictModel]) -> Exception:
    from specs.io import spec_error  # it knows all specs, whose base is here

    return spec_error(error, model, origin=model.__name__)


def _as_pair(value: object) -> object:
    """Return a pair of sizes, where one number stands for both axes: `3` is `[3, 3]`."""
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not _are_sides(sides, 1):
        raise ValueError(f"must be one whole number from 1 to {SIDE_MAX}, or [height, width]")
    return sides


def _as_padding(value: object) -> object:
    """Return the sides of a padding, two if opposite ones are equal: `1` and `[1, 1, 1, 1]` are `[1, 1]`."""
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) not in {2, 4} or not _are_sides(sides, 0):
        wanted = f"one whole number from 0 to {SIDE_MAX}, [height, width], or [top, left, bottom, right]"
        raise ValueError(f"must be {wanted}")
    return sides[:2] if sides[:2] == sides[2:] else sides


def _as_levels(value: object) -> object:
    """Return pixels of channels; one number stands for all: `0.5` is `[0.5]`."""
    levels = value if isinstance(value, list | tuple) else (value,)
    if not (levels and all(type(level) in {int, float} and 0 <= level <= 1 for level in levels)):
        raise ValueError("must be one number from 0 to 1, or one for each channel")
    return levels


def _as_source(value: object) -> object:
    """Return the index or the name of a block."""
    if type(value) is int:
        if value < 0:
            raise ValueError("must be at least 0")
    elif not (isinstance(value, str) and is_name(value)):
        raise ValueError("must be the index of an earlier block, or its name")
    return value


def _are_sides(values: list[object] | tuple[object, ...], least: int) -> bool:
    return all(type(side) is int and least <= side <= SIDE_MAX for side in values)


Integer = Annotated[int, Strict()]
"""Integer; `true` and `"1"` are refused."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`; `1` and `"yes"` are refused."""
Number = Annotated[float, Strict()]
"""Number; `true` and `"1"` are refused."""
_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=_NAME)]
Source = Annotated[
    int | str, BeforeValidator(_as_source, json_schema_input_type=Annotated[Integer, Field(ge=0)] | Name)
]
"""Index of a block, 0 for the input and 1 for the first of `blocks`, or its name."""
TimeSteps = Annotated[Integer, Field(ge=1, le=TIME_STEPS)]
Decay = Annotated[Number, Field(ge=0, le=1)]
Threshold = Annotated[Number, Field(ge=1 / 64, le=VTH_MANT_MAX / 64)]
Positive = Annotated[Integer, Field(ge=1, le=1 << 24)]
_Side = Annotated[Integer, Field(ge=0, le=SIDE_MAX)]
_PositiveSide = Annotated[Integer, Field(ge=1, le=SIDE_MAX)]
Padding = Annotated[
    tuple[_Side, ...],
    BeforeValidator(
        _as_padding, json_schema_input_type=_Side | tuple[_Side, _Side] | tuple[_Side, _Side, _Side, _Side]
    ),
]
"""Padding `(height, width)`, or `(top, left, bottom, right)` where opposite sides differ."""
_Level = Annotated[Number, Field(ge=0, le=1)]
Levels = Annotated[tuple[float, ...], BeforeValidator(_as_levels, json_schema_input_type=_Level | tuple[_Level, ...])]
"""Pixels from 0 to 1, one for all channels or one for each."""
PositivePair = Annotated[
    tuple[_PositiveSide, _PositiveSide],
    BeforeValidator(_as_pair, json_schema_input_type=_PositiveSide | tuple[_PositiveSide, _PositiveSide]),
]
Shape = tuple[int, ...]
"""`(features,)` or `(channels, height, width)`."""


PATTERNS = {_NAME: "1 to 64 lower-case letters, digits, '.', '_' and '-', with a letter or digit first"}
"""Description of patterns that fields have, for messages."""


def is_name(text: str) -> bool:
    """Return whether a text is a valid `Name`."""
    return re.fullmatch(_NAME, text) is not None


def threshold_mant(threshold: float, levels: int = 1) -> int:
    """Return the threshold as a mantissa of the hardware, `trunc(64 threshold levels)`.

    `levels` is the largest value of a graded input.

    >>> threshold_mant(1.25), threshold_mant(0.1)
    (80, 6)
    """
    return math.trunc(64 * threshold * levels)


def initial_voltage(start: float, threshold_mant: int) -> int:
    """Return the voltage before the first step in units of 1/4096, `round(start * threshold)`, half to even.

    `threshold_mant` is the threshold as a mantissa of the hardware.

    >>> initial_voltage(0.5, 81), initial_voltage(0.1, 6)
    (2592, 38)
    """
    return round(start * 64 * threshold_mant)
