"""The one exception tree. Everything snnzoo expects to go wrong is a `SnnZooError`; anything else is a bug."""

__all__ = [
    "ConversionError",
    "DataError",
    "IntegrityError",
    "LostProcessError",
    "SnnZooError",
    "SpecError",
    "StateOverflowError",
    "TransferError",
    "UnsupportedError",
]


class SnnZooError(Exception):
    """Base of all expected failures. The message says what, where, and what to do, in one line or a few."""


class SpecError(SnnZooError):
    """A network or training specification that cannot describe a runnable network."""


class ConversionError(SnnZooError):
    """A file or network that cannot be converted."""


class UnsupportedError(ConversionError):
    """A construct that the target format, or snnzoo, cannot express."""


class IntegrityError(SnnZooError):
    """A file whose bytes are not what they should be: digest, size, truncation, wrong format."""


class DataError(SnnZooError):
    """A dataset or image that is missing or unreadable."""


class TransferError(SnnZooError):
    """A server or a network that does not give what is asked of it."""


class StateOverflowError(SnnZooError):
    """An integer state that leaves the range of the hardware's registers."""


class LostProcessError(SnnZooError):
    """One of several processes that work together has ended, or does not answer."""
