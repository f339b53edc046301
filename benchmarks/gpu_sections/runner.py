"""The runner: sections one after another, each in a process that is killed at its time limit."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_sections import Section
from gpu_sections.rows import Rows, last_lines, read_lines
from gpu_sections.table import show_section, show_summary

BENCHMARKS = Path(__file__).parents[1]
LEAST_S = 5  # a section is not started with less time left


class Runner:
    """Run sections and keep three files up to date.

    Args:
        out: Folder of ``gpu.jsonl``, ``gpu.txt`` and ``gpu.log``, which are overwritten.
        device: ``"cuda"`` or ``"cpu"``.
        tiny: Whether this is a rehearsal.
        minutes: Time limit of all sections together.
    """

    def __init__(self, out: Path, *, device: str, tiny: bool, minutes: float) -> None:
        self.device, self.tiny = device, tiny
        self.deadline = time.monotonic() + 60 * minutes
        self.lines, self.table, self.log = (out.resolve() / name for name in ("gpu.jsonl", "gpu.txt", "gpu.log"))
        self._shown: list[str] = []

    def run(self, sections: Sequence[Section]) -> bool:
        """Run sections and report whether all of them ended without failure."""
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.lines, self.table, self.log):
            file.write_bytes(b"")
        for section in sections:
            limit = max(0.0, min(section.limit_s, self.deadline - time.monotonic()))
            print(f"… {section.title} (at most {limit:.0f} s)", flush=True)
            started = time.monotonic()
            outcome = self._run_section(section, limit) if limit >= LEAST_S else "not started: no time was left"
            self._close(section, outcome, time.monotonic() - started, limit)
        lines = read_lines(self.lines)
        self._show(show_summary(sections, lines))
        print(f"{self.table} has these tables, {self.lines.name} the single results, {self.log.name} the output.")
        return all(line["end"]["outcome"] == "done" for line in lines if "end" in line)

    def _run_section(self, section: Section, limit: float) -> str:
        with (
            tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as scratch,
            self.log.open("ab") as log,
        ):
            log.write(f"==== {section.name}\n".encode())
            log.flush()
            start = log.tell()
            child = subprocess.Popen(
                self._command(section, scratch, limit),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=BENCHMARKS.parent,
                env=_environment(scratch, tiny=self.tiny),
                process_group=0,  # so that its data loading processes end with it
            )
            try:
                status = child.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                return f"stopped at its limit of {limit:.0f} s"
            finally:
                _kill_group(child)
        if status:
            printed = self.log.read_bytes()[start:].decode(errors="replace")
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            Rows(self.lines, section.name).fail(f"the process ended with {how}", last_lines(printed))
        return "done"

    def _command(self, section: Section, scratch: str, limit: float) -> list[str]:
        command = [sys.executable, "-m", "gpu_sections.child", section.module, "--name", section.name]
        command += ["--lines", str(self.lines), "--device", self.device, "--scratch", scratch]
        command += ["--parent", str(os.getpid()), "--seconds", str(limit)]
        return [*command, "--tiny"] if self.tiny else command

    def _close(self, section: Section, outcome: str, seconds: float, limit: float) -> None:
        own = [line for line in read_lines(self.lines) if line["section"] == section.name]
        if outcome == "done" and any("failure" in line for line in own):
            outcome = "failed"
        end = {"outcome": outcome, "seconds": round(seconds, 1), "limit_s": round(limit, 1)}
        Rows(self.lines, section.name).write("end", end)
        self._show(show_section(section.title, [*own, {"section": section.name, "end": end}]))

    def _show(self, text: str) -> None:
        """Print a table and add it to the file of tables."""
        self._shown.append(text)
        self.table.write_text("\n".join(self._shown) + "\n", encoding="utf-8")
        print(text, flush=True)


def _environment(scratch: str, *, tiny: bool) -> dict[str, str]:
    """Put the modules of the checkout first, and temporary files where they are removed."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": scratch,
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis",
        **({"OMP_NUM_THREADS": "1"} if tiny else {}),  # more threads wait for each other on shared cores
    }


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
