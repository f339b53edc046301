"""The tests that need a GPU: ``pytest -m gpu``."""

import os
import time
from pathlib import Path

import pytest

from gpu_sections.rows import Rows, last_lines
from gpu_sections.settings import Settings

ROOT = Path(__file__).parents[2]
MARK = "mark.gpu"


def run(settings: Settings, rows: Rows) -> None:
    """Run the tests, or only collect them without a GPU."""
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if MARK in file.read_text(encoding="utf-8")]
    os.chdir(ROOT)
    arguments = ["-m", "gpu", "-o", "addopts=", "--strict-markers", "-q", "-p", "no:cacheprovider"]
    arguments += ["--rootdir", str(ROOT), "--basetemp", str(settings.scratch / "pytest")]
    arguments += ["--continue-on-collection-errors"]
    if settings.device != "cuda":
        arguments.append("--collect-only")
        rows.note("No CUDA device: the tests are only collected.")
    record = Record(rows)
    status = pytest.main([*arguments, *map(str, files)], plugins=[record])
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        rows.fail(f"no test is marked gpu in {len(files)} files under {ROOT / 'tests'}")
    elif status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        rows.fail(f"pytest ended with {pytest.ExitCode(status).name}; see the log")


class Record:
    """A pytest plugin that records the outcome of each test immediately.

    Args:
        rows: Takes the outcomes.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.slowest = (0.0, "")
        self._started = time.perf_counter()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record files that cannot be imported as failures."""
        if report.failed:
            self.rows.fail(f"{report.nodeid} cannot be collected", last_lines(report.longreprtext))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record the number of tests and of files."""
        self.rows.facts({"collected": len(session.items), "files": len({item.path for item in session.items})})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record the running test, in case it never ends."""
        self.rows.facts({"last started": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcome; record failures and reasons for skipping."""
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] += 1
        self.slowest = max(self.slowest, (report.duration, report.nodeid))
        if report.failed:
            self.rows.fail(f"{report.nodeid} ({report.when})", last_lines(report.longreprtext))
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.rows.note(f"{report.nodeid}: {reason}")
        self.rows.facts(
            {
                **self.counts,
                "slowest": f"{self.slowest[1]}, {self.slowest[0]:.1f} s",
                "took": f"{time.perf_counter() - self._started:.0f} s",
            }
        )
