"""Docstrings of this package as Markdown: roles, equations and tables are written in reStructuredText there."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`([^`]+)`")
_TITLED = re.compile(r"(.+?)\s*<[^>]+>$", re.DOTALL)
_MATH = re.compile(r"^( *)\.\. math::[ ]*(.*)\n((?:\1 +.*\n|[ ]*\n)*)", re.MULTILINE)
_RULE = re.compile(r" *=+(?: +=+)+ *$")


class MarkdownDocstrings(griffe.Extension):
    """Rewrite each docstring when it is found."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ANN401
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Return a docstring with Markdown instead of reStructuredText."""
    text = _ROLE.sub(lambda found: f"`{_short(found[1])}`", text)
    text = re.sub(r":math:`([^`]+)`", lambda found: f"${' '.join(found[1].split())}$", text)
    return _convert_tables(_MATH.sub(_display, f"{text}\n"))


def _short(target: str) -> str:
    """Return what a reader sees of a role's target: its title, or the last part of a name that starts with ``~``."""
    if titled := _TITLED.match(target):
        return titled[1]
    return target[1:].rpartition(".")[2] if target.startswith("~") else target


def _display(found: re.Match[str]) -> str:
    """Return a displayed equation per row, without the marks that align rows."""
    indent, first, rest = found.groups()
    rows = re.split(r"\n\s*\n|\\\\", f"{first}\n{rest}")
    rows = [" ".join(row.replace("&", " ").split()) for row in rows if row.strip()]
    return "".join(f"\n{indent}$$\n{indent}{row}\n{indent}$$\n" for row in rows) + "\n"


def _convert_tables(text: str) -> str:
    """Convert tables that are ruled by lines of ``=``."""
    lines = text.split("\n")
    rules = [number for number, line in enumerate(lines) if _RULE.match(line)]
    while len(rules) >= 3:
        top, middle, bottom = rules[:3]
        starts = [found.start() for found in re.finditer(r"=+", lines[top])]
        rows = [_cells(line, starts) for line in [lines[top + 1], *lines[middle + 1 : bottom]]]
        indent = " " * starts[0]
        table = [f"{indent}| {' | '.join(row)} |" for row in rows]
        table.insert(1, f"{indent}|{' --- |' * len(starts)}")
        lines[top : bottom + 1] = ["", *table, ""]
        rules = [number for number, line in enumerate(lines) if _RULE.match(line)]
    return "\n".join(lines)


def _cells(line: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], None]
    return [line[start:end].strip().replace("|", r"\|") for start, end in zip(starts, ends, strict=True)]
