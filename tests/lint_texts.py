"""Check the texts that people read for rules of plain words; see "Style" in CONTRIBUTING.

    python tests/lint_texts.py

Prints what breaks a rule; exits with 1 if anything does. A message is any string of two words or more that is not a
docstring: errors, warnings, notes, help, titles. Expressions inside a string are shown as {...}.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("specs", "bootstrap_core", "converters", "zoo")
UNCLEAR_START = re.compile(
    r"(Of|What|That|Those|Whether|How|Where|Which|As|By|For each|Such|In|On|At|To|From|With|Without|If|When)\b"
)
"""Words that leave a first line without a verb or a noun of its own."""
UNCLEAR = re.compile(r"\bis none\b|\bis no (?!longer|more)|\bare no (?!longer|more)|\btold\b|\btells\b", re.IGNORECASE)
"""Words that a message must not have."""
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Text:
    """A text and its place in the source."""

    path: Path
    line: int
    name: str
    """Qualified name of what a docstring documents; empty for a message."""
    text: str

    def __str__(self) -> str:
        place = f"{self.path.relative_to(ROOT)}:{self.line}"
        return f"{place}  {self.name + ': ' if self.name else ''}{self.text}"


def sources(*folders: str) -> list[Path]:
    """Return the Python files of folders, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def messages(path: Path) -> Iterator[Text]:
    """Yield each string of two words or more that is not a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {id(part) for node in ast.walk(tree) for part in _parts(node)}
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant):
            text = _text(node)
            if len(text.split()) > 1:
                yield Text(path, node.lineno, "", text)


def docstrings(path: Path) -> Iterator[Text]:
    """Yield the first line of each docstring of a module, class, function, or attribute."""
    yield from _docstrings(path, ast.parse(path.read_text("utf-8")), "")


def _docstrings(path: Path, node: ast.AST, prefix: str) -> Iterator[Text]:
    name = ".".join(filter(None, (prefix, getattr(node, "name", ""))))
    if isinstance(node, Documented) and (text := ast.get_docstring(node)) is not None:
        yield Text(path, node.body[0].lineno, name or "module", text.splitlines()[0])
    body = getattr(node, "body", [])
    for before, after in pairwise(body) if isinstance(body, list) else ():
        if isinstance(before, ast.Assign | ast.AnnAssign) and _is_text(after):
            target = before.target if isinstance(before, ast.AnnAssign) else before.targets[0]
            documented = f"{name}.{ast.unparse(target)}".strip(".")
            yield Text(path, after.lineno, documented, _text(after.value).splitlines()[0])
    for child in ast.iter_child_nodes(node):
        yield from _docstrings(path, child, name)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield strings that are not messages of their own: docstrings, and parts of a longer string."""
    if _is_text(node):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield from (part for part in ast.walk(node) if part is not node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "{...}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def broken_rules() -> Iterator[str]:
    """Yield each text that breaks a rule, with its place and the rule."""
    for path in sources(*PACKAGES, "tests"):
        for text in docstrings(path):
            if UNCLEAR_START.match(text.text):
                yield f"{text}  (a first line starts with a verb or a noun)"
    for path in sources(*PACKAGES):
        for text in messages(path):
            if found := UNCLEAR.search(text.text):
                yield f"{text}  (say it without {found[0]!r})"


if __name__ == "__main__":
    lines = list(broken_rules())
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(bool(lines))
