"""Formats: files of every kind, read and written.

Names load when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.ann_to_snn.best_candidate import SpikingForms
    from converters.ann_to_snn.onnx_conversion import ImportCallbacks, import_onnx
    from converters.formats.model_files import read_model, write_model
    from converters.formats.netx.netx_model import write_netx
    from converters.formats.nir.nir_reader import read_nir
    from converters.formats.nir.nir_writer import write_nir
    from converters.model import Model
    from converters.weight_norm.migration_plan import migrate_state_dict

__all__ = [
    "ImportCallbacks",
    "Model",
    "SpikingForms",
    "import_onnx",
    "migrate_state_dict",
    "read_model",
    "read_nir",
    "write_model",
    "write_netx",
    "write_nir",
]

_HOMES = {
    "ImportCallbacks": "converters.ann_to_snn.onnx_conversion",
    "Model": "converters.model",
    "SpikingForms": "converters.ann_to_snn.best_candidate",
    "import_onnx": "converters.ann_to_snn.onnx_conversion",
    "migrate_state_dict": "converters.weight_norm.migration_plan",
    "read_model": "converters.formats.model_files",
    "write_model": "converters.formats.model_files",
    "read_nir": "converters.formats.nir.nir_reader",
    "write_netx": "converters.formats.netx.netx_model",
    "write_nir": "converters.formats.nir.nir_writer",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
