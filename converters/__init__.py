"""Formats: files of every kind, read and written.

Names load when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.formats import read_model, write_model
    from converters.migration_plan import migrate_state_dict
    from converters.model import Model
    from converters.netx.model import write_netx
    from converters.nir.load import read_nir
    from converters.nir.save import write_nir
    from converters.onnx_conversion import import_onnx

__all__ = [
    "Model",
    "import_onnx",
    "migrate_state_dict",
    "read_model",
    "read_nir",
    "write_model",
    "write_netx",
    "write_nir",
]

_HOMES = {
    "Model": "converters.model",
    "import_onnx": "converters.onnx_conversion",
    "migrate_state_dict": "converters.migration_plan",
    "read_model": "converters.formats",
    "write_model": "converters.formats",
    "read_nir": "converters.nir.load",
    "write_netx": "converters.netx.model",
    "write_nir": "converters.nir.save",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
