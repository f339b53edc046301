"""The settings of a section."""

import time
from pathlib import Path
from typing import NamedTuple


class Settings(NamedTuple):
    """The settings of a section.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        tiny: Whether this is a rehearsal, with sizes that do not show speed.
        scratch: An empty folder, removed after the section.
        ends: Time at which the section is stopped, by ``time.monotonic``.
    """

    device: str
    tiny: bool
    scratch: Path
    ends: float

    def seconds_left(self) -> float:
        """Seconds until the section is stopped."""
        return self.ends - time.monotonic()
