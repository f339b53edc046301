"""The results of sections: lines of JSON, written as soon as they are measured."""

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Cell = str | float | int | None


class Rows:
    """The lines of one section, appended to a file that outlives the process.

    Args:
        file: The file of JSON lines.
        section: Name of the section.
    """

    def __init__(self, file: Path, section: str) -> None:
        self.file, self.section = file, section

    def add(self, row: Mapping[str, Cell]) -> None:
        """Add a row to the section's table; names of columns include the unit, None means unknown."""
        self.write("row", dict(row))

    def facts(self, facts: Mapping[str, Cell]) -> None:
        """Add or replace single values, which are shown one per line."""
        self.write("facts", dict(facts))

    def note(self, text: str) -> None:
        """Add a sentence."""
        self.write("note", text)

    def target(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Add a value with its target, and whether the target is met."""
        bound, met = (at_least, value >= at_least) if at_least is not None else (at_most, value <= at_most)
        self.write(
            "target",
            {"name": name, "value": value, "sign": "≥" if at_most is None else "≤", "bound": bound, "met": met},
        )

    def fail(self, what: str, details: str = "") -> None:
        """Add a failure."""
        self.write("failure", {"what": what, "details": details})

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Record an exception of the block as a failure, and continue after the block."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the other measurements must go on
            self.fail(f"{what}: {type(error).__name__}", last_lines(traceback.format_exc()))

    def write(self, kind: str, value: Any) -> None:
        """Append a line."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"section": self.section, kind: value}, ensure_ascii=False) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file; a killed process may have left an incomplete line."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def last_lines(text: str, count: int = 12) -> str:
    """Return the end of a traceback or a log, without lines of position markers."""
    lines = [line for line in text.strip().splitlines() if line.strip(" ^~")]
    return "\n".join(lines[-count:])
