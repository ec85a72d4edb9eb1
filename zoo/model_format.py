"""The formats that models are kept in."""

from enum import StrEnum

__all__ = ["ModelFormat"]


class ModelFormat(StrEnum):
    """Formats of model files, as `zoo pull --format` names them."""

    SAFETENSORS = "safetensors"
    NETX = "netx"
    NIR = "nir"

    @property
    def suffix(self) -> str:
        """Of its files.

        >>> ModelFormat.NETX.suffix
        '.net'
        """
        return {"safetensors": ".safetensors", "netx": ".net", "nir": ".nir"}[self]
