"""Tables of the HTML page."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NUMBER = re.compile(r"[-−]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ?± ?[\d.]+)?( \(.*\))?|–")


class Table(NamedTuple):
    """A table whose first column names the rows.

    Attributes:
        caption: Title above the table.
        head: Title of each column.
        rows: Cells of each row. A cell that is a dictionary becomes links, from text to address.
        sortable: Whether a click on a column title sorts the rows.
    """

    caption: str
    head: Sequence[object]
    rows: Sequence[Sequence[object]]
    sortable: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds only numbers, which are aligned to the right."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.head)
        return [all(_NUMBER.fullmatch(str(cell)) for cell in column) for column in columns]
