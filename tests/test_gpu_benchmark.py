"""The GPU benchmark: sections are independent, results are kept, tables are readable, and all sections run."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu.py"
#: Columns of counts and ratios; the names of all other columns of numbers end with a unit.
COUNTS = {"readers", "patches", "N", "loop / bare", "times faster"}
UNITS = ("patches/s", " s", " GB", " %", "ms")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def run_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run sections, given as bodies of ``run(settings, rows)``; returns whether all succeeded, and the folder."""
    from gpu_sections import Section
    from gpu_sections.runner import Runner

    def run(*bodies: str, limit_s: float = 60, minutes: float = 1) -> tuple[bool, Path]:
        sections = []
        for number, body in enumerate(bodies):
            module = f"a_section_{number}"
            code = "def run(settings, rows):\n" + textwrap.indent(textwrap.dedent(body), "    ")
            (tmp_path / f"{module}.py").write_text(code)
            sections.append(Section(f"s{number}", f"Section {number}", limit_s, module))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        runner = Runner(tmp_path / "out", device="cpu", tiny=True, minutes=minutes)
        return runner.run(sections), tmp_path / "out"

    return run


def ends(out: Path) -> list[str]:
    lines = map(json.loads, (out / "gpu.jsonl").read_text().splitlines())
    return [line["end"]["outcome"] for line in lines if "end" in line]


def test_sections_that_succeed_are_done(run_sections) -> None:
    good, out = run_sections("rows.add({'patches/s': 12345})", "rows.note('Nothing to do.')")
    assert good
    assert ends(out) == ["done", "done"]
    assert "12,345" in (out / "gpu.txt").read_text()


def test_a_section_that_raises_does_not_stop_the_others(run_sections) -> None:
    body = "rows.add({'patches/s': 1})\nraise ValueError('no such patch')"
    good, out = run_sections(body, "rows.add({'patches/s': 2})")
    assert not good
    assert ends(out) == ["failed", "done"]
    table = (out / "gpu.txt").read_text()
    assert "FAILED: s0: ValueError" in table
    assert "ValueError: no such patch" in table
    assert "raise ValueError" in table


def test_a_row_that_raises_does_not_stop_the_others(run_sections) -> None:
    body = """
        for number in (1, 0, 2):
            with rows.guard(f"row {number}"):
                rows.add({"patches/s": 84 / number})
    """
    good, out = run_sections(body)
    assert not good
    assert ends(out) == ["failed"]
    table = (out / "gpu.txt").read_text()
    assert "84.0" in table
    assert "42.0" in table
    assert "FAILED: row 0: ZeroDivisionError" in table


def test_a_section_that_hangs_is_killed_with_its_children_and_keeps_its_rows(run_sections, tmp_path: Path) -> None:
    body = """
        import pathlib, subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        rows.add({"pid": child.pid})
        time.sleep(600)
    """
    started = time.monotonic()
    good, out = run_sections(body, "rows.add({'patches/s': 2})", limit_s=5)
    assert time.monotonic() - started < 60
    assert not good
    assert ends(out) == ["stopped at its limit of 5 s", "done"]
    pid = next(
        line["row"]["pid"] for line in map(json.loads, (out / "gpu.jsonl").read_text().splitlines()) if "row" in line
    )
    assert f"{pid:,}" in (out / "gpu.txt").read_text()
    assert not _runs(pid)


def test_a_crash_is_reported_with_the_last_output(run_sections) -> None:
    body = """
        import os, signal
        rows.add({"patches/s": 77})
        print("an illegal memory access was encountered", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    """
    good, out = run_sections(body, "rows.add({'patches/s': 2})")
    assert not good
    assert ends(out) == ["failed", "done"]
    table = (out / "gpu.txt").read_text()
    assert "the process ended with signal SIGSEGV" in table
    assert "an illegal memory access was encountered" in table
    assert "77" in table


def test_no_section_starts_without_time_left(run_sections) -> None:
    good, out = run_sections("rows.note('here')", minutes=0.01)
    assert not good
    assert ends(out) == ["not started: no time was left"]


def test_the_scratch_folder_is_removed_after_a_section(run_sections) -> None:
    body = """
        import tempfile
        (settings.scratch / "store").mkdir()
        rows.facts({"scratch": str(settings.scratch), "tmp": tempfile.gettempdir()})
    """
    good, out = run_sections(body)
    assert good
    facts = json.loads((out / "gpu.jsonl").read_text().splitlines()[0])["facts"]
    assert facts["tmp"] == facts["scratch"]
    assert not Path(facts["scratch"]).exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0, 1])
