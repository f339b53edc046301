"""Rows are passed on as they arrive, with their speed, and reported sorted by slide."""

import logging

import pytest

from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.cache.rows import report, watch

ROWS = [
    CachedSlide("b", "done", patches="12;4", bytes=2_000_000, seconds=3.0),
    CachedSlide("a", "failed", "it is no slide"),
]


def test_rows_are_passed_on_one_by_one() -> None:
    taken: list[str] = []

    def rows():  # type: ignore[no-untyped-def]
        for row in ROWS:
            taken.append(row.slide)
            yield row

    watched = watch(rows(), "caching", 2)
    assert next(watched) == ROWS[0]
    assert taken == ["b"]
    assert list(watched) == ROWS[1:]


def test_failures_and_totals_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "e2e_abmilx"):
        assert [row.slide for row in report(ROWS)] == ["a", "b"]
    assert "a failed: it is no slide" in caplog.text
    assert "1 slides, 16 patches, 2.0 MB, 3 s of work; 1 failed" in caplog.text
