"""Progress of long work: a bar in a real terminal, lines in a pipe, and nothing for short work or a quiet log."""

import contextlib
import fcntl
import itertools
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import e2e_abmilx.io.progress
from e2e_abmilx.cache import cache_slides, verify
from e2e_abmilx.io.progress import Pace, Progress
from e2e_abmilx.synthetic import write_cohort


class _Clock:
    """Stands for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class _Written(logging.Handler):
    """Keeps the messages of the log and their times."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self.clock = clock
        self.lines: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((self.clock.now - 1000, record.getMessage()))


def _work(steps_s: list[float], *, ready: int = 0, total: int | None = None) -> list[tuple[float, str]]:
    """Return the lines about work whose steps take these seconds."""
    clock = _Clock()
    written = _Written(clock)
    logger = logging.getLogger("e2e_abmilx.io.progress")
    logger.addHandler(written)
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(e2e_abmilx.io.progress, "time", clock)
        lines = Progress("caching", total or ready + len(steps_s), "slides", ready=ready)
        for step_s in steps_s:
            clock.now += step_s
            lines.advance()
        lines.close()
    logger.removeHandler(written)
    logger.setLevel(logging.NOTSET)
    return written.lines


# Lines ----------------------------------------------------------------------------------------------------------


def test_lines_show_the_count_and_the_time_to_go() -> None:
    assert _work([7.0] * 5) == [
        (7, "caching: 1 of 5 slides, 0:00:07 elapsed, about 0:00:28 to go"),
        (21, "caching: 3 of 5 slides, 0:00:21 elapsed, about 0:00:14 to go"),
        (35, "caching: 5 of 5 slides, 0:00:35 elapsed"),
    ]


def test_items_that_were_finished_before_do_not_count_in_the_estimate() -> None:
    assert _work([30.0], ready=900, total=960) == [
        (30, "caching: 901 of 960 slides, 0:00:30 elapsed, about 0:29:30 to go"),
        (30, "caching: 901 of 960 slides, 0:00:30 elapsed, about 0:29:30 to go"),
    ]


@given(st.lists(st.floats(0, 30), max_size=60))
def test_lines_are_few_and_the_last_one_is_complete(steps_s: list[float]) -> None:
    lines = _work(steps_s)
    elapsed_s = sum(steps_s)
    if elapsed_s < 4.99:
        assert lines == []
        return
    times = [time for time, _ in lines]
    if elapsed_s > 5.01:
        assert lines[-1][1].startswith(f"caching: {len(steps_s)} of {len(steps_s)} slides, ")
    assert all(time >= 5 for time in times)
    assert all(after - before > 9.99 for before, after in itertools.pairwise(times[:-1]))


