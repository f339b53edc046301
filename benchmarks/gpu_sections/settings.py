"""What a section is told."""

from pathlib import Path
from typing import NamedTuple


class Settings(NamedTuple):
    """What a section is told.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        tiny: Whether this is a rehearsal: sizes that say nothing about speed.
        scratch: An empty folder, removed after the section.
    """

    device: str
    tiny: bool
    scratch: Path
