"""What a section is told."""

import time
from pathlib import Path
from typing import NamedTuple


class Settings(NamedTuple):
    """What a section is told.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        tiny: Whether this is a rehearsal: sizes that say nothing about speed.
        scratch: An empty folder, removed after the section.
        ends: When the section is stopped, on the clock ``time.monotonic``.
    """

    device: str
    tiny: bool
    scratch: Path
    ends: float

    def seconds_left(self) -> float:
        """Seconds until the section is stopped."""
        return self.ends - time.monotonic()