@pytest.mark.parametrize(
    ("done", "left", "expected"),
    [
        (1, 3, "0:00:20 elapsed, about 0:01:00 to go"),
        (3, 1, "0:00:20 elapsed, about 0:00:07 to go"),
        (1, 5000, "0:00:20 elapsed, about 1 day, 3:46:40 to go"),
        (0, 4, "0:00:20 elapsed"),
        (4, 0, "0:00:20 elapsed"),
        (4, float("inf"), "0:00:20 elapsed"),
    ],
)
def test_time_to_go(done: float, left: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 20.0])
    monkeypatch.setattr(e2e_abmilx.io.progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert Pace().describe(done, left) == expected


# Commands -------------------------------------------------------------------------------------------------------


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Report all work, however short, and each of its steps."""
    monkeypatch.setattr(e2e_abmilx.io.progress, "SHORT_S", 0)
    monkeypatch.setattr(e2e_abmilx.io.progress, "EVERY_S", 0)
    caplog.set_level(logging.INFO, logger="e2e_abmilx")
    return caplog


def _take_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines so far, with placeholders for speeds and times."""
    lines = [record.getMessage() for record in caplog.records if record.name == "e2e_abmilx.io.progress"]
    caplog.clear()
    return [re.sub(r"\d+ patches", "N patches", re.sub(r"\d:\d\d:\d\d", "T", line)) for line in lines]


def test_each_command_counts_its_slides(cohort: Path, tmp_path: Path, every_step: pytest.LogCaptureFixture) -> None:
    slides = sorted((cohort / "slides").glob("*.tiff"))[:3]
    cache_slides(slides[:1], tmp_path / "out", patch_size=64, workers=1, dry_run=True)
    assert _take_lines(every_step) == ["planning: 1 of 1 slides, N patches/s, T elapsed"]

    cache_slides(slides[:1], tmp_path / "out", patch_size=64, workers=1)
    _take_lines(every_step)
    (tmp_path / "bad.tiff").write_text("not a slide")
    cache_slides([*slides, tmp_path / "bad.tiff"], tmp_path / "out", patch_size=64, workers=1)
    assert _take_lines(every_step) == [
        "caching: 2 of 4 slides, N patches/s, T elapsed, about T to go",
        "caching: 3 of 4 slides, N patches/s, T elapsed, about T to go",
        "caching: 4 of 4 slides, N patches/s, 1 failed, T elapsed",
    ]

    verify(tmp_path / "out")
    assert _take_lines(every_step) == [
        "verifying: 1 of 3 slides, T elapsed, about T to go",
        "verifying: 2 of 3 slides, T elapsed, about T to go",
        "verifying: 3 of 3 slides, T elapsed",
    ]

    write_cohort(tmp_path / "cohort", slides=24, side=256)
    assert _take_lines(every_step)[11] == "drawing: 12 of 24 slides, T elapsed, about T to go"


# A terminal and a pipe ------------------------------------------------------------------------------------------

_WORK = """
from e2e_abmilx.io.progress import show_progress, track
for store in track("abc", "verifying", "stores"):
    pass
with show_progress("caching", 40, "slides", ready=37) as progress:
    for failed in range(2):
        progress.advance(f"{failed} failed")
"""
_LONG = "import e2e_abmilx.io.progress; e2e_abmilx.io.progress.SHORT_S = 0\n"  # all work counts as long
_SHOWN = "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
_QUIET = "import logging; logging.getLogger('e2e_abmilx').setLevel(logging.WARNING)\n"


def _in_a_terminal(code: str) -> str:
    """Return the output of a process in a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    sent = b""
    # on Linux, the end of the output raises an error
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
        while part := terminal.read(4096):
            sent += part
    assert process.wait() == 0, sent.decode()
    return sent.decode()


def _screen(sent: str) -> list[str]:
    """Return the lines that are visible at the end."""
    lines = (line.rstrip("\r").split("\r")[-1].strip() for line in sent.split("\n"))
    return [line for line in lines if line]


def _in_a_pipe(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("log", ["", _SHOWN])
def test_a_terminal_shows_bars_which_stay_after_long_work(log: str) -> None:
    sent = _in_a_terminal(log + _LONG + _WORK)
    assert re.search(r"\rverifying:   0%\|.*\| 0 of 3 stores \[00:00<\?\]", sent)
    verifying, caching = _screen(sent)
    assert re.fullmatch(r"verifying: 100%\|█+\| 3 of 3 stores \[00:00<00:00\]", verifying)
    assert re.fullmatch(r"caching:  98%\|█+▉? *\| 39 of 40 slides \[00:00<00:00, 1 failed\]", caching)


def test_a_bar_is_removed_after_short_work() -> None:
    sent = _in_a_terminal(_WORK)
    assert "37 of 40 slides" in sent
    assert _screen(sent) == []


def test_a_quiet_log_hides_bars_and_lines() -> None:
    assert _in_a_terminal(_QUIET + _LONG + _WORK) == ""
    assert _in_a_pipe(_SHOWN + _QUIET + _LONG + _WORK) == ""


def test_a_pipe_gets_lines_of_the_log_and_none_of_short_work() -> None:
    assert _in_a_pipe(_SHOWN + _LONG + _WORK).splitlines() == [
        "verifying: 1 of 3 stores, 0:00:00 elapsed, about 0:00:00 to go",
        "verifying: 3 of 3 stores, 0:00:00 elapsed",
        "caching: 38 of 40 slides, 0 failed, 0:00:00 elapsed, about 0:00:00 to go",
        "caching: 39 of 40 slides, 1 failed, 0:00:00 elapsed, about 0:00:00 to go",
    ]
    assert _in_a_pipe(_SHOWN + _WORK) == ""
    assert _in_a_pipe(_LONG + _WORK) == ""  # the log is not set up


def test_commands_show_bars_in_a_terminal_and_only_their_result_in_a_pipe(cohort: Path, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "slides").mkdir(exist_ok=True)
        (tmp_path / f"slides/{number}.tiff").symlink_to(cohort / f"slides/slide-00{number}.tiff")
    words = ["cache", "--slides", str(tmp_path / "slides"), "--patch_size", "64", "--workers", "1", "--out"]
    run = f"from e2e_abmilx.main import main; main({words!r} + [{str(tmp_path)!r} + '/{{}}'])"
    sent = _in_a_terminal(run.format("one"))
    assert "caching:   0%|" in sent
    (result,) = _screen(sent)
    assert result.startswith("INFO: 2 slides, ")
    (result,) = _in_a_pipe(run.format("two")).splitlines()
    assert result.startswith("INFO: 2 slides, ")
