"""How far long work has come: a bar on a terminal, otherwise lines of the log.

``logging.getLogger("e2e_abmilx").setLevel(logging.WARNING)`` silences both.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds that work may last without a word.
SHORT_S = 5.0

#: Seconds between two lines about the same work, at least.
EVERY_S = 10.0


class Pace:
    """When a line about some work is due, and what it says of the time.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._due = self._started + SHORT_S

    def is_due(self) -> bool:
        """Return whether it is time for a line."""
        return self._clock() >= self._due

    def rest(self) -> None:
        """Let 10 s pass before the next line is due."""
        self._due = self._clock() + EVERY_S

    def is_long(self) -> bool:
        """Return whether the work has lasted long enough to be told of."""
        return self._clock() - self._started >= SHORT_S

    def describe(self, done: float, left: float) -> str:
        """Return such as ``0:00:42 elapsed, about 0:04:50 to go``.

        Args:
            done: What was done since the start.
            left: What is left, counted likewise; infinite where that is unknown.
        """
        elapsed_s = self._clock() - self._started
        elapsed = f"{timedelta(seconds=round(elapsed_s))} elapsed"
        if not done or not 0 < left < math.inf:
            return elapsed
        return f"{elapsed}, about {timedelta(seconds=round(elapsed_s / done * left))} to go"


class Lines:
    """Progress as lines of the log: none in the first 5 s, then one in 10 s at most, and one at the end.

    Args:
        doing: The work, such as ``caching``.
        total: What it is to come to.
        unit: What is counted, in the plural.
        ready: What was there before, and so says nothing of the pace.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        doing: str,
        total: float,
        unit: str,
        *,
        ready: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing, self._total, self._unit, self._ready = doing, total, unit, ready
        self._done, self._note = ready, ""
        self._pace = Pace(clock)

    def advance(self, note: str = "") -> None:
        """Count one more, with what else there is to say by now."""
        self._done += 1
        self._note = note
        if self._done < self._total and self._pace.is_due():
            self._write()

    def close(self) -> None:
        """Tell how far it came, unless that was short."""
        if self._pace.is_long():
            self._write()

    def _write(self) -> None:
        self._pace.rest()
        times = self._pace.describe(self._done - self._ready, self._total - self._done)
        count = f"{self._done} of {self._total} {self._unit}"
        logger.info("%s: %s", self._doing, ", ".join(filter(None, (count, self._note, times))))


class Bar:
    """Progress as a bar on standard error, of which short work leaves no trace.

    Args:
        doing: The work, such as ``caching``.
        total: What it is to come to.
        unit: What is counted, in the plural.
        ready: What was there before, and so says nothing of the pace.
    """

    def __init__(self, doing: str, total: int, unit: str, *, ready: int = 0) -> None:
        self._pace = Pace()
        self._bar = tqdm(
            desc=doing,
            total=total,
            initial=ready,
            unit=unit,
            smoothing=0,  # the time to go is that of the lines
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt} of {total_fmt} {unit} [{elapsed}<{remaining}{postfix}]",
        )

    def advance(self, note: str = "") -> None:
        """Count one more, with what else there is to say by now."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is, or remove it after short work."""
        self._bar.leave = self._pace.is_long()
        self._bar.close()


@contextmanager
def show_progress(doing: str, total: int, unit: str, *, ready: int = 0) -> Iterator[Lines | Bar]:
    """Show progress while a block runs, which is to call ``advance`` for each of what it does.

    Args:
        doing: The work, such as ``caching``.
        total: What it is to come to.
        unit: What is counted, in the plural.
        ready: What was there before, and so says nothing of the pace.
    """
    with_bar = ready < total and _may_draw()
    progress = (Bar if with_bar else Lines)(doing, total, unit, ready=ready)
    try:
        yield progress
    finally:
        progress.close()


def track(items: Collection[T], doing: str, unit: str) -> Iterator[T]:
    """Yield items, and show how many of them the caller is done with.

    Args:
        items: What is worked on, one by one.
        doing: The work, such as ``verifying``.
        unit: What the items are, in the plural.
    """
    with show_progress(doing, len(items), unit) as progress:
        for item in items:
            yield item
            progress.advance()


def _may_draw() -> bool:
    """Whether there is a terminal, and nobody has set the package's log above INFO.

    The root's level does not count: it is WARNING where nobody has chosen any.
    """
    level = logger.level or logging.getLogger("e2e_abmilx").level
    return level <= logging.INFO and sys.stderr.isatty()
