"""Progress of long work: a bar on a terminal, lines of the log elsewhere.

Work that takes less than 5 s leaves nothing to see. ``logging.getLogger("e2e_abmilx").setLevel(logging.WARNING)``
silences bars and lines.
"""

import logging
import math
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

logger = logging.getLogger(__name__)

SHORT_S = 5.0  # shorter work is not reported
EVERY_S = 10.0  # least time between two lines about the same work


class Pace:
    """Timer of long work: when its next line is due, and how to describe the time that it takes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._due = self._started + SHORT_S

    def is_due(self) -> bool:
        """Return whether it is time for a line."""
        return time.monotonic() >= self._due

    def postpone(self) -> None:
        """Make the next line due in 10 s."""
        self._due = time.monotonic() + EVERY_S

    def is_long(self) -> bool:
        """Return whether the work has lasted long enough to be reported."""
        return time.monotonic() - self._started >= SHORT_S

    def describe(self, done: float, left: float) -> str:
        """Return for example ``0:00:42 elapsed, about 0:04:50 to go``.

        Args:
            done: Amount of work done since the start.
            left: Amount of work left in the same unit; infinite where it is unknown.
        """
        elapsed_s = time.monotonic() - self._started
        elapsed = f"{timedelta(seconds=round(elapsed_s))} elapsed"
        if not done or not 0 < left < math.inf:
            return elapsed
        return f"{elapsed}, about {timedelta(seconds=round(elapsed_s / done * left))} to go"


class Progress:
    """Count of finished items, shown as a bar on standard error or as lines of the log.

    The first line comes after 5 s, the next ones at least 10 s apart, and the last one at the end.

    Args:
        doing: The work, such as ``caching``.
        total: Number of items.
        unit: Name of the items, in the plural.
        ready: Number of items that were finished before, which do not count in the estimate of the time to go.
        bar: Show a bar instead of lines.
    """

    def __init__(self, doing: str, total: float, unit: str, *, ready: int = 0, bar: bool = False) -> None:
        self._doing, self._total, self._unit, self._ready = doing, total, unit, ready
        self._done, self._note = ready, ""
        self._pace = Pace()
        form = "{l_bar}{bar}| {n_fmt} of {total_fmt} {unit} [{elapsed}<{remaining}{postfix}]"
        # without smoothing, tqdm estimates the time to go as the lines do
        how = {"smoothing": 0, "dynamic_ncols": True, "bar_format": form}
        self._bar = tqdm(desc=doing, total=total, initial=ready, unit=unit, **how) if bar else None

    def advance(self, note: str = "") -> None:
        """Count an item, and show a note next to the count from now on."""
        self._done += 1
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
        elif self._done < self._total and self._pace.is_due():
            self._write_line()

    def close(self) -> None:
        """Leave the bar or write the last line after long work; remove the bar after short work."""
        if self._bar is not None:
            self._bar.leave = self._pace.is_long()
            self._bar.close()
        elif self._pace.is_long():
            self._write_line()

    def _write_line(self) -> None:
        self._pace.postpone()
        times = self._pace.describe(self._done - self._ready, self._total - self._done)
        count = f"{self._done} of {self._total} {self._unit}"
        logger.info("%s: %s", self._doing, ", ".join(filter(None, (count, self._note, times))))


@contextmanager
def show_progress(doing: str, total: int, unit: str, *, ready: int = 0) -> Iterator[Progress]:
    """Show the progress of a block, which calls ``advance`` after each item; see :class:`Progress`."""
    progress = Progress(doing, total, unit, ready=ready, bar=ready < total and _may_draw())
    try:
        yield progress
    finally:
        progress.close()


def track(items: Collection[T], doing: str, unit: str) -> Iterator[T]:
    """Yield items one by one, and show how many of them the caller has finished; see :class:`Progress`."""
    with show_progress(doing, len(items), unit) as progress:
        for item in items:
            yield item
            progress.advance()


def _may_draw() -> bool:
    """Return whether standard error is a terminal and the package's log shows messages of level INFO.

    The root logger's level does not count: it is WARNING unless the user sets it.
    """
    level = logger.level or logging.getLogger("e2e_abmilx").level
    return level <= logging.INFO and sys.stderr.isatty()
