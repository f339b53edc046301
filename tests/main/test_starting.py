"""What is done with the result of a command."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from e2e_abmilx.main.starting import (
    call,
    call_with_folder,
    draw_figures,
    refuse_failed_slides,
    refuse_failures,
    refuse_problems,
)


def _double(number: int, *, dry_run: bool = False) -> tuple[int, bool]:
    """Double a number.

    Args:
        number: The number.
        dry_run: Whether to do nothing.
    """
    return 2 * number, dry_run


def test_options_are_parsed_by_the_signature() -> None:
    assert call("double", _double, ["--number", "2"]) == (4, False)
    assert call("double", _double, ["--dry-run", "--number=3"]) == (6, True)


def test_a_folder_may_come_first() -> None:
    assert call_with_folder("double", _double, ["2", "--dry_run", "true"]) == (4, True)
    assert call_with_folder("double", _double, ["--dry-run", "--number", "3"]) == (6, True)


def test_failures_end_with_a_count_or_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [SimpleNamespace(status="failed"), SimpleNamespace(status="cached")]
    with pytest.raises(SystemExit, match="error: 1 of 2 slides failed"):
        refuse_failed_slides(rows)
    refuse_failed_slides(rows[1:])
    with pytest.raises(SystemExit, match="error: 1 slides or cases failed:\nslide-1: unreadable"):
        refuse_failures(["slide-1: unreadable"])
    refuse_failures([])
    refuse_failures(None)
    with pytest.raises(SystemExit, match="error: 1 problems"):
        refuse_problems(["slide-1, 0.5 µm/px, patch 3"])
    with pytest.raises(SystemExit) as stopped:
        refuse_problems([])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "slide-1, 0.5 µm/px, patch 3",
        "every patch of every store is intact",
    ]


def test_figures_of_no_test_are_not_drawn(tmp_path: Path) -> None:
    draw_figures(None)
    draw_figures(tmp_path)  # holds no predictions: only logged
    assert not (tmp_path / "figures").exists()