def test_the_section_ends_when_the_runner_is_stopped(tmp_path: Path, how: signal.Signals, after_s: float) -> None:
    if signal.getsignal(how) is signal.SIG_IGN:
        pytest.skip(f"{how.name} is ignored here, and so by all child processes")
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--only", "heads", "--out", str(tmp_path)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, **quiet) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (started := children.read_text().split()):
            time.sleep(0.05)
        time.sleep(after_s)
        process.send_signal(how)
        assert process.wait(timeout=30) != 0
    deadline = time.monotonic() + 10
    while _runs(int(started[0])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(int(started[0]))


def test_an_incomplete_line_is_ignored(tmp_path: Path) -> None:
    from gpu_sections.rows import Rows, read_lines

    file = tmp_path / "gpu.jsonl"
    Rows(file, "heads").add({"N": 4000})
    with file.open("a") as lines:
        lines.write('{"section": "heads", "ro')
    assert read_lines(file) == [{"section": "heads", "row": {"N": 4000}}]


def test_targets_are_met_or_missed(tmp_path: Path) -> None:
    from gpu_sections.rows import Rows, read_lines
    from gpu_sections.table import show_section

    rows = Rows(tmp_path / "gpu.jsonl", "training")
    rows.target("resnet18, patches/s", 13_000, at_least=12_000)
    rows.target("resnet50, loop / bare", 0.85, at_least=0.9)
    rows.target("memory", 0.30, at_most=0.33)
    rows.target("memory of another", 0.40, at_most=0.33)
    rows.write("end", {"outcome": "done", "seconds": 1, "limit_s": 9})
    text = show_section("Training", read_lines(rows.file))
    assert "resnet18, patches/s 13,000 (≥ 12,000): met" in text
    assert "resnet50, loop / bare 0.85 (≥ 0.90): MISSED" in text
    assert "memory 0.30 (≤ 0.33): met" in text
    assert "memory of another 0.40 (≤ 0.33): MISSED" in text


def test_columns_are_aligned_and_unknown_values_are_dashes() -> None:
    from gpu_sections.table import show_rows

    table = show_rows(
        [
            {"encoder": "resnet18", "patches/s": 13_210.4, "peak GB": 41.26, "GPU busy %": None},
            {"encoder": "r50", "patches/s": 980.0, "peak GB": None, "GPU busy %": None},
            {"encoder": "a long name", "patches/s": 0.043, "loop / bare": 0.9},
        ]
    )
    assert table == [
        "  encoder      patches/s  peak GB  loop / bare",
        "  resnet18        13,210     41.3            -",
        "  r50                980        -            -",
        "  a long name      0.043        -         0.90",
    ]


def test_the_script_refuses_a_machine_without_cuda(tmp_path: Path) -> None:
    done = _run_script("--only", "environment", "--out", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "torch finds no CUDA device here; --device cpu --tiny rehearses on a CPU" in done.stdout


@pytest.mark.slow
def test_two_sections_run(tmp_path: Path) -> None:
    _rehearse(tmp_path, "environment", "heads")


@pytest.mark.slow
def test_all_sections_run(tmp_path: Path) -> None:
    from gpu_sections import SECTIONS

    started = time.monotonic()
    lines = _rehearse(tmp_path, *(section.name for section in SECTIONS))
    assert time.monotonic() - started < 180
    for name in ("training", "compiling", "inference", "decoding", "heads"):
        assert sum(line["section"] == name and "row" in line for line in lines) >= 2, name
    assert any(line["section"] == "tests" and line.get("facts", {}).get("collected", 0) > 0 for line in lines)
    encoders = {line["row"]["encoder"] for line in lines if line["section"] == "training" and "row" in line}
    assert encoders == {"resnet18", "resnet50"}


def test_all_sections_but_the_last_fit_into_nine_minutes() -> None:
    from gpu_sections import SECTIONS

    assert sum(section.limit_s for section in SECTIONS[:-1]) <= 9 * 60


def test_each_wheel_is_pinned_once() -> None:
    script = (BENCHMARKS / "gpu_wheels.sh").read_text()
    packages = re.search(r"packages=\(\n(.*?)\n\)", script, re.DOTALL)
    assert packages
    pins = re.sub(r"#.*", "", packages.group(1)).split()
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+(post\d+)?", pin) for pin in pins), pins
    names = [pin.partition("==")[0] for pin in pins]
    assert len(set(names)) == len(names) > 10


def _rehearse(out: Path, *sections: str) -> list[dict[str, Any]]:
    """Run sections with tiny sizes, check their files, and return the lines."""
    done = _run_script("--device", "cpu", "--tiny", "--out", str(out), "--only", *sections)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    assert [(line["section"], line["end"]["outcome"]) for line in lines if "end" in line] == [
        (section, "done") for section in sections
    ]
    table = (out / "gpu.txt").read_text()
    assert max(map(len, table.splitlines())) <= 120
    assert set(table.splitlines()) <= set(done.stdout.splitlines())
    for line in lines:
        for column, value in line.get("row", {}).items():
            assert isinstance(value, str | None) or column in COUNTS or column.endswith(UNITS), column
    return lines


def _run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def _runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
