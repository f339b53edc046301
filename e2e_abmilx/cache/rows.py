"""The rows of slides while they arrive: shown as progress, and reported at the end."""

import logging
import time
from collections.abc import Iterator, Sequence

from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.io.progress import show_progress

logger = logging.getLogger(__name__)


def watch(rows: Iterator[CachedSlide], doing: str, total: int, ready: int = 0) -> Iterator[CachedSlide]:
    """Show slides, patches per second and failures while rows arrive."""
    started, patches, failed = time.perf_counter(), 0, 0
    with show_progress(doing, total, "slides", ready=ready) as progress:
        for row in rows:
            patches += row.num_patches
            failed += row.status == "failed"
            speed = f"{patches / (time.perf_counter() - started):.0f} patches/s"
            progress.advance(f"{speed}, {failed} failed" if failed else speed)
            yield row


def report(rows: Sequence[CachedSlide]) -> list[CachedSlide]:
    """Log the failures and the totals; return the rows sorted by slide."""
    for row in rows:
        if row.status == "failed":
            logger.warning("%s failed: %s", row.slide, row.reason)
    done = [row for row in rows if row.status != "failed"]
    patches, size = sum(row.num_patches for row in done), sum(row.bytes for row in done) / 1e6
    seconds, failed = sum(row.seconds for row in done), len(rows) - len(done)
    logger.info("%d slides, %d patches, %.1f MB, %.0f s of work; %d failed", len(done), patches, size, seconds, failed)
    return sorted(rows)
