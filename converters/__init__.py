"""Converters: model files of all formats, ANNs in ONNX, and weight norm.

`read_model` and `write_model` take files of any format; a `Model` is a spec with tensors. `import_onnx` turns an ANN
into a spiking network. `migrate_state_dict` changes the style of weight norm.

>>> import torch
>>> from converters import migrate_state_dict
>>> old = {"conv.weight_g": torch.ones(8, 1, 1), "conv.weight_v": torch.randn(8, 4, 3)}
>>> sorted(migrate_state_dict(old, to="parametrized"))
['conv.parametrizations.weight.original0', 'conv.parametrizations.weight.original1']

Names are imported on first use, so that importing the package is cheap.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in typing, whose import takes 10 ms
if TYPE_CHECKING:
    from converters.ann_to_snn.best_candidate import SpikingForms
    from converters.ann_to_snn.messages import import_messages
    from converters.ann_to_snn.onnx_conversion import ImportCallbacks, import_onnx
    from converters.formats.c.c_writer import COptions, write_c
    from converters.formats.model_files import read_model, write_model
    from converters.formats.netx.netx_model import write_netx
    from converters.formats.nir.nir_reader import read_nir
    from converters.formats.nir.nir_writer import write_nir
    from converters.model import Model
    from converters.weight_norm.migration_plan import migrate_state_dict

__all__ = [
    "COptions",
    "ImportCallbacks",
    "Model",
    "SpikingForms",
    "import_messages",
    "import_onnx",
    "migrate_state_dict",
    "read_model",
    "read_nir",
    "write_c",
    "write_model",
    "write_netx",
    "write_nir",
]

_HOMES = {
    "COptions": "converters.formats.c.c_writer",
    "ImportCallbacks": "converters.ann_to_snn.onnx_conversion",
    "Model": "converters.model",
    "SpikingForms": "converters.ann_to_snn.best_candidate",
    "import_messages": "converters.ann_to_snn.messages",
    "import_onnx": "converters.ann_to_snn.onnx_conversion",
    "migrate_state_dict": "converters.weight_norm.migration_plan",
    "read_model": "converters.formats.model_files",
    "write_model": "converters.formats.model_files",
    "read_nir": "converters.formats.nir.nir_reader",
    "write_c": "converters.formats.c.c_writer",
    "write_netx": "converters.formats.netx.netx_model",
    "write_nir": "converters.formats.nir.nir_writer",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
