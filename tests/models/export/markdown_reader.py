"""An independent reader of Markdown: the blocks of a text, and the text that people see."""

from typing import Any

import mistune

_READ = mistune.create_markdown(renderer=None, plugins=["table"])


def blocks_of(markdown: str) -> list[dict[str, Any]]:
    """Return the headings, paragraphs, tables, lists and blocks of code."""
    return [block for block in _READ(markdown) if block["type"] != "blank_line"]


def text_of(node: dict[str, Any]) -> str:
    """Return the text that people see; HTML is not text."""
    if "children" in node:
        return "".join(map(text_of, node["children"]))
    return "" if "html" in node["type"] else node.get("raw", "\n" if "break" in node["type"] else "")


def rows_of(table: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table, its head first."""
    head, body = table["children"]
    return [[text_of(cell) for cell in row["children"]] for row in [head, *body["children"]]]
