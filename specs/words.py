"""Words of messages that depend on a number."""

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    >>> counted(1, "class"), counted(1200, "class"), counted(0, "bit")
    ('1 class', '1,200 classes', '0 bits')
    """
    return f"{n:,} {noun if n == 1 else noun + ('es' if noun.endswith('s') else 's')}"
