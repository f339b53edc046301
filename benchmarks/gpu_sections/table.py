"""The tables: the results of a run as readable text."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpu_sections import Section

Line = Mapping[str, Any]

_WIDTH = 116
_INDENT = "  "


def show_section(title: str, lines: Sequence[Line]) -> str:
    """Return the text of a section: heading, values, table, targets, notes, failures.

    Args:
        title: Title of the section.
        lines: Lines of the section, in order.
    """
    end = next(line["end"] for line in lines if "end" in line)
    heading = f"{title}: {end['outcome']}, {end['seconds']:.0f} s (limit {end['limit_s']:.0f} s)"
    facts: dict[str, Any] = {}
    for line in lines:
        facts |= line.get("facts", {})
    body = [
        *show_facts(facts),
        *show_rows([line["row"] for line in lines if "row" in line]),
        *(_sentence("target", _target(line["target"])) for line in lines if "target" in line),
        *(_sentence("note", line["note"]) for line in lines if "note" in line),
        *(_failure(line["failure"]) for line in lines if "failure" in line),
    ]
    return "\n".join([heading, "=" * len(heading), *body, ""])


def show_summary(sections: Sequence[Section], lines: Sequence[Line]) -> str:
    """Return the text about the outcomes of the sections and the missed targets."""
    ends = {line["section"]: line["end"] for line in lines if "end" in line}
    rows = [
        {"section": section.name, "outcome": end["outcome"], "s": end["seconds"], "limit s": section.limit_s}
        for section in sections
        if (end := ends.get(section.name))
    ]
    targets = [line["target"] for line in lines if "target" in line]
    missed = [_target(target) for target in targets if not target["met"]]
    took = sum(row["s"] for row in rows)
    met = f", {len(targets) - len(missed)} of {len(targets)} targets met" if targets else ""
    heading = f"Total: {took:.0f} s{met}"
    return "\n".join([heading, "=" * len(heading), *show_rows(rows), *(_sentence("missed", text) for text in missed)])


def show_facts(facts: Mapping[str, Any]) -> list[str]:
    """Return single values, one per line."""
    width = max(map(len, facts), default=0)
    return [f"{_INDENT}{name:{width}}  {_cell(value)}" for name, value in facts.items()]


def show_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table: text left-aligned, numbers right-aligned, a dash for unknown; unknown columns are left out."""
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    shown = []
    for column in columns:
        values = [row.get(column) for row in rows]
        cells = [column, *map(_cell, values)]
        width = max(map(len, cells))
        left = all(isinstance(value, str) or value is None for value in values)
        shown.append([cell.ljust(width) if left else cell.rjust(width) for cell in cells])
    return [_INDENT + "  ".join(cells).rstrip() for cells in zip(*shown, strict=True)]


def _cell(value: Any) -> str:
    """Format a value with three significant digits, and integers in full."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _target(target: Mapping[str, Any]) -> str:
    reached = "met" if target["met"] else "MISSED"
    return f"{target['name']} {_cell(target['value'])} ({target['sign']} {_cell(target['bound'])}): {reached}"


def _sentence(label: str, text: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"{_INDENT}{label}: ", subsequent_indent=2 * _INDENT, break_on_hyphens=False
    )


def _failure(failure: Mapping[str, str]) -> str:
    lines: Iterable[str] = failure["details"].splitlines()
    return "\n".join([f"{_INDENT}FAILED: {failure['what']}", *(f"{3 * _INDENT}{line}" for line in lines)])
