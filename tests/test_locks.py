import os
import signal
import subprocess
import sys
from pathlib import Path

from e2e_abmilx.locks import hold, is_abandoned

HOLDER = """
import sys, time
from pathlib import Path
from e2e_abmilx.locks import hold
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
        assert not is_abandoned(path)
    assert not path.exists()


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = _holder(path, 0.5)
    with hold(path, wait=False) as ours:
        assert not ours
    with hold(path, wait=True) as ours:
        assert ours
        assert process.wait(timeout=10) == 0


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = _holder(path, 60)
    assert not is_abandoned(path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert is_abandoned(path)
    with hold(path, wait=False) as ours:
        assert ours
    assert not is_abandoned(path)


def test_a_failure_inside_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    try:
        with hold(path, wait=False):
            raise RuntimeError
    except RuntimeError:
        pass
    assert not path.exists()
