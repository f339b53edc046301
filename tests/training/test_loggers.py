"""Rows of metrics.csv are on disk at once, and a resumed run continues them."""

import csv
from pathlib import Path

from e2e_abmilx.training.loggers import RunLogger


def _log(folder: Path, rows: list[dict[str, float]], *, resume: bool = False) -> None:
    logger = RunLogger(folder, resume=resume)
    for row in rows:
        values = {key: value for key, value in row.items() if key != "step"}
        logger.log_metrics(values, step=int(row["step"]))
        logger.save()


def _read(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _row(step: int, **values: float) -> dict[str, float]:
    return {"step": step, **values}


def test_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    rows = [_row(0, loss=1.0), _row(1, loss=0.5), _row(1, val=0.7), _row(2, loss=0.25, lr=0.1)]
    _log(tmp_path, rows)
    assert _read(tmp_path) == rows


def test_a_resumed_run_replaces_outdated_rows(tmp_path: Path) -> None:
    _log(tmp_path, [_row(0, loss=1.0), _row(1, loss=0.5), _row(1, val=0.7), _row(2, loss=9.0), _row(2, val=9.0)])
    again = [_row(2, loss=0.25), _row(2, val=0.8), _row(3, loss=0.2, new=1.0)]
    _log(tmp_path, again, resume=True)
    assert _read(tmp_path) == [_row(0, loss=1.0), _row(1, loss=0.5), _row(1, val=0.7), *again]


def test_a_resumed_step_keeps_its_other_rows(tmp_path: Path) -> None:
    _log(tmp_path, [_row(1, loss=0.5), _row(1, val=0.7)])
    _log(tmp_path, [_row(1, val=0.8)], resume=True)
    assert _read(tmp_path) == [_row(1, loss=0.5), _row(1, val=0.8)]


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    _log(tmp_path, [_row(5, loss=0.5)])
    _log(tmp_path, [_row(0, loss=1.0)])
    assert _read(tmp_path) == [_row(0, loss=1.0)]
    _log(tmp_path / "empty", [_row(0, loss=1.0)], resume=True)
    assert _read(tmp_path / "empty") == [_row(0, loss=1.0)]
