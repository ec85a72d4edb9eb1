"""Formats of model files."""

from enum import StrEnum


class ModelFormat(StrEnum):
    """Format of a model file, by its name in `zoo pull --format`."""

    SAFETENSORS = "safetensors"
    NETX = "netx"
    NIR = "nir"

    @property
    def suffix(self) -> str:
        """Suffix of files in this format.

        >>> ModelFormat.NETX.suffix
        '.net'
        """
        return {"safetensors": ".safetensors", "netx": ".net", "nir": ".nir"}[self]
