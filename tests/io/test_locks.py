"""Locks between processes, released however a process ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from e2e_abmilx.io.locks import hold, is_held

HOLDER = """
import sys, time
from pathlib import Path
from e2e_abmilx.io.locks import hold
with hold(Path(sys.argv[1]), wait=False) as ours:
    print("mine" if ours else "taken", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "mine"
    return process


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold(path, wait=False) as first, hold(path, wait=False) as second:
        assert (first, second) == (True, False)
        assert is_held(path) is True
    assert not path.exists()
    assert is_held(path) is None


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = _holder(path, 0.5)
    with hold(path, wait=False) as ours:
        assert not ours
    with hold(path, wait=True) as ours:
        assert ours
        assert process.wait(timeout=10) == 0


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = _holder(path, 60)
    assert is_held(path) is True
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert is_held(path) is False
    with hold(path, wait=False) as ours:
        assert ours
    assert is_held(path) is None


def test_an_error_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    try:
        with hold(path, wait=False):
            raise RuntimeError
    except RuntimeError:
        pass
    assert not path.exists()


def test_the_folder_may_vanish_while_locks_are_held(tmp_path: Path) -> None:
    path = tmp_path / "locks/x.lock"
    with hold(path, wait=False) as first:
        shutil.rmtree(path.parent)
        with hold(path, wait=False) as second:  # the first lock can no longer be seen
            assert (first, second) == (True, True)
        assert path.parent.is_dir()
    with hold(path, wait=True) as ours:
        assert ours


def test_processes_that_take_turns_never_meet_a_missing_folder(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom e2e_abmilx.io.locks import hold\n"
        "for turn in range(300):\n"
        "    with hold(Path(sys.argv[1]) / f'{turn % 3}.lock', wait=turn % 2 == 0):\n        pass\n"
    )
    folder = tmp_path / "locks"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for _ in range(3)]
    while any(process.poll() is None for process in processes):
        shutil.rmtree(folder, ignore_errors=True)  # as an earlier version of the package or a person may do
    assert [process.returncode for process in processes] == [0, 0, 0]
