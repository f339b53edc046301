"""Temporary folders go when their block ends, and those of killed processes when the next one begins."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.scratch import scratch

HOLDING = """
import time
from e2e_abmilx.io.scratch import scratch
with scratch() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which this and child processes make temporary folders."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_the_folder_is_removed_also_after_an_error(disk: Path) -> None:
    with scratch() as one, scratch() as other:
        (one / "file").touch()
        assert one != other
        assert one.parent.stat().st_mode & 0o077 == 0
    with contextlib.suppress(ValueError), scratch() as folder:
        (folder / "file").touch()
        raise ValueError
    assert list(disk.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_others_use_stays(disk: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    held = Path(holder.stdout.readline().strip())
    foreign = disk / "e2e-abmilx-notes"  # somebody's own folder, without a lock
    foreign.mkdir()
    try:
        with scratch():
            assert (held / "file").exists()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert (held / "file").exists()
    with scratch() as own:
        assert sorted(disk.iterdir()) == sorted([foreign, own.parent])


def test_a_link_in_a_shared_folder_is_not_followed(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    precious = tmp_path_factory.mktemp("precious")
    (precious / "lock").write_text("not to be emptied")
    (disk / "e2e-abmilx-link").symlink_to(precious)
    with scratch():
        pass
    assert (precious / "lock").exists()


def test_a_disk_that_cannot_be_written_is_named(disk: Path) -> None:
    with scratch():
        pass
    shutil.rmtree(disk)
    with pytest.raises(InputError, match=r"no temporary folder can be made .* set TMPDIR"), scratch():
        pass
