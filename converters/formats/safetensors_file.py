"""Model files: one safetensors file each, with the spec and the card in its metadata.

All metadata are under one key: the same model must give the same bytes, but safetensors writes several keys in random
order. A weight `w` on the grid of 8 bits is stored as two tensors: `w`, int8, and the step `w_scale`, float32, of all
its numbers or of each channel.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from converters.formats.state_dict_file import METADATA_KEY, SCALE, open_safetensors, read_header
from converters.model import Model, check_card, check_fit, eight_bit_weights
from converters.weight_norm.norm_styles import Style, all_finite, has_no_direction, names_of
from specs.errors import IntegrityError, SpecError
from specs.files.limits import refuse_beyond_memory
from specs.files.whole_file import refuse_overwriting, write_whole
from specs.io import spec_from_document

FORMAT, FORMAT_8_BITS = 1, 2
"""Versions of the format: files whose tensors are those of the state dict, and files with weights in 8 bits."""

DIRECTION = names_of("weight", Style.PARAMETRIZED)[1]
"""End of the names of weight-norm directions."""


def write_safetensors(model: Model, path: Path, *, overwrite: bool = False) -> Path:
    """Write a model file; the same model gives the same bytes. Weights on the grid of 8 bits are stored in 8 bits."""
    refuse_overwriting(path, overwrite=overwrite)
    tensors = {name: tensor.contiguous() for name, tensor in model.tensors.items()}
    version = FORMAT
    for name, packed in eight_bit_weights(model.build()).items():
        if tensors[name].dtype == torch.float32 and torch.equal(packed.weight(), tensors[name]):
            tensors |= {name: packed.integers, f"{name}{SCALE}": packed.step}
            version = FORMAT_8_BITS
    metadata = {
        "format": version,
        "spec": model.spec.model_dump(mode="json"),
        "sampler": "blocks.*.sampler.{centers,slopes,n_centers}",
        "card": dict(model.card),
    }
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
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
    if (version := metadata.get("format")) not in (FORMAT, FORMAT_8_BITS):
        raise IntegrityError(
            f"{path}: model format {version!r}; this version of snnzoo reads {FORMAT} and {FORMAT_8_BITS}"
        )
    return metadata
