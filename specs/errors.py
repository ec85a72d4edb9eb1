"""Exceptions of all packages. Everything that snnzoo expects to go wrong is a `SnnZooError`; anything else is a bug."""


class SnnZooError(Exception):
    """Base of all expected failures. The message names the problem, its place, and what to do."""


class SpecError(SnnZooError):
    """A spec of a network or of its training that is invalid."""


class ConversionError(SnnZooError):
    """A file or network that cannot be converted."""


class UnsupportedError(ConversionError):
    """A construct that the target format, or snnzoo, cannot express."""


class IntegrityError(SnnZooError):
    """A file with unexpected bytes: wrong digest, size or format, or cut short."""


class DataError(SnnZooError):
    """A dataset or image that is missing or unreadable."""


class TransferError(SnnZooError):
    """A failed transfer: a server, a folder or the network did not deliver a file."""


class StateOverflowError(SnnZooError):
    """An integer state that leaves the range of the hardware's registers."""


class LostProcessError(SnnZooError):
    """A process that no longer answers, or has ended, while others still need it."""
