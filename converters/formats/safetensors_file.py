"""Model files: one safetensors file each, with the spec and the card in its metadata.

All metadata are under one key: the same model must give the same bytes, but safetensors writes several keys in random
order.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from converters.formats.safetensors_header import read_header
from converters.formats.state_dict_file import open_safetensors
from converters.model import Model, check_card, check_fit
from converters.weight_norm.norm_styles import Style, all_finite, has_no_direction, names_of
from specs.errors import IntegrityError, SpecError
from specs.files.memory import refuse_beyond_memory
from specs.files.whole_file import write_whole
from specs.io import spec_from_document

METADATA_KEY = "snnzoo"
"""The only metadata key; its value is JSON. Several keys would be written in random order: other bytes each time."""

FORMAT = 1

DIRECTION = names_of("weight", Style.PARAMETRIZED)[1]
"""End of the names of weight-norm directions."""


def write_safetensors(model: Model, path: Path) -> Path:
    """Write a model file; the same model gives the same bytes."""
    metadata = {
        "format": FORMAT,
        "spec": model.spec.model_dump(mode="json"),
        "sampler": "blocks.*.sampler.{centers,slopes,n_centers}",
        "card": dict(model.card),
    }
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    tensors = {name: tensor.contiguous() for name, tensor in model.tensors.items()}
    return write_whole(path, safetensors.torch.save(tensors, {METADATA_KEY: text}))


def read_safetensors(path: Path) -> Model:
    """Read a model file."""
    metadata = read_metadata(path)
    try:
        spec = spec_from_document(metadata["spec"], origin=f"{path} (spec inside)")
    except SpecError as error:
        raise IntegrityError(str(error)) from None
    with open_safetensors(path) as file:
        check_fit(spec, sum(value.numel() for value in file.tensors.values()), origin=str(path))
        n_bytes = sum(value.numel() * value.dtype.itemsize for value in file.tensors.values())
        refuse_beyond_memory(n_bytes, f"{path}: reading its tensors")
        tensors = {name: _as_in_networks(file.whole(name)) for name in file.tensors}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise IntegrityError(f"{path}: tensor {name} holds values that are not finite")
        if tensor.is_floating_point() and not all_finite(tensor.float()):  # networks convert it to float32
            raise IntegrityError(f"{path}: tensor {name} holds values beyond the range of float32")
        if name.endswith(DIRECTION) and has_no_direction(tensor):
            raise IntegrityError(f"{path}: tensor {name} has a channel of zeros, for which weight norm returns NaN")
    return Model(spec, tensors, check_card(metadata.get("card", {}), str(path)), origin=str(path))


def _as_in_networks(tensor: Tensor) -> Tensor:
    """Return a tensor with numbers of fewer than 32 bits, which NumPy and norms partly lack, as float32."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def describes_itself(path: Path) -> bool:
    """Return whether a safetensors file is a model file rather than a bare state dict."""
    return METADATA_KEY in read_header(path).metadata


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return the metadata of a model file, with `spec` and `card`, without reading its tensors."""
    raw = read_header(path).metadata.get(METADATA_KEY)
    if raw is None:
        raise IntegrityError(
            f"{path} is a state dict, not a snnzoo model: it contains no spec\n"
            "zoo migrate changes its weight norms; if it is lava-dl's, zoo convert makes a model from it"
        )
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: metadata is not JSON: {error}") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("spec"), dict):
        raise IntegrityError(f"{path}: metadata has no spec")
    if metadata.get("format") != FORMAT:
        raise IntegrityError(f"{path}: model format {metadata.get('format')!r}; this version of snnzoo reads {FORMAT}")
    return metadata
