"""Windows is refused at import, and loaders work with the start method of macOS."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINDOWS = "import sys; sys.platform = 'win32'; import e2e_abmilx"
#: What macOS lacks is removed first; the main module is imported again by every worker that is spawned.
SPAWN = """
import multiprocessing, os, sys
import torch
from e2e_abmilx import SlideDataModule

def bags(workers):
    data = SlideDataModule(
        sys.argv[1], sys.argv[2], columns={"label": "lesion"}, patches_per_bag=8, eval_chunk_size=7, num_workers=workers
    )
    data.setup("fit")
    return [bag for loader in (data.train_dataloader(), data.val_dataloader()) for bag in loader]

if __name__ == "__main__":
    for name in ("sched_getaffinity", "posix_fadvise"):
        vars(os).pop(name, None)
    multiprocessing.set_start_method("spawn")
    torch.multiprocessing.set_sharing_strategy("file_system")  # the only one of macOS
    here, spawned = bags(0), bags(1)
    assert len(here) == len(spawned) > 2
    assert all(torch.equal(one.patches, other.patches) for one, other in zip(here, spawned))
    print("equal")
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_windows_is_refused_at_import() -> None:
    done = _run("-c", WINDOWS)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: this Python runs on Windows (sys.platform is 'win32')")
    assert "needs the file locks and positioned reads of Linux or macOS" in message
    assert "install it in WSL2" in message


@pytest.mark.slow  # it imports the package four times
def test_spawned_workers_load_the_same_bags(cohort: Path, stores: Path, tmp_path: Path) -> None:
    (tmp_path / "spawn.py").write_text(SPAWN)
    done = _run(str(tmp_path / "spawn.py"), str(stores), str(cohort / "labels.csv"))
    assert done.stdout.split() == ["equal"], done.stderr
