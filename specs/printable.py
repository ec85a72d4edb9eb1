"""Texts from files and servers, made safe to print."""


def printable(text: str) -> str:
    """Replace characters that could control the terminal; every text from a file or a server passes through here.

    >>> printable("a\x1b[2Jb\u202e")
    'a�[2Jb�'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
